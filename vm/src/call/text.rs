//! geth's words for why a call halted or could not start.
//!
//! Tools and people match on these texts, so they are taken over to the letter.
//!
//! Source: go-ethereum `core/vm/errors.go`, `core/error.go`, `core/state_transition.go`.

use alloy_primitives::U256;
use engine::query::CallRequest;
use revm::{
    bytecode::opcode::OpCode,
    context_interface::result::{HaltReason, InvalidTransaction},
    primitives::eip3860::MAX_INITCODE_SIZE,
};

use super::watch::Watch;

/// Slots of an EVM stack.
const STACK_MAX: usize = 1_024;

/// Why an execution stopped.
pub(crate) fn halt(reason: &HaltReason, watch: &Watch<'_>) -> String {
    let fixed = match reason {
        HaltReason::OutOfGas(_) => "out of gas",
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode | HaltReason::NotActivated => {
            return format!("invalid opcode: {}", opcode(watch.opcode()));
        }
        HaltReason::StackUnderflow => {
            let wanted = OpCode::info_by_op(watch.opcode()).map_or(0, |info| info.inputs());
            return format!("stack underflow ({} <=> {wanted})", watch.stack_height());
        }
        HaltReason::StackOverflow => {
            let (inputs, outputs) =
                OpCode::info_by_op(watch.opcode()).map_or((0, 0), |info| (info.inputs(), info.outputs()));
            let limit = STACK_MAX.saturating_add(usize::from(inputs)).saturating_sub(usize::from(outputs));
            return format!("stack limit reached {} ({limit})", watch.stack_height());
        }
        HaltReason::InvalidJump => "invalid jump destination",
        HaltReason::OutOfOffset => "return data out of bounds",
        HaltReason::CreateCollision => "contract address collision",
        HaltReason::PrecompileErrorWithContext(message) => return message.clone(),
        HaltReason::NonceOverflow => "nonce uint64 overflow",
        HaltReason::CreateContractSizeLimit => "max code size exceeded",
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded",
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => "write protection",
        HaltReason::OutOfFunds => "insufficient balance for transfer",
        HaltReason::CallTooDeep => "max call depth exceeded",
        other => return other.to_string(),
    };
    fixed.to_owned()
}

fn opcode(byte: u8) -> String {
    OpCode::new(byte).map_or_else(|| format!("opcode {byte:#x} not defined"), |known| known.as_str().to_owned())
}

/// Why a transaction could not start.
pub(crate) fn refusal(invalid: &InvalidTransaction, request: &CallRequest, base_fee: u64) -> String {
    let from = request.from;
    match invalid {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => funds(request, **balance, **fee),
        InvalidTransaction::OverflowPaymentInTransaction => {
            format!("insufficient funds for gas * price + value: address {from} required balance exceeds 256 bits")
        }
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => format!(
            "max fee per gas less than block base fee: address {from}, maxFeePerGas: {}, baseFee: {base_fee}",
            request.gas_price
        ),
        InvalidTransaction::PriorityFeeGreaterThanMaxFee => format!(
            "max priority fee per gas higher than max fee per gas: address {from}, maxPriorityFeePerGas: {}, \
             maxFeePerGas: {}",
            request.priority_fee.unwrap_or_default(),
            request.gas_price
        ),
        InvalidTransaction::CreateInitCodeSizeLimit => {
            format!("max initcode size exceeded: code size {} limit {MAX_INITCODE_SIZE}", request.input.len())
        }
        InvalidTransaction::NonceOverflowInTransaction => {
            format!("nonce has max value: address {from}, nonce: {}", request.nonce.unwrap_or(u64::MAX))
        }
        other => other.to_string(),
    }
}

/// The sender has `have` wei and needs `want`.
fn funds(request: &CallRequest, have: U256, want: U256) -> String {
    format!("insufficient funds for gas * price + value: address {} have {have} want {want}", request.from)
}
