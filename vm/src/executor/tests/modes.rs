//! Every mode and number of threads gives one result where blocks were made to drive them apart.
//!
//! `SLUICE_LEAD_BLOCKS` sets the whole blocks per fork (default 12), `SLUICE_SEED` the seed.

use std::collections::BTreeMap;

use alloy_consensus::{SignableTransaction, Transaction as _, TxEip7702};
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, Bytes, KECCAK256_EMPTY, TxKind, U256};
use engine::types::Receipt;

use super::*;
use crate::{
    guess::{Guess, Guesser},
    testing::{
        ALICE, BOB, GWEI, PROPOSER, Queue, REVERT, STORE, World, known, send, signature,
        traffic::{
            BURNER, COUNTER, FACTORY, HOT_SLOTS, INVALID, LOOKER, OUROBOROS, Random, THREADS, TREASURY, Traffic,
            block_paying, child_init, count, created,
            delegation::{authority, authorization},
            invalid, legacy_call, sender, world,
        },
        transfer,
    },
};

fn executors(world: &World) -> [RevmExecutor; THREADS.len()] {
    THREADS.map(|threads| {
        RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_threads_from(0)
    })
}

/// Executes a block in every mode on every number of threads; gives what the plain loop makes of it.
fn check(world: &World, executors: &[RevmExecutor], block: &Block) -> Finished {
    let plain = executors[0].transactions(&world.state, block, true).unwrap();
    let list = plain.access_list.clone().unwrap();
    for (executor, threads) in executors.iter().zip(THREADS) {
        let led = executor.transactions_led(&world.state, block, true).unwrap();
        let replayed = executor.transactions_listed(&world.state, block, &list).unwrap();
        for (mode, other) in [("lead", &led), ("replay", &replayed)] {
            assert_eq!(other.receipts, plain.receipts, "{mode} on {threads} threads");
            assert_eq!(other.changes, plain.changes, "{mode} on {threads} threads");
            assert_eq!(other.gas_used, plain.gas_used, "{mode} on {threads} threads");
        }
        assert_eq!(led.access_list, plain.access_list, "{threads} threads");
    }
    plain
}

/// The lane, with guesses made at moments that the seed gives, however threads are scheduled here. Gives as well how
/// many held and failed.
fn scheduled(world: &World, executor: &RevmExecutor, block: &Block, random: &mut Random) -> (Finished, [u64; 2]) {
    let (versions, header) = (Versions::new(&world.state), block.header.inner());
    let lead = executor.lead(&world.state, header);
    let mut guesser = Guesser::new(&lead, &versions);
    let mut run = Run::open(executor.chain(), lead.codes, &world.state, header);
    run.start_record();
    run.publish_to(&versions);
    let transactions = &block.body.transactions;
    let first = versions.lowest();
    let numbers: Vec<u32> = (first..).take(transactions.len() + 1).collect();
    let mut guesses: Vec<Option<Box<Guess>>> = transactions.iter().map(|_| None).collect();
    let mut came = [0, 0];
    for (at, transaction) in transactions.iter().enumerate() {
        for _ in 0..random.below(5) {
            let ahead = at + random.below(8);
            // Nobody guesses what may be a transfer, nor anything twice.
            if guesses.get(ahead).is_some_and(Option::is_none) && !transactions[ahead].envelope().input().is_empty() {
                guesses[ahead] = guesser.guess(numbers[ahead], &transactions[ahead]).map(Box::new);
            }
        }
        let held = guesses[at].take().map(|guess| run.adopt(transaction, guess).unwrap().is_ok());
        if let Some(held) = held {
            came[usize::from(!held)] += 1;
        }
        if held != Some(true) {
            run.transact(transaction).unwrap();
        }
        versions.advance(numbers[at + 1]);
    }
    (run.close(None).unwrap(), came)
}

fn with_list(from: Address, nonce: u64, to: Address, list: Vec<SignedAuthorization>) -> Arc<Transaction> {
    let tx = TxEip7702 {
        chain_id: 7,
        nonce,
        gas_limit: 300_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to,
        authorization_list: list,
        ..TxEip7702::default()
    };
    known(tx.into_signed(signature()).into(), from)
}

fn word(value: u64) -> Bytes {
    U256::from(value).to_be_bytes_vec().into()
}

