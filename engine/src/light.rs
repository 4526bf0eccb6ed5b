//! Finality without a node: what a bridge, an exchange or an auditor checks that trusts validators and no server.
//!
//! ```text
//! trusted set of epoch E
//!   | Handover      a header that names the next set, and its Finalization by the present one
//!   v  (one per epoch)
//! set of the block's epoch
//!   | Finalization of a header -> its parent -> .. -> the block's header -> hash of its Ethereum header
//!   v
//! height, hash, state root
//! ```
//!
//! Promise: whoever starts from the right chain and the right set accepts nothing that is not final unless validators
//! with more than a third of the stake of one of the sets signed against the rules. Stake that left long ago has
//! nothing to lose any more: the set one starts from has to be younger than the time for which stake stays bound.

mod stored;
#[cfg(test)]
mod tests;

pub use stored::{proof_of, set_of};

use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use alloy_rlp::Encodable as _;

use crate::{
    crypto::Scheme,
    ordering::verify::{self, CertificateError, WordError},
    types::{Certificate, ConsensusHeader, Domain, Epoch, Height, SignedHeader, Statement, ValidatorSet},
};

/// Why a proof shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// A key of a set is no key.
    #[error("a key of the set of epoch {0} is no BLS12-381 key")]
    Key(Epoch),
    /// A certificate does not hold.
    #[error("the certificate of epoch {epoch}, slot {slot} does not hold: {error}")]
    Certificate {
        /// Its epoch.
        epoch: Epoch,
        /// Its slot.
        slot: u64,
        /// Why.
        error: CertificateError,
    },
    /// A header is not its proposer's.
    #[error("the header is not its proposer's: {0}")]
    Author(#[from] WordError),
    /// A certificate that makes nothing final.
    #[error("the certificate of epoch {0} is no Finalization")]
    NotFinal(Epoch),
    /// The certificate is of another header than the one beside it.
    #[error("the certificate is of header {certified}, not of {found}")]
    OtherHeader {
        /// What the certificate names.
        certified: B256,
        /// What stands beside it.
        found: B256,
    },
    /// The header names no next set, or another one.
    #[error("the header names {named} as hash of the next set, and that of epoch {epoch} has {found}")]
    OtherSet {
        /// Epoch of the set.
        epoch: Epoch,
        /// What the header names.
        named: B256,
        /// Hash of the set.
        found: B256,
    },
    /// A header does not stand on the next one.
    #[error("header {child} names parent {named}, and the next header is {found}")]
    Chain {
        /// The header above.
        child: B256,
        /// What it names.
        named: B256,
        /// What follows.
        found: B256,
    },
    /// A proof without headers.
    #[error("there is no header")]
    Empty,
    /// The consensus header names another Ethereum header.
    #[error("the header names block {named}, and the block has hash {found}")]
    OtherBlock {
        /// What the consensus header names.
        named: B256,
        /// Hash of the block that came.
        found: B256,
    },
    /// Two fields that have to be equal are not.
    #[error("{field} is {found}, not {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it has to be.
        expected: u64,
        /// What it is.
        found: u64,
    },
}

/// How the set of one epoch hands over to that of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The last block's header of the epoch, or a tail header above it.
    pub header: ConsensusHeader,
    /// A Finalization of it.
    pub certificate: Certificate,
    /// Who votes in the next epoch.
    pub next: ValidatorSet,
}

/// What shows that a block is final, to whoever trusts the set of its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalityProof {
    /// From the header that is certified down to the block's own.
    pub headers: Vec<ConsensusHeader>,
    /// A Finalization of the first of them.
    pub certificate: Certificate,
    /// The block's Ethereum header.
    pub block: Header,
}

/// What was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finalized {
    /// Height of the block.
    pub height: Height,
    /// Hash of its Ethereum header.
    pub hash: B256,
    /// State after it.
    pub state_root: B256,
    /// Epoch of the certificate.
    pub epoch: Epoch,
}

