//! The write-ahead log: what this validator signed, synced before anybody hears of it.
//!
//! ```text
//! append(batch)  -> log/NNNNNNNN.log   one record at the end; all of a batch is recovered, or nothing
//! sync()         -> one fdatasync      for all who wait: who comes while one runs shares the next
//! no room        -> the spare          begins with what must be kept; older files go when it is durable
//! open           -> scan               whole records, a torn tail cut off; or the log is lost
//! ```
//!
//! Files are written full of zeros before they are used (see `spare`), so an append changes nothing but bytes that
//! are there, and works on a full disk. Only one thread appends; any may sync. A failed write or sync ends the log: it
//! takes nothing more and says of nothing more that it is durable, since after a failed fdatasync nobody knows what
//! the disk holds. A batch for which no room can be made ends appending only: what was appended can still be synced.
//!
//! # When the process or the power ends
//!
//! | at | what the next start finds |
//! |---|---|
//! | a record's write | the records before it; what is there of it is cut off |
//! | between write and sync | the same, or the record as well: then it is written again and synced before it counts |
//! | after a sync | everything that it covered |
//! | making a spare | a file that is made again |
//! | beginning a file, before its name is durable | the older file, whole, or the new one, whole |
//! | later, before the older file is gone | the new file; the older one becomes the spare |
//! | opening: cutting, writing again, noting a loss | what was found the first time |
//! | later, after a store was closed in order | everything; a record that is not whole then is damage, not a torn tail |
//!
//! # When it is lost
//!
//! Something may have been signed that the log does not tell of, if records are damaged that were synced, if the log is
//! gone though the folder had one, or if the store's chain ends above the newest floor, which is always durable before
//! the store commits. Such a log says so, over restarts, until an [`Entry::Regained`] was appended and synced. What
//! nobody can see is a copy of a whole folder: two nodes that start from copies of one folder sign twice.

pub mod interchange;

mod file;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod live;
mod open;
mod record;
mod scan;
mod spare;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::{Journal, StoreError},
    types::{Epoch, Height, Slot},
};
use parking_lot::{Condvar, Mutex};

pub use self::interchange::{HistoryError, Imported, export, import, show};
use self::{
    file::{FIRST_OFFSET, Generation},
    live::Live,
    record::Unsealed,
    spare::Spares,
};
pub(crate) use self::{
    file::{Identity, LOG_BYTES_MAX, LOG_BYTES_MIN},
    open::open,
    record::Mark,
};
use crate::{
    disk::Disk,
    error::{Fault, OpenError},
    failpoint::FailPoints,
    housekeeper::Housekeeper,
    metrics,
    store::Inner,
};

/// Name of the log's folder inside the data folder.
pub(crate) const FOLDER: &str = "log";

/// Where a log lies and what it is made with.
pub(crate) struct Folder {
    pub(crate) disk: Arc<dyn Disk>,
    /// The log's own folder.
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    /// Size of a new file.
    pub(crate) bytes: u64,
    pub(crate) fail: Arc<FailPoints>,
    /// Who makes spares; without it they are made where they are asked for.
    pub(crate) housekeeper: Option<Arc<Housekeeper>>,
}

/// The log of one data folder.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
    bytes: u64,
    fail: Arc<FailPoints>,
    spares: Arc<Spares>,
    progress: Mutex<Progress>,
    /// A sync has ended.
    changed: Condvar,
}

/// How far the log is.
struct Progress {
    live: Live,
    current: Generation,
    /// Where the next record goes.
    offset: u64,
    /// Up to here the present file is synced.
    durable: u64,
    /// Sequence of the last record.
    sequence: u64,
    /// Sequence of the last record that would survive a power cut.
    synced: u64,
    is_syncing: bool,
    /// Callers that wait for a sync that somebody else runs.
    waiting: usize,
    /// Why nothing more is appended.
    full: Option<Fault>,
    /// Why nothing more is appended or synced.
    failed: Option<Fault>,
}

/// Why a batch was not appended.
enum Refusal {
    /// There is no room for it, and nothing was written.
    Full(Fault),
    /// A write or a sync failed.
    Failed(Fault),
}

