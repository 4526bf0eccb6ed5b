//! What a node has to know of the chain before it takes a state over from others, as bytes.
//!
//! ```text
//! head       magic "SLUICSNP" | major u16 | minor u16 | handovers | proofs | file of blocks
//! handovers  RLP list of [header, certificate, epoch, validators]      from the trusted set to that of the block
//! proofs     RLP list of [headers, certificate, Ethereum header]       of each block that is carried, in order
//! ```

use alloy_consensus::Header;
use alloy_primitives::B256;
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use engine::{
    light::{self, FinalityProof, Handover},
    limits,
    ports::{Store, StoreError},
    types::{Certificate, ConsensusHeader, Epoch, Height, Validator, ValidatorSet},
};

use super::{blocks::BlocksFile, export};
use crate::store::Database;

const MAGIC: &[u8; 8] = b"SLUICSNP";
const VERSION: [u8; 4] = [0, 1, 0, 0];

/// Heights of the blocks that are carried for a block of this epoch, itself last.
///
/// The blocks that epochs began on carry the seeds of leaders' schedules. A node that goes on from here needs those of
/// its own epoch and the next: from the blocks that the epoch before it and its own began on.
#[must_use]
pub fn carried(height: u64, epoch: u64, epoch_heights: u64) -> Vec<u64> {
    let bases = [epoch.saturating_sub(1), epoch].map(|epoch| epoch.saturating_mul(epoch_heights));
    let mut heights: Vec<u64> = bases.into_iter().filter(|base| (1..height).contains(base)).collect();
    heights.dedup();
    heights.push(height);
    heights
}

/// What is said of a block and of those before it; whether that holds is for its reader to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How the sets handed over, from the one after the trusted one to that of the block.
    pub handovers: Vec<Handover>,
    /// What shows that each carried block is final, the block itself last.
    pub proofs: Vec<FinalityProof>,
    /// Those blocks, and headers before the last.
    pub blocks: BlocksFile,
}

#[derive(RlpEncodable, RlpDecodable)]
struct Step {
    header: ConsensusHeader,
    certificate: Certificate,
    epoch: Epoch,
    validators: Vec<Validator>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct Shown {
    headers: Vec<ConsensusHeader>,
    certificate: Certificate,
    block: Header,
}

impl Head {
    /// What a store shows of a block to whoever trusts the set of an epoch.
    pub(super) fn of(store: &Database, height: Height, from: Epoch) -> Result<Self, StoreError> {
        let missing = || StoreError::Unavailable(height);
        let block = store.block(height)?.ok_or_else(missing)?;
        let epoch = block.block.consensus.epoch;
        let heights = carried(height.0, epoch, store.chain().ordering.epoch_slots);
        let (mut blocks, mut proofs) = (Vec::new(), Vec::new());
        for at in heights.into_iter().map(Height) {
            blocks.push(store.block(at)?.ok_or_else(missing)?);
            proofs.push(light::proof_of(store, at)?.ok_or_else(missing)?);
        }
        let mut handovers = Vec::new();
        for number in from.0.saturating_add(1)..=epoch {
            let (next, handover) = light::set_of(store, Epoch(number))?.ok_or_else(missing)?;
            let (header, certificate) = handover.ok_or_else(missing)?;
            handovers.push(Handover { header, certificate, next });
        }
        Ok(Self { handovers, proofs, blocks: export::blocks_file(store, &blocks)? })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let step = |handover: &Handover| {
            let Handover { header, certificate, next } = handover.clone();
            Step { header, certificate, epoch: next.epoch(), validators: next.validators().to_vec() }
        };
        let shown = |proof: &FinalityProof| {
            let FinalityProof { headers, certificate, block } = proof.clone();
            Shown { headers, certificate, block }
        };
        let (steps, shown): (Vec<_>, Vec<_>) =
            (self.handovers.iter().map(step).collect(), self.proofs.iter().map(shown).collect());
        [&MAGIC[..], &VERSION, &alloy_rlp::encode(steps), &alloy_rlp::encode(shown), &self.blocks.encode()].concat()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let start = [&MAGIC[..], &VERSION].concat();
        let mut rest = bytes.strip_prefix(&start[..]).ok_or("it does not begin as one of this version")?;
        let unread = |error: alloy_rlp::Error| format!("it does not decode: {error}");
        let steps = Vec::<Step>::decode(&mut rest).map_err(unread)?;
        let shown = Vec::<Shown>::decode(&mut rest).map_err(unread)?;
        let handover = |Step { header, certificate, epoch, validators }| {
            let next = ValidatorSet::new(epoch, validators);
            let next = next.map_err(|error| format!("the set of epoch {epoch}: {error}"))?;
            Ok::<_, String>(Handover { header, certificate, next })
        };
        let handovers = steps.into_iter().map(handover).collect::<Result<_, _>>()?;
        let proof = |Shown { headers, certificate, block }| FinalityProof { headers, certificate, block };
        let proofs: Vec<_> = shown.into_iter().map(proof).collect();
        if let Some(proof) = proofs.iter().find(|proof| proof.headers.len() > limits::FINALITY_HEADERS_MAX) {
            return Err(format!("{} headers are too many", proof.headers.len()));
        }
        Ok(Self { handovers, proofs, blocks: BlocksFile::decode(rest)? })
    }

    /// The hash of the block whose state others give.
    #[must_use]
    pub fn block(&self) -> Option<B256> {
        self.proofs.last().map(|proof| proof.block.hash_slow())
    }
}
