//! Which block comes next and what goes into it: the step of the machine, the choice from the pool, and signatures.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;
mod node;

use std::{hint::black_box, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, keccak256};
use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    admission::{Mempool, PoolCandidates, PoolLimits, checks},
    crypto::{
        Committee, Scheme, Signer,
        bls::{BlsScheme, SecretKey},
    },
    ordering::{Idle, Input, Now, Ordering, Output, Settings, Tip, certify::certify, verify},
    ports::{Candidates as _, Store as _},
    types::{
        Domain, Epoch, ParentRef, PooledTransaction, Signature, Slot, Statement, Validator, ValidatorIndex,
        ValidatorSet, Vote,
    },
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

const STATEMENT: Statement = Statement::Notarize { slot: Slot(7), id: B256::repeat_byte(7) };

const DOMAIN: Domain = Domain { chain_id: 31_337, genesis: B256::ZERO };

/// A set of so many validators of equal stake, and everybody's share of one certificate.
struct Voters {
    set: ValidatorSet,
    committee: Arc<dyn Committee>,
    secrets: Vec<SecretKey>,
    shares: Vec<(ValidatorIndex, Signature)>,
}

fn voters(count: u16) -> Voters {
    let secret = |number: u16| {
        let mut bytes = keccak256(number.to_be_bytes()).0;
        bytes[0] &= 0x3f;
        SecretKey::from_bytes(&mut bytes).expect("a number below the order")
    };
    let secrets: Vec<_> = (0..count).map(secret).collect();
    let member = |secret: &SecretKey| Validator { public_key: secret.public_key(), stake: 1, operator: Address::ZERO };
    let set = ValidatorSet::new(Epoch(1), secrets.iter().map(member).collect()).expect("a set");
    let committee = BlsScheme.committee(&set).expect("keys");
    let hash = DOMAIN.vote(Epoch(1), &STATEMENT);
    let shares = (0..count).map(ValidatorIndex).zip(secrets.iter().map(|secret| secret.sign(hash))).collect();
    Voters { set, committee, secrets, shares }
}

/// A vote and a certificate, made and verified.
fn signatures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ordering");
    group.sample_size(20);
    for count in [4, 100, 200, 300] {
        let Voters { set, committee, secrets, shares } = voters(count);
        let hash = DOMAIN.vote(Epoch(1), &STATEMENT);
        let (voter, signature) = shares[0];
        let vote = Vote { epoch: Epoch(1), statement: STATEMENT, voter, signature };
        if count == 4 {
            group.bench_function("sign", |bencher| bencher.iter(|| secrets[0].sign(black_box(hash))));
            group.bench_function("vote", |bencher| {
                bencher.iter(|| verify::vote(&set, &*committee, &DOMAIN, black_box(&vote)).expect("signed"));
            });
        }
        let of = |shares: &[_]| certify(&set, &*committee, &DOMAIN, &STATEMENT, black_box(shares), set.quorum());
        let certificate = of(&shares).0.expect("a quorum");
        group.bench_function(format!("certify/validators={count} wrong=0"), |bencher| {
            bencher.iter(|| assert!(of(&shares).1.is_empty()));
        });
        let mut one_wrong = shares.clone();
        let place = usize::from(count / 3);
        // Signed by the same validator, but something else.
        one_wrong[place].1 = secrets[place].sign(keccak256("something else"));
        group.bench_function(format!("certify/validators={count} wrong=1"), |bencher| {
            bencher.iter(|| assert_eq!(of(&one_wrong).1.len(), 1));
        });
        group.bench_function(format!("certificate/validators={count}"), |bencher| {
            bencher
                .iter(|| verify::certificate(&set, &*committee, &DOMAIN, black_box(&certificate)).expect("it holds"));
        });
        group.bench_function(format!("committee/validators={count}"), |bencher| {
            bencher.iter(|| BlsScheme.committee(black_box(&set)).expect("keys"));
        });
    }
    group.finish();
}

criterion_group!(benches, step, candidates, signatures);
criterion_main!(benches);
