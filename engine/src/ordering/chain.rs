//! How headers hang together: what fits on what, what is final, and where one epoch ends and the next begins.
//!
//! A slot whose parent has the last height of the epoch carries a *tail header*: no block of its own, everything but
//! the time repeated from its parent. A Finalization of the last block, or of a tail header above it, ends the epoch;
//! the next one begins on the last block itself, whatever stands above it.

use std::sync::Arc;

use alloy_primitives::{B256, keccak256};

use super::{
    blocks::Blocks,
    event::{Anchor, Output, Source},
    journal::Entry,
    leader::Schedule,
    machine::{Final, Machine},
    pacemaker::Pacemaker,
    planted::Bug,
    rules::Record,
    votes::Votes,
};
use crate::{
    crypto::Committee,
    limits,
    types::{Certificate, ConsensusHeader, Epoch, Signature, SignedHeader, Slot, ValidatorSet, vote::Kind},
};

/// Mixes a proposer's share into the seed.
#[must_use]
pub fn mix(before: B256, share: &Signature) -> B256 {
    let mut bytes = [0_u8; 128];
    let (seed, rest) = bytes.split_at_mut(32);
    seed.copy_from_slice(before.as_slice());
    rest.copy_from_slice(share.0.as_slice());
    keccak256(bytes)
}

/// What a header is on its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Block,
    Tail,
    Not,
    /// The next set has to be known first.
    Later,
}

impl Machine {
    /// The last height of the epoch.
    pub(super) const fn last_height(&self) -> u64 {
        self.record.epoch().0.saturating_add(1).saturating_mul(self.settings.epoch_heights)
    }

    /// Whether a header has the last height of the epoch, so that only tail headers stand above it.
    pub(super) fn is_last(&self, header: &ConsensusHeader) -> bool {
        header.height == self.last_height() && header.epoch() == self.record.epoch()
    }

    /// The earliest time of a block on this one: half a slot later.
    pub(super) fn earliest_ms_on(&self, parent: &ConsensusHeader) -> u64 {
        let half_slot = u64::try_from(self.settings.timing.slot_time.as_millis() / 2).unwrap_or(u64::MAX);
        parent.timestamp_ms.saturating_add(half_slot)
    }

    fn fit(&self, parent: &ConsensusHeader, header: &ConsensusHeader) -> Fit {
        if header.timestamp_ms < self.earliest_ms_on(parent) {
            return Fit::Not;
        }
        let last = self.last_height();
        if self.is_last(parent) {
            let repeats = header.height == parent.height
                && header.block_hash == parent.block_hash
                && header.access_list_hash == parent.access_list_hash
                && header.next_set_hash == parent.next_set_hash
                && header.body_size_bytes == 0
                && header.body_root.is_zero();
            return if repeats { Fit::Tail } else { Fit::Not };
        }
        if header.height != parent.height.saturating_add(1) {
            return Fit::Not;
        }
        if header.height < last || self.settings.planted.has(Bug::IgnoreNextSet) {
            return if header.next_set_hash.is_zero() || header.height == last { Fit::Block } else { Fit::Not };
        }
        match &self.next_set {
            Some(next) if next.hash() == header.next_set_hash => Fit::Block,
            Some(_) => Fit::Not,
            None => Fit::Later,
        }
    }

    /// Judges headers by their parents: those that do not fit are invalid, tail headers need no execution.
    pub(super) fn judge(&mut self) {
        let unjudged = self.blocks.iter().filter(|known| known.mix.is_none() && known.valid != Some(false));
        for id in unjudged.map(|known| known.id).collect::<Vec<_>>() {
            let Some(known) = self.blocks.get(&id) else { continue };
            let Some((parent, seed)) = self.parent_of(&known.parent) else { continue };
            let fit = self.fit(parent, &known.header);
            let parent_valid = self.is_valid(&known.parent);
            let mixed = mix(seed, &known.header.seed_share);
            let Some(known) = self.blocks.get_mut(&id) else { continue };
            match fit {
                Fit::Block => known.mix = Some(mixed),
                Fit::Tail if parent_valid => {
                    (known.mix, known.is_tail, known.valid, known.empty) = (Some(seed), true, Some(true), Some(true));
                    let signed = SignedHeader { header: known.header.clone(), signature: known.signature };
                    self.emit(Output::Tail(Box::new(signed)));
                    self.changed = true;
                }
                Fit::Tail | Fit::Later => {}
                Fit::Not => {
                    known.valid = Some(false);
                    self.changed = true;
                }
            }
        }
    }

