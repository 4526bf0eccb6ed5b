//! Snapshots by the command line: a chain's state leaves a stopped node, proves itself, and becomes another one.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex, keccak256};
use engine::types::{Epoch, PublicKey, Validator, ValidatorSet};
use serde_json::{Value, json};
use tests::{
    cluster::until,
    node::{Node, binary},
    rpc::{Rpc, quantity},
    wallet::{account, hex_of, sign, template, transfer},
};

use crate::{
    chain::{genesis, start},
    localnet::Localnet,
};

const PATIENCE: Duration = Duration::from_secs(60);
const EPOCH_HEIGHTS: u64 = 8;

/// Stores 7 in slot 5 and 9 in slot 6, and deploys a byte of code.
const INITCODE: [u8; 15] = hex!("6007600555600960065560016000f3");

fn run(words: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(binary());
    command.arg("snapshot").args(words);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().expect("it runs")
}

/// What a command reports that does its work.
fn done(words: &[&str], paths: &[(&str, &Path)]) -> Value {
    let output = run(words, paths);
    assert!(output.status.success(), "{words:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How a command refuses.
fn refused(words: &[&str], paths: &[(&str, &Path)]) -> String {
    let output = run(words, paths);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", told(&output));
    told(&output)
}

fn height(rpc: &Rpc) -> u64 {
    quantity(&rpc.call("eth_blockNumber", json!([])))
}

/// Sends transfers, a block each, until the chain has a height.
fn reaches(rpc: &Rpc, least: u64) {
    let key = account(0);
    let mut nonce = quantity(&rpc.call("eth_getTransactionCount", json!([key.address(), "latest"])));
    while height(rpc) < least {
        let raw = transfer(&key, nonce, Address::repeat_byte(0x40));
        assert_eq!(rpc.call("eth_sendRawTransactionSync", json!([hex_of(&raw)]))["status"], "0x1");
        nonce += 1;
    }
}

/// A chain in its fourth epoch with a contract, its folder, and what is to be asked of it.
///
/// Blocks are made for transactions, and one empty block behind them. A sole validator may sign nothing else in a slot
/// that it signed in, and a folder made of a snapshot lacks a block that was not final in time: so it must be at rest
/// when it stops.
struct Home {
    folder: tempfile::TempDir,
    contract: Address,
}

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn new() -> (Self, Node) {
        let folder = tempfile::tempdir().expect("a folder");
        let chain = folder.path().join("genesis.json");
        genesis(&chain, |chain| {
            chain["config"]["sluice"]["idle_interval_ms"] = json!(3_600_000);
            chain["config"]["sluice"]["slot_time_ms"] = json!(20);
            chain["config"]["sluice"]["epoch_slots"] = json!(EPOCH_HEIGHTS);
        });
        let node = start(&chain, &folder.path().join("a")).expect("it serves");
        let key = account(0);
        let create =
            TxEip1559 { to: TxKind::Create, input: Bytes::from_static(&INITCODE), gas_limit: 200_000, ..template(0) };
        let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&sign(&key, create))]));
        let contract = receipt["contractAddress"].as_str().expect("a contract").parse().expect("an address");
        reaches(&node.rpc, 3 * EPOCH_HEIGHTS + 3);
        (Self { folder, contract }, node)
    }

    /// The height at which a node has nothing to do any more.
    fn rest(rpc: &Rpc) -> u64 {
        until("an empty block", PATIENCE, || {
            let head = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
            (head["transactions"] == json!([])).then(|| quantity(&head["number"]))
        })
    }

    /// What a node says of the state at a height.
    fn state(&self, rpc: &Rpc, height: u64) -> Value {
        let at = format!("{height:#x}");
        let ask = |method: &str, parameters: Value| rpc.call(method, parameters);
        json!([
            ask("eth_getBalance", json!([account(0).address(), at])),
            ask("eth_getTransactionCount", json!([account(0).address(), at])),
            ask("eth_getCode", json!([self.contract, at])),
            ask("eth_getStorageAt", json!([self.contract, "0x5", at])),
            ask("eth_getProof", json!([self.contract, ["0x5", "0x6", "0x7"], at])),
            ask("eth_getProof", json!([account(0).address(), [], at])),
            ask("eth_getBlockByNumber", json!([at, true])),
            ask("eth_getBlockReceipts", json!([at])),
            ask("sluice_getFinality", json!([at])),
        ])
    }
}

