//! What each contention promises, read off its plans.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    Kind, Plan,
    expect::Model,
    plan::tests::{plan, settings},
    world::Spender,
};

const ALL: [Contention; 11] = [
    Contention::Pools(1),
    Contention::Pools(7),
    Contention::Pools(64),
    Contention::TokenSpread,
    Contention::TokenHot,
    Contention::NativeSpread,
    Contention::NativeChain,
    Contention::NativeHot,
    Contention::LendOne,
    Contention::LendMany,
    Contention::OrderBook,
];

fn model(plan: &Plan) -> Model {
    let mut model = Model::default();
    let steps = plan.phases(1).into_iter().flat_map(|phase| phase.steps);
    let operations = steps.map(|step| (step.from, step.operation)).chain(plan.operations.iter().cloned());
    for (position, (from, operation)) in operations.enumerate() {
        let timestamp = 1_000 + position as u64 / 100;
        model.apply(&plan.world, from, &operation, timestamp).unwrap_or_else(|why| panic!("{operation:?}: {why}"));
    }
    model
}

#[test]
fn one_seed_gives_one_sequence() {
    for contention in ALL {
        let plans = [42, 42, 43].map(|seed| {
            let settings = crate::Settings { seed, ..settings(contention, 40, 300) };
            Plan::new(&settings, |_| Ok::<_, std::convert::Infallible>(0)).unwrap().operations
        });
        assert_eq!(plans[0], plans[1], "{}", contention.name());
        assert_ne!(plans[0], plans[2], "{}", contention.name());
    }
}

#[test]
fn a_longer_run_begins_like_a_shorter_one() {
    for contention in ALL {
        let (short, long) = (plan(contention, 30, 200), plan(contention, 30, 900));
        assert_eq!(short.operations, long.operations[..200], "{}", contention.name());
    }
}

#[test]
fn the_model_accepts_every_plan_and_adds_up() {
    for contention in ALL {
        let model = model(&plan(contention, 70, 3_000));
        model.check().unwrap_or_else(|sentence| panic!("{}: {sentence}", contention.name()));
    }
}

#[test]
fn names_tell_contentions_apart() {
    let names: BTreeSet<String> = ALL.iter().map(|contention| contention.name()).collect();
    assert_eq!(names.len(), ALL.len());
    assert!(names.contains("pools=7") && names.contains("order-book"));
}

#[test]
fn nobody_sends_twice_within_the_turns() {
    for contention in ALL {
        let plan = plan(contention, 150, 1_000);
        let turns = contention.turns(150) as usize;
        assert!(turns >= 75, "{}: {turns}", contention.name());
        for window in plan.operations.windows(turns) {
            let senders: BTreeSet<AccountId> = window.iter().map(|(from, _)| *from).collect();
            assert_eq!(senders.len(), turns, "{}", contention.name());
        }
    }
}

#[test]
fn pools_share_no_token() {
    let plan = plan(Contention::Pools(POOLS_MAX), 10, 10);
    let tokens: BTreeSet<TokenId> = plan.world.pools.iter().flat_map(|pool| [pool.token0, pool.token1]).collect();
    assert_eq!(plan.world.pools.len(), usize::from(POOLS_MAX));
    assert_eq!(tokens.len(), 2 * usize::from(POOLS_MAX));
    let addresses: BTreeSet<_> = plan.world.pools.iter().map(|pool| pool.address).collect();
    assert_eq!(addresses.len(), usize::from(POOLS_MAX));
}

#[test]
fn swaps_and_loans_are_spread_evenly() {
    for (contention, lanes) in
        [(Contention::Pools(7), 7), (Contention::Pools(64), 64), (Contention::LendMany, usize::from(MARKETS))]
    {
        // Fewer senders than lanes, as many, and a number that no lane divides.
        for senders in [5, 64, 150] {
            let plan = plan(contention, senders, 10 * lanes);
            for round in plan.operations.chunks(lanes) {
                let touched: BTreeSet<u16> = round
                    .iter()
                    .map(|(_, operation)| match operation {
                        Operation::Swap { pool, .. } => pool.0,
                        Operation::Deposit { asset, .. }
                        | Operation::Withdraw { asset, .. }
                        | Operation::Borrow { asset, .. }
                        | Operation::Repay { asset, .. } => asset.0,
                        other => panic!("{other:?} is neither"),
                    })
                    .collect();
                assert_eq!(touched.len(), lanes, "{} of {senders}", contention.name());
            }
        }
    }
}

