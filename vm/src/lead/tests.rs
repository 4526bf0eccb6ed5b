//! With others guessing ahead, the lane makes the plain loop's bits, on every fork and number of threads.
//!
//! `SLUICE_LEAD_BLOCKS` sets the blocks per fork (default 12), `SLUICE_SEED` the seed.

use engine::genesis::Fork;

use crate::{
    RevmExecutor, metrics,
    testing::traffic::{Random, THREADS, Traffic, block_of, count, world},
    workers::Workers,
};

#[test]
fn lead_gives_the_plain_loops_bits_on_every_fork_and_number_of_threads() {
    let mut random = Random::seeded("lead");
    let (held, failed) = (metrics::GUESS_HELD.value(), metrics::GUESS_FAILED.value());
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executors = THREADS.map(|threads| {
            (
                threads,
                RevmExecutor::new(world.chain.clone())
                    .with_workers(Workers::new(threads).unwrap())
                    .with_threads_from(0),
            )
        });
        for number in 0..count("SLUICE_LEAD_BLOCKS", 12) {
            let mut traffic = Traffic::new(&mut random, fork);
            let length = 1 + traffic.random.below(80);
            let block = block_of(&world, traffic.block(length));
            let plain = executors[0].1.transactions(&world.state, &block, true).unwrap();
            for (threads, executor) in &executors {
                let led = executor.transactions_led(&world.state, &block, true).unwrap();
                let what = || format!("{} block {number} on {threads} threads", fork.name());
                assert_eq!(led.receipts, plain.receipts, "{}", what());
                assert_eq!(led.changes, plain.changes, "{}", what());
                assert_eq!(led.access_list, plain.access_list, "{}", what());
                assert_eq!(led.gas_used, plain.gas_used, "{}", what());
            }
        }
    }
    let (held, failed) = (metrics::GUESS_HELD.value() - held, metrics::GUESS_FAILED.value() - failed);
    eprintln!("{held} guesses held, {failed} failed");
    assert!(held > 0 && failed > 0, "both ways were taken");
}

/// An invalid transaction at every place ends a block with the same words.
#[test]
fn an_invalid_transaction_is_refused_as_the_plain_loop_refuses_it() {
    let mut random = Random::seeded("invalid");
    let world = world(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(4).unwrap()).with_threads_from(0);
    for place in 0..24 {
        let mut transactions = Traffic::new(&mut random, Fork::Osaka).block(24);
        let stranger = alloy_primitives::Address::repeat_byte(0x77);
        transactions[place] = crate::testing::transfer(stranger, 5, stranger, alloy_primitives::U256::from(1));
        let block = block_of(&world, transactions);
        let plain = executor.transactions(&world.state, &block, true).unwrap_err();
        assert_eq!(executor.transactions_led(&world.state, &block, true).unwrap_err(), plain);
    }
}
