//! What waits in the pool, in geth's shapes. Off unless asked for: it shows everybody's plans.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U64};
use engine::types::PooledTransaction;
use serde::Serialize;

use super::{
    Node,
    convert::{self, JsonTransaction},
    error::{Refusal, too_large},
    methods::{Registered, Registry},
    params::Arguments,
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.inline("txpool_status", status)?;
    registry.call("txpool_content", content)?;
    registry.call("txpool_contentFrom", content_from)?;
    registry.call("txpool_inspect", inspect)
}

/// Executable transactions and those behind a gap.
#[derive(Clone, Debug, Default, Serialize)]
struct Parts<T> {
    pending: T,
    queued: T,
}

/// By nonce in decimal.
type ByNonce<T> = BTreeMap<String, T>;

fn status(node: &Node, arguments: Arguments<'_>) -> Result<Parts<U64>, Refusal> {
    arguments.end()?;
    let status = node.query.pool_status();
    Ok(Parts { pending: U64::from(convert::count(status.pending)), queued: U64::from(convert::count(status.queued)) })
}

fn content(
    node: &Node,
    arguments: Arguments<'_>,
    _: &AtomicBool,
) -> Result<Parts<BTreeMap<Address, ByNonce<JsonTransaction>>>, Refusal> {
    arguments.end()?;
    collect(node, json_bytes, |pooled| convert::waiting(pooled))
}

fn inspect(
    node: &Node,
    arguments: Arguments<'_>,
    _: &AtomicBool,
) -> Result<Parts<BTreeMap<Address, ByNonce<String>>>, Refusal> {
    arguments.end()?;
    collect(node, |_| 160, summary)
}

fn content_from(
    node: &Node,
    mut arguments: Arguments<'_>,
    _: &AtomicBool,
) -> Result<Parts<ByNonce<JsonTransaction>>, Refusal> {
    let sender: Address = arguments.required()?;
    arguments.end()?;
    let (pending, queued) = node.query.pool_content().remove(&sender).unwrap_or_default();
    fits(node, pending.iter().chain(&queued).map(json_bytes))?;
    let of = |pooled: &PooledTransaction| convert::waiting(pooled);
    Ok(Parts { pending: by_nonce(&pending, of), queued: by_nonce(&queued, of) })
}

/// Bytes of a transaction's JSON, from below.
fn json_bytes(pooled: &PooledTransaction) -> usize {
    convert::transaction_json_bytes(pooled) / 2
}

/// Refuses what would not fit into an answer before any of it is made.
fn fits(node: &Node, bytes: impl Iterator<Item = usize>) -> Result<(), Refusal> {
    let sum = bytes.fold(0_usize, usize::saturating_add);
    if sum > node.response_bytes_max() { Err(too_large()) } else { Ok(()) }
}

/// Everything in the pool, as long as it fits into an answer.
fn collect<T>(
    node: &Node,
    bytes: impl Fn(&PooledTransaction) -> usize,
    show: impl Fn(&PooledTransaction) -> T + Copy,
) -> Result<Parts<BTreeMap<Address, ByNonce<T>>>, Refusal> {
    let content = node.query.pool_content();
    let all = content.values().flat_map(|(pending, queued)| pending.iter().chain(queued));
    fits(node, all.map(bytes))?;
    let mut parts = Parts { pending: BTreeMap::new(), queued: BTreeMap::new() };
    for (sender, (pending, queued)) in content {
        if !pending.is_empty() {
            parts.pending.insert(sender, by_nonce(&pending, show));
        }
        if !queued.is_empty() {
            parts.queued.insert(sender, by_nonce(&queued, show));
        }
    }
    Ok(parts)
}

fn by_nonce<T>(transactions: &[PooledTransaction], show: impl Fn(&PooledTransaction) -> T) -> ByNonce<T> {
    transactions.iter().map(|pooled| (pooled.envelope().nonce().to_string(), show(pooled))).collect()
}

fn summary(pooled: &PooledTransaction) -> String {
    let envelope = pooled.envelope();
    let to = envelope.to().map_or_else(|| "contract creation".to_owned(), |to| to.to_string());
    format!("{to}: {} wei + {} gas × {} wei", envelope.value(), envelope.gas_limit(), envelope.max_fee_per_gas())
}
