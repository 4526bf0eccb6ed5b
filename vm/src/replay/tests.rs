//! Replay gives the plain loop's bits on any number of threads, and refuses every list but the block's own.
//!
//! `SLUICE_REPLAY_BLOCKS` sets the blocks per fork (default 12), `SLUICE_TAMPERED` the tampered lists (default
//! 4,000), `SLUICE_SEED` the seed.

use std::sync::Arc;

use alloy_primitives::{Bytes, TxKind, U256};
use engine::{
    genesis::GenesisAccount,
    ports::{BuildSettings, BuildTime, Executor as _},
    types::{
        ExecutedBlock, NamedList,
        access_list::{AccountChanges, Wipe},
    },
};

use super::*;
use crate::{
    RevmExecutor,
    testing::{
        BOB, ETHER, Queue, World, send,
        tamper::tamper,
        traffic::{Random, THREADS, Traffic, block_of, count, world},
    },
};

fn executor(world: &World, threads: usize) -> RevmExecutor {
    RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_threads_from(0)
}

#[test]
fn replay_gives_the_plain_loops_bits_on_every_fork_and_number_of_threads() {
    let mut random = Random::seeded("replay");
    let executors = |world: &World| THREADS.map(|threads| (threads, executor(world, threads)));
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executors = executors(&world);
        for number in 0..count("SLUICE_REPLAY_BLOCKS", 12) {
            let mut traffic = Traffic::new(&mut random, &world);
            let length = 1 + traffic.random.below(60);
            let block = traffic.sealed(length);
            let plain = executors[0].1.transactions(&world.state, &block, true).unwrap();
            let list = plain.access_list.clone().unwrap();
            assert_eq!(AccessList::decode_exact(&alloy_rlp::encode(&list)), Ok(list.clone()));
            for (threads, executor) in &executors {
                let replayed = executor.transactions_listed(&world.state, &block, &list).unwrap_or_else(|error| {
                    panic!("{} block {number} on {threads} threads: {error}", fork.name());
                });
                assert_eq!(replayed.receipts, plain.receipts, "{} block {number}", fork.name());
                assert_eq!(replayed.changes, plain.changes, "{} block {number}", fork.name());
                assert_eq!(replayed.gas_used, plain.gas_used);
            }
        }
    }
}

/// Blocks through the door on different numbers of threads, which are one and the same; invalid candidates stand
/// between the valid ones.
fn built(world: &World, random: &mut Random, length: usize) -> ExecutedBlock {
    let mut traffic = Traffic::new(random, world);
    let settings = BuildSettings { beneficiary: traffic.beneficiary, ..world.settings() };
    let mut candidates = traffic.block(length);
    for place in (0..length).step_by(3) {
        let stranger = Address::repeat_byte(0x77);
        candidates.insert(place, send(stranger, 5, TxKind::Call(BOB), U256::ZERO, Bytes::new(), 21_000));
    }
    let build = |threads| {
        let mut queue = Queue::of(candidates.iter().cloned());
        executor(world, threads)
            .build(&world.state, &world.parent, &settings, &mut queue, &BuildTime::UNLIMITED)
            .unwrap()
            .0
    };
    let alone = build(1);
    for threads in [2, 4] {
        let led = build(threads);
        assert_eq!((&led.block, &led.receipts, &led.changes), (&alone.block, &alone.receipts, &alone.changes));
    }
    alone
}

/// The list of a block.
fn named(built: &ExecutedBlock) -> NamedList {
    NamedList::new(built.access_list.clone())
}

