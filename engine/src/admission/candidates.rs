//! Transactions for the next block, in the order in which a block takes them:
//!
//! 1. nonces of one sender in order;
//! 2. of what can go next, the highest effective tip (EIP-1559: what the proposer gets per gas);
//! 3. between equal tips, what entered the pool first.
//!
//! Nothing else counts: not who sends, not whom he calls, not what others are expected to touch. So nobody is
//! overtaken by somebody who pays less or came later with the same tip, and the order depends on the pool alone.
//! A replacement enters the pool anew.
//!
//! The pool keeps the senders' next transactions in this order (`bids`), which are read as far as a build
//! gets, some at a time; a heap holds those and the successors of what was offered. So a build costs what it takes,
//! however many wait. What arrives meanwhile is offered if its turn is yet to come.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
};

use alloy_consensus::Transaction as _;
use alloy_primitives::{
    Address,
    map::{AddressMap, AddressSet},
};

use super::{
    bids::Turn,
    mempool::{Mempool, Offer},
};
use crate::{
    ports::Candidates,
    types::{PooledTransaction, Transaction},
};

/// Senders' next transactions that are read from the pool at a time.
const READ_AHEAD: usize = 128;

#[derive(Debug)]
struct Head(Offer);

impl Head {
    const fn key(&self) -> Turn {
        (self.0.tip, Reverse(self.0.arrival))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
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
        self.key().cmp(&other.key())
    }
}

/// The pool as one build sees it; leaves the pool unchanged but for what is thrown out.
#[derive(Debug)]
pub struct PoolCandidates<'pool> {
    pool: &'pool Mempool,
    base_fee: u64,
    heap: BinaryHeap<Head>,
    /// Senders whose next transaction was taken from the pool.
    seen: AddressSet,
    /// The last turn that was read from the pool.
    read: Option<Turn>,
    /// Nothing comes after it.
    is_read: bool,
    /// The last one offered: its successor joins the heap when the next is asked for.
    offered: Option<PooledTransaction>,
}

impl<'pool> PoolCandidates<'pool> {
    /// Starts with the best transaction of every sender that can pay `base_fee`; of those who are in `next_nonces`
    /// with that nonce, since blocks that the pool does not follow yet hold the ones before.
    #[must_use]
    pub fn new(pool: &'pool Mempool, base_fee: u64, next_nonces: &AddressMap<u64>) -> Self {
        let heap = pool.heads_from(base_fee, next_nonces).into_iter().map(Head).collect();
        let seen = next_nonces.keys().copied().collect();
        Self { pool, base_fee, heap, seen, read: None, is_read: false, offered: None }
    }

    /// Reads on in the pool until nothing there is before the best of the heap.
    fn read(&mut self) {
        let is_best = |own: &Self| own.heap.peek().zip(own.read).is_some_and(|(best, read)| best.key() >= read);
        while !self.is_read && !is_best(self) {
            let heads = self.pool.heads(self.base_fee, self.read, READ_AHEAD);
            self.is_read = heads.len() < READ_AHEAD;
            for head in heads.into_iter().map(Head) {
                self.read = Some(head.key());
                if self.seen.insert(head.0.transaction.sender()) {
                    self.heap.push(head);
                }
            }
        }
    }
}

impl Candidates for PoolCandidates<'_> {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        if let Some(last) = self.offered.take() {
            self.heap.extend(self.pool.successor(last.sender(), last.envelope().nonce(), self.base_fee).map(Head));
        }
        self.read();
        let Head(Offer { transaction: best, .. }) = self.heap.pop()?;
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
