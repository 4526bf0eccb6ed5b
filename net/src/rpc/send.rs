//! Transactions into the pool: the shortest way through this room.
//!
//! Decode the hex, hand the bytes to admission, sleep until it answers. Runs of sends in one batch
//! are all handed over before the first answer is awaited, so one connection keeps every admission
//! worker busy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, Bytes, keccak256};
use engine::{admission::AdmissionError, types::RawTransaction};
use jsonrpsee::types::Params;
use tokio::sync::oneshot;

use super::{
    Node, convert,
    error::{self, Refusal, internal, not_in_time},
    limits::{SYNC_TIME_DEFAULT, SYNC_TIME_MAX},
    methods::{Json, Registered, Registry},
    params::{Arguments, Data, LooseQuantity},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.module.register_async_method("eth_sendRawTransaction", |params, node, _| async move {
        node.start_send(&params)?.admitted().await
    })?;
    registry.future("eth_sendRawTransactionSync", send_sync)
}

/// A transaction on its way through admission.
pub(super) struct Sending(oneshot::Receiver<Result<B256, AdmissionError>>);

impl Sending {
    /// The transaction's hash once it is in the pool.
    pub(super) async fn admitted(self) -> Result<B256, Refusal> {
        match self.0.await {
            Ok(answer) => answer.map_err(error::admission),
            Err(_) => Err(internal(&"admission ended without an answer")),
        }
    }
}

impl Node {
    /// Reads the one parameter of `eth_sendRawTransaction` and hands it to admission.
    pub(super) fn start_send(&self, params: &Params<'_>) -> Result<Sending, Refusal> {
        let mut arguments = Arguments::new(params)?;
        let Data(raw) = arguments.required()?;
        arguments.end()?;
        Ok(self.submit(raw))
    }

    /// Hands bytes to admission.
    pub(super) fn submit(&self, raw: Bytes) -> Sending {
        let (sender, receiver) = oneshot::channel();
        // A caller that is gone wants no answer; its transaction is admitted all the same.
        let done = Box::new(move |answer| drop(sender.send(answer)));
        self.admission.submit(RawTransaction::new(raw), done);
        Sending(receiver)
    }
}

/// Source: EIP-7966.
async fn send_sync(params: Params<'static>, node: Arc<Node>) -> Result<Json, Refusal> {
    let mut arguments = Arguments::new(&params)?;
    let Data(raw) = arguments.required()?;
    let time = match arguments.optional()? {
        None | Some(LooseQuantity(0)) => SYNC_TIME_DEFAULT,
        Some(LooseQuantity(milliseconds)) => Duration::from_millis(milliseconds).min(SYNC_TIME_MAX),
    };
    arguments.end()?;

    // The wait begins before the transaction is handed over, so no block can slip between them.
    let mut wait = node.hub.wait_for(keccak256(&raw));
    let start = Instant::now();
    let hash = node.submit(raw).admitted().await?;
    if let Ok(Some((block, index))) = tokio::time::timeout(time, wait.included()).await {
        return node.json(&convert::receipt(&block, index, node.query.chain()));
    }
    let worker = Arc::clone(&node);
    let found = node.reads.run(0, None, move |_| worker.receipt(hash)).await?;
    match found {
        Some(receipt) => node.json(&receipt),
        None => Err(not_in_time(hash, start.elapsed().as_millis())),
    }
}
