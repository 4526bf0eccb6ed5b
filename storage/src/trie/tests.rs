//! Roots against a second implementation, on random sequences of changes.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, proof::verify_proof};
use parking_lot::Mutex;

use super::{
    MemoryTrie,
    diff::{Scope, Sink, diff},
    fold::fold,
    node::{Branch, Kind, Link, NoSource, Origin, Root, Source, Tree, TrieError, root_hash},
    proof::prove,
    range::{Range, check, range},
    record,
    stream::{NoRecords, Records, Stream},
    update::{self, Item},
};
use crate::disk::faulty::next;

/// The root by the definition: recursive, from all pairs.
///
/// Source: Ethereum Yellow Paper, appendix D, equations 201 to 206.
fn defined_root(pairs: &BTreeMap<Vec<u8>, Vec<u8>>) -> B256 {
    fn compose(pairs: &[(Vec<u8>, &Vec<u8>)], depth: usize) -> Vec<u8> {
        let list = |items: Vec<Vec<u8>>| {
            let payload = items.concat();
            let mut out = Vec::new();
            alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
            [out, payload].concat()
        };
        let string = |bytes: &[u8]| {
            let mut out = Vec::new();
            bytes.encode(&mut out);
            out
        };
        let prefix = |nibbles: &[u8], leaf: bool| {
            let flag = if leaf { 2u8 } else { 0 };
            let mut all = if nibbles.len() % 2 == 1 { vec![flag + 1] } else { vec![flag, 0] };
            all.extend_from_slice(nibbles);
            all.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect::<Vec<u8>>()
        };
        let reference = |node: Vec<u8>| if node.len() < 32 { node } else { string(keccak256(node).as_slice()) };
        if let [(key, value)] = pairs {
            return list(vec![string(&prefix(&key[depth..], true)), string(value)]);
        }
        let first = &pairs[0].0;
        let common = (depth..first.len())
            .take_while(|at| pairs.iter().all(|(key, _)| key.get(*at) == Some(&first[*at])))
            .count();
        if common > 0 {
            let below = compose(pairs, depth + common);
            return list(vec![string(&prefix(&first[depth..depth + common], false)), reference(below)]);
        }
        let mut items = Vec::new();
        for nibble in 0..16 {
            let group: Vec<_> = pairs.iter().filter(|(key, _)| key.get(depth) == Some(&nibble)).cloned().collect();
            items.push(if group.is_empty() { vec![0x80] } else { reference(compose(&group, depth + 1)) });
        }
        let ends = pairs.iter().find(|(key, _)| key.len() == depth);
        items.push(ends.map_or_else(|| vec![0x80], |(_, value)| string(value)));
        list(items)
    }
    if pairs.is_empty() {
        return EMPTY_ROOT_HASH;
    }
    let nibbles: Vec<_> = pairs
        .iter()
        .map(|(key, value)| (key.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect::<Vec<u8>>(), value))
        .collect();
    keccak256(compose(&nibbles, 0))
}

fn built_root(pairs: &BTreeMap<B256, U256>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in pairs {
        builder.add_leaf(Nibbles::unpack(key), &alloy_rlp::encode(value));
    }
    if pairs.is_empty() { EMPTY_ROOT_HASH } else { builder.root() }
}

#[test]
fn keys_of_any_length_give_the_defined_root() {
    for seed in 0..400 {
        let mut random = seed;
        let mut trie = MemoryTrie::new();
        let mut model = BTreeMap::new();
        for step in 0..60 {
            let length = next(&mut random) % 4 + u64::from(step % 7 == 0) * (next(&mut random) % 40);
            let key: Vec<u8> = (0..length).map(|_| (next(&mut random) % 3 * 15) as u8).collect();
            if next(&mut random).is_multiple_of(3) {
                trie.remove(&key);
                model.remove(&key);
            } else {
                let value = vec![next(&mut random) as u8 | 1; (next(&mut random) % 40 + 1) as usize];
                trie.insert(&key, &value);
                model.insert(key.clone(), value);
            }
            assert_eq!(trie.root(), defined_root(&model), "seed {seed}, step {step}");
            assert_eq!(trie.get(&key).map(|bytes| bytes.to_vec()), model.get(&key).cloned());
        }
    }
}

