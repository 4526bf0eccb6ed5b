//! Everything that comes from outside and is wrong: a clear error that names it, and the node serves on.

use std::{io::Write as _, net::TcpStream, process::Command};

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_signer::SignerSync;
use serde_json::{Value, json};
use tests::{
    node::{Node, binary},
    rng::Rng,
    wallet::{CHAIN_ID, account, hash, hex_of, sign, template, transfer},
};

fn node() -> (tempfile::TempDir, Node) {
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    (home, node)
}

/// Sends a raw transaction that must be refused with this code and these words.
#[track_caller]
fn refused(node: &Node, raw: &Bytes, code: i64, words: &str) {
    let error = node.rpc.refusal("eth_sendRawTransaction", json!([hex_of(raw)]));
    assert_eq!(error.code, code, "{error:?}");
    assert!(error.message.contains(words), "`{}` lacks `{words}`", error.message);
}

fn to() -> TxKind {
    TxKind::Call(Address::with_last_byte(9))
}

#[test]
fn each_bad_transaction_gets_the_words_and_code_that_geth_gives() {
    let (_home, node) = node();
    let key = account(0);
    let base = |nonce| TxEip1559 { to: to(), ..template(nonce) };
    let good = sign(&key, base(0));
    node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&good)]));

    refused(&node, &good, -32000, "nonce too low");
    refused(&node, &sign(&key, base(u64::MAX)), -32000, "nonce has max value");
    refused(&node, &sign(&key, base(1_000_000)), -32000, "nonce too high");
    let poor = alloy_signer_local::PrivateKeySigner::random();
    refused(&node, &transfer(&poor, 0, Address::ZERO), -32000, "insufficient funds for gas * price + value");

    let waiting = sign(&key, base(2));
    node.rpc.call("eth_sendRawTransaction", json!([hex_of(&waiting)]));
    refused(&node, &waiting, -32000, "already known");
    let same_nonce = sign(&key, TxEip1559 { gas_limit: 21_001, ..base(2) });
    refused(&node, &same_nonce, -32000, "replacement transaction underpriced");
    let receipt = node.rpc.call("eth_getTransactionReceipt", json!([hash(&waiting)]));
    assert_eq!(receipt, Value::Null, "a transaction behind a gap waits");
}

#[test]
fn each_malformed_transaction_gets_the_words_and_code_that_geth_gives() {
    let (_home, node) = node();
    let key = account(0);
    let base = |nonce| TxEip1559 { to: to(), ..template(nonce) };
    refused(&node, &sign(&key, TxEip1559 { chain_id: 1, ..base(0) }), -32000, "invalid chain id");
    refused(&node, &sign(&key, TxEip1559 { gas_limit: 20_999, ..base(0) }), -32000, "intrinsic gas too low");
    refused(
        &node,
        &sign(&key, TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 1, ..base(0) }),
        -32000,
        "transaction underpriced",
    );
    refused(&node, &sign(&key, TxEip1559 { gas_limit: 300_000_001, ..base(0) }), -32000, "exceeds block gas limit");
    refused(
        &node,
        &sign(&key, TxEip1559 { gas_limit: 16_777_217, ..base(0) }),
        -32000,
        "transaction gas limit too high",
    );
    refused(
        &node,
        &sign(&key, TxEip1559 { max_priority_fee_per_gas: 200_000_000_000, ..base(0) }),
        -32000,
        "max priority fee per gas higher than max fee per gas",
    );
    refused(
        &node,
        &sign(&key, TxEip1559 { value: U256::MAX >> 8, ..base(0) }),
        -32000,
        "insufficient funds for gas * price + value",
    );
    let create = TxEip1559 { to: TxKind::Create, input: vec![0; 49_153].into(), gas_limit: 5_000_000, ..base(0) };
    refused(&node, &sign(&key, create), -32000, "max initcode size exceeded");
    refused(&node, &sign(&key, TxEip1559 { input: vec![1; 131_072].into(), ..base(0) }), -32000, "oversized data");
    let old = TxLegacy { nonce: 0, gas_limit: 21_000, gas_price: 100_000_000_000, to: to(), ..TxLegacy::default() };
    refused(&node, &sign(&key, old), -32000, "only replay-protected (EIP-155) transactions allowed over RPC");
    let listed = TxEip2930 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 21_000,
        gas_price: 100_000_000_000,
        ..TxEip2930::default()
    };
    refused(&node, &sign(&key, listed), -32000, "intrinsic gas too low");
    let set_code = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 90_000,
        max_fee_per_gas: 100_000_000_000,
        ..TxEip7702::default()
    };
    refused(&node, &sign(&key, set_code), -32000, "EIP-7702 transaction with empty auth list");
    refused(&node, &blob(&key), -32000, "transaction type not supported");
}

