//! What is sent to those who subscribed.

use serde_json::{Value, json};

use crate::kit::{Socket, World, open, world};

async fn socket(world: &World) -> Socket {
    Socket::open(world.server.ws_addr().unwrap(), "").await.ok().unwrap()
}

async fn subscribe(socket: &mut Socket, params: Value) -> Value {
    let answer = socket.call("eth_subscribe", params).await;
    assert!(answer["result"].as_str().is_some_and(|id| id.starts_with("0x")), "{answer}");
    answer["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_logs_and_transactions_are_announced_once_they_can_be_read() {
    let world = world(open()).await;
    let mut socket = socket(&world).await;
    let heads = subscribe(&mut socket, json!(["newHeads"])).await;
    let logs = subscribe(&mut socket, json!(["logs", {"topics": [alloy_primitives::B256::repeat_byte(2)]}])).await;
    let hashes = subscribe(&mut socket, json!(["newPendingTransactions"])).await;
    let full = subscribe(&mut socket, json!(["newPendingTransactions", true])).await;
    let raw = world.signed(0, &[1]);
    let hash = socket.call("eth_sendRawTransaction", json!([raw])).await["result"].clone();
    assert_eq!(socket.notified(&hashes).await, hash);
    let transaction = socket.notified(&full).await;
    assert_eq!((&transaction["hash"], &transaction["blockHash"]), (&hash, &Value::Null));

    let head = socket.notified(&heads).await;
    let block = socket.call("eth_getBlockByHash", json!([head["hash"]])).await["result"].clone();
    assert_eq!(block["transactions"], json!([hash]));
    for field in ["number", "parentHash", "logsBloom", "stateRoot", "timestamp", "baseFeePerGas", "miner"] {
        assert_eq!(head[field], block[field], "{field}");
    }
    let receipt = socket.call("eth_getTransactionReceipt", json!([hash])).await["result"].clone();
    assert_eq!(receipt["blockHash"], head["hash"]);

    let receipt = world.include(1, &[2]).await;
    assert_eq!(socket.notified(&logs).await, receipt["logs"][0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribing_ends_the_news() {
    let world = world(open()).await;
    let mut socket = socket(&world).await;
    let first = subscribe(&mut socket, json!(["newHeads"])).await;
    let second = subscribe(&mut socket, json!(["newHeads"])).await;
    assert_ne!(first, second);
    assert_eq!(socket.call("eth_unsubscribe", json!([first])).await["result"], true);
    assert_ne!(socket.call("eth_unsubscribe", json!([first])).await["result"], true);
    world.include(0, &[]).await;
    assert_eq!(socket.notified(&second).await["number"], "0x1");
    let answer = socket.call("eth_unsubscribe", json!([second])).await;
    assert_eq!(answer["result"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_have_so_many_subscriptions() {
    let world = world(open()).await;
    let mut socket = socket(&world).await;
    let mut last = Value::Null;
    for _ in 0..64 {
        last = subscribe(&mut socket, json!(["newHeads"])).await;
    }
    assert_eq!(socket.call("eth_subscribe", json!(["newHeads"])).await["error"]["code"], -32006);
    assert_eq!(socket.call("eth_unsubscribe", json!([last])).await["result"], true);
    // The place is free as soon as the subscription's task has ended.
    loop {
        let answer = socket.call("eth_subscribe", json!(["newHeads"])).await;
        if answer["result"].is_string() {
            break;
        }
    }
    for (params, code) in [(json!(["nothing"]), -32601), (json!([]), -32602), (json!(["logs", 5]), -32602)] {
        let answer = socket.call("eth_subscribe", params.clone()).await;
        assert!(answer["error"]["code"] == code || answer["error"]["code"] == -32006, "{params} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_cut_off() {
    let world = world(open()).await;
    let mut lazy = socket(&world).await;
    for _ in 0..32 {
        subscribe(&mut lazy, json!(["logs"])).await;
    }
    let mut keen = socket(&world).await;
    let heads = subscribe(&mut keen, json!(["newHeads"])).await;
    // Each block brings the lazy one 32 logs of 200 kilobytes; the kernel's buffers take a few.
    let data = vec![1; 100_000];
    for nonce in 0..300 {
        world.include(nonce, if nonce < 20 { &data } else { &[1] }).await;
        keen.notified(&heads).await;
    }
    // It lags by a whole ring, so it gets what was queued and then the end.
    let mut received = 0_usize;
    while lazy.receive().await.is_some() {
        received += 1;
    }
    assert!(received < 32 * 300, "{received} messages");
    assert_eq!(world.call("eth_blockNumber", json!([])).await, format!("{:#x}", 300));
}
