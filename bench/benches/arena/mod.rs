//! A block on a state in memory, executed by the plain loop: what a worst case costs and nothing else.

#[path = "../calls/mod.rs"]
mod calls;

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Header, Sealable};
use alloy_primitives::{Address, U256};
use bench::worst::{Account, WorstCall};
use calls::{CHAIN_ID, transaction};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    testing::MapState,
    types::{Block, BlockBody, ConsensusHeader},
};
use vm::{RevmExecutor, sequential::Finished};

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
        let fee_max = 2 * u128::from(BASE_FEE);
        let signed = |(nonce, call)| transaction(SENDER, nonce, fee_max, call);
        let transactions = (0..).zip(calls).map(signed).collect();
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