fn blob(key: &alloy_signer_local::PrivateKeySigner) -> Bytes {
    let tx = TxEip4844 {
        chain_id: CHAIN_ID,
        nonce: 1,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_fee_per_blob_gas: 1,
        blob_versioned_hashes: vec![alloy_primitives::B256::with_last_byte(1)],
        ..TxEip4844::default()
    };
    let signature = key.sign_hash_sync(&tx.signature_hash()).expect("a key signs");
    let envelope: alloy_consensus::TxEnvelope = tx.into_signed(signature).into();
    envelope.encoded_2718().into()
}

#[test]
fn each_bad_request_gets_a_code_of_json_rpc() {
    let (_home, node) = node();
    let code = |body: &str| {
        let (_, text) = node.rpc.post(body.to_owned()).expect("an answer");
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("`{text}` is no JSON"));
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{body}: {answer}"))
    };
    assert_eq!(code("{"), -32700);
    assert_eq!(code(""), -32700);
    assert!([-32600, -32700].contains(&code("[]")));
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1}"#), -32600);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_nothing"}"#), -32601);
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance"}"#), -32602);
    let call = |method: &str, params: &str| {
        code(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    };
    let address = "0x0000000000000000000000000000000000000001";
    for block in ["\"newest\"", "\"0x\"", "\"+1\"", "\"0x+1\"", "\"0xzz\"", "\"0x11111111111111111\"", "{}", "[]"] {
        assert_eq!(call("eth_getBalance", &format!("[\"{address}\",{block}]")), -32602, "{block}");
    }
    for address in ["0x01", "0x", "1", "0xgg00000000000000000000000000000000000000"] {
        assert_eq!(call("eth_getBalance", &format!("[\"{address}\",\"latest\"]")), -32602, "{address}");
    }
    assert_eq!(call("eth_sendRawTransaction", "[\"0x0\"]"), -32602);
    assert_eq!(call("eth_sendRawTransaction", "[\"nothing\"]"), -32602);
    assert_eq!(call("eth_sendRawTransaction", "[\"0x\"]"), -32000);
    assert_eq!(call("eth_sendRawTransaction", "[\"0xc0\"]"), -32000);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let (_, text) = node.rpc.post(deep).expect("an answer");
    assert!(text.contains("-32600") || text.contains("-32700"), "{}", &text[..text.len().min(200)]);
    assert_eq!(tests::rpc::quantity(&node.rpc.call("eth_chainId", json!([]))), CHAIN_ID);
}

#[test]
fn sizes_and_batches_are_bounded_and_the_node_serves_on() {
    let (_home, node) = node();
    let (status, text) = node.rpc.post(vec![b' '; 20_000_000]).unwrap_or_else(|| (413, "cut".to_owned()));
    assert!(status == 413 || text.contains("error"), "{status} {text}");
    let one = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let batch = |count: usize| format!("[{}]", vec![one; count].join(","));
    let (_, text) = node.rpc.post(batch(1_000)).expect("an answer");
    assert_eq!(serde_json::from_str::<Vec<Value>>(&text).expect("a list").len(), 1_000);
    let (_, text) = node.rpc.post(batch(1_001)).expect("an answer");
    assert!(text.contains("error") && text.len() < 1_000, "{text}");
    let (status, _) = node.rpc.post_with(one, &[("host", "evil.example")]).expect("an answer");
    assert_eq!(status, 403, "a foreign host name is refused");
    assert_eq!(tests::rpc::quantity(&node.rpc.call("eth_chainId", json!([]))), CHAIN_ID);
}

