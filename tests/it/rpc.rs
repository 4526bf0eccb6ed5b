//! A developer's first minutes against a running node: a transfer from socket to durable receipt, and restart.

use std::str::FromStr;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount, proof::verify_proof};
use serde_json::{Value, json};
use tests::{
    node::Node,
    rpc::{Rpc, quantity},
    wallet::{account, hash, hex_of, transfer},
};

#[test]
fn a_transfer_goes_from_socket_to_durable_receipt() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let mut node = Node::dev(&folder, &[]);
    let to = Address::repeat_byte(0x42);
    let raw = transfer(&account(0), 0, to);
    let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&raw)]));
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["transactionHash"], json!(hash(&raw)));
    assert_eq!(quantity(&receipt["gasUsed"]), 21_000);
    assert_eq!(quantity(&node.rpc.call("eth_getBalance", json!([to, "latest"]))), 1);
    for tag in ["latest", "safe", "finalized", "pending"] {
        assert_eq!(quantity(&node.rpc.call("eth_getTransactionCount", json!([account(0).address(), tag]))), 1, "{tag}");
    }
    let block = node.rpc.call("eth_getBlockByNumber", json!(["latest", true]));
    assert_eq!(block["transactions"][0]["from"], json!(account(0).address()));
    assert_eq!(node.rpc.call("eth_getBlockByHash", json!([block["hash"], true])), block);

    assert!(node.stop().success());
    let node = Node::dev(&folder, &[]);
    assert_eq!(node.rpc.call("eth_getTransactionReceipt", json!([hash(&raw)])), receipt);
    assert_eq!(node.rpc.call("eth_getBlockByNumber", json!(["latest", true])), block);
}

#[test]
fn what_waits_at_a_stop_waits_after_the_next_start() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let mut node = Node::dev(&folder, &[]);
    let sent: Vec<_> = (0..3).map(|nonce| transfer(&account(0), nonce, Address::repeat_byte(0x42))).collect();
    for raw in &sent[1..] {
        node.rpc.call("eth_sendRawTransaction", json!([hex_of(raw)]));
    }
    assert!(node.stop().success());
    let mut node = Node::dev(&folder, &[]);
    assert!(!folder.join("waiting").exists(), "it is for one start");
    for raw in &sent[1..] {
        let waiting = node.rpc.call("eth_getTransactionByHash", json!([hash(raw)]));
        assert_eq!((&waiting["hash"], &waiting["blockHash"]), (&json!(hash(raw)), &Value::Null));
    }
    assert!(node.stop().success());
    // A damaged file costs what is in it, and no start.
    let mut bytes = std::fs::read(folder.join("waiting")).expect("two wait");
    *bytes.last_mut().expect("it has a checksum") ^= 1;
    std::fs::write(folder.join("waiting"), &bytes).expect("it is there");
    let mut node = Node::dev(&folder, &[]);
    assert_eq!(node.rpc.call("eth_getTransactionByHash", json!([hash(&sent[1])])), Value::Null);
    for raw in &sent {
        node.rpc.call("eth_sendRawTransaction", json!([hex_of(raw)]));
    }
    for raw in &sent {
        assert_eq!(until_receipt(&node, &json!(hash(raw)))["status"], "0x1");
    }
    assert!(node.stop().success());
    assert!(!folder.join("waiting").exists(), "nothing waits");
}

#[test]
fn the_ten_accounts_are_funded_and_unlocked() {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    let accounts = node.rpc.call("eth_accounts", json!([]));
    assert_eq!(accounts.as_array().map(Vec::len), Some(10));
    let ten_thousand_ether = U256::from(10_000) * U256::from(10_u64.pow(18));
    for (index, address) in (0..).zip(accounts.as_array().expect("a list")) {
        assert_eq!(address, &json!(account(index).address()));
        assert_eq!(node.rpc.call("eth_getBalance", json!([address, "latest"])), json!(ten_thousand_ether));
    }
    let hash = node.rpc.call("eth_sendTransaction", json!([{"from": accounts[3], "to": accounts[4], "value": "0x5"}]));
    let receipt = until_receipt(&node, &hash);
    assert_eq!(receipt["from"].as_str().map(str::to_lowercase), accounts[3].as_str().map(str::to_lowercase));
}

fn until_receipt(node: &Node, hash: &Value) -> Value {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < until {
        let receipt = node.rpc.call("eth_getTransactionReceipt", json!([hash]));
        if !receipt.is_null() {
            return receipt;
        }
    }
    panic!("no receipt of {hash}");
}

