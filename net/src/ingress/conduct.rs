//! What transactions that cannot be included may cost the node, by client: whoever makes it recover senders in vain is
//! not heard until some time has passed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep},
};

use super::limits::{ADMITTED_PER_FAULT, FAULT_REST, FAULTS_MAX, FAULTS_PER_SECOND};

/// Units of a fault, so that what is admitted and the time give parts of one back.
const FAULT: u64 = ADMITTED_PER_FAULT;

/// Of one key, over all its connections.
#[derive(Debug)]
pub(super) struct Conduct {
    spent: Mutex<Spent>,
    /// Whose turn it is to be told that nothing is left.
    turn: AsyncMutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    units: u64,
    since: Instant,
}

impl Spent {
    /// Gives back what the time since then is worth.
    fn at(&mut self, now: Instant) -> &mut u64 {
        let passed = now.saturating_duration_since(self.since);
        let worth = |time: Duration| {
            let units = u128::from(FAULTS_PER_SECOND.saturating_mul(FAULT)).saturating_mul(time.as_millis()) / 1_000;
            u64::try_from(units).unwrap_or(u64::MAX)
        };
        // Of a time that is worth nothing yet nothing is forgotten.
        if worth(passed) > 0 {
            self.units = self.units.saturating_sub(worth(passed));
            self.since = now;
        }
        &mut self.units
    }
}

impl Conduct {
    pub(super) fn new() -> Self {
        Self { spent: Mutex::new(Spent { units: 0, since: Instant::now() }), turn: AsyncMutex::default() }
    }

    /// Whether it has as many faults as it may.
    pub(super) fn is_spent(&self) -> bool {
        *self.spent.lock().at(Instant::now()) >= FAULTS_MAX.saturating_mul(FAULT)
    }

    /// A transaction was refused once its sender was recovered.
    pub(super) fn fault(&self) {
        let mut spent = self.spent.lock();
        let units = spent.at(Instant::now());
        *units = units.saturating_add(FAULT);
    }

    /// A transaction was admitted.
    pub(super) fn merit(&self) {
        let mut spent = self.spent.lock();
        spent.units = spent.units.saturating_sub(1);
    }

    /// Waits before a client is told that nothing is left, one after another over all its connections.
    pub(super) async fn rest(&self) {
        let _turn = self.turn.lock().await;
        sleep(FAULT_REST).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn faults_are_forgiven_by_time_and_by_what_is_admitted() {
        let conduct = Conduct::new();
        for _ in 0..FAULTS_MAX {
            assert!(!conduct.is_spent());
            conduct.fault();
        }
        assert!(conduct.is_spent());
        conduct.merit();
        assert!(!conduct.is_spent());
        conduct.fault();
        assert!(conduct.is_spent());
        for _ in 1..ADMITTED_PER_FAULT {
            conduct.merit();
        }
        // Looked at ever so often, time counts.
        for _ in 0..1_000 {
            advance(Duration::from_micros(100)).await;
            conduct.is_spent();
        }
        let free = FAULTS_PER_SECOND / 10 + 1;
        for _ in 0..free {
            assert!(!conduct.is_spent());
            conduct.fault();
        }
        assert!(conduct.is_spent());
        advance(Duration::from_secs(3_600)).await;
        assert_eq!(*conduct.spent.lock().at(Instant::now()), 0);
    }
}
