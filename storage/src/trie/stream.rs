//! A trie out of its leaves in order of key, at whatever size: only branches on the path to the newest leaf are held.
//!
//! A branch is complete when a key comes that is not below it. Then it is handed out with its position, and what its
//! parent needs is kept: nodes wait unhashed until their parent is complete, so that all children of a branch are
//! hashed side by side.
//!
//! Source: Ethereum Yellow Paper, appendix D; the order of events is that of any stack-based builder.

use alloy_primitives::B256;
use alloy_trie::EMPTY_ROOT_HASH;

use super::{
    encode::{NodeRef, References, encode_leaf},
    node::{Branch, Child, Key as _, Kind, Link, Origin, Value},
    update::references_of,
};

/// Takes each branch as soon as it is complete, with the position where its record is kept.
pub(crate) trait Records<V> {
    /// Why a record could not be taken.
    type Error;

    /// # Errors
    /// Whatever keeps the record from being kept.
    fn record(&mut self, position: &[u8], branch: &Branch<'_, B256, V>) -> Result<(), Self::Error>;
}

/// Nobody wants the records: what counts is the root.
pub(crate) struct NoRecords;

impl<V> Records<V> for NoRecords {
    type Error = std::convert::Infallible;

    fn record(&mut self, _: &[u8], _: &Branch<'_, B256, V>) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A node that waits for its parent.
enum Waiting<V> {
    Leaf(B256, V),
    Branch(Link<B256, V>),
}

/// A branch that is not complete.
struct Level<V> {
    /// Nibbles of the path to it, its extension among them.
    depth: usize,
    children: Vec<(u8, Waiting<V>)>,
}

/// The builder.
pub(crate) struct Stream<V> {
    /// From the root down, depths rising.
    levels: Vec<Level<V>>,
    newest: Option<(B256, V)>,
    references: References,
    /// Nibbles above all of it, which all keys share.
    depth: usize,
}

impl<V> Default for Stream<V> {
    fn default() -> Self {
        Self::below(0)
    }
}

/// How many nibbles two keys share.
pub(super) fn shared(left: &B256, right: &B256) -> usize {
    let byte = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    2 * byte + usize::from(left.get(byte).zip(right.get(byte)).is_some_and(|(left, right)| left >> 4 == right >> 4))
}

impl<V> Stream<V> {
    /// Builds the part of a trie that lies below so many nibbles.
    pub(crate) fn below(depth: usize) -> Self {
        Self { levels: Vec::new(), newest: None, references: References::default(), depth }
    }
}

impl<V: Value> Stream<V> {
    /// Adds a leaf; its key is above all that came before.
    ///
    /// # Errors
    /// Those of the records.
    pub(crate) fn push<R: Records<V>>(&mut self, key: B256, value: V, records: &mut R) -> Result<(), R::Error> {
        let Some((before, leaf)) = self.newest.replace((key, value)) else { return Ok(()) };
        assert!(before < key, "keys rise");
        self.place(before, Waiting::Leaf(before, leaf), shared(&before, &key), records)
    }

    /// Places a complete node on the path to `key`; the next key has so many nibbles in common with that.
    fn place<R: Records<V>>(
        &mut self,
        key: B256,
        mut node: Waiting<V>,
        common: usize,
        records: &mut R,
    ) -> Result<(), R::Error> {
        loop {
            match self.levels.last_mut() {
                Some(level) if level.depth >= common => {
                    level.children.push((key.nibble(level.depth), node));
                    if level.depth == common {
                        return Ok(());
                    }
                }
                _ => {
                    self.levels.push(Level { depth: common, children: vec![(key.nibble(common), node)] });
                    return Ok(());
                }
            }
            // The next key is not below this branch.
            let level = self.levels.pop().expect("it was just looked at");
            let above = self.levels.last().map_or(common, |level| level.depth.max(common));
            node = Waiting::Branch(self.complete(level, &key, above + 1, records)?);
        }
    }

    /// Makes a branch whose record stands at the first `start` nibbles of the path to `key`.
    fn complete<R: Records<V>>(
        &mut self,
        level: Level<V>,
        key: &B256,
        start: usize,
        records: &mut R,
    ) -> Result<Link<B256, V>, R::Error> {
        let (depth, children) = (level.depth + 1, level.children);
        let mut branches = Vec::new();
        let mut places = Vec::with_capacity(children.len());
        for (nibble, child) in children {
            places.push((nibble, matches!(child, Waiting::Branch(_))));
            match child {
                Waiting::Leaf(key, value) => self.references.add(|out| encode_leaf(&key, &value, depth, out)),
                Waiting::Branch(branch) => branches.push(branch),
            }
        }
        let mut leaves = self.references.take().collect::<Vec<_>>().into_iter();
        let mut branches = references_of(&branches, &mut self.references).into_iter();
        let children = places.into_iter().filter_map(|(nibble, is_branch)| {
            let (reference, kind) =
                if is_branch { (branches.next()?, Kind::Branch) } else { (leaves.next()?, Kind::Leaf) };
            Some((nibble, Child { reference, kind, link: None }))
        });
        let nibbles: Vec<u8> = (0..level.depth).map(|index| key.nibble(index)).collect();
        let node = Link::branch(nibbles[start..].into(), children, None, Origin::Built);
        if let Some(branch) = node.as_branch() {
            records.record(&nibbles[..start], &branch)?;
        }
        Ok(node)
    }

    /// Ends the trie; gives its root hash.
    ///
    /// # Errors
    /// Those of the records.
    pub(crate) fn finish<R: Records<V>>(self, records: &mut R) -> Result<B256, R::Error> {
        Ok(self.reference(records)?.map_or(EMPTY_ROOT_HASH, |reference| reference.root_hash()))
    }

    /// Ends the trie; gives how a parent refers to it, `None` if it is empty.
    ///
    /// # Errors
    /// Those of the records.
    pub(crate) fn reference<R: Records<V>>(mut self, records: &mut R) -> Result<Option<NodeRef>, R::Error> {
        let Some((key, value)) = self.newest.take() else { return Ok(None) };
        let mut node = Waiting::Leaf(key, value);
        while let Some(mut level) = self.levels.pop() {
            level.children.push((key.nibble(level.depth), node));
            let start = self.levels.last().map_or(self.depth, |level| level.depth + 1);
            node = Waiting::Branch(self.complete(level, &key, start, records)?);
        }
        Ok(match node {
            Waiting::Leaf(key, value) => {
                self.references.add(|out| encode_leaf(&key, &value, self.depth, out));
                self.references.take().next()
            }
            Waiting::Branch(branch) => references_of(&[branch], &mut self.references).pop(),
        })
    }
}
