//! Who may vote in an epoch, and how much each vote weighs.
//!
//! Promise: a [`ValidatorSet`] has at least one validator and at most [`limits::VALIDATORS_MAX`], every one with
//! stake and a key of its own, and a total that does not overflow. Thresholds are of stake, never of heads.

use alloy_primitives::{Address, B256, FixedBytes, keccak256};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpDecodableWrapper, RlpEncodable, RlpEncodableWrapper};

use super::{
    ids::{Epoch, Stake, ValidatorIndex},
    message::SignedHeader,
    vote::Certificate,
};
use crate::limits;

/// A compressed BLS12-381 public key (G1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, RlpEncodableWrapper, RlpDecodableWrapper,
)]
pub struct PublicKey(pub FixedBytes<48>);

/// One member of a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, RlpEncodable, RlpDecodable)]
pub struct Validator {
    /// Its key, whose proof of possession was verified when it entered.
    pub public_key: PublicKey,
    /// What its votes weigh; never 0.
    pub stake: u64,
    /// Who operates it; the proof of possession binds the key to this address.
    pub operator: Address,
}

/// Why a list of validators is no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Nobody could vote.
    #[error("a validator set needs at least one validator")]
    Empty,
    /// More than the chain carries.
    #[error("{count} validators; at most {max} fit a set", max = limits::VALIDATORS_MAX)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A validator without stake.
    #[error("validator {0} has no stake")]
    NoStake(ValidatorIndex),
    /// Two validators share a key.
    #[error("validator {0} has the key of another one")]
    SameKey(ValidatorIndex),
    /// The sum of all stake does not fit.
    #[error("the stake of all validators exceeds 2^64 - 1")]
    StakeOverflow,
}

/// How an epoch began: who votes in it, and what ended the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// Who votes in it.
    pub set: ValidatorSet,
    /// Id of the block that it began on.
    pub base: B256,
    /// A Finalization of that block or of a tail header above it, by the set before.
    pub handover: Certificate,
    /// The tail headers from the one that is final down to the one on the block, newest first.
    pub tail: Vec<SignedHeader>,
}

impl Encodable for EpochStart {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        let Self { set, base, handover, tail } = self;
        let (epoch, validators) = (set.epoch(), set.validators().to_vec());
        let fields: [&dyn Encodable; 5] = [&epoch, &validators, base, handover, tail];
        let payload_length = fields.iter().map(|field| field.length()).sum();
        alloy_rlp::Header { list: true, payload_length }.encode(out);
        fields.iter().for_each(|field| field.encode(out));
    }
}

impl Decodable for EpochStart {
    fn decode(bytes: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut rest = alloy_rlp::Header::decode_bytes(bytes, true)?;
        let (epoch, validators) = (Epoch::decode(&mut rest)?, Vec::decode(&mut rest)?);
        let set = ValidatorSet::new(epoch, validators)
            .map_err(|_| alloy_rlp::Error::Custom("the validators of an epoch are no set"))?;
        let (base, handover, tail) =
            (B256::decode(&mut rest)?, Certificate::decode(&mut rest)?, Vec::decode(&mut rest)?);
        if rest.is_empty() { Ok(Self { set, base, handover, tail }) } else { Err(alloy_rlp::Error::UnexpectedLength) }
    }
}

/// The ordered validators of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    epoch: Epoch,
    validators: Vec<Validator>,
    total: u64,
}

impl ValidatorSet {
    /// Checks a list of validators.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn new(epoch: Epoch, validators: Vec<Validator>) -> Result<Self, SetError> {
        if validators.is_empty() {
            return Err(SetError::Empty);
        }
        if validators.len() > limits::VALIDATORS_MAX {
            return Err(SetError::TooMany { count: validators.len() });
        }
        let mut total = 0_u64;
        let mut keys = std::collections::BTreeSet::new();
        for (validator, index) in validators.iter().zip(0..) {
            if validator.stake == 0 {
                return Err(SetError::NoStake(ValidatorIndex(index)));
            }
            if !keys.insert(validator.public_key) {
                return Err(SetError::SameKey(ValidatorIndex(index)));
            }
            total = total.checked_add(validator.stake).ok_or(SetError::StakeOverflow)?;
        }
        Ok(Self { epoch, validators, total })
    }

    /// The same validators in another epoch.
    #[must_use]
    pub fn in_epoch(&self, epoch: Epoch) -> Self {
        Self { epoch, ..self.clone() }
    }

    /// The epoch that this set votes in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The validators in order; a validator's index is its place here.
    #[must_use]
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// How many validators there are; at least 1.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.validators.len()
    }

    /// A validator by its index.
    #[must_use]
    pub fn get(&self, index: ValidatorIndex) -> Option<&Validator> {
        self.validators.get(usize::from(index.0))
    }

    /// What a validator's vote weighs; 0 outside the set.
    #[must_use]
    pub fn stake(&self, index: ValidatorIndex) -> Stake {
        Stake(self.get(index).map_or(0, |validator| validator.stake))
    }

    /// All stake, W.
    #[must_use]
    pub const fn total(&self) -> Stake {
        Stake(self.total)
    }

    /// Stake that decides, Q = floor(2W/3) + 1: two such groups share honest stake.
    #[must_use]
    pub fn quorum(&self) -> Stake {
        // 2W/3 is below 2^64, and W - floor(W/3) would round up where 3 divides 2W.
        let two_thirds = u128::from(self.total).saturating_mul(2) / 3;
        Stake(u64::try_from(two_thirds).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// Stake that cannot be all faulty, H = floor(W/3) + 1.
    #[must_use]
    pub const fn honest_share(&self) -> Stake {
        Stake((self.total / 3).saturating_add(1))
    }

    /// Place of the validator with this key.
    #[must_use]
    pub fn index_of(&self, key: &PublicKey) -> Option<ValidatorIndex> {
        let place = self.validators.iter().position(|validator| validator.public_key == *key)?;
        u16::try_from(place).ok().map(ValidatorIndex)
    }

    /// keccak256 of the RLP of `[epoch, [[key, stake, operator], ..]]`, by which headers name a set.
    #[must_use]
    pub fn hash(&self) -> B256 {
        #[derive(RlpEncodable)]
        struct Named<'a> {
            epoch: u64,
            validators: &'a Vec<Validator>,
        }
        let named = Named { epoch: self.epoch.0, validators: &self.validators };
        let mut bytes = Vec::with_capacity(named.length());
        named.encode(&mut bytes);
        keccak256(bytes)
    }
}
