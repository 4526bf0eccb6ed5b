//! A reader of a place finds one value whole, never a mix, and never one that was not there for it.

#[path = "../../../vm/src/versions/cell.rs"]
#[allow(dead_code, unreachable_pub, reason = "the model uses a part of it")]
mod cell;

/// loom's in place of the machine's.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::Arc;

use cell::Cell;
use loom::{model::Builder, thread};

/// Explores all schedules with at most this many preemptions.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Two words that belong together.
const fn pair(value: u64) -> [u64; 2] {
    [value, value * 100]
}

#[test]
fn a_committed_value_is_read_whole_while_the_lane_commits() {
    check(3, || {
        let cell = Arc::new(Cell::new(pair(1)));
        let lane = {
            let cell = cell.clone();
            thread::spawn(move || {
                for value in 2..4 {
                    cell.commit(pair(value));
                }
            })
        };
        let seen = cell.committed();
        assert!((1..4).any(|value| seen == pair(value)), "{seen:?}");
        let again = cell.committed();
        assert!(again[0] >= seen[0], "values do not go back");
        lane.join().unwrap();
        assert_eq!(cell.committed(), pair(3));
    });
}

#[test]
fn a_guessed_value_is_read_whole_while_its_writer_replaces_it() {
    check(3, || {
        let cell = Arc::new(Cell::new(pair(1)));
        cell.guess(5, 1, pair(2));
        let writer = {
            let cell = cell.clone();
            thread::spawn(move || {
                cell.guess(5, 1, pair(3));
                cell.guess(5, 1, pair(4));
            })
        };
        // While the version is being replaced the committed one stands in.
        let seen = cell.read(6, 1);
        assert!((1..5).any(|value| seen == pair(value)), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(cell.read(6, 1), pair(4));
    });
}

#[test]
fn two_guesses_at_once_never_mix_and_the_lane_is_never_in_their_way() {
    check(2, || {
        let cell = Arc::new(Cell::new(pair(1)));
        let writers: Vec<_> = [5, 6]
            .map(|number| {
                let cell = cell.clone();
                thread::spawn(move || cell.guess(number, 1, pair(u64::from(number))))
            })
            .into();
        cell.commit(pair(9));
        for writer in writers {
            writer.join().unwrap();
        }
        // Who meets another at the same version gives up: one of both is there, or both.
        let seen = [cell.read(7, 1), cell.read(6, 1)];
        assert!([pair(5), pair(6)].contains(&seen[0]), "{seen:?}");
        assert!([pair(5), pair(9)].contains(&seen[1]), "{seen:?}");
        assert_eq!(cell.committed(), pair(9));
        assert_eq!(cell.read(5, 1), pair(9), "nobody sees a guess of its own or of later ones");
    });
}
