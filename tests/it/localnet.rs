//! Four validators and a follower as real processes on this machine: one chain under load, killed and restarted.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use engine::spans;
use serde_json::{Value, json};
use tests::{cluster::until, machine::Usage, node::binary, rpc::Rpc};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// From one block to the next under load, unless a genesis file says otherwise.
const SLOT_MS: f64 = 200.0;

/// A local network; its processes end with it.
pub(super) struct Localnet {
    supervisor: Child,
    folder: tempfile::TempDir,
    pub(super) nodes: Vec<Rpc>,
}

impl Localnet {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut net = Self { supervisor: supervise(folder.path(), arguments), folder, nodes: Vec::new() };
        net.come_up();
        net
    }

    /// The same, and then again from the beginning with another block 0: `edit` changes the genesis file.
    pub(super) fn start_edited(arguments: &[&str], edit: impl FnOnce(&mut Value)) -> Self {
        let mut net = Self::start(arguments);
        net.end();
        let path = net.path("net/genesis.json");
        let mut genesis = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
        edit(&mut genesis);
        std::fs::write(&path, genesis.to_string()).expect("written");
        (0..net.nodes.len()).for_each(|node| net.empty(node));
        net.supervisor = supervise(net.folder.path(), &[]);
        net.come_up();
        net
    }

    /// Waits until all nodes make blocks.
    fn come_up(&mut self) {
        until("the network's file", PATIENCE, || self.file().exists().then_some(()));
        self.nodes = self.described().iter().map(|node| Rpc::new(node["rpc"].as_str().expect("a URL"))).collect();
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.reach(&all, 2);
    }

    /// Asked to stop it ends its nodes; an error says that it is gone already.
    fn end(&mut self) {
        let _ = rustix::process::kill_process(pid(&self.supervisor), rustix::process::Signal::INT);
        let _ = self.supervisor.wait();
    }

    /// Takes everything away that a stopped node knows of the chain; the identity by which others know it stays.
    pub(super) fn empty(&self, node: usize) {
        let folder = PathBuf::from(self.described()[node]["datadir"].as_str().expect("a path"));
        for part in ["chain", "state", "segments", "log", "past"] {
            std::fs::remove_dir_all(folder.join(part)).expect("it is there");
        }
    }

    /// Sends mixed load to all nodes.
    pub(super) fn load(&self, flags: &[&str]) {
        load(&self.nodes, self.folder.path(), flags);
    }

    /// Where the metrics of the first four nodes are.
    fn metrics(&self) -> String {
        let nodes = self.described();
        let urls = nodes[..4].iter().map(|node| node["metrics"].as_str().expect("a URL"));
        urls.collect::<Vec<_>>().join(",")
    }

    fn file(&self) -> PathBuf {
        self.path("net/localnet.json")
    }

    /// A place beside the network's folder `net`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its nodes, as the file describes them now.
    pub(super) fn described(&self) -> Vec<Value> {
        let network: Value = serde_json::from_slice(&std::fs::read(self.file()).expect("readable")).expect("JSON");
        network["nodes"].as_array().expect("nodes").clone()
    }

    pub(super) fn play(&self, arguments: &[&str]) {
        let folder = self.folder.path().join("net");
        let done = Command::new(binary()).arg("localnet").args(arguments).arg("--dir").arg(folder).status();
        assert!(done.expect("it runs").success(), "{arguments:?}");
    }

    /// Takes the newest blocks of a stopped node away, down to a height.
    fn rewind(&self, node: usize, to: u64) {
        let folder = self.described()[node]["datadir"].as_str().expect("a path").to_owned();
        let genesis = self.folder.path().join("net/genesis.json");
        let done = Command::new(binary())
            .args(["db", "rewind", "--discard-final-blocks", "--log", "warn", "--to", &to.to_string(), "--datadir"])
            .arg(folder)
            .arg("--chain")
            .arg(genesis)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains(&format!("\"to\":{to}")), "{said}: {done:?}");
    }

    pub(super) fn height(&self, node: usize) -> Option<u64> {
        let answer = self.nodes[node].try_call("eth_blockNumber", &json!([]))?.ok()?;
        u64::from_str_radix(answer.as_str()?.strip_prefix("0x")?, 16).ok()
    }

    fn heights(&self) -> Vec<Option<u64>> {
        (0..self.nodes.len()).map(|node| self.height(node)).collect()
    }

    pub(super) fn reach(&self, nodes: &[usize], height: u64) {
        let has = |node: &usize| self.height(*node).is_some_and(|has| has >= height);
        until(&format!("height {height} at {nodes:?}"), PATIENCE, || nodes.iter().all(has).then_some(()));
    }

    pub(super) fn block(&self, node: usize, height: u64) -> Value {
        let parameters = json!([format!("{height:#x}"), false]);
        let block = self.nodes[node].try_call("eth_getBlockByNumber", &parameters).expect("it answers");
        block.expect("a block that is there")
    }

    /// Every node has the same block and state at every height that all have, from one on; gives the highest of them.
    pub(super) fn agree(&self, from: u64) -> u64 {
        let least = self.heights().into_iter().map(|height| height.expect("it answers")).min().expect("nodes");
        for height in from..=least {
            let one = self.block(0, height);
            for node in 1..self.nodes.len() {
                let other = self.block(node, height);
                for field in ["hash", "stateRoot", "receiptsRoot"] {
                    assert_eq!(other[field], one[field], "{field} of block {height} at node {node}");
                }
            }
        }
        least
    }

    /// What each node has done so far.
    fn work(&self) -> Vec<Work> {
        self.described().iter().map(Work::of).collect()
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        self.end();
    }
}

