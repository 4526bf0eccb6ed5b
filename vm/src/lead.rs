//! Executing transactions in order while other threads guess ahead.
//!
//! ```text
//! lane      owns the lowest transaction that is not committed. A guess for it exists: compare everything the
//!           guess read with the state as it is, value by value, and take it over; else execute it here.
//! helpers   guess ahead, within a window, on the newest committed values
//!           +--------- committed values ---------+
//!           v                                    |
//!     helper: guess i+1, i+2 ..  --> guesses --> lane: i, i+1 ..
//! ```
//!
//! There is no validation task, no abort and no dependency: a guess that read something old is thrown away and
//! costs idle time only. Guesses that hold widen the window, guesses that fail narrow it down to nothing, so a
//! block in which everything conflicts runs as the plain loop runs it. While a helper is at the lowest
//! transaction, the lane guesses ahead itself if guesses have been holding, and else executes it without
//! waiting.
//!
//! What a guess read need not be consistent: values that are all equal to the present ones make the same
//! result, whenever they were read. The fee recipient's reward is kept out of guesses, or each would contradict
//! the one before; a guess that sees the fee recipient in another way is not taken over.
//!
//! Source: Block-STM (Gelashvili et al., 2022) for the multi-version idea; the in-order lane is our own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy_consensus::{Header, Transaction as _};
use engine::{genesis::ChainSpec, ports::StateView, types::Transaction};
use parking_lot::{Condvar, Mutex};

use crate::{
    code::CodeCache,
    error::Refusal,
    guess::{Guess, Guesser},
    metrics,
    sequential::Run,
    transfer::Transfers,
    versions::Versions,
    workers::Workers,
};

/// Transactions that guesses may be ahead of the lane, at most.
const WINDOW_MAX: usize = 64;
/// Transactions the lane commits alone, once the window has closed, before one is guessed again.
const PROBE_EVERY: usize = 32;
/// How much guesses must have held lately for the lane to guess ahead itself, out of [`TRUST_FULL`]: it loses a
/// whole transaction with one that fails, and gains one with one that holds.
const LANE_TRUST_MIN: usize = 144;
/// How much they must have held for helpers to guess, who have nothing better to do.
const HELPER_TRUST_MIN: usize = 64;
/// Every guess has held.
const TRUST_FULL: usize = 256;
/// Gas that the interpreter uses in twice the time that it takes to show a transfer to those who guess.
const PUBLISHING_GAS_WORTH: u64 = 3_000;
/// How long a helper sleeps at most before it looks at the lane again.
const NAP: Duration = Duration::from_millis(2);

/// Nobody works on it.
const FREE: u8 = 0;
/// A guess is being made.
const GUESSING: u8 = 1;
/// A guess is there.
const GUESSED: u8 = 2;
/// The lane has it.
const TAKEN: u8 = 3;

/// A block under way, and what guessing needs.
pub(crate) struct Lead<'a> {
    pub(crate) chain: &'a ChainSpec,
    pub(crate) codes: &'a CodeCache,
    pub(crate) view: &'a dyn StateView,
    pub(crate) header: &'a Header,
    pub(crate) workers: &'a Workers,
    /// Stretches of less predicted gas run on the lane alone.
    pub(crate) gas_min: u64,
}

/// What the threads on one stretch of transactions share.
struct Course<'c> {
    transactions: &'c [Arc<Transaction>],
    versions: &'c Versions<'c>,
    /// Number of the first transaction.
    base: u32,
    transfers: &'c Transfers,
    marks: Vec<AtomicU8>,
    guesses: Vec<Mutex<Option<Box<Guess>>>>,
    /// The lowest transaction that is not committed.
    lowest: AtomicUsize,
    /// The next transaction to guess.
    cursor: AtomicUsize,
    window: AtomicUsize,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    moved: Condvar,
}

impl<'c> Course<'c> {
    fn new(transactions: &'c [Arc<Transaction>], transfers: &'c Transfers, versions: &'c Versions<'c>) -> Self {
        Self {
            transactions,
            versions,
            base: versions.lowest(),
            transfers,
            marks: transactions.iter().map(|_| AtomicU8::new(FREE)).collect(),
            guesses: transactions.iter().map(|_| Mutex::new(None)).collect(),
            lowest: AtomicUsize::new(0),
            cursor: AtomicUsize::new(1),
            window: AtomicUsize::new(WINDOW_MAX),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            moved: Condvar::new(),
        }
    }

