//! What a node pays for a transaction before its signature is looked at: over QUIC in one stream, and over JSON-RPC,
//! one request each. Every transaction is for another chain and refused for that, which its client is told.
//!
//! The figures are CPU time of all threads but the client's, per transaction.
#![expect(missing_docs, reason = "criterion_group makes a public function")]
#![expect(dead_code, reason = "other benches share the lab and the node")]

mod lab;
mod node;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Bytes, Signature, hex};
use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lab::Lab;
use net::{
    NodeKey, Solitary,
    client::{Client, ClientConfig},
    ingress::{Doors, Ingress, IngressConfig, wire::Event},
    rpc::{RpcConfig, RpcNode, serve},
    rpc_client::{ClientError, RpcClient},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    task::JoinSet,
};

const TRANSACTIONS: usize = 10_000;

/// Connections, so that neither side waits for the other's answers.
const CONNECTIONS: usize = 16;

/// So long that a bench ends before the next block.
const NEVER: Duration = Duration::from_secs(3_600);

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}

fn foreign(nonce: usize) -> Bytes {
    let tx = TxEip1559 { chain_id: 1, nonce: nonce as u64, gas_limit: 21_000, ..TxEip1559::default() };
    TxEnvelope::from(tx.into_signed(Signature::test_signature())).encoded_2718().into()
}

/// CPU time of the process without that of the calling thread.
fn others() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).expect("after the start");
    read(ClockId::ProcessCPUTime).saturating_sub(read(ClockId::ThreadCPUTime))
}

/// Runs so many rounds of `all` on this thread.
fn spent(client: &Runtime, rounds: u64, mut all: impl AsyncFnMut()) -> Duration {
    let before = others();
    for _ in 0..rounds {
        client.block_on(all());
    }
    others().saturating_sub(before)
}

fn entry(criterion: &mut Criterion) {
    let lab = Lab::new(Shape::Transfer, 1);
    let node = node::start(&lab, NEVER, 1);
    let (server, client) = (runtime(), Builder::new_current_thread().enable_all().build().expect("this thread"));
    let raws: Vec<Bytes> = (0..TRANSACTIONS).map(foreign).collect();
    let mut group = criterion.benchmark_group("entry");
    group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(10);

    let rpc_node = RpcNode {
        query: node.query.clone(),
        admission: node.admission.clone(),
        events: node.events.clone(),
        network: Arc::new(Solitary),
        transport: None,
        dev: None,
    };
    let config = RpcConfig { http: Some(([127, 0, 0, 1], 0).into()), ..RpcConfig::default() };
    let rpc = server.block_on(serve(config, rpc_node)).expect("it serves");
    let url = format!("http://{}", rpc.http_addr().expect("HTTP is on"));
    let callers: Vec<_> = (0..CONNECTIONS).map(|_| RpcClient::new(&url).expect("a URL")).collect();
    group.bench_function("json-rpc", |bencher| {
        bencher.iter_custom(|rounds| spent(&client, rounds, async || call(&callers, &raws).await));
    });

    let doors = Doors { admission: node.admission.clone(), query: node.query.clone(), events: node.events.clone() };
    let key = |number| NodeKey::from_seed(&[number; 32]).expect("any seed");
    let config = IngressConfig { listen: ([127, 0, 0, 1], 0).into(), key: key(1), weights: Vec::new() };
    let inside = server.enter();
    let ingress = Ingress::start(config, doors).expect("it listens");
    drop(inside);
    let (ended, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, telling) = (ended.clone(), told.clone());
    let listener = move |event: &Event| {
        assert!(matches!(event, Event::Refused(_, reason) if reason.code == 5), "{event:?}");
        if counted.fetch_add(1, Ordering::Relaxed) + 1 == TRANSACTIONS {
            telling.notify_one();
        }
    };
    let config = ClientConfig::new(&ingress.address().to_string(), key(2));
    let config = ClientConfig { listener: Some(Box::new(listener)), ..config };
    let submitter = client.block_on(Client::connect(config)).expect("it is let in");
    group.bench_function("quic", |bencher| {
        bencher.iter_custom(|rounds| {
            spent(&client, rounds, async || {
                ended.store(0, Ordering::Relaxed);
                for raw in &raws {
                    submitter.send(raw.clone()).await.expect("it is taken");
                }
                told.notified().await;
            })
        });
    });
    group.finish();
    node.stop();
}

/// One request for each transaction, over all connections at once.
async fn call(callers: &[RpcClient], raws: &[Bytes]) {
    let mut connections = JoinSet::new();
    for (number, caller) in callers.iter().cloned().enumerate() {
        let own: Vec<Bytes> = raws.iter().skip(number).step_by(callers.len()).cloned().collect();
        connections.spawn(async move {
            for raw in own {
                let answer = caller.call::<String>("eth_sendRawTransaction", (hex::encode_prefixed(&raw),)).await;
                assert!(matches!(answer, Err(ClientError::Call { .. })), "{answer:?}");
            }
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("a connection goes on");
    }
}

criterion_group!(benches, entry);
criterion_main!(benches);
