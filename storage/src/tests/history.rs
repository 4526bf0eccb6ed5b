//! State at every height, however old, against the model.

use alloy_primitives::U256;
use engine::{
    ports::{StateError, Store, StoreError},
    types::{Account, AccountChange, Height, SlotChange, StateChanges},
};

use super::{
    kit::{FaultyDisk, World, address, block_after, chain, config, open_on, state_of},
    model::crash,
};
use crate::{Config, Database};

fn check_all(world: &World, store: &Database) {
    for height in 0..=world.tip().0 {
        world.check_state(store, Height(height));
    }
}

#[test]
fn every_account_and_slot_at_every_height_is_what_it_was() {
    for seed in 0..6 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FaultyDisk::default();
        let mut world = World::new(300 + seed);
        let settings =
            Config { segment_bytes: 24 << 10, trie_bytes_max: 0, compress: seed % 2 == 0, ..config(dir.path()) };
        let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        while world.tip() < Height(260) {
            let count = world.roll(6) + 1;
            world.commit(&store, count).unwrap();
            match world.roll(8) {
                0 | 1 => store.checkpoint().unwrap(),
                2 => {
                    store.close().unwrap();
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                3 => {
                    crash(store);
                    disk = disk.crashed(world.roll(1 << 40));
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                _ => {
                    let height = world.roll(world.blocks.len() as u64);
                    world.check_state(&store, Height(height));
                }
            }
        }
        store.checkpoint().unwrap();
        assert!(store.inner.overlay.floor() > Height(100));
        check_all(&world, &store);
        store.close().unwrap();
        for path in
            disk.names().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "idx" || kind == "chg"))
        {
            disk.forget(&path);
        }
        let store = open_on(&disk, settings, &world.chain).unwrap();
        check_all(&world, &store);
        assert!(matches!(store.view(world.tip().next()), Err(StoreError::Unavailable(_))));
    }
}

/// Slots 1 to 5 of an account that is wiped twice and written in between, by height; genesis has 1, 2, 3, 4, 0.
const WIPED: [(u64, [u64; 5]); 14] = [
    (0, [1, 2, 3, 4, 0]),
    (2, [1, 2, 3, 4, 0]),
    (3, [1, 20, 3, 4, 0]),
    (9, [1, 20, 3, 4, 0]),
    (10, [0; 5]),
    (11, [0; 5]),
    (12, [11, 0, 0, 0, 55]),
    (13, [11, 0, 0, 0, 55]),
    (14, [0; 5]),
    (20, [12, 0, 0, 0, 0]),
    (29, [12, 0, 0, 0, 0]),
    (30, [12, 0, 33, 0, 0]),
    (100, [12, 0, 33, 0, 0]),
    (400, [12, 0, 33, 0, 0]),
];

