//! Points that are refused, keys and their proofs, aggregates, and how wrong shares are found.
//!
//! `SLUICE_MUTATED_POINTS` sets the number of mutated points (default 2,000), `SLUICE_SEED` the seed.

use std::sync::Arc;

use alloy_primitives::{Address, B256, FixedBytes, hex, keccak256};
use blst::min_pk;

use super::{
    Committee, Scheme, Signer,
    bls::{self, BlsScheme, PointError, SecretKey},
};
use crate::{
    testing::{MockScheme, MockSigner},
    types::{Epoch, PublicKey, Signature, Signers, Validator, ValidatorIndex, ValidatorSet},
};

const CHAIN: u64 = 31_337;

/// Numbers of one seed.
pub(crate) struct Random(u64);

impl Random {
    /// The seed of this run, printed: `SLUICE_SEED`, else 1.
    pub(crate) fn seeded(test: &str) -> Self {
        let seed = setting("SLUICE_SEED", 1);
        eprintln!("{test}: seed {seed} (repeat with SLUICE_SEED={seed})");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ test.len() as u64)
    }

    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn hash(&mut self) -> B256 {
        keccak256(self.next().to_be_bytes())
    }
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

pub(crate) fn secret(number: u64) -> SecretKey {
    let mut bytes = keccak256(number.to_be_bytes()).0;
    bytes[0] &= 0x3f;
    SecretKey::from_bytes(&mut bytes).unwrap()
}

pub(crate) fn set(epoch: u64, keys: impl IntoIterator<Item = PublicKey>) -> ValidatorSet {
    let validators = keys.into_iter().map(|public_key| Validator { public_key, stake: 1, operator: Address::ZERO });
    ValidatorSet::new(Epoch(epoch), validators.collect()).unwrap()
}

fn committee(secrets: &[SecretKey]) -> Arc<dyn Committee> {
    BlsScheme.committee(&set(0, secrets.iter().map(SecretKey::public_key))).unwrap()
}

fn secrets(count: u64) -> Vec<SecretKey> {
    (0..count).map(secret).collect()
}

pub(crate) fn signers(size: usize, indices: impl IntoIterator<Item = usize>) -> Signers {
    let mut signers = Signers::none(size);
    for index in indices {
        assert!(signers.add(ValidatorIndex(u16::try_from(index).unwrap())));
    }
    signers
}

fn shares(secrets: &[SecretKey], hash: B256) -> Vec<(ValidatorIndex, Signature)> {
    (0..).map(ValidatorIndex).zip(secrets.iter().map(|secret| secret.sign(hash))).collect()
}

fn infinity() -> Signature {
    let mut signature = Signature::default();
    signature.0[0] = 0xc0;
    signature
}

/// A point on the curve of signatures that is not in their group.
fn outside(from: u8) -> Signature {
    let mut signature = Signature::default();
    signature.0[0] = 0x80;
    let mut found = (from..).map(|last| {
        signature.0[95] = last;
        signature
    });
    found.find(|signature| min_pk::Signature::uncompress(signature.0.as_slice()).is_ok()).unwrap()
}

/// The sum of two points, unchecked; the difference if `minus`.
fn combined(one: &Signature, two: &Signature, minus: bool) -> Signature {
    let point = |signature: &Signature| min_pk::Signature::uncompress(signature.0.as_slice()).unwrap();
    let mut sum = min_pk::AggregateSignature::from_signature(&point(one));
    let mut two = *two;
    if minus {
        two.0[0] ^= 0x20;
    }
    sum.add_signature(&point(&two), false).unwrap();
    Signature(FixedBytes(sum.to_signature().compress()))
}

#[test]
fn a_secret_is_a_number_from_1_to_below_the_order_and_its_bytes_are_wiped() {
    let order = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001");
    let mut below = order;
    below[31] = 0;
    let mut bytes = below;
    let key = SecretKey::from_bytes(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 32]);
    assert_eq!(format!("{key:?} {key:#?}"), "SecretKey SecretKey");
    for mut refused in [[0; 32], order, [0xff; 32]] {
        assert!(SecretKey::from_bytes(&mut refused).is_none());
        assert_eq!(refused, [0; 32]);
    }
}