#[test]
fn ethereum_examples_give_their_roots() {
    // Source: ethereum/tests, TrieTests/trieanyorder.json, "dogs" and "puppy"; trietest.json, "insert-middle-leaf".
    let root = |pairs: &[(&str, &str)]| {
        let mut trie = MemoryTrie::new();
        for (key, value) in pairs {
            trie.insert(key.as_bytes(), value.as_bytes());
        }
        trie.root().to_string()
    };
    assert_eq!(
        root(&[("doe", "reindeer"), ("dog", "puppy"), ("dogglesworth", "cat")]),
        "0x8aad789dff2f538bca5d8ea56e8abe10f4c7ba3a5dea95fea4cd6e7c3a1168d3"
    );
    assert_eq!(
        root(&[("do", "verb"), ("horse", "stallion"), ("doge", "coin"), ("dog", "puppy")]),
        "0x5991bb8c6514148a29db676a14ac506cd2cd5775ace63c30a4fe457715e9ac84"
    );
    assert_eq!(root(&[("A", &"a".repeat(50))]), "0xd23786fb4a010da3ce639d66d5e904a11dbc02746d1ce25029e53290cabf28ab");
}

/// Tables in memory, as the checkpoint writes them.
#[derive(Default)]
struct Tables {
    leaves: BTreeMap<B256, U256>,
    nodes: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Default)]
struct Stored(Arc<Mutex<Tables>>);

impl Source<B256, U256> for Stored {
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, U256>>, TrieError> {
        let tables = self.0.lock();
        let mut key = Vec::new();
        record::position_key(position, &mut key);
        if let Some(row) = tables.nodes.get(&key).filter(|_| kind != Kind::Leaf) {
            return Ok(record::decode(row));
        }
        if kind == Kind::Branch {
            return Ok(None);
        }
        let mut first = Vec::new();
        record::pack(position, &mut first);
        first.resize(32, 0);
        let found = tables.leaves.range(B256::from_slice(&first)..).next();
        Ok(found.map(|(key, value)| Link::leaf(*key, *value, Origin::Read)))
    }

    fn name(&self) -> String {
        "test".to_owned()
    }
}

impl Sink<B256, U256> for &Stored {
    fn leaf(&mut self, key: &B256, _: Option<&U256>, new: Option<&U256>) -> Result<(), TrieError> {
        let mut tables = self.0.lock();
        match new {
            Some(value) => tables.leaves.insert(*key, *value),
            None => tables.leaves.remove(key),
        };
        Ok(())
    }

    fn node(&mut self, position: &[u8], _: Option<&Branch<'_, B256, U256>>, branch: Option<&Branch<'_, B256, U256>>) {
        let mut key = Vec::new();
        record::position_key(position, &mut key);
        let mut tables = self.0.lock();
        match branch {
            Some(branch) => tables.nodes.insert(key, record::encode(branch)),
            None => tables.nodes.remove(&key),
        };
    }
}

/// Keys that share long prefixes, so that branches collapse and nodes are embedded.
fn key(random: &mut u64, spread: u64) -> B256 {
    let mut key = B256::ZERO;
    for at in [0, 1, 15, 30, 31] {
        key.0[at] = (next(random) % spread * 17) as u8;
    }
    key
}

/// Makes items of changes to a trie that has these keys, and tells of every other one that it has it.
fn item(present: &BTreeMap<B256, U256>) -> impl Fn((B256, Option<U256>)) -> Item<B256, U256> {
    |(key, value)| Item { key, value, is_there: key.0[31].is_multiple_of(2) && present.contains_key(&key) }
}

