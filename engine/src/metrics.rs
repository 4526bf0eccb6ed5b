//! Names of the engine's metrics, and the counters that tests read.
//!
//! Operation counts are kept in plain atomics beside the recorder, because a count must be exact
//! whether or not an exporter is installed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that is exported under its name and can be read back in the same process.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// Declares a counter.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: AtomicU64::new(0) }
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    /// The count since the process started.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Hands the count to the installed recorder.
    pub fn export(&self) {
        metrics::counter!(self.name).absolute(self.value());
    }
}

/// A level that is exported under its name.
#[derive(Debug)]
pub struct Level(Counter);

impl Level {
    /// Declares a level.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Counter::new(name))
    }

    /// It is this much now.
    pub fn set(&self, value: u64) {
        self.0.value.store(value, Ordering::Relaxed);
    }

    /// Hands the level to the installed recorder.
    pub fn export(&self) {
        metrics::gauge!(self.0.name).set(level(self.0.value()));
    }
}

/// Elliptic-curve recoveries of a transaction's sender.
pub static SIGNATURE_RECOVERED: Counter = Counter::new("engine_signature_recovered_total");
/// Transactions that entered the pool.
pub static TRANSACTION_ADMITTED: Counter = Counter::new("engine_tx_admitted_total");
/// Transactions included in committed blocks.
pub static TRANSACTION_COMMITTED: Counter = Counter::new("engine_tx_committed_total");
/// Blocks committed.
pub static BLOCK_COMMITTED: Counter = Counter::new("engine_block_committed_total");
/// Transactions refused, by reason (label `reason`, from [`crate::admission::AdmissionError::label`]).
pub const TRANSACTION_REFUSED: &str = "engine_tx_refused_total";
/// Transactions dropped from the pool after admission, by reason.
pub const TRANSACTION_DROPPED: &str = "engine_tx_dropped_total";
/// Executable transactions in the pool.
pub const POOL_PENDING: &str = "engine_pool_pending_level";
/// Queued transactions in the pool.
pub const POOL_QUEUED: &str = "engine_pool_queued_level";
/// Raw transactions waiting for admission.
pub const ADMISSION_QUEUE_DEPTH: &str = "engine_admission_queue_depth";
/// Executed blocks waiting for commit.
pub const COMMIT_QUEUE_DEPTH: &str = "engine_commit_queue_depth";
/// Height of the newest durable block.
pub const HEIGHT: &str = "engine_height";
/// Seconds from a proposal's being here, or leaving here, to its block's being durable here.
pub const FINALITY_SECONDS: &str = "engine_finality_seconds";
/// Seconds that a transaction spent in a stage (label `stage`, from [`crate::spans::STAGES`]); only where somebody
/// listens to the spans.
pub const STAGE_SECONDS: &str = "engine_stage_seconds";
/// Nanoseconds the admission workers were busy.
pub static ADMISSION_BUSY: Counter = Counter::new("engine_admission_busy_nanoseconds_total");
/// Nanoseconds the execution thread spent building.
pub static BUILD_BUSY: Counter = Counter::new("engine_build_busy_nanoseconds_total");
/// Nanoseconds the execution thread spent executing blocks of others.
pub static EXECUTE_BUSY: Counter = Counter::new("engine_execute_busy_nanoseconds_total");
/// Nanoseconds the commit thread spent in the store.
pub static COMMIT_BUSY: Counter = Counter::new("engine_commit_busy_nanoseconds_total");
/// Blocks of others that were executed with their access list at hand.
pub static BLOCK_LISTED: Counter = Counter::new("engine_block_listed_total");
/// Blocks of others that were executed without: there was no list, or it came too late.
pub static BLOCK_UNLISTED: Counter = Counter::new("engine_block_unlisted_total");
/// Access lists that came when the execution of their block had begun, or of blocks that nobody waits for.
pub static LIST_LATE: Counter = Counter::new("engine_list_late_total");
/// Slots that this validator voted to skip: a timer of ordering has fired, or a block does not hold.
pub static SLOT_GIVEN_UP: Counter = Counter::new("engine_slot_given_up_total");
/// Transactions simulated for hints.
pub static HINT_SIMULATED: Counter = Counter::new("engine_hint_simulated_total");
/// Transactions that nobody looked at for a hint, by reason (label `reason`, from [`crate::hints::Skipped::label`]).
pub const HINT_SKIPPED: &str = "engine_hint_skipped_total";
/// Nanoseconds that simulations took.
pub static HINT_BUSY: Counter = Counter::new("engine_hint_busy_nanoseconds_total");
/// Parts of a state given to nodes that take it over.
pub static STATE_PART_GIVEN: Counter = Counter::new("engine_state_part_given_total");

/// A level as gauges want it.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a picture, not a number that anything depends on")]
pub(crate) const fn level(count: u64) -> f64 {
    count as f64
}

/// Exports every counter of this room and describes its metrics.
pub fn export() {
    for counter in [
        &SIGNATURE_RECOVERED,
        &TRANSACTION_ADMITTED,
        &TRANSACTION_COMMITTED,
        &BLOCK_COMMITTED,
        &ADMISSION_BUSY,
        &BUILD_BUSY,
        &EXECUTE_BUSY,
        &COMMIT_BUSY,
        &BLOCK_LISTED,
        &BLOCK_UNLISTED,
        &LIST_LATE,
        &SLOT_GIVEN_UP,
        &HINT_SIMULATED,
        &HINT_BUSY,
        &STATE_PART_GIVEN,
    ] {
        counter.export();
    }
}
