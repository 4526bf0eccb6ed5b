//! A trie held in memory, over keys of any length.
//!
//! The same update and hashing code as the state's, without a store below: for receipt and
//! transaction tries of tests, and for Ethereum's own trie vectors.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};

use super::{
    node::{NoSource, Tree, root_hash},
    proof,
    update::{self, Item},
};

type ByteKey = Arc<[u8]>;

/// A Merkle Patricia trie in memory; cheap to clone, clones share what they have in common.
#[derive(Clone, Default)]
pub struct MemoryTrie {
    tree: Tree<ByteKey, ByteKey>,
}

impl std::fmt::Debug for MemoryTrie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTrie").field("root", &self.root()).finish()
    }
}

impl MemoryTrie {
    /// An empty trie.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let item = [Item::new(ByteKey::from(key), value.map(ByteKey::from))];
        self.tree = update::apply(&self.tree, &item, &NoSource).expect("a trie in memory has nothing to resolve");
    }

    /// Sets the value of `key`; an empty value removes it, as Ethereum's trie has it.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.change(key, (!value.is_empty()).then_some(value));
    }

    /// Removes `key` if it is there.
    pub fn remove(&mut self, key: &[u8]) {
        self.change(key, None);
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        update::find(&self.tree, &ByteKey::from(key), &NoSource)
            .expect("a trie in memory has nothing to resolve")
            .map(|value| Bytes::copy_from_slice(&value))
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self) -> B256 {
        root_hash(&self.tree)
    }

    /// Encoded nodes from the root to `key`, or to where it would be.
    #[must_use]
    pub fn proof(&self, key: &[u8]) -> Vec<Bytes> {
        proof::prove(&self.tree, &ByteKey::from(key), &NoSource).expect("a trie in memory has nothing to resolve").1
    }
}