#[test]
fn whole_blocks_are_replayed_with_their_system_calls_and_name_their_list() {
    let mut random = Random::seeded("whole blocks");
    let world = world(Fork::Osaka);
    for length in [0, 1, 8, 40] {
        let built = built(&world, &mut random, length);
        assert_eq!(built.block.consensus.access_list_hash, built.access_list.hash());
        let stranger = Address::repeat_byte(0x77);
        assert!(
            built.access_list.accounts.iter().all(|account| account.address != stranger),
            "who is not in the block"
        );
        let plain = executor(&world, 1).execute(&world.state, &world.parent, &built.block).unwrap();
        assert_eq!(plain.access_list, built.access_list);
        for threads in THREADS {
            let executor = executor(&world, threads);
            let replayed = executor.replay_listed(&world.state, &world.parent, &built.block, &named(&built)).unwrap();
            assert_eq!(replayed.receipts, built.receipts);
            assert_eq!(replayed.changes, built.changes);
        }
    }
}

#[test]
fn a_block_that_names_another_list_is_refused_and_a_wrong_list_costs_only_time() {
    let mut random = Random::seeded("other list");
    let world = world(Fork::Osaka);
    let built = built(&world, &mut random, 20);
    let executor = executor(&world, 2);
    let other = NamedList::new(Arc::default());
    let error = executor.replay_listed(&world.state, &world.parent, &built.block, &other).unwrap_err();
    assert!(matches!(&error, ReplayError::Mismatch(reason) if reason.contains("access_list_hash")), "{error}");
    let before = metrics::REPLAY_MISMATCH.value();
    let executed = executor.execute_listed(&world.state, &world.parent, &built.block, &other).unwrap();
    assert_eq!((&executed.receipts, &executed.access_list), (&built.receipts, &built.access_list));
    assert!(metrics::REPLAY_MISMATCH.value() > before);
    // The hash of an empty list in the header: no list fits both the header and the transactions.
    let mut block = (*built.block).clone();
    block.consensus.access_list_hash = other.hash();
    let error = executor.execute_listed(&world.state, &world.parent, &Arc::new(block), &other).unwrap_err();
    assert!(matches!(&error, ExecutionError::Invalid(reason) if reason.contains("access_list_hash")), "{error}");
}

#[test]
fn a_block_too_small_for_threads_is_held_against_its_list_all_the_same() {
    let mut random = Random::seeded("small block");
    let world = world(Fork::Osaka);
    let built = built(&world, &mut random, 5);
    let executor = executor(&world, 2).with_threads_from(u64::MAX);
    let block = &built.block;
    let replayed = executor.replay_listed(&world.state, &world.parent, block, &named(&built)).unwrap();
    assert_eq!((&replayed.receipts, &replayed.changes), (&built.receipts, &built.changes));
    let mut list = (*built.access_list).clone();
    list.accounts.pop();
    let error = executor.transactions_listed(&world.state, block, &list).unwrap_err();
    assert!(matches!(error, ReplayError::Mismatch(_)), "{error}");
}

#[test]
fn every_tampered_list_is_refused() {
    let mut random = Random::seeded("tampered lists");
    for fork in [Fork::London, Fork::Osaka] {
        let world = world(fork);
        let executor = executor(&world, 2);
        let block = Traffic::new(&mut random, &world).sealed(10);
        let plain = executor.transactions(&world.state, &block, true).unwrap();
        let list = plain.access_list.unwrap();
        let mut refused = 0;
        for _ in 0..count("SLUICE_TAMPERED", 4_000) / 2 {
            let mut tampered = list.clone();
            for _ in 0..=random.below(2) {
                tamper(&mut tampered, &mut random);
            }
            if tampered == list {
                continue;
            }
            assert_ne!(tampered.hash(), list.hash());
            match executor.transactions_listed(&world.state, &block, &tampered) {
                Err(ReplayError::Mismatch(_)) => refused += 1,
                other => panic!("{} accepted {tampered:?} for {list:?}: {other:?}", fork.name()),
            }
        }
        eprintln!("{}: {refused} tampered lists refused", fork.name());
    }
}

