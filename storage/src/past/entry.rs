//! What stood at a place of a trie before a block.
//!
//! ```text
//! key      storage id u64, 0 for accounts | nibbles u8 | position, packed     | height u64      a branch
//!          storage id u64, 0 for accounts | 255        | hashed key 32        | height u64      a leaf
//! branch   0                                                       there was none
//!          1 | record                                              it was this, see `trie::record`
//!          2 | state u16 | tree u16 | changed u16 | references     it had these children, of which some changed;
//!                                                                  those only, the others are what came after
//! leaf     nothing, or the row of the flat table
//! ```
//!
//! A reference is its length u8 and its bytes: a hash, or the node itself.

use alloy_primitives::B256;
use engine::types::Height;

use crate::{
    tables::Fields,
    trie::{
        encode::NodeRef,
        links::nibbles,
        node::{Branch, Child, Kind, Link, Origin},
        record,
    },
};

/// Marks the key of a leaf.
const LEAF: u8 = 255;

/// A place of a trie: the part of a key between storage id and height.
pub(crate) type Place = Vec<u8>;

/// The place of a branch.
pub(crate) fn branch_place(position: &[u8]) -> Place {
    let mut place = Vec::with_capacity(1 + position.len().div_ceil(2));
    place.push(u8::try_from(position.len()).expect("a position has at most 64 nibbles"));
    record::pack(position, &mut place);
    place
}

/// The place of a leaf.
pub(crate) fn leaf_place(hashed: &B256) -> Place {
    [&[LEAF], hashed.as_slice()].concat()
}

/// The key of a place, without its height.
pub(crate) fn key(id: u64, place: &Place) -> Vec<u8> {
    [&id.to_be_bytes()[..], place].concat()
}

/// The hashed key and the height in the key of a leaf, `None` for any other key.
pub(crate) fn leaf_of(key: &[u8], id: u64) -> Option<(B256, Height)> {
    let mut fields = Fields(key);
    let is_leaf = fields.u64()? == id && fields.bytes(1)? == [LEAF];
    let (hashed, height) = (fields.hash()?, Height(fields.u64()?));
    (is_leaf && fields.0.is_empty()).then_some((hashed, height))
}

/// What a branch was, by what it became.
pub(crate) fn encode<V>(old: Option<&Branch<'_, B256, V>>, new: Option<&Branch<'_, B256, V>>) -> Vec<u8> {
    let Some(old) = old else { return vec![0] };
    let whole = || [&[1][..], &record::encode(old)].concat();
    let Some(new) = new.filter(|new| new.prefix == old.prefix) else { return whole() };
    let is_changed = |nibble: u8, reference: &NodeRef| {
        new.reference(nibble) != Some(reference) || old.kind(nibble) != new.kind(nibble)
    };
    let changed: Vec<_> = old.referenced().filter(|(nibble, reference)| is_changed(*nibble, reference)).collect();
    if changed.len() == old.references.len() {
        return whole();
    }
    let mask = changed.iter().fold(0u16, |mask, (nibble, _)| mask | 1 << nibble);
    let mut out = Vec::with_capacity(8 + 33 * changed.len());
    out.push(2);
    for mask in [old.state, old.tree, mask] {
        out.extend_from_slice(&mask.to_be_bytes());
    }
    for (_, reference) in changed {
        out.push(u8::try_from(reference.bytes().len()).expect("a reference has at most 32 bytes"));
        out.extend_from_slice(reference.bytes());
    }
    out
}

/// A branch of which only the newer versions have been seen so far.
#[derive(Default)]
pub(crate) struct Partial {
    /// Which children there were, and which of them were branches, once known.
    masks: Option<(u16, u16)>,
    references: [Option<NodeRef>; 16],
}

/// What one more entry told about a branch.
pub(crate) enum Told<V> {
    /// Look at the next entry.
    More,
    /// This is all.
    Done(Option<Link<B256, V>>),
}

impl Partial {
    /// Takes the next newer entry into account; `None` if it is none.
    pub(crate) fn entry<V>(&mut self, value: &[u8]) -> Option<Told<V>> {
        let mut fields = Fields(value);
        match fields.bytes(1)?[0] {
            0 => (fields.0.is_empty() && self.masks.is_none()).then_some(Told::Done(None)),
            1 => {
                let node: Link<B256, V> = record::decode(fields.0)?;
                Some(Told::Done(Some(self.complete(&node.as_branch()?)?)))
            }
            2 => {
                let (state, tree, changed) = (fields.u16()?, fields.u16()?, fields.u16()?);
                if (tree | changed) & !state != 0 {
                    return None;
                }
                let (wanted, _) = *self.masks.get_or_insert((state, tree));
                for nibble in nibbles(changed) {
                    let length = usize::from(fields.bytes(1)?[0]);
                    let bytes = fields.bytes(length)?;
                    let reference = match <[u8; 32]>::try_from(bytes) {
                        Ok(hash) => NodeRef::hash(hash.into()),
                        Err(_) => NodeRef::inline(bytes)?,
                    };
                    if wanted & (1 << nibble) != 0 {
                        self.references[usize::from(nibble)].get_or_insert(reference);
                    }
                }
                fields.0.is_empty().then_some(Told::More)
            }
            _ => None,
        }
    }

    /// The branch, of which the newest version is this; `None` if that cannot be.
    pub(crate) fn complete<V>(&self, newest: &Branch<'_, B256, V>) -> Option<Link<B256, V>> {
        let (state, tree) = self.masks.unwrap_or((newest.state, newest.tree));
        let mut children = Vec::with_capacity(16);
        for nibble in nibbles(state) {
            let reference = self.references[usize::from(nibble)].or_else(|| newest.reference(nibble).copied())?;
            let kind = if tree & (1 << nibble) == 0 { Kind::Leaf } else { Kind::Branch };
            children.push((nibble, Child { reference, kind, link: None }));
        }
        Some(Link::branch(newest.prefix.clone(), children.into_iter(), None, Origin::Read))
    }
}
