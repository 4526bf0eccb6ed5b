//! A cluster of real node processes, each in a network namespace of its own.
//!
//! ```text
//! Plan -> sluice keys, sluice genesis -> a namespace, a folder and a command line for each node
//!      -> start, kill, stop, restart                        watched by threads, loaded by threads
//!      -> finish: every oracle of the ledger over all nodes
//! ```
//! Between nodes lies the bridge alone, or a relay in the hub that every packet has to pass. Nothing waits by time:
//! what is waited for is asked for until it is there or a limit has passed.

pub mod ledger;
mod make;
pub mod traffic;
pub mod watch;

use std::{
    ffi::OsStr,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::{
    ledger::Ledger,
    make::{Home, make},
    watch::Watch,
};
use crate::{
    machine::{Usage, shifted_clock, slow_syncs},
    namespaces::{HUB, NETWORK, Namespaces, Place, Stay},
    node::{Node, binary},
    relay::{Conditions, Options, Relay},
    rpc::{Rpc, quantity},
};

/// Port on which nodes hear each other: every one has its address for itself.
pub const P2P_PORT: u16 = 30_303;
/// Its other ports.
const HTTP_PORT: u16 = 8_545;
const WS_PORT: u16 = 8_546;
const METRICS_PORT: u16 = 9_100;
const ADMIN_PORT: u16 = 8_547;

/// Time between two questions to a node of which something is awaited.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Blocks asked for in one request.
const BATCH_BLOCKS: u64 = 50;

/// What nodes count that may tell why a scenario failed.
const COUNTS_TOLD: [&str; 1] = ["net_peer_"];

/// What lies between nodes.
#[derive(Clone, Copy, Debug)]
pub enum Between {
    /// The bridge; cuts and losses by nftables.
    Bridge,
    /// A relay with this seed and these conditions; every other way is closed.
    Relay(u64, Conditions),
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Stake of each validator.
    pub stakes: Vec<u64>,
    /// Full nodes without a vote.
    pub followers: usize,
    /// Places on the network that no node knows of.
    pub strangers: usize,
    /// What lies between them.
    pub between: Between,
    /// Changes to `config.sluice` of the genesis file.
    pub sluice: Value,
}

impl Plan {
    /// Validators of equal stake on a bridge, with the parameters that a chain has by itself.
    #[must_use]
    pub fn validators(count: usize) -> Self {
        Self { stakes: vec![1; count], followers: 0, strangers: 0, between: Between::Bridge, sluice: json!({}) }
    }
}

/// What is wrong with the machine that a node is started on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ailment {
    /// Nothing.
    #[default]
    None,
    /// Every sync takes so much longer.
    SlowSyncs(Duration),
    /// Its clock is off by so many milliseconds.
    Clock(i64),
}

/// One node of a cluster, whether or not it runs.
#[derive(Debug)]
pub struct Member {
    /// Its process, if it runs.
    pub node: Option<Node>,
    /// Where it answers.
    pub url: String,
    /// What is wrong with its machine from its next start on.
    pub ailment: Ailment,
    /// More flags, from its next start on.
    pub flags: Vec<String>,
    home: Home,
    log: PathBuf,
}

/// Times that follow from the chain's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From one block to the next while there are transactions.
    pub slot: Duration,
    /// Slots of one leader.
    pub window: u64,
    /// How long a busy chain waits for a leader's first block: 3 Delta, execution and relay (a slot and a Delta), and
    /// the slot itself.
    pub timer: Duration,
    /// The same of an idle chain.
    pub idle_timer: Duration,
}

/// A cluster; its processes are killed and its namespaces removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes: validators first.
    pub members: Vec<Member>,
    /// What was ever reported.
    pub ledger: Ledger,
    /// The relay between nodes, if there is one.
    pub relay: Option<Relay>,
    /// Where the nodes live.
    pub spaces: Namespaces,
    /// Times of the chain.
    pub timing: Timing,
    validators: usize,
    genesis: PathBuf,
    _stay: Stay,
    home: TempDir,
}

