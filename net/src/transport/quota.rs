//! What one peer may say per second: token buckets, filled by the time that passes.
//!
//! Votes beyond the rate are dropped, since they are repeated; whoever sends streams faster waits, and with it the
//! peer, by flow control. The rates are far above what an honest peer needs: three votes a slot, a certificate for
//! each, and answers to a status of 64 slots.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Votes per second of one validator.
const VOTES_PER_SECOND: f64 = 1_000.0;

/// Words and bodies per second of a validator. A forged certificate costs a millisecond, and the peer its connection.
const WORDS_PER_SECOND: f64 = 500.0;

/// Words and bodies per second of anybody else, who only passes on what is certified.
const WORDS_PER_SECOND_OF_OTHERS: f64 = 100.0;

/// Transactions per second of one peer; one core recovers some 30,000 senders.
const TRANSACTIONS_PER_SECOND: f64 = 20_000.0;

/// Records of other nodes per second of one peer; each may cost a millisecond.
const RECORDS_PER_SECOND: f64 = 32.0;

/// Seconds of its rate that a bucket saves up.
const BURST_SECONDS: f64 = 2.0;

#[derive(Debug)]
struct Bucket {
    rate: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, state: Mutex::new((rate * BURST_SECONDS, now)) }
    }

    /// Takes a token; says how long to wait for it if there is none.
    fn take(&self, now: Instant, may_owe: bool) -> Duration {
        let mut state = self.state.lock();
        let (tokens, since) = *state;
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let tokens = passed.mul_add(self.rate, tokens).min(self.rate * BURST_SECONDS);
        if tokens >= 1.0 || may_owe {
            *state = (tokens - 1.0, now);
        }
        Duration::try_from_secs_f64((1.0 - tokens) / self.rate).unwrap_or(Duration::ZERO)
    }
}

/// What one peer may still say.
#[derive(Debug)]
pub(super) struct Quota {
    is_validator: bool,
    votes: Bucket,
    words: Bucket,
    transactions: Bucket,
    records: Bucket,
}

impl Quota {
    pub(super) fn new(is_validator: bool) -> Self {
        let now = Instant::now();
        let words = if is_validator { WORDS_PER_SECOND } else { WORDS_PER_SECOND_OF_OTHERS };
        Self {
            is_validator,
            votes: Bucket::new(VOTES_PER_SECOND, now),
            words: Bucket::new(words, now),
            transactions: Bucket::new(TRANSACTIONS_PER_SECOND, now),
            records: Bucket::new(RECORDS_PER_SECOND, now),
        }
    }

    /// Whether a vote is heard. Whoever is no validator has none.
    pub(super) fn vote(&self) -> bool {
        self.is_validator && self.votes.take(Instant::now(), false).is_zero()
    }

    pub(super) async fn word(&self) {
        wait(self.words.take(Instant::now(), true)).await;
    }

    pub(super) async fn record(&self) {
        wait(self.records.take(Instant::now(), true)).await;
    }

    pub(super) async fn transaction(&self) {
        wait(self.transactions.take(Instant::now(), true)).await;
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let begun = Instant::now();
        let bucket = Bucket::new(10.0, begun);
        for _ in 0..20 {
            assert_eq!(bucket.take(begun, false), Duration::ZERO);
        }
        assert!(!bucket.take(begun, false).is_zero());
        let later = begun + Duration::from_millis(101);
        assert_eq!(bucket.take(later, false), Duration::ZERO);
        assert!(!bucket.take(later, false).is_zero());
    }

    #[test]
    fn whoever_owes_waits_longer_each_time() {
        let begun = Instant::now();
        let bucket = Bucket::new(10.0, begun);
        let waits: Vec<Duration> = (0..22).map(|_| bucket.take(begun, true)).collect();
        assert!(waits[19].is_zero());
        assert!(waits[20] > Duration::ZERO && waits[21] > waits[20]);
    }

    #[test]
    fn who_is_no_validator_has_no_vote() {
        assert!(!Quota::new(false).vote());
        assert!(Quota::new(true).vote());
    }
}
