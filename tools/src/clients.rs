//! The ways in for clients: JSON-RPC, and QUIC with its flags and whose transactions have weight there.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use alloy_primitives::{B256, hex};
use clap::Args;
use engine::{genesis::ChainSpec, pipeline::Node};
use eyre::{WrapErr as _, bail, ensure, eyre};
use net::{
    ingress::{Doors, Ingress, IngressConfig},
    rpc::{RpcConfig, RpcNode, RpcServer},
};

use crate::{
    keys,
    threads::{Threads, give_way},
};

/// Bytes of a list of keys with weight.
const WEIGHTS_BYTES_MAX: u64 = 1 << 20;

/// Keys in it.
const WEIGHTS_MAX: usize = 1_024;

/// How clients over QUIC find the node, and what each gets of it.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Take transactions over QUIC on this address, over UDP; port 0 takes any free one.
    #[arg(long, value_name = "ADDR:PORT")]
    quic: Option<SocketAddr>,
    /// With --quic: keys of clients with a share of their own, one to a line, `KEY WEIGHT`: 64 digits of hex and a
    /// number. Validators of the genesis file have the weight of their stake.
    #[arg(long = "quic.weights", requires = "quic", value_name = "FILE")]
    weights: Option<PathBuf>,
}

impl ClientArgs {
    /// What the way in needs of a data folder and a chain, if clients are to be let in.
    ///
    /// # Errors
    /// No identity, a list that cannot be read, or a line of it that is none.
    pub(crate) fn prepare(&self, datadir: &Path, chain: &ChainSpec) -> eyre::Result<Option<IngressConfig>> {
        let Some(listen) = self.quic else { return Ok(None) };
        Ok(Some(IngressConfig { listen, key: keys::identity(datadir)?, weights: self.weights(chain)? }))
    }

    /// Whose transactions have weight, by validators' stake and the operator's list; of who is in both, the list's.
    fn weights(&self, chain: &ChainSpec) -> eyre::Result<Vec<(B256, u64)>> {
        let validators = chain.ordering.validators.iter();
        let stakes = validators.filter_map(|one| Some((B256::try_from(one.identity.as_ref()).ok()?, one.stake)));
        let mut weights: BTreeMap<_, _> = stakes.collect();
        if let Some(path) = &self.weights {
            let name = path.display();
            let size = std::fs::metadata(path).wrap_err_with(|| format!("cannot read {name}"))?.len();
            ensure!(size <= WEIGHTS_BYTES_MAX, "{name} has {size} bytes, at most {WEIGHTS_BYTES_MAX} are taken");
            let text = std::fs::read_to_string(path).wrap_err_with(|| format!("cannot read {name}"))?;
            weights.extend(listed(&text).wrap_err_with(|| format!("cannot use {name}"))?);
        }
        ensure!(weights.len() <= WEIGHTS_MAX, "{} keys have weight, at most {WEIGHTS_MAX} may", weights.len());
        Ok(weights.into_iter().collect())
    }
}

/// The ways in for clients, each on threads of its own: what they do there takes no turn of a task that other nodes
/// wait for, and nobody who streams transactions waits for somebody's ten thousand logs.
#[derive(Debug)]
pub(crate) struct Clients {
    server: RpcServer,
    ingress: Option<Ingress>,
    threads: Vec<Threads>,
}

impl Clients {
    /// Serves JSON-RPC, and lets clients in over QUIC if that is wanted.
    ///
    /// # Errors
    /// If there is no thread, or it cannot listen.
    pub(crate) async fn start(
        quic: Option<IngressConfig>,
        (rpc, rpc_node): (RpcConfig, RpcNode),
        node: &Node,
    ) -> eyre::Result<Self> {
        let (mut ingress, mut all) = (None, Vec::new());
        if let Some(config) = quic {
            let (handle, threads) = Threads::start("clients", give_way)?;
            let _inside = handle.enter();
            let (admission, query, events) = (node.admission.clone(), node.query.clone(), node.events.clone());
            let started = Ingress::start(config, Doors { admission, query, events });
            ingress = Some(started.map_err(|error| eyre!("cannot let clients in: {error}"))?);
            all.push(threads);
        }
        let (handle, threads) = Threads::start("rpc", give_way)?;
        all.push(threads);
        let server = handle.spawn(net::rpc::serve(rpc, rpc_node)).await?.wrap_err("cannot serve JSON-RPC")?;
        Ok(Self { server, ingress, threads: all })
    }

    /// Says goodbye to them.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
        if let Some(ingress) = self.ingress {
            ingress.stop().await;
        }
        for threads in self.threads {
            threads.end().await;
        }
    }

    /// What a person is told of the way in over QUIC.
    pub(crate) fn line(&self) -> Option<String> {
        let ingress = self.ingress.as_ref()?;
        Some(format!("clients    {}@{} over QUIC", hex::encode(ingress.identity()), ingress.address()))
    }

    /// Who serves JSON-RPC.
    pub(crate) const fn server(&self) -> &RpcServer {
        &self.server
    }
}

/// Keys and weights of a list; empty lines and what follows `#` are passed over.
fn listed(text: &str) -> eyre::Result<Vec<(B256, u64)>> {
    let mut found: Vec<(B256, u64)> = Vec::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let (key, weight) = match words[..] {
            [] => continue,
            [key, weight] => (key, weight),
            _ => bail!("line {number} is not `KEY WEIGHT`"),
        };
        let key: B256 = key.parse().map_err(|_| eyre!("line {number}: {key} is no key: 64 digits of hex"))?;
        let weight = weight.parse().ok().filter(|weight| *weight > 0);
        let weight = weight.ok_or_else(|| eyre!("line {number}: the weight must be a number above 0"))?;
        ensure!(found.iter().all(|(other, _)| *other != key), "line {number}: {key} has a weight already");
        found.push((key, weight));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_weights_is_taken_as_it_is_or_refused_with_its_line() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let list = format!("# makers\n\n{one} 5\n  0x{two}\t7 # the second\n");
        assert_eq!(listed(&list).unwrap(), [(B256::repeat_byte(0x11), 5), (B256::repeat_byte(0x22), 7)]);
        for (bad, says) in [
            (one.clone(), "line 1 is not"),
            (format!("\n{one} 5 6"), "line 2 is not"),
            (format!("{one} 0"), "line 1: the weight"),
            (format!("{one} -1"), "line 1: the weight"),
            (format!("{one} 99999999999999999999"), "line 1: the weight"),
            ("11 5".to_owned(), "line 1: 11 is no key"),
            (format!("{one} 5\n{one} 6"), "line 2: 0x1111"),
        ] {
            let error = listed(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
