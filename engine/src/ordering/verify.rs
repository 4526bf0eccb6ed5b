//! Whether what arrived was signed by whom it says: votes, proposals, certificates and evidence.
//!
//! Everything is checked in order of cost, so that what is wrong on its face costs no pairing. Every function is pure:
//! equal inputs are judged equally everywhere.

#[cfg(test)]
mod tests;

use alloy_primitives::B256;

use crate::{
    crypto::Committee,
    types::{
        Certificate, Domain, Epoch, Evidence, Signature, SignedHeader, Signers, Slot, Stake, ValidatorIndex,
        ValidatorSet, Vote, vote::Kind,
    },
};

/// Why a certificate does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Of another epoch than the set.
    #[error("epoch {found} is not {expected}")]
    Epoch {
        /// The set's.
        expected: Epoch,
        /// The certificate's.
        found: Epoch,
    },
    /// Its bitmap is of a set of another size.
    #[error("a bitmap of {found} validators for a set of {expected}")]
    Size {
        /// Size of the set.
        expected: usize,
        /// Size of the bitmap.
        found: usize,
    },
    /// Its signers are no quorum.
    #[error("stake {found} is below the quorum of {expected}")]
    Stake {
        /// The quorum.
        expected: Stake,
        /// What the signers weigh.
        found: Stake,
    },
    /// Not all of them signed this, or somebody else did.
    #[error("the aggregate signature does not hold")]
    Signature,
}

/// Why one validator's signed word does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Of another chain.
    #[error("chain id {found} is not {expected}")]
    Chain {
        /// Ours.
        expected: u64,
        /// The word's.
        found: u64,
    },
    /// Of another epoch than the set.
    #[error("epoch {found} is not {expected}")]
    Epoch {
        /// The set's.
        expected: Epoch,
        /// The word's.
        found: Epoch,
    },
    /// Nobody in the set has this index.
    #[error("validator {0} is not in the set")]
    Outside(ValidatorIndex),
    /// The validator did not sign this.
    #[error("the signature of validator {0} does not hold")]
    Signature(ValidatorIndex),
}

