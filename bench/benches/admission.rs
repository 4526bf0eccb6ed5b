//! From raw bytes to the pool: what one core pays before a transaction may wait for a block.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;
mod node;

use std::{hint::black_box, time::Duration};

use bench::Shape;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{admission::checks, genesis::Fork, ports::Store as _, types::Transaction};
use lab::Lab;

const TRANSACTIONS: usize = 1_000;

/// So long that a bench ends before the next block.
const NEVER: Duration = Duration::from_secs(3_600);

fn stages(criterion: &mut Criterion) {
    for shape in [Shape::Transfer, Shape::Mixed] {
        let mut lab = Lab::new(shape, 50);
        let raws = node::raws(&mut lab, TRANSACTIONS);
        let mut next = raws.iter().map(|raw| &raw.0).cycle();
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

/// The whole door with one worker, from the call to the answer; no block is built meanwhile.
fn door(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission::submit");
    group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(10);
    let mut lab = Lab::new(Shape::Mixed, 50);
    let raws = node::raws(&mut lab, TRANSACTIONS);
    group.bench_function(format!("shape=mixed txs={TRANSACTIONS}"), |bencher| {
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

criterion_group!(benches, stages, door);
criterion_main!(benches);
