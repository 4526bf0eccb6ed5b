//! What a log must still tell: everything that was appended, less what may be forgotten.

use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::Recovered,
    types::{Epoch, SignedHeader, Slot},
};

use super::record::{Batch, Mark};

/// Entries and blocks in the order in which they were appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) mark: Mark,
    /// The log is lost, and nothing was regained since.
    pub(super) is_lost: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) blocks: Vec<KeptBlock>,
}

impl Live {
    /// At and below this nothing is signed any more.
    pub(super) fn floor(&self) -> Option<(Epoch, Slot)> {
        self.entries.iter().filter_map(Entry::floor).max()
    }

    /// Takes over what was just appended.
    pub(super) fn append(&mut self, entries: &[Entry], blocks: &[KeptBlock]) {
        self.is_lost &= !entries.iter().any(|entry| matches!(entry, Entry::Regained { .. }));
        self.entries.extend_from_slice(entries);
        self.blocks.extend_from_slice(blocks);
    }

    /// Takes over what was read.
    pub(super) fn apply(&mut self, batch: Batch) {
        let Batch { is_first, is_lost, mark, entries, blocks } = batch;
        if is_first {
            *self = Self { mark, is_lost, entries, blocks };
        } else {
            self.forget(mark);
            self.append(&entries, &blocks);
        }
    }

    /// Forgets what the store's chain makes needless; a mark below the one that is known changes nothing.
    pub(super) fn forget(&mut self, mark: Mark) {
        let place = (self.mark.epoch, self.mark.slot).max((mark.epoch, mark.slot));
        let mark = Mark { epoch: place.0, slot: place.1, height: self.mark.height.max(mark.height) };
        if std::mem::replace(&mut self.mark, mark) == mark {
            return;
        }
        let newest = |of: fn(&Entry) -> bool| {
            let held = self.entries.iter().enumerate().filter(|(_, entry)| of(entry));
            held.max_by_key(|(at, entry)| (entry.place(), *at)).map(|(at, _)| at)
        };
        let floors = [
            newest(|entry| matches!(entry, Entry::Floor { .. })),
            newest(|entry| matches!(entry, Entry::Regained { .. })),
        ];
        let mut at = 0;
        self.entries.retain(|entry| {
            let is_newest_floor = floors.contains(&Some(at));
            at += 1;
            match entry {
                Entry::EpochStart { epoch, .. } => *epoch >= place.0,
                _ => is_newest_floor || entry.place() >= place,
            }
        });
        self.forget_blocks(self.mark);
    }

    /// Forgets the blocks up to a height, and the tail headers up to a slot: those have the height of the last block of
    /// their epoch, and the next one rests on them.
    pub(super) fn forget_blocks(&mut self, through: Mark) {
        self.blocks.retain(|KeptBlock { signed: SignedHeader { header, .. }, block }| match block {
            Some(_) => header.height() > through.height,
            None => (header.epoch(), header.slot()) > (through.epoch, through.slot),
        });
    }

    /// What is given to the node.
    pub(super) fn recovered(&self) -> Recovered {
        Recovered { entries: self.entries.clone(), blocks: self.blocks.clone(), is_lost: self.is_lost }
    }
}
