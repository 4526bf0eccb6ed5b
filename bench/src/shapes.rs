//! What is sent: six shapes of traffic, each an endless sequence that follows from a seed.
//!
//! | shape | traffic | contention |
//! |---|---|---|
//! | `transfer` | wei between senders | none but the fee recipient |
//! | `erc20` | one token between senders | none |
//! | `swap` | trades over many pools, pool k in proportion to 1/k | some |
//! | `hotpool` | trades on one pool | total |
//! | `lend` | deposit 35, borrow 25, repay 20, withdraw 10, liquidate 10 % over four markets | per market |
//! | `mixed` | swap 60, lend 25, tokens 10, transfer 5 % | as in the mission |
//!
//! Every operation succeeds in whatever order a chain takes those of different senders, as long as those of
//! one sender keep theirs: pools and markets are deep, senders repay no more than they borrowed, liquidated
//! accounts stay unhealthy, and no trade has a limit.

use crate::{
    accounts::{AccountId, Accounts},
    operation::Operation,
    rng::{Rng, Zipf},
    world::{PoolId, TokenId, World},
};

/// A canonical load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Wei between senders.
    Transfer,
    /// One token between senders.
    Erc20,
    /// Trades over many pools.
    Swap,
    /// Trades on one pool.
    HotPool,
    /// A lending market.
    Lend,
    /// The mission's traffic.
    Mixed,
}

/// How wide the contended state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Pools of the exchange, 1 at least.
    pub pools: u16,
    /// Markets that senders use, 1 to [`MARKETS_MAX`].
    pub markets: u16,
}

/// Markets the lending contract can list, less the one of the falling asset.
pub const MARKETS_MAX: u16 = 127;

impl Default for Scale {
    fn default() -> Self {
        Self { pools: 50, markets: 4 }
    }
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 6] = [Self::Transfer, Self::Erc20, Self::Swap, Self::HotPool, Self::Lend, Self::Mixed];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Erc20 => "erc20",
            Self::Swap => "swap",
            Self::HotPool => "hotpool",
            Self::Lend => "lend",
            Self::Mixed => "mixed",
        }
    }

    /// Whether the shape trades.
    #[must_use]
    pub const fn has_exchange(self) -> bool {
        matches!(self, Self::Swap | Self::HotPool | Self::Mixed)
    }

    /// Whether the shape lends.
    #[must_use]
    pub const fn has_market(self) -> bool {
        matches!(self, Self::Lend | Self::Mixed)
    }

    /// Whether the shape moves tokens directly.
    #[must_use]
    pub const fn has_token_transfers(self) -> bool {
        matches!(self, Self::Erc20 | Self::Mixed)
    }

    /// Pools of the shape.
    #[must_use]
    pub const fn pools(self, scale: Scale) -> u16 {
        match self {
            Self::Swap | Self::Mixed => scale.pools,
            Self::HotPool => 1,
            _ => 0,
        }
    }
}

/// Wei of a transfer, from and below.
pub(crate) const TRANSFER_WEI: (u64, u64) = (1_000_000_000, 1_000_000_000_000);

/// Units of a trade, a token transfer or a lending operation, from and below: up to one whole token.
pub(crate) const AMOUNT: (u64, u64) = (1_000_000_000_000_000, 1_000_000_000_000_000_000);

/// Units of debt repaid by a liquidation, from and below.
const LIQUIDATION: (u64, u64) = (1_000_000_000_000, 1_000_000_000_000_000);

/// Units a sender owes at most: a thousandth of what backs it.
const OWED_MAX: u128 = 1_000_000_000_000_000_000_000;

/// Price of a whole token, 8 decimals.
pub(crate) const PRICE: u128 = 100_000_000;

/// What a sender has done so far, as far as its next operation depends on it.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    supplied: u128,
    owed: u128,
}

/// Draws operations; the n-th one belongs to sender n modulo their number.
#[derive(Debug)]
pub struct Generator<'a> {
    shape: Shape,
    world: &'a World,
    accounts: &'a Accounts,
    rng: Rng,
    zipf: Option<Zipf>,
    standings: Vec<Standing>,
    next: u32,
}

impl<'a> Generator<'a> {
    /// Starts the sequence of a seed.
    #[must_use]
    pub fn new(shape: Shape, seed: u64, world: &'a World, accounts: &'a Accounts) -> Self {
        let pools = u16::try_from(world.pools.len()).unwrap_or(u16::MAX);
        Self {
            shape,
            world,
            accounts,
            rng: Rng::new(seed),
            zipf: (pools > 0).then(|| Zipf::new(pools)),
            standings: vec![Standing::default(); accounts.senders().len()],
            next: 0,
        }
    }

    fn draw(&mut self, sender: u32) -> Operation {
        match self.shape {
            Shape::Transfer => self.transfer(),
            Shape::Erc20 => self.token_transfer(),
            Shape::Swap | Shape::HotPool => self.swap(),
            Shape::Lend => self.lend(sender),
            Shape::Mixed => match self.rng.below(100) {
                0..60 => self.swap(),
                60..85 => self.lend(sender),
                85..95 => self.token_transfer(),
                _ => self.transfer(),
            },
        }
    }

    fn transfer(&mut self) -> Operation {
        let value = self.rng.between(TRANSFER_WEI.0, TRANSFER_WEI.1);
        Operation::Transfer { to: self.any_sender(), value: u128::from(value) }
    }

