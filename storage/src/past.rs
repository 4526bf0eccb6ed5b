//! The state's tries at heights whose nodes are replaced: proofs of what was.
//!
//! Every committed block leaves behind what it replaced: the branches, as far as they changed, and the leaves. That
//! waits in memory for the next checkpoint, which writes it into a file before it replaces the nodes in the tables. A
//! trie at an old height is then read like the newest one, through a source that asks the files first: of all that
//! stood at a place before blocks above the height, the oldest is what was there. A node is checked against the hash
//! that leads to it, from the header's root on, so no file can make a proof say what was not.
//!
//! ```text
//! commit -> note: two tries, changes -> collect -> rows in memory
//! checkpoint -> seal -> past/FIRST-LAST.past (see `file`), merged sixteen at a time; unlinked behind the window
//! proof at H -> PastState (see `read`): entries above H, oldest first; else the tables
//! ```
//!
//! Files cover the heights up to the newest checkpoint without a gap. What follows a gap counts, what lies before it is
//! removed. A damaged file costs the proofs that need it, and nothing else; so does a disk without room for one.

mod collect;
mod entry;
pub(crate) mod file;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
mod read;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small random numbers; seeds are printed")]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use engine::types::{Height, StateChanges};
use parking_lot::{Mutex, RwLock};
use tracing::{info, warn};

pub(crate) use self::read::PastState;
use self::{
    collect::{Was, replaced},
    file::{PastFile, Row},
};
use crate::{error::Fault, index::Files, snapshot::Snapshots, trie::state::StateTrie};

/// Blocks that may wait; the commit of a further one takes them in itself.
const WAITING_MAX: usize = 64;
/// Files of one class that become one of the next.
const MERGED_TOGETHER: usize = 16;
/// Files of this class are not merged any more: 256 blocks and more.
const CLASS_MAX: u32 = 2;

/// A committed block of which nothing is taken down yet.
struct Waiting {
    height: Height,
    before: Arc<StateTrie>,
    after: Arc<StateTrie>,
    changes: Arc<StateChanges>,
}

/// What blocks since the last checkpoint replaced.
#[derive(Default)]
struct Rows {
    rows: Vec<Was>,
    /// The first and the last of those blocks.
    range: Option<(Height, Height)>,
}

/// What was, as far back as the window.
pub(crate) struct Past {
    /// In blocks; 0 for nothing.
    window: u64,
    files: Files,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Held by whoever takes blocks in.
    rows: Mutex<Rows>,
    /// Oldest first, without gaps, up to the newest checkpoint.
    sealed: RwLock<Arc<Vec<Arc<PastFile>>>>,
}

