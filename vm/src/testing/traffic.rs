//! Traffic for tests: valid transactions that meet each other in every way there is, from a seed.
//!
//! Senders share recipients, slots and the fee recipient; contracts are created, ended and created again;
//! accounts are funded and send in the same block; calls fail, revert and run out of gas.

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip7702};
use alloy_eips::{
    eip2718::Encodable2718,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, bytes, hex, keccak256};
use engine::{
    genesis::{Fork, GenesisAccount},
    types::{Block, BlockBody, ConsensusHeader, Envelope, Transaction},
};

use super::{BOB, ETHER, GAS_LIMIT, GWEI, LOOP, POOR, PROPOSER, REVERT, STORE, World, known, legacy, send};

/// Numbers of threads that every mode must agree on.
pub(crate) const THREADS: [usize; 6] = [1, 2, 3, 4, 8, 16];

/// Deploys its input as init code with CREATE2 and salt 0.
const FACTORY: Address = address!("00000000000000000000000000000000000fac70");
const FACTORY_CODE: Bytes = bytes!("36600060003760003660006000f55000");

/// Called without input it ends and pays the caller; else it reads the slot after the one its first word names,
/// and writes its second word into that one.
const CHILD: [u8; 22] = hex!("3660065733ff5b6000358060010154506020359055" "00");

/// Writes slot 1, reads slot 2 and deploys the child.
const CHILD_INIT: [u8; 21] = hex!("600760015560025450" "601660156000396016" "6000f3");

/// Writes slot 1 and ends before it was there.
pub(crate) const SHORT_LIVED_INIT: Bytes = bytes!("600760015533ff");

/// Looks at the proposer's balance, at balance and code of the address in its input, and keeps the parent's hash.
const LOOKER: Address = address!("000000000000000000000000000000000000100c");
const LOOKER_CODE: Bytes = bytes!("413150" "6000353150" "6000353b50" "436001900340" "60005500");

/// Numbers for a test that can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(test: &str) -> Self {
        let seed = std::env::var("SLUICE_SEED").map_or(1_u64, |text| text.parse().unwrap());
        eprintln!("{test}: seed {seed} (repeat with SLUICE_SEED={seed})");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
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

pub(crate) fn world(fork: Fork) -> World {
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
pub(crate) struct Traffic<'r> {
    pub(crate) random: &'r mut Random,
    fork: Fork,
    nonces: BTreeMap<Address, u64>,
    poor_is_funded: bool,
}

impl<'r> Traffic<'r> {
    pub(crate) const fn new(random: &'r mut Random, fork: Fork) -> Self {
        Self { random, fork, nonces: BTreeMap::new(), poor_is_funded: false }
    }

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

    pub(crate) fn block(&mut self, length: usize) -> Vec<Arc<Transaction>> {
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

pub(crate) fn block_of(world: &World, transactions: Vec<Arc<Transaction>>) -> Block {
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
