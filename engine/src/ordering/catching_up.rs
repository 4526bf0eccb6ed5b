//! What a node that is behind asks for, and what it answers to others that are.

use std::time::Duration;

use alloy_primitives::B256;

use super::{
    event::{Output, Source},
    machine::Machine,
};
use crate::{
    limits,
    types::{Epoch, Fetch, Highest, Message, Proposal, Slot, Status, ValidatorIndex, vote::Kind},
};

/// Without progress for this long, a validator says where it stands.
const STALL: Duration = Duration::from_secs(2);
/// Such words come ever more seldom, but no more than this apart.
const STALL_MAX: Duration = Duration::from_secs(30);
/// One peer is answered no more often than this.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// A block that was asked for is asked for elsewhere after at most this long.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(10);

/// A block that is missing here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Want {
    tries: u32,
    /// When to ask again; `None` if it was never asked for.
    pub(super) next: Option<Duration>,
}

/// Since when nothing has moved, and when to say so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stall {
    seen: Option<(Epoch, Slot, Option<Slot>)>,
    /// When something moved, or it was last said.
    since: Duration,
    /// When it is to be said; `None` before anything was seen.
    pub(super) at: Option<Duration>,
    /// How long to wait after that.
    wait: Duration,
}

impl Stall {
    fn new(seen: Option<(Epoch, Slot, Option<Slot>)>, now: Duration) -> Self {
        Self { seen, since: now, at: Some(now.saturating_add(STALL)), wait: longer(STALL) }
    }

    fn told(&mut self, now: Duration) {
        (self.since, self.at) = (now, Some(now.saturating_add(self.wait)));
        self.wait = longer(self.wait);
    }

    /// There is reason to say it at this time, if it was to be said later; then the waits begin anew.
    fn hasten(&mut self, soon: Duration) -> bool {
        let is_sooner = self.at.is_some_and(|at| soon < at);
        if is_sooner {
            (self.at, self.wait) = (Some(soon), longer(STALL));
        }
        is_sooner
    }
}

fn longer(wait: Duration) -> Duration {
    wait.saturating_add(wait / 2).min(STALL_MAX)
}

/// What a validator that lost its log hears from others.
#[derive(Clone, Debug)]
pub(super) struct Amnesia {
    nonce: u64,
    answers: Vec<Option<(Epoch, Slot)>>,
}

impl Amnesia {
    pub(super) fn new(nonce: u64, validators: usize) -> Self {
        Self { nonce: nonce.max(1), answers: vec![None; validators] }
    }
}

