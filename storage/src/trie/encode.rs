//! Bytes and references of nodes.
//!
//! Buffers come from the [`Hasher`] and go back to it, so hashing a trie allocates as deep as it is.
//!
//! Source: Ethereum Yellow Paper, appendix D.

use alloy_primitives::{B256, keccak256};

use super::{
    node::{Body, Branch, Key, Value},
    rlp,
};
use crate::metrics;

/// How a parent refers to a node: by hash, or by the node's own bytes when they are fewer than 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRef {
    bytes: [u8; 32],
    length: u8,
}

impl NodeRef {
    /// The reference to a node of which only the hash is known.
    pub(crate) const fn hash(hash: B256) -> Self {
        Self { bytes: hash.0, length: 32 }
    }

    /// The reference to a node inside its parent; `None` if it is 32 bytes long or longer.
    pub(crate) fn inline(encoded: &[u8]) -> Option<Self> {
        let length = u8::try_from(encoded.len()).ok().filter(|length| *length < 32)?;
        let mut bytes = [0; 32];
        bytes[..encoded.len()].copy_from_slice(encoded);
        Some(Self { bytes, length })
    }

    /// The reference to an encoded node.
    pub(crate) fn of(encoded: &[u8], hasher: &mut Hasher) -> Self {
        Self::inline(encoded).unwrap_or_else(|| Self::hash(hasher.keccak(encoded)))
    }

    /// Whether this is a hash.
    pub(crate) const fn is_hash(&self) -> bool {
        self.length == 32
    }

    /// The hash, or the encoded node.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The root hash of a trie whose root node this is.
    pub(crate) fn root_hash(&self) -> B256 {
        if self.is_hash() { B256::new(self.bytes) } else { keccak256(self.bytes()) }
    }
}

/// Computes references and counts the hashes it took.
#[derive(Default)]
pub(crate) struct Hasher {
    keccaks: u64,
    buffers: Vec<Vec<u8>>,
}

impl Hasher {
    /// keccak256, counted.
    pub(crate) fn keccak(&mut self, bytes: &[u8]) -> B256 {
        self.keccaks = self.keccaks.saturating_add(1);
        keccak256(bytes)
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(640))
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.buffers.push(buffer);
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        metrics::KECCAK.add(self.keccaks);
    }
}

/// Encodes the branch node of a body, its extension left out, into an empty buffer; returns where it begins.
pub(crate) fn encode_branch<K: Key, V: Value>(branch: &Branch<K, V>, hasher: &mut Hasher, out: &mut Vec<u8>) -> usize {
    out.resize(rlp::LIST_ROOM, 0);
    for child in &branch.children {
        match child {
            Some(child) => rlp::reference(out, &child.reference(hasher)),
            None => out.push(0x80),
        }
    }
    match &branch.value {
        Some(entry) => {
            let mut payload = hasher.buffer();
            entry.1.payload(&mut payload);
            rlp::string(out, &payload);
            hasher.give_back(payload);
        }
        None => out.push(0x80),
    }
    rlp::finish_list(out)
}

/// Encodes an extension node over a branch into an empty buffer; returns where it begins.
pub(crate) fn encode_extension(prefix: &[u8], branch: &NodeRef, out: &mut Vec<u8>) -> usize {
    out.resize(rlp::LIST_ROOM, 0);
    rlp::hex_prefix(out, prefix.iter().copied(), prefix.len(), false);
    rlp::reference(out, branch);
    rlp::finish_list(out)
}

/// Encodes a leaf into an empty buffer; returns where it begins.
pub(crate) fn encode_leaf<K: Key, V: Value>(
    (key, depth): (&K, usize),
    value: &V,
    hasher: &mut Hasher,
    out: &mut Vec<u8>,
) -> usize {
    out.resize(rlp::LIST_ROOM, 0);
    let rest = key.nibbles() - depth;
    rlp::hex_prefix(out, (depth..key.nibbles()).map(|index| key.nibble(index)), rest, true);
    let mut payload = hasher.buffer();
    value.payload(&mut payload);
    rlp::string(out, &payload);
    hasher.give_back(payload);
    rlp::finish_list(out)
}

/// The reference that a parent of this body holds.
pub(crate) fn encoded_reference<K: Key, V: Value>(body: &Body<K, V>, hasher: &mut Hasher) -> NodeRef {
    let mut out = hasher.buffer();
    let begin = match body {
        Body::Leaf { key, depth, value } => encode_leaf((key, *depth), value, hasher, &mut out),
        Body::Branch(branch) => {
            let begin = encode_branch(branch, hasher, &mut out);
            if branch.prefix.is_empty() {
                begin
            } else {
                let inner = NodeRef::of(&out[begin..], hasher);
                out.clear();
                encode_extension(&branch.prefix, &inner, &mut out)
            }
        }
    };
    let reference = NodeRef::of(&out[begin..], hasher);
    hasher.give_back(out);
    reference
}
