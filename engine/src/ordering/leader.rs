//! Who leads which window: sampling by stake from the epoch's seed.
//!
//! Promise: everybody who knows seed and set knows every leader, and a validator leads in proportion to its stake.

use alloy_primitives::{B256, U256, keccak256};

use crate::types::{Slot, ValidatorIndex, ValidatorSet};

/// The leaders of one epoch.
#[derive(Clone, Debug)]
pub struct Schedule {
    seed: B256,
    /// Slots of a window.
    window: u64,
    /// Stake of each validator and all before it.
    sums: Vec<u64>,
}

impl Schedule {
    /// The schedule of a set, by a seed, with windows of `window` slots.
    #[must_use]
    pub fn new(seed: B256, set: &ValidatorSet, window: u64) -> Self {
        let mut sum = 0_u64;
        let sums = set.validators().iter().map(|validator| {
            sum = sum.saturating_add(validator.stake);
            sum
        });
        Self { seed, window: window.max(1), sums: sums.collect() }
    }

    /// Who may propose in a slot.
    ///
    /// A point of the stake is drawn by keccak256 of seed and window; its first 128 bits over 2^128 are the point's
    /// place, so that no validator is preferred by more than one part in 2^64.
    #[must_use]
    pub fn leader(&self, slot: Slot) -> ValidatorIndex {
        let mut bytes = [0_u8; 40];
        let (seed, window) = bytes.split_at_mut(32);
        seed.copy_from_slice(self.seed.as_slice());
        window.copy_from_slice(&(slot.0 / self.window).to_be_bytes());
        let draw = U256::from_be_slice(&keccak256(bytes)[..16]);
        let total = self.sums.last().copied().unwrap_or_default();
        let point = (draw.saturating_mul(U256::from(total)) >> 128_usize).saturating_to::<u64>();
        let place = self.sums.partition_point(|sum| *sum <= point);
        ValidatorIndex(u16::try_from(place).unwrap_or_default())
    }
}
