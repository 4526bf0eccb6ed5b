//! Gas estimation: the least gas limit with which a call succeeds, found as geth finds it.
//!
//! A plain transfer is tried with 21,000. Otherwise the call runs once with all the gas it may have;
//! then the gap between the gas it used and that limit is halved until it is within 1.5 %.
//!
//! Source: go-ethereum `eth/gasestimator/gasestimator.go`.

use alloy_primitives::{TxKind, U256};
use engine::{
    genesis::Fork,
    limits,
    ports::CallError,
    query::{CallOutcome, CallRequest},
};
use revm::{
    context_interface::result::{ExecutionResult, HaltReason, InvalidTransaction},
    inspector::NoOpInspector,
};

use super::{Caller, RunError, Session, balance, base_fee, overrides, transaction};

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;
/// Gas a callee receives on top when value is sent.
const CALL_STIPEND: u64 = 2_300;
/// The search ends when the gap is this many thousandths of the limit.
const ERROR_PER_MILLE: u64 = 15;

/// What one attempt showed.
enum Attempt {
    Succeeded {
        gas_used: u64,
        /// Gas used before refunds: what the limit has to cover.
        gas_peak: u64,
    },
    /// More gas may help.
    OutOfGas,
    /// More gas does not help.
    Failed(Box<CallOutcome>),
}

struct Estimate<'a, 'b> {
    caller: &'b Caller<'a>,
    request: &'b CallRequest,
    session: Session<'a, NoOpInspector>,
}

impl Estimate<'_, '_> {
    fn attempt(&mut self, gas_limit: u64) -> Result<Attempt, CallError> {
        let tx = transaction(self.caller.chain, self.request, gas_limit, self.request.access_list.clone())?;
        let run = match self.session.run(tx) {
            Ok(run) => run,
            Err(RunError::Refused(
                InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
            )) => return Ok(Attempt::OutOfGas),
            Err(error) => {
                return Err(error.into_call(self.request, base_fee(self.request), |text| {
                    format!("failed with {gas_limit} gas: {text}")
                }));
            }
        };
        Ok(match &run.result {
            ExecutionResult::Success { gas, .. } => {
                Attempt::Succeeded { gas_used: gas.tx_gas_used(), gas_peak: gas.total_gas_spent().max(gas.floor_gas()) }
            }
            ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => Attempt::OutOfGas,
            _ => Attempt::Failed(Box::new(run.outcome())),
        })
    }

    /// Whether the call succeeds with this much gas.
    fn succeeds(&mut self, gas_limit: u64) -> Result<bool, CallError> {
        Ok(matches!(self.attempt(gas_limit)?, Attempt::Succeeded { .. }))
    }

    /// The most gas the call may have: the request's or the block's, by the fork's cap, by what the
    /// sender can pay, by what a node spends on one request.
    fn highest(&mut self) -> Result<u64, CallError> {
        let header = overrides::header(&self.request.block);
        let mut highest = self.request.gas.filter(|gas| *gas >= TRANSFER_GAS).unwrap_or(header.gas_limit);
        if self.caller.chain.fork_at(header.timestamp) >= Fork::Osaka {
            highest = highest.min(limits::TRANSACTION_GAS_MAX_OSAKA);
        }
        if self.request.gas_price > 0 {
            let balance = balance(&mut self.session, self.request)?;
            if !self.request.value.is_zero() && self.request.value >= balance {
                return Err(CallError::Refused("insufficient funds for transfer".to_owned()));
            }
            let available = balance.saturating_sub(self.request.value);
            let allowance = available.checked_div(U256::from(self.request.gas_price)).unwrap_or_default();
            highest = highest.min(u64::try_from(allowance).unwrap_or(u64::MAX));
        }
        Ok(highest.min(limits::CALL_GAS_MAX))
    }

    /// Whether the request only moves value to an account without code.
    fn is_transfer(&mut self) -> Result<bool, CallError> {
        let TxKind::Call(to) = self.request.to else {
            return Ok(false);
        };
        if !self.request.input.is_empty() {
            return Ok(false);
        }
        Ok(!self.session.state().account(to)?.unwrap_or_default().has_code())
    }

    fn search(&mut self, mut lowest: u64, mut highest: u64) -> Result<u64, CallError> {
        while lowest.saturating_add(1) < highest {
            let gap = highest.saturating_sub(lowest);
            if gap.saturating_mul(1_000) < highest.saturating_mul(ERROR_PER_MILLE) {
                break;
            }
            // Most calls need little more than they use, so the search leans to the low side.
            let middle = (lowest.saturating_add(gap / 2)).min(lowest.saturating_mul(2));
            if self.succeeds(middle)? {
                highest = middle;
            } else {
                lowest = middle;
            }
        }
        Ok(highest)
    }
}

/// Estimates the gas of a request.
pub(crate) fn estimate_gas(caller: &Caller<'_>, request: &CallRequest) -> Result<u64, CallError> {
    let session = Session::open(caller, request, NoOpInspector)?;
    let mut estimate = Estimate { caller, request, session };
    let mut highest = estimate.highest()?;
    if estimate.is_transfer()? && highest >= TRANSFER_GAS && estimate.succeeds(TRANSFER_GAS).unwrap_or(false) {
        return Ok(TRANSFER_GAS);
    }
    let (gas_used, gas_peak) = match estimate.attempt(highest)? {
        Attempt::Succeeded { gas_used, gas_peak } => (gas_used, gas_peak),
        Attempt::OutOfGas => {
            return Err(CallError::Refused(format!("gas required exceeds allowance ({highest})")));
        }
        Attempt::Failed(outcome) => return Err(CallError::Failed(outcome)),
    };
    let mut lowest = gas_used.saturating_sub(1);
    // Usually right at once: what was used, the stipend, and the 64th that a call holds back.
    let optimistic = gas_peak.saturating_add(CALL_STIPEND).saturating_mul(64) / 63;
    if optimistic < highest {
        if estimate.succeeds(optimistic)? {
            highest = optimistic;
        } else {
            lowest = optimistic;
        }
    }
    estimate.search(lowest, highest)
}
