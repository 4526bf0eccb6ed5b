//! The nodes of the state's tries as they were at one height.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use engine::types::Height;

use super::{
    entry::{self, Partial, Told},
    file::{PastFile, Row},
};
use crate::{
    error::Fault,
    snapshot::{Snapshots, StateSnapshot, below, first_key},
    tables::{self, AccountRow},
    trie::{
        node::{Kind, Link, Origin, TrieError},
        state::{AccountLeaf, StateSource},
    },
};

/// Keys below a position that are looked at in search of the one that was there: one leaf has become many since.
const LEAVES_MAX: usize = 65_536;

/// A hashed key, with its row in the snapshot.
type Candidate = (B256, Option<Vec<u8>>);

/// The tries at a height at or below that of a snapshot.
pub(crate) struct PastState {
    pub(super) height: Height,
    pub(super) snapshot: Arc<StateSnapshot>,
    /// The same, as a source of nodes.
    pub(super) newest: Snapshots,
    /// Oldest first, without gaps from the height to the snapshot's.
    pub(super) files: Vec<Arc<PastFile>>,
}

fn unreadable(fault: &Fault) -> TrieError {
    TrieError::Unreadable(fault.to_string())
}

impl PastState {
    /// What stood under a key before blocks above the height, oldest first, until `visit` has enough.
    fn entries(&self, key: &[u8], mut visit: impl FnMut(&[u8]) -> Result<bool, Fault>) -> Result<(), Fault> {
        let from = [key, &self.height.next().0.to_be_bytes()].concat();
        for file in &self.files {
            for row in file.rows_from(&from) {
                let (found, value): Row = row?;
                let height = found.strip_prefix(key).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
                if height.is_none_or(|height| height > self.snapshot.applied.0) {
                    break;
                }
                if visit(&value)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn branch<V>(
        &self,
        id: u64,
        position: &[u8],
        newest: impl FnOnce() -> Result<Option<Link<B256, V>>, TrieError>,
    ) -> Result<Option<Link<B256, V>>, TrieError> {
        let damaged = || Fault::corrupt(format!("the past of position {position:x?} of trie {id} contradicts itself"));
        let (mut partial, mut done) = (Partial::default(), None);
        let entries = self.entries(&entry::key(id, &entry::branch_place(position)), |value| {
            if let Told::Done(branch) = partial.entry(value).ok_or_else(damaged)? {
                done = Some(branch);
            }
            Ok(done.is_some())
        });
        entries.map_err(|fault| unreadable(&fault))?;
        if let Some(branch) = done {
            return Ok(branch);
        }
        // Nodes of storage that was wiped stay as the checkpoint before had them, so they may complete nothing.
        Ok(newest()?.and_then(|newest| partial.complete(&newest.as_branch()?)))
    }

    /// The row of a leaf at the height, `newest` being the one in the snapshot; `None` where there was none.
    fn leaf_row(&self, id: u64, hashed: &B256, newest: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Fault> {
        let mut found = None;
        self.entries(&entry::key(id, &entry::leaf_place(hashed)), |value| {
            found = Some(value.to_vec());
            Ok(true)
        })?;
        Ok(match found {
            Some(row) => Some(row).filter(|row| !row.is_empty()),
            None => newest,
        })
    }

    /// The first key under a position, not below `from`, that there is or was; with its row in the snapshot.
    fn candidate(&self, id: u64, position: &[u8], from: &B256) -> Result<Option<Candidate>, Fault> {
        let (table, mut key) =
            if id == 0 { (tables::ACCOUNT, Vec::new()) } else { (tables::STORAGE, id.to_be_bytes().to_vec()) };
        let owner = key.len();
        key.extend_from_slice(from.as_slice());
        let newest = self.snapshot.rows().seek(table, &key, |found, row| {
            let (same, hashed) = found.split_at_checked(owner)?;
            let hashed =
                B256::try_from(hashed).ok().filter(|hashed| same == &key[..owner] && below(position, hashed))?;
            Some((hashed, Some(row.to_vec())))
        })?;
        let mut first = newest.flatten();
        let from = entry::key(id, &entry::leaf_place(from));
        for file in &self.files {
            let Some(row) = file.rows_from(&from).next() else { continue };
            let Some((hashed, _)) = entry::leaf_of(&row?.0, id) else { continue };
            if below(position, &hashed) && first.as_ref().is_none_or(|(known, _)| hashed < *known) {
                first = Some((hashed, None));
            }
        }
        Ok(first)
    }

    /// The only leaf that was under a position, with its row.
    fn leaf(&self, id: u64, position: &[u8]) -> Result<Option<(B256, Vec<u8>)>, Fault> {
        let mut from = Vec::with_capacity(32);
        first_key(position, &mut from);
        let mut from = B256::from_slice(&from);
        for _ in 0..LEAVES_MAX {
            let Some((hashed, newest)) = self.candidate(id, position, &from)? else { return Ok(None) };
            if let Some(row) = self.leaf_row(id, &hashed, newest)? {
                return Ok(Some((hashed, row)));
            }
            let Some(next) = U256::from_be_bytes(hashed.0).checked_add(U256::ONE) else { return Ok(None) };
            from = B256::from(next);
        }
        Err(Fault::Failed(format!("more than {LEAVES_MAX} leaves have come to where one was")))
    }
}

impl StateSource for PastState {
    fn account_node(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, AccountLeaf>>, TrieError> {
        if kind != Kind::Leaf {
            let newest = || self.newest.account_node(position, Kind::Branch);
            let branch = self.branch(0, position, newest)?;
            if branch.is_some() || kind == Kind::Branch {
                return Ok(branch);
            }
        }
        let leaf = self.leaf(0, position).map_err(|fault| unreadable(&fault))?;
        Ok(leaf.and_then(|(hashed, row)| Some(Link::leaf(hashed, AccountRow::decode(&row)?.leaf(), Origin::Read))))
    }

    fn storage_node(&self, id: u64, position: &[u8], kind: Kind) -> Result<Option<Link<B256, U256>>, TrieError> {
        if kind != Kind::Leaf {
            let newest = || self.newest.storage_node(id, position, Kind::Branch);
            let branch = self.branch(id, position, newest)?;
            if branch.is_some() || kind == Kind::Branch {
                return Ok(branch);
            }
        }
        let leaf = self.leaf(id, position).map_err(|fault| unreadable(&fault))?;
        Ok(leaf.and_then(|(hashed, row)| Some(Link::leaf(hashed, U256::try_from_be_slice(&row)?, Origin::Read))))
    }
}
