//! Senders by what one transaction of each bids, best or worst first at any base fee: those that a block could take
//! next, and those that would leave first.
//!
//! What the proposer gets per gas is `min(tip, fee - base fee)` (EIP-1559). So there are two orders: by the tip of
//! those whose tip decides, and by the fee of those whose fee does; what stays in one of them keeps its place in it,
//! whatever the base fee is. As the base fee moves, those whose `fee - tip` it passes change sides, at O(log n) each,
//! and nobody else is looked at. Read side by side, the two are the order of a block.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    iter,
    ops::Bound::{Excluded, Unbounded},
};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

use crate::{limits, types::Transaction};

/// Whose turn it is: the highest tip in wei per gas, then the first to arrive.
pub(super) type Turn = (u128, Reverse<u64>);

/// What decides about the turn of a transaction at any base fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bid {
    /// Most wei per gas in all.
    fee: u128,
    /// Most wei per gas for the proposer.
    tip: u128,
    arrival: u64,
}

impl Bid {
    pub(super) fn new(transaction: &Transaction, arrival: u64) -> Self {
        let envelope = transaction.envelope();
        let fee = envelope.max_fee_per_gas();
        Self { fee, tip: envelope.max_priority_fee_per_gas().unwrap_or(fee).min(fee), arrival }
    }

    /// With no more of either than `before`, since nothing is included before what its sender sent before it.
    pub(super) fn behind(self, before: Self) -> Self {
        Self { fee: self.fee.min(before.fee), tip: self.tip.min(before.tip), arrival: self.arrival }
    }

    /// Wei per gas in all at a base fee, or what is offered if it does not suffice.
    pub(super) fn price(&self, base_fee: u64) -> u128 {
        self.fee.min(self.tip.saturating_add(base_fee.into()))
    }

    /// What another must pay less than to be displaced by this. Whoever offers less than the base fee is worth less
    /// than all who can pay it. Of those who can, only one that is `next` on the chain displaces another, since its
    /// successors are void with it; and it counts for what it still pays when the base fee has risen by
    /// [`limits::POOL_HEADROOM_PERCENT`], since what is bid just above the base fee soon pays nothing.
    pub(super) fn worth(&self, base_fee: u64, next: bool) -> u128 {
        let payable = self.fee.min(base_fee.into());
        let rise = base_fee.saturating_mul(limits::POOL_HEADROOM_PERCENT) / 100;
        let later = self.price(base_fee.saturating_add(rise)).saturating_sub(rise.into());
        if next { payable.max(later) } else { payable }
    }

    /// The highest base fee at which the tip decides; with the arrival, so that it is nobody else's.
    const fn limit(&self) -> (u128, u64) {
        (self.fee.saturating_sub(self.tip), self.arrival)
    }

    const fn by_tip(&self) -> Turn {
        (self.tip, Reverse(self.arrival))
    }

    const fn by_fee(&self) -> Turn {
        (self.fee, Reverse(self.arrival))
    }
}

/// One bid of each sender.
#[derive(Debug, Default)]
pub(super) struct Bids {
    base_fee: u128,
    /// Those whose limit is `base_fee` or above.
    by_tip: BTreeMap<Turn, Address>,
    /// The others, by fee.
    by_fee: BTreeMap<Turn, Address>,
    /// All, by limit: their tips, which say the rest.
    limits: BTreeMap<(u128, u64), (u128, Address)>,
}

/// What stands in [`Bids::limits`].
fn bid((&(limit, arrival), &(tip, sender)): (&(u128, u64), &(u128, Address))) -> (Bid, Address) {
    (Bid { fee: limit.saturating_add(tip), tip, arrival }, sender)
}

impl Bids {
    pub(super) fn insert(&mut self, bid: Bid, sender: Address) {
        self.limits.insert(bid.limit(), (bid.tip, sender));
        if bid.limit().0 >= self.base_fee {
            self.by_tip.insert(bid.by_tip(), sender);
        } else {
            self.by_fee.insert(bid.by_fee(), sender);
        }
    }

    pub(super) fn remove(&mut self, bid: &Bid) {
        self.limits.remove(&bid.limit());
        if bid.limit().0 >= self.base_fee {
            self.by_tip.remove(&bid.by_tip());
        } else {
            self.by_fee.remove(&bid.by_fee());
        }
    }

    /// Brings the order up to date with a base fee.
    pub(super) fn price(&mut self, base_fee: u64) {
        let (before, now) = (self.base_fee, u128::from(base_fee));
        self.base_fee = now;
        for (bid, sender) in self.limits.range((before, 0)..(now.max(before), 0)).map(bid) {
            self.by_tip.remove(&bid.by_tip());
            self.by_fee.insert(bid.by_fee(), sender);
        }
        for (bid, sender) in self.limits.range((now, 0)..(before.max(now), 0)).map(bid) {
            self.by_fee.remove(&bid.by_fee());
            self.by_tip.insert(bid.by_tip(), sender);
        }
    }

    /// Whose transaction can pay the base fee, best first; those after this turn if there is one.
    pub(super) fn after(&self, turn: Option<Turn>) -> impl Iterator<Item = Address> {
        let base_fee = self.base_fee;
        let end = turn.map_or(Unbounded, Excluded);
        let raised = turn.and_then(|(tip, arrival)| Some((tip.checked_add(base_fee)?, arrival)));
        let raised_end = raised.map_or(Unbounded, Excluded);
        let mut tips = self.by_tip.range((Unbounded, end)).rev().peekable();
        let fees = self.by_fee.range((Unbounded, raised_end)).rev();
        let tip = move |((fee, arrival), sender): (&Turn, _)| Some(((fee.checked_sub(base_fee)?, *arrival), sender));
        let mut fees = fees.map_while(tip).peekable();
        iter::from_fn(move || {
            let fee_is_next = match (tips.peek(), fees.peek()) {
                (Some((tip, _)), Some((fee, _))) => fee > *tip,
                (tip, _) => tip.is_none(),
            };
            if fee_is_next { fees.next().map(|(_, sender)| *sender) } else { tips.next().map(|(_, sender)| *sender) }
        })
    }

    /// Everybody with the wei per gas that they pay, or offer if it does not suffice: the least first, then the last
    /// to arrive.
    pub(super) fn worst_first(&self) -> impl Iterator<Item = (Turn, Address)> {
        let price =
            |((tip, arrival), sender): (&Turn, &Address)| ((tip.saturating_add(self.base_fee), *arrival), *sender);
        let mut tips = self.by_tip.iter().map(price).peekable();
        let mut fees = self.by_fee.iter().map(|(turn, sender)| (*turn, *sender)).peekable();
        iter::from_fn(move || {
            let tip_is_next = match (tips.peek(), fees.peek()) {
                (Some((tip, _)), Some((fee, _))) => tip < fee,
                (tip, _) => tip.is_some(),
            };
            if tip_is_next { tips.next() } else { fees.next() }
        })
    }
}
