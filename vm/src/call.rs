//! Read-only runs: eth_call, and what estimation and access lists share with it.
//!
//! A call sees the block it names, after its changes, with the caller's overrides on top. It needs no
//! signature and no right nonce; it pays only if it names a fee. Without a fee the base fee it sees is
//! zero, as in geth, so that `gasprice >= basefee` holds for contracts that rely on it.
//!
//! The caller's time is up when its flag says so; the interpreter looks at the flag every
//! [`watch::STEPS_PER_LOOK`] steps. Blocks run without that inspector and pay nothing for it.
//!
//! Source: go-ethereum `internal/ethapi/api.go`, `core/state_transition.go`; texts are its users'.

pub mod access_list;
pub mod estimate;
pub mod overrides;
pub mod text;
pub mod watch;

use std::sync::atomic::AtomicBool;

use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Bytes, TxKind, U256};
use engine::{
    genesis::ChainSpec,
    limits,
    ports::{CallError, StateError, StateView},
    query::{CallOutcome, CallRequest, CallResult},
};
use revm::{
    Context, ExecuteEvm, InspectEvm, Inspector, MainBuilder, MainContext, MainnetEvm,
    context::{BlockEnv, CfgEnv, Journal, TxEnv, either::Either},
    context_interface::result::{ExecutionResult, HaltReason, InvalidTransaction},
    inspector::NoOpInspector,
};

use self::watch::Watch;
use crate::{code::CodeCache, database::BlockState, env, error::Refusal, metrics};

/// revm's context during a call.
type CallContext<'a> = Context<BlockEnv, TxEnv, CfgEnv, BlockState<'a>, Journal<BlockState<'a>>, ()>;

/// What every read-only run needs.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The chain.
    pub chain: &'a ChainSpec,
    /// Analysed code.
    pub codes: &'a CodeCache,
    /// The state.
    pub view: &'a dyn StateView,
    /// Set when the caller waits no longer.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Why one run gave no result.
#[derive(Debug)]
pub(crate) enum RunError {
    Refused(InvalidTransaction),
    Cancelled,
    State(StateError),
    Evm(String),
}

/// A result with what geth's texts want to know besides.
pub(crate) struct RunResult {
    pub(crate) result: ExecutionResult<HaltReason>,
    pub(crate) halt_text: Option<String>,
}

impl RunResult {
    pub(crate) fn outcome(self) -> CallOutcome {
        let gas_used = self.result.tx_gas_used();
        match self.result {
            ExecutionResult::Success { logs, output, .. } => {
                CallOutcome { result: CallResult::Success, output: output.into_data(), gas_used, logs }
            }
            ExecutionResult::Revert { output, .. } => {
                CallOutcome { result: CallResult::Revert, output, gas_used, logs: Vec::new() }
            }
            ExecutionResult::Halt { .. } => CallOutcome {
                result: CallResult::Halt(self.halt_text.unwrap_or_default()),
                output: Bytes::new(),
                gas_used,
                logs: Vec::new(),
            },
        }
    }
}

/// An EVM set up for one request; may run it many times with different gas.
pub(crate) struct Session<'a, I> {
    evm: MainnetEvm<CallContext<'a>, (Watch<'a>, I)>,
    cancel: &'a AtomicBool,
}

