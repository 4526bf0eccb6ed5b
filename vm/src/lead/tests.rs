//! With others guessing ahead, the lane makes the plain loop's bits, on every fork and number of threads.
//!
//! `SLUICE_LEAD_BLOCKS` sets the blocks per fork (default 12), `SLUICE_SEED` the seed.

use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use engine::genesis::{Fork, GenesisAccount};

use crate::{
    RevmExecutor,
    guess::Guesser,
    metrics,
    sequential::Run,
    testing::{
        ALICE, BOB, ENV, ETHER, World, send,
        traffic::{Random, THREADS, Traffic, block_of, count, world},
    },
    versions::Versions,
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
            let mut traffic = Traffic::new(&mut random, &world);
            let length = 1 + traffic.random.below(80);
            let block = traffic.sealed(length);
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
        let mut transactions = Traffic::new(&mut random, &world).block(24);
        let stranger = Address::repeat_byte(0x77);
        transactions[place] = crate::testing::transfer(stranger, 5, stranger, U256::from(1));
        let block = block_of(&world, transactions);
        let plain = executor.transactions(&world.state, &block, true).unwrap_err();
        assert_eq!(executor.transactions_led(&world.state, &block, true).unwrap_err(), plain);
    }
}

/// With input it sets its slot 0; without, it pays ENV one wei if that slot is zero.
fn payer() -> Bytes {
    let pay = [&hex!("5f5f5f5f600173")[..], ENV.as_slice(), &hex!("5af100")[..]].concat();
    [&hex!("366029575f54602757")[..], &pay, &hex!("5b00"), &hex!("5b60015f5500")].concat().into()
}

/// A guess that read what another guess left, and what never came about, leaves the account as it is.
#[test]
fn a_balance_that_only_a_failed_guess_left_does_not_reach_the_block() {
    let (payer_address, looker) = (Address::repeat_byte(0x91), Address::repeat_byte(0x92));
    let looks: Bytes = [&[0x73][..], ENV.as_slice(), &hex!("3b5000")].concat().into();
    let contract = |code| GenesisAccount { nonce: 1, balance: U256::from(5), code, ..GenesisAccount::default() };
    let rich = || GenesisAccount { balance: ETHER, ..GenesisAccount::default() };
    let (carol, dave) = (Address::repeat_byte(0x93), Address::repeat_byte(0x94));
    let more = [(payer_address, contract(payer())), (looker, contract(looks)), (carol, rich()), (dave, rich())];
    let world = World::with(Fork::Osaka, more);
    let call = |from, to, value: u64, input: &'static [u8]| {
        send(from, 0, TxKind::Call(to), U256::from(value), Bytes::from_static(input), 100_000)
    };
    let block = block_of(
        &world,
        vec![
            call(ALICE, payer_address, 0, &[1]),
            call(BOB, payer_address, 0, &[]),
            call(carol, looker, 0, &[1]),
            call(dave, ENV, 1, &[1]),
        ],
    );
    let executor = RevmExecutor::new(world.chain.clone());
    let plain = executor.transactions(&world.state, &block, true).unwrap();
    let (versions, header) = (Versions::new(&world.state), block.header.inner());
    let lead = executor.lead(&world.state, header);
    let mut guesser = Guesser::new(&lead, &versions);
    let mut run = Run::open(executor.chain(), lead.codes, &world.state, header);
    run.start_record();
    run.publish_to(&versions);
    let transactions = &block.body.transactions;
    let [paid, looked] = [1, 2].map(|at| Box::new(guesser.guess(at + 1, &transactions[at as usize]).unwrap()));
    assert!(looked.reads.accounts.iter().any(|(_, account)| account.is_some_and(|it| it.balance == U256::from(1))));
    run.transact(&transactions[0]).unwrap();
    assert!(run.adopt(&transactions[1], paid).unwrap().is_err(), "its slot has changed");
    run.transact(&transactions[1]).unwrap();
    run.adopt(&transactions[2], looked).unwrap().unwrap();
    run.transact(&transactions[3]).unwrap();
    let led = run.close(None).unwrap();
    assert_eq!((led.receipts, led.changes, led.access_list), (plain.receipts, plain.changes, plain.access_list));
}
