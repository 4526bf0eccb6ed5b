//! Nodes: what a trie is made of, and how one that is not in memory gets there.

use std::{
    hint::black_box,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use alloy_primitives::{B256, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use parking_lot::RwLock;
use smallvec::SmallVec;
use triomphe::ThinArc;

use super::{
    encode::{NodeRef, encoded_reference},
    evict,
    links::{Links, nibbles},
    rlp,
};

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
    /// Whether a leaf that was read stays in memory: it holds more than its bytes.
    const IS_KEPT: bool = false;
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
    /// The node at `position`, `None` where there is none.
    ///
    /// # Errors
    /// [`TrieError::Unreadable`].
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Link<K, V>>, TrieError>;

    /// The trie's name for messages.
    fn name(&self) -> String;
}

/// A trie that lives in memory only never asks.
pub(crate) struct NoSource;

impl<K, V> Source<K, V> for NoSource {
    fn load(&self, _: &[u8], _: Kind) -> Result<Option<Link<K, V>>, TrieError> {
        Ok(None)
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

/// Where a node comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An update made it.
    Built,
    /// It was read.
    Read,
}

/// One node in memory; what it hashes to is known by whoever refers to it.
struct Node<K, V> {
    what: What<K, V>,
    origin: Origin,
    /// Used since the last eviction walk.
    touched: AtomicBool,
}

enum What<K, V> {
    Leaf(K, V),
    Branch(Head<K, V>),
}

/// A shared node. How its children are referred to lies behind it in the same allocation.
pub(crate) struct Link<K, V>(ThinArc<Node<K, V>, NodeRef>);

impl<K, V> Clone for Link<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> PartialEq for Link<K, V> {
    /// Whether both lead to one node.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.node(), other.node())
    }
}

/// What a node is.
pub(crate) enum Body<'n, K, V> {
    /// One key, whole, and its value.
    Leaf(&'n K, &'n V),
    /// Two keys or more.
    Branch(Branch<'n, K, V>),
}

impl<K, V> Link<K, V> {
    fn new(what: What<K, V>, references: &[NodeRef], origin: Origin) -> Self {
        let node = Node { what, origin, touched: AtomicBool::new(true) };
        Self(ThinArc::from_header_and_slice(node, references))
    }

    /// A leaf: one key, whole, and its value.
    pub(crate) fn leaf(key: K, value: V, origin: Origin) -> Self {
        Self::new(What::Leaf(key, value), &[], origin)
    }

    /// A branch of these children, in order of nibble.
    pub(crate) fn branch(
        prefix: Box<[u8]>,
        children: impl Iterator<Item = (u8, Child<K, V>)>,
        value: Option<Box<(K, V)>>,
        origin: Origin,
    ) -> Self {
        let (mut state, mut tree, mut references) = (0, 0, References::new());
        let links = children.filter_map(|(nibble, child)| {
            state |= 1 << nibble;
            tree |= u16::from(child.kind == Kind::Branch) << nibble;
            references.push(child.reference);
            Some((nibble, child.link?))
        });
        let links = RwLock::new(links.collect());
        Self::new(What::Branch(Head { prefix, state, tree, links, value }), &references, origin)
    }

    fn node(&self) -> &Node<K, V> {
        &self.0.header.header
    }

    /// What it is.
    pub(crate) fn body(&self) -> Body<'_, K, V> {
        match &self.node().what {
            What::Leaf(key, value) => Body::Leaf(key, value),
            What::Branch(head) => Body::Branch(Branch { head, references: &self.0.slice }),
        }
    }

    /// The branch that it is, if it is one.
    pub(crate) fn as_branch(&self) -> Option<Branch<'_, K, V>> {
        match self.body() {
            Body::Branch(branch) => Some(branch),
            Body::Leaf(..) => None,
        }
    }

    /// Whether an update made it.
    pub(crate) fn is_built(&self) -> bool {
        self.node().origin == Origin::Built
    }

    /// Bytes of its allocation, without what it refers to.
    pub(crate) fn bytes(&self) -> usize {
        // Behind the count of those who share it.
        size_of::<usize>() + size_of_val(&*self.0)
    }

    /// Clears and returns the mark of use.
    pub(crate) fn take_touched(&self) -> bool {
        self.node().touched.swap(false, Ordering::Relaxed)
    }

    fn touch(&self) {
        let touched = &self.node().touched;
        if !touched.load(Ordering::Relaxed) {
            touched.store(true, Ordering::Relaxed);
        }
    }
}