#[test]
fn a_second_process_cannot_use_the_folder() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let _first = Node::dev(&folder, &[]);
    let (status, log) = Node::try_dev(&folder, &[]).expect_err("the folder is in use");
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("another process") || log.contains("in use") || log.contains("lock"), "{log}");
}

#[test]
fn nonces_that_arrive_out_of_order_all_land() {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    let key = account(5);
    let sent: Vec<_> = (0..41).rev().map(|nonce| transfer(&key, nonce, Address::ZERO)).collect();
    for raw in &sent {
        node.rpc.call("eth_sendRawTransaction", json!([hex_of(raw)]));
    }
    for raw in &sent {
        assert_eq!(until_receipt(&node, &json!(hash(raw)))["status"], "0x1");
    }
}

#[test]
fn old_blocks_and_block_0_stay_readable_when_they_leave_memory() {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &["--dev.block-time", "1ms"]);
    let read = |block: &str| node.rpc.call("eth_getBlockByNumber", json!([block, true]));
    let (genesis, until) = (read("earliest"), std::time::Instant::now() + std::time::Duration::from_secs(60));
    while quantity(&node.rpc.call("eth_blockNumber", json!([]))) < 400 {
        assert!(std::time::Instant::now() < until, "blocks come too slowly");
    }
    assert_eq!(read("earliest"), genesis);
    assert_eq!(node.rpc.call("eth_getBlockByHash", json!([genesis["hash"], false]))["number"], "0x0");
    let first = read("0x1");
    assert_eq!(first["parentHash"], genesis["hash"]);
    assert_eq!(read("0x2")["parentHash"], first["hash"]);
}

/// A call that caps its fee pays the base fee, and a filter keeps to the blocks it was made for.
#[test]
fn fee_caps_and_filter_ranges_mean_what_they_mean_elsewhere() {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    let here = Address::with_last_byte(0xc1).to_string();
    let gas_price = json!({&here: {"code": "0x3a5f5260205ff3"}});
    let price = |fields: Value| {
        let mut call = json!({"from": account(0).address(), "to": &here});
        call.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let word = node.rpc.call("eth_call", json!([call, "latest", gas_price]));
        u128::from_str_radix(&word.as_str().expect("a word")[34..], 16).expect("hex")
    };
    let block = node.rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    let base_fee = u128::from(quantity(&block["baseFeePerGas"]));
    let cap = format!("{:#x}", base_fee * 50);
    assert_eq!(price(json!({"maxFeePerGas": cap})), base_fee);
    assert_eq!(price(json!({"maxFeePerGas": cap, "maxPriorityFeePerGas": "0x5"})), base_fee + 5);
    assert_eq!(price(json!({"gasPrice": cap})), base_fee * 50);

    // A creation that logs nothing but its presence.
    let deploy = json!([{"from": account(0).address(), "data": "0x5f5fa000", "gas": "0x30d40"}]);
    let log = |node: &Node| until_receipt(node, &node.rpc.call("eth_sendTransaction", deploy.clone()));
    let filter = |from: u64, to: u64| {
        let range = json!([{"fromBlock": format!("{from:#x}"), "toBlock": format!("{to:#x}")}]);
        node.rpc.call("eth_newFilter", range)
    };
    let next = quantity(&node.rpc.call("eth_blockNumber", json!([]))) + 1;
    let (first, second, past) = (filter(next, next), filter(next + 1, next + 9), filter(0, next - 1));
    let receipts = [log(&node), log(&node)];
    assert!(receipts.iter().all(|receipt| receipt["logs"].as_array().is_some_and(|logs| logs.len() == 1)));
    let changes = |id: &Value| node.rpc.call("eth_getFilterChanges", json!([id]));
    assert_eq!(changes(&first), receipts[0]["logs"]);
    assert_eq!(changes(&second), receipts[1]["logs"]);
    assert_eq!(changes(&past), json!([]));
    let upside_down = json!([{"fromBlock": "0x5", "toBlock": "0x4"}]);
    assert_eq!(node.rpc.refusal("eth_newFilter", upside_down).code, -32602);
}

/// A hexadecimal field of an answer.
fn field<T: FromStr>(of: &Value, name: &str) -> T {
    of[name].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} of {of}"))
}

