//! What the tests of this room share: a chain, a state in a map, transactions, candidates, contracts.

pub(crate) mod tamper;
pub(crate) mod traffic;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use alloy_consensus::{Header, Sealable, Sealed, SignableTransaction, TxEip1559, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2718::Encodable2718,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, bytes};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ports::{BuildSettings, Candidates},
    testing::MapState,
    types::{ConsensusHeader, Envelope, Transaction},
};

pub(crate) const ALICE: Address = address!("00000000000000000000000000000000000a11ce");
pub(crate) const BOB: Address = address!("0000000000000000000000000000000000000b0b");
pub(crate) const POOR: Address = address!("0000000000000000000000000000000000009009");
pub(crate) const PROPOSER: Address = address!("00000000000000000000000000000000000009e9");
/// Stores the first word of its input in slot 0 and logs it.
pub(crate) const STORE: Address = address!("0000000000000000000000000000000000005708");
pub(crate) const STORE_CODE: Bytes = bytes!("5f355f555f355f5260205fa000");
/// Reverts with 42.
pub(crate) const REVERT: Address = address!("0000000000000000000000000000000000008e7e");
pub(crate) const REVERT_CODE: Bytes = bytes!("602a5f5260205ffd");
/// Never ends.
pub(crate) const LOOP: Address = address!("0000000000000000000000000000000000001009");
pub(crate) const LOOP_CODE: Bytes = bytes!("5b5f56");
/// Returns NUMBER, TIMESTAMP, BASEFEE, COINBASE and PREVRANDAO.
pub(crate) const ENV: Address = address!("0000000000000000000000000000000000000e99");
pub(crate) const ENV_CODE: Bytes = bytes!("435f5242602052486040524160605244608052" "60a05ff3");

pub(crate) const ETHER: U256 = U256::from_limbs([1_000_000_000_000_000_000, 0, 0, 0]);
pub(crate) const GWEI: u128 = 1_000_000_000;
pub(crate) const GAS_LIMIT: u64 = 30_000_000;

fn contract(code: &Bytes) -> GenesisAccount {
    GenesisAccount { nonce: 1, balance: U256::ZERO, code: code.clone(), storage: BTreeMap::new() }
}

fn funded(ether: u64) -> GenesisAccount {
    GenesisAccount { balance: ETHER * U256::from(ether), ..GenesisAccount::default() }
}

/// A chain with its block 0 and the state after it.
pub(crate) struct World {
    pub(crate) chain: Arc<ChainSpec>,
    pub(crate) parent: Sealed<Header>,
    pub(crate) state: MapState,
}

impl World {
    pub(crate) fn new(fork: Fork) -> Self {
        Self::with(fork, [])
    }

    /// A chain of this fork with further accounts.
    pub(crate) fn with(fork: Fork, more: impl IntoIterator<Item = (Address, GenesisAccount)>) -> Self {
        let mut alloc = BTreeMap::from([
            (ALICE, funded(1_000)),
            (BOB, funded(1_000)),
            (POOR, GenesisAccount { balance: U256::from(1), ..GenesisAccount::default() }),
            (STORE, contract(&STORE_CODE)),
            (REVERT, contract(&REVERT_CODE)),
            (LOOP, contract(&LOOP_CODE)),
            (ENV, contract(&ENV_CODE)),
        ]);
        alloc.extend(engine::testing::system_contracts());
        alloc.extend(more);
        let mut state = MapState::genesis(&alloc);
        let genesis_header = Header {
            gas_limit: GAS_LIMIT,
            timestamp: 1_000,
            base_fee_per_gas: Some(1_000_000_000),
            state_root: state.root(),
            excess_blob_gas: (fork >= Fork::Cancun).then_some(0),
            blob_gas_used: (fork >= Fork::Cancun).then_some(0),
            ..Header::default()
        };
        let parent = genesis_header.clone().seal_slow();
        state.block_hashes.insert(0, parent.seal());
        let chain = ChainSpec {
            chain_id: 7,
            forks: ForkSchedule::all_at_zero(fork),
            base_fee: BaseFeeParams::SLUICE,
            deposit_contract: None,
            ordering: OrderingParams::default(),
            genesis_header,
            alloc,
        };
        Self { chain: Arc::new(chain), parent, state }
    }

