//! Full disks, full files, and what may be forgotten.

use engine::ordering::journal::Entry;

use super::kit::{
    BYTES, FaultyDisk, History, block, entry, floor, folder, fresh, mark, numbers, open_on, path, regained, vote,
};
use crate::{
    OpenError,
    log::{Mark, open},
};

#[test]
fn a_log_goes_on_for_ever_on_a_disk_that_is_full() {
    let (disk, mut random, mut history) = (FaultyDisk::default(), 1, History::default());
    let log = fresh(&disk);
    disk.set_full(true);
    history.live(&log, 200, &mut random).unwrap();
    history.sync(&log).unwrap();
    assert!(numbers(&disk)[0] >= 4, "{:?}", numbers(&disk));
    drop(log);
    // A start needs no room either, after a power cut or without one.
    for disk in [disk.crashed(1), disk] {
        let (mut history, (log, recovered)) = (history.clone(), open_on(&disk).unwrap());
        history.check_crashed(&recovered);
        history.live(&log, 100, &mut random).unwrap();
    }
}

#[test]
fn without_a_spare_a_log_takes_what_its_file_holds_and_says_why_it_takes_no_more() {
    let (disk, mut random, mut history) = (FaultyDisk::default(), 2, History::default());
    let log = fresh(&disk);
    // Somebody took the spare away, and all room with it.
    drop(log.spares.take().unwrap());
    disk.forget(&path(0).with_file_name("spare.log"));
    disk.set_full(true);
    let fault = history.live(&log, 1_000, &mut random).unwrap_err();
    assert!(fault.to_string().contains("there is no spare file for it"), "{fault}");
    assert!(fault.to_string().contains("No space left on device"), "{fault}");
    history.batches.pop();
    let used = history.batches.len();
    assert!(used >= 10, "{used} batches");
    // What was taken can be made durable still, but nothing follows what was refused.
    history.sync(&log).unwrap();
    assert_eq!(log.append(&[vote(9, 9, 9)], &[]).unwrap_err(), fault);
    history.sync(&log).unwrap();
    drop(log);
    let (log, recovered) = open_on(&disk.crashed(1)).unwrap();
    assert_eq!(history.check_crashed(&recovered), used);
    drop(log);
    disk.set_full(false);
    let (log, recovered) = open_on(&disk).unwrap();
    assert_eq!(history.check_crashed(&recovered), used);
    history.live(&log, 100, &mut random).unwrap();
}

#[test]
fn what_must_be_kept_and_does_not_fit_a_file_is_refused_with_its_size() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    let large = block(0, 1, 1, 300);
    let fault = log.append(&[], &[large]).unwrap_err();
    assert!(fault.to_string().contains("log_bytes sets the size"), "{fault}");
    assert_eq!(log.append(&[vote(0, 1, 1)], &[]).unwrap_err(), fault);
    log.sync().unwrap();
    let (log, recovered) = open_on(&disk).unwrap();
    assert_eq!(recovered.entries, []);
    let fault = (1..).find_map(|slot| log.append(&[vote(0, slot, slot)], &[]).err()).unwrap();
    assert!(fault.to_string().contains("what it must keep takes"), "{fault}");
    log.sync().unwrap();
    let kept = open_on(&disk.crashed(1)).unwrap().1.entries.len();
    assert!(kept > 30, "{kept} votes");
    // A larger size helps.
    let larger = folder(&disk, BYTES * 2, None);
    let (log, recovered) = open(larger, true, Mark::default()).unwrap();
    assert_eq!(recovered.entries.len(), kept);
    log.append(&[vote(0, 1_000, 1)], &[]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(open_on(&disk).unwrap().1.entries.len(), kept + 1);
}

#[test]
fn an_entry_that_nothing_could_read_back_is_refused() {
    let log = fresh(&FaultyDisk::default());
    let Entry::EpochStart { epoch, base, .. } = entry(0, 0, 4) else { panic!("a start") };
    let validator = |index: u64| engine::types::Validator {
        public_key: engine::types::PublicKey(alloy_primitives::FixedBytes::left_padding_from(&index.to_be_bytes())),
        stake: 1,
        operator: Default::default(),
    };
    let set = engine::types::ValidatorSet::new(epoch, (1..=300).map(validator).collect()).unwrap();
    let fault = log.append(&[Entry::EpochStart { epoch, base, set }], &[]).unwrap_err();
    // The largest set is an entry, but none for a file of this size.
    assert!(fault.to_string().contains("log_bytes sets the size"), "{fault}");
}

