//! Which wishes to vote are put to the rules.

use std::time::Duration;

use super::{
    blocks::Known,
    event::Output,
    journal::Entry,
    machine::Machine,
    rules::{Ballot, Candidate, Mark, SlotRecord},
    timers::AHEAD_MAX_MS,
};
use crate::types::{Height, Message, Slot, Vote, vote::Kind};

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
        on_time.map(Known::candidate).collect()
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
        let is_open =
            |record: &SlotRecord| record.my_finalize.is_none() && record.finalization.is_none() && !record.my_skip;
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

    /// Signs what the rules allowed, and counts it.
    pub(super) fn sign(&mut self, ballot: Ballot) {
        let Mark::Vote(statement) = ballot.mark() else { return };
        let (Some(me), Some(identity)) = (self.me, &self.settings.identity) else { return };
        let signature = identity.signer.sign(self.settings.domain.vote(ballot.epoch(), &statement));
        let vote = Vote { epoch: ballot.epoch(), statement, voter: me, signature };
        self.remember_signed(Entry::Vote(vote));
        if let Some(id) = statement.id().filter(|_| statement.kind() != Kind::Skip) {
            self.keep_bodies(id);
        }
        self.emit_after_sync(Output::Broadcast(Message::Vote(vote)));
        self.changed = true;
        self.count(vote);
    }
}
