//! Proofs at every height of the window against the model, through checkpoints, crashes and damage.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use engine::{
    ports::{Store, StoreError},
    types::Height,
};

use super::{Merge, Past, Rows, file::PastFile};
use crate::{
    Config, Database,
    disk::Disk,
    failpoint::FailPoints,
    index::Files,
    place::Place,
    segment::Identity,
    tests::{
        kit::{FaultyDisk, World, address, config, next, open_on},
        model::crash,
    },
};

fn past_files(disk: &FaultyDisk) -> Vec<PathBuf> {
    disk.names().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "past")).collect()
}

fn refusal(store: &Database, height: u64) -> Option<String> {
    store.proof(Height(height), address(0), &[]).err().map(|error| error.to_string())
}

fn no_proof(height: u64, lowest: u64) -> Option<String> {
    Some(StoreError::NoProof { height: Height(height), lowest: Height(lowest) }.to_string())
}

#[test]
fn every_height_is_proven_through_checkpoints_restarts_and_crashes() {
    for seed in 0..6 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FaultyDisk::default();
        let mut world = World::new(500 + seed);
        world.wipes = false;
        let settings = Config { trie_bytes_max: if seed % 2 == 0 { 0 } else { 1 << 20 }, ..config(dir.path()) };
        let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        while world.tip() < Height(150) {
            let count = world.roll(4) + 1;
            world.commit(&store, count).unwrap();
            match world.roll(6) {
                0..=2 => store.checkpoint().unwrap(),
                3 => {
                    store.close().unwrap();
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                4 => {
                    crash(store);
                    disk = disk.crashed(world.roll(1 << 40));
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                _ => {
                    let height = world.roll(world.blocks.len() as u64);
                    world.check_proofs(&store, Height(height));
                }
            }
        }
        for height in 0..=world.tip().0 {
            world.check_proofs(&store, Height(height));
        }
        assert!(past_files(&disk).len() < 40, "small files are merged");
        assert_eq!(refusal(&store, world.tip().0 + 1), Some(StoreError::Unavailable(world.tip().next()).to_string()));
    }
}

/// Storage that an account lost takes what proves it along; nothing else is wrong then. What blocks did to it between a
/// checkpoint and its end once was told as damage, because it does not lead to what the checkpoint left.
#[test]
fn wiped_storage_is_refused_or_right() {
    (19..25).for_each(wiped);
}

fn wiped(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(seed);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    for _ in 0..25 {
        world.commit(&store, 1 + seed % 3 * 4).unwrap();
        store.checkpoint().unwrap();
    }
    let mut proven = 0;
    for height in 0..=world.tip().0 {
        let mut found = crate::testing::world::Differences::default();
        world.compare_proofs(&store, Height(height), &mut found);
        assert_eq!(found.wrong, Vec::<String>::new(), "at {height}");
        assert!(found.errors.iter().all(|error| error.contains("is not available")), "{:?}", found.errors);
        proven += u64::from(found.errors.is_empty());
    }
    assert!(proven > 0);
}

#[test]
fn the_window_ends_where_it_is_set_and_files_behind_it_are_unlinked() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(3);
    world.wipes = false;
    let settings = Config { proof_window: 40, ..config(dir.path()) };
    let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    for _ in 0..100 {
        world.commit(&store, 2).unwrap();
        store.checkpoint().unwrap();
    }
    (160..=200).for_each(|height| world.check_proofs(&store, Height(height)));
    // Of some of them the tries are in memory still.
    for height in [159, 100, 60, 0] {
        assert_eq!(refusal(&store, height), no_proof(height, 160));
    }
    assert!(past_files(&disk).len() < 40);
    store.close().unwrap();
    // Without a window nothing stays, and a window that is opened again begins there.
    let store = open_on(&disk, Config { proof_window: 0, ..settings.clone() }, &world.chain).unwrap();
    assert!(past_files(&disk).is_empty());
    world.commit(&store, 4).unwrap();
    store.close().unwrap();
    let store = open_on(&disk, settings, &world.chain).unwrap();
    world.commit(&store, 4).unwrap();
    store.checkpoint().unwrap();
    (204..=208).for_each(|height| world.check_proofs(&store, Height(height)));
    assert_eq!(refusal(&store, 203), no_proof(203, 204));
}

/// Thirty blocks with a checkpoint after every third; the file of blocks 13 to 15 with one byte changed, and opened.
fn damaged(at: impl FnOnce(usize) -> usize) -> (tempfile::TempDir, World, Database, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(4);
    world.wipes = false;
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    for _ in 0..10 {
        world.commit(&store, 3).unwrap();
        store.checkpoint().unwrap();
    }
    store.close().unwrap();
    let path = past_files(&disk)[4].clone();
    let mut bytes = disk.bytes(&path);
    let at = at(bytes.len());
    bytes[at] ^= 4;
    disk.set_bytes(&path, bytes);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    (15..=30).for_each(|height| world.check_proofs(&store, Height(height)));
    (dir, world, store, path)
}

