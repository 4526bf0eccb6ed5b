//! What is simulated and what is learned of it; that no hint, right or wrong, changes what is built.
//!
//! `SLUICE_HINT_BLOCKS` sets the blocks per fork (default 6), `SLUICE_SEED` the seed.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use alloy_primitives::{TxKind, bytes};
use engine::{
    genesis::{Fork, GenesisAccount},
    ports::{BuildTime, Executor as _},
};

use super::*;
use crate::{
    RevmExecutor,
    lead::patterns::{MARKS, Mark, mark},
    testing::{
        ALICE, BOB, ETHER, LOOP, Queue, STORE, World, send,
        traffic::{Random, Traffic, count, world},
        transfer,
    },
    workers::Workers,
};

const CAROL: Address = Address::repeat_byte(0xca);
const DAVE: Address = Address::repeat_byte(0xda);
/// Sets the slot that bears the caller's address.
const OWN: Address = Address::repeat_byte(0x0e);
const UNLIMITED: HintLimits<'static> = HintLimits { gas_max: u64::MAX, is_over: &|| false };

fn four_senders() -> World {
    let rich = || GenesisAccount { balance: ETHER, ..GenesisAccount::default() };
    let own = GenesisAccount { nonce: 1, code: bytes!("6001335500"), ..GenesisAccount::default() };
    World::with(Fork::Osaka, [(CAROL, rich()), (DAVE, rich()), (OWN, own)])
}

fn executor(world: &World, threads: usize) -> RevmExecutor {
    RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_threads_from(0)
}

/// Calls a contract with one word; the first four bytes are the function.
fn call(sender: Address, to: Address, word: U256) -> Arc<Transaction> {
    // The nonce is wrong: others of the same sender wait before it.
    send(sender, 3, TxKind::Call(to), U256::ZERO, word.to_be_bytes_vec().into(), 100_000)
}

/// Shows a transaction to the executor as the pipeline does; tells whether it was simulated.
fn show(world: &World, executor: &RevmExecutor, transaction: &Transaction) -> bool {
    let wanted = executor.wants_hint(transaction);
    if wanted {
        executor.hint(&world.state, &world.parent, transaction, &UNLIMITED);
    }
    wanted
}

/// The marks that a transaction would have in the next block.
fn marks(world: &World, executor: &RevmExecutor, transaction: &Transaction) -> Vec<Mark> {
    let lead = executor.lead(&world.state, world.parent.inner());
    let marks = lead.patterns.of(std::iter::once(transaction)).marks(0);
    marks.into_iter().filter(|mark| *mark != 0).collect()
}

#[test]
fn a_kind_is_simulated_a_few_times_for_senders_in_turn() {
    let world = four_senders();
    let two = executor(&world, 2);
    let seen = |sender| show(&world, &two, &call(sender, STORE, U256::from(9)));
    assert!(!seen(ALICE), "what is seen once meets nobody");
    assert!(!seen(ALICE), "nor does one sender meet itself");
    assert_eq!([BOB, BOB, ALICE, CAROL, DAVE, ALICE].map(seen), [true, false, true, true, false, false]);
    assert!(![ALICE, BOB].map(|sender| show(&world, &two, &transfer(sender, 0, STORE, U256::from(1)))).contains(&true));
    let alone = executor(&world, 1);
    let shown = [ALICE, BOB, CAROL].map(|sender| show(&world, &alone, &call(sender, STORE, U256::from(9))));
    assert_eq!(shown, [false; 3], "where nobody guesses");
}

#[test]
fn a_place_that_two_senders_change_is_known_before_the_first_block() {
    let world = four_senders();
    let executor = executor(&world, 2);
    let store = |sender, word| call(sender, STORE, word);
    let (nine, other) = (U256::from(9), U256::from(7) << 224);
    let _ = [ALICE, BOB].map(|sender| show(&world, &executor, &store(sender, nine)));
    assert!(marks(&world, &executor, &store(DAVE, nine)).is_empty(), "one alone says nothing");
    show(&world, &executor, &store(CAROL, nine));
    let slot = vec![mark(STORE, U256::ZERO)];
    assert_eq!(marks(&world, &executor, &store(DAVE, nine)), slot);
    assert!(marks(&world, &executor, &store(DAVE, other)).is_empty(), "a kind of its own");
    let _ = [ALICE, BOB].map(|sender| show(&world, &executor, &store(sender, other)));
    assert_eq!(marks(&world, &executor, &store(DAVE, other)), slot, "the place is known from the other kind");
}

#[test]
fn what_is_not_changed_or_only_by_one_sender_is_no_meeting_place() {
    let world = four_senders();
    let executor = executor(&world, 2);
    for (to, word) in [(STORE, U256::ZERO), (OWN, U256::from(1))] {
        let shown = [ALICE, BOB, CAROL, DAVE].map(|sender| show(&world, &executor, &call(sender, to, word)));
        assert_eq!(shown, [false, true, true, true]);
        assert!(marks(&world, &executor, &call(ALICE, to, word)).is_empty(), "{to}");
    }
}

