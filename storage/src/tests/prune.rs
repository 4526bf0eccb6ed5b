//! Old blocks go whole segments at a time, whatever happens meanwhile, and who asks for them is told how low he may go.

use std::{path::Path, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, U256};
use engine::{
    genesis::ChainSpec,
    ports::{StateError, Store, StoreError},
    types::Height,
};

use super::{
    kit::{EPOCH_HEIGHTS, FaultyDisk, World, address, check_kept, config, lowest, open_on},
    model::crash,
};
use crate::{Config, Database, Keep, OpenError, failpoint::PRUNE_FAIL_POINTS, genesis, offline, prune, scrub};

/// Heights of which state must be kept whatever the settings.
const WINDOW: u64 = engine::limits::STATE_WINDOW_HEIGHTS;

/// A world whose epochs are short.
pub(super) fn world(seed: u64) -> World {
    let mut world = World::with_epochs(seed, EPOCH_HEIGHTS);
    world.wipes = seed.is_multiple_of(2);
    world
}

/// Small segments, of which no more is kept than must be.
pub(super) fn least(dir: &Path) -> Config {
    let keep = Some(Keep::Window { time: Duration::ZERO, bytes: 0 });
    Config { segment_bytes: 8_192, proof_window: 10, keep, ..config(dir) }
}

/// Commits blocks up to a height, some at a time, with a checkpoint behind each.
pub(super) fn grow(world: &mut World, store: &Database, height: u64) {
    while world.tip().0 < height {
        world.commit(store, 7).unwrap();
        store.checkpoint().unwrap();
        store.inner.check().unwrap();
    }
}

/// Numbers of the files of a kind.
pub(super) fn numbers(disk: &FaultyDisk, kind: &str) -> Vec<u32> {
    let paths = disk.names().into_iter().filter(|path| path.extension().is_some_and(|found| found == kind));
    paths.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect()
}

/// What a store that keeps as little as its settings say is after 400 blocks with checkpoints, restarts and crashes; it
/// agrees with the model throughout.
pub(super) fn through_crashes(seed: u64, settings: &Config) -> (FaultyDisk, Database) {
    println!("seed {seed}");
    let (mut world, mut disk) = (world(seed), FaultyDisk::default());
    let settings = Config { segment_bytes: 8_192 << (seed % 2), ..settings.clone() };
    let mut store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    while world.tip() < Height(400) {
        let count = world.roll(8) + 1;
        world.commit(&store, count).unwrap();
        match world.roll(12) {
            0..4 => store.checkpoint().unwrap(),
            4 => {
                store.close().unwrap();
                // Whoever only looks at it takes nothing away, and makes nothing.
                let keep = settings.keep.filter(|_| world.roll(2) == 0);
                store = open_on(&disk, Config { keep, ..settings.clone() }, &world.chain).unwrap();
            }
            5 => {
                crash(store);
                disk = disk.crashed(world.roll(1 << 40));
                store = open_on(&disk, settings.clone(), &world.chain).unwrap();
            }
            6 => check_kept(&world, &store),
            _ => world.check_state(&store, world.tip()),
        }
        store.inner.check().unwrap();
    }
    store.close().unwrap();
    let store = open_on(&disk, settings, &world.chain).unwrap();
    store.checkpoint().unwrap();
    check_kept(&world, &store);
    (disk, store)
}

#[test]
fn a_pruned_store_agrees_with_the_model_through_checkpoints_and_crashes() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (_, store) = through_crashes(seed, &least(dir.path()));
        assert!(lowest(&store) > Height(150), "{}", lowest(&store));
    }
}

#[test]
fn blocks_go_when_they_are_older_than_is_kept_and_no_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = world(1);
    let keep = Some(Keep::Window { time: Duration::from_secs(250), bytes: u64::MAX });
    let store = open_on(&disk, Config { keep, ..least(dir.path()) }, &world.chain).unwrap();
    // A block a second.
    grow(&mut world, &store, 245);
    assert_eq!((lowest(&store), numbers(&disk, "seg")[0]), (Height::GENESIS, 0));
    grow(&mut world, &store, 600);
    let (tip, first) = (world.tip().0, lowest(&store).0);
    assert!((tip - 280..tip - 250).contains(&first), "{first} of {tip}");
    let segments = store.inner.segments.all();
    assert!(segments[1].first_height.0 - 1 + 250 >= tip, "the next one is not due");
    assert_eq!(segments[0].first_height, Height(first + 1));
    assert_eq!(numbers(&disk, "seg"), segments.iter().map(|segment| segment.number).collect::<Vec<_>>());
    assert_eq!(["idx", "chg"].map(|kind| numbers(&disk, kind)[0]), [segments[0].number; 2]);
    // Their rows go with the next checkpoint.
    store.checkpoint().unwrap();
    assert_eq!(lowest(&store).0, first);
    check_kept(&world, &store);
    // Where blocks need not be asked for their hash any more, nothing is left of them but where epochs began.
    let row = |height: u64| store.inner.blocks.position(Height(height)).unwrap();
    let gone: Vec<u64> = (1..first - 255).filter(|height| row(*height).is_none()).collect();
    assert_eq!(gone.len() as u64, first - 256 - (first - 256) / EPOCH_HEIGHTS);
}

