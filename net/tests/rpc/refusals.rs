//! What is refused, with which code and words; and that nothing a client sends does more harm.

use serde_json::{Value, json};

use crate::kit::{CONTRACT, open, revert_data, world};

const NO_HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_codes_and_words_that_libraries_know() {
    let world = world(open()).await;
    let nobody = "0x00000000000000000000000000000000000000ff";
    let call = |input: &str| json!({"to": CONTRACT, "input": input});
    let table: Vec<(&str, Value, i64, &str)> = vec![
        ("eth_nothing", json!([]), -32601, "the method eth_nothing does not exist/is not available"),
        ("admin_peers", json!([]), -32601, "the method admin_peers does not exist/is not available"),
        ("debug_traceTransaction", json!([NO_HASH]), -32601, "does not exist"),
        ("eth_subscribe", json!(["newHeads"]), -32601, "notifications not supported"),
        ("eth_getBalance", json!([]), -32602, "missing value for required argument 0"),
        ("eth_getBalance", json!(["0x12"]), -32602, "invalid argument 0"),
        ("eth_getBalance", json!([nobody, "newest"]), -32602, "invalid argument 1"),
        ("eth_getBalance", json!([nobody, "latest", 1]), -32602, "too many arguments, want at most 2"),
        ("eth_getBalance", json!({"address": nobody}), -32602, "non-array args"),
        ("eth_getBalance", json!([nobody, "0xffff"]), -32000, "header not found"),
        ("eth_getBalance", json!([nobody, {"blockHash": NO_HASH}]), -32000, "header not found"),
        ("eth_getBlockByNumber", json!(["0x+1", false]), -32602, "invalid hex string"),
        ("eth_getBlockByNumber", json!(["0x01", false]), -32602, "leading zero"),
        ("eth_getBlockByNumber", json!([1, false]), -32602, "invalid argument 0"),
        ("eth_getBlockByNumber", json!(["latest", "yes"]), -32602, "invalid argument 1"),
        ("eth_getStorageAt", json!([nobody, format!("0x{}", "1".repeat(65))]), -32602, "want at most 32 bytes"),
        ("eth_getProof", json!([nobody, vec!["0x1"; 1025]]), -32602, "too many storage keys"),
        ("eth_getProof", json!([nobody, [], "0x0"]), -32000, "is not available"),
        ("eth_call", json!([call("0x04")]), -32000, "out of gas"),
        ("eth_call", json!([call("0x05")]), -32603, "internal error"),
        ("eth_call", json!([{"to": CONTRACT, "data": "0x01", "input": "0x02"}]), -32602, "not equal"),
        ("eth_call", json!([{"to": CONTRACT, "gas": "0x-1"}]), -32602, "gas: invalid hex string"),
        ("eth_call", json!([{"gasPrice": "0x1", "maxFeePerGas": "0x1"}]), -32000, "both gasPrice and"),
        ("eth_call", json!([{"maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x2"}]), -32000, "maxFeePerGas (1) <"),
        ("eth_call", json!([{"chainId": "0x1"}]), -32000, "chainId does not match node's (have=1, want=31337)"),
        ("eth_call", json!([call("0x01"), "0xffff"]), -32000, "header not found"),
        ("eth_call", json!([call("0x01"), "latest", {"0x12": {}}]), -32602, "invalid argument 2"),
        ("eth_estimateGas", json!([call("0x04")]), -32000, "gas required exceeds allowance (50000000)"),
        ("eth_feeHistory", json!(["0x1", "latest", [101]]), -32000, "invalid reward percentile"),
        ("eth_feeHistory", json!(["0x1", "latest", [20, 10]]), -32000, "invalid reward percentile"),
        ("eth_feeHistory", json!(["0x1", "latest", vec![1; 101]]), -32602, "over the query limit"),
        ("eth_feeHistory", json!(["0x1", "0xffff"]), -32000, "header not found"),
        ("eth_getLogs", json!([{"fromBlock": "0x0", "blockHash": NO_HASH}]), -32602, "cannot specify both"),
        ("eth_getLogs", json!([{"topics": ["0x12"]}]), -32602, "invalid topic"),
        ("eth_newFilter", json!([{"blockHash": NO_HASH}]), -32602, "cannot be made"),
        ("eth_getFilterChanges", json!(["0x1"]), -32000, "filter not found"),
        ("eth_sendRawTransaction", json!(["02"]), -32602, "without 0x prefix"),
        ("eth_sendRawTransaction", json!(["0x0"]), -32602, "odd length"),
        ("eth_sendRawTransaction", json!(["0x"]), -32000, ""),
        ("eth_sendRawTransaction", json!(["0x02c0"]), -32000, "rlp"),
        ("eth_sendRawTransactionSync", json!(["0x02c0", -5]), -32602, "invalid argument 1"),
        ("eth_sendTransaction", json!([{"from": nobody, "to": nobody}]), -32000, "unknown account"),
        ("eth_sign", json!([nobody, "0x00"]), -32000, "unknown account"),
        ("eth_signTransaction", json!([{"from": nobody}]), -32000, "unknown account"),
        ("web3_sha3", json!(["0xzz"]), -32602, "invalid hex string"),
    ];
    for (method, params, code, words) in table {
        let (found, message, _) = world.refusal(method, params.clone()).await;
        assert_eq!(found, code, "{method} {params}: {message}");
        assert!(message.contains(words), "{method} {params}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reverts_carry_reason_and_data() {
    let world = world(open()).await;
    for method in ["eth_call", "eth_estimateGas"] {
        let (code, message, data) = world.refusal(method, json!([{"to": CONTRACT, "data": "0x02"}])).await;
        assert_eq!((code, message.as_str()), (3, "execution reverted: no"), "{method}");
        assert_eq!(data, Some(json!(revert_data())), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_are_answered_with_the_codes_of_the_protocol() {
    let world = world(open()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[{deep}]}}"#);
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":["0x{}"]}}"#, "0".repeat(4_000_001));
    let table: Vec<(&str, i64)> = vec![
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        ("\u{0}", -32700),
        ("[", -32700),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#, -32600),
        (r#"{"id":1,"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":5}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[1]}"#, -32602),
        ("[]", -32600),
        (&deep, -32600),
        (&deep_params, -32602),
        (&long, -32602),
    ];
    for (body, code) in table {
        let (_, answer) = world.post("host: localhost\r\n", body.as_bytes()).await;
        let shown = &body[..body.len().min(80)];
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{shown}: {error}: {answer}"));
        let answer = answer.get(0).unwrap_or(&answer);
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
    }
    // The server is as well as before.
    assert_eq!(world.call("eth_chainId", json!([])).await, "0x7a69");
}

#[tokio::test(flavor = "multi_thread")]
async fn pseudo_random_bytes_get_answers_and_do_no_harm() {
    let seed = 0x51d7_348d_91b1_65a3_u64;
    eprintln!("seed {seed:#x}");
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let world = world(open()).await;
    let methods =
        ["eth_call", "eth_getLogs", "eth_feeHistory", "eth_getProof", "eth_sendRawTransaction", "eth_newFilter"];
    let scraps =
        ["\"0x", "[", "]", "{", "}", ",", ":", "null", "1e999", "\"latest\"", "\"\\u0000\"", "-1", "\"address\"", "ff"];
    for _ in 0..500 {
        let mut params = String::new();
        for _ in 0..next() % 12 {
            params.push_str(scraps[usize::try_from(next()).unwrap() % scraps.len()]);
        }
        let method = methods[usize::try_from(next()).unwrap() % methods.len()];
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":[{params}]}}"#);
        let (status, answer) = world.post("host: localhost\r\n", body.as_bytes()).await;
        let parsed: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status} {body} {answer}"));
        assert_ne!(parsed["error"]["code"], -32603, "{body} {answer}");
    }
    assert_eq!(world.call("eth_chainId", json!([])).await, "0x7a69");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_calls_end_and_others_are_answered_meanwhile() {
    let mut config = open();
    config.limits.call_threads = 1;
    config.limits.call_queue_max = 1;
    let world = world(config).await;
    let endless = json!([{"to": CONTRACT, "data": "0x03"}]);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (client, params) = (world.client.clone(), endless.clone());
            tokio::spawn(async move { client.call::<Value>("eth_call", &params).await })
        })
        .collect();
    let (mut busy, mut aborted) = (0, 0);
    for call in calls {
        assert_eq!(world.call("eth_getBalance", json!([CONTRACT])).await, "0x0");
        match call.await.unwrap().unwrap_err().to_string().as_str() {
            "busy: too many calls are waiting, try again later (code -32005)" => busy += 1,
            "execution aborted (timeout = 5s) (code -32000)" => aborted += 1,
            other => panic!("{other}"),
        }
    }
    // One runs and one waits; a third may slip in while the first is handed to its thread.
    assert!((1..=3).contains(&aborted) && busy == 8 - aborted, "{busy} busy, {aborted} aborted");
    // The thread notices a moment later that nobody waits any more.
    let answer = loop {
        match world.client.call::<Value>("eth_call", json!([{"to": CONTRACT, "data": "0x01"}])).await {
            Err(error) if error.code() == Some(-32005) => tokio::task::yield_now().await,
            answer => break answer,
        }
    };
    assert_eq!(answer.unwrap(), "0x01");
}
