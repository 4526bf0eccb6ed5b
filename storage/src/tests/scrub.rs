//! What the scrubber says of a whole store, and of one in which single rows were changed.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, U256, keccak256};
use engine::{
    genesis::GenesisAccount,
    ports::{Store, StoreError},
    types::Epoch,
};

use super::kit::{FaultyDisk, World, address, begin_epoch, chain_with, config, open_on};
use crate::{
    Database,
    kv::{Env, Table},
    scrub::look,
    tables::{self, AccountRow, storage_key},
};

/// So many accounts, and so many slots of the last of them, that both take several steps.
const MANY: u64 = 9_000;

fn large(dir: &std::path::Path) -> (Database, FaultyDisk) {
    let account = |index| GenesisAccount { balance: U256::from(index + 1), ..GenesisAccount::default() };
    let mut alloc: BTreeMap<_, _> = (0..MANY).map(|index| (address(index), account(index))).collect();
    let storage = (0..MANY).map(|slot| (U256::from(slot), U256::from(slot + 1))).collect();
    let code = Bytes::from_static(&[0x60, 0, 0xff]);
    alloc.insert(address(MANY), GenesisAccount { code, storage, ..account(MANY) });
    let disk = FaultyDisk::default();
    (open_on(&disk, config(dir), &chain_with(alloc)).unwrap(), disk)
}

/// Changes a row behind the store's back; the newest checkpoint shows it.
fn change(store: &Database, env: &Env, (table, key): (Table, &[u8]), with: impl FnOnce(&mut Vec<u8>)) {
    let mut txn = env.write().unwrap();
    let mut row = txn.get(table, key).unwrap().unwrap();
    with(&mut row);
    // A row that is left empty is gone.
    if row.is_empty() {
        txn.delete(table, key).unwrap();
    } else {
        txn.put(table, key, &row).unwrap();
    }
    txn.commit().unwrap();
    let applied = store.checkpointed();
    let rows = crate::snapshot::StateSnapshot::new(store.inner.state.snapshot().unwrap(), applied);
    store.inner.snapshots.replace(rows);
    store.inner.blocks.rows_written(&store.inner.chain_env, applied).unwrap();
}

fn found(store: &Database) -> Vec<(&'static str, String)> {
    store.scrub().findings.into_iter().map(|finding| (finding.table, finding.what)).collect()
}

#[test]
fn a_whole_store_has_no_findings_however_large() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _disk) = large(dir.path());
    let scrubbed = store.scrub();
    assert_eq!(scrubbed.findings, []);
    assert!(scrubbed.rows > 2 * MANY, "{} rows", scrubbed.rows);
    for seed in 0..40u64 {
        look(&store.inner, keccak256(seed.to_be_bytes()));
    }
    store.checkpoint().unwrap();
}

#[test]
fn a_store_stays_whole_for_the_scrubber_through_wipes_and_checkpoints() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = World::new(seed);
        let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
        for _ in 0..20 {
            world.commit(&store, 3).unwrap();
            if world.roll(3) == 0 {
                store.checkpoint().unwrap();
            }
            assert_eq!(found(&store), [], "seed {seed}");
        }
    }
}

#[test]
fn every_changed_row_of_the_state_is_named_and_stops_the_store() {
    let hashed = |index: u64| keccak256(address(index));
    let slot = |slot: u64| keccak256(U256::from(slot).to_be_bytes::<32>());
    let flip = |at: usize| move |row: &mut Vec<u8>| row[at] ^= 4;
    for case in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (store, _disk) = large(dir.path());
        let inner = &store.inner;
        let owner = inner.snapshots.current().account(&hashed(MANY)).unwrap().unwrap();
        let slot_key = storage_key(owner.storage_id, &slot(77));
        let code = keccak256([0x60, 0, 0xff]);
        let (table, place) = match case {
            0 => {
                change(&store, &inner.state, (tables::ACCOUNT, hashed(50).as_slice()), flip(2));
                ("account", hashed(50))
            }
            1 => {
                // Another storage id under the same root.
                change(&store, &inner.state, (tables::ACCOUNT, hashed(MANY).as_slice()), |row| {
                    let mut owner = AccountRow::decode(row).unwrap();
                    owner.storage_id += 1;
                    *row = owner.encode();
                });
                ("storage", hashed(MANY))
            }
            2 => {
                change(&store, &inner.state, (tables::STORAGE, &slot_key), flip(0));
                ("storage", slot(77))
            }
            3 => {
                change(&store, &inner.state, (tables::CODE, code.as_slice()), flip(1));
                ("code", code)
            }
            4 => {
                change(&store, &inner.state, (tables::ACCOUNT_NODE, &[0x50, 1]), flip(20));
                ("account_node", B256::with_last_byte(5))
            }
            _ => {
                let key = [&owner.storage_id.to_be_bytes()[..], &[0x50, 1]].concat();
                change(&store, &inner.state, (tables::STORAGE_NODE, &key), flip(20));
                ("storage_node", B256::with_last_byte(5))
            }
        };
        let findings = found(&store);
        assert!(findings.iter().all(|(of, _)| *of == table), "case {case}: {findings:?}");
        let named = format!("{place:x}");
        let is_named = |(_, what): &(_, String)| what.contains(&named) || table.ends_with("_node") || case == 1;
        assert!(findings.iter().any(is_named), "case {case}: {findings:?} do not name {named}");
        // Whoever looks there by chance stops the store, and says what is to be done.
        if case == 0 || case == 3 {
            look(&store.inner, place);
            let error = store.commit(&[]).unwrap_err();
            assert!(
                matches!(&error, StoreError::Corrupt(text) if text.contains(table) && text.contains("fetch")),
                "{error}"
            );
        }
    }
}