#[test]
fn blocks_go_when_segments_take_more_than_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = world(3);
    let bytes = 128 * 8_192;
    let keep = Some(Keep::Window { time: Duration::from_secs(1_000_000), bytes });
    let store = open_on(&disk, Config { keep, ..least(dir.path()) }, &world.chain).unwrap();
    let mut most = 0;
    while lowest(&store).0 < 100 {
        world.commit(&store, 3).unwrap();
        store.checkpoint().unwrap();
        most = most.max(store.inner.segments.all().iter().map(|segment| segment.size).sum::<u64>());
    }
    assert_eq!(most, bytes);
    assert!(lowest(&store).0 + WINDOW < world.tip().0);
    check_kept(&world, &store);
}

#[test]
fn what_must_stay_stays_whatever_the_settings() {
    for (proof_window, epoch_heights) in [(0, 8), (200, 8), (0, 90), (u64::MAX, 8)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut world = world(5);
        let mut chain = ChainSpec::clone(&world.chain);
        chain.ordering.epoch_slots = epoch_heights;
        world.chain = Arc::new(chain);
        world.blocks = vec![Arc::new(genesis::block(&world.chain))];
        let settings = Config { proof_window, ..least(dir.path()) };
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        grow(&mut world, &store, 400);
        let (tip, first) = (world.tip().0, lowest(&store).0);
        let epochs = (tip / epoch_heights - 2) * epoch_heights;
        let floor = tip.saturating_sub(proof_window.max(WINDOW)).min(epochs);
        assert!(first < floor.max(1), "{first} of {tip}, floor {floor}");
        assert!(first + 20 > floor, "{first} of {tip}, floor {floor}");
        // The oldest proof of the window has its header.
        world.check_proofs(&store, Height(tip.saturating_sub(proof_window)));
        // Without its tables' newest rows a store still finds everything that it replays.
        world.commit(&store, 9).unwrap();
        crash(store);
        let store = open_on(&disk.crashed(1), settings, &world.chain).unwrap();
        assert_eq!(store.tip().height(), world.tip());
        for height in world.tip().0 - WINDOW..=world.tip().0 {
            world.check_state(&store, Height(height));
        }
    }
}

#[test]
fn a_prune_that_dies_at_any_point_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FaultyDisk::default();
    let mut world = world(7);
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    grow(&mut world, &store, 250);
    crash(store);
    let only_look = Config { keep: None, ..least(dir.path()) };
    let mut finished = 0;
    for round in 0..32_u64 {
        // By turns at a named point, and behind some number of changes of files.
        let point = PRUNE_FAIL_POINTS[round as usize / 2 % PRUNE_FAIL_POINTS.len()];
        let named = round.is_multiple_of(2).then(|| format!("{point}:{}", round % 3 + 1));
        let store = open_on(&disk, only_look.clone(), &world.chain).unwrap();
        let height = world.tip().0 + 12;
        grow(&mut world, &store, height);
        let before = lowest(&store);
        store.close().unwrap();
        let store = open_on(&disk, Config { fail_point: named, ..least(dir.path()) }, &world.chain).unwrap();
        if !round.is_multiple_of(2) {
            disk.stop_after(round / 2 % 7);
        }
        prune::run(&store.inner);
        let (died, reached) = (store.inner.check().is_err(), lowest(&store));
        if died {
            assert!(store.commit(&[]).is_err(), "a store that failed takes no block");
        }
        crash(store);
        disk = disk.crashed(round);
        let store = open_on(&disk, only_look.clone(), &world.chain).unwrap();
        assert!(lowest(&store) >= reached.max(before), "round {round}");
        assert_eq!(numbers(&disk, "seg")[0], store.inner.segments.all()[0].number, "round {round}");
        for kind in ["idx", "chg"] {
            assert!(numbers(&disk, kind)[0] >= numbers(&disk, "seg")[0], "round {round}");
        }
        if round % 8 == 7 {
            check_kept(&world, &store);
        }
        finished += u32::from(died);
        crash(store);
    }
    assert!(finished >= 20, "{finished} rounds died");
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    while lowest(&store).0 + WINDOW + 20 < world.tip().0 {
        store.checkpoint().unwrap();
    }
    check_kept(&world, &store);
}

