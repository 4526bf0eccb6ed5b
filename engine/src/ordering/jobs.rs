//! What the executor is given to do, one job at a time: a build, or the execution of a block on its parent.

use alloy_primitives::B256;

use super::{blocks::Known, event::Output, machine::Machine, rules::Parent};
use crate::types::Slot;

/// What the executor is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// A block of this slot is being built.
    Build(Slot),
    /// This block is being executed.
    Execute(B256),
}

impl Machine {
    /// The block that is being executed.
    pub(super) const fn executing(&self) -> Option<B256> {
        match &self.job {
            Some(Job::Execute(id)) => Some(*id),
            _ => None,
        }
    }

    /// An execution is done.
    pub(super) fn executed(&mut self, id: B256, verdict: Result<(), String>) {
        if self.executing() == Some(id) {
            self.job = None;
        }
        self.changed = true;
        let Some(known) = self.blocks.get_mut(&id) else { return };
        match verdict {
            Ok(()) => {
                known.valid = Some(true);
                let slot = known.header.slot();
                self.tell_notarized(slot, id);
            }
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
        let is_ready = |known: &&Known| {
            known.valid.is_none() && known.empty.is_some() && known.mix.is_some() && self.is_valid(&known.parent)
        };
        let rank = |known: &Known| {
            let (slot, record) = (known.header.slot(), self.record.slot(known.header.slot()));
            let is_certified = record.notarization == Some(known.id) || record.finalization == Some(known.id);
            let is_live = slot >= frontier && !record.my_skip;
            (!(is_certified || is_live), slot)
        };
        let next = self.blocks.iter().filter(is_ready).min_by_key(|known| rank(known));
        let Some((id, parent)) = next.map(|known| (known.id, known.parent.id)) else { return };
        self.job = Some(Job::Execute(id));
        self.emit(Output::Execute { id, parent });
    }

    /// Whether a block was executed here and is valid.
    pub(super) fn is_valid(&self, parent: &Parent) -> bool {
        parent.id == self.tip.id || self.blocks.get(&parent.id).is_some_and(|known| known.valid == Some(true))
    }
}
