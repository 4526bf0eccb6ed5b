//! Transactions over QUIC into a real node: every one has one end, also when the node is killed in between.

use std::{
    process::Command,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use alloy_primitives::{Address, B256, U256};
use bench::calldata::Calldata;
use net::{
    NodeKey,
    client::{Client, ClientConfig, ClientError, Submission},
    ingress::wire::Event,
    ports::{self, Carrier},
};
use serde_json::{Value, json};
use tests::{
    node::{Node, binary, example},
    rng::Rng,
    rpc::quantity,
    wallet::{account, transfer},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::localnet::{count, stages};

/// Longest wait for an end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn free_port() -> String {
    let port = ports::free(&[Carrier::Udp]).expect("a port")[0];
    format!("127.0.0.1:{port}")
}

#[test]
fn a_mixed_load_over_quic_is_included_and_right_in_every_receipt() {
    let folder = tempfile::tempdir().expect("a folder");
    let quic = free_port();
    let metrics = format!("127.0.0.1:{}", ports::free(&[Carrier::Tcp]).expect("a port")[0]);
    let flags = ["--quic", &quic, "--dev.block-time", "100ms", "--metrics", &metrics, "--stages"];
    let node = Node::dev(folder.path(), &flags);
    let report = folder.path().join("report.json");
    let load = Command::new(binary())
        .args(["load", "--shape", "mixed", "--txs", "4000", "--log", "warn", "--rpc", &node.http, "--quic", &quic])
        .args(["--metrics", &format!("http://{metrics}/metrics")])
        .arg("--json")
        .arg(&report)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&load.stdout);
    assert!(load.status.success(), "{said} {}", String::from_utf8_lossy(&load.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    assert_eq!((&report["ok"], &report["counts"]["included"]), (&json!(true), &json!(4000)), "{report}");
    // Alone it executes nothing that another node proposes.
    let passed: Vec<(&str, u64)> = stages(&report).map(|(name, stage)| (name, count(stage))).collect();
    let own = ["admit", "wait", "build", "vote", "commit"];
    assert_eq!(passed, own.map(|name| (name, 4_000)), "{report}");
}

#[test]
fn the_market_maker_knows_how_each_of_its_transactions_ended_and_leaves_an_empty_book() {
    const ROUNDS: u64 = 6;
    let folder = tempfile::tempdir().expect("a folder");
    let quic = free_port();
    let node = Node::dev(folder.path(), &["--quic", &quic, "--dev.block-time", "500ms"]);
    let ran = Command::new(example("market_maker")).args([&quic, &node.http, &ROUNDS.to_string()]).output();
    let ran = ran.expect("it runs");
    let said = String::from_utf8(ran.stdout).expect("text");
    assert!(ran.status.success(), "{said} {}", String::from_utf8_lossy(&ran.stderr));
    let summary = said.lines().last().expect("a summary");
    let counts: Vec<u64> = summary.split([' ', ';']).filter_map(|word| word.parse().ok()).collect();
    let [submitted, included, reverted, replaced, late, refused, dropped, unaccounted, waiting] = counts[..] else {
        panic!("{summary}");
    };
    // A set-up of nine; each round quotes both sides, twice, and cancels both; each nonce is used once.
    assert_eq!((submitted, included), (9 + 6 * ROUNDS, 9 + 4 * ROUNDS), "{said}");
    assert_eq!((replaced + late, reverted, refused, dropped), (2 * ROUNDS, 0, 0, 0), "{said}");
    assert!(replaced > 0 && unaccounted == 0 && waiting == 0, "{said}");
    let book = said.lines().find_map(|line| line.strip_prefix("order book ")).expect("its address");
    let market =
        node.rpc.call("eth_call", json!([{ "to": book, "input": Calldata::call("market()").finish() }, "latest"]));
    let word = |value: u64| format!("{value:064x}");
    let empty = format!("0x{}{}{}", word(2 * ROUNDS), word(0), word(0));
    assert_eq!(market, json!(empty), "the last order, the best bid and the best ask");
}

/// `SLUICE_SEED` sets the seed.
#[test]
fn whatever_a_client_submitted_is_included_once_though_the_node_is_killed_meanwhile() {
    const SENDERS: u32 = 5;
    const EACH: u32 = 400;
    /// How many have no end at a time: what a block takes, so that each kill finds some on their way.
    const UNDER_WAY: usize = 100;
    let mut rng = Rng::seeded("quic kills", 8);
    let folder = tempfile::tempdir().expect("a folder");
    let quic = free_port();
    let flags = ["--quic", quic.as_str(), "--dev.block-time", "50ms"];
    let mut node = Node::dev(folder.path(), &flags);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let to = Address::from_word(B256::from(U256::from(rng.next())));
    let (end, ends) = sync_channel((SENDERS * EACH) as usize);
    let free = Arc::new(Semaphore::new(UNDER_WAY));
    let freed = free.clone();
    let listener = Box::new(move |event: &Event| {
        if event.is_end() {
            freed.add_permits(1);
            let _ = end.send(());
        }
    });
    let config = ClientConfig::new(&quic, NodeKey::from_seed(&[9; 32]).expect("any seed"));
    let config = ClientConfig { listener: Some(listener), ..config };
    let client = runtime.block_on(Client::connect(config)).expect("it is let in");
    let submitted = runtime.spawn(submit(client, free, (SENDERS, EACH.into()), to));
    for _ in 0..4 {
        for _ in 0..1 + rng.below(400) {
            ends.recv_timeout(PATIENCE).expect("something ends");
        }
        node.kill();
        node = Node::dev(folder.path(), &flags);
    }
    let ended = runtime.block_on(async {
        let mut submissions = submitted.await.expect("it submits").expect("all are taken");
        let mut ended = Vec::new();
        for submission in &mut submissions {
            let end = timeout(PATIENCE, submission.included()).await.expect("each has an end in time");
            ended.push((submission.hash, end.expect("each is included")));
        }
        ended
    });
    for (hash, included) in &ended {
        let receipt = node.rpc.call("eth_getTransactionReceipt", json!([hash]));
        assert_eq!(quantity(&receipt["blockNumber"]), included.height, "{receipt}");
        assert_eq!(quantity(&receipt["transactionIndex"]), u64::from(included.index), "{receipt}");
        assert_eq!(receipt["blockHash"], json!(included.block), "{receipt}");
        assert_eq!(quantity(&receipt["gasUsed"]), included.gas_used, "{receipt}");
        assert_eq!(u128::from(quantity(&receipt["effectiveGasPrice"])), included.gas_price, "{receipt}");
    }
    let balance = node.rpc.call("eth_getBalance", json!([to, "latest"]));
    assert_eq!(quantity(&balance), u64::from(SENDERS * EACH), "each wei came once");
    drop(node);
    crate::crash::check_root(folder.path());
}

/// Hands in transfers of one wei, those of all senders in turn, each once another one has ended.
async fn submit(
    client: Client,
    free: Arc<Semaphore>,
    (senders, each): (u32, u64),
    to: Address,
) -> Result<Vec<Submission>, ClientError> {
    let keys: Vec<_> = (0..senders).map(account).collect();
    let mut submissions = Vec::new();
    for nonce in 0..each {
        for key in &keys {
            free.acquire().await.expect("nobody closes it").forget();
            submissions.push(client.submit(transfer(key, nonce, to)).await?);
        }
    }
    Ok(submissions)
}

#[test]
fn a_list_of_weights_that_is_none_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("weights");
    std::fs::write(&list, "# makers\n1234 5\n").expect("a file");
    let list = list.display().to_string();
    let (status, said) =
        Node::try_dev(&folder.path().join("data"), &["--quic", "127.0.0.1:0", "--quic.weights", &list])
            .expect_err("it does not start");
    assert!(status.code() == Some(1) && said.contains("line 2: 1234 is no key"), "{status}: {said}");
}