impl Cluster {
    /// Makes keys, a genesis file, folders and namespaces; nothing runs yet. The calling thread lives in the hub from
    /// here on, until the cluster is dropped.
    ///
    /// # Panics
    /// If the machine lacks something, or a command fails.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let count = plan.stakes.len() + plan.followers;
        let mut spaces = Namespaces::new(count + plan.strangers).unwrap_or_else(|why| panic!("{why}"));
        let home = tempfile::Builder::new().prefix("sluice-cluster-").tempdir().expect("a folder");
        let stay = spaces.enter(Place::Hub);
        let addresses: Vec<SocketAddr> = (0..count).map(|node| (spaces.address(node), P2P_PORT).into()).collect();
        let relay = match plan.between {
            Between::Bridge => None,
            Between::Relay(seed, conditions) => {
                spaces.partition(&[]);
                let options = Options {
                    bind: HUB.into(),
                    network: Some(NETWORK),
                    conditions,
                    ..Options::new(seed, addresses.clone())
                };
                Some(Relay::start(&options).expect("a relay"))
            }
        };
        let (genesis, chain, homes) = make(home.path(), plan, &addresses);
        let members = homes.into_iter().enumerate().map(|(index, place)| {
            let url = format!("http://{}:{HTTP_PORT}", spaces.address(index));
            let log = home.path().join(format!("node{index}.log"));
            Member { node: None, url, ailment: Ailment::None, flags: Vec::new(), home: place, log }
        });
        let (members, timing) = (members.collect(), Timing::of(&chain));
        let (validators, ledger) = (plan.stakes.len(), Ledger::default());
        Self { members, ledger, relay, spaces, timing, validators, genesis, _stay: stay, home }
    }

    /// The command line that runs a node.
    fn command(&self, index: usize) -> Command {
        let member = &self.members[index];
        let address = self.spaces.address(index);
        let mut line = self.spaces.command(Place::Node(index));
        let mut environment = Vec::new();
        match member.ailment {
            Ailment::None => {}
            Ailment::SlowSyncs(delay) => line.extend(slow_syncs(delay).unwrap_or_else(|why| panic!("{why}"))),
            Ailment::Clock(offset) => environment = shifted_clock(offset).unwrap_or_else(|why| panic!("{why}")),
        }
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(binary()).envs(environment);
        command.arg("node").arg("--chain").arg(&self.genesis).arg("--datadir").arg(&member.home.datadir);
        if let Some((keys, password)) = &member.home.keys {
            command.arg("--validator-keys").arg(keys).arg("--validator-password-file").arg(password);
        }
        let filter = std::env::var("SLUICE_CLUSTERS_LOG").unwrap_or_else(|_| "warn".to_owned());
        command.args(["--log", &filter, "--http.vhosts", "*"]);
        let ports = [("p2p", P2P_PORT), ("http", HTTP_PORT), ("ws", WS_PORT)];
        for (door, port) in ports {
            command.arg(format!("--{door}.addr={address}")).arg(format!("--{door}.port={port}"));
        }
        command.arg(format!("--metrics={address}:{METRICS_PORT}")).arg(format!("--admin=127.0.0.1:{ADMIN_PORT}"));
        for (other, peer) in self.members.iter().enumerate().filter(|(other, _)| *other != index) {
            let door = self.relay.as_ref().map(|relay| relay.address(index, other));
            let there = door.unwrap_or_else(|| (self.spaces.address(other), P2P_PORT).into());
            command.arg(format!("--p2p.peers={}@{there}", peer.home.identity));
        }
        command.args(&member.flags);
        command
    }

    /// Starts a node and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&mut self, index: usize) {
        assert!(self.members[index].node.is_none(), "node {index} runs");
        let node = Node::spawn(self.command(index), &self.members[index].log);
        let node = node.unwrap_or_else(|(status, log)| panic!("node {index} ended with {status}: {}", tail(&log)));
        self.members[index].node = Some(node);
    }

    /// Starts every node that does not run, all at once.
    ///
    /// # Panics
    /// If one does not serve.
    pub fn start_all(&mut self) {
        let away: Vec<usize> = (0..self.members.len()).filter(|index| self.members[*index].node.is_none()).collect();
        self.start_these(&away);
    }

    /// Starts some nodes, all at once.
    ///
    /// # Panics
    /// If one does not serve.
    pub fn start_these(&mut self, away: &[usize]) {
        let commands: Vec<_> =
            away.iter().map(|index| (self.command(*index), self.members[*index].log.clone())).collect();
        let nodes: Vec<_> = std::thread::scope(|scope| {
            let started = commands.into_iter().map(|(command, log)| scope.spawn(move || Node::spawn(command, &log)));
            let started: Vec<_> = started.collect();
            started.into_iter().map(|thread| thread.join().expect("it starts")).collect()
        });
        for (index, node) in away.iter().zip(nodes) {
            let node = node.unwrap_or_else(|(status, log)| panic!("node {index} ended with {status}: {}", tail(&log)));
            self.members[*index].node = Some(node);
        }
    }

    /// Kills a node as a power cut would, and reads what its log holds.
    ///
    /// # Panics
    /// If it does not run, or its log shows that something was signed that excludes something else.
    pub fn kill(&mut self, index: usize) {
        self.members[index].node.take().unwrap_or_else(|| panic!("node {index} does not run")).kill();
        self.read_log(index);
    }

    /// Kills some nodes, as nearly at once as one process can.
    ///
    /// # Panics
    /// As [`Self::kill`].
    pub fn kill_all(&mut self, indices: &[usize]) {
        std::thread::scope(|scope| {
            for (_, member) in self.members.iter_mut().enumerate().filter(|(index, _)| indices.contains(index)) {
                let node = member.node.take();
                scope.spawn(move || node.expect("it runs").kill());
            }
        });
        indices.iter().for_each(|index| self.read_log(*index));
    }

    /// Asks a node to stop, waits until it has, and reads what its log holds.
    ///
    /// # Panics
    /// If it does not run or stop as one that was asked, or as [`Self::kill`].
    pub fn stop(&mut self, index: usize) {
        let status = self.members[index].node.take().unwrap_or_else(|| panic!("node {index} does not run")).stop();
        assert!(status.success(), "node {index} ended with {status}: {}", tail(&self.said(index)));
        self.read_log(index);
    }

    /// What `sluice log show` prints of a node that does not run; nothing of one that signs nothing.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn log_lines(&self, index: usize) -> Vec<String> {
        if index >= self.validators {
            return Vec::new();
        }
        let datadir = &self.members[index].home.datadir;
        let output = Command::new(binary()).args(["log", "show", "--datadir"]).arg(datadir).output().expect("it runs");
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "log show of node {index}: {err}");
        out.lines().map(str::to_owned).collect()
    }

    fn read_log(&mut self, index: usize) {
        let lines = self.log_lines(index);
        self.ledger.log(index, &lines).unwrap_or_else(|what| panic!("a validator signed twice: {what}"));
    }

    /// A node that runs.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        self.members[index].node.as_ref().unwrap_or_else(|| panic!("node {index} does not run"))
    }

    /// Nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].node.is_some()).collect()
    }

    /// Nodes and where they answer, as traffic wants them.
    #[must_use]
    pub fn urls(&self, indices: &[usize]) -> Vec<(usize, String)> {
        indices.iter().map(|index| (*index, self.members[*index].url.clone())).collect()
    }

    /// `sluice_status` of a node.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn status(&self, index: usize) -> Value {
        self.node(index).rpc.call("sluice_status", json!([]))
    }

    /// How many others a node is connected with.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn peers(&self, index: usize) -> usize {
        usize::try_from(quantity(&self.status(index)["peers"])).expect("few nodes")
    }

    /// Height of the newest final block of a node.
    ///
    /// # Panics
    /// If it does not answer, or its height has fallen.
    pub fn height(&mut self, index: usize) -> u64 {
        let height = quantity(&self.node(index).rpc.call("eth_blockNumber", json!([])));
        self.ledger.height(index, height).unwrap_or_else(|what| panic!("{what}"));
        height
    }

    /// The heights of some nodes.
    ///
    /// # Panics
    /// As [`Self::height`].
    pub fn heights(&mut self, indices: &[usize]) -> Vec<u64> {
        indices.iter().map(|index| self.height(*index)).collect()
    }

    /// Waits until all of these nodes have a final block at a height or above, and gives how long it took.
    ///
    /// # Panics
    /// If they have not after so long.
    pub fn reach(&mut self, indices: &[usize], height: u64, limit: Duration) -> Duration {
        let begun = Instant::now();
        for index in indices {
            let left = limit.saturating_sub(begun.elapsed());
            until(&format!("height {height} at node {index}"), left, || (self.height(*index) >= height).then_some(()));
        }
        begun.elapsed()
    }

    /// Waits until all of these nodes have so many more blocks than the highest of them has.
    ///
    /// # Panics
    /// If they have not after so long.
    pub fn advance(&mut self, indices: &[usize], blocks: u64, limit: Duration) -> Duration {
        let highest = self.heights(indices).into_iter().max().expect("some node");
        self.reach(indices, highest + blocks, limit)
    }

    /// Has the ledger look at what a node reports of every block up to its tip.
    ///
    /// # Panics
    /// If something contradicts what was reported before.
    pub fn observe(&mut self, index: usize) {
        let tip = self.height(index);
        for first in (1..=tip).step_by(usize::try_from(BATCH_BLOCKS).expect("small")) {
            let heights = first..=tip.min(first + BATCH_BLOCKS - 1);
            let calls: Vec<Value> = heights
                .map(|height| {
                    let params = json!([format!("{height:#x}"), false]);
                    json!({"jsonrpc": "2.0", "id": height, "method": "eth_getBlockByNumber", "params": params})
                })
                .collect();
            let (status, text) = self.node(index).rpc.post(Value::from(calls).to_string()).expect("it answers");
            let answers: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
            for answer in &answers {
                assert!(answer["result"].is_object(), "node {index} is at height {tip}: {answer}");
                let reported = watch::reported(&answer["result"]);
                self.ledger.block(index, reported).unwrap_or_else(|what| panic!("a fork: {what}"));
            }
        }
    }

    /// Takes what a watch was told by a node as reported: it may not be lost again.
    ///
    /// # Panics
    /// If it contradicts what was reported before.
    pub fn remember(&mut self, index: usize, watch: &Watch) {
        for block in watch.seen() {
            self.ledger.block(index, block.reported).unwrap_or_else(|what| panic!("a fork: {what}"));
        }
        let height = watch.told().max(self.ledger.highest(index));
        self.ledger.height(index, height).expect("it does not fall");
    }

    /// Every node that runs comes to the highest height that any node reported, holds the same blocks and states, and
    /// is stopped; nobody signed twice, was accused, or panicked. Gives what was compared.
    ///
    /// # Panics
    /// If one of these does not hold.
    pub fn finish(&mut self, limit: Duration) -> String {
        let running = self.running();
        let highest = (0..self.members.len()).map(|index| self.ledger.highest(index)).max().unwrap_or(0);
        self.reach(&running, highest, limit);
        running.iter().for_each(|index| self.observe(*index));
        running.iter().for_each(|index| self.stop(*index));
        let signed: Vec<usize> = (0..self.validators).map(|index| self.ledger.slots_signed(index)).collect();
        for index in 0..self.members.len() {
            let said = self.said(index);
            for word in ["a validator is faulty", "panicked at"] {
                assert!(!said.contains(word), "node {index}: {}", line_with(&said, word));
            }
        }
        format!("{} heights with one block and state each, slots signed {signed:?}", self.ledger.blocks())
    }

    /// What a node counts, as Prometheus reads it: the lines that begin with one of these names and are not zero.
    #[must_use]
    pub fn metrics(&self, index: usize, names: &[&str]) -> Vec<String> {
        let url = format!("http://{}:{METRICS_PORT}/metrics", self.spaces.address(index));
        let text = Rpc::new(&url).get().unwrap_or_default();
        let wanted = |line: &&str| names.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
        text.lines().filter(wanted).map(str::to_owned).collect()
    }

    /// Everything that a node wrote, over all its lives.
    #[must_use]
    pub fn said(&self, index: usize) -> String {
        std::fs::read_to_string(&self.members[index].log).unwrap_or_default()
    }

    /// Runs `sluice load` against some nodes and gives its report.
    ///
    /// # Panics
    /// If it fails: it checks every receipt and balance.
    #[must_use]
    pub fn load(&self, indices: &[usize], arguments: &[impl AsRef<OsStr>]) -> Value {
        self.start_load(indices, arguments).end()
    }

    /// Begins to run `sluice load` against some nodes.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_load(&self, indices: &[usize], arguments: &[impl AsRef<OsStr>]) -> Load {
        let (report, said) = (self.home.path().join("load.json"), self.home.path().join("load.log"));
        let urls: Vec<&str> = indices.iter().map(|index| &*self.members[*index].url).collect();
        let mut command = Command::new(binary());
        command.args(["load", "--rpc", &urls.join(",")]).args(arguments).arg("--json").arg(&report);
        let log = File::create(&said).expect("a file");
        let child = command.stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("it runs");
        Load { child, report, said }
    }

    /// Where a node keeps the key by which others know it.
    #[must_use]
    pub fn node_key(&self, index: usize) -> PathBuf {
        self.members[index].home.datadir.join("identity.key")
    }

    /// A folder that is removed with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// What the processes hold and have used, in order.
    #[must_use]
    pub fn usage(&self) -> Vec<Option<Usage>> {
        let of = |member: &Member| Usage::of(member.node.as_ref()?.process());
        self.members.iter().map(of).collect()
    }
}

