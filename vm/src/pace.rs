//! How long the transactions of a block under construction may take: a leader's rule, by the leader's clock.
//!
//! Gas does not say how long a transaction takes: the same gas takes a hundred times as long in one precompile as
//! in another. So a block is cut by time as well. With the node's settings, in slots:
//!
//! ```text
//! 0                     1                2
//! |---------------------|-----------|----|
//!  transactions begin    they end    roots, receipts, system calls
//!  until begin_max       until replica_max
//! ```
//!
//! 1. No transaction begins after [`BuildTime::begin_max`].
//! 2. None begins that might end after [`BuildTime::replica_max`]: room is kept for all of its gas at the worst
//!    time per gas that is known ([`limits::GAS_TIME_MAX_NS`]). What finds no room waits for the next block, as a
//!    transaction does whose gas finds none. The first transaction of a block begins whatever its gas, if it
//!    begins in time.
//! 3. One that ends after `replica_max` all the same is undone and thrown out of the pool, its sender is refused for
//!    a while, and the block ends with what is in it. On a machine on which the worst time per gas holds, and that
//!    is not held up for a large part of a slot, this happens to nobody.
//!
//! A replica that is as fast as this machine therefore executes the transactions on one thread within
//! `replica_max`. Where several threads guess, nobody knows what a guess took that is taken over, so all that the
//! threads may have done counts: the block's time passes as many times as fast. Native transfers are not measured
//! one by one; a block that is full of them is cut by the first rule.
//!
//! What is left to somebody who wants to do harm: on a machine slower than the worst time per gas, a transaction
//! that is thrown out has cost the leader its time and the sender nothing. The next attempt needs another account
//! that holds the fee of all the gas asked for, and filling it costs the fee of a transfer. On any machine,
//! whoever outbids everybody else gets blocks in which little but the own slow gas is executed, and pays for it.
//!
//! None of this says whether a block is valid: whoever executes a block does not look at a clock.

use std::time::Duration;

use engine::{limits, ports::BuildTime};

use crate::error::Refusal;

/// The time of one build.
#[derive(Clone, Copy)]
pub(crate) struct Pace<'a> {
    time: BuildTime<'a>,
    threads: u32,
    begin_max: Duration,
}

/// A transaction that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    at: Duration,
    /// What it may take at most.
    left: Duration,
}

impl<'a> Pace<'a> {
    /// The pace of a build by so many threads.
    pub(crate) fn new(time: BuildTime<'a>, threads: usize) -> Self {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        // Guesses are taken over without being measured: a seventh is left for what is then executed here.
        let shared = (time.replica_max / 7).saturating_mul(6) / threads;
        Self { time, threads, begin_max: time.begin_max.min(shared) }
    }

    fn elapsed(&self) -> Duration {
        (self.time.elapsed)()
    }

    /// Whether it is too late for another transaction.
    pub(crate) fn is_over(&self) -> bool {
        self.elapsed() >= self.begin_max
    }

    /// Whether what all threads did in this build may be more than a replica has time for: only what is executed
    /// alone is known to fit then.
    pub(crate) fn is_spent(&self) -> bool {
        self.elapsed().saturating_mul(self.threads) > self.time.replica_max
    }

    /// Begins a transaction with so much gas.
    ///
    /// # Errors
    /// [`Refusal::BlockTime`] if it might take longer than the block has time left.
    pub(crate) fn begin(&self, gas_limit: u64, is_first: bool) -> Result<Begun, Refusal> {
        let at = self.elapsed();
        // Since there was last a look at the clock somebody may have waited for a guess.
        if at >= self.begin_max && !is_first {
            return Err(Refusal::BlockTime { wanted: at, left: self.begin_max });
        }
        let spent = if is_first { Duration::ZERO } else { at.saturating_mul(self.threads) };
        let left = self.time.replica_max.saturating_sub(spent);
        let wanted = Duration::from_nanos(gas_limit.saturating_mul(limits::GAS_TIME_MAX_NS));
        if wanted > left && !is_first {
            return Err(Refusal::BlockTime { wanted, left });
        }
        Ok(Begun { at, left })
    }

    /// Judges a transaction that has been executed and not been committed.
    ///
    /// # Errors
    /// [`Refusal::TooSlow`] if it took longer than the block had time left.
    pub(crate) fn end(&self, begun: Begun) -> Result<(), Refusal> {
        let took = self.elapsed().saturating_sub(begun.at);
        if took > begun.left { Err(Refusal::TooSlow { took, left: begun.left }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
