//! What must be written so that stored tables hold a newer version of a trie.
//!
//! Two versions are walked in lock-step, one nibble at a time; whatever they share is skipped by
//! pointer or by reference.

use super::node::{Body, Branch, Child, Key, Kind, Link, Source, Tree, TrieError, Value};

/// Takes the differences, leaves in order of key, nodes in order of position.
pub(crate) trait Sink<K, V> {
    /// A key whose leaf differs; at least one side is there.
    ///
    /// # Errors
    /// Whatever the sink's own reading gives.
    fn leaf(&mut self, key: &K, old: Option<&V>, new: Option<&V>) -> Result<(), TrieError>;

    /// The record at a position, before and after; at least one side is there.
    fn node(&mut self, position: &[u8], old: Option<&Branch<'_, K, V>>, new: Option<&Branch<'_, K, V>>);
}

/// Which differences are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// All of them, and those in subtrees with equal hashes that an update made: equal account leaves can still stand
    /// for different storage ids.
    Deep,
    /// Those of branches; no leaf is read.
    Branches,
}

/// Reports every difference between two versions of a trie.
///
/// # Errors
/// [`TrieError`] when a replaced node cannot be resolved.
pub(crate) fn diff<K: Key, V: Value>(
    old: &Tree<K, V>,
    new: &Tree<K, V>,
    source: &dyn Source<K, V>,
    scope: Scope,
    sink: &mut dyn Sink<K, V>,
) -> Result<(), TrieError> {
    let mut walk = Walk { source, scope, sink, path: Vec::with_capacity(64) };
    let cursor = |tree: &Tree<K, V>| tree.as_ref().map(|root| Cursor::At(root.child()));
    walk.step(cursor(old), cursor(new))
}

/// A place in one version: at a node, or inside its prefix or its leaf's key.
enum Cursor<K, V> {
    At(Child<K, V>),
    Inside(Link<K, V>, usize),
}

struct Open<K, V> {
    node: Link<K, V>,
    /// Nibbles of the prefix already walked.
    skip: usize,
    /// Whether the node begins at this position.
    start: bool,
}

impl<K: Key, V: Value> Open<K, V> {
    fn child(&self, depth: usize, nibble: u8) -> Option<Cursor<K, V>> {
        match self.node.body() {
            Body::Leaf(key, _) => (key.nibble(depth) == nibble).then(|| Cursor::Inside(self.node.clone(), self.skip)),
            Body::Branch(branch) => match branch.prefix.get(self.skip) {
                Some(next) => (*next == nibble).then(|| Cursor::Inside(self.node.clone(), self.skip + 1)),
                None => branch.child(nibble).map(Cursor::At),
            },
        }
    }

    fn branch_here(&self) -> Option<Branch<'_, K, V>> {
        self.node.as_branch().filter(|_| self.start)
    }
}

struct Walk<'a, K, V> {
    source: &'a dyn Source<K, V>,
    scope: Scope,
    sink: &'a mut dyn Sink<K, V>,
    path: Vec<u8>,
}

impl<K: Key, V: Value> Walk<'_, K, V> {
    fn open(&self, cursor: Option<Cursor<K, V>>) -> Result<Option<Open<K, V>>, TrieError> {
        let skips_leaves = self.scope == Scope::Branches;
        let open = match cursor {
            None => None,
            Some(Cursor::At(child)) if skips_leaves && child.kind == Kind::Leaf => None,
            Some(Cursor::Inside(node, skip)) => Some(Open { node, skip, start: false }),
            Some(Cursor::At(child)) => Some(Open { node: child.node(&self.path, self.source)?, skip: 0, start: true }),
        };
        Ok(open.filter(|open| !skips_leaves || open.node.as_branch().is_some()))
    }

    fn step(&mut self, old: Option<Cursor<K, V>>, new: Option<Cursor<K, V>>) -> Result<(), TrieError> {
        if let (Some(Cursor::At(old)), Some(Cursor::At(new))) = (&old, &new)
            && old.reference == new.reference
        {
            let is_one = old.link.is_some() && old.link == new.link;
            if is_one || self.scope != Scope::Deep || !new.link.as_ref().is_some_and(Link::is_built) {
                return Ok(());
            }
        }
        let (old, new) = (self.open(old)?, self.open(new)?);
        match (old.as_ref().map(|side| side.node.body()), new.as_ref().map(|side| side.node.body())) {
            (None, None) => return Ok(()),
            (Some(Body::Leaf(key, value)), None) => return self.sink.leaf(key, Some(value), None),
            (None, Some(Body::Leaf(key, value))) => return self.sink.leaf(key, None, Some(value)),
            (Some(Body::Leaf(left, before)), Some(Body::Leaf(right, after))) if left == right => {
                return self.sink.leaf(left, Some(before), Some(after));
            }
            _ => {}
        }
        let (before, after) = (old.as_ref().and_then(Open::branch_here), new.as_ref().and_then(Open::branch_here));
        if before.is_some() || after.is_some() {
            self.sink.node(&self.path, before.as_ref(), after.as_ref());
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