    fn token_transfer(&mut self) -> Operation {
        let tokens = u64::try_from(self.world.tokens.len()).unwrap_or(1);
        let token = TokenId(u16::try_from(self.rng.below(tokens)).unwrap_or_default());
        Operation::TokenTransfer { token, to: self.any_sender(), amount: self.amount() }
    }

    fn swap(&mut self) -> Operation {
        let pool = self.zipf.as_ref().map_or(0, |law| law.draw(&mut self.rng));
        let sell_token0 = self.rng.below(2) == 0;
        Operation::Swap { pool: PoolId(pool), sell_token0, amount: self.amount() }
    }

    fn lend(&mut self, sender: u32) -> Operation {
        if sender == 0 && self.rng.below(2) == 0 {
            return self.set_price();
        }
        let (collateral, borrowed) = homes(self.world, sender);
        let (amount, kind) = (self.amount(), self.rng.below(100));
        let standing = &mut self.standings[sender as usize];
        match kind {
            70..80 if standing.supplied > amount => {
                standing.supplied -= amount;
                Operation::Withdraw { asset: collateral, amount }
            }
            0..35 | 70..80 => {
                standing.supplied += amount;
                Operation::Deposit { asset: collateral, amount }
            }
            80..90 => self.liquidate(borrowed),
            50..70 if standing.owed > amount => {
                standing.owed -= amount;
                Operation::Repay { asset: borrowed, amount }
            }
            _ if standing.owed + amount > OWED_MAX => {
                standing.owed -= amount;
                Operation::Repay { asset: borrowed, amount }
            }
            _ => {
                standing.owed += amount;
                Operation::Borrow { asset: borrowed, amount }
            }
        }
    }

    /// Pays debt of one of the accounts that owe `debt` and stay unhealthy.
    fn liquidate(&mut self, debt: TokenId) -> Operation {
        let markets = u32::from(self.world.markets);
        let borrowers = u32::try_from(self.accounts.borrowers().len()).unwrap_or_default();
        let nth = u32::try_from(self.rng.below(u64::from(borrowers / markets))).unwrap_or_default();
        Operation::Liquidate {
            debt,
            collateral: self.world.falling_asset(),
            account: self.accounts.borrower(nth * markets + u32::from(debt.0)),
            amount: u128::from(self.rng.between(LIQUIDATION.0, LIQUIDATION.1)),
        }
    }

    /// Moves a price by up to one percent; the falling asset keeps its own.
    fn set_price(&mut self) -> Operation {
        let asset = TokenId(u16::try_from(self.rng.below(u64::from(self.world.markets))).unwrap_or_default());
        let price = PRICE * u128::from(self.rng.between(9_900, 10_101)) / 10_000;
        Operation::SetPrice { asset, price }
    }

    fn amount(&mut self) -> u128 {
        u128::from(self.rng.between(AMOUNT.0, AMOUNT.1))
    }

    fn any_sender(&mut self) -> AccountId {
        let senders = u64::try_from(self.accounts.senders().len()).unwrap_or_default();
        self.accounts.sender(u32::try_from(self.rng.below(senders)).unwrap_or_default())
    }
}

impl Iterator for Generator<'_> {
    type Item = (AccountId, Operation);

    fn next(&mut self) -> Option<Self::Item> {
        let senders = u32::try_from(self.standings.len()).ok().filter(|count| *count > 0)?;
        let sender = self.next % senders;
        self.next = (sender + 1) % senders;
        Some((self.accounts.sender(sender), self.draw(sender)))
    }
}

/// The market a sender supplies to and the one it borrows from.
pub(crate) fn homes(world: &World, sender: u32) -> (TokenId, TokenId) {
    let markets = u32::from(world.markets.max(1));
    let token = |position: u32| TokenId(u16::try_from(position % markets).unwrap_or_default());
    (token(sender), token(sender + 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{operation::Kind, plan::tests::plan};

    fn shares(shape: Shape) -> BTreeMap<Kind, usize> {
        let plan = plan(shape, 50, 40_000);
        let mut counts = BTreeMap::new();
        for (_, operation) in &plan.operations {
            *counts.entry(operation.kind()).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn mixed_has_the_missions_shares() {
        let counts = shares(Shape::Mixed);
        let share = |kinds: &[Kind]| kinds.iter().map(|kind| counts.get(kind).unwrap_or(&0)).sum::<usize>() / 40;
        assert!(share(&[Kind::Swap]).abs_diff(600) < 10);
        assert!(share(&[Kind::TokenTransfer]).abs_diff(100) < 10);
        assert!(share(&[Kind::Transfer]).abs_diff(50) < 10);
        let lending = [Kind::Deposit, Kind::Withdraw, Kind::Borrow, Kind::Repay, Kind::Liquidate, Kind::SetPrice];
        assert!(share(&lending).abs_diff(250) < 10);
    }

    #[test]
    fn lend_has_every_operation() {
        let counts = shares(Shape::Lend);
        let share = |kind| counts.get(&kind).unwrap_or(&0) / 400;
        assert!((33..=40).contains(&share(Kind::Deposit)), "{counts:?}");
        assert!((22..=30).contains(&share(Kind::Borrow)), "{counts:?}");
        assert!((14..=21).contains(&share(Kind::Repay)), "{counts:?}");
        assert!((5..=10).contains(&share(Kind::Withdraw)), "{counts:?}");
        assert!((9..=11).contains(&share(Kind::Liquidate)), "{counts:?}");
        assert!(counts.contains_key(&Kind::SetPrice));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let (short, long) = (plan(Shape::Mixed, 20, 500), plan(Shape::Mixed, 20, 2_000));
        assert_eq!(short.operations, long.operations[..500]);
    }
}
