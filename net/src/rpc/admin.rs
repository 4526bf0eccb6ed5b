//! What the operator alone may ask, on an address of this machine: who is connected, and who may not be.
//!
//! `admin_peers` lists the peers. `admin_block` cuts a node off by its identity until `admin_unblock` lets it in again;
//! both answer whether that changed anything. A block is not remembered over a restart.

use alloy_primitives::{FixedBytes, U64};
use jsonrpsee::Methods;
use serde::Serialize;

use super::{
    Node,
    error::{Refusal, refused},
    methods::{Registered, Registry},
    params::Arguments,
};
use crate::transport::{PeerInfo, Transport};

/// The table of these methods.
pub(super) fn methods(node: &std::sync::Arc<Node>) -> Result<Methods, jsonrpsee::core::RegisterMethodError> {
    let mut registry = Registry::new(node.clone());
    register(&mut registry)?;
    Ok(registry.module.into())
}

fn register(registry: &mut Registry) -> Registered {
    registry.inline("admin_peers", peers)?;
    registry.inline("admin_block", |node, arguments| block(node, arguments, true))?;
    registry.inline("admin_unblock", |node, arguments| block(node, arguments, false))
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    identity: FixedBytes<32>,
    /// Key of the validator behind it.
    validator: Option<FixedBytes<48>>,
    address: String,
    outbound: bool,
    round_trip_ms: f64,
    sent_bytes: U64,
    received_bytes: U64,
    lost_packets: U64,
    /// What it did wrong; it is refused at 100.
    score: f64,
}

impl From<PeerInfo> for Peer {
    fn from(info: PeerInfo) -> Self {
        Self {
            identity: info.identity,
            validator: info.validator.map(|key| key.0),
            address: info.address.to_string(),
            outbound: info.is_outbound,
            round_trip_ms: info.round_trip_ms,
            sent_bytes: U64::from(info.sent_bytes),
            received_bytes: U64::from(info.received_bytes),
            lost_packets: U64::from(info.lost_packets),
            score: info.score,
        }
    }
}

fn transport(node: &Node) -> Result<&Transport, Refusal> {
    node.transport.as_deref().ok_or_else(|| refused("this node talks to no other"))
}

fn peers(node: &Node, arguments: Arguments<'_>) -> Result<Vec<Peer>, Refusal> {
    arguments.end()?;
    Ok(transport(node)?.peer_infos().into_iter().map(Peer::from).collect())
}

fn block(node: &Node, mut arguments: Arguments<'_>, is_blocked: bool) -> Result<bool, Refusal> {
    let identity: FixedBytes<32> = arguments.required()?;
    arguments.end()?;
    Ok(transport(node)?.block(identity, is_blocked))
}
