//! Accounts that die, come back and die again inside one block, against a map that knows no tricks.

use std::collections::BTreeMap;

use alloy_primitives::{Address, Bytes, U256, address, bytes, keccak256};
use engine::{
    genesis::{Fork, GenesisAccount},
    ports::{BuildTime, Executor},
    types::{ExecutedBlock, Transaction},
};
use std::sync::Arc;

use crate::{
    RevmExecutor,
    testing::{ALICE, BOB, ETHER, Queue, World, send, transfer},
};

/// Creates its input with CREATE2 and salt 0.
const FACTORY: Address = address!("000000000000000000000000000000000000fac7");
const FACTORY_CODE: Bytes = bytes!("365f5f375f365f5ff500");
/// Writes 7 into slot 1, then returns code that destroys itself for its caller.
const INIT: Bytes = bytes!("60076001556133ff5f526002601ef3");
const MORTAL_CODE: Bytes = bytes!("33ff");

fn mortal() -> Address {
    FACTORY.create2(U256::ZERO.to_be_bytes::<32>(), keccak256(&INIT))
}

/// The mortal contract as block 0 has it: slots 1 and 2 are set.
fn world(fork: Fork) -> World {
    let storage = BTreeMap::from([(U256::from(1), U256::from(7)), (U256::from(2), U256::from(9))]);
    World::with(
        fork,
        [
            (FACTORY, GenesisAccount { nonce: 1, code: FACTORY_CODE, ..GenesisAccount::default() }),
            (mortal(), GenesisAccount { nonce: 1, balance: ETHER, code: MORTAL_CODE, storage }),
        ],
    )
}

/// Builds, executes, and lets the map check every `before` and the root.
fn run(world: &World, transactions: Vec<Arc<Transaction>>) -> ExecutedBlock {
    let count = transactions.len();
    let executor = RevmExecutor::new(world.chain.clone());
    let mut queue = Queue::of(transactions);
    let built =
        executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &BuildTime::UNLIMITED).unwrap().0;
    assert_eq!(built.block.body.transactions.len(), count);
    assert!(built.receipts.iter().all(|receipt| receipt.success));
    executor.execute(&world.state, &world.parent, &built.block).unwrap();
    built
}

fn poke(nonce: u64) -> Arc<Transaction> {
    send(ALICE, nonce, mortal().into(), U256::ZERO, Bytes::new(), 100_000)
}

fn create(nonce: u64) -> Arc<Transaction> {
    send(ALICE, nonce, FACTORY.into(), U256::ZERO, INIT, 200_000)
}

#[test]
fn a_destroyed_contract_leaves_nothing() {
    let built = run(&world(Fork::Shanghai), vec![poke(0)]);
    let change = &built.changes.accounts[&mortal()];
    assert_eq!((change.after, change.wiped, change.slots.len()), (None, true, 0));
}

#[test]
fn a_destroyed_contract_that_receives_ether_is_a_plain_account() {
    let built = run(&world(Fork::Shanghai), vec![poke(0), transfer(BOB, 0, mortal(), U256::from(3))]);
    let change = &built.changes.accounts[&mortal()];
    let after = change.after.unwrap();
    assert_eq!((after.nonce, after.balance, after.has_code()), (0, U256::from(3), false));
    assert!(change.wiped && change.slots.is_empty());
}

#[test]
fn a_contract_that_comes_back_keeps_only_what_it_wrote_since() {
    let built = run(&world(Fork::Shanghai), vec![poke(0), create(1)]);
    let change = &built.changes.accounts[&mortal()];
    assert!(change.wiped && change.after.unwrap().has_code());
    // Equal to before, yet written after the wipe.
    let slot = change.slots[&U256::from(1)];
    assert_eq!((slot.before, slot.after, change.slots.len()), (U256::from(7), U256::from(7), 1));
}

#[test]
fn a_contract_may_die_come_back_and_die_again() {
    let built = run(&world(Fork::Shanghai), vec![poke(0), create(1), poke(2), create(3), poke(4)]);
    let change = &built.changes.accounts[&mortal()];
    assert_eq!((change.after, change.wiped), (None, true));
    // What was born and died within the block was never there.
    let newborn = World::with(
        Fork::Shanghai,
        [(FACTORY, GenesisAccount { nonce: 1, code: FACTORY_CODE, ..GenesisAccount::default() })],
    );
    let built = run(&newborn, vec![create(0), poke(1)]);
    assert!(!built.changes.accounts.contains_key(&mortal()));
    assert!(built.changes.codes.is_empty());
}

#[test]
fn since_cancun_a_contract_survives_and_loses_its_ether() {
    let built = run(&world(Fork::Osaka), vec![poke(0)]);
    let change = &built.changes.accounts[&mortal()];
    let after = change.after.unwrap();
    assert_eq!((after.balance, after.has_code(), change.wiped, change.slots.len()), (U256::ZERO, true, false, 0));
}

#[test]
fn a_contract_created_over_a_funded_address_keeps_the_ether() {
    let world = World::with(
        Fork::Osaka,
        [
            (FACTORY, GenesisAccount { nonce: 1, code: FACTORY_CODE, ..GenesisAccount::default() }),
            (mortal(), GenesisAccount { balance: ETHER, ..GenesisAccount::default() }),
        ],
    );
    let built = run(&world, vec![create(0)]);
    let change = &built.changes.accounts[&mortal()];
    assert_eq!(change.after.unwrap().balance, ETHER);
    assert_eq!(change.slots[&U256::from(1)].after, U256::from(7));
}
