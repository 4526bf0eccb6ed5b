//! The main flow: builds the stages, their queues and their threads.
//!
//! ```text
//!  submit -> [Q1] -> admission workers -> Mempool                     +-> [jobs]  -> execution thread: Executor
//!                                           | wake                    |                |  layers (execution.rs)
//!                                           v                         |                v
//!  peers -> Inbox -> [letters] ----> ordering thread: Machine --------+<-- [done] -----+
//!                                     ^     ^    | to peers: Network  |
//!                                     |     |                         +-> [lines] -> log thread: Journal, sync
//!                                     |     +-- synced ---------------|-----------------------+
//!                                     |                               |
//!                                     |                               +-> [Q2]  -> commit thread: Store -> Events
//!                                     +-- committed --------------------------------------------+
//! ```
//!
//! What peers ask for is answered by the network's own threads ([`Inbox::answer`]).
//! Beside it, the hints thread looks at what was admitted and may simulate it ([`crate::hints`]). Nobody waits for it.
//!
//! Each stage runs on its own thread and owns its state; stages share bounded queues, not locks. This is the only file
//! of the room that reads a clock or starts a thread that outlives a call. Shutdown closes the first queue; what was
//! decided is committed before [`Node::stop`] returns. A failed stage stops the node: the reason is
//! handed to whoever waits in [`Node::wait`].

mod answering;
mod conductor;
mod executing;
mod resume;
#[cfg(any(test, feature = "testing"))]
pub mod stepped;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering as Atomic},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, B256, Bytes};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use parking_lot::Mutex;
use tracing::Span;

use self::{
    answering::Tails,
    conductor::{Conductor, Progress, Queues, Sources},
    executing::{Done, Execution, Job},
    resume::{Resumed, replay, resume},
};
use crate::{
    admission::{Admission, AdmissionError, Mempool, PoolLimits, Worker},
    commit::Committer,
    crypto::Scheme,
    events::Events,
    execution::Pending,
    hints::{self, Budget, Hints},
    limits, metrics,
    ordering::{
        event::{Identity, Now, Output, Settings},
        journal::{Entry, KeptBlock},
        machine::Machine,
        pacemaker::Timing,
        planted::Planted,
    },
    ports::{Delivery, Executor, Journal, Network, Recovered, Store, StoreError},
    query::Query,
    spans,
    standing::Standing,
    types::{
        Block, EpochStart, FinalizedBlock, Height, Incoming, Letter, Message, PooledTransaction, RawTransaction,
        ValidatorSet,
    },
};

/// How long a failure of the store's background work, or a transaction that waited for too long, can go unnoticed on
/// an idle chain.
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What the node is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// From one block to the next under load.
    pub slot_time: Duration,
    /// How long a build may take before the leader stops taking transactions. What they may take a replica
    /// follows from it and from the chain's slot time, the longer of both ([`limits::replica_time`]).
    pub build_time: Duration,
    /// From one block to the next without transactions; `None` if the next block waits for a transaction, which only
    /// a chain of one validator can do.
    pub idle_interval: Option<Duration>,
    /// Who votes here; `None` for a node that only follows.
    pub identity: Option<Identity>,
    /// Verifies what validators sign.
    pub scheme: Arc<dyn Scheme>,
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
    /// Called first on each thread whose work may wait for that of all others: what is under way comes before what is
    /// new, or a node with more to do than it can would be late with its blocks.
    pub give_way: fn(),
}

/// What serves the node.
#[derive(Clone)]
pub struct Ports {
    /// Remembers the chain.
    pub store: Arc<dyn Store>,
    /// Remembers what was signed here.
    pub journal: Arc<dyn Journal>,
    /// Executes.
    pub executor: Arc<dyn Executor>,
    /// Talks to other nodes.
    pub network: Arc<dyn Network>,
}

