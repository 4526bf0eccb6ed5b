//! The rules of voting, and the only place that can make a vote.
//!
//! A [`Record`] is what one validator signed and which certificates it holds in one epoch. Its methods answer a wish
//! to sign with a [`Ballot`], which only they can make and without which nothing is signed, and they note what was
//! given out, so that a second, contradicting wish is refused.
//!
//! ```text
//! s is cleared     a Notarization or a SkipCertificate of s is held, or a Finalization of s or a later slot
//! frontier F       the least slot that is not cleared
//!
//! PROPOSE(s)       nothing proposed at s; nothing of the window up to s skipped
//! NOTARIZE(s, id)  nothing notarized at s; nothing of the window up to s skipped; the parent is notarized or final;
//!                  every slot between has a SkipCertificate; the block was executed here and is valid
//! FINALIZE(s, id)  Notarization(s, id) is held; the block was executed here and is valid; s was not skipped here
//! SKIP(s)          s is not finalized here, and no Notarization of s is held
//! all four         (epoch, s) lies above the floor: what a validator that forgot may have signed lies below it;
//!                  s lies above the newest final block: below it the record keeps nothing
//! ```
//!
//! Why this is safe. Two groups of stake Q share honest stake. An honest validator notarizes one block per slot, so a
//! slot has one Notarization; it does not both skip and finalize a slot, so a slot is not both skipped and final. If
//! two final blocks did not lie on one chain, the chain of the later one would leap over the slot of the earlier one;
//! leaping needs that slot's SkipCertificate, which cannot be. All else in ordering only withholds votes.
//!
//! Source: Simplex (Chan and Pass, TCC 2023, eprint 2023/463); windows as in Alpenglow (SIMD-0326).

use std::collections::BTreeMap;

use alloy_primitives::B256;

use super::planted::{Bug, Planted};
use crate::types::{Epoch, Slot, Statement};

/// What is known of one slot: what was signed here, and the certificates that are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotRecord {
    /// The block proposed here.
    pub my_proposal: Option<B256>,
    /// The block notarized here.
    pub my_notarize: Option<B256>,
    /// It was skipped here.
    pub my_skip: bool,
    /// The block finalized here.
    pub my_finalize: Option<B256>,
    /// The block with a Notarization.
    pub notarization: Option<B256>,
    /// There is a SkipCertificate.
    pub skip_certificate: bool,
    /// The block with a Finalization.
    pub finalization: Option<B256>,
}

/// A parent, as the rules name it: its slot in this epoch, or the block that the epoch began on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parent {
    /// Its slot; `None` for the block that the epoch began on.
    pub slot: Option<Slot>,
    /// Its id.
    pub id: B256,
}

/// A block, as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its slot.
    pub slot: Slot,
    /// Its id.
    pub id: B256,
    /// What it stands on.
    pub parent: Parent,
    /// What its execution here came to; `None` as long as it is not done.
    pub valid: Option<bool>,
}

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// Something may have been signed here and forgotten.
    #[error("the slot is at or below the floor")]
    BelowFloor,
    /// A final block is at the slot or above it, so nothing is left to say, and what was said is not kept.
    #[error("the slot lies at or below the newest final block")]
    Decided,
    /// The same wish was granted before, or one that contradicts it.
    #[error("the slot was voted on")]
    Voted,
    /// A slot of the window, this one or an earlier one, was skipped here.
    #[error("the window was skipped")]
    Skipped,
    /// The parent's slot is not below the block's.
    #[error("the parent is not below the block")]
    ParentNotBelow,
    /// The parent has no certificate here.
    #[error("the parent is not certified")]
    ParentUncertified,
    /// A slot between parent and block has no skip certificate here.
    #[error("slot {0} between parent and block was not skipped")]
    Gap(Slot),
    /// The block was not executed here.
    #[error("the block was not executed")]
    Unexecuted,
    /// The block was executed here and refused.
    #[error("the block is invalid")]
    Invalid,
    /// The block has no Notarization here.
    #[error("the block is not notarized")]
    Unnotarized,
    /// The slot has a Notarization, so there is nothing to skip.
    #[error("the slot is notarized")]
    Notarized,
    /// The slot was finalized here.
    #[error("the slot was finalized")]
    Finalized,
}

