//! What the node says about itself.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U64, keccak256};

use super::{
    Node, convert,
    error::Refusal,
    methods::{Registered, Registry},
    params::{Arguments, Data},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.inline("eth_chainId", |node, arguments| {
        arguments.end()?;
        Ok(U64::from(node.query.chain().chain_id))
    })?;
    registry.inline("eth_syncing", |_, arguments| answer(arguments, false))?;
    registry.inline("eth_protocolVersion", |_, arguments| answer(arguments, U64::from(68)))?;
    registry.inline("net_version", |node, arguments| answer(arguments, node.query.chain().chain_id.to_string()))?;
    registry.inline("net_listening", |_, arguments| answer(arguments, true))?;
    registry.inline("net_peerCount", |node, arguments| {
        answer(arguments, U64::from(convert::count(node.network.peers().len())))
    })?;
    registry.inline("web3_clientVersion", |_, arguments| answer(arguments, client_version()))?;
    registry.inline("web3_sha3", sha3)?;
    registry.inline("rpc_modules", modules)
}

fn answer<T>(arguments: Arguments<'_>, value: T) -> Result<T, Refusal> {
    arguments.end()?;
    Ok(value)
}

/// Name, version, system: `Sluice/v0.1.0/linux-x86_64/rust`.
fn client_version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("Sluice/v{version}/{}-{}/rust", std::env::consts::OS, std::env::consts::ARCH)
}

fn sha3(_: &Node, mut arguments: Arguments<'_>) -> Result<B256, Refusal> {
    let Data(bytes) = arguments.required()?;
    arguments.end()?;
    Ok(keccak256(bytes))
}

fn modules(node: &Node, arguments: Arguments<'_>) -> Result<BTreeMap<&'static str, &'static str>, Refusal> {
    arguments.end()?;
    let mut modules = BTreeMap::from(["eth", "net", "rpc", "sluice", "web3"].map(|name| (name, "1.0")));
    if node.txpool {
        modules.insert("txpool", "1.0");
    }
    Ok(modules)
}