/// Why the pipeline could not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// The chain and the log say nothing to go on from.
    #[error("cannot go on: {0}")]
    Start(String),
    /// The store failed; nothing after the last announced block is durable.
    #[error("commit failed: {0}")]
    Commit(String),
    /// The log failed; nothing more is signed.
    #[error("log failed: {0}")]
    Log(String),
    /// A block could not be built; the state below may be unreadable.
    #[error("build failed: {0}")]
    Build(String),
    /// A block could not be executed; the state below may be unreadable.
    #[error("execution failed: {0}")]
    Execute(String),
    /// What others certified cannot be; nothing more is signed.
    #[error("this node halts: {0}")]
    Halted(String),
    /// Ordering asked for what cannot be.
    #[error("ordering {0}")]
    Ordering(&'static str),
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
    /// The way in for what other nodes say.
    pub inbox: Inbox,
    /// What clients may hear.
    pub events: Events,
    stop: Mutex<Option<Sender<()>>>,
    failure: Receiver<PipelineError>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The way in for what other nodes say; cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    letters: Sender<Incoming>,
    stages: Arc<Stages>,
}

impl Inbox {
    /// Hands over what a peer said, or says that there is no room. Nobody waits for an answer that [`Self::answer`]
    /// gives.
    ///
    /// # Errors
    /// A block whose body is not its header's, or not the one that the message names; the peer that sent it is faulty.
    pub fn deliver(&self, incoming: Incoming) -> Result<Delivery, &'static str> {
        if !incoming.letter.is_whole() {
            return Err("a block with a body that is not its own");
        }
        let (queued, size) = (&self.stages.queued_bytes, incoming.letter.size_bytes());
        let is_room = queued.fetch_add(size, Atomic::Relaxed) <= limits::ORDERING_QUEUE_BYTES_MAX;
        // After the end nobody takes anything, which is no fault of the peer.
        if is_room && self.letters.try_send(incoming).is_ok() {
            return Ok(Delivery::Sent);
        }
        queued.fetch_sub(size, Atomic::Relaxed);
        Ok(Delivery::Full)
    }

    /// Answers a wish for blocks ([`Message::Fetch`], [`Message::Range`]) from what is here; `None` to anything else.
    ///
    /// Whichever thread asks reads the store and waits for it; ordering does not. How many answers a peer gets is the
    /// network's to bound.
    #[must_use]
    pub fn answer(&self, message: &Message) -> Option<Letter> {
        self.stages.answer(message)
    }

    /// Says that [`Network::peers`] has changed; ordering looks it up soon.
    pub fn peers_changed(&self) {
        self.stages.progress.peers_changed();
    }
}

/// What the log is to remember.
struct Lines {
    entries: Vec<Entry>,
    blocks: Vec<KeptBlock>,
    /// Told when it would survive a power cut.
    token: Option<u64>,
}

/// What the store is to remember.
enum Decided {
    /// A block, and its way up to here, if that was followed.
    Block(Box<FinalizedBlock>, Option<Way>),
    Epoch(Box<EpochStart>),
}

/// The way of a block through the stages.
struct Way {
    /// When its proposal was here, by the node's own clock.
    heard: Duration,
    /// How many transactions it includes, once its body is here.
    transactions: usize,
    /// The stage that it is in.
    stage: Span,
}

impl Way {
    const fn new(heard: Duration, transactions: usize, stage: Span) -> Self {
        Self { heard, transactions, stage }
    }

    /// It has passed its stage, and is in this one.
    fn enters(&mut self, stage: Span) {
        spans::stands_for(&std::mem::replace(&mut self.stage, stage), self.transactions);
    }
}

/// What time it is.
type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Everything the threads share.
struct Stages {
    config: Config,
    store: Arc<dyn Store>,
    executor: Arc<dyn Executor>,
    network: Arc<dyn Network>,
    pool: Arc<Mempool>,
    pending: Arc<Pending>,
    events: Events,
    tails: Tails,
    progress: Progress,
    standing: Arc<Standing>,
    clock: Clock,
    /// Bytes of blocks in letters that ordering has not taken yet.
    queued_bytes: AtomicUsize,
    /// Set while ordering has been told that transactions wait, and has asked for no build since.
    told: AtomicBool,
}

