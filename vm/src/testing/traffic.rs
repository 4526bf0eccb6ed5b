//! Adversarial traffic: valid transactions that meet each other in every way there is, from a seed.
//!
//! | what | how |
//! |---|---|
//! | wipe and re-create | a contract that ends and is deployed again, one that ends as it begins, two that stay gone |
//! | delegation | really signed EIP-7702 lists (`delegation`): set, changed, cleared, chained, wrong in one thing |
//! | fee recipient | anybody: a sender, an authority, a payee, a contract that looks at its balance, ends, begins |
//! | rewards | 2 gwei, 50 gwei, none |
//! | funding | an account without wei gets some and sends |
//! | transfers | to precompiles, to contracts, to accounts that are empty, to oneself |
//! | gas | too little, anywhere in a call; loops; reverts |
//! | nonces | a delegated account creates contracts between its own transactions |
//! | hot slots | few, read and written by most calls |
//!
//! Everything is drawn against the state as the transactions before have left it, by the plain loop, so that a block
//! holds no transaction that is not valid. [`invalid`] makes those.

pub(crate) mod delegation;
mod invalid;

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, bytes, hex, keccak256};
use engine::{
    genesis::{Fork, GenesisAccount},
    types::{Block, BlockBody, ConsensusHeader, Transaction},
};

pub(crate) use self::invalid::{INVALID, invalid};
use super::{BOB, ETHER, GAS_LIMIT, GWEI, LOOP, POOR, PROPOSER, REVERT, STORE, World, known, signature};
use crate::{code::CodeCache, sequential::Run};

/// Numbers of threads that every mode must agree on.
pub(crate) const THREADS: [usize; 6] = [1, 2, 3, 4, 8, 16];

/// Deploys its input as init code with CREATE2 and salt 0.
pub(crate) const FACTORY: Address = address!("00000000000000000000000000000000000fac70");
const FACTORY_CODE: Bytes = bytes!("36600060003760003660006000f55000");

/// Called without input it ends and pays the caller; else it reads the slot after the one its first word names,
/// and writes its second word into that one.
const CHILD: [u8; 22] = hex!("3660065733ff5b6000358060010154506020359055" "00");

/// Writes slot 1, reads slot 2 and deploys the child.
const CHILD_INIT: [u8; 21] = hex!("600760015560025450" "601660156000396016" "6000f3");

/// Writes slot 1 and ends before it was there.
pub(crate) const SHORT_LIVED_INIT: Bytes = bytes!("600760015533ff");

/// Looks at the proposer's balance, at balance and code of the address in its input, and keeps the parent's hash.
pub(crate) const LOOKER: Address = address!("000000000000000000000000000000000000100c");
const LOOKER_CODE: Bytes = bytes!("413150" "6000353150" "6000353b50" "436001900340" "60005500");

/// Keeps its own balance in slot 0; called with input it pays the caller one wei as well.
pub(crate) const TREASURY: Address = address!("0000000000000000000000000000000000007ea5");
const TREASURY_CODE: Bytes = bytes!("3031600055" "36600a5700" "5b" "6000600060006000" "6001335af100");

/// Keeps its own balance in slot 0; called without input it ends and pays the caller.
pub(crate) const BURNER: Address = address!("000000000000000000000000000000000000b042");
const BURNER_CODE: Bytes = bytes!("3660065733ff" "5b303160005500");

/// Ends and pays itself.
pub(crate) const OUROBOROS: Address = address!("00000000000000000000000000000000000a7e17");
const OUROBOROS_CODE: Bytes = bytes!("30ff");

/// Calls the address in its first word with the rest of the input and all the wei it got, and keeps whether it
/// went well in slot 0.
const CALLER: Address = address!("0000000000000000000000000000000000ca11e4");
const CALLER_CODE: Bytes = bytes!("602036036020600037" "60006000" "60203603" "6000" "34" "600035" "5a" "f1" "60005500");

/// Runs the code of the address in its first word as its own with the rest of the input, and keeps whether it went
/// well in slot 0.
const BORROWER: Address = address!("0000000000000000000000000000000000b04404");
const BORROWER_CODE: Bytes = bytes!("602036036020600037" "60006000" "60203603" "6000" "600035" "5a" "f4" "60005500");

/// Nobody has ever paid it.
const NOBODY: Address = address!("0000000000000000000000000000000000090b0d");

/// Adds one to each of [`HOT_SLOTS`] slots, from 0 on.
pub(crate) const COUNTER: Address = address!("00000000000000000000000000000000000c0047");
/// Slots that a call of [`COUNTER`] reads and writes.
pub(crate) const HOT_SLOTS: u8 = 5;