/// Permission to sign; only [`Record`] gives one, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    epoch: Epoch,
    mark: Mark,
}

/// What a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// A vote.
    Vote(Statement),
    /// Authorship of a block.
    Proposal {
        /// Its slot.
        slot: Slot,
        /// Its id.
        id: B256,
    },
}

impl Mark {
    /// The slot that is signed for.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        match self {
            Self::Vote(statement) => statement.slot(),
            Self::Proposal { slot, .. } => *slot,
        }
    }
}

impl Ballot {
    /// The epoch that is signed for.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is signed.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        self.mark
    }
}

/// Two certificates that cannot both be while less than a third of the stake is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// What was held.
    pub held: Statement,
    /// What came.
    pub came: Statement,
}

/// A place below which nothing is signed any more; compared by epoch, then by slot.
pub type Floor = Option<(Epoch, Slot)>;

/// What one validator signed and knows in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    epoch: Epoch,
    /// Slots of a window.
    window: u64,
    /// Id of the block that the epoch began on.
    base: B256,
    floor: Floor,
    slots: BTreeMap<Slot, SlotRecord>,
    frontier: Slot,
    /// The newest final block of the epoch.
    last_final: Option<(Slot, B256)>,
    planted: Planted,
}

impl Record {
    /// An empty record of an epoch that begins on `base`, with windows of `window` slots.
    #[must_use]
    pub const fn new(epoch: Epoch, window: u64, base: B256, floor: Floor, planted: Planted) -> Self {
        let window = if window == 0 { 1 } else { window };
        Self { epoch, window, base, floor, slots: BTreeMap::new(), frontier: Slot(0), last_final: None, planted }
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is known of a slot.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> SlotRecord {
        self.slots.get(&slot).copied().unwrap_or_default()
    }

    /// Slots about which something is known, from the newest final one on, in rising order.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = (Slot, &SlotRecord)> {
        self.slots.iter().map(|(slot, record)| (*slot, record))
    }

    /// The least slot that is not cleared.
    #[must_use]
    pub const fn frontier(&self) -> Slot {
        self.frontier
    }

    /// The newest final block of the epoch.
    #[must_use]
    pub const fn last_final(&self) -> Option<(Slot, B256)> {
        self.last_final
    }

    /// At and below this nothing is signed.
    #[must_use]
    pub const fn floor(&self) -> Floor {
        self.floor
    }

    /// First slot of the window that a slot is in.
    #[must_use]
    pub const fn window_start(&self, slot: Slot) -> Slot {
        Slot(slot.0.saturating_sub(slot.0 % self.window))
    }

    /// Raises the floor, never lowers it.
    pub fn raise_floor(&mut self, to: (Epoch, Slot)) {
        self.floor = self.floor.max(Some(to));
    }

    /// Notes something that was signed before a restart.
    pub fn restore(&mut self, mark: &Mark) {
        let record = self.slots.entry(mark.slot()).or_default();
        match mark {
            Mark::Proposal { id, .. } => record.my_proposal = Some(*id),
            Mark::Vote(Statement::Notarize { id, .. }) => record.my_notarize = Some(*id),
            Mark::Vote(Statement::Skip { .. }) => record.my_skip = true,
            Mark::Vote(Statement::Finalize { id, .. }) => record.my_finalize = Some(*id),
        }
    }