/// The queues between the threads, each end once.
struct Ends {
    wakes: (Sender<()>, Receiver<()>),
    letters: (Sender<Incoming>, Receiver<Incoming>),
    jobs: (Sender<Job>, Receiver<Job>),
    done: (Sender<Done>, Receiver<Done>),
    lines: (Sender<Lines>, Receiver<Lines>),
    decided: (Sender<Decided>, Receiver<Decided>),
}

impl Ends {
    fn new() -> Self {
        Self {
            wakes: bounded(1),
            letters: bounded(limits::ORDERING_QUEUE_LETTERS_MAX),
            jobs: bounded(limits::EXECUTION_QUEUE_JOBS_MAX),
            done: bounded(limits::EXECUTION_QUEUE_JOBS_MAX),
            lines: bounded(limits::LOG_QUEUE_BATCHES_MAX),
            decided: bounded(limits::COMMIT_QUEUE_BLOCKS_MAX),
        }
    }

    /// For one thread, which cannot wait for itself: more room than a step can fill.
    #[cfg(any(test, feature = "testing"))]
    fn roomy() -> Self {
        const ROOM: usize = 4_096;
        Self { jobs: bounded(ROOM), done: bounded(ROOM), lines: bounded(ROOM), decided: bounded(ROOM), ..Self::new() }
    }
}

/// A node whose threads do not run yet.
struct Parts {
    stages: Arc<Stages>,
    admission: Admission,
    workers: Vec<Worker>,
    conductor: Conductor,
    /// What ordering asks for at its start.
    first: Vec<Output>,
    sources: Sources,
    jobs: Receiver<Job>,
    done: Sender<Done>,
    lines: Receiver<Lines>,
    decided: Receiver<Decided>,
    journal: Arc<dyn Journal>,
    committer: Committer,
    hints: Option<(Hints, Receiver<PooledTransaction>)>,
    query: Query,
    inbox: Inbox,
    events: Events,
    stop: Sender<()>,
    fail: Sender<PipelineError>,
    failure: Receiver<PipelineError>,
}

impl Parts {
    fn new(
        config: Config,
        ports: Ports,
        recovered: Recovered,
        (clock, nonce): (Clock, u64),
        ends: Ends,
    ) -> Result<Self, PipelineError> {
        let Ports { store, journal, executor, network } = ports;
        replay(&*store, &*executor, &recovered)?;
        let tip = store.tip();
        let base_fee = store.chain().base_fee.next(tip.block.header.inner());
        let events = Events::default();
        let pool = Arc::new(Mempool::new(config.pool, tip.height(), base_fee, events.clone()));
        let pending = Arc::new(Pending::new(&*store));
        let (bell, progress) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        let (fail, failure) = bounded(4);
        let standing = Arc::new(Standing::new(config.identity.is_some()));
        let stages = Arc::new(Stages {
            config,
            store: store.clone(),
            executor: executor.clone(),
            network,
            pool: pool.clone(),
            pending: pending.clone(),
            events: events.clone(),
            tails: Tails::default(),
            progress: Progress::new(bell),
            standing: standing.clone(),
            clock,
            queued_bytes: AtomicUsize::new(0),
            told: AtomicBool::new(false),
        });
        stages.pool.tell_time(stages.now().monotonic);
        let (machine, first, bodies) = stages.start_ordering(recovered, nonce)?;
        let wake = stages.waker(ends.wakes.0);
        let workers = stages.config.admission_workers;
        let (admission, workers) = Admission::new(workers, &store, &pool, &pending, &wake);
        let hints = Budget::new(stages.config.hint_percent).map(|budget| {
            let (offered, waiting) = bounded(limits::HINT_QUEUE_TRANSACTIONS_MAX);
            events.listen(hints::listener(offered));
            (Hints::new(executor.clone(), store.clone(), pool.clone(), pending.clone(), budget), waiting)
        });
        let queues = Queues { jobs: ends.jobs.0, lines: ends.lines.0, decided: ends.decided.0, fail: fail.clone() };
        let (done, wakes, letters) = (ends.done.1, ends.wakes.1, ends.letters.1);
        Ok(Self {
            admission,
            workers,
            conductor: Conductor::new(stages.clone(), machine, queues, bodies),
            first,
            sources: Sources { stop: stopped, progress, done, wakes, letters },
            jobs: ends.jobs.1,
            done: ends.done.0,
            lines: ends.lines.1,
            decided: ends.decided.1,
            committer: Committer::new(store.clone(), journal.clone(), pending.clone(), events.clone()),
            journal,
            hints,
            query: Query::new(store, executor, pool, pending, standing),
            inbox: Inbox { letters: ends.letters.0, stages: stages.clone() },
            events,
            stages,
            stop,
            fail,
            failure,
        })
    }
}

