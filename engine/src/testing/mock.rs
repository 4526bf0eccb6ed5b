//! Signatures for simulations: some ten nanoseconds each, and they still tell forged from true.
//!
//! A key is a seed that everybody can read, so this keeps nobody from signing for others; it shows whether a rule looks
//! at the right signature. A share is two independent 64-bit mixes of seed and hash; an aggregate is the sum of the
//! shares. A wrong share, a missing, further or other signer, a share that counts twice, another hash: each changes
//! both sums but with a chance of 2^-128.

use std::sync::Arc;

use alloy_primitives::B256;

use crate::{
    crypto::{Committee, Scheme, Signer},
    types::{PublicKey, Signature, Signers, ValidatorIndex, ValidatorSet},
};

/// Marks the bytes behind the seed, so that a key or a share is not taken for anything else.
const MARK: u8 = 0x4d;

/// Signs for one seed; two signers of one seed are twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MockSigner {
    seed: u64,
}

impl MockSigner {
    /// The signer of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Its key: the seed, readable.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut key = PublicKey::default();
        key.0[..8].copy_from_slice(&self.seed.to_be_bytes());
        key.0[47] = MARK;
        key
    }
}

impl Signer for MockSigner {
    fn sign(&self, hash: B256) -> Signature {
        Sum::share(self.seed, &hash).signature()
    }
}

/// Makes committees out of [`MockSigner`] keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct MockScheme;

impl Scheme for MockScheme {
    fn committee(&self, set: &ValidatorSet) -> Option<Arc<dyn Committee>> {
        let seeds: Option<_> = set.validators().iter().map(|validator| seed(&validator.public_key)).collect();
        Some(Arc::new(MockCommittee { seeds: seeds? }))
    }
}

fn seed(key: &PublicKey) -> Option<u64> {
    let signer = MockSigner::new(first(key.0.as_slice()));
    (signer.public_key() == *key).then_some(signer.seed)
}

/// The first eight bytes as a number; what is missing is 0.
fn first(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[derive(Debug)]
struct MockCommittee {
    seeds: Vec<u64>,
}

impl Committee for MockCommittee {
    fn verify(&self, signer: ValidatorIndex, hash: B256, signature: &Signature) -> bool {
        self.seeds.get(usize::from(signer.0)).is_some_and(|seed| Sum::share(*seed, &hash).signature() == *signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        let mut signatures = signatures.iter().map(Sum::read);
        let first = signatures.next()??;
        signatures.try_fold(first, |sum, next| next.map(|next| sum.plus(next))).map(Sum::signature)
    }

    fn verify_aggregate(&self, signers: &Signers, hash: B256, signature: &Signature) -> bool {
        if usize::from(signers.size()) != self.seeds.len() {
            return false;
        }
        let shares = signers.iter().filter_map(|index| self.seeds.get(usize::from(index.0)));
        let sum = shares.map(|seed| Sum::share(*seed, &hash)).reduce(Sum::plus);
        sum.is_some_and(|sum| sum.signature() == *signature)
    }
}

/// A share, or a sum of shares.
#[derive(Clone, Copy, Debug)]
struct Sum(u64, u64);

impl Sum {
    fn share(seed: u64, hash: &B256) -> Self {
        let start = Self(seed ^ 0x9e37_79b9_7f4a_7c15, !seed ^ 0xd1b5_4a32_d192_ed03);
        let (one, two) = (mix(start.0), mix(start.1));
        hash.chunks(8).fold(Self(one, two), |sum, word| {
            let word = first(word);
            Self(mix(sum.0 ^ word), mix(sum.1.wrapping_add(word)))
        })
    }

    const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0), self.1.wrapping_add(other.1))
    }

    fn signature(self) -> Signature {
        let mut signature = Signature::default();
        signature.0[..8].copy_from_slice(&self.0.to_be_bytes());
        signature.0[8..16].copy_from_slice(&self.1.to_be_bytes());
        signature.0[95] = MARK;
        signature
    }

    /// `None` if these bytes are no share and no sum of shares.
    fn read(signature: &Signature) -> Option<Self> {
        let sum = Self(first(&signature.0[..8]), first(&signature.0[8..16]));
        (sum.signature() == *signature).then_some(sum)
    }
}

/// The finisher of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one bit of input changes half of the output's.
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