#[test]
fn a_chain_goes_on_from_a_snapshot_of_its_state() {
    let (home, mut node) = Home::new();
    let tip = Home::rest(&node.rpc);
    assert!(node.stop().success());
    drop(node);
    let [a, b, chain, to, history] = ["a", "b", "genesis.json", "snapshot", "history"].map(|name| home.path(name));
    let made = done(&["export", "--chunk-bytes", "1500"], &[("--datadir", &a), ("--chain", &chain), ("--to", &to)]);
    let (exported, chunks) = (made["height"].as_u64().expect("a height"), made["chunks"].as_u64().expect("chunks"));
    assert!(chunks > 3 && exported == tip, "{tip}: {made}");
    // What the chain says of that height itself, in a copy: the folder shall have signed nothing above.
    let copy = home.path("copy");
    assert!(Command::new("cp").arg("-r").args([&a, &copy]).status().expect("it runs").success());
    let node = start(&chain, &copy).expect("it serves again");
    let expected = home.state(&node.rpc, exported);
    drop(node);
    let source = [("--from", &*to), ("--chain", &*chain)];
    let checked = done(&["verify", "--threads", "2"], &source);
    assert_eq!((&checked["valid"], &checked["failures"], &checked["hash"]), (&json!(true), &json!([]), &made["hash"]));

    let into = [("--from", &*to), ("--chain", &*chain), ("--datadir", &*b)];
    let killed = run(&["import", "--fail-point", "import.chunk:2"], &into);
    assert_eq!(killed.status.code(), None, "it was killed: {}", told(&killed));
    let log = start(&chain, &b).expect_err("half a state");
    assert!(log.contains("holds a part of a snapshot"), "{log}");
    let imported = done(&["import"], &into);
    assert_eq!((&imported["resumed_chunks"], &imported["hash"]), (&json!(2), &made["hash"]));
    let again = refused(&["import"], &into);
    assert!(again.contains("holds a chain already"), "{again}");
    let root = Command::new(binary()).args(["db", "root", "--chain"]).arg(&chain).arg("--datadir").arg(&b).output();
    let root = told(&root.expect("it runs"));
    assert!(root.contains("\"match\":true"), "{root}");

    // Nobody but its own history can tell the only validator what it signed.
    let log = |words: &[&str], folder: &Path| {
        let output = Command::new(binary()).arg("log").args(words).arg("--datadir").arg(folder).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", told(&output));
    };
    log(&["export", "--out", history.to_str().expect("text")], &a);
    log(&["import", history.to_str().expect("text")], &b);
    let mut node = start(&chain, &b).expect("it serves");
    assert_eq!(home.state(&node.rpc, exported), expected);
    let old = node.rpc.refusal("eth_getBlockByNumber", json!(["0x1", false]));
    assert!(old.message.contains("is not kept"), "{}", old.message);
    let old = node.rpc.refusal("eth_getLogs", json!([{"fromBlock": "0x1"}]));
    assert!(old.message.contains("is not kept"), "{}", old.message);
    // It makes blocks, over the end of an epoch, also after a restart.
    reaches(&node.rpc, exported + EPOCH_HEIGHTS + 1);
    let paid = quantity(&node.rpc.call("eth_getBalance", json!([Address::repeat_byte(0x40), "latest"])));
    assert!(node.stop().success());
    let mut node = start(&chain, &b).expect("it serves again");
    assert_eq!(quantity(&node.rpc.call("eth_getBalance", json!([Address::repeat_byte(0x40), "latest"]))), paid);
    reaches(&node.rpc, exported + 2 * EPOCH_HEIGHTS + 2);
    assert!(node.stop().success());
    drop(node);
    // A snapshot of it leads back to the same validators.
    let to = home.path("again");
    done(&["export"], &[("--datadir", &b), ("--chain", &chain), ("--to", &to)]);
    assert_eq!(done(&["verify"], &[("--from", &to), ("--chain", &chain)])["valid"], json!(true));
}

