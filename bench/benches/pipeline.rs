//! The whole node without sockets: from the submission of transactions to all of them being durable.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;
mod node;

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::events::Event;
use lab::Lab;

const TRANSACTIONS: usize = 2_000;

/// From one block to the next.
const SLOT_TIME: Duration = Duration::from_millis(50);

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline::durable");
    group.throughput(Throughput::Elements(TRANSACTIONS as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for shape in [Shape::Transfer, Shape::Mixed] {
        let mut lab = Lab::new(shape, 100);
        let node = node::start(&lab, SLOT_TIME, 1);
        let (block, blocks) = mpsc::sync_channel(1_000);
        node.events.listen(Box::new(move |event| {
            if let Event::Committed(committed) = event {
                let _ = block.try_send(committed.receipts.len());
            }
        }));
        group.bench_function(format!("shape={} txs={TRANSACTIONS}", shape.name()), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let raws = node::raws(&mut lab, TRANSACTIONS);
                    let start = Instant::now();
                    node::admit(&node, &raws);
                    let mut durable = 0;
                    while durable < TRANSACTIONS {
                        durable += blocks.recv().expect("the node runs");
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
        node.stop();
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