#[test]
fn segments_that_are_gone_without_a_word_are_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = world(9);
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    grow(&mut world, &store, 250);
    let kept = store.inner.segments.all()[0].number;
    crash(store);
    let path = |number: u32| dir.path().join("segments").join(format!("{number:08}.seg"));
    let fork = disk.fork();
    fork.forget(&path(kept));
    let error = open_on(&fork, least(dir.path()), &world.chain).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt(text) if text.contains("begin with height")), "{error}");
    open_on(&disk, least(dir.path()), &world.chain).unwrap();
}

#[test]
fn a_folder_that_let_go_of_blocks_is_no_archive_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = world(11);
    let archive = Config { keep: Some(Keep::All), ..least(dir.path()) };
    let (patient, none) = (Keep::Window { time: Duration::from_secs(1_000_000), bytes: u64::MAX }, None);
    let patient = Config { keep: Some(patient), ..archive.clone() };
    // As long as nothing is gone, any mode follows any other.
    for (settings, mode) in [
        (&Config { keep: none, ..archive.clone() }, None),
        (&archive, Some("archive")),
        (&patient, Some("validator")),
        (&archive, Some("archive")),
        (&Config { keep: none, ..archive.clone() }, Some("archive")),
    ] {
        let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
        let height = world.tip().0 + 60;
        grow(&mut world, &store, height);
        assert_eq!(prune::mode(&store.inner.chain_env).unwrap().as_deref(), mode);
        assert_eq!(lowest(&store), Height::GENESIS);
        world.check_blocks(&store);
        store.close().unwrap();
    }
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    let height = world.tip().0 + 20;
    grow(&mut world, &store, height);
    let kept = lowest(&store).next();
    crash(store);
    let error = open_on(&disk, archive, &world.chain).unwrap_err();
    assert_eq!(error, OpenError::Pruned { dir: dir.path().to_owned(), lowest: kept, mode: "archive" });
    assert!(error.to_string().contains(&format!("from height {kept} on")), "{error}");
    let store = open_on(&disk, patient, &world.chain).unwrap();
    check_kept(&world, &store);
}

/// The folder of an archive of so many heights, and what it holds.
pub(super) fn archived(seed: u64, height: u64) -> (tempfile::TempDir, FaultyDisk, World) {
    let (dir, disk, mut world) = (tempfile::tempdir().unwrap(), FaultyDisk::default(), world(seed));
    let archive = Config { keep: Some(Keep::All), ..least(dir.path()) };
    let store = open_on(&disk, archive, &world.chain).unwrap();
    grow(&mut world, &store, height);
    store.close().unwrap();
    (dir, disk, world)
}

#[test]
fn who_reads_what_goes_is_refused_and_never_told_anything_wrong() {
    let (dir, disk, world) = archived(13, 400);
    let store = open_on(&disk, least(dir.path()), &world.chain).unwrap();
    let view = store.view(Height(5)).unwrap();
    assert_eq!(view.account(address(0)).unwrap(), world.states[5].get(&address(0)).map(|entry| entry.0));
    let row = store.inner.blocks.position(Height(1)).unwrap().unwrap();
    let file = store.inner.segments.get(row.segment).unwrap();
    prune::run(&store.inner);
    store.inner.check().unwrap();
    assert!(lowest(&store) > Height(20));
    // The file is open, so whoever is in the middle of it comes to the end.
    let bytes = file.read(row.offset, row.length as usize).unwrap();
    assert_eq!(crate::blocks::decode(&bytes, Height(1), file.salt).unwrap().block, world.blocks[1]);
    for who in (0..13).map(address) {
        assert_eq!(view.account(who), Err(StateError::Unavailable(Height(5))));
        assert_eq!(view.slot(who, U256::from(3)), Err(StateError::Unavailable(Height(5))));
    }
    assert_eq!(view.block_hash(Height(3)), Err(StateError::Unavailable(Height(5))));
    check_kept(&world, &store);
}