#[test]
fn random_batches_match_the_hash_builder_and_survive_storing() {
    for seed in 0..300 {
        let mut random = seed;
        let stored = Stored::default();
        let mut model: BTreeMap<B256, U256> = BTreeMap::new();
        let mut trie: Tree<B256, U256> = None;
        let mut checkpoint: Tree<B256, U256> = None;
        let spread = 2 + next(&mut random) % 14;
        for step in 0..25 {
            let mut items = BTreeMap::new();
            for _ in 0..next(&mut random) % 20 {
                let value = (next(&mut random) % 5 < 3).then(|| U256::from(next(&mut random) % 300 + 1));
                items.insert(key(&mut random, spread), value);
            }
            let before = (trie.clone(), root_hash(&trie));
            let present = model.clone();
            for (key, value) in &items {
                match value {
                    Some(value) => model.insert(*key, *value),
                    None => model.remove(key),
                };
            }
            let items: Vec<_> = items.into_iter().map(item(&present)).collect();
            trie = update::apply(&trie, &items, &stored).unwrap();
            assert_eq!(root_hash(&trie), built_root(&model), "seed {seed}, step {step}");
            // The layer below is untouched, and a layer beside it leaves no trace.
            assert_eq!(root_hash(&before.0), before.1);
            let dropped = [Item::new(key(&mut random, spread), Some(U256::from(7)))];
            drop(update::apply(&trie, &dropped, &stored).unwrap());
            if next(&mut random).is_multiple_of(3) {
                diff(&checkpoint, &trie, &stored, Scope::All, &mut &stored).unwrap();
                assert_eq!(stored.0.lock().leaves, model, "seed {seed}, step {step}");
                checkpoint.clone_from(&trie);
                match next(&mut random) % 3 {
                    0 => {
                        trie = Root::stored(root_hash(&trie));
                        checkpoint.clone_from(&trie);
                    }
                    1 => forget(&trie),
                    _ => {}
                }
            }
            for (key, value) in &model {
                assert_eq!(update::find(&trie, key, &stored).unwrap(), Some(*value), "seed {seed}");
            }
        }
        let records = stored.0.lock().nodes.len();
        diff(&checkpoint, &None, &stored, Scope::All, &mut &stored).unwrap();
        assert!(stored.0.lock().nodes.is_empty(), "seed {seed}: {records} records, some were left");
    }
}

fn forget(tree: &Tree<B256, U256>) {
    fn below(node: &Link<B256, U256>) {
        if let Some(branch) = node.as_branch() {
            branch.retain(|child| {
                below(child);
                false
            });
        }
    }
    if let Some(root) = tree {
        root.retain(|node| {
            below(node);
            false
        });
    }
}

impl Records<U256> for Stored {
    type Error = TrieError;

    fn record(&mut self, position: &[u8], branch: &Branch<'_, B256, U256>) -> Result<(), TrieError> {
        (&mut &*self).node(position, None, Some(branch));
        Ok(())
    }
}

#[test]
fn a_trie_out_of_its_leaves_in_order_has_the_same_root_and_records() {
    for seed in 0..600 {
        let mut random = seed;
        let (size, spread) = (next(&mut random) % 60, 2 + next(&mut random) % 14);
        let leaf = |random: &mut u64| (key(random, spread), U256::from(next(random) % 300 + 1));
        let model: BTreeMap<_, _> = (0..size).map(|_| leaf(&mut random)).collect();
        let items: Vec<_> = model.iter().map(|(key, value)| Item::new(*key, Some(*value))).collect();
        let (expected, mut streamed) = (Stored::default(), Stored::default());
        let trie = update::apply(&None, &items, &NoSource).unwrap();
        diff(&None, &trie, &expected, Scope::All, &mut &expected).unwrap();
        let mut stream = Stream::default();
        for (key, value) in &model {
            stream.push(*key, *value, &mut streamed).unwrap();
        }
        assert_eq!(stream.finish(&mut streamed).unwrap(), root_hash(&trie), "seed {seed}");
        assert_eq!(streamed.0.lock().nodes, expected.0.lock().nodes, "seed {seed}");
    }
}

#[test]
fn a_damaged_record_is_noticed() {
    let stored = Stored::default();
    let mut random = 1;
    let mut items: Vec<_> =
        (0..200).map(|_| Item::new(B256::from(U256::from(next(&mut random)) << 192), Some(U256::ONE))).collect();
    items.sort_unstable_by_key(|item| item.key);
    let trie = update::apply(&None, &items, &NoSource).unwrap();
    let root = root_hash(&trie);
    diff(&None, &trie, &stored, Scope::All, &mut &stored).unwrap();
    let damaged = stored.0.lock().nodes.values_mut().next_back().map(|row| *row.last_mut().unwrap() ^= 1);
    assert!(damaged.is_some());
    let trie = Root::stored(root);
    let found: Result<Vec<_>, _> = items.iter().map(|item| update::find(&trie, &item.key, &stored)).collect();
    assert!(matches!(found, Err(TrieError::Mismatch { .. })));
}

