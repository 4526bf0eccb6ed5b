//! Random blocks against a plain model, with checkpoints, reopening and crashes between them.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use alloy_primitives::U256;
use engine::{
    ports::{StateError, Store, StoreError},
    types::{Account, AccountChange, Height, SlotChange, StateChanges},
};
use parking_lot::RwLock;

use super::kit::{FaultyDisk, World, address, block_after, config, next, open_on, state_of};
use crate::{Database, tables};

/// Ends a store as a crash would: no checkpoint, nothing flushed.
pub(crate) fn crash(store: Database) {
    store.stop_threads();
    drop(store);
}

#[test]
fn a_store_agrees_with_the_model_through_checkpoints_and_crashes() {
    for seed in 0..12 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FaultyDisk::default();
        let mut world = World::new(seed);
        let mut settings = config(dir.path());
        settings.segment_bytes = 8_192 << (seed % 4);
        settings.trie_bytes_max = if seed % 2 == 0 { 0 } else { 1 << 20 };
        settings.compress = seed % 3 == 0;
        let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        for _ in 0..60 {
            let count = world.roll(4) + 1;
            world.commit(&store, count).unwrap();
            match world.roll(10) {
                0 => store.checkpoint().unwrap(),
                1 => {
                    store.close().unwrap();
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                2 => {
                    crash(store);
                    disk = disk.crashed(world.roll(1 << 40));
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                3 => world.check(&store),
                _ => world.check_state(&store, world.tip()),
            }
        }
        world.check(&store);
    }
}

#[test]
fn every_height_of_the_window_stays_readable_and_provable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(77);
    let mut settings = config(dir.path());
    settings.trie_bytes_max = 0;
    let store = open_on(&disk, settings, &world.chain).unwrap();
    for round in 0..260 {
        world.commit(&store, 1).unwrap();
        if round % 13 == 0 {
            store.checkpoint().unwrap();
        }
        if round % 20 == 0 {
            for height in world.tip().0.saturating_sub(128)..=world.tip().0 {
                world.check_state(&store, Height(height));
            }
        }
    }
    store.checkpoint().unwrap();
    assert!(store.inner.overlay.floor() > Height(50));
    world.check_state(&store, Height(50));
    assert!(store.view(world.tip().next()).is_err());
    assert!(store.inner.overlay.keys() > 0);
}

#[test]
fn a_view_keeps_its_state_while_checkpoints_pass_until_it_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(5);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 3).unwrap();
    let view = store.view(Height(2)).unwrap();
    let (who, key) = (address(3), U256::from(7));
    let expected = (view.account(who).unwrap(), view.slot(who, key).unwrap());
    for _ in 0..40 {
        world.commit(&store, 8).unwrap();
        store.checkpoint().unwrap();
        assert_eq!((view.account(who).unwrap(), view.slot(who, key).unwrap()), expected);
    }
    for _ in 0..120 {
        world.commit(&store, 8).unwrap();
    }
    store.checkpoint().unwrap();
    world.commit(&store, 1).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(view.account(who), Err(StateError::Unavailable(Height(2))));
    world.check_state(&store, Height(2));
}

#[test]
fn readers_see_one_state_while_blocks_and_checkpoints_pass() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut settings = config(dir.path());
    settings.background = true;
    settings.checkpoint.interval = Duration::from_millis(1);
    settings.trie_bytes_max = 0;
    let world = RwLock::new(World::new(6));
    let store = open_on(&disk, settings, &world.read().chain.clone()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (store, world, done) = (&store, &world, &done);
            scope.spawn(move || read_random_heights(store, world, done, reader));
        }
        for _ in 0..300 {
            let (blocks, states) = world.write().group(&store, 1);
            let committed = store.commit(&blocks).unwrap();
            let mut world = world.write();
            world.states.extend(states);
            world.blocks.extend(committed);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.checkpointed() > Height::GENESIS);
    world.read().check(&store);
}

