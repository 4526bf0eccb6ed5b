//! What is done to a folder that no node uses: on real files, killed at every point, refused where it must be.

mod compact;
mod migrate;
mod rewind;
mod verify;

use std::{path::Path, sync::Arc};

use engine::{
    ordering::journal::Entry,
    types::{Epoch, EpochStart, Slot},
};

use super::kit::{World, begin_epoch, config, next};
use crate::{
    Config, Database, OpenError,
    failpoint::{Action, FailPoints},
    kv::{Env, Row, Table},
    offline,
    tables::{CHAIN_META, CHAIN_TABLES, SCHEMA, meta},
};

fn settings(dir: &Path) -> Config {
    Config { segment_bytes: 8_192, ..config(dir) }
}

fn open(dir: &Path, world: &World) -> Database {
    Database::open(settings(dir), Arc::clone(&world.chain)).unwrap()
}

/// A point at which what is done stops as if the process were killed.
fn killed_at(point: &str) -> FailPoints {
    FailPoints::parse(Some(point), Action::Fail).unwrap()
}

/// Blocks in several segments, checkpoints, epochs, wipes, code and a log, closed in order.
fn made(dir: &Path, seed: u64, height: u64) -> World {
    let mut world = World::new(seed);
    let store = open(dir, &world);
    let mut epoch = 0;
    while world.tip().0 < height {
        let count = 1 + world.roll(3);
        world.commit(&store, count).unwrap();
        match next(&mut world.random) % 6 {
            0 => store.checkpoint().unwrap(),
            1 => {
                epoch += 1;
                begin_epoch(&store, epoch).unwrap();
            }
            _ => {}
        }
    }
    sign_floor(&world, &store);
    store.close().unwrap();
    world
}

/// Notes in the log that the chain is at its tip.
fn sign_floor(world: &World, store: &Database) {
    let floor = Entry::Floor { epoch: Epoch(0), slot: Slot(world.tip().0) };
    store.journal().append(&[floor], &[]).unwrap();
}

fn env(dir: &Path, name: &str, tables: &'static [&'static str]) -> Env {
    Env::open(&dir.join(name), tables, 1 << 30).unwrap()
}

fn rows(env: &Env, table: Table) -> Vec<Row> {
    env.write().unwrap().rows(table, usize::MAX).unwrap()
}

#[test]
fn stats_tell_what_is_there_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = made(dir.path(), 3, 40);
    let before = contents(dir.path());
    let mut heard = Vec::new();
    let stats = offline::stats(dir.path(), &world.chain, &mut |progress| heard.push(progress)).unwrap();
    assert!(heard.last().is_some_and(|last| last.done == last.all && last.what == "segments"), "{heard:?}");
    assert!(contents(dir.path()) == before);
    let tip = world.tip().0;
    assert_eq!((stats.tip, stats.applied, stats.indexed, stats.blocks), (tip, tip, tip, (1, tip)));
    assert_eq!((stats.schema, stats.chain_id, stats.chain_digest), (SCHEMA, 1_337, world.chain.digest()));
    assert_eq!(stats.segments.iter().map(|segment| segment.blocks).sum::<u64>(), tip);
    assert!(stats.segments.len() > 2 && stats.log.iter().any(|file| file.name == "00000000.log"));
    for (number, segment) in stats.segments.iter().enumerate() {
        let is_last = number + 1 == stats.segments.len();
        assert_eq!((segment.number as usize, segment.index_bytes.is_none()), (number, is_last));
        assert_eq!(segment.changes_bytes.is_none(), is_last);
        assert!(segment.used_bytes <= segment.bytes && segment.used_bytes > 4_096);
    }
    let tables: Vec<_> = stats.environments.iter().flat_map(|env| &env.size.tables).collect();
    let rows = |name: &str| tables.iter().find(|table| table.name == name).unwrap().rows;
    assert_eq!((rows("canonical"), rows("header"), rows("height_by_hash")), (tip + 1, tip + 1, 2 * (tip + 1)));
    assert_eq!(rows("account"), world.states.last().unwrap().len() as u64);
    assert!(stats.free_bytes > 0 && stats.bytes > stats.segments.iter().map(|segment| segment.bytes).sum());
    // A store that was killed tells where its chain ends as well.
    let mut world = world;
    let store = open(dir.path(), &world);
    world.commit(&store, 3).unwrap();
    crate::testing::crash(store);
    let stats = offline::stats(dir.path(), &world.chain, &mut |_| {}).unwrap();
    assert_eq!((stats.tip, stats.applied), (tip + 3, tip));
}

/// Every file but those of MDBX, which notes who opens it, with its bytes.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(contents(&entry));
        } else if entry.file_stem().is_none_or(|name| name != "mdbx") {
            let bytes = std::fs::read(&entry).unwrap();
            found.push((entry, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn folders_that_are_none_in_use_or_of_others_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let [empty, used] = ["empty", "used"].map(|name| home.path().join(name));
    std::fs::create_dir(&empty).unwrap();
    let world = World::new(1);
    let chain = &world.chain;
    let all = |dir: &Path, chain: &Arc<engine::genesis::ChainSpec>| {
        let quiet = &mut |_| {};
        let rewind = offline::rewind(settings(dir), Arc::clone(chain), engine::types::Height(0), quiet);
        let rewind = match rewind {
            Err(offline::RewindError::Open(error)) => Err(error),
            Err(error) => panic!("{error}"),
            Ok(_) => Ok(()),
        };
        [
            offline::stats(dir, chain, quiet).map(drop),
            offline::verify(dir, chain, quiet).map(drop),
            offline::compact(dir, chain, None, quiet).map(drop),
            offline::migrate(dir, chain, None, quiet).map(drop),
            rewind,
        ]
    };
    for dir in [home.path().join("nowhere"), empty.clone()] {
        for outcome in all(&dir, chain) {
            assert_eq!(outcome.unwrap_err(), OpenError::NoStore(dir.clone()));
        }
    }
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "nothing is made of a folder that is none");
    let store = open(&used, &world);
    for outcome in all(&used, chain) {
        assert_eq!(outcome.unwrap_err(), OpenError::Locked(used.clone()));
    }
    store.close().unwrap();
    let other = crate::testing::world::chain_with(Default::default());
    for outcome in all(&used, &other) {
        assert!(matches!(outcome.unwrap_err(), OpenError::WrongChain { .. }));
    }
    let chain_env = env(&used, "chain", CHAIN_TABLES);
    let mut txn = chain_env.write().unwrap();
    txn.put(CHAIN_META, meta::SCHEMA, &[0, 3, 0, 0]).unwrap();
    txn.commit().unwrap();
    drop(chain_env);
    for outcome in all(&used, chain) {
        assert!(matches!(outcome.unwrap_err(), OpenError::NewerSchema { found: (3, 0), .. }));
    }
}