    /// Takes the next transaction within the window that is worth a guess.
    fn claim(&self) -> Claim {
        loop {
            let lowest = self.lowest.load(Ordering::Acquire);
            let next = self.cursor.load(Ordering::Relaxed).max(lowest.saturating_add(1));
            let Some(transaction) = self.transactions.get(next) else { return Claim::Never };
            if next > lowest.saturating_add(self.window.load(Ordering::Relaxed)) {
                return Claim::Later(lowest);
            }
            let seen = self.cursor.fetch_max(next.saturating_add(1), Ordering::Relaxed);
            if seen > next || self.transfers.is_plain(transaction) {
                continue;
            }
            let mark = &self.marks[next];
            if mark.compare_exchange(FREE, GUESSING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Claim::Now(next);
            }
        }
    }

    /// The number of the transaction at a place, through the whole block.
    fn number(&self, at: usize) -> u32 {
        u32::try_from(at).map_or(u32::MAX, |at| self.base.saturating_add(at))
    }

    /// Guesses the transaction at a place.
    fn guess(&self, guesser: &mut Guesser<'_>, at: usize) -> Option<Guess> {
        guesser.guess(self.number(at), &self.transactions[at])
    }

    /// Hands a guess over, unless the lane did not wait for it.
    fn deliver(&self, at: usize, guess: Option<Guess>) {
        *self.guesses[at].lock() = guess.map(Box::new);
        let mark = &self.marks[at];
        if mark.compare_exchange(GUESSING, GUESSED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            *self.guesses[at].lock() = None;
        }
    }

    /// What a helper does until there is nothing left to guess.
    fn help(&self, guesser: &mut Guesser<'_>) {
        while !self.stop.load(Ordering::Acquire) {
            match self.claim() {
                Claim::Now(at) => {
                    // The lane waits for what is being guessed, so a guess must end even if it panics; the lane then
                    // meets the same fault where it stops the node.
                    let guess = catch_unwind(AssertUnwindSafe(|| self.guess(guesser, at)));
                    let alive = guess.is_ok();
                    self.deliver(at, guess.unwrap_or_default());
                    if !alive {
                        return;
                    }
                }
                Claim::Later(lowest) => self.sleep(lowest),
                Claim::Never => return,
            }
        }
    }

    fn sleep(&self, lowest: usize) {
        let mut asleep = self.asleep.lock();
        if self.lowest.load(Ordering::Acquire) == lowest && !self.stop.load(Ordering::Acquire) {
            *asleep = asleep.saturating_add(1);
            self.moved.wait_for(&mut asleep, NAP);
            *asleep = asleep.saturating_sub(1);
        }
    }

    /// The lane has gone on; whoever sleeps has something to do if the window reaches beyond the cursor.
    fn advance(&self, lowest: usize) {
        self.versions.advance(self.number(lowest));
        self.lowest.store(lowest, Ordering::Release);
        let reach = lowest.saturating_add(self.window.load(Ordering::Relaxed));
        if self.cursor.load(Ordering::Relaxed) <= reach && *self.asleep.lock() > 0 {
            self.moved.notify_all();
        }
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        drop(self.asleep.lock());
        self.moved.notify_all();
    }
}

enum Claim {
    Now(usize),
    /// The window is full while the lane is here.
    Later(usize),
    Never,
}

/// Ends the helpers, also when the lane panics.
struct EndOnDrop<'c>(&'c Course<'c>);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The lane's side of a stretch of transactions.
pub(crate) struct Lane<'l, 'a> {
    run: &'l mut Run<'a>,
    transactions: &'l [Arc<Transaction>],
    /// `None` where nobody guesses.
    guessing: Option<(&'l Course<'l>, Guesser<'l>)>,
    trust: usize,
    alone: usize,
}

impl<'a> Lead<'a> {
    /// Walks over `transactions` with `walk`, which takes or skips each in order, while helpers guess ahead.
    pub(crate) fn walk<R>(
        &self,
        run: &mut Run<'a>,
        versions: &'a Versions<'a>,
        transactions: &[Arc<Transaction>],
        walk: impl FnOnce(&mut Lane<'_, 'a>) -> R,
    ) -> R {
        if self.workers.threads() == 1 || !self.is_worth_it(transactions) {
            return walk(&mut Lane { run, transactions, guessing: None, trust: TRUST_FULL, alone: 0 });
        }
        run.publish_to(versions);
        let transfers = Transfers::new(self.chain, self.header);
        let course = Course::new(transactions, &transfers, versions);
        let help = || course.help(&mut Guesser::new(self, versions));
        let lane = || {
            let _end = EndOnDrop(&course);
            let guessing = Some((&course, Guesser::new(self, versions)));
            walk(&mut Lane { run, transactions, guessing, trust: TRUST_FULL, alone: 0 })
        };
        self.workers.run_beside(&help, lane)
    }