/// How often the time was looked at until a loop without end was cut.
fn looks(gas_max: u64, over_at: u32) -> u32 {
    let world = World::new(Fork::Osaka);
    let transaction = send(ALICE, 0, TxKind::Call(LOOP), U256::ZERO, Bytes::from_static(&[1; 4]), 16_000_000);
    let looks = AtomicU32::new(0);
    let is_over = || looks.fetch_add(1, Ordering::Relaxed) + 1 >= over_at;
    let limits = HintLimits { gas_max, is_over: &is_over };
    executor(&world, 2).hint(&world.state, &world.parent, &transaction, &limits);
    looks.into_inner()
}

#[test]
fn a_loop_without_end_is_cut_by_gas_and_by_time() {
    // 11 gas for 3 steps.
    let whole = looks(u64::MAX, u32::MAX);
    assert!(whole > 4_000, "{whole}");
    let by_gas = looks(50_000, u32::MAX);
    assert!((5..30).contains(&by_gas), "{by_gas}");
    let by_time = looks(u64::MAX, 20);
    assert!((20..24).contains(&by_time), "{by_time}");
    assert_eq!(looks(20_000, u32::MAX), 0, "not even what a transaction costs");
}

/// Reads that wait for a disk cannot be interrupted, so none begins when the time is over.
#[test]
fn nothing_is_read_once_the_time_is_over() {
    let world = World::new(Fork::Osaka);
    let limits = HintLimits { gas_max: u64::MAX, is_over: &|| true };
    let timed = Timed { view: &world.state, is_over: limits.is_over };
    assert!(timed.account(ALICE).is_err() && timed.slot(STORE, U256::ZERO).is_err() && timed.code(B256::ZERO).is_err());
    let codes = CodeCache::default();
    let transaction = call(ALICE, STORE, U256::from(9));
    assert!(simulate(&world.chain, &codes, &world.state, world.parent.inner(), &transaction, &limits).is_none());
}

/// Everything that waits is shown, and patterns are made up besides: what is executed stays what it is.
#[test]
fn hints_right_or_wrong_change_no_bit_of_a_block() {
    let mut random = Random::seeded("hints");
    for fork in [Fork::Berlin, Fork::Cancun, Fork::Osaka] {
        let world = world(fork);
        let plain = RevmExecutor::new(world.chain.clone());
        let hinted = [2, 4].map(|threads| executor(&world, threads));
        for number in 0..count("SLUICE_HINT_BLOCKS", 6) {
            let mut traffic = Traffic::new(&mut random, &world);
            let length = 1 + traffic.random.below(80);
            let block = traffic.sealed(length);
            let expected = plain.transactions(&world.state, &block, true).unwrap();
            for executor in &hinted {
                let lead = executor.lead(&world.state, block.header.inner());
                for transaction in &block.body.transactions {
                    let limits = HintLimits { gas_max: 200_000, ..UNLIMITED };
                    executor.hint(&world.state, &world.parent, transaction, &limits);
                    if let Some(kind) = kind(transaction) {
                        let made_up = (0..random.below(4)).map(|_| 1 + random.below(8.min(MARKS - 1)));
                        let made_up: Vec<_> = made_up.map(|mark| Mark::try_from(mark).unwrap()).collect();
                        lead.patterns.add(kind, &made_up);
                    }
                }
                let led = executor.transactions_led(&world.state, &block, true).unwrap();
                let what = format!("{} block {number}", fork.name());
                assert_eq!(led.receipts, expected.receipts, "{what}");
                assert_eq!(led.changes, expected.changes, "{what}");
                assert_eq!(led.access_list, expected.access_list, "{what}");
            }
        }
    }
}

#[test]
fn a_block_that_is_built_with_hints_is_the_one_that_is_built_without() {
    let world = four_senders();
    let executors = [executor(&world, 1), executor(&world, 2), executor(&world, 2)];
    let block = |executor: &RevmExecutor| {
        let senders = [ALICE, BOB, CAROL, DAVE];
        let waiting = senders.map(|from| {
            send(from, 0, TxKind::Call(STORE), U256::ZERO, U256::from(9).to_be_bytes_vec().into(), 100_000)
        });
        let mut queue = Queue::of(waiting);
        let settings = world.settings();
        executor.build(&world.state, &world.parent, &settings, &mut queue, &BuildTime::UNLIMITED).unwrap().0.block
    };
    for sender in [ALICE, BOB, CAROL, DAVE] {
        show(&world, &executors[2], &call(sender, STORE, U256::from(9)));
    }
    assert!(!marks(&world, &executors[2], &call(ALICE, STORE, U256::from(9))).is_empty());
    let [plain, unhinted, hinted] = [0, 1, 2].map(|at| block(&executors[at]));
    assert_eq!((&plain, &plain), (&unhinted, &hinted));
    assert_eq!(plain.body.transactions.len(), 4);
}