/// A node as seen from above: what it hashes to, what it is, and itself if it is in memory.
pub(crate) struct Child<K, V> {
    /// How a parent refers to it.
    pub(crate) reference: NodeRef,
    /// What it is.
    pub(crate) kind: Kind,
    /// The node, if it is in memory.
    pub(crate) link: Option<Link<K, V>>,
}

impl<K, V> Clone for Child<K, V> {
    fn clone(&self) -> Self {
        Self { reference: self.reference, kind: self.kind, link: self.link.clone() }
    }
}

impl<K: Key, V: Value> Child<K, V> {
    /// The node, read from `source` and checked if it is not in memory.
    ///
    /// # Errors
    /// [`TrieError`].
    pub(crate) fn node(&self, position: &[u8], source: &dyn Source<K, V>) -> Result<Link<K, V>, TrieError> {
        if let Some(node) = &self.link {
            node.touch();
            return Ok(node.clone());
        }
        let loaded = source.load(position, self.kind)?;
        match loaded.filter(|node| encoded_reference(&node.body(), position.len()) == self.reference) {
            Some(node) => {
                evict::made(evict::weight(&node));
                Ok(node)
            }
            None => Err(TrieError::Mismatch {
                kind: source.name(),
                position: position.iter().map(|nibble| format!("{nibble:x}")).collect(),
            }),
        }
    }
}

/// A branch with the extension above it, but for how its children are referred to.
pub(crate) struct Head<K, V> {
    /// Nibbles of the extension; empty when there is none.
    pub(crate) prefix: Box<[u8]>,
    /// Which children there are, bit n for nibble n.
    pub(crate) state: u16,
    /// Which of them are branches.
    pub(crate) tree: u16,
    /// Those that are in memory.
    links: RwLock<Links<Link<K, V>>>,
    /// The key that ends here, and its value; never in a trie of keys of one length.
    pub(crate) value: Option<Box<(K, V)>>,
}

/// A branch.
pub(crate) struct Branch<'n, K, V> {
    head: &'n Head<K, V>,
    /// How each child is referred to, in order of nibble.
    pub(crate) references: &'n [NodeRef],
}

impl<K, V> Clone for Branch<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Branch<'_, K, V> {}

impl<K, V> Deref for Branch<'_, K, V> {
    type Target = Head<K, V>;

    fn deref(&self) -> &Head<K, V> {
        self.head
    }
}

/// References on their way into a node.
type References = SmallVec<[NodeRef; 16]>;

impl<'n, K, V> Branch<'n, K, V> {
    /// The same branch with some children changed, in order of nibble; `None` removes one.
    pub(crate) fn with(
        &self,
        prefix: Box<[u8]>,
        changed: Vec<(u8, Option<Child<K, V>>)>,
        value: Option<Box<(K, V)>>,
    ) -> Link<K, V> {
        let (mut state, mut tree, mut touched) = (self.state, self.tree, 0);
        for (nibble, child) in &changed {
            let bit = 1 << nibble;
            (state, tree, touched) = (state & !bit, tree & !bit, touched | bit);
            if let Some(child) = child {
                state |= bit;
                tree |= u16::from(child.kind == Kind::Branch) << nibble;
            }
        }
        let mut references = References::new();
        let mut new = changed.iter().filter_map(|(_, child)| child.as_ref());
        references.extend(nibbles(state).filter_map(|nibble| match touched & (1 << nibble) {
            0 => self.reference(nibble).copied(),
            _ => new.next().map(|child| child.reference),
        }));
        let set = changed.into_iter().filter_map(|(nibble, child)| Some((nibble, child?.link?)));
        let links = RwLock::new(self.links.write().fork(touched, set));
        Link::new(What::Branch(Head { prefix, state, tree, links, value }), &references, Origin::Built)
    }

    /// Where the child at `nibble` stands among the children, `None` if there is none.
    fn rank(&self, nibble: u8) -> Option<usize> {
        let bit = 1u16 << nibble;
        (self.state & bit != 0).then(|| (self.state & (bit - 1)).count_ones() as usize)
    }

    /// What the child at `nibble` is, if there is one.
    pub(crate) fn kind(&self, nibble: u8) -> Kind {
        if self.tree & (1 << nibble) == 0 { Kind::Leaf } else { Kind::Branch }
    }

