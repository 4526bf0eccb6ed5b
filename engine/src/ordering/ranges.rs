//! What a node that is far behind does with ranges of final blocks: asks for them, proves them, and has them executed.
//!
//! A range is proven by a Finalization and by hashes: whoever has the certificate of its last header knows that all
//! headers below it are final, though nothing of what lies below them has come. What they stand on is found out when it
//! has; for then a block is executed on the one below, and committed.
//!
//! A node that is far behind takes no bodies but of blocks that are known to be final, lowest first: others it could
//! not execute. So what it holds is bounded by [`crate::limits::SYNC_RANGES_MAX`].
//!
//! Where more blocks than fit an answer became final by one certificate, and where nobody gives ranges, what lies below
//! the nearest block known to be final is fetched by hash, from that one down.

use alloy_primitives::B256;

use super::{
    event::{Output, Source},
    machine::{Final, Machine},
    planted::Bug,
    sync::{Asked, Need},
    verify,
};
use crate::types::{Certificate, Chain, Epoch, Message, SignedHeader, Slot, Statement};

/// A Finalization so many windows above the tip is far: blocks up to it are asked for by height, lowest first.
const FAR_WINDOWS: u64 = 8;

/// A chain that was proven.
struct Proven {
    /// Ids of its headers.
    ids: Vec<B256>,
    /// How many of the headers are taken: those of blocks, and tail headers if they lead up to the certificate.
    taken: usize,
    certificate: Certificate,
}

impl Machine {
    /// Whether a Finalization far above the tip is held.
    pub(super) fn is_far(&self) -> bool {
        let tip = self.tip_slot.map_or(0, |tip| tip.0);
        let newest = self.record.last_final().map_or(0, |(slot, _)| slot.0);
        newest.saturating_sub(tip) > self.settings.window.saturating_mul(FAR_WINDOWS)
    }

    /// Whether ranges are all that is asked for.
    pub(super) fn is_left_to_ranges(&self) -> bool {
        self.is_far() && self.sync.is_of_use(self.now.monotonic, self.tip.header.height)
    }

    pub(super) fn need(&self) -> Need {
        Need {
            now: self.now.monotonic,
            tip: self.tip.header.height,
            last: self.last_height(),
            is_far: self.is_far(),
            wait: self.settings.timing.delta.saturating_mul(3),
        }
    }

    pub(super) fn ask_for_ranges(&mut self) {
        if self.set.size() == 1 && self.me.is_some() {
            return;
        }
        let need = self.need();
        self.sync.look(&need);
        while let Some((peer, range)) = self.sync.next(&need) {
            self.emit(Output::Send(peer, Message::Range(range)));
        }
        if self.is_far() {
            let newest = self.record.last_final().map_or(Slot(0), |(slot, _)| slot);
            self.blocks.forget_bodiless(newest);
        }
    }

    /// Notes that a peer speaks of a later epoch. That the next one begins is heard from others first as a rule.
    pub(super) fn hear_epoch(&mut self, source: Source, message: &Message) {
        let epoch = match message {
            Message::Proposal(proposal) => proposal.header.epoch(),
            Message::Vote(vote) => vote.epoch,
            Message::Certificate(certificate) => certificate.epoch,
            Message::Status(status) => status.epoch,
            _ => return,
        };
        let own = self.record.epoch();
        if epoch > own {
            let patience = self.settings.timing.delta.saturating_mul(2);
            let is_next = epoch == Epoch(own.0.saturating_add(1));
            let due = if is_next { self.now.monotonic.saturating_add(patience) } else { self.now.monotonic };
            self.changed |= self.sync.hear_ahead(source.peer, due);
        }
    }

    /// A peer answers a wish for a range.
    pub(super) fn chain_from(&mut self, source: Source, chain: Chain) {
        let (peer, now) = (source.peer, self.now.monotonic);
        let Some(asked) = self.sync.answered(peer, chain.from, chain.height) else { return };
        self.changed = true;
        match self.prove(&chain) {
            Ok(Some(proven)) => self.take(chain.headers, proven, peer, &asked),
            Ok(None) => match chain.certificate {
                Some(certificate) => {
                    self.take_certificate(certificate);
                    self.sync.block(peer, &asked, now);
                }
                None => self.sync.had_nothing(peer, &asked, now),
            },
            Err(reason) => {
                self.sync.forget(peer);
                self.emit(Output::Ban(peer, reason));
            }
        }
    }

