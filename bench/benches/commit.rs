//! From a final block to a durable one: one append and one sync on the disk that holds `target`.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;

use std::time::{Duration, Instant};

use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::ports::Store as _;
use lab::{Lab, finalized};

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit::block");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (shape, transactions) in [(Shape::Transfer, 1), (Shape::Transfer, 1_000), (Shape::Mixed, 1_000)] {
        let mut lab = Lab::new(shape, 50);
        group.throughput(Throughput::Elements(transactions as u64));
        group.bench_function(format!("shape={} txs={transactions}", shape.name()), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let signed = lab.signed(transactions);
                    let block = finalized(lab.build(&lab.transactions(&signed)));
                    let start = Instant::now();
                    lab.store.commit(&[block]).expect("the disk takes a block");
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
