//! Cases that the vectors leave out: deletions from tries, and RLP that is almost right.
//!
//! Everything random comes from a seed that a failure prints.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::{HashBuilder, Nibbles};
use engine::types::Transaction;
use storage::trie::MemoryTrie;

use super::rlptest::Item;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Root of a map by alloy-trie, from scratch.
fn root(map: &BTreeMap<B256, Vec<u8>>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in map {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

/// Keys with long common prefixes now and then, so that branches and extensions come and go.
fn key(random: &mut Random, universe: usize) -> B256 {
    let number = random.below(universe);
    let mut key = keccak256(number.to_be_bytes());
    if number.is_multiple_of(3) {
        let shared = [0, 1, 2, 16, 31][number % 5];
        key.0[..shared].fill(0xab);
    }
    key
}

#[test]
fn a_trie_that_shrinks_has_the_root_of_what_is_left() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let universe = [2, 8, 60, 400][random.below(4)];
        let (mut trie, mut map) = (MemoryTrie::new(), BTreeMap::new());
        for step in 0..300 {
            let key = key(&mut random, universe);
            // First it grows, then it shrinks to nothing.
            let grow = if step < 150 { 3 } else { 1 };
            if random.below(4) < grow {
                let length = 1 + random.below(70);
                let value: Vec<u8> = (0..length).map(|_| random.byte()).collect();
                trie.insert(key.as_slice(), &value);
                map.insert(key, value);
            } else {
                trie.remove(key.as_slice());
                map.remove(&key);
            }
            if step % 7 == 0 {
                assert_eq!(trie.root(), root(&map), "seed {seed}, step {step}");
            }
        }
        for key in map.keys().copied().collect::<Vec<_>>() {
            let value = map.remove(&key).unwrap();
            assert_eq!(trie.get(key.as_slice()), Some(value.into()), "seed {seed}");
            trie.remove(key.as_slice());
            assert_eq!(trie.root(), root(&map), "seed {seed}, {} left", map.len());
        }
    }
}

/// A decoder written down from the yellow paper, appendix B, without a library.
fn reference(bytes: &[u8]) -> Option<(Item, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let long = |size_of_size: usize| -> Option<(usize, &[u8])> {
        let digits = rest.get(..size_of_size)?;
        let size =
            digits.iter().try_fold(0_usize, |size, digit| size.checked_mul(256)?.checked_add(usize::from(*digit)))?;
        (digits[0] != 0 && size > 55).then_some((size, &rest[size_of_size..]))
    };
    let (size, rest, list) = match *first {
        0..=0x7f => return Some((Item::String(Bytes::copy_from_slice(&[*first])), rest)),
        0x80..=0xb7 => (usize::from(first - 0x80), rest, false),
        0xb8..=0xbf => long(usize::from(first - 0xb7)).map(|(size, rest)| (size, rest, false))?,
        0xc0..=0xf7 => (usize::from(first - 0xc0), rest, true),
        0xf8..=0xff => long(usize::from(first - 0xf7)).map(|(size, rest)| (size, rest, true))?,
    };
    let (mut payload, rest) = rest.split_at_checked(size)?;
    if !list {
        // A byte below 0x80 stands for itself.
        return (*first != 0x81 || payload[0] >= 0x80).then(|| (Item::String(Bytes::copy_from_slice(payload)), rest));
    }
    let mut items = Vec::new();
    while !payload.is_empty() {
        let (item, behind) = reference(payload)?;
        items.push(item);
        payload = behind;
    }
    Some((Item::List(items), rest))
}

fn item(random: &mut Random, depth: usize) -> Item {
    if depth == 0 || random.below(3) == 0 {
        let length = [0, 1, 2, 55, 56, 57, 255, 256, 300][random.below(9)];
        return Item::String((0..length).map(|_| random.byte()).collect::<Vec<u8>>().into());
    }
    Item::List((0..random.below(5)).map(|_| item(random, depth - 1)).collect())
}

/// Changes, drops, doubles or inserts a byte, mostly near the front where the sizes are.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    let bound = if random.below(3) == 0 { bytes.len() } else { bytes.len().min(6) };
    let at = random.below(bound.max(1));
    let byte =
        [0, 1, 0x37, 0x38, 0x7f, 0x80, 0x81, 0xb7, 0xb8, 0xbf, 0xc0, 0xf7, 0xf8, 0xff, random.byte()][random.below(15)];
    match random.below(4) {
        0 if !bytes.is_empty() => bytes[at] = byte,
        1 if !bytes.is_empty() => drop(bytes.remove(at)),
        2 if !bytes.is_empty() => bytes.truncate(at),
        _ => bytes.insert(at, byte),
    }
}

#[test]
fn rlp_that_is_almost_right_is_judged_as_the_yellow_paper_judges_it() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let original = item(&mut random, 3);
        let mut bytes = alloy_rlp::encode(&original);
        assert_eq!(Item::decode_exact(&bytes), Ok(original), "seed {seed}");
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut bytes);
        }
        let expected = reference(&bytes).filter(|(_, rest)| rest.is_empty()).map(|(item, _)| item);
        let got = Item::decode_exact(&bytes).ok();
        assert_eq!(got, expected, "seed {seed}: {}", Bytes::from(bytes));
        match got {
            Some(item) => {
                assert_eq!(alloy_rlp::encode(&item), bytes, "seed {seed}: two encodings of one value");
                valid += 1;
            }
            None => invalid += 1,
        }
    }
    assert!(valid > 1_000 && invalid > 5_000, "{valid} valid, {invalid} invalid");
}

#[test]
fn a_mutated_transaction_is_refused_or_says_exactly_what_it_was_decoded_from() {
    let originals = [
        // A legacy transaction of Ethereum's vectors (ttData/DataTestEnoughGAS).
        "f86d80018259d894095e7baea6a6c7c4c2dfeb977efac326af552d870a8e0358ac39584bc98a7c979f984b031ba048b55bfa915ac795\
         c431978d8a6a992b628d557da5ff759b307d495a36649353a01fffd310ac743f371de3b9f7f9cb56c0b28ad43601b4ab949f53faa07bd2\
         c804",
        // A blob transaction of Ethereum's vectors (test_blob_tx_attribute_opcodes).
        "03f886018080078307a120947bb1f0a573bde1a91ec8ad9f811615c27ac993920180c001e1a00100000000000000000000000000000000\
         00000000000000000000000000000001a0c2adbd4524b7747c91fbdd0cfb69802f29d97d62fc63e4d7a06d5906e31c4570a0264d0da8fd\
         2d95c292e01d223f95fc50e0d56e78c300b8ac0dfb1480f583c5a7",
    ];
    for (which, original) in originals.into_iter().enumerate() {
        let original: Bytes = original.replace(char::is_whitespace, "").parse().unwrap();
        assert!(Transaction::decode(original.clone()).is_ok());
        for seed in 0..3_000 {
            let mut bytes = original.to_vec();
            mutate(&mut Random(seed), &mut bytes);
            if let Ok(transaction) = Transaction::decode(bytes.clone().into()) {
                let again = alloy_eips::eip2718::Encodable2718::encoded_2718(transaction.envelope());
                assert_eq!(again, bytes, "transaction {which}, seed {seed}");
            }
        }
    }
}
