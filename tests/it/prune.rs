//! Nodes that keep a window of their past, or of its states: old segments go while they make blocks, whoever asks for
//! them is told where the kept ones begin, what shows finality stays, and their folder is one for every command.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use alloy_primitives::Address;
use serde_json::{Value, json};
use tests::{
    cluster::until,
    node::{Node, binary},
    rpc::{Rpc, quantity},
    wallet::{account, hex_of, transfer},
};

use crate::chain::genesis;

const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH_HEIGHTS: u64 = 8;
/// Heights of which the state is there whatever the settings.
const WINDOW: u64 = 128;

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// One with the genesis file of a chain that makes fifty blocks a second, in short epochs.
    fn of_a_fast_chain() -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder") };
        genesis(&home.path("genesis.json"), |chain| {
            let sluice = &mut chain["config"]["sluice"];
            sluice["idle_interval_ms"] = json!(20);
            sluice["slot_time_ms"] = json!(20);
            sluice["epoch_slots"] = json!(EPOCH_HEIGHTS);
        });
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, more: &[&str]) -> Result<Node, String> {
        let mut command = Command::new(binary());
        command.args(["node", "--http.port", "0", "--ws.port", "0", "--log", "warn", "--rpc.proof-window", "16"]);
        command.args(["--segment-bytes", "32768"]).args(more);
        command.arg("--chain").arg(self.path("genesis.json")).arg("--datadir").arg(self.path("data"));
        Node::spawn(command, &self.path("log")).map_err(|(_, log)| log)
    }

    fn run(&self, words: &[&str], paths: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg("--chain").arg(self.path("genesis.json"));
        for (flag, path) in paths {
            command.arg(flag).arg(path);
        }
        command.output().expect("it runs")
    }

    /// What a command on the folder reports that does its work.
    fn done(&self, words: &[&str], paths: &[(&str, &Path)]) -> Value {
        let data = self.path("data");
        let output = self.run(words, &[&[("--datadir", &*data)], paths].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn height(rpc: &Rpc) -> u64 {
    quantity(&rpc.call("eth_blockNumber", json!([])))
}

/// The lowest kept height that a refusal names; `None` if there is an answer.
fn kept_from(rpc: &Rpc, method: &str, parameters: &Value) -> Option<u64> {
    let refusal = rpc.try_call(method, parameters).expect("an answer").err()?;
    assert_eq!(refusal.code, -32_000, "{method}: {refusal:?}");
    let lowest = refusal.message.split_once("the lowest kept height is ").map(|(_, lowest)| lowest.parse());
    Some(lowest.unwrap_or_else(|| panic!("{method}: {refusal:?}")).expect("a height"))
}

/// Compares what is told of blocks below, at and above the lowest that is kept; gives that.
fn check(rpc: &Rpc, hash: &str) -> u64 {
    let low = json!("0x1");
    let logs = |from: u64| json!([{ "fromBlock": format!("{from:#x}"), "toBlock": "latest" }]);
    let first = kept_from(rpc, "eth_getLogs", &logs(1)).expect("old logs are gone");
    let tip = height(rpc);
    assert!(1 < first && first + WINDOW <= tip, "{first} of {tip}");
    for (method, parameters) in [
        ("eth_getBlockByNumber", json!([low, false])),
        ("eth_getBlockReceipts", json!([low])),
        ("eth_getBlockTransactionCountByNumber", json!([low])),
        ("eth_getTransactionByBlockNumberAndIndex", json!([low, "0x0"])),
        ("sluice_getFinality", json!([low])),
    ] {
        assert!(kept_from(rpc, method, &parameters).is_some_and(|lowest| lowest >= first), "{method}");
    }
    let who = account(0).address();
    for (method, parameters) in [
        ("eth_getBalance", json!([who, low])),
        ("eth_call", json!([{ "to": who }, low])),
        ("eth_getTransactionCount", json!([who, low])),
    ] {
        // The state after the block below the lowest is kept.
        assert!(kept_from(rpc, method, &parameters).is_some_and(|lowest| lowest + 1 >= first), "{method}");
    }
    let refusal = rpc.refusal("eth_getProof", json!([who, [], low]));
    assert!(refusal.message.contains("proofs go back to height"), "{refusal:?}");
    // Nothing tells a transaction that is gone from one that never was.
    assert_eq!(rpc.call("eth_getTransactionReceipt", json!([hash])), Value::Null);
    assert_eq!(rpc.call("eth_getBlockByNumber", json!(["earliest", false]))["number"], "0x0");
    // More may go between two questions, but not what was made since.
    let newer = first + WINDOW;
    assert_eq!(quantity(&rpc.call("eth_getBlockByNumber", json!([format!("{newer:#x}"), true]))["number"]), newer);
    assert_eq!(rpc.call("eth_getLogs", logs(newer)), json!([]));
    assert_eq!(quantity(&rpc.call("eth_getTransactionCount", json!([who, format!("{newer:#x}")]))), 1);
    for epoch in 0..=tip / EPOCH_HEIGHTS - 1 {
        assert!(!rpc.call("sluice_getEpoch", json!([format!("{epoch:#x}")])).is_null(), "epoch {epoch} of {tip}");
    }
    first
}

#[test]
fn a_validator_keeps_a_window_and_what_shows_finality() {
    let home = Home::of_a_fast_chain();
    let little = ["--mode", "validator", "--keep.bytes", "32768"];
    let mut node = home.start(&little).expect("it serves");
    let sent = transfer(&account(0), 0, Address::repeat_byte(0x40));
    let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&sent)]));
    let hash = receipt["transactionHash"].as_str().expect("a hash").to_owned();
    // The newest blocks are in memory as well, however few segments are kept.
    until("the first block is gone", PATIENCE, || kept_from(&node.rpc, "eth_getBlockByNumber", &json!(["0x1", false])));
    let first = check(&node.rpc, &hash);
    let file = home.path("finality.json");
    let certified = (height(&node.rpc) - 3).to_string();
    let words = ["export-finality", "--rpc", node.rpc.url(), "--height", &certified, "--from-epoch", "0"];
    let exported = Command::new(binary()).args(words).arg("--out").arg(&file).output().expect("it runs");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let shown = home.run(&["verify-finality", file.to_str().expect("text")], &[]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(node.stop().success());

    let stats = home.done(&["db", "stats"], &[]);
    let pruned = stats["pruned"].as_u64().expect("a height");
    assert_eq!((&stats["mode"], &stats["blocks"][0]), (&json!("validator"), &json!(pruned + 1)));
    assert!(pruned + 1 >= first, "{stats}");
    assert_eq!(home.done(&["db", "verify"], &[])["bad"], json!([]));
    assert_eq!(home.done(&["db", "check"], &[])["findings"], json!([]));
    home.done(&["db", "compact"], &[]);
    assert!(home.done(&["snapshot", "export"], &[("--to", &home.path("snapshot"))])["height"].as_u64() > Some(pruned));
    let data = home.path("data");
    let back = home.run(&["db", "rewind", "--to", "1", "--discard-final-blocks"], &[("--datadir", &data)]);
    let words = String::from_utf8_lossy(&back.stderr).into_owned();
    assert!(words.contains(&format!("the lowest kept height is {}", pruned + 1)), "{words}");

    let refused = home.start(&["--mode", "archive"]).expect_err("it is none any more");
    assert!(refused.contains(&format!("keeps blocks from height {} on", pruned + 1)), "{refused}");
    let mut node = home.start(&little).expect("it serves");
    let tip = height(&node.rpc);
    // The blocks that epochs began on stay.
    let below = pruned - u64::from(pruned.is_multiple_of(EPOCH_HEIGHTS));
    let gone = kept_from(&node.rpc, "eth_getBlockByNumber", &json!([format!("{below:#x}"), false]));
    assert!(gone > Some(pruned), "{gone:?}");
    assert!(check(&node.rpc, &hash) > pruned);
    until("blocks go on", PATIENCE, || (height(&node.rpc) > tip + 5).then_some(()));
    assert!(node.stop().success());
}

