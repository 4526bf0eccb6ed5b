//! Power cuts, torn writes, failing syncs, and a process that dies at every named point.

use std::{io::Write as _, process::Command};

use engine::{
    ports::{Store, StoreError},
    types::{Epoch, EpochStart, Height},
};

use super::{
    kit::{FaultyDisk, World, address, begin_epoch, config, open_on},
    model::crash,
};
use crate::{
    Config, Database, OpenError,
    failpoint::{EPOCH_FAIL_POINTS, FAIL_POINTS},
};

#[test]
fn a_group_torn_at_any_byte_leaves_whole_blocks_and_a_usable_store() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(21);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 2).unwrap();
    world.commit(&store, 1).unwrap();
    let path = dir.path().join("segments/00000000.seg");
    let before = disk.bytes(&path);
    let start = before.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    world.commit(&store, 2).unwrap();
    let after = disk.bytes(&path);
    let end = after.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    crash(store);

    // Every byte of the group's first block, and every seventh of its second.
    let first = start + (end - start) * 3 / 5;
    let mut tips = Vec::new();
    for cut in (start..first).chain((first..end).step_by(7)).chain([end]) {
        let torn = disk.fork();
        let mut bytes = after.clone();
        bytes[cut..].fill(0);
        torn.set_bytes(&path, bytes);
        let store = open_on(&torn, config(dir.path()), &world.chain).unwrap();
        let tip = store.tip().height();
        assert!(tip >= Height(3), "cut at {cut} lost an acknowledged block");
        assert_eq!(store.tip(), world.blocks[tip.0 as usize]);
        assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
        tips.push(tip);
        // What was cut is gone for good: another group in its place, then the same question again.
        if cut % 16 == 0 {
            let mut other = World::new(22);
            other.blocks = world.blocks[..=tip.0 as usize].to_vec();
            other.states = world.states[..=tip.0 as usize].to_vec();
            other.commit(&store, 1).unwrap();
            crash(store);
            let store = open_on(&torn.crashed(cut as u64), config(dir.path()), &world.chain).unwrap();
            assert_eq!(store.tip(), *other.blocks.last().unwrap());
            crash(store);
        } else {
            crash(store);
        }
    }
    assert!(tips.is_sorted());
    assert_eq!((tips[0], *tips.last().unwrap()), (Height(3), Height(5)));
}

#[test]
fn what_recovery_cut_off_never_comes_back_behind_a_new_block() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(25);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 1).unwrap();
    let path = dir.path().join("segments/00000000.seg");
    let start = disk.bytes(&path).iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (blocks, _) = world.group(&store, 2);
    store.commit(&blocks).unwrap();
    crash(store);
    // A sector of the first block of the group did not reach the disk; the second block is whole.
    let mut bytes = disk.bytes(&path);
    bytes[start + 30] ^= 1;
    disk.set_bytes(&path, bytes);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    assert_eq!(store.tip().height(), Height(1));
    store.commit(&blocks[..1]).unwrap();
    crash(store);
    // The same bytes again, so the second block would follow them without a gap.
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    assert_eq!(store.tip().height(), Height(2));
}

/// A process that died before its sync, or whose sync failed, leaves whole blocks in the page cache. Recovery
/// once served them as final without having synced them, and a checkpoint then built on them.
#[test]
fn what_recovery_found_only_in_the_page_cache_is_durable_before_it_is_served() {
    for sync_fails in [false, true] {
        for seed in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::default();
            let mut world = World::new(27);
            let fail_point = (!sync_fails).then(|| "segment.append.before_sync:2".to_owned());
            let store = open_on(&disk, Config { fail_point, ..config(dir.path()) }, &world.chain).unwrap();
            world.commit(&store, 1).unwrap();
            let (blocks, _) = world.group(&store, 2);
            if sync_fails {
                disk.fail_sync(1);
            }
            store.commit(&blocks).unwrap_err();
            crash(store);
            disk.works_again();
            // The same boot: everything that was written can be read.
            let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
            assert_eq!(store.tip().height(), Height(3));
            store.checkpoint().unwrap();
            crash(store);
            let store = open_on(&disk.crashed(seed), config(dir.path()), &world.chain)
                .unwrap_or_else(|error| panic!("seed {seed}, sync fails {sync_fails}: {error}"));
            assert_eq!(store.tip().height(), Height(3));
            crash(store);
        }
    }
}

