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
    pub(crate) included: Vec<Moment>,
    /// Sent and not yet included or refused, by account.
    pub(crate) outstanding: Vec<AtomicU32>,
    pub(crate) accepted_count: AtomicU64,
    pub(crate) included_count: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Rings when a block with transactions of this drive was seen.
    pub(crate) block_seen: Notify,
    refusals: Mutex<BTreeMap<String, u64>>,
    index: HashMap<B256, u32>,
}

impl Board {
    pub(crate) fn new(transactions: Arc<Vec<SignedTransaction>>, accounts: usize) -> Self {
        let moments = || transactions.iter().map(|_| Moment::default()).collect::<Vec<_>>();
        let index = transactions.iter().zip(0_u32..).map(|(transaction, index)| (transaction.hash, index)).collect();
        Self {
            sent: moments(),
            accepted: moments(),
            included: moments(),
            outstanding: (0..accounts).map(|_| AtomicU32::new(0)).collect(),
            accepted_count: AtomicU64::new(0),
            included_count: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            block_seen: Notify::new(),
            refusals: Mutex::default(),
            index,
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
        let Some(index) = self.index.get(hash) else { return false };
        let index = *index as usize;
        if self.included[index].set(now) {
            self.included_count.fetch_add(1, Ordering::Relaxed);
            self.release(index);
        } else {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Counts a transaction of its sender as no longer under way.
    pub(crate) fn release(&self, index: usize) {
        let slot = &self.outstanding[self.transactions[index].from.index()];
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(1)));
    }

    pub(crate) fn refuse(&self, reason: String) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
