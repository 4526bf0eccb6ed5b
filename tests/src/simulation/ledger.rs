//! The rules of voting a second time, from what one node wrote into its log alone.
//!
//! Shares no code with `engine/src/ordering/rules.rs`: section by section what an honest validator may sign when it
//! holds these certificates. What it holds is what it wrote; a power cut takes back what was not synced.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use engine::{
    ordering::journal::Entry,
    types::{Certificate, ConsensusHeader, Statement},
};

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    notarization: Option<B256>,
    skipped: bool,
    finalization: Option<B256>,
    my_proposal: Option<B256>,
    my_notarize: Option<B256>,
    my_skip: bool,
    my_finalize: Option<B256>,
}

/// One node's log, as far as it binds what the node may sign; places are (epoch, slot).
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    window: u64,
    slots: BTreeMap<(u64, u64), Held>,
    /// The block that each epoch began on.
    bases: BTreeMap<u64, B256>,
    finals: BTreeMap<u64, u64>,
    floor: Option<(u64, u64)>,
    /// Up to here the node may have signed before it lost its log.
    forgotten: Option<(u64, u64)>,
    /// Up to here every slot of the epoch is known to be decided.
    checked: (u64, u64),
}

impl Ledger {
    /// What a node with this log knows, in windows of `window` slots; `forgotten` is where it may have signed before.
    #[must_use]
    pub(super) fn new(window: u64, bases: BTreeMap<u64, B256>, forgotten: Option<(u64, u64)>) -> Self {
        Self { window: window.max(1), bases, forgotten, ..Self::default() }
    }

