//! Headers that are not final yet, and how far each has got: heard of, body here, executed.
//!
//! Promise: per slot the first two proposals of its leader are kept and whatever a certificate names, and nothing at
//! or below the newest final block; so memory is bounded. Entries lie by id, and by slot in the order of arrival.

use std::{collections::BTreeMap, time::Duration};

use alloy_primitives::B256;

use super::rules::{Candidate, Parent};
use crate::types::{ConsensusHeader, Signature, Slot};

/// A header and what is known of its block.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: B256,
    pub(super) header: ConsensusHeader,
    /// Its leader's signature.
    pub(super) signature: Signature,
    pub(super) parent: Parent,
    /// Whether it has no transactions; `None` as long as its body is not here.
    pub(super) empty: Option<bool>,
    /// What its execution here came to.
    pub(super) valid: Option<bool>,
    /// It has no block of its own: it stands above the last height of an epoch.
    pub(super) is_tail: bool,
    /// The seed mixed up to here, once its parent's is known.
    pub(super) mix: Option<B256>,
    /// Its body is on disk with everything below it, or will be with the next sync.
    pub(super) is_kept: bool,
    /// It is known to be final though it may not be executed yet: it came in a range.
    pub(super) is_final: bool,
    /// When it arrived here; of one that was built here, when its build began.
    pub(super) arrived: Duration,
    /// When its proposal arrived or left here.
    pub(super) heard: Duration,
    /// It was built here, and there was no time for more transactions.
    pub(super) is_cut: bool,
}

impl Known {
    pub(super) const fn candidate(&self) -> Candidate {
        Candidate { slot: Slot(self.header.slot), id: self.id, parent: self.parent, valid: self.valid }
    }
}

/// All headers of an epoch above the newest committed block.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    by_id: BTreeMap<B256, Known>,
    by_slot: BTreeMap<Slot, Vec<B256>>,
}

impl Blocks {
    pub(super) fn get(&self, id: &B256) -> Option<&Known> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &B256) -> Option<&mut Known> {
        self.by_id.get_mut(id)
    }

    /// Adds a header that is not there.
    pub(super) fn insert(&mut self, known: Known) {
        let (id, slot) = (known.id, Slot(known.header.slot));
        if self.by_id.insert(id, known).is_none() {
            self.by_slot.entry(slot).or_default().push(id);
        }
    }

    /// The first proposal heard of for a slot.
    pub(super) fn first(&self, slot: Slot) -> Option<&Known> {
        self.by_slot.get(&slot).and_then(|ids| ids.first()).and_then(|id| self.by_id.get(id))
    }

    /// How many headers there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many proposals of a slot there are.
    pub(super) fn count(&self, slot: Slot) -> usize {
        self.by_slot.get(&slot).map_or(0, Vec::len)
    }

    /// All headers in order of slot and arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.by_slot.values().flatten().filter_map(|id| self.by_id.get(id))
    }

    /// The first proposal of every slot, in order.
    pub(super) fn firsts(&self) -> impl Iterator<Item = &Known> {
        self.by_slot.values().filter_map(|ids| ids.first()).filter_map(|id| self.by_id.get(id))
    }

    /// Forgets headers below this slot whose bodies are not here and are not awaited.
    pub(super) fn forget_bodiless(&mut self, below: Slot) {
        let lies_below = self.by_slot.range(..below).flat_map(|(_, ids)| ids).filter_map(|id| self.by_id.get(id));
        let bodiless = lies_below.filter(|known| known.empty.is_none() && !known.is_final);
        for (slot, id) in bodiless.map(|known| (known.header.slot(), known.id)).collect::<Vec<_>>() {
            self.by_id.remove(&id);
            if let Some(ids) = self.by_slot.get_mut(&slot) {
                ids.retain(|known| *known != id);
            }
        }
        self.by_slot.retain(|_, ids| !ids.is_empty());
    }

    /// Forgets everything up to and with this slot, and says which ids those were.
    pub(super) fn prune(&mut self, through: Slot) -> Vec<B256> {
        let above = self.by_slot.split_off(&through.next());
        let gone: Vec<B256> = std::mem::replace(&mut self.by_slot, above).into_values().flatten().collect();
        for id in &gone {
            self.by_id.remove(id);
        }
        gone
    }
}
