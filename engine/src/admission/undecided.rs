//! Transactions that left the pool and may be included all the same, by a block under way.
//!
//! A block takes what the pool offers while it is built, and is final some time later. What is replaced meanwhile, or
//! makes way for others, is in that block; only once its nonce is used, or no block can include it any more, is it
//! known how it ends.

use std::collections::BTreeMap;

use alloy_primitives::{
    Address, B256,
    map::{AddressMap, B256Map, B256Set},
};

use crate::{
    events::{DropReason, Event},
    limits,
    types::Height,
};

/// One that left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) hash: B256,
    pub(super) reason: DropReason,
    pub(super) sender: Address,
    pub(super) nonce: u64,
    /// Of the pool when it did.
    pub(super) height: Height,
}

impl Left {
    pub(super) const fn dropped(&self) -> Event {
        Event::Dropped(self.hash, self.reason)
    }
}

/// Those whose end is not known yet.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// By number, in the order in which they left.
    waiting: BTreeMap<u64, Left>,
    numbers: B256Map<u64>,
    latest: u64,
}

impl Undecided {
    /// One more; if too many wait, how the oldest ended.
    pub(super) fn add(&mut self, left: Left) -> Option<Event> {
        self.latest = self.latest.saturating_add(1);
        self.numbers.insert(left.hash, self.latest);
        self.waiting.insert(self.latest, left);
        if self.waiting.len() <= limits::POOL_UNDECIDED_MAX {
            return None;
        }
        let (_, oldest) = self.waiting.pop_first()?;
        self.numbers.remove(&oldest.hash);
        Some(oldest.dropped())
    }

    /// It enters the pool again: how it ended before.
    pub(super) fn take(&mut self, hash: &B256) -> Option<Event> {
        let number = self.numbers.remove(hash)?;
        Some(self.waiting.remove(&number)?.dropped())
    }

    /// How those ended about whom a block of this height decides, which has these `included` and leaves accounts with
    /// these next nonces. Those that it includes are told of with it.
    pub(super) fn settle(&mut self, height: Height, included: &B256Set, next: &AddressMap<u64>) -> Vec<Event> {
        let mut ended = Vec::new();
        self.waiting.retain(|_, one| {
            let is_used = next.get(&one.sender).is_some_and(|next| *next > one.nonce);
            let is_over = one.height.0.saturating_add(limits::POOL_UNDECIDED_HEIGHTS) <= height.0;
            let is_decided = is_used || is_over;
            if is_decided {
                self.numbers.remove(&one.hash);
                ended.extend((!included.contains(&one.hash)).then(|| one.dropped()));
            }
            !is_decided
        });
        ended
    }
}
