//! How long a build may take, so that blocks are as large as everybody can follow.
//!
//! ```text
//! in time = from a block's proposal to its notarization at most slot time + Delta
//! late    -> allowance * (slot time + Delta) / what it took, 1/2 .. 3/4; not again for blocks heard of before that
//! skipped -> as if it had taken twice as long as it may
//! own block in time, and there was no time for more transactions -> allowance * 9/8, up to the configured build time
//! ```
//!
//! Blocks follow each other a slot time apart. A replica that needs longer than that for each falls behind, and all
//! that happens to the blocks is that they come late: first, long before a timer fires. A leader sees that with
//! everybody's blocks, so that a hundred leaders need not find out one after the other.
//!
//! That is congestion control: one decrease for what was under way together, as in TCP NewReno (RFC 6582). The
//! growth is in proportion, since a leader has a few blocks in a row to grow with and then waits for its next window.

use std::time::Duration;

use super::pacemaker::Timing;

/// The least share of the configured build time that is left.
const LEAST: u32 = 16;

/// How long the next build may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    most: Duration,
    time: Duration,
    /// From proposal to notarization, in time.
    in_time: Duration,
    /// When it shrank last.
    shrunk: Duration,
}

impl Allowance {
    /// Begins with the most there is.
    pub(super) fn new(most: Duration, timing: &Timing) -> Self {
        Self { most, time: most, in_time: timing.slot_time.saturating_add(timing.delta), shrunk: Duration::ZERO }
    }

    pub(super) const fn time(&self) -> Duration {
        self.time
    }

    /// A block that was heard of or proposed at `heard` is notarized; `cut` if it was built here and there was no time
    /// for more.
    pub(super) fn notarized(&mut self, heard: Duration, now: Duration, cut: bool) {
        let took = now.saturating_sub(heard);
        if took > self.in_time {
            self.shrink(heard, now, took);
        } else if cut {
            self.time = self.time.saturating_add(self.time / 8).min(self.most);
        }
    }

    /// A block that was heard of then came so late that its slot was skipped.
    pub(super) fn skipped(&mut self, heard: Duration, now: Duration) {
        self.shrink(heard, now, self.in_time.saturating_mul(2));
    }

    fn shrink(&mut self, heard: Duration, now: Duration, took: Duration) {
        if heard < self.shrunk {
            return;
        }
        let (allowed, took) = (self.in_time.as_micros(), took.as_micros().max(1));
        let percent = u32::try_from(allowed.saturating_mul(100) / took).unwrap_or(100).clamp(50, 75);
        self.time = (self.time.saturating_mul(percent) / 100).max(self.most / LEAST);
        self.shrunk = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn allowance() -> Allowance {
        let timing = Timing { delta: 150 * MS, slot_time: 200 * MS, idle_interval: None };
        Allowance::new(160 * MS, &timing)
    }

    #[test]
    fn blocks_that_come_late_together_shrink_it_once() {
        let mut allowance = allowance();
        for heard in [1_000, 1_200] {
            allowance.notarized(heard * MS, (heard + 500) * MS, true);
        }
        assert_eq!(allowance.time(), 112 * MS, "350 of 500 ms");
        allowance.notarized(1_500 * MS, 1_851 * MS, true);
        assert_eq!(allowance.time(), 84 * MS, "heard of after that, and hardly late");
        allowance.skipped(1_850 * MS, 1_900 * MS);
        assert_eq!(allowance.time(), 84 * MS, "heard of before that");
        allowance.skipped(1_900 * MS, 2_000 * MS);
        assert_eq!(allowance.time(), 42 * MS);
        (3..9).for_each(|at| allowance.skipped(at * 1_000 * MS, at * 1_000 * MS));
        assert_eq!(allowance.time(), 10 * MS, "something is left");
    }

    #[test]
    fn only_own_blocks_that_were_cut_let_it_grow() {
        let mut allowance = allowance();
        allowance.skipped(1_000 * MS, 1_000 * MS);
        allowance.notarized(2_000 * MS, 2_350 * MS, false);
        assert_eq!(allowance.time(), 80 * MS);
        let grown = (0..7).map(|_| {
            allowance.notarized(2_000 * MS, 2_350 * MS, true);
            allowance.time().as_millis()
        });
        assert_eq!(grown.collect::<Vec<_>>(), [90, 101, 113, 128, 144, 160, 160]);
    }
}