    /// How the child at `nibble` is referred to.
    pub(crate) fn reference(&self, nibble: u8) -> Option<&'n NodeRef> {
        self.rank(nibble).map(|rank| &self.references[rank])
    }

    /// The children that there are, with how they are referred to.
    pub(crate) fn referenced(&self) -> impl Iterator<Item = (u8, &'n NodeRef)> {
        nibbles(self.state).zip(self.references)
    }

    /// The child at `nibble`.
    pub(crate) fn child(&self, nibble: u8) -> Option<Child<K, V>> {
        let rank = self.rank(nibble)?;
        Some(Child { reference: self.references[rank], kind: self.kind(nibble), link: self.link(nibble) })
    }

    /// Nibbles of the children, in order.
    pub(crate) fn nibbles(&self) -> impl Iterator<Item = u8> + use<K, V> {
        nibbles(self.state)
    }

    /// The node of a child, if it is in memory.
    pub(crate) fn link(&self, nibble: u8) -> Option<Link<K, V>> {
        self.links.read().get(nibble)
    }

    /// Asks for the nodes of these children, by a mask, as far as they are in memory, and waits for none.
    pub(crate) fn ask(&self, mask: u16) {
        let mut seen = false;
        self.links.read().see(mask, |_, node| seen ^= node.is_built());
        black_box(seen);
    }

    /// Asks for how the children are referred to.
    pub(crate) fn ask_references(&self) {
        black_box(self.references.iter().step_by(2).fold(0, |seen, reference| seen ^ reference.bytes()[0]));
    }

    /// Looks at every child that is in memory and forgets those of which `keep` says so; gives how many bytes the list
    /// of what is left takes, `None` if nothing is.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Link<K, V>) -> bool) -> Option<usize> {
        let mut gone = self.links.read().all();
        gone.retain(|(_, node)| !keep(node));
        self.links.write().forget(&gone)
    }
}

impl<K: Key, V: Value> Branch<'_, K, V> {
    /// The node of the child at `nibble`, whose position this is; stays in memory.
    ///
    /// # Errors
    /// [`TrieError`].
    pub(crate) fn resolve(
        &self,
        nibble: u8,
        position: &[u8],
        source: &dyn Source<K, V>,
    ) -> Result<Option<Link<K, V>>, TrieError> {
        let Some(child) = self.child(nibble) else { return Ok(None) };
        if let Some(node) = child.link {
            node.touch();
            return Ok(Some(node));
        }
        let node = match child.node(position, source) {
            Ok(node) => node,
            // Somebody else may have resolved the node, changed what it stands for and checkpointed that since we
            // looked; then it is here after all.
            Err(error) => self.child(nibble).and_then(|child| child.link).ok_or(error)?,
        };
        if V::IS_KEPT || child.kind == Kind::Branch {
            self.links.write().keep(nibble, node.clone());
        }
        Ok(Some(node))
    }
}

/// The root of a trie that is not empty.
pub(crate) struct Root<K, V> {
    /// What it hashes to.
    reference: NodeRef,
    kind: Kind,
    link: RwLock<Option<Link<K, V>>>,
}

/// A trie, `None` if it is empty.
pub(crate) type Tree<K, V> = Option<Arc<Root<K, V>>>;

impl<K, V> Root<K, V> {
    /// A stored trie of which only the root hash is known.
    pub(crate) fn stored(hash: B256) -> Tree<K, V> {
        let root = Self { reference: NodeRef::hash(hash), kind: Kind::Root, link: RwLock::new(None) };
        (hash != EMPTY_ROOT_HASH).then(|| Arc::new(root))
    }

    /// The trie below a node.
    pub(crate) fn of(child: Child<K, V>) -> Arc<Self> {
        Arc::new(Self { reference: child.reference, kind: child.kind, link: RwLock::new(child.link) })
    }

    /// The root as a parent would see it.
    pub(crate) fn child(&self) -> Child<K, V> {
        Child { reference: self.reference, kind: self.kind, link: self.link.read().clone() }
    }

    /// Looks at the root's node if it is in memory, and forgets it if `keep` says so.
    pub(crate) fn retain(&self, keep: impl FnOnce(&Link<K, V>) -> bool) {
        let Some(node) = self.link.read().clone() else { return };
        if !keep(&node) {
            *self.link.write() = None;
        }
    }
}

impl<K: Key, V: Value> Root<K, V> {
    /// The root's node; stays in memory.
    ///
    /// # Errors
    /// [`TrieError`].
    pub(crate) fn node(&self, source: &dyn Source<K, V>) -> Result<Link<K, V>, TrieError> {
        let node = match self.child().node(&[], source) {
            Ok(node) => node,
            Err(error) => self.link.read().clone().ok_or(error)?,
        };
        Ok(self.link.write().get_or_insert(node).clone())
    }
}

/// The root hash of a trie.
pub(crate) fn root_hash<K, V>(tree: &Tree<K, V>) -> B256 {
    tree.as_ref().map_or(EMPTY_ROOT_HASH, |root| root.reference.root_hash())
}
