//! What clients have submitted and no block has included yet: what the next few slots take, and no more.
//!
//! ```text
//! room(backlog) = BACKLOG_SLOTS * most of these that became final within one of the last slots, BACKLOG_LEAST at least
//! ```
//!
//! A pool that takes more than blocks can include makes everybody wait for as long as it is deep. So clients wait
//! before it, where each has its turn and knows that it waits. Blocks say how much they can include, whatever the
//! reason is: execution, disks, other validators or the gas limit. What a few slots take must be there at any time,
//! since blocks are under way for two or three before they are final.
//!
//! What waits for longer than [`BACKLOG_AGES`] slots is no part of what the next ones take, for the lack of a nonce or
//! of a fee, and makes way.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::limits::{BACKLOG_AGES, BACKLOG_MEMORY, BACKLOG_SLOTS};

/// The place of a transaction inside; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Inside {
    backlog: Arc<Backlog>,
    /// The slot in which it entered, counted here.
    slot: u64,
}

impl Inside {
    /// A block includes it.
    pub(super) fn included(self) {
        let state = &mut *self.backlog.state.lock();
        let count = &mut state.included[place::<BACKLOG_MEMORY>(state.now)];
        *count = count.saturating_add(1);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.backlog.leave(self.slot);
    }
}

/// Transactions of some clients.
#[derive(Debug)]
pub(super) struct Backlog {
    free: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    least: usize,
    room: usize,
    /// What is inside above the room there is.
    excess: usize,
    /// How many became final in each of the last slots.
    included: [usize; BACKLOG_MEMORY],
    /// How many that entered in each of the last slots are inside.
    entered: [usize; BACKLOG_AGES],
    now: u64,
}

/// Its place among the last `N`.
fn place<const N: usize>(number: u64) -> usize {
    usize::try_from(number % N as u64).unwrap_or_default()
}

impl Backlog {
    pub(super) fn new(least: usize) -> Arc<Self> {
        let (included, entered) = ([0; BACKLOG_MEMORY], [0; BACKLOG_AGES]);
        let state = State { least, room: least, excess: 0, included, entered, now: 0 };
        Arc::new(Self { free: Semaphore::new(least), state: Mutex::new(state) })
    }

    /// Lets one in if there is room.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Inside> {
        self.free.try_acquire().ok()?.forget();
        Some(self.inside())
    }

    /// Lets one in once there is room; those who wait enter in the order in which they came.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<Inside> {
        self.free.acquire().await.ok()?.forget();
        Some(self.inside())
    }

    fn inside(self: &Arc<Self>) -> Inside {
        let state = &mut *self.state.lock();
        let count = &mut state.entered[place::<BACKLOG_AGES>(state.now)];
        *count = count.saturating_add(1);
        Inside { backlog: self.clone(), slot: state.now }
    }

    /// One is not inside any more.
    fn leave(&self, slot: u64) {
        let state = &mut *self.state.lock();
        // What entered before that made way already.
        if slot.saturating_add(BACKLOG_AGES as u64) > state.now {
            let count = &mut state.entered[place::<BACKLOG_AGES>(slot)];
            *count = count.saturating_sub(1);
            self.free(state, 1);
        }
    }

    fn free(&self, state: &mut State, count: usize) {
        let paid = count.min(state.excess);
        state.excess = state.excess.saturating_sub(paid);
        self.free.add_permits(count.saturating_sub(paid));
    }

    /// A slot went by.
    pub(super) fn slot(&self) {
        let state = &mut *self.state.lock();
        let most = state.included.iter().max().copied().unwrap_or_default();
        state.now = state.now.saturating_add(1);
        state.included[place::<BACKLOG_MEMORY>(state.now)] = 0;
        let old = std::mem::take(&mut state.entered[place::<BACKLOG_AGES>(state.now)]);
        self.free(state, old);
        let room = most.saturating_mul(BACKLOG_SLOTS).max(state.least);
        let before = std::mem::replace(&mut state.room, room);
        if room >= before {
            self.free(state, room.saturating_sub(before));
        } else {
            let less = before.saturating_sub(room);
            state.excess = state.excess.saturating_add(less.saturating_sub(self.free.forget_permits(less)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 10;

    fn fill(backlog: &Arc<Backlog>) -> Vec<Inside> {
        std::iter::from_fn(|| backlog.try_enter()).collect()
    }

    #[test]
    fn there_is_room_for_what_a_few_slots_include() {
        let backlog = Backlog::new(LEAST);
        let mut inside = fill(&backlog);
        assert_eq!(inside.len(), LEAST);
        let slot = |inside: &mut Vec<Inside>, count: usize| {
            inside.drain(..count).for_each(Inside::included);
            backlog.slot();
            inside.extend(fill(&backlog));
            inside.len()
        };
        assert_eq!(slot(&mut inside, 5), 5 * BACKLOG_SLOTS);
        assert_eq!(slot(&mut inside, 20), 20 * BACKLOG_SLOTS);
        // As long as that slot is among the last ones, it counts.
        let sizes: Vec<usize> = (0..BACKLOG_MEMORY).map(|_| slot(&mut inside, 15)).collect();
        assert!(sizes[..BACKLOG_MEMORY - 1].iter().all(|size| *size == 20 * BACKLOG_SLOTS), "{sizes:?}");
        // What is inside above that leaves as it is included, and nobody enters until then.
        let mut size = sizes[BACKLOG_MEMORY - 1];
        while size > 15 * BACKLOG_SLOTS {
            let next = slot(&mut inside, 15);
            assert_eq!(next, (size - 15).max(15 * BACKLOG_SLOTS));
            size = next;
        }
        assert_eq!(slot(&mut inside, 15), 15 * BACKLOG_SLOTS);
        for _ in 0..BACKLOG_MEMORY {
            slot(&mut inside, 0);
        }
        inside.clear();
        assert_eq!(fill(&backlog).len(), LEAST);
    }

    #[test]
    fn what_no_block_includes_makes_way_and_counts_once() {
        let backlog = Backlog::new(LEAST);
        let stuck = fill(&backlog);
        for _ in 1..BACKLOG_AGES {
            backlog.slot();
            assert!(backlog.try_enter().is_none());
        }
        backlog.slot();
        let next = fill(&backlog);
        assert_eq!(next.len(), LEAST);
        drop(stuck);
        assert!(backlog.try_enter().is_none(), "they made way already");
        drop(next);
        assert_eq!(fill(&backlog).len(), LEAST);
    }

    #[tokio::test]
    async fn whoever_waits_enters_first() {
        let backlog = Backlog::new(1);
        let inside = backlog.try_enter().expect("there is room");
        let mut waiting = Box::pin(backlog.enter());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        drop(inside);
        assert!(backlog.try_enter().is_none(), "the one that waits has it");
        assert!(waiting.await.is_some());
    }
}
