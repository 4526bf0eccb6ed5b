//! Access lists (EIP-2930): run with the list found so far until a run finds nothing new.
//!
//! The list leaves out the sender, the callee, precompiled contracts and authorities: those are warm
//! anyway. Their storage slots stay in.
//!
//! Source: go-ethereum `internal/ethapi/api.go`, `AccessList`.

use engine::{
    limits,
    ports::CallError,
    query::{AccessListOutcome, CallRequest},
};
use revm::context_interface::result::ExecutionResult;
use revm_inspectors::access_list::AccessListInspector;

use super::{Caller, Session, base_fee, transaction};

/// Runs before the list found so far is good enough; contracts that react to warmth could go on for ever.
const RUNS_MAX: usize = 16;

/// Creates the access list of a request.
pub(crate) fn access_list(caller: &Caller<'_>, request: &CallRequest) -> Result<AccessListOutcome, CallError> {
    let gas_limit = request.gas.unwrap_or(limits::CALL_GAS_MAX).min(limits::CALL_GAS_MAX);
    let mut list = request.access_list.clone();
    let mut session = Session::open(caller, request, AccessListInspector::new(list.clone()))?;
    let mut runs = 0_usize;
    loop {
        let tx = transaction(caller.chain, request, gas_limit, list.clone())?;
        let run = session.run(tx).map_err(|error| {
            error.into_call(request, base_fee(request), |text| format!("failed to apply transaction: err: {text}"))
        })?;
        let found = session.inspector().access_list();
        runs = runs.saturating_add(1);
        if found == list || runs == RUNS_MAX {
            let error = match &run.result {
                ExecutionResult::Success { .. } => None,
                ExecutionResult::Revert { .. } => Some("execution reverted".to_owned()),
                ExecutionResult::Halt { .. } => run.halt_text,
            };
            return Ok(AccessListOutcome { access_list: found, gas_used: run.result.tx_gas_used(), error });
        }
        session.set_inspector(AccessListInspector::new(found.clone()));
        list = found;
    }
}
