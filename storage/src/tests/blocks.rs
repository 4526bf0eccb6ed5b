//! Blocks, transaction positions and proofs, in memory and read back.

use std::sync::Arc;

use alloy_primitives::{B256, keccak256};
use engine::{
    ports::{Store, StoreError},
    types::{Epoch, EpochStart, Height, Signature, SignedHeader, StateChanges, TrieHandle},
};

use super::kit::{FaultyDisk, World, address, block_after, config, open_on, transaction};
use crate::{Config, Database, trie::range::rows};

#[test]
fn blocks_in_many_small_segments_read_back_after_every_damage_to_the_indices() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(11);
    let mut settings = config(dir.path());
    settings.segment_bytes = 8_192;
    let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    while world.tip() < Height(300) {
        world.commit(&store, 3).unwrap();
    }
    world.check_blocks(&store);
    store.close().unwrap();
    let indices: Vec<_> = disk
        .names()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "idx" || kind == "chg"))
        .collect();
    assert!(indices.len() > 10, "{} indices", indices.len());
    let reopened = |disk: &FaultyDisk| {
        let store = open_on(disk, settings.clone(), &world.chain).unwrap();
        world.check_blocks(&store);
        store.close().unwrap();
        for path in &indices {
            assert_eq!(disk.bytes(path).len() % 4_096, 0, "{} is whole again", path.display());
        }
    };
    reopened(&disk);
    let damaged = |change: &dyn Fn(&FaultyDisk, &std::path::Path)| {
        let fork = disk.fork();
        indices.iter().for_each(|path| change(&fork, path));
        reopened(&fork);
        reopened(&fork);
    };
    damaged(&|disk, path| disk.forget(path));
    damaged(&|disk, path| disk.set_bytes(path, Vec::new()));
    damaged(&|disk, path| disk.set_bytes(path, disk.bytes(path)[..disk.bytes(path).len() - 1].to_vec()));
    for at in [0, 20, 45, 50, 62, 4_100, 8_150, 8_187, 8_191] {
        damaged(&|disk, path| {
            let mut bytes = disk.bytes(path);
            let at = at % bytes.len();
            bytes[at] ^= 4;
            disk.set_bytes(path, bytes);
        });
    }
}

#[test]
fn how_an_epoch_began_survives_a_crash_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(12);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 2).unwrap();
    let base = &world.blocks[2].block.consensus;
    let start = EpochStart {
        set: world.chain.validator_set().unwrap().in_epoch(Epoch(1)),
        base: base.id(),
        handover: engine::testing::finality(base).certificate,
        tail: vec![SignedHeader { header: base.clone(), signature: Signature::default() }; 2],
    };
    assert_eq!(store.epoch(Epoch(1)).unwrap(), None);
    store.begin_epoch(&start).unwrap();
    store.stop_threads();
    drop(store);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    assert_eq!(store.tail_header(base.id()).unwrap(), start.tail.first().cloned());
    assert_eq!(store.tail_header(B256::repeat_byte(1)).unwrap(), None);
    assert_eq!(store.epoch(Epoch(1)).unwrap(), Some(start));
    assert_eq!(store.epoch(Epoch(2)).unwrap(), None);
}

#[test]
fn no_damaged_byte_of_an_old_block_is_ever_served() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(20);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 3).unwrap();
    store.close().unwrap();
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    let position = store.inner.blocks.position(Height(2)).unwrap().unwrap();
    let path = dir.path().join("segments/00000000.seg");
    let whole = disk.bytes(&path);
    for at in position.offset as usize..position.offset as usize + position.length as usize {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.set_bytes(&path, bytes);
        assert!(matches!(store.block(Height(2)), Err(StoreError::Corrupt(_))), "byte {at}");
    }
    disk.set_bytes(&path, whole);
    assert_eq!(store.block(Height(2)).unwrap().as_ref(), Some(&world.blocks[2]));
}

#[test]
fn a_block_larger_than_a_segment_gets_a_segment_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let world = World::new(12);
    let settings = Config { segment_bytes: 8_192, ..config(dir.path()) };
    let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    for round in 0..6u64 {
        let count = if round % 2 == 0 { 400 } else { 3 };
        let transactions: Vec<_> = (0..count).map(|index| transaction(round * 1_000 + index)).collect();
        let block = block_after(&store, &store.tip(), None, StateChanges::default(), transactions.clone());
        store.commit(&[block]).unwrap();
        if round == 3 {
            super::model::crash(store);
            store = open_on(&disk.crashed(round), settings.clone(), &world.chain).unwrap();
        }
        let found = store.transaction_position(transactions.last().unwrap().hash()).unwrap();
        assert_eq!(found, Some((Height(round + 1), transactions.len() - 1)));
    }
}

#[test]
fn indices_of_many_pages_find_every_hash() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(13);
    let settings = Config { segment_bytes: 1 << 20, ..config(dir.path()) };
    let store = Database::open(settings, Arc::clone(&world.chain)).unwrap();
    let mut all = Vec::new();
    for round in 0..8u64 {
        let transactions: Vec<_> = (0..2_000).map(|index| transaction(round * 10_000 + index)).collect();
        let block = block_after(&store, &store.tip(), None, StateChanges::default(), transactions.clone());
        store.commit(&[block]).unwrap();
        all.extend(transactions.into_iter().enumerate().map(|(index, tx)| (tx.hash(), (Height(round + 1), index))));
    }
    for (hash, place) in all {
        assert_eq!(store.transaction_position(hash).unwrap(), Some(place));
        let other = keccak256(hash);
        assert_eq!(store.transaction_position(other).unwrap(), None);
    }
}