#[test]
fn a_sender_stays_in_its_pool_and_is_set_up_for_no_other() {
    let plan = plan(Contention::Pools(16), 64, 2_000);
    let mut homes: BTreeMap<AccountId, BTreeSet<PoolId>> = BTreeMap::new();
    for (from, operation) in &plan.operations {
        let Operation::Swap { pool, .. } = operation else { panic!("{operation:?} is no swap") };
        homes.entry(*from).or_default().insert(*pool);
    }
    assert!(homes.len() == 64 && homes.values().all(|pools| pools.len() == 1));
    let phases = plan.phases(1);
    let steps = || phases.iter().flat_map(|phase| &phase.steps);
    let minted: u32 = steps()
        .map(|step| match &step.operation {
            Operation::Mint { to, .. } => to.end - to.start,
            _ => 0,
        })
        .sum();
    // Of 32 tokens the owner has some, and each sender has two.
    assert_eq!(minted, 32 + 2 * 64);
    let approves = |from| {
        steps().filter(move |step| {
            step.from == from && matches!(step.operation, Operation::Approve { spender: Spender::Router, .. })
        })
    };
    assert!(plan.accounts.senders().all(|from| approves(from).count() == 2));
}

#[test]
fn nobody_occurs_twice_in_a_block_of_disjoint_pairs() {
    for contention in [Contention::TokenSpread, Contention::NativeSpread] {
        let plan = plan(contention, 101, 500);
        for block in plan.operations.windows(contention.turns(101) as usize) {
            let mut seen = BTreeSet::new();
            for (from, operation) in block {
                let (Operation::Transfer { to, .. } | Operation::TokenTransfer { to, .. }) = operation else {
                    panic!("{operation:?} is no transfer")
                };
                assert!(seen.insert(*from) && seen.insert(*to), "{}: {from:?} {to:?}", contention.name());
            }
        }
    }
}

#[test]
fn a_hot_account_takes_all_and_gives_nothing() {
    for contention in [Contention::TokenHot, Contention::NativeHot] {
        let plan = plan(contention, 9, 50);
        let hot = plan.accounts.sender(0);
        for (from, operation) in &plan.operations {
            let (Operation::Transfer { to, .. } | Operation::TokenTransfer { to, .. }) = operation else {
                panic!("{operation:?} is no transfer")
            };
            assert!(*to == hot && *from != hot);
        }
    }
}

#[test]
fn a_chain_hands_on_what_no_account_has_of_its_own() {
    let plan = plan(Contention::NativeChain, 20, 60);
    for pair in plan.operations.windows(2) {
        let Operation::Transfer { to, value } = pair[0].1 else { panic!("{:?} is no transfer", pair[0].1) };
        assert_eq!((to, value), (pair[1].0, pair[1].1.value()));
    }
    for step in plan.phases(8_000_000_000).iter().flat_map(|phase| &phase.steps) {
        let Operation::Transfer { to, value } = step.operation else { continue };
        assert_eq!(value > CHAINED, to == plan.accounts.sender(0), "{to:?} is given {value}");
    }
}

#[test]
fn loans_are_of_all_four_kinds_from_the_first_block_on() {
    let plan = plan(Contention::LendOne, 400, 400);
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for (_, operation) in &plan.operations {
        *counts.entry(operation.kind()).or_default() += 1;
    }
    for kind in [Kind::Deposit, Kind::Withdraw, Kind::Borrow, Kind::Repay] {
        assert!((70..130).contains(&counts[&kind]), "{counts:?}");
    }
}

#[test]
fn about_half_of_the_orders_match_and_some_are_cancelled() {
    let plan = plan(Contention::OrderBook, 100, 20_000);
    let mut orders = Orders::new(&plan.accounts).into_book();
    let (mut placed, mut matched, mut cancelled) = (0_usize, 0_usize, 0_usize);
    for (from, operation) in &plan.operations {
        if let Operation::PlaceOrder { bid, tick, lots } = operation {
            placed += 1;
            matched += usize::from(orders.place(*from, *bid, *tick, *lots).unwrap().filled > 0);
        } else {
            cancelled += 1;
            orders.apply(*from, operation).unwrap();
        }
    }
    assert!((45..=55).contains(&(100 * matched / placed)), "{matched} of {placed} orders match");
    assert!((8..=13).contains(&(100 * cancelled / 20_000)), "{cancelled} are cancelled");
    let spread = (orders.best(true).unwrap(), orders.best(false).unwrap());
    assert!(spread.0 < spread.1, "{spread:?}");
}
