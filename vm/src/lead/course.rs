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

use super::patterns::{MARKS, PLACES_MAX};
use crate::sync::{AtomicBool, AtomicU8, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// Steps of the lane between two looks for sleepers, at most.
const PAUSE_MAX: usize = 16;

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
    /// How far above the lowest one guesses may be.
    window: AtomicUsize,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    moved: Condvar,
    /// Steps of the lane until it looks again whether sleepers would find something, and how many the next pause
    /// has.
    pause: AtomicUsize,
    pause_next: AtomicUsize,
}

/// What somebody who looks for something to guess must know of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prospect {
    /// It is not worth a guess and in nobody's way.
    Skip,
    /// It meets others at the places with these marks, all below [`MARKS`]; 0 is none.
    Guess([u16; PLACES_MAX]),
}

/// Places that unfinished transactions are at.
struct Occupied([u64; MARKS / 64]);

impl Occupied {
    fn meets(&self, marks: &[u16; PLACES_MAX]) -> bool {
        marks.iter().any(|mark| *mark != 0 && self.0[usize::from(*mark) / 64] >> (mark % 64) & 1 == 1)
    }

    fn add(&mut self, marks: &[u16; PLACES_MAX]) {
        for mark in marks.iter().take_while(|mark| **mark != 0) {
            self.0[usize::from(*mark) / 64] |= 1 << (mark % 64);
        }
    }
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
            window: AtomicUsize::new(window),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            moved: Condvar::new(),
            pause: AtomicUsize::new(0),
            pause_next: AtomicUsize::new(1),
        }
    }

    /// Takes the lowest transaction within the window that is worth a guess and meets nothing unfinished.
    pub(crate) fn claim(&self, prospect: impl Fn(usize) -> Prospect) -> Claim {
        loop {
            let lowest = self.lowest.load(Ordering::Acquire);
            if self.stop.load(Ordering::Acquire) || lowest.saturating_add(1) >= self.marks.len() {
                return Claim::Never;
            }
            let window = self.window.load(Ordering::Relaxed);
            let Some(at) = self.find(lowest, window, &prospect) else { return Claim::Later(lowest) };
            if self.marks[at].compare_exchange(FREE, GUESSING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Claim::Now(at);
            }
        }
    }

    /// The lowest transaction that could be claimed, at most `window` above `lowest`.
    fn find(&self, lowest: usize, window: usize, prospect: &impl Fn(usize) -> Prospect) -> Option<usize> {
        let mut occupied = Occupied([0; MARKS / 64]);
        let end = lowest.saturating_add(window).saturating_add(1).min(self.marks.len());
        for at in lowest..end {
            let mark = self.marks[at].load(Ordering::Relaxed);
            if mark == GUESSED {
                continue;
            }
            let Prospect::Guess(marks) = prospect(at) else { continue };
            if mark == FREE && at > lowest && !occupied.meets(&marks) {
                return Some(at);
            }
            occupied.add(&marks);
        }
        None
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

    /// The lane has gone on. Whoever sleeps is woken if there is something to claim in the nearer half of the
    /// window, so that waking pays; the longer there was nothing, the more seldom the lane looks.
    pub(crate) fn advance(&self, lowest: usize, prospect: impl Fn(usize) -> Prospect) {
        self.lowest.store(lowest, Ordering::Release);
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.pause.store(pause.saturating_sub(1), Ordering::Relaxed);
            return;
        }
        if *lock(&self.asleep) == 0 {
            return;
        }
        let found = self.find(lowest, self.window.load(Ordering::Relaxed).div_ceil(2), &prospect).is_some();
        let next = self.pause_next.load(Ordering::Relaxed);
        self.pause.store(if found { 0 } else { next }, Ordering::Relaxed);
        self.pause_next.store(if found { 1 } else { next.saturating_mul(2).min(PAUSE_MAX) }, Ordering::Relaxed);
        if found {
            self.moved.notify_all();
        }
    }

    /// Whether those who guess have found nothing for a while.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pause_next.load(Ordering::Relaxed) == PAUSE_MAX
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