    /// Notes a line of the log.
    pub(super) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Certificate(certificate) => self.certificate(certificate),
            Entry::Vote(vote) => {
                let held = self.slots.entry((vote.epoch.0, vote.statement.slot().0)).or_default();
                match vote.statement {
                    Statement::Notarize { id, .. } => held.my_notarize = Some(id),
                    Statement::Skip { .. } => held.my_skip = true,
                    Statement::Finalize { id, .. } => held.my_finalize = Some(id),
                }
            }
            Entry::Proposal { epoch, slot, id, .. } => {
                self.slots.entry((epoch.0, slot.0)).or_default().my_proposal = Some(*id);
            }
            Entry::Floor { epoch, slot } | Entry::Regained { epoch, slot } => {
                self.floor = self.floor.max(Some((epoch.0, slot.0)));
            }
            Entry::EpochStart { epoch, base, .. } => {
                self.bases.insert(epoch.0, *base);
            }
        }
    }

    /// Notes a certificate that is held.
    pub(super) fn certificate(&mut self, certificate: &Certificate) {
        let (epoch, slot) = (certificate.epoch.0, certificate.statement.slot().0);
        let held = self.slots.entry((epoch, slot)).or_default();
        match certificate.statement {
            Statement::Notarize { id, .. } => held.notarization = Some(id),
            Statement::Skip { .. } => held.skipped = true,
            Statement::Finalize { id, .. } => {
                held.finalization = Some(id);
                let newest = self.finals.entry(epoch).or_default();
                *newest = slot.max(*newest);
            }
        }
    }

    fn held(&self, epoch: u64, slot: u64) -> Held {
        self.slots.get(&(epoch, slot)).copied().unwrap_or_default()
    }

    fn is_final(&self, epoch: u64, slot: u64) -> bool {
        self.finals.get(&epoch).is_some_and(|newest| slot <= *newest)
    }

    /// All that is signed lies above what may have been forgotten, and above what is final.
    fn open(&self, epoch: u64, slot: u64) -> Result<(), String> {
        if Some((epoch, slot)) <= self.floor {
            return Err(format!("at {epoch}/{slot}, with the floor of the log at {:?}", self.floor));
        }
        if Some((epoch, slot)) <= self.forgotten {
            return Err(format!("at {epoch}/{slot}, while it may have signed up to {:?}", self.forgotten));
        }
        if self.is_final(epoch, slot) {
            return Err(format!("at {epoch}/{slot}, which is final"));
        }
        Ok(())
    }

    fn is_window_skipped(&self, epoch: u64, slot: u64) -> bool {
        (slot - slot % self.window..=slot).any(|at| self.held(epoch, at).my_skip)
    }

    fn is_base(&self, header: &ConsensusHeader) -> bool {
        self.bases.get(&header.epoch) == Some(&header.parent_id)
    }

    /// The slots strictly between a header and its parent.
    fn between(&self, header: &ConsensusHeader) -> std::ops::Range<u64> {
        if self.is_base(header) { 0..header.slot } else { header.parent_slot + 1..header.slot }
    }

    /// Whether the node may vote this; `header` is the block's, and whether it was executed here and is valid.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(super) fn vote(
        &self,
        epoch: u64,
        statement: Statement,
        header: Option<(&ConsensusHeader, Result<(), String>)>,
    ) -> Result<(), String> {
        let slot = statement.slot().0;
        self.open(epoch, slot)?;
        let held = self.held(epoch, slot);
        match statement {
            Statement::Notarize { id, .. } => {
                let (header, verdict) = header.ok_or("a block that nobody made")?;
                verdict?;
                if held.my_notarize.is_some_and(|mine| mine != id) {
                    return Err("a second block of the slot".to_owned());
                }
                if self.is_window_skipped(epoch, slot) {
                    return Err("in a window that it skipped".to_owned());
                }
                self.stands(header)
            }
            Statement::Finalize { id, .. } => {
                let (_, verdict) = header.ok_or("a block that nobody made")?;
                verdict?;
                if held.notarization != Some(id) {
                    return Err("without its Notarization".to_owned());
                }
                if held.my_skip || held.my_finalize.is_some_and(|mine| mine != id) {
                    return Err("against what it said before".to_owned());
                }
                Ok(())
            }
            Statement::Skip { .. } if held.my_finalize.is_some() => Err("a slot that it finalized".to_owned()),
            Statement::Skip { .. } if held.notarization.is_some() => {
                Err("a slot whose Notarization it holds".to_owned())
            }
            Statement::Skip { .. } => Ok(()),
        }
    }

    /// Whether a block's parent is certified, and every slot between is skipped.
    fn stands(&self, header: &ConsensusHeader) -> Result<(), String> {
        let parent = self.held(header.epoch, header.parent_slot);
        let id = Some(header.parent_id);
        if !self.is_base(header) && parent.notarization != id && parent.finalization != id {
            return Err("on a parent without a certificate".to_owned());
        }
        match self.between(header).find(|at| !self.held(header.epoch, *at).skipped) {
            Some(at) => Err(format!("over slot {at}, which was not skipped")),
            None => Ok(()),
        }
    }

    /// Whether the node may propose this: one block per slot, on its own block, or on the newest certified one.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(super) fn proposal(&self, header: &ConsensusHeader, id: B256) -> Result<(), String> {
        let (epoch, slot) = (header.epoch, header.slot);
        self.open(epoch, slot)?;
        if self.held(epoch, slot).my_proposal.is_some_and(|mine| mine != id) {
            return Err("a second block of the slot".to_owned());
        }
        if self.is_window_skipped(epoch, slot) {
            return Err("in a window that it skipped".to_owned());
        }
        if slot % self.window != 0 {
            let below = self.held(epoch, slot - 1).my_proposal;
            return if below == Some(header.parent_id) { Ok(()) } else { Err("not on its own block".to_owned()) };
        }
        let newer = self.between(header).find(|at| {
            let held = self.held(epoch, *at);
            held.notarization.is_some() || held.finalization.is_some()
        });
        match newer {
            Some(at) => Err(format!("below the certified block of slot {at}")),
            None => self.stands(header),
        }
    }

    /// Whether every slot below a frontier is decided.
    ///
    /// # Errors
    /// The slot that is not.
    pub(super) fn frontier(&mut self, epoch: u64, frontier: u64) -> Result<(), String> {
        let from = if self.checked.0 == epoch { self.checked.1 } else { 0 };
        let from = self.finals.get(&epoch).map_or(from, |newest| from.max(newest + 1));
        let is_open = |at: &u64| {
            let held = self.held(epoch, *at);
            held.notarization.is_none() && !held.skipped
        };
        if let Some(at) = (from..frontier).find(is_open) {
            return Err(format!("frontier {frontier} of epoch {epoch}, and slot {at} is not decided"));
        }
        self.checked = (epoch, frontier.max(from));
        Ok(())
    }
}