#[test]
fn a_block_that_is_just_being_committed_is_there_or_not_yet() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(8);
    let store = open_on(&FaultyDisk::default(), config(dir.path()), &world.chain).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for height in (1..=600).map(Height) {
                while store.header(height).unwrap().is_none() {}
                assert_eq!(store.height_of(store.header(height).unwrap().unwrap().hash()).unwrap(), Some(height));
            }
        });
        for _ in 0..600 {
            world.commit(&store, 1).unwrap();
        }
    });
}

fn read_random_heights(store: &Database, world: &RwLock<World>, done: &AtomicBool, mut random: u64) {
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) || reads < 20 {
        let tip = world.read().tip();
        let height = Height(tip.0.saturating_sub(next(&mut random) % 250));
        // The writer goes on between any two of these reads.
        let view = store.view(height).unwrap();
        let state = world.read().states[height.0 as usize].clone();
        for who in (0..13).map(address) {
            assert_eq!(view.account(who).unwrap(), state.get(&who).map(|entry| entry.0));
            for key in (0..21).map(U256::from) {
                let value = state.get(&who).and_then(|entry| entry.1.get(&key)).copied().unwrap_or_default();
                assert_eq!(view.slot(who, key).unwrap(), value, "{who} {key} at {height}");
            }
        }
        let proof = store.proof(height, address(3), &[U256::from(1)]);
        match proof {
            Ok(proof) => assert_eq!(proof.account, state.get(&address(3)).map(|entry| entry.0)),
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)) && height < tip, "{error}"),
        }
        reads += 1;
    }
}

#[test]
fn slots_that_no_checkpoint_ever_wrote_stay_readable_below_their_wipe() {
    let dir = tempfile::tempdir().unwrap();
    let chain = super::kit::chain();
    let who = address(50);
    let account = Account { nonce: 1, ..Account::default() };
    let store = open_on(&FaultyDisk::default(), config(dir.path()), &chain).unwrap();
    let commit = |change: Option<AccountChange>| {
        let mut changes = StateChanges::default();
        changes.accounts.extend(change.map(|change| (who, change)));
        store.commit(&[block_after(&store, &store.tip(), None, changes, Vec::new())]).unwrap();
    };
    let written = |after: u64| {
        let slot = SlotChange { before: U256::ZERO, after: U256::from(after) };
        let slots = [(U256::from(1), slot)].into_iter().collect();
        Some(AccountChange { before: None, after: Some(account), wiped: false, slots })
    };
    for height in 1..=260 {
        commit(match height {
            5 => written(7),
            140 => Some(AccountChange { before: Some(account), after: None, wiped: true, ..Default::default() }),
            150 => written(9),
            _ => None,
        });
    }
    for _ in 0..2 {
        store.checkpoint().unwrap();
        for (height, value) in [(135, 7), (139, 7), (140, 0), (149, 0), (150, 9), (260, 9)] {
            let view = store.view(Height(height)).unwrap();
            assert_eq!(view.slot(who, U256::from(1)).unwrap(), U256::from(value), "at {height}");
        }
        commit(None);
    }
    for _ in 0..200 {
        commit(None);
    }
    store.checkpoint().unwrap();
    assert_eq!(store.inner.overlay.keys(), 0);
    assert_eq!(store.view(store.tip().height()).unwrap().slot(who, U256::from(1)).unwrap(), U256::from(9));
}

