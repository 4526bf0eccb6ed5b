//! A chain of one's own: from `sluice genesis` over `init` to a node that lives through a fork.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, B256};
use engine::crypto::bls::SecretKey;
use serde_json::{Value, json};
use tests::{
    node::{Node, binary},
    rpc::quantity,
    wallet::{CHAIN_ID, account, hex_of, transfer},
};

/// A genesis file for the tests' chain id that funds the first account, after `edit`.
pub(super) fn genesis(file: &Path, edit: impl FnOnce(&mut Value)) {
    let fund = account(0).address().to_string();
    let id = CHAIN_ID.to_string();
    let made = Command::new(binary()).args(["genesis", "--chain-id", &id, "--fund", &fund]).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut chain: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    edit(&mut chain);
    std::fs::write(file, chain.to_string()).expect("written");
}

/// A validator as genesis files name it, with a key of its own.
fn validator(number: u8) -> Value {
    let mut secret = [0; 32];
    secret[31] = number;
    let secret = SecretKey::from_bytes(&mut secret).expect("a small number is a key");
    let proof = secret.prove_possession(Address::ZERO, CHAIN_ID);
    json!({"bls_pubkey": secret.public_key().0, "proof_of_possession": proof.0, "stake": 1,
        "identity": B256::with_last_byte(number), "addresses": [format!("127.0.0.1:{}", 30_000 + u16::from(number))],
        "fee_recipient": Address::ZERO})
}

pub(super) fn start(file: &Path, folder: &Path) -> Result<Node, String> {
    let mut command = Command::new(binary());
    command.args(["node", "--http.port", "0", "--ws.port", "0", "--log", "warn", "--chain"]).arg(file);
    command.arg("--datadir").arg(folder);
    Node::spawn(command, &folder.with_extension("log")).map_err(|(_, log)| log)
}

/// What CLZ (EIP-7939) of 1 gives in the block at `height`; `None` where the fork does not know it.
fn leading_zeros(node: &Node, height: u64) -> Option<u64> {
    let here = Address::with_last_byte(0xc1);
    let code = json!({here.to_string(): {"code": "0x60011e5f5260205ff3"}});
    let call = node.rpc.try_call("eth_call", &json!([{"to": here}, format!("{height:#x}"), code]));
    match call.expect("an answer") {
        Ok(word) => Some(quantity(&json!(word.as_str().expect("a word").replace("0x", "0x0")))),
        Err(error) => {
            assert!(error.message.contains("invalid opcode"), "{error:?}");
            None
        }
    }
}

#[test]
fn a_chain_of_ones_own_serves_makes_idle_blocks_and_crosses_a_fork() {
    let home = tempfile::tempdir().expect("a folder");
    let (file, folder) = (home.path().join("genesis.json"), home.path().join("data"));
    let mut osaka = 0;
    genesis(&file, |chain| {
        osaka = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 6;
        chain["config"]["osakaTime"] = json!(osaka);
        chain["config"]["sluice"]["idle_interval_ms"] = json!(300);
    });
    let mut node = start(&file, &folder).expect("it serves");
    assert_eq!(node.rpc.call("eth_accounts", json!([])), json!([]), "only a development chain unlocks accounts");
    assert_eq!(node.rpc.refusal("txpool_status", json!([])).code, -32601);
    let raw = transfer(&account(0), 0, Address::repeat_byte(7));
    assert_eq!(node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&raw)]))["status"], "0x1");

    let (mut before, mut after) = (0, 0);
    let until = Instant::now() + Duration::from_secs(30);
    while after < 3 {
        assert!(Instant::now() < until, "{before} blocks before the fork, {after} after it");
        let block = node.rpc.call("eth_getBlockByNumber", json!(["latest", false]));
        let (height, time) = (quantity(&block["number"]), quantity(&block["timestamp"]));
        let expected = (time >= osaka).then_some(255);
        assert_eq!(leading_zeros(&node, height), expected, "block {height} at {time}, fork at {osaka}");
        if time < osaka { before += 1 } else { after += 1 }
    }
    assert!(before > 0, "the first block came after the fork");
    assert!(node.stop().success());
    let node = start(&file, &folder).expect("it serves again");
    assert_eq!(quantity(&node.rpc.call("eth_getBalance", json!([Address::repeat_byte(7), "latest"]))), 1);
}

#[test]
fn a_folder_does_not_serve_a_chain_with_one_parameter_changed() {
    let home = tempfile::tempdir().expect("a folder");
    let (file, folder) = (home.path().join("genesis.json"), home.path().join("data"));
    genesis(&file, |_| ());
    drop(start(&file, &folder).expect("it serves"));
    type Edit = fn(&mut Value);
    let edits: [Edit; 5] = [
        |chain| chain["config"]["chainId"] = json!(8),
        |chain| chain["config"]["osakaTime"] = json!(4_000_000_000_u64),
        |chain| chain["config"]["sluice"]["slot_time_ms"] = json!(100),
        |chain| chain["config"]["sluice"]["base_fee_minimum"] = json!(5),
        |chain| chain["gasLimit"] = json!("0x1c9c380"),
    ];
    for edit in edits {
        genesis(&file, edit);
        let log = start(&file, &folder).expect_err("another chain");
        assert!(log.contains("holds another genesis"), "{log}");
    }
    let name =
        |validators: &[Value]| genesis(&file, |chain| chain["config"]["sluice"]["validators"] = json!(validators));
    let (one, two) = (validator(1), validator(2));
    name(&[one.clone(), two.clone()]);
    let follower = start(&file, &home.path().join("follower")).expect("a node without a key follows");
    assert_eq!(quantity(&follower.rpc.call("eth_blockNumber", json!([]))), 0, "nobody else made a block");
    drop(follower);
    for (field, value, words) in [
        ("identity", json!("0x01"), "identity is 1 bytes for validator 1: must be 32 bytes, an Ed25519 public key"),
        ("identity", one["identity"].clone(), "for validator 1: is that of another validator"),
        ("addresses", json!(["localhost:30303"]), "localhost:30303 for validator 1: must be IP:PORT"),
        ("addresses", json!(["[::1]:0"]), "[::1]:0 for validator 1: must be IP:PORT"),
        ("addresses", json!(vec!["[::1]:1"; 9]), "addresses is 9 for validator 1: at most 8"),
    ] {
        let mut wrong = two.clone();
        wrong[field] = value;
        name(&[one.clone(), wrong]);
        let log = start(&file, &home.path().join("other")).expect_err("a validator that nobody reaches");
        assert!(log.contains(words), "{log}");
    }
    let mut twin = one.clone();
    twin["identity"] = two["identity"].clone();
    name(&[one, twin]);
    let log = start(&file, &home.path().join("other")).expect_err("one validator twice");
    assert!(log.contains("validator 1 has the key of another one"), "{log}");
    let mut thief = two.clone();
    thief["bls_pubkey"] = validator(3)["bls_pubkey"].clone();
    name(&[thief]);
    let log = start(&file, &home.path().join("other")).expect_err("a key without its secret");
    assert!(log.contains("proof_of_possession") && log.contains("does not prove possession"), "{log}");
    let mut keyless = two;
    keyless["bls_pubkey"] = json!(format!("0x{}", "11".repeat(48)));
    name(&[keyless]);
    let log = start(&file, &home.path().join("other")).expect_err("no key");
    assert!(log.contains("is no BLS12-381 key"), "{log}");
    genesis(&file, |_| ());
    drop(start(&file, &folder).expect("the refusals changed nothing"));
}
