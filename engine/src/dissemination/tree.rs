//! A Merkle tree with one leaf per validator in set order: what a header's `body_root` is the root of.
//!
//! ```text
//! leaf   keccak256(0x00, validator's index (2 bytes, big end first), its chunks)
//! inner  keccak256(0x01, left, right)
//! ```
//!
//! The leader's leaf has no chunks. Behind the last leaf zeros fill the tree up to a power of two, so that every path
//! has the same length; a zero is no leaf of anything.

use alloy_primitives::{B256, Keccak256};

use crate::types::ValidatorIndex;

const LEAF: u8 = 0;
const INNER: u8 = 1;

/// The leaf of a validator with these chunks.
pub(super) fn leaf(index: ValidatorIndex, chunks: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([LEAF]);
    hasher.update(index.0.to_be_bytes());
    hasher.update(chunks);
    hasher.finalize()
}

fn inner(left: &B256, right: &B256) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([INNER]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize()
}

/// Hashes on a path in a tree of so many leaves.
pub(super) fn path_length(leaves: usize) -> usize {
    usize::try_from(leaves.next_power_of_two().trailing_zeros()).unwrap_or_default()
}

/// Whether a leaf is at this place of the tree with this root, of so many leaves.
pub(super) fn is_at(root: &B256, leaves: usize, index: ValidatorIndex, leaf: B256, path: &[B256]) -> bool {
    let mut place = usize::from(index.0);
    if place >= leaves || path.len() != path_length(leaves) {
        return false;
    }
    let top = path.iter().fold(leaf, |node, beside| {
        let is_right = place % 2 == 1;
        place /= 2;
        if is_right { inner(beside, &node) } else { inner(&node, beside) }
    });
    top == *root
}

/// All nodes of a tree.
pub(super) struct Tree {
    /// From the leaves up to the root.
    levels: Vec<Vec<B256>>,
}

impl Tree {
    pub(super) fn new(mut leaves: Vec<B256>) -> Self {
        leaves.resize(leaves.len().next_power_of_two(), B256::ZERO);
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).filter_map(|pair| Some(inner(pair.first()?, pair.last()?))).collect();
            levels.push(above);
        }
        Self { levels }
    }

    pub(super) fn root(&self) -> B256 {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// What lies beside the way from a leaf to the root, lowest first.
    pub(super) fn path(&self, index: ValidatorIndex) -> Vec<B256> {
        let mut place = usize::from(index.0);
        let mut path = Vec::with_capacity(self.levels.len());
        for level in self.levels.split_last().map_or(&[][..], |(_, levels)| levels) {
            path.extend(level.get(place ^ 1));
            place /= 2;
        }
        path
    }
}
