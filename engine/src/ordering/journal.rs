//! What ordering must be able to remember after a restart.

use alloy_primitives::B256;

use crate::types::{Certificate, ConsensusHeader, Epoch, Signature, Slot, ValidatorSet, Vote};

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
}

impl Entry {
    /// The epoch that it belongs to.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Proposal { epoch, .. } | Self::Floor { epoch, .. } | Self::EpochStart { epoch, .. } => *epoch,
            Self::Vote(vote) => vote.epoch,
            Self::Certificate(certificate) => certificate.epoch,
        }
    }
}
