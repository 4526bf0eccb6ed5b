//! The validators of simulations: a secret is a number that the mock scheme signs with.

use alloy_primitives::Address;
use engine::{
    testing::MockSigner,
    types::{Epoch, PublicKey, Validator, ValidatorSet},
};

/// The public half of a secret.
#[must_use]
pub fn public_key(secret: u64) -> PublicKey {
    MockSigner::new(secret).public_key()
}

/// A set of validators by their secrets and stakes.
///
/// # Panics
/// If they make no set.
#[must_use]
pub fn set(epoch: u64, members: &[(u64, u64)]) -> ValidatorSet {
    let validator = |(secret, stake): &(u64, u64)| Validator {
        public_key: public_key(*secret),
        stake: *stake,
        operator: Address::ZERO,
    };
    ValidatorSet::new(Epoch(epoch), members.iter().map(validator).collect()).expect("members make a set")
}
