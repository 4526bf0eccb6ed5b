//! From raw bytes to a pooled transaction.
//!
//! Promise: [`Admission::submit`] never waits and answers exactly once. Workers take raw transactions
//! from one bounded queue (by count and by bytes), check them in cost order ([`checks`]), recover the
//! sender once, and put them into the [`Mempool`]. Admission never executes anything.

mod bids;
pub mod candidates;
pub mod checks;
pub mod error;
pub mod mempool;
mod planted;
mod queue;
mod recovered;
mod slow;
#[cfg(test)]
mod tests;
mod undecided;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use alloy_primitives::B256;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tracing::Span;

pub use self::{
    candidates::PoolCandidates,
    error::AdmissionError,
    mempool::{Inserted, Mempool, PoolLimits, PoolStatus},
};
use crate::{
    execution::Pending,
    limits, metrics,
    ports::{StateView, Store},
    spans,
    types::{Height, PooledTransaction, RawTransaction, Transaction},
};

/// Receives the answer to one submission, on a worker's thread; must not block.
pub type Answer = Box<dyn FnOnce(Result<B256, AdmissionError>) + Send>;

struct Job {
    raw: RawTransaction,
    answer: Answer,
    span: Span,
}

/// The way in for transactions; cheap to clone.
#[derive(Clone)]
pub struct Admission {
    queue: Sender<Job>,
    queued_bytes: Arc<AtomicUsize>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("queued", &self.queue.len()).finish()
    }
}

/// What a worker needs; [`Worker::run`] is the body of its thread.
pub struct Worker {
    jobs: Receiver<Job>,
    queued_bytes: Arc<AtomicUsize>,
    store: Arc<dyn Store>,
    pool: Arc<Mempool>,
    pending: Arc<Pending>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Admission {
    /// The way in, and `count` workers behind it.
    ///
    /// `wake` is called after every insertion; it tells ordering that there is something to build.
    #[must_use]
    pub fn new(
        count: usize,
        store: &Arc<dyn Store>,
        pool: &Arc<Mempool>,
        pending: &Arc<Pending>,
        wake: &Arc<dyn Fn() + Send + Sync>,
    ) -> (Self, Vec<Worker>) {
        let (queue, jobs) = bounded(limits::ADMISSION_QUEUE_TRANSACTIONS_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let worker = || Worker {
            jobs: jobs.clone(),
            queued_bytes: queued_bytes.clone(),
            store: store.clone(),
            pool: pool.clone(),
            pending: pending.clone(),
            wake: wake.clone(),
        };
        let workers = std::iter::repeat_with(worker).take(count.max(1)).collect();
        (Self { queue, queued_bytes }, workers)
    }

    /// Hands a transaction in; `answer` gets its hash once it is in the pool, or the reason it is not.
    pub fn submit(&self, raw: RawTransaction, answer: Answer) {
        let size = raw.bytes().len();
        if size > limits::TRANSACTION_BYTES_MAX {
            let limit = limits::TRANSACTION_BYTES_MAX;
            return refuse(answer, AdmissionError::Oversized { size, limit });
        }
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) > limits::ADMISSION_QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            return refuse(answer, AdmissionError::PoolFull);
        }
        match self.queue.try_send(Job { raw, answer, span: spans::admit() }) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                refuse(job.answer, AdmissionError::PoolFull);
            }
            Err(TrySendError::Disconnected(job)) => refuse(job.answer, AdmissionError::Closed),
        }
    }
}

fn refuse(answer: Answer, error: AdmissionError) {
    ::metrics::counter!(metrics::TRANSACTION_REFUSED, "reason" => error.label()).increment(1);
    answer(Err(error));
}

impl Worker {
    /// Serves until `stop` is closed or every [`Admission`] is gone.
    pub fn run(&self, stop: &Receiver<()>, busy: &dyn Fn(&mut dyn FnMut())) {
        loop {
            crossbeam::channel::select! {
                recv(self.jobs) -> job => match job {
                    Ok(job) => {
                        // What came meanwhile is served without a look at anything else.
                        let more = self.jobs.try_iter().take(limits::ADMISSION_BATCH_MAX.saturating_sub(1));
                        let mut batch = std::iter::once(job).chain(more);
                        busy(&mut || batch.by_ref().for_each(|job| self.serve(job)));
                    }
                    Err(_) => return,
                },
                recv(stop) -> _ => break,
            }
        }
        for job in self.jobs.try_iter() {
            refuse(job.answer, AdmissionError::Closed);
        }
    }

    fn serve(&self, Job { raw, answer, span }: Job) {
        self.queued_bytes.fetch_sub(raw.bytes().len(), Ordering::Relaxed);
        let waiting = u64::try_from(self.jobs.len()).unwrap_or(u64::MAX);
        ::metrics::gauge!(metrics::ADMISSION_QUEUE_DEPTH).set(metrics::level(waiting));
        match self.admit(raw) {
            Ok(hash) => {
                metrics::TRANSACTION_ADMITTED.increment();
                spans::stands_for(&span, 1);
                answer(Ok(hash));
            }
            Err(error) => refuse(answer, error),
        }
    }

    /// Checks a transaction and puts it into the pool.
    ///
    /// # Errors
    /// [`AdmissionError`].
    pub(crate) fn admit(&self, raw: RawTransaction) -> Result<B256, AdmissionError> {
        let tip = self.store.tip();
        let header = tip.block.header.inner();
        let chain = self.store.chain();
        let fork = chain.fork_at(header.timestamp);
        let envelope = checks::stateless(raw.bytes(), chain, fork, header.gas_limit)?;
        let hash = raw.hash();
        if self.pool.contains(hash) || self.pending.transaction(hash).is_some() {
            return Err(AdmissionError::AlreadyKnown);
        }
        let transaction = match self.pool.recovered(hash) {
            // It may be included already, which its nonce shows; a full pool says nothing of that.
            Some(known) => known,
            None if self.pool.is_too_cheap(&envelope) => return Err(AdmissionError::PoolFull),
            None => {
                let transaction = Transaction::recover(envelope, raw).map_err(AdmissionError::Malformed)?;
                let transaction = Arc::new(transaction);
                self.pool.remember(&transaction);
                transaction
            }
        };
        let pooled = PooledTransaction::admitted(transaction);
        let mut needed = Height::GENESIS;
        loop {
            let (view, height) = self.view(needed)?;
            let sender = checks::sender(&pooled, &*view)?;
            match self.pool.insert(pooled.clone(), sender, height)? {
                Inserted::Stale(newer) => needed = newer,
                Inserted::Pending | Inserted::Queued => break,
            }
        }
        (self.wake)();
        Ok(hash)
    }

    /// The newest state there is: layers that are not durable yet, over the store's tip.
    fn view(&self, needed: Height) -> Result<(Arc<dyn StateView>, Height), AdmissionError> {
        let (view, height) = self.pending.view(&*self.store)?;
        debug_assert!(height >= needed, "layers only grow");
        Ok((view, height))
    }
}