    /// Notes a certificate that was verified, and says whether it was new.
    ///
    /// # Errors
    /// [`Contradiction`]: a third of the stake is faulty, and nothing that follows can be trusted.
    pub fn observe(&mut self, statement: &Statement) -> Result<bool, Contradiction> {
        let slot = statement.slot();
        if self.last_final.is_some_and(|(last, _)| slot < last) {
            return Ok(false);
        }
        let contradiction = |held| Contradiction { held, came: *statement };
        let record = self.slots.entry(slot).or_default();
        let held = match statement {
            Statement::Notarize { .. } => record.notarization.map(|id| Statement::Notarize { slot, id }),
            Statement::Skip { .. } => record.skip_certificate.then_some(Statement::Skip { slot }),
            Statement::Finalize { .. } => record.finalization.map(|id| Statement::Finalize { slot, id }),
        };
        match held {
            Some(held) if held == *statement => return Ok(false),
            Some(held) => return Err(contradiction(held)),
            None => {}
        }
        match statement {
            Statement::Notarize { id, .. } => {
                if let Some(last) = record.finalization.filter(|last| last != id) {
                    return Err(contradiction(Statement::Finalize { slot, id: last }));
                }
                record.notarization = Some(*id);
            }
            Statement::Skip { .. } => {
                if let Some(id) = record.finalization {
                    return Err(contradiction(Statement::Finalize { slot, id }));
                }
                record.skip_certificate = true;
            }
            Statement::Finalize { id, .. } => {
                if record.skip_certificate {
                    return Err(contradiction(Statement::Skip { slot }));
                }
                if let Some(other) = record.notarization.filter(|other| other != id) {
                    return Err(contradiction(Statement::Notarize { slot, id: other }));
                }
                record.finalization = Some(*id);
                self.last_final = Some((slot, *id));
                self.slots = self.slots.split_off(&slot);
                self.frontier = self.frontier.max(slot.next());
            }
        }
        while self.is_cleared(self.frontier) {
            self.frontier = self.frontier.next();
        }
        Ok(true)
    }

    /// Whether nothing more can be decided about a slot, or all of it was.
    #[must_use]
    pub fn is_cleared(&self, slot: Slot) -> bool {
        let record = self.slot(slot);
        self.last_final.is_some_and(|(last, _)| slot <= last)
            || record.notarization.is_some()
            || record.skip_certificate
            || (self.planted.has(Bug::ClearEarly) && record.my_skip)
    }

    /// Whether a block may be stood on: it is notarized or final, or the block that the epoch began on.
    #[must_use]
    pub fn is_certified(&self, parent: &Parent) -> bool {
        match parent.slot {
            None => parent.id == self.base,
            Some(slot) => {
                let record = self.slot(slot);
                record.notarization == Some(parent.id) || record.finalization == Some(parent.id)
            }
        }
    }

    /// The first slot strictly between two that has no skip certificate here.
    fn gap(&self, parent: Option<Slot>, slot: Slot) -> Option<Slot> {
        let mut between = parent.map_or(Slot(0), Slot::next);
        while between < slot {
            if !self.slot(between).skip_certificate {
                return Some(between);
            }
            between = between.next();
        }
        None
    }

    /// The block to propose on in a window that begins at `start`: the highest one notarized or final below it, if
    /// every slot between is skipped, which holds once the frontier is there.
    #[must_use]
    pub fn base_of(&self, start: Slot) -> Option<Parent> {
        let mut skipped_one = false;
        let mut slot = start.0;
        while let Some(below) = slot.checked_sub(1) {
            let record = self.slot(Slot(below));
            let certified = record.finalization.or(record.notarization);
            if let Some(id) = certified {
                let old = self.planted.has(Bug::ProposeOnOldBase) && !skipped_one && record.finalization.is_none();
                if !old {
                    return Some(Parent { slot: Some(Slot(below)), id });
                }
                skipped_one = true;
            } else if !record.skip_certificate {
                return None;
            }
            slot = below;
        }
        Some(Parent { slot: None, id: self.base })
    }

    /// Whether anything may be signed at a slot.
    fn open(&self, slot: Slot) -> Result<(), Withheld> {
        if self.floor.is_some_and(|floor| (self.epoch, slot) <= floor) && !self.planted.has(Bug::IgnoreFloor) {
            return Err(Withheld::BelowFloor);
        }
        match self.last_final {
            Some((last, _)) if slot <= last => Err(Withheld::Decided),
            _ => Ok(()),
        }
    }

    /// Whether a slot of the window up to this one was skipped here.
    fn is_window_skipped(&self, slot: Slot) -> bool {
        self.slots.range(self.window_start(slot)..=slot).any(|(_, record)| record.my_skip)
    }

