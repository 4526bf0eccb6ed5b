//! The log beside a store: what it gives at the start, when it is lost, and who may see it.

use std::path::Path;

use engine::{
    ordering::journal::Entry,
    ports::Recovered,
    types::{Epoch, Height, Slot},
};

use super::kit::{FaultyDisk, World, chain, config, open_on};
use crate::{Config, Database, OpenError, log};

fn floor(slot: u64) -> Entry {
    Entry::Floor { epoch: Epoch(0), slot: Slot(slot) }
}

fn regained(slot: u64) -> Entry {
    Entry::Regained { epoch: Epoch(0), slot: Slot(slot) }
}

/// Commits blocks as a node does: the floor is durable first.
fn commit(world: &mut World, store: &Database, count: u64) {
    let journal = store.journal();
    journal.append(&[floor(world.tip().0 + count)], &[]).unwrap();
    journal.sync().unwrap();
    world.commit(store, count).unwrap();
    let Height(height) = world.tip();
    journal.forget_below(Epoch(0), Slot(height), Height(height));
}

fn log_files(disk: &FaultyDisk, dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let names = disk.names().into_iter().filter(|path| path.starts_with(log::folder_in(dir)));
    names.map(|path| (path.clone(), disk.bytes(&path))).collect()
}

#[test]
fn a_store_gives_its_log_once_and_less_what_it_holds_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(41);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    assert_eq!(store.take_recovered(), Recovered::default());
    assert!(store.take_recovered().is_lost, "whoever asks twice must not begin anew");
    commit(&mut world, &store, 2);
    let (blocks, _) = world.group(&store, 2);
    let kept: Vec<_> = world.blocks[1..].iter().map(|block| block.block.clone()).collect();
    let kept: Vec<_> = kept
        .into_iter()
        .chain(blocks.iter().map(|block| block.executed.block.clone()))
        .map(|block| {
            let signed = engine::types::SignedHeader { header: block.consensus.clone(), signature: Default::default() };
            engine::ordering::journal::KeptBlock { signed, block: Some(block) }
        })
        .collect();
    let journal = store.journal();
    journal.append(&[floor(3)], &kept).unwrap();
    journal.sync().unwrap();
    store.close().unwrap();
    assert!(matches!(open_on(&disk, config(dir.path()), &world.chain), Err(OpenError::Locked(_))), "the port locks");
    drop(journal);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    let Recovered { entries, blocks, is_lost } = store.take_recovered();
    assert_eq!((entries, blocks, is_lost), (vec![floor(2), floor(3)], kept[2..].to_vec(), false));
}

#[test]
fn a_log_that_is_gone_or_older_than_the_chain_is_lost_until_something_is_regained() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(42);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    commit(&mut world, &store, 2);
    store.close().unwrap();
    let old = log_files(&disk, dir.path());
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    assert!(!store.take_recovered().is_lost);
    commit(&mut world, &store, 1);
    store.close().unwrap();
    assert!(!open_on(&disk, config(dir.path()), &world.chain).unwrap().take_recovered().is_lost);
    let found = |disk: &FaultyDisk| {
        let store = open_on(disk, config(dir.path()), &world.chain).unwrap();
        let recovered = store.take_recovered();
        (store.journal(), recovered)
    };
    for is_gone in [true, false] {
        let disk = disk.fork();
        for (path, bytes) in &old {
            if is_gone { disk.forget(path) } else { disk.set_bytes(path, bytes.clone()) }
        }
        let (journal, recovered) = found(&disk);
        let known = if is_gone { vec![] } else { vec![floor(2)] };
        assert_eq!((recovered.entries, recovered.is_lost), (known, true), "gone {is_gone}");
        // A floor that comes up to the chain does not tell what was signed above it.
        journal.append(&[floor(3)], &[]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let (journal, recovered) = found(&disk);
        assert_eq!((recovered.entries.last(), recovered.is_lost), (Some(&floor(3)), true), "gone {is_gone}");
        journal.append(&[regained(40)], &[]).unwrap();
        drop(journal);
        // Not synced: it counts if it is there.
        let lost: Vec<bool> = (0..8)
            .map(|seed| {
                let (_, recovered) = found(&disk.crashed(seed));
                assert_eq!(recovered.is_lost, !recovered.entries.contains(&regained(40)), "gone {is_gone}");
                recovered.is_lost
            })
            .collect();
        assert!(lost.contains(&true) && lost.contains(&false));
        // Without a power cut it is found, and durable from then on.
        assert!(!found(&disk).1.is_lost);
        assert!((0..8).all(|seed| !found(&disk.crashed(seed)).1.is_lost));
    }
}

#[test]
fn a_folder_of_a_chain_whose_log_was_never_made_is_lost_once_it_has_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(43);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 2).unwrap();
    store.close().unwrap();
    assert!(open_on(&disk, config(dir.path()), &world.chain).unwrap().take_recovered().is_lost);
}

#[test]
fn a_start_stopped_before_the_folder_knows_of_its_log_finds_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let chain = chain();
    let stopped = Config { fail_point: Some("log.open.made".to_owned()), ..config(dir.path()) };
    open_on(&disk, stopped, &chain).unwrap_err();
    let store = open_on(&disk.crashed(1), config(dir.path()), &chain).unwrap();
    assert_eq!(store.take_recovered(), Recovered::default());
}

#[test]
fn sizes_of_the_log_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for log_bytes in [0, 8_191, (1 << 30) + 1] {
        let settings = Config { log_bytes, ..config(dir.path()) };
        assert!(matches!(open_on(&FaultyDisk::default(), settings, &chain()), Err(OpenError::Config(_))));
    }
}