#[test]
fn an_account_that_comes_back_unchanged_keeps_all_its_storage() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let chain = super::kit::chain();
    let who = address(3);
    let (account, slots) = state_of(&chain)[&who].clone();
    let store = open_on(&disk, config(dir.path()), &chain).unwrap();
    let commit = |change: AccountChange| {
        let mut changes = StateChanges::default();
        changes.accounts.insert(who, change);
        store.commit(&[block_after(&store, &store.tip(), None, changes, Vec::new())]).unwrap();
    };
    commit(AccountChange { before: Some(account), after: None, wiped: true, ..Default::default() });
    let again = slots.iter().map(|(key, value)| (*key, SlotChange { before: U256::ZERO, after: *value })).collect();
    commit(AccountChange { before: None, after: Some(account), wiped: false, slots: again });
    assert_eq!(store.tip().block.header.state_root, chain.genesis_header.state_root);
    store.checkpoint().unwrap();
    let slot = SlotChange { before: slots[&U256::from(1)], after: U256::from(77) };
    let slots_changed = [(U256::from(1), slot)].into_iter().collect();
    commit(AccountChange { before: Some(account), after: Some(account), wiped: false, slots: slots_changed });
    store.close().unwrap();
    let store = open_on(&disk, config(dir.path()), &chain).unwrap();
    assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
    let view = store.view(store.tip().height()).unwrap();
    for (key, value) in slots {
        let expected = if key == U256::from(1) { U256::from(77) } else { value };
        assert_eq!(view.slot(who, key).unwrap(), expected, "slot {key}");
    }
}

#[test]
fn ended_storage_is_deleted_once_no_height_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(8);
    let store = open_on(&FaultyDisk::default(), config(dir.path()), &world.chain).unwrap();
    let advance = |world: &mut World| {
        for _ in 0..60 {
            world.commit(&store, 5).unwrap();
            store.checkpoint().unwrap();
        }
    };
    let ids = |table| {
        let mut ids = BTreeSet::new();
        let visit = |key: &[u8], _: &[u8]| {
            ids.insert(key[..8].to_vec());
            ControlFlow::Continue(())
        };
        store.inner.snapshots.current().rows().scan(table, &[0], visit).unwrap();
        ids
    };
    advance(&mut world);
    assert!(!ids(tables::GARBAGE).is_empty(), "the test wipes accounts");
    world.wipes = false;
    advance(&mut world);
    assert!(ids(tables::GARBAGE).is_empty());
    // What is left belongs to accounts that exist.
    assert!(ids(tables::STORAGE).len() <= world.states.last().unwrap().len());
    world.check(&store);
}

#[test]
fn a_wipe_hides_old_slots_at_once_and_keeps_them_for_older_heights() {
    use alloy_primitives::map::HashMap;

    for checkpoints in 0..8u32 {
        let dir = tempfile::tempdir().unwrap();
        let chain = super::kit::chain();
        let genesis = state_of(&chain);
        let who = address(3);
        let account = genesis[&who].0;
        let store = open_on(&FaultyDisk::default(), config(dir.path()), &chain).unwrap();
        let commit = |change: AccountChange| {
            let mut changes = StateChanges::default();
            changes.accounts.insert(who, change);
            let block = block_after(&store, &store.tip(), None, changes, Vec::new());
            store.commit(&[block]).unwrap();
            if checkpoints >> (store.tip().height().0 - 1) & 1 == 1 {
                store.checkpoint().unwrap();
            }
        };
        let slot = |before: u64, after: u64| SlotChange { before: U256::from(before), after: U256::from(after) };
        // 1: deleted. 2: created again with slot 1 only. 3: slot 2 written as well.
        let gone = AccountChange { before: Some(account), after: None, wiped: true, ..AccountChange::default() };
        commit(gone);
        let slots: HashMap<_, _> = [(U256::from(1), slot(0, 9))].into_iter().collect();
        commit(AccountChange { before: None, after: Some(account), wiped: true, slots });
        let slots: HashMap<_, _> = [(U256::from(2), slot(0, 8))].into_iter().collect();
        commit(AccountChange { before: Some(account), after: Some(account), wiped: false, slots });

        let expected = [(0, [1, 2, 3, 4]), (1, [0, 0, 0, 0]), (2, [9, 0, 0, 0]), (3, [9, 8, 0, 0])];
        for (height, values) in expected {
            let view = store.view(Height(height)).unwrap();
            for (key, value) in (1..=4).zip(values) {
                let found = view.slot(who, U256::from(key)).unwrap();
                assert_eq!(found, U256::from(value), "slot {key} at {height}, checkpoints {checkpoints:03b}");
            }
        }
        assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
        store.checkpoint().unwrap();
        assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
    }
}