    fn grant(&mut self, mark: Mark) -> Ballot {
        self.restore(&mark);
        Ballot { epoch: self.epoch, mark }
    }

    /// Asks to sign a block as its leader.
    ///
    /// # Errors
    /// [`Withheld`].
    pub fn propose(&mut self, slot: Slot, id: B256) -> Result<Ballot, Withheld> {
        self.open(slot)?;
        if self.slot(slot).my_proposal.is_some() && !self.planted.has(Bug::ProposeTwice) {
            return Err(Withheld::Voted);
        }
        if self.is_window_skipped(slot) {
            return Err(Withheld::Skipped);
        }
        Ok(self.grant(Mark::Proposal { slot, id }))
    }

    /// Asks to vote Notarize for a block.
    ///
    /// # Errors
    /// [`Withheld`]; what is missing may come later, so the wish may be repeated.
    pub fn notarize(&mut self, block: &Candidate) -> Result<Ballot, Withheld> {
        let Candidate { slot, id, parent, valid } = *block;
        let planted = self.planted;
        self.open(slot)?;
        match self.slot(slot).my_notarize {
            Some(mine) if mine == id || !planted.has(Bug::NotarizeTwice) => return Err(Withheld::Voted),
            _ => {}
        }
        if self.is_window_skipped(slot) && !planted.has(Bug::NotarizeAfterSkip) {
            return Err(Withheld::Skipped);
        }
        if parent.slot.is_some_and(|below| below >= slot) {
            return Err(Withheld::ParentNotBelow);
        }
        if !self.is_certified(&parent) && !planted.has(Bug::NotarizeOnUncertifiedParent) {
            return Err(Withheld::ParentUncertified);
        }
        if let Some(gap) = self.gap(parent.slot, slot).filter(|_| !planted.has(Bug::NotarizeOverGap)) {
            return Err(Withheld::Gap(gap));
        }
        match valid {
            None if !planted.has(Bug::NotarizeUnexecuted) => return Err(Withheld::Unexecuted),
            Some(false) if !planted.has(Bug::NotarizeInvalid) => return Err(Withheld::Invalid),
            _ => {}
        }
        Ok(self.grant(Mark::Vote(Statement::Notarize { slot, id })))
    }

    /// Asks to vote Finalize for a block.
    ///
    /// # Errors
    /// [`Withheld`]; what is missing may come later, so the wish may be repeated.
    pub fn finalize(&mut self, slot: Slot, id: B256, valid: Option<bool>) -> Result<Ballot, Withheld> {
        let (record, planted) = (self.slot(slot), self.planted);
        self.open(slot)?;
        match record.my_finalize {
            Some(mine) if mine == id || !planted.has(Bug::FinalizeTwice) => return Err(Withheld::Voted),
            _ => {}
        }
        if record.my_skip && !planted.has(Bug::FinalizeAfterSkip) {
            return Err(Withheld::Skipped);
        }
        if record.notarization != Some(id) && !planted.has(Bug::FinalizeUnnotarized) {
            return Err(Withheld::Unnotarized);
        }
        match valid {
            None => return Err(Withheld::Unexecuted),
            Some(false) => return Err(Withheld::Invalid),
            Some(true) => {}
        }
        Ok(self.grant(Mark::Vote(Statement::Finalize { slot, id })))
    }

    /// Asks to vote Skip for a slot.
    ///
    /// # Errors
    /// [`Withheld`].
    pub fn skip(&mut self, slot: Slot) -> Result<Ballot, Withheld> {
        let (record, planted) = (self.slot(slot), self.planted);
        self.open(slot)?;
        if record.my_skip {
            return Err(Withheld::Voted);
        }
        if record.my_finalize.is_some() && !planted.has(Bug::SkipAfterFinalize) {
            return Err(Withheld::Finalized);
        }
        if record.notarization.is_some() && !planted.has(Bug::SkipNotarized) {
            return Err(Withheld::Notarized);
        }
        Ok(self.grant(Mark::Vote(Statement::Skip { slot })))
    }
}
