//! Transactions and a state view become receipts, changes and a root: for each shape, as leader and as follower.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;

use std::hint::black_box;

use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::ports::{Executor as _, Store as _};
use lab::Lab;

const TRANSACTIONS: usize = 1_000;

fn execution(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut lab = Lab::new(shape, 50);
        let signed = lab.signed(TRANSACTIONS);
        let transactions = lab.transactions(&signed);
        let built = lab.build(&transactions);
        assert!(built.0.receipts.iter().all(|receipt| receipt.success), "{} has no failures", shape.name());
        let name = format!("shape={} txs={TRANSACTIONS}", shape.name());

        let mut group = criterion.benchmark_group("execution::build");
        group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(10);
        group.bench_function(&name, |bencher| bencher.iter(|| black_box(lab.build(&transactions))));
        group.finish();

        let tip = lab.store.tip();
        let view = lab.store.view(tip.height()).expect("the tip's state is kept");
        let mut group = criterion.benchmark_group("execution::execute");
        group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(10);
        group.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let executed = lab.executor.execute(&*view, &tip.block.header, &built.0.block);
                black_box(executed.expect("a block that was built here is valid"))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, execution);
criterion_main!(benches);
