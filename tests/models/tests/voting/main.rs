//! The rules of voting, explored to the end: `engine/src/ordering/rules.rs` itself, by stateright.
//!
//! Four validators, one of them Byzantine with less than a third of the stake. What stake means to the rules is which
//! validators are a quorum together with the Byzantine one; [`STAKES`] has all four ways that this can be. Every test
//! prints how many states there are. `SLUICE_MODELS=wide` takes the sizes of `.ci/soak models`.
//!
//! States are told apart by a hash of 64 bits: among ten million, the odds that two share one are 1 to 370,000.

mod block;
mod mutations;
mod network;
mod properties;
mod records;
mod reductions;
mod wishes;

use std::time::Instant;

use network::{Knowledge, Network, Restarts, Setting, Timers};
use stateright::{Checker, Model};

/// Stake of three honest validators and a Byzantine one: the honest ones that are a quorum together with it are any
/// two; the first alone; the first with any other; the first with the second.
const STAKES: [([u64; 3], u64); 4] = [([1, 1, 1], 1), ([68, 33, 33], 66), ([2, 1, 1], 1), ([34, 34, 31], 1)];

/// All leaders Byzantine, everything as late as it can be.
fn setting(stakes: usize, slots: usize, window: usize) -> Setting {
    let (honest, faulty) = STAKES[stakes];
    Setting {
        honest: honest.to_vec(),
        faulty: vec![faulty],
        slots,
        window,
        leaders: Vec::new(),
        timers: Timers::Late,
        knowledge: Knowledge::EagerWithoutFinalizations,
        restarts: Restarts::Never,
        only: None,
        planted: None,
    }
}

/// Nothing left out: votes and timers one by one, certificates at any time.
fn whole(stakes: usize, slots: usize, window: usize) -> Setting {
    Setting { timers: Timers::Paced, knowledge: Knowledge::Any, ..setting(stakes, slots, window) }
}

fn is_wide() -> bool {
    std::env::var("SLUICE_MODELS").is_ok_and(|size| size == "wide")
}

/// Explores everything, prints how much that was, and fails with the way to the first state that breaks a property.
fn exhaust(name: &str, setting: Setting) {
    let began = Instant::now();
    let checker = Network::new(setting).checker().spawn_dfs().join();
    let records = checker.model().records.lock().expect("no one panicked").len();
    println!(
        "{name}: {} states, {} steps, {} deep, {records} records, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    checker.assert_properties();
}

#[test]
fn stakes_are_all_there_are() {
    let ways: Vec<_> = (0..STAKES.len()).map(|stakes| Network::new(setting(stakes, 1, 1)).deciding()).collect();
    let mut met = [0_u32; STAKES.len()];
    for code in 0..12_u64.pow(4) {
        let [one, two, three, faulty] = [0, 1, 2, 3].map(|digit| 1 + code / 12_u64.pow(digit) % 12);
        if 3 * faulty >= one + two + three + faulty {
            continue;
        }
        let orders = [
            [one, two, three],
            [one, three, two],
            [two, one, three],
            [two, three, one],
            [three, one, two],
            [three, two, one],
        ];
        let way = orders.iter().find_map(|honest| {
            let network = Network::new(Setting { honest: honest.to_vec(), faulty: vec![faulty], ..setting(0, 1, 1) });
            ways.iter().position(|way| *way == network.deciding())
        });
        met[way.unwrap_or_else(|| panic!("{one}, {two}, {three} with {faulty} is another way"))] += 1;
    }
    println!("stakes from 1 to 12, by way: {met:?}");
    assert!(met.iter().all(|count| *count > 0));
}

#[test]
fn three_slots_with_any_two() {
    exhaust("3 slots, any two decide", setting(0, 3, 1));
}

#[test]
fn three_slots_with_one_of_much_stake() {
    exhaust("3 slots, one decides", setting(1, 3, 1));
}

#[test]
fn three_slots_with_one_that_all_need() {
    exhaust("3 slots, one is always needed", setting(2, 3, 1));
}

#[test]
fn three_slots_with_two_of_much_stake() {
    exhaust("3 slots, two decide", setting(3, 3, 1));
}

#[test]
fn three_slots_in_longer_windows() {
    for window in [2, 3] {
        for stakes in 0..STAKES.len() {
            exhaust(&format!("3 slots, windows of {window}, stakes {stakes}"), setting(stakes, 3, window));
        }
    }
}

#[test]
fn finalizations_may_be_learned() {
    let slots = if is_wide() { 3 } else { 2 };
    for stakes in 0..STAKES.len() {
        let setting = Setting { knowledge: Knowledge::Eager, ..setting(stakes, slots, 1) };
        exhaust(&format!("{slots} slots, Finalizations learned, stakes {stakes}"), setting);
    }
}

#[test]
fn nothing_left_out() {
    for stakes in 0..STAKES.len() {
        exhaust(&format!("1 slot, nothing left out, stakes {stakes}"), whole(stakes, 1, 1));
    }
    exhaust("2 slots, nothing left out, window of 2", whole(0, 2, 2));
    if is_wide() {
        for stakes in 0..STAKES.len() {
            exhaust(&format!("2 slots, nothing left out, stakes {stakes}"), whole(stakes, 2, 1));
            let free = Setting { timers: Timers::Free, ..whole(stakes, 2, 1) };
            exhaust(&format!("2 slots, nothing left out, any skip, stakes {stakes}"), free);
        }
    }
}

#[test]
fn honest_leaders_get_on() {
    let led =
        |leaders: &[Option<usize>], slots, window| Setting { leaders: leaders.to_vec(), ..whole(0, slots, window) };
    exhaust("2 slots, honest leaders", led(&[Some(0), Some(1)], 2, 1));
    exhaust("2 slots, one honest window", led(&[Some(0)], 2, 2));
    if is_wide() {
        exhaust("2 slots, a Byzantine leader, then an honest one", led(&[None, Some(0)], 2, 1));
        exhaust("2 slots, an honest leader, then a Byzantine one", led(&[Some(0), None], 2, 1));
    }
}

#[test]
fn restarts_forget_nothing_that_matters() {
    for restarts in [Restarts::Log, Restarts::LogWithoutCertificates] {
        exhaust(&format!("1 slot, {restarts:?}"), Setting { restarts, ..whole(0, 1, 1) });
        if is_wide() {
            exhaust(&format!("2 slots, window of 2, {restarts:?}"), Setting { restarts, ..whole(0, 2, 2) });
        }
    }
}