#[test]
fn proofs_of_presence_and_absence_verify() {
    for seed in 0..100 {
        let mut random = seed;
        let size = next(&mut random) % 40;
        let spread = 2 + next(&mut random) % 14;
        let model: BTreeMap<B256, U256> =
            (0..size).map(|_| (key(&mut random, spread), U256::from(next(&mut random) % 1_000 + 1))).collect();
        let items: Vec<_> = model.iter().map(|(key, value)| Item::new(*key, Some(*value))).collect();
        let trie = update::apply(&None, &items, &NoSource).unwrap();
        let root = root_hash(&trie);
        let others: Vec<_> = (0..20).map(|_| key(&mut random, spread)).collect();
        for key in model.keys().chain(&others) {
            let (value, nodes): (Option<U256>, Vec<Bytes>) = prove(&trie, key, &NoSource).unwrap();
            assert_eq!(value.as_ref(), model.get(key));
            verify_proof(root, Nibbles::unpack(key), value.map(alloy_rlp::encode), &nodes)
                .unwrap_or_else(|error| panic!("seed {seed}, key {key}: {error}"));
        }
    }
}

#[test]
fn large_batches_over_threads_match_the_hash_builder() {
    for seed in 0..4 {
        let mut random = seed;
        let mut model: BTreeMap<B256, U256> = BTreeMap::new();
        let mut trie: Tree<B256, U256> = None;
        for step in 0..6 {
            let mut items = BTreeMap::new();
            for _ in 0..4_000 {
                let key = keccak256((next(&mut random) % 6_000).to_be_bytes());
                let value = (!next(&mut random).is_multiple_of(4)).then(|| U256::from(next(&mut random) % 300 + 1));
                items.insert(key, value);
            }
            let present = model.clone();
            for (key, value) in &items {
                match value {
                    Some(value) => model.insert(*key, *value),
                    None => model.remove(key),
                };
            }
            let items: Vec<_> = items.into_iter().map(item(&present)).collect();
            trie = update::apply(&trie, &items, &NoSource).unwrap();
            assert_eq!(root_hash(&trie), built_root(&model), "seed {seed}, step {step}");
        }
        let gone: Vec<_> = model.keys().map(|key| Item::new(*key, None)).collect();
        assert!(update::apply(&trie, &gone, &NoSource).unwrap().is_none());
    }
}

#[test]
fn the_genesis_root_of_many_accounts_matches_alloy() {
    use alloy_primitives::Address;
    use engine::genesis::GenesisAccount;

    let mut random = 9;
    let alloc: BTreeMap<Address, GenesisAccount> = (0..3_000u64)
        .map(|index| {
            let slots = next(&mut random) % 5 * u64::from(index % 3 == 0) + 900 * u64::from(index == 7);
            let storage = (0..slots).map(|slot| (U256::from(slot), U256::from(next(&mut random) % 3))).collect();
            let balance = U256::from(next(&mut random));
            (
                Address::from_word(B256::from(U256::from(index))),
                GenesisAccount { balance, storage, ..Default::default() },
            )
        })
        .collect();
    let expected = alloy_trie::root::state_root_unhashed(alloc.iter().map(|(address, account)| {
        let slots = account.storage.iter().filter(|(_, value)| !value.is_zero());
        let storage_root =
            alloy_trie::root::storage_root_unhashed(slots.map(|(key, value)| (B256::from(*key), *value)));
        let account = alloy_trie::TrieAccount { balance: account.balance, storage_root, ..Default::default() };
        (*address, account)
    }));
    assert_eq!(crate::genesis::state_root(&alloc), expected);
}

#[test]
fn rows_in_memory_make_the_same_reference_as_a_stream_of_them() {
    for seed in 0..600 {
        let mut random = seed;
        let (size, spread) = (next(&mut random) % 200, 2 + next(&mut random) % 14);
        let depth = (next(&mut random) % 8) as usize;
        let mut rows = BTreeMap::new();
        for _ in 0..size {
            let mut key = key(&mut random, spread);
            // Some keys part late, so that extensions are long and leaves short enough to lie in their branch.
            let same = if next(&mut random).is_multiple_of(3) { 31 } else { 4 };
            key[..same].fill(0x77);
            rows.insert(key, U256::from(next(&mut random) % 300 + 1));
        }
        let rows: Vec<(B256, U256)> = rows.into_iter().collect();
        let mut stream = Stream::below(depth);
        let pushed = rows.iter().try_for_each(|(key, value)| stream.push(*key, *value, &mut NoRecords));
        let Ok(expected) = pushed.and_then(|()| stream.reference(&mut NoRecords));
        assert_eq!(fold(depth, &rows), expected, "seed {seed}");
    }
}

