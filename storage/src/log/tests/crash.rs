//! A crash at every operation, and at every named point.

use std::path::Path;

use super::kit::{BYTES, DIR, FaultyDisk, History, folder, fresh, next, numbers, open_on};
use crate::{
    failpoint::LOG_FAIL_POINTS,
    log::{Mark, open},
};

#[test]
fn what_was_appended_reads_back_over_many_files_and_starts() {
    for seed in 0..20 {
        let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
        drop(fresh(&disk));
        for _ in 0..6 {
            let (log, recovered) = open_on(&disk).unwrap();
            assert_eq!(history.check_crashed(&recovered), history.batches.len());
            history.live(&log, 30, &mut random).unwrap();
        }
        assert!(numbers(&disk)[0] > 3, "seed {seed}: files {:?}", numbers(&disk));
        assert_eq!(numbers(&disk).len(), 1, "older files are gone");
    }
}

#[test]
fn a_log_gives_back_after_a_restart_exactly_what_it_would_have_kept() {
    for seed in 0..50 {
        let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
        let log = fresh(&disk);
        history.live(&log, 40, &mut random).unwrap();
        history.append(&log, &mut random).unwrap();
        let kept = log.progress.lock().live.recovered();
        assert_eq!(open_on(&disk).unwrap().1, kept, "seed {seed}");
    }
}

