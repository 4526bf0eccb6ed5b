//! revm's settings for a block, a chain and a transaction.
//!
//! Source: EIP-4399 (randomness), EIP-4844 and EIP-7840 (blob fee), EIP-7825 (gas cap).

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::eip7840::BlobParams;
use alloy_primitives::U256;
use engine::{
    genesis::{ChainSpec, Fork},
    types::Transaction,
};
use revm::{
    context::{BlockEnv, CfgEnv, TxEnv, either::Either},
    context_interface::block::BlobExcessGasAndPrice,
    primitives::hardfork::SpecId,
};

/// revm's name of a fork.
#[must_use]
pub const fn spec_id(fork: Fork) -> SpecId {
    match fork {
        Fork::Frontier => SpecId::FRONTIER,
        Fork::Homestead => SpecId::HOMESTEAD,
        Fork::Tangerine => SpecId::TANGERINE,
        Fork::SpuriousDragon => SpecId::SPURIOUS_DRAGON,
        Fork::Byzantium => SpecId::BYZANTIUM,
        Fork::Petersburg => SpecId::PETERSBURG,
        Fork::Istanbul => SpecId::ISTANBUL,
        Fork::Berlin => SpecId::BERLIN,
        Fork::London => SpecId::LONDON,
        Fork::Paris => SpecId::MERGE,
        Fork::Shanghai => SpecId::SHANGHAI,
        Fork::Cancun => SpecId::CANCUN,
        Fork::Prague => SpecId::PRAGUE,
        Fork::Osaka => SpecId::OSAKA,
    }
}

/// The chain's settings at a block time.
///
/// Fork and gas table are set together: setting the fork alone leaves another fork's table.
#[must_use]
pub fn chain(chain: &ChainSpec, timestamp: u64) -> CfgEnv {
    let mut cfg = CfgEnv::default();
    cfg.set_spec_and_mainnet_gas_params(spec_id(chain.fork_at(timestamp)));
    cfg.chain_id = chain.chain_id;
    if let Some(blobs) = chain.forks.blobs_at(timestamp) {
        cfg.max_blobs_per_tx = Some(blobs.max_blobs_per_tx);
        cfg.blob_base_fee_update_fraction = u64::try_from(blobs.update_fraction).ok();
    }
    cfg
}

/// The block's settings, from its header.
#[must_use]
pub fn block(chain: &ChainSpec, header: &Header) -> BlockEnv {
    let fork = chain.fork_at(header.timestamp);
    let blobs = chain.forks.blobs_at(header.timestamp).copied().unwrap_or_else(BlobParams::cancun);
    let blob_excess_gas_and_price = header.excess_blob_gas.map(|excess_blob_gas| BlobExcessGasAndPrice {
        excess_blob_gas,
        blob_gasprice: blobs.calc_blob_fee(excess_blob_gas),
    });
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: header.difficulty,
        prevrandao: (fork >= Fork::Paris).then_some(header.mix_hash),
        blob_excess_gas_and_price,
        slot_num: 0,
    }
}

/// A transaction's settings; call data is shared, lists are copied.
#[must_use]
pub fn transaction(transaction: &Transaction) -> TxEnv {
    let envelope = transaction.envelope();
    TxEnv {
        tx_type: transaction.type_byte(),
        caller: transaction.sender(),
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: envelope.max_priority_fee_per_gas(),
        blob_hashes: envelope.blob_versioned_hashes().map(<[_]>::to_vec).unwrap_or_default(),
        max_fee_per_blob_gas: envelope.max_fee_per_blob_gas().unwrap_or_default(),
        authorization_list: envelope
            .authorization_list()
            .map(|list| list.iter().cloned().map(Either::Left).collect())
            .unwrap_or_default(),
    }
}