impl<'a, I> Session<'a, I>
where
    I: Inspector<CallContext<'a>>,
{
    /// Applies the request's block and state overrides to the state below.
    pub(crate) fn open(caller: &Caller<'a>, request: &CallRequest, inspector: I) -> Result<Self, CallError> {
        let header = overrides::header(&request.block);
        let mut state = BlockState::new(caller.view, caller.codes);
        let mut cfg = env::chain(caller.chain, header.timestamp);
        overrides::apply(&mut state, cfg.spec, request)?;
        cfg.disable_nonce_check = true;
        cfg.disable_block_gas_limit = true;
        cfg.disable_eip3607 = true;
        cfg.disable_base_fee = request.gas_price == 0;
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        let mut block = env::block(caller.chain, &header);
        if let Some(number) = request.block.overrides.number {
            block.number = number;
        }
        if request.gas_price == 0 && request.block.overrides.base_fee.is_none() {
            block.basefee = 0;
        }
        let evm = Context::mainnet()
            .with_db(state)
            .with_cfg(cfg)
            .with_block(block)
            .build_mainnet_with_inspector((Watch::new(caller.cancel), inspector));
        Ok(Self { evm, cancel: caller.cancel })
    }

    /// The state below, overrides included.
    pub(crate) fn state(&mut self) -> &mut BlockState<'a> {
        &mut self.evm.ctx.journaled_state.database
    }

    /// Replaces the inspector beside the watch, for the next run.
    pub(crate) fn set_inspector(&mut self, inspector: I) {
        self.evm.inspector.1 = inspector;
    }

    /// The inspector beside the watch.
    pub(crate) fn inspector(&self) -> &I {
        &self.evm.inspector.1
    }

    /// Runs once; nothing it changes stays.
    pub(crate) fn run(&mut self, tx: TxEnv) -> Result<RunResult, RunError> {
        metrics::CALL_EXECUTED.increment();
        self.evm.inspector.0 = Watch::new(self.cancel);
        let outcome = self.evm.inspect_tx(tx);
        let watch = &self.evm.inspector.0;
        if watch.cancelled() {
            let _ = self.evm.finalize();
            return Err(RunError::Cancelled);
        }
        match outcome {
            Ok(outcome) => {
                let halt_text = match &outcome.result {
                    ExecutionResult::Halt { reason, .. } => Some(text::halt(reason, watch)),
                    _ => None,
                };
                Ok(RunResult { result: outcome.result, halt_text })
            }
            Err(error) => {
                let _ = self.evm.finalize();
                Err(match Refusal::from(error) {
                    Refusal::Invalid(invalid) => RunError::Refused(invalid),
                    Refusal::State(state) => RunError::State(state),
                    other => RunError::Evm(other.to_string()),
                })
            }
        }
    }
}

impl RunError {
    /// The port's error; `frame` puts geth's words around the refusal of a transaction.
    pub(crate) fn into_call(
        self,
        request: &CallRequest,
        base_fee: u64,
        frame: impl FnOnce(String) -> String,
    ) -> CallError {
        match self {
            Self::Refused(invalid) => CallError::Refused(frame(text::refusal(&invalid, request, base_fee))),
            Self::Cancelled => CallError::Cancelled,
            Self::State(state) => CallError::State(state),
            Self::Evm(reason) => CallError::Refused(reason),
        }
    }
}

/// The request as revm's transaction, with this much gas.
pub(crate) fn transaction(
    chain: &ChainSpec,
    request: &CallRequest,
    gas_limit: u64,
    access_list: AccessList,
) -> Result<TxEnv, CallError> {
    if !request.authorizations.is_empty() && request.to == TxKind::Create {
        return Err(CallError::Refused("EIP-7702 transaction cannot be used to create contract".to_owned()));
    }
    let tx_type = if !request.authorizations.is_empty() {
        4
    } else if request.priority_fee.is_some() {
        2
    } else {
        u8::from(!access_list.is_empty())
    };
    Ok(TxEnv {
        tx_type,
        caller: request.from,
        gas_limit,
        gas_price: request.gas_price,
        kind: request.to,
        value: request.value,
        data: request.input.clone(),
        nonce: request.nonce.unwrap_or_default(),
        chain_id: Some(chain.chain_id),
        access_list,
        gas_priority_fee: (tx_type >= 2).then(|| request.priority_fee.unwrap_or_default()),
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: request.authorizations.iter().cloned().map(Either::Left).collect(),
    })
}

/// The base fee that the request's block has, for messages.
pub(crate) fn base_fee(request: &CallRequest) -> u64 {
    let block = &request.block;
    block.overrides.base_fee.or(block.header.base_fee_per_gas).unwrap_or_default()
}

/// Runs a request once.
pub(crate) fn call(caller: &Caller<'_>, request: &CallRequest) -> Result<CallOutcome, CallError> {
    let gas_limit = request.gas.unwrap_or(limits::CALL_GAS_MAX).min(limits::CALL_GAS_MAX);
    let tx = transaction(caller.chain, request, gas_limit, request.access_list.clone())?;
    let mut session = Session::open(caller, request, NoOpInspector)?;
    let result = session.run(tx).map_err(|error| {
        error.into_call(request, base_fee(request), |text| format!("err: {text} (supplied gas {gas_limit})"))
    })?;
    Ok(result.outcome())
}

/// The balance of the sender, overrides included.
pub(crate) fn balance<'a, I>(session: &mut Session<'a, I>, request: &CallRequest) -> Result<U256, CallError>
where
    I: Inspector<CallContext<'a>>,
{
    Ok(session.state().account(request.from)?.unwrap_or_default().balance)
}

#[cfg(test)]
mod tests;
