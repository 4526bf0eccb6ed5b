//! The lane takes every transaction in order, gets guesses whole, and nobody sleeps for ever.

#[path = "../../../vm/src/lead/course.rs"]
#[allow(dead_code, unreachable_pub, reason = "the model uses a part of it")]
mod course;

/// As in `vm/src/lead/patterns.rs`.
mod patterns {
    pub(crate) const PLACES_MAX: usize = 8;
    pub(crate) const MARKS: usize = 4_096;
}

/// shuttle's in place of the machine's.
mod sync {
    pub(crate) use shuttle::sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    };
}

use std::sync::Arc;

use course::{Claim, Course, Prospect, Taken};
use shuttle::{rand::Rng as _, sync::atomic::AtomicUsize, sync::atomic::Ordering, thread};

const TRANSACTIONS: usize = 5;
const WINDOW: usize = 3;

/// Transaction 3 is not worth a guess; 1 and 4 meet each other.
fn prospect(at: usize) -> Prospect {
    let mark = |mark| Prospect::Guess([mark, 0, 0, 0, 0, 0, 0, 0]);
    match at {
        3 => Prospect::Skip,
        1 | 4 => mark(9),
        _ => mark(0),
    }
}

fn schedules() -> usize {
    std::env::var("SLUICE_SCHEDULES").map_or(20_000, |text| text.parse().unwrap())
}

/// What happened to the transactions, one bit each.
#[derive(Default)]
struct Seen {
    claimed: AtomicUsize,
    /// Executed by somebody and not finished.
    under_way: AtomicUsize,
    /// The lane is through with those below; who still guesses one does it in vain.
    committed: AtomicUsize,
}

impl Seen {
    /// Somebody claimed a transaction and guesses it; sometimes nothing can be said.
    fn guess(&self, course: &Course<usize>, at: usize) {
        assert_ne!(at, 3, "what is not worth it is not claimed");
        assert_eq!(self.claimed.fetch_or(1 << at, Ordering::SeqCst) >> at & 1, 0, "a transaction is guessed once");
        self.begin(at);
        thread::yield_now();
        self.end(at);
        course.deliver(at, shuttle::rand::thread_rng().gen_bool(0.8).then(|| Box::new(at)));
    }

    fn begin(&self, at: usize) {
        let others = self.under_way.fetch_or(1 << at, Ordering::SeqCst);
        let apart = others >> 1 & 1 == 0 || self.committed.load(Ordering::SeqCst) > 1;
        assert!(at != 4 || apart, "what meets is not executed at once");
    }

    fn end(&self, at: usize) {
        self.under_way.fetch_and(!(1 << at), Ordering::SeqCst);
    }
}

fn help(course: &Course<usize>, seen: &Seen) {
    loop {
        match course.claim(prospect) {
            Claim::Now(at) => seen.guess(course, at),
            Claim::Later(lowest) => course.sleep(lowest),
            Claim::Never => return,
        }
    }
}

/// What the lane does, now waiting, now not, with the window opening and closing.
fn walk(course: &Course<usize>, seen: &Seen) {
    for at in 0..TRANSACTIONS {
        let mut random = shuttle::rand::thread_rng();
        let wait = random.gen_bool(0.5);
        loop {
            match course.take(at, wait) {
                Taken::Guessed(guess) => {
                    assert_eq!(*guess, at);
                    break;
                }
                // Where a helper was at it, others may already go by what it found, or found nothing to say.
                Taken::Unguessed if seen.claimed.load(Ordering::SeqCst) >> at & 1 == 0 => {
                    seen.begin(at);
                    seen.end(at);
                    break;
                }
                Taken::Unguessed => break,
                Taken::UnderWay => match course.claim(prospect) {
                    Claim::Now(ahead) => seen.guess(course, ahead),
                    _ => thread::yield_now(),
                },
            }
        }
        assert!(matches!(course.take(at, true), Taken::Unguessed), "a transaction is taken once");
        seen.committed.store(at + 1, Ordering::SeqCst);
        course.set_window(random.gen_range(0..=WINDOW));
        course.advance(at + 1, prospect);
    }
    course.end();
}

fn model() {
    let course = Arc::new(Course::new(TRANSACTIONS, WINDOW));
    let seen = Arc::new(Seen::default());
    let helpers: Vec<_> = (0..2)
        .map(|_| {
            let (course, seen) = (course.clone(), seen.clone());
            thread::spawn(move || help(&course, &seen))
        })
        .collect();
    walk(&course, &seen);
    for helper in helpers {
        helper.join().unwrap();
    }
}

#[test]
fn every_transaction_is_taken_and_everybody_comes_home_on_random_schedules() {
    shuttle::check_random(model, schedules());
}

#[test]
fn every_transaction_is_taken_and_everybody_comes_home_on_priority_schedules() {
    shuttle::check_pct(model, schedules(), 3);
}