/// Wiped three times: with storage of genesis that no block ever named, with storage that no checkpoint ever wrote,
/// and in a block that writes again.
#[test]
fn slots_below_a_wipe_are_told_by_records_alone() {
    for is_reopened in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let chain = chain();
        let who = address(3);
        let account = state_of(&chain)[&who].0;
        let mut store = open_on(&disk, config(dir.path()), &chain).unwrap();
        let commit = |store: &Database, change: Option<AccountChange>| {
            let mut changes = StateChanges::default();
            changes.accounts.extend(change.map(|change| (who, change)));
            store.commit(&[block_after(store, &store.tip(), None, changes, Vec::new())]).unwrap();
        };
        let written = |before: Option<Account>, wiped, slots: &[(u64, u64, u64)]| {
            let slot =
                |before: &u64, after: &u64| SlotChange { before: U256::from(*before), after: U256::from(*after) };
            let slots = slots.iter().map(|(key, before, after)| (U256::from(*key), slot(before, after))).collect();
            Some(AccountChange { before, after: Some(account), wiped, slots })
        };
        let gone = Some(AccountChange { before: Some(account), after: None, wiped: true, ..Default::default() });
        for height in 1..=400 {
            commit(
                &store,
                match height {
                    3 => written(Some(account), false, &[(2, 2, 20)]),
                    10 => gone.clone(),
                    12 => written(None, false, &[(1, 0, 11), (5, 0, 55)]),
                    14 => gone.clone(),
                    20 => written(None, false, &[(1, 0, 12)]),
                    30 => written(Some(account), true, &[(1, 12, 12), (3, 0, 33)]),
                    _ => None,
                },
            );
            if [9, 200, 399].contains(&height) {
                store.checkpoint().unwrap();
            }
        }
        if is_reopened {
            store.close().unwrap();
            store = open_on(&disk, config(dir.path()), &chain).unwrap();
        }
        assert!(store.inner.overlay.floor() > Height(100));
        for (height, values) in WIPED {
            let view = store.view(Height(height)).unwrap();
            for (key, value) in (1_u64..).zip(values) {
                assert_eq!(view.slot(who, U256::from(key)), Ok(U256::from(value)), "slot {key} at {height}");
            }
            let is_there = !(10..12).contains(&height) && !(14..20).contains(&height);
            assert_eq!(view.account(who).unwrap().is_some(), is_there, "at {height}");
        }
        let view = store.view(Height(9)).unwrap();
        assert_eq!(view.block_hash(Height(9)).unwrap(), Some(store.block(Height(9)).unwrap().unwrap().hash()));
        assert_eq!(view.block_hash(Height(10)), Ok(None));
        let error = view.root_after(None, &StateChanges::default()).unwrap_err();
        assert_eq!(error, StateError::Unavailable(Height(9)));
    }
}

#[test]
fn an_old_state_stays_the_same_while_blocks_pass_until_its_view_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(310);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 200).unwrap();
    store.checkpoint().unwrap();
    assert!(store.inner.overlay.floor() > Height(20));
    let view = store.view(Height(20)).unwrap();
    let (who, key) = (address(3), U256::from(7));
    let expected = (view.account(who).unwrap(), view.slot(who, key).unwrap());
    for _ in 0..20 {
        world.commit(&store, 20).unwrap();
        store.checkpoint().unwrap();
        assert_eq!((view.account(who).unwrap(), view.slot(who, key).unwrap()), expected);
    }
    for _ in 0..80 {
        world.commit(&store, 10).unwrap();
    }
    store.checkpoint().unwrap();
    // What nobody changed is read at a height that is gone by now.
    assert_eq!(view.account(address(40)), Err(StateError::Unavailable(Height(20))));
    world.check_state(&store, Height(20));
}

#[test]
fn no_damaged_byte_of_a_record_changes_an_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(311);
    let settings = Config { segment_bytes: 1 << 20, ..config(dir.path()) };
    let store = open_on(&disk, settings, &world.chain).unwrap();
    world.commit(&store, 300).unwrap();
    store.checkpoint().unwrap();
    let path = dir.path().join("segments/00000000.seg");
    let whole = disk.bytes(&path);
    // A block that changed several accounts: they are read out of its record.
    let changed = |height: usize| {
        let (before, after) = (&world.states[height - 1], &world.states[height]);
        (0..12).map(address).filter(|who| before.get(who).map(|one| one.0) != after.get(who).map(|one| one.0)).count()
    };
    let height = (2..50).find(|height| changed(*height) > 2).unwrap();
    let position = store.inner.blocks.position(Height(height as u64)).unwrap().unwrap();
    let mut refused = 0;
    for at in position.offset as usize..position.offset as usize + position.length as usize {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.set_bytes(&path, bytes);
        store.inner.records.forget();
        let view = store.view(Height(height as u64 - 1)).unwrap();
        for who in (0..12).map(address) {
            match view.account(who) {
                Ok(found) => assert_eq!(found, world.states[height - 1].get(&who).map(|entry| entry.0), "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, StateError::Corrupt(_)), "byte {at}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