#[test]
fn changes_that_lead_to_another_root_than_the_header_says_are_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(26);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    let (mut blocks, _) = world.group(&store, 1);
    let mut changes = (*blocks[0].executed.changes).clone();
    let change = changes.accounts.entry(address(1)).or_default();
    change.after = Some(engine::types::Account { nonce: 99, ..Default::default() });
    blocks[0].executed.changes = std::sync::Arc::new(changes);
    store.commit(&blocks).unwrap();
    crash(store);
    let error = open_on(&disk, config(dir.path()), &world.chain).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt(text) if text.contains("state root")), "{error}");
}

#[test]
fn a_flipped_bit_in_an_acknowledged_group_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(23);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    world.commit(&store, 1).unwrap();
    let path = dir.path().join("segments/00000000.seg");
    let end = disk.bytes(&path).iter().rposition(|byte| *byte != 0).unwrap() + 1;
    world.commit(&store, 2).unwrap();
    world.commit(&store, 1).unwrap();
    crash(store);
    for at in 4_096..end {
        let flipped = disk.fork();
        let mut bytes = disk.bytes(&path);
        bytes[at] ^= 1 << (at % 8);
        flipped.set_bytes(&path, bytes);
        let error = open_on(&flipped, config(dir.path()), &world.chain).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt(_)), "byte {at}: {error}");
    }
    // Below a checkpoint the tables notice, even when nothing follows.
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    store.close().unwrap();
    disk.set_bytes(&path, [&disk.bytes(&path)[..end], &vec![0; (64 << 10) - end][..]].concat());
    let error = open_on(&disk, config(dir.path()), &world.chain).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
}

#[test]
fn a_failed_sync_or_write_poisons_the_store_for_ever() {
    for (nth, sync) in (1..=6).flat_map(|nth| [(nth, true), (nth, false)]) {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = World::new(24);
        let settings = Config { segment_bytes: 8_192, ..config(dir.path()) };
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        world.commit(&store, 2).unwrap();
        if sync {
            disk.fail_sync(nth)
        } else {
            disk.fail_write(nth)
        }
        let error = loop {
            if let Err(error) = world.commit(&store, 2) {
                break error;
            }
        };
        let text = error.to_string();
        let reason = if sync { "Input/output error" } else { "No space left on device" };
        assert!(matches!(error, StoreError::Failed(_)), "{error}");
        assert!(text.contains(reason) && text.contains(".seg"), "{text}");
        assert_eq!(world.commit(&store, 1).unwrap_err().to_string(), text);
        assert_eq!(store.checkpoint().unwrap_err().to_string(), text);
        // Readers go on, and a new start finds every acknowledged block.
        world.check_state(&store, world.tip());
        crash(store);
        for seed in 0..4 {
            let disk = disk.crashed(seed);
            let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
            assert!(store.tip().height() >= world.tip());
            crash(store);
        }
    }
}

#[test]
fn every_fail_point_leaves_a_store_that_opens_with_every_acknowledged_block() {
    let mut passed = 0;
    for point in FAIL_POINTS.into_iter().chain(EPOCH_FAIL_POINTS) {
        for (count, seed) in [(1, 1), (1, 2), (2, 3), (3, 4), (5, 5)] {
            let dir = tempfile::tempdir().unwrap();
            let disk = FaultyDisk::default();
            let mut world = World::new(seed);
            let settings = Config { segment_bytes: 8_192, trie_bytes_max: 0, ..config(dir.path()) };
            let armed = Config { fail_point: Some(format!("{point}:{count}")), ..settings.clone() };
            let (stopped, epochs) = run_until_failure(&disk, &armed, &mut world);
            passed += u32::from(stopped);
            let disk = disk.crashed(seed * 1_000 + count);
            // The first start after the crash may be stopped as well.
            let again = ["recovery.cut", "recovery.apply"][count as usize % 2];
            let stopped_again = Config { fail_point: Some(again.to_owned()), ..settings.clone() };
            drop(open_on(&disk, stopped_again, &world.chain));
            let disk = disk.crashed(seed);
            let store = open_on(&disk, settings, &world.chain)
                .unwrap_or_else(|error| panic!("{point}:{count}, seed {seed}: {error}"));
            let tip = store.tip().height();
            assert!(tip >= world.tip(), "{point}:{count}, seed {seed}: {tip} is below {}", world.tip());
            for start in epochs {
                assert_eq!(store.epoch(start.set.epoch()).unwrap(), Some(start), "{point}:{count}, seed {seed}");
            }
            if tip == world.tip() {
                world.check(&store);
                world.commit(&store, 3).unwrap();
                store.checkpoint().unwrap();
                world.check(&store);
            } else {
                assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
            }
        }
    }
    assert!(passed >= 63, "{passed} runs were stopped");
}

