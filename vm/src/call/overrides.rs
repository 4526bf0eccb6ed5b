//! The pretended changes of a call: to its block, and to the state below it.

use alloy_consensus::Header;
use alloy_primitives::{KECCAK256_EMPTY, keccak256};
use engine::{
    ports::CallError,
    query::{AccountOverride, CallBlock, CallRequest},
    types::Account,
};

use revm::{
    precompile::{PrecompileSpecId, Precompiles},
    primitives::hardfork::SpecId,
};

use crate::{code, database::BlockState};

/// The header whose environment the call sees. The height stays; NUMBER is replaced behind it.
pub(crate) fn header(block: &CallBlock) -> Header {
    let mut header = block.header.clone();
    let overrides = &block.overrides;
    header.timestamp = overrides.timestamp.unwrap_or(header.timestamp);
    header.gas_limit = overrides.gas_limit.unwrap_or(header.gas_limit);
    header.beneficiary = overrides.beneficiary.unwrap_or(header.beneficiary);
    header.mix_hash = overrides.random.unwrap_or(header.mix_hash);
    header.base_fee_per_gas = overrides.base_fee.or(header.base_fee_per_gas);
    header.excess_blob_gas = Some(header.excess_blob_gas.unwrap_or_default());
    header
}

/// Puts the request's state and block hashes over the state below.
pub(crate) fn apply(state: &mut BlockState<'_>, spec: SpecId, request: &CallRequest) -> Result<(), CallError> {
    let precompiles = Precompiles::new(PrecompileSpecId::from_spec_id(spec));
    for (height, hash) in &request.block.overrides.block_hashes {
        state.replace_block_hash(*height, *hash);
    }
    for (address, changed) in &request.state_overrides {
        if changed.code.is_some() && precompiles.contains(address) {
            return Err(CallError::Refused(format!("account {address} is a precompile: its code cannot be replaced")));
        }
        if changed.storage.is_some() && !changed.storage_diff.is_empty() {
            return Err(CallError::Refused(format!("account {address} has both 'state' and 'stateDiff'")));
        }
        apply_account(state, *address, changed)?;
        if let Some(storage) = &changed.storage {
            state.replace_slots(*address, true, storage.iter().map(|(key, value)| (*key, *value)))?;
        }
        state.replace_slots(*address, false, changed.storage_diff.iter().map(|(key, value)| (*key, *value)))?;
    }
    Ok(())
}

fn apply_account(
    state: &mut BlockState<'_>,
    address: alloy_primitives::Address,
    changed: &AccountOverride,
) -> Result<(), CallError> {
    let mut account: Account = state.account(address)?.unwrap_or_default();
    account.nonce = changed.nonce.unwrap_or(account.nonce);
    account.balance = changed.balance.unwrap_or(account.balance);
    let code = match &changed.code {
        Some(bytes) if bytes.is_empty() => {
            account.code_hash = KECCAK256_EMPTY;
            None
        }
        Some(bytes) => {
            account.code_hash = keccak256(bytes);
            Some(code::analyse(bytes.clone()))
        }
        None => None,
    };
    Ok(state.replace(address, account, code)?)
}
