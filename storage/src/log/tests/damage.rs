//! Damage wherever it may be: it is a torn tail, or the log says that it is lost.

use std::path::Path;

use engine::ports::Recovered;

use super::kit::{DIR, FaultyDisk, History, fresh, next, numbers, open_on, path, regained, vote};
use crate::{
    disk::Disk,
    log::{Mark, open},
};

/// Batches of a sample that were synced, one by one, before any further one was written.
const SYNCED: usize = 6;

/// A log of one file.
struct Sample {
    disk: FaultyDisk,
    history: History,
    /// Where its records begin: the first, and one for each batch.
    starts: Vec<usize>,
    /// Offset behind its last record.
    end: usize,
    all: Recovered,
}

fn sample(seed: u64) -> Sample {
    let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
    let log = fresh(&disk);
    for _ in 0..SYNCED {
        history.append(&log, &mut random).unwrap();
        history.sync(&log).unwrap();
    }
    for _ in 0..3 {
        history.append(&log, &mut random).unwrap();
    }
    let progress = log.progress.lock();
    let (end, all) = (progress.offset as usize, progress.live.recovered());
    drop(progress);
    assert_eq!(numbers(&disk), [0]);
    disk.set_bytes(&path(0), disk.bytes(&path(0)));
    let bytes = disk.bytes(&path(0));
    let salt = &bytes[84..92];
    let starts: Vec<usize> = (4_096..end).filter(|at| bytes[*at..].starts_with(salt)).collect();
    assert_eq!(starts.len(), history.batches.len() + 1);
    Sample { disk, history, starts, end, all }
}

