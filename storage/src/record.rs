//! Framing of records in segments.
//!
//! ```text
//! record        payload length u32 | type u8 | flags u8 | height u64 | CRC32C u32 | payload
//! flags         bit 0: the payload is lz4 (its size before compression u32 LE, then the block)
//! CRC32C        over the folder's salt (u32), the 14 bytes before it and the payload as stored
//! Block         engine codec `block`          Receipts  engine codec `receipts`
//! Changes       engine codec `changes`: redo log, changeset and rewind source in one
//! Finalization  height durable before this group u64 | leader's signature and certificate, RLP
//! ```
//!
//! Integers are big-endian. A block is its four records in that order, one behind the other; without
//! the last of them it does not count. A length of zero is the end: segments are zero-written, and
//! recovery zeroes whatever it cuts off. The salt is random and never leaves the folder, so nothing that a
//! client puts into a transaction can pass for a record.

use std::borrow::Cow;

use alloy_rlp::{Decodable as _, Encodable as _};
use engine::types::{Finality, FinalizedBlock, Height, codec};

use crate::tables::Fields;

/// Bytes in front of a payload.
pub(crate) const HEADER_BYTES: usize = 18;
/// Payloads below this many bytes are never compressed.
const COMPRESS_BYTES_MIN: usize = 512;
/// A byte of lz4 stands for no more than so many.
const PACKED_RATIO_MAX: usize = 255;
/// Longest payload of a Finalization record; that of a full set has some 330 bytes.
const FINALIZATION_BYTES_MAX: usize = 512;

/// What a record holds; the records of a block come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Block = 1,
    Receipts = 2,
    Changes = 3,
    Finalization = 4,
}

impl Kind {
    /// All kinds, in the order of a block's records.
    pub(crate) const ALL: [Self; 4] = [Self::Block, Self::Receipts, Self::Changes, Self::Finalization];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The front of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) height: Height,
    crc: u32,
}

impl Header {
    /// Decodes the front of a record, `None` if it is none.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let length = usize::try_from(fields.u32()?).ok()?;
        let kind = Kind::of(fields.bytes(1)?[0])?;
        let flags = fields.bytes(1)?[0];
        let height = Height(fields.u64()?);
        let crc = fields.u32()?;
        (length > 0 && flags <= 1).then_some(Self { length, kind, flags, height, crc })
    }

    fn front(length: usize, kind: Kind, flags: u8, height: Height) -> [u8; 14] {
        let mut front = [0; 14];
        let length = u32::try_from(length).expect("a record is below 4 GiB");
        front[..4].copy_from_slice(&length.to_be_bytes());
        front[4] = kind as u8;
        front[5] = flags;
        front[6..].copy_from_slice(&height.0.to_be_bytes());
        front
    }

    /// Whether the payload is the one that was written under this header.
    pub(crate) fn matches(&self, payload: &[u8], salt: u32) -> bool {
        let front = Self::front(self.length, self.kind, self.flags, self.height);
        payload.len() == self.length && checksum(salt, &front, payload) == self.crc
    }

    /// The payload before compression, `None` if it does not decompress.
    pub(crate) fn unpack<'p>(&self, payload: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        if self.flags & 1 == 0 {
            return Some(Cow::Borrowed(payload));
        }
        let (size, packed) = lz4_flex::block::uncompressed_size(payload).ok()?;
        if size > packed.len().saturating_mul(PACKED_RATIO_MAX) {
            return None;
        }
        lz4_flex::block::decompress(packed, size).ok().map(Cow::Owned)
    }
}

fn checksum(salt: u32, front: &[u8; 14], payload: &[u8]) -> u32 {
    let seeded = crc32c::crc32c(&salt.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seeded, front), payload)
}

/// How a folder's records are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) salt: u32,
    pub(crate) compress: bool,
}

/// A record with these flags, whatever its payload is.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn framed(kind: Kind, flags: u8, height: Height, payload: &[u8], salt: u32) -> Vec<u8> {
    let front = Header::front(payload.len(), kind, flags, height);
    [&front[..], &checksum(salt, &front, payload).to_be_bytes(), payload].concat()
}

