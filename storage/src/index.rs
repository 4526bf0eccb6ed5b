//! Where things are: transactions by hash, logs by address and topic, changes of accounts and slots.
//!
//! Every segment has one index, from keys to postings. What a key stands for is hashed into it, so one table serves
//! every question; what is in it, `collect` says.
//!
//! ```text
//! commit -> waiting blocks -> part of the newest segment, in memory
//!                             parts of the others, NNNNNNNN.idx each (see `sealed`)
//! ```
//!
//! A committed block joins a queue and no more, so no client waits for an index. The housekeeper takes it in, or the
//! first reader who comes before: whoever sees a height finds everything up to it.
//!
//! When a segment is full, the housekeeper writes its file, or leaves that to the next full segment if the disk has
//! little room; the newest part is built again when the store opens. It is in memory, and so bounded by the size of a
//! segment: a key with one posting takes 38 to 75 bytes, one more 8,
//! so a token transfer takes 250 to 500. The most there can be is of slots with short keys, which have 8 bytes in a
//! segment. A file that is missing or damaged is built again from its segment, when the store opens or when that is
//! seen.

mod changes;
mod collect;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod key;
mod logs;
mod part;
mod sealed;
mod table;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small random numbers; seeds are printed")]
mod tests;
mod transactions;

use std::{collections::VecDeque, sync::Arc};

use engine::types::{CommittedBlock, Height, StateChanges};
use parking_lot::{Mutex, RwLock};
use tracing::warn;

pub(crate) use self::sealed::Files;
use self::{
    collect::Collector,
    key::Keys,
    part::{Content, Part},
};
use crate::{
    error::Fault,
    housekeeper::Housekeeper,
    metrics,
    place::Room,
    segment::{SegmentFile, Segments},
};

/// Blocks that may wait; the commit of a further one takes them in itself.
const WAITING_MAX: usize = 64;

/// Full segments whose index may stay in memory for want of room; for more than so many, little room is enough.
const TABLES_MAX: usize = 4;

/// A committed block that is not in a part yet.
struct Waiting {
    segment: u32,
    /// First height of the segment.
    first: Height,
    block: Arc<CommittedBlock>,
    changes: Arc<StateChanges>,
}

/// The index over all segments.
pub(crate) struct Index {
    /// Oldest first, never empty; the last one takes blocks.
    parts: RwLock<Arc<Vec<Arc<Part>>>>,
    waiting: Mutex<VecDeque<Arc<Waiting>>>,
    /// Held by whoever takes blocks in.
    absorbing: Mutex<()>,
    /// Held by whoever writes a file.
    building: Arc<Mutex<()>>,
    files: Files,
    segments: Arc<Segments>,
    housekeeper: Arc<Housekeeper>,
}

impl Index {
    /// Opens the indices of all full segments, building what is missing, and builds that of the last, which ends at
    /// `last_end`.
    pub(crate) fn open(
        files: Files,
        segments: Arc<Segments>,
        last_end: u64,
        housekeeper: Arc<Housekeeper>,
    ) -> Result<Self, Fault> {
        let all = segments.all();
        let (last, older) = all.split_last().expect("a store has a segment");
        let mut parts = Vec::with_capacity(all.len());
        for segment in older {
            let content = match files.open(segment.number, segment.first_height) {
                Ok(file) => Content::File(file),
                Err(reason) => build(&files, segment, &reason, tables(&parts))?,
            };
            parts.push(Arc::new(Part::new(segment.number, segment.first_height, content)));
        }
        let table = Content::Table(collect::segment(last, last_end)?);
        parts.push(Arc::new(Part::new(last.number, last.first_height, table)));
        Ok(Self {
            parts: RwLock::new(Arc::new(parts)),
            waiting: Mutex::default(),
            absorbing: Mutex::default(),
            building: Arc::default(),
            files,
            segments,
            housekeeper,
        })
    }

    /// Makes the keys of this folder.
    pub(crate) fn keys(&self) -> Keys {
        Keys { salt: self.files.identity.salt }
    }

    /// All parts, oldest first.
    fn parts(&self) -> Arc<Vec<Arc<Part>>> {
        Arc::clone(&self.parts.read())
    }

    /// Notes a block that was committed to a segment; heights rise.
    pub(crate) fn insert(
        self: &Arc<Self>,
        segment: u32,
        block: &Arc<CommittedBlock>,
        changes: &Arc<StateChanges>,
    ) -> Result<(), Fault> {
        let first = self.segments.get(segment)?.first_height;
        let waiting = Waiting { segment, first, block: Arc::clone(block), changes: Arc::clone(changes) };
        let count = {
            let mut queue = self.waiting.lock();
            queue.push_back(Arc::new(waiting));
            queue.len()
        };
        // A block that finds others waiting comes along with them.
        if count == 1 {
            let own = Arc::clone(self);
            self.housekeeper.submit(Box::new(move || own.absorb()));
        } else if count > WAITING_MAX {
            self.absorb();
        }
        Ok(())
    }

