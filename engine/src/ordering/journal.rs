//! What ordering must be able to remember after a restart.
//!
//! Everything that this validator signs is an [`Entry`] first: appended to the log ([`crate::ports::Journal`]),
//! synced, and only then sent.
//!
//! ```text
//! entry        RLP list: kind, then its fields
//! Proposal     1 | consensus header | signature
//! Vote         2 | vote
//! Certificate  3 | certificate
//! Floor        4 | epoch | slot
//! EpochStart   5 | epoch | base | [[key, stake, operator], ..]
//! Regained     6 | epoch | slot
//! ```
//!
//! An entry has at most [`limits::JOURNAL_ENTRY_BYTES_MAX`] bytes; more is not read.

use std::sync::Arc;

use alloy_primitives::B256;
use alloy_rlp::{Decodable, Encodable, Error, Header};

use crate::{
    limits,
    types::{Block, Certificate, ConsensusHeader, Epoch, Signature, SignedHeader, Slot, Validator, ValidatorSet, Vote},
};

/// A block that was voted for and must be given to whoever asks, though nothing makes it final yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBlock {
    /// Its header, with its leader's signature.
    pub signed: SignedHeader,
    /// The block; `None` for a tail header, which has none of its own.
    pub block: Option<Arc<Block>>,
}

/// One line of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A block that was signed here as its leader.
    Proposal {
        /// Epoch of the block.
        epoch: Epoch,
        /// Slot of the block.
        slot: Slot,
        /// Id of its header.
        id: B256,
        /// Its header.
        header: Box<ConsensusHeader>,
        /// The signature that was given.
        signature: Signature,
    },
    /// A vote that was signed here.
    Vote(Vote),
    /// A certificate that is held.
    Certificate(Certificate),
    /// At and below this nothing is signed.
    Floor {
        /// Its epoch.
        epoch: Epoch,
        /// Its slot.
        slot: Slot,
    },
    /// An epoch began.
    EpochStart {
        /// The epoch.
        epoch: Epoch,
        /// Id of the block that it began on.
        base: B256,
        /// Who votes in it.
        set: ValidatorSet,
    },
    /// A log was lost, and all that can have been signed before lies at or below this: a floor, from which on the log
    /// tells everything again.
    Regained {
        /// Its epoch.
        epoch: Epoch,
        /// Its slot.
        slot: Slot,
    },
}

impl Entry {
    /// The epoch that it belongs to.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.place().0
    }

    /// Epoch and slot that it is about; slot 0 for the start of an epoch.
    #[must_use]
    pub const fn place(&self) -> (Epoch, Slot) {
        match self {
            Self::Proposal { epoch, slot, .. } | Self::Floor { epoch, slot } | Self::Regained { epoch, slot } => {
                (*epoch, *slot)
            }
            Self::Vote(vote) => (vote.epoch, vote.statement.slot()),
            Self::Certificate(certificate) => (certificate.epoch, certificate.statement.slot()),
            Self::EpochStart { epoch, .. } => (*epoch, Slot(0)),
        }
    }

    /// At and below which epoch and slot nothing is signed any more, if it says so.
    #[must_use]
    pub const fn floor(&self) -> Option<(Epoch, Slot)> {
        match self {
            Self::Floor { epoch, slot } | Self::Regained { epoch, slot } => Some((*epoch, *slot)),
            _ => None,
        }
    }
}

const PROPOSAL: u8 = 1;
const VOTE: u8 = 2;
const CERTIFICATE: u8 = 3;
const FLOOR: u8 = 4;
const EPOCH_START: u8 = 5;
const REGAINED: u8 = 6;

fn list(out: &mut dyn alloy_rlp::BufMut, kind: u8, fields: &[&dyn Encodable]) {
    let fields_length = fields.iter().fold(0_usize, |sum, field| sum.saturating_add(field.length()));
    Header { list: true, payload_length: fields_length.saturating_add(kind.length()) }.encode(out);
    kind.encode(out);
    fields.iter().for_each(|field| field.encode(out));
}

impl Encodable for Entry {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        match self {
            Self::Proposal { header, signature, .. } => list(out, PROPOSAL, &[&**header, signature]),
            Self::Vote(vote) => list(out, VOTE, &[vote]),
            Self::Certificate(certificate) => list(out, CERTIFICATE, &[certificate]),
            Self::Floor { epoch, slot } => list(out, FLOOR, &[epoch, slot]),
            Self::EpochStart { epoch, base, set } => {
                let validators: Vec<Validator> = set.validators().to_vec();
                list(out, EPOCH_START, &[epoch, base, &validators]);
            }
            Self::Regained { epoch, slot } => list(out, REGAINED, &[epoch, slot]),
        }
    }
}

impl Decodable for Entry {
    fn decode(bytes: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        if rest.len() > limits::JOURNAL_ENTRY_BYTES_MAX {
            return Err(Error::Custom("an entry of the log is too large"));
        }
        let entry = match u8::decode(&mut rest)? {
            PROPOSAL => {
                let header = Box::new(ConsensusHeader::decode(&mut rest)?);
                let (epoch, slot, id) = (header.epoch(), header.slot(), header.id());
                Self::Proposal { epoch, slot, id, header, signature: Signature::decode(&mut rest)? }
            }
            VOTE => Self::Vote(Vote::decode(&mut rest)?),
            CERTIFICATE => Self::Certificate(Certificate::decode(&mut rest)?),
            FLOOR => Self::Floor { epoch: Epoch::decode(&mut rest)?, slot: Slot::decode(&mut rest)? },
            EPOCH_START => {
                let (epoch, base) = (Epoch::decode(&mut rest)?, B256::decode(&mut rest)?);
                let set = ValidatorSet::new(epoch, Vec::decode(&mut rest)?)
                    .map_err(|_| Error::Custom("the validators of an epoch are no set"))?;
                Self::EpochStart { epoch, base, set }
            }
            REGAINED => Self::Regained { epoch: Epoch::decode(&mut rest)?, slot: Slot::decode(&mut rest)? },
            _ => return Err(Error::Custom("no entry of this kind")),
        };
        if rest.is_empty() { Ok(entry) } else { Err(Error::UnexpectedLength) }
    }
}

#[cfg(test)]
mod tests;