/// Why two signed words convict nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// An honest validator may say both.
    #[error("the two do not contradict each other")]
    Compatible,
    /// They are not of one signer in one epoch.
    #[error("the two are not of one signer in one epoch")]
    Unrelated,
    /// One of them was not signed.
    #[error(transparent)]
    Word(#[from] WordError),
    /// One of the certificates does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Whether validators of the whole set weigh a quorum together, each counted once.
///
/// # Errors
/// [`CertificateError::Size`] or [`CertificateError::Stake`].
pub(super) fn quorum(set: &ValidatorSet, signers: &Signers) -> Result<(), CertificateError> {
    let (expected, found) = (set.size(), usize::from(signers.size()));
    if found != expected {
        return Err(CertificateError::Size { expected, found });
    }
    // All stake together fits a u64, so that of some validators cannot overflow.
    let (expected, found) = (set.quorum(), signers.stake(set));
    if found < expected { Err(CertificateError::Stake { expected, found }) } else { Ok(()) }
}

/// Whether a quorum of the set signed what a certificate says.
///
/// # Errors
/// [`CertificateError`].
pub fn certificate(
    set: &ValidatorSet,
    committee: &dyn Committee,
    domain: &Domain,
    certificate: &Certificate,
) -> Result<(), CertificateError> {
    let (expected, found) = (set.epoch(), certificate.epoch);
    if found != expected {
        return Err(CertificateError::Epoch { expected, found });
    }
    quorum(set, &certificate.signers)?;
    let hash = domain.vote(certificate.epoch, &certificate.statement);
    if committee.verify_aggregate(&certificate.signers, hash, &certificate.signature) {
        Ok(())
    } else {
        Err(CertificateError::Signature)
    }
}

/// Whether a validator of the set signed its vote.
///
/// # Errors
/// [`WordError`].
pub fn vote(set: &ValidatorSet, committee: &dyn Committee, domain: &Domain, vote: &Vote) -> Result<(), WordError> {
    member(set, vote.epoch, vote.voter)?;
    let hash = domain.vote(vote.epoch, &vote.statement);
    signed(committee, vote.voter, hash, &vote.signature)
}

/// Whether the proposer that a header names signed it and its share of the seed; whether the slot is the proposer's is
/// another question.
///
/// # Errors
/// [`WordError`].
pub fn proposal(
    set: &ValidatorSet,
    committee: &dyn Committee,
    domain: &Domain,
    block: &SignedHeader,
) -> Result<(), WordError> {
    author(set, committee, domain, block)?;
    let header = &block.header;
    let share = domain.hash(Kind::Seed, header.epoch(), header.slot(), B256::ZERO);
    signed(committee, header.proposer(), share, &header.seed_share)
}

/// Whether the proposer that a header names signed it. That is enough for a header that others certified: a quorum has
/// looked at its share of the seed.
///
/// # Errors
/// [`WordError`].
pub fn author(
    set: &ValidatorSet,
    committee: &dyn Committee,
    domain: &Domain,
    block: &SignedHeader,
) -> Result<(), WordError> {
    let SignedHeader { header, signature } = block;
    let (expected, found) = (domain.chain_id, header.chain_id);
    if found != expected {
        return Err(WordError::Chain { expected, found });
    }
    member(set, header.epoch(), header.proposer())?;
    let hash = domain.hash(Kind::Proposal, header.epoch(), header.slot(), header.id());
    signed(committee, header.proposer(), hash, signature)
}

/// The slot that evidence is about.
#[must_use]
pub fn slot_of(evidence: &Evidence) -> Slot {
    match evidence {
        Evidence::Proposals(one, _) => one.header.slot(),
        Evidence::Votes(one, _) => one.statement.slot(),
        Evidence::Certificates(one, _) => one.statement.slot(),
    }
}

/// Whom two signed words convict.
///
/// Convicted are: who signed two proposals, two Notarize or two Finalize of different blocks for one slot, or Skip and
/// Finalize of one slot; and who signed both of two certificates that contradict each other in the same ways. Nobody is
/// convicted for Notarize of one block with Finalize of another, or for Notarize with Skip: honest validators say both.
/// Certificates convict the validators in both bitmaps, for a key with a proof of possession is in an aggregate
/// that holds only if its holder signed.
///
/// # Errors
/// [`EvidenceError`].
pub fn evidence(
    set: &ValidatorSet,
    committee: &dyn Committee,
    domain: &Domain,
    evidence: &Evidence,
) -> Result<Signers, EvidenceError> {
    let mut convicted = Signers::none(set.size());
    match evidence {
        Evidence::Proposals(one, two) => {
            let (first, second) = (&one.header, &two.header);
            if (first.epoch, first.proposer) != (second.epoch, second.proposer) {
                return Err(EvidenceError::Unrelated);
            }
            if first.slot != second.slot || first.id() == second.id() {
                return Err(EvidenceError::Compatible);
            }
            proposal(set, committee, domain, one)?;
            proposal(set, committee, domain, two)?;
            convicted.add(first.proposer());
        }
        Evidence::Votes(one, two) => {
            if (one.epoch, one.voter) != (two.epoch, two.voter) {
                return Err(EvidenceError::Unrelated);
            }
            if !one.statement.contradicts(&two.statement) {
                return Err(EvidenceError::Compatible);
            }
            vote(set, committee, domain, one)?;
            vote(set, committee, domain, two)?;
            convicted.add(one.voter);
        }
        Evidence::Certificates(one, two) => {
            if one.epoch != two.epoch {
                return Err(EvidenceError::Unrelated);
            }
            if !one.statement.contradicts(&two.statement) {
                return Err(EvidenceError::Compatible);
            }
            certificate(set, committee, domain, one)?;
            certificate(set, committee, domain, two)?;
            convicted = one.signers.both(&two.signers);
        }
    }
    Ok(convicted)
}

fn member(set: &ValidatorSet, epoch: Epoch, index: ValidatorIndex) -> Result<(), WordError> {
    if epoch != set.epoch() {
        return Err(WordError::Epoch { expected: set.epoch(), found: epoch });
    }
    set.get(index).map(|_| ()).ok_or(WordError::Outside(index))
}

fn signed(
    committee: &dyn Committee,
    signer: ValidatorIndex,
    hash: B256,
    signature: &Signature,
) -> Result<(), WordError> {
    if committee.verify(signer, hash, signature) { Ok(()) } else { Err(WordError::Signature(signer)) }
}
