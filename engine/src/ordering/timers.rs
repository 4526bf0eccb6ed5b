//! Entering windows, giving slots up, and when to look again.

use std::time::Duration;

use super::{event::Output, leading::Lead, machine::Machine};
use crate::types::{Message, Slot};

/// A leader that is silent for this long is given up before its timer, if enough others are heard.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A block may be this far ahead of our clock, in milliseconds.
pub(super) const AHEAD_MAX_MS: u64 = 1_000;

impl Machine {
    fn window_of(&self, slot: Slot) -> u64 {
        slot.0 / self.settings.window
    }

    pub(super) fn first_slot(&self, window: u64) -> Slot {
        Slot(window.saturating_mul(self.settings.window))
    }

    /// Enters the window of the frontier.
    pub(super) fn enter_window(&mut self) {
        let frontier = self.record.frontier();
        let window = self.window_of(frontier);
        if self.pacemaker.window() != Some(window) {
            let passed = frontier.0.saturating_sub(self.first_slot(window).0);
            self.pacemaker.enter(window, self.settings.window, passed, self.now.monotonic);
            self.fast_skip = None;
            self.lead = None;
            if self.me.is_some_and(|me| me == self.schedule.leader(frontier)) {
                self.begin_to_lead(window, frontier);
            }
            self.changed = true;
        }
        let start = self.first_slot(window);
        let busy: Vec<bool> = (0..self.settings.window).map(|at| self.is_busy_before(start, at)).collect();
        self.pacemaker.arm(|at| busy.get(at).copied().unwrap_or_default());
    }

    fn begin_to_lead(&mut self, window: u64, frontier: Slot) {
        if self.barred == Some(window) {
            return self.resume(window);
        }
        if frontier == self.first_slot(window) {
            self.lead = Some(Lead::new(window, frontier));
        }
    }

    /// Goes on in a window that was led before a restart: what was signed is sent again, the rest is given up.
    fn resume(&mut self, window: u64) {
        let (start, end) = (self.first_slot(window), self.first_slot(window.saturating_add(1)));
        let mut next = start;
        for slot in (start.0..end.0).map(Slot) {
            let Some(id) = self.record.slot(slot).my_proposal else { continue };
            next = slot.next();
            let Some(known) = self.blocks.get(&id) else { continue };
            let proposal = self.again(known);
            self.emit(Output::Broadcast(Message::Proposal(Box::new(proposal))));
        }
        if next < end {
            self.give_up(next);
        }
    }

    /// Whether the block before a slot of the window is known and has transactions.
    fn is_busy_before(&self, start: Slot, at: u64) -> bool {
        let before = match start.0.saturating_add(at).checked_sub(1) {
            // Committed already, and forgotten but for that.
            Some(before) if at > 0 && self.tip_slot == Some(Slot(before)) => return !self.tip_empty,
            Some(before) if at > 0 => self.blocks.first(Slot(before)),
            _ => match self.record.base_of(start) {
                Some(base) if base.id == self.tip.id => return !self.tip_empty,
                Some(base) => self.blocks.get(&base.id),
                None => None,
            },
        };
        before.is_some_and(|known| known.empty == Some(false))
    }

    /// Gives up slots whose time has come.
    pub(super) fn fire_timers(&mut self) {
        let Some(window) = self.pacemaker.window() else { return };
        let start = self.first_slot(window);
        while let Some((at, deadline)) = self.pacemaker.next() {
            let slot = Slot(start.0.saturating_add(u64::try_from(at).unwrap_or(u64::MAX)));
            if slot < self.record.frontier() {
                self.pacemaker.fire();
                continue;
            }
            if self.now.monotonic < deadline {
                break;
            }
            self.pacemaker.fire();
            self.give_up(slot);
        }
        if self.is_leader_silent() {
            self.give_up_early(self.record.frontier());
        }
        if let Some(slot) = self.fast_skip.take() {
            self.give_up(slot);
        }
    }

    /// Votes Skip for what is left of a slot's window from that slot on.
    pub(super) fn give_up(&mut self, slot: Slot) {
        if self.me.is_none() || self.amnesia.is_some() {
            return;
        }
        let from = slot.max(self.record.frontier());
        let end = self.first_slot(self.window_of(slot).saturating_add(1));
        for slot in (from.0..end.0).map(Slot) {
            if let Ok(ballot) = self.record.skip(slot) {
                self.sign(ballot);
            }
        }
    }

    /// Gives a leader up before its timer; a few times only until something is final again.
    pub(super) fn give_up_early(&mut self, slot: Slot) {
        let is_here = Some(self.window_of(slot)) == self.pacemaker.window();
        if is_here && self.fast_skips < self.set.size() && self.settings.timing.idle_interval.is_some() {
            self.fast_skips = self.fast_skips.saturating_add(1);
            self.fast_skip = Some(self.fast_skip.map_or(slot, |known| known.min(slot)));
            self.changed = true;
        }
    }

    fn is_leader_silent(&self) -> bool {
        let leader = self.schedule.leader(self.record.frontier());
        let long_ago = |heard: Option<&Duration>| {
            heard.is_none_or(|heard| self.now.monotonic.saturating_sub(*heard) >= SILENCE_MAX)
        };
        if Some(leader) == self.me || !long_ago(self.heard.get(usize::from(leader.0))) {
            return false;
        }
        if self.now.monotonic.saturating_sub(self.pacemaker.entered()) < SILENCE_MAX {
            return false;
        }
        let heard = self.others(0).filter(|other| !long_ago(self.heard.get(usize::from(other.0))));
        let own = self.me.map_or(0, |me| self.set.stake(me).0);
        let stake = heard.fold(own, |sum, other| sum.saturating_add(self.set.stake(other).0));
        stake >= self.set.quorum().0
    }

    /// The slot was skipped by a quorum.
    pub(super) fn skipped(&mut self, slot: Slot) {
        if self.lead.as_ref().is_some_and(|lead| lead.window == self.window_of(slot)) {
            self.lead = None;
        }
        // Its leader was there, and its block came too late.
        if let Some(known) = self.blocks.first(slot) {
            self.allowance.skipped(known.heard, self.now.monotonic);
        }
        if let Some(id) = self.executing()
            && self.blocks.get(&id).is_some_and(|known| known.header.slot() == slot)
            && self.record.slot(slot).notarization.is_none()
        {
            self.emit(Output::Abandon(id));
        }
    }

    /// Asks to be woken at the next moment that changes anything.
    pub(super) fn wake(&mut self) {
        let times = [
            self.pacemaker.next().map(|(_, at)| at),
            self.lead_at(),
            self.early_block_at(),
            self.wants.values().filter_map(|want| want.next).min(),
            self.stall.at,
            self.sync.wake_at(&self.need()),
            self.silence_at(),
        ];
        if let Some(at) = times.into_iter().flatten().min() {
            // What is due and did not happen waits for something else.
            let soonest = self.now.monotonic.saturating_add(Duration::from_millis(1));
            self.emit(Output::Wake(at.max(soonest)));
        }
    }

    fn silence_at(&self) -> Option<Duration> {
        let at = self.pacemaker.entered().saturating_add(SILENCE_MAX);
        (at > self.now.monotonic && self.set.size() > 1).then_some(at)
    }
}
