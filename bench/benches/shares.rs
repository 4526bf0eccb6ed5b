//! A large body in shares: what the leader takes to cut it, and a validator to check shares and make the body of them.
//!
//! Cutting is also what every validator does to check a header. Shares come from one end or the other: `data` first, so
//! that nothing must be found, or those `added` to make up for lost data, so that as much as can be missing is.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

use std::{hint::black_box, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, FixedBytes, keccak256};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    dissemination::{Assembly, Plan, Share},
    limits,
    types::{Epoch, PublicKey, Validator, ValidatorIndex, ValidatorSet},
};

/// Name and bytes of a body; the smallest is the first that is cut.
const SIZES: [(&str, usize); 3] = [("64k", limits::WHOLE_BODY_BYTES_MAX + 1), ("1M", 1 << 20), ("8M", 8 << 20)];

const VALIDATORS: [u64; 3] = [4, 20, 100];

fn set(count: u64, stake: impl Fn(u64) -> u64) -> ValidatorSet {
    let validator = |index: u64| Validator {
        public_key: PublicKey(FixedBytes::left_padding_from(&index.to_be_bytes())),
        stake: stake(index),
        operator: Address::ZERO,
    };
    ValidatorSet::new(Epoch(0), (0..count).map(validator).collect()).expect("a set")
}

fn body(size: usize) -> Vec<u8> {
    (0_u64..).flat_map(|word| keccak256(word.to_be_bytes()).0).take(size).collect()
}

fn assemble(plan: &Arc<Plan>, root: B256, size: usize, shares: Vec<Share>) -> Vec<u8> {
    let mut assembly = Assembly::new(plan.clone(), root, size as u64).expect("it is cut");
    shares.into_iter().find_map(|share| assembly.add(share).expect("in order")).expect("enough")
}

fn shares(criterion: &mut Criterion) {
    for validators in VALIDATORS {
        let plan = Arc::new(Plan::new(&set(validators, |_| 1), ValidatorIndex(0)));
        for (name, size) in SIZES {
            let body = body(size);
            let cut = plan.split(&body);
            let mut group = criterion.benchmark_group("shares");
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
            group.throughput(Throughput::Bytes(size as u64));
            let label = format!("bytes={name} validators={validators}");
            group.bench_function(format!("split/{label}"), |bencher| bencher.iter(|| plan.split(black_box(&body))));
            let reversed: Vec<Share> = cut.shares.iter().rev().cloned().collect();
            for (first, shares) in [("data", &cut.shares), ("added", &reversed)] {
                group.bench_function(format!("assemble/{label} first={first}"), |bencher| {
                    let run = |shares| assemble(&plan, cut.root, size, shares);
                    bencher.iter_batched(|| shares.clone(), run, BatchSize::LargeInput);
                });
            }
        }
    }
}

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shares::plan");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for validators in [4, 20, 100, 300] {
        // The one with the most has a hundred times as much as the one with the least.
        for (stakes, set) in
            [("equal", set(validators, |_| 1)), ("steep", set(validators, |at| 1 + 99 * at / validators))]
        {
            group.bench_function(format!("validators={validators} stakes={stakes}"), |bencher| {
                bencher.iter(|| Plan::new(black_box(&set), ValidatorIndex(0)));
            });
        }
    }
}

criterion_group!(benches, shares, plans);
criterion_main!(benches);
