//! Transactions for the next block: highest effective tip first, nonces of one sender in order.
//!
//! A heap holds the next transaction of every sender; taking one puts its successor in. Between equal
//! tips the lower address goes first, so the order depends on the pool alone.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

use super::mempool::Mempool;
use crate::{
    ports::Candidates,
    types::{PooledTransaction, Transaction},
};

#[derive(Debug)]
struct Head {
    key: (u128, Reverse<Address>),
    transaction: PooledTransaction,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

/// The pool as one build sees it; leaves the pool unchanged but for what is thrown out.
#[derive(Debug)]
pub struct PoolCandidates<'pool> {
    pool: &'pool Mempool,
    base_fee: u64,
    heap: BinaryHeap<Head>,
    /// The last one offered: its successor joins the heap when the next is asked for.
    offered: Option<PooledTransaction>,
}

impl<'pool> PoolCandidates<'pool> {
    /// Starts with the best transaction of every sender that can pay `base_fee`.
    #[must_use]
    pub fn new(pool: &'pool Mempool, base_fee: u64) -> Self {
        let heads = pool.heads(base_fee);
        let heap = heads
            .into_iter()
            .map(|(tip, sender, transaction)| Head { key: (tip, Reverse(sender)), transaction })
            .collect();
        Self { pool, base_fee, heap, offered: None }
    }
}

impl Candidates for PoolCandidates<'_> {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        if let Some(last) = self.offered.take() {
            let (sender, nonce) = (last.sender(), last.envelope().nonce());
            if let Some((tip, transaction)) = self.pool.successor(sender, nonce, self.base_fee) {
                self.heap.push(Head { key: (tip, Reverse(sender)), transaction });
            }
        }
        let best = self.heap.pop()?.transaction;
        let shared = best.shared().clone();
        self.offered = Some(best);
        Some(shared)
    }

    fn skip_sender(&mut self, sender: Address) {
        if self.offered.as_ref().is_some_and(|last| last.sender() == sender) {
            self.offered = None;
        }
    }

    fn throw_out(&mut self, transaction: &Transaction) {
        self.skip_sender(transaction.sender());
        self.pool.throw_out(transaction.sender(), transaction.envelope().nonce());
    }
}
