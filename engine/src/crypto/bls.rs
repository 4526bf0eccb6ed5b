//! BLS signatures on BLS12-381: keys in G1 (48 bytes), signatures in G2 (96 bytes), Ethereum's ciphersuite.
//!
//! Who is kept out, and where:
//!
//! - A key is checked once, when its committee is made: canonical encoding, on the curve, not infinity, in the group.
//! - A key built out of the keys of others (a rogue key) would sign for them in an aggregate. So no key enters a set
//!   without a [proof of possession](SecretKey::prove_possession), which is signed under a tag of its own and names
//!   operator and chain, so that neither a vote nor somebody else's proof can stand for it.
//! - A signature alone is checked whole: canonical encoding, on the curve, not infinity, in the subgroup.
//! - Of an aggregate the sum alone is checked for the subgroup, not each share; forty microseconds each would be most
//!   of the cost. This is enough. The curve's points are the direct product of the subgroup and a group of an order
//!   prime to it, so a sum lies in the subgroup exactly if the foreign parts of all shares add up to nothing, and is
//!   then the sum of their parts in the subgroup: a signature that the pairing check judges like any other. Nobody but
//!   the holders of wrong shares can make them cancel, and what comes out is what right shares would have given.
//!
//! Sources: draft-irtf-cfrg-bls-signature-05; Ristenpart and Yilek, "The Power of Proofs-of-Possession" (2007).

use std::{any::Any, fmt, sync::Arc};

use alloy_primitives::{Address, B256, FixedBytes, hex};
use blst::{
    BLST_ERROR, Pairing, blst_p1_affine, blst_p2_affine,
    min_pk::{self, AggregatePublicKey, AggregateSignature},
};
use zeroize::Zeroize as _;

use super::{Committee, Scheme, Signer, bisect};
use crate::types::{PublicKey, Signature, Signers, ValidatorIndex, ValidatorSet};

/// Tag of everything signed but proofs of possession.
const SIGNATURE_TAG: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

/// Tag of proofs of possession.
const POSSESSION_TAG: &[u8] = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

/// Why bytes are no key or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointError {
    /// Not the one encoding of a point on the curve.
    #[error("not the encoding of a point on the curve")]
    Encoding,
    /// The point at infinity, which would hold for everything.
    #[error("the point at infinity")]
    Infinity,
    /// On the curve, but in no group that signatures are safe in.
    #[error("a point outside the subgroup")]
    Subgroup,
}

impl From<BLST_ERROR> for PointError {
    fn from(error: BLST_ERROR) -> Self {
        match error {
            BLST_ERROR::BLST_PK_IS_INFINITY => Self::Infinity,
            BLST_ERROR::BLST_POINT_NOT_IN_GROUP => Self::Subgroup,
            _ => Self::Encoding,
        }
    }
}

/// Whether these bytes are a key.
///
/// # Errors
/// [`PointError`].
pub fn check_key(key: &PublicKey) -> Result<(), PointError> {
    decode_key(key).map(|_| ())
}

/// Whether these bytes are a signature of somebody over something.
///
/// # Errors
/// [`PointError`].
pub fn check_signature(signature: &Signature) -> Result<(), PointError> {
    Ok(decode_signature(signature)?.validate(true)?)
}

fn decode_key(key: &PublicKey) -> Result<min_pk::PublicKey, PointError> {
    let point = min_pk::PublicKey::uncompress(key.0.as_slice())?;
    point.validate()?;
    Ok(point)
}

/// A point on the curve, which may be infinity or outside the subgroup.
fn decode_signature(signature: &Signature) -> Result<min_pk::Signature, PointError> {
    Ok(min_pk::Signature::uncompress(signature.0.as_slice())?)
}

fn encode_signature(signature: &min_pk::Signature) -> Signature {
    Signature(FixedBytes(signature.compress()))
}

/// Whether the holder of this key, or the holders whose keys it is the sum of, signed the message. The signature is
/// checked for the subgroup; infinity never holds.
fn holds(key: &min_pk::PublicKey, message: &[u8], tag: &[u8], signature: &min_pk::Signature) -> bool {
    all_hold(&[(key, message)], tag, signature)
}

/// Whether the signature is the sum of each key's over its message.
///
/// On this thread alone: the package's own functions hand work to threads of theirs.
fn all_hold(pairs: &[(&min_pk::PublicKey, &[u8])], tag: &[u8], signature: &min_pk::Signature) -> bool {
    if pairs.is_empty() || signature.validate(true).is_err() {
        return false;
    }
    let signature: &blst_p2_affine = signature.into();
    let mut pairing = Pairing::new(true, tag);
    for (at, (key, message)) in pairs.iter().enumerate() {
        let key: &blst_p1_affine = (*key).into();
        // The package takes a signature of another type for none.
        let signature: &dyn Any = if at == 0 { signature } else { &() };
        if pairing.aggregate(key, false, signature, false, message, &[]) != BLST_ERROR::BLST_SUCCESS {
            return false;
        }
    }
    pairing.commit();
    pairing.finalverify(None)
}

