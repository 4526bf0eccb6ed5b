//! Ethereum's vectors of BLS signatures: what validators sign with says the same.
//!
//! A file is one case of the call its folder is named after. Everything goes through the doors that ordering uses, a
//! committee above all; keys and signatures of a wrong length are refused like any other bytes that are none.

use std::{path::Path, sync::Arc};

use alloy_primitives::{Address, B256, FixedBytes, hex};
use engine::{
    crypto::{
        Committee, Scheme, Signer,
        bls::{self, BlsScheme, PointError, SecretKey},
    },
    types::{Epoch, PublicKey, Signature, Signers, Validator, ValidatorIndex, ValidatorSet},
};
use eyre::{WrapErr, bail, eyre};
use serde_json::{Map, Value, json as value};

use super::{
    case::{Case, Judged, Verdict},
    json,
};

/// Tag of the vectors of hashing, which RFC 9380 made for its own.
const HASH_TAG: &[u8] = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_";

/// Runs the case that a file holds.
pub(crate) fn run(file: &Path, case: &Map<String, Value>) -> Case {
    let name = file.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let folder =
        file.parent().and_then(Path::file_name).map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Case::judge(&name, None, 0, || {
        let (Some(input), Some(want)) = (case.get("input"), case.get("output")) else {
            bail!("`input` or `output` is missing");
        };
        check(&folder, input, want)
    })
}

fn check(call: &str, input: &Value, want: &Value) -> Verdict {
    let got = match call {
        "sign" => sign(input)?,
        "verify" => {
            let (key, hash) = (text(input, "pubkey")?, json::hash(input, "message")?);
            value!(all_hold(&[key], hash, text(input, "signature")?))
        }
        "aggregate" => aggregate(input)?,
        "fast_aggregate_verify" => {
            let (keys, hash) = (texts(input, "pubkeys")?, json::hash(input, "message")?);
            value!(all_hold(&keys, hash, text(input, "signature")?))
        }
        "aggregate_verify" => value!(holds(&texts(input, "pubkeys")?, &hashes(input)?, text(input, "signature")?)),
        "batch_verify" => {
            let (keys, hashes, signatures) = (texts(input, "pubkeys")?, hashes(input)?, texts(input, "signatures")?);
            if keys.len() != hashes.len() || keys.len() != signatures.len() {
                bail!("lists of different lengths");
            }
            let mut triples = keys.iter().zip(&hashes).zip(&signatures);
            value!(triples.all(|((key, hash), signature)| all_hold(&[key], *hash, signature)))
        }
        "deserialization_G1" => value!(is_point(key(text(input, "pubkey")?).map(|key| bls::check_key(&key)))),
        "deserialization_G2" => {
            value!(is_point(signature(text(input, "signature")?).map(|signature| bls::check_signature(&signature))))
        }
        "hash_to_G2" => hash_to_curve(text(input, "msg")?),
        _ => bail!("the folder `{call}` names no call"),
    };
    Ok(Judged::equal(got, want.clone()))
}

fn sign(input: &Value) -> eyre::Result<Value> {
    let mut secret = json::hash(input, "privkey")?.0;
    let hash = json::hash(input, "message")?;
    Ok(SecretKey::from_bytes(&mut secret).map_or(Value::Null, |key| value!(key.sign(hash).0)))
}

fn aggregate(input: &Value) -> eyre::Result<Value> {
    let list = input.as_array().ok_or_else(|| eyre!("`input` is not a list"))?;
    let signatures: Option<Vec<_>> = list.iter().map(|one| signature(one.as_str()?)).collect();
    // Any committee joins signatures; what they are over is nothing to it.
    let mut secret = B256::with_last_byte(1).0;
    let secret = SecretKey::from_bytes(&mut secret).ok_or_else(|| eyre!("1 is a secret"))?;
    let committee = committee(&[secret.public_key()]).ok_or_else(|| eyre!("its key is a key"))?;
    Ok(signatures.and_then(|all| committee.aggregate(&all)).map_or(Value::Null, |sum| value!(sum.0)))
}

/// Whether all of these keys signed one hash; one alone is asked for by both doors.
fn all_hold(keys: &[&str], hash: B256, signed: &str) -> bool {
    let keys: Option<Vec<_>> = keys.iter().map(|text| key(text)).collect();
    let (Some(keys), Some(signed)) = (keys, signature(signed)) else { return false };
    let Some(committee) = committee(&keys) else { return false };
    let mut signers = Signers::none(keys.len());
    (0..).map(ValidatorIndex).take(keys.len()).for_each(|index| {
        signers.add(index);
    });
    let together = committee.verify_aggregate(&signers, hash, &signed);
    together && (keys.len() > 1 || committee.verify(ValidatorIndex(0), hash, &signed))
}

/// Whether each of these keys signed its own hash.
fn holds(keys: &[&str], hashes: &[B256], signed: &str) -> bool {
    let keys: Option<Vec<_>> = keys.iter().map(|text| key(text)).collect();
    let (Some(keys), Some(signature)) = (keys, signature(signed)) else { return false };
    let pairs: Vec<_> = keys.into_iter().zip(hashes.iter().copied()).collect();
    pairs.len() == hashes.len() && bls::verify_distinct(&pairs, &signature)
}

/// The committee of a set with these keys.
fn committee(keys: &[PublicKey]) -> Option<Arc<dyn Committee>> {
    let member = |public_key: &PublicKey| Validator { public_key: *public_key, stake: 1, operator: Address::ZERO };
    let set = ValidatorSet::new(Epoch(0), keys.iter().map(member).collect()).ok()?;
    BlsScheme.committee(&set)
}

/// The vectors take infinity for a point; our doors refuse it, by its name.
fn is_point(checked: Option<Result<(), PointError>>) -> bool {
    matches!(checked, Some(Ok(()) | Err(PointError::Infinity)))
}

/// Both coordinates, each as its real and its imaginary part.
fn hash_to_curve(message: &str) -> Value {
    let point = bls::hash_to_curve(message.as_bytes(), HASH_TAG);
    let part = |at: usize| hex::encode_prefixed(&point[48 * at..48 * (at + 1)]);
    value!({"x": format!("{},{}", part(1), part(0)), "y": format!("{},{}", part(3), part(2))})
}

fn key(text: &str) -> Option<PublicKey> {
    text.parse::<FixedBytes<48>>().ok().map(PublicKey)
}

fn signature(text: &str) -> Option<Signature> {
    text.parse::<FixedBytes<96>>().ok().map(Signature)
}

fn text<'a>(input: &'a Value, name: &str) -> eyre::Result<&'a str> {
    json::text(input, name)
}

fn texts<'a>(input: &'a Value, name: &str) -> eyre::Result<Vec<&'a str>> {
    let texts: Option<_> = json::list(input, name)?.iter().map(Value::as_str).collect();
    texts.ok_or_else(|| eyre!("`{name}` is not a list of texts"))
}

fn hashes(input: &Value) -> eyre::Result<Vec<B256>> {
    let texts = texts(input, "messages")?;
    texts.into_iter().map(|text| text.parse().wrap_err("`messages` are not hashes")).collect()
}
