//! State at heights that the overlay has let go.
//!
//! A read at height H asks the index for the first block above H that changed what is read, and takes the value from
//! before that block out of its Changes record. What no block changed since is read at the tip. Records never change,
//! and the tip's state is pinned by a view of its own, so checkpoints and blocks go on meanwhile.
//!
//! ```text
//! slot, at H     first change above H    -> its value before
//!                a wipe comes first      -> the wipe names no slot: the last change up to H -> its value after,
//!                                           zero if a wipe came after that, else its value in the genesis state
//!                neither                 -> its value at the tip
//! ```
//!
//! So the rows of storage that a wipe ended are not needed, and all of it can be told as long as the blocks are kept
//! down to the first. With older blocks gone, a slot that no kept block named before its account was wiped cannot be
//! told, and a read says so.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_primitives::{Address, B256, Bytes, U256};
use engine::{
    ports::{StateError, StateView, StoreError},
    types::{Account, AccountChange, Height, StateChanges, TrieHandle, codec},
};
use parking_lot::Mutex;

use crate::{error::Fault, index::Half, store::Inner, view::View};

/// Bytes of Changes records kept in memory, for all views: a call reads many slots that changed in one block.
const RECORD_BYTES_MAX: usize = 32 << 20;

/// Changes records that were read lately, as they were encoded.
#[derive(Default)]
pub(crate) struct Records(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    records: BTreeMap<Height, Arc<Vec<u8>>>,
    /// Heights of all of them, the one that leaves next first.
    order: VecDeque<Height>,
    bytes: usize,
}

impl Records {
    /// Forgets all of them.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        *self.0.lock() = Kept::default();
    }

    fn get(&self, inner: &Inner, height: Height) -> Result<Arc<Vec<u8>>, Fault> {
        if let Some(record) = self.0.lock().records.get(&height) {
            return Ok(Arc::clone(record));
        }
        let record = Arc::new(inner.blocks.changes(height)?);
        let mut kept = self.0.lock();
        if kept.records.insert(height, Arc::clone(&record)).is_none() {
            kept.order.push_back(height);
            kept.bytes = kept.bytes.saturating_add(record.len());
        }
        while kept.bytes > RECORD_BYTES_MAX {
            let Some(oldest) = kept.order.pop_front() else { break };
            let freed = kept.records.remove(&oldest).map_or(0, |record| record.len());
            kept.bytes = kept.bytes.saturating_sub(freed);
        }
        Ok(record)
    }
}

/// What the block at `height`, which the index names, did to an account and one of its slots.
fn change_at(inner: &Inner, height: Height, address: Address, key: Option<U256>) -> Result<AccountChange, Fault> {
    let record = inner.records.get(inner, height)?;
    let change = codec::find_change(&record, address, key)
        .map_err(|_| Fault::corrupt(format!("the changes of block {height} do not decode")))?;
    let change = change.filter(|change| key.is_none_or(|key| change.slots.contains_key(&key)));
    change.ok_or_else(|| Fault::corrupt(format!("block {height} did not change {address}, as its index says")))
}

/// An answer about the state at `height`, unless blocks that lead back to it were let go meanwhile.
fn kept<T, E: Into<StateError>>(inner: &Inner, height: Height, answer: Result<T, E>) -> Result<T, StateError> {
    if height < inner.index.lowest(Half::Changes) {
        Err(StateError::Unavailable(height))
    } else {
        answer.map_err(Into::into)
    }
}

/// The account at `height`, `None` if no block above it and up to `top` changed it.
fn account(inner: &Inner, address: Address, height: Height, top: Height) -> Result<Option<Option<Account>>, Fault> {
    let key = inner.index.keys().account(&address);
    let Some(changed) = inner.index.first_above(key, height, top)? else { return Ok(None) };
    Ok(Some(change_at(inner, changed, address, None)?.before))
}