/// Runs a log until the machine is off after `count` operations; `false` if it came to its end before.
fn run(disk: &FaultyDisk, count: u64, seed: u64) -> (History, bool) {
    let (mut history, mut random) = (History::default(), seed);
    disk.stop_after(count);
    let Ok((log, _)) = open(folder(disk, BYTES, None), false, Mark::default()) else { return (history, true) };
    let stopped = history.live(&log, 60, &mut random).is_err();
    (history, stopped)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_synced() {
    let mut cuts = 0;
    for seed in 0..4 {
        for count in 0.. {
            let disk = FaultyDisk::default();
            let (history, stopped) = run(&disk, count, seed);
            disk.works_again();
            // Killed only: the start finds the page cache, and what it does with it must survive a power cut.
            let killed = disk.fork();
            let was_made = history.synced > 0;
            let (_, recovered) = open(folder(&killed, BYTES, None), was_made, Mark::default()).unwrap();
            history.check_crashed(&recovered);
            for cut in 0..8 {
                cuts += 1;
                let (_, again) = open_on(&killed.crashed(count * 77 + cut))
                    .unwrap_or_else(|error| panic!("seed {seed}, operation {count}, cut {cut}: {error}"));
                assert_eq!(again, recovered, "seed {seed}, operation {count}, cut {cut}");
                let after = disk.crashed(seed * 1_000_003 + count * 101 + cut);
                // Until the log was made nothing says that there was one.
                let (log, recovered) = open(folder(&after, BYTES, None), was_made, Mark::default())
                    .unwrap_or_else(|error| panic!("seed {seed}, operation {count}, cut {cut}: {error}"));
                let kept = history.check_crashed(&recovered);
                // What a start gave was synced before, and the log goes on.
                let (mut later, mut random) = (history.clone(), cut);
                later.batches.truncate(kept);
                later.synced = kept;
                let goes_on = later.live(&log, 3, &mut random);
                goes_on.unwrap_or_else(|error| panic!("seed {seed}, operation {count}, cut {cut}: {error}"));
                later.check_crashed(&open_on(&after.crashed(cut)).unwrap().1);
            }
            if !stopped {
                break;
            }
        }
    }
    assert!(cuts > 4_000, "{cuts} cuts");
    println!("{cuts} power cuts");
}

#[test]
fn a_power_cut_while_a_log_is_opened_after_another_one_loses_nothing_either() {
    let mut cuts = 0;
    for seed in 0..60 {
        let disk = FaultyDisk::default();
        let (history, _) = run(&disk, 40 + seed * 3, seed);
        disk.works_again();
        // Killed only, so that the page cache stays, or cut off.
        for before in [disk.fork(), disk.crashed(seed)] {
            for count in 0.. {
                let during = before.fork();
                during.stop_after(count);
                let stopped = open_on(&during).is_err();
                during.works_again();
                for cut in 0..4 {
                    cuts += 1;
                    let (_, recovered) = open_on(&during.crashed(count * 31 + cut))
                        .unwrap_or_else(|error| panic!("seed {seed}, operation {count}, cut {cut}: {error}"));
                    history.check_crashed(&recovered);
                }
                // Preparing the spare is no part of the start: it fails alone.
                if !stopped && count > 12 {
                    break;
                }
            }
        }
    }
    assert!(cuts > 1_000, "{cuts} cuts");
    println!("{cuts} power cuts");
}

/// A process that died before its sync, or whose sync failed, leaves whole records in the page cache only.
#[test]
fn what_a_start_found_in_the_page_cache_only_is_durable_before_it_is_given() {
    for sync_fails in [false, true] {
        for seed in 0..40 {
            let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
            let log = fresh(&disk);
            history.append(&log, &mut random).unwrap();
            history.sync(&log).unwrap();
            history.append(&log, &mut random).unwrap();
            if sync_fails {
                disk.fail_sync(1);
                history.sync(&log).unwrap_err();
            }
            drop(log);
            disk.works_again();
            let (_, recovered) = open_on(&disk).unwrap();
            assert_eq!(history.check_crashed(&recovered), 2);
            history.synced = 2;
            history.check_crashed(&open_on(&disk.crashed(seed)).unwrap().1);
        }
    }
}

#[test]
fn the_folder_of_a_new_log_is_durable_before_its_files_are() {
    let disk = FaultyDisk::default();
    drop(fresh(&disk));
    assert_eq!(disk.synced_dirs(), [Path::new("/data"), Path::new(DIR), Path::new(DIR)]);
    // A start that finds a log which the folder does not know of was killed before it knew; maybe before this.
    drop(open(folder(&disk, BYTES, None), false, Mark::default()).unwrap());
    assert_eq!(disk.synced_dirs()[3..], [Path::new("/data"), Path::new(DIR)]);
}

#[test]
fn every_named_point_of_the_log_is_reached_and_harmless() {
    for point in LOG_FAIL_POINTS.into_iter().filter(|point| *point != "log.open.made") {
        let mut reached = 0;
        for (count, seed) in [(1, 1), (1, 2), (2, 3), (3, 4), (5, 5), (9, 6)] {
            let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
            drop(fresh(&disk));
            let armed = format!("{point}:{count}");
            // A failing spare is told of when it is needed.
            for _ in 0..4 {
                let Ok((log, recovered)) = open(folder(&disk, BYTES, Some(&armed)), true, Mark::default()) else {
                    reached += 1;
                    break;
                };
                history.check_crashed(&recovered);
                if let Err(fault) = history.live(&log, 40, &mut random) {
                    assert!(fault.to_string().contains(point), "{armed}: {fault}");
                    reached += 1;
                    break;
                }
            }
            for cut in 0..6 {
                let (_, recovered) = open_on(&disk.crashed(cut + seed * 7)).unwrap();
                history.check_crashed(&recovered);
            }
        }
        assert!(reached >= 2, "{point} was reached {reached} times");
    }
}

#[test]
fn a_failed_write_or_sync_ends_the_log_for_good() {
    for (nth, is_sync) in (1..=6).flat_map(|nth| [(nth, true), (nth, false)]) {
        let (disk, mut random, mut history) = (FaultyDisk::default(), nth, History::default());
        let log = fresh(&disk);
        history.live(&log, 5, &mut random).unwrap();
        if is_sync {
            disk.fail_sync(nth);
        } else {
            disk.fail_write(nth);
        }
        let fault = history.live(&log, 1_000, &mut random).unwrap_err();
        let reason = if is_sync { "Input/output error" } else { "No space left on device" };
        assert!(fault.to_string().contains(reason), "{fault}");
        disk.works_again();
        let before = disk.operations();
        assert_eq!(history.append(&log, &mut random).unwrap_err(), fault);
        history.batches.pop();
        assert_eq!(log.sync().unwrap_err(), fault);
        assert_eq!(disk.operations(), before, "nothing was touched");
        drop(log);
        for cut in 0..6 {
            history.check_crashed(&open_on(&disk.crashed(next(&mut random) + cut)).unwrap().1);
        }
    }
}