/// Numbers for a test that can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(test: &str) -> Self {
        let seed = std::env::var("SLUICE_SEED").map_or(1_u64, |text| text.parse().unwrap());
        eprintln!("{test}: seed {seed} (repeat with SLUICE_SEED={seed})");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[cfg(feature = "testing")]
    const fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

pub(crate) fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

pub(crate) fn sender(index: usize) -> Address {
    Address::with_last_byte(0xa0 + u8::try_from(index).unwrap())
}

pub(crate) fn child_init() -> Bytes {
    [&CHILD_INIT[..], &CHILD[..]].concat().into()
}

pub(crate) fn created(init: &Bytes) -> Address {
    FACTORY.create2(B256::ZERO, keccak256(init))
}

fn counter_code() -> Bytes {
    let count = |slot: u8| [0x60, slot, 0x80, 0x54, 0x60, 1, 0x01, 0x90, 0x55];
    (0..HOT_SLOTS).flat_map(count).collect()
}

pub(crate) fn world(fork: Fork) -> World {
    let rich = || GenesisAccount { balance: ETHER * U256::from(1_000), ..GenesisAccount::default() };
    let contract = |code: Bytes| GenesisAccount { nonce: 1, code, ..GenesisAccount::default() };
    let mut more: BTreeMap<_, _> = (0..6).map(|index| (sender(index), rich())).collect();
    more.extend(delegation::authorities().map(|authority| (authority, rich())));
    more.insert(PROPOSER, rich());
    more.insert(invalid::VETERAN, GenesisAccount { nonce: invalid::VETERAN_NONCE, ..rich() });
    more.insert(FACTORY, contract(FACTORY_CODE));
    more.insert(LOOKER, contract(LOOKER_CODE));
    more.insert(CALLER, contract(CALLER_CODE));
    more.insert(BORROWER, contract(BORROWER_CODE));
    more.insert(COUNTER, contract(counter_code()));
    // What ends takes the storage from before the block along.
    let storage = || (0..6).map(|key| (U256::from(key), U256::from(key + 1))).collect();
    let old = |code: Bytes| GenesisAccount { nonce: 1, balance: U256::from(9), code, storage: storage() };
    more.insert(created(&child_init()), old(CHILD.to_vec().into()));
    more.insert(TREASURY, old(TREASURY_CODE));
    more.insert(BURNER, old(BURNER_CODE));
    more.insert(OUROBOROS, old(OUROBOROS_CODE));
    World::with(fork, more)
}

/// Valid transactions that meet each other in every way there is.
pub(crate) struct Traffic<'r> {
    pub(crate) random: &'r mut Random,
    world: &'r World,
    fork: Fork,
    /// Who gets the rewards.
    pub(crate) beneficiary: Address,
}

impl<'r> Traffic<'r> {
    /// Traffic for one block of a chain made by [`world`], with a fee recipient from the seed.
    pub(crate) fn new(random: &'r mut Random, world: &'r World) -> Self {
        let fork = world.chain.fork_at(world.parent.timestamp);
        let anybody = [
            TREASURY,
            BURNER,
            OUROBOROS,
            created(&child_init()),
            created(&SHORT_LIVED_INIT),
            FACTORY,
            delegation::authority(0),
            sender(1),
            POOR,
            NOBODY,
            Address::with_last_byte(4),
        ];
        let beneficiary = if random.below(3) == 0 { PROPOSER } else { random.one_of(&anybody) };
        Self { random, world, fork, beneficiary }
    }

    /// So many transactions, each valid behind those before it.
    pub(crate) fn block(&mut self, length: usize) -> Vec<Arc<Transaction>> {
        let (codes, header) = (CodeCache::default(), header(self.world, self.beneficiary));
        let mut run = Run::open(&self.world.chain, &codes, &self.world.state, &header);
        let mut valid = Vec::with_capacity(length);
        while valid.len() < length {
            let from = self.sender();
            let nonce = nonce(&mut run, from);
            let transaction = match self.random.below(6) {
                0 if self.fork >= Fork::Prague => self.authorize(&mut run, from, nonce),
                _ => self.call(from, nonce),
            };
            if run.transact(&transaction).is_ok() {
                valid.push(transaction);
            }
        }
        valid
    }

    /// A block of so many transactions.
    pub(crate) fn sealed(&mut self, length: usize) -> Block {
        let transactions = self.block(length);
        block_paying(self.world, self.beneficiary, transactions)
    }

    fn sender(&mut self) -> Address {
        match self.random.below(12) {
            0 => PROPOSER,
            1 => POOR,
            2..5 => self.authority(),
            _ => sender(self.random.below(6)),
        }
    }

    fn authority(&mut self) -> Address {
        delegation::authority(self.random.below(delegation::AUTHORITIES))
    }

