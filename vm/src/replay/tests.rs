//! Replay gives the plain loop's bits on any number of threads, and refuses every list but the block's own.
//!
//! `SLUICE_REPLAY_BLOCKS` sets the blocks per fork (default 12), `SLUICE_TAMPERED` the tampered lists (default
//! 4,000), `SLUICE_SEED` the seed.

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip7702};
use alloy_eips::{
    eip2718::Encodable2718,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Bytes, Signature, TxKind, U256, address, bytes, hex, keccak256};
use engine::{
    genesis::GenesisAccount,
    ports::Executor as _,
    types::{
        BlockBody, ConsensusHeader, Envelope, ExecutedBlock,
        access_list::{AccountChanges, BalanceChange, BlockAccessIndex, CodeChange, NonceChange, Wipe},
    },
};

use super::*;
use crate::{
    RevmExecutor,
    testing::{BOB, ETHER, GAS_LIMIT, GWEI, LOOP, POOR, PROPOSER, Queue, REVERT, STORE, World, known, legacy, send},
};

const THREADS: [usize; 6] = [1, 2, 3, 4, 8, 16];

/// Deploys its input as init code with CREATE2 and salt 0.
const FACTORY: Address = address!("00000000000000000000000000000000000fac70");
const FACTORY_CODE: Bytes = bytes!("36600060003760003660006000f55000");

/// Called without input it ends and pays the caller; else it reads the slot after the one its first word names,
/// and writes its second word into that one.
const CHILD: [u8; 22] = hex!("3660065733ff5b6000358060010154506020359055" "00");

/// Writes slot 1, reads slot 2 and deploys the child.
const CHILD_INIT: [u8; 21] = hex!("600760015560025450" "601660156000396016" "6000f3");

/// Writes slot 1 and ends before it was there.
const SHORT_LIVED_INIT: Bytes = bytes!("600760015533ff");

/// Looks at the proposer's balance, at balance and code of the address in its input, and keeps the parent's hash.
const LOOKER: Address = address!("000000000000000000000000000000000000100c");
const LOOKER_CODE: Bytes = bytes!("413150" "6000353150" "6000353b50" "436001900340" "60005500");

/// Numbers for a test that can be repeated.
struct Random(u64);

impl Random {
    fn seeded(test: &str) -> Self {
        let seed = std::env::var("SLUICE_SEED").map_or(1_u64, |text| text.parse().unwrap());
        eprintln!("{test}: seed {seed} (repeat with SLUICE_SEED={seed})");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn sender(index: usize) -> Address {
    Address::with_last_byte(0xa0 + u8::try_from(index).unwrap())
}

fn child_init() -> Bytes {
    [&CHILD_INIT[..], &CHILD[..]].concat().into()
}

fn created(init: &Bytes) -> Address {
    FACTORY.create2(B256::ZERO, keccak256(init))
}

fn world(fork: Fork) -> World {
    let rich = || GenesisAccount { balance: ETHER * U256::from(1_000), ..GenesisAccount::default() };
    let contract = |code: Bytes| GenesisAccount { nonce: 1, code, ..GenesisAccount::default() };
    let mut more: BTreeMap<_, _> = (0..6).map(|index| (sender(index), rich())).collect();
    more.insert(PROPOSER, rich());
    more.insert(FACTORY, contract(FACTORY_CODE));
    more.insert(LOOKER, contract(LOOKER_CODE));
    // A child from before the block, with storage that its end must take.
    let storage = (0..6).map(|key| (U256::from(key), U256::from(key + 1))).collect();
    let old = GenesisAccount { nonce: 1, balance: U256::from(9), code: CHILD.to_vec().into(), storage };
    more.insert(created(&child_init()), old);
    World::with(fork, more)
}

/// Valid transactions that meet each other in every way there is.
struct Traffic<'r> {
    random: &'r mut Random,
    fork: Fork,
    nonces: BTreeMap<Address, u64>,
    poor_is_funded: bool,
}

impl Traffic<'_> {
    fn nonce(&mut self, sender: Address) -> u64 {
        let nonce = self.nonces.entry(sender).or_default();
        *nonce += 1;
        *nonce - 1
    }