#[test]
fn damage_costs_the_proofs_that_need_it_and_is_named() {
    for at in [16_384 + 5, 2 * 16_384 - 1] {
        let (_dir, world, store, path) = damaged(|_| at);
        let error = refusal(&store, 14).expect("the file is needed");
        assert!(error.contains(&format!("{} is damaged at byte 16384", path.display())), "{error}");
        world.check_state(&store, Height(14));
    }
    // Header, and directory at the end.
    for at in [9, 60, usize::MAX] {
        let (_dir, world, store, _) = damaged(|length| at.min(length - 1));
        assert_eq!(refusal(&store, 14), no_proof(14, 15));
        world.check_state(&store, Height(14));
    }
}

fn files(disk: &FaultyDisk, free_min: u64) -> Files {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let identity = Identity { chain_id: 1, chain_digest: [7; 32].into(), salt: 9 };
    let place = Arc::new(Place::of(&std::env::temp_dir(), (free_min, free_min), true).unwrap());
    Files { disk, dir: PathBuf::from("/past"), identity, fail: Arc::new(FailPoints::default()), place }
}

#[test]
fn without_room_the_window_begins_anew_and_what_was_there_makes_room() {
    let disk = FaultyDisk::default();
    let block = |height| Rows { rows: Vec::new(), range: Some((Height(height), Height(height))) };
    let past = Past::open(files(&disk, 0), 100, Height(0)).unwrap();
    for height in 1..=3 {
        *past.rows.lock() = block(height);
        past.seal(Height(height)).unwrap();
    }
    assert_eq!((past.lowest(Height(3)), past_files(&disk).len()), (Height(0), 3));
    let past = Past::open(files(&disk, u64::MAX), 100, Height(3)).unwrap();
    assert_eq!(past.lowest(Height(3)), Height(0));
    *past.rows.lock() = block(4);
    past.seal(Height(4)).unwrap();
    assert_eq!((past.lowest(Height(4)), past_files(&disk).len()), (Height(4), 0));
}

#[test]
fn rows_come_back_in_order_from_any_key_and_merged() {
    let disk = FaultyDisk::default();
    let files = files(&disk, 0);
    let mut random = 5;
    let mut all = BTreeMap::new();
    let mut parts = Vec::new();
    for part in 0..5_u64 {
        let mut rows = BTreeMap::new();
        for _ in 0..next(&mut random) % 3_000 {
            let length = 1 + (next(&mut random) % 40) as usize;
            let mut key: Vec<u8> = (0..length).map(|_| next(&mut random) as u8).collect();
            key.push(part as u8);
            let value = vec![next(&mut random) as u8; (next(&mut random) % 600) as usize];
            rows.insert(key, value);
        }
        let range = (Height(part * 10), Height(part * 10 + 9));
        PastFile::write(&files, range, rows.clone().into_iter().map(Ok)).unwrap();
        let file = PastFile::open(&files, range).unwrap();
        for from in rows.keys().step_by(97).cloned().chain([Vec::new(), vec![255; 50]]) {
            let found: Vec<_> = file.rows_from(&from).map(Result::unwrap).take(5).collect();
            let expected: Vec<_> =
                rows.range(from..).take(5).map(|(key, value)| (key.clone(), value.clone())).collect();
            assert_eq!(found, expected);
        }
        parts.push(Arc::new(file));
        all.append(&mut rows);
    }
    let merged: Vec<_> = Merge::new(&parts).unwrap().map(Result::unwrap).collect();
    assert_eq!(merged, all.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_bytes_of_a_file_are_pinned() {
    let disk = FaultyDisk::default();
    let files = files(&disk, 0);
    let rows = [(vec![1, 2], vec![3]), (vec![1, 2, 3], Vec::new())];
    let file = PastFile::write(&files, (Height(5), Height(6)), rows.into_iter().map(Ok)).unwrap();
    let bytes = disk.bytes(&file.path);
    assert_eq!(file.path, PathBuf::from("/past/00000000000000000005-00000000000000000006.past"));
    assert_eq!(bytes.len(), 2 * 16_384 + 3);
    assert_eq!(alloy_primitives::hex::encode(&bytes[16_384..16_400]), "0200010102030300000102030000000000"[..32]);
    assert_eq!(&bytes[2 * 16_384..], [2, 1, 2]);
    // One that was written under an older minor schema is read, under a newer one not.
    for (minor, is_read) in [(2, true), (9, false)] {
        let mut other = bytes.clone();
        other[11] = minor;
        let crc = crc32c::crc32c(&other[..76]).to_be_bytes();
        other[76..80].copy_from_slice(&crc);
        disk.set_bytes(&file.path, other);
        assert_eq!(PastFile::open(&files, (Height(5), Height(6))).is_ok(), is_read);
    }
    assert_eq!(crc32c::crc32c(&bytes), 3_569_837_016);
}