    /// One or two words, small ones.
    fn words(&mut self) -> Vec<u8> {
        let mut input = vec![0; 64];
        input[31] = u8::try_from(self.random.below(5)).unwrap();
        input[63] = u8::try_from(self.random.below(3)).unwrap();
        input
    }

    fn call(&mut self, from: Address, nonce: u64) -> Arc<Transaction> {
        let child = created(&child_init());
        let words = self.words();
        let (to, value, input, gas) = match self.random.below(30) {
            0 | 1 => (sender(self.random.below(6)), 5, vec![], 21_000),
            2 => (Address::with_last_byte(u8::try_from(1 + self.random.below(9)).unwrap()), 1, vec![], 60_000),
            3 => (POOR, if from == POOR { 1 } else { 10_000_000_000_000_000_000 }, vec![], 30_000),
            4 => (self.beneficiary, 3, vec![], 21_000),
            5 => (Address::repeat_byte(u8::try_from(self.random.below(4)).unwrap() + 0x20), 0, vec![], 30_000),
            6 => (child, 7, vec![], 90_000),
            7 => (created(&SHORT_LIVED_INIT), 2, vec![], 60_000),
            8 | 9 => (FACTORY, 0, child_init().to_vec(), 300_000),
            10 => (FACTORY, 0, SHORT_LIVED_INIT.to_vec(), 200_000),
            11 | 12 => (child, 0, words, 100_000),
            // So little that it ends somewhere in the middle.
            13 => (child, 0, words, 24_000 + u64::try_from(self.random.below(25_000)).unwrap()),
            14 => (STORE, 0, words, 100_000),
            15 => (REVERT, 1, vec![], 50_000),
            16 => (LOOP, 0, vec![], 40_000),
            17 | 18 => {
                let seen = [child, self.beneficiary, POOR, BOB, self.authority()];
                (LOOKER, 0, self.random.one_of(&seen).into_word().to_vec(), 120_000)
            }
            19 => (self.beneficiary, 1, vec![], 120_000),
            20 => (self.beneficiary, 0, words, 120_000),
            21 => (self.random.one_of(&[TREASURY, BURNER, OUROBOROS]), 2, vec![], 120_000),
            22 => (self.random.one_of(&[TREASURY, BURNER]), 0, words, 120_000),
            23 | 24 => (self.authority(), 11, vec![], 100_000),
            25 => (self.authority(), 0, words, 100_000),
            26 => (COUNTER, 0, vec![], 22_000 + u64::try_from(self.random.below(120_000)).unwrap()),
            _ => self.call_by_contract(words),
        };
        self.sign(from, nonce, to, U256::from(value), input.into(), gas)
    }

    /// A contract calls somebody, or runs somebody's code as its own.
    fn call_by_contract(&mut self, words: Vec<u8>) -> (Address, u64, Vec<u8>, u64) {
        let child = created(&child_init());
        let called =
            [child, self.beneficiary, self.authority(), TREASURY, BURNER, OUROBOROS, POOR, FACTORY, Address::ZERO];
        let mut input = self.random.one_of(&called).into_word().to_vec();
        match self.random.below(4) {
            0 | 1 => {}
            2 => input.extend(words),
            _ => input.extend(child_init()),
        }
        let value = if self.random.below(2) == 0 { 0 } else { 4 };
        (self.random.one_of(&[CALLER, CALLER, BORROWER]), value, input, 250_000)
    }

