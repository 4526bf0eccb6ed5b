//! Half the index of one segment: a table in memory, or a file.

use engine::types::Height;
use parking_lot::RwLock;
use tracing::warn;

use super::{
    collect::Collector,
    key::{Key, Posting},
    sealed::{Files, Half, IndexFile, Name},
    table::Table,
};
use crate::place::Room;

/// Postings handed out of memory at a time: about as many as a page of a file holds.
const POSTINGS_MAX: usize = 1_024;

/// Where the postings are.
pub(crate) enum Content {
    /// Of a segment that is not full, or whose file is not written.
    Table(Table),
    File(IndexFile),
}

impl Content {
    /// Postings of a key from `at` on, in order: some if there are any.
    pub(crate) fn seek(&self, key: Key, at: Posting) -> Result<Vec<Posting>, String> {
        match self {
            Self::Table(table) => {
                let postings = table.get(key);
                let start = postings.partition_point(|posting| *posting < at);
                Ok(postings[start..].iter().take(POSTINGS_MAX).copied().collect())
            }
            Self::File(file) => file.seek(key, at),
        }
    }

    /// The last posting of a key up to `at`.
    pub(crate) fn last(&self, key: Key, at: Posting) -> Result<Option<Posting>, String> {
        match self {
            Self::Table(table) => {
                let postings = table.get(key);
                let end = postings.partition_point(|posting| *posting <= at);
                Ok(postings[..end].last().copied())
            }
            Self::File(file) => file.last(key, at),
        }
    }
}

/// Half the index of one segment.
pub(crate) struct Part {
    half: Half,
    /// Number of the segment.
    pub(crate) segment: u32,
    /// Its first height.
    pub(crate) first: Height,
    content: RwLock<Content>,
}

impl Part {
    pub(crate) const fn new((half, segment, first): Name, content: Content) -> Self {
        Self { half, segment, first, content: RwLock::new(content) }
    }

    /// What its file is called by.
    pub(crate) const fn name(&self) -> Name {
        (self.half, self.segment, self.first)
    }

    /// Takes in what was collected from blocks above all that it holds.
    pub(crate) fn insert(&self, collector: &mut Collector) {
        if let Content::Table(table) = &mut *self.content.write() {
            collector.drain_into(self.half, table);
        }
    }

    /// Asks for something; the reason why there is no answer.
    pub(crate) fn ask<R>(&self, question: impl FnOnce(&Content) -> Result<R, String>) -> Result<R, String> {
        question(&self.content.read())
    }

    /// Whether the postings are in memory.
    pub(crate) fn is_table(&self) -> bool {
        matches!(&*self.content.read(), Content::Table(_))
    }

    /// Writes the file of a segment that is full, if the disk has so much room; readers are served meanwhile. What
    /// cannot be written stays in memory.
    pub(crate) fn seal(&self, files: &Files, room: Room) {
        let written = match &*self.content.read() {
            Content::Table(table) => files.write(self.name(), table, room),
            Content::File(_) => return,
        };
        match written {
            Ok(file) => self.replace(Content::File(file)),
            Err(error) => warn!(segment = self.segment, %error, "an index stays in memory"),
        }
    }

    /// Answers from elsewhere henceforth.
    pub(crate) fn replace(&self, content: Content) {
        // A table has millions of entries: nobody waits for its end.
        let old = std::mem::replace(&mut *self.content.write(), content);
        drop(old);
    }
}
