//! The chain of a simulation: all forks, some validators with keys that everybody can read, some rich accounts.

use std::sync::Arc;

use alloy_consensus::{Header, constants::EMPTY_WITHDRAWALS};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B256, Bytes, U256};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, GenesisValidator, OrderingParams},
    testing::MockSigner,
};

use crate::wallet::{CHAIN_ID, account};

/// Accounts that send.
pub(super) const SENDERS: u32 = 6;

/// Heights of an epoch.
pub(super) const EPOCH_HEIGHTS: u64 = 24;

/// The key of a validator.
pub(super) const fn signer(validator: usize) -> MockSigner {
    MockSigner::new(validator as u64 + 1)
}

fn validator(number: usize) -> GenesisValidator {
    GenesisValidator {
        bls_pubkey: Bytes::copy_from_slice(signer(number).public_key().0.as_slice()),
        proof_of_possession: Bytes::from(vec![0; 96]),
        identity: Bytes::new(),
        addresses: Vec::new(),
        stake: 1,
        fee_recipient: Address::ZERO,
    }
}

/// The chain that all nodes are of.
pub(super) fn chain(validators: usize) -> Arc<ChainSpec> {
    let mut alloc = engine::testing::system_contracts();
    for index in 0..SENDERS {
        let rich = GenesisAccount { balance: U256::MAX >> 8, ..GenesisAccount::default() };
        alloc.insert(account(index).address(), rich);
    }
    let genesis_header = Header {
        gas_limit: 30_000_000,
        timestamp: 1_000,
        base_fee_per_gas: Some(1_000_000_000),
        state_root: storage::genesis::state_root(&alloc),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    };
    Arc::new(ChainSpec {
        chain_id: CHAIN_ID,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams {
            slot_time_ms: 100,
            delta_ms: 100,
            idle_interval_ms: 300,
            epoch_slots: EPOCH_HEIGHTS,
            validators: (0..validators).map(validator).collect(),
            ..OrderingParams::default()
        },
        genesis_header,
        alloc,
    })
}