    /// Settings of the next block.
    pub(crate) fn settings(&self) -> BuildSettings {
        let parent_id = B256::repeat_byte(0xaa);
        let consensus = ConsensusHeader {
            chain_id: self.chain.chain_id,
            height: self.parent.number + 1,
            parent_id,
            timestamp_ms: self.parent.timestamp * 1_000 + 200,
            ..ConsensusHeader::default()
        };
        BuildSettings {
            consensus,
            parent_id,
            beneficiary: PROPOSER,
            gas_limit: GAS_LIMIT,
            extra_data: bytes!("5175696365"),
            mix_hash: B256::repeat_byte(0x77),
        }
    }
}

/// Nothing here recovers a sender, so any signature will do.
pub(crate) fn known(envelope: Envelope, sender: Address) -> Arc<Transaction> {
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), sender).unwrap())
}

pub(crate) fn signature() -> Signature {
    Signature::new(U256::from(1), U256::from(1), false)
}

/// A type-2 transaction that pays up to 100 gwei, 2 of them as a tip.
pub(crate) fn send(
    sender: Address,
    nonce: u64,
    to: TxKind,
    value: U256,
    input: Bytes,
    gas_limit: u64,
) -> Arc<Transaction> {
    let tx = TxEip1559 {
        chain_id: 7,
        nonce,
        gas_limit,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: 2 * GWEI,
        to,
        value,
        access_list: Default::default(),
        input,
    };
    known(tx.into_signed(signature()).into(), sender)
}

pub(crate) fn transfer(sender: Address, nonce: u64, to: Address, value: U256) -> Arc<Transaction> {
    send(sender, nonce, to.into(), value, Bytes::new(), 21_000)
}

pub(crate) fn legacy(sender: Address, nonce: u64, gas_price: u128) -> Arc<Transaction> {
    let tx = TxLegacy { chain_id: Some(7), nonce, gas_price, gas_limit: 21_000, to: BOB.into(), ..TxLegacy::default() };
    known(tx.into_signed(signature()).into(), sender)
}

/// A type-4 transaction whose authorization nobody signed, so it delegates nothing.
pub(crate) fn delegate(sender: Address, nonce: u64) -> Arc<Transaction> {
    let authorization = Authorization { chain_id: U256::from(7), address: STORE, nonce: 0 };
    let signed = SignedAuthorization::new_unchecked(authorization, 0, U256::ZERO, U256::ZERO);
    let tx = TxEip7702 {
        chain_id: 7,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: BOB,
        authorization_list: vec![signed],
        ..TxEip7702::default()
    };
    known(tx.into_signed(signature()).into(), sender)
}

/// A blob transaction, which no Sluice block may carry.
pub(crate) fn blob(sender: Address, nonce: u64) -> Arc<Transaction> {
    let mut hash = B256::repeat_byte(5);
    hash.0[0] = 1;
    let tx = TxEip4844 {
        chain_id: 7,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: BOB,
        blob_versioned_hashes: vec![hash],
        max_fee_per_blob_gas: GWEI,
        ..TxEip4844::default()
    };
    known(Envelope::Eip4844(tx.into_signed(signature())), sender)
}

/// Candidates in a given order; remembers who was skipped.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Arc<Transaction>>,
    pub(crate) skipped: HashSet<Address>,
    pub(crate) thrown_out: Vec<B256>,
    pub(crate) given_back: bool,
}

impl Queue {
    pub(crate) fn of(transactions: impl IntoIterator<Item = Arc<Transaction>>) -> Self {
        Self { waiting: transactions.into_iter().collect(), ..Self::default() }
    }
}

impl Candidates for Queue {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        while let Some(transaction) = self.waiting.pop_front() {
            if !self.skipped.contains(&transaction.sender()) {
                return Some(transaction);
            }
        }
        None
    }

    fn give_back(&mut self) {
        self.given_back = true;
    }

    fn skip_sender(&mut self, sender: Address) {
        self.skipped.insert(sender);
    }

    fn throw_out(&mut self, transaction: &Transaction) {
        self.skip_sender(transaction.sender());
        self.thrown_out.push(transaction.hash());
    }
}
