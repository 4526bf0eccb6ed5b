//! What can be said about a transaction without any state: form, fork, intrinsic gas.
//!
//! Source: EIP-2028, 2681, 2930, 3860, 7623, 7702, 7825, by way of revm.

use alloy_primitives::TxKind;
use engine::{genesis::Fork, types::Transaction};
use revm::{
    context::CfgEnv,
    context_interface::{Cfg as _, result::InvalidTransaction, transaction::TransactionType},
    handler::validation,
};

use crate::env;

/// Intrinsic gas of a transaction under `fork`, and the floor of EIP-7623 (0 before Prague).
#[must_use]
pub fn gas(fork: Fork, transaction: &Transaction) -> (u64, u64) {
    let mut cfg = CfgEnv::default();
    cfg.set_spec_and_mainnet_gas_params(env::spec_id(fork));
    let gas = cfg.gas_params.initial_tx_gas_for_tx(env::transaction(transaction), None);
    (gas.initial_total_gas(), if fork >= Fork::Prague { gas.floor_gas() } else { 0 })
}

/// Checks all rules of `fork` that need neither state nor block, and returns the intrinsic gas.
///
/// The blob fee and the base fee are the block's; nonce and balance are the state's.
///
/// # Errors
/// The rule, in revm's words.
pub fn check(fork: Fork, chain_id: u64, transaction: &Transaction) -> Result<u64, InvalidTransaction> {
    let mut cfg = CfgEnv::default();
    cfg.set_spec_and_mainnet_gas_params(env::spec_id(fork));
    let tx = env::transaction(transaction);
    let since = match TransactionType::from(tx.tx_type) {
        TransactionType::Legacy => Fork::Frontier,
        TransactionType::Eip2930 => Fork::Berlin,
        TransactionType::Eip1559 => Fork::London,
        TransactionType::Eip4844 => Fork::Cancun,
        TransactionType::Eip7702 => Fork::Prague,
        TransactionType::Custom => return Err(InvalidTransaction::Str("transaction type not supported".into())),
    };
    if fork < since {
        return Err(InvalidTransaction::Str("transaction type not supported".into()));
    }
    if tx.chain_id.is_some_and(|id| id != chain_id) {
        return Err(InvalidTransaction::InvalidChainId);
    }
    if tx.gas_limit > cfg.tx_gas_limit_cap() {
        return Err(InvalidTransaction::TxGasLimitGreaterThanCap {
            gas_limit: tx.gas_limit,
            cap: cfg.tx_gas_limit_cap(),
        });
    }
    validation::validate_priority_fee_tx(tx.gas_price, tx.gas_priority_fee.unwrap_or_default(), None, false)?;
    if fork >= Fork::Shanghai && tx.kind == TxKind::Create && tx.data.len() > cfg.max_initcode_size() {
        return Err(InvalidTransaction::CreateInitCodeSizeLimit);
    }
    if tx.nonce == u64::MAX {
        return Err(InvalidTransaction::NonceOverflowInTransaction);
    }
    if tx.tx_type == 4 && tx.authorization_list.is_empty() {
        return Err(InvalidTransaction::EmptyAuthorizationList);
    }
    let cap = cfg.tx_gas_limit_cap();
    let gas = validation::validate_initial_tx_gas_with_gas_params(
        &tx,
        *cfg.spec(),
        &cfg.gas_params,
        false,
        false,
        cap,
        None,
    )?;
    Ok(gas.initial_total_gas())
}