impl Node {
    /// Starts the stages over an open store and its log, which held what `recovered` says.
    ///
    /// # Errors
    /// [`PipelineError::Start`] and [`PipelineError::Thread`].
    pub fn start(config: Config, ports: Ports, recovered: Recovered) -> Result<Self, PipelineError> {
        let started = now_instant();
        let clock: Clock =
            Arc::new(move || Now { monotonic: now_instant().saturating_duration_since(started), wall_ms: wall_ms() });
        let nonce = RandomState::new().hash_one(wall_ms());
        let give_way = config.give_way;
        let parts = Parts::new(config, ports, recovered, (clock, nonce), Ends::new())?;
        let Parts { stages, conductor, first, sources, committer, journal, fail, .. } = parts;
        let mut threads = Vec::new();
        for (index, worker) in parts.workers.into_iter().enumerate() {
            let stopped = sources.stop.clone();
            let run = move || {
                give_way();
                worker.run(&stopped, &|work| timed(&metrics::ADMISSION_BUSY, work));
            };
            threads.push(spawn(format!("admission-{index}"), &fail, run)?);
        }
        let (executing, jobs, done, failing) = (stages.clone(), parts.jobs, parts.done, fail.clone());
        threads.push(spawn("execution", &fail, move || executing.execute_loop(&jobs, &done, &failing))?);
        let (logging, lines, failing) = (stages.clone(), parts.lines, fail.clone());
        threads.push(spawn("log", &fail, move || log_loop(&logging.progress, &*journal, &lines, &failing))?);
        let (committing, decided, failing) = (stages.clone(), parts.decided, fail.clone());
        let stopped = sources.stop.clone();
        let run = move || committing.commit_loop(&committer, &decided, &stopped, &failing);
        threads.push(spawn("commit", &fail, run)?);
        if let Some((hints, waiting)) = parts.hints {
            let stopped = sources.stop.clone();
            let run = move || {
                give_way();
                stages.hint_loop(hints, &waiting, &stopped);
            };
            threads.push(spawn("hints", &fail, run)?);
        }
        threads.push(spawn("ordering", &fail, move || conductor.run(first, &sources))?);
        let Parts { query, admission, inbox, events, failure, .. } = parts;
        let (stop, threads) = (Mutex::new(Some(parts.stop)), Mutex::new(threads));
        Ok(Self { query, admission, inbox, events, stop, failure, threads })
    }

    /// Waits until a stage fails; `None` after [`Node::stop`].
    #[must_use]
    pub fn wait(&self) -> Option<PipelineError> {
        self.failure.recv().ok()
    }

    /// Admits what waited when the node was stopped, with the checks that any client's transactions go through, and
    /// waits for the answers.
    pub fn admit_again(&self, waiting: Vec<RawTransaction>) {
        let (of, mut admitted) = (waiting.len(), 0_usize);
        for some in waiting.chunks(limits::ADMITTED_AGAIN_MAX) {
            let (answer, answers) = bounded(some.len());
            for raw in some {
                let answer = answer.clone();
                let tell = move |result: Result<B256, AdmissionError>| {
                    // There is room for every answer.
                    let _ = answer.try_send(result.is_ok());
                };
                self.admission.submit(raw.clone(), Box::new(tell));
            }
            drop(answer);
            admitted = admitted.saturating_add(answers.iter().filter(|is_admitted| *is_admitted).count());
        }
        if of > 0 {
            tracing::info!(admitted, of, "transactions that waited at the last stop");
        }
    }

