//! Framing of records in the log.
//!
//! ```text
//! record   salt u64 | payload length u32 | sequence u64 | durable u64 | CRC32C u32 of the payload
//!          | CRC32C u32 of the 32 bytes before | payload
//! payload  flags u8 | epoch u64 | slot u64 | height u64 | length of the entries u32 | entries | blocks
//! flags    bit 0: the first record of a file; it carries everything that the file before it had to keep
//!          bit 1: the log is lost, and nothing was regained; with bit 0 only
//! mark     epoch, slot and height up to which the store held the chain, as far as the log was told
//! entries  RLP of each, one behind the other
//! blocks   of each: RLP of the header with its signature, then an RLP string: engine codec `block`, empty for a tail
//!          header
//! ```
//!
//! Integers are big-endian. Both checksums are seeded with the salt, which is random, drawn for every file, and never
//! leaves the folder: no bytes of a block can pass for a record. The front has a checksum of its own, so that what it
//! says of its file counts even where its payload is torn: the file was synced up to `durable` before this was written.

use std::sync::Arc;

use alloy_rlp::{Decodable, Encodable};
use engine::{
    limits::JOURNAL_ENTRY_BYTES_MAX,
    ordering::journal::{Entry, KeptBlock},
    types::{Epoch, Height, SignedHeader, Slot, codec},
};

use crate::{error::Fault, tables::Fields};

/// Bytes in front of a payload.
pub(super) const FRONT_BYTES: usize = 36;
/// Bytes of a payload in front of its entries.
const HEAD_BYTES: usize = 1 + 3 * 8 + 4;
const FIRST: u8 = 1;
const LOST: u8 = 2;

/// Up to where the store holds the chain, so that nothing below has to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) epoch: Epoch,
    pub(crate) slot: Slot,
    pub(crate) height: Height,
}

/// What stands in front of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) length: usize,
    pub(super) sequence: u64,
    /// Up to this offset the file was synced when the record was written.
    pub(super) durable: u64,
    crc: u32,
}

/// What was appended at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Carries everything that the file before had to keep.
    pub(super) is_first: bool,
    pub(super) is_lost: bool,
    pub(super) mark: Mark,
    pub(super) entries: Vec<Entry>,
    pub(super) blocks: Vec<KeptBlock>,
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), bytes)
}

impl Front {
    /// Decodes a front, `None` if these bytes are none of a file with this salt.
    pub(super) fn decode(bytes: &[u8; FRONT_BYTES], salt: u64) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u64()? != salt {
            return None;
        }
        let length = usize::try_from(fields.u32()?).ok()?;
        let (sequence, durable, crc) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let is_whole = checksum(salt, &bytes[..FRONT_BYTES - 4]) == fields.u32()?;
        is_whole.then_some(Self { length, sequence, durable, crc })
    }

    /// Whether the payload is the one that was written behind this front.
    pub(super) fn matches(&self, payload: &[u8], salt: u64) -> bool {
        payload.len() == self.length && checksum(salt, payload) == self.crc
    }
}

/// A record that waits for its place: [`Unsealed::seal`] gives it its front.
pub(super) struct Unsealed(Vec<u8>);

impl Unsealed {
    /// Encodes a batch.
    ///
    /// # Errors
    /// An entry or a batch that nothing could read back.
    pub(super) fn new<'e>(
        entries: impl Iterator<Item = &'e Entry>,
        blocks: impl Iterator<Item = &'e KeptBlock>,
    ) -> Result<Self, Fault> {
        let mut out = vec![0; FRONT_BYTES + HEAD_BYTES];
        for entry in entries {
            let length = entry.length();
            if length > JOURNAL_ENTRY_BYTES_MAX {
                let text = format!("an entry of the log takes {length} bytes, at most {JOURNAL_ENTRY_BYTES_MAX}");
                return Err(Fault::Failed(text));
            }
            entry.encode(&mut out);
        }
        let entries_end = out.len();
        for KeptBlock { signed, block } in blocks {
            signed.encode(&mut out);
            let block = block.as_ref().map(|block| codec::encode_block(block)).unwrap_or_default();
            block.as_slice().encode(&mut out);
        }
        let length = out.len() - FRONT_BYTES;
        if u32::try_from(length).is_err() {
            return Err(Fault::Failed(format!("an entry of the log takes {length} bytes, over 4 GiB")));
        }
        let entries_length = u32::try_from(entries_end - FRONT_BYTES - HEAD_BYTES).unwrap_or(u32::MAX);
        out[FRONT_BYTES + HEAD_BYTES - 4..FRONT_BYTES + HEAD_BYTES].copy_from_slice(&entries_length.to_be_bytes());
        Ok(Self(out))
    }

    /// Bytes that it will take.
    pub(super) fn length(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// Marks it as the first record of a file.
    pub(super) fn first(mut self, is_lost: bool) -> Self {
        self.0[FRONT_BYTES] = if is_lost { FIRST | LOST } else { FIRST };
        self
    }

    /// The record's bytes.
    pub(super) fn seal(self, salt: u64, sequence: u64, durable: u64, mark: Mark) -> Vec<u8> {
        let Self(mut out) = self;
        let (front, payload) = out.split_at_mut(FRONT_BYTES);
        let mut head = [0; 24];
        for (place, value) in head.chunks_mut(8).zip([mark.epoch.0, mark.slot.0, mark.height.0]) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        payload[1..25].copy_from_slice(&head);
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        front[..8].copy_from_slice(&salt.to_be_bytes());
        front[8..12].copy_from_slice(&length.to_be_bytes());
        front[12..20].copy_from_slice(&sequence.to_be_bytes());
        front[20..28].copy_from_slice(&durable.to_be_bytes());
        front[28..32].copy_from_slice(&checksum(salt, payload).to_be_bytes());
        let crc = checksum(salt, &front[..FRONT_BYTES - 4]);
        front[FRONT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

impl Batch {
    /// Decodes the payload of a whole record.
    ///
    /// # Errors
    /// What in it no program of this schema wrote.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, String> {
        let mut fields = Fields(payload);
        let mut head = || {
            let flags = fields.bytes(1)?[0];
            let (epoch, slot, height) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let length = usize::try_from(fields.u32()?).ok()?;
            Some((flags, Mark { epoch: Epoch(epoch), slot: Slot(slot), height: Height(height) }, fields.bytes(length)?))
        };
        let (flags, mark, mut rest) = head().ok_or("a record without its head")?;
        if ![0, FIRST, FIRST | LOST].contains(&flags) {
            return Err(format!("a record with flags {flags}"));
        }
        let mut entries = Vec::new();
        while !rest.is_empty() {
            entries.push(Entry::decode(&mut rest).map_err(|error| format!("an entry that does not decode: {error}"))?);
        }
        let (mut rest, mut blocks) = (fields.0, Vec::new());
        while !rest.is_empty() {
            let block = decode_block(&mut rest).map_err(|error| format!("a block that does not decode: {error}"))?;
            blocks.push(block);
        }
        Ok(Self { is_first: flags & FIRST != 0, is_lost: flags & LOST != 0, mark, entries, blocks })
    }
}

fn decode_block(rest: &mut &[u8]) -> alloy_rlp::Result<KeptBlock> {
    let signed = SignedHeader::decode(rest)?;
    let bytes = alloy_rlp::Header::decode_bytes(rest, false)?;
    let block = if bytes.is_empty() { None } else { Some(Arc::new(codec::decode_block(bytes)?)) };
    Ok(KeptBlock { signed, block })
}
