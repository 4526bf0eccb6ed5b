//! A disk with little room, or none: what is refused, what waits, and that nothing is lost by it.
//!
//! Real disks are filled in `tests/it/faults.rs`; here the floors rise above whatever room there is.

use std::{os::unix::fs::MetadataExt, path::Path};

use engine::ports::{Store, StoreError};

use super::kit::{World, config};
use crate::{Config, Database};

/// More than any disk has.
const ALL: u64 = u64::MAX;

fn settings(dir: &Path, (min, low): (u64, u64)) -> Config {
    Config { segment_bytes: 8_192, free_bytes_min: min, free_bytes_low: low, ..config(dir) }
}

fn files(dir: &Path, extension: &str) -> usize {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

#[test]
fn a_store_below_its_floor_refuses_what_writes_and_answers_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(1);
    let store = Database::open(settings(dir.path(), (0, 0)), world.chain.clone()).unwrap();
    world.commit(&store, 5).unwrap();
    store.checkpoint().unwrap();
    world.commit(&store, 3).unwrap();
    crate::testing::crash(store);
    let files_before = (files(dir.path(), "seg"), files(dir.path(), "idx"));

    let store = Database::open(settings(dir.path(), (ALL, ALL)), world.chain.clone()).unwrap();
    for _ in 0..2 {
        let refused = world.commit(&store, 2).unwrap_err();
        assert!(matches!(&refused, StoreError::Full(why) if why.contains("must stay free")), "{refused}");
        assert!(matches!(store.checkpoint(), Err(StoreError::Full(_))));
        assert_eq!(store.commit(&[]).unwrap().len(), 0, "nothing needs no room");
        world.check(&store);
    }
    assert_eq!(store.checkpointed().0, 5);
    store.close().unwrap();
    assert_eq!((files(dir.path(), "seg"), files(dir.path(), "idx")), files_before);

    let store = Database::open(settings(dir.path(), (0, 0)), world.chain.clone()).unwrap();
    world.check(&store);
    world.commit(&store, 2).unwrap();
    store.close().unwrap();
}

/// MDBX writes to the files that say who reads through a memory map, which ends the process if there is no room.
#[test]
fn a_closed_store_keeps_the_room_that_opening_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(3);
    let room = || {
        ["chain", "state"].map(|env| {
            let file = std::fs::metadata(dir.path().join(env).join("mdbx.lck")).unwrap();
            assert!(file.blocks() * 512 >= file.len(), "it has holes");
            file.len()
        })
    };
    let store = Database::open(settings(dir.path(), (0, 0)), world.chain.clone()).unwrap();
    let open = room();
    assert!(open.iter().all(|bytes| *bytes > 0));
    world.commit(&store, 3).unwrap();
    let view = store.view(store.tip().height()).unwrap();
    store.close().unwrap();
    drop(view);
    assert_eq!(room(), open);
    crate::testing::crash(Database::open(settings(dir.path(), (0, 0)), world.chain.clone()).unwrap());
    assert_eq!(room(), open);
}

#[test]
fn indices_wait_for_room_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(2);
    let open = |world: &World, floors| Database::open(settings(dir.path(), floors), world.chain.clone()).unwrap();
    let full = || files(dir.path(), "seg") - 1;
    let store = open(&world, (0, ALL));
    while full() < 4 {
        world.commit(&store, 1).unwrap();
    }
    assert_eq!(files(dir.path(), "idx"), 0, "little room, and few wait");
    world.check(&store);
    while full() < 7 {
        world.commit(&store, 1).unwrap();
    }
    assert!(full() - files(dir.path(), "idx") <= 4, "too many wait");
    world.check(&store);
    crate::testing::crash(store);
    for entry in std::fs::read_dir(dir.path().join("segments")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|found| found == "idx" || found == "chg") {
            std::fs::remove_file(entry).unwrap();
        }
    }
    // Without any room only so many indices are held in memory.
    let none = Database::open(settings(dir.path(), (ALL, ALL)), world.chain.clone()).map(drop);
    assert!(none.unwrap_err().to_string().contains("waits for room on the disk"));
    let store = open(&world, (0, ALL));
    world.check(&store);
    assert_eq!(full() - files(dir.path(), "idx"), 4);
    store.close().unwrap();
    // With room, every full segment has its file.
    let store = open(&world, (0, 0));
    assert_eq!(files(dir.path(), "idx"), full());
    world.check(&store);
    store.close().unwrap();
}
