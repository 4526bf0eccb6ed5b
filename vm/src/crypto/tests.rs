//! The arithmetic in use and revm's own give the same results.

use alloy_primitives::{hex, keccak256};
use revm::precompile::{crypto, secp256r1};

use super::*;

/// Bytes without a pattern.
fn noise(seed: &str, nth: usize, bytes: usize) -> Vec<u8> {
    let blocks = (0..bytes.div_ceil(32)).map(|block| keccak256(format!("{seed} {nth} {block}")));
    blocks.flat_map(|block| block.0).take(bytes).collect()
}

/// Without leading zeros: the precompile pads the result itself.
fn trimmed(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

#[track_caller]
fn agree(base: &[u8], exponent: &[u8], modulus: &[u8]) {
    let [ours, revms] = [&NodeCrypto as &dyn Crypto, &DefaultCrypto].map(|crypto| {
        let power = crypto.modexp(base, exponent, modulus).unwrap();
        assert!(trimmed(&power).len() <= modulus.len());
        trimmed(&power).to_vec()
    });
    assert_eq!(ours, revms, "{}^{} mod {}", hex::encode(base), hex::encode(exponent), hex::encode(modulus));
}

/// Moduli of a length: zero, small ones, powers of two, an odd number times a power of two at several places,
/// all ones but the last bit, odd ones, noise.
fn moduli(bytes: usize, nth: usize) -> Vec<Vec<u8>> {
    let zero = vec![0; bytes];
    let with = |at: usize, byte: u8| {
        let mut number = vec![0; bytes];
        number[at.min(bytes - 1)] = byte;
        number
    };
    let mut moduli = vec![zero, with(bytes, 1), with(bytes, 2), with(bytes, 6), with(0, 1), with(0, 0x80)];
    moduli.push(with(bytes / 2, 0x10));
    for zeros in [1, bytes / 3, bytes / 2, bytes.saturating_sub(8), bytes - 1] {
        let mut number = noise("modulus", nth, bytes);
        number[bytes - zeros..].fill(0);
        moduli.push(number);
    }
    let mut ones = vec![0xff; bytes];
    ones[bytes - 1] = 0xfe;
    moduli.push(ones);
    for odd in [0, 1] {
        let mut number = noise("parity", nth, bytes);
        number[bytes - 1] = number[bytes - 1] & 0xfe | odd;
        moduli.push(number);
    }
    moduli
}

#[test]
fn powers_are_those_of_revm_for_every_shape_of_modulus() {
    agree(&[], &[], &[]);
    agree(&[2], &[3], &[]);
    let lengths = [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 255, 256, 257];
    let mut nth = 0;
    for bytes in lengths {
        for modulus in moduli(bytes, bytes) {
            for exponent in [&[][..], &[0], &[0, 0], &[1], &[2], &[3], &[0, 0, 5], &[0xff; 9]] {
                for base in [0, 1, bytes / 2, bytes, 2 * bytes] {
                    nth += 1;
                    agree(&noise("base", nth, base), exponent, &modulus);
                }
            }
            agree(&vec![0; bytes], &[0], &modulus);
            agree(&modulus, &[7], &modulus);
        }
    }
}

#[test]
fn powers_are_those_of_revm_at_every_length() {
    for bytes in 1..=1_024 {
        let mut modulus = noise("modulus", bytes, bytes);
        modulus[bytes - bytes * (bytes % 11) / 11..].fill(0);
        modulus[bytes - 1] &= 0xfe;
        agree(&noise("base", bytes, 1_024 - bytes % 7 * 100), &[3 + u8::try_from(bytes % 5).unwrap()], &modulus);
    }
}

#[test]
fn powers_are_those_of_revm_for_random_numbers() {
    for nth in 0..3_000 {
        let shape = noise("shape", nth, 4);
        let length = |at: usize, most: usize| usize::from(shape[at]) % (most + 1);
        let mut modulus = noise("modulus", nth, 1 + length(0, 80));
        let zeros = length(1, modulus.len());
        let from = modulus.len() - zeros;
        modulus[from..].fill(0);
        agree(&noise("base", nth, length(2, 90)), &noise("exponent", nth, length(3, 40)), &modulus);
    }
}

#[test]
fn powers_are_those_of_revm_for_long_exponents() {
    for (nth, bytes) in [64, 200, 256, 512, 1_024].into_iter().enumerate() {
        let mut modulus = noise("modulus", nth, bytes);
        modulus[bytes * 3 / 4..].fill(0);
        agree(&noise("base", nth, bytes), &noise("exponent", nth, 33), &modulus);
        modulus[bytes - 1] = 2;
        agree(&noise("base", nth, bytes), &noise("exponent", nth, 130), &modulus);
    }
    agree(&[3], &noise("exponent", 9, 1_024), &[0xff, 0xfe]);
}

#[test]
fn every_executor_uses_this_arithmetic() {
    let chain = crate::testing::World::new(engine::genesis::Fork::Osaka).chain;
    let _ = crate::RevmExecutor::new(chain);
    assert_eq!(format!("{:?}", crypto()), "NodeCrypto");
}

/// Hash, r, s, public key; from the vectors that EIP-7951 names.
const P256_GOOD: [u8; 160] = hex!(
    "4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d"
    "a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac"
    "36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60"
    "4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3"
    "7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e"
);

/// Order of the group, and the prime of the field.
const P256_ORDER: [u8; 32] = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
const P256_PRIME: [u8; 32] = hex!("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");

/// The words of an input replaced: 0 hash, 1 r, 2 s, 3 and 4 the key.
fn with_word(word: usize, value: [u8; 32]) -> [u8; 160] {
    let mut input = P256_GOOD;
    input[32 * word..32 * (word + 1)].copy_from_slice(&value);
    input
}

/// `a - b`, where it is not negative.
fn minus(a: [u8; 32], b: &[u8]) -> [u8; 32] {
    let [a, b] = [&a[..], b].map(alloy_primitives::U256::from_be_slice);
    (a - b).to_be_bytes()
}

/// Source: EIP-7951, the checks on the input.
#[test]
fn signatures_on_p256_are_held_to_every_rule_of_the_eip() {
    let holds = secp256r1::verify_impl;
    assert!(holds(&P256_GOOD));
    // A signature may have either of the two values of s.
    assert!(holds(&with_word(2, minus(P256_ORDER, &P256_GOOD[64..96]))));
    for bit in 0..8 * P256_GOOD.len() {
        let mut input = P256_GOOD;
        input[bit / 8] ^= 1 << (bit % 8);
        assert!(!holds(&input), "bit {bit}");
    }
    for word in [1, 2] {
        for bad in [[0; 32], P256_ORDER, [0xff; 32]] {
            assert!(!holds(&with_word(word, bad)), "r and s lie above 0 and below the order");
        }
    }
    for word in [3, 4] {
        for bad in [[0; 32], P256_PRIME, [0xff; 32]] {
            assert!(!holds(&with_word(word, bad)), "coordinates lie below the prime, on the curve");
        }
    }
    let mut infinity = P256_GOOD;
    infinity[96..].fill(0);
    assert!(!holds(&infinity) && !holds(&P256_GOOD[..159]) && !holds(&[]));
}