impl<E: Into<Fault>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Progress {
    fn new(live: Live, current: Generation, (offset, sequence): (u64, u64)) -> Self {
        Self {
            live,
            current,
            offset,
            durable: offset,
            sequence,
            synced: sequence,
            is_syncing: false,
            waiting: 0,
            full: None,
            failed: None,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// The number of the file after this one.
fn after(number: u32) -> Result<u32, Fault> {
    number.checked_add(1).ok_or_else(|| Fault::corrupt(format!("file {number} is the last that a log can have")))
}

/// Refuses what a new file of the log does not hold: what must be kept, and a batch behind it.
fn check_room(bytes: u64, state: u64, batch: u64) -> Result<(), Fault> {
    if FIRST_OFFSET.saturating_add(state).saturating_add(batch) <= bytes {
        return Ok(());
    }
    let text = format!(
        "the log is full: what it must keep takes {state} bytes, what comes next {batch}, and a file of it has {bytes} \
         with a header of {FIRST_OFFSET}; log_bytes sets the size"
    );
    Err(Fault::Failed(text))
}

impl Log {
    /// Writes a batch behind those that are there.
    pub(crate) fn append(&self, entries: &[Entry], blocks: &[KeptBlock]) -> Result<(), Fault> {
        let record = Unsealed::new(entries.iter(), blocks.iter());
        let mut progress = self.progress.lock();
        progress.check()?;
        progress.full.clone().map_or(Ok(()), Err)?;
        if entries.is_empty() && blocks.is_empty() {
            return Ok(());
        }
        let written = record.map_err(Refusal::Full).and_then(|record| self.write(&mut progress, record));
        match written {
            Ok(()) => {
                progress.live.append(entries, blocks);
                Ok(())
            }
            Err(Refusal::Full(fault)) => {
                tracing::error!(%fault, "the log takes nothing more");
                Err(progress.full.insert(fault).clone())
            }
            Err(Refusal::Failed(fault)) => Err(self.poison(&mut progress, fault)),
        }
    }

    fn write(&self, progress: &mut Progress, record: Unsealed) -> Result<(), Refusal> {
        let length = record.length();
        if progress.offset.saturating_add(length) > progress.current.header.size {
            self.roll(progress, length)?;
        }
        let (current, offset) = (&progress.current, progress.offset);
        let sequence = progress.sequence.saturating_add(1);
        let bytes = record.seal(current.header.salt, sequence, progress.durable, progress.live.mark);
        self.fail.hit("log.append.before_write").map_err(Fault::Failed)?;
        if self.fail.is_armed("log.append.partial") {
            current.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            self.fail.hit("log.append.partial").map_err(Fault::Failed)?;
        }
        current.file.write_at(&bytes, offset)?;
        self.fail.hit("log.append.after_write").map_err(Fault::Failed)?;
        metrics::LOG_APPENDED.increment();
        metrics::LOG_BYTES.add(length);
        progress.offset = offset.saturating_add(length);
        progress.sequence = sequence;
        Ok(())
    }

    /// Goes on in a new file, which begins with everything that must be kept; a batch of `batch` bytes fits behind it.
    fn roll(&self, progress: &mut Progress, batch: u64) -> Result<(), Refusal> {
        let live = &progress.live;
        let state = Unsealed::new(live.entries.iter(), live.blocks.iter()).map_err(Refusal::Full)?;
        let state = state.first(live.is_lost);
        check_room(self.bytes, state.length(), batch).map_err(Refusal::Full)?;
        let number = after(progress.current.header.number).map_err(Refusal::Full)?;
        let spare = self.spares.take().map_err(|fault| {
            Refusal::Full(Fault::Failed(format!("the log is full, and there is no spare file for it: {fault}")))
        })?;
        let sequence = progress.sequence.saturating_add(1);
        let parts = (&*self.disk, &*self.dir, &*self.fail);
        let what = (state, sequence, live.mark);
        let (current, end) = file::begin(parts, (self.identity, number, self.bytes), what, spare)?;
        let old = std::mem::replace(&mut progress.current, current);
        (progress.offset, progress.durable) = (end, end);
        (progress.sequence, progress.synced) = (sequence, sequence);
        self.changed.notify_all();
        self.spares.prepare([old.path]);
        Ok(())
    }

    /// Returns when everything appended before the call would survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        let mut progress = self.progress.lock();
        let target = progress.sequence;
        loop {
            progress.check()?;
            if progress.synced >= target {
                return Ok(());
            }
            if !progress.is_syncing {
                break;
            }
            progress.waiting += 1;
            self.changed.wait(&mut progress);
            progress.waiting -= 1;
        }
        progress.is_syncing = true;
        let (sequence, offset) = (progress.sequence, progress.offset);
        let (number, file) = (progress.current.header.number, Arc::clone(&progress.current.file));
        drop(progress);
        let sync = || {
            self.fail.hit("log.sync.before").map_err(Fault::Failed)?;
            file.sync()?;
            self.fail.hit("log.sync.after").map_err(Fault::Failed)
        };
        let outcome = sync();
        let mut progress = self.progress.lock();
        progress.is_syncing = false;
        if outcome.is_ok() {
            progress.synced = progress.synced.max(sequence);
            if progress.current.header.number == number {
                progress.durable = progress.durable.max(offset);
            }
        }
        let outcome = outcome.and_then(|()| progress.check()).map_err(|fault| self.poison(&mut progress, fault));
        self.changed.notify_all();
        outcome
    }

    /// Ends a run in order: one more record, empty, says of all before it that they were synced.
    ///
    /// Without it damage of the last record could not be told from one that was being written when the power went.
    pub(crate) fn conclude(&self) -> Result<(), Fault> {
        self.sync()?;
        let record = Unsealed::new(std::iter::empty(), std::iter::empty())?;
        let mut progress = self.progress.lock();
        progress.check()?;
        progress.full.clone().map_or(Ok(()), Err)?;
        match self.write(&mut progress, record) {
            Ok(()) => drop(progress),
            Err(Refusal::Full(fault)) => return Err(fault),
            Err(Refusal::Failed(fault)) => return Err(self.poison(&mut progress, fault)),
        }
        self.sync()
    }

    /// Notes up to where the store holds the chain.
    pub(crate) fn forget(&self, mark: Mark) {
        self.progress.lock().live.forget(mark);
    }

    /// Ends the log with its first failure.
    fn poison(&self, progress: &mut Progress, fault: Fault) -> Fault {
        if progress.failed.is_none() {
            tracing::error!(%fault, "the log takes nothing more");
        }
        let first = progress.failed.get_or_insert(fault).clone();
        self.changed.notify_all();
        first
    }

    /// Callers that wait for a sync that somebody else runs.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.progress.lock().waiting
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Progress { sequence, synced, waiting, .. } = &*self.progress.lock();
        let state = (sequence, synced, waiting);
        f.debug_struct("Log").field("dir", &self.dir).field("sequence, synced, waiting", &state).finish_non_exhaustive()
    }
}

/// The log as the rules see it; keeps the data folder locked while it lives.
pub(crate) struct Port {
    pub(crate) log: Arc<Log>,
    pub(crate) _inner: Arc<Inner>,
}

impl Journal for Port {
    fn append(&self, entries: &[Entry], blocks: &[KeptBlock]) -> Result<(), StoreError> {
        Ok(self.log.append(entries, blocks)?)
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(self.log.sync()?)
    }