#[test]
fn points_that_are_none_are_refused_by_name() {
    let key = |bytes: [u8; 48]| bls::check_key(&PublicKey(FixedBytes(bytes)));
    let mut infinity_key = [0; 48];
    infinity_key[0] = 0xc0;
    assert_eq!(key(infinity_key), Err(PointError::Infinity));
    infinity_key[47] = 1;
    assert_eq!(key(infinity_key), Err(PointError::Encoding));
    assert_eq!(key([0; 48]), Err(PointError::Encoding));
    // x is the modulus, which is 0 written a second time.
    assert_eq!(
        key(hex!("9a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab")),
        Err(PointError::Encoding)
    );
    // x = 0 is a point of order 3.
    let mut small = [0; 48];
    small[0] = 0x80;
    assert_eq!(key(small), Err(PointError::Subgroup));
    let (honest, one) = (secret(1).public_key(), secret(1).sign(B256::ZERO));
    assert_eq!(bls::check_key(&honest), Ok(()));
    assert_eq!(bls::check_signature(&one), Ok(()));
    assert_eq!(bls::check_signature(&infinity()), Err(PointError::Infinity));
    assert_eq!(bls::check_signature(&Signature::default()), Err(PointError::Encoding));
    assert_eq!(bls::check_signature(&outside(0)), Err(PointError::Subgroup));
    assert_eq!(bls::check_signature(&combined(&one, &outside(0), false)), Err(PointError::Subgroup));
    assert!(BlsScheme.committee(&set(0, [honest, PublicKey(FixedBytes(small))])).is_none());
}

#[test]
fn no_mutated_point_is_taken() {
    let mut random = Random::seeded("no mutated point");
    let secrets = secrets(4);
    let keys: Vec<_> = secrets.iter().map(SecretKey::public_key).collect();
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(B256::ZERO)).collect();
    let mutate = |bytes: &mut [u8], random: &mut Random| {
        for _ in 0..=random.below(3) {
            // The sign flag alone names the negated point, which is in the group.
            let bit = random.below(bytes.len() * 8);
            bytes[bit / 8] ^= if bit == 2 { 0x40 } else { 0x80 >> (bit % 8) };
        }
    };
    for case in 0..setting("SLUICE_MUTATED_POINTS", 2_000) {
        let (mut key, mut signature) = (keys[random.below(4)], signatures[random.below(4)]);
        let (before_key, before) = (key, signature);
        mutate(key.0.as_mut_slice(), &mut random);
        mutate(signature.0.as_mut_slice(), &mut random);
        assert!(key == before_key || bls::check_key(&key).is_err(), "case {case}: {key:?}");
        assert!(signature == before || bls::check_signature(&signature).is_err(), "case {case}: {signature:?}");
    }
}

#[test]
fn a_proof_of_possession_holds_for_its_key_operator_and_chain_alone() {
    let (key, other) = (secret(1), secret(2));
    let (operator, thief) = (Address::with_last_byte(1), Address::with_last_byte(2));
    let proof = key.prove_possession(operator, CHAIN);
    assert!(bls::verify_possession(&key.public_key(), operator, CHAIN, &proof));
    assert!(!bls::verify_possession(&key.public_key(), thief, CHAIN, &proof), "registered by somebody else");
    assert!(!bls::verify_possession(&key.public_key(), operator, CHAIN + 1, &proof), "on another chain");
    assert!(!bls::verify_possession(&other.public_key(), operator, CHAIN, &proof), "for another key");
    assert!(!bls::verify_possession(&key.public_key(), operator, CHAIN, &infinity()));
    // Neither stands for the other: a vote and a proof over the same bytes differ.
    let hash = keccak256("anything");
    let as_proof = key.sign(hash);
    assert!(!bls::verify_possession(&key.public_key(), operator, CHAIN, &as_proof));
    assert!(!committee(&[key]).verify(ValidatorIndex(0), hash, &proof));
}

/// The attacker's key is x G less the keys of the others, so that the sum of all is x G.
#[test]
fn a_rogue_key_forges_where_nobody_asks_for_possession_and_enters_no_set_where_it_is_asked_for() {
    let honest = secrets(3);
    let attacker = secret(99);
    let point = |key: &PublicKey| min_pk::PublicKey::uncompress(key.0.as_slice()).unwrap();
    let mut rogue = min_pk::AggregatePublicKey::from_public_key(&point(&attacker.public_key()));
    for secret in &honest {
        let key = min_pk::AggregatePublicKey::from_public_key(&point(&secret.public_key()));
        rogue.sub_aggregate(&key);
    }
    let rogue = PublicKey(FixedBytes(rogue.to_public_key().compress()));
    assert_eq!(bls::check_key(&rogue), Ok(()), "nothing is wrong with it as a point");
    let keys = honest.iter().map(SecretKey::public_key).chain([rogue]);
    let hash = keccak256("what nobody but the attacker signed");
    let forged = attacker.sign(hash);
    let committee = BlsScheme.committee(&set(0, keys)).unwrap();
    assert!(committee.verify_aggregate(&signers(4, 0..4), hash, &forged), "the control: the forgery works");

    let operator = Address::with_last_byte(9);
    let mut proofs = vec![attacker.prove_possession(operator, CHAIN), attacker.sign(keccak256(rogue.0))];
    proofs.extend(honest.iter().map(|secret| secret.prove_possession(operator, CHAIN)));
    let less_others =
        honest.iter().fold(proofs[0], |sum, secret| combined(&sum, &secret.prove_possession(operator, CHAIN), true));
    proofs.push(less_others);
    for proof in proofs {
        assert!(!bls::verify_possession(&rogue, operator, CHAIN, &proof));
    }
}

