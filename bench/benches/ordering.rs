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
    events::Events,
    ordering::{
        certify::certify,
        event::{Anchor, Identity, Input, Now, Output, Settings, Snapshot},
        machine::Machine,
        pacemaker::Timing,
        planted::Planted,
        verify,
    },
    ports::{Candidates as _, Store as _},
    testing::{MockScheme, MockSigner},
    types::{
        ConsensusHeader, Domain, Epoch, Height, PooledTransaction, Signature, Slot, Statement, Validator,
        ValidatorIndex, ValidatorSet, Vote,
    },
};
use lab::Lab;

const TRANSACTIONS: usize = 2_000;

/// So long that a bench ends before the next block.
const NEVER: Duration = Duration::from_secs(3_600);

/// The machine of a chain of one validator.
fn alone(identity: Identity, scheme: Arc<dyn Scheme>) -> Machine {
    let member = Validator { public_key: identity.public_key, stake: 1, operator: Address::ZERO };
    let set = ValidatorSet::new(Epoch(0), vec![member]).expect("a set");
    let settings = Settings {
        domain: DOMAIN,
        window: 4,
        epoch_heights: u64::MAX,
        timing: Timing { delta: Duration::from_millis(150), slot_time: Duration::ZERO, idle_interval: None },
        build_time: Duration::from_secs(1),
        in_flight_max: 8,
        scheme,
        identity: Some(identity),
        planted: Planted::default(),
    };
    let snapshot = Snapshot {
        next_set: Some(set.in_epoch(Epoch(1))),
        set,
        seed: B256::ZERO,
        next_seed: B256::ZERO,
        base: Anchor::default(),
        handovers: Vec::new(),
        tip: None,
        blocks: Vec::new(),
        entries: Vec::new(),
        is_log_lost: false,
        nonce: 1,
    };
    let (mut machine, outputs) = Machine::start(settings, snapshot, Now::default()).expect("it starts");
    // It looks at once whether something waits; nothing does.
    let order = ordered(outputs);
    machine.handle(Input::Built { header: Box::new(order), empty: true, more: false }, Now::default());
    machine
}

/// The header of the block that is to be built.
fn ordered(outputs: Vec<Output>) -> ConsensusHeader {
    let order = outputs.into_iter().find_map(|output| match output {
        Output::Build(order) => Some(order),
        _ => None,
    });
    order.expect("a build is asked for").header
}

/// A transaction waits, build, built, synced, committed: all steps that one block takes.
fn one_block(machine: &mut Machine, now: Now) {
    let mut header = ordered(machine.handle(Input::TransactionsWaiting, now));
    header.block_hash = B256::repeat_byte(1);
    let height = Height(header.height);
    let outputs = machine.handle(Input::Built { header: Box::new(header), empty: false, more: false }, now);
    let token = outputs.iter().find_map(|output| match output {
        Output::Persist { token, .. } => *token,
        _ => None,
    });
    let outputs = machine.handle(Input::Synced(token.expect("something was signed")), now);
    assert!(outputs.iter().any(|output| matches!(output, Output::Commit { .. })), "the block is final");
    black_box(machine.handle(Input::Committed(height), now));
}

fn step(criterion: &mut Criterion) {
    let mock = MockSigner::new(1);
    let mocked = Identity { public_key: mock.public_key(), signer: Arc::new(mock) };
    let schemes: [(&str, Identity, Arc<dyn Scheme>); 2] = [
        ("mocked", mocked, Arc::new(MockScheme)),
        ("bls", Identity::new(SecretKey::development()), Arc::new(BlsScheme)),
    ];
    for (name, identity, scheme) in schemes {
        let mut machine = alone(identity, scheme);
        let mut at = Duration::ZERO;
        criterion.bench_function(&format!("ordering::step/validators=1 signatures={name}"), |bencher| {
            bencher.iter(|| {
                at += Duration::from_millis(1);
                one_block(&mut machine, Now { monotonic: at, wall_ms: 0 });
            });
        });
    }
}

/// Takes everything from a pool in order of fee and nonce, as a build does.
fn candidates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ordering::candidates");
    group.throughput(Throughput::Elements(TRANSACTIONS as u64)).sample_size(20);
    for senders in [20, 500] {
        let mut lab = Lab::new(Shape::Mixed, senders);
        let pool = Mempool::new(PoolLimits::default(), lab.store.tip().height(), 0, Events::default());
        let view = lab.store.view(lab.store.tip().height()).expect("the tip's state is kept");
        for pooled in pooled(&mut lab) {
            let sender = checks::sender(&pooled, &*view).expect("the plan funds its senders");
            pool.insert(pooled, sender, lab.store.tip().height()).expect("the pool has room");
        }
        group.bench_function(format!("senders={senders} txs={TRANSACTIONS}"), |bencher| {
            bencher.iter(|| {
                let mut candidates = PoolCandidates::new(&pool, 0, &Default::default());
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
