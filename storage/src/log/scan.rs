//! Reading a log as it lies on the disk; nothing is changed.
//!
//! The newest file counts: it begins with everything that the files before it had to keep, and it got its name only
//! when that was synced. Its records are read one behind the other up to the first that is not whole, which is
//!
//! - a torn tail, if nothing behind it says otherwise: it was being written when the power went, and is no part of the
//!   log; or
//! - damage, if the front of a record behind it says that the file was synced beyond it by then, or if it is the first
//!   record, or if the file's header is no header. Then whatever whole records are left, in older files too, are given
//!   back all the same: the more is known of what was signed, the better.
//!
//! Records behind the first bad one are looked for at every offset, so the work is one pass over a file of at most
//! [`LOG_BYTES_MAX`](super::file::LOG_BYTES_MAX) bytes.

use std::path::Path;

use super::{
    file::{self, FIRST_OFFSET, Generation, Identity},
    live::Live,
    record::{Batch, FRONT_BYTES, Front},
};
use crate::{
    disk::Disk,
    error::{Fault, OpenError},
};

/// What a folder holds.
pub(super) struct Found {
    /// Numbers of all its files, in rising order.
    pub(super) numbers: Vec<u32>,
    /// The newest file, if it has a header.
    pub(super) newest: Option<Newest>,
    pub(super) live: Live,
    /// What is damaged, in words.
    pub(super) damage: Option<String>,
    /// Sequence of the last record that was read.
    pub(super) sequence: u64,
}

/// The file that is in use.
pub(super) struct Newest {
    pub(super) generation: Generation,
    pub(super) bytes: Vec<u8>,
    /// Offset behind its last whole record.
    pub(super) end: usize,
    /// Up to here it was synced, as its records say.
    pub(super) proven: usize,
    /// Offset behind its last byte that is not zero.
    pub(super) used: usize,
    /// Whole records in it, up to the first bad one.
    pub(super) records: usize,
}

/// What the records of one file say.
#[derive(Default)]
struct Replay {
    end: usize,
    proven: usize,
    used: usize,
    records: usize,
    sequence: u64,
    damage: Option<String>,
}

/// Reads the log in a folder; of the chain `identity`, if one is given.
pub(super) fn folder(disk: &dyn Disk, dir: &Path, identity: Option<Identity>) -> Result<Found, OpenError> {
    let numbers = file::numbers(disk, dir).map_err(Fault::from)?;
    let (mut live, mut damage, mut sequence, mut newest) = (Live::default(), None, 0, None);
    if let Some(last) = numbers.last() {
        match file::read(disk, dir, *last, identity)? {
            Some((generation, bytes)) => {
                let replay = replay(&bytes, &generation, &mut live)?;
                sequence = replay.sequence;
                damage = replay.damage.map(|what| format!("{} is damaged: {what}", generation.path.display()));
                let Replay { end, proven, used, records, .. } = replay;
                newest = Some(Newest { generation, bytes, end, proven, used, records });
            }
            None => damage = Some(format!("{} has no header", file::path(dir, *last).display())),
        }
    }
    // An older file says nothing that a whole one does not, but of a damaged one it may.
    if damage.is_some() && numbers.len() > 1 {
        live = Live::default();
        for number in &numbers {
            if let Some((generation, bytes)) = file::read(disk, dir, *number, identity)? {
                sequence = sequence.max(replay(&bytes, &generation, &mut live)?.sequence);
            }
        }
    }
    Ok(Found { numbers, newest, live, damage, sequence })
}

/// The whole record at an offset.
fn record(bytes: &[u8], at: usize, salt: u64) -> Option<(Front, &[u8])> {
    let (front, rest) = bytes.get(at..)?.split_first_chunk::<FRONT_BYTES>()?;
    let front = Front::decode(front, salt)?;
    let payload = rest.get(..front.length)?;
    front.matches(payload, salt).then_some((front, payload))
}

fn replay(bytes: &[u8], generation: &Generation, live: &mut Live) -> Result<Replay, Fault> {
    let salt = generation.header.salt;
    let first = usize::try_from(FIRST_OFFSET).unwrap_or(usize::MAX);
    let mut replay = Replay { end: first, proven: first, ..Replay::default() };
    let unreadable = |what: String, at: usize| {
        let path = generation.path.display();
        Fault::corrupt(format!("{path} has {what}, whole at offset {at}: another program wrote it"))
    };
    while let Some((front, payload)) = record(bytes, replay.end, salt) {
        if replay.records > 0 && front.sequence != replay.sequence.saturating_add(1) {
            break;
        }
        let batch = Batch::decode(payload).map_err(|what| unreadable(what, replay.end))?;
        if batch.is_first != (replay.records == 0) {
            break;
        }
        live.apply(batch);
        replay.proven = replay.proven.max(usize::try_from(front.durable).unwrap_or(usize::MAX));
        replay.sequence = front.sequence;
        replay.records += 1;
        replay.end = replay.end.saturating_add(FRONT_BYTES).saturating_add(front.length);
        if replay.records == 1 {
            replay.proven = replay.end;
        }
    }
    replay.used = file::used(bytes, replay.end);
    replay.damage = damage(bytes, generation, &replay);
    if replay.damage.is_some() {
        salvage(bytes, salt, &mut replay, live);
    }
    Ok(replay)
}

/// What says that the file holds less than was synced.
fn damage(bytes: &[u8], generation: &Generation, replay: &Replay) -> Option<String> {
    if replay.records == 0 {
        return Some("its first record is not whole".to_owned());
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length < generation.header.size) {
        return Some(format!("it has {} bytes of {}", bytes.len(), generation.header.size));
    }
    let (tail, mut at) = (bytes.get(..replay.used).unwrap_or(bytes), replay.end);
    while let Some((offset, front)) = file::next_front(tail, at, generation.header.salt) {
        if usize::try_from(front.durable).is_ok_and(|durable| durable > replay.end) {
            let (at, later) = (replay.end, front.sequence);
            return Some(format!("the record at offset {at} is not whole, though record {later} says it was synced"));
        }
        at = offset.saturating_add(1);
    }
    None
}

/// Takes over every whole record behind the first bad one.
fn salvage(bytes: &[u8], salt: u64, replay: &mut Replay, live: &mut Live) {
    let (tail, mut at) = (bytes.get(..replay.used).unwrap_or(bytes), replay.end);
    while let Some((offset, front)) = file::next_front(tail, at, salt) {
        at = offset.saturating_add(1);
        let batch = record(bytes, offset, salt).and_then(|(_, payload)| Batch::decode(payload).ok());
        if let Some(batch) = batch.filter(|batch| !batch.is_first) {
            live.apply(batch);
            at = offset.saturating_add(FRONT_BYTES).saturating_add(front.length);
        }
        replay.sequence = replay.sequence.max(front.sequence);
    }
}
