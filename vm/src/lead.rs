//! Executing transactions in order while other threads guess ahead.
//!
//! ```text
//! lane      owns the lowest transaction that is not committed. A guess for it exists: compare everything the
//!           guess read with the state as it is, value by value, and take it over; else execute it here.
//! helpers   guess ahead, within a window, on the newest values there are
//!           +------ committed and guessed values ------+
//!           v                                          |
//!     helper: guess i+1, i+2 ..  -----> guesses -----> lane: i, i+1 ..
//! ```
//!
//! There is no validation task, no abort and no dependency: a guess that read something old is thrown away and
//! costs idle time only. Guesses that hold widen the window, guesses that fail narrow it down to nothing, so a
//! block in which everything conflicts runs as the plain loop runs it. While a helper is at the lowest
//! transaction, the lane guesses ahead itself if guesses have been holding, and else executes it without
//! waiting.
//!
//! Guesses see what guesses before them would leave (`versions`), so a chain that one helper follows holds
//! together. What is paid to and from an account commutes with what others pay, as long as nobody looks at the
//! balance and it never falls short; so does the fee recipient's reward.
//!
//! Source: Block-STM (Gelashvili et al., 2022) for the multi-version idea; the in-order lane is our own.

mod course;
pub(crate) mod patterns;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use alloy_consensus::{Header, Transaction as _};
use engine::{genesis::ChainSpec, ports::StateView, types::Transaction};

use self::{
    course::{Claim, Course, Prospect, Taken},
    patterns::{Known, Patterns, mark},
};
use crate::{
    code::CodeCache,
    error::Refusal,
    guess::{Guess, Guesser},
    metrics,
    sequential::Run,
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

/// A block under way, and what guessing needs.
pub(crate) struct Lead<'a> {
    pub(crate) chain: &'a ChainSpec,
    pub(crate) codes: &'a CodeCache,
    pub(crate) view: &'a dyn StateView,
    pub(crate) header: &'a Header,
    pub(crate) workers: &'a Workers,
    pub(crate) patterns: &'a Patterns,
    /// Stretches of less predicted gas run on the lane alone.
    pub(crate) gas_min: u64,
}

/// Whether it most likely is a transfer, which the lane does faster than it can take a guess over.
fn is_transfer(transaction: &Transaction) -> bool {
    transaction.envelope().input().is_empty() && transaction.envelope().to().is_some()
}

/// A stretch of transactions, as those who guess see it.
struct Stretch<'s> {
    transactions: &'s [Arc<Transaction>],
    versions: &'s Versions<'s>,
    /// Number of the first transaction.
    base: u32,
    known: Known,
    course: Course<Guess>,
}

impl Stretch<'_> {
    /// The number of the transaction at a place, through the whole block.
    fn number(&self, at: usize) -> u32 {
        u32::try_from(at).map_or(u32::MAX, |at| self.base.saturating_add(at))
    }

    fn prospect(&self, at: usize) -> Prospect {
        if is_transfer(&self.transactions[at]) { Prospect::Skip } else { Prospect::Guess(self.known.marks(at)) }
    }

    /// Takes the next transaction that is more than a transfer and in nobody's way.
    fn claim(&self) -> Claim {
        self.course.claim(|at| self.prospect(at))
    }

    /// Guesses the transaction at a place.
    fn guess(&self, guesser: &mut Guesser<'_>, at: usize) -> Option<Box<Guess>> {
        let guess = guesser.guess(self.number(at), &self.transactions[at])?;
        self.learn(at, &guess);
        Some(Box::new(guess))
    }

    /// Remembers which hot places a transaction touches.
    fn learn(&self, at: usize, guess: &Guess) {
        let places = guess.reads.hot.iter().filter_map(|number| self.versions.slot(*number).ok());
        let marks = places.filter_map(|slot| Some(mark(self.versions.account(slot.account).ok()?.address, slot.key)));
        self.known.learn(at, marks);
    }

    /// What a helper does until there is nothing left to guess.
    fn help(&self, guesser: &mut Guesser<'_>) {
        loop {
            match self.claim() {
                Claim::Now(at) => {
                    // The lane waits for what is being guessed, so a guess must end even if it panics; the lane then
                    // meets the same fault where it stops the node.
                    let guess = catch_unwind(AssertUnwindSafe(|| self.guess(guesser, at)));
                    let alive = guess.is_ok();
                    self.course.deliver(at, guess.unwrap_or_default());
                    if !alive {
                        return;
                    }
                }
                Claim::Later(lowest) => self.course.sleep(lowest),
                Claim::Never => return,
            }
        }
    }

    /// Everything below `lowest` is committed.
    fn advance(&self, lowest: usize) {
        self.versions.advance(self.number(lowest));
        self.course.advance(lowest, |at| self.prospect(at));
    }
}

