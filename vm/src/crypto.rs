//! The arithmetic of precompiles, where revm's own takes too long for the gas it costs.
//!
//! Powers modulo an even number: revm splits such a modulus into an odd number and a power of two, and joins the
//! two powers with an inverse whose cost is the square of its width, bit by bit, however short the exponent is.
//! Here the powers are revm's, and the inverse is Newton's: each step doubles the bits that are right. Everything
//! else is revm's own; signatures on P-256 have AWS-LC behind them there (feature `p256-aws-lc-rs`).
//!
//! The results are those of revm, bit for bit: which arithmetic is in use is nothing that a block can show.

use std::sync::Once;

use num_bigint::BigUint;
use revm::precompile::{Crypto, DefaultCrypto, PrecompileHalt, install_crypto};

/// revm's arithmetic but for powers modulo even numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeCrypto;

/// Makes every EVM of this process use [`NodeCrypto`].
///
/// revm keeps one arithmetic per process, the first that is installed or used. Every executor is made after this,
/// so none ever uses another.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Somebody else's EVM in this process may have been first: the results are the same, only slower.
        if !install_crypto(NodeCrypto) {
            tracing::warn!("precompiles use arithmetic that was installed before");
        }
    });
}

impl Crypto for NodeCrypto {
    fn modexp(&self, base: &[u8], exponent: &[u8], modulus: &[u8]) -> Result<Vec<u8>, PrecompileHalt> {
        let number = BigUint::from_bytes_be(modulus);
        let zeros = number.trailing_zeros().unwrap_or_default();
        let odd = &number >> zeros;
        if zeros < INVERSE_BITS_MIN || odd == BigUint::from(1_u8) {
            return DefaultCrypto.modexp(base, exponent, modulus);
        }
        let power = |modulus: &BigUint| {
            DefaultCrypto.modexp(base, exponent, &modulus.to_bytes_be()).map(|power| BigUint::from_bytes_be(&power))
        };
        let two = BigUint::from(1_u8) << zeros;
        let (by_odd, by_two) = (power(&odd)?, power(&two)?);
        // The one number below the modulus that leaves both rests (Garner's form of the Chinese remainder theorem).
        let apart = low(by_two + &two - low(by_odd.clone(), zeros), zeros);
        let times = low(apart * inverse(&odd, zeros), zeros);
        Ok((by_odd + odd * times).to_bytes_be())
    }
}

/// Powers of two below which revm's inverse is as fast.
const INVERSE_BITS_MIN: u64 = 128;

/// The lowest bits of a number.
fn low(number: BigUint, bits: u64) -> BigUint {
    if number.bits() <= bits { number } else { number & ((BigUint::from(1_u8) << bits) - 1_u8) }
}

/// The inverse of an odd number modulo a power of two.
///
/// Source: Newton's iteration `x * (2 - odd * x)`.
fn inverse(odd: &BigUint, bits: u64) -> BigUint {
    // The square of any odd number is one modulo eight.
    let (mut inverse, mut right) = (low(odd.clone(), 3), 3_u64);
    while right < bits {
        right = right.saturating_mul(2).min(bits);
        let product = low(low(odd.clone(), right) * &inverse, right);
        let rest = (BigUint::from(1_u8) << right) + 2_u8 - product;
        inverse = low(inverse * rest, right);
    }
    inverse
}

#[cfg(test)]
mod tests;
