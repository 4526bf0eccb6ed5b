//! Snapshots of the state environment, and which heights they hold.
//!
//! One snapshot is current: the newest checkpoint. Views share it, so opening a view costs a few
//! reference counts. A checkpoint replaces the current snapshot; older ones live while a view uses
//! them, and that view's pin holds back the overlay's pruning.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use engine::types::Height;
use parking_lot::RwLock;

use crate::{
    error::Fault,
    kv::{KvError, Snapshot, Table},
    tables::{self, AccountRow, storage_key},
    trie::{
        node::{Key as _, Kind, Link, Origin, TrieError},
        record,
        state::{AccountLeaf, StateSource},
    },
};

/// The state environment as of one checkpoint.
pub(crate) struct StateSnapshot {
    rows: Snapshot,
    /// Height whose state this is.
    pub(crate) applied: Height,
}

impl StateSnapshot {
    pub(crate) const fn new(rows: Snapshot, applied: Height) -> Self {
        Self { rows, applied }
    }

    /// The rows themselves.
    pub(crate) const fn rows(&self) -> &Snapshot {
        &self.rows
    }

    /// The account row under a hashed address.
    pub(crate) fn account(&self, hashed: &B256) -> Result<Option<AccountRow>, Fault> {
        let row = self.rows.get(tables::ACCOUNT, hashed.as_slice(), AccountRow::decode)?;
        match row {
            Some(None) => Err(Fault::corrupt(format!("account row {hashed} does not decode"))),
            Some(row) => Ok(row),
            None => Ok(None),
        }
    }

    /// The value of a slot in one incarnation's rows.
    pub(crate) fn slot(&self, id: u64, hashed_slot: &B256) -> Result<U256, Fault> {
        let value = self.rows.get(tables::STORAGE, &storage_key(id, hashed_slot), U256::try_from_be_slice)?;
        match value {
            Some(None) => Err(Fault::corrupt(format!("storage row {id} {hashed_slot} does not decode"))),
            Some(Some(value)) => Ok(value),
            None => Ok(U256::ZERO),
        }
    }

    fn node<V>(&self, table: Table, key: &[u8]) -> Result<Option<Link<B256, V>>, TrieError> {
        Ok(self.rows.get(table, key, record::decode).map_err(unreadable)?.flatten())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn unreadable(error: KvError) -> TrieError {
    TrieError::Unreadable(error.to_string())
}

/// The current snapshot; older ones live as long as a view holds them.
pub(crate) struct Snapshots {
    current: RwLock<Arc<StateSnapshot>>,
}

impl Snapshots {
    pub(crate) fn new(first: StateSnapshot) -> Self {
        Self { current: RwLock::new(Arc::new(first)) }
    }

    /// One snapshot for good.
    pub(crate) const fn pinned(snapshot: Arc<StateSnapshot>) -> Self {
        Self { current: RwLock::new(snapshot) }
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Arc<StateSnapshot> {
        Arc::clone(&self.current.read())
    }

    /// Makes `next` the newest snapshot.
    pub(crate) fn replace(&self, next: StateSnapshot) {
        *self.current.write() = Arc::new(next);
    }
}

/// The prefix of hashed keys under a position, filled up with zeros.
pub(crate) fn first_key(position: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    record::pack(position, out);
    out.resize(start + 32, 0);
}

/// Whether a position is above a hashed key.
pub(crate) fn below(position: &[u8], hashed: &B256) -> bool {
    position.iter().enumerate().all(|(index, nibble)| hashed.nibble(index) == *nibble)
}

impl StateSource for Snapshots {
    fn account_node(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, AccountLeaf>>, TrieError> {
        let snapshot = self.current();
        if kind != Kind::Leaf {
            let mut key = Vec::with_capacity(33);
            record::position_key(position, &mut key);
            let branch = snapshot.node(tables::ACCOUNT_NODE, &key)?;
            if branch.is_some() || kind == Kind::Branch {
                return Ok(branch);
            }
        }
        let mut key = Vec::with_capacity(32);
        first_key(position, &mut key);
        let leaf = snapshot
            .rows
            .seek(tables::ACCOUNT, &key, |key, row| {
                let key = B256::try_from(key).ok().filter(|key| below(position, key))?;
                Some(Link::leaf(key, AccountRow::decode(row)?.leaf(), Origin::Read))
            })
            .map_err(unreadable)?;
        Ok(leaf.flatten())
    }

    fn storage_node(&self, id: u64, position: &[u8], kind: Kind) -> Result<Option<Link<B256, U256>>, TrieError> {
        let snapshot = self.current();
        if kind != Kind::Leaf {
            let mut key = id.to_be_bytes().to_vec();
            record::position_key(position, &mut key);
            let branch = snapshot.node(tables::STORAGE_NODE, &key)?;
            if branch.is_some() || kind == Kind::Branch {
                return Ok(branch);
            }
        }
        let mut key = id.to_be_bytes().to_vec();
        first_key(position, &mut key);
        let leaf = snapshot
            .rows
            .seek(tables::STORAGE, &key, |key, value| {
                let (row_id, hashed) = key.split_at_checked(8)?;
                let key = B256::try_from(hashed).ok().filter(|key| below(position, key))?;
                let value = U256::try_from_be_slice(value)?;
                (row_id == id.to_be_bytes()).then(|| Link::leaf(key, value, Origin::Read))
            })
            .map_err(unreadable)?;
        Ok(leaf.flatten())
    }
}