    fn transaction(&mut self) -> Arc<Transaction> {
        let mut from = sender(self.random.below(6));
        match self.random.below(12) {
            0 => from = PROPOSER,
            1 if self.poor_is_funded => from = POOR,
            _ => {}
        }
        let nonce = self.nonce(from);
        let mut input = [0; 64];
        input[31] = u8::try_from(self.random.below(5)).unwrap();
        input[63] = u8::try_from(self.random.below(3)).unwrap();
        let call = |to: Address, value: u64, input: Bytes, gas: u64| {
            if self.fork >= Fork::London {
                send(from, nonce, TxKind::Call(to), U256::from(value), input, gas)
            } else {
                legacy_call(from, nonce, to, value, input, gas)
            }
        };
        let child = created(&child_init());
        match self.random.below(20) {
            0 | 1 => call(sender(self.random.below(6)), 5, Bytes::new(), 21_000),
            2 => {
                call(Address::with_last_byte(u8::try_from(1 + self.random.below(9)).unwrap()), 1, Bytes::new(), 60_000)
            }
            3 => {
                self.poor_is_funded = true;
                call(POOR, if from == POOR { 1 } else { 10_000_000_000_000_000_000 }, Bytes::new(), 30_000)
            }
            4 => call(PROPOSER, 3, Bytes::new(), 21_000),
            5 => {
                call(Address::repeat_byte(u8::try_from(self.random.below(4)).unwrap() + 0x20), 0, Bytes::new(), 30_000)
            }
            6 => call(child, 7, Bytes::new(), 90_000),
            7 => call(created(&SHORT_LIVED_INIT), 2, Bytes::new(), 60_000),
            8 | 9 => call(FACTORY, 0, child_init(), 300_000),
            10 => call(FACTORY, 0, SHORT_LIVED_INIT, 200_000),
            11 | 12 => call(child, 0, input.to_vec().into(), 100_000),
            // So little that it ends somewhere in the middle.
            13 => call(child, 0, input.to_vec().into(), 24_000 + u64::try_from(self.random.below(25_000)).unwrap()),
            14 => call(STORE, 0, input.to_vec().into(), 100_000),
            15 => call(REVERT, 1, Bytes::new(), 50_000),
            16 => call(LOOP, 0, Bytes::new(), 40_000),
            17 | 18 => {
                let seen = [child, PROPOSER, POOR, BOB][self.random.below(4)];
                call(LOOKER, 0, seen.into_word().to_vec().into(), 120_000)
            }
            _ if self.fork >= Fork::Prague => authorize(from, nonce, u64::try_from(self.random.below(2)).unwrap()),
            _ => legacy(from, nonce, 50 * GWEI),
        }
    }

    fn block(&mut self, length: usize) -> Vec<Arc<Transaction>> {
        (0..length).map(|_| self.transaction()).collect()
    }
}

fn legacy_call(from: Address, nonce: u64, to: Address, value: u64, input: Bytes, gas_limit: u64) -> Arc<Transaction> {
    let tx = alloy_consensus::TxLegacy {
        chain_id: Some(7),
        nonce,
        gas_price: 50 * GWEI,
        gas_limit,
        to: TxKind::Call(to),
        value: U256::from(value),
        input,
    };
    known(tx.into_signed(Signature::new(U256::from(1), U256::from(1), false)).into(), from)
}

/// Delegates whatever account the signature happens to be of.
fn authorize(from: Address, nonce: u64, authority_nonce: u64) -> Arc<Transaction> {
    let authorization = Authorization { chain_id: U256::from(7), address: STORE, nonce: authority_nonce };
    let any = Signature::test_signature();
    let signed = SignedAuthorization::new_unchecked(authorization, 0, any.r(), any.s());
    let tx = TxEip7702 {
        chain_id: 7,
        nonce,
        gas_limit: 120_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: sender(0),
        authorization_list: vec![signed],
        ..TxEip7702::default()
    };
    let envelope: Envelope = tx.into_signed(any).into();
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), from).unwrap())
}

fn block_of(world: &World, transactions: Vec<Arc<Transaction>>) -> Block {
    let header = Header {
        number: 1,
        timestamp: world.parent.timestamp + 1,
        gas_limit: GAS_LIMIT,
        beneficiary: PROPOSER,
        base_fee_per_gas: Some(GWEI.try_into().unwrap()),
        excess_blob_gas: Some(0),
        ..Header::default()
    };
    Block {
        consensus: ConsensusHeader::default(),
        header: header.seal_slow(),
        body: BlockBody { transactions, withdrawals: None },
    }
}

fn executor(world: &World, threads: usize) -> RevmExecutor {
    RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_replay_from(0)
}

