//! Chunks by stake: held against every coalition where there are few validators, and against greedy ones elsewhere.

use proptest::{prelude::*, test_runner::Config};

use super::{plan, set, stakes};
use crate::{
    dissemination::{Plan, Plans},
    limits,
    types::ValidatorIndex,
};

/// Stake that faulty validators have at most: less than a third.
fn faulty(stakes: &[u64]) -> u64 {
    let all: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum();
    u64::try_from(all.div_ceil(3) - 1).expect("a third fits")
}

/// Receivers as (stake, chunks).
fn receivers(plan: &Plan, stakes: &[u64]) -> Vec<(u64, usize)> {
    plan.receivers().map(|index| (stakes[usize::from(index.0)], plan.chunks_of(index))).collect()
}

/// What is left when the worst coalition holds everything back: all are tried.
fn left_by_the_worst(plan: &Plan, stakes: &[u64]) -> usize {
    let (receivers, faulty) = (receivers(plan, stakes), faulty(stakes));
    let coalitions = 0..1_u32 << receivers.len();
    let left = coalitions.filter_map(|coalition| {
        let is_in = |at: &usize| coalition >> at & 1 == 1;
        let stake: u128 = (0..receivers.len()).filter(is_in).map(|at| u128::from(receivers[at].0)).sum();
        let left = (0..receivers.len()).filter(|at| !is_in(at)).map(|at| receivers[at].1).sum();
        (stake <= u128::from(faulty)).then_some(left)
    });
    left.min().expect("nobody is a coalition")
}

/// What is left when those who get most for their stake hold it back, and when the poorest or the richest do.
fn left_by_the_greedy(plan: &Plan, stakes: &[u64]) -> usize {
    let mut receivers = receivers(plan, stakes);
    let mut orders = vec![receivers.clone()];
    receivers.sort_unstable();
    orders.push(receivers.clone());
    orders.push(receivers.iter().rev().copied().collect());
    receivers.sort_by(|one, two| {
        let per_stake = |mine: &(u64, usize), theirs: &(u64, usize)| mine.1 as u128 * u128::from(theirs.0);
        per_stake(two, one).cmp(&per_stake(one, two))
    });
    orders.push(receivers);
    let left = |order: Vec<(u64, usize)>| {
        let mut allowed = faulty(stakes);
        let mut left = 0;
        for (stake, chunks) in order {
            match allowed.checked_sub(stake) {
                Some(rest) => allowed = rest,
                None => left += chunks,
            }
        }
        left
    };
    orders.into_iter().map(left).min().expect("there are some")
}

/// What holds for every plan.
fn bounds_hold(plan: &Plan, stakes: &[u64], leader: u16) {
    let size = u16::try_from(stakes.len()).expect("few");
    assert_eq!(usize::from(size), plan.validators());
    assert_eq!(plan.chunks_of(ValidatorIndex(leader)), 0);
    assert_eq!(plan.chunks_of(ValidatorIndex(size)) + plan.chunks_of(ValidatorIndex(u16::MAX)), 0);
    let all: usize = (0..size).map(|index| plan.chunks_of(ValidatorIndex(index))).sum();
    assert_eq!(all, plan.total_chunks());
    assert!(plan.total_chunks() <= limits::BODY_CHUNKS_MAX, "{} chunks", plan.total_chunks());
    assert!(plan.total_chunks() <= plan.data_chunks() * limits::BODY_EXPANSION_MAX);
    for index in (0..size).filter(|index| *index != leader).map(ValidatorIndex) {
        assert!((1..=plan.data_chunks()).contains(&plan.chunks_of(index)), "validator {index}");
    }
}

fn has_half(stakes: &[u64], leader: u16) -> bool {
    let all: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum();
    u128::from(stakes[usize::from(leader)]) * 2 <= all
}

proptest! {
    #![proptest_config(Config::with_cases(400))]

    #[test]
    fn the_worst_coalition_leaves_as_many_chunks_as_must_do(stakes in stakes(11), leader in any::<u16>()) {
        let leader = leader % u16::try_from(stakes.len()).expect("few");
        let plan = plan(&stakes, leader);
        bounds_hold(&plan, &stakes, leader);
        let left = left_by_the_worst(&plan, &stakes);
        if has_half(&stakes, leader) {
            prop_assert_eq!(left, plan.data_chunks());
        } else {
            prop_assert!(left <= plan.data_chunks());
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(40))]

    #[test]
    fn no_greedy_coalition_of_many_leaves_too_few(stakes in stakes(limits::VALIDATORS_MAX), leader in any::<u16>()) {
        let leader = leader % u16::try_from(stakes.len()).expect("few");
        let plan = plan(&stakes, leader);
        bounds_hold(&plan, &stakes, leader);
        if has_half(&stakes, leader) {
            prop_assert!(left_by_the_greedy(&plan, &stakes) >= plan.data_chunks());
        }
    }
}

