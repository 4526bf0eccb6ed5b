//! Every block stays, and the state of the window; what leads back to older states goes, whatever happens meanwhile,
//! and comes back where all is to be kept.

use std::{path::Path, sync::Arc, time::Duration};

use alloy_primitives::U256;
use engine::{
    limits::STATE_WINDOW_HEIGHTS,
    ports::{StateError, Store as _, StoreError},
    types::Height,
};

use super::{
    kit::{FaultyDisk, World, address, check_kept, lowest, next, open_on},
    model::crash,
    prune::{archived, grow, least, numbers, read, through_crashes, world},
};
use crate::{Config, Database, Keep, OpenError, index::Half, offline, prune};

/// All blocks, and no more of the state than must be.
fn full(dir: &Path) -> Config {
    Config { keep: Some(Keep::Blocks { time: Duration::ZERO }), ..least(dir) }
}

fn archive(dir: &Path) -> Config {
    Config { keep: Some(Keep::All), ..least(dir) }
}

fn lowest_state(store: &Database) -> Height {
    store.inner.index.lowest(Half::Changes)
}

/// Sees that files are where they are told of, and nowhere else.
fn check_files(disk: &FaultyDisk, store: &Database) {
    let segments: Vec<u32> = store.inner.segments.all().iter().map(|segment| segment.number).collect();
    let (_, full) = segments.split_last().unwrap();
    let first = store.inner.index.first(Half::Changes);
    assert_eq!(numbers(disk, "seg"), segments);
    assert_eq!(numbers(disk, "idx"), full);
    assert_eq!(numbers(disk, "chg"), full.iter().copied().filter(|number| *number >= first).collect::<Vec<_>>());
}

/// Compares every block, and states of every part of the chain, none of which is gone.
fn check_all(world: &World, store: &Database) {
    check_kept(world, store);
    (0..=world.tip().0).step_by(7).for_each(|height| world.check_state(store, Height(height)));
}

#[test]
fn a_full_store_agrees_with_the_model_through_checkpoints_and_crashes() {
    for seed in 20..24 {
        let dir = tempfile::tempdir().unwrap();
        let (disk, store) = through_crashes(seed, &full(dir.path()));
        check_files(&disk, &store);
        assert_eq!(lowest(&store), Height::GENESIS);
        assert!(lowest_state(&store) > Height(150), "{}", lowest_state(&store));
    }
}

#[test]
fn states_go_when_they_are_older_than_is_kept_and_no_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = world(25);
    let keep = |seconds| Some(Keep::Blocks { time: Duration::from_secs(seconds) });
    let settings = Config { keep: keep(250), ..full(dir.path()) };
    let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    // A block a second.
    grow(&mut world, &store, 245);
    assert_eq!((lowest_state(&store), numbers(&disk, "chg")[0]), (Height::GENESIS, 0));
    grow(&mut world, &store, 600);
    let (tip, first) = (world.tip().0, lowest_state(&store).0);
    assert!((tip - 280..tip - 250).contains(&first), "{first} of {tip}");
    check_kept(&world, &store);
    check_files(&disk, &store);
    store.close().unwrap();
    // As far back as the window is set, whatever was there; a file that is missing is none of those that were let go.
    for (seconds, range) in [(400, tip - 430..tip - 400), (200, tip - 230..tip - 200), (250, tip - 280..tip - 250)] {
        let lost = numbers(&disk, "chg").pop().unwrap();
        disk.forget(&dir.path().join(format!("segments/{lost:08}.chg")));
        let store = open_on(&disk, Config { keep: keep(seconds), ..settings.clone() }, &world.chain).unwrap();
        assert!(range.contains(&lowest_state(&store).0), "{} of {tip}", lowest_state(&store));
        check_kept(&world, &store);
        check_files(&disk, &store);
        store.close().unwrap();
    }
}

#[test]
fn states_that_were_let_go_come_back_in_an_archive() {
    let (dir, disk, mut world) = archived(26, 300);
    let look = Config { keep: None, ..full(dir.path()) };
    let all = Keep::Window { time: Duration::from_secs(1_000_000), bytes: u64::MAX };
    let validator = Config { keep: Some(all), ..full(dir.path()) };
    for round in 0..3 {
        let store = open_on(&disk, full(dir.path()), &world.chain).unwrap();
        // What is behind the window is gone before anybody reads.
        let state = lowest_state(&store);
        assert!(state.0 + STATE_WINDOW_HEIGHTS + 40 > world.tip().0, "{state}");
        check_kept(&world, &store);
        check_files(&disk, &store);
        assert_eq!(prune::mode(&store.inner.chain_env).unwrap().as_deref(), Some("full"));
        let height = world.tip().0 + 40;
        grow(&mut world, &store, height);
        let state = lowest_state(&store);
        store.close().unwrap();
        let store = open_on(&disk, look.clone(), &world.chain).unwrap();
        assert_eq!(lowest_state(&store), state);
        store.close().unwrap();
        // The window of a validator may be as long as the chain.
        let settings = if round == 1 { &validator } else { &archive(dir.path()) };
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        check_all(&world, &store);
        check_files(&disk, &store);
        assert_eq!(numbers(&disk, "chg")[0], 0);
        store.close().unwrap();
    }
}

