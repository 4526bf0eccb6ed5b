//! A range of a trie that proves itself: its rows, and the nodes on the way to its two ends.
//!
//! ```text
//!            root
//!         /   |   \          on the way to an end   the node itself, found by its hash
//!       o     o     o        between the ends       hashed again from the rows, compared with its reference above
//!      / \   / \   / \       outside                a reference, which nothing is asked of
//! ```
//! So nothing between the ends can be missing, added or changed under the root. A range goes from a key to the key of
//! its last row; one without rows goes to the end of the trie. Whoever checks one is told whether the trie goes on.
//!
//! Source: Ethereum's snap protocol proves ranges so; EIP-1186 for the nodes.

use alloy_primitives::{B256, Bytes, keccak256, map::B256Map};
use alloy_rlp::Decodable as _;
use alloy_trie::{
    EMPTY_ROOT_HASH, Nibbles,
    nodes::{RlpNode, TrieNode},
};

use super::{
    encode::{NodeRef, encode_leaf},
    fold::fold,
    node::{Body, Key as _, Link, Source, Tree, TrieError, Value},
    proof::prove,
};

/// A part of a trie from some key on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range<V> {
    /// In order of key, each at or above the key that was asked for.
    pub(crate) rows: Vec<(B256, V)>,
    /// Encoded nodes from the root down to that key and to the last row's.
    pub(crate) proof: Vec<Bytes>,
}

/// Why a range does not prove itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeError {
    /// Rows are not in order of key, or below the key that was asked for.
    #[error("row {0} is out of order")]
    Order(B256),
    /// A node on the way to an end is not among those that came.
    #[error("the node at {0} is missing")]
    Missing(String),
    /// What the rows come to is something else than the trie has there.
    #[error("the rows at {0} are not the trie's")]
    Differs(String),
}

/// Takes rows from `from` on while `more` says so, at least one if there is any, and proves them.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn range<V: Value>(
    tree: &Tree<B256, V>,
    from: B256,
    source: &dyn Source<B256, V>,
    more: impl FnMut(&B256, &V) -> bool,
) -> Result<Range<V>, TrieError> {
    let rows = rows(tree, from, source, more)?;
    let proof = edges(tree, from, rows.last().map(|(last, _)| last), source)?;
    Ok(Range { rows, proof })
}

/// Takes rows from `from` on while `more` says so, at least one if there is any.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn rows<V: Value>(
    tree: &Tree<B256, V>,
    from: B256,
    source: &dyn Source<B256, V>,
    mut more: impl FnMut(&B256, &V) -> bool,
) -> Result<Vec<(B256, V)>, TrieError> {
    let mut walk = Walk { source, from, rows: Vec::new(), more: &mut more, path: Vec::with_capacity(64) };
    if let Some(root) = tree {
        walk.collect(&root.node(source)?, true)?;
    }
    Ok(walk.rows)
}

/// The nodes on the way to both ends of a range.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn edges<V: Value>(
    tree: &Tree<B256, V>,
    from: B256,
    last: Option<&B256>,
    source: &dyn Source<B256, V>,
) -> Result<Vec<Bytes>, TrieError> {
    let mut proof = prove(tree, &from, source)?.1;
    if let Some(last) = last {
        for node in prove(tree, last, source)?.1 {
            if !proof.contains(&node) {
                proof.push(node);
            }
        }
    }
    Ok(proof)
}

struct Walk<'a, V> {
    source: &'a dyn Source<B256, V>,
    from: B256,
    rows: Vec<(B256, V)>,
    more: &'a mut dyn FnMut(&B256, &V) -> bool,
    path: Vec<u8>,
}

impl<V: Value> Walk<'_, V> {
    /// Takes what lies below a node, at the path; `is_edge` if keys below it may lie before the range. Gives whether
    /// more is wanted.
    fn collect(&mut self, node: &Link<B256, V>, is_edge: bool) -> Result<bool, TrieError> {
        let branch = match node.body() {
            Body::Leaf(key, _) if is_edge && *key < self.from => return Ok(true),
            Body::Leaf(key, value) => {
                self.rows.push((*key, value.clone()));
                return Ok((self.more)(key, value));
            }
            Body::Branch(branch) => branch,
        };
        let depth = self.path.len();
        let mut is_edge = is_edge;
        for (index, nibble) in branch.prefix.iter().enumerate() {
            let edge = self.from.nibble(depth + index);
            if is_edge && *nibble < edge {
                return Ok(true);
            }
            is_edge &= *nibble == edge;
        }
        self.path.extend_from_slice(&branch.prefix);
        let (inner, from) = (self.path.len(), self.from);
        let mut goes_on = true;
        for nibble in branch.nibbles().filter(|nibble| !is_edge || *nibble >= from.nibble(inner)) {
            self.path.push(nibble);
            let child = branch.child(nibble).map(|child| child.node(&self.path, self.source)).transpose()?;
            let is_edge = is_edge && nibble == from.nibble(inner);
            goes_on = child.map_or(Ok(true), |child| self.collect(&child, is_edge))?;
            self.path.pop();
            if !goes_on {
                break;
            }
        }
        self.path.truncate(depth);
        Ok(goes_on)
    }
}

