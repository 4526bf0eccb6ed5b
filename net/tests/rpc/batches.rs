//! Batches: order, counts, bytes.

use serde_json::{Value, json};

use crate::kit::{CONTRACT, open, world};

fn calls(count: usize, method: &str, params: &Value) -> String {
    let one = |id: usize| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    Value::Array((0..count).map(one).collect()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_order_and_a_bad_call_spoils_no_other() {
    let world = world(open()).await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [world.signed(0, &[])]},
        {"jsonrpc": "2.0", "id": "two", "method": "eth_sendRawTransaction", "params": ["0x"]},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_sendRawTransaction", "params": [world.signed(1, &[])]},
        {"jsonrpc": "2.0", "id": 4, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        {"foo": "boo"},
        5,
        {"jsonrpc": "2.0", "id": 7, "method": "eth_nothing"},
        {"jsonrpc": "2.0", "id": 8, "method": "eth_subscribe", "params": ["newHeads"]},
    ]);
    let (status, answer) = world.post("host: localhost\r\n", batch.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!("two"), json!(3), json!(4), Value::Null, Value::Null, json!(7), json!(8)]);
    assert!(answers[0]["result"].is_string() && answers[2]["result"].is_string(), "{answer}");
    let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    let expected = [None, Some(-32000), None, None, Some(-32600), Some(-32600), Some(-32601), Some(-32000)];
    assert_eq!(codes, expected, "{answer}");
    let (_, silent) = world.post("host: localhost\r\n", br#"[{"jsonrpc":"2.0","method":"eth_chainId"}]"#).await;
    assert_eq!(silent, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_thousand_is_answered_and_one_more_is_refused() {
    let world = world(open()).await;
    let (_, answer) = world.post("host: localhost\r\n", calls(1_000, "eth_blockNumber", &json!([])).as_bytes()).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&answer).unwrap().len(), 1_000);
    let (_, answer) = world.post("host: localhost\r\n", calls(1_001, "eth_blockNumber", &json!([])).as_bytes()).await;
    let refused: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(refused["error"]["code"], -32010, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_batch_are_counted_while_it_is_answered() {
    let mut config = open();
    config.limits.response_bytes_max = 1_000_000;
    let world = world(config).await;
    // Each answer has 200,000 bytes: five fit, the rest is not even run.
    let body = calls(100, "eth_call", &json!([{"to": CONTRACT, "data": "0x06"}]));
    let (_, answer) = world.post("host: localhost\r\n", body.as_bytes()).await;
    assert!(answer.len() < 1_100_000, "{}", answer.len());
    let answers: Vec<Value> = serde_json::from_str(&answer).unwrap();
    let answered = answers.iter().filter(|answer| answer["result"].is_string()).count();
    assert_eq!((answers.len(), answered), (100, 5));
    assert_eq!(answers[99]["error"], json!({"code": -32005, "message": "response too large"}));
    assert_eq!(answers[99]["id"], 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_that_is_too_large_is_refused() {
    let mut config = open();
    config.limits.response_bytes_max = 100_000;
    let world = world(config).await;
    let (code, message, _) = world.refusal("eth_call", json!([{"to": CONTRACT, "data": "0x06"}])).await;
    assert_eq!((code, message.as_str()), (-32005, "response too large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_queries_stop_at_their_limit_and_say_where_to_go_on() {
    let mut config = open();
    config.limits.logs_max = 2;
    let world = world(config).await;
    for nonce in 0..4 {
        world.include(nonce, &[1]).await;
    }
    let (code, message, _) = world.refusal("eth_getLogs", json!([{"fromBlock": "0x0"}])).await;
    assert_eq!((code, message.as_str()), (-32005, "query exceeds max results 2, retry with the range 0-2"));
    let logs = world.call("eth_getLogs", json!([{"fromBlock": "0x0", "toBlock": "0x2"}])).await;
    assert_eq!(logs.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_queries_that_name_nothing_are_limited_in_blocks_and_no_others() {
    let mut config = open();
    config.limits.log_blocks_max = 2;
    let world = world(config).await;
    for nonce in 0..4 {
        world.include(nonce, &[1]).await;
    }
    for filter in [json!({"fromBlock": "0x0"}), json!({"fromBlock": "0x1", "topics": [null, []]})] {
        let (code, message, _) = world.refusal("eth_getLogs", json!([filter])).await;
        assert_eq!((code, message.as_str()), (-32602, "exceed maximum block range: 2"));
    }
    let found = async |filter: Value| world.call("eth_getLogs", json!([filter])).await.as_array().unwrap().len();
    let topic = alloy_primitives::B256::repeat_byte(1);
    assert_eq!(found(json!({"fromBlock": "0x1", "toBlock": "0x2"})).await, 2);
    assert_eq!(found(json!({"fromBlock": "0x0", "address": CONTRACT})).await, 4);
    assert_eq!(found(json!({"fromBlock": "0x0", "topics": [topic]})).await, 4);
    // What the store names has the topic, but not as many as are asked for.
    assert_eq!(found(json!({"fromBlock": "0x0", "topics": [topic, null]})).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_matches_answers_to_calls() {
    let world = world(open()).await;
    let answers = world
        .client
        .batch(vec![
            ("eth_chainId", json!([])),
            ("eth_nothing", json!([])),
            ("eth_getBlockByHash", json!([alloy_primitives::B256::ZERO])),
        ])
        .await;
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0].as_ref().unwrap(), "0x7a69");
    assert_eq!(answers[1].as_ref().unwrap_err().code(), Some(-32601));
    assert_eq!(answers[2].as_ref().unwrap(), &Value::Null);
    assert!(world.client.batch(Vec::new()).await.is_empty());
    let many = vec![("eth_chainId", json!([])); 1_001];
    assert!(world.client.batch(many).await.iter().all(|answer| answer.as_ref().unwrap_err().code() == Some(-32010)));
}