#[test]
fn ranges_prove_themselves_and_nothing_else() {
    for seed in 0..150 {
        let mut random = seed;
        let (size, spread) = (next(&mut random) % 40, 2 + next(&mut random) % 14);
        let model: BTreeMap<B256, U256> =
            (0..size).map(|_| (key(&mut random, spread), U256::from(next(&mut random) % 300 + 1))).collect();
        let items: Vec<_> = model.iter().map(|(key, value)| Item::new(*key, Some(*value))).collect();
        let trie = update::apply(&None, &items, &NoSource).unwrap();
        let root = root_hash(&trie);
        let known: Vec<B256> = model.keys().copied().collect();
        for round in 0..20_u64 {
            let from = match known.get((next(&mut random) % (size + 1)) as usize) {
                Some(known) if round.is_multiple_of(2) => *known,
                _ => key(&mut random, spread),
            };
            let most = next(&mut random) % 12 + 1;
            let mut left = most;
            let honest = range(&trie, from, &NoSource, |_, _| {
                left -= 1;
                left > 0
            })
            .unwrap();
            let expected: Vec<_> = model.range(from..).take(most as usize).map(|(key, value)| (*key, *value)).collect();
            assert_eq!(honest.rows, expected, "seed {seed}, round {round}");
            let goes_on = model.range(from..).count() > expected.len();
            assert_eq!(check(root, from, (&honest.rows, &honest.proof)), Ok(goes_on), "seed {seed}, round {round}");
            for lie in lies(&honest, &mut random, spread) {
                let judged = check(root, from, (&lie.rows, &lie.proof));
                assert!(judged.is_err(), "seed {seed}, round {round}: {lie:?} is not {honest:?}");
            }
            if !honest.rows.is_empty() {
                assert!(check(B256::repeat_byte(1), from, (&honest.rows, &honest.proof)).is_err());
            }
        }
    }
}

/// What somebody might give instead of a range.
fn lies(honest: &Range<U256>, random: &mut u64, spread: u64) -> Vec<Range<U256>> {
    let mut lies = Vec::new();
    let mut lie = |change: &mut dyn FnMut(&mut Range<U256>)| {
        let mut lie = honest.clone();
        change(&mut lie);
        if lie != *honest {
            lies.push(lie);
        }
    };
    let place = |random: &mut u64, length: usize| next(random) as usize % length.max(1);
    for _ in 0..4 {
        if !honest.rows.is_empty() {
            let at = place(random, honest.rows.len());
            // Without its last row a range is a shorter one, if the nodes on the way to its new end are there as well.
            if at + 1 < honest.rows.len() {
                lie(&mut |range| {
                    range.rows.remove(at);
                });
            }
            lie(&mut |range| range.rows[at].1 += U256::ONE);
            lie(&mut |range| range.rows[at].0.0[31] ^= 1);
            lie(&mut |range| range.rows.push(range.rows[at]));
            let other = place(random, honest.rows.len());
            lie(&mut |range| range.rows.swap(at, other));
        }
        let (extra, value) = (key(random, spread), U256::from(1_000));
        if honest.rows.iter().all(|(key, _)| *key != extra) {
            lie(&mut |range| {
                let at = range.rows.partition_point(|(key, _)| *key < extra);
                range.rows.insert(at, (extra, value));
            });
        }
        if !honest.proof.is_empty() {
            let at = place(random, honest.proof.len());
            lie(&mut |range| drop(range.proof.remove(at)));
            let byte = place(random, honest.proof[at].len());
            lie(&mut |range| {
                let mut node = range.proof[at].to_vec();
                node[byte] ^= 1 << (byte % 8);
                range.proof[at] = node.into();
            });
        }
    }
    lies
}
