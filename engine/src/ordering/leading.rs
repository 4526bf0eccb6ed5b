//! What a leader does: builds on the newest block executed here, and proposes at its own pace.
//!
//! ```text
//! window entered, base executed   -> Build(kL) at once; built beforehand on the block of kL - 1 if that is the base
//! slot time since the last build  -> Build(kL + j) on the own block below, without waiting for its certificate
//! Built                           -> Adopt, sign, Persist, and after Synced the proposal leaves
//! ```

use std::time::Duration;

use alloy_primitives::B256;

use super::{
    event::{BuildOrder, Output},
    inbound::certificates_hash,
    jobs::Job,
    journal::Entry,
    machine::Machine,
    rules::{Mark, Parent},
};
use crate::types::{ConsensusHeader, Epoch, Message, Proposal, SignedHeader, Slot, vote::Kind};

/// A window that this validator leads.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    pub(super) window: u64,
    /// The next slot to propose in.
    next: Slot,
    /// The own block below it; `None` before the first.
    below: Option<Below>,
}

/// A block to build on, and what the pace counts from.
#[derive(Clone, Copy, Debug)]
struct Below {
    parent: Parent,
    /// When its build began, or when it arrived.
    since: Duration,
    empty: bool,
    is_own: bool,
}

/// A block that was built and not proposed yet.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    header: ConsensusHeader,
    parent: Parent,
    begun: Duration,
    empty: bool,
    is_cut: bool,
}

impl Lead {
    pub(super) const fn new(window: u64, first: Slot) -> Self {
        Self { window, next: first, below: None }
    }
}

impl Machine {
    /// Builds and proposes what is due.
    pub(super) fn lead(&mut self) {
        if self.me.is_none() || self.amnesia.is_some() || self.halted {
            return;
        }
        self.give_up_own_window();
        let Some((slot, below, may_send)) = self.next_own_slot() else { return };
        if let Some(ready) = self.ready.take() {
            if ready.header.slot() != slot || ready.parent != below.parent {
                // What it stands on lost; the executor drops it with its parent.
                self.changed = true;
                return;
            }
            if may_send {
                return self.propose(ready);
            }
            self.ready = Some(ready);
            return;
        }
        if self.now.monotonic >= self.due(&below).unwrap_or(Duration::MAX) {
            self.build(slot, &below);
        }
    }

    /// The slot to build for, what to build on, and whether the proposal may leave yet.
    fn next_own_slot(&self) -> Option<(Slot, Below, bool)> {
        if let Some(lead) = &self.lead {
            let end = self.first_slot(lead.window.saturating_add(1));
            if lead.next < end {
                let below = lead.below.or_else(|| self.below(self.record.base_of(lead.next)?));
                return below.filter(|below| self.is_valid(&below.parent)).map(|below| (lead.next, below, true));
            }
        }
        // The window after this one may be built for as soon as the last block of this one is executed.
        let next = self.first_slot(self.pacemaker.window()?.saturating_add(1));
        if Some(self.schedule.leader(next)) != self.me || self.barred == Some(next.0 / self.settings.window) {
            return None;
        }
        let last = self.blocks.first(Slot(next.0.saturating_sub(1)))?;
        let parent = Parent { slot: Some(last.header.slot()), id: last.id };
        let below = self.below(parent).filter(|below| self.is_valid(&below.parent))?;
        Some((next, below, false))
    }

    fn below(&self, parent: Parent) -> Option<Below> {
        if parent.id == self.tip.id {
            let since = if parent.slot.is_none() { Duration::ZERO } else { self.tip_arrived };
            let is_own = parent.slot.is_some() && Some(self.tip.header.proposer()) == self.me;
            return Some(Below { parent, since, empty: self.tip_empty, is_own });
        }
        let known = self.blocks.get(&parent.id)?;
        let is_own = Some(known.header.proposer()) == self.me;
        Some(Below { parent, since: known.arrived, empty: known.empty == Some(true), is_own })
    }

    /// When a build on this block is due; `None` if it waits for a transaction.
    fn due(&self, below: &Below) -> Option<Duration> {
        let timing = &self.settings.timing;
        // The first block of a window follows one whose build began a message delay before it arrived.
        let pace = if below.is_own { timing.slot_time } else { timing.slot_time / 2 };
        let after = match timing.idle_interval {
            _ if self.waiting => pace,
            Some(_) if !below.empty => pace,
            Some(idle) => idle,
            None => return None,
        };
        Some(below.since.saturating_add(after))
    }

    /// When the leader has something to do next.
    pub(super) fn lead_at(&self) -> Option<Duration> {
        if self.me.is_none() || self.amnesia.is_some() || self.job.is_some() || self.ready.is_some() {
            return None;
        }
        let (_, below, _) = self.next_own_slot()?;
        self.due(&below)
    }

