//! When to stop waiting: timers as data.
//!
//! ```text
//! timer(kL + j) = (3 Delta + E + sum of pause(i) for i <= j) * 1.5^max(0, c - 1), 60 s at most, from window entry
//! E             = slot time + Delta: execution, and one relay hop of a large body
//! pause(i)      = the idle interval if the block before slot kL + i is empty or not known here, else the slot time
//! c             = windows entered since a finalization was last seen
//! ```
//!
//! Timers only ever move earlier, as blocks arrive. No clocks need to agree.

use std::time::Duration;

/// Longest wait for one slot.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The terms of all timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Bound on the one-way delay between validators that timers assume, Delta.
    pub delta: Duration,
    /// From one block to the next under load.
    pub slot_time: Duration,
    /// How long a leader may wait with the next block after an empty one; `None`: until a transaction waits, after
    /// any block, so that nothing is ever skipped. That is for chains of one validator.
    pub idle_interval: Option<Duration>,
}

/// Timers of the window under way.
#[derive(Clone, Debug)]
pub(super) struct Pacemaker {
    timing: Timing,
    window: Option<u64>,
    entered: Duration,
    /// Per slot of the window: when it is given up.
    deadlines: Vec<Option<Duration>>,
    /// Per slot of the window: whether the block before it was once known to have transactions; it may be final and
    /// forgotten before the blocks after it come.
    busy: Vec<bool>,
    /// Slots of the window that were given up.
    fired: usize,
    windows_since_final: u32,
}

impl Pacemaker {
    pub(super) const fn new(timing: Timing) -> Self {
        Self {
            timing,
            window: None,
            entered: Duration::ZERO,
            deadlines: Vec::new(),
            busy: Vec::new(),
            fired: 0,
            windows_since_final: 0,
        }
    }

    /// The window under way.
    pub(super) const fn window(&self) -> Option<u64> {
        self.window
    }

    /// When it was entered.
    pub(super) const fn entered(&self) -> Duration {
        self.entered
    }

    /// Enters a window of `slots` slots, of which the first `passed` are decided already: nobody waits before those,
    /// and what came before them may be forgotten.
    pub(super) fn enter(&mut self, window: u64, slots: u64, passed: u64, now: Duration) {
        self.window = Some(window);
        self.entered = now;
        self.windows_since_final = self.windows_since_final.saturating_add(1);
        self.busy = (0..slots).map(|at| at < passed).collect();
        self.deadlines = vec![None; self.busy.len()];
        self.fired = 0;
    }

    /// A finalization was seen.
    pub(super) const fn finalized(&mut self) {
        self.windows_since_final = 0;
    }

    /// Arms the timers by what is known of the blocks before each slot; `busy(j)` says whether the block before slot
    /// j of the window is known and has transactions.
    pub(super) fn arm(&mut self, busy: impl Fn(usize) -> bool) {
        let Timing { delta, slot_time, idle_interval } = self.timing;
        let Some(idle) = idle_interval else { return };
        let mut wait = delta.saturating_mul(4).saturating_add(slot_time);
        for (at, was_busy) in self.busy.iter_mut().enumerate() {
            *was_busy = *was_busy || busy(at);
        }
        for at in 0..self.deadlines.len() {
            wait = wait.saturating_add(if self.busy[at] { slot_time } else { idle });
            let deadline = self.entered.saturating_add(self.stretched(wait));
            let earlier = self.deadlines[at].map_or(deadline, |armed| armed.min(deadline));
            self.deadlines[at] = Some(earlier);
        }
    }

    fn stretched(&self, wait: Duration) -> Duration {
        let mut wait = wait;
        for _ in 1..self.windows_since_final {
            if wait >= WAIT_MAX {
                break;
            }
            wait = wait.saturating_add(wait / 2);
        }
        wait.min(WAIT_MAX)
    }

    /// The next slot of the window to give up, and when.
    pub(super) fn next(&self) -> Option<(usize, Duration)> {
        let deadline = self.deadlines.get(self.fired).copied().flatten()?;
        Some((self.fired, deadline))
    }

    /// The slot that [`Self::next`] named was given up.
    pub(super) const fn fire(&mut self) {
        self.fired = self.fired.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pacemaker() -> Pacemaker {
        let timing = Timing { delta: 150 * MS, slot_time: 200 * MS, idle_interval: Some(1_000 * MS) };
        let mut pacemaker = Pacemaker::new(timing);
        pacemaker.enter(3, 4, 0, 10_000 * MS);
        pacemaker
    }

    fn waits(pacemaker: &Pacemaker) -> Vec<u128> {
        pacemaker.deadlines.iter().map(|at| (at.expect("armed") - pacemaker.entered).as_millis()).collect()
    }

    #[test]
    fn timers_move_earlier_as_blocks_come_and_stay_there_when_those_are_forgotten() {
        let mut pacemaker = pacemaker();
        pacemaker.arm(|_| false);
        assert_eq!(waits(&pacemaker), [1_800, 2_800, 3_800, 4_800]);
        // On a fast network a block is final and forgotten before the next one comes.
        for known in 0..3 {
            pacemaker.arm(|at| at == known);
        }
        assert_eq!(waits(&pacemaker), [1_000, 1_200, 1_400, 2_400]);
        pacemaker.arm(|_| false);
        assert_eq!(waits(&pacemaker), [1_000, 1_200, 1_400, 2_400]);
        pacemaker.enter(4, 4, 0, 20_000 * MS);
        pacemaker.arm(|_| false);
        assert_eq!(waits(&pacemaker), [2_700, 4_200, 5_700, 7_200], "nothing is final since the last window");
    }

    #[test]
    fn who_enters_late_does_not_wait_for_what_is_decided() {
        let mut pacemaker = pacemaker();
        pacemaker.finalized();
        pacemaker.enter(4, 4, 2, 20_000 * MS);
        pacemaker.arm(|at| at == 2);
        assert_eq!(waits(&pacemaker), [1_000, 1_200, 1_400, 2_400]);
    }
}
