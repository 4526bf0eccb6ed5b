//! How a node stands, for whoever asks: where ordering is, and how long recent blocks took to become final.
//!
//! The stages write, anybody reads, and nobody waits: numbers of one moment need not be of the same.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering as Atomic},
    time::Duration,
};

use parking_lot::Mutex;

use crate::types::{Epoch, PublicKey, Slot};

/// Blocks whose times are kept: three minutes of slots.
const TIMES_MAX: usize = 1_024;

/// Written by the stages.
#[derive(Debug)]
pub(crate) struct Standing {
    is_validator: bool,
    epoch: AtomicU64,
    slot: AtomicU64,
    transactions: AtomicU64,
    leaders: Mutex<[PublicKey; 2]>,
    times: Mutex<VecDeque<Duration>>,
}

/// How a node stood when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingNow {
    /// Whether it has a validator's key.
    pub is_validator: bool,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its least slot that nothing has decided.
    pub slot: Slot,
    /// Transactions that became durable since it started.
    pub transactions: u64,
    /// From a proposal's being here, or leaving here, to its block's being durable; `None` before the first.
    pub finality: Option<Times>,
}

/// Percentiles of the times of recent blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Half of them took no longer.
    pub p50: Duration,
    /// 95 of a hundred took no longer.
    pub p95: Duration,
    /// 99 of a hundred took no longer.
    pub p99: Duration,
    /// How many there are.
    pub blocks: usize,
}

impl Standing {
    pub(crate) fn new(is_validator: bool) -> Self {
        Self {
            is_validator,
            epoch: AtomicU64::new(0),
            slot: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            leaders: Mutex::default(),
            times: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn is_at(&self, epoch: Epoch, slot: Slot) {
        self.epoch.store(epoch.0, Atomic::Relaxed);
        self.slot.store(slot.0, Atomic::Relaxed);
    }

    /// The epoch and the least slot that nothing has decided.
    pub(crate) fn place(&self) -> (Epoch, Slot) {
        (Epoch(self.epoch.load(Atomic::Relaxed)), Slot(self.slot.load(Atomic::Relaxed)))
    }

    /// These lead now and next.
    pub(crate) fn are_leaders(&self, leaders: [PublicKey; 2]) {
        *self.leaders.lock() = leaders;
    }

    /// Who leads now and next.
    pub(crate) fn leaders(&self) -> [PublicKey; 2] {
        *self.leaders.lock()
    }

    /// A block is durable, so many transactions and so long after its proposal was here, if that is known.
    pub(crate) fn committed(&self, transactions: usize, time: Option<Duration>) {
        self.transactions.fetch_add(u64::try_from(transactions).unwrap_or(u64::MAX), Atomic::Relaxed);
        if let Some(time) = time {
            let mut times = self.times.lock();
            if times.len() == TIMES_MAX {
                times.pop_front();
            }
            times.push_back(time);
        }
    }

    pub(crate) fn now(&self) -> StandingNow {
        let (epoch, slot) = self.place();
        StandingNow {
            is_validator: self.is_validator,
            epoch,
            slot,
            transactions: self.transactions.load(Atomic::Relaxed),
            finality: self.finality(),
        }
    }

    fn finality(&self) -> Option<Times> {
        let mut times: Vec<Duration> = self.times.lock().iter().copied().collect();
        times.sort_unstable();
        // The least time that so many of a hundred do not exceed.
        let at = |percent: usize| {
            let place = times.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
            times.get(place).copied()
        };
        Some(Times { p50: at(50)?, p95: at(95)?, p99: at(99)?, blocks: times.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_newest_blocks() {
        let standing = Standing::new(true);
        assert_eq!(standing.now().finality, None);
        standing.committed(3, None);
        assert_eq!(standing.now().finality, None, "nobody knows when its proposal came");
        for ms in (1..=100).rev() {
            standing.committed(1, Some(Duration::from_millis(ms)));
        }
        let ms = Duration::from_millis;
        assert_eq!(standing.now().finality, Some(Times { p50: ms(50), p95: ms(95), p99: ms(99), blocks: 100 }));
        assert_eq!(standing.now().transactions, 103);
        for _ in 0..TIMES_MAX {
            standing.committed(0, Some(ms(7)));
        }
        assert_eq!(standing.now().finality, Some(Times { p50: ms(7), p95: ms(7), p99: ms(7), blocks: TIMES_MAX }));
    }
}