#[test]
fn a_snapshot_that_was_tampered_with_is_refused_and_says_where() {
    let (home, mut node) = Home::new();
    assert!(node.stop().success());
    drop(node);
    let [a, b, chain, other, to] = ["a", "b", "genesis.json", "other.json", "snapshot"].map(|name| home.path(name));
    let export = [("--datadir", &*a), ("--chain", &*chain), ("--to", &*to)];
    done(&["export", "--chunk-bytes", "1500"], &export);
    let again = refused(&["export"], &export);
    assert!(again.contains("is not empty"), "{again}");
    let late = refused(&["export", "--from-epoch", "9"], &[("--datadir", &a), ("--chain", &chain), ("--to", &b)]);
    assert!(late.contains("before epoch 9"), "{late}");
    genesis(&other, |chain| chain["config"]["sluice"]["window"] = json!(5));
    let refusal = refused(&["verify"], &[("--from", &to), ("--chain", &other)]);
    assert!(refusal.contains("block 0 is"), "{refusal}");
    let (source, into) =
        ([("--from", &*to), ("--chain", &*chain)], [("--from", &*to), ("--chain", &*chain), ("--datadir", &*b)]);
    let trust = format!("{:?}", alloy_primitives::B256::repeat_byte(1));
    let refusal = refused(&["verify", "--trust-set", &trust], &source);
    assert!(refusal.contains("trusted is"), "{refusal}");

    let (chunk, whole) = (to.join("000001.chunk"), std::fs::read(to.join("000001.chunk")).expect("it is there"));
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    std::fs::write(&chunk, &bytes).expect("written");
    let report = run(&["verify"], &source);
    let told_of: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!((report.status.code(), &told_of["valid"]), (Some(1), &json!(false)));
    assert_eq!(told_of["failures"][0]["file"], "000001.chunk");
    let refusal = refused(&["import"], &into);
    assert!(refusal.contains("000001.chunk: it has SHA-256"), "{refusal}");
    std::fs::write(&chunk, &whole).expect("written");

    let manifest = to.join("manifest.json");
    let text = std::fs::read(&manifest).expect("it is there");
    let json: Value = serde_json::from_slice(&text).expect("JSON");
    let last = json["finality"].as_array().expect("a list").len() - 1;
    type Edit = fn(&mut Value, usize);
    let edits: [(&str, Edit); 7] = [
        ("certificate", |json, last| {
            json["finality"][last]["certificate"] = json["finality"][0]["certificate"].clone()
        }),
        ("hash", |json, last| json["finality"][last]["block"] = json["finality"][0]["block"].clone()),
        ("does not decode", |json, last| json["finality"][last]["more"] = json!(1)),
        ("are shown to be final", |json, _| drop(json["finality"].as_array_mut().expect("a list").remove(0))),
        ("handover", |json, last| {
            json["finality"][last]["handovers"][0]["next"]["validators"][0]["stake"] = json!(2);
        }),
        ("state root", |json, _| json["state_root"] = json!(alloy_primitives::B256::repeat_byte(3))),
        ("height", |json, _| json["height"] = json!(3)),
    ];
    for (words, edit) in edits {
        let mut changed = json.clone();
        edit(&mut changed, last);
        std::fs::write(&manifest, changed.to_string()).expect("written");
        for (command, paths) in [("verify", &source[..]), ("import", &into[..])] {
            let refusal = refused(&[command], paths);
            assert!(refusal.contains(words), "{command}, {words}: {refusal}");
        }
    }
    std::fs::write(&manifest, &text).expect("written");
    std::fs::remove_dir_all(&b).expect("an import had begun");
    done(&["import"], &into);
}

/// Hash of the set of an epoch whose validators are those that a node names.
fn set_hash(rpc: &Rpc, epoch: u64) -> String {
    let answer = rpc.call("sluice_getEpoch", json!([format!("{epoch:#x}")]));
    let member = |member: &Value| Validator {
        public_key: PublicKey(member["publicKey"].as_str().and_then(|key| key.parse().ok()).expect("a key")),
        stake: quantity(&member["stake"]),
        operator: member["operator"].as_str().and_then(|operator| operator.parse().ok()).expect("an address"),
    };
    let members = answer["validators"].as_array().expect("a list").iter().map(member).collect();
    ValidatorSet::new(Epoch(epoch), members).expect("a set").hash().to_string()
}

/// Starts a stopped node anew, with nothing but its identity, by the state that others give.
fn joins(net: &Localnet, node: usize, more: &[&str]) -> Node {
    net.empty(node);
    let described = &net.described()[node];
    let words = described["arguments"].as_array().expect("words").iter().map(|word| word.as_str().expect("text"));
    let mut command = Command::new(binary());
    command.args(words).arg("--snapshot-sync").args(more);
    let datadir = Path::new(described["datadir"].as_str().expect("a path"));
    Node::spawn(command, &datadir.with_extension("log")).expect("it joins")
}

/// A validator and a follower that have nothing begin with the state that the others give, the follower with no more
/// trust than in a set of a later epoch.
#[test]
fn nodes_made_of_nothing_join_a_running_network_by_its_state() {
    if std::env::var_os("SLUICE_SNAPSHOT").is_none() {
        println!("skipped: a network and a snapshot need the machine for themselves, SLUICE_SNAPSHOT=1 runs it");
        return;
    }
    let net = Localnet::start(&["--validators", "4", "--followers", "1", "--epoch-slots", "6"]);
    net.load(&["--txs", "2000", "--senders", "50"]);
    // What is given is older by a checkpoint at most, and shown final by sets of two epochs before it.
    net.reach(&[0, 1, 2, 3, 4], 60);
    net.play(&["stop", "3", "4"]);
    let trust = set_hash(&net.nodes[0], 1);
    let joined = [(3, &[][..]), (4, &["--trust-set", &*trust])].map(|(node, more)| joins(&net, node, more));
    let now = net.height(0).expect("it answers");
    net.reach(&[3, 4], now + 8);
    for node in [3, 4] {
        let old = net.nodes[node].refusal("eth_getBlockByNumber", json!(["0x1", false]));
        assert!(old.message.contains("is not kept"), "{}", old.message);
    }
    net.agree(now);
    // Without one of the others, nothing is final unless the validator votes.
    net.play(&["stop", "0"]);
    let now = net.height(1).expect("it answers");
    net.reach(&[1, 2, 3, 4], now + 4);
    for mut node in joined {
        assert!(node.stop().success());
    }
}