/// Checks that a range is what a trie with this root has from `from` on; gives whether the trie goes on behind it.
///
/// # Errors
/// [`RangeError`], naming the place.
pub(crate) fn check<V: Value>(
    root: B256,
    from: B256,
    (rows, proof): (&[(B256, V)], &[Bytes]),
) -> Result<bool, RangeError> {
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(RangeError::Order(pair[1].0));
    }
    if let Some((key, _)) = rows.first().filter(|(key, _)| *key < from) {
        return Err(RangeError::Order(*key));
    }
    if root == EMPTY_ROOT_HASH {
        return if rows.is_empty() { Ok(false) } else { Err(RangeError::Differs("the root".to_owned())) };
    }
    let nodes = proof.iter().map(|node| (keccak256(node), &node[..])).collect();
    let mut check = Check { nodes, from, last: rows.last().map(|(key, _)| *key), goes_on: false };
    check.node(&NodeRef::hash(root), &Nibbles::new(), (true, check.last.is_some()), rows)?;
    Ok(check.goes_on)
}

struct Check<'r> {
    nodes: B256Map<&'r [u8]>,
    from: B256,
    last: Option<B256>,
    goes_on: bool,
}

/// Whether a subtree has keys before the range, and whether behind it.
type Edges = (bool, bool);

impl Check<'_> {
    /// Where a nibble leads from a path with these edges; `None` if all of it lies outside of the range.
    fn step(&mut self, at: usize, nibble: u8, (left, right): Edges) -> Option<Edges> {
        if left && nibble < self.from.nibble(at) {
            return None;
        }
        if right && self.last.is_some_and(|last| nibble > last.nibble(at)) {
            self.goes_on = true;
            return None;
        }
        let on_last = self.last.is_some_and(|last| nibble == last.nibble(at));
        Some((left && nibble == self.from.nibble(at), right && on_last))
    }

    /// Compares the subtree at a path with the rows that lie below it.
    fn node<V: Value>(
        &mut self,
        reference: &NodeRef,
        path: &Nibbles,
        edges: Edges,
        rows: &[(B256, V)],
    ) -> Result<(), RangeError> {
        let differs = || RangeError::Differs(format!("{path:?}"));
        if edges == (false, false) {
            return if fold(path.len(), rows) == Some(*reference) { Ok(()) } else { Err(differs()) };
        }
        let bytes = if reference.is_hash() {
            let found = self.nodes.get(&B256::from_slice(reference.bytes())).copied();
            found.ok_or_else(|| RangeError::Missing(format!("{path:?}")))?.to_vec()
        } else {
            reference.bytes().to_vec()
        };
        match TrieNode::decode(&mut &bytes[..]).map_err(|_| differs())? {
            TrieNode::EmptyRoot => Err(differs()),
            TrieNode::Leaf(leaf) => self.leaf(&bytes, &path.join(&leaf.key), path.len(), edges, rows),
            TrieNode::Extension(extension) => {
                let (mut edges, mut inner) = (edges, *path);
                for nibble in extension.key.to_vec() {
                    let Some(next) = self.step(inner.len(), nibble, edges) else {
                        return if rows.is_empty() { Ok(()) } else { Err(differs()) };
                    };
                    edges = next;
                    inner.push(nibble);
                }
                if rows.iter().any(|(key, _)| !Nibbles::unpack(key).starts_with(&inner)) {
                    return Err(differs());
                }
                self.node(&reference_in(&extension.child).ok_or_else(differs)?, &inner, edges, rows)
            }
            TrieNode::Branch(branch) => {
                let (mut children, mut rest) = (branch.stack.iter(), rows);
                for nibble in 0..16 {
                    let is_below = |(key, _): &(B256, V)| key.nibble(path.len()) <= nibble;
                    let (group, others) = rest.split_at(rest.partition_point(is_below));
                    rest = others;
                    let child = branch.state_mask.is_bit_set(nibble).then(|| children.next()).flatten();
                    let step = child.and_then(|child| Some((child, self.step(path.len(), nibble, edges)?)));
                    let mut below = *path;
                    below.push(nibble);
                    match step {
                        Some((child, edges)) => {
                            let reference = reference_in(child).ok_or_else(differs)?;
                            self.node(&reference, &below, edges, group)?;
                        }
                        None if group.is_empty() => {}
                        None => return Err(RangeError::Differs(format!("{below:?}"))),
                    }
                }
                Ok(())
            }
        }
    }

    /// Compares a leaf on the way to an end with the rows there.
    fn leaf<V: Value>(
        &mut self,
        bytes: &[u8],
        path: &Nibbles,
        depth: usize,
        (left, right): Edges,
        rows: &[(B256, V)],
    ) -> Result<(), RangeError> {
        let differs = || RangeError::Differs(format!("{path:?}"));
        let key = B256::try_from(&path.pack()[..]).map_err(|_| differs())?;
        let is_behind = right && self.last.is_some_and(|last| key > last);
        self.goes_on |= is_behind;
        let is_outside = is_behind || (left && key < self.from);
        let is_it = match rows {
            [] => is_outside,
            [(row, value)] if !is_outside && *row == key => {
                let mut encoded = Vec::with_capacity(112);
                let begin = encode_leaf(row, value, depth, &mut encoded);
                encoded[begin..] == *bytes
            }
            _ => false,
        };
        if is_it { Ok(()) } else { Err(differs()) }
    }
}

/// A child as a node refers to it.
fn reference_in(child: &RlpNode) -> Option<NodeRef> {
    child.as_hash().map(NodeRef::hash).or_else(|| NodeRef::inline(child.as_slice()))
}
