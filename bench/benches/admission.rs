//! From raw bytes to the pool: what one core pays before a transaction may wait for a block.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;
mod node;

use std::{hint::black_box, time::Duration};

use alloy_primitives::Address;
use bench::Shape;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    admission::checks,
    genesis::Fork,
    ports::Store as _,
    types::{RawTransaction, Transaction},
};
use lab::Lab;

const TRANSACTIONS: usize = 1_000;

/// As many as wait before admission at most, all at once.
const SUSTAINED: usize = 8_000;

/// So long that a bench ends before the next block.
const NEVER: Duration = Duration::from_secs(3_600);

fn stages(criterion: &mut Criterion) {
    for shape in [Shape::Transfer, Shape::Mixed] {
        let mut lab = Lab::new(shape, 50);
        let raws = node::raws(&mut lab, TRANSACTIONS);
        let mut next = raws.iter().map(RawTransaction::bytes).cycle();
        let limit = lab.store.tip().block.header.gas_limit;
        let name = format!("shape={}", shape.name());

        let mut group = criterion.benchmark_group("admission::checks");
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let raw = next.next().expect("a cycle does not end");
                let checked = checks::stateless(raw, lab.store.chain(), Fork::Osaka, limit);
                black_box(checked.expect("the plan signs what is valid"))
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("admission::recover");
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let raw = next.next().expect("a cycle does not end");
                black_box(Transaction::decode(raw.clone()).expect("the plan signs what is valid"))
            });
        });
        group.finish();
    }
}

/// One recovery by each library: the one that the node is built with, and the one that it would be built with without
/// it.
fn libraries(criterion: &mut Criterion) {
    let mut lab = Lab::new(Shape::Transfer, 50);
    let raws = node::raws(&mut lab, TRANSACTIONS);
    let signed: Vec<_> = raws
        .iter()
        .map(|raw| {
            let transaction = Transaction::decode(raw.bytes().clone()).expect("the plan signs what is valid");
            (transaction.envelope().signature_hash(), *transaction.envelope().signature())
        })
        .collect();
    let mut group = criterion.benchmark_group("admission::library");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut next = signed.iter().cycle();
    group.bench_function("libsecp256k1", |bencher| {
        use secp256k1::{
            Message, SECP256K1,
            ecdsa::{RecoverableSignature, RecoveryId},
        };
        bencher.iter(|| {
            let (hash, signature) = next.next().expect("a cycle does not end");
            let id = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
            let signature = RecoverableSignature::from_compact(&signature.as_rsy()[..64], id).expect("a signature");
            let key = SECP256K1.recover_ecdsa(Message::from_digest(hash.0), &signature).expect("a key");
            black_box(Address::from_raw_public_key(&key.serialize_uncompressed()[1..]))
        });
    });
    let mut next = signed.iter().cycle();
    group.bench_function("k256", |bencher| {
        use k256::ecdsa::VerifyingKey;
        bencher.iter(|| {
            let (hash, signature) = next.next().expect("a cycle does not end");
            let key = VerifyingKey::recover_from_prehash(
                &hash.0,
                &signature.to_k256().expect("a signature"),
                signature.recid(),
            );
            black_box(Address::from_public_key(&key.expect("a key")))
        });
    });
    group.finish();
}

/// The whole door with one worker, from the call to the answer; no block is built meanwhile.
fn door(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission::submit");
    group.throughput(Throughput::Elements(SUSTAINED as u64)).sample_size(10);
    let mut lab = Lab::new(Shape::Mixed, 50);
    let raws = node::raws(&mut lab, SUSTAINED);
    group.bench_function(format!("shape=mixed txs={SUSTAINED}"), |bencher| {
        bencher.iter_batched(
            || node::start(&lab, NEVER, 1),
            |node| {
                node::admit(&node, &raws);
                node
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, stages, libraries, door);
criterion_main!(benches);
