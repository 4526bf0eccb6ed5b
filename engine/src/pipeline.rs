//! The main flow: builds the stages, their queues and their threads.
//!
//! ```text
//!  submit -> [Q1] -> admission workers -> Mempool
//!                                           | wake                     +--------------------+
//!                                           v                          |                    |
//!                    [inputs] -> ordering thread -- Build --> [jobs] -> execution thread    |
//!                       ^            | Commit: layer on top, pool advances       | Built    |
//!                       |            v                                           |          |
//!                       |         [Q2] -> commit thread -> Store -> Events       |          |
//!                       +------------+-- Committed ------------------------------+----------+
//! ```
//!
//! Beside it, the hints thread looks at what was admitted and may simulate it ([`crate::hints`]). Nobody waits for it.
//!
//! Each stage runs on its own thread and owns its state; stages share bounded queues, not locks. This is
//! the only file of the room that reads a clock or starts a thread. Shutdown closes the first queue; what
//! was executed is committed before [`Node::stop`] returns. A failed stage stops the node: the reason is
//! handed to whoever waits in [`Node::wait`].

#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering as Atomic},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, Bytes, keccak256};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, select};
use parking_lot::Mutex;

use crate::{
    admission::{Admission, Mempool, PoolCandidates, PoolLimits},
    commit::Committer,
    events::Events,
    execution::Pending,
    hints::{self, Budget, Hints},
    limits, metrics,
    ordering::{BuildOrder, Idle, Input, Now, Ordering, Output, Settings, Tip},
    ports::{BuildSettings, BuildTime, Candidates, Executor, Network, Store},
    query::Query,
    types::{BuiltBlock, FinalizedBlock, ParentRef, PooledTransaction, Transaction},
};

/// How long a failure of the store's background work can go unnoticed on an idle chain.
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What the node is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// From one block to the next under load.
    pub slot_time: Duration,
    /// How long a build may take before the leader stops taking transactions. What they may take a replica
    /// follows from it and from the chain's slot time, the longer of both ([`limits::replica_time`]).
    pub build_time: Duration,
    /// What an idle chain does.
    pub idle: Idle,
    /// Who receives the priority fees.
    pub beneficiary: Address,
    /// Free bytes of the header, 32 at most.
    pub extra_data: Bytes,
    /// Threads that check transactions; at least 1.
    pub admission_workers: usize,
    /// Bounds of the pool.
    pub pool: PoolLimits,
    /// Share of one core's time that simulations of waiting transactions may take, in percent; 0 for none.
    pub hint_percent: u8,
}

/// Why the pipeline ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The store failed; nothing after the last announced block is durable.
    #[error("commit failed: {0}")]
    Commit(String),
    /// A block could not be built; the state below may be unreadable.
    #[error("build failed: {0}")]
    Build(String),
    /// A thread could not be started.
    #[error("thread could not be started: {0}")]
    Thread(String),
    /// A stage broke one of its own invariants; its story is on standard error.
    #[error("the {0} thread panicked")]
    Panicked(String),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// What clients may ask.
    pub query: Query,
    /// The way in for transactions.
    pub admission: Admission,
    /// What clients may hear.
    pub events: Events,
    stop: Mutex<Option<Sender<()>>>,
    failure: Receiver<PipelineError>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Everything the threads share.
struct Stages {
    config: Config,
    store: Arc<dyn Store>,
    executor: Arc<dyn Executor>,
    pool: Arc<Mempool>,
    pending: Arc<Pending>,
    started: Instant,
    /// Set while ordering has an unanswered [`Input::TransactionsWaiting`].
    signalled: AtomicBool,
}

