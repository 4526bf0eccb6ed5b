//! What each method answers.

use alloy_primitives::keccak256;
use serde_json::{Value, json};

use crate::kit::{CHAIN_ID, CONTRACT, Socket, World, open, world};

const SENDER: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
const NOBODY: &str = "0x00000000000000000000000000000000000000ff";
const NO_HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

async fn check(world: &World, method: &str, params: Value, expected: Value) {
    assert_eq!(world.call(method, params.clone()).await, expected, "{method} {params}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_says_who_it_is() {
    let world = world(open()).await;
    let chain_id = format!("{CHAIN_ID:#x}");
    check(&world, "eth_chainId", json!([]), json!(chain_id)).await;
    check(&world, "net_version", json!([]), json!("31337")).await;
    check(&world, "net_listening", json!([]), json!(true)).await;
    check(&world, "net_peerCount", json!([]), json!("0x0")).await;
    check(&world, "eth_syncing", json!([]), json!(false)).await;
    check(&world, "web3_sha3", json!(["0x68656c6c6f"]), json!(keccak256(b"hello"))).await;
    let version = world.call("web3_clientVersion", json!([])).await;
    let version = version.as_str().unwrap();
    assert!(version.starts_with("Sluice/v") && version.ends_with("/rust"), "{version}");
    assert_eq!(version.split('/').count(), 4, "{version}");
    assert!(world.call("rpc_modules", json!([])).await["txpool"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_transactions_and_receipts_agree() {
    let world = world(open()).await;
    let receipt = world.include(0, &[9, 9]).await;
    let hash = receipt["transactionHash"].clone();
    let number = receipt["blockNumber"].clone();
    let block_hash = receipt["blockHash"].clone();
    check(&world, "eth_blockNumber", json!([]), number.clone()).await;

    let block = world.call("eth_getBlockByNumber", json!([number, false])).await;
    assert_eq!(block["hash"], block_hash);
    assert_eq!(block["transactions"], json!([hash]));
    assert!(block["size"].is_string() && block["uncles"] == json!([]), "{block}");
    for tag in ["latest", "pending", "safe", "finalized"] {
        check(&world, "eth_getBlockByNumber", json!([tag, false]), block.clone()).await;
    }
    check(&world, "eth_getBlockByHash", json!([block_hash]), block.clone()).await;
    check(&world, "eth_getBlockByNumber", json!(["0xffff", false]), Value::Null).await;
    check(&world, "eth_getBlockByHash", json!([NO_HASH, true]), Value::Null).await;
    let genesis = world.call("eth_getBlockByNumber", json!(["earliest", true])).await;
    assert_eq!(genesis["number"], "0x0");

    let transaction = world.call("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&transaction["from"], &transaction["nonce"]), (&json!(SENDER), &json!("0x0")));
    assert_eq!((&transaction["blockHash"], &transaction["type"]), (&block_hash, &json!("0x2")));
    // min(max fee, base fee + tip), and both names of the signature's parity.
    assert_eq!(transaction["gasPrice"], format!("{:#x}", 10_000_000 + 1_000_000));
    assert_eq!(transaction["v"], transaction["yParity"]);
    check(&world, "eth_getTransactionByBlockHashAndIndex", json!([block_hash, "0x0"]), transaction.clone()).await;
    check(&world, "eth_getTransactionByBlockNumberAndIndex", json!([number, "0x0"]), transaction.clone()).await;
    check(&world, "eth_getTransactionByBlockNumberAndIndex", json!([number, "0x1"]), Value::Null).await;
    let full = world.call("eth_getBlockByNumber", json!([number, true])).await;
    assert_eq!(full["transactions"], json!([transaction]));
    check(&world, "eth_getTransactionByHash", json!([NO_HASH]), Value::Null).await;
    let raw = json!(world.signed(0, &[9, 9]));
    check(&world, "eth_getRawTransactionByHash", json!([hash]), raw.clone()).await;
    check(&world, "eth_getRawTransactionByBlockNumberAndIndex", json!([number, "0x0"]), raw).await;

    check(&world, "eth_getTransactionReceipt", json!([hash]), receipt.clone()).await;
    check(&world, "eth_getTransactionReceipt", json!([NO_HASH]), Value::Null).await;
    check(&world, "eth_getBlockReceipts", json!([number]), json!([receipt])).await;
    check(&world, "eth_getBlockReceipts", json!([{"blockHash": block_hash}]), json!([receipt])).await;
    check(&world, "eth_getBlockReceipts", json!(["0xffff"]), Value::Null).await;
    assert_eq!((&receipt["status"], &receipt["contractAddress"]), (&json!("0x1"), &Value::Null));
    assert_eq!(receipt["effectiveGasPrice"], transaction["gasPrice"]);
    assert_eq!((&receipt["logs"][0]["logIndex"], &receipt["logs"][0]["data"]), (&json!("0x0"), &json!("0x0909")));
    assert_eq!(receipt["logs"][0]["blockTimestamp"], block["timestamp"]);
    assert_ne!(receipt["logsBloom"], format!("0x{}", "0".repeat(512)));

    check(&world, "eth_getBlockTransactionCountByNumber", json!([number]), json!("0x1")).await;
    check(&world, "eth_getBlockTransactionCountByHash", json!([block_hash]), json!("0x1")).await;
    check(&world, "eth_getBlockTransactionCountByNumber", json!(["0xffff"]), Value::Null).await;
    check(&world, "eth_getUncleCountByBlockNumber", json!([number]), json!("0x0")).await;
    check(&world, "eth_getUncleCountByBlockHash", json!([block_hash]), json!("0x0")).await;
    check(&world, "eth_getUncleByBlockNumberAndIndex", json!([number, "0x0"]), Value::Null).await;
    check(&world, "eth_getUncleByBlockHashAndIndex", json!([block_hash, "0x0"]), Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_read_at_any_block() {
    let world = world(open()).await;
    let receipt = world.include(0, &[]).await;
    let contract = json!(CONTRACT);
    check(&world, "eth_getBalance", json!([contract]), json!("0x7")).await;
    check(&world, "eth_getBalance", json!([contract, "0x0"]), json!("0x0")).await;
    check(&world, "eth_getBalance", json!([contract, {"blockNumber": "0x0"}]), json!("0x0")).await;
    check(&world, "eth_getBalance", json!([contract, {"blockHash": receipt["blockHash"]}]), json!("0x7")).await;
    check(&world, "eth_getBalance", json!([NOBODY, "latest"]), json!("0x0")).await;
    check(&world, "eth_getCode", json!([contract, "latest"]), json!("0x6000")).await;
    check(&world, "eth_getCode", json!([NOBODY, "latest"]), json!("0x")).await;
    let value = format!("0x{:064x}", 0x2a);
    for slot in ["0x1", "0x01", &format!("0x{:064x}", 1)] {
        check(&world, "eth_getStorageAt", json!([contract, slot, "latest"]), json!(value)).await;
    }
    check(&world, "eth_getStorageAt", json!([contract, "0x2"]), json!(format!("0x{:064x}", 0))).await;
    check(&world, "eth_getTransactionCount", json!([SENDER, "latest"]), json!("0x1")).await;
    check(&world, "eth_getTransactionCount", json!([SENDER, "0x0"]), json!("0x0")).await;
    let info = json!({"balance": "0x7", "nonce": "0x1", "code": "0x6000"});
    check(&world, "eth_getAccountInfo", json!([contract, "latest"]), info).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pending_nonce_counts_the_pool() {
    let world = world(open()).await;
    // A gap keeps the second one queued, so only the first is counted once it is in a block.
    world.call("eth_sendRawTransaction", json!([world.signed(2, &[])])).await;
    check(&world, "eth_getTransactionCount", json!([SENDER, "pending"]), json!("0x0")).await;
    check(&world, "txpool_status", json!([]), json!({"pending": "0x0", "queued": "0x1"})).await;
    let content = world.call("txpool_content", json!([])).await;
    let from = world.call("txpool_contentFrom", json!([SENDER])).await;
    let of = content["queued"].as_object().unwrap();
    assert_eq!(of.values().next().unwrap()["2"], from["queued"]["2"]);
    let waiting = &from["queued"]["2"];
    assert_eq!((&waiting["blockHash"], &waiting["transactionIndex"]), (&Value::Null, &Value::Null));
    check(&world, "eth_getTransactionByHash", json!([waiting["hash"]]), waiting.clone()).await;
    check(&world, "eth_getTransactionReceipt", json!([waiting["hash"]]), Value::Null).await;
    let inspected = world.call("txpool_inspect", json!([])).await;
    let text = inspected["queued"].as_object().unwrap().values().next().unwrap()["2"].clone();
    assert!(text.as_str().unwrap().ends_with(": 7 wei + 1000000 gas × 1000000000 wei"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_run_where_they_are_told() {
    let world = world(open()).await;
    world.include(0, &[]).await;
    let call = |input: &str| json!({"to": CONTRACT, "input": input, "data": input});
    check(&world, "eth_call", json!([call("0x0102")]), json!("0x0102")).await;
    check(&world, "eth_call", json!([call("0x07"), "latest"]), json!("0x0000000000000001")).await;
    check(&world, "eth_call", json!([call("0x07"), "0x0"]), json!("0x0000000000000000")).await;
    check(&world, "eth_call", json!([call("0x07"), "pending"]), json!("0x0000000000000002")).await;
    let overrides = json!({CONTRACT.to_string(): {"balance": "0x1", "stateDiff": {}}});
    check(&world, "eth_call", json!([call("0x01"), "latest", overrides, {"number": "0x9"}]), json!("0x01")).await;
    check(&world, "eth_estimateGas", json!([call("0x01")]), json!("0x61a8")).await;
    check(&world, "eth_estimateGas", json!([call("0x01"), "latest", overrides]), json!("0x61a8")).await;
    let list = world.call("eth_createAccessList", json!([call("0x01"), "latest"])).await;
    assert_eq!(list, json!({"accessList": [], "gasUsed": "0x5208"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn fees_are_suggested_and_remembered() {
    let world = world(open()).await;
    for nonce in 0..3 {
        world.include(nonce, &[]).await;
    }
    check(&world, "eth_maxPriorityFeePerGas", json!([]), json!(format!("{:#x}", 1_000_000))).await;
    check(&world, "eth_gasPrice", json!([]), json!(format!("{:#x}", 11_000_000))).await;
    let history = world.call("eth_feeHistory", json!(["0x2", "latest", [0, 50.0, 100]])).await;
    assert_eq!(history["oldestBlock"], "0x2");
    assert_eq!(history["baseFeePerGas"].as_array().unwrap().len(), 3);
    assert_eq!(history["baseFeePerBlobGas"].as_array().unwrap().len(), 3);
    // The toy uses all the gas a transaction asks for.
    let ratio = 1_000_000.0 / 300_000_000.0;
    assert_eq!(history["gasUsedRatio"], json!([ratio, ratio]));
    assert_eq!(history["blobGasUsedRatio"], json!([0.0, 0.0]));
    let tip = "0xf4240";
    assert_eq!(history["reward"], json!([[tip, tip, tip], [tip, tip, tip]]));
    let history = world.call("eth_feeHistory", json!([100, "0x1", null])).await;
    assert_eq!((&history["oldestBlock"], &history["reward"]), (&json!("0x0"), &Value::Null));
    assert_eq!(history["gasUsedRatio"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_filled_but_not_signed() {
    let world = world(open()).await;
    world.include(0, &[]).await;
    let filled = world.call("eth_fillTransaction", json!([{"from": SENDER, "to": CONTRACT, "value": "0x1"}])).await;
    let tx = &filled["tx"];
    assert_eq!((&tx["type"], &tx["nonce"], &tx["gas"]), (&json!("0x2"), &json!("0x1"), &json!("0x61a8")));
    assert_eq!(tx["maxPriorityFeePerGas"], format!("{:#x}", 1_000_000));
    assert_eq!(tx["maxFeePerGas"], format!("{:#x}", 21_000_000));
    assert_eq!((&tx["r"], &tx["s"]), (&json!("0x0"), &json!("0x0")));
    assert!(filled["raw"].as_str().unwrap().starts_with("0x02"));
    let legacy = json!([{"from": SENDER, "to": CONTRACT, "gasPrice": "0x989680", "gas": "0x5208", "nonce": "0x7"}]);
    let filled = world.call("eth_fillTransaction", legacy).await;
    assert_eq!((&filled["tx"]["v"], &filled["tx"]["nonce"]), (&json!("0x0"), &json!("0x7")));
    assert!(filled["raw"].as_str().unwrap().ends_with("808080"), "{filled}");
    let (code, message, _) = world.refusal("eth_fillTransaction", json!([{"from": SENDER}])).await;
    assert_eq!((code, message.as_str()), (-32602, "contract creation without any data provided"));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_found_by_range_hash_address_and_topic() {
    let world = world(open()).await;
    let mut blocks = Vec::new();
    for (nonce, byte) in [1_u8, 2, 1].into_iter().enumerate() {
        let receipt = world.include(u64::try_from(nonce).unwrap(), &[byte]).await;
        blocks.push(receipt["blockHash"].clone());
    }
    let found = async |filter: Value| world.call("eth_getLogs", json!([filter])).await.as_array().unwrap().len();
    let topic = |byte: u8| json!(alloy_primitives::B256::repeat_byte(byte));
    assert_eq!(found(json!({})).await, 1);
    assert_eq!(found(json!({"fromBlock": "0x0"})).await, 3);
    assert_eq!(found(json!({"fromBlock": "0x0", "toBlock": "0xffffff"})).await, 3);
    assert_eq!(found(json!({"fromBlock": "0x1", "toBlock": "0x2"})).await, 2);
    assert_eq!(found(json!({"fromBlock": "0xfff", "toBlock": "0xffff"})).await, 0);
    assert_eq!(found(json!({"blockHash": blocks[1]})).await, 1);
    assert_eq!(found(json!({"fromBlock": "0x0", "address": CONTRACT})).await, 3);
    assert_eq!(found(json!({"fromBlock": "0x0", "address": [NOBODY]})).await, 0);
    assert_eq!(found(json!({"fromBlock": "0x0", "topics": [topic(1)]})).await, 2);
    assert_eq!(found(json!({"fromBlock": "0x0", "topics": [[topic(2), topic(3)]]})).await, 1);
    assert_eq!(found(json!({"fromBlock": "0x0", "topics": [null, topic(2)]})).await, 0);
    let refused = async |filter: Value| world.refusal("eth_getLogs", json!([filter])).await;
    assert_eq!(refused(json!({"blockHash": NO_HASH})).await.1, "unknown block");
    assert_eq!(refused(json!({"fromBlock": "0x2", "toBlock": "0x1"})).await.0, -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_filters_tell_what_is_new_once() {
    let world = world(open()).await;
    world.include(0, &[1]).await;
    let logs = world.call("eth_newFilter", json!([{"topics": [alloy_primitives::B256::repeat_byte(2)]}])).await;
    let blocks = world.call("eth_newBlockFilter", json!([])).await;
    let pending = world.call("eth_newPendingTransactionFilter", json!([])).await;
    let changes = async |id: &Value| world.call("eth_getFilterChanges", json!([id])).await;
    assert_eq!(changes(&logs).await, json!([]));
    let receipt = world.include(1, &[2]).await;
    world.include(2, &[1]).await;
    let new = changes(&logs).await;
    assert_eq!(new, receipt["logs"]);
    assert_eq!(changes(&logs).await, json!([]));
    assert_eq!(changes(&blocks).await.as_array().unwrap().len(), 2);
    let hashes = changes(&pending).await;
    assert_eq!(hashes[0], receipt["transactionHash"]);
    assert_eq!(hashes.as_array().unwrap().len(), 2);
    check(&world, "eth_getFilterLogs", json!([logs]), json!([])).await;
    check(&world, "eth_uninstallFilter", json!([logs]), json!(true)).await;
    check(&world, "eth_uninstallFilter", json!([logs]), json!(false)).await;
    let (code, message, _) = world.refusal("eth_getFilterChanges", json!([logs])).await;
    assert_eq!((code, message.as_str()), (-32000, "filter not found"));
    assert_eq!(world.refusal("eth_getFilterLogs", json!([blocks])).await.1, "filter not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_answers_the_same() {
    let world = world(open()).await;
    let mut socket = Socket::open(world.server.ws_addr().unwrap(), "").await.ok().unwrap();
    let answer = socket.call("eth_chainId", json!([])).await;
    assert_eq!(answer["result"], "0x7a69");
    let answer = socket.call("eth_nothing", json!([])).await;
    assert_eq!(answer["error"]["code"], -32601);
}