/// Who is in an aggregate, under both schemes.
fn aggregates_tell_who_signed(committee: &dyn Committee, sign: impl Fn(usize, B256) -> Signature) {
    let (hash, other) = (keccak256("this"), keccak256("that"));
    let index = |index: usize| ValidatorIndex(u16::try_from(index).unwrap());
    let of = |who: &[usize]| who.iter().map(|who| sign(*who, hash)).collect::<Vec<_>>();
    let sum = |who: &[usize]| committee.aggregate(&of(who)).unwrap();
    let holds = |who: &[usize], signature: &Signature| {
        committee.verify_aggregate(&signers(7, who.iter().copied()), hash, signature)
    };
    assert!(committee.verify(index(3), hash, &sign(3, hash)));
    assert!(!committee.verify(index(2), hash, &sign(3, hash)), "another signer");
    assert!(!committee.verify(index(3), other, &sign(3, hash)), "another hash");
    assert!(!committee.verify(index(7), hash, &sign(3, hash)), "outside the set");
    assert!(holds(&[0, 2, 5], &sum(&[0, 2, 5])));
    assert_eq!(sum(&[5, 0, 2]), sum(&[0, 2, 5]), "in any order");
    assert!(holds(&[4], &sign(4, hash)), "one alone");
    assert!(!holds(&[0, 2], &sum(&[0, 2, 5])), "one more than named");
    assert!(!holds(&[0, 2, 5, 6], &sum(&[0, 2, 5])), "one fewer than named");
    assert!(!holds(&[0, 2, 6], &sum(&[0, 2, 5])), "one for another");
    assert!(!holds(&[0, 2, 5], &sum(&[0, 2, 2])), "one twice for another");
    assert!(!holds(&[0, 2], &sum(&[0, 2, 2])), "one twice");
    assert!(!holds(&[], &sum(&[0])), "nobody");
    let mixed = committee.aggregate(&[sign(0, hash), sign(2, other)]).unwrap();
    assert!(!holds(&[0, 2], &mixed), "one signed something else");
    assert!(!committee.verify_aggregate(&signers(8, [0, 2, 5]), hash, &sum(&[0, 2, 5])), "a larger set");
    assert!(!committee.verify_aggregate(&signers(6, [0, 2, 5]), hash, &sum(&[0, 2, 5])), "a smaller set");
    assert_eq!(committee.aggregate(&[]), None);
    assert_eq!(committee.aggregate(&[sign(0, hash), Signature::default()]), None);
    let shares: Vec<_> = (0..7).map(|who| (index(who), sign(if who == 4 { 3 } else { who }, hash))).collect();
    let (joined, wrong) = committee.join(hash, &[&shares[..], &[(index(7), sign(0, hash))]].concat());
    assert_eq!((joined, wrong), (Some(sum(&[0, 1, 2, 3, 5, 6])), vec![index(4), index(7)]));
    assert_eq!(committee.join(hash, &shares[4..5]), (None, vec![index(4)]));
    assert_eq!(committee.join(hash, &[]), (None, vec![]));
}

#[test]
fn an_aggregate_tells_exactly_who_signed_what() {
    let secrets = secrets(7);
    aggregates_tell_who_signed(&*committee(&secrets), |who, hash| secrets[who].sign(hash));
    let mocks: Vec<_> = (0..7).map(MockSigner::new).collect();
    let mock = MockScheme.committee(&set(0, mocks.iter().map(MockSigner::public_key))).unwrap();
    aggregates_tell_who_signed(&*mock, |who, hash| mocks[who].sign(hash));
    assert!(MockScheme.committee(&set(0, [secrets[0].public_key()])).is_none());
}

