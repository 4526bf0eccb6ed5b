//! Where things are: transactions by hash, logs by address and topic, changes of accounts and slots.
//!
//! Every segment has one index, from keys to postings, in two halves: where transactions and logs are, and when
//! accounts and slots changed. What a key stands for is hashed into it, so one table serves every question to its half;
//! what is in it, `collect` says. The halves are files of their own, as the second may go before the first.
//!
//! ```text
//! commit -> waiting blocks -> parts of the newest segment, in memory
//!                             parts of the others, NNNNNNNN.idx and NNNNNNNN.chg each (see `sealed`)
//! ```
//!
//! A committed block joins a queue and no more, so no client waits for an index. The housekeeper takes it in, or the
//! first reader who comes before: whoever sees a height finds everything up to it.
//!
//! When a segment is full, the housekeeper writes its files, or leaves that to the next full segment if the disk has
//! little room; the newest parts are built again when the store opens. They are in memory, and so bounded by the size
//! of a segment: a key with one posting takes 38 to 75 bytes, one more 8, so a token transfer takes 250 to 500. The
//! most there can be is of slots with short keys, which have 8 bytes in a segment. A file that is missing or damaged is
//! built again from its segment, when the store opens or when that is seen.

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

use self::{
    collect::Collector,
    key::Keys,
    part::{Content, Part},
};
pub(crate) use self::{
    sealed::{Files, Half, Name},
    table::Table,
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

/// Parts of one half, oldest first, never empty; the last one takes blocks.
type Parts = Arc<Vec<Arc<Part>>>;

/// The index over all segments.
pub(crate) struct Index {
    /// By half.
    shelves: [RwLock<Parts>; 2],
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
    /// `last_end`. What changed is left out in full segments below the number `changes`.
    pub(crate) fn open(
        files: Files,
        segments: Arc<Segments>,
        (last_end, changes): (u64, u32),
        housekeeper: Arc<Housekeeper>,
    ) -> Result<Self, Fault> {
        let all = segments.all();
        let (last, older) = all.split_last().expect("a store has a segment");
        let mut shelves = [const { Vec::new() }; 2];
        for segment in older {
            let mut made = None;
            for half in Half::ALL.into_iter().filter(|half| *half == Half::Places || segment.number >= changes) {
                let shelf: &mut Vec<_> = &mut shelves[half as usize];
                let name = (half, segment.number, segment.first_height);
                let content = opened(&files, name, segment, &mut made, tables(shelf))?;
                shelf.push(Arc::new(Part::new(name, content)));
            }
        }
        for ((half, table), shelf) in Half::ALL.into_iter().zip(collect::segment(last, last_end)?).zip(&mut shelves) {
            let name = (half, last.number, last.first_height);
            shelf.push(Arc::new(Part::new(name, Content::Table(table))));
        }
        let index = Self {
            shelves: shelves.map(|shelf| RwLock::new(Arc::new(shelf))),
            waiting: Mutex::default(),
            absorbing: Mutex::default(),
            building: Arc::default(),
            files,
            segments,
            housekeeper,
        };
        metrics::LOWEST_STATE.set(index.lowest(Half::Changes).0);
        Ok(index)
    }

    /// Makes the keys of this folder.
    pub(crate) fn keys(&self) -> Keys {
        Keys { salt: self.files.identity.salt }
    }

    /// All parts of a half, oldest first.
    fn parts(&self, half: Half) -> Parts {
        Arc::clone(&self.shelves[half as usize].read())
    }

    /// The first segment that has a half.
    pub(crate) fn first(&self, half: Half) -> u32 {
        self.parts(half).first().expect("there is always a part").segment
    }

    /// The height above which a half tells all: of changes, the lowest whose state they lead back to.
    pub(crate) fn lowest(&self, half: Half) -> Height {
        let first = self.parts(half).first().expect("there is always a part").first;
        first.previous().unwrap_or(Height::GENESIS)
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
        if self.parts(Half::Places).last().is_some_and(|last| last.segment != *segment) {
            self.begin(*segment, *first);
        }
        let mut collector = Collector::new(self.keys(), *first);
        let hashes = block.block.body.transactions.iter().map(|transaction| transaction.hash());
        collector
            .transactions(block.height(), hashes)
            .and_then(|()| collector.logs(block.height(), &block.receipts))
            .and_then(|()| collector.changes(block.height(), changes))
            .expect("a block lies above the first of its segment, and holds less than 2^32 of anything");
        for half in Half::ALL {
            self.parts(half).last().expect("there is always a part").insert(&mut collector);
        }
        metrics::elapsed(&metrics::INDEX_BUSY, start);
    }

    /// Begins the parts of the next segment, and has the ones before sealed.
    fn begin(&self, segment: u32, first: Height) {
        for half in Half::ALL {
            let next = Part::new((half, segment, first), Content::Table(Table::default()));
            Arc::make_mut(&mut self.shelves[half as usize].write()).push(Arc::new(next));
        }
        let (shelves, files) = (Half::ALL.map(|half| self.parts(half)), self.files.clone());
        let building = Arc::clone(&self.building);
        self.housekeeper.submit(Box::new(move || shelves.iter().for_each(|parts| seal(parts, &files, &building))));
    }

    /// Whether nothing of a segment's index is in memory.
    pub(crate) fn is_sealed(&self, segment: u32) -> bool {
        let is_in_memory = |part: &Arc<Part>| part.segment == segment && part.is_table();
        !Half::ALL.into_iter().any(|half| self.parts(half).iter().any(is_in_memory))
    }

    /// Lets go of what some halves of segments below a number have; `unlink` is called while nobody writes a file.
    pub(crate) fn let_go(
        &self,
        halves: &[Half],
        first: u32,
        unlink: impl FnOnce(&Files) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let _one = self.building.lock();
        for half in halves {
            Arc::make_mut(&mut self.shelves[*half as usize].write()).retain(|part| part.segment >= first);
        }
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
        let (half, number, _) = part.name();
        let parts = self.parts(half);
        if parts.iter().all(|kept| kept.segment != number) {
            return Err(Fault::Failed(format!("the index of segment {number} is kept no longer")));
        }
        let segment = self.segments.get(number)?;
        let table = std::mem::take(&mut tables_of(&segment)?[half as usize]);
        part.replace(build(&self.files, part.name(), table, &reason, tables(full(&parts)))?);
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

/// What the halves of a full segment's index must hold.
pub(crate) fn tables_of(segment: &SegmentFile) -> Result<[Table; 2], Fault> {
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

/// Opens a file of a full segment, or makes it again, beside so many that have none. Where one half was made the other
/// is as well: a program that knows one half alone may have put other blocks into the segment.
fn opened(
    files: &Files,
    name: Name,
    segment: &SegmentFile,
    made: &mut Option<[Table; 2]>,
    tables: usize,
) -> Result<Content, Fault> {
    let found = if made.is_none() { files.open(name) } else { Err("beside one that is built again".to_owned()) };
    match found {
        Ok(file) => Ok(Content::File(file)),
        Err(reason) => {
            let halves = match made {
                Some(halves) => halves,
                None => made.insert(tables_of(segment)?),
            };
            build(files, name, std::mem::take(&mut halves[name.0 as usize]), &reason, tables)
        }
    }
}

/// Writes a file of a full segment again, beside so many that have none. What cannot be written stays in memory, as
/// long as that are a few.
fn build(files: &Files, name: Name, table: Table, reason: &str, tables: usize) -> Result<Content, Fault> {
    let (half, segment, _) = name;
    warn!(segment, ?half, %reason, "building an index again");
    match files.write(name, &table, room_for(tables.saturating_add(1))) {
        Ok(file) => Ok(Content::File(file)),
        Err(fault) if tables >= TABLES_MAX => Err(fault),
        Err(fault) => {
            warn!(segment, ?half, %fault, "an index stays in memory");
            Ok(Content::Table(table))
        }
    }
}