    /// Whether there is enough beside transfers to wake anybody for: those the lane does faster than it can show
    /// them to others.
    fn is_worth_it(&self, transactions: &[Arc<Transaction>]) -> bool {
        let (mut gas, mut least) = (0_u64, self.gas_min);
        for transaction in transactions {
            let envelope = transaction.envelope();
            if !envelope.input().is_empty() {
                gas = gas.saturating_add(envelope.gas_limit());
            } else if self.gas_min > 0 {
                least = least.saturating_add(PUBLISHING_GAS_WORTH);
            }
        }
        gas >= least
    }
}

impl<'a> Lane<'_, 'a> {
    /// The block under way.
    pub(crate) const fn run(&self) -> &Run<'a> {
        self.run
    }

    /// Passes the transaction at this place over.
    pub(crate) fn skip(&mut self, at: usize) {
        if let Some((course, _)) = &self.guessing {
            course.marks[at].store(TAKEN, Ordering::Release);
            course.advance(at.saturating_add(1));
        }
    }

    /// Executes the transaction at this place, or leaves everything as it was.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn transact(&mut self, at: usize) -> Result<(), Refusal> {
        let transaction = &self.transactions[at];
        let guess = self.take(at);
        let done = match guess {
            None => self.run.transact(transaction).map(drop),
            Some(guess) => match self.run.adopt(transaction, *guess) {
                Ok(true) => {
                    metrics::GUESS_HELD.increment();
                    self.learn(true);
                    Ok(())
                }
                Ok(false) => {
                    metrics::GUESS_FAILED.increment();
                    self.learn(false);
                    self.run.transact(transaction).map(drop)
                }
                Err(refusal) => Err(refusal),
            },
        };
        self.probe();
        if let Some((course, _)) = &self.guessing {
            course.advance(at.saturating_add(1));
        }
        done
    }

    /// Makes the transaction the lane's, with the guess if there is one.
    fn take(&mut self, at: usize) -> Option<Box<Guess>> {
        let (course, guesser) = self.guessing.as_mut()?;
        let mark = &course.marks[at];
        loop {
            match mark.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return None,
                Err(GUESSED) => return course.guesses[at].lock().take(),
                Err(_) if self.trust < LANE_TRUST_MIN => {
                    if mark.compare_exchange(GUESSING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        return None;
                    }
                }
                // A helper is at it, and it will most likely hold: guess further ahead meanwhile.
                Err(_) => match course.claim() {
                    Claim::Now(ahead) => course.deliver(ahead, course.guess(guesser, ahead)),
                    Claim::Later(_) | Claim::Never => std::thread::yield_now(),
                },
            }
        }
    }

    /// Widens or narrows the window.
    fn learn(&mut self, held: bool) {
        if held {
            self.trust = self.trust.saturating_add((TRUST_FULL.saturating_sub(self.trust)).div_ceil(8));
        } else {
            self.trust = self.trust.saturating_sub(self.trust / 8);
            self.alone = 0;
        }
        let open = self.trust >= HELPER_TRUST_MIN;
        let window = if open { self.trust.saturating_mul(WINDOW_MAX) / TRUST_FULL } else { 0 };
        if let Some((course, _)) = &self.guessing {
            course.window.store(window, Ordering::Relaxed);
        }
    }

    /// With the window closed, lets something be guessed now and then: the block may have changed its nature.
    fn probe(&mut self) {
        let Some((course, _)) = &self.guessing else { return };
        if course.window.load(Ordering::Relaxed) == 0 {
            self.alone = self.alone.saturating_add(1);
            if self.alone >= PROBE_EVERY {
                self.alone = 0;
                course.window.store(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