#[test]
fn blocks_out_of_order_of_another_parent_or_with_another_root_are_refused_and_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(14);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 2).unwrap();
    let (blocks, _) = world.group(&store, 3);
    let out_of_order = store.commit(&blocks[1..]).unwrap_err();
    assert!(matches!(out_of_order, StoreError::OutOfOrder { got: Height(4), tip: Height(2) }), "{out_of_order}");
    let orphan = block_after(&store, &world.blocks[1], None, StateChanges::default(), Vec::new());
    assert!(store.commit(&[orphan]).is_err());
    let mut foreign = blocks[0].clone();
    foreign.executed.trie = TrieHandle(Arc::new(7u8));
    assert!(matches!(store.commit(&[foreign]), Err(StoreError::Corrupt(_))));
    let mut other = blocks[0].clone();
    other.executed.trie = blocks[2].executed.trie.clone();
    if blocks[0].executed.block.header.state_root != blocks[2].executed.block.header.state_root {
        assert!(matches!(store.commit(&[other]), Err(StoreError::Corrupt(_))));
    }
    assert!(store.commit(&[]).unwrap().is_empty());
    world.commit(&store, 3).unwrap();
    world.check(&store);
}

#[test]
fn abandoned_layers_leave_no_trace() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = World::new(seed);
        let settings = Config { trie_bytes_max: 0, ..config(dir.path()) };
        let store = open_on(&disk, settings, &world.chain).unwrap();
        for round in 0..30 {
            // Three branches of two blocks each on the same parent; one is finalized.
            let _first = world.group(&store, 2);
            let (second, states) = world.group(&store, 2);
            let _third = world.group(&store, 2);
            world.blocks.extend(store.commit(&second).unwrap());
            world.states.extend(states);
            if round % 4 == 0 {
                store.checkpoint().unwrap();
                assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root, "seed {seed}");
            }
        }
        world.check(&store);
    }
}

#[test]
fn proofs_verify_at_kept_heights_with_an_evicted_trie() {
    for bytes in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = World::new(15);
        world.wipes = bytes == 0;
        let settings = Config { trie_bytes_max: bytes, ..config(dir.path()) };
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        world.check_proofs(&store, Height::GENESIS);
        for round in 0..40 {
            world.commit(&store, 2).unwrap();
            if round % 7 == 6 {
                store.checkpoint().unwrap();
            }
            world.check_proofs(&store, world.tip());
            if bytes > 0 {
                world.check_proofs(&store, Height(world.tip().0 / 2));
            }
        }
        store.close().unwrap();
        let store = open_on(&disk, settings, &world.chain).unwrap();
        world.check_proofs(&store, world.tip());
        assert!(matches!(store.proof(Height(world.tip().0 + 1), address(0), &[]), Err(StoreError::Unavailable(_))));
    }
}

#[test]
fn below_its_bound_a_trie_stays_in_memory_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(16);
    let settings = Config { trie_bytes_max: usize::MAX, ..config(dir.path()) };
    let store = open_on(&FaultyDisk::default(), settings, &world.chain).unwrap();
    world.commit(&store, 30).unwrap();
    let trie = store.inner.blocks.newest_trie().1;
    let before = crate::trie::evict::resident_bytes(&trie);
    store.checkpoint().unwrap();
    assert_eq!(crate::trie::evict::resident_bytes(&trie), before);
    assert!(crate::testing::trie_bytes(&store) < before, "leaves of storage are in memory");
    world.check(&store);
}

#[test]
fn eviction_keeps_to_its_bound_and_reads_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(16);
    let settings = Config { trie_bytes_max: 500, ..config(dir.path()) };
    let store = open_on(&disk, settings, &world.chain).unwrap();
    for _ in 0..20 {
        world.commit(&store, 3).unwrap();
        let trie = store.inner.blocks.newest_trie().1;
        assert!(crate::trie::evict::resident_bytes(&trie) > 500);
        store.checkpoint().unwrap();
        assert!(crate::trie::evict::resident_bytes(&trie) <= 500);
        world.check_proofs(&store, world.tip());
    }
    world.check(&store);
}

/// A block's root is computed while a checkpoint gives the storage below it an id and lets go of its nodes.
#[test]
fn who_reads_storage_that_a_checkpoint_writes_meanwhile_finds_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(17);
    let settings = Config { trie_bytes_max: 0, ..config(dir.path()) };
    let store = open_on(&FaultyDisk::default(), settings, &world.chain).unwrap();
    world.commit(&store, 20).unwrap();
    let (trie, source) = (store.inner.blocks.newest_trie().1, &store.inner.snapshots);
    let leaf = |index| trie.leaf(&keccak256(address(index)), source).unwrap();
    let storages: Vec<_> = (0..64).filter_map(|index| Some(leaf(index)?.storage)).collect();
    let begun: Vec<_> = storages.iter().filter(|storage| storage.root.is_some() && storage.id() == 0).collect();
    assert!(!begun.is_empty(), "there is storage that no checkpoint has written");
    let sources: Vec<_> = begun.iter().map(|storage| storage.rows(source)).collect();
    let read = || {
        let both = begun.iter().zip(&sources);
        both.map(|(storage, source)| rows(&storage.root, B256::ZERO, source, |_, _| true)).collect::<Vec<_>>()
    };
    let before = read();
    store.checkpoint().unwrap();
    assert_eq!(read(), before);
}