/// Works until the armed point stops it; `false` if it never did. Gives the epochs that began, too.
fn run_until_failure(disk: &FaultyDisk, armed: &Config, world: &mut World) -> (bool, Vec<EpochStart>) {
    let mut epochs = Vec::new();
    for _ in 0..4 {
        let Ok(store) = open_on(disk, armed.clone(), &world.chain) else { return (true, epochs) };
        for round in 0..12 {
            let count = world.roll(4) + 1;
            let mut work = || {
                world.commit(&store, count)?;
                match round % 4 {
                    1 => epochs.push(begin_epoch(&store, 1 + epochs.len() as u64)?),
                    3 => store.checkpoint()?,
                    _ => {}
                }
                Ok::<_, StoreError>(())
            };
            if work().is_err() {
                crash(store);
                return (true, epochs);
            }
        }
        crash(store);
    }
    (false, epochs)
}

const CHILD: &str = "SLUICE_STORAGE_CRASH_CHILD";
const ROUNDS: u64 = 40;

fn child_settings(dir: &std::path::Path) -> Config {
    let mut settings = Config { segment_bytes: 16_384, ..config(dir) };
    settings.background = true;
    settings.checkpoint.interval = std::time::Duration::from_millis(3);
    settings
}

/// Not a test of its own: the process that [`a_process_aborting_at_any_point_loses_nothing`] starts.
#[test]
fn crash_child() {
    let Some(job) = std::env::var_os(CHILD) else { return };
    let job = job.into_string().unwrap();
    let (point, dir) = job.split_once('|').unwrap();
    let mut world = World::new(31);
    let settings = Config { fail_point: Some(point.to_owned()), ..child_settings(dir.as_ref()) };
    let store = Database::open(settings, world.chain.clone()).unwrap();
    for round in 0..ROUNDS {
        world.commit(&store, round % 3 + 1).unwrap();
        println!("acknowledged {}", world.tip());
        std::io::stdout().flush().unwrap();
        match round % 9 {
            2 => println!("began {}", begin_epoch(&store, 1 + round / 9).unwrap().set.epoch()),
            8 => store.checkpoint().unwrap(),
            _ => {}
        }
    }
    store.close().unwrap();
}

#[test]
fn a_process_aborting_at_any_point_loses_nothing() {
    // What the child does, done here without dying.
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(31);
    let store = Database::open(child_settings(dir.path()), world.chain.clone()).unwrap();
    for round in 0..ROUNDS {
        world.commit(&store, round % 3 + 1).unwrap();
    }
    store.close().unwrap();
    let mut aborted = 0;
    for point in FAIL_POINTS.into_iter().chain(EPOCH_FAIL_POINTS) {
        for count in [1, 4] {
            let dir = tempfile::tempdir().unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["tests::crash::crash_child", "--exact", "--nocapture", "--test-threads=1"])
                .env(CHILD, format!("{point}:{count}|{}", dir.path().display()))
                .output()
                .unwrap();
            aborted += u32::from(!output.status.success());
            let text = String::from_utf8_lossy(&output.stdout);
            let said = |word| text.lines().filter_map(move |line| line.strip_prefix(word)?.parse::<u64>().ok());
            let acknowledged = said("acknowledged ").max().unwrap_or(0);
            let store = Database::open(child_settings(dir.path()), world.chain.clone())
                .unwrap_or_else(|error| panic!("{point}:{count}: {error}"));
            let tip = store.tip().height();
            assert!(tip.0 >= acknowledged, "{point}:{count}: {tip} is below {acknowledged}");
            for epoch in said("began ").map(Epoch) {
                assert!(store.epoch(epoch).unwrap().is_some(), "{point}:{count}: epoch {epoch} is gone");
            }
            let mut kept = World::new(31);
            kept.states.clone_from(&world.states);
            kept.blocks.clone_from(&world.blocks);
            kept.truncate(tip);
            kept.check(&store);
        }
    }
    assert!(aborted >= 27, "{aborted} processes were stopped");
}
