//! `sluice db` on a folder that a real node made: it says what is there, finds what is damaged, changes what it is
//! asked to, bears a kill meanwhile, and refuses what is no folder for it.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tests::{
    client::Client,
    node::{Node, binary},
    rng::Rng,
    rpc::quantity,
};

use crate::crash::{SMALL_SEGMENTS, check_root};

fn db(folder: &Path, command: &str, more: &[&str]) -> Output {
    let mut process = Command::new(binary());
    process.args(["db", command, "--dev", "--log", "error", "--datadir"]).arg(folder).args(more);
    process.output().expect("it runs")
}

/// What a command printed, and whether it found everything right.
fn told(folder: &Path, command: &str, more: &[&str]) -> (Value, bool) {
    let Output { status, stdout, stderr } = db(folder, command, more);
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|_| panic!("{command}: {status}, {}", String::from_utf8_lossy(&stderr)));
    (report, status.success())
}

/// How a command that fails says why.
fn refused(folder: &Path, command: &str, more: &[&str]) -> String {
    let Output { status, stdout, stderr } = db(folder, command, more);
    assert!(status.code() == Some(1) && stdout.is_empty(), "{command}: {status}");
    String::from_utf8_lossy(&stderr).into_owned()
}

const COMMANDS: [(&str, &[&str]); 7] = [
    ("stats", &[]),
    ("verify", &[]),
    ("check", &[]),
    ("root", &[]),
    ("compact", &[]),
    ("rewind", &["--to", "0", "--discard-final-blocks"]),
    ("migrate", &[]),
];

/// The height at which a node of this folder serves.
fn height(node: &Node) -> u64 {
    quantity(&node.rpc.call("eth_blockNumber", json!([])))
}

/// A folder with some blocks in several segments, and what a client saw of them.
fn made(folder: &Path, rng: &mut Rng) -> (Client, u64) {
    let mut client = Client::default();
    let mut node = Node::dev(folder, &SMALL_SEGMENTS);
    for (command, more) in COMMANDS {
        let why = refused(folder, command, more);
        assert!(why.contains("is in use by another process"), "{command}: {why}");
    }
    while height(&node) < 30 || client.waiting() > 0 {
        if height(&node) < 30 {
            client.send(&node, rng, 20).expect("accepted");
        }
        client.look(&node);
    }
    let tip = height(&node);
    assert!(node.stop().success());
    (client, tip)
}

#[test]
fn a_folder_is_told_of_checked_and_changed_by_the_command_line() {
    let mut rng = Rng::seeded("db", 5);
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let (mut client, tip) = made(&folder, &mut rng);

    for (dir, why) in
        [(home.path().join("nowhere"), "is no data folder"), (home.path().to_owned(), "is no data folder")]
    {
        for (command, more) in COMMANDS {
            let said = refused(&dir, command, more);
            assert!(said.contains(why), "{command}: {said}");
        }
    }
    for (command, more) in COMMANDS {
        let said = refused(&folder, command, &[more, &["--dev.chain-id", "5"]].concat());
        assert!(said.contains("holds another genesis: chain 31337"), "{command}: {said}");
    }

    let (stats, _) = told(&folder, "stats", &[]);
    assert_eq!((&stats["tip"], &stats["applied"], &stats["blocks"]), (&json!(tip), &json!(tip), &json!([1, tip])));
    assert!(stats["segments"].as_array().is_some_and(|segments| segments.len() > 1), "{stats}");
    let (verified, is_sound) = told(&folder, "verify", &[]);
    assert!(is_sound && verified["blocks"] == json!(tip) && verified["bad"] == json!([]), "{verified}");
    let (checked, is_sound) = told(&folder, "check", &[]);
    assert!(is_sound && checked["height"] == json!(tip) && checked["findings"] == json!([]), "{checked}");

    damage_is_named(&folder);
    compaction_bears_a_kill(&folder);
    let (migrated, _) = told(&folder, "migrate", &[]);
    assert_eq!(migrated, json!({ "from": [2, 3], "to": [2, 3], "rows": 0, "files": 0 }));
    let node = Node::dev(&folder, &SMALL_SEGMENTS);
    assert_eq!(height(&node), tip);
    client.check(&node);
    drop(node);

    let to = 12;
    a_rewind_is_meant_and_bears_a_kill(&folder, tip, to);
    let mut node = Node::dev(&folder, &SMALL_SEGMENTS);
    assert_eq!(height(&node), to);
    let block = |client: &Value| quantity(&client["blockNumber"]);
    client.seen.retain(|_, receipt| block(receipt) <= to);
    assert!(!client.seen.is_empty());
    client.check(&node);
    assert!(node.stop().success());
    check_root(&folder);
    println!("db: {tip} blocks, back to {to}, {} receipts kept", client.seen.len());
}

fn damage_is_named(folder: &Path) {
    let segment = folder.join("segments/00000000.seg");
    let bytes = std::fs::read(&segment).expect("it is there");
    let mut flipped = bytes.clone();
    flipped[9_000] ^= 4;
    std::fs::write(&segment, flipped).expect("written");
    let (verified, is_sound) = told(folder, "verify", &[]);
    assert!(!is_sound && verified["bad"][0]["file"] == "segments/00000000.seg", "{verified}");
    assert!(verified["bad"][0]["offset"].as_u64().is_some_and(|offset| offset <= 9_000), "{verified}");
    std::fs::write(&segment, bytes).expect("written");
    assert!(told(folder, "verify", &[]).1);
}

fn compaction_bears_a_kill(folder: &Path) {
    for point in ["compact.copied:2", "compact.before_rename:1", "compact.renamed:2"] {
        let killed = db(folder, "compact", &["--fail-point", point]);
        assert!(killed.status.signal().is_some(), "{point} was not reached");
        check_root(folder);
    }
    let (compacted, _) = told(folder, "compact", &[]);
    assert!(compacted[1]["name"] == "state" && compacted[1]["rows"].as_u64() > Some(10), "{compacted}");
}

fn a_rewind_is_meant_and_bears_a_kill(folder: &Path, tip: u64, to: u64) {
    let target = to.to_string();
    let why = refused(folder, "rewind", &["--to", &target]);
    assert!(why.contains("--discard-final-blocks"), "{why}");
    let all = ["--to", &target, "--discard-final-blocks"];
    let high = (tip + 1).to_string();
    let why = refused(folder, "rewind", &["--to", &high, "--discard-final-blocks"]);
    assert!(why.contains(&format!("height {high} is above the chain, which ends at {tip}")), "{why}");
    for (point, ends_at) in [("rewind.before_mark", tip), ("rewind.segment", to)] {
        let killed = db(folder, "rewind", &[&all[..], &["--fail-point", point]].concat());
        assert!(killed.status.signal().is_some(), "{point} was not reached");
        let (root, is_right) = told(folder, "root", &[]);
        assert!(is_right && root["height"] == json!(ends_at), "{point}: {root}");
    }
    let (rewound, _) = told(folder, "rewind", &all);
    assert_eq!((&rewound["from"], &rewound["to"]), (&json!(to), &json!(to)));
    assert!(told(folder, "verify", &[]).1 && told(folder, "check", &[]).1);
}