#[test]
fn every_changed_row_of_the_chain_is_told_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(51);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 300).unwrap();
    let start = begin_epoch(&store, 1).unwrap();
    let base = &world.blocks[300].block.consensus;
    store.close().unwrap();
    let height = 7u64.to_be_bytes();
    let (hash, id) = (world.blocks[7].hash(), world.blocks[7].block.consensus.id());
    let tail = base.id();
    let rows: [(Table, &'static str, &[u8]); 6] = [
        (tables::CANONICAL, "canonical", &height),
        (tables::HEADER, "header", &height),
        (tables::HEIGHT_BY_HASH, "height_by_hash", hash.as_slice()),
        (tables::HEIGHT_BY_HASH, "height_by_hash", id.as_slice()),
        (tables::EPOCH, "epoch", &1u64.to_be_bytes()),
        (tables::EPOCH, "epoch", tail.as_slice()),
    ];
    for (table, name, key) in rows {
        let length = {
            let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
            let row = store.inner.blocks.rows().get(table, key, <[u8]>::len).unwrap();
            row.unwrap()
        };
        for at in (0..length).step_by(if length > 100 { 13 } else { 3 }) {
            let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
            change(&store, &store.inner.chain_env, (table, key), |row| row[at] ^= 1);
            let findings = found(&store);
            assert!(findings.iter().any(|(of, _)| *of == name), "byte {at} of {name}: {findings:?}");
            let wrong = {
                let mut differences = world.compare(&store);
                differences.note(|| "epoch".to_owned(), store.epoch(Epoch(1)), &Some(start.clone()));
                differences.note(|| "tail".to_owned(), store.tail_header(base.id()), &Some(start.tail[0].clone()));
                differences.wrong
            };
            assert_eq!(wrong, [] as [String; 0], "byte {at} of {name}");
            change(&store, &store.inner.chain_env, (table, key), |row| row[at] ^= 1);
            assert_eq!(found(&store), []);
        }
    }
}

#[test]
fn every_row_of_a_block_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(52);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 40).unwrap();
    store.close().unwrap();
    for height in [0, 1, 7, 40] {
        let block = &world.blocks[height].block;
        let (key, hash, id) = ((height as u64).to_be_bytes(), block.hash(), block.consensus.id());
        let rows: [(Table, &'static str, &[u8]); 4] = [
            (tables::CANONICAL, "canonical", &key),
            (tables::HEADER, "header", &key),
            (tables::HEIGHT_BY_HASH, "height_by_hash", hash.as_slice()),
            (tables::HEIGHT_BY_HASH, "height_by_hash", id.as_slice()),
        ];
        for (table, name, key) in rows {
            let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
            let mut whole = Vec::new();
            change(&store, &store.inner.chain_env, (table, key), |row| std::mem::swap(row, &mut whole));
            let findings = found(&store);
            assert!(findings.iter().any(|(of, _)| *of == name), "{name} of {height}: {findings:?}");
            let mut txn = store.inner.chain_env.write().unwrap();
            txn.put(table, key, &whole).unwrap();
            txn.commit().unwrap();
        }
    }
}

/// Takes the last `count` rows off every leaf page that holds `row`, as bits of its header can;
/// the table goes on to say that it has them. Gives how many pages there were.
fn hide_rows(file: &std::path::Path, row: &[u8], count: u16) -> usize {
    const PAGE: usize = 4_096;
    const LEAF: u16 = 2;
    let mut bytes = std::fs::read(file).unwrap();
    let mut hidden = 0;
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        // Transaction u64, key size u16, flags u16, end of the list of rows u16, begin of the rows u16, number u32.
        let u16_at = |page: &[u8], at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let is_own = page[16..20] == u32::try_from(number).unwrap().to_le_bytes() && u16_at(page, 10) == LEAF;
        if is_own && page.windows(row.len()).any(|part| part == row) {
            let end = u16_at(page, 12) - 2 * count;
            page[12..14].copy_from_slice(&end.to_le_bytes());
            hidden += 1;
        }
    }
    std::fs::write(file, bytes).unwrap();
    hidden
}

#[test]
fn rows_of_epochs_that_a_damaged_page_hides_are_missed() {
    for count in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = World::new(53);
        let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
        world.commit(&store, 4).unwrap();
        let start = begin_epoch(&store, 1).unwrap();
        store.close().unwrap();
        let (tail, row) = (start.tail[0].header.id(), alloy_rlp::encode(&start.tail[0]));
        assert!(hide_rows(&dir.path().join("chain/mdbx.dat"), &row, count) > 0);
        let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
        assert_eq!(store.tail_header(tail).unwrap(), None, "the row is hidden");
        assert_eq!(store.epoch(Epoch(1)).unwrap(), (count == 1).then_some(start));
        let findings = found(&store);
        assert!(findings.iter().all(|(of, _)| *of == "epoch") && !findings.is_empty(), "{findings:?}");
        look(&store.inner, B256::ZERO);
        assert!(matches!(store.commit(&[]).unwrap_err(), StoreError::Corrupt(_)));
    }
}