/// Sends with the nonces of one sender after the other.
#[derive(Default)]
struct Script {
    nonces: BTreeMap<Address, u64>,
    transactions: Vec<Arc<Transaction>>,
}

impl Script {
    /// An authorization that counts, or the sender's next transaction, takes a nonce.
    fn nonce(&mut self, of: Address) -> u64 {
        let nonce = self.nonces.entry(of).or_default();
        *nonce += 1;
        *nonce - 1
    }

    fn call(&mut self, from: Address, to: Address, value: u64, input: Bytes) {
        let nonce = self.nonce(from);
        self.transactions.push(send(from, nonce, TxKind::Call(to), U256::from(value), input, 100_000));
    }

    fn delegate(&mut self, from: Address, to: Address, targets: &[(usize, Address)]) {
        let nonce = self.nonce(from);
        let list = targets.iter().map(|(key, target)| authorization(*key, 7, *target, self.nonce(authority(*key))));
        let list = list.collect();
        self.transactions.push(with_list(from, nonce, to, list));
    }
}

/// What an account's slot 0 holds behind a block.
fn kept(finished: &Finished, address: Address) -> U256 {
    let change = finished.changes.accounts.get(&address).and_then(|account| account.slots.get(&U256::ZERO));
    change.map_or(U256::ZERO, |slot| slot.after)
}

fn successes(receipts: &[Receipt]) -> Vec<bool> {
    receipts.iter().map(|receipt| receipt.success).collect()
}

#[test]
fn delegations_that_change_within_a_block_are_followed_in_every_mode() {
    for fork in [Fork::Prague, Fork::Osaka] {
        let world = world(fork);
        let [a, b, c] = [0, 1, 2].map(authority);
        let mut script = Script::default();
        // Delegated, called with and without wei, delegated anew, called, taken back, paid.
        script.delegate(ALICE, BOB, &[(0, STORE)]);
        script.call(sender(1), a, 0, word(9));
        script.call(sender(2), a, 3, word(8));
        script.delegate(sender(3), a, &[(0, REVERT)]);
        script.call(sender(4), a, 0, word(7));
        script.delegate(sender(5), BOB, &[(0, Address::ZERO)]);
        script.transactions.push(transfer(BOB, 0, a, U256::from(5)));
        // A delegates to B, which is delegated to C, which is delegated to STORE: none is followed twice.
        script.delegate(ALICE, c, &[(0, b), (1, c), (2, STORE)]);
        script.call(sender(1), a, 0, word(6));
        script.call(sender(2), b, 0, word(6));
        script.call(sender(3), c, 0, word(6));
        // Who sends delegates itself, twice in one list; who is delegated sends.
        script.delegate(b, b, &[(1, REVERT), (1, TREASURY)]);
        script.call(b, a, 1, Bytes::new());
        script.transactions.push(transfer(sender(4), 1, b, U256::from(1)));
        let finished = check(&world, &executors(&world), &block_paying(&world, PROPOSER, script.transactions));
        let expected = [true, true, true, false, false, true, true, true, false, false, true, true, false, false];
        assert_eq!(successes(&finished.receipts), expected);
        assert_eq!([a, c].map(|address| kept(&finished, address)), [8, 6].map(U256::from));
        assert!(kept(&finished, b) > U256::ZERO, "TREASURY's code keeps the balance");
        assert_eq!(finished.changes.accounts[&a].after.unwrap().nonce, 4);
    }
}

