//! The pool as it grows: what a build pays to choose from it, what a block pays to leave it, and what a transaction
//! pays to come in, though the pool is full.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

use std::sync::Arc;

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, keccak256, map::AddressMap};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    admission::{Mempool, PoolCandidates, PoolLimits, checks::Sender},
    events::Events,
    ports::Candidates as _,
    testing,
    types::{
        Account, AccountChange, Block, BlockBody, ConsensusHeader, Envelope, Height, PooledTransaction, StateChanges,
        Transaction,
    },
};

/// A block's worth.
const TAKEN: usize = 2_000;

const BASE_FEE: u64 = 1_000;

/// A sender, and a number that says nothing about the next one.
fn sender(index: u64) -> (Address, u64) {
    let hash = keccak256(index.to_be_bytes());
    (Address::from_word(hash), U256::from_be_bytes(hash.0).as_limbs()[3])
}

fn account(nonce: u64) -> Account {
    Account { nonce, balance: U256::MAX, ..Account::default() }
}

fn transaction(index: u64, fee: u128, tip: u128) -> PooledTransaction {
    let (from, _) = sender(index);
    let tx = TxEip1559 {
        chain_id: 1,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(from),
        value: U256::from(index),
        ..TxEip1559::default()
    };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded = envelope.encoded_2718().into();
    testing::pooled(Arc::new(Transaction::with_known_sender(encoded, from).expect("just encoded")))
}

/// One transaction of each sender; the priority fee decides about three in four, the fee cap about the others.
fn transactions(senders: u64) -> Vec<PooledTransaction> {
    let one = |index| {
        let tip = u128::from(sender(index).1 % 1_000) + 1;
        transaction(index, u128::from(BASE_FEE) + if index % 4 == 0 { tip / 2 } else { tip * 2 }, tip)
    };
    (0..senders).map(one).collect()
}

fn insert(pool: &Mempool, transactions: &[PooledTransaction]) {
    for transaction in transactions {
        let sender = Sender { account: account(0), delegated: false };
        pool.insert(transaction.clone(), sender, Height(1)).expect("there is room");
    }
}

fn filled(transactions: &[PooledTransaction]) -> Mempool {
    let pool = Mempool::new(PoolLimits::default(), Height(1), BASE_FEE, Events::default());
    insert(&pool, transactions);
    pool
}

fn select(pool: &Mempool, base_fee: u64) -> Vec<Arc<Transaction>> {
    let mut candidates = PoolCandidates::new(pool, base_fee, &AddressMap::default());
    std::iter::from_fn(|| candidates.next()).take(TAKEN).collect()
}

/// Takes a block's worth; with the base fee as it was, and a sixteenth higher and lower in turn.
fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool::select");
    group.throughput(Throughput::Elements(TAKEN as u64)).sample_size(20);
    for senders in [2_500, 10_000, 100_000] {
        let pool = filled(&transactions(senders));
        for (name, step) in [("same", 0), ("moving", BASE_FEE / 16)] {
            let mut base_fee = BASE_FEE;
            group.bench_function(format!("senders={senders} base_fee={name} txs={TAKEN}"), |bencher| {
                bencher.iter(|| {
                    base_fee = if base_fee == BASE_FEE { BASE_FEE - step } else { BASE_FEE };
                    assert_eq!(select(&pool, base_fee).len(), TAKEN);
                });
            });
        }
    }
    group.finish();
}

/// Follows a block that includes what a build takes.
fn inclusion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool::advance");
    group.throughput(Throughput::Elements(TAKEN as u64)).sample_size(10);
    for senders in [2_500, 10_000, 100_000] {
        let transactions = transactions(senders);
        let taken = select(&filled(&transactions), BASE_FEE);
        let change = || AccountChange { after: Some(account(1)), ..AccountChange::default() };
        let accounts = taken.iter().map(|transaction| (transaction.sender(), change())).collect();
        let changes = StateChanges { accounts, ..StateChanges::default() };
        let header = Header { number: 2, mix_hash: B256::ZERO, ..Header::default() }.seal_slow();
        let body = BlockBody { transactions: taken, withdrawals: None };
        let block = Block { consensus: ConsensusHeader::default(), header, body };
        group.bench_function(format!("senders={senders} txs={TAKEN}"), |bencher| {
            bencher.iter_batched_ref(
                || filled(&transactions),
                |pool| pool.advance(&block, &changes, BASE_FEE),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Fills an empty pool.
fn insertion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool::insert");
    group.sample_size(10);
    for senders in [2_500, 10_000, 100_000] {
        let transactions = transactions(senders);
        group.throughput(Throughput::Elements(senders));
        group.bench_function(format!("senders={senders}"), |bencher| {
            bencher.iter_with_large_drop(|| filled(&transactions))
        });
    }
    group.finish();
}

/// Puts more into a pool of 100,000 senders: one transaction that is replaced for a tenth more over and over, and
/// transactions of others that displace the cheapest of a pool that is full.
fn storm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool::storm");
    group.sample_size(10);
    let senders = 100_000;
    let others = transactions(senders);
    let dearer = |fee: &u128| Some(fee * 11 / 10 + 1);
    let fees = std::iter::successors(Some(u128::from(BASE_FEE) * 2), dearer).take(500);
    let replacements: Vec<_> = fees.map(|fee| transaction(senders, fee, fee)).collect();
    let rivals: Vec<_> = (0..TAKEN as u64).map(|index| transaction(senders + index, 100_000, 10_000)).collect();
    let full = || {
        let limits = PoolLimits { places_max: others.len(), ..PoolLimits::default() };
        let pool = Mempool::new(limits, Height(1), BASE_FEE, Events::default());
        insert(&pool, &others);
        pool
    };
    group.throughput(Throughput::Elements(replacements.len() as u64));
    group.bench_function(format!("replacements={}", replacements.len()), |bencher| {
        bencher.iter_batched_ref(|| filled(&others), |pool| insert(pool, &replacements), BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(TAKEN as u64));
    group.bench_function(format!("displaced={TAKEN}"), |bencher| {
        bencher.iter_batched_ref(full, |pool| insert(pool, &rivals), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, selection, inclusion, insertion, storm);
criterion_main!(benches);