/// A validator's secret key. It cannot be copied or printed, and its memory is wiped when it is dropped.
pub struct SecretKey(Box<min_pk::SecretKey>);

impl SecretKey {
    /// Reads a key: 32 bytes, big end first, as keystores hold them. Wipes the bytes, whether they are one or not.
    ///
    /// `None` for zero and for numbers that are not below the order of the group.
    #[must_use]
    pub fn from_bytes(bytes: &mut [u8; 32]) -> Option<Self> {
        let key = min_pk::SecretKey::from_bytes(bytes);
        bytes.zeroize();
        key.ok().map(|key| Self(Box::new(key)))
    }

    /// The key of a chain whose genesis file names no validators. Everybody has it.
    #[must_use]
    pub fn development() -> Self {
        let public = *b"sluice development validator 0.0";
        Self(Box::new(min_pk::SecretKey::key_gen(&public, &[]).unwrap_or_default()))
    }

    /// The key that others verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(FixedBytes(self.0.sk_to_pk().compress()))
    }

    /// Proves that the secret of [`Self::public_key`] is known to whom this operator trusts on this chain.
    #[must_use]
    pub fn prove_possession(&self, operator: Address, chain_id: u64) -> Signature {
        let message = possession(&self.public_key(), operator, chain_id);
        encode_signature(&self.0.sign(&message, POSSESSION_TAG, &[]))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

impl Signer for SecretKey {
    fn sign(&self, hash: B256) -> Signature {
        encode_signature(&self.0.sign(hash.as_slice(), SIGNATURE_TAG, &[]))
    }
}

/// Whether this is the proof of possession of a key for an operator on a chain; `false` if the key is none.
#[must_use]
pub fn verify_possession(key: &PublicKey, operator: Address, chain_id: u64, proof: &Signature) -> bool {
    let (Ok(point), Ok(proof)) = (decode_key(key), decode_signature(proof)) else { return false };
    holds(&point, &possession(key, operator, chain_id), POSSESSION_TAG, &proof)
}

/// What a proof of possession signs: the key (48 bytes), the operator (20), the chain id (8, big end first).
fn possession(key: &PublicKey, operator: Address, chain_id: u64) -> [u8; 76] {
    let mut message = [0; 76];
    message[..48].copy_from_slice(key.0.as_slice());
    message[48..68].copy_from_slice(operator.as_slice());
    message[68..].copy_from_slice(&chain_id.to_be_bytes());
    message
}

/// Whether one aggregate holds each of these keys' signatures over its own hash; `false` for nobody.
#[must_use]
pub fn verify_distinct(pairs: &[(PublicKey, B256)], signature: &Signature) -> bool {
    let keys: Result<Vec<_>, _> = pairs.iter().map(|(key, _)| decode_key(key)).collect();
    let (Ok(keys), Ok(signature)) = (keys, decode_signature(signature)) else { return false };
    let pairs: Vec<_> = keys.iter().zip(pairs).map(|(key, (_, hash))| (key, hash.as_slice())).collect();
    all_hold(&pairs, SIGNATURE_TAG, &signature)
}

/// The point that a message stands for under a tag, uncompressed: x1, x0, y1, y0, 48 bytes each, big end first.
///
/// Source: RFC 9380, suite `BLS12381G2_XMD:SHA-256_SSWU_RO_`.
#[must_use]
pub fn hash_to_curve(message: &[u8], tag: &[u8]) -> FixedBytes<192> {
    FixedBytes(point_of(message, tag).serialize())
}

/// The point of a message is what the secret 1 signs.
fn point_of(message: &[u8], tag: &[u8]) -> min_pk::Signature {
    known_secret(&ONE).sign(message, tag, &[])
}

const ONE: [u8; 32] = {
    let mut one = [0; 32];
    one[31] = 1;
    one
};

/// The order of the group less 1, which is -1.
const MINUS_ONE: [u8; 32] = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000");

/// One of the two secrets that are none.
fn known_secret(number: &[u8; 32]) -> min_pk::SecretKey {
    min_pk::SecretKey::from_bytes(number).unwrap_or_default()
}

/// What many checks of one hash share: its point, and the generator of keys with its sign changed. Each check is then
/// two pairings in one, without hashing.
struct Search {
    point: min_pk::Signature,
    minus_one: min_pk::PublicKey,
}

impl Search {
    fn new(hash: B256) -> Self {
        let minus_one = known_secret(&MINUS_ONE).sk_to_pk();
        Self { point: point_of(hash.as_slice(), SIGNATURE_TAG), minus_one }
    }

    /// As [`holds`], for the hash.
    fn holds(&self, key: &min_pk::PublicKey, signature: &min_pk::Signature) -> bool {
        if key.validate().is_err() || signature.validate(true).is_err() {
            return false;
        }
        // e(key, point) e(-generator, signature) = 1.
        let mut pairing = Pairing::new(true, SIGNATURE_TAG);
        pairing.raw_aggregate((&self.point).into(), key.into());
        pairing.raw_aggregate(signature.into(), (&self.minus_one).into());
        pairing.commit();
        pairing.finalverify(None)
    }
}

/// BLS on a production node.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlsScheme;

impl Scheme for BlsScheme {
    fn committee(&self, set: &ValidatorSet) -> Option<Arc<dyn Committee>> {
        let keys: Result<_, _> = set.validators().iter().map(|validator| decode_key(&validator.public_key)).collect();
        Some(Arc::new(BlsCommittee { keys: keys.ok()? }))
    }
}

/// The checked keys of one set, in order.
struct BlsCommittee {
    keys: Vec<min_pk::PublicKey>,
}

impl fmt::Debug for BlsCommittee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlsCommittee of {}", self.keys.len())
    }
}