    fn build(&mut self, slot: Slot, below: &Below) {
        if self.job.is_some() || self.is_behind_disk() {
            return;
        }
        let Some((parent, seed)) = self.parent_of(&below.parent) else { return };
        let last = self.last_height();
        let is_tail = self.is_last(parent);
        let height = if is_tail { last } else { parent.height.saturating_add(1) };
        let next_set_hash = match &self.next_set {
            _ if is_tail => parent.next_set_hash,
            _ if height != last => B256::ZERO,
            Some(next) => next.hash(),
            None => return,
        };
        let (Some(me), Some(identity)) = (self.me, &self.settings.identity) else { return };
        let share = self.settings.domain.hash(Kind::Seed, self.record.epoch(), slot, B256::ZERO);
        let seed_share = identity.signer.sign(share);
        let header = ConsensusHeader {
            chain_id: self.settings.domain.chain_id,
            epoch: self.record.epoch().0,
            slot: slot.0,
            height,
            parent_slot: below.parent.slot.unwrap_or_default().0,
            parent_id: below.parent.id,
            proposer: me.0,
            timestamp_ms: self.now.wall_ms.max(self.earliest_ms_on(parent)),
            seed_share,
            next_set_hash,
            block_hash: if is_tail { parent.block_hash } else { B256::ZERO },
            access_list_hash: if is_tail { parent.access_list_hash } else { B256::ZERO },
            ..ConsensusHeader::default()
        };
        let begun = self.now.monotonic;
        self.changed = true;
        if is_tail {
            self.ready = Some(Ready { header, parent: below.parent, begun, empty: true, is_cut: false });
            return;
        }
        let mix = super::chain::mix(seed, &seed_share);
        self.job = Some(Job::Build(slot));
        self.waiting = false;
        self.building = Some((below.parent, begun));
        let order = BuildOrder { header, mix, deadline: self.allowance.time() };
        self.emit(Output::Build(Box::new(order)));
    }

    /// A build is done.
    pub(super) fn built(&mut self, header: ConsensusHeader, empty: bool, more: bool) {
        self.changed = true;
        self.waiting |= more;
        if self.job != Some(Job::Build(header.slot())) {
            return;
        }
        self.job = None;
        let Some((parent, begun)) = self.building.take() else { return };
        if header.epoch() != self.record.epoch() {
            return;
        }
        let is_owed = self.next_own_slot().is_some_and(|(_, below, _)| {
            let idle = self.settings.timing.idle_interval;
            let owed_at = idle.map(|idle| below.since.saturating_add(if below.empty { idle } else { Duration::ZERO }));
            owed_at.is_some_and(|at| begun >= at)
        });
        // An empty block is wanted only where an idle chain owes one.
        if !empty || is_owed {
            self.ready = Some(Ready { header, parent, begun, empty, is_cut: more });
        }
    }

    fn propose(&mut self, ready: Ready) {
        let Ready { mut header, parent, begun, empty, is_cut } = ready;
        let slot = header.slot();
        let certificates = self.certificates_below(&header);
        header.certificates_hash = certificates_hash(&certificates);
        let id = header.id();
        let Ok(ballot) = self.record.propose(slot, id) else {
            // The window was given up here.
            self.lead = None;
            return;
        };
        let Mark::Proposal { .. } = ballot.mark() else { return };
        let Some(identity) = &self.settings.identity else { return };
        let epoch: Epoch = ballot.epoch();
        let signature = identity.signer.sign(self.settings.domain.hash(Kind::Proposal, epoch, slot, id));
        let is_tail = self.parent_of(&parent).is_some_and(|(below, _)| self.is_last(below));
        let block = SignedHeader { header: header.clone(), signature };
        if !is_tail {
            self.emit(Output::Adopt(Box::new(block.clone())));
        }
        self.insert(block, id, parent, Some(empty), (!is_tail).then_some(true));
        if let Some(known) = self.blocks.get_mut(&id) {
            (known.arrived, known.is_cut) = (begun, is_cut);
        }
        self.judge();
        self.remember_signed(Entry::Proposal { epoch, slot, id, header: Box::new(header.clone()), signature });
        self.keep_bodies(id);
        let proposal = Proposal { header, signature, certificates };
        self.emit_after_sync(Output::Broadcast(Message::Proposal(Box::new(proposal))));
        if let Some(lead) = &mut self.lead {
            lead.next = slot.next();
            let parent = Parent { slot: Some(slot), id };
            lead.below = Some(Below { parent, since: begun, empty, is_own: true });
        }
    }

    /// A leader that cannot propose in time says so, which spares the others its timer.
    fn give_up_own_window(&mut self) {
        let Some(lead) = self.lead.as_ref().filter(|lead| lead.below.is_none()) else { return };
        let first = lead.next;
        let Some((_, deadline)) = self.pacemaker.next() else { return };
        let timing = &self.settings.timing;
        let left = deadline.saturating_sub(self.now.monotonic);
        let is_ready = self.next_own_slot().is_some();
        if !is_ready && left < timing.delta.saturating_add(timing.slot_time) {
            self.lead = None;
            self.give_up(first);
        }
    }
}
