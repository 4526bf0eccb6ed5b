//! `localnet.json`: what a local network consists of, and which of its processes run.
//!
//! The file is replaced as a whole, and whoever changes it holds `localnet.lock` from reading to writing: the one who
//! started the network and the commands that play with it are different processes.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256};
use eyre::{WrapErr, ensure, eyre};
use serde::{Deserialize, Serialize};

use super::process::Process;

const FORMAT: &str = "sluice-localnet";
const VERSION: u64 = 2;

/// Largest file that is read, in bytes; a node takes some 2,000.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A local network.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    format: String,
    version: u64,
    /// Where it was made; its files name each other by this.
    pub(super) dir: PathBuf,
    /// Its genesis file.
    pub(super) genesis: PathBuf,
    /// What it was made of.
    pub(super) settings: Settings,
    /// Validators in order, then followers.
    pub(super) nodes: Vec<Node>,
}

/// What a local network is made of.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) validators: u16,
    pub(super) followers: u16,
    /// Stake of each validator.
    pub(super) stake: Vec<u64>,
    /// Port of the first node's JSON-RPC; 0: any free ones.
    pub(super) base_port: u16,
    pub(super) chain_id: u64,
    pub(super) gas_limit: u64,
    /// `None`: the default of genesis files.
    pub(super) slot_time_ms: Option<u64>,
    pub(super) delta_ms: Option<u64>,
    pub(super) epoch_slots: Option<u64>,
    /// Accounts with ether besides those of development chains.
    pub(super) fund: Vec<Address>,
}

/// One node of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    /// `validator-0`, `follower-4`: its number is its place among the nodes.
    pub(super) name: String,
    /// Its index among the validators; `None` if it follows.
    pub(super) validator: Option<u16>,
    /// Its network identity.
    pub(super) identity: B256,
    pub(super) ports: Ports,
    /// JSON-RPC over HTTP.
    pub(super) rpc: String,
    /// JSON-RPC over WebSocket.
    pub(super) ws: String,
    /// Prometheus.
    pub(super) metrics: String,
    /// JSON-RPC of whoever runs the node.
    pub(super) admin: String,
    /// Transactions over QUIC.
    pub(super) quic: String,
    /// `IDENTITY@HOST:PORT`, as its peers may be told.
    pub(super) peer: String,
    /// Data folder.
    pub(super) datadir: PathBuf,
    /// What it says.
    pub(super) log: PathBuf,
    /// What it is started with.
    pub(super) arguments: Vec<String>,
    /// The process, once one was started.
    pub(super) process: Option<Process>,
    /// Whether its end would be an accident.
    pub(super) should_run: bool,
}

/// Ports of a node on 127.0.0.1.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ports {
    pub(super) rpc: u16,
    pub(super) ws: u16,
    pub(super) metrics: u16,
    pub(super) admin: u16,
    /// UDP.
    pub(super) p2p: u16,
    /// UDP.
    pub(super) quic: u16,
}

impl Network {
    pub(super) fn new(dir: PathBuf, genesis: PathBuf, settings: Settings, nodes: Vec<Node>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, dir, genesis, settings, nodes }
    }

    /// A node by its number.
    pub(super) fn node(&mut self, number: usize) -> eyre::Result<&mut Node> {
        let count = self.nodes.len();
        let last = count.saturating_sub(1);
        self.nodes.get_mut(number).ok_or_else(|| eyre!("there is no node {number}: this network has 0 to {last}"))
    }
}

/// The folder of a local network.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// Without links and dots.
    pub(super) dir: PathBuf,
}

impl Folder {
    /// A folder that is there.
    pub(super) fn open(dir: &Path) -> eyre::Result<Self> {
        let dir = dir.canonicalize().wrap_err_with(|| format!("cannot open {}", dir.display()))?;
        Ok(Self { dir })
    }

    fn file(&self) -> PathBuf {
        self.dir.join("localnet.json")
    }

    /// Whether it holds a network.
    pub(super) fn is_made(&self) -> eyre::Result<bool> {
        self.file().try_exists().wrap_err_with(|| format!("cannot look at {}", self.file().display()))
    }

    /// The network as it was last written.
    pub(super) fn read(&self) -> eyre::Result<Network> {
        let shown = self.file();
        let failed = || format!("cannot read {}", shown.display());
        let mut text = Vec::new();
        let file = File::open(self.file()).wrap_err_with(failed)?;
        file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut text).wrap_err_with(failed)?;
        let is_small = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX);
        ensure!(is_small, "{} has more than {FILE_BYTES_MAX} bytes", shown.display());
        let network: Network =
            serde_json::from_slice(&text).wrap_err_with(|| format!("{} is no local network", shown.display()))?;
        let (format, version) = (&network.format, network.version);
        ensure!(format == FORMAT && version == VERSION, "{} is of another version", shown.display());
        let (made, found) = (network.dir.display(), self.dir.display());
        ensure!(network.dir == self.dir, "this network was made in {made}, where its files have to be, not in {found}");
        Ok(network)
    }

    /// Writes a network; whoever reads sees the one before or this one.
    pub(super) fn write(&self, network: &Network) -> eyre::Result<()> {
        let text = serde_json::to_string_pretty(network)? + "\n";
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".localnet-").tempfile_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(self.file()).map_err(|error| error.error)
        };
        write().wrap_err_with(|| format!("cannot write {}", self.file().display()))?;
        Ok(())
    }

    /// Reads, changes and writes the network while nobody else does.
    pub(super) fn edit<T>(&self, change: impl FnOnce(&mut Network) -> eyre::Result<T>) -> eyre::Result<T> {
        let lock = self.lock_file("localnet.lock")?;
        lock.lock().wrap_err("cannot lock localnet.lock")?;
        let mut network = self.read()?;
        let given = change(&mut network)?;
        self.write(&network)?;
        Ok(given)
    }

    /// Makes this process the one that runs the network, for as long as the file is kept.
    pub(super) fn take(&self) -> eyre::Result<File> {
        let file = self.lock_file("supervisor.lock")?;
        file.try_lock().map_err(|_| eyre!("another `sluice localnet` runs the network in {}", self.dir.display()))?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> eyre::Result<File> {
        let path = self.dir.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.wrap_err_with(|| format!("cannot open {}", path.display()))
    }
}