impl Sample {
    /// Opens the log after a change of its bytes, twice, and checks that nothing synced went missing in silence.
    fn check(&self, what: &str, change: impl FnOnce(&mut Vec<u8>)) -> Recovered {
        let disk = self.disk.fork();
        let whole = disk.bytes(&path(0));
        let mut bytes = whole.clone();
        change(&mut bytes);
        // The front of a record tells how many batches were synced when it was written.
        let is_left = |start: usize| bytes.get(start..start + 36) == Some(&whole[start..start + 36]);
        let fronts = self.starts.iter().enumerate().filter(|(_, start)| is_left(**start));
        let proven = fronts.map(|(batch, _)| batch.saturating_sub(1).min(SYNCED)).max().unwrap_or_default();
        disk.set_bytes(&path(0), bytes);
        let (_, recovered) = open_on(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        if !recovered.is_lost {
            let count = self.history.check(&recovered);
            assert!(count >= proven, "{what}: {count} batches, and {proven} were synced");
        }
        for entry in &recovered.entries {
            assert!(self.all.entries.contains(entry), "{what}: {entry:?} was never appended");
        }
        let again = open_on(&disk).unwrap().1;
        assert_eq!(again, recovered, "{what}: another start finds the same");
        recovered
    }
}

#[test]
fn damage_to_any_byte_is_seen_or_outside_of_everything() {
    for seed in 0..3 {
        let sample = sample(seed);
        let (mut lost, mut cut) = (0, 0);
        for at in (0..sample.end).chain(sample.end..sample.end + 100) {
            let recovered = sample.check(&format!("seed {seed}, byte {at}"), |bytes| bytes[at] ^= 1 << (at % 8));
            lost += usize::from(recovered.is_lost);
            cut += usize::from(!recovered.is_lost && recovered.entries.len() < sample.all.entries.len());
        }
        assert!(lost > 1_000 && cut > 300, "seed {seed}: {lost} lost, {cut} cut");
    }
}

#[test]
fn damaged_sectors_lost_writes_and_cut_files_are_seen() {
    for seed in 0..400 {
        let sample = sample(seed % 5);
        let mut random = seed;
        let mut below = |end: usize| next(&mut random) as usize % end;
        let (at, length) = (below(sample.end), 1 + below(1_200));
        let fill = [0, 0xff, 7][below(3)];
        sample.check(&format!("seed {seed}: {length} bytes at {at} are {fill}"), |bytes| {
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill(fill);
        });
        let recovered = sample.check(&format!("seed {seed}: cut at {at}"), |bytes| bytes.truncate(at));
        assert!(recovered.is_lost, "seed {seed}: a file cut at {at} is no file of the log");
        // Two pieces of a record that trade places.
        sample.check(&format!("seed {seed}: swapped at {at}"), |bytes| {
            let (one, two) = bytes.split_at_mut(at.max(512));
            let length = two.len().min(512);
            one[..length].swap_with_slice(&mut two[..length]);
        });
    }
}

#[test]
fn what_is_left_of_a_damaged_log_is_given_all_the_same() {
    let sample = sample(1);
    for (batch, start) in sample.starts[1..=SYNCED].iter().enumerate() {
        let recovered = sample.check(&format!("batch {batch}"), |bytes| bytes[start + 40] ^= 1);
        assert!(recovered.is_lost, "batch {batch}");
        let mut others = sample.history.clone();
        others.batches.remove(batch);
        assert_eq!(others.check(&recovered), others.batches.len(), "batch {batch}");
    }
    // The first record holds what was before; without it the batches behind it are still known.
    let recovered = sample.check("the first record", |bytes| bytes[4_100] ^= 1);
    assert!(recovered.is_lost);
    assert_eq!(sample.history.check(&recovered), sample.history.batches.len());
}

#[test]
fn a_damaged_newest_file_beside_an_older_one_is_no_crash() {
    for seed in 0..20 {
        let (disk, mut random, mut history) = (FaultyDisk::default(), seed, History::default());
        let log = fresh(&disk);
        let mut older = disk.bytes(&path(0));
        while numbers(&disk) == [0] {
            older = disk.bytes(&path(0));
            history.append(&log, &mut random).unwrap();
            history.forget(&log, 3);
        }
        history.sync(&log).unwrap();
        let number = log.progress.lock().current.header.number;
        assert_eq!(number, 1);
        // The older file before it became the spare; while it became that; and after.
        let zeros = vec![0; older.len()];
        let half = [&zeros[..6_000], &older[6_000..]].concat();
        for older in [Some(&older), Some(&half), Some(&zeros), None] {
            let disk = disk.fork();
            if let Some(older) = older {
                Disk::create(&disk, &path(0)).unwrap();
                disk.set_bytes(&path(0), older.clone());
                disk.sync_dir(Path::new(DIR)).unwrap();
            }
            assert_eq!(history.check_crashed(&open_on(&disk.fork()).unwrap().1), history.batches.len());
            for damage in [3, 4_099, 4_140] {
                let disk = disk.fork();
                let mut bytes = disk.bytes(&path(1));
                bytes[damage] ^= 1;
                disk.set_bytes(&path(1), bytes);
                let (_, recovered) = open_on(&disk).unwrap();
                assert!(recovered.is_lost, "seed {seed}, byte {damage}");
                assert!(open_on(&disk.crashed(seed)).unwrap().1.is_lost, "seed {seed}, byte {damage}");
            }
        }
    }
}

/// Records of one size, each synced.
fn equal_records() -> (FaultyDisk, Vec<usize>) {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    let mut starts = vec![];
    for slot in 1..=8 {
        starts.push(log.progress.lock().offset as usize);
        log.append(&[vote(1, slot, slot * 3)], &[]).unwrap();
        log.sync().unwrap();
    }
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == starts[1] - starts[0]));
    (disk, starts)
}

#[test]
fn a_record_that_was_written_to_the_place_of_another_one_is_damage() {
    let (disk, starts) = equal_records();
    let whole = disk.bytes(&path(0));
    let size = starts[1] - starts[0];
    for (from, to) in [(2, 3), (3, 2), (0, 6), (5, 1)] {
        let mut bytes = whole.clone();
        bytes.copy_within(starts[from]..starts[from] + size, starts[to]);
        disk.set_bytes(&path(0), bytes);
        assert!(open_on(&disk.fork()).unwrap().1.is_lost, "{from} in the place of {to}");
    }
}

