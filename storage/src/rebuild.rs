//! The state root from scratch: flat rows and the changes above them, nothing of the stored trie.
//!
//! The oracle behind crash tests and `sluice db root`. Streams the tables in order of hash into
//! alloy's hash builder, which shares no code with ours; only what changed since the checkpoint is
//! held in memory.

use std::{collections::BTreeMap, ops::ControlFlow};

use alloy_primitives::{B256, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount};
use engine::types::Account;

use crate::{
    error::Fault,
    snapshot::StateSnapshot,
    store::Inner,
    tables::{self, AccountRow},
};

#[derive(Default)]
struct Changed {
    account: Option<Account>,
    /// Whether the stored slots are gone.
    wiped: bool,
    slots: BTreeMap<B256, U256>,
}

/// Computes the root at the tip.
pub(crate) fn root(inner: &Inner) -> Result<B256, Fault> {
    // A checkpoint may replace the snapshot at any time; this one stays what it is, and the changes
    // above it are kept as long as the pin.
    let snapshot = inner.snapshots.current();
    inner.overlay.pin(snapshot.applied);
    let tip = inner.blocks.tip().height();
    let outcome = (|| {
        if inner.overlay.floor() > snapshot.applied {
            return Err(Fault::Failed("a checkpoint overtook the computation; try again".to_owned()));
        }
        let mut changed: BTreeMap<B256, Changed> = BTreeMap::new();
        for (height, changes) in inner.overlay.changes_above(snapshot.applied) {
            if height > tip {
                break;
            }
            for (address, change) in &changes.accounts {
                let entry = changed.entry(keccak256(address)).or_default();
                entry.account = change.after;
                if change.wiped || change.after.is_none() {
                    entry.wiped = true;
                    entry.slots.clear();
                }
                let slots = change.slots.iter().filter(|_| change.after.is_some());
                entry.slots.extend(slots.map(|(key, slot)| (keccak256(key.to_be_bytes::<32>()), slot.after)));
            }
        }
        accounts_root(&snapshot, changed)
    })();
    inner.overlay.unpin(snapshot.applied);
    outcome
}

fn accounts_root(snapshot: &StateSnapshot, changed: BTreeMap<B256, Changed>) -> Result<B256, Fault> {
    let mut builder = HashBuilder::default();
    let mut changed = changed.into_iter().peekable();
    let mut failure = None;
    let mut after: Option<B256> = None;
    // Rows are read in slices: the storage of an account is read between two of them.
    loop {
        let mut rows = Vec::with_capacity(1_024);
        let start = after.map_or(Some(B256::ZERO), next_key);
        if let Some(start) = start {
            snapshot.rows().scan(tables::ACCOUNT, start.as_slice(), |key, row| {
                let last = rows.last().map_or(after, |(last, _)| Some(*last));
                match (B256::try_from(key), AccountRow::decode(row)) {
                    (Ok(key), Some(row)) if last.is_none_or(|last| key > last) => rows.push((key, row)),
                    (Ok(_), Some(_)) => failure = Some(Fault::corrupt("account rows are not in order")),
                    _ => failure = Some(Fault::corrupt("an account row does not decode")),
                }
                if rows.len() < 1_024 && failure.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        if let Some(fault) = failure {
            return Err(fault);
        }
        let Some((last, _)) = rows.last() else { break };
        after = Some(*last);
        for (key, row) in rows {
            while let Some((new, change)) = changed.next_if(|(other, _)| *other < key) {
                add_account(snapshot, &mut builder, new, None, Some(change))?;
            }
            let change = changed.next_if(|(other, _)| *other == key).map(|(_, change)| change);
            add_account(snapshot, &mut builder, key, Some(row), change)?;
        }
    }
    for (key, change) in changed {
        add_account(snapshot, &mut builder, key, None, Some(change))?;
    }
    Ok(builder.root())
}

fn next_key(key: B256) -> Option<B256> {
    U256::from_be_bytes(key.0).checked_add(U256::ONE).map(B256::from)
}

fn add_account(
    snapshot: &StateSnapshot,
    builder: &mut HashBuilder,
    key: B256,
    row: Option<AccountRow>,
    change: Option<Changed>,
) -> Result<(), Fault> {
    let account = match &change {
        Some(change) => change.account,
        None => row.as_ref().map(|row| row.account),
    };
    let Some(account) = account else { return Ok(()) };
    let wiped = change.as_ref().is_some_and(|change| change.wiped);
    let id = row.map_or(0, |row| row.storage_id);
    let storage_root = storage_root(snapshot, if wiped { 0 } else { id }, change.map(|change| change.slots))?;
    let leaf =
        TrieAccount { nonce: account.nonce, balance: account.balance, storage_root, code_hash: account.code_hash };
    builder.add_leaf(Nibbles::unpack(key), &alloy_rlp::encode(leaf));
    Ok(())
}

fn storage_root(snapshot: &StateSnapshot, id: u64, changed: Option<BTreeMap<B256, U256>>) -> Result<B256, Fault> {
    let mut builder = HashBuilder::default();
    let mut changed = changed.unwrap_or_default().into_iter().peekable();
    let mut any = false;
    let mut buffer = Vec::with_capacity(40);
    let mut add = |key: B256, value: U256| {
        if !value.is_zero() {
            any = true;
            buffer.clear();
            value.encode(&mut buffer);
            builder.add_leaf(Nibbles::unpack(key), &buffer);
        }
    };
    let (mut failure, mut last) = (None, None);
    if id != 0 {
        snapshot.rows().scan(tables::STORAGE, &tables::storage_key(id, &B256::ZERO), |key, value| {
            let Some(hashed) = key.strip_prefix(&id.to_be_bytes()) else { return ControlFlow::Break(()) };
            let (Ok(key), Some(stored)) = (B256::try_from(hashed), U256::try_from_be_slice(value)) else {
                failure = Some(Fault::corrupt(format!("a storage row of {id} does not decode")));
                return ControlFlow::Break(());
            };
            if last.replace(key).is_some_and(|last| key <= last) {
                failure = Some(Fault::corrupt(format!("storage rows of {id} are not in order")));
                return ControlFlow::Break(());
            }
            while let Some((new, value)) = changed.next_if(|(other, _)| *other < key) {
                add(new, value);
            }
            let value = changed.next_if(|(other, _)| *other == key).map_or(stored, |(_, value)| value);
            add(key, value);
            ControlFlow::Continue(())
        })?;
    }
    if let Some(fault) = failure {
        return Err(fault);
    }
    for (key, value) in changed {
        add(key, value);
    }
    Ok(if any { builder.root() } else { EMPTY_ROOT_HASH })
}