#[test]
fn rubbish_on_the_sockets_harms_nobody() {
    let (_home, node) = node();
    let mut rng = Rng::seeded("rubbish", 7);
    for url in [&node.http, &node.ws] {
        let address = url.split("//").nth(1).expect("a url");
        for _ in 0..50 {
            let mut socket = TcpStream::connect(address).expect("it listens");
            let bytes: Vec<u8> = (0..rng.below(2_000)).map(|_| rng.next().to_le_bytes()[3]).collect();
            // The server may close while we write.
            let _ = socket.write_all(&bytes);
        }
    }
    let valid = transfer(&account(1), 0, Address::ZERO);
    for _ in 0..300 {
        let mut bytes = valid.to_vec();
        for _ in 0..=rng.below(3) {
            let at = usize::try_from(rng.below(u64::try_from(bytes.len()).expect("small"))).expect("small");
            bytes[at] = rng.next().to_le_bytes()[0];
        }
        let answer = node.rpc.try_call("eth_sendRawTransaction", &json!([hex_of(&bytes.into())]));
        assert!(answer.is_some(), "the connection broke");
    }
    assert_eq!(tests::rpc::quantity(&node.rpc.call("eth_chainId", json!([]))), CHAIN_ID);
}

#[test]
fn bad_genesis_files_and_foreign_folders_are_named() {
    let home = tempfile::tempdir().expect("a folder");
    let run = |genesis: &str, folder: &str| {
        let file = home.path().join("genesis.json");
        std::fs::write(&file, genesis).expect("written");
        let output = Command::new(binary())
            .args(["init", "--chain"])
            .arg(&file)
            .arg("--datadir")
            .arg(home.path().join(folder))
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (genesis, words) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "genesis"),
        (
            r#"{"config":{"chainId":0,"terminalTotalDifficulty":0},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "chainId",
        ),
        (r#"{"config":{"chainId":7},"gasLimit":"0x1","difficulty":"0x0","alloc":{}}"#, "gasLimit"),
        (
            r#"{"config":{"chainId":7},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "beacon roots (EIP-4788) at 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02, block hash history (EIP-2935) at \
             0x0000F90827F1C53a10cb7A02335B175320002935, withdrawal requests (EIP-7002) at \
             0x00000961Ef480Eb55e80D19ad83579A64c007002, consolidation requests (EIP-7251) at \
             0x0000BBdDc7CE488642fb579F8B00f3a590007251",
        ),
        (
            r#"{"config":{"chainId":7,"londonBlock":5},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "config.londonBlock is 5",
        ),
        (
            r#"{"config":{"chainId":7,"shanghaiTime":0,"sluice":{"validators":[{"bls_pubkey":"0x11","proof_of_possession":"0x","identity":"0x","stake":1,"fee_recipient":"0x0000000000000000000000000000000000000000"}]}},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "bls_pubkey is 1 bytes for validator 0: must be 48 bytes",
        ),
        (
            r#"{"config":{"chainId":7,"osakaTime":0},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "shanghaiTime",
        ),
        (
            r#"{"config":{"chainId":7,"shanghaiTime":0,"sluice":{"window":0}},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "config.sluice.window",
        ),
        (
            r#"{"config":{"chainId":7,"shanghaiTime":0,"sluice":{"speed":9}},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#,
            "speed",
        ),
    ] {
        let (code, said) = run(genesis, "refused");
        assert_ne!(code, Some(0), "{genesis}");
        assert!(said.contains(words) && !said.contains("panicked"), "`{said}` lacks `{words}`");
    }
    let shanghai = |id: u64| {
        format!(
            r#"{{"config":{{"chainId":{id},"shanghaiTime":0}},"gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{{}}}}"#
        )
    };
    assert_eq!(run(&shanghai(7), "kept").0, Some(0));
    assert_eq!(run(&shanghai(7), "kept").0, Some(0), "the same chain opens again");
    let (code, said) = run(&shanghai(8), "kept");
    assert_eq!(code, Some(1));
    assert!(said.contains("genesis"), "{said}");
}
