//! Inputs of the precompiles that take the longest for their gas, all valid.
//!
//! Points are the curves' generators, so that nothing here computes on curves: no implementation treats them
//! apart. Scalars are full-width.

use alloy_primitives::{B256, U256, hex, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;

use super::{
    Program,
    code::{Code, op},
};
use crate::rng::Rng;

/// One call of a precompile, with what makes its result credible.
#[derive(Clone, Debug)]
pub(super) struct Precompile {
    address: u64,
    /// Gas of the call itself.
    gas: u64,
    input: Vec<u8>,
    output_bytes: u64,
    /// First word of the output, where it is known beforehand.
    first_word: Option<U256>,
}

/// Gas of what surrounds a precompile in a round: the call to a warm address, its arguments, the requirements.
const ROUND: u64 = 250;

impl Precompile {
    /// Loops over the call; reverts if it fails or gives something else.
    pub(super) fn program(&self) -> Program {
        let bytes = u64::try_from(self.input.len()).expect("an input is short");
        let output = bytes.next_multiple_of(32);
        let code = Code::new().load_data(bytes).repeat(self.gas + ROUND, |code| {
            let call = code.push(32).push(output).push(bytes).push(0).push(self.address);
            let called = call.op(op::GAS).op(op::STATICCALL).require();
            let measured = called.op(op::RETURNDATASIZE).push(self.output_bytes).op(op::EQ).require();
            match self.first_word {
                Some(word) => measured.push(output).op(op::MLOAD).word(word).op(op::EQ).require(),
                None => measured,
            }
        });
        Program { code: code.finish(&self.input), gas_per_round: self.gas }
    }
}

/// Signature recovery; the price is the same for any signature.
pub(super) fn ec_recover() -> Precompile {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("any small number is a key");
    let hash = keccak256("worst");
    let signature = signer.sign_hash_sync(&hash).expect("a key in memory signs");
    let v = U256::from(27 + u8::from(signature.v()));
    let words = [hash, v.into(), signature.r().into(), signature.s().into()];
    let address = U256::from_be_bytes(signer.address().into_word().0);
    Precompile { address: 1, gas: 3_000, input: words.concat(), output_bytes: 32, first_word: Some(address) }
}

/// Bytes of the modulus: the most words whose price, `2 * 14^2`, is still below the least that EIP-7883 asks for.
const MODEXP_BYTES: usize = 112;

/// Bytes of the base, whose cube is longer than the modulus.
const MODEXP_BASE_BYTES: usize = 56;

/// An even modulus that is a large power of two times an odd number of one word, and the cube of a number.
///
/// Such a modulus is split in two: there are two powers, an inverse and products that join the halves, for the
/// price of a single multiplication. The worst of some 50,000 shapes of base, exponent and modulus.
pub(super) fn modexp() -> Precompile {
    let length = |bytes: usize| U256::from(bytes).to_be_bytes::<32>();
    let mut modulus = vec![0; MODEXP_BYTES];
    modulus[..8].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    let mut input = [length(MODEXP_BASE_BYTES), length(1), length(MODEXP_BYTES)].concat();
    input.extend([0xff; MODEXP_BASE_BYTES]);
    input.push(3);
    input.extend(modulus);
    Precompile { address: 5, gas: 500, input, output_bytes: 112, first_word: None }
}

/// The generator of BN254's first group.
fn bn254_g1() -> [u8; 64] {
    let mut point = [0; 64];
    (point[31], point[63]) = (1, 2);
    point
}

/// The generator of BN254's second group, imaginary parts first (EIP-197).
const BN254_G2: [u8; 128] = hex!(
    "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2"
    "1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed"
    "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b"
    "12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
);

/// First coordinate of twice the generator of BN254's first group.
const BN254_G1_DOUBLED: B256 = B256::new(hex!("030644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd3"));

/// A doubling, which ends in an inversion as every addition does.
pub(super) fn ec_add() -> Precompile {
    let input = [bn254_g1(), bn254_g1()].concat();
    Precompile { address: 6, gas: 150, input, output_bytes: 64, first_word: Some(BN254_G1_DOUBLED.into()) }
}

/// A multiplication by a full-width scalar.
pub(super) fn ec_mul() -> Precompile {
    let input = [&bn254_g1()[..], &[0xff; 32]].concat();
    Precompile { address: 7, gas: 6_000, input, output_bytes: 64, first_word: None }
}

/// One pair, whose product is not one: most of the call is the final exponentiation.
pub(super) fn pairing() -> Precompile {
    let input = [&bn254_g1()[..], &BN254_G2].concat();
    Precompile { address: 8, gas: 45_000 + 34_000, input, output_bytes: 32, first_word: Some(U256::ZERO) }
}

/// Rounds of a call of BLAKE2, one gas each; more would only coarsen the loop.
const BLAKE2_ROUNDS: u32 = 50_000;

/// Enough rounds that the call around them is noise.
pub(super) fn blake2() -> Precompile {
    let mut input = [0x5a; 213];
    input[..4].copy_from_slice(&BLAKE2_ROUNDS.to_be_bytes());
    input[212] = 1;
    Precompile { address: 9, gas: BLAKE2_ROUNDS.into(), input: input.to_vec(), output_bytes: 64, first_word: None }
}

/// A commitment to the polynomial `f(x) = x`, which is the ceremony's second power of its secret in group one.
const KZG_COMMITMENT: [u8; 48] =
    hex!("ad3eb50121139aa34db1d545093ac9374ab7bca2c0f3bf28e27c8dcd8fc7cb42d25926fc0c97b336e9f0fb35e5a04c81");

/// Version 1, then the SHA-256 of [`KZG_COMMITMENT`] without its first byte.
const KZG_VERSIONED_HASH: B256 = B256::new(hex!("014fa3bb4018340ca2fa8eb239e23af6ba465f6d5bc31db78988445da078db76"));

/// Proof that `f(z) = z` for any z: the quotient of `x - z` by `x - z` is one, so its commitment is the generator.
const KZG_PROOF: [u8; 48] =
    hex!("97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb");

/// Point evaluation with no point at infinity, so that both pairings are computed.
pub(super) fn kzg_point() -> Precompile {
    // Any number below the order of the group, which begins with 0x73.
    let z = [0x5a; 32];
    let input = [&KZG_VERSIONED_HASH[..], &z, &z, &KZG_COMMITMENT, &KZG_PROOF].concat();
    // Field elements in a blob.
    Precompile { address: 10, gas: 50_000, input, output_bytes: 64, first_word: Some(U256::from(4_096)) }
}

/// The generator of BLS12-381's first group: x, y.
const BLS_G1: [[u8; 48]; 2] = [
    hex!("17f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"),
    hex!("08b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1"),
];

/// The generator of BLS12-381's second group: real and imaginary part of x, then of y.
const BLS_G2: [[u8; 48]; 4] = [
    hex!("024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"),
    hex!("13e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"),
    hex!("0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"),
    hex!("0606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be"),
];

/// Coordinates as EIP-2537 encodes them: 64 bytes each.
fn bls(coordinates: &[[u8; 48]]) -> Vec<u8> {
    coordinates.iter().flat_map(|coordinate| [&[0; 16][..], coordinate].concat()).collect()
}

/// Pairs of a multiplication: with one more, blst takes an algorithm that is faster than the discount is deep.
const MSM_PAIRS: u64 = 31;

/// Thousandths of the price of [`MSM_PAIRS`] single multiplications that they cost together, in group one.
const MSM_DISCOUNT_G1: u64 = 630;

/// The same in group two.
const MSM_DISCOUNT_G2: u64 = 649;

/// The point with a different full-width scalar each time.
fn msm(address: u64, point: &[u8], gas: u64, output_bytes: u64) -> Precompile {
    let mut rng = Rng::new(address);
    let mut scalar = || std::array::from_fn::<_, 4, _>(|_| rng.next_u64().to_be_bytes()).concat();
    let input = (0..MSM_PAIRS).flat_map(|_| [point, &scalar()].concat()).collect();
    Precompile { address, gas, input, output_bytes, first_word: None }
}

/// Multi-scalar multiplication in group one.
pub(super) fn bls_g1_msm() -> Precompile {
    msm(12, &bls(&BLS_G1), MSM_PAIRS * 12_000 * MSM_DISCOUNT_G1 / 1_000, 128)
}

/// Multi-scalar multiplication in group two.
pub(super) fn bls_g2_msm() -> Precompile {
    msm(14, &bls(&BLS_G2), MSM_PAIRS * 22_500 * MSM_DISCOUNT_G2 / 1_000, 256)
}

/// One pair, whose product is not one.
pub(super) fn bls_pairing() -> Precompile {
    let input = [bls(&BLS_G1), bls(&BLS_G2)].concat();
    Precompile { address: 15, gas: 37_700 + 32_600, input, output_bytes: 32, first_word: Some(U256::ZERO) }
}

/// A signature on the curve secp256r1: hash, r, s, public key. From the vectors that EIP-7951 names.
const P256_SIGNATURE: [u8; 160] = hex!(
    "4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d"
    "a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac"
    "36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60"
    "4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3"
    "7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e"
);

/// Verification of a good signature, which has to go all the way.
pub(super) fn p256_verify() -> Precompile {
    let input = P256_SIGNATURE.to_vec();
    Precompile { address: 256, gas: 6_900, input, output_bytes: 32, first_word: Some(U256::from(1)) }
}
