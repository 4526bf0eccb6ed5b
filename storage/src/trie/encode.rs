//! Bytes and references of nodes.
//!
//! Encoders append to a buffer that others may have written to, and say where the node begins.
//!
//! Source: Ethereum Yellow Paper, appendix D.

use alloy_primitives::{B256, keccak256};

use super::{
    keccak::Batch,
    node::{Body, Branch, Key, Value},
    rlp,
};
use crate::metrics;

/// Messages hashed together: enough to fill all lanes with messages of one length, few enough to stay in the cache.
pub(crate) const HASHED_TOGETHER: usize = 64;

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
    pub(crate) fn of(encoded: &[u8]) -> Self {
        Self::inline(encoded).unwrap_or_else(|| {
            metrics::KECCAK.increment();
            Self::hash(keccak256(encoded))
        })
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

/// keccak256 of keys, in order.
pub(crate) fn hash_all<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Vec<B256> {
    let mut batch = Batch::default();
    let mut hashes = Vec::with_capacity(keys.size_hint().0);
    for key in keys {
        batch.push(key);
        if batch.len() == HASHED_TOGETHER {
            hashes.append(&mut batch.hash());
        }
    }
    hashes.append(&mut batch.hash());
    metrics::KECCAK.add(u64::try_from(hashes.len()).unwrap_or(u64::MAX));
    hashes
}

/// References of nodes that are encoded one after the other and hashed together.
#[derive(Default)]
pub(crate) struct References {
    batch: Batch,
    /// Of each node: its reference if it needs no hash.
    inline: Vec<Option<NodeRef>>,
}

impl References {
    /// Adds a node that `encode` appends to the buffer.
    pub(crate) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> usize) {
        let buffer = self.batch.buffer();
        let before = buffer.len();
        let begin = encode(buffer);
        let inline = NodeRef::inline(&buffer[begin..]);
        match inline {
            Some(_) => buffer.truncate(before),
            None => self.batch.seal(begin),
        }
        self.inline.push(inline);
    }

    /// Number of nodes added.
    pub(crate) const fn len(&self) -> usize {
        self.inline.len()
    }

    /// Hands the references over, in the order in which the nodes were added.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = NodeRef> {
        let hashes = self.batch.hash();
        metrics::KECCAK.add(u64::try_from(hashes.len()).unwrap_or(u64::MAX));
        let mut hashes = hashes.into_iter().map(NodeRef::hash);
        let mut next = move || hashes.next().expect("a node that is not inside its parent was hashed");
        std::mem::take(&mut self.inline).into_iter().map(move |inline| inline.unwrap_or_else(&mut next))
    }
}

/// Appends the branch node of a body, its extension left out; returns where it begins.
pub(crate) fn encode_branch<K, V: Value>(branch: &Branch<'_, K, V>, out: &mut Vec<u8>) -> usize {
    let start = rlp::begin_list(out);
    let mut references = branch.references.iter();
    for nibble in 0..16 {
        match (branch.state & (1 << nibble) != 0).then(|| references.next()).flatten() {
            Some(reference) => rlp::reference(out, reference),
            None => out.push(0x80),
        }
    }
    match &branch.value {
        Some(entry) => payload(&entry.1, out),
        None => out.push(0x80),
    }
    rlp::finish_list(out, start)
}

/// Appends an extension node over a branch; returns where it begins.
pub(crate) fn encode_extension(prefix: &[u8], branch: &NodeRef, out: &mut Vec<u8>) -> usize {
    let start = rlp::begin_list(out);
    rlp::hex_prefix(out, prefix.iter().copied(), prefix.len(), false);
    rlp::reference(out, branch);
    rlp::finish_list(out, start)
}

/// Appends a leaf at a depth; returns where it begins.
pub(crate) fn encode_leaf<K: Key, V: Value>(key: &K, value: &V, depth: usize, out: &mut Vec<u8>) -> usize {
    let start = rlp::begin_list(out);
    let rest = key.nibbles() - depth;
    rlp::hex_prefix(out, (depth..key.nibbles()).map(|index| key.nibble(index)), rest, true);
    payload(value, out);
    rlp::finish_list(out, start)
}

/// Appends what a leaf commits to, as a string.
fn payload<V: Value>(value: &V, out: &mut Vec<u8>) {
    let mut bytes = Vec::with_capacity(112);
    value.payload(&mut bytes);
    rlp::string(out, &bytes);
}

/// The reference that a parent of this body, at this depth, holds.
pub(crate) fn encoded_reference<K: Key, V: Value>(body: &Body<'_, K, V>, depth: usize) -> NodeRef {
    let mut out = Vec::with_capacity(640);
    let begin = match body {
        Body::Leaf(key, value) => encode_leaf(*key, *value, depth, &mut out),
        Body::Branch(branch) => {
            let begin = encode_branch(branch, &mut out);
            if branch.prefix.is_empty() {
                begin
            } else {
                let inner = NodeRef::of(&out[begin..]);
                encode_extension(&branch.prefix, &inner, &mut out)
            }
        }
    };
    NodeRef::of(&out[begin..])
}
