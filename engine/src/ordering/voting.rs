//! Which wishes to vote are put to the rules.

use std::time::Duration;

use super::{event::Output, machine::Machine, rules::Candidate, timers::AHEAD_MAX_MS};
use crate::types::{Height, Slot};

impl Machine {
    /// Final heights that wait for the disk are too many to go on.
    pub(super) const fn is_behind_disk(&self) -> bool {
        let Height(durable) = self.durable;
        self.tip.header.height.saturating_sub(durable) >= self.settings.in_flight_max
    }

    /// Asks the rules for every vote that may be due.
    pub(super) fn vote(&mut self) {
        self.finalize();
        if self.me.is_none() || self.amnesia.is_some() || self.halted || self.is_behind_disk() {
            return;
        }
        for candidate in self.candidates() {
            if let Ok(ballot) = self.record.notarize(&candidate) {
                self.sign(ballot);
            }
        }
    }

    /// First proposals that were not voted on and are not decided.
    fn candidates(&self) -> Vec<Candidate> {
        let is_open = |slot: Slot| {
            let record = self.record.slot(slot);
            record.my_notarize.is_none() && record.notarization.is_none() && record.finalization.is_none()
        };
        let open = self.blocks.firsts().filter(|known| is_open(known.header.slot()));
        let on_time = open.filter(|known| self.is_on_time(known.header.timestamp_ms));
        on_time.map(super::blocks::Known::candidate).collect()
    }

    fn is_on_time(&self, timestamp_ms: u64) -> bool {
        timestamp_ms <= self.now.wall_ms.saturating_add(AHEAD_MAX_MS)
    }

    /// When the first block that is ahead of our clock will not be so any more.
    pub(super) fn early_block_at(&self) -> Option<Duration> {
        let early = self.blocks.firsts().filter(|known| !self.is_on_time(known.header.timestamp_ms));
        let earliest = early.map(|known| known.header.timestamp_ms).min()?;
        let ahead = earliest.saturating_sub(self.now.wall_ms).saturating_sub(AHEAD_MAX_MS);
        Some(self.now.monotonic.saturating_add(Duration::from_millis(ahead)))
    }

    fn finalize(&mut self) {
        let is_open = |record: &super::rules::SlotRecord| {
            record.my_finalize.is_none() && record.finalization.is_none() && !record.my_skip
        };
        let notarized = self.record.slots().filter(|(_, record)| is_open(record));
        let notarized: Vec<_> = notarized.filter_map(|(slot, record)| Some((slot, record.notarization?))).collect();
        for (slot, id) in notarized {
            let Some(valid) = self.blocks.get(&id).and_then(|known| known.valid) else { continue };
            if !valid {
                return self.halt(format!("block {id} of slot {slot} is notarized, and invalid here"));
            }
            if self.me.is_none() || self.amnesia.is_some() || self.is_behind_disk() {
                return;
            }
            if let Ok(ballot) = self.record.finalize(slot, id, Some(valid)) {
                self.sign(ballot);
            }
        }
    }

    /// The block that is being executed.
    pub(super) const fn executing(&self) -> Option<alloy_primitives::B256> {
        match &self.job {
            Some(super::leading::Job::Execute(id)) => Some(*id),
            _ => None,
        }
    }

    /// An execution is done.
    pub(super) fn executed(&mut self, id: alloy_primitives::B256, verdict: Result<(), String>) {
        if self.executing() == Some(id) {
            self.job = None;
        }
        self.changed = true;
        let Some(known) = self.blocks.get_mut(&id) else { return };
        match verdict {
            Ok(()) => known.valid = Some(true),
            Err(reason) => {
                known.valid = Some(false);
                let slot = known.header.slot();
                if self.is_certified(slot, id) {
                    self.halt(format!("block {id} of slot {slot} is certified, and invalid here: {reason}"));
                }
            }
        }
    }

    /// Gives the executor the next block: those that can still be voted for first, by slot, then what is certified
    /// or left over.
    pub(super) fn execute_next(&mut self) {
        if self.halted {
            return;
        }
        self.judge();
        if self.job.is_some() {
            return;
        }
        let frontier = self.record.frontier();
        let is_ready = |known: &&super::blocks::Known| {
            known.valid.is_none() && known.empty.is_some() && known.mix.is_some() && self.is_valid(&known.parent)
        };
        let rank = |known: &super::blocks::Known| {
            let (slot, record) = (known.header.slot(), self.record.slot(known.header.slot()));
            let is_certified = record.notarization == Some(known.id) || record.finalization == Some(known.id);
            let is_live = slot >= frontier && !record.my_skip;
            (!(is_certified || is_live), slot)
        };
        let next = self.blocks.iter().filter(is_ready).min_by_key(|known| rank(known));
        let Some((id, parent)) = next.map(|known| (known.id, known.parent.id)) else { return };
        self.job = Some(super::leading::Job::Execute(id));
        self.emit(Output::Execute { id, parent });
    }

    /// Whether a block was executed here and is valid.
    pub(super) fn is_valid(&self, parent: &super::rules::Parent) -> bool {
        parent.id == self.tip.id || self.blocks.get(&parent.id).is_some_and(|known| known.valid == Some(true))
    }
}
