//! The checks of admission, cheapest first.
//!
//! ```text
//! bytes   size, envelope, type, chain id                      no curve, no state
//! fields  gas against block, cap, intrinsic and floor; fees   no curve, no state
//! room    a full pool's lowest fee                            under the pool's lock
//! sender  one recovery                                        30 us
//! state   sender's code, nonce, balance                       one read
//! pool    duplicate, replacement, limits                      under the pool's lock
//! ```
//!
//! Source: EIP-2, 155, 1559, 2028, 2930, 3607, 3860, 7623, 7702, 7825.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Bytes, KECCAK256_EMPTY};

use super::error::AdmissionError;
use crate::{
    genesis::{ChainSpec, Fork},
    limits,
    ports::StateView,
    types::{
        Account, Envelope, Transaction,
        transaction::{self, TransactionError},
    },
};

/// EIP-7702: code that begins with these bytes is a delegation.
const DELEGATION_PREFIX: [u8; 3] = [0xef, 0x01, 0x00];

/// Most bytes of init code (EIP-3860).
const INIT_CODE_BYTES_MAX: usize = 2 * 24_576;

/// Gas a transaction costs before its first opcode, and the floor its call data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntrinsicGas {
    /// Base cost, call data, creation, access list and authorizations.
    pub initial: u64,
    /// EIP-7623 floor; 0 before Prague.
    pub floor: u64,
}

/// Computes what a transaction costs before it runs, from Shanghai's rules on.
#[must_use]
pub fn intrinsic_gas(envelope: &Envelope, fork: Fork) -> IntrinsicGas {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let input = envelope.input();
    let zeros = count(input.iter().filter(|byte| **byte == 0).count());
    let others = count(input.len()).saturating_sub(zeros);
    let tokens = zeros.saturating_add(others.saturating_mul(4));

    let mut initial = 21_000_u64.saturating_add(tokens.saturating_mul(4));
    if envelope.kind().is_create() {
        initial = initial.saturating_add(32_000);
        if fork >= Fork::Shanghai {
            initial = initial.saturating_add(count(input.len().div_ceil(32)).saturating_mul(2));
        }
    }
    if let Some(list) = envelope.access_list() {
        let keys: usize = list.iter().map(|item| item.storage_keys.len()).sum();
        initial = initial.saturating_add(count(list.len()).saturating_mul(2_400));
        initial = initial.saturating_add(count(keys).saturating_mul(1_900));
    }
    let authorizations = envelope.authorization_list().map_or(0, <[_]>::len);
    initial = initial.saturating_add(count(authorizations).saturating_mul(25_000));
    let floor = if fork >= Fork::Prague { 21_000_u64.saturating_add(tokens.saturating_mul(10)) } else { 0 };
    IntrinsicGas { initial, floor }
}

/// Decodes the bytes and makes every check that needs neither curve nor state.
///
/// `gas_limit` is that of a block, `fork` the one in force now.
///
/// # Errors
/// The first check that fails, in cost order.
pub fn stateless(raw: &Bytes, chain: &ChainSpec, fork: Fork, gas_limit: u64) -> Result<Envelope, AdmissionError> {
    if raw.len() > limits::TRANSACTION_BYTES_MAX {
        return Err(AdmissionError::Oversized { size: raw.len(), limit: limits::TRANSACTION_BYTES_MAX });
    }
    match raw.first() {
        Some(3) => return Err(AdmissionError::TypeNotSupported("blob transactions are not accepted by this chain")),
        Some(0 | 5..=0x7f) => return Err(AdmissionError::TypeNotSupported("unknown type")),
        None => return Err(AdmissionError::Malformed(TransactionError::Malformed("input too short".to_owned()))),
        _ => {}
    }
    let envelope = transaction::decode(raw).map_err(AdmissionError::Malformed)?;
    match envelope.chain_id() {
        None => return Err(AdmissionError::Unprotected),
        Some(have) if have != chain.chain_id => {
            return Err(AdmissionError::WrongChain { have, want: chain.chain_id });
        }
        Some(_) => {}
    }
    if envelope.is_eip7702() && fork < Fork::Prague {
        return Err(AdmissionError::TypeNotSupported("set-code transactions begin with Prague"));
    }
    if envelope.authorization_list().is_some_and(<[_]>::is_empty) {
        return Err(AdmissionError::EmptyAuthorizations);
    }
    gas(&envelope, fork, gas_limit)?;
    fees(&envelope, chain)?;
    Ok(envelope)
}

fn gas(envelope: &Envelope, fork: Fork, block_limit: u64) -> Result<(), AdmissionError> {
    let (gas, input) = (envelope.gas_limit(), envelope.input());
    if fork >= Fork::Shanghai && envelope.kind().is_create() && input.len() > INIT_CODE_BYTES_MAX {
        return Err(AdmissionError::InitCode { size: input.len(), limit: INIT_CODE_BYTES_MAX });
    }
    if gas > block_limit {
        return Err(AdmissionError::GasAboveBlock { gas, limit: block_limit });
    }
    if fork >= Fork::Osaka && gas > limits::TRANSACTION_GAS_MAX_OSAKA {
        return Err(AdmissionError::GasAboveCap { gas, cap: limits::TRANSACTION_GAS_MAX_OSAKA });
    }
    let intrinsic = intrinsic_gas(envelope, fork);
    if gas < intrinsic.initial {
        return Err(AdmissionError::IntrinsicGas { gas, needed: intrinsic.initial });
    }
    if gas < intrinsic.floor {
        return Err(AdmissionError::FloorGas { gas, needed: intrinsic.floor });
    }
    Ok(())
}

fn fees(envelope: &Envelope, chain: &ChainSpec) -> Result<(), AdmissionError> {
    let fee = envelope.max_fee_per_gas();
    if let Some(tip) = envelope.max_priority_fee_per_gas()
        && tip > fee
    {
        return Err(AdmissionError::TipAboveFee { tip, fee });
    }
    let minimum = u128::from(chain.base_fee.minimum);
    if fee < minimum {
        return Err(AdmissionError::Underpriced { fee, minimum });
    }
    Ok(())
}

/// What the pool must know of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its account; the default where the trie has none.
    pub account: Account,
    /// Whether its code is a delegation of EIP-7702.
    pub delegated: bool,
}

/// Reads the sender and refuses contracts (EIP-3607).
///
/// # Errors
/// [`AdmissionError::SenderHasCode`], [`AdmissionError::State`].
pub fn sender(transaction: &Transaction, view: &dyn StateView) -> Result<Sender, AdmissionError> {
    let address = transaction.sender();
    let account = view.account(address)?.unwrap_or_default();
    let mut delegated = false;
    if account.code_hash != KECCAK256_EMPTY {
        delegated = view.code(account.code_hash)?.starts_with(&DELEGATION_PREFIX);
        if !delegated {
            return Err(AdmissionError::SenderHasCode(address));
        }
    }
    Ok(Sender { account, delegated })
}