/// Whether alloy-trie finds the account and the slots of an answer under a state root, each as the answer says.
fn proves(answer: &Value, state_root: B256) -> bool {
    let holds = |root: B256, key: &[u8], leaf: Option<Vec<u8>>, nodes: &Value| {
        let node = |node: &Value| node.as_str().and_then(|text| text.parse::<Bytes>().ok()).expect("hex");
        let nodes: Vec<Bytes> = nodes.as_array().expect("a list").iter().map(node).collect();
        verify_proof(root, Nibbles::unpack(keccak256(key)), leaf, &nodes).is_ok()
    };
    let account = TrieAccount {
        nonce: quantity(&answer["nonce"]),
        balance: field(answer, "balance"),
        storage_root: field(answer, "storageHash"),
        code_hash: field(answer, "codeHash"),
    };
    let is_there = account.nonce > 0 || !account.balance.is_zero() || account.storage_root != EMPTY_ROOT_HASH;
    let leaf = is_there.then(|| alloy_rlp::encode(account));
    holds(state_root, field::<Address>(answer, "address").as_slice(), leaf, &answer["accountProof"])
        && answer["storageProof"].as_array().expect("a list").iter().all(|slot| {
            let (key, value): (U256, U256) = (field(slot, "key"), field(slot, "value"));
            let leaf = (!value.is_zero()).then(|| alloy_rlp::encode(value));
            holds(account.storage_root, &key.to_be_bytes::<32>(), leaf, &slot["proof"])
        })
}

#[test]
fn what_is_proven_holds_for_alloy_trie_at_every_height() {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    let who = account(0).address();
    // A creation that leaves 42 in slot 0 and no code.
    let creation = json!([{"from": account(1).address(), "data": "0x602a5f55", "gas": "0x30d40"}]);
    let receipt = until_receipt(&node, &node.rpc.call("eth_sendTransaction", creation));
    let (contract, first) = (&receipt["contractAddress"], quantity(&receipt["blockNumber"]));
    for nonce in 0..160 {
        let raw = transfer(&account(0), nonce, Address::with_last_byte(9));
        node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&raw)]));
    }
    let slots = json!(["0x0", "0x1"]);
    for height in (first..=first + 160).step_by(5) {
        let at = json!(format!("{height:#x}"));
        let header = node.rpc.call("eth_getBlockByNumber", json!([at, false]));
        let root: B256 = serde_json::from_value(header["stateRoot"].clone()).expect("a hash");
        let prove = |who: &Value| node.rpc.call("eth_getProof", json!([who, slots, at]));
        let answers = [prove(contract), prove(&json!(who)), prove(&json!(Address::repeat_byte(0x77)))];
        assert_eq!(answers[0]["storageProof"][0]["value"], "0x2a");
        assert_eq!(quantity(&answers[1]["nonce"]), height - first);
        for answer in answers {
            assert!(proves(&answer, root) && !proves(&answer, keccak256(root)), "{height}: {answer}");
            for pointer in ["/accountProof/0", "/balance"] {
                let mut other = answer.clone();
                let value = other.pointer_mut(pointer).expect("it is there");
                let (text, digit) = value.as_str().and_then(|text| text.split_at_checked(text.len() - 1)).expect("hex");
                *value = json!(format!("{text}{}", if digit == "7" { "8" } else { "7" }));
                assert!(!proves(&other, root), "{height}: {other}");
            }
        }
    }
}

/// A counter of the metrics page.
fn counter(page: &str, name: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().expect("a count")
}

#[test]
fn each_admitted_transaction_costs_one_recovery() {
    let home = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let address = format!("127.0.0.1:{port}");
    let node = Node::dev(&home.path().join("data"), &["--metrics", &address]);
    let sent: Vec<_> = (0..50).map(|nonce| transfer(&account(1), nonce, Address::ZERO)).collect();
    for raw in &sent {
        node.rpc.call("eth_sendRawTransaction", json!([hex_of(raw)]));
    }
    for raw in &sent {
        assert_eq!(until_receipt(&node, &json!(hash(raw)))["status"], "0x1");
    }
    let page = Rpc::new(&format!("http://{address}/metrics"));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let text = page.get().expect("a page");
        // Counters are exported one after the other: a page may show some of them a moment older.
        let all = ["engine_tx_committed_total", "engine_tx_admitted_total", "engine_signature_recovered_total"];
        if all.iter().all(|name| counter(&text, name) >= 50) && counter(&text, "vm_gas_used_total") > 0 {
            assert_eq!(all.map(|name| counter(&text, name)), [50; 3]);
            let blocks = counter(&text, "engine_block_committed_total");
            assert!(counter(&text, "storage_fsync_total") <= 2 * blocks + 20, "at most two syncs a block");
            for name in ["storage_keccak_total", "storage_segment_bytes_total", "vm_gas_used_total", "engine_height"] {
                assert!(counter(&text, name) > 0, "{name}");
            }
            return;
        }
        assert!(std::time::Instant::now() < until, "{text}");
    }
}