#[test]
fn readers_and_the_scrubber_go_on_while_segments_go() {
    let (dir, disk, world) = archived(15, 600);
    let mut settings = Config { background: true, ..least(dir.path()) };
    settings.checkpoint.interval = Duration::from_secs(3_600);
    let store = open_on(&disk, settings, &world.chain).unwrap();
    let is_refused = |height: Height, error: &StoreError| match error {
        StoreError::NotKept { height: at, lowest } => *at == height && *lowest >= height,
        _ => false,
    };
    std::thread::scope(|scope| {
        for reader in 0..4_u64 {
            let (store, world) = (&store, &world);
            scope.spawn(move || {
                let mut random = reader;
                let mut rounds = 0;
                while rounds < 60 || lowest(store).0 < 400 {
                    rounds += 1;
                    let height = Height(1 + super::kit::next(&mut random) % 450);
                    let block = &world.blocks[height.0 as usize];
                    match store.block(height) {
                        Ok(found) => assert_eq!(found.as_ref(), Some(block)),
                        Err(error) => assert!(is_refused(height, &error), "block {height}: {error}"),
                    }
                    match store.header(height) {
                        Ok(found) => assert_eq!(found.as_ref(), Some(&block.block.header)),
                        Err(error) => assert!(is_refused(height, &error), "header {height}: {error}"),
                    }
                    assert!(store.height_of(block.hash()).unwrap().is_none_or(|found| found == height));
                    let has_logs = block.receipts.iter().any(|receipt| !receipt.logs.is_empty());
                    match store.blocks_with_logs(&Default::default(), height..=height) {
                        Ok(found) => assert_eq!(found.heights.len(), usize::from(has_logs)),
                        Err(error) => assert!(is_refused(height, &error), "logs of {height}: {error}"),
                    }
                    match store.view(height) {
                        Ok(view) => read(&*view, world, height),
                        Err(error) => assert!(is_refused(height, &error), "state at {height}: {error}"),
                    }
                    scrub::look(&store.inner, B256::from(U256::from(super::kit::next(&mut random)) << 192));
                    store.inner.check().unwrap();
                }
            });
        }
        while lowest(&store).0 < 400 {
            store.checkpoint().unwrap();
            world_goes_on(&store);
        }
    });
    store.inner.check().unwrap();
}

/// Lets others have a turn.
fn world_goes_on(store: &Database) {
    assert!(store.proof(store.tip().height(), Address::ZERO, &[]).is_ok());
    std::thread::yield_now();
}

/// Reads a state that may go meanwhile.
pub(super) fn read(view: &dyn engine::ports::StateView, world: &World, height: Height) {
    let state = &world.states[height.0 as usize];
    for who in (0..13).map(address) {
        match view.account(who) {
            Ok(account) => assert_eq!(account, state.get(&who).map(|entry| entry.0), "{who} at {height}"),
            Err(error) => assert_eq!(error, StateError::Unavailable(height)),
        }
        let value = state.get(&who).and_then(|entry| entry.1.get(&U256::from(3))).copied().unwrap_or_default();
        match view.slot(who, U256::from(3)) {
            Ok(found) => assert_eq!(found, value, "slot of {who} at {height}"),
            Err(error) => assert_eq!(error, StateError::Unavailable(height)),
        }
    }
}

#[test]
fn what_is_done_to_a_closed_folder_is_done_to_a_pruned_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(17);
    let settings = least(dir.path());
    let store = Database::open(settings.clone(), Arc::clone(&world.chain)).unwrap();
    grow(&mut world, &store, 450);
    let kept = lowest(&store).next();
    store.close().unwrap();
    let chain = Arc::clone(&world.chain);
    let stats = offline::stats(dir.path(), &chain, &mut |_| {}).unwrap();
    assert_eq!((stats.mode.as_deref(), stats.pruned), (Some("validator"), kept.0 - 1));
    assert_eq!((stats.blocks, stats.segments[0].first_height), ((kept.0, world.tip().0), kept.0));
    let verified = || {
        let verified = offline::verify(dir.path(), &chain, &mut |_| {}).unwrap();
        assert_eq!((verified.bad, verified.missing_indices), (vec![], vec![]));
        verified.blocks
    };
    assert_eq!(verified(), world.tip().0 - kept.0 + 1);
    offline::compact(dir.path(), &chain, None, &mut |_| {}).unwrap();
    assert_eq!(offline::migrate(dir.path(), &chain, None, &mut |_| {}).unwrap().rows, 0);
    let look = Config { keep: None, proof_window: u64::MAX, ..settings };
    for to in [Height::GENESIS, Height(1), Height(kept.0 / 8 * 8), Height(kept.0 - 1)] {
        let refused = offline::rewind(look.clone(), Arc::clone(&chain), to, &mut |_| {}).unwrap_err();
        assert_eq!(refused, offline::RewindError::Below { to, lowest: kept });
    }
    for to in [world.tip().0 - 3, kept.0 + 30, kept.0] {
        offline::rewind(look.clone(), Arc::clone(&chain), Height(to), &mut |_| {}).unwrap();
        world.truncate(Height(to));
        verified();
        let store = Database::open(look.clone(), Arc::clone(&chain)).unwrap();
        assert_eq!((store.tip(), lowest(&store).next()), (Arc::clone(&world.blocks[to as usize]), kept));
        check_kept(&world, &store);
        world.commit(&store, 2).unwrap();
        check_kept(&world, &store);
        store.close().unwrap();
    }
}