    fn forget_below(&self, epoch: Epoch, slot: Slot, height: Height) {
        self.log.forget(Mark { epoch, slot, height });
    }
}

/// What looking at a log showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Whole records.
    pub(crate) records: u64,
    /// Bytes behind them, which were being written when a process ended.
    pub(crate) unfinished_bytes: u64,
    /// Name of the file that is damaged, the offset, and how.
    pub(crate) damage: Option<(String, u64, String)>,
}

/// Reads the log in a folder; nothing is changed.
pub(crate) fn look(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<Looked, OpenError> {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    if !disk.list(dir).is_ok_and(|names| !names.is_empty()) {
        return Ok(Looked::default());
    }
    let found = scan::folder(disk, dir, Some(identity))?;
    let mut looked = Looked::default();
    let mut end = 0;
    if let Some(newest) = &found.newest {
        end = count(newest.end);
        (looked.bytes, looked.records) = (count(newest.bytes.len()), count(newest.records));
        looked.unfinished_bytes = count(newest.used.saturating_sub(newest.end));
    }
    looked.damage = found.damage.map(|what| {
        looked.unfinished_bytes = 0;
        let name = found.numbers.last().map(|number| file::path(dir, *number));
        let name = name.as_deref().and_then(Path::file_name).unwrap_or_default();
        (name.to_string_lossy().into_owned(), end, what)
    });
    Ok(looked)
}

/// The log's folder inside a data folder.
pub(crate) fn folder_in(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small random numbers; counts are printed")]
mod tests;