#[test]
fn infinity_and_points_outside_the_group_stand_for_nobody() {
    let secrets = secrets(3);
    let committee = committee(&secrets);
    let hash = keccak256("this");
    assert!(!committee.verify(ValidatorIndex(0), hash, &infinity()));
    assert!(!committee.verify_aggregate(&signers(3, 0..3), hash, &infinity()));
    assert!(!committee.verify_aggregate(&signers(3, []), hash, &infinity()));
    assert!(!bls::verify_distinct(&[], &infinity()));
    let right = committee.join(hash, &shares(&secrets, hash)).0.unwrap();
    let foreign = combined(&right, &outside(0), false);
    assert!(!committee.verify_aggregate(&signers(3, 0..3), hash, &foreign), "nor does a point outside the group");
    let mut shares = shares(&secrets, hash);
    shares[1].1 = infinity();
    assert_eq!(committee.join(hash, &shares).1, [ValidatorIndex(1)]);
}

/// Two colluding validators have keys that cancel; alone together they are nobody, and they spoil nobody's certificate.
#[test]
fn keys_that_cancel_are_no_signer_and_do_not_disturb_a_search() {
    let mut negated = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000");
    let mut one = B256::with_last_byte(1).0;
    let pair = [&mut one, &mut negated].map(|bytes| SecretKey::from_bytes(bytes).unwrap());
    let secrets: Vec<_> = pair.into_iter().chain(secrets(4)).collect();
    let committee = committee(&secrets);
    let hash = keccak256("this");
    let honest = shares(&secrets, hash);
    assert!(!committee.verify_aggregate(&signers(6, 0..2), hash, &infinity()));
    let all = committee.join(hash, &honest);
    assert!(all.1.is_empty() && committee.verify_aggregate(&signers(6, 0..6), hash, &all.0.unwrap()));
    for place in 2..6 {
        let mut shares = honest.clone();
        shares[place].1 = secret(999).sign(hash);
        let (joined, named) = committee.join(hash, &shares);
        let of_honest = named.iter().filter(|sender| sender.0 > 1).collect::<Vec<_>>();
        assert_eq!(of_honest, [&ValidatorIndex(u16::try_from(place).unwrap())], "no honest one is named");
        let rest = (0..6).filter(|at| !named.contains(&ValidatorIndex(u16::try_from(*at).unwrap())));
        assert!(committee.verify_aggregate(&signers(6, rest), hash, &joined.unwrap()));
    }
}

/// One wrong share among 128, at every place, of every sort.
#[test]
fn one_wrong_share_among_128_is_named_wherever_it_is_and_the_others_count() {
    let secrets = secrets(128);
    let committee = committee(&secrets);
    let hash = keccak256("this");
    let honest = shares(&secrets, hash);
    let all = committee.join(hash, &honest);
    assert!(committee.verify_aggregate(&signers(128, 0..128), hash, &all.0.unwrap()) && all.1.is_empty());
    let foreign = combined(&honest[0].1, &outside(0), false);
    let wrong = [secret(999).sign(hash), secrets[0].sign(keccak256("that")), foreign, Signature::default()];
    for place in 0..128 {
        let mut shares = honest.clone();
        shares[place].1 = wrong[place % wrong.len()];
        let (joined, named) = committee.join(hash, &shares);
        assert_eq!(named, [ValidatorIndex(u16::try_from(place).unwrap())]);
        let rest = signers(128, (0..128).filter(|index| *index != place));
        assert!(committee.verify_aggregate(&rest, hash, &joined.unwrap()), "without {place}");
    }
}

#[test]
fn wrong_shares_that_make_up_for_one_another_give_what_right_ones_give() {
    let secrets = secrets(5);
    let committee = committee(&secrets);
    let hash = keccak256("this");
    let honest = shares(&secrets, hash);
    let right = committee.join(hash, &honest).0;
    for by in [secret(999).sign(hash), outside(0), outside(40)] {
        let mut shares = honest.clone();
        shares[1].1 = combined(&shares[1].1, &by, false);
        shares[3].1 = combined(&shares[3].1, &by, true);
        assert!(!committee.verify(ValidatorIndex(1), hash, &shares[1].1), "wrong alone");
        assert_eq!(committee.join(hash, &shares), (right, vec![]));
        // With a third one that is wrong, none of the aggregate's signers is named falsely.
        shares[4].1 = secret(999).sign(hash);
        let (joined, named) = committee.join(hash, &shares);
        assert!(named.contains(&ValidatorIndex(4)) && !named.contains(&ValidatorIndex(0)));
        let rest = signers(5, (0..5).filter(|at| !named.contains(&ValidatorIndex(u16::try_from(*at).unwrap()))));
        assert!(committee.verify_aggregate(&rest, hash, &joined.unwrap()));
    }
}