#[test]
fn replay_gives_the_plain_loops_bits_on_every_fork_and_number_of_threads() {
    let mut random = Random::seeded("replay");
    let executors = |world: &World| THREADS.map(|threads| (threads, executor(world, threads)));
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executors = executors(&world);
        for number in 0..count("SLUICE_REPLAY_BLOCKS", 12) {
            let mut traffic = Traffic { random: &mut random, fork, nonces: BTreeMap::new(), poor_is_funded: false };
            let length = 1 + traffic.random.below(60);
            let block = block_of(&world, traffic.block(length));
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

/// A block through the door, with invalid candidates between the valid ones.
fn built(world: &World, random: &mut Random, length: usize) -> ExecutedBlock {
    let mut traffic = Traffic { random, fork: Fork::Osaka, nonces: BTreeMap::new(), poor_is_funded: false };
    let mut candidates = traffic.block(length);
    for place in (0..length).step_by(3) {
        let stranger = Address::repeat_byte(0x77);
        candidates.insert(place, send(stranger, 5, TxKind::Call(BOB), U256::ZERO, Bytes::new(), 21_000));
    }
    let mut queue = Queue::of(candidates);
    executor(world, 1).build(&world.state, &world.parent, &world.settings(), &mut queue, &|| false).unwrap().0
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
            let replayed =
                executor.replay_listed(&world.state, &world.parent, &built.block, &built.access_list).unwrap();
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
    let other = Arc::new(AccessList::default());
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

/// Changes one thing about a list.
fn tamper(list: &mut AccessList, random: &mut Random) {
    let place = random.below(list.accounts.len());
    let other = list.accounts[random.below(list.accounts.len())].clone();
    let account = &mut list.accounts[place];
    let slot = |random: &mut Random, slots: usize| random.below(slots.max(1));
    let at = BlockAccessIndex::new(u64::try_from(random.below(12)).unwrap());
    match random.below(24) {
        0 => drop(list.accounts.remove(place)),
        1 => list.accounts.push(AccountChanges::new(Address::repeat_byte(0xee))),
        2 => list.accounts.insert(place, other),
        3 => list.accounts.swap(place, 0),
        4 => account.address.0[random.below(20)] ^= 1,
        5 => account.storage_reads.push(U256::MAX),
        6 => drop(account.storage_reads.pop()),
        7 => account.storage_reads.extend(account.storage_reads.first().copied()),
        8 => account.storage_reads.reverse(),
        9 => drop(account.storage_changes.pop()),
        10 => account.storage_changes.extend(other.storage_changes),
        11 => {
            let key = slot(random, account.storage_changes.len());
            account.storage_changes.get_mut(key).into_iter().for_each(|slot| slot.slot += U256::from(1));
        }
        12 | 13 => {
            let key = slot(random, account.storage_changes.len());
            let changes = account.storage_changes.get_mut(key).map(|slot| &mut slot.changes);
            changes.and_then(|changes| changes.last_mut()).into_iter().for_each(|change| {
                change.new_value ^= U256::from(1);
            });
        }
        14 => {
            let key = slot(random, account.storage_changes.len());
            let changes = account.storage_changes.get_mut(key).map(|slot| &mut slot.changes);
            changes.and_then(|changes| changes.first_mut()).into_iter().for_each(|change| {
                change.block_access_index = at;
            });
        }
        15 => {
            let key = slot(random, account.storage_changes.len());
            account
                .storage_changes
                .get_mut(key)
                .into_iter()
                .for_each(|slot| slot.changes.truncate(slot.changes.len().saturating_sub(1)));
        }
        16 => account.balance_changes.push(BalanceChange::new(at, U256::from(random.below(9)))),
        17 => account.balance_changes.iter_mut().take(1).for_each(|change| change.post_balance += U256::from(1)),
        18 => drop(account.balance_changes.pop()),
        19 => account.nonce_changes.push(NonceChange::new(at, 3)),
        20 => account.nonce_changes.iter_mut().take(1).for_each(|change| change.new_nonce += 1),
        21 => account.code_changes.push(CodeChange::new(at, bytes!("00"))),
        22 => list.wipes.push(Wipe { address: account.address, indices: vec![at.get()] }),
        _ => match list.wipes.first_mut() {
            Some(wipe) => wipe.indices[0] += 1,
            None => account.nonce_changes.iter_mut().take(1).for_each(|change| change.block_access_index = at),
        },
    }
}

#[test]
fn a_block_too_small_for_threads_is_held_against_its_list_all_the_same() {
    let mut random = Random::seeded("small block");
    let world = world(Fork::Osaka);
    let built = built(&world, &mut random, 5);
    let executor = executor(&world, 2).with_replay_from(u64::MAX);
    let block = &built.block;
    let replayed = executor.replay_listed(&world.state, &world.parent, block, &built.access_list).unwrap();
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
        let mut traffic = Traffic { random: &mut random, fork, nonces: BTreeMap::new(), poor_is_funded: false };
        let transactions = traffic.block(10);
        let block = block_of(&world, transactions);
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
    assert_eq!(error, "200 items in the access list, 100000 gas pay for 126");
    list.wipes.push(Wipe { address: address(500), indices: vec![1] });
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("not in the list"));
    list.wipes[0] = Wipe { address: address(5), indices: vec![2, 2] };
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("not in order"));
    list.wipes[0].indices = vec![9];
    assert!(list.check(Fork::Osaka, 1_000_000, 3).unwrap_err().contains("the last index is 4"));
}