/// Ends the helpers, also when the lane panics.
struct EndOnDrop<'c>(&'c Course<Guess>);

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
    guessing: Option<(&'l Stretch<'l>, Guesser<'l>)>,
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
        run.reserve(transactions.len());
        if self.workers.threads() == 1 {
            return walk(&mut Lane::alone(run, transactions));
        }
        run.publish_to(versions);
        run.set_quiet(true);
        if !self.is_worth_it(transactions) {
            return walk(&mut Lane::alone(run, transactions));
        }
        let stretch = Stretch {
            transactions,
            versions,
            base: versions.lowest(),
            known: self.patterns.of(transactions.iter().map(|transaction| &**transaction)),
            course: Course::new(transactions.len(), WINDOW_MAX),
        };
        let help = || stretch.help(&mut Guesser::new(self, versions));
        let lane = || {
            let _end = EndOnDrop(&stretch.course);
            let guessing = Some((&stretch, Guesser::new(self, versions)));
            walk(&mut Lane { run, transactions, guessing, trust: TRUST_FULL, alone: 0 })
        };
        let done = self.workers.run_beside(&help, lane);
        self.patterns.remember(&stretch.known);
        done
    }

    /// Whether there is enough beside transfers to wake anybody for: those the lane does faster than it can show
    /// them to others.
    fn is_worth_it(&self, transactions: &[Arc<Transaction>]) -> bool {
        let (mut gas, mut least) = (0_u64, self.gas_min);
        for transaction in transactions {
            if !is_transfer(transaction) {
                gas = gas.saturating_add(transaction.envelope().gas_limit());
            } else if self.gas_min > 0 {
                least = least.saturating_add(PUBLISHING_GAS_WORTH);
            }
        }
        gas >= least
    }
}

impl<'l, 'a> Lane<'l, 'a> {
    /// Without anybody who guesses.
    const fn alone(run: &'l mut Run<'a>, transactions: &'l [Arc<Transaction>]) -> Self {
        Self { run, transactions, guessing: None, trust: TRUST_FULL, alone: 0 }
    }

    /// The block under way.
    pub(crate) const fn run(&self) -> &Run<'a> {
        self.run
    }

    /// Passes the transaction at this place over.
    pub(crate) fn skip(&mut self, at: usize) {
        if let Some((stretch, _)) = &self.guessing {
            drop(stretch.course.take(at, false));
            stretch.advance(at.saturating_add(1));
        }
    }

    /// Executes the transaction at this place, or leaves everything as it was.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn transact(&mut self, at: usize) -> Result<(), Refusal> {
        let transaction = &self.transactions[at];
        let guess = self.take(at);
        if let Some((stretch, _)) = &self.guessing {
            self.run.set_quiet(stretch.course.is_quiet());
        }
        let done = match guess {
            None => self.run.transact(transaction).map(drop),
            Some(guess) => match self.run.adopt(transaction, guess) {
                Ok(Ok(())) => {
                    metrics::GUESS_HELD.increment();
                    self.learn(true);
                    Ok(())
                }
                Ok(Err(guess)) => {
                    metrics::GUESS_FAILED.increment();
                    if let Some((stretch, _)) = &self.guessing {
                        stretch.learn(at, &guess);
                    }
                    self.learn(false);
                    self.run.transact(transaction).map(drop)
                }
                Err(refusal) => Err(refusal),
            },
        };
        self.probe();
        if let Some((stretch, _)) = &self.guessing {
            stretch.advance(at.saturating_add(1));
        }
        done
    }

    /// Makes the transaction the lane's, with the guess if there is one.
    fn take(&mut self, at: usize) -> Option<Box<Guess>> {
        let (stretch, guesser) = self.guessing.as_mut()?;
        let wait = self.trust >= LANE_TRUST_MIN;
        loop {
            match stretch.course.take(at, wait) {
                Taken::Unguessed => return None,
                Taken::Guessed(guess) => return Some(guess),
                // It will most likely hold: guess further ahead meanwhile.
                Taken::UnderWay => match stretch.claim() {
                    Claim::Now(ahead) => stretch.course.deliver(ahead, stretch.guess(guesser, ahead)),
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
        if let Some((stretch, _)) = &self.guessing {
            stretch.course.set_window(window);
        }
    }

    /// With the window closed, lets something be guessed now and then: the block may have changed its nature.
    fn probe(&mut self) {
        let Some((stretch, _)) = &self.guessing else { return };
        if stretch.course.is_closed() {
            self.alone = self.alone.saturating_add(1);
            if self.alone >= PROBE_EVERY {
                self.alone = 0;
                stretch.course.set_window(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
