//! Votes as they come in, until they weigh enough to be joined.
//!
//! Promise: per validator, slot and kind one vote is kept and one that differs from it, and no slot outside the range
//! that ordering admits; so memory is bounded whatever is sent. A vote counts for what it says once, however often it
//! comes. Signatures are not looked at here.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::B256;

use super::planted::{Bug, Planted};
use crate::types::{Epoch, Signature, Slot, Stake, Statement, ValidatorIndex, ValidatorSet, Vote, vote::Kind};

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It counts; its statement now has this much stake behind it.
    Counted(Stake),
    /// It was there.
    Known,
    /// It contradicts this earlier one, and counts.
    Contradicts(Vote, Stake),
    /// The voter has said two things of this kind already.
    Full,
}

/// One validator's votes of one kind for one slot: the first, and one that differs.
#[derive(Clone, Copy, Debug, Default)]
struct Cast {
    first: Option<(B256, Signature)>,
    second: Option<(B256, Signature)>,
}

/// All votes of one kind for one slot.
#[derive(Clone, Debug)]
struct Ballots {
    cast: Vec<Cast>,
    /// Stake by block; skips stand under the zero id.
    stake: Vec<(B256, u64)>,
}

impl Ballots {
    fn of(&self, voter: ValidatorIndex) -> Cast {
        self.cast.get(usize::from(voter.0)).copied().unwrap_or_default()
    }

    fn count(&mut self, id: B256, stake: u64) -> u64 {
        if let Some((_, sum)) = self.stake.iter_mut().find(|(of, _)| *of == id) {
            *sum = sum.saturating_add(stake);
            return *sum;
        }
        self.stake.push((id, stake));
        stake
    }
}

/// The votes of one epoch.
#[derive(Clone, Debug)]
pub(super) struct Votes {
    epoch: Epoch,
    set: Arc<ValidatorSet>,
    slots: BTreeMap<(Slot, Kind), Ballots>,
    planted: Planted,
}

fn statement(kind: Kind, slot: Slot, id: B256) -> Statement {
    match kind {
        Kind::Skip => Statement::Skip { slot },
        Kind::Finalize => Statement::Finalize { slot, id },
        _ => Statement::Notarize { slot, id },
    }
}

impl Votes {
    pub(super) fn new(set: Arc<ValidatorSet>, planted: Planted) -> Self {
        Self { epoch: set.epoch(), set, slots: BTreeMap::new(), planted }
    }

    fn weight(&self, voter: ValidatorIndex) -> u64 {
        if self.planted.has(Bug::CountHeads) {
            return self.set.total().0 / u64::try_from(self.set.size()).unwrap_or(1).max(1);
        }
        self.set.stake(voter).0
    }

    /// Takes a vote of a validator of the set.
    pub(super) fn add(&mut self, vote: &Vote) -> Taken {
        let (slot, kind) = (vote.statement.slot(), vote.statement.kind());
        let (id, weight) = (vote.statement.id().unwrap_or_default(), self.weight(vote.voter));
        let size = self.set.size();
        let fresh = || Ballots { cast: vec![Cast::default(); size], stake: Vec::new() };
        let opposite = self.opposite(vote);
        let ballots = self.slots.entry((slot, kind)).or_insert_with(fresh);
        let Some(cast) = ballots.cast.get_mut(usize::from(vote.voter.0)) else { return Taken::Full };
        let said = |known: &Option<(B256, Signature)>| known.is_some_and(|(known, _)| known == id);
        if said(&cast.first) || said(&cast.second) {
            if self.planted.has(Bug::CountTwice) {
                return Taken::Counted(Stake(ballots.count(id, weight)));
            }
            return Taken::Known;
        }
        let earlier = cast.first.map(|(id, signature)| Vote {
            epoch: self.epoch,
            statement: statement(kind, slot, id),
            voter: vote.voter,
            signature,
        });
        match (cast.first, cast.second) {
            (None, _) => cast.first = Some((id, vote.signature)),
            (Some(_), None) => cast.second = Some((id, vote.signature)),
            (Some(_), Some(_)) => return Taken::Full,
        }
        let stake = Stake(ballots.count(id, weight));
        match earlier.or(opposite) {
            Some(earlier) => Taken::Contradicts(earlier, stake),
            None => Taken::Counted(stake),
        }
    }