    /// The call as a transaction of a type that the fork knows.
    fn sign(
        &mut self,
        from: Address,
        nonce: u64,
        to: Address,
        value: U256,
        input: Bytes,
        gas_limit: u64,
    ) -> Arc<Transaction> {
        let (chain_id, to) = (7, TxKind::Call(to));
        let kind = self.random.below(8);
        if kind == 0 && self.fork >= Fork::Berlin {
            let (access_list, gas_limit) = (self.access_list(), gas_limit + 20_000);
            let gas_price = 50 * GWEI;
            let tx = TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input };
            return known(tx.into_signed(signature()).into(), from);
        }
        if kind == 1 || self.fork < Fork::London {
            // Nothing at all is a price before London.
            let gas_price = if kind == 2 { 0 } else { 50 * GWEI };
            let tx = TxLegacy { chain_id: Some(chain_id), nonce, gas_price, gas_limit, to, value, input };
            return known(tx.into_signed(signature()).into(), from);
        }
        let tx = TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: 100 * GWEI,
            max_priority_fee_per_gas: if kind == 2 { 0 } else { 2 * GWEI },
            to,
            value,
            access_list: AccessList::default(),
            input,
        };
        known(tx.into_signed(signature()).into(), from)
    }

    /// Names accounts and slots that others change.
    fn access_list(&mut self) -> AccessList {
        let named = [created(&child_init()), self.beneficiary, COUNTER, self.authority(), NOBODY];
        let item = AccessListItem {
            address: self.random.one_of(&named),
            storage_keys: (0..3).map(|key| U256::from(key).into()).collect(),
        };
        AccessList(vec![item])
    }

    /// A list of authorizations, then a call of somebody who may be in it.
    fn authorize(&mut self, run: &mut Run<'_>, from: Address, sender_nonce: u64) -> Arc<Transaction> {
        let mut next = BTreeMap::from([(from, sender_nonce + 1)]);
        let mut list = Vec::new();
        for _ in 0..=self.random.below(3) {
            let key = self.random.below(delegation::AUTHORITIES);
            let authority = delegation::authority(key);
            let at = *next.entry(authority).or_insert_with(|| nonce(run, authority));
            let target = self.delegate();
            let (chain_id, signed_nonce, good) = match self.random.below(12) {
                0 => (8, at, false),
                1 => (7, at + 1, false),
                2 => (7, at.wrapping_sub(1), false),
                3 => (0, at, true),
                _ => (7, at, true),
            };
            let mut signed = delegation::authorization(key, chain_id, target, signed_nonce);
            if self.random.below(16) == 0 {
                signed = delegation::by_nobody(target, signed_nonce);
            } else if good {
                next.insert(authority, at + 1);
            }
            list.push(signed);
        }
        let (to, input) = match self.random.below(4) {
            0 => (sender(0), vec![]),
            1 => (created(&child_init()), self.words()),
            2 => (self.authority(), vec![]),
            _ => (self.authority(), self.words()),
        };
        let tx = TxEip7702 {
            chain_id: 7,
            nonce: sender_nonce,
            gas_limit: 300_000,
            max_fee_per_gas: 100 * GWEI,
            max_priority_fee_per_gas: if self.random.below(8) == 0 { 0 } else { GWEI },
            to,
            value: U256::from(self.random.below(3)),
            access_list: AccessList::default(),
            authorization_list: list,
            input: input.into(),
        };
        known(tx.into_signed(signature()).into(), from)
    }

    /// Whose code an authority takes: a contract's, none, a delegated account's, a precompile's.
    fn delegate(&mut self) -> Address {
        let other = self.authority();
        self.random.one_of(&[
            Address::ZERO,
            Address::ZERO,
            STORE,
            LOOKER,
            COUNTER,
            TREASURY,
            BURNER,
            FACTORY,
            REVERT,
            created(&child_init()),
            other,
            other,
            Address::with_last_byte(4),
            NOBODY,
        ])
    }
}

/// A block of adversarial traffic, with what it takes to execute it.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct Adversarial {
    /// The chain.
    pub chain: Arc<engine::genesis::ChainSpec>,
    /// The state that the block is executed on.
    pub state: engine::testing::MapState,
    /// Valid transactions; the roots in the header are none.
    pub block: Block,
}

/// A block of so many transactions from a seed; 150 fit the gas of a block.
#[cfg(feature = "testing")]
#[must_use]
pub fn adversarial(fork: Fork, seed: u64, length: usize) -> Adversarial {
    let (world, mut random) = (world(fork), Random::of(seed));
    let block = Traffic::new(&mut random, &world).sealed(length);
    Adversarial { chain: world.chain, state: world.state, block }
}

/// A legacy call, which every fork knows.
pub(crate) fn legacy_call(
    from: Address,
    nonce: u64,
    to: Address,
    value: u64,
    input: Bytes,
    gas_limit: u64,
    gas_price: u128,
) -> Arc<Transaction> {
    let (to, value) = (TxKind::Call(to), U256::from(value));
    let tx = TxLegacy { chain_id: Some(7), nonce, gas_price, gas_limit, to, value, input };
    known(tx.into_signed(signature()).into(), from)
}

fn nonce(run: &mut Run<'_>, address: Address) -> u64 {
    run.account(address).unwrap().map_or(0, |account| account.nonce)
}

fn header(world: &World, beneficiary: Address) -> Header {
    Header {
        number: 1,
        timestamp: world.parent.timestamp + 1,
        gas_limit: GAS_LIMIT,
        beneficiary,
        base_fee_per_gas: Some(GWEI.try_into().unwrap()),
        excess_blob_gas: Some(0),
        ..Header::default()
    }
}

pub(crate) fn block_of(world: &World, transactions: Vec<Arc<Transaction>>) -> Block {
    block_paying(world, PROPOSER, transactions)
}

pub(crate) fn block_paying(world: &World, beneficiary: Address, transactions: Vec<Arc<Transaction>>) -> Block {
    Block {
        consensus: ConsensusHeader::default(),
        header: header(world, beneficiary).seal_slow(),
        body: BlockBody { transactions, withdrawals: None },
    }
}
