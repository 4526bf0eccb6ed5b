//! The state commitment: Ethereum's Merkle Patricia trie, copy-on-write, resolved lazily.
//!
//! Updating builds new nodes along the changed paths and shares everything else, so every block's layer holds a whole
//! trie and dropping the layer drops exactly the nodes it added.
//!
//! ```text
//! Root   = reference, node if it is in memory
//! Node   = Leaf (whole key, value)
//!        | Branch { prefix, for each child: reference, node if it is in memory }   prefix: an extension above it
//! ```
//!
//! A child that is not in memory costs its branch 33 bytes: the hash, or the node itself below 32. It is read from MDBX
//! on first use and checked against that. An extension and the branch below it are one node, because they are stored as
//! one record under the position where the extension begins. Children never change position, so a child that is not in
//! memory stays valid whatever happens to the nodes above it.
//!
//! Which snapshot resolves a node: always the newest. A position that changed since a handle was made was resolved by
//! that very change in the trie just before it. A handle that is two changes and a checkpoint behind may find another
//! node there, which it notices.
//!
//! Source: Ethereum Yellow Paper, appendix D.

pub(crate) mod diff;
pub(crate) mod encode;
pub(crate) mod evict;
pub(crate) mod fold;
pub(crate) mod keccak;
pub(crate) mod links;
pub mod memory;
pub(crate) mod node;
pub(crate) mod prefix;
pub(crate) mod proof;
pub(crate) mod range;
pub(crate) mod record;
pub(crate) mod rlp;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod update;

pub use memory::MemoryTrie;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small random numbers")]
mod tests;
