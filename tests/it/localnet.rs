//! Four validators and a follower as real processes on this machine: one chain under load, killed and restarted.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tests::{cluster::until, node::binary, rpc::Rpc};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A local network; its processes end with it.
struct Localnet {
    supervisor: Child,
    folder: tempfile::TempDir,
    nodes: Vec<Rpc>,
}

impl Localnet {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let supervisor = Command::new(binary())
            .args(["localnet", "--quiet", "--log", "warn", "--base-port", "0", "--dir"])
            .arg(folder.path().join("net"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut net = Self { supervisor, folder, nodes: Vec::new() };
        let file = net.folder.path().join("net/localnet.json");
        until("the network's file", PATIENCE, || file.exists().then_some(()));
        let description: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
        let urls =
            description["nodes"].as_array().expect("nodes").iter().map(|node| node["rpc"].as_str().expect("a URL"));
        net.nodes = urls.map(Rpc::new).collect();
        let all: Vec<usize> = (0..net.nodes.len()).collect();
        net.reach(&all, 2);
        net
    }

    fn play(&self, arguments: &[&str]) {
        let folder = self.folder.path().join("net");
        let done = Command::new(binary()).arg("localnet").args(arguments).arg("--dir").arg(folder).status();
        assert!(done.expect("it runs").success(), "{arguments:?}");
    }

    fn height(&self, node: usize) -> Option<u64> {
        let answer = self.nodes[node].try_call("eth_blockNumber", &json!([]))?.ok()?;
        u64::from_str_radix(answer.as_str()?.strip_prefix("0x")?, 16).ok()
    }

    fn heights(&self) -> Vec<Option<u64>> {
        (0..self.nodes.len()).map(|node| self.height(node)).collect()
    }

    fn reach(&self, nodes: &[usize], height: u64) {
        let has = |node: &usize| self.height(*node).is_some_and(|has| has >= height);
        until(&format!("height {height} at {nodes:?}"), PATIENCE, || nodes.iter().all(has).then_some(()));
    }

    fn block(&self, node: usize, height: u64) -> Value {
        let parameters = json!([format!("{height:#x}"), false]);
        let block = self.nodes[node].try_call("eth_getBlockByNumber", &parameters).expect("it answers");
        block.expect("a block that is there")
    }

    /// Every node has the same block and state at every height that all have.
    fn agree(&self) {
        let least = self.heights().into_iter().map(|height| height.expect("it answers")).min().expect("nodes");
        for height in 0..=least {
            let one = self.block(0, height);
            for node in 1..self.nodes.len() {
                let other = self.block(node, height);
                for field in ["hash", "stateRoot", "receiptsRoot"] {
                    assert_eq!(other[field], one[field], "{field} of block {height} at node {node}");
                }
            }
        }
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        // Asked to stop it ends its nodes; an error says that it is gone already.
        let _ = rustix::process::kill_process(pid(&self.supervisor), rustix::process::Signal::INT);
        let _ = self.supervisor.wait();
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id")
}

fn load(nodes: &[Rpc], folder: &Path) -> Value {
    let urls: Vec<&str> = nodes.iter().map(Rpc::url).collect();
    let report = folder.join("load.json");
    let done = Command::new(binary())
        .args([
            "load",
            "--shape",
            "mixed",
            "--txs",
            "2000",
            "--senders",
            "50",
            "--batch",
            "10",
            "--log",
            "warn",
            "--rpc",
        ])
        .arg(urls.join(","))
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .status()
        .expect("it runs");
    assert!(done.success(), "every transaction is included and every balance right");
    serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON")
}

#[test]
fn a_local_network_finalizes_defi_load_and_outlives_the_death_of_its_nodes() {
    let net = Localnet::start(&["--validators", "4", "--followers", "1"]);
    load(&net.nodes[..4], net.folder.path());
    net.agree();
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
    net.agree();
}