#[test]
fn a_full_store_becomes_a_validator_that_makes_nothing_of_what_goes() {
    let (dir, disk, mut world) = archived(27, 300);
    let store = open_on(&disk, full(dir.path()), &world.chain).unwrap();
    let state = lowest_state(&store);
    store.close().unwrap();
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    assert_eq!((lowest(&store), lowest_state(&store)), (Height::GENESIS, state));
    world.check_blocks(&store);
    world.check_state(&store, Height(world.tip().0 - STATE_WINDOW_HEIGHTS));
    let height = world.tip().0 + 100;
    grow(&mut world, &store, height);
    assert!(lowest(&store) > state);
    check_kept(&world, &store);
    let kept = lowest(&store).next();
    store.close().unwrap();
    for (settings, mode) in [(full(dir.path()), "full"), (archive(dir.path()), "archive")] {
        let error = open_on(&disk, settings, &world.chain).unwrap_err();
        assert_eq!(error, OpenError::Pruned { dir: dir.path().to_owned(), lowest: kept, mode });
        let text = error.to_string();
        assert!(text.contains(&format!("from height {kept} on")) && text.contains(mode), "{text}");
    }
    check_kept(&world, &open_on(&disk, least(dir.path()), &world.chain).unwrap());
}

#[test]
fn changes_that_go_or_come_while_a_process_dies_are_right_in_every_mode() {
    let (dir, mut disk, mut world) = archived(29, 220);
    let modes = [full(dir.path()), archive(dir.path()), Config { keep: None, ..full(dir.path()) }];
    let points = ["prune.removed", "prune.done", "index.write", "index.rename"];
    let [mut died, mut refused] = [0; 2];
    for round in 0..30_u64 {
        // By turns at a named point, and behind some number of changes of files.
        let named = format!("{}:{}", points[world.roll(4) as usize], 1 + world.roll(3));
        let fail_point = Some(named).filter(|_| round % 2 == 0);
        if fail_point.is_none() {
            disk.stop_after(world.roll(80));
        }
        let settings = &modes[[0, 0, 1, 2][world.roll(4) as usize]];
        match open_on(&disk, Config { fail_point, ..settings.clone() }, &world.chain) {
            Ok(store) => {
                died += u32::from(store.checkpoint().is_err() || store.inner.check().is_err());
                crash(store);
            }
            Err(_) => refused += 1,
        }
        disk = disk.crashed(round);
        let settings = &modes[(round / 3 % 3) as usize];
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        check_kept(&world, &store);
        if settings.keep.is_some() {
            check_files(&disk, &store);
        }
        if settings.keep == Some(Keep::All) {
            (0..world.tip().0).step_by(19).for_each(|height| world.check_state(&store, Height(height)));
        }
        // Whoever opens it next writes the checkpoint behind which changes go.
        world.commit(&store, 16).unwrap();
        crash(store);
    }
    println!("{died} died, {refused} did not open");
    assert!(died > 2 && refused > 2, "{died} died, {refused} did not open");
}

#[test]
fn who_reads_a_state_that_goes_is_refused_and_the_blocks_stay() {
    let (dir, disk, mut world) = archived(31, 400);
    let keep = Some(Keep::Blocks { time: Duration::from_secs(250) });
    let store = open_on(&disk, Config { keep, ..full(dir.path()) }, &world.chain).unwrap();
    let height = lowest_state(&store);
    assert!(height > Height(100));
    let view = store.view(height).unwrap();
    let state = &world.states[height.0 as usize];
    assert_eq!(view.account(address(0)).unwrap(), state.get(&address(0)).map(|entry| entry.0));
    let before = crate::metrics::CHANGES_PRUNED.value();
    grow(&mut world, &store, 450);
    assert!(lowest_state(&store) > height && crate::metrics::CHANGES_PRUNED.value() > before);
    for who in (0..13).map(address) {
        assert_eq!(view.account(who), Err(StateError::Unavailable(height)));
        assert_eq!(view.slot(who, U256::from(3)), Err(StateError::Unavailable(height)));
    }
    assert_eq!(view.block_hash(Height(3)), Err(StateError::Unavailable(height)));
    check_kept(&world, &store);
}

