//! Bytes of a branch as the node tables hold it.
//!
//! ```text
//! key    position: nibbles packed two to a byte (an odd last one in the high half), then 1 byte: nibbles mod 2
//! value  prefix length u8 | prefix packed | state mask u16 | tree mask u16 | hash mask u16 | references
//! ```
//!
//! Masks are big-endian, bit n for nibble n: `state` says a child exists, `tree` that the child is a
//! branch with a record of its own (else a leaf, found in the flat table), `hash` that its reference
//! is a hash. References follow in order of nibble: 32 bytes of hash, or one byte of length and the
//! node itself. The position of a record is where its extension begins, so one read gives both the
//! extension and the branch.

use super::{
    encode::NodeRef,
    node::{Body, Branch, Key, Kind, Node, Value},
};

/// Packs nibbles two to a byte.
pub(crate) fn pack(nibbles: &[u8], out: &mut Vec<u8>) {
    out.extend(nibbles.chunks(2).map(|pair| (pair[0] << 4) | pair.get(1).copied().unwrap_or(0)));
}

/// The key of the record at `position`, behind what `out` already holds.
pub(crate) fn position_key(position: &[u8], out: &mut Vec<u8>) {
    pack(position, out);
    out.push(u8::from(position.len() % 2 == 1));
}

/// Encodes a branch; every child must have been hashed.
pub(crate) fn encode<K: Key, V: Value>(branch: &Branch<K, V>) -> Vec<u8> {
    assert!(branch.value.is_none(), "only tries with keys of one length are stored");
    let mut out = Vec::with_capacity(16 + 33 * 16);
    out.push(u8::try_from(branch.prefix.len()).expect("a prefix is shorter than 64 nibbles"));
    pack(&branch.prefix, &mut out);
    let (mut state, mut tree, mut hash) = (0u16, 0u16, 0u16);
    let mut references = Vec::with_capacity(32 * 16);
    for (index, child) in branch.children.iter().enumerate() {
        let Some(child) = child else { continue };
        let reference = child.known_reference().expect("a trie is hashed before it is stored");
        let bit = 1u16 << index;
        state |= bit;
        if child.kind() == Kind::Branch {
            tree |= bit;
        }
        if reference.is_hash() {
            hash |= bit;
        } else {
            references.push(u8::try_from(reference.bytes().len()).expect("an embedded node is below 32 bytes"));
        }
        references.extend_from_slice(reference.bytes());
    }
    for mask in [state, tree, hash] {
        out.extend_from_slice(&mask.to_be_bytes());
    }
    out.append(&mut references);
    out
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

fn mask(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes, 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// Decodes what [`encode`] wrote, `None` if it is not such a record.
pub(crate) fn decode<K: Key, V: Value>(mut bytes: &[u8]) -> Option<Body<K, V>> {
    let length = usize::from(take(&mut bytes, 1)?[0]);
    let packed = take(&mut bytes, length.div_ceil(2))?;
    let prefix = (0..length).map(|i| if i % 2 == 0 { packed[i / 2] >> 4 } else { packed[i / 2] & 15 }).collect();
    let (state, tree, hash) = (mask(&mut bytes)?, mask(&mut bytes)?, mask(&mut bytes)?);
    let mut children = [const { None }; 16];
    for (index, child) in children.iter_mut().enumerate() {
        let bit = 1u16 << index;
        if state & bit == 0 {
            continue;
        }
        let reference = if hash & bit == 0 {
            let length = usize::from(take(&mut bytes, 1)?[0]);
            NodeRef::inline(take(&mut bytes, length)?)?
        } else {
            NodeRef::hash(take(&mut bytes, 32)?.try_into().ok()?)
        };
        *child = Some(Node::unresolved(reference, if tree & bit == 0 { Kind::Leaf } else { Kind::Branch }));
    }
    bytes.is_empty().then_some(Body::Branch(Branch { prefix, children, value: None }))
}