#[test]
fn a_list_larger_than_the_gas_pays_for_is_refused_before_it_is_used() {
    let mut list = AccessList::default();
    let address = |number: u64| Address::from_word(U256::from(number).into());
    list.accounts = (0..200).map(|number| AccountChanges::new(address(number))).collect();
    assert_eq!(list.check(Fork::Osaka, 1_000_000, 3), Ok(()));
    let error = list.check(Fork::Osaka, 100_000, 3).unwrap_err();
    assert_eq!(error, "200 items in the access list, the block's gas pays for 126");
    list.wipes.push(Wipe { address: address(500), indices: vec![1] });
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("not in the list"));
    list.wipes[0] = Wipe { address: address(5), indices: vec![2, 2] };
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("not in order"));
    list.wipes[0].indices = vec![9];
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("is not in 0..5"));
}

/// Enough transfers for threads to be woken, for several to be claimed at a time and for the list to be made beside.
#[test]
fn a_block_of_transfers_is_the_same_in_every_mode_and_its_tampered_lists_are_refused() {
    let mut random = Random::seeded("transfers");
    let accounts: Vec<Address> = (1..=80).map(|number: u8| Address::repeat_byte(number)).collect();
    let rich = || GenesisAccount { balance: ETHER, ..GenesisAccount::default() };
    let world = World::with(Fork::Osaka, accounts.iter().map(|address| (*address, rich())));
    let mut nonces = vec![0; accounts.len()];
    let transactions = (0..700_u64).map(|number| {
        let from = random.below(accounts.len());
        nonces[from] += 1;
        let to = match number % 3 {
            0 => accounts[random.below(accounts.len())],
            1 => accounts[7],
            _ => Address::from_word(U256::from(1_000_000 + number).into()),
        };
        let gas_limit = if number % 50 == 0 { 60_000 } else { 21_000 };
        send(accounts[from], nonces[from] - 1, TxKind::Call(to), U256::from(number), Bytes::new(), gas_limit)
    });
    let block = block_of(&world, transactions.collect());
    let executors =
        THREADS.map(|threads| RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()));
    let plain = executors[0].transactions(&world.state, &block, true).unwrap();
    let list = plain.access_list.clone().unwrap();
    for executor in &executors {
        let led = executor.transactions_led(&world.state, &block, true).unwrap();
        assert_eq!((&led.receipts, &led.changes), (&plain.receipts, &plain.changes));
        assert_eq!(led.access_list.as_ref(), Some(&list));
        let replayed = executor.transactions_listed(&world.state, &block, &list).unwrap();
        assert_eq!((&replayed.receipts, &replayed.changes), (&plain.receipts, &plain.changes));
        assert_eq!(replayed.gas_used, plain.gas_used);
    }
    for _ in 0..count("SLUICE_TAMPERED", 4_000) / 20 {
        let mut tampered = list.clone();
        tamper(&mut tampered, &mut random);
        if tampered != list {
            let error = executors[1].transactions_listed(&world.state, &block, &tampered).unwrap_err();
            assert!(matches!(error, ReplayError::Mismatch(_)), "{error}");
        }
    }
}

#[test]
fn every_place_is_claimed_once_the_most_expensive_first() {
    let gas_limits = [21_000, 90_000, 21_000, 2_000_000, 50_000, 60_000];
    let transactions: Vec<_> = (0..100)
        .map(|at| {
            let input = if at % 6 == 1 || at % 6 == 3 { Bytes::from_static(&[1]) } else { Bytes::new() };
            send(BOB, 0, TxKind::Call(BOB), U256::ZERO, input, gas_limits[at % 6])
        })
        .collect();
    let order = Order::new(&transactions, 2..100);
    let claims: Vec<&[usize]> = (0..).map_while(|number| order.claim(number)).collect();
    assert_eq!(order.claim(claims.len() + 5), None);
    assert_eq!(claims[..2], [[3], [9]]);
    assert_eq!(claims.iter().map(|claim| claim.len()).max(), Some(TRANSFERS_CLAIMED));
    assert!(claims.iter().all(|claim| claim.len() == 1 || claim.iter().all(|at| [0, 2, 4].contains(&(at % 6)))));
    let mut places = claims.concat();
    places.sort_unstable();
    assert_eq!(places, (2..100).collect::<Vec<_>>());
}
