//! The lane takes every transaction in order, gets guesses whole, and nobody sleeps for ever.

#[path = "../../../vm/src/lead/course.rs"]
#[allow(dead_code, unreachable_pub, reason = "the model uses a part of it")]
mod course;

/// shuttle's in place of the machine's.
mod sync {
    pub(crate) use shuttle::sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    };
}

use std::sync::Arc;

use course::{Claim, Course, Taken};
use shuttle::{rand::Rng as _, sync::atomic::AtomicUsize, sync::atomic::Ordering, thread};

const TRANSACTIONS: usize = 5;
const WINDOW: usize = 3;

fn schedules() -> usize {
    std::env::var("SLUICE_SCHEDULES").map_or(20_000, |text| text.parse().unwrap())
}

/// What a helper does; a guess is the number of its transaction, and sometimes nothing can be said.
fn help(course: &Course<usize>, guessed: &AtomicUsize) {
    loop {
        match course.claim(|at| at != 3) {
            Claim::Now(at) => {
                assert_ne!(at, 3, "what is not worth it is not claimed");
                guessed.fetch_add(1 << (8 * at), Ordering::SeqCst);
                course.deliver(at, shuttle::rand::thread_rng().gen_bool(0.8).then(|| Box::new(at)));
            }
            Claim::Later(lowest) => course.sleep(lowest),
            Claim::Never => return,
        }
    }
}

/// What the lane does, now waiting, now not, with the window opening and closing.
fn walk(course: &Course<usize>, guessed: &AtomicUsize) {
    for at in 0..TRANSACTIONS {
        let mut random = shuttle::rand::thread_rng();
        let wait = random.gen_bool(0.5);
        loop {
            match course.take(at, wait) {
                Taken::Guessed(guess) => {
                    assert_eq!(*guess, at);
                    break;
                }
                Taken::Unguessed => break,
                Taken::UnderWay => match course.claim(|at| at != 3) {
                    Claim::Now(ahead) => {
                        guessed.fetch_add(1 << (8 * ahead), Ordering::SeqCst);
                        course.deliver(ahead, Some(Box::new(ahead)));
                    }
                    _ => thread::yield_now(),
                },
            }
        }
        assert!(matches!(course.take(at, true), Taken::Unguessed), "a transaction is taken once");
        course.set_window(random.gen_range(0..=WINDOW));
        course.advance(at + 1);
    }
    course.end();
}

fn model() {
    let course = Arc::new(Course::new(TRANSACTIONS, WINDOW));
    let guessed = Arc::new(AtomicUsize::new(0));
    let helpers: Vec<_> = (0..2)
        .map(|_| {
            let (course, guessed) = (course.clone(), guessed.clone());
            thread::spawn(move || help(&course, &guessed))
        })
        .collect();
    walk(&course, &guessed);
    for helper in helpers {
        helper.join().unwrap();
    }
    let guessed = guessed.load(Ordering::SeqCst);
    assert!((0..TRANSACTIONS).all(|at| (guessed >> (8 * at)) & 0xff <= 1), "a transaction is guessed once");
}

#[test]
fn every_transaction_is_taken_and_everybody_comes_home_on_random_schedules() {
    shuttle::check_random(model, schedules());
}

#[test]
fn every_transaction_is_taken_and_everybody_comes_home_on_priority_schedules() {
    shuttle::check_pct(model, schedules(), 3);
}