fn supervise(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(binary())
        .args(["localnet", "--quiet", "--log", "warn", "--base-port", "0", "--dir"])
        .arg(folder.join("net"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Seconds that the stages of a node were busy since its start, and its processors.
#[derive(Clone, Copy, Debug, Default)]
struct Work([f64; STAGES.len()], f64);

/// Stages that say how long they were busy.
const STAGES: [(&str, &str); 4] = [
    ("admission", "engine_admission_busy_nanoseconds_total"),
    ("building", "engine_build_busy_nanoseconds_total"),
    ("executing", "engine_execute_busy_nanoseconds_total"),
    ("committing", "engine_commit_busy_nanoseconds_total"),
];

/// A number that a node shows on its page of metrics.
fn metric(node: &Value, name: &str) -> f64 {
    let page = Rpc::new(node["metrics"].as_str().expect("a URL"));
    page.metric(name).unwrap_or_else(|| panic!("{name} is not among the metrics"))
}

impl Work {
    fn of(node: &Value) -> Self {
        let stages = STAGES.map(|(_, name)| metric(node, name) / 1e9);
        let process = u32::try_from(node["process"]["pid"].as_u64().expect("it runs")).expect("a process id");
        Self(stages, Usage::of(process).expect("it runs").cpu.as_secs_f64())
    }

    /// Parts of a core since another moment.
    fn since(self, before: Self, seconds: f64) -> String {
        let parts = STAGES.iter().zip(self.0.iter().zip(before.0));
        let stages: String =
            parts.map(|((stage, _), (now, then))| format!(", {stage} {:.3}", (now - then) / seconds)).collect();
        format!("{:.3} in all{stages}", (self.1 - before.1) / seconds)
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id")
}

/// Sends mixed DeFi load to some nodes, which must include all of it and leave every balance right.
fn load(nodes: &[Rpc], folder: &Path, flags: &[&str]) -> Value {
    let urls: Vec<&str> = nodes.iter().map(Rpc::url).collect();
    let report = folder.join("load.json");
    let done = Command::new(binary())
        .args(["load", "--shape", "mixed", "--batch", "10", "--log", "warn", "--rpc"])
        .arg(urls.join(","))
        .args(flags)
        .arg("--json")
        .arg(&report)
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "not every transaction is included, or not every balance right: {said}");
    serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON")
}

/// The stages of a report, by name.
pub(super) fn stages(report: &Value) -> impl Iterator<Item = (&str, &Value)> {
    report["stages"].as_array().expect("stages").iter().map(|stage| (stage["stage"].as_str().expect("a name"), stage))
}

/// How many transactions passed a stage.
pub(super) fn count(stage: &Value) -> u64 {
    stage["transactions"].as_u64().expect("a number")
}

#[test]
fn a_local_network_finalizes_defi_load_and_outlives_the_death_of_its_nodes() {
    let net = Localnet::start(&["--validators", "4", "--followers", "1", "--", "--execution-threads", "2", "--stages"]);
    let metrics = net.metrics();
    // Nobody waits for an access list, so on a busy machine a node may have had none of a few.
    let lacks = |node: &Value| metric(node, "engine_block_listed_total") < 0.5;
    let (mut rounds, mut sent) = (0..10, 0);
    while rounds.next().is_some() {
        let flags = ["--txs", "2000", "--senders", "50", "--metrics", &metrics];
        let report = load(&net.nodes[..4], net.folder.path(), &flags);
        let passed: BTreeMap<&str, u64> = stages(&report).map(|(name, stage)| (name, count(stage))).collect();
        assert_eq!(passed.len(), spans::STAGES.len(), "a stage that nothing passed: {passed:?}");
        // What set-up sent may be durable at the slowest node only when the load is under way.
        let set_up = report["setup"].as_array().expect("phases").iter().map(|phase| phase["transactions"].as_u64());
        sent += 2_000 + set_up.map(|count| count.expect("a count")).sum::<u64>();
        assert!(passed["commit"] <= 4 * sent && passed["admit"] >= 2_000, "{passed:?} of {sent}");
        net.agree(0);
        if !net.described().iter().any(lacks) {
            break;
        }
    }
    for node in net.described() {
        assert!(!lacks(&node), "{} has executed no block along its access list", node["name"]);
        let wrong = metric(&node, "vm_replay_mismatch_total");
        assert!(wrong < 0.5, "{wrong} lists were wrong at {}", node["name"]);
    }
    net.play(&["kill", "1"]);
    let now = net.height(0).expect("it answers");
    net.reach(&[0, 2, 3, 4], now + 6);
    net.play(&["restart", "1"]);
    net.reach(&[0, 1, 2, 3, 4], now + 8);
    let reported: Vec<u64> = net.heights().into_iter().flatten().collect();
    net.play(&["kill", "0", "1", "2", "3", "4"]);
    net.play(&["restart", "0", "1", "2", "3", "4"]);
    let most = reported.into_iter().max().expect("nodes");
    // What any node reported is there after all of them died at once.
    net.reach(&[0, 1, 2, 3, 4], most + 2);
    net.agree(0);
    // A validator and a follower that lose final blocks take them from the others again.
    net.play(&["stop", "1", "4"]);
    for node in [1, 4] {
        net.rewind(node, 3);
    }
    let now = net.height(0).expect("it answers");
    net.play(&["restart", "1", "4"]);
    net.reach(&[0, 1, 2, 3, 4], now + 8);
    net.agree(0);
}

/// A round of load, and what every node says of itself after it; gives what was included per second.
fn round(net: &Localnet, what: &str, rate: Option<f64>, seconds: u64, seed: u64) -> f64 {
    let before = (Instant::now(), net.work(), net.heights()[0].expect("it answers"));
    let (rate, time, seed) =
        (rate.map_or_else(|| "max".to_owned(), |rate| format!("{rate:.0}")), format!("{seconds}s"), seed.to_string());
    let metrics = net.metrics();
    let flags = ["--duration", &time, "--rate", &rate, "--senders", "200", "--seed", &seed, "--settle", "1ms"];
    let flags = [&flags[..], &["--metrics", &metrics]].concat();
    let report = load(&net.nodes[..4], net.folder.path(), &flags);
    let (took, blocks) = (before.0.elapsed().as_secs_f64(), net.heights()[0].expect("it answers") - before.2);
    let figures = |name: &str| {
        let of = &report[name];
        let number = |field: &str| of[field].as_f64().unwrap_or(f64::NAN);
        format!("p50 {:.0} p95 {:.0} p99 {:.0} ms", number("p50"), number("p95"), number("p99"))
    };
    let included = report["rates"]["included_per_second"].as_f64().expect("a rate");
    println!("  {what}: {included:.0} tx/s included of {rate} asked for, {} in all", report["counts"]["included"]);
    println!("    sent to included {}, to accepted {}", figures("include_ms"), figures("accept_ms"));
    let part = |stage: &Value, name: &str| stage[name].as_f64().unwrap_or(f64::NAN);
    let ms =
        |(name, stage): (&str, &Value)| format!("{name} {:.1} ({:.0})", part(stage, "mean_ms"), part(stage, "p99_ms"));
    println!("    ms in each stage, p99 in brackets: {}", stages(&report).map(ms).collect::<Vec<_>>().join(", "));
    println!("    {blocks} blocks in {took:.1} s with set-up, {:.0} ms each", 1e3 * took / blocks.max(1) as f64);
    for (node, (now, then)) in net.work().into_iter().zip(before.1).enumerate() {
        let status = net.nodes[node].call("sluice_status", json!([]));
        println!("    node {node}: finality {}; cores: {}", status["finality"], now.since(then, took));
    }
    included
}

#[test]
fn a_local_network_bears_mixed_load_for_a_while() {
    let Ok(text) = std::env::var("SLUICE_LOCALNET_SECONDS") else {
        println!("mixed load for a while: SKIPPED, set SLUICE_LOCALNET_SECONDS");
        return;
    };
    let lasts = Duration::from_secs(text.parse().expect("SLUICE_LOCALNET_SECONDS is a number"));
    let begun = Instant::now();
    println!("four validators, mixed load to all of them for {lasts:?}");
    let net = Localnet::start(&["--validators", "4", "--", "--stages"]);
    let peak = round(&net, "as fast as it goes", None, 15, 1);
    // Beside other work a lower rate may be all that a machine bears.
    let rate = std::env::var("SLUICE_LOCALNET_RATE").map_or(peak / 2.0, |text| text.parse().expect("a number"));
    let mut agreed = net.agree(0);
    let mut rounds = 0;
    while begun.elapsed() < lasts {
        let left = lasts.saturating_sub(begun.elapsed()).as_secs();
        rounds += 1;
        round(&net, &format!("round {rounds}"), Some(rate), left.clamp(15, 120), rounds + 1);
        for node in &net.nodes {
            let p50 = node.call("sluice_status", json!([]))["finality"]["p50"].as_f64().expect("blocks");
            assert!(p50 <= 2.0 * SLOT_MS, "half of the blocks take {p50} ms or more, two slots are {}", 2.0 * SLOT_MS);
        }
        agreed = net.agree(agreed);
    }
    println!("  {:?}: {agreed} blocks with one state each at all four nodes", begun.elapsed());
}
