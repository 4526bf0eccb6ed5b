//! The peer of the state root: alloy's hash builder, fed by a walk over branch nodes that MDBX stores.
//!
//! Below a branch with nothing changed the walk takes the stored hash; leaves beside changed ones are read from the
//! flat table and hashed again. That is how Ethereum clients with flat state compute the root after a block.

use std::{borrow::Cow, ops::ControlFlow, path::Path};

use alloy_primitives::{B256, U256};
use alloy_trie::{BranchNodeCompact, HashBuilder, Nibbles, TrieMask};
use mdbx::{Database as Dbi, Environment, Ro, TxUnsync, WriteFlags};

use crate::durable;

/// Rows in one transaction while loading.
const CHUNK_ROWS: usize = 500_000;

/// A new value of a key, `None` to delete it.
pub(crate) type Item = (B256, Option<U256>);

/// A storage trie as flat rows and stored branch nodes.
pub(crate) struct Walker {
    env: Environment,
    nodes: Dbi,
    slots: Dbi,
}

impl Walker {
    /// Stores a trie with these leaves, in order of key; gives its root as well.
    pub(crate) fn load(folder: &Path, leaves: &[(B256, U256)]) -> (Self, B256) {
        let (env, [nodes, slots]) = durable::open(folder, ["nodes", "slots"]);
        let walker = Self { env, nodes, slots };
        let mut builder = HashBuilder::default().with_updates(true);
        for chunk in leaves.chunks(CHUNK_ROWS) {
            let txn = walker.env.begin_rw_unsync().expect("nobody else writes");
            for (key, value) in chunk {
                let bytes = value.to_be_bytes_trimmed_vec();
                txn.put(walker.slots, key.as_slice(), &bytes, WriteFlags::APPEND).expect("keys rise");
                builder.add_leaf_unchecked(Nibbles::unpack(key), &alloy_rlp::encode(value));
            }
            txn.commit().expect("the disk takes it");
        }
        let root = builder.root();
        let mut updates: Vec<_> = builder.split().1.into_iter().map(|(path, node)| (path.to_vec(), node)).collect();
        updates.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        for chunk in updates.chunks(CHUNK_ROWS) {
            let txn = walker.env.begin_rw_unsync().expect("nobody else writes");
            for (path, node) in chunk {
                // The key of the root is empty, which no table takes.
                let key = [&[0xff][..], path].concat();
                txn.put(walker.nodes, &key, encode(node), WriteFlags::UPSERT).expect("the disk takes it");
            }
            txn.commit().expect("the disk takes it");
        }
        (walker, root)
    }

    /// The root after changes, in order of key; what a block would write is kept as well, as a client needs it.
    pub(crate) fn root(&self, items: &[Item]) -> B256 {
        let txn = self.env.begin_ro_unsync().expect("readers are free");
        let mut walk = Walk { walker: self, txn: &txn, builder: HashBuilder::default().with_updates(true) };
        walk.cover(Nibbles::new(), items);
        let root = walk.builder.root();
        assert!(walk.builder.updates_len() > 0 || items.len() < 2, "changes rewrite nodes");
        root
    }
}

struct Walk<'a> {
    walker: &'a Walker,
    txn: &'a TxUnsync<Ro>,
    builder: HashBuilder,
}