/// What it takes to begin with a state of many accounts: prints seconds, and bytes that came.
#[test]
fn a_node_joins_by_a_state_of_many_accounts() {
    let accounts = std::env::var("SLUICE_JOIN_ACCOUNTS").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(accounts) = accounts else {
        println!("skipped: it needs the machine for itself, SLUICE_JOIN_ACCOUNTS=1000000 runs it");
        return;
    };
    let net = Localnet::start_edited(&["--validators", "2", "--followers", "1", "--epoch-slots", "16"], |genesis| {
        let alloc = genesis["alloc"].as_object_mut().expect("accounts");
        for index in 0..accounts {
            let [account, balance] = [0, 1].map(|salt| keccak256([index.to_be_bytes(), [salt; 8]].concat()));
            let balance = format!("{:#x}", U256::from_be_bytes(balance.0) >> 180);
            alloc.insert(Address::from_word(account).to_string(), json!({ "balance": balance }));
        }
    });
    net.reach(&[0, 1, 2], 60);
    net.play(&["stop", "2"]);
    let begun = Instant::now();
    let mut joined = joins(&net, 2, &[]);
    let now = net.height(0).expect("it answers");
    net.reach(&[2], now);
    let follows = begun.elapsed();
    let admin = Rpc::new(net.described()[2]["admin"].as_str().expect("a URL"));
    let peers = admin.call("admin_peers", json!([]));
    let came: u64 = peers.as_array().expect("peers").iter().map(|peer| quantity(&peer["receivedBytes"])).sum();
    println!(
        "{accounts} accounts: {:.1} s until the node serves, {:.1} s until it is at the tip; {:.1} MB came",
        joined.started_in.as_secs_f64(),
        follows.as_secs_f64(),
        came as f64 / 1e6,
    );
    net.agree(now);
    assert!(joined.stop().success());
}

/// A follower that knows no block below the snapshot, and a validator that lost its folder.
#[test]
fn nodes_made_of_a_snapshot_follow_a_running_network_and_vote_in_it() {
    if std::env::var_os("SLUICE_SNAPSHOT").is_none() {
        println!("skipped: a network and a snapshot need the machine for themselves, SLUICE_SNAPSHOT=1 runs it");
        return;
    }
    let net = Localnet::start(&["--validators", "4", "--followers", "1", "--epoch-slots", "6"]);
    net.reach(&[0, 1, 2, 3, 4], 14);
    let (chain, snapshot) = (net.path("net/genesis.json"), net.path("snapshot"));
    net.play(&["stop", "3", "4"]);
    let folder = |node: usize| PathBuf::from(net.described()[node]["datadir"].as_str().expect("a path"));
    let made = done(&["export"], &[("--datadir", &folder(4)), ("--chain", &chain), ("--to", &snapshot)]);
    let exported = made["height"].as_u64().expect("a height");
    for node in [3, 4] {
        net.empty(node);
        done(&["import"], &[("--from", &snapshot), ("--chain", &chain), ("--datadir", &folder(node))]);
    }
    net.play(&["restart", "3", "4"]);
    net.reach(&[3, 4], exported + 8);
    net.agree(exported);
    for node in [3, 4] {
        let old = net.nodes[node].refusal("eth_getBlockByNumber", json!(["0x1", false]));
        assert!(old.message.contains("is not kept"), "{}", old.message);
    }
    // A validator that proposes knows again what it may sign.
    let genesis: Value = serde_json::from_slice(&std::fs::read(&chain).expect("readable")).expect("JSON");
    let receives =
        genesis["config"]["sluice"]["validators"][3]["fee_recipient"].as_str().expect("an address").to_owned();
    let is_its =
        |height: u64| net.block(1, height)["miner"].as_str().is_some_and(|miner| miner.eq_ignore_ascii_case(&receives));
    until("a block of the new validator", PATIENCE, || (exported + 4..=net.height(1)?).any(is_its).then_some(()));
    // Without one of the others, nothing is final unless it votes.
    net.play(&["stop", "0"]);
    let now = net.height(1).expect("it answers");
    net.reach(&[1, 2, 3, 4], now + 4);
}
