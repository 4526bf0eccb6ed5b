//! Transactions in: raw, waited for, and signed by the node.

use alloy_primitives::{Signature, hex, keccak256};
use serde_json::{Value, json};

use crate::kit::{CONTRACT, open, world};

const SENDER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

#[tokio::test(flavor = "multi_thread")]
async fn refused_transactions_are_told_in_geths_words() {
    let world = world(open()).await;
    let raw = world.signed(0, &[]);
    let hash = world.call("eth_sendRawTransaction", json!([raw])).await;
    assert_eq!(hash, json!(keccak256(&raw)));
    let queued = world.signed(5, &[]);
    world.call("eth_sendRawTransaction", json!([queued])).await;
    assert_eq!(world.refusal("eth_sendRawTransaction", json!([queued])).await.1, "already known");
    world.include(1, &[]).await;
    let (code, message, _) = world.refusal("eth_sendRawTransaction", json!([world.signed(0, &[1])])).await;
    assert_eq!((code, message.as_str()), (-32000, "nonce too low: next nonce 2, tx nonce 0"));
    let (code, message, _) = world.refusal("eth_sendRawTransaction", json!([world.signed(5, &[1])])).await;
    assert_eq!((code, message.as_str()), (-32000, "replacement transaction underpriced"));
    let huge = world.signed(2, &vec![1; 200_000]);
    let (code, message, _) = world.refusal("eth_sendRawTransaction", json!([huge])).await;
    assert_eq!(code, -32000);
    assert!(message.starts_with("oversized data"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_can_be_waited_for() {
    let world = world(open()).await;
    for (nonce, timeout) in [Value::Null, json!(5000), json!("0x1388"), json!(0)].into_iter().enumerate() {
        let nonce = u64::try_from(nonce).unwrap();
        let params = json!([world.signed(nonce, &[]), timeout]);
        let receipt = world.call("eth_sendRawTransactionSync", params).await;
        assert_eq!(receipt["status"], "0x1");
        assert_eq!(world.call("eth_getTransactionReceipt", json!([receipt["transactionHash"]])).await, receipt);
    }
    // Behind a gap nothing is ever included.
    let raw = world.signed(9, &[]);
    let (code, message, data) = world.refusal("eth_sendRawTransactionSync", json!([raw, 1])).await;
    assert_eq!((code, data), (4, Some(json!(keccak256(&raw)))));
    assert!(message.contains("wasn't processed"), "{message}");
    assert_eq!(world.refusal("eth_sendRawTransactionSync", json!([raw, 1])).await.1, "already known");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waits_at_once_are_all_answered() {
    let world = world(open()).await;
    // As many as the pool keeps behind a gap, so that none is refused in whatever order they arrive.
    let waits: Vec<_> = (0..64)
        .map(|nonce| {
            let (client, raw) = (world.client.clone(), world.signed(nonce, &[]));
            tokio::spawn(async move { client.call::<Value>("eth_sendRawTransactionSync", json!([raw])).await })
        })
        .collect();
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap()["status"], "0x1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_signs_for_accounts_that_everybody_knows() {
    let world = world(open()).await;
    let accounts = world.call("eth_accounts", json!([])).await;
    assert_eq!(accounts.as_array().unwrap().len(), 10);
    let address: alloy_primitives::Address = SENDER.parse().unwrap();

    let mut sends = Vec::new();
    for _ in 0..10 {
        let client = world.client.clone();
        let params = json!([{"from": SENDER, "to": CONTRACT, "value": "0x1"}]);
        sends.push(tokio::spawn(async move { client.call::<Value>("eth_sendTransaction", params).await }));
    }
    let mut hashes = Vec::new();
    for send in sends {
        hashes.push(send.await.unwrap().unwrap().to_string());
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 10, "no two took the same nonce");

    let message = "0x68656c6c6f";
    for (method, params) in [("eth_sign", json!([SENDER, message])), ("personal_sign", json!([message, SENDER]))] {
        let signature = world.call(method, params).await;
        let bytes = hex::decode(signature.as_str().unwrap()).unwrap();
        let recovered = Signature::from_raw(&bytes).unwrap().recover_address_from_msg(b"hello").unwrap();
        assert_eq!(recovered, address, "{method}");
    }

    let data = json!({
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}],
            "Mail": [{"name": "contents", "type": "string"}],
        },
        "primaryType": "Mail",
        "domain": {"name": "Sluice"},
        "message": {"contents": "hello"},
    });
    let signed = world.call("eth_signTypedData_v4", json!([SENDER, data])).await;
    assert_eq!(world.call("eth_signTypedData_v4", json!([SENDER, data.to_string()])).await, signed);
    let (code, message, _) = world.refusal("eth_signTypedData_v4", json!([SENDER, {"types": 5}])).await;
    assert_eq!((code, message.as_str()), (-32602, "invalid argument 1: not typed data of EIP-712"));

    let params = json!([{"from": SENDER, "to": CONTRACT, "gas": "0x5208", "nonce": "0x20"}]);
    let signed = world.call("eth_signTransaction", params).await;
    let hash = world.call("eth_sendRawTransaction", json!([signed["raw"]])).await;
    assert_eq!(hash, signed["tx"]["hash"]);
}
