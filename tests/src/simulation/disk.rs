//! One node's disk: what was written, and what of it a power cut leaves.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use engine::{
    ordering::{event::Anchor, journal::Entry},
    types::{Certificate, SignedHeader},
};

/// A block's body.
#[derive(Clone, Debug)]
pub struct Body {
    /// Header and leader's signature.
    pub block: SignedHeader,
    /// It has no transactions.
    pub empty: bool,
    /// It survives a power cut.
    pub is_durable: bool,
}

/// A log, bodies, and the finalized chain.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Lines that survive.
    pub log: Vec<Entry>,
    /// Lines that were written since the last sync, with the bodies that belong to them.
    pub unsynced: Vec<(Vec<Entry>, Vec<B256>)>,
    /// Bodies by block.
    pub bodies: BTreeMap<B256, Body>,
    /// Finalized blocks that survive, lowest first, each with what made it final.
    pub chain: Vec<(Anchor, Certificate)>,
    /// Tail headers of epochs that ended.
    pub tails: BTreeSet<B256>,
    /// The log is gone, old, or damaged, and what it told was not regained.
    pub is_log_lost: bool,
    synced: u64,
}

impl Disk {
    /// Batches written so far.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.synced + self.unsynced.len() as u64
    }

    /// Writes a batch of lines, with the bodies that belong to it.
    pub fn write(&mut self, entries: Vec<Entry>, bodies: Vec<B256>) {
        self.unsynced.push((entries, bodies));
    }

    /// The first `batches` batches survive.
    pub fn sync_through(&mut self, batches: u64) {
        self.sync(usize::try_from(batches.saturating_sub(self.synced)).unwrap_or(usize::MAX));
    }

    fn sync(&mut self, through: usize) {
        self.synced += through.min(self.unsynced.len()) as u64;
        for (entries, bodies) in self.unsynced.drain(..through.min(self.unsynced.len())) {
            self.is_log_lost &= !entries.iter().any(|entry| matches!(entry, Entry::Regained { .. }));
            self.log.extend(entries);
            for id in bodies {
                if let Some(body) = self.bodies.get_mut(&id) {
                    body.is_durable = true;
                }
            }
        }
        if self.log.len() > 4_096 {
            self.compact();
        }
    }

    /// A power cut: of what was not synced a first part may survive, and of the batch after it some `lines`, which are
    /// written behind its bodies.
    pub fn cut(&mut self, survive: usize, lines: usize) {
        self.sync(survive);
        if let Some((entries, _)) = self.unsynced.first_mut().filter(|_| lines > 0) {
            // What a reader finds behind a torn line it cannot trust.
            entries.truncate(lines);
            self.sync(1);
        }
        self.unsynced.clear();
        self.bodies.retain(|_, body| body.is_durable);
    }

    /// The log is whole up to this line only, and known to be damaged behind it.
    pub fn damage(&mut self, lines: usize) {
        self.log.truncate(lines);
        self.is_log_lost = true;
    }

    /// A copy of what would survive a power cut.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.unsynced.clear();
        copy.bodies.retain(|_, body| body.is_durable);
        copy
    }

    /// Drops what lies below the floor.
    fn compact(&mut self) {
        let Some(floor) = self.log.iter().filter_map(Entry::floor).max() else { return };
        self.log.retain(|entry| match entry {
            Entry::Vote(vote) => (vote.epoch, vote.statement.slot()) >= floor,
            Entry::Proposal { epoch, slot, .. } => (*epoch, *slot) >= floor,
            Entry::Certificate(held) => (held.epoch, held.statement.slot()) >= floor,
            Entry::Floor { epoch, slot } | Entry::Regained { epoch, slot } => (*epoch, *slot) == floor,
            Entry::EpochStart { .. } => true,
        });
    }
}
