//! When a waiting transaction is simulated, so that whoever builds with it knows where it meets others.
//!
//! ```text
//! admission --Event::Admitted--> [queue] --every HINT_INTERVAL--> wanted? affordable? --> Executor::hint
//!                                full: skipped                    else skipped
//! ```
//!
//! Promise: nobody waits for a simulation. Admission puts a transaction into a queue without waking anybody, or
//! leaves it. Simulations take a share of one core's time, each at most [`limits::HINT_TIME_MAX`] beyond what
//! cannot be interrupted, and none runs while the pool holds more gas than a block: a loaded node builds. Hints
//! are advice; what is built does not depend on them.
//!
//! Whoever sends many transactions of ever new kinds can use the budget up. Then others' new kinds are learned in
//! blocks, as without hints.

use std::{sync::Arc, time::Duration};

use crossbeam::channel::{Sender, TrySendError};

use crate::{
    admission::Mempool,
    events::Event,
    execution::Pending,
    limits, metrics,
    ports::{Executor, HintLimits, Store},
    types::PooledTransaction,
};

/// Why an admitted transaction was not considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// The queue was full.
    QueueFull,
    /// The pool held more than a block.
    PoolFull,
    /// The share of time was used up.
    OverBudget,
    /// The state could not be read; those who need it say so.
    StateUnreadable,
}

impl Skipped {
    /// The label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::PoolFull => "pool_full",
            Self::OverBudget => "over_budget",
            Self::StateUnreadable => "state_unreadable",
        }
    }

    fn count(self) {
        ::metrics::counter!(metrics::HINT_SKIPPED, "reason" => self.label()).increment(1);
    }
}

/// A share of the time that passes, saved up to [`limits::HINT_BURST`].
///
/// Promise: what is spent on uses that were allowed and took at most [`limits::HINT_TIME_MAX`] each is, over any
/// stretch of time, at most the share of it and one burst. What a use takes beyond that is paid back before the next.
///
/// Source: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Debug)]
pub struct Budget {
    percent: u32,
    /// When everything spent so far is paid back; time since then is what is saved.
    paid_back: Duration,
}

impl Budget {
    /// Nothing saved at time zero; `None` for no share at all.
    #[must_use]
    pub fn new(percent: u8) -> Option<Self> {
        (percent > 0).then(|| Self { percent: u32::from(percent.min(100)), paid_back: Duration::ZERO })
    }

    /// How long it takes to save up `time`.
    fn worth(&self, time: Duration) -> Duration {
        time.saturating_mul(100) / self.percent
    }

    /// Whether one more use can be paid for, however long it takes.
    #[must_use]
    pub fn allows(&self, now: Duration) -> bool {
        now.saturating_sub(self.paid_back) >= self.worth(limits::HINT_TIME_MAX)
    }

    /// Takes off what a use took that has just ended.
    pub fn spend(&mut self, now: Duration, took: Duration) {
        let forgotten = now.saturating_sub(self.worth(limits::HINT_BURST));
        self.paid_back = self.paid_back.max(forgotten).saturating_add(self.worth(took));
    }
}

/// Puts admitted transactions into the queue, or leaves them if it is full.
pub(crate) fn listener(queue: Sender<PooledTransaction>) -> Box<dyn Fn(&Event) + Send + Sync> {
    Box::new(move |event| {
        if let Event::Admitted(transaction) = event
            && let Err(TrySendError::Full(_)) = queue.try_send(transaction.clone())
        {
            Skipped::QueueFull.count();
        }
    })
}

/// Looks at admitted transactions, one after the other.
pub(crate) struct Hints {
    executor: Arc<dyn Executor>,
    store: Arc<dyn Store>,
    pool: Arc<Mempool>,
    pending: Arc<Pending>,
    budget: Budget,
}

impl Hints {
    pub(crate) fn new(
        executor: Arc<dyn Executor>,
        store: Arc<dyn Store>,
        pool: Arc<Mempool>,
        pending: Arc<Pending>,
        budget: Budget,
    ) -> Self {
        Self { executor, store, pool, pending, budget }
    }

    /// Simulates a transaction on the newest state if that is wanted and can be afforded. `now` is the time since the
    /// node started; the time that passes while a simulation runs is counted as if it had the core for itself.
    pub(crate) fn look(
        &mut self,
        transaction: &PooledTransaction,
        now: &(dyn Fn() -> Duration + Sync),
        stopped: &(dyn Fn() -> bool + Sync),
    ) {
        if let Err(skipped) = self.simulate(transaction, now, stopped) {
            skipped.count();
        }
    }

    /// As [`Self::look`]; tells whether it was simulated.
    fn simulate(
        &mut self,
        transaction: &PooledTransaction,
        now: &(dyn Fn() -> Duration + Sync),
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, Skipped> {
        if self.pool.status().gas > self.store.chain().genesis_header.gas_limit {
            return Err(Skipped::PoolFull);
        }
        let begun = now();
        if !self.budget.allows(begun) {
            return Err(Skipped::OverBudget);
        }
        if stopped() || !self.executor.wants_hint(transaction) {
            return Ok(false);
        }
        let (view, _) = self.pending.view(&*self.store).map_err(|_| Skipped::StateUnreadable)?;
        let parent = self.pending.top(&*self.store);
        let is_over = || now().saturating_sub(begun) >= limits::HINT_TIME_MAX || stopped();
        let hint_limits = HintLimits { gas_max: limits::HINT_GAS_MAX, is_over: &is_over };
        self.executor.hint(&*view, &parent, transaction, &hint_limits);
        let ended = now();
        let took = ended.saturating_sub(begun);
        self.budget.spend(ended, took);
        metrics::HINT_SIMULATED.increment();
        metrics::HINT_BUSY.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