#[test]
fn of_a_list_only_what_is_right_counts_and_the_fee_recipient_may_be_in_it() {
    let world = world(Fork::Osaka);
    let [a, b] = [0, 1].map(authority);
    let wrong = |key, chain_id, nonce| authorization(key, chain_id, REVERT, nonce);
    // Good ones between those with a wrong chain, a nonce that is behind, and one that is ahead.
    let list = vec![
        wrong(0, 8, 0),
        authorization(0, 0, STORE, 0),
        wrong(0, 7, 0),
        wrong(1, 7, 1),
        authorization(1, 7, TREASURY, 0),
        wrong(1, 7, 2),
    ];
    let transactions = vec![
        with_list(ALICE, 0, BOB, list),
        send(sender(0), 0, TxKind::Call(a), U256::ZERO, word(4), 100_000),
        send(sender(1), 0, TxKind::Call(b), U256::ZERO, Bytes::new(), 100_000),
        // The fee recipient's own code looks at its balance while others pay it.
        transfer(sender(2), 0, BOB, U256::from(1)),
        send(sender(3), 0, TxKind::Call(b), U256::from(6), Bytes::new(), 100_000),
        with_list(b, 1, b, vec![authorization(1, 7, Address::ZERO, 2)]),
        transfer(sender(4), 0, b, U256::from(1)),
    ];
    let executors = executors(&world);
    for beneficiary in [PROPOSER, a, b] {
        let finished = check(&world, &executors, &block_paying(&world, beneficiary, transactions.clone()));
        assert_eq!(successes(&finished.receipts), [true; 7]);
        let changed = |address: Address| finished.changes.accounts[&address].after.unwrap();
        assert_eq!((kept(&finished, a), changed(a).nonce, changed(b).nonce), (U256::from(4), 1, 3));
        assert_eq!(changed(b).code_hash, KECCAK256_EMPTY);
    }
}

/// Everybody calls, pays and ends the fee recipient while it is paid.
#[test]
fn a_fee_recipient_with_code_that_looks_ends_and_begins_is_one_in_every_mode() {
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executors = executors(&world);
        let child = created(&child_init());
        for beneficiary in [TREASURY, BURNER, OUROBOROS, FACTORY, child] {
            let mut nonces = [0; 6];
            let calls: [(Address, u64, Bytes); 13] = [
                (beneficiary, 0, word(1)),
                (LOOKER, 0, beneficiary.into_word().into()),
                (beneficiary, 2, word(1)),
                (beneficiary, 0, Bytes::new()),
                (beneficiary, 5, Bytes::new()),
                (LOOKER, 0, beneficiary.into_word().into()),
                (FACTORY, 0, child_init()),
                (beneficiary, 0, word(1)),
                (beneficiary, 0, Bytes::new()),
                (FACTORY, 0, child_init()),
                (beneficiary, 1, word(2)),
                (STORE, 0, word(3)),
                (LOOKER, 0, beneficiary.into_word().into()),
            ];
            for round in 0..3 {
                let transactions = calls.iter().enumerate().map(|(at, (to, value, input))| {
                    let who = (at + round) % 6;
                    nonces[who] += 1;
                    // Every other pays no reward where that can be.
                    let price = if at % 2 == 0 { 50 * GWEI } else { GWEI };
                    legacy_call(sender(who), nonces[who] - 1, *to, *value, input.clone(), 300_000, price)
                });
                let block = block_paying(&world, beneficiary, transactions.collect());
                let finished = check(&world, &executors, &block);
                assert!(finished.receipts.iter().any(|receipt| receipt.success));
                nonces = [0; 6];
            }
        }
    }
}

/// The last gas runs out before, at and behind every access to slots that all share.
#[test]
fn gas_that_ends_at_any_hot_slot_ends_there_in_every_mode() {
    let world = world(Fork::Osaka);
    let executors = executors(&world);
    // What a call takes while all slots are still zero: 22,100 and a little for each.
    let whole = 21_000 + 22_200 * u64::from(HOT_SLOTS);
    let gas_limits: Vec<u64> = (21_000..whole).step_by(97).collect();
    let (mut failed, mut succeeded) = (0, 0);
    for limits in gas_limits.chunks(42) {
        let mut nonces = [0; 6];
        let transactions = limits.iter().enumerate().map(|(at, limit)| {
            nonces[at % 6] += 1;
            // Now and then one gets through, so that the price of the slots changes.
            let gas_limit = if at % 14 == 13 { whole } else { *limit };
            send(sender(at % 6), nonces[at % 6] - 1, TxKind::Call(COUNTER), U256::ZERO, Bytes::new(), gas_limit)
        });
        let block = block_paying(&world, PROPOSER, transactions.collect());
        let finished = check(&world, &executors, &block);
        failed += finished.receipts.iter().filter(|receipt| !receipt.success).count();
        succeeded += finished.receipts.iter().filter(|receipt| receipt.success).count();
    }
    assert!(failed > 300 && succeeded > 100, "{failed} failed, {succeeded} did not");
}