impl Node {
    /// Starts the stages over an open store.
    ///
    /// # Errors
    /// [`PipelineError::Thread`].
    pub fn start(
        config: Config,
        store: Arc<dyn Store>,
        executor: Arc<dyn Executor>,
        network: Arc<dyn Network>,
    ) -> Result<Self, PipelineError> {
        let tip = store.tip();
        let base_fee = store.chain().base_fee.next(tip.block.header.inner());
        let pool = Arc::new(Mempool::new(config.pool, tip.height(), base_fee));
        let pending = Arc::new(Pending::default());
        let events = Events::default();
        let (inputs, inputs_out) = bounded(limits::ORDERING_QUEUE_INPUTS_MAX);
        let (jobs, jobs_out) = bounded(limits::EXECUTION_QUEUE_JOBS_MAX);
        let (blocks, blocks_out) = bounded(limits::COMMIT_QUEUE_BLOCKS_MAX);
        let (stop, stopped) = bounded::<()>(0);
        let (fail, failure) = bounded(4);

        let stages = Arc::new(Stages {
            config,
            store: store.clone(),
            executor: executor.clone(),
            pool: pool.clone(),
            pending: pending.clone(),
            started: now_instant(),
            signalled: AtomicBool::new(false),
        });
        let wake: Arc<dyn Fn() + Send + Sync> = {
            let (stages, inputs) = (stages.clone(), inputs.clone());
            Arc::new(move || {
                if !stages.signalled.swap(true, Atomic::AcqRel) {
                    // A closed queue means shutdown; the transaction stays in the pool.
                    let _ = inputs.send(Input::TransactionsWaiting);
                }
            })
        };
        let workers = stages.config.admission_workers;
        let (admission, workers) = Admission::new(workers, &store, &pool, &pending, &events, &wake);
        let committer = Committer::new(store.clone(), network, pending.clone(), events.clone());

        let mut threads = Vec::new();
        for (index, worker) in workers.into_iter().enumerate() {
            let stopped = stopped.clone();
            let run = move || worker.run(&stopped, &|work| timed(&metrics::ADMISSION_BUSY, work));
            threads.push(spawn(format!("admission-{index}"), &fail, run)?);
        }
        let (built, failing) = (inputs.clone(), fail.clone());
        let executing = stages.clone();
        let run = move || executing.execute_loop(&jobs_out, &built, &failing);
        threads.push(spawn("execution".to_owned(), &fail, run)?);
        let (committed, failing) = (inputs, fail.clone());
        let run = move || commit_loop(&committer, &blocks_out, &committed, &failing);
        threads.push(spawn("commit".to_owned(), &fail, run)?);
        if let Some(budget) = Budget::new(stages.config.hint_percent) {
            let (offered, waiting) = bounded(limits::HINT_QUEUE_TRANSACTIONS_MAX);
            events.listen(hints::listener(offered));
            let hints = Hints::new(executor.clone(), store.clone(), pool.clone(), pending.clone(), budget);
            let (stages, stopped) = (stages.clone(), stopped.clone());
            threads.push(spawn("hints".to_owned(), &fail, move || stages.hint_loop(hints, &waiting, &stopped))?);
        }
        let ordering = stages;
        let run = move || ordering.ordering_loop(&inputs_out, &jobs, &blocks, &stopped);
        threads.push(spawn("ordering".to_owned(), &fail, run)?);

        let query = Query::new(store, executor, pool, pending);
        let stop = Mutex::new(Some(stop));
        Ok(Self { query, admission, events, stop, failure, threads: Mutex::new(threads) })
    }

    /// Waits until a stage fails; `None` after [`Node::stop`].
    #[must_use]
    pub fn wait(&self) -> Option<PipelineError> {
        self.failure.recv().ok()
    }

    /// Takes no further transaction, commits what was executed, and ends the threads.
    pub fn stop(&self) {
        drop(self.stop.lock().take());
        for thread in self.threads.lock().drain(..) {
            // A stage that panicked has told its story on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stages {
    fn now(&self) -> Now {
        Now { monotonic: now_instant().saturating_duration_since(self.started), wall_ms: wall_ms() }
    }

    /// Owns the state machine; carries its outputs out in order.
    fn ordering_loop(
        &self,
        inputs: &Receiver<Input>,
        jobs: &Sender<BuildOrder>,
        blocks: &Sender<Box<FinalizedBlock>>,
        stop: &Receiver<()>,
    ) {
        let mut machine = Ordering::new(Settings {
            chain_id: self.store.chain().chain_id,
            slot_time: self.config.slot_time,
            build_time: self.config.build_time,
            idle: self.config.idle,
            in_flight_max: limits::COMMIT_QUEUE_BLOCKS_MAX,
        });
        let mut input = Input::Start(tip_of(&*self.store));
        loop {
            let mut wake_at = None;
            for output in machine.handle(input, self.now()) {
                match output {
                    Output::Build(order) => {
                        self.signalled.store(false, Atomic::Release);
                        if jobs.send(order).is_err() {
                            return;
                        }
                    }
                    Output::Commit(block) => {
                        self.take_layer(&block);
                        if blocks.send(block).is_err() {
                            return;
                        }
                    }
                    Output::Wake(at) => wake_at = Some(at),
                }
            }
            let timer =
                wake_at.map_or_else(never, |at| crossbeam::channel::after(at.saturating_sub(self.now().monotonic)));
            input = select! {
                recv(inputs) -> input => match input {
                    Ok(input) => input,
                    Err(_) => return,
                },
                recv(timer) -> _ => Input::Wake,
                recv(stop) -> _ => return,
            };
        }
    }

    /// The block is final: the next one stands on its layer.
    fn take_layer(&self, block: &FinalizedBlock) {
        let executed = &block.executed;
        let base_fee = self.store.chain().base_fee.next(executed.block.header.inner());
        self.pending.push(executed.clone());
        self.pool.advance(&executed.block, &executed.changes, base_fee);
    }

    /// Looks at what was admitted from time to time. If a simulation panics there are no hints from then on: a build
    /// meets the same fault where it stops the node.
    fn hint_loop(&self, mut hints: Hints, waiting: &Receiver<PooledTransaction>, stop: &Receiver<()>) {
        let now = || now_instant().saturating_duration_since(self.started);
        let stopped = || stop.try_recv() == Err(TryRecvError::Disconnected);
        while stop.recv_timeout(limits::HINT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let look = || waiting.try_iter().for_each(|transaction| hints.look(&transaction, &now, &stopped));
            if catch_unwind(AssertUnwindSafe(look)).is_err() {
                tracing::error!("a simulation panicked: no further hints");
                return;
            }
        }
    }

    fn execute_loop(&self, jobs: &Receiver<BuildOrder>, built: &Sender<Input>, fail: &Sender<PipelineError>) {
        for order in jobs {
            let mut result = None;
            timed(&metrics::BUILD_BUSY, &mut || result = Some(self.build(&order)));
            match result {
                Some(Ok((block, more))) => {
                    if built.send(Input::Built { block: Box::new(block), more }).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let _ = fail.try_send(error);
                    return;
                }
                None => return,
            }
        }
    }

    fn build(&self, order: &BuildOrder) -> Result<(BuiltBlock, bool), PipelineError> {
        let failed = |error: &dyn std::fmt::Display| PipelineError::Build(error.to_string());
        let (view, _) = self.pending.view(&*self.store).map_err(|error| failed(&error))?;
        let parent = self.pending.top(&*self.store);
        let chain = self.store.chain();
        let settings = BuildSettings {
            consensus: order.consensus.clone(),
            parent_id: order.parent_id,
            beneficiary: self.config.beneficiary,
            gas_limit: chain.genesis_header.gas_limit,
            extra_data: self.config.extra_data.clone(),
            mix_hash: keccak256(parent.inner().mix_hash),
        };
        let base_fee = chain.base_fee.next(parent.inner());
        let inner = PoolCandidates::new(&self.pool, base_fee);
        let mut candidates = Counted { inner, exhausted: false, skipped: false };
        let slot_time = Duration::from_millis(chain.ordering.slot_time_ms).max(order.deadline);
        let begun = now_instant();
        let elapsed = || now_instant().saturating_duration_since(begun);
        let replica_max = limits::replica_time(slot_time);
        let time = BuildTime { elapsed: &elapsed, begin_max: order.deadline, replica_max };
        let block =
            self.executor.build(&*view, &parent, &settings, &mut candidates, &time).map_err(|error| failed(&error))?;
        // What was passed over for lack of room fits the next block; a block that took nothing promises nothing.
        let progress = !block.0.block.body.transactions.is_empty();
        Ok((block, !candidates.exhausted || (candidates.skipped && progress)))
    }
}

/// Tells whether a build ended because nothing was left to offer, and whether it passed anything over.
struct Counted<'pool> {
    inner: PoolCandidates<'pool>,
    exhausted: bool,
    skipped: bool,
}

impl Candidates for Counted<'_> {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        let next = self.inner.next();
        self.exhausted |= next.is_none();
        next
    }

    fn give_back(&mut self) {
        self.exhausted = false;
    }

    fn skip_sender(&mut self, sender: Address) {
        self.skipped = true;
        self.inner.skip_sender(sender);
    }

    fn throw_out(&mut self, transaction: &Transaction) {
        self.inner.throw_out(transaction);
    }
}

