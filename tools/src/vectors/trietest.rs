//! Trie tests: pairs of keys and values have this root, in any order if they are a map.
//!
//! The trie is storage's own. A file whose name says `secure` hashes its keys first.

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use eyre::{OptionExt, WrapErr, bail, ensure, eyre};
use serde_json::{Value, json as value};
use storage::trie::MemoryTrie;

use super::{
    case::{Case, Judged, Verdict},
    json,
};

/// Orders tried beside the given one and its reverse.
const SHUFFLES: u64 = 8;

type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Runs one case.
pub(crate) fn run(file: &str, name: &str, case: &Value) -> Vec<Case> {
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file).to_ascii_lowercase();
    let secure = file.contains("secure");
    if case.get("tests").is_some() {
        return vec![Case::judge(name, None, 0, || neighbours(case))];
    }
    vec![Case::judge(name, None, 0, || check(case, secure))]
}

/// Text, or bytes where it starts with `0x`.
fn bytes(text: &Value) -> eyre::Result<Vec<u8>> {
    let text = text.as_str().ok_or_eyre("a key or value is not a text")?;
    match text.strip_prefix("0x") {
        Some(digits) => alloy_primitives::hex::decode(digits).wrap_err_with(|| format!("{text} is not hex")),
        None => Ok(text.as_bytes().to_vec()),
    }
}

fn optional(value: &Value) -> eyre::Result<Option<Vec<u8>>> {
    if value.is_null() { Ok(None) } else { bytes(value).map(Some) }
}

/// The pairs, and whether their order matters.
fn pairs(case: &Value) -> eyre::Result<(Vec<Pair>, bool)> {
    match json::field(case, "in")? {
        Value::Array(list) => {
            let pair = |item: &Value| match item.as_array().map(Vec::as_slice) {
                Some([key, value]) => Ok((bytes(key)?, optional(value)?)),
                _ => Err(eyre!("`in` has an entry that is not a pair")),
            };
            Ok((list.iter().map(pair).collect::<eyre::Result<_>>()?, true))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| Ok((bytes(&Value::String(key.clone()))?, optional(value)?));
            Ok((map.iter().map(pair).collect::<eyre::Result<_>>()?, false))
        }
        other => bail!("`in` is {other}"),
    }
}

fn build(pairs: &[Pair], secure: bool) -> MemoryTrie {
    let mut trie = MemoryTrie::new();
    for (key, value) in pairs {
        let key = if secure { keccak256(key).to_vec() } else { key.clone() };
        match value {
            Some(value) => trie.insert(&key, value),
            None => trie.remove(&key),
        }
    }
    trie
}

fn check(case: &Value, secure: bool) -> Verdict {
    let want = value!({"root": json::hash(case, "root")?});
    let (mut pairs, ordered) = pairs(case)?;
    let trie = build(&pairs, secure);
    let root = trie.root();
    let last: BTreeMap<_, _> = pairs.iter().cloned().collect();
    for (key, value) in &last {
        let path = if secure { keccak256(key).to_vec() } else { key.clone() };
        let got = trie.get(&path).map(|value| value.to_vec());
        let value = value.clone().filter(|value| !value.is_empty());
        ensure!(got == value, "key {key:02x?} reads {got:02x?}, must read {value:02x?}");
    }
    if !ordered {
        pairs.reverse();
        ensure!(build(&pairs, secure).root() == root, "the root depends on the order: reversed it differs");
        for seed in 0..SHUFFLES {
            shuffle(&mut pairs, seed);
            ensure!(build(&pairs, secure).root() == root, "the root depends on the order: seed {seed}");
        }
    }
    Ok(Judged::equal(value!({"root": root}), want))
}

/// Fisher and Yates, driven by a hash chain so that a seed always gives the same order.
fn shuffle(pairs: &mut [Pair], seed: u64) {
    let mut word = keccak256(seed.to_be_bytes());
    for last in (1..pairs.len()).rev() {
        word = keccak256(word);
        let random = word.iter().take(6).fold(0_usize, |sum, byte| sum * 256 + usize::from(*byte));
        pairs.swap(last, random % (last + 1));
    }
}

/// `tests` lists a key, the greatest key below it and the least above it; empty for none.
///
/// The trie has no walk of its own: the keys' order is a map's, and the trie must hold exactly them.
fn neighbours(case: &Value) -> Verdict {
    let mut trie = MemoryTrie::new();
    let mut keys = BTreeMap::new();
    for key in json::list(case, "in")? {
        let key = bytes(key)?;
        trie.insert(&key, &key);
        keys.insert(key.clone(), key);
    }
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for test in json::list(case, "tests")? {
        let Some([key, previous, next]) = test.as_array().map(Vec::as_slice) else {
            bail!("`tests` has an entry that is not of three keys");
        };
        let key = bytes(key)?;
        ensure!(trie.get(&key).is_some() == keys.contains_key(&key), "the trie and its keys disagree on {key:02x?}");
        let found = |neighbour: Option<(&Vec<u8>, &Vec<u8>)>| {
            let neighbour = neighbour.map(|(key, _)| key.clone()).unwrap_or_default();
            String::from_utf8_lossy(&neighbour).into_owned()
        };
        let above = (std::ops::Bound::Excluded(key.clone()), std::ops::Bound::Unbounded);
        got.push(value!([found(keys.range(..key).next_back()), found(keys.range(above).next())]));
        want.push(value!([previous, next]));
    }
    Ok(Judged::equal(Value::Array(got), Value::Array(want)))
}
