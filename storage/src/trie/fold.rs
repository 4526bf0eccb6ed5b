//! The reference of a part of a trie out of rows that are all in memory: what [`super::stream`] gives at any size.
//!
//! Leaves are hashed together, then branches from the lowest up, those of one height together, so that no lane of the
//! hash idles; of a node nothing is made but its bytes.

use std::ops::Range;

use alloy_primitives::B256;

use super::{
    encode::{NodeRef, References, encode_extension, encode_leaf},
    node::{Key as _, Value},
    rlp,
    stream::shared,
};

/// Nodes whose bytes wait for their hashes together: few enough to stay in the cache.
const TOGETHER: usize = 64;

#[derive(Clone, Copy)]
enum Child {
    /// A row, by its place.
    Leaf(usize),
    /// A branch, by its place.
    Branch(usize),
}

struct Branch {
    /// Nibbles of the path to it, its extension among them.
    depth: usize,
    /// Nibbles of the path to its extension.
    start: usize,
    /// The first row below it.
    first: usize,
    /// Its children, in the shape's list.
    children: Range<usize>,
    /// Branches on the longest way down from it.
    height: usize,
}

/// Which branches rows make, each behind those below it.
struct Shape {
    branches: Vec<Branch>,
    children: Vec<Child>,
}

/// How a parent refers to the trie of these rows, which rise and share their first `depth` nibbles; `None` if there is
/// none.
pub(crate) fn fold<V: Value>(depth: usize, rows: &[(B256, V)]) -> Option<NodeRef> {
    // Nibbles that a row shares with the one before.
    let common: Vec<usize> = rows.windows(2).map(|pair| shared(&pair[0].0, &pair[1].0)).collect();
    let mut references = References::default();
    let mut leaves = Vec::with_capacity(rows.len());
    for (from, part) in (0_usize..).step_by(TOGETHER).zip(rows.chunks(TOGETHER)) {
        for (index, (key, value)) in (from..).zip(part) {
            let before: Option<&usize> = index.checked_sub(1).and_then(|before| common.get(before));
            let start = before.max(common.get(index)).map_or(depth, |common| common + 1);
            references.add(|out| encode_leaf(key, value, start, out));
        }
        leaves.extend(references.take());
    }
    let shape = Shape::of(depth, rows.len(), &common);
    if shape.branches.is_empty() {
        return leaves.pop();
    }
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for (index, branch) in shape.branches.iter().enumerate() {
        levels.resize_with(levels.len().max(branch.height), Vec::new);
        levels[branch.height - 1].push(index);
    }
    let mut branches = vec![NodeRef::hash(B256::ZERO); shape.branches.len()];
    for part in levels.iter().flat_map(|level| level.chunks(TOGETHER)) {
        for index in part {
            references.add(|out| shape.encode(*index, rows, (&leaves, &branches), out));
        }
        for (index, reference) in part.iter().zip(references.take()) {
            branches[*index] = reference;
        }
        let is_extended = |index: &&usize| shape.branches[**index].start < shape.branches[**index].depth;
        for index in part.iter().filter(is_extended) {
            let Branch { depth, start, first, .. } = &shape.branches[*index];
            let prefix: Vec<u8> = (*start..*depth).map(|at| rows[*first].0.nibble(at)).collect();
            references.add(|out| encode_extension(&prefix, &branches[*index], out));
        }
        for (index, reference) in part.iter().filter(is_extended).zip(references.take()) {
            branches[*index] = reference;
        }
    }
    branches.pop()
}

impl Shape {
    fn of(depth: usize, rows: usize, common: &[usize]) -> Self {
        let mut shape = Self { branches: Vec::new(), children: Vec::new() };
        // Branches that are not complete: depth, and where their children begin among the nodes that wait.
        let (mut open, mut nodes): (Vec<(usize, usize)>, Vec<Child>) = (Vec::new(), Vec::new());
        for row in 0..rows {
            nodes.push(Child::Leaf(row));
            let next = common.get(row).copied();
            while let Some((at, begin)) = open.pop_if(|(at, _)| next.is_none_or(|next| *at > next)) {
                let above = open.last().map(|(above, _)| *above).max(next);
                let branch = shape.complete(at, above.map_or(depth, |above| above + 1), nodes.drain(begin..));
                nodes.push(branch);
            }
            if let Some(next) = next
                && open.last().is_none_or(|(at, _)| *at < next)
            {
                open.push((next, nodes.len() - 1));
            }
        }
        shape
    }

    fn complete(&mut self, depth: usize, start: usize, nodes: impl Iterator<Item = Child>) -> Child {
        let begin = self.children.len();
        self.children.extend(nodes);
        let children = begin..self.children.len();
        let height = self.children[children.clone()].iter().map(|child| match child {
            Child::Leaf(_) => 1,
            Child::Branch(index) => self.branches[*index].height + 1,
        });
        let (height, first) = (height.max().unwrap_or(1), self.first(self.children[begin]));
        self.branches.push(Branch { depth, start, first, children, height });
        Child::Branch(self.branches.len() - 1)
    }

    /// The first row of a child.
    fn first(&self, child: Child) -> usize {
        match child {
            Child::Leaf(row) => row,
            Child::Branch(index) => self.branches[index].first,
        }
    }

    /// Appends a branch, its extension left out; returns where it begins.
    fn encode<V>(
        &self,
        index: usize,
        rows: &[(B256, V)],
        (leaves, branches): (&[NodeRef], &[NodeRef]),
        out: &mut Vec<u8>,
    ) -> usize {
        let branch = &self.branches[index];
        let start = rlp::begin_list(out);
        let mut next = 0;
        for child in &self.children[branch.children.clone()] {
            let nibble = rows[self.first(*child)].0.nibble(branch.depth);
            out.extend((next..nibble).map(|_| 0x80));
            let reference = match child {
                Child::Leaf(row) => &leaves[*row],
                Child::Branch(below) => &branches[*below],
            };
            rlp::reference(out, reference);
            next = nibble + 1;
        }
        out.extend((next..17).map(|_| 0x80));
        rlp::finish_list(out, start)
    }
}