impl Past {
    /// Opens what there is in the folder, which ends at the checkpoint's height.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn open(files: Files, window: u64, applied: Height) -> Result<Self, Fault> {
        let mut found = Vec::new();
        for name in files.disk.list(&files.dir)? {
            let whole = file::heights(&name).filter(|(_, last)| window > 0 && *last <= applied);
            match whole.map(|range| PastFile::open(&files, range)) {
                Some(Ok(file)) => found.push(Arc::new(file)),
                outcome => {
                    if let Some(Err(reason)) = outcome {
                        warn!(%name, %reason, "what was there before is lost; proofs go back less far");
                    }
                    files.disk.remove(&files.dir.join(&name))?;
                }
            }
        }
        // Of two that end together the longer one has taken the other in.
        found.sort_unstable_by_key(|file| (Reverse(file.last), file.first));
        let (mut kept, mut end) = (VecDeque::new(), applied);
        for file in found {
            if file.last == end {
                end = Height(file.first.0.saturating_sub(1));
                kept.push_front(file);
            } else {
                files.disk.remove(&file.path)?;
            }
        }
        if window > 0 {
            info!(from = end.0, "proofs");
        }
        let sealed = RwLock::new(Arc::new(Vec::from(kept)));
        Ok(Self { window, files, waiting: Mutex::default(), rows: Mutex::default(), sealed })
    }

    /// Notes a committed block; heights rise. Says whether somebody should [`Self::absorb`] it.
    pub(crate) fn note(
        &self,
        height: Height,
        (before, after): (&Arc<StateTrie>, &Arc<StateTrie>),
        changes: &Arc<StateChanges>,
    ) -> Asked {
        if self.window == 0 {
            return Asked::Nothing;
        }
        let (before, after, changes) = (Arc::clone(before), Arc::clone(after), Arc::clone(changes));
        let mut waiting = self.waiting.lock();
        waiting.push_back(Waiting { height, before, after, changes });
        if waiting.len() > WAITING_MAX { Asked::Now } else { Asked::Soon }
    }

    /// Takes down what waiting blocks replaced.
    pub(crate) fn absorb(&self, source: &Snapshots) {
        let mut rows = self.rows.lock();
        loop {
            let next = self.waiting.lock().pop_front();
            let Some(Waiting { height, before, after, changes }) = next else { return };
            match replaced(height, (&before, &after), &changes, source) {
                Ok(mut replaced) => {
                    let first = rows.range.map_or(height, |(first, _)| first);
                    rows.range = Some((first, height));
                    rows.rows.append(&mut replaced);
                }
                Err(error) => {
                    warn!(%height, %error, "what a block replaced is not known; proofs begin after it");
                    *rows = Rows::default();
                }
            }
        }
    }

    /// Writes what blocks up to `height` replaced, before a checkpoint of that height replaces it in the tables.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn seal(&self, height: Height) -> Result<(), Fault> {
        let mut rows = self.rows.lock();
        let Some((first, last)) = rows.range.filter(|(first, _)| *first <= height) else { return Ok(()) };
        let (sealed, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut rows.rows).into_iter().partition(|was| was.height() <= height);
        let mut sealed: Vec<Row> = sealed.into_iter().filter_map(Was::row).collect();
        sealed.sort_unstable();
        *rows = Rows { rows: kept, range: (last > height).then_some((height.next(), last)) };
        let full = self.files.place.check(file::bytes_of(&sealed));
        // What lies before a gap leads nowhere.
        if full.is_err() || self.sealed.read().last().is_some_and(|last| last.last.next() != first) {
            let gone = std::mem::take(&mut *self.sealed.write());
            gone.iter().try_for_each(|file| self.files.disk.remove(&file.path))?;
        }
        if let Err(full) = full {
            warn!(%full, %height, "what blocks replaced is not kept; proofs begin here");
            return Ok(());
        }
        let file = PastFile::write(&self.files, (first, height), sealed.into_iter().map(Ok))?;
        let mut files = self.sealed.write();
        *files = Arc::new(files.iter().cloned().chain([Arc::new(file)]).collect());
        Ok(())
    }

    /// Unlinks what lies behind the window of a checkpoint's height, and merges small files; the checkpoint alone calls
    /// this and [`Self::seal`].
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn tidy(&self, applied: Height) -> Result<(), Fault> {
        let floor = applied.0.saturating_sub(self.window);
        let mut files = self.sealed.read().to_vec();
        let kept = files.split_off(files.iter().take_while(|file| file.last.0 <= floor).count());
        let (mut gone, mut files) = (files, kept);
        for class in 0..CLASS_MAX {
            let run = files.iter().rev().take_while(|file| class_of(file) <= class).count();
            let parts = &files[files.len() - run..];
            let is_due = parts.iter().filter(|file| class_of(file) == class).count() >= MERGED_TOGETHER;
            if is_due && self.files.place.check(parts.iter().map(|file| file.bytes()).sum()).is_ok() {
                let range = (parts[0].first, parts[run - 1].last);
                let merged = PastFile::write(&self.files, range, Merge::new(parts)?)?;
                gone.extend(files.drain(files.len() - run..));
                files.push(Arc::new(merged));
            }
        }
        if !gone.is_empty() {
            *self.sealed.write() = Arc::new(files);
        }
        gone.iter().try_for_each(|file| Ok(self.files.disk.remove(&file.path)?))
    }

    /// The lowest height that has proofs, if the newest checkpoint is at `applied`.
    pub(crate) fn lowest(&self, applied: Height) -> Height {
        let sealed = self.sealed.read();
        let first = sealed.first().map_or(applied, |file| Height(file.first.0.saturating_sub(1)));
        first.max(Height(applied.0.saturating_sub(self.window)))
    }

    /// The tries at a height, `None` if that is above the newest checkpoint or behind the window.
    pub(crate) fn at(&self, height: Height, snapshots: &Snapshots) -> Option<PastState> {
        let snapshot = snapshots.current();
        let sealed = Arc::clone(&self.sealed.read());
        let files: Vec<_> = sealed.iter().filter(|file| file.last > height).cloned().collect();
        let begins = files.first().map_or(snapshot.applied, |file| Height(file.first.0.saturating_sub(1)));
        let is_kept = begins <= height && height <= snapshot.applied;
        let newest = Snapshots::pinned(Arc::clone(&snapshot));
        is_kept.then_some(PastState { height, snapshot, newest, files })
    }
}

/// How many digits the number of its blocks has, to the base of sixteen, after the first.
fn class_of(file: &PastFile) -> u32 {
    let blocks = file.last.0.saturating_sub(file.first.0).saturating_add(1);
    blocks.ilog2() / MERGED_TOGETHER.ilog2()
}

/// What a noted block asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Soon,
    Now,
}

/// Rows of several files, in order of key.
struct Merge<'f> {
    parts: Vec<file::Rows<'f>>,
    next: BinaryHeap<Reverse<(Row, usize)>>,
}

impl<'f> Merge<'f> {
    fn new(files: &'f [Arc<PastFile>]) -> Result<Self, Fault> {
        let parts = files.iter().map(|file| file.rows_from(&[])).collect();
        let mut merge = Self { parts, next: BinaryHeap::new() };
        (0..files.len()).try_for_each(|part| merge.pull(part))?;
        Ok(merge)
    }

    fn pull(&mut self, part: usize) -> Result<(), Fault> {
        if let Some(row) = self.parts[part].next().transpose()? {
            self.next.push(Reverse((row, part)));
        }
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((row, part)) = self.next.pop()?;
        Some(self.pull(part).map(|()| row))
    }
}
