//! A log in memory that can lose what was not synced, and be told to fail.

use parking_lot::Mutex;

use crate::{
    ordering::journal::{Entry, KeptBlock},
    ports::{Journal, Recovered, StoreError},
    types::{Epoch, Height, Slot},
};

#[derive(Debug, Default)]
struct Lines {
    recovered: Recovered,
    /// Entries and blocks of these that would survive a power cut.
    synced: (usize, usize),
    is_failing: bool,
}

/// Remembers everything; forgets nothing.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Lines>);

impl MemoryJournal {
    /// From here on every call fails.
    pub fn fail(&self) {
        self.0.lock().is_failing = true;
    }

    /// What a start after a power cut would find.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        let lines = self.0.lock();
        let (entries, blocks) = lines.synced;
        Recovered {
            entries: lines.recovered.entries.iter().take(entries).cloned().collect(),
            blocks: lines.recovered.blocks.iter().take(blocks).cloned().collect(),
            is_lost: false,
        }
    }
}

impl Journal for MemoryJournal {
    fn append(&self, entries: &[Entry], blocks: &[KeptBlock]) -> Result<(), StoreError> {
        let mut lines = self.0.lock();
        if lines.is_failing {
            return Err(StoreError::Failed("told to fail".to_owned()));
        }
        lines.recovered.entries.extend_from_slice(entries);
        lines.recovered.blocks.extend_from_slice(blocks);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut lines = self.0.lock();
        if lines.is_failing {
            return Err(StoreError::Failed("told to fail".to_owned()));
        }
        lines.synced = (lines.recovered.entries.len(), lines.recovered.blocks.len());
        Ok(())
    }

    fn forget_below(&self, _epoch: Epoch, _slot: Slot, _height: Height) {}
}