#[test]
fn whole_records_that_no_program_of_this_schema_wrote_are_refused_and_never_panic() {
    let (disk, starts) = equal_records();
    let whole = disk.bytes(&path(0));
    let (salt, size) = (whole[84..92].to_vec(), starts[1] - starts[0]);
    let checksum = |bytes: &[u8]| crc32c::crc32c_append(crc32c::crc32c(&salt), bytes).to_be_bytes();
    let resealed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = whole.clone();
        let record = &mut bytes[starts[4]..starts[4] + size];
        change(&mut record[36..]);
        let crc = checksum(&record[36..]);
        record[28..32].copy_from_slice(&crc);
        let crc = checksum(&record[..32]);
        record[32..36].copy_from_slice(&crc);
        let disk = disk.fork();
        disk.set_bytes(&path(0), bytes.clone());
        let outcome = open_on(&disk).map(|opened| opened.1);
        if outcome.is_err() {
            assert_eq!(disk.bytes(&path(0)), bytes, "what is refused is left alone");
        }
        outcome
    };
    assert_eq!(resealed(&|_| {}).unwrap().entries.len(), 8);
    for (at, to, words) in
        [(0, 9, "flags 9"), (31, 9, "no entry of this kind"), (28, 0, "a block that does not decode")]
    {
        let error = resealed(&|payload| payload[at] = to).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("another program wrote it"), "{error}");
    }
    let mut random = 11;
    for _ in 0..2_000 {
        let (at, to) = (next(&mut random) as usize % (size - 36), next(&mut random) as u8);
        drop(resealed(&|payload| payload[at] = to));
    }
}

#[test]
fn a_loss_is_remembered_whenever_the_power_goes_until_something_is_regained() {
    let sample = sample(2);
    let mut bytes = sample.disk.bytes(&path(0));
    bytes[4_200] ^= 1;
    sample.disk.set_bytes(&path(0), bytes);
    let mut cuts = 0;
    for count in 0..40 {
        let disk = sample.disk.fork();
        disk.stop_after(count);
        let opened = open_on(&disk);
        if let Ok((_, recovered)) = &opened {
            assert!(recovered.is_lost);
        }
        drop(opened);
        disk.works_again();
        for cut in 0..10 {
            cuts += 1;
            let disk = disk.crashed(cut * 101 + count);
            let (log, recovered) = open_on(&disk).unwrap();
            assert!(recovered.is_lost, "operation {count}, cut {cut}");
            log.append(&[regained(9, 9)], &[]).unwrap();
            log.sync().unwrap();
            let (log, recovered) = open_on(&disk.crashed(cut)).unwrap();
            assert!(!recovered.is_lost && recovered.entries.contains(&regained(9, 9)));
            drop(log);
        }
    }
    assert_eq!(cuts, 400);
}

#[test]
fn a_lost_log_says_so_from_file_to_file() {
    let (disk, mut random, mut history) = (FaultyDisk::default(), 3, History::default());
    drop(fresh(&disk));
    disk.forget(&path(0));
    let (log, recovered) = open_on(&disk).unwrap();
    assert!(recovered.is_lost);
    while numbers(&disk)[0] < 3 {
        let mut batch = history.batch(&mut random);
        batch.entries.retain(|entry| !matches!(entry, engine::ordering::journal::Entry::Regained { .. }));
        log.append(&batch.entries, &batch.blocks).unwrap();
        history.batches.push(batch);
        history.forget(&log, 3);
    }
    assert!(open_on(&disk).unwrap().1.is_lost);
    log.append(&[regained(1_000, 0)], &[]).unwrap();
    let number = numbers(&disk)[0];
    while numbers(&disk)[0] < number + 2 {
        history.append(&log, &mut random).unwrap();
        history.forget(&log, 3);
    }
    let recovered = open_on(&disk.crashed(1)).unwrap().1;
    assert!(!recovered.is_lost && recovered.entries.contains(&regained(1_000, 0)));
}

#[test]
fn a_chain_above_every_floor_is_no_chain_of_this_log() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    log.append(&[super::kit::floor(1, 7), vote(1, 9, 0)], &[]).unwrap();
    log.sync().unwrap();
    let lost = |tip: Mark| {
        let disk = disk.fork();
        let folder = super::kit::folder(&disk, super::kit::BYTES, None);
        open(folder, true, tip).unwrap().1.is_lost
    };
    for (tip, is_lost) in [
        (super::kit::mark(0, 0, 0), false),
        (super::kit::mark(1, 7, 3), false),
        (super::kit::mark(0, 900, 3), false),
        (super::kit::mark(1, 8, 3), true),
        (super::kit::mark(2, 0, 3), true),
    ] {
        assert_eq!(lost(tip), is_lost, "{tip:?}");
    }
    log.append(&[regained(2, 3)], &[]).unwrap();
    assert!(!lost(super::kit::mark(2, 3, 3)) && lost(super::kit::mark(2, 4, 3)));
}
