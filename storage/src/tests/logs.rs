//! Log queries against a plain scan over the blocks of the model.

use std::{ops::RangeInclusive, path::PathBuf};

use alloy_primitives::{B256, U256};
use engine::{
    limits::LOG_LOOK_BLOCKS_MAX,
    ports::Store,
    types::{Height, LogFilter},
};

use super::{
    kit::{FaultyDisk, World, address, config, next, open_on},
    model::crash,
};
use crate::{Config, Database};

fn random_filter(random: &mut u64) -> LogFilter {
    let mut some = |range: u64| -> Vec<u64> { (0..next(random) % 3).map(|_| next(random) % range).collect() };
    let addresses = some(4).into_iter().map(address).collect();
    let positions: Vec<Vec<u64>> = (0..4).map(|_| some(4)).collect();
    let topic = |number: u64| B256::from(U256::from(number));
    let topics = positions.into_iter().map(|position| position.into_iter().map(topic).collect());
    let count = next(random) as usize % 5;
    LogFilter { addresses, topics: topics.take(count).collect() }
}

/// What the store says, over as many looks as it takes.
fn look(store: &Database, filter: &LogFilter, heights: RangeInclusive<Height>) -> Vec<Height> {
    let mut found = Vec::new();
    let mut from = *heights.start();
    loop {
        let some = store.blocks_with_logs(filter, from..=*heights.end()).unwrap();
        assert!(some.heights.len() <= LOG_LOOK_BLOCKS_MAX);
        found.extend(some.heights);
        match some.next {
            Some(next) => {
                assert!(next > from, "a look that gets nowhere");
                from = next;
            }
            None => break,
        }
    }
    assert!(found.is_sorted_by(|one, other| one < other));
    found
}

fn scan(world: &World, filter: &LogFilter, heights: &RangeInclusive<Height>) -> Vec<Height> {
    // Positions at the end that name nothing ask for more topics, which is for the reader of the log to see.
    let named = filter.topics.iter().rposition(|position| !position.is_empty()).map_or(0, |last| last + 1);
    let filter = LogFilter { topics: filter.topics[..named].to_vec(), ..filter.clone() };
    let blocks = world.blocks.iter().filter(|block| heights.contains(&block.height()));
    let fits =
        |receipts: &[engine::types::Receipt]| receipts.iter().any(|one| one.logs.iter().any(|log| filter.matches(log)));
    blocks.filter(|block| fits(&block.receipts)).map(|block| block.height()).collect()
}

fn check(world: &mut World, store: &Database, queries: usize) {
    for _ in 0..queries {
        let filter = random_filter(&mut world.random);
        let tip = world.tip().0;
        let (one, other) = (world.roll(tip + 3), world.roll(tip + 3));
        let heights = match world.roll(3) {
            0 => Height(0)..=Height(u64::MAX),
            _ => Height(one.min(other))..=Height(one.max(other)),
        };
        assert_eq!(look(store, &filter, heights.clone()), scan(world, &filter, &heights), "{filter:?} {heights:?}");
    }
    let backwards = RangeInclusive::new(Height(5), Height(3));
    assert_eq!(look(store, &LogFilter::default(), backwards), Vec::new());
}

fn index_files(disk: &FaultyDisk) -> Vec<PathBuf> {
    disk.names()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "idx" || kind == "chg"))
        .collect()
}

/// Removes, cuts or changes some of the index files.
fn damage(world: &mut World, disk: &FaultyDisk, may_be_gone: bool) {
    for path in index_files(disk) {
        let mut bytes = disk.bytes(&path);
        let at = world.roll(bytes.len() as u64) as usize;
        match world.roll(5) {
            0 if may_be_gone => {
                disk.forget(&path);
                continue;
            }
            1 if may_be_gone => bytes.truncate(at),
            2 => bytes[at] ^= 1 << (at % 8),
            3 => bytes[4_096..].fill(0),
            _ => continue,
        }
        disk.set_bytes(&path, bytes);
    }
}

#[test]
fn log_queries_agree_with_a_scan_whatever_became_of_the_indices() {
    for seed in 0..6 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut disk = FaultyDisk::default();
        let mut world = World::new(200 + seed);
        let settings = Config { segment_bytes: 16_384, compress: seed % 2 == 0, ..config(dir.path()) };
        let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        for _ in 0..40 {
            let count = world.roll(12) + 1;
            world.commit(&store, count).unwrap();
            match world.roll(6) {
                0 => store.checkpoint().unwrap(),
                1 => {
                    store.close().unwrap();
                    damage(&mut world, &disk, true);
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                2 => {
                    crash(store);
                    disk = disk.crashed(world.roll(1 << 40));
                    store = open_on(&disk, settings.clone(), &world.chain).unwrap();
                }
                // Under a store that has the files open.
                3 => damage(&mut world, &disk, false),
                _ => {}
            }
            check(&mut world, &store, 12);
        }
        assert!(index_files(&disk).len() > 5, "{} indices", index_files(&disk).len());
        check(&mut world, &store, 100);
    }
}

#[test]
fn a_look_names_so_many_blocks_and_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(210);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    while world.tip() < Height(900) {
        world.commit(&store, 60).unwrap();
    }
    let heights = Height(0)..=world.tip();
    let all = scan(&world, &LogFilter::default(), &heights);
    assert!(all.len() > LOG_LOOK_BLOCKS_MAX);
    let first = store.blocks_with_logs(&LogFilter::default(), heights).unwrap();
    assert_eq!((&*first.heights, first.next), (&all[..LOG_LOOK_BLOCKS_MAX], Some(all[LOG_LOOK_BLOCKS_MAX])));
    check(&mut world, &store, 50);
}

#[test]
fn an_index_that_cannot_be_written_answers_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(211);
    let settings = Config { segment_bytes: 16_384, ..config(dir.path()) };
    let armed = Config { fail_point: Some("index.rename".to_owned()), ..settings.clone() };
    let store = open_on(&disk, armed, &world.chain).unwrap();
    while world.commit(&store, 1).is_ok() {}
    assert_eq!(index_files(&disk), Vec::<PathBuf>::new());
    check(&mut world, &store, 50);
    world.check_blocks(&store);
    crash(store);
    let store = open_on(&disk, settings, &world.chain).unwrap();
    world.truncate(store.tip().height());
    check(&mut world, &store, 50);
    assert!(!index_files(&disk).is_empty());
}