    /// The headers from a block down to the newest committed one, newest first; `None` if one is missing.
    pub(super) fn chain_down(&self, id: B256) -> Option<Vec<B256>> {
        let mut ids = Vec::new();
        let mut next = id;
        while next != self.tip.id {
            // No chain is longer than there are headers.
            let known = self.blocks.get(&next).filter(|_| ids.len() < self.blocks.len())?;
            ids.push(next);
            next = known.parent.id;
        }
        Some(ids)
    }

    /// Hands final blocks that were executed here to the store.
    pub(super) fn commit_final(&mut self) {
        self.judge();
        // One after the other, so that every block is kept with the nearest certificate that makes it final.
        let above = self.finals.iter().find(|(slot, _)| self.tip_slot.is_none_or(|tip| **slot > tip));
        let next = above.or_else(|| self.finals.last_key_value()).map(|(slot, known)| (*slot, *known));
        let Some((slot, Final { id, certificate: finalization })) = next else { return };
        let Some(chain) = self.chain_to(slot, id) else { return };
        if let Some(refused) = chain.iter().find(|id| self.blocks.get(id).is_some_and(|at| at.valid == Some(false))) {
            return self.halt(format!("block {refused} is final, and invalid here"));
        }
        let unexecuted = self.settings.planted.has(Bug::FinalizeUnfetched);
        let is_done = |id: &B256| {
            self.blocks.get(id).is_some_and(|known| !known.is_tail && (known.valid == Some(true) || unexecuted))
        };
        let done: Vec<B256> = chain.iter().copied().take_while(is_done).collect();
        if !done.is_empty() {
            self.commit(done, finalization);
        }
        self.end_epoch(finalization);
    }

    /// The blocks above the newest committed one up to one that is final, lowest first.
    fn chain_to(&self, slot: Slot, id: B256) -> Option<Vec<B256>> {
        if self.tip_slot.is_some_and(|tip| slot <= tip) {
            return Some(Vec::new());
        }
        let mut chain = self.chain_down(id)?;
        if self.settings.planted.has(Bug::CommitWithoutAncestors) {
            chain.truncate(1);
        }
        chain.reverse();
        Some(chain)
    }

    fn commit(&mut self, ids: Vec<B256>, finalization: Certificate) {
        let Some(top) = ids.last().and_then(|id| self.blocks.get(id)).cloned() else { return };
        // The certificate may hold a share of our own; and what follows keeps its order.
        self.emit_after_sync(Output::Commit { ids, finalization: Box::new(finalization) });
        let slot = top.header.slot();
        self.tip = Anchor { id: top.id, header: top.header, mix: top.mix.unwrap_or_default() };
        (self.tip_slot, self.tip_empty, self.tip_arrived) = (Some(slot), top.empty == Some(true), top.arrived);
        self.forget_finals(slot);
        let executing = self.executing();
        if let Some(lost) = self.blocks.prune(slot).into_iter().find(|id| Some(*id) == executing) {
            self.emit(Output::Abandon(lost));
        }
        self.changed = true;
    }

    /// Forgets what is final up to and with a slot, but for the newest.
    pub(super) fn forget_finals(&mut self, through: Slot) {
        let newest = self.finals.last_key_value().map(|(slot, _)| *slot);
        self.finals.retain(|at, _| *at > through || Some(*at) == newest);
    }

