//! Nodes: what a trie is made of, and how one that is not in memory gets there.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use alloy_primitives::{B256, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use parking_lot::RwLock;

use super::{
    encode::{Hasher, NodeRef, encoded_reference},
    rlp,
};

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
