//! The state commitment: Ethereum's Merkle Patricia trie, copy-on-write, resolved lazily.
//!
//! A trie is a `node::Link` to its root. Updating builds new nodes along the changed paths and
//! shares everything else, so every block's layer holds a whole trie and dropping the layer drops
//! exactly the nodes it added. A node that is not in memory is known by its reference (hash, or the
//! bytes themselves below 32) and is read from MDBX on first use, then checked against that
//! reference.
//!
//! ```text
//! Node  = reference (set when hashed) + body (absent while only MDBX has it)
//! Body  = Leaf { whole key, depth, value }
//!       | Branch { prefix, 16 children, value }     prefix not empty: an extension node above it
//! ```
//!
//! An extension and the branch below it are one body, because they are stored as one record under
//! the position where the extension begins. Children never change position, so a child that is not
//! resolved stays valid whatever happens to the nodes above it.
//!
//! Which snapshot resolves a node: always the newest. A position that changed since a handle was
//! made was resolved by that very change (the update and the checkpoint resolve what they
//! replace), and the resolved body is shared by every trie that holds the node.
//!
//! Source: Ethereum Yellow Paper, appendix D.

pub(crate) mod diff;
pub(crate) mod encode;
pub(crate) mod evict;
pub mod memory;
pub(crate) mod node;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod rlp;
pub(crate) mod state;
pub(crate) mod update;

pub use memory::MemoryTrie;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small random numbers")]
mod tests;