#[test]
fn readers_go_on_while_states_go() {
    let (dir, disk, mut world) = archived(37, 500);
    let keep = Some(Keep::Blocks { time: Duration::from_secs(350) });
    let mut settings = Config { background: true, keep, ..full(dir.path()) };
    settings.checkpoint.interval = Duration::from_secs(3_600);
    let store = open_on(&disk, settings, &world.chain).unwrap();
    let (known, began) = (world.clone(), lowest_state(&store));
    let is_refused = |height: Height, error: &StoreError| match error {
        StoreError::NotKept { height: at, lowest } => *at == height && *lowest > height,
        _ => false,
    };
    std::thread::scope(|scope| {
        for reader in 0..4_u64 {
            let (store, known) = (&store, &known);
            scope.spawn(move || {
                let (mut random, mut rounds) = (reader, 0);
                while rounds < 60 || lowest_state(store).0 < 300 {
                    rounds += 1;
                    let height = Height(1 + next(&mut random) % 450);
                    assert_eq!(store.block(height).unwrap().as_ref(), Some(&known.blocks[height.0 as usize]));
                    match store.view(height) {
                        Ok(view) => read(&*view, known, height),
                        Err(error) => assert!(is_refused(height, &error), "state at {height}: {error}"),
                    }
                    store.inner.check().unwrap();
                }
            });
        }
        while lowest_state(&store).0 < 300 {
            let height = world.tip().0 + 7;
            grow(&mut world, &store, height);
        }
    });
    assert!(lowest_state(&store) > began);
    store.inner.check().unwrap();
}

/// An older program knows one file, and may have put other blocks into a segment since.
#[test]
fn files_of_an_older_program_and_what_lies_beside_them_are_made_again() {
    let (dir, disk, world) = archived(33, 200);
    let paths = |kind: &str| -> Vec<_> {
        numbers(&disk, kind).iter().map(|number| dir.path().join(format!("segments/{number:08}.{kind}"))).collect()
    };
    let all: Vec<_> = paths("idx").into_iter().chain(paths("chg")).collect();
    let whole: Vec<_> = all.iter().map(|path| disk.bytes(path)).collect();
    for path in paths("idx") {
        let mut bytes = disk.bytes(&path);
        bytes[11] = 2;
        let crc = crc32c::crc32c(&bytes[..68]).to_be_bytes();
        bytes[68..72].copy_from_slice(&crc);
        disk.set_bytes(&path, bytes);
    }
    // Whole pages of other keys.
    for path in paths("chg") {
        let mut bytes = disk.bytes(&path);
        for page in bytes[4_096..].chunks_mut(4_096) {
            page[15] ^= 1;
            let crc = crc32c::crc32c(&page[..4_092]);
            page[4_092..].copy_from_slice(&crc.to_be_bytes());
        }
        disk.set_bytes(&path, bytes);
    }
    let store = open_on(&disk, archive(dir.path()), &world.chain).unwrap();
    assert!(all.iter().zip(whole).all(|(path, bytes)| disk.bytes(path) == bytes));
    check_all(&world, &store);
    drop(store);
    // Neither half passes for the other.
    for (one, other) in paths("idx").iter().zip(paths("chg")) {
        let (left, right) = (disk.bytes(one), disk.bytes(&other));
        disk.set_bytes(one, right);
        disk.set_bytes(&other, left);
    }
    let store = open_on(&disk, archive(dir.path()), &world.chain).unwrap();
    check_all(&world, &store);
}

#[test]
fn what_is_done_to_a_closed_folder_is_done_to_a_full_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(35);
    let settings = full(dir.path());
    let chain = Arc::clone(&world.chain);
    let store = Database::open(settings.clone(), Arc::clone(&chain)).unwrap();
    grow(&mut world, &store, 450);
    let first = store.inner.index.first(Half::Changes);
    assert!(first > 2);
    store.close().unwrap();
    let stats = offline::stats(dir.path(), &chain, &mut |_| {}).unwrap();
    assert_eq!((stats.mode.as_deref(), stats.pruned, stats.blocks), (Some("full"), 0, (1, world.tip().0)));
    let (_, sealed) = stats.segments.split_last().unwrap();
    for segment in sealed {
        assert_eq!((segment.index_bytes.is_some(), segment.changes_bytes.is_some()), (true, segment.number >= first));
    }
    let verified = || {
        let verified = offline::verify(dir.path(), &chain, &mut |_| {}).unwrap();
        assert_eq!((verified.bad, verified.missing_indices), (vec![], vec![]));
        assert_eq!(verified.blocks, world.tip().0);
    };
    verified();
    let lost = dir.path().join(format!("segments/{:08}.chg", first + 1));
    std::fs::remove_file(lost).unwrap();
    let verified_again = offline::verify(dir.path(), &chain, &mut |_| {}).unwrap();
    assert_eq!(verified_again.missing_indices, [first + 1]);
    offline::compact(dir.path(), &chain, None, &mut |_| {}).unwrap();
    // Below what leads back to old states: blocks say themselves what they changed.
    offline::rewind(settings.clone(), Arc::clone(&chain), Height(100), &mut |_| {}).unwrap();
    world.truncate(Height(100));
    for (keep, commits) in [(None, 0), (settings.keep, 2), (Some(Keep::All), 2)] {
        let store = Database::open(Config { keep, ..settings.clone() }, Arc::clone(&chain)).unwrap();
        check_kept(&world, &store);
        if keep.is_some() {
            check_all(&world, &store);
        }
        world.commit(&store, commits).unwrap();
        store.close().unwrap();
    }
}