/// `sluice load` at work; ended when dropped.
#[derive(Debug)]
pub struct Load {
    child: Child,
    report: PathBuf,
    said: PathBuf,
}

impl Load {
    /// Whether it still sends or waits for anything.
    ///
    /// # Panics
    /// If its status cannot be read.
    pub fn is_under_way(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Its report, once it has ended.
    ///
    /// # Panics
    /// If it fails: it checks every receipt and balance.
    #[must_use]
    pub fn end(mut self) -> Value {
        let status = self.child.wait().expect("our own child");
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        assert!(status.success(), "sluice load: {}", tail(&said));
        serde_json::from_slice(&std::fs::read(&self.report).expect("a report")).expect("JSON")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for index in 0..self.members.len() {
                eprintln!("--- node {index} said last:\n{}", tail(&self.said(index)));
                eprintln!("--- and counts {}", self.metrics(index, &COUNTS_TOLD).join(", "));
            }
            if std::env::var_os("SLUICE_CLUSTERS_KEEP").is_some() {
                self.home.disable_cleanup(true);
                eprintln!("--- kept: {}", self.home.path().display());
            }
        }
    }
}

impl Timing {
    fn of(genesis: &Value) -> Self {
        let sluice = &genesis["config"]["sluice"];
        let number = |name: &str, default| sluice[name].as_u64().unwrap_or(default);
        let (slot, delta, idle) =
            (number("slot_time_ms", 200), number("delta_ms", 150), number("idle_interval_ms", 1_000));
        let timer = |pause| Duration::from_millis(3 * delta + slot + delta + pause);
        let window = number("window", 4);
        Self { slot: Duration::from_millis(slot), window, timer: timer(slot), idle_timer: timer(idle.max(slot)) }
    }
}

/// Asks until there is an answer.
///
/// # Panics
/// If there is none after so long.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::park_timeout(ASK_EVERY);
    }
}

/// Asks for a whole stretch of time that something holds.
///
/// # Panics
/// If it does not hold once.
pub fn throughout(span: Duration, mut holds: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < span {
        holds();
        std::thread::park_timeout(ASK_EVERY);
    }
    holds();
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn line_with(text: &str, word: &str) -> String {
    text.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned()
}