    /// Takes no further transaction, commits what was decided, and ends the threads.
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

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

/// The machine, what it asks for first, and the blocks that it may want executed.
type StartedOrdering = (Machine, Vec<Output>, BTreeMap<B256, Arc<Block>>);

impl Stages {
    fn now(&self) -> Now {
        (self.clock)()
    }

    fn start_ordering(&self, recovered: Recovered, nonce: u64) -> Result<StartedOrdering, PipelineError> {
        let chain = self.store.chain();
        let failed = |error: &dyn std::fmt::Display| PipelineError::Start(error.to_string());
        let set = chain.validator_set().map_err(|error| failed(&error))?;
        if recovered.is_lost && self.is_alone_in(&set) {
            let reason = "the log of what this validator signed is lost or old, and it has no other validator to ask";
            return Err(PipelineError::Start(format!("{reason}; import a signing history that holds everything")));
        }
        let Resumed { snapshot, bodies } = resume(&*self.store, &set, recovered, nonce)?;
        let (machine, outputs) =
            Machine::start(self.settings(&set), snapshot, self.now()).map_err(|error| failed(&error))?;
        Ok((machine, outputs, bodies))
    }

    fn is_alone_in(&self, set: &ValidatorSet) -> bool {
        let identity = self.config.identity.as_ref();
        set.size() == 1 && identity.is_some_and(|identity| set.index_of(&identity.public_key).is_some())
    }

    fn settings(&self, set: &ValidatorSet) -> Settings {
        let chain = self.store.chain();
        let params = &chain.ordering;
        // Only whoever is alone may wait for ever.
        let idle_max = (set.size() > 1).then(|| Duration::from_millis(params.idle_interval_ms));
        Settings {
            domain: chain.domain(),
            window: params.window,
            epoch_heights: params.epoch_slots,
            timing: Timing {
                delta: Duration::from_millis(params.delta_ms),
                slot_time: self.config.slot_time,
                idle_interval: self.config.idle_interval.or(idle_max),
            },
            build_time: self.config.build_time,
            in_flight_max: u64::try_from(limits::COMMIT_QUEUE_BLOCKS_MAX).unwrap_or(u64::MAX),
            scheme: self.config.scheme.clone(),
            identity: self.config.identity.clone(),
            planted: Planted::default(),
        }
    }

    /// Tells ordering once that transactions wait.
    fn waker(self: &Arc<Self>, wakes: Sender<()>) -> Arc<dyn Fn() + Send + Sync> {
        let stages = self.clone();
        Arc::new(move || {
            if !stages.has_been_told(true) {
                // Full means told; closed means shutdown, and the transaction stays in the pool.
                let _ = wakes.try_send(());
            }
        })
    }

    fn has_been_told(&self, told: bool) -> bool {
        self.told.swap(told, Atomic::AcqRel)
    }

