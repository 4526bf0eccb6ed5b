//! Signed words: what one validator says of a slot, and what a quorum says.
//!
//! ```text
//! Notarize(slot, id)   this block is valid, and the first I saw here   -> Notarization
//! Skip(slot)           nothing came in time                            -> SkipCertificate
//! Finalize(slot, id)   its notarization is known; I never skipped it   -> Finalization
//! ```
//!
//! What is signed is [`Domain::hash`]: kind, chain, genesis, epoch, slot and id together, so that no signature means
//! anything anywhere else.

use alloy_primitives::{B256, FixedBytes, keccak256};
use alloy_rlp::{Decodable, Encodable, Error, RlpDecodable, RlpDecodableWrapper, RlpEncodable, RlpEncodableWrapper};

use super::{
    ids::{Epoch, Slot, Stake, ValidatorIndex},
    validator::ValidatorSet,
};
use crate::limits;

/// A compressed BLS12-381 signature (G2), one validator's or an aggregate.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, RlpEncodableWrapper, RlpDecodableWrapper,
)]
pub struct Signature(pub FixedBytes<96>);

/// What a signature is for; part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A leader's block.
    Proposal = 1,
    /// A vote for a block.
    Notarize = 2,
    /// A vote to go on without one.
    Skip = 3,
    /// A vote for its finality.
    Finalize = 4,
    /// A share of the seed of a later epoch's schedule.
    Seed = 5,
    /// The key by which a validator's node is known on the network.
    Identity = 6,
}

/// What a validator or a quorum says of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statement {
    /// The block is valid here and the first one seen for its slot.
    Notarize {
        /// Slot of the block.
        slot: Slot,
        /// Id of its consensus header.
        id: B256,
    },
    /// No block of this slot was notarized in time.
    Skip {
        /// The slot.
        slot: Slot,
    },
    /// The block's notarization is known and the slot was not skipped.
    Finalize {
        /// Slot of the block.
        slot: Slot,
        /// Id of its consensus header.
        id: B256,
    },
}

impl Statement {
    /// Which of the three it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Notarize { .. } => Kind::Notarize,
            Self::Skip { .. } => Kind::Skip,
            Self::Finalize { .. } => Kind::Finalize,
        }
    }

    /// The slot it is about.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Notarize { slot, .. } | Self::Skip { slot } | Self::Finalize { slot, .. } => *slot,
        }
    }

    /// The block it is about; `None` for a skip.
    #[must_use]
    pub const fn id(&self) -> Option<B256> {
        match self {
            Self::Notarize { id, .. } | Self::Finalize { id, .. } => Some(*id),
            Self::Skip { .. } => None,
        }
    }

    /// Whether nobody may say both.
    ///
    /// Two blocks notarized in one slot, two finalized, or one finalized that is skipped. Notarize of one block with
    /// Finalize of another, and Notarize with Skip, are what honest validators say.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.slot() != other.slot() {
            return false;
        }
        match (self, other) {
            (Self::Notarize { id: one, .. }, Self::Notarize { id: two, .. })
            | (Self::Finalize { id: one, .. }, Self::Finalize { id: two, .. }) => one != two,
            (Self::Skip { .. }, Self::Finalize { .. }) | (Self::Finalize { .. }, Self::Skip { .. }) => true,
            _ => false,
        }
    }
}

impl Encodable for Statement {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        let id = self.id();
        let id = id.as_ref().map_or(&[][..], |id| id.as_slice());
        let slot = self.slot().0;
        let payload_length = 1_usize.saturating_add(slot.length()).saturating_add(id.length());
        alloy_rlp::Header { list: true, payload_length }.encode(out);
        (self.kind() as u8).encode(out);
        slot.encode(out);
        id.encode(out);
    }
}

impl Decodable for Statement {
    fn decode(bytes: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut rest = alloy_rlp::Header::decode_bytes(bytes, true)?;
        let kind = u8::decode(&mut rest)?;
        let slot = Slot(u64::decode(&mut rest)?);
        let id = alloy_rlp::Header::decode_bytes(&mut rest, false)?;
        if !rest.is_empty() {
            return Err(Error::UnexpectedLength);
        }
        let block = || B256::try_from(id).map_err(|_| Error::Custom("a block's id has 32 bytes"));
        match kind {
            kind if kind == Kind::Notarize as u8 => Ok(Self::Notarize { slot, id: block()? }),
            kind if kind == Kind::Skip as u8 && id.is_empty() => Ok(Self::Skip { slot }),
            kind if kind == Kind::Finalize as u8 => Ok(Self::Finalize { slot, id: block()? }),
            _ => Err(Error::Custom("no vote of this kind")),
        }
    }
}

/// Where signatures are valid: one chain from one genesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Chain id.
    pub chain_id: u64,
    /// Id of the genesis consensus header.
    pub genesis: B256,
}

impl Domain {
    /// What is signed: keccak256 of `"sluice" || kind || chain id || genesis || epoch || slot || id`, integers as 8
    /// bytes, big end first, and 32 zero bytes where there is no id.
    #[must_use]
    pub fn hash(&self, kind: Kind, epoch: Epoch, slot: Slot, id: B256) -> B256 {
        let mut bytes = [0_u8; 95];
        let parts: [&[u8]; 7] = [
            b"sluice",
            &[kind as u8],
            &self.chain_id.to_be_bytes(),
            self.genesis.as_slice(),
            &epoch.0.to_be_bytes(),
            &slot.0.to_be_bytes(),
            id.as_slice(),
        ];
        let mut rest = &mut bytes[..];
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        keccak256(bytes)
    }

