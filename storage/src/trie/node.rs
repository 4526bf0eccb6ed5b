//! Nodes: what a trie is made of, and how one that is not in memory gets there.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use alloy_primitives::{B256, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use parking_lot::RwLock;

use super::rlp;
use crate::metrics;

/// A shared node.
pub(crate) type Link<K, V> = Arc<Node<K, V>>;

/// Why a trie could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrieError {
    /// MDBX cannot be read.
    #[error("trie is unreadable: {0}")]
    Unreadable(String),
    /// MDBX holds another node at this position, or none.
    #[error("no node with the expected hash at {kind} position {position}")]
    Mismatch {
        /// Which trie: `account`, or `storage` with its id.
        kind: String,
        /// Nibbles from the root.
        position: String,
    },
}

/// A key as a sequence of nibbles.
pub(crate) trait Key: Clone + Ord + Send + Sync {
    /// Number of nibbles.
    fn nibbles(&self) -> usize;
    /// The nibble at `index`, below `nibbles()`.
    fn nibble(&self, index: usize) -> u8;
}

impl Key for B256 {
    fn nibbles(&self) -> usize {
        64
    }

    fn nibble(&self, index: usize) -> u8 {
        let byte = self.0[index / 2];
        if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    }
}

impl Key for Arc<[u8]> {
    fn nibbles(&self) -> usize {
        self.len() * 2
    }

    fn nibble(&self, index: usize) -> u8 {
        let byte = self[index / 2];
        if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    }
}

/// What a leaf holds.
pub(crate) trait Value: Clone + PartialEq + Send + Sync {
    /// Appends the bytes that the leaf commits to.
    fn payload(&self, out: &mut Vec<u8>);
    /// Bytes of memory beyond the value's own size, for accounting.
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Value for U256 {
    fn payload(&self, out: &mut Vec<u8>) {
        rlp::integer(out, &self.to_be_bytes::<32>());
    }
}

impl Value for Arc<[u8]> {
    fn payload(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

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

/// What is known about a node that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A leaf: found in the flat table by the first key under its position.
    Leaf,
    /// A branch, perhaps with an extension above it: found in the node table under its position.
    Branch,
    /// The root of a trie of which only the root hash is known.
    Root,
}

/// Where nodes that are not in memory come from.
pub(crate) trait Source<K, V>: Sync {
    /// The body at `position`, `None` where there is none.
    ///
    /// # Errors
    /// [`TrieError::Unreadable`].
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Body<K, V>>, TrieError>;

    /// The trie's name for messages.
    fn name(&self) -> String;
}

/// A trie that lives in memory only never asks.
pub(crate) struct NoSource;

impl<K, V> Source<K, V> for NoSource {
    fn load(&self, _: &[u8], _: Kind) -> Result<Option<Body<K, V>>, TrieError> {
        Ok(None)
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

/// A branch with the extension above it.
#[derive(Clone)]
pub(crate) struct Branch<K, V> {
    /// Nibbles of the extension; empty when there is none.
    pub(crate) prefix: Box<[u8]>,
    /// Children by nibble.
    pub(crate) children: [Option<Link<K, V>>; 16],
    /// The key that ends here, and its value; never in a trie of keys of one length.
    pub(crate) value: Option<Box<(K, V)>>,
}

/// What a node is.
pub(crate) enum Body<K, V> {
    /// One key.
    Leaf {
        /// The whole key.
        key: K,
        /// Nibbles of the key above this node.
        depth: usize,
        /// Its value.
        value: V,
    },
    /// Two keys or more.
    Branch(Branch<K, V>),
}

/// One node of a trie.
pub(crate) struct Node<K, V> {
    reference: OnceLock<NodeRef>,
    body: RwLock<Option<Arc<Body<K, V>>>>,
    kind: Kind,
    /// Made by an update, not read from MDBX; stays set for the node's life.
    built: bool,
    /// Used since the last eviction walk.
    touched: AtomicBool,
}

impl<K: Key, V: Value> Node<K, V> {
    /// A node that an update made.
    pub(crate) fn built(body: Body<K, V>) -> Link<K, V> {
        let kind = match &body {
            Body::Leaf { .. } => Kind::Leaf,
            Body::Branch(_) => Kind::Branch,
        };
        Arc::new(Self {
            reference: OnceLock::new(),
            body: RwLock::new(Some(Arc::new(body))),
            kind,
            built: true,
            touched: AtomicBool::new(true),
        })
    }

    /// A node that only MDBX has.
    pub(crate) fn unresolved(reference: NodeRef, kind: Kind) -> Link<K, V> {
        Arc::new(Self {
            reference: OnceLock::from(reference),
            body: RwLock::new(None),
            kind,
            built: false,
            touched: AtomicBool::new(false),
        })
    }

    /// The root of a stored trie, `None` if it is empty.
    pub(crate) fn root(hash: B256) -> Option<Link<K, V>> {
        (hash != EMPTY_ROOT_HASH).then(|| Self::unresolved(NodeRef::hash(hash), Kind::Root))
    }

    /// What kind of node this is, known before it is resolved.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether an update made this node.
    pub(crate) const fn is_built(&self) -> bool {
        self.built
    }

    /// The body if it is in memory.
    pub(crate) fn resident(&self) -> Option<Arc<Body<K, V>>> {
        self.body.read().clone()
    }

    /// Forgets the body; the caller knows that MDBX has it.
    pub(crate) fn forget(&self) {
        debug_assert!(self.reference.get().is_some(), "only a hashed node can be forgotten");
        *self.body.write() = None;
    }

    /// Clears and returns the mark of use.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// The body, read from `source` and checked if it is not in memory.
    ///
    /// # Errors
    /// [`TrieError`].
    pub(crate) fn body(&self, position: &[u8], source: &dyn Source<K, V>) -> Result<Arc<Body<K, V>>, TrieError> {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
        if let Some(body) = self.resident() {
            return Ok(body);
        }
        let expected = self.reference.get().expect("a node without a body was hashed before it lost it");
        let loaded = source.load(position, self.kind)?;
        let checked = loaded.filter(|body| encoded_reference(body, &mut Hasher::default()) == *expected);
        // Somebody else may have resolved the node, changed what it stands for and checkpointed
        // that since we looked; then the body is here after all.
        let mut slot = self.body.write();
        match (&*slot, checked) {
            (Some(body), _) => Ok(Arc::clone(body)),
            (None, Some(body)) => {
                let body = Arc::new(body);
                *slot = Some(Arc::clone(&body));
                Ok(body)
            }
            (None, None) => Err(TrieError::Mismatch {
                kind: source.name(),
                position: position.iter().map(|nibble| format!("{nibble:x}")).collect(),
            }),
        }
    }

    /// The reference if the node was hashed already.
    pub(crate) fn known_reference(&self) -> Option<&NodeRef> {
        self.reference.get()
    }

    /// The reference, computed with those of everything below that lacks one.
    pub(crate) fn reference(&self, hasher: &mut Hasher) -> NodeRef {
        if let Some(reference) = self.reference.get() {
            return *reference;
        }
        let body = self.resident().expect("a node without a reference was built here and is never forgotten");
        let reference = encoded_reference(&body, hasher);
        *self.reference.get_or_init(|| reference)
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
