//! Flags of the network between nodes, and the network that they make.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use alloy_primitives::B256;
use clap::Args;
use engine::{genesis::ChainSpec, ordering::event::Identity, pipeline::Node, ports::Network};
use eyre::{WrapErr as _, bail, eyre};
use net::{
    identity::NodeKey,
    transport::{Doors, PeerAddress, Transport, TransportConfig},
};

use crate::snapshot::{
    joining::{self, Trusted},
    judge::judge_from,
};

/// Where other nodes are, and where this one is for them. A chain whose genesis file names no validators has none.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// Address the node listens on for other nodes, over UDP.
    #[arg(long = "p2p.addr", default_value = "0.0.0.0", value_name = "ADDR")]
    addr: IpAddr,
    /// Port it listens on for other nodes; 0 takes any free one.
    #[arg(long = "p2p.port", default_value_t = 30_303, value_name = "PORT")]
    port: u16,
    /// Address that others are told of, if it is another than the one listened on.
    #[arg(long = "p2p.external", value_name = "ADDR:PORT")]
    external: Option<SocketAddr>,
    /// A node to be connected with, by its identity; given as often as there are nodes. Validators are known from the
    /// genesis file, and for one of them this address replaces that file's.
    #[arg(long = "p2p.peers", value_name = "IDENTITY@HOST:PORT", value_delimiter = ',', value_parser = peer)]
    peers: Vec<PeerAddress>,
    /// Dial addresses of this machine and of private networks too if other nodes tell of them.
    #[arg(long = "p2p.private")]
    private: bool,
    /// Serve the operator's own methods (`admin_peers`, `admin_block`, `admin_unblock`) on this loopback address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

fn peer(text: &str) -> Result<PeerAddress, String> {
    let (identity, address) = text.split_once('@').ok_or("must be IDENTITY@HOST:PORT")?;
    let identity = identity.parse().map_err(|_| format!("{identity} is no identity: 64 digits of hex"))?;
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        return Err(format!("{address} names no port"));
    }
    Ok(PeerAddress { identity, address: address.to_owned() })
}

/// The network of a node, before it is started.
pub(crate) enum Peers {
    /// Nobody else takes part in the chain.
    None,
    /// Nodes over QUIC.
    Quic(Arc<Transport>),
}

impl Peers {
    /// Prepares it; `key` is the node's, if its chain has validators.
    pub(crate) fn new(
        args: &PeerArgs,
        key: Option<NodeKey>,
        chain: &ChainSpec,
        validator: Option<&Identity>,
    ) -> eyre::Result<Self> {
        let Some(key) = key else { return Ok(Self::None) };
        let config = TransportConfig {
            listen: SocketAddr::new(args.addr, args.port),
            external: args.external,
            key,
            peers: args.peers.clone(),
            may_dial_private: args.private,
        };
        Ok(Self::Quic(Transport::new(config, chain, validator).wrap_err("cannot prepare the network")?))
    }

    /// As ordering and RPC see it.
    pub(crate) fn network(&self) -> Arc<dyn Network> {
        match self {
            Self::None => Arc::new(net::Solitary),
            Self::Quic(transport) => transport.clone(),
        }
    }

    /// As the operator sees it.
    pub(crate) fn transport(&self) -> Option<Arc<Transport>> {
        match self {
            Self::None => None,
            Self::Quic(transport) => Some(transport.clone()),
        }
    }

    /// Takes a state over from others into a folder that holds no chain, shown to be final by the set with this hash.
    /// Inside the runtime.
    pub(crate) async fn join(&self, chain: &ChainSpec, set: B256, config: &storage::Config) -> eyre::Result<()> {
        let Self::Quic(transport) = self else {
            bail!("nobody else takes part in this chain who could give its state");
        };
        transport.listen().map_err(|error| eyre!("cannot start the network: {error}"))?;
        joining::join(transport.clone(), Trusted { chain, set, judge: judge_from }, config).await
    }

    /// Listens and dials; gives lines about it for a person who reads. Inside the runtime.
    pub(crate) fn start(&self, node: &Node) -> eyre::Result<Vec<String>> {
        let Self::Quic(transport) = self else { return Ok(Vec::new()) };
        let doors = Doors {
            inbox: node.inbox.clone(),
            admission: node.admission.clone(),
            query: node.query.clone(),
            events: node.events.clone(),
        };
        let address = transport.start(doors).map_err(|error| eyre!("cannot start the network: {error}"))?;
        let identity = transport.record().identity;
        Ok(vec![format!("identity   {identity}"), format!("peers      {address} over UDP")])
    }

    /// Says goodbye.
    pub(crate) async fn stop(&self) {
        if let Self::Quic(transport) = self {
            transport.stop().await;
        }
    }
}