impl Machine {
    /// Blocks that something certified names, or that somebody honest voted for, and that are not here whole.
    fn missing(&self) -> Vec<B256> {
        let patience = self.settings.timing.delta.saturating_mul(2);
        let is_missing = |id: &B256| match self.blocks.get(id) {
            None => *id != self.tip.id,
            Some(known) => {
                let waits_for = known.arrived.saturating_add(patience);
                known.empty.is_none() && known.valid.is_none() && self.now.monotonic >= waits_for
            }
        };
        let above_tip = |slot: Slot| self.tip_slot.is_none_or(|tip| slot > tip);
        let certified = self.certificates.values().map(|certificate| certificate.statement);
        let mut missing: Vec<B256> = certified
            .filter(|statement| above_tip(statement.slot()))
            .filter_map(|statement| statement.id())
            .filter(is_missing)
            .collect();
        let parents = self.blocks.iter().filter(|known| known.parent.slot.is_some_and(above_tip));
        missing.extend(parents.map(|known| known.parent.id).filter(is_missing));
        missing.extend(self.blocks.iter().map(|known| known.id).filter(is_missing));
        missing.extend(
            self.votes.believed(self.set.honest_share(), self.record.frontier()).into_iter().filter(is_missing),
        );
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    pub(super) fn ask_for_missing(&mut self) {
        let missing = match self.is_far() {
            false => self.missing(),
            true if self.is_left_to_ranges() => Vec::new(),
            true => self.missing_below_final().into_iter().map(|(id, _)| id).collect(),
        };
        self.wants.retain(|id, _| missing.binary_search(id).is_ok());
        for id in missing {
            let now = self.now.monotonic;
            let want = self.wants.entry(id).or_default();
            if want.next.is_some_and(|next| now < next) {
                continue;
            }
            let tries = want.tries;
            let Some(whom) = self.whom_to_ask(&id, tries) else { continue };
            let mut wait = self.settings.timing.delta.saturating_mul(3);
            for _ in 0..tries.min(16) {
                wait = wait.saturating_add(wait / 2).min(FETCH_WAIT_MAX);
            }
            self.wants.insert(id, Want { tries: tries.saturating_add(1), next: Some(now.saturating_add(wait)) });
            let count = if self.blocks.get(&id).is_some() { 1 } else { self.gap_below(&id) };
            self.emit(Output::Send(whom, Message::Fetch(Fetch { id, count })));
        }
    }

    /// A peer that should have a block, and another one at every try: whoever signed its certificate, any validator,
    /// anybody.
    fn whom_to_ask(&self, id: &B256, tries: u32) -> Option<u64> {
        let start = usize::from(id.0[0]).wrapping_add(usize::try_from(tries).unwrap_or_default());
        let signers = self.certificates.values().find(|held| held.statement.id() == Some(*id)).map(|it| it.signers);
        let holds = |index: &ValidatorIndex| signers.is_none_or(|signers| signers.contains(*index));
        let peer = |index| self.peer_of(index);
        let anybody = || self.sync.anybody(start);
        let signer = self.others(start).filter(holds).find_map(peer);
        signer.or_else(|| self.others(start).find_map(peer)).or_else(anybody)
    }

    /// How many blocks may be missing below one that a certificate names.
    fn gap_below(&self, id: &B256) -> u64 {
        let held = self.certificates.values().find(|held| held.statement.id() == Some(*id));
        let certified = held.map(|held| held.statement.slot());
        let below_final = || self.missing_below_final().filter(|(missing, _)| missing == id).map(|(_, slot)| slot);
        let tip = self.tip_slot.map_or(0, |tip| tip.0.saturating_add(1));
        let gap = certified.or_else(below_final).map_or(1, |slot| slot.0.saturating_sub(tip).saturating_add(1));
        if gap <= self.settings.window { 1 } else { gap.min(limits::FETCH_BLOCKS_MAX) }
    }

    /// Says where this node stands when nothing has moved for a while.
    pub(super) fn report_stall(&mut self) {
        let seen = Some((self.record.epoch(), self.record.frontier(), self.tip_slot));
        let now = self.now.monotonic;
        if self.set.size() == 1 && self.me.is_some() {
            return;
        }
        if self.stall.seen != seen {
            self.stall = Stall::new(seen, now);
            if self.amnesia.is_none() {
                return;
            }
        } else if self.stall.at.is_some_and(|at| now < at) {
            return;
        } else {
            self.stall.told(now);
        }
        self.emit(Output::Broadcast(Message::Status(self.own_status())));
    }

    /// Something came that was missing: what else is missing is asked for soon, however long nothing has moved.
    pub(super) fn hear_news(&mut self) {
        self.changed |= self.stall.hasten(self.now.monotonic.saturating_add(STALL));
    }

    /// A validator has come. If nothing moves, words that it lacks, or that are lacking here, were lost: it is told
    /// where this node stands, at once, but no sooner than two delays after the last time. For then others come as
    /// well, and of two connections with one of them one ends, with what was said over it.
    pub(super) fn greet(&mut self) {
        let quiet = self.settings.timing.delta.saturating_mul(2);
        let soon = self.stall.since.saturating_add(quiet).max(self.now.monotonic);
        self.changed |= self.stall.hasten(soon);
    }

    fn own_status(&self) -> Status {
        let frontier = self.record.frontier();
        let bits = |held: &dyn Fn(Slot) -> bool| {
            (0..limits::ANSWER_SLOTS_MAX)
                .filter(|at| held(Slot(frontier.0.saturating_add(*at))))
                .fold(0, |bits, at| bits | 1 << at)
        };
        Status {
            epoch: self.record.epoch(),
            final_end: self.record.last_final().map_or(0, |(slot, _)| slot.0.saturating_add(1)),
            frontier,
            notarized: bits(&|slot| self.record.slot(slot).notarization.is_some()),
            skipped: bits(&|slot| self.record.slot(slot).skip_certificate),
            nonce: self.amnesia.as_ref().map_or(0, |amnesia| amnesia.nonce),
        }
    }

    /// Answers a peer that is behind with the certificates it lacks and with this node's own votes.
    pub(super) fn status(&mut self, source: Source, status: Status) {
        let now = self.now.monotonic;
        self.answered.retain(|_, last| now < last.saturating_add(ANSWER_INTERVAL));
        if self.answered.contains_key(&source.peer) {
            return;
        }
        self.answered.insert(source.peer, now);
        if status.nonce != 0 && self.amnesia.is_none() {
            let (epoch, slot) = self.highest_slot();
            let highest = Highest { nonce: status.nonce, epoch, slot };
            self.emit(Output::Send(source.peer, Message::Highest(highest)));
        }
        if status.epoch < self.record.epoch() {
            if let Some(handover) = self.handovers.iter().find(|handover| handover.epoch == status.epoch) {
                let message = Message::Certificate(Box::new(*handover));
                self.emit_after_sync(Output::Send(source.peer, message));
            }
        } else if status.epoch == self.record.epoch() {
            self.answer(source.peer, &status);
        }
    }

    fn answer(&mut self, peer: u64, status: &Status) {
        let newest = self.finals.values().next_back().map(|known| known.certificate);
        let newest = newest.filter(|held| held.statement.slot().0 >= status.final_end);
        let mut messages: Vec<Message> = newest.into_iter().map(|held| Message::Certificate(Box::new(held))).collect();
        let from = status.frontier.max(self.kept_from());
        let end = Slot(status.frontier.0.saturating_add(limits::ANSWER_SLOTS_MAX));
        let lacks = |slot: Slot, bits: u64| {
            let at = slot.0.saturating_sub(status.frontier.0);
            bits.checked_shr(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or_default() & 1 == 0
        };
        if from >= end {
            return self.send_all(peer, messages);
        }
        for ((slot, kind), held) in self.certificates.range((from, Kind::Proposal)..(end, Kind::Proposal)) {
            let is_missing = match kind {
                Kind::Notarize => lacks(*slot, status.notarized),
                Kind::Skip => lacks(*slot, status.skipped),
                _ => false,
            };
            if is_missing {
                messages.push(Message::Certificate(Box::new(*held)));
            }
        }
        if let Some(me) = self.me {
            for known in self.blocks.iter().filter(|known| known.header.proposer() == me) {
                let slot = known.header.slot();
                if slot >= from && slot < end && self.record.slot(slot).my_proposal == Some(known.id) {
                    messages.push(Message::Proposal(Box::new(self.again(known))));
                }
            }
            messages.extend(self.votes.of(me, from, limits::ANSWER_SLOTS_MAX).into_iter().map(Message::Vote));
        }
        self.send_all(peer, messages);
    }

    /// A proposal as it is sent again: with the certificates that it names, if all of them are held still.
    pub(super) fn again(&self, known: &super::blocks::Known) -> Proposal {
        let mut certificates = self.certificates_below(&known.header);
        if super::inbound::certificates_hash(&certificates) != known.header.certificates_hash {
            certificates.clear();
        }
        Proposal { header: known.header.clone(), signature: known.signature, certificates }
    }

    /// Own votes may be among them, so they wait for the sync like any.
    fn send_all(&mut self, peer: u64, messages: Vec<Message>) {
        for message in messages {
            self.emit_after_sync(Output::Send(peer, message));
        }
    }

    /// The highest slot of any certificate held, or of anything signed here.
    fn highest_slot(&self) -> (Epoch, Slot) {
        let known = self.record.slots().next_back().map(|(slot, _)| slot);
        let highest = known.max(self.record.last_final().map(|(slot, _)| slot)).unwrap_or_default();
        (self.record.epoch(), highest)
    }

    /// Another validator says how far this one may have voted before it lost its log.
    pub(super) fn highest(&mut self, source: Source, highest: Highest) {
        let (Some(amnesia), Some(from)) = (&mut self.amnesia, source.validator) else { return };
        if highest.nonce != amnesia.nonce {
            return;
        }
        if let Some(answer) = amnesia.answers.get_mut(usize::from(from.0)) {
            *answer = Some((highest.epoch, highest.slot));
        }
        let answers = amnesia.answers.iter().zip(0..).filter_map(|(answer, at)| Some((ValidatorIndex(at), (*answer)?)));
        let (stake, newest) = answers.fold((0_u64, None), |(stake, newest), (from, answer)| {
            (stake.saturating_add(self.set.stake(from).0), newest.max(Some(answer)))
        });
        let Some((epoch, slot)) = newest.filter(|_| stake >= self.set.quorum().0) else { return };
        let window = self.settings.window;
        let reached = slot.0.saturating_add(window.saturating_mul(2));
        let end = Slot((reached / window).saturating_add(1).saturating_mul(window).saturating_sub(1));
        self.record.raise_floor((epoch, end));
        self.remember_signed(super::journal::Entry::Regained { epoch, slot: end });
        self.amnesia = None;
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tells(stall: &mut Stall, times: usize) -> Vec<u128> {
        let tell = |_| {
            let at = stall.at.expect("something was seen");
            stall.told(at);
            at.as_millis()
        };
        (0..times).map(tell).collect()
    }

    #[test]
    fn who_stands_still_says_so_ever_more_seldom() {
        let mut stall = Stall::new(None, Duration::ZERO);
        assert_eq!(tells(&mut stall, 4), [2_000, 5_000, 9_500, 16_250]);
        let last = tells(&mut stall, 6);
        assert_eq!(last[5] - last[4], 30_000);
    }

    #[test]
    fn what_there_is_reason_to_say_is_said_at_that_time_and_soon_again() {
        let mut stall = Stall::new(None, Duration::ZERO);
        tells(&mut stall, 4);
        assert!(stall.hasten(20_000 * MS));
        assert!(!stall.hasten(20_100 * MS), "it will have been said by then");
        assert_eq!(tells(&mut stall, 2), [20_000, 23_000]);
        // A second validator comes while the first was just told.
        assert_eq!(stall.since, 23_000 * MS);
        assert!(stall.hasten(stall.since + 300 * MS));
        assert_eq!(tells(&mut stall, 2), [23_300, 26_300]);
    }
}