    /// Takes in every block that waits.
    fn absorb(&self) {
        if self.waiting.lock().is_empty() {
            return;
        }
        let _one = self.absorbing.lock();
        loop {
            // It leaves the queue once it can be found, so that no reader misses it.
            let Some(waiting) = self.waiting.lock().front().map(Arc::clone) else { return };
            self.take_in(&waiting);
            self.waiting.lock().pop_front();
        }
    }

    fn take_in(&self, waiting: &Waiting) {
        let start = std::time::Instant::now();
        let Waiting { segment, first, block, changes } = waiting;
        let last = self.parts().last().map(Arc::clone).expect("there is always a part");
        let part = if last.segment == *segment { last } else { self.begin(*segment, *first) };
        let mut collector = Collector::new(self.keys(), part.first);
        let hashes = block.block.body.transactions.iter().map(|transaction| transaction.hash());
        collector
            .transactions(block.height(), hashes)
            .and_then(|()| collector.logs(block.height(), &block.receipts))
            .and_then(|()| collector.changes(block.height(), changes))
            .expect("a block lies above the first of its segment, and holds less than 2^32 of anything");
        part.insert(&mut collector);
        metrics::elapsed(&metrics::INDEX_BUSY, start);
    }

    /// Begins the part of the next segment, and has the one before sealed.
    fn begin(&self, segment: u32, first: Height) -> Arc<Part> {
        let next = Arc::new(Part::new(segment, first, Content::Table(table::Table::default())));
        Arc::make_mut(&mut self.parts.write()).push(Arc::clone(&next));
        let (parts, files, building) = (self.parts(), self.files.clone(), Arc::clone(&self.building));
        self.housekeeper.submit(Box::new(move || seal(&parts, &files, &building)));
        next
    }

    /// Whether a segment's index is a file.
    pub(crate) fn is_sealed(&self, segment: u32) -> bool {
        self.parts().iter().any(|part| part.segment == segment && !part.is_table())
    }

    /// Lets go of what segments below a number have; `unlink` is called while nobody writes a file.
    pub(crate) fn let_go(&self, first: u32, unlink: impl FnOnce(&Files) -> Result<(), Fault>) -> Result<(), Fault> {
        let _one = self.building.lock();
        Arc::make_mut(&mut self.parts.write()).retain(|part| part.segment >= first);
        unlink(&self.files)
    }

    /// Asks a part; builds its file again if that is damaged.
    fn ask<R>(&self, part: &Part, question: impl Fn(&Content) -> Result<R, String>) -> Result<R, Fault> {
        if let Ok(answer) = part.ask(&question) {
            return Ok(answer);
        }
        let _one = self.building.lock();
        // Somebody else may have done it.
        let reason = match part.ask(&question) {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        let segment = self.segments.get(part.segment)?;
        part.replace(build(&self.files, &segment, &reason, tables(full(&self.parts())))?);
        part.ask(&question).map_err(Fault::Failed)
    }
}

/// The place of the part that a height is in; the first for one that lies below all.
fn part_of(parts: &[Arc<Part>], height: Height) -> usize {
    parts.partition_point(|part| part.first <= height).saturating_sub(1)
}

/// The parts of full segments.
fn full(parts: &[Arc<Part>]) -> &[Arc<Part>] {
    parts.split_last().expect("there is always a part").1
}

/// Writes the files of full segments that have none.
fn seal(parts: &[Arc<Part>], files: &Files, building: &Mutex<()>) {
    let _one = building.lock();
    let room = room_for(tables(full(parts)));
    full(parts).iter().for_each(|part| part.seal(files, room));
}

/// What the index of a full segment must hold.
pub(crate) fn table_of(segment: &SegmentFile) -> Result<table::Table, Fault> {
    collect::segment(segment, segment.size)
}

/// How many of some parts are in memory.
fn tables(parts: &[Arc<Part>]) -> usize {
    parts.iter().filter(|part| part.is_table()).count()
}

/// The room that the disk must have for a file, with so many full segments that have none.
const fn room_for(tables: usize) -> Room {
    if tables > TABLES_MAX { Room::Little } else { Room::Ample }
}

/// Builds the index of a full segment, beside so many that have no file. What cannot be written stays in memory, as
/// long as that are a few.
fn build(files: &Files, segment: &SegmentFile, reason: &str, tables: usize) -> Result<Content, Fault> {
    warn!(segment = segment.number, %reason, "building an index again");
    let table = table_of(segment)?;
    match files.write(segment.number, segment.first_height, &table, room_for(tables.saturating_add(1))) {
        Ok(file) => Ok(Content::File(file)),
        Err(fault) if tables >= TABLES_MAX => Err(fault),
        Err(fault) => {
            warn!(segment = segment.number, %fault, "an index stays in memory");
            Ok(Content::Table(table))
        }
    }
}
