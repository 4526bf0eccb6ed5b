//! What takes the state back over some blocks.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, U256};
use engine::types::{Account, AccountChange, Height, SlotChange, StateChanges, codec};

use super::Above;
use crate::{error::Fault, store::Inner, trie::state::StateTrie};

/// An account over some blocks.
struct Back {
    /// Before the first of them.
    before: Option<Account>,
    /// After the last.
    now: Option<Account>,
    /// Whether its storage was taken.
    wiped: bool,
    /// Slots before the first block, as far as it is told, and after the last.
    slots: BTreeMap<U256, (Option<U256>, U256)>,
}

/// The state at a height, from a later one and what the blocks between changed.
pub(super) fn taken_back(
    inner: &Inner,
    newer: &StateTrie,
    height: Height,
    above: &Above,
    root: B256,
) -> Result<StateTrie, Fault> {
    let backs = gather(above);
    let trie = newer.apply(&changes(&backs, &BTreeMap::new()), &inner.snapshots)?;
    if trie.hash == root {
        return Ok(trie);
    }
    let wiped = backs.iter().filter(|(_, back)| back.wiped && back.before.is_some()).map(|(address, _)| *address);
    let storages = storages(inner, height, &wiped.collect())?;
    let trie = newer.apply(&changes(&backs, &storages), &inner.snapshots)?;
    if trie.hash == root {
        return Ok(trie);
    }
    Err(Fault::corrupt(format!("the records above {height} lead back to root {}, its header says {root}", trie.hash)))
}

fn gather(above: &Above) -> BTreeMap<Address, Back> {
    let mut backs: BTreeMap<Address, Back> = BTreeMap::new();
    for (address, change) in above.iter().flat_map(|(_, changes)| &changes.accounts) {
        let back = backs.entry(*address).or_insert_with(|| Back {
            before: change.before,
            now: None,
            wiped: false,
            slots: BTreeMap::new(),
        });
        back.now = change.after;
        for (key, slot) in &change.slots {
            // Behind a wipe nothing tells what was before it; a block that wipes tells the value before it.
            let before = (!back.wiped).then_some(slot.before);
            back.slots.entry(*key).or_insert((before, U256::ZERO));
        }
        if change.wiped || change.after.is_none() {
            back.wiped = true;
            back.slots.values_mut().for_each(|(_, now)| *now = U256::ZERO);
        }
        for (key, slot) in change.slots.iter().filter(|_| change.after.is_some()) {
            back.slots.entry(*key).and_modify(|(_, now)| *now = slot.after);
        }
    }
    backs
}

/// The changes that lead back; `storages` of wiped accounts are whole.
fn changes(backs: &BTreeMap<Address, Back>, storages: &BTreeMap<Address, BTreeMap<U256, U256>>) -> StateChanges {
    let mut changes = StateChanges::default();
    for (address, back) in backs {
        let mut change =
            AccountChange { before: back.now, after: back.before, wiped: back.wiped, ..Default::default() };
        let told = |(before, now): &(Option<U256>, U256)| {
            before.map(|after| SlotChange { before: if back.wiped { U256::ZERO } else { *now }, after })
        };
        match storages.get(address) {
            Some(slots) => {
                let whole = |after: U256| SlotChange { before: U256::ZERO, after };
                change.slots.extend(slots.iter().map(|(key, value)| (*key, whole(*value))));
            }
            None => change.slots.extend(back.slots.iter().filter_map(|(key, slot)| Some((*key, told(slot)?)))),
        }
        changes.accounts.insert(*address, change);
    }
    changes
}

/// The whole storage of some accounts at a height, from all records up to it.
fn storages(
    inner: &Inner,
    height: Height,
    accounts: &BTreeSet<Address>,
) -> Result<BTreeMap<Address, BTreeMap<U256, U256>>, Fault> {
    if inner.segments.lowest() > Height::GENESIS {
        let text = format!("the blocks that tell which slots {} accounts had at {height} are not kept", accounts.len());
        return Err(Fault::Failed(text));
    }
    let genesis = |address| inner.chain.alloc.get(address).map(|account| account.storage.clone()).unwrap_or_default();
    let mut storages: BTreeMap<_, _> = accounts.iter().map(|address| (*address, genesis(address))).collect();
    for at in (1..=height.0).map(Height) {
        let changes = codec::decode_changes(&inner.blocks.changes(at)?)
            .map_err(|_| Fault::corrupt(format!("the changes of block {at} do not decode")))?;
        for (address, slots) in &mut storages {
            let Some(change) = changes.accounts.get(address) else { continue };
            if change.wiped || change.after.is_none() {
                slots.clear();
            }
            if change.after.is_some() {
                slots.extend(change.slots.iter().map(|(key, slot)| (*key, slot.after)));
            }
        }
    }
    for slots in storages.values_mut() {
        slots.retain(|_, value| !value.is_zero());
    }
    Ok(storages)
}