#[test]
fn what_is_forgotten_is_what_the_port_says() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    let start = |epoch| entry(epoch, 0, 4);
    let all = [
        start(0),
        start(1),
        start(2),
        floor(1, 4),
        regained(0, 7),
        floor(1, 9),
        vote(1, 10, 1),
        vote(1, 11, 2),
        floor(1, 9),
        vote(2, 0, 3),
        start(3),
    ];
    let blocks = [block(1, 10, 5, 1), block(1, 11, 6, 0), block(2, 0, 7, 2)];
    log.append(&all, &blocks).unwrap();
    let expected = |at: &[usize]| at.iter().map(|at| all[*at].clone()).collect::<Vec<_>>();
    for (mark, entries, kept) in [
        (mark(0, 0, 0), (0..all.len()).collect::<Vec<_>>(), 0..3),
        (mark(1, 10, 5), vec![1, 2, 4, 6, 7, 8, 9, 10], 1..3),
        // A tail header has the height of the block below it.
        (mark(1, 10, 6), vec![1, 2, 4, 6, 7, 8, 9, 10], 1..3),
        (mark(1, 11, 6), vec![1, 2, 4, 7, 8, 9, 10], 2..3),
        // What was forgotten does not come back.
        (mark(0, 3, 1), vec![1, 2, 4, 7, 8, 9, 10], 2..3),
        (mark(2, 0, 7), vec![2, 4, 8, 9, 10], 3..3),
        (mark(5, 0, 7), vec![4, 8], 3..3),
    ] {
        log.forget(mark);
        // The mark is in the next record.
        let later = vote(9, 0, 1);
        let before = disk.fork();
        log.append(std::slice::from_ref(&later), &[]).unwrap();
        let recovered = open_on(&disk).unwrap().1;
        let expected = [expected(&entries), vec![later; recovered.entries.len() - entries.len()]].concat();
        assert_eq!(recovered.entries, expected, "{mark:?}");
        assert_eq!(recovered.blocks, blocks[kept], "{mark:?}");
        drop(before);
    }
    // Blocks that the store holds are not given either.
    let log = fresh(&FaultyDisk::default());
    log.append(&[floor(1, 10)], &blocks).unwrap();
}

#[test]
fn a_log_of_another_chain_schema_or_number_is_refused_and_left_alone() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    log.append(&[vote(0, 1, 1)], &[]).unwrap();
    log.sync().unwrap();
    let mut other = folder(&disk, BYTES, None);
    other.identity.chain_digest = alloy_primitives::B256::repeat_byte(9);
    let before = disk.bytes(&path(0));
    let error = open(other, true, Mark::default()).map(|opened| opened.1).unwrap_err();
    assert!(matches!(error, OpenError::WrongChain { .. }), "{error}");
    let reseal = |change: &dyn Fn(&mut Vec<u8>)| {
        let disk = disk.fork();
        let mut bytes = disk.bytes(&path(0));
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..104]);
        bytes[104..108].copy_from_slice(&crc.to_be_bytes());
        disk.set_bytes(&path(0), bytes);
        open_on(&disk).map(|opened| opened.1)
    };
    let error = reseal(&|bytes| bytes[9] += 1).unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { .. }), "{error}");
    let error = reseal(&|bytes| bytes[9] -= 1).unwrap_err();
    assert!(matches!(error, OpenError::OlderSchema { .. }), "{error}");
    assert!(!reseal(&|bytes| bytes[11] += 1).unwrap().is_lost, "another minor is read");
    assert!(reseal(&|bytes| bytes[95] += 1).unwrap().is_lost, "another number");
    assert!(reseal(&|bytes| bytes[96] += 1).unwrap().is_lost, "a size that no log has");
    assert_eq!(disk.bytes(&path(0)), before);
    assert_eq!(open_on(&disk).unwrap().1.entries, [vote(0, 1, 1)]);
}

/// The thread that makes spares may be asked before a file is taken and come to it afterwards.
#[test]
fn a_spare_that_was_taken_is_left_alone_until_it_has_its_own_name() {
    let disk = FaultyDisk::default();
    let log = fresh(&disk);
    let spare = path(0).with_file_name("spare.log");
    let taken = log.spares.take().unwrap();
    taken.write_at(b"votes", 0).unwrap();
    log.spares.work();
    assert!(disk.bytes(&spare).starts_with(b"votes"));
    // Once it has another name, the next spare is another file.
    crate::disk::Disk::rename(&disk, &spare, &path(1)).unwrap();
    log.spares.prepare([]);
    assert!(disk.bytes(&path(1)).starts_with(b"votes"));
    assert_eq!(disk.bytes(&spare), vec![0; disk.bytes(&path(0)).len()]);
}