    /// What a vote for a statement signs.
    #[must_use]
    pub fn vote(&self, epoch: Epoch, statement: &Statement) -> B256 {
        self.hash(statement.kind(), epoch, statement.slot(), statement.id().unwrap_or_default())
    }
}

/// One validator's signed word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Vote {
    /// Epoch of the slot.
    pub epoch: Epoch,
    /// What is said.
    pub statement: Statement,
    /// Who says it.
    pub voter: ValidatorIndex,
    /// Signature over [`Domain::vote`].
    pub signature: Signature,
}

/// Validators of one set, as a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signers {
    /// Size of the set.
    size: u16,
    bits: [u64; Self::WORDS],
}

impl Signers {
    const WORDS: usize = limits::VALIDATORS_MAX.div_ceil(64);

    /// Nobody out of a set of `size`, [`limits::VALIDATORS_MAX`] at most.
    #[must_use]
    pub fn none(size: usize) -> Self {
        let size = size.min(limits::VALIDATORS_MAX);
        Self { size: u16::try_from(size).unwrap_or_default(), bits: [0; Self::WORDS] }
    }

    /// Adds a validator; `false` if it is outside the set or there already.
    pub fn add(&mut self, index: ValidatorIndex) -> bool {
        let fresh = index.0 < self.size && !self.contains(index);
        if fresh {
            self.bits[usize::from(index.0 / 64)] |= 1 << (index.0 % 64);
        }
        fresh
    }

    /// Whether a validator is among them.
    #[must_use]
    pub fn contains(&self, index: ValidatorIndex) -> bool {
        index.0 < self.size && self.bits[usize::from(index.0 / 64)] >> (index.0 % 64) & 1 == 1
    }

    /// Size of the set they are out of.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Every signer in rising order.
    pub fn iter(&self) -> impl Iterator<Item = ValidatorIndex> + '_ {
        (0..self.size).map(ValidatorIndex).filter(|index| self.contains(*index))
    }

    /// Those in both.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let bits = std::array::from_fn(|at| self.bits[at] & other.bits[at]);
        Self { size: self.size.min(other.size), bits }
    }

    /// What they weigh together, each counted once.
    #[must_use]
    pub fn stake(&self, set: &ValidatorSet) -> Stake {
        Stake(self.iter().fold(0, |sum: u64, index| sum.saturating_add(set.stake(index).0)))
    }
}

/// Encoding: the bitmap as a string of ceil(size / 8) bytes behind the size; bit i of byte i / 8 is validator i.
impl Encodable for Signers {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        let bytes: Vec<u8> = self.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        let bitmap = &bytes[..usize::from(self.size).div_ceil(8)];
        let payload_length = self.size.length().saturating_add(bitmap.length());
        alloy_rlp::Header { list: true, payload_length }.encode(out);
        self.size.encode(out);
        bitmap.encode(out);
    }
}

impl Decodable for Signers {
    fn decode(bytes: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut rest = alloy_rlp::Header::decode_bytes(bytes, true)?;
        let size = u16::decode(&mut rest)?;
        let bitmap = alloy_rlp::Header::decode_bytes(&mut rest, false)?;
        if !rest.is_empty() {
            return Err(Error::UnexpectedLength);
        }
        if usize::from(size) > limits::VALIDATORS_MAX {
            return Err(Error::Custom("a bitmap of more validators than fit a set"));
        }
        if bitmap.len() != usize::from(size).div_ceil(8) {
            return Err(Error::Custom("a bitmap's length must fit its set"));
        }
        let mut bits = [0_u64; Self::WORDS];
        for (at, byte) in bitmap.iter().enumerate() {
            bits[at / 8] |= u64::from(*byte) << (8 * (at % 8));
        }
        let past = bits.iter().zip(0_u16..).any(|(word, at)| {
            let inside = size.saturating_sub(at.saturating_mul(64)).min(64);
            word.checked_shr(inside.into()).is_some_and(|past| past != 0)
        });
        if past { Err(Error::Custom("a bitmap has bits past its set")) } else { Ok(Self { size, bits }) }
    }
}

/// The signed word of stake of at least Q.
///
/// A `Notarize` certificate is a Notarization, a `Skip` certificate a SkipCertificate, a `Finalize` certificate a
/// Finalization. Whether it holds says [`crate::ordering::verify::certificate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Certificate {
    /// Epoch of the slot.
    pub epoch: Epoch,
    /// What is said.
    pub statement: Statement,
    /// Who says it.
    pub signers: Signers,
    /// Aggregate of their signatures over [`Domain::vote`].
    pub signature: Signature,
}

impl Certificate {
    /// keccak256 of the encoding.
    #[must_use]
    pub fn hash(&self) -> B256 {
        let mut bytes = Vec::with_capacity(self.length());
        self.encode(&mut bytes);
        keccak256(bytes)
    }
}
