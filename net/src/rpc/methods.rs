//! The table of methods: which exist, what they need, and how a call reaches them.
//!
//! | way | for | runs on |
//! |---|---|---|
//! | `inline` | what memory answers at once | the socket's own task |
//! | `read` | what may touch the disk | the lane for reads |
//! | `call` | EVM runs, log scans, proofs | the lane for calls, cancellable, within [`CALL_TIME_MAX`] |
//! | `future` | what waits for others | the socket's own task, asleep |

use std::sync::{Arc, atomic::AtomicBool};

use jsonrpsee::{RpcModule, core::RegisterMethodError, types::Params};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Node,
    error::{Refusal, busy, internal, too_large},
    limits::CALL_TIME_MAX,
    params::Arguments,
};

/// An answer ready to be sent.
pub(super) type Json = Box<RawValue>;

/// Methods under construction.
pub(super) struct Registry {
    /// What jsonrpsee dispatches on.
    pub(super) module: RpcModule<Node>,
}

/// Why the table could not be built: a name was used twice.
pub(super) type Registered = Result<(), RegisterMethodError>;

impl Registry {
    /// An empty table around the node.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { module: RpcModule::from_arc(node) }
    }

    /// Adds a method that memory answers at once.
    pub(super) fn inline<R: Serialize + Clone + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Node, Arguments<'_>) -> Result<R, Refusal>,
    ) -> Registered {
        self.module.register_method(name, move |params, node, _| method(node, Arguments::new(&params)?))?;
        Ok(())
    }

    /// Adds a method that may read the disk.
    pub(super) fn read<R: Serialize + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Node, Arguments<'_>) -> Result<R, Refusal>,
    ) -> Registered {
        self.module.register_async_method(name, move |params, node, _| async move {
            let (worker, bytes) = (Arc::clone(&node), params.len_bytes());
            node.reads.run(bytes, None, move |_| worker.answer(&params, |arguments| method(&worker, arguments))).await
        })?;
        Ok(())
    }

    /// Adds a method that computes for long; it must look at the flag while it does.
    pub(super) fn call<R: Serialize + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Node, Arguments<'_>, &AtomicBool) -> Result<R, Refusal>,
    ) -> Registered {
        self.module.register_async_method(name, move |params, node, _| async move {
            let (worker, bytes) = (Arc::clone(&node), params.len_bytes());
            let job = move |cancel: &AtomicBool| worker.answer(&params, |arguments| method(&worker, arguments, cancel));
            node.calls.run(bytes, Some(CALL_TIME_MAX), job).await
        })?;
        Ok(())
    }

    /// Adds a method that waits.
    pub(super) fn future<F>(
        &mut self,
        name: &'static str,
        method: impl Fn(Params<'static>, Arc<Node>) -> F + Clone + Send + Sync + 'static,
    ) -> Registered
    where
        F: Future<Output = Result<Json, Refusal>> + Send,
    {
        self.module.register_async_method(name, move |params, node, _| method(params, node))?;
        Ok(())
    }
}

impl Node {
    /// Runs a method on the thread of a lane and writes its answer there.
    pub(super) fn answer<R: Serialize>(
        &self,
        params: &Params<'_>,
        method: impl FnOnce(Arguments<'_>) -> Result<R, Refusal>,
    ) -> Result<Json, Refusal> {
        if self.unsent.is_full() {
            return Err(busy());
        }
        self.json(&method(Arguments::new(params)?)?)
    }

    /// Writes an answer, unless it is larger than this node sends.
    pub(super) fn json<R: Serialize>(&self, answer: &R) -> Result<Json, Refusal> {
        let json = to_raw_value(answer).map_err(|error| internal(&error))?;
        if json.get().len() > self.response_bytes_max() { Err(too_large()) } else { Ok(json) }
    }
}

/// What a method's time is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Reads of blocks, transactions, receipts and accounts.
    Read,
    /// EVM runs and proofs.
    Call,
    /// Log queries and filters.
    Logs,
    /// Sending.
    Send,
    /// Anything else.
    Other,
}

impl Group {
    /// The group of a method.
    pub(super) fn of(method: &str) -> Self {
        match method {
            "eth_call" | "eth_estimateGas" | "eth_createAccessList" | "eth_getProof" | "eth_fillTransaction" => {
                Self::Call
            }
            "eth_getLogs" | "eth_getFilterChanges" | "eth_getFilterLogs" => Self::Logs,
            _ if method.starts_with("eth_send") => Self::Send,
            _ if method.starts_with("eth_get") => Self::Read,
            _ => Self::Other,
        }
    }

    /// Its label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Call => "call",
            Self::Logs => "logs",
            Self::Send => "send",
            Self::Other => "other",
        }
    }
}
