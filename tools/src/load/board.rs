//! What the tasks of one drive share: when each transaction was due, sent, accepted and included.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use bench::sign::SignedTransaction;
use tokio::sync::Notify;

use super::{progress::Recent, submit::Pace};

/// A moment of a drive that may not have come.
#[derive(Debug, Default)]
pub(crate) struct Moment(AtomicU64);

impl Moment {
    /// Sets the moment unless it was set; says whether it was not.
    pub(crate) fn set(&self, since_start: Duration) -> bool {
        let micros = u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        self.0.compare_exchange(0, micros, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Since the start, if it has come.
    pub(crate) fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
    }
}

/// The state of one drive; one per drive, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) transactions: Arc<Vec<SignedTransaction>>,
    pub(crate) start: Instant,
    pub(crate) sent: Vec<Moment>,
    pub(crate) accepted: Vec<Moment>,
    /// When a node said that a quorum has notarized its block; over QUIC only.
    pub(crate) notarized: Vec<Moment>,
    pub(crate) included: Vec<Moment>,
    /// Sent and not yet included or refused, by account.
    pub(crate) outstanding: Vec<AtomicU32>,
    pub(crate) accepted_count: AtomicU64,
    pub(crate) included_count: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Accounts of which a transaction was lost, so that nothing can follow it.
    lost: Vec<AtomicBool>,
    /// Transactions that were lost.
    gone: Vec<AtomicBool>,
    /// Transactions that a block was seen to hold, and how many these are.
    in_block: Vec<AtomicBool>,
    pub(crate) in_block_count: AtomicU64,
    /// Rings when a block with transactions of this drive was seen.
    pub(crate) block_seen: Notify,
    refusals: Mutex<BTreeMap<String, u64>>,
    index: HashMap<B256, u32>,
    pace: Pace,
    /// From when each was due, or sent, to when it was included.
    pub(crate) latencies: Recent,
}

impl Board {
    pub(crate) fn new(transactions: Arc<Vec<SignedTransaction>>, accounts: usize, pace: Pace) -> Self {
        let moments = || transactions.iter().map(|_| Moment::default()).collect::<Vec<_>>();
        let index = transactions.iter().zip(0_u32..).map(|(transaction, index)| (transaction.hash, index)).collect();
        Self {
            sent: moments(),
            accepted: moments(),
            notarized: moments(),
            included: moments(),
            outstanding: (0..accounts).map(|_| AtomicU32::new(0)).collect(),
            accepted_count: AtomicU64::new(0),
            included_count: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            lost: (0..accounts).map(|_| AtomicBool::new(false)).collect(),
            gone: transactions.iter().map(|_| AtomicBool::new(false)).collect(),
            in_block: transactions.iter().map(|_| AtomicBool::new(false)).collect(),
            in_block_count: AtomicU64::new(0),
            block_seen: Notify::new(),
            refusals: Mutex::default(),
            index,
            pace,
            latencies: Recent::default(),
            transactions,
            start: Instant::now(),
        }
    }

    pub(crate) fn accept(&self, index: usize) {
        if self.accepted[index].set(self.start.elapsed()) {
            self.accepted_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a block holds a transaction; others' are passed over.
    pub(crate) fn include(&self, hash: &B256, now: Duration) -> bool {
        let Some(index) = self.index_of(hash) else { return false };
        if self.in_block[index].swap(true, Ordering::Relaxed) {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        } else {
            self.in_block_count.fetch_add(1, Ordering::Relaxed);
        }
        self.set_included(index, now);
        true
    }

    /// Notes that the node says that a transaction is included.
    pub(crate) fn hear_included(&self, index: usize) {
        self.accept(index);
        self.set_included(index, self.start.elapsed());
        // At a rate nobody waits for that.
        if self.pace.rate.is_none() {
            self.block_seen.notify_waiters();
        }
    }

    fn set_included(&self, index: usize, now: Duration) {
        if self.included[index].set(now) {
            self.included_count.fetch_add(1, Ordering::Relaxed);
            self.release(index);
            if let Some(begin) = self.pace.due(index).or_else(|| self.sent[index].get()) {
                self.latencies.add(now.saturating_sub(begin));
            }
        }
    }

    /// The place of a transaction of this drive.
    pub(crate) fn index_of(&self, hash: &B256) -> Option<usize> {
        self.index.get(hash).map(|index| *index as usize)
    }

    /// Notes that a transaction will not be included, and nothing of its sender that follows it.
    pub(crate) fn lose(&self, index: usize, reason: &str) {
        self.release(index);
        self.gone[index].store(true, Ordering::Relaxed);
        self.lost[self.transactions[index].from.index()].store(true, Ordering::Relaxed);
        self.refuse(reason);
        self.block_seen.notify_waiters();
    }

    /// Whether the node has said whether it takes a transaction.
    pub(crate) fn is_answered(&self, index: usize) -> bool {
        self.accepted[index].get().is_some() || self.gone[index].load(Ordering::Relaxed)
    }

    /// Whether a transaction of an account was lost.
    pub(crate) fn is_lost(&self, account: usize) -> bool {
        self.lost[account].load(Ordering::Relaxed)
    }

    /// Counts a transaction of its sender as no longer under way.
    pub(crate) fn release(&self, index: usize) {
        let slot = &self.outstanding[self.transactions[index].from.index()];
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(1)));
    }

    /// Counts a reason.
    pub(crate) fn refuse(&self, reason: &str) {
        // The numbers differ each time; without them equal reasons are counted together.
        let reason = reason.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