/// A chain and the set that is trusted.
#[derive(Clone, Debug)]
pub struct Trust<'s> {
    domain: Domain,
    set: ValidatorSet,
    scheme: &'s dyn Scheme,
}

impl<'s> Trust<'s> {
    /// Trusts a set on a chain.
    #[must_use]
    pub const fn new(domain: Domain, set: ValidatorSet, scheme: &'s dyn Scheme) -> Self {
        Self { domain, set, scheme }
    }

    /// The set trusted now.
    #[must_use]
    pub const fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// Goes on to the next epoch's set.
    ///
    /// # Errors
    /// [`LightError`]; the trusted set stays as it is.
    pub fn hand_over(&mut self, handover: &Handover) -> Result<(), LightError> {
        let Handover { header, certificate, next } = handover;
        self.check(header, certificate)?;
        let (named, found) = (header.next_set_hash, next.hash());
        if named.is_zero() || named != found {
            return Err(LightError::OtherSet { epoch: next.epoch(), named, found });
        }
        field("epoch of the next set", self.set.epoch().0.saturating_add(1), next.epoch().0)?;
        self.set = next.clone();
        Ok(())
    }

    /// Checks that a block of the trusted epoch is final.
    ///
    /// # Errors
    /// [`LightError`].
    pub fn verify(&self, proof: &FinalityProof) -> Result<Finalized, LightError> {
        let first = proof.headers.first().ok_or(LightError::Empty)?;
        self.check(first, &proof.certificate)?;
        let mut header = first;
        for below in proof.headers.iter().skip(1) {
            let (named, found) = (header.parent_id, below.id());
            if named != found {
                return Err(LightError::Chain { child: header.id(), named, found });
            }
            header = below;
        }
        field("epoch of the header", self.set.epoch().0, header.epoch)?;
        let mut bytes = Vec::with_capacity(proof.block.length());
        proof.block.encode(&mut bytes);
        let (named, found) = (header.block_hash, keccak256(bytes));
        if named != found {
            return Err(LightError::OtherBlock { named, found });
        }
        field("number of the block", header.height, proof.block.number)?;
        let (height, state_root) = (header.height(), proof.block.state_root);
        Ok(Finalized { height, hash: found, state_root, epoch: header.epoch() })
    }

    /// Checks that the member of the trusted set whom a header names as its proposer signed it.
    ///
    /// # Errors
    /// [`LightError`].
    pub fn author(&self, block: &SignedHeader) -> Result<(), LightError> {
        let epoch = self.set.epoch();
        field("epoch of the header", epoch.0, block.header.epoch)?;
        let committee = self.scheme.committee(&self.set).ok_or(LightError::Key(epoch))?;
        Ok(verify::author(&self.set, &*committee, &self.domain, block)?)
    }

    /// Whether the trusted set made this header final.
    fn check(&self, header: &ConsensusHeader, certificate: &Certificate) -> Result<(), LightError> {
        let epoch = self.set.epoch();
        let Statement::Finalize { slot, id } = certificate.statement else {
            return Err(LightError::NotFinal(certificate.epoch));
        };
        let found = header.id();
        if id != found {
            return Err(LightError::OtherHeader { certified: id, found });
        }
        field("slot of the certificate", header.slot, slot.0)?;
        field("chain id of the header", self.domain.chain_id, header.chain_id)?;
        field("epoch of the header", epoch.0, header.epoch)?;
        let committee = self.scheme.committee(&self.set).ok_or(LightError::Key(epoch))?;
        let held = verify::certificate(&self.set, &*committee, &self.domain, certificate);
        held.map_err(|error| LightError::Certificate { epoch: certificate.epoch, slot: slot.0, error })
    }
}

const fn field(field: &'static str, expected: u64, found: u64) -> Result<(), LightError> {
    if expected == found { Ok(()) } else { Err(LightError::Field { field, expected, found }) }
}