    /// Whether a chain is what was asked for, and final; `None` if it has no blocks.
    fn prove(&self, chain: &Chain) -> Result<Option<Proven>, &'static str> {
        if let Some(certificate) = &chain.certificate {
            let is_final = matches!(certificate.statement, Statement::Finalize { .. });
            if !is_final || certificate.epoch != self.record.epoch() {
                return Err("a chain with a certificate that makes nothing of it final");
            }
        }
        if chain.headers.is_empty() {
            return match &chain.certificate {
                Some(certificate) if !self.holds(certificate) => Err("a certificate that does not hold"),
                _ => Ok(None),
            };
        }
        let ids: Vec<B256> = chain.headers.iter().map(|block| block.header.id()).collect();
        let bodies = usize::try_from(chain.bodies).unwrap_or(usize::MAX);
        let is_linked = self.is_linked(chain, &ids);
        let top = ids.last().copied();
        let is_unproven_taken = self.settings.planted.has(Bug::TakeUnproven);
        let is_of_top = |certificate: &Certificate| certificate.statement.id() == top || is_unproven_taken;
        let certificate = chain.certificate.filter(is_of_top);
        let Some(certificate) = certificate.filter(|_| is_linked && bodies > 0) else {
            return Err("a chain of other blocks than it was asked for");
        };
        if !is_unproven_taken && !self.holds(&certificate) {
            return Err("a certificate that does not hold");
        }
        let is_led_up = bodies.checked_sub(1).and_then(|last| chain.headers.get(last));
        let is_led_up = is_led_up.is_some_and(|last| self.is_last(&last.header));
        let taken = if is_led_up { ids.len() } else { bodies };
        let signed = chain.headers.iter().take(taken);
        let is_signed = |block: &SignedHeader| {
            self.schedule.leader(block.header.slot()) == block.header.proposer()
                && verify::author(&self.set, &*self.committee, &self.settings.domain, block).is_ok()
        };
        if !signed.into_iter().all(is_signed) {
            return Err("a chain with a signature that is not its leader's");
        }
        Ok(Some(Proven { ids, taken, certificate }))
    }

    /// Whether headers of this epoch stand on one another, from the height that was asked for on.
    fn is_linked(&self, chain: &Chain, ids: &[B256]) -> bool {
        let first = chain.headers.first().map(|first| first.header.height);
        let pairs = chain.headers.iter().zip(ids).zip(chain.headers.iter().skip(1));
        let stands = |((below, id), above): ((&SignedHeader, &B256), &SignedHeader)| {
            let (below, above) = (&below.header, &above.header);
            let step = if self.is_last(below) { 0 } else { 1 };
            above.parent_id == *id && above.height == below.height.saturating_add(step)
        };
        first == Some(chain.from.next().0)
            && chain.headers.iter().all(|block| block.header.epoch() == self.record.epoch())
            && pairs.into_iter().all(stands)
    }

    fn holds(&self, certificate: &Certificate) -> bool {
        verify::certificate(&self.set, &*self.committee, &self.settings.domain, certificate).is_ok()
    }

    /// Takes a certificate that holds, if it is newer than what is held.
    fn learn_final(&mut self, certificate: Certificate) {
        if certificate.statement.slot() >= self.kept_from() {
            self.learn(certificate);
        }
    }

    /// Takes a certificate of a block so far up that what leads to it does not fit an answer.
    fn take_certificate(&mut self, certificate: Certificate) {
        self.learn_final(certificate);
        if let Statement::Finalize { slot, id } = certificate.statement
            && self.tip_slot.is_none_or(|tip| slot > tip)
        {
            self.keep_final(slot, Final { id, certificate });
        }
    }

    /// The first block that is missing on the way from the nearest one known to be final down to the tip, and its slot.
    pub(super) fn missing_below_final(&self) -> Option<(B256, Slot)> {
        let mut above = self.finals.iter().filter(|(slot, _)| self.tip_slot.is_none_or(|tip| **slot > tip));
        let (mut slot, mut next) = above.next().map(|(slot, known)| (*slot, known.id))?;
        let patience = self.settings.timing.delta.saturating_mul(2);
        while next != self.tip.id {
            let Some(known) = self.blocks.get(&next) else { return Some((next, slot)) };
            if known.empty.is_none() {
                // Its body may be about to come with it.
                let is_overdue = self.now.monotonic >= known.arrived.saturating_add(patience);
                return is_overdue.then_some((next, slot));
            }
            (slot, next) = (known.parent.slot?, known.parent.id);
        }
        None
    }

    /// Takes the headers of a chain that was proven; bodies follow.
    fn take(&mut self, headers: Vec<SignedHeader>, proven: Proven, peer: u64, asked: &Asked) {
        let Proven { ids, taken, certificate } = proven;
        let blocks = u64::try_from(taken).unwrap_or(u64::MAX);
        self.sync.served(peer, asked, blocks, self.now.monotonic);
        let Some(first) = headers.first().map(|first| first.header.clone()) else { return };
        if first.height == self.tip.header.height.saturating_add(1) && first.parent_id != self.tip.id {
            return self.halt(format!("a block on {} is final, and {} is final here", first.parent_id, self.tip.id));
        }
        let heights = headers.iter().take(taken).map(|block| block.header.height);
        let last = heights.max().unwrap_or_default();
        if !self.sync.hold(asked, last, self.now.monotonic) {
            return;
        }
        let mut top = None;
        for (block, id) in headers.into_iter().zip(ids).take(taken) {
            top = Some((block.header.slot(), id));
            self.take_final(block, id);
        }
        self.learn_final(certificate);
        if let Some((slot, id)) = top.filter(|(slot, _)| self.tip_slot.is_none_or(|tip| *slot > tip)) {
            self.keep_final(slot, Final { id, certificate });
        }
    }

    fn take_final(&mut self, block: SignedHeader, id: B256) {
        if self.tip_slot.is_some_and(|tip| block.header.slot() <= tip) {
            return;
        }
        if self.blocks.get(&id).is_none() {
            let parent = self.parent_in(&block.header);
            self.insert(block, id, parent, None, None);
        }
        if let Some(known) = self.blocks.get_mut(&id) {
            known.is_final = true;
        }
    }
}
