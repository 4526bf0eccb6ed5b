//! The set-up of contended traffic: no more tokens, approvals and positions than its operations need.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{Contention, OWED, orders};
use crate::{
    accounts::AccountId,
    expect::{BASE, QUOTE},
    operation::Operation,
    plan::{COLLATERAL, Plan, Step, Traffic},
    world::TokenId,
};

/// The accounts that need each token, both those that give and those that take: their balances must be in use.
pub(crate) fn holders(plan: &Plan) -> BTreeMap<TokenId, Vec<Range<u32>>> {
    let mut holders: BTreeMap<TokenId, BTreeSet<u32>> = BTreeMap::new();
    let entered = deposits(plan).into_iter().map(|step| (step.from, step.operation));
    for (from, operation) in entered.chain(plan.operations.iter().cloned()) {
        let mut hold = |token, account: AccountId| {
            holders.entry(token).or_default().insert(account.0);
        };
        match operation {
            Operation::TokenTransfer { token, to, .. } => {
                hold(token, from);
                hold(token, to);
            }
            Operation::Swap { pool, .. } => {
                let pool = plan.world.pool(pool);
                hold(pool.token0, from);
                hold(pool.token1, from);
            }
            Operation::Deposit { asset, .. } | Operation::FundBook { asset, .. } => hold(asset, from),
            Operation::PlaceOrder { .. } => {
                hold(BASE, from);
                hold(QUOTE, from);
            }
            _ => {}
        }
    }
    holders.into_iter().map(|(token, accounts)| (token, ranges(&accounts))).collect()
}

/// What senders put into contracts before the clock starts: into their markets, or into the order book.
pub(crate) fn deposits(plan: &Plan) -> Vec<Step> {
    if plan.traffic == Traffic::Contention(Contention::OrderBook) {
        return orders::deposits(&plan.accounts);
    }
    let home = |(from, operation): &(AccountId, Operation)| match operation {
        Operation::Deposit { asset, .. }
        | Operation::Withdraw { asset, .. }
        | Operation::Borrow { asset, .. }
        | Operation::Repay { asset, .. } => Some((*from, *asset)),
        _ => None,
    };
    let homes: BTreeSet<(AccountId, TokenId)> = plan.operations.iter().filter_map(home).collect();
    let open = |(from, asset)| {
        let deposit = Operation::Deposit { asset, amount: COLLATERAL };
        [deposit, Operation::Borrow { asset, amount: OWED.0 }].map(|operation| Step { from, operation })
    };
    homes.into_iter().flat_map(open).collect()
}

/// The same accounts as ranges of neighbours.
fn ranges(accounts: &BTreeSet<u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for account in accounts {
        match ranges.last_mut() {
            Some(range) if range.end == *account => range.end += 1,
            _ => ranges.push(*account..account + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_form_ranges() {
        assert_eq!(ranges(&BTreeSet::from([2, 3, 4, 7, 9, 10])), [2..5, 7..8, 9..11]);
        assert!(ranges(&BTreeSet::new()).is_empty());
    }
}
