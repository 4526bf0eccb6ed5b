//! Bounding the memory of resolved nodes.
//!
//! After a checkpoint every node of the checkpointed trie is in MDBX and can be forgotten. A walk
//! counts what is resident; above the bound it forgets nodes bottom-up, first those not used since
//! the last walk, then any. A node whose child is resident stays, and so does storage that has no
//! id yet.

use alloy_primitives::{B256, U256};

use super::{
    node::{Body, Key, Link, Node, Value},
    state::{AccountLeaf, StateTrie},
};

fn node_bytes<K, V: Value>(body: &Body<K, V>) -> usize {
    // Two reference counts before each of the two allocations.
    let fixed = size_of::<Node<K, V>>() + size_of::<Body<K, V>>() + 4 * size_of::<usize>();
    fixed
        + match body {
            Body::Leaf { value, .. } => value.heap_bytes(),
            Body::Branch(branch) => branch.prefix.len(),
        }
}

struct Sweep {
    /// Bytes still to be freed; 0 while only counting.
    excess: usize,
    /// Whether used nodes go as well.
    force: bool,
    /// Bytes found resident and kept.
    resident: usize,
}

impl Sweep {
    fn finish<K: Key, V: Value>(&mut self, node: &Node<K, V>, body: &Body<K, V>, free: bool) -> bool {
        let bytes = node_bytes(body);
        let unused = self.excess > 0 && !node.take_touched();
        if self.excess > 0 && free && (unused || self.force) {
            node.forget();
            self.excess = self.excess.saturating_sub(bytes);
            return false;
        }
        self.resident = self.resident.saturating_add(bytes);
        true
    }

    /// Returns whether the node is still resident.
    fn storage(&mut self, node: &Link<B256, U256>) -> bool {
        let Some(body) = node.resident() else { return false };
        let mut kept = false;
        if let Body::Branch(branch) = &*body {
            for child in branch.children.iter().flatten() {
                kept |= self.storage(child);
            }
        }
        self.finish(node, &body, !kept)
    }

    fn accounts(&mut self, node: &Link<B256, AccountLeaf>) -> bool {
        let Some(body) = node.resident() else { return false };
        let mut kept = false;
        match &*body {
            Body::Leaf { value, .. } => {
                if let Some(root) = &value.storage.root {
                    let stored = value.storage.id() != 0;
                    let excess = if stored { self.excess } else { std::mem::take(&mut self.excess) };
                    kept = self.storage(root) || !stored;
                    self.excess = if stored { self.excess } else { excess };
                }
            }
            Body::Branch(branch) => {
                for child in branch.children.iter().flatten() {
                    kept |= self.accounts(child);
                }
            }
        }
        self.finish(node, &body, !kept)
    }
}

/// Bytes of the trie's nodes in memory.
pub(crate) fn resident_bytes(trie: &StateTrie) -> usize {
    let mut sweep = Sweep { excess: 0, force: false, resident: 0 };
    if let Some(root) = &trie.root {
        sweep.accounts(root);
    }
    sweep.resident
}

/// Forgets nodes of a checkpointed trie until at most `bytes_max` are resident; returns what is.
pub(crate) fn evict(trie: &StateTrie, bytes_max: usize) -> usize {
    let mut resident = resident_bytes(trie);
    for force in [false, true] {
        let Some(root) = trie.root.as_ref().filter(|_| resident > bytes_max) else { break };
        let mut sweep = Sweep { excess: resident - bytes_max, force, resident: 0 };
        sweep.accounts(root);
        resident = sweep.resident;
    }
    resident
}