fn append(out: &mut Vec<u8>, kind: Kind, height: Height, payload: &[u8], Style { salt, compress }: Style) {
    let packed = (compress && payload.len() >= COMPRESS_BYTES_MIN)
        .then(|| lz4_flex::block::compress_prepend_size(payload))
        .filter(|packed| packed.len() < payload.len());
    let flags = u8::from(packed.is_some());
    let payload = packed.as_deref().unwrap_or(payload);
    let front = Header::front(payload.len(), kind, flags, height);
    let crc = checksum(salt, &front, payload);
    out.extend_from_slice(&front);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends the four records of a block; `durable` is the height on disk before its group.
pub(crate) fn append_block(out: &mut Vec<u8>, block: &FinalizedBlock, durable: Height, style: Style) {
    let executed = &block.executed;
    let height = executed.block.height();
    append(out, Kind::Block, height, &codec::encode_block(&executed.block), style);
    append(out, Kind::Receipts, height, &codec::encode_receipts(&executed.receipts), style);
    append(out, Kind::Changes, height, &codec::encode_changes(&executed.changes), style);
    let mut finalization = Vec::with_capacity(FINALIZATION_BYTES_MAX);
    finalization.extend_from_slice(&durable.0.to_be_bytes());
    block.finality.encode(&mut finalization);
    append(out, Kind::Finalization, height, &finalization, Style { compress: false, ..style });
}

/// Decodes a Finalization record: what makes the block final, and the height durable before its group.
pub(crate) fn decode_finalization(payload: &[u8]) -> Option<(Finality, Height)> {
    let mut fields = Fields(payload);
    let durable = Height(fields.u64()?);
    let finality = Finality::decode(&mut fields.0).ok()?;
    fields.0.is_empty().then_some((finality, durable))
}

/// The payloads of a block's four records, which `bytes` holds and nothing else.
pub(crate) fn split_block(mut bytes: &[u8], height: Height, salt: u32) -> Option<[Cow<'_, [u8]>; 4]> {
    let mut payloads: [Cow<'_, [u8]>; 4] = Default::default();
    for (kind, slot) in Kind::ALL.into_iter().zip(&mut payloads) {
        let (front, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let header = Header::decode(front)?;
        let (payload, rest) = rest.split_at_checked(header.length)?;
        if header.kind != kind || header.height != height || !header.matches(payload, salt) {
            return None;
        }
        *slot = header.unpack(payload)?;
        bytes = rest;
    }
    bytes.is_empty().then_some(payloads)
}

/// Whether a whole Finalization record in `bytes` says that `height` was durable before its group.
///
/// Tries every offset, so it finds records behind one that does not parse. Only recovery calls it, on
/// the few bytes behind a cut.
pub(crate) fn claims_durable(bytes: &[u8], height: Height, salt: u32) -> bool {
    let claim = |bytes: &[u8]| {
        let (front, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let is_likely = |header: &Header| header.kind == Kind::Finalization && header.length <= FINALIZATION_BYTES_MAX;
        let header = Header::decode(front).filter(is_likely)?;
        let payload = rest.get(..header.length).filter(|payload| header.matches(payload, salt))?;
        decode_finalization(payload).map(|(_, durable)| durable)
    };
    (0..bytes.len()).filter_map(|at| claim(&bytes[at..])).any(|durable| durable >= height)
}

#[cfg(test)]
mod tests {
    use engine::types::ConsensusHeader;

    use super::*;

    /// A transaction's input once could carry bytes that recovery took for a later group's Finalization.
    #[test]
    fn only_who_knows_the_salt_can_write_a_record() {
        let mut finalization = u64::MAX.to_be_bytes().to_vec();
        engine::testing::finality(&ConsensusHeader::default()).encode(&mut finalization);
        let claim = |salt| {
            let mut bytes = vec![7; 33];
            append(&mut bytes, Kind::Finalization, Height(9), &finalization, Style { salt, compress: false });
            bytes
        };
        assert!(claims_durable(&claim(5), Height(1), 5));
        assert!((0..1_000).filter(|salt| *salt != 5).all(|salt| !claims_durable(&claim(salt), Height(1), 5)));
    }
}
