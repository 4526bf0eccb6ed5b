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
    node::{Branch, Child, Kind, Link, Origin},
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

/// Encodes a branch.
pub(crate) fn encode<K, V>(branch: &Branch<'_, K, V>) -> Vec<u8> {
    assert!(branch.value.is_none(), "only tries with keys of one length are stored");
    let mut out = Vec::with_capacity(16 + 33 * branch.references.len());
    out.push(u8::try_from(branch.prefix.len()).expect("a prefix is shorter than 64 nibbles"));
    pack(&branch.prefix, &mut out);
    let hashed = |(nibble, reference): (u8, &NodeRef)| u16::from(reference.is_hash()) << nibble;
    let hash = branch.referenced().map(hashed).fold(0, |mask, bit| mask | bit);
    for mask in [branch.state, branch.tree, hash] {
        out.extend_from_slice(&mask.to_be_bytes());
    }
    for reference in branch.references {
        if !reference.is_hash() {
            out.push(u8::try_from(reference.bytes().len()).expect("an embedded node is below 32 bytes"));
        }
        out.extend_from_slice(reference.bytes());
    }
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
pub(crate) fn decode<K, V>(mut bytes: &[u8]) -> Option<Link<K, V>> {
    let length = usize::from(take(&mut bytes, 1)?[0]);
    let packed = take(&mut bytes, length.div_ceil(2))?;
    let prefix = (0..length).map(|i| if i % 2 == 0 { packed[i / 2] >> 4 } else { packed[i / 2] & 15 }).collect();
    let (state, tree, hash) = (mask(&mut bytes)?, mask(&mut bytes)?, mask(&mut bytes)?);
    let mut children = Vec::with_capacity(16);
    for nibble in (0..16).filter(|nibble| state & (1 << nibble) != 0) {
        let reference = if hash & (1 << nibble) == 0 {
            let length = usize::from(take(&mut bytes, 1)?[0]);
            NodeRef::inline(take(&mut bytes, length)?)?
        } else {
            NodeRef::hash(take(&mut bytes, 32)?.try_into().ok()?)
        };
        let kind = if tree & (1 << nibble) == 0 { Kind::Leaf } else { Kind::Branch };
        children.push((nibble, Child { reference, kind, link: None }));
    }
    bytes.is_empty().then(|| Link::branch(prefix, children.into_iter(), None, Origin::Read))
}