#[test]
fn a_transaction_that_is_invalid_in_any_way_at_any_place_is_refused_in_every_mode() {
    const LENGTH: usize = 12;
    let mut random = Random::seeded("invalid anywhere");
    let world = world(Fork::Osaka);
    let executors = executors(&world);
    for way in 0..INVALID {
        let mut traffic = Traffic::new(&mut random, &world);
        let (beneficiary, valid) = (traffic.beneficiary, traffic.block(LENGTH));
        let block = block_paying(&world, beneficiary, valid.clone());
        let list = executors[0].transactions(&world.state, &block, true).unwrap().access_list.unwrap();
        for place in 0..=LENGTH {
            let mut transactions = valid.clone();
            transactions.insert(place, invalid(way));
            let block = block_paying(&world, beneficiary, transactions);
            let plain = executors[0].transactions(&world.state, &block, true).unwrap_err();
            assert!(plain.to_string().contains(&format!("transaction {place}: ")), "{way} at {place}: {plain}");
            for executor in &executors {
                assert_eq!(executor.transactions_led(&world.state, &block, true).unwrap_err(), plain);
                executor.transactions_listed(&world.state, &block, &list).unwrap_err();
            }
        }
    }
}

/// On schedules that no machine may happen to take.
#[test]
fn guesses_made_at_any_moment_leave_the_plain_loops_bits() {
    let mut random = Random::seeded("schedules");
    let mut came = [0, 0];
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executor = RevmExecutor::new(world.chain.clone());
        for number in 0..count("SLUICE_LEAD_BLOCKS", 12) {
            let mut traffic = Traffic::new(&mut random, &world);
            let length = 1 + traffic.random.below(60);
            let block = traffic.sealed(length);
            let plain = executor.transactions(&world.state, &block, true).unwrap();
            for _ in 0..4 {
                let (led, [held, failed]) = scheduled(&world, &executor, &block, &mut random);
                let what = || format!("{} block {number}", fork.name());
                assert_eq!(led.receipts, plain.receipts, "{}", what());
                assert_eq!(led.changes, plain.changes, "{}", what());
                assert_eq!(led.access_list, plain.access_list, "{}", what());
                came = [came[0] + held, came[1] + failed];
            }
        }
    }
    eprintln!("{} guesses held, {} failed", came[0], came[1]);
    assert!(came[0] > 0 && came[1] > 0, "both ways were taken");
}

/// Built on any number of threads with what is invalid in between, and followed on any.
#[test]
fn whole_blocks_are_built_and_followed_alike_in_every_mode() {
    let mut random = Random::seeded("whole blocks");
    for fork in [Fork::Shanghai, Fork::Cancun, Fork::Prague, Fork::Osaka] {
        let world = world(fork);
        let executors = executors(&world);
        for _ in 0..count("SLUICE_LEAD_BLOCKS", 12) {
            let mut traffic = Traffic::new(&mut random, &world);
            let length = 1 + traffic.random.below(40);
            let mut candidates = traffic.block(length);
            let settings = BuildSettings { beneficiary: traffic.beneficiary, ..world.settings() };
            for _ in 0..3 {
                let (place, way) = (random.below(candidates.len() + 1), random.below(INVALID));
                candidates.insert(place, invalid(way));
            }
            let build = |executor: &RevmExecutor| {
                let mut queue = Queue::of(candidates.iter().cloned());
                let time = BuildTime::UNLIMITED;
                executor.build(&world.state, &world.parent, &settings, &mut queue, &time).unwrap().0
            };
            let built = build(&executors[0]);
            let executed = executors[0].execute(&world.state, &world.parent, &built.block).unwrap();
            assert_eq!((&executed.receipts, &executed.changes), (&built.receipts, &built.changes));
            for executor in &executors {
                let led = build(executor);
                assert_eq!((&led.block, &led.receipts, &led.changes), (&built.block, &built.receipts, &built.changes));
                let list = NamedList::new(built.access_list.clone());
                let replayed = executor.replay_listed(&world.state, &world.parent, &built.block, &list).unwrap();
                assert_eq!((&replayed.receipts, &replayed.changes), (&built.receipts, &built.changes));
            }
        }
    }
}
