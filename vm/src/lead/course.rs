//! Who works on which transaction of a stretch: claimed, guessed, delivered, taken.
//!
//! ```text
//! free --claim--> guessing --deliver--> guessed --take--> taken      a helper's guess reaches the lane
//!   \                \------------------take------------> taken      the lane did not wait; the guess is dropped
//!    \----------------------------------take------------> taken      nobody guessed it
//! ```
//!
//! Promise: each transaction is taken once; a guess reaches the lane whole or not at all; whoever sleeps is woken
//! when there is something to claim again, or the end. What a guess is does not matter here.

use std::sync::PoisonError;

use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// Nobody works on it.
const FREE: u8 = 0;
/// A guess is being made.
const GUESSING: u8 = 1;
/// A guess is there.
const GUESSED: u8 = 2;
/// The lane has it.
const TAKEN: u8 = 3;

/// What the threads on one stretch of transactions share.
#[derive(Debug)]
pub(crate) struct Course<G> {
    marks: Vec<AtomicU8>,
    guesses: Vec<Mutex<Option<Box<G>>>>,
    /// The lowest transaction that is not committed.
    lowest: AtomicUsize,
    /// The next transaction to guess.
    cursor: AtomicUsize,
    /// How far above the lowest one guesses may be.
    window: AtomicUsize,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    moved: Condvar,
}

/// What there is to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This transaction.
    Now(usize),
    /// Nothing while the lane is at this one.
    Later(usize),
    /// Nothing any more.
    Never,
}

/// What the lane finds at its transaction.
#[derive(Debug)]
pub(crate) enum Taken<G> {
    /// Nobody guessed it, or nothing could be said: it is the lane's.
    Unguessed,
    /// It is the lane's, with this guess.
    Guessed(Box<G>),
    /// A helper is at it, and the lane wanted to wait.
    UnderWay,
}

/// A thread that panicked while it held the lock left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<G> Course<G> {
    pub(crate) fn new(transactions: usize, window: usize) -> Self {
        Self {
            marks: (0..transactions).map(|_| AtomicU8::new(FREE)).collect(),
            guesses: (0..transactions).map(|_| Mutex::new(None)).collect(),
            lowest: AtomicUsize::new(0),
            cursor: AtomicUsize::new(1),
            window: AtomicUsize::new(window),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            moved: Condvar::new(),
        }
    }

    /// Takes the next transaction within the window that is worth a guess.
    pub(crate) fn claim(&self, is_worth_it: impl Fn(usize) -> bool) -> Claim {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Claim::Never;
            }
            let lowest = self.lowest.load(Ordering::Acquire);
            let next = self.cursor.load(Ordering::Relaxed).max(lowest.saturating_add(1));
            if next >= self.marks.len() {
                return Claim::Never;
            }
            if next > lowest.saturating_add(self.window.load(Ordering::Relaxed)) {
                return Claim::Later(lowest);
            }
            let seen = self.cursor.fetch_max(next.saturating_add(1), Ordering::Relaxed);
            if seen <= next
                && is_worth_it(next)
                && self.marks[next].compare_exchange(FREE, GUESSING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return Claim::Now(next);
            }
        }
    }

    /// Hands over what was claimed, unless the lane did not wait for it; `None` if nothing can be said.
    pub(crate) fn deliver(&self, at: usize, guess: Option<Box<G>>) {
        *lock(&self.guesses[at]) = guess;
        if self.marks[at].compare_exchange(GUESSING, GUESSED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            *lock(&self.guesses[at]) = None;
        }
    }

    /// Makes a transaction the lane's.
    pub(crate) fn take(&self, at: usize, wait: bool) -> Taken<G> {
        let mark = &self.marks[at];
        match mark.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(TAKEN) => return Taken::Unguessed,
            Err(GUESSING) if wait => return Taken::UnderWay,
            Err(GUESSING) if mark.compare_exchange(GUESSING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() => {
                return Taken::Unguessed;
            }
            Err(_) => {}
        }
        mark.store(TAKEN, Ordering::Relaxed);
        lock(&self.guesses[at]).take().map_or(Taken::Unguessed, Taken::Guessed)
    }

    /// Sleeps until the lane has left `lowest`, or the end.
    pub(crate) fn sleep(&self, lowest: usize) {
        let mut asleep = lock(&self.asleep);
        *asleep = asleep.saturating_add(1);
        while self.lowest.load(Ordering::Acquire) == lowest && !self.stop.load(Ordering::Acquire) {
            asleep = self.moved.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        *asleep = asleep.saturating_sub(1);
    }

    /// The lane has gone on; whoever sleeps has something to do if the window reaches beyond the cursor.
    pub(crate) fn advance(&self, lowest: usize) {
        self.lowest.store(lowest, Ordering::Release);
        let reach = lowest.saturating_add(self.window.load(Ordering::Relaxed));
        if self.cursor.load(Ordering::Relaxed) <= reach && *lock(&self.asleep) > 0 {
            self.moved.notify_all();
        }
    }

    /// Sets how far above the lowest transaction guesses may be; it holds from the next [`Self::advance`] on.
    pub(crate) fn set_window(&self, window: usize) {
        self.window.store(window, Ordering::Relaxed);
    }

    /// Whether nothing may be guessed.
    pub(crate) fn is_closed(&self) -> bool {
        self.window.load(Ordering::Relaxed) == 0
    }

    /// There is nothing to guess any more.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Release);
        drop(lock(&self.asleep));
        self.moved.notify_all();
    }
}
