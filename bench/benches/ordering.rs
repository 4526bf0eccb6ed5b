//! Which block comes next and what goes into it: the step of the machine, and the choice from the pool.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;
mod node;

use std::{hint::black_box, time::Duration};

use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    admission::{Mempool, PoolCandidates, PoolLimits, checks},
    ordering::{Idle, Input, Now, Ordering, Output, Settings, Tip},
    ports::{Candidates as _, Store as _},
    types::{ParentRef, PooledTransaction},
};
use lab::Lab;

const TRANSACTIONS: usize = 2_000;

/// So long that a bench ends before the next block.
const NEVER: Duration = Duration::from_secs(3_600);

/// Start, build, built, committed: all steps that one block takes.
fn step(criterion: &mut Criterion) {
    let mut lab = Lab::new(Shape::Transfer, 10);
    let signed = lab.signed(10);
    let block = lab.build(&lab.transactions(&signed));
    let tip = lab.store.tip();
    let consensus = &tip.block.consensus;
    let tip = Tip {
        height: tip.height(),
        parent: ParentRef { slot: consensus.slot(), id: consensus.id() },
        timestamp_ms: consensus.timestamp_ms,
    };
    let settings = Settings {
        chain_id: lab.store.chain().chain_id,
        slot_time: Duration::ZERO,
        build_time: Duration::from_secs(1),
        idle: Idle::Wait,
        in_flight_max: 8,
    };
    criterion.bench_function("ordering::step/blocks=1", |bencher| {
        bencher.iter(|| {
            let mut machine = Ordering::new(settings);
            let mut outputs = machine.handle(Input::Start(tip), Now::default());
            outputs.extend(machine.handle(Input::TransactionsWaiting, Now::default()));
            assert!(matches!(outputs[0], Output::Build(_)));
            outputs
                .extend(machine.handle(Input::Built { block: Box::new(block.clone()), more: false }, Now::default()));
            outputs.extend(machine.handle(Input::Committed(tip.height.next()), Now::default()));
            black_box(outputs)
        });
    });
}

/// Takes everything from a pool in order of fee and nonce, as a build does.
fn candidates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ordering::candidates");
    group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(20);
    for senders in [20, 500] {
        let mut lab = Lab::new(Shape::Mixed, senders);
        let pool = Mempool::new(PoolLimits::default(), lab.store.tip().height(), 0);
        let view = lab.store.view(lab.store.tip().height()).expect("the tip's state is kept");
        for pooled in pooled(&mut lab) {
            let sender = checks::sender(&pooled, &*view).expect("the plan funds its senders");
            pool.insert(pooled, sender, lab.store.tip().height()).expect("the pool has room");
        }
        group.bench_function(format!("senders={senders} txs={TRANSACTIONS}"), |bencher| {
            bencher.iter(|| {
                let mut candidates = PoolCandidates::new(&pool, 0);
                let taken = std::iter::from_fn(|| candidates.next()).count();
                assert_eq!(taken, TRANSACTIONS);
            });
        });
    }
    group.finish();
}

/// Only admission makes pooled transactions.
fn pooled(lab: &mut Lab) -> Vec<PooledTransaction> {
    let node = node::start(lab, NEVER, 2);
    node::admit(&node, &node::raws(lab, TRANSACTIONS));
    node.query.pool_content().into_values().flat_map(|(pending, _)| pending).collect()
}

criterion_group!(benches, step, candidates);
criterion_main!(benches);
