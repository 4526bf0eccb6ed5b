//! The file with blocks of a snapshot: those that a node has to have whole, and headers of those before the newest.
//!
//! ```text
//! file      magic "SLUICSNB" | major u16 | minor u16 | blocks u16 | block.. | headers u16 | header..
//! block     leader's signature 96 | body length u32, bytes | receipts length u32, bytes
//! header    length u16 | RLP
//! ```
//!
//! Blocks are in order of height, the one whose state the snapshot is last; its consensus header and that of each of
//! the others stand in what shows that they are final. Bodies are as they travel between nodes, without senders.
//! Headers go from the parent of the last block down: as many as `BLOCKHASH` reaches, or to block 1.

use alloy_consensus::{Header, Sealable as _, Sealed};
use alloy_primitives::{B256, Bytes, FixedBytes};
use alloy_rlp::{Decodable as _, Encodable as _};
use engine::types::{
    Certificate, CommittedBlock, ConsensusHeader, Finality, Signature,
    codec::{decode_body, decode_receipts, encode_body, encode_receipts},
};

use crate::tables::Fields;

const MAGIC: &[u8; 8] = b"SLUICSNB";
const VERSION: (u16, u16) = (1, 0);
/// Headers that are carried: `BLOCKHASH` reaches 256 blocks back from the next one.
pub(crate) const HEADERS_MAX: u64 = 255;
/// Blocks that are carried: the newest, and those that this epoch and the one before began on.
const BLOCKS_MAX: u16 = 3;

/// A block as it is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its leader's signature.
    pub proposal: Signature,
    body: Bytes,
    receipts: Bytes,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksFile {
    /// Blocks, the newest last.
    pub blocks: Vec<Carried>,
    /// Headers of the blocks before the newest, the newest first.
    pub headers: Vec<Sealed<Header>>,
}

impl Carried {
    pub(super) fn of(block: &CommittedBlock) -> Option<Self> {
        let proposal = block.finality?.proposal;
        let (body, receipts) = (encode_body(&block.block).into(), encode_receipts(&block.receipts).into());
        Some(Self { proposal, body, receipts })
    }

    /// The block with this consensus header, made final by this certificate.
    ///
    /// Whether body and receipts are all that the header names says [`CommittedBlock::is_whole`].
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn block(&self, consensus: ConsensusHeader, certificate: Certificate) -> Result<CommittedBlock, String> {
        let height = consensus.height;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let block = decode_body(consensus, &self.body, &|_| None, threads);
        let block = block.map_err(|error| format!("the body of block {height}: {error}"))?;
        let receipts = decode_receipts(&self.receipts);
        let receipts = receipts.map_err(|error| format!("the receipts of block {height}: {error}"))?;
        let finality = Some(Finality { proposal: self.proposal, certificate });
        Ok(CommittedBlock { block: block.into(), receipts: receipts.into(), finality })
    }
}

impl BlocksFile {
    /// Its bytes.
    ///
    /// # Panics
    /// If a body or a header is larger than any block has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let long = |length: usize| u32::try_from(length).expect("a block has less than 4 GiB").to_be_bytes();
        let short = |length: usize| u16::try_from(length).expect("a header has some 700 bytes").to_be_bytes();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.0.to_be_bytes());
        out.extend_from_slice(&VERSION.1.to_be_bytes());
        out.extend_from_slice(&short(self.blocks.len()));
        for Carried { proposal, body, receipts } in &self.blocks {
            out.extend_from_slice(proposal.0.as_slice());
            for bytes in [body, receipts] {
                out.extend_from_slice(&long(bytes.len()));
                out.extend_from_slice(bytes);
            }
        }
        out.extend_from_slice(&short(self.headers.len()));
        for header in &self.headers {
            out.extend_from_slice(&short(header.inner().length()));
            header.inner().encode(&mut out);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote; what decodes has this one encoding.
    ///
    /// # Errors
    /// What is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        let file = decoded(&mut fields).ok_or_else(|| "it does not decode as a file of blocks".to_owned())?;
        if fields.0.is_empty() { Ok(file) } else { Err("bytes behind its end".to_owned()) }
    }

    /// Checks that the headers lead down from the newest block: as many as there have to be.
    ///
    /// # Errors
    /// The header that does not.
    pub fn check_headers(&self, newest: &CommittedBlock, genesis_hash: B256) -> Result<(), String> {
        let height = newest.height().0;
        let (expected, found) = (HEADERS_MAX.min(height.saturating_sub(1)), self.headers.len());
        if u64::try_from(found) != Ok(expected) {
            return Err(format!("{found} headers before block {height}, not {expected}"));
        }
        let mut parent = newest.block.header.parent_hash;
        for (below, header) in (1..).zip(&self.headers) {
            if header.seal() != parent || header.number != height.saturating_sub(below) {
                return Err(format!("the header {below} before block {height} is not that of {parent}"));
            }
            parent = header.parent_hash;
        }
        if height <= HEADERS_MAX.saturating_add(1) && parent != genesis_hash {
            return Err(format!("block 1 stands on {parent}, not on {genesis_hash}"));
        }
        Ok(())
    }
}

fn decoded(fields: &mut Fields<'_>) -> Option<BlocksFile> {
    let version = (fields.bytes(MAGIC.len())? == MAGIC).then(|| fields.u16().zip(fields.u16()))??;
    let count = fields.u16().filter(|count| version == VERSION && *count <= BLOCKS_MAX)?;
    let blob = |fields: &mut Fields<'_>| {
        let length = usize::try_from(fields.u32()?).ok()?;
        fields.bytes(length).map(Bytes::copy_from_slice)
    };
    let mut blocks = Vec::new();
    for _ in 0..count {
        let proposal = Signature(FixedBytes::from_slice(fields.bytes(96)?));
        blocks.push(Carried { proposal, body: blob(fields)?, receipts: blob(fields)? });
    }
    let count = fields.u16().filter(|count| u64::from(*count) <= HEADERS_MAX)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let length = usize::from(fields.u16()?);
        let bytes = fields.bytes(length)?;
        let mut rest = bytes;
        let header = Header::decode(&mut rest).ok().filter(|_| rest.is_empty())?;
        // Some other encoding may decode to the same header.
        if alloy_rlp::encode(&header) != bytes {
            return None;
        }
        headers.push(header.seal_slow());
    }
    Some(BlocksFile { blocks, headers })
}