impl Walk<'_> {
    /// Adds everything at or below a path.
    fn cover(&mut self, path: Nibbles, items: &[Item]) {
        match self.first_node(&path) {
            Some((at, node)) => {
                // An extension may lie between the path and the branch; what is changed beside it is new.
                let from = items.partition_point(|(key, _)| Nibbles::unpack(key) < at);
                let to = items.partition_point(|(key, _)| {
                    let key = Nibbles::unpack(key);
                    key < at || key.starts_with(&at)
                });
                self.add(&items[..from]);
                self.children(at, &node, &items[from..to]);
                self.add(&items[to..]);
            }
            None if path.is_empty() => {
                for nibble in 0..16 {
                    let child = Nibbles::from_nibbles([nibble]);
                    self.cover(child, below(items, &child));
                }
            }
            None => self.leaves(&path, items),
        }
    }

    fn children(&mut self, at: Nibbles, node: &BranchNodeCompact, items: &[Item]) {
        for nibble in 0..16 {
            let mut child = at;
            child.push(nibble);
            let group = below(items, &child);
            if !node.state_mask.is_bit_set(nibble) {
                self.add(group);
            } else if group.is_empty() && node.hash_mask.is_bit_set(nibble) {
                self.builder.add_branch(child, node.hash_for_nibble(nibble), node.tree_mask.is_bit_set(nibble));
            } else if node.tree_mask.is_bit_set(nibble) {
                self.cover(child, group);
            } else {
                self.leaves(&child, group);
            }
        }
    }

    /// Adds the rows under a path, with their changes.
    fn leaves(&mut self, path: &Nibbles, items: &[Item]) {
        let mut start = [0; 32];
        path.pack_to(&mut start[..path.len().div_ceil(2)]);
        let mut rest = items;
        let mut rows = Vec::with_capacity(16);
        self.scan(self.walker.slots, &start, |key, value| {
            let key = B256::from_slice(key);
            if !Nibbles::unpack(key).starts_with(path) {
                return ControlFlow::Break(());
            }
            rows.push((key, U256::try_from_be_slice(value).expect("a value has at most 32 bytes")));
            ControlFlow::Continue(())
        });
        for (key, value) in rows {
            let before = rest.partition_point(|(other, _)| *other < key);
            self.add(&rest[..before]);
            rest = &rest[before..];
            match rest.split_first() {
                Some((changed, others)) if changed.0 == key => {
                    self.add(std::slice::from_ref(changed));
                    rest = others;
                }
                _ => self.add(&[(key, Some(value))]),
            }
        }
        self.add(rest);
    }

    fn add(&mut self, items: &[Item]) {
        for (key, value) in items {
            if let Some(value) = value {
                self.builder.add_leaf_unchecked(Nibbles::unpack(key), &alloy_rlp::encode_fixed_size(value));
            }
        }
    }

    /// The topmost stored node at or below a path.
    fn first_node(&self, path: &Nibbles) -> Option<(Nibbles, BranchNodeCompact)> {
        let key = [&[0xff][..], &path.to_vec()].concat();
        let mut found = None;
        self.scan(self.walker.nodes, &key, |row, value| {
            if row.starts_with(&key) {
                found = Some((Nibbles::from_nibbles(&row[1..]), decode(value)));
            }
            ControlFlow::Break(())
        });
        found
    }

    fn scan(&self, table: Dbi, key: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        let mut cursor = self.txn.cursor(table).expect("the table is there");
        let mut row = cursor.set_range::<Cow<'_, [u8]>, Cow<'_, [u8]>>(key).expect("readable");
        while let Some((key, value)) = row {
            if visit(&key, &value).is_break() {
                break;
            }
            row = cursor.next().expect("readable");
        }
    }
}

/// The changes under a path.
fn below<'i>(items: &'i [Item], path: &Nibbles) -> &'i [Item] {
    let from = items.partition_point(|(key, _)| Nibbles::unpack(key) < *path);
    let count = items[from..].partition_point(|(key, _)| Nibbles::unpack(key).starts_with(path));
    &items[from..from + count]
}

fn encode(node: &BranchNodeCompact) -> Vec<u8> {
    let masks = [node.state_mask, node.tree_mask, node.hash_mask].map(|mask| mask.get().to_be_bytes());
    let mut out = masks.concat();
    out.extend(node.hashes.iter().flatten());
    out
}

fn decode(bytes: &[u8]) -> BranchNodeCompact {
    let mask = |at: usize| TrieMask::new(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let hashes = bytes[6..].as_chunks().0.iter().map(B256::from).collect::<Vec<_>>();
    BranchNodeCompact::new(mask(0), mask(2), mask(4), hashes, None)
}
