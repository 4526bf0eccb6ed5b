//! How the node stands: what `sluice localnet` shows, and what an operator looks at first.
//!
//! `sluice_status` gives the newest durable height, the epoch and the least slot that nothing has decided, connected
//! peers, whether this node votes, transactions committed since the start, and how long blocks took from the moment
//! their proposal was here (or left here) until they were final and durable here, in milliseconds over the last blocks.

use alloy_primitives::U64;
use serde::Serialize;

use super::{
    Node, convert,
    error::Refusal,
    methods::{Registered, Registry},
    params::Arguments,
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.inline("sluice_status", status)
}

#[derive(Clone, Debug, Serialize)]
struct Status {
    height: U64,
    epoch: U64,
    slot: U64,
    peers: U64,
    validator: bool,
    transactions: U64,
    finality: Option<Percentiles>,
}

#[derive(Clone, Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
    blocks: usize,
}

fn status(node: &Node, arguments: Arguments<'_>) -> Result<Status, Refusal> {
    arguments.end()?;
    let standing = node.query.standing();
    let finality = standing.finality.map(|shown| {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1_000.0;
        Percentiles { p50: ms(shown.p50), p95: ms(shown.p95), p99: ms(shown.p99), blocks: shown.blocks }
    });
    Ok(Status {
        height: U64::from(node.query.tip().height().0),
        epoch: U64::from(standing.epoch.0),
        slot: U64::from(standing.slot.0),
        peers: U64::from(convert::count(node.network.peers().len())),
        validator: standing.is_validator,
        transactions: U64::from(standing.transactions),
        finality,
    })
}