    /// Ends the epoch once its last block is committed and the next set is known.
    fn end_epoch(&mut self, finalization: Certificate) {
        if !self.is_last(&self.tip.header) {
            return;
        }
        let Some(next_set) = self.next_set.take() else { return };
        let ended = self.record.epoch();
        let mut base = self.tip.clone();
        let tail = finalization.statement.id().and_then(|id| self.chain_down(id)).unwrap_or_default();
        let tail: Vec<SignedHeader> = tail.iter().filter_map(|id| self.signed(id)).collect();
        if let Some(top) = tail.first().filter(|_| self.settings.planted.has(Bug::BeginOnTail)) {
            (base.id, base.header) = (top.header.id(), top.header.clone());
        }
        self.emit_after_sync(Output::EpochEnded {
            epoch: ended,
            base: Box::new(base.clone()),
            finalization: Box::new(finalization),
            tail,
        });
        let next = Epoch(ended.0.saturating_add(1));
        let set = if self.settings.planted.has(Bug::KeepSet) { self.set.in_epoch(next) } else { next_set };
        let Some(committee) = self.settings.scheme.committee(&set).filter(|_| set.epoch() == next) else {
            return self.halt(format!("the validator set of epoch {next} cannot vote"));
        };
        self.remember(Entry::EpochStart { epoch: next, base: base.id, set: set.clone() });
        self.begin_epoch(set, committee, base, finalization);
    }

    fn begin_epoch(&mut self, set: ValidatorSet, committee: Arc<dyn Committee>, base: Anchor, handover: Certificate) {
        let (window, planted) = (self.settings.window, self.settings.planted);
        self.me = self.settings.identity.as_ref().and_then(|identity| set.index_of(&identity.public_key));
        self.schedule = Schedule::new(self.next_seed, &set, window);
        self.next_seed = base.mix;
        self.record = Record::new(set.epoch(), window, base.id, self.record.floor(), planted);
        self.heard = vec![self.now.monotonic; set.size()];
        self.set = Arc::new(set);
        self.committee = committee;
        self.votes = Votes::new(self.set.clone(), planted);
        self.certificates.clear();
        self.accused.clear();
        self.blocks = Blocks::default();
        self.pacemaker = Pacemaker::new(self.settings.timing);
        self.finals.clear();
        if self.handovers.len() >= limits::HANDOVERS_MAX {
            self.handovers.pop_front();
        }
        self.handovers.push_back(handover);
        (self.tip, self.base, self.tip_slot) = (base.clone(), base, None);
        (self.lead, self.ready, self.barred, self.fast_skip, self.fast_skips) = (None, None, None, None, 0);
        self.wants.clear();
        self.sync.begin_epoch();
        self.answered.clear();
        self.changed = true;
        let later = std::mem::take(&mut self.later);
        if self.restore(&later).is_err() {
            return self.halt("what the log holds of this epoch contradicts itself".to_owned());
        }
        for (source, message) in std::mem::take(&mut self.early) {
            // Who was which validator in the epoch before says nothing here.
            let source = Source { validator: None, ..source };
            self.receive(source, message);
        }
    }

    /// The certificates that a first block of a window brings: its parent's, and those of the slots skipped since.
    pub(super) fn certificates_below(&self, header: &ConsensusHeader) -> Vec<Certificate> {
        if header.slot() != self.record.window_start(header.slot()) {
            return Vec::new();
        }
        let parent = self.parent_in(header);
        let certified = parent.slot.and_then(|slot| {
            let held = |kind| self.certificates.get(&(slot, kind));
            held(Kind::Notarize).or_else(|| held(Kind::Finalize)).copied()
        });
        let gap = parent.slot.map_or(0, |slot| slot.0.saturating_add(1))..header.slot;
        let skips = gap.filter_map(|slot| self.certificates.get(&(Slot(slot), Kind::Skip)).copied());
        certified.into_iter().chain(skips).take(limits::PROPOSAL_CERTIFICATES_MAX).collect()
    }
}
