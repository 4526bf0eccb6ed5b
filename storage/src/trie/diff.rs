//! What must be written so that stored tables hold a newer version of a trie.
//!
//! Two versions are walked in lock-step, one nibble at a time; whatever they share is skipped by
//! pointer or by reference. Because the walk resolves every node it finds replaced, a handle to the
//! older version keeps working after the tables have moved on.

use std::sync::Arc;

use super::node::{Body, Branch, Key, Link, Source, TrieError, Value};

/// Takes the differences, leaves in order of key, nodes in order of position.
pub(crate) trait Sink<K, V> {
    /// A key whose leaf differs; at least one side is there.
    ///
    /// # Errors
    /// Whatever the sink's own reading gives.
    fn leaf(&mut self, key: &K, old: Option<&V>, new: Option<&V>) -> Result<(), TrieError>;

    /// The record at a position: its branch, `None` to delete it.
    fn node(&mut self, position: &[u8], branch: Option<&Branch<K, V>>);
}

/// Reports every difference between two versions of a trie.
///
/// With `deep`, subtrees with equal hashes are compared as well if an update made the newer one:
/// equal account leaves can still stand for different storage ids.
///
/// # Errors
/// [`TrieError`] when a replaced node cannot be resolved.
pub(crate) fn diff<K: Key, V: Value>(
    old: Option<&Link<K, V>>,
    new: Option<&Link<K, V>>,
    source: &dyn Source<K, V>,
    deep: bool,
    sink: &mut dyn Sink<K, V>,
) -> Result<(), TrieError> {
    let mut walk = Walk { source, deep, sink, path: Vec::with_capacity(64) };
    walk.step(old.cloned().map(Cursor::Node), new.cloned().map(Cursor::Node))
}

/// A place in one version: at a node, or inside its prefix or its leaf's key.
enum Cursor<K, V> {
    Node(Link<K, V>),
    Inside(Arc<Body<K, V>>, usize),
}

struct Open<K, V> {
    body: Arc<Body<K, V>>,
    /// Nibbles of the prefix already walked.
    skip: usize,
    /// Whether the node begins at this position.
    start: bool,
}

impl<K: Key, V: Value> Open<K, V> {
    fn child(&self, depth: usize, nibble: u8) -> Option<Cursor<K, V>> {
        match &*self.body {
            Body::Leaf { key, .. } => {
                (key.nibble(depth) == nibble).then(|| Cursor::Inside(Arc::clone(&self.body), self.skip))
            }
            Body::Branch(branch) => match branch.prefix.get(self.skip) {
                Some(next) => (*next == nibble).then(|| Cursor::Inside(Arc::clone(&self.body), self.skip + 1)),
                None => branch.children[usize::from(nibble)].clone().map(Cursor::Node),
            },
        }
    }

    fn branch_here(&self) -> Option<&Branch<K, V>> {
        match &*self.body {
            Body::Branch(branch) if self.start => Some(branch),
            _ => None,
        }
    }
}

struct Walk<'a, K, V> {
    source: &'a dyn Source<K, V>,
    deep: bool,
    sink: &'a mut dyn Sink<K, V>,
    path: Vec<u8>,
}

impl<K: Key, V: Value> Walk<'_, K, V> {
    fn open(&self, cursor: Option<Cursor<K, V>>) -> Result<Option<Open<K, V>>, TrieError> {
        Ok(match cursor {
            None => None,
            Some(Cursor::Inside(body, skip)) => Some(Open { body, skip, start: false }),
            Some(Cursor::Node(node)) => Some(Open { body: node.body(&self.path, self.source)?, skip: 0, start: true }),
        })
    }

    fn step(&mut self, old: Option<Cursor<K, V>>, new: Option<Cursor<K, V>>) -> Result<(), TrieError> {
        if let (Some(Cursor::Node(old)), Some(Cursor::Node(new))) = (&old, &new) {
            let equal = old.known_reference().is_some() && old.known_reference() == new.known_reference();
            if Arc::ptr_eq(old, new) || (equal && !(self.deep && new.is_built())) {
                return Ok(());
            }
        }
        let (old, new) = (self.open(old)?, self.open(new)?);
        match (old.as_ref().map(|side| &*side.body), new.as_ref().map(|side| &*side.body)) {
            (None, None) => return Ok(()),
            (Some(Body::Leaf { key, value, .. }), None) => return self.sink.leaf(key, Some(value), None),
            (None, Some(Body::Leaf { key, value, .. })) => return self.sink.leaf(key, None, Some(value)),
            (Some(Body::Leaf { key: left, value: before, .. }), Some(Body::Leaf { key: right, value: after, .. }))
                if left == right =>
            {
                return self.sink.leaf(left, Some(before), Some(after));
            }
            _ => {}
        }
        if let Some(branch) = new.as_ref().and_then(Open::branch_here) {
            self.sink.node(&self.path, Some(branch));
        } else if old.as_ref().and_then(Open::branch_here).is_some() {
            self.sink.node(&self.path, None);
        }
        let depth = self.path.len();
        for nibble in 0..16 {
            let old = old.as_ref().and_then(|side| side.child(depth, nibble));
            let new = new.as_ref().and_then(|side| side.child(depth, nibble));
            if old.is_some() || new.is_some() {
                self.path.push(nibble);
                let result = self.step(old, new);
                self.path.pop();
                result?;
            }
        }
        Ok(())
    }
}
