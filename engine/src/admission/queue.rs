//! What one sender has in the pool: its pending run, and what waits behind a gap or for funds.

use std::collections::BTreeMap;

use alloy_consensus::Transaction as _;
use alloy_primitives::U256;
use tracing::Span;

use super::{
    bids::Bid,
    checks::Sender,
    error::AdmissionError,
    mempool::{Offer, PoolLimits},
};
use crate::{
    limits,
    types::{Account, PooledTransaction},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) transaction: PooledTransaction,
    /// Its number in the order of entry into the pool.
    pub(super) arrival: u64,
    /// The lowest bid of its sender up to here.
    pub(super) rank: Bid,
    /// How long it waits for a block.
    pub(super) waits: Span,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) account: Account,
    pub(super) delegated: bool,
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) pending: usize,
    /// Cost of the pending run.
    pub(super) pending_cost: U256,
    /// The bid with which the sender stands in `Inner::queued_tails`, or in `Inner::pending_tails` if this is so.
    pub(super) tail: Option<(bool, Bid)>,
    /// The bid with which it stands in `Inner::heads`, if something is pending.
    pub(super) head: Option<Bid>,
}

impl Entry {
    /// What a block gets with it; `None` if it cannot pay `base_fee`.
    pub(super) fn offer(&self, base_fee: u64) -> Option<Offer> {
        let tip = self.transaction.envelope().effective_tip_per_gas(base_fee)?;
        Some(Offer { tip, arrival: self.arrival, transaction: self.transaction.clone() })
    }
}

impl Queue {
    pub(super) fn next_nonce(&self) -> u64 {
        self.account.nonce.saturating_add(u64::try_from(self.pending).unwrap_or(u64::MAX))
    }

    pub(super) fn queued(&self) -> usize {
        self.entries.len().saturating_sub(self.pending)
    }

    /// Extends the pending run while nonces follow and the balance lasts.
    pub(super) fn promote(&mut self) {
        while let Some(entry) = self.entries.get(&self.next_nonce()) {
            let cost = self.pending_cost.saturating_add(entry.transaction.cost_max());
            if cost > self.account.balance {
                break;
            }
            self.pending_cost = cost;
            self.pending = self.pending.saturating_add(1);
        }
    }

    /// Counts the run from its beginning; for when the account itself changed.
    pub(super) fn recount(&mut self) {
        self.pending = 0;
        self.pending_cost = U256::ZERO;
        self.promote();
    }

    /// The rank of what bids `own` at this nonce.
    pub(super) fn rank(&self, nonce: u64, own: Bid) -> Bid {
        self.entries.range(..nonce).next_back().map_or(own, |(_, before)| own.behind(before.rank))
    }

    /// Ranks from `nonce` on, as far as anything changes.
    pub(super) fn rerank(&mut self, nonce: u64) {
        let mut before = self.entries.range(..nonce).next_back().map(|(_, entry)| entry.rank);
        for (at, entry) in self.entries.range_mut(nonce..) {
            let own = Bid::new(&entry.transaction, entry.arrival);
            let rank = before.map_or(own, |before| own.behind(before));
            if entry.rank == rank && *at != nonce {
                break;
            }
            entry.rank = rank;
            before = Some(rank);
        }
    }
}

/// Places that a transaction takes.
pub(super) fn places(transaction: &PooledTransaction) -> usize {
    transaction.size_bytes().div_ceil(limits::POOL_PLACE_BYTES)
}

pub(super) fn check_sender_limits(
    known: Option<&Queue>,
    sender: &Sender,
    nonce: u64,
    next: u64,
    limits: &PoolLimits,
) -> Result<(), AdmissionError> {
    let waiting = known.map_or(0, |queue| queue.entries.len());
    if sender.delegated && waiting > 0 {
        return Err(AdmissionError::DelegatedLimit);
    }
    if nonce > next {
        let ahead = usize::try_from(nonce.saturating_sub(next)).unwrap_or(usize::MAX);
        if ahead > limits.sender_pending_max {
            return Err(AdmissionError::NonceTooFar { next, nonce, ahead: limits.sender_pending_max });
        }
        if known.map_or(0, Queue::queued) >= limits.sender_queued_max {
            return Err(AdmissionError::SenderLimit(limits.sender_queued_max));
        }
    } else if known.map_or(0, |queue| queue.pending) >= limits.sender_pending_max {
        return Err(AdmissionError::SenderLimit(limits.sender_pending_max));
    }
    Ok(())
}
