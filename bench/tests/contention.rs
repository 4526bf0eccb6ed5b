//! Every contended plan runs as it says: nothing fails, and the order book ends as its model does.

#[path = "../benches/lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;

use alloy_primitives::{Address, U256, keccak256};
use bench::{Contention, Kind, Traffic, expect::Model};
use engine::ports::{StateView, Store as _};
use lab::Lab;

const TRANSACTIONS: usize = 64;

/// Sets up a chain, builds a block on it twice, and checks every receipt.
fn check(contention: Contention, senders: u32) -> Lab {
    let mut lab = Lab::new(contention, senders);
    assert_eq!(lab.plan.traffic, Traffic::Contention(contention));
    for _ in 0..2 {
        let signed = lab.signed(TRANSACTIONS);
        let block = lab.build(&lab.transactions(&signed));
        assert_eq!(block.0.receipts.len(), TRANSACTIONS, "{}", contention.name());
        for (receipt, (_, operation)) in block.0.receipts.iter().zip(&lab.plan.operations) {
            assert!(receipt.success, "{}: a receipt says no, near {operation:?}", contention.name());
        }
        lab.commit(block);
    }
    lab
}

#[test]
fn swaps_succeed_over_any_number_of_pools() {
    for pools in [1, 4, 16] {
        check(Contention::Pools(pools), 64);
    }
    // Fewer senders than pools.
    check(Contention::Pools(80), 10);
}

#[test]
fn transfers_succeed() {
    for contention in [Contention::TokenSpread, Contention::TokenHot, Contention::NativeSpread, Contention::NativeHot] {
        check(contention, 128);
    }
}

#[test]
fn a_chain_of_transfers_succeeds() {
    check(Contention::NativeChain, 64);
    // It closes: the last account gives to the first.
    check(Contention::NativeChain, 10);
}

#[test]
fn loans_succeed() {
    for contention in [Contention::LendOne, Contention::LendMany] {
        check(contention, 64);
    }
}

/// Traders that come back, so that they cancel what they placed before, and a book that runs dry.
#[test]
fn the_order_book_ends_as_its_model_does() {
    for senders in [2, 64] {
        let lab = check(Contention::OrderBook, senders);
        let plan = &lab.plan;
        let mut model = Model::default();
        let steps = plan.phases(1).into_iter().flat_map(|phase| phase.steps);
        let timed = plan.operations[..2 * TRANSACTIONS].iter().cloned();
        for (from, operation) in steps.map(|step| (step.from, step.operation)).chain(timed) {
            model.apply(&plan.world, from, &operation, 0).expect("the chain did it");
        }
        let view = lab.store.view(lab.store.tip().height()).expect("the tip's state is kept");
        let (view, book) = (&*view, model.book());
        for (account, base, quote) in book.balances() {
            let key = keccak256([plan.accounts.address(account).into_word().as_slice(), &[0; 32]].concat());
            assert_eq!(slot(view, plan.world.book, key.into()), base | (quote << 128), "{account:?}");
        }
        let best = |bid| U256::from(book.best(bid).unwrap_or_default());
        let market = U256::from(book.last_id()) | (best(true) << 64) | (best(false) << 88);
        assert_eq!(slot(view, plan.world.book, U256::from(1)), market);
    }
}

fn slot(view: &dyn StateView, address: Address, key: U256) -> U256 {
    view.slot(address, key).expect("the state can be read")
}

/// Accounts and slots of the plan that one transaction alone changes, for each of the next few.
fn changes(lab: &mut Lab, count: usize) -> Vec<BTreeSet<(Address, Option<U256>)>> {
    let accounts = lab.plan.accounts.addresses();
    let contracts = lab.plan.world.deployments.iter().map(|(_, address)| *address);
    let pools = lab.plan.world.pools.iter().map(|pool| pool.address);
    let of_plan: BTreeSet<Address> = accounts.into_iter().chain(contracts).chain(pools).collect();
    let signed = lab.signed(count);
    let each = lab.transactions(&signed).into_iter().map(|transaction| lab.build(&[transaction]).0);
    let changed = each.map(|executed| {
        assert!(executed.receipts[0].success);
        let of_plan = executed.changes.accounts.iter().filter(|(address, _)| of_plan.contains(*address));
        let keys = of_plan.flat_map(|(address, change)| {
            let account = (change.before != change.after).then_some((*address, None));
            account.into_iter().chain(change.slots.keys().map(|key| (*address, Some(*key))))
        });
        keys.collect()
    });
    changed.collect()
}

#[test]
fn spread_transactions_change_nothing_in_common() {
    let spread = [Contention::Pools(8), Contention::TokenSpread, Contention::NativeSpread, Contention::LendMany];
    for contention in spread {
        let mut seen = BTreeSet::new();
        for changed in changes(&mut Lab::new(contention, 128), 8) {
            assert!(changed.len() > 1, "{}", contention.name());
            for key in changed {
                assert!(seen.insert(key), "{}: {key:?} is changed twice", contention.name());
            }
        }
    }
}

#[test]
fn contended_transactions_all_change_the_same() {
    let contended =
        [Contention::Pools(1), Contention::TokenHot, Contention::NativeHot, Contention::LendOne, Contention::OrderBook];
    for contention in contended {
        let mut lab = Lab::new(contention, 64);
        // A cancel leaves the head of a book alone as long as its price has another order.
        let kept = |operation: &bench::Operation| operation.kind() != Kind::CancelOrder;
        let kept: Vec<bool> = lab.plan.operations[..8].iter().map(|(_, operation)| kept(operation)).collect();
        let mut changed = changes(&mut lab, 8).into_iter().zip(kept).filter_map(|(keys, kept)| kept.then_some(keys));
        let first = changed.next().expect("most operations are no cancels");
        let common = changed.fold(first, |common, keys| &common & &keys);
        assert!(!common.is_empty(), "{}", contention.name());
    }
}
