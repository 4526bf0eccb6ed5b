//! Bounding the memory of the trie's nodes.
//!
//! After a checkpoint every node of the checkpointed trie is in MDBX and can be forgotten. A walk counts what is in
//! memory; above the bound it forgets nodes bottom-up, first those not used since the last walk, then any. A node whose
//! child is in memory stays, and so does storage that has no id yet. Leaves of storage go with every walk: what a
//! branch above them needs is their hashes, and those it has.
//!
//! A walk takes as long as there are nodes in memory, so there is none as long as what the last one left and what was
//! made since keep to the bound; and it leaves room for more.

use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::{B256, U256};

use super::{
    node::{Body, Link, Root, Value},
    state::{AccountLeaf, StateTrie},
};

/// Bytes of a node but for the list of its children in memory.
fn node_bytes<K, V: Value>(node: &Link<K, V>) -> usize {
    let beside = match node.body() {
        Body::Leaf(_, value) => value.heap_bytes(),
        Body::Branch(branch) => branch.prefix.len(),
    };
    node.bytes() + beside
}

/// Bytes of nodes that were made or read since the process began: by more nothing grows, as nodes that nobody needs any
/// more go by themselves.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a node that was made, with the longest list of its children there can be.
pub(crate) fn weight<K, V: Value>(node: &Link<K, V>) -> usize {
    let children = node.as_branch().map_or(0, |branch| branch.references.len());
    node_bytes(node) + children * size_of::<usize>()
}

/// Notes that nodes of so many bytes were made.
pub(crate) fn made(bytes: usize) {
    MADE.fetch_add(bytes, Ordering::Relaxed);
}

/// How much of a trie may be in memory, from one walk to the next.
pub(crate) struct Bound {
    /// Bytes that may be.
    bytes_max: usize,
    /// Bytes that the last walk left.
    resident: usize,
    /// [`MADE`] when it began.
    made: usize,
}

impl Bound {
    /// Nothing is in memory yet.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, resident: 0, made: MADE.load(Ordering::Relaxed) }
    }

    /// Forgets nodes of a checkpointed trie if there may be more than the bound; an eighth of it is free then.
    pub(crate) fn keep(&mut self, trie: &StateTrie) {
        let made = MADE.load(Ordering::Relaxed);
        if self.resident.saturating_add(made.wrapping_sub(self.made)) > self.bytes_max {
            (self.resident, self.made) = (evict(trie, self.bytes_max - self.bytes_max / 8), made);
        }
    }
}

struct Sweep {
    /// Bytes still to be freed; 0 while only counting.
    excess: usize,
    /// Whether used nodes go as well.
    force: bool,
    /// Whether leaves of storage may go.
    drops_leaves: bool,
    /// Bytes found in memory and kept.
    resident: usize,
}

impl Sweep {
    /// Whether a node stays in memory; `free` if nothing below it or in it holds it there.
    fn stays<K, V: Value>(&mut self, node: &Link<K, V>, links: usize, free: bool) -> bool {
        let bytes = node_bytes(node) + links;
        let unused = self.excess > 0 && !node.take_touched();
        if self.excess > 0 && free && (unused || self.force) {
            self.excess = self.excess.saturating_sub(bytes);
            return false;
        }
        self.resident = self.resident.saturating_add(bytes);
        true
    }

    fn storage(&mut self, node: &Link<B256, U256>) -> bool {
        match node.body() {
            Body::Leaf(..) if self.drops_leaves => false,
            Body::Leaf(..) => self.stays(node, 0, true),
            Body::Branch(branch) => {
                let links = branch.retain(|child| self.storage(child));
                self.stays(node, links.unwrap_or(0), links.is_none())
            }
        }
    }

    fn accounts(&mut self, node: &Link<B256, AccountLeaf>) -> bool {
        match node.body() {
            Body::Leaf(_, leaf) => {
                let Some(root) = &leaf.storage.root else { return self.stays(node, 0, true) };
                let is_stored = leaf.storage.id() != 0;
                let before = (self.excess, self.drops_leaves);
                if !is_stored {
                    (self.excess, self.drops_leaves) = (0, false);
                }
                self.resident = self.resident.saturating_add(size_of::<Root<B256, U256>>());
                let is_empty = !self.root(root, Self::storage);
                if !is_stored {
                    (self.excess, self.drops_leaves) = before;
                }
                self.stays(node, 0, is_empty && is_stored)
            }
            Body::Branch(branch) => {
                let links = branch.retain(|child| self.accounts(child));
                self.stays(node, links.unwrap_or(0), links.is_none())
            }
        }
    }

    /// Whether the root of a trie is still in memory.
    fn root<K, V>(&mut self, root: &Root<K, V>, mut walk: impl FnMut(&mut Self, &Link<K, V>) -> bool) -> bool {
        let mut stays = false;
        root.retain(|node| {
            stays = walk(self, node);
            stays
        });
        stays
    }

    fn run(mut self, trie: &StateTrie) -> usize {
        if let Some(root) = &trie.root {
            self.root(root, Self::accounts);
        }
        self.resident
    }
}

/// Bytes of the trie's nodes in memory.
#[cfg(test)]
pub(crate) fn resident_bytes(trie: &StateTrie) -> usize {
    Sweep { excess: 0, force: false, drops_leaves: false, resident: 0 }.run(trie)
}

/// Forgets nodes of a checkpointed trie until at most `bytes_max` are in memory; returns what is.
pub(crate) fn evict(trie: &StateTrie, bytes_max: usize) -> usize {
    let sweep = |excess, force| Sweep { excess, force, drops_leaves: true, resident: 0 }.run(trie);
    let mut resident = sweep(0, false);
    for force in [false, true] {
        if resident > bytes_max {
            resident = sweep(resident - bytes_max, force);
        }
    }
    resident
}