/// One chunk each, and two thirds of them do: what nobody can do better.
#[test]
fn equal_stakes_get_one_chunk_each() {
    for count in 2..=limits::VALIDATORS_MAX {
        for stake in [1, 32_000_000_000] {
            let stakes = vec![stake; count];
            let plan = plan(&stakes, 0);
            bounds_hold(&plan, &stakes, 0);
            let most = usize::try_from(faulty(&stakes) / stake).expect("few");
            assert_eq!((plan.total_chunks(), plan.data_chunks()), (count - 1, count - 1 - most), "{count} of {stake}");
        }
    }
    let two_thirds = plan(&[1; 100], 0);
    assert_eq!((two_thirds.total_chunks(), two_thirds.data_chunks()), (99, 66));
}

/// Stakes, leader, and the most that the leader may send per hundred bytes of body.
#[test]
fn extreme_stakes_cost_little_more_than_they_must() {
    let with_dust = |rich: &[u64], dust: usize| rich.iter().copied().chain(vec![1; dust]).collect::<Vec<u64>>();
    let huge = u64::MAX / 300;
    let cases: [(Vec<u64>, u16, usize); 12] = [
        (vec![5, 5], 0, 100),
        (vec![5, 5, 5], 1, 100),
        // One just under a third, who may hold back what it has, and many who have next to nothing.
        (with_dust(&[332_000, 332_000, 332_000], 297), 299, 170),
        (with_dust(&[333_000, 333_000, 333_000], 297), 0, 215),
        (with_dust(&[299], 299), 0, 305),
        (with_dust(&[149], 299), 0, 205),
        (with_dust(&[149], 299), 17, 155),
        // A leader that is a quorum by itself, and one that is almost.
        (with_dust(&[1_000_000], 299), 0, 400),
        (vec![66, 34], 0, 100),
        (vec![66, 17, 17], 0, 200),
        (vec![huge; 300], 5, 150),
        (vec![1, huge, huge, huge], 0, 150),
    ];
    for (stakes, leader, percent) in cases {
        let plan = plan(&stakes, leader);
        bounds_hold(&plan, &stakes, leader);
        let sent = plan.total_chunks() * 100;
        let name = format!("{} validators, the first of {}, {leader} leads", stakes.len(), stakes[0]);
        assert!(sent <= percent * plan.data_chunks(), "{name}: {sent} / {}", plan.data_chunks());
        if has_half(&stakes, leader) {
            assert!(left_by_the_greedy(&plan, &stakes) >= plan.data_chunks(), "{name}");
        }
    }
}

#[test]
fn chunks_are_even_and_hold_the_body() {
    for plan in [plan(&[1; 4], 0), plan(&[1; 100], 0), plan(&[1; 2], 0)] {
        for size in (0..1_000).chain([65_537, 1 << 20, limits::BODY_BYTES_MAX]) {
            let bytes = plan.chunk_bytes(size);
            assert!(bytes >= 2 && bytes % 2 == 0 && bytes * plan.data_chunks() >= size);
            assert!(size == 0 || bytes * plan.data_chunks() < size + 2 * plan.data_chunks());
            let all: usize = plan.receivers().map(|index| plan.share_bytes(index, size)).sum();
            assert_eq!(all, bytes * plan.total_chunks());
        }
    }
}

#[test]
fn plans_are_the_sets() {
    let plans = Plans::new(std::sync::Arc::new(set(&[4, 1, 2])));
    for leader in (0..3).map(ValidatorIndex) {
        assert_eq!(plans.of(leader).map(|plan| (**plan).clone()), Some(Plan::new(plans.set(), leader)));
    }
    assert_eq!(plans.of(ValidatorIndex(3)), None);
    let nobody = Plan::new(plans.set(), ValidatorIndex(3));
    assert_eq!(nobody.receivers().count(), 3, "who is not in the set is no leader");
}