    /// The same validator's Finalize where this is a Skip, and the other way round.
    fn opposite(&self, vote: &Vote) -> Option<Vote> {
        let other = match vote.statement.kind() {
            Kind::Skip => Kind::Finalize,
            Kind::Finalize => Kind::Skip,
            // Notarize with either is what honest validators say.
            _ if self.planted.has(Bug::AccuseHonest) => Kind::Skip,
            _ => return None,
        };
        let (id, signature) = self.slots.get(&(vote.statement.slot(), other))?.of(vote.voter).first?;
        let statement = statement(other, vote.statement.slot(), id);
        Some(Vote { epoch: self.epoch, statement, voter: vote.voter, signature })
    }

    /// Everybody's signatures under a statement, in order of their places.
    pub(super) fn shares(&self, said: &Statement) -> Vec<(ValidatorIndex, Signature)> {
        let id = said.id().unwrap_or_default();
        let Some(ballots) = self.slots.get(&(said.slot(), said.kind())) else { return Vec::new() };
        let share = |cast: &Cast| [cast.first, cast.second].into_iter().flatten().find(|(of, _)| *of == id);
        let shares = ballots.cast.iter().zip(0..).filter_map(|(cast, index)| {
            let (_, signature) = share(cast)?;
            Some((ValidatorIndex(index), signature))
        });
        shares.collect()
    }

    /// Every vote of one validator from a slot on, `slots_max` slots at most.
    pub(super) fn of(&self, voter: ValidatorIndex, from: Slot, slots_max: u64) -> Vec<Vote> {
        let end = Slot(from.0.saturating_add(slots_max));
        let in_range = self.slots.range((from, Kind::Proposal)..(end, Kind::Proposal));
        let votes = in_range.filter_map(|((slot, kind), ballots)| {
            let (id, signature) = ballots.of(voter).first?;
            Some(Vote { epoch: self.epoch, statement: statement(*kind, *slot, id), voter, signature })
        });
        votes.collect()
    }

    /// Blocks from a slot on that this much stake voted to notarize, or to finalize.
    pub(super) fn believed(&self, least: Stake, from: Slot) -> Vec<B256> {
        let kinds = self.slots.range((from, Kind::Proposal)..);
        let for_blocks = kinds.filter(|((_, kind), _)| *kind != Kind::Skip);
        let blocks = for_blocks.flat_map(|(_, ballots)| ballots.stake.iter());
        blocks.filter(|(_, stake)| *stake >= least.0).map(|(id, _)| *id).collect()
    }

    /// Takes back what a validator said with a signature that is none; it may say it again.
    pub(super) fn remove(&mut self, voter: ValidatorIndex, said: &Statement) {
        let (id, weight) = (said.id().unwrap_or_default(), self.weight(voter));
        let Some(ballots) = self.slots.get_mut(&(said.slot(), said.kind())) else { return };
        let Some(cast) = ballots.cast.get_mut(usize::from(voter.0)) else { return };
        let mut removed = false;
        for place in [&mut cast.first, &mut cast.second] {
            if place.is_some_and(|(of, _)| of == id) {
                *place = None;
                removed = true;
            }
        }
        if cast.first.is_none() {
            cast.first = cast.second.take();
        }
        if let Some((_, sum)) = ballots.stake.iter_mut().find(|(of, _)| removed && *of == id) {
            *sum = sum.saturating_sub(weight);
        }
    }

    /// Forgets the slots below this one.
    pub(super) fn prune(&mut self, below: Slot) {
        self.slots = self.slots.split_off(&(below, Kind::Proposal));
    }
}