impl BlsCommittee {
    fn key(&self, index: ValidatorIndex) -> Option<&min_pk::PublicKey> {
        self.keys.get(usize::from(index.0))
    }
}

impl Committee for BlsCommittee {
    fn verify(&self, signer: ValidatorIndex, hash: B256, signature: &Signature) -> bool {
        let (Some(key), Ok(signature)) = (self.key(signer), decode_signature(signature)) else { return false };
        holds(key, hash.as_slice(), SIGNATURE_TAG, &signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        let points: Result<Vec<_>, _> = signatures.iter().map(decode_signature).collect();
        sum_of_signatures(&points.ok()?).map(|sum| encode_signature(&sum))
    }

    fn verify_aggregate(&self, signers: &Signers, hash: B256, signature: &Signature) -> bool {
        if usize::from(signers.size()) != self.keys.len() {
            return false;
        }
        let Ok(signature) = decode_signature(signature) else { return false };
        let keys = signers.iter().filter_map(|index| self.key(index));
        sum_of_keys(keys).is_some_and(|key| holds(&key, hash.as_slice(), SIGNATURE_TAG, &signature))
    }

    /// Decodes each share once and asks for one pairing check if all are right; see [`bisect`] for the rest.
    fn join(&self, hash: B256, shares: &[(ValidatorIndex, Signature)]) -> (Option<Signature>, Vec<ValidatorIndex>) {
        let (mut named, mut keys, mut points) = (Vec::new(), Vec::new(), Vec::new());
        let mut senders = Vec::with_capacity(shares.len());
        for (sender, signature) in shares {
            match (self.key(*sender), decode_signature(signature)) {
                (Some(key), Ok(point)) => {
                    keys.push(key);
                    points.push(point);
                    senders.push(*sender);
                }
                _ => named.push(*sender),
            }
        }
        let (mut first, mut search) = (true, None);
        let wrong = bisect::wrong(points.len(), |places| {
            let sum = sum_of_signatures(places.iter().filter_map(|place| points.get(*place)));
            let key = sum_of_keys(places.iter().filter_map(|place| keys.get(*place).copied()));
            let Some((sum, key)) = sum.zip(key) else { return false };
            if std::mem::take(&mut first) {
                return holds(&key, hash.as_slice(), SIGNATURE_TAG, &sum);
            }
            search.get_or_insert_with(|| Search::new(hash)).holds(&key, &sum)
        });
        named.extend(wrong.iter().filter_map(|place| senders.get(*place)));
        named.sort_unstable();
        let right = (0..).zip(&points).filter(|(place, _)| wrong.binary_search(place).is_err());
        (sum_of_signatures(right.map(|(_, point)| point)).map(|sum| encode_signature(&sum)), named)
    }
}

/// The sum; `None` of nothing.
fn sum_of_signatures<'a>(points: impl IntoIterator<Item = &'a min_pk::Signature>) -> Option<min_pk::Signature> {
    let mut points = points.into_iter();
    let mut sum = AggregateSignature::from_signature(points.next()?);
    for point in points {
        sum.add_signature(point, false).ok()?;
    }
    Some(sum.to_signature())
}

/// The sum; `None` of nothing.
fn sum_of_keys<'a>(keys: impl IntoIterator<Item = &'a min_pk::PublicKey>) -> Option<min_pk::PublicKey> {
    let mut keys = keys.into_iter();
    let mut sum = AggregatePublicKey::from_public_key(keys.next()?);
    for key in keys {
        sum.add_public_key(key, false).ok()?;
    }
    Some(sum.to_public_key())
}
