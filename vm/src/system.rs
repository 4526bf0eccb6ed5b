//! What a block does by itself: calls of system contracts, requests to the consensus layer, withdrawals.
//!
//! ```text
//! before the transactions   EIP-4788 (parent beacon block root), then EIP-2935 (parent hash)
//! after them                EIP-6110 (deposits, from logs), EIP-7002 (withdrawals), EIP-7251 (consolidations)
//! then                      EIP-4895 (withdrawals credited)
//! ```
//!
//! The two calls before are skipped where the contract is missing; a missing or failing contract after
//! makes the block invalid.

use alloy_consensus::Header;
use alloy_eips::{
    eip2935::HISTORY_STORAGE_ADDRESS,
    eip4788::BEACON_ROOTS_ADDRESS,
    eip4895::Withdrawals,
    eip6110::DEPOSIT_REQUEST_TYPE,
    eip7002::{WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, WITHDRAWAL_REQUEST_TYPE},
    eip7251::{CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_TYPE},
    eip7685::Requests,
};
use alloy_primitives::{Address, B256, Bytes, U256, b256};
use engine::{
    genesis::{ChainSpec, Fork},
    ports::ExecutionError,
    types::{Account, Receipt},
};
use revm::{
    DatabaseCommit, SystemCallEvm,
    context_interface::result::{ExecutionResult, HaltReason},
};

use crate::{error::Refusal, sequential::BlockEvm};

/// Topic of `DepositEvent(bytes,bytes,bytes,bytes,bytes)`.
const DEPOSIT_TOPIC: B256 = b256!("649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5");
/// Bytes of a deposit event: five offsets, then five strings with their lengths, padded to words.
const DEPOSIT_EVENT_BYTES: usize = 576;
/// Where each string of a deposit event has its length word, and how long the string is.
const DEPOSIT_FIELDS: [(usize, usize); 5] = [(160, 48), (256, 32), (320, 8), (384, 96), (512, 8)];
/// Withdrawals count in gwei.
const GWEI: u64 = 1_000_000_000;

/// Makes the calls that come before the first transaction.
///
/// # Errors
/// [`ExecutionError::State`]; what the contracts answer does not matter.
pub fn before_transactions(evm: &mut BlockEvm<'_>, fork: Fork, header: &Header) -> Result<(), ExecutionError> {
    if header.number == 0 {
        return Ok(());
    }
    if let Some(root) = header.parent_beacon_block_root
        && fork >= Fork::Cancun
    {
        call(evm, BEACON_ROOTS_ADDRESS, root.0.into())?;
    }
    if fork >= Fork::Prague {
        call(evm, HISTORY_STORAGE_ADDRESS, header.parent_hash.0.into())?;
    }
    Ok(())
}

/// Collects the requests of EIP-7685 after the last transaction; none before Prague.
///
/// # Errors
/// [`ExecutionError::Invalid`] if a deposit log has another layout than the deposit contract's, or if a
/// system contract is missing or fails.
pub fn requests(
    evm: &mut BlockEvm<'_>,
    chain: &ChainSpec,
    fork: Fork,
    receipts: &[Receipt],
) -> Result<Option<Requests>, ExecutionError> {
    if fork < Fork::Prague {
        return Ok(None);
    }
    let mut requests = Requests::default();
    let deposits = chain.deposit_contract.map_or_else(|| Ok(Vec::new()), |contract| deposits(contract, receipts))?;
    requests.push_request_with_type(DEPOSIT_REQUEST_TYPE, deposits);
    for (kind, name, address) in [
        (WITHDRAWAL_REQUEST_TYPE, "withdrawal requests (EIP-7002)", WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS),
        (CONSOLIDATION_REQUEST_TYPE, "consolidation requests (EIP-7251)", CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS),
    ] {
        let account = evm.ctx.journaled_state.database.account(address)?;
        if !account.is_some_and(|account: Account| account.has_code()) {
            return Err(ExecutionError::Invalid(format!("system contract of {name} at {address} has no code")));
        }
        match call(evm, address, Bytes::new())? {
            ExecutionResult::Success { output, .. } => requests.push_request_with_type(kind, output.into_data()),
            failed => return Err(ExecutionError::Invalid(format!("system contract of {name} failed: {failed}"))),
        }
    }
    Ok(Some(requests))
}

/// Credits the withdrawals of EIP-4895.
///
/// # Errors
/// [`ExecutionError::State`].
pub fn withdrawals(evm: &mut BlockEvm<'_>, withdrawals: Option<&Withdrawals>) -> Result<(), ExecutionError> {
    for withdrawal in withdrawals.iter().flat_map(|list| list.iter()) {
        let amount = U256::from(withdrawal.amount).saturating_mul(U256::from(GWEI));
        evm.ctx.journaled_state.database.credit(withdrawal.address, amount)?;
    }
    Ok(())
}

/// Calls a contract as the system; an address without code answers with success and changes nothing.
fn call(
    evm: &mut BlockEvm<'_>,
    contract: Address,
    input: Bytes,
) -> Result<ExecutionResult<HaltReason>, ExecutionError> {
    let outcome = evm.system_call(contract, input).map_err(|error| match Refusal::from(error) {
        Refusal::State(state) => ExecutionError::State(state),
        other => ExecutionError::Invalid(format!("system contract {contract}: {other}")),
    })?;
    evm.ctx.journaled_state.database.commit(outcome.state);
    Ok(outcome.result)
}

/// The data of all deposits that the receipts log, in order.
fn deposits(contract: Address, receipts: &[Receipt]) -> Result<Vec<u8>, ExecutionError> {
    let mut data = Vec::new();
    let logs = receipts.iter().flat_map(|receipt| &receipt.logs);
    for log in logs.filter(|log| log.address == contract && log.topics().first() == Some(&DEPOSIT_TOPIC)) {
        let event = &log.data.data;
        let layout_error = || ExecutionError::Invalid(format!("deposit event has the layout {event}"));
        if event.len() != DEPOSIT_EVENT_BYTES {
            return Err(layout_error());
        }
        let word = |offset: usize| event.get(offset..offset.saturating_add(32)).map(U256::from_be_slice);
        for (field, (offset, length)) in DEPOSIT_FIELDS.into_iter().enumerate() {
            let start = offset.saturating_add(32);
            if word(field.saturating_mul(32)) != Some(U256::from(offset)) || word(offset) != Some(U256::from(length)) {
                return Err(layout_error());
            }
            data.extend_from_slice(event.get(start..start.saturating_add(length)).ok_or_else(layout_error)?);
        }
    }
    Ok(data)
}