fn commit_loop(
    committer: &Committer,
    blocks: &Receiver<Box<FinalizedBlock>>,
    committed: &Sender<Input>,
    fail: &Sender<PipelineError>,
) {
    let mut group = Vec::with_capacity(limits::COMMIT_QUEUE_BLOCKS_MAX);
    loop {
        match blocks.recv_timeout(STORE_CHECK_INTERVAL) {
            Ok(first) => group.push(*first),
            // An empty group asks the store whether its background work still succeeds.
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        group.extend(blocks.try_iter().take(limits::COMMIT_QUEUE_BLOCKS_MAX).map(|block| *block));
        ::metrics::gauge!(metrics::COMMIT_QUEUE_DEPTH)
            .set(metrics::level(u64::try_from(group.len()).unwrap_or(u64::MAX)));
        let mut result = None;
        timed(&metrics::COMMIT_BUSY, &mut || result = Some(committer.commit(&group)));
        group.clear();
        match result {
            Some(Ok(height)) => {
                // Ordering has ended when the queue is closed; the blocks still waiting are committed.
                let _ = committed.send_timeout(Input::Committed(height), Duration::from_millis(100));
            }
            Some(Err(error)) => {
                let _ = fail.try_send(PipelineError::Commit(error.to_string()));
                return;
            }
            None => return,
        }
    }
}

fn tip_of(store: &dyn Store) -> Tip {
    let tip = store.tip();
    let consensus = &tip.block.consensus;
    Tip {
        height: tip.height(),
        parent: ParentRef { slot: consensus.slot(), id: consensus.id() },
        timestamp_ms: consensus.timestamp_ms,
    }
}

fn timed(busy: &metrics::Counter, work: &mut dyn FnMut()) {
    let begun = now_instant();
    work();
    busy.add(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

#[expect(clippy::disallowed_methods, reason = "the pipeline is the room's one clock")]
fn now_instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the pipeline is the room's one clock")]
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Starts a stage; if it panics the node stops, for no other stage can know what its state is worth.
fn spawn(
    name: String,
    fail: &Sender<PipelineError>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, PipelineError> {
    let (stage, fail) = (name.clone(), fail.clone());
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            let _ = fail.try_send(PipelineError::Panicked(stage));
        }
    };
    std::thread::Builder::new().name(name).spawn(guarded).map_err(|error| PipelineError::Thread(error.to_string()))
}
