//! Random blocks against a plain model, with checkpoints, reopening and crashes between them.

use engine::{ports::{StateError, Store}, types::Height};

use super::kit::{FaultyDisk, World, config, open_on};
use crate::Database;

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
    assert!(store.view(Height(50)).is_err());
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
    let (who, key) = (super::kit::address(3), alloy_primitives::U256::from(7));
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
}

#[test]
fn a_wipe_hides_old_slots_at_once_and_keeps_them_for_older_heights() {
    use alloy_primitives::{U256, map::HashMap};
    use engine::types::{AccountChange, SlotChange, StateChanges};

    use super::kit::{address, block_after, state_of};
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