/// The value of a slot at `height`, `None` if no block above it and up to `top` touched it.
pub(crate) fn slot(
    inner: &Inner,
    address: Address,
    key: U256,
    height: Height,
    top: Height,
) -> Result<Option<U256>, StateError> {
    kept(inner, height, found_slot(inner, address, key, height, top))
}

fn found_slot(
    inner: &Inner,
    address: Address,
    key: U256,
    height: Height,
    top: Height,
) -> Result<Option<U256>, StateError> {
    let (index, keys) = (&inner.index, inner.index.keys());
    let (slot, wipe) = (keys.slot(&address, &key), keys.wipe(&address));
    let value = |at: Height| -> Result<_, Fault> {
        let change = change_at(inner, at, address, Some(key))?;
        Ok((change.slots[&key], change.after.is_some()))
    };
    let changed = index.first_above(slot, height, top)?;
    let wiped = index.first_above(wipe, height, changed.unwrap_or(top))?;
    match (changed, wiped) {
        (None, None) => return Ok(None),
        // A block that wipes and names the slot tells the value before it as well.
        (Some(changed), wiped) if wiped.is_none_or(|wiped| wiped == changed) => {
            return Ok(Some(value(changed)?.0.before));
        }
        _ => {}
    }
    let (written, wiped) = (index.last_up_to(slot, height)?, index.last_up_to(wipe, height)?);
    match (written, wiped) {
        (Some(written), wiped) if wiped.is_none_or(|wiped| wiped <= written) => {
            let (change, is_there) = value(written)?;
            Ok(Some(if is_there { change.after } else { U256::ZERO }))
        }
        (_, Some(_)) => Ok(Some(U256::ZERO)),
        (_, None) if index.lowest(Half::Changes) == Height::GENESIS => {
            let genesis = inner.chain.alloc.get(&address).and_then(|account| account.storage.get(&key));
            Ok(Some(genesis.copied().unwrap_or_default()))
        }
        (_, None) => Err(StateError::Unavailable(height)),
    }
}

/// State after the block at one height, read back.
pub(crate) struct History {
    inner: Arc<Inner>,
    height: Height,
    /// State at the height up to which changes are looked for.
    top: View,
}

impl History {
    /// Opens the state at `height`, below that of the tip.
    pub(crate) fn open(inner: &Arc<Inner>, height: Height) -> Result<Self, StoreError> {
        let unavailable = |_| StoreError::Unavailable(height);
        let (tip, lowest) = (inner.blocks.tip().height(), inner.index.lowest(Half::Changes));
        if height > tip {
            return Err(StoreError::Unavailable(height));
        }
        if height < lowest {
            return Err(StoreError::NotKept { height, lowest });
        }
        Ok(Self { inner: Arc::clone(inner), height, top: View::open(inner, tip).map_err(unavailable)? })
    }

    /// Errors of the tip's view are those of this height.
    fn told(&self, error: StateError) -> StateError {
        if let StateError::Unavailable(_) = error { StateError::Unavailable(self.height) } else { error }
    }
}

impl StateView for History {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        match kept(&self.inner, self.height, account(&self.inner, address, self.height, self.top.height()))? {
            Some(account) => Ok(account),
            None => self.top.account(address).map_err(|error| self.told(error)),
        }
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        match slot(&self.inner, address, key, self.height, self.top.height())? {
            Some(value) => Ok(value),
            None => self.top.slot(address, key).map_err(|error| self.told(error)),
        }
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.top.code(hash)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        if height > self.height {
            Ok(None)
        } else {
            kept(&self.inner, self.height, self.top.block_hash(height)).map_err(|error| self.told(error))
        }
    }

    /// No trie leads on from here: blocks are made on the tip.
    fn root_after(&self, _: Option<&TrieHandle>, _: &StateChanges) -> Result<(B256, TrieHandle), StateError> {
        Err(StateError::Unavailable(self.height))
    }
}
