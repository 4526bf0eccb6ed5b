//! The market model against cases worked out by hand.

use std::collections::BTreeMap;

use super::*;
use crate::{Kind, Plan, Shape, plan::tests::plan};

fn replay(plan: &Plan, seconds_per_block: u64) -> Model {
    let mut model = Model::default();
    let mut timestamp = 1_000;
    for phase in plan.phases(1) {
        for step in &phase.steps {
            model.apply(&plan.world, step.from, &step.operation, timestamp).unwrap();
        }
        timestamp += 1;
    }
    for (position, (from, operation)) in plan.operations.iter().enumerate() {
        let now = timestamp + position as u64 / 100 * seconds_per_block;
        model.apply(&plan.world, *from, operation, now).unwrap_or_else(|refusal| panic!("{operation:?}: {refusal}"));
    }
    model
}

#[test]
fn constants_are_what_their_names_say() {
    assert_eq!(RAY, U256::from(10).pow(U256::from(27)));
    assert_eq!(WAD, U256::from(10).pow(U256::from(18)));
}

#[test]
fn the_model_accepts_every_shape_and_adds_up() {
    for shape in Shape::ALL {
        for seconds in [0, 1, 1_000] {
            let model = replay(&plan(shape, 12, 6_000), seconds);
            model.check().unwrap_or_else(|sentence| panic!("{}: {sentence}", shape.name()));
        }
    }
}

/// A chain may take operations of different senders in any order: here all of one sender, then the next.
#[test]
fn operations_succeed_in_any_order_that_keeps_each_senders_own() {
    let mut plan = plan(Shape::Mixed, 12, 6_000);
    plan.operations.sort_by_key(|(from, _)| std::cmp::Reverse(*from));
    replay(&plan, 7).check().unwrap();
}

#[test]
fn a_year_of_interest_is_what_the_rate_says() {
    let mut reserve = Reserve::new(0);
    reserve.cash = U256::from(600) * WAD;
    reserve.scaled_supply = U256::from(1_000) * WAD;
    reserve.scaled_debt = U256::from(400) * WAD;
    // Utilisation 0.4 is half the kink: 1 % + 7 % / 2.
    assert_eq!(reserve.rate(), WAD * U256::from(450) / BPS);
    let later = reserve.accrued(365 * 86_400);
    assert_eq!(later.borrow_index, RAY * U256::from(10_450) / BPS);
    let interest = U256::from(18) * WAD;
    assert_eq!(later.fees, interest / U256::from(10));
    assert_eq!(later.supply_index, RAY + interest * U256::from(9) / U256::from(10) * RAY / reserve.scaled_supply);
    assert_eq!(later.accrued(365 * 86_400), later, "no time, no interest");
}

#[test]
fn full_utilisation_is_on_the_steep_slope() {
    let mut reserve = Reserve::new(0);
    reserve.scaled_debt = WAD;
    assert_eq!(reserve.rate(), WAD * U256::from(10_800) / BPS);
}

#[test]
fn every_liquidation_of_a_plan_has_an_account_that_owes() {
    let plan = plan(Shape::Lend, 10, 5_000);
    let mut owing = BTreeMap::new();
    for step in plan.phases(1).iter().flat_map(|phase| &phase.steps) {
        if let Operation::Borrow { asset, .. } = step.operation {
            owing.insert(step.from, asset);
        }
    }
    let mut seen = 0;
    for (_, operation) in &plan.operations {
        if let Operation::Liquidate { debt, account, .. } = operation {
            assert_eq!(owing.get(account), Some(debt));
            assert_eq!(operation.kind(), Kind::Liquidate);
            seen += 1;
        }
    }
    assert!(seen > 300);
}