#[test]
fn a_full_node_keeps_every_block_and_a_window_of_states() {
    let home = Home::of_a_fast_chain();
    let full = ["--mode", "full", "--keep.time", "1s"];
    let mut node = home.start(&full).expect("it serves");
    let who = account(0).address();
    let sent = transfer(&account(0), 0, Address::repeat_byte(0x40));
    let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&sent)]));
    let hash = receipt["transactionHash"].as_str().expect("a hash").to_owned();
    let blocks_are_there = |rpc: &Rpc| {
        assert_eq!(rpc.call("eth_getTransactionReceipt", json!([hash])), receipt);
        assert_eq!(rpc.call("eth_getBlockByNumber", json!(["0x1", false]))["number"], "0x1");
        assert_eq!(rpc.call("eth_getLogs", json!([{ "fromBlock": "0x1", "toBlock": "latest" }])), json!([]));
    };
    let gone =
        until("the first state is gone", PATIENCE, || kept_from(&node.rpc, "eth_getBalance", &json!([who, "0x1"])));
    assert!(gone > 1 && gone + WINDOW <= height(&node.rpc), "{gone}");
    blocks_are_there(&node.rpc);
    for (method, parameters) in [
        ("eth_call", json!([{ "to": who }, "0x1"])),
        ("eth_getTransactionCount", json!([who, "0x1"])),
        ("eth_getStorageAt", json!([who, "0x0", "0x1"])),
    ] {
        assert!(kept_from(&node.rpc, method, &parameters).is_some_and(|lowest| lowest >= gone), "{method}");
    }
    let newer = format!("{:#x}", gone + WINDOW);
    assert_eq!(quantity(&node.rpc.call("eth_getTransactionCount", json!([who, newer]))), 1);
    assert!(node.stop().success());
    let stats = home.done(&["db", "stats"], &[]);
    assert_eq!((&stats["mode"], &stats["pruned"], &stats["blocks"][0]), (&json!("full"), &json!(0), &json!(1)));
    assert_eq!(stats["segments"][0]["changes_bytes"], Value::Null);
    let verified = home.done(&["db", "verify"], &[]);
    assert_eq!((&verified["bad"], &verified["missing_indices"]), (&json!([]), &json!([])));
    // What was let go comes back where all is to be kept.
    let mut node = home.start(&["--mode", "archive"]).expect("it serves");
    blocks_are_there(&node.rpc);
    assert_eq!(quantity(&node.rpc.call("eth_getTransactionCount", json!([who, "0x0"]))), 0);
    assert!(node.stop().success());
    let mut node = home.start(&full).expect("it serves");
    assert!(kept_from(&node.rpc, "eth_getBalance", &json!([who, "0x1"])) >= Some(gone));
    blocks_are_there(&node.rpc);
    assert!(node.stop().success());
}
