//! A block on a state in memory, executed by the plain loop: what a worst case costs and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, U256};
use bench::worst::{Account, WorstCall};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    testing::MapState,
    types::{Block, BlockBody, ConsensusHeader, Envelope, Transaction},
};
use vm::{RevmExecutor, sequential::Finished};

const CHAIN_ID: u64 = 31_337;

const SENDER: Address = Address::repeat_byte(0xaa);

const BASE_FEE: u64 = 1_000_000_000;

/// A state, an executor and a block.
pub(crate) struct Arena {
    state: MapState,
    executor: RevmExecutor,
    block: Block,
}

impl Arena {
    /// A block of `calls` by one sender, on a state of `accounts`.
    pub(crate) fn new(accounts: &[Account], calls: &[WorstCall]) -> Self {
        let mut alloc: BTreeMap<_, _> = accounts.iter().map(genesis_account).collect();
        alloc.insert(SENDER, GenesisAccount { balance: U256::MAX >> 8, ..GenesisAccount::default() });
        let state = MapState::genesis(&alloc);
        let chain = ChainSpec {
            chain_id: CHAIN_ID,
            forks: ForkSchedule::all_at_zero(Fork::Osaka),
            base_fee: BaseFeeParams::SLUICE,
            deposit_contract: None,
            ordering: OrderingParams::default(),
            genesis_header: Header::default(),
            alloc: BTreeMap::new(),
        };
        let header = Header {
            number: 1,
            timestamp: 1_001,
            gas_limit: calls.iter().map(|call| call.gas_limit).sum(),
            beneficiary: Address::with_last_byte(0xfe),
            base_fee_per_gas: Some(BASE_FEE),
            excess_blob_gas: Some(0),
            ..Header::default()
        };
        let transactions = (0..).zip(calls).map(|(nonce, call)| transaction(nonce, call)).collect();
        let block = Block {
            consensus: ConsensusHeader::default(),
            header: header.seal_slow(),
            body: BlockBody { transactions, withdrawals: None },
        };
        Self { state, executor: RevmExecutor::new(Arc::new(chain)), block }
    }

    /// Executes the block.
    pub(crate) fn run(&self) -> Finished {
        self.executor.transactions(&self.state, &self.block, false).expect("every transaction is valid")
    }
}

fn genesis_account(account: &Account) -> (Address, GenesisAccount) {
    let storage = account.storage.iter().copied().collect();
    (account.address, GenesisAccount { nonce: 1, balance: U256::ZERO, code: account.code.clone(), storage })
}

/// Nothing here recovers a sender, so any signature will do.
fn transaction(nonce: u64, call: &WorstCall) -> Arc<Transaction> {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: call.gas_limit,
        max_fee_per_gas: 2 * u128::from(BASE_FEE),
        max_priority_fee_per_gas: 1,
        to: call.call.to,
        value: call.call.value,
        access_list: Default::default(),
        input: call.call.input.clone(),
    };
    let envelope: Envelope = tx.into_signed(Signature::new(U256::from(1), U256::from(1), false)).into();
    let raw = envelope.encoded_2718().into();
    Arc::new(Transaction::with_known_sender(raw, SENDER).expect("it was encoded here"))
}