    /// Looks at what was admitted from time to time. If a simulation panics there are no hints from then on: a build
    /// meets the same fault where it stops the node.
    fn hint_loop(&self, mut hints: Hints, waiting: &Receiver<PooledTransaction>, stop: &Receiver<()>) {
        let now = || self.now().monotonic;
        let stopped = || stop.try_recv() == Err(TryRecvError::Disconnected);
        while stop.recv_timeout(limits::HINT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let look = || waiting.try_iter().for_each(|transaction| hints.look(&transaction, &now, &stopped));
            if catch_unwind(AssertUnwindSafe(look)).is_err() {
                tracing::error!("a simulation panicked: no further hints");
                return;
            }
        }
    }
}

/// Writes what ordering wants remembered; batches that wait together share one sync.
fn log_loop(progress: &Progress, journal: &dyn Journal, lines: &Receiver<Lines>, fail: &Sender<PipelineError>) {
    for first in lines {
        let waiting = std::iter::once(first).chain(lines.try_iter().take(limits::LOG_QUEUE_BATCHES_MAX));
        let written = append(journal, waiting).and_then(|newest| match newest {
            Some(token) => journal.sync().map(|()| progress.synced(token)),
            None => Ok(()),
        });
        if let Err(error) = written {
            let _ = fail.try_send(PipelineError::Log(error.to_string()));
            return;
        }
    }
}

/// Appends batches, and returns the newest token that is waited for.
fn append(journal: &dyn Journal, batches: impl IntoIterator<Item = Lines>) -> Result<Option<u64>, StoreError> {
    let mut newest = None;
    for Lines { entries, blocks, token } in batches {
        journal.append(&entries, &blocks)?;
        newest = newest.max(token);
    }
    Ok(newest)
}

impl Stages {
    /// Makes decided blocks durable and tells how far that is.
    fn commit_loop(
        &self,
        committer: &Committer,
        decided: &Receiver<Decided>,
        stop: &Receiver<()>,
        fail: &Sender<PipelineError>,
    ) {
        let wait = || stop.recv_timeout(STORE_CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout);
        let mut last = None;
        loop {
            let mut first = match decided.recv_timeout(STORE_CHECK_INTERVAL) {
                Ok(first) => Some(first),
                // An empty group asks the store whether its background work still succeeds.
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut result = None;
            timed(&metrics::COMMIT_BUSY, &mut || {
                result = Some(self.commit_waiting(committer, first.take(), decided, &wait))
            });
            match result {
                Some(Ok(height)) if last != Some(height) => {
                    last = Some(height);
                    self.progress.committed(height);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let _ = fail.try_send(PipelineError::Commit(error.to_string()));
                    return;
                }
                None => return,
            }
        }
    }

    /// Commits a group: what waits, up to the first start of an epoch. On a full disk it `wait`s, as long as that says
    /// so.
    fn commit_waiting(
        &self,
        committer: &Committer,
        first: Option<Decided>,
        decided: &Receiver<Decided>,
        wait: &dyn Fn() -> bool,
    ) -> Result<Height, StoreError> {
        let mut group = Vec::with_capacity(limits::COMMIT_QUEUE_BLOCKS_MAX);
        let (mut ways, mut epoch) = (Vec::with_capacity(limits::COMMIT_QUEUE_BLOCKS_MAX), None);
        for next in first.into_iter().chain(decided.try_iter()).take(limits::COMMIT_QUEUE_BLOCKS_MAX) {
            match next {
                Decided::Block(block, way) => {
                    ways.push((block.executed.block.body.transactions.len(), way));
                    group.push(*block);
                }
                Decided::Epoch(start) => {
                    epoch = Some(start);
                    break;
                }
            }
        }
        let waiting = metrics::level(u64::try_from(group.len()).unwrap_or(u64::MAX));
        ::metrics::gauge!(metrics::COMMIT_QUEUE_DEPTH).set(waiting);
        let height = loop {
            // An idle chain gets here as well, once in an interval.
            self.pool.tell_time(self.now().monotonic);
            match committer.commit(&group, epoch.as_deref()) {
                // Blocks queue up behind this one, and then nothing more is voted on, until the disk has room.
                Err(StoreError::Full(why)) if wait() => tracing::debug!(%why, "a block waits for room on the disk"),
                outcome => break outcome?,
            }
        };
        let now = self.now().monotonic;
        for (transactions, way) in ways {
            let time = way.map(|mut way| {
                way.enters(Span::none());
                now.saturating_sub(way.heard)
            });
            if let Some(time) = time {
                ::metrics::histogram!(metrics::FINALITY_SECONDS).record(time.as_secs_f64());
            }
            self.standing.committed(transactions, time);
        }
        Ok(height)
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
    name: impl Into<String>,
    fail: &Sender<PipelineError>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, PipelineError> {
    let name = name.into();
    let (stage, fail) = (name.clone(), fail.clone());
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            let _ = fail.try_send(PipelineError::Panicked(stage));
        }
    };
    std::thread::Builder::new().name(name).spawn(guarded).map_err(|error| PipelineError::Thread(error.to_string()))
}
