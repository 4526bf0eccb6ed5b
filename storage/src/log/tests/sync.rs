//! Many who wait for one sync, and appends between.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};

use super::kit::{FaultyDisk, History, folder, fresh, next, open_on, vote};
use crate::{
    disk::{Disk, DiskError, DiskFile},
    log::{Folder, Mark, open},
};

/// A disk whose syncs wait at a gate.
#[derive(Clone, Default)]
struct Gated {
    disk: FaultyDisk,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
    arrived: AtomicUsize,
}

struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock() = is_closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut is_closed = self.is_closed.lock();
        while *is_closed {
            self.changed.wait(&mut is_closed);
        }
    }
}

impl Gated {
    fn gated(&self, file: Result<Arc<dyn DiskFile>, DiskError>) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(Arc::new(GatedFile(file?, Arc::clone(&self.gate))))
    }
}

impl Disk for Gated {
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.gated(self.disk.open(path))
    }
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.gated(self.disk.create(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>, DiskError> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> Result<(), DiskError> {
        // What is written while it waits at the gate is not in it.
        let outcome = self.0.sync();
        self.1.pass();
        outcome
    }
    fn length(&self) -> Result<u64, DiskError> {
        self.0.length()
    }
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

#[test]
fn who_comes_while_a_sync_runs_shares_the_next_one() {
    for fails in [false, true] {
        let gated = Gated::default();
        drop(fresh(&gated.disk));
        let parts = Folder { disk: Arc::new(gated.clone()), ..folder(&gated.disk, super::kit::BYTES, None) };
        let (log, _) = open(parts, true, Mark::default()).unwrap();
        let before = gated.gate.arrived.load(Ordering::SeqCst);
        let arrived = || gated.gate.arrived.load(Ordering::SeqCst) - before;
        gated.gate.set(true);
        log.append(&[vote(0, 1, 1)], &[]).unwrap();
        thread::scope(|scope| {
            let first = scope.spawn(|| log.sync());
            until(|| arrived() == 1);
            // The disk is at work, and the log takes votes all the same; nobody may be told of them yet.
            log.append(&[vote(0, 2, 2)], &[]).unwrap();
            let others: Vec<_> = (0..8).map(|_| scope.spawn(|| log.sync())).collect();
            until(|| log.waiting() == others.len());
            if fails {
                gated.disk.fail_sync(1);
            }
            gated.gate.set(false);
            first.join().unwrap().unwrap();
            for other in others {
                assert_eq!(other.join().unwrap().is_err(), fails);
            }
        });
        // Those who come to a log that has failed do not touch the disk again.
        assert_eq!(arrived(), 2, "one for the first, one for all others");
        assert_eq!(log.sync().is_err(), fails);
        assert_eq!(arrived(), 2);
    }
}

#[test]
fn a_sync_that_runs_while_the_log_goes_on_in_a_new_file_claims_nothing_of_that() {
    for seed in 0..20 {
        let gated = Gated::default();
        drop(fresh(&gated.disk));
        let parts = Folder { disk: Arc::new(gated.clone()), ..folder(&gated.disk, super::kit::BYTES, None) };
        let (log, _) = open(parts, true, Mark::default()).unwrap();
        let (mut history, mut random) = (History::default(), seed);
        let before = gated.gate.arrived.load(Ordering::SeqCst);
        gated.gate.set(true);
        history.append(&log, &mut random).unwrap();
        let number = log.progress.lock().current.header.number;
        thread::scope(|scope| {
            let first = scope.spawn(|| log.sync());
            until(|| gated.gate.arrived.load(Ordering::SeqCst) > before);
            let appender = scope.spawn(|| {
                // Whatever happens here, whoever waits at the gate is let go.
                let outcome = (0..1_000).try_for_each(|_| {
                    if log.progress.lock().current.header.number != number {
                        return Ok(());
                    }
                    history.forget(&log, 2);
                    history.append(&log, &mut random)
                });
                gated.gate.set(false);
                outcome.and_then(|()| history.append(&log, &mut random)).unwrap();
            });
            // The new file waits for a sync of its own.
            until(|| gated.gate.arrived.load(Ordering::SeqCst) > before + 1 || appender.is_finished());
            gated.gate.set(false);
            appender.join().unwrap();
            first.join().unwrap().unwrap();
        });
        let progress = log.progress.lock();
        assert!(progress.durable < progress.offset && progress.synced < progress.sequence);
        drop(progress);
        history.sync(&log).unwrap();
        history.check_crashed(&open_on(&gated.disk.crashed(seed)).unwrap().1);
    }
}

#[test]
fn what_is_written_while_a_sync_runs_is_not_called_durable_by_what_comes_later() {
    let gated = Gated::default();
    drop(fresh(&gated.disk));
    let parts = Folder { disk: Arc::new(gated.clone()), ..folder(&gated.disk, super::kit::BYTES, None) };
    let (log, _) = open(parts, true, Mark::default()).unwrap();
    let before = gated.gate.arrived.load(Ordering::SeqCst);
    gated.gate.set(true);
    log.append(&[vote(0, 1, 1)], &[]).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| log.sync());
        until(|| gated.gate.arrived.load(Ordering::SeqCst) > before);
        log.append(&[vote(0, 2, 2)], &[]).unwrap();
        gated.gate.set(false);
        first.join().unwrap().unwrap();
    });
    log.append(&[vote(0, 3, 3)], &[]).unwrap();
    // A power cut that takes the second and leaves the third is no damage.
    let mut lengths = [0; 4];
    for cut in 0..64 {
        let recovered = open_on(&gated.disk.crashed(cut)).unwrap().1;
        assert!(!recovered.is_lost, "cut {cut}");
        lengths[recovered.entries.len()] += 1;
    }
    assert!(lengths[0] == 0 && lengths[1..].iter().all(|count| *count > 0), "{lengths:?}");
}

#[test]
fn whoever_was_answered_finds_it_after_a_power_cut_whatever_others_do() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    let (appended, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for seed in 0..3_u64 {
            let (log, disk, appended, done) = (&log, &disk, &appended, &done);
            scope.spawn(move || {
                let (mut random, mut rounds) = (seed, 0);
                while !done.load(Ordering::SeqCst) || rounds < 10 {
                    let before = appended.load(Ordering::SeqCst);
                    log.sync().unwrap();
                    rounds += 1;
                    if rounds % 8 == 1 {
                        let (_, recovered) = open_on(&disk.crashed(next(&mut random))).unwrap();
                        let newest = recovered.entries.iter().map(|entry| entry.place().1.0).max();
                        assert!(newest.unwrap_or_default() >= before as u64, "{newest:?} is below {before}");
                        assert!(!recovered.is_lost);
                    }
                }
            });
        }
        for slot in 1..400 {
            log.append(&[vote(0, slot, slot)], &[]).unwrap();
            appended.store(slot as usize, Ordering::SeqCst);
            log.forget(super::kit::mark(0, slot.saturating_sub(3), 0));
        }
        done.store(true, Ordering::SeqCst);
    });
}
