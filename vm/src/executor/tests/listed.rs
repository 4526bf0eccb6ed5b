//! A block has one verdict, down to the words of its refusal, whichever list comes beside it and whether one does.
//!
//! `SLUICE_LISTED_BLOCKS` sets the blocks (default 8), `SLUICE_SEED` the seed.

use engine::types::{BuiltBlock, NamedList, access_list::AccountChanges};

use super::*;
use crate::testing::{
    tamper::tamper,
    traffic::{INVALID, Random, THREADS, Traffic, count, invalid, world},
};

fn executors(world: &World) -> [RevmExecutor; THREADS.len()] {
    THREADS.map(|threads| {
        RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_threads_from(0)
    })
}

/// A block as its leader builds it, with a bit of everything.
fn built(world: &World, random: &mut Random) -> ExecutedBlock {
    let mut traffic = Traffic::new(random, world);
    let length = 1 + traffic.random.below(30);
    let settings = BuildSettings { beneficiary: traffic.beneficiary, ..world.settings() };
    let mut queue = Queue::of(traffic.block(length));
    let executor = RevmExecutor::new(world.chain.clone());
    let BuiltBlock(built) =
        executor.build(&world.state, &world.parent, &settings, &mut queue, &BuildTime::UNLIMITED).unwrap();
    built
}

/// Executes a block with each of these lists on every number of threads, and holds what comes out against what comes
/// out without a list.
fn check(world: &World, executors: &[RevmExecutor], block: Block, lists: &[&AccessList]) -> Result<(), String> {
    let block = Arc::new(block);
    let alone = executors[0].execute(&world.state, &world.parent, &block);
    for list in lists {
        let list = NamedList::new(Arc::new((*list).clone()));
        for (executor, threads) in executors.iter().zip(THREADS) {
            let listed = executor.execute_listed(&world.state, &world.parent, &block, &list);
            match (&listed, &alone) {
                (Err(listed), Err(alone)) => assert_eq!(listed, alone, "{threads} threads"),
                (Ok(listed), Ok(alone)) => {
                    assert_eq!((&listed.receipts, &listed.changes), (&alone.receipts, &alone.changes));
                    assert_eq!((&listed.block, &listed.access_list), (&alone.block, &alone.access_list));
                }
                _ => panic!("{threads} threads: {listed:?} with the list, {alone:?} without"),
            }
        }
    }
    alone.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_valid_block_is_valid_with_any_list_and_one_that_names_a_wrong_list_is_refused_alike() {
    let mut random = Random::seeded("listed");
    let world = world(Fork::Osaka);
    let executors = executors(&world);
    for _ in 0..count("SLUICE_LISTED_BLOCKS", 8) {
        let built = built(&world, &mut random);
        let (block, right) = (&*built.block, &*built.access_list);
        let mut wrong = right.clone();
        while wrong == *right {
            tamper(&mut wrong, &mut random);
        }
        let empty = AccessList::default();
        assert_eq!(check(&world, &executors, block.clone(), &[right, &wrong, &empty]), Ok(()));
        for named in [&wrong, &empty] {
            let mut lying = block.clone();
            lying.consensus.access_list_hash = named.hash();
            let refused = check(&world, &executors, lying, &[right, &wrong, &empty]).unwrap_err();
            let (has, expected) = (named.hash(), right.hash());
            assert_eq!(refused, format!("invalid block: access_list_hash is {has}, must be {expected}"));
        }
    }
}

#[test]
fn a_block_that_is_invalid_for_another_reason_is_refused_for_that_one_with_any_list() {
    let mut random = Random::seeded("listed and invalid");
    let world = world(Fork::Osaka);
    let executors = executors(&world);
    type Change = fn(&mut Header);
    let cases: [(&str, Change); 7] = [
        ("gas_used", |header| header.gas_used += 1),
        ("receipts_root", |header| header.receipts_root = B256::ZERO),
        ("logs_bloom", |header| header.logs_bloom = Bloom::repeat_byte(1)),
        ("requests_hash", |header| header.requests_hash = Some(B256::ZERO)),
        ("state_root", |header| header.state_root = B256::ZERO),
        ("gas_limit", |header| header.gas_limit += 1),
        ("parent_hash", |header| header.parent_hash = B256::ZERO),
    ];
    let built = built(&world, &mut random);
    let right = &*built.access_list;
    let mut wrong = right.clone();
    wrong.accounts.push(AccountChanges::new(Address::repeat_byte(0xff)));
    for (field, change) in cases {
        for named in [right, &wrong] {
            let mut block = resealed(&built.block, change);
            block.consensus.access_list_hash = named.hash();
            let refused = check(&world, &executors, block, &[right, &wrong]).unwrap_err();
            assert!(refused.contains(field), "{field}: {refused}");
        }
    }
}

#[test]
fn a_transaction_that_is_not_valid_is_named_alike_with_any_list() {
    let mut random = Random::seeded("listed and not valid");
    let world = world(Fork::Osaka);
    let executors = executors(&world);
    let built = built(&world, &mut random);
    let right = &*built.access_list;
    for way in 0..INVALID {
        let place = random.below(built.block.body.transactions.len() + 1);
        let mut block = (*built.block).clone();
        block.body.transactions.insert(place, invalid(way));
        let root = outcome::transactions_root(&block.body.transactions);
        let block = resealed(&block, |header| header.transactions_root = root);
        // Blocks with blobs are refused before any transaction is looked at.
        check(&world, &executors, block, &[right, &AccessList::default()]).unwrap_err();
    }
    // The first one that asks for more gas than is left.
    let mut block = (*built.block).clone();
    block.body.transactions.push(send(ALICE, 0, TxKind::Call(BOB), U256::ZERO, Bytes::new(), GAS_LIMIT));
    let root = outcome::transactions_root(&block.body.transactions);
    let block = resealed(&block, |header| header.transactions_root = root);
    check(&world, &executors, block, &[right, &AccessList::default()]).unwrap_err();
}

/// The bounds of what is taken from a peer follow from gas; what a block's own gas pays for is enough for its list.
#[test]
fn the_list_of_any_block_is_taken_by_whoever_knows_its_gas() {
    let mut random = Random::seeded("listed and packed");
    let (mut bytes, mut packed_bytes) = (0, 0);
    for fork in [Fork::Shanghai, Fork::Cancun, Fork::Osaka] {
        let world = world(fork);
        for _ in 0..count("SLUICE_LISTED_BLOCKS", 8) {
            let built = built(&world, &mut random);
            let list = NamedList::new(built.access_list.clone());
            let items_max = AccessList::items_max(fork, built.block.header.gas_used);
            let packed = list.packed();
            assert_eq!(NamedList::open(&packed, &list.hash(), usize::MAX, items_max).as_ref(), Ok(&list));
            (bytes, packed_bytes) = (bytes + list.size_bytes(), packed_bytes + packed.len());
        }
    }
    eprintln!("{bytes} bytes of lists, packed {packed_bytes}");
}

#[test]
fn only_blocks_worth_waking_threads_for_are_worth_a_list() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone());
    let block = |gas_limit, transactions: u64| {
        let call = |nonce| send(ALICE, nonce, STORE.into(), U256::ZERO, word(nonce), gas_limit);
        (*build(&world, (0..transactions).map(call)).block).clone()
    };
    assert!(!executor.is_worth_listing(&block(100_000, 9)));
    assert!(executor.is_worth_listing(&block(100_000, 10)));
    let transfers = (0..400).map(|nonce| transfer(ALICE, nonce, BOB, U256::from(1)));
    assert!(!executor.is_worth_listing(&build(&world, transfers).block));
}
