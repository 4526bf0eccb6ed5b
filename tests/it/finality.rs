//! Finality files: what a node's own certificates show to somebody who trusts its validators alone.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use alloy_primitives::hex;
use engine::{
    crypto::bls::SecretKey,
    types::{Epoch, Validator, ValidatorSet},
};
use serde_json::{Value, json};
use tests::{
    node::{Node, binary},
    rpc::quantity,
};

use crate::chain::{genesis, start};

const EPOCH_HEIGHTS: u64 = 5;

fn export(node: &Node, file: &Path, height: u64, from_epoch: u64) -> Output {
    let (height, from_epoch) = (height.to_string(), from_epoch.to_string());
    let mut command = Command::new(binary());
    command.args(["export-finality", "--rpc", node.rpc.url(), "--height", &height, "--from-epoch", &from_epoch]);
    command.arg("--out").arg(file).output().expect("it runs")
}

fn verify(file: &Path, chain: &Path, trust: Option<&str>) -> Result<Value, String> {
    let mut command = Command::new(binary());
    command.arg("verify-finality").arg(file).arg("--chain").arg(chain);
    let output = command.args(trust.iter().flat_map(|hash| ["--trust-set", hash])).output().expect("it runs");
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
        Some(1) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        code => panic!("exit {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The development set in an epoch.
fn set_hash(epoch: u64) -> String {
    let public_key = SecretKey::development().public_key();
    let member = Validator { public_key, stake: 1, operator: Default::default() };
    ValidatorSet::new(Epoch(epoch), vec![member]).expect("a set").hash().to_string()
}

/// A node that has crossed into its fourth epoch, and its genesis file.
fn running(home: &Path) -> (Node, std::path::PathBuf) {
    let file = home.join("genesis.json");
    genesis(&file, |chain| {
        chain["config"]["sluice"]["idle_interval_ms"] = json!(50);
        chain["config"]["sluice"]["slot_time_ms"] = json!(20);
        chain["config"]["sluice"]["epoch_slots"] = json!(EPOCH_HEIGHTS);
    });
    let node = start(&file, &home.join("data")).expect("it serves");
    let until = Instant::now() + Duration::from_secs(60);
    while quantity(&node.rpc.call("eth_blockNumber", json!([]))) < 3 * EPOCH_HEIGHTS + 2 {
        assert!(Instant::now() < until, "an idle chain makes blocks");
    }
    (node, file)
}

#[test]
fn a_final_block_is_shown_from_genesis_and_from_a_later_epoch_and_nothing_else_is() {
    let home = tempfile::tempdir().expect("a folder");
    let (node, chain) = running(home.path());
    let file = home.path().join("finality.json");
    for (height, epoch) in [(1, 0), (EPOCH_HEIGHTS, 0), (EPOCH_HEIGHTS + 1, 1), (3 * EPOCH_HEIGHTS + 1, 3)] {
        let block = node.rpc.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]));
        for from in 0..=epoch {
            let made = export(&node, &file, height, from);
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let trust = set_hash(from);
            let shown = verify(&file, &chain, (from > 0).then_some(&*trust)).expect("final");
            assert_eq!(shown["height"], json!(height));
            assert_eq!((&shown["hash"], &shown["state_root"]), (&block["hash"], &block["stateRoot"]));
            assert_eq!(shown["epoch"], json!(epoch));
        }
    }
    let refusal = verify(&file, &chain, Some(&set_hash(7))).expect_err("another set is trusted");
    assert!(refusal.contains("trusted is"), "{refusal}");
    let other = home.path().join("other.json");
    genesis(&other, |chain| chain["config"]["sluice"]["window"] = json!(5));
    let refusal = verify(&file, &other, Some(&set_hash(3))).expect_err("another chain");
    assert!(refusal.contains("block 0 is"), "{refusal}");
    for (height, from, words) in [(0, 0, "final by itself"), (1, 1, "before epoch 1"), (1 << 40, 0, "not")] {
        let made = export(&node, &file, height, from);
        let told = String::from_utf8_lossy(&made.stderr);
        assert!(!made.status.success() && told.contains(words), "block {height} from epoch {from}: {told}");
    }
}

#[test]
fn no_changed_byte_and_no_changed_field_of_a_file_is_accepted() {
    let home = tempfile::tempdir().expect("a folder");
    let (node, chain) = running(home.path());
    let file = home.path().join("finality.json");
    assert!(export(&node, &file, 2 * EPOCH_HEIGHTS + 1, 0).status.success());
    drop(node);
    let whole: Value = serde_json::from_slice(&std::fs::read(&file).expect("written")).expect("JSON");
    verify(&file, &chain, None).expect("final");
    let refused = |what: &str, changed: &Value| {
        std::fs::write(&file, changed.to_string()).expect("written");
        let refusal = verify(&file, &chain, None).expect_err(what);
        assert!(refusal.starts_with("error: "), "{what}: {refusal}");
    };
    let blobs = ["/certificate", "/headers/0", "/block", "/handovers/0/header", "/handovers/0/certificate", "/genesis"];
    for pointer in blobs {
        let text = whole.pointer(pointer).and_then(Value::as_str).expect("hex").to_owned();
        let bytes = hex::decode(&text).expect("hex");
        for at in (0..bytes.len()).step_by(bytes.len() / 7 + 1) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).expect("there") = json!(hex::encode_prefixed(bytes));
            refused(&format!("byte {at} of {pointer}"), &changed);
        }
    }
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 7] = [
        ("format", |file| file["format"] = json!("other")),
        ("version", |file| file["version"] = json!(2)),
        ("an unknown field", |file| file["more"] = json!(1)),
        ("a missing field", |file| drop(file.as_object_mut().expect("an object").remove("block"))),
        ("a handover left out", |file| drop(file["handovers"].as_array_mut().expect("a list").remove(0))),
        ("stake", |file| file["set"]["validators"][0]["stake"] = json!(2)),
        ("no headers", |file| file["headers"] = json!([])),
    ];
    for (what, edit) in edits {
        let mut changed = whole.clone();
        edit(&mut changed);
        refused(what, &changed);
    }
    for text in ["", "{}", "[", "null", "\u{0}"] {
        std::fs::write(&file, text).expect("written");
        verify(&file, &chain, None).expect_err(text);
    }
}
