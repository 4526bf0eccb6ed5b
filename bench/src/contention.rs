//! How much transactions of a block are in each other's way: traffic whose conflicts are known beforehand.
//!
//! | name | traffic | what two transactions of a block share |
//! |---|---|---|
//! | `pools=N` | swaps, spread evenly over N pools with two tokens each | all of a pool for one pair in N, else nothing |
//! | `token-spread` | one token between disjoint pairs | nothing |
//! | `token-hot` | one token, to one account | one balance |
//! | `native-spread` | wei between disjoint pairs | nothing |
//! | `native-chain` | wei from each account to the next, which sends on what it got | an account with each neighbour |
//! | `native-hot` | wei to one account | one account |
//! | `lend-one` | deposit, withdraw, borrow, repay in one market | index, totals and cash of the market |
//! | `lend-many` | the same, spread evenly over 64 markets | the same for one pair in 64, else nothing |
//! | `order-book` | limit orders about the mid, half of which match, and cancels | the head of the book, levels, queues |
//!
//! Where accounts take turns, each sends once before any sends again: as many transactions as
//! [`Contention::turns`] have that many senders, and no nonce or fee couples them.
//!
//! Every operation succeeds in the plan's order. In another order chains break (nobody has what he sends on), and
//! cancels (they name orders that may have been filled); all others succeed in any order that keeps each sender's.

mod orders;
mod setup;

pub(crate) use orders::quotes;
pub(crate) use setup::{deposits, holders};

use crate::{
    accounts::{AccountId, Accounts},
    operation::Operation,
    plan::{COLLATERAL, TOKEN},
    rng::Rng,
    shapes::{AMOUNT, TRANSFER_WEI},
    world::{Layout, PoolId, TokenId},
};

use self::orders::Orders;

/// Traffic with known conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contention {
    /// Swaps over so many pools, 1 to [`POOLS_MAX`], evenly.
    Pools(u16),
    /// One token between disjoint pairs.
    TokenSpread,
    /// One token, to one account.
    TokenHot,
    /// Wei between disjoint pairs.
    NativeSpread,
    /// Wei from each account to the next.
    NativeChain,
    /// Wei to one account.
    NativeHot,
    /// One lending market.
    LendOne,
    /// Many lending markets, evenly.
    LendMany,
    /// One limit order book.
    OrderBook,
}

/// Most pools of [`Contention::Pools`]: the set-up deploys and mints two tokens for each.
pub const POOLS_MAX: u16 = 2_048;

/// Markets of [`Contention::LendMany`].
pub const MARKETS: u16 = 64;

/// Wei that a chain hands on: more than an account is given for fees, so that it must have come from the one before.
const CHAINED: u128 = 1_000_000_000_000_000_000_000_000;

/// Times a chain can be started before its first account is out of wei; then the wei are with others.
const CHAIN_STARTS: u128 = 1_000_000;

/// Units a sender owes to its market before the clock starts, and at most.
const OWED: (u128, u128) = (100_000 * TOKEN, 200_000 * TOKEN);

/// Units a sender keeps in its market: well above what [`OWED`] needs at a collateral factor of 0.75.
const SUPPLIED_MIN: u128 = COLLATERAL / 2;

impl Contention {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Pools(pools) => return format!("pools={pools}"),
            Self::TokenSpread => "token-spread",
            Self::TokenHot => "token-hot",
            Self::NativeSpread => "native-spread",
            Self::NativeChain => "native-chain",
            Self::NativeHot => "native-hot",
            Self::LendOne => "lend-one",
            Self::LendMany => "lend-many",
            Self::OrderBook => "order-book",
        }
        .to_owned()
    }

    /// What it needs deployed.
    ///
    /// # Panics
    /// For no pools or more than [`POOLS_MAX`].
    #[must_use]
    pub fn layout(self) -> Layout {
        let none = Layout::default();
        match self {
            Self::Pools(pools) => {
                assert!((1..=POOLS_MAX).contains(&pools), "{pools} pools are not 1 to {POOLS_MAX}");
                let pair = |pool| (TokenId(2 * pool), TokenId(2 * pool + 1));
                Layout { tokens: 2 * pools, pools: (0..pools).map(pair).collect(), ..none }
            }
            Self::TokenSpread | Self::TokenHot => Layout { tokens: 1, ..none },
            Self::NativeSpread | Self::NativeChain | Self::NativeHot => none,
            // One asset more is listed, as in every world with a market.
            Self::LendOne | Self::LendMany => Layout { tokens: self.lanes() + 1, markets: self.lanes(), ..none },
            Self::OrderBook => Layout { tokens: 2, book: true, ..none },
        }
    }

    /// Transactions in a row in which, of so many senders, none sends twice.
    #[must_use]
    pub fn turns(self, senders: u32) -> u32 {
        match self {
            Self::TokenSpread | Self::NativeSpread => senders / 2,
            Self::TokenHot | Self::NativeHot => senders.saturating_sub(1),
            _ => Lanes::new(self.lanes(), senders).slots().min(senders),
        }
    }

    /// Pools or markets over which turns are spread.
    const fn lanes(self) -> u16 {
        match self {
            Self::Pools(pools) => pools,
            Self::LendMany => MARKETS,
            _ => 1,
        }
    }
}

/// Draws operations; none for fewer than two senders.
#[derive(Debug)]
pub struct Generator<'a> {
    contention: Contention,
    accounts: &'a Accounts,
    senders: u32,
    rng: Rng,
    turn: u64,
    lanes: Lanes,
    standings: Vec<Standing>,
    pairs: Vec<(u32, u32)>,
    chained: u128,
    orders: Orders,
}

impl<'a> Generator<'a> {
    /// Starts the sequence of a seed.
    #[must_use]
    pub fn new(contention: Contention, seed: u64, accounts: &'a Accounts) -> Self {
        let senders = u32::try_from(accounts.senders().len()).unwrap_or(u32::MAX);
        let lanes = Lanes::new(contention.lanes(), senders);
        let mut rng = Rng::new(seed);
        let (mut standings, mut pairs, mut orders) = (Vec::new(), Vec::new(), Orders::default());
        match contention {
            Contention::TokenSpread | Contention::NativeSpread => pairs = pairs_of(senders, &mut rng),
            Contention::LendOne | Contention::LendMany => {
                standings = (0..lanes.slots()).map(|_| Standing { supplied: COLLATERAL, owed: OWED.0 }).collect();
            }
            Contention::OrderBook => orders = Orders::new(accounts),
            _ => {}
        }
        let chained = CHAINED + u128::from(rng.between(TRANSFER_WEI.0, TRANSFER_WEI.1));
        Self { contention, accounts, senders, rng, turn: 0, lanes, standings, pairs, chained, orders }
    }

    fn draw(&mut self, turn: u64) -> (AccountId, Operation) {
        let seat = self.lanes.seat(turn);
        let sender = self.accounts.sender(seat.sender);
        match self.contention {
            Contention::Pools(_) => {
                let sell_token0 = self.rng.below(2) == 0;
                (sender, Operation::Swap { pool: PoolId(seat.lane), sell_token0, amount: self.amount() })
            }
            Contention::TokenSpread => {
                let (from, to) = self.pair(turn);
                (from, Operation::TokenTransfer { token: TokenId(0), to, amount: self.amount() })
            }
            Contention::TokenHot => {
                let (from, to) = self.to_first(turn);
                (from, Operation::TokenTransfer { token: TokenId(0), to, amount: self.amount() })
            }
            Contention::NativeSpread => {
                let (from, to) = self.pair(turn);
                (from, Operation::Transfer { to, value: self.wei() })
            }
            Contention::NativeChain => {
                let to = self.accounts.sender((seat.sender + 1) % self.senders);
                (sender, Operation::Transfer { to, value: self.chained })
            }
            Contention::NativeHot => {
                let (from, to) = self.to_first(turn);
                (from, Operation::Transfer { to, value: self.wei() })
            }
            Contention::LendOne | Contention::LendMany => (sender, self.lend(&seat)),
            Contention::OrderBook => (sender, self.orders.draw(&mut self.rng, seat.slot, sender)),
        }
    }

    /// One of four operations, each as likely; if it would leave too little or owe too much, its opposite.
    fn lend(&mut self, seat: &Seat) -> Operation {
        let (asset, amount, kind) = (TokenId(seat.lane), self.amount(), self.rng.below(4));
        let standing = &mut self.standings[seat.slot];
        match kind {
            0 if standing.supplied > SUPPLIED_MIN + amount => {
                standing.supplied -= amount;
                Operation::Withdraw { asset, amount }
            }
            0 | 1 => {
                standing.supplied += amount;
                Operation::Deposit { asset, amount }
            }
            2 if standing.owed + amount < OWED.1 => {
                standing.owed += amount;
                Operation::Borrow { asset, amount }
            }
            _ if standing.owed > amount => {
                standing.owed -= amount;
                Operation::Repay { asset, amount }
            }
            _ => {
                standing.owed += amount;
                Operation::Borrow { asset, amount }
            }
        }
    }

    /// The pair whose turn it is; who gives and who takes changes from round to round.
    fn pair(&self, turn: u64) -> (AccountId, AccountId) {
        let pairs = u64::try_from(self.pairs.len()).unwrap_or(1).max(1);
        let (a, b) = self.pairs[usize::try_from(turn % pairs).unwrap_or_default()];
        let (from, to) = if (turn / pairs).is_multiple_of(2) { (a, b) } else { (b, a) };
        (self.accounts.sender(from), self.accounts.sender(to))
    }

    /// All but the first sender in turn, each to the first.
    fn to_first(&self, turn: u64) -> (AccountId, AccountId) {
        let nth = turn % u64::from(self.senders - 1) + 1;
        (self.accounts.sender(u32::try_from(nth).unwrap_or_default()), self.accounts.sender(0))
    }

    fn amount(&mut self) -> u128 {
        u128::from(self.rng.between(AMOUNT.0, AMOUNT.1))
    }

    fn wei(&mut self) -> u128 {
        u128::from(self.rng.between(TRANSFER_WEI.0, TRANSFER_WEI.1))
    }
}

impl Iterator for Generator<'_> {
    type Item = (AccountId, Operation);

    fn next(&mut self) -> Option<Self::Item> {
        if self.senders < 2 {
            return None;
        }
        let turn = self.turn;
        self.turn += 1;
        Some(self.draw(turn))
    }
}

/// The first account of a chain, and the wei it needs to start it.
pub(crate) fn chain_start(accounts: &Accounts) -> (AccountId, u128) {
    (accounts.sender(0), (CHAINED + u128::from(TRANSFER_WEI.1)) * CHAIN_STARTS)
}

/// What a sender has in its market, as far as its next operation depends on it; interest aside.
#[derive(Clone, Copy, Debug)]
struct Standing {
    supplied: u128,
    owed: u128,
}

/// Turns in lanes: turn k is in lane k modulo their number, and the members of a lane take turns inside it.
///
/// Members of a lane are neighbours, so that a range of accounts holds what the lane needs. With fewer senders
/// than lanes a sender is the member of several.
#[derive(Clone, Copy, Debug)]
struct Lanes {
    lanes: u32,
    members: u32,
    senders: u32,
}

/// Whose turn it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    lane: u16,
    slot: usize,
    sender: u32,
}

impl Lanes {
    fn new(lanes: u16, senders: u32) -> Self {
        let lanes = u32::from(lanes.max(1));
        Self { lanes, members: (senders / lanes).max(1), senders: senders.max(1) }
    }

    const fn slots(self) -> u32 {
        self.lanes * self.members
    }

    fn seat(self, turn: u64) -> Seat {
        let (lanes, members) = (u64::from(self.lanes), u64::from(self.members));
        let lane = turn % lanes;
        let slot = lane * members + turn / lanes % members;
        Seat {
            lane: u16::try_from(lane).unwrap_or_default(),
            slot: usize::try_from(slot).unwrap_or_default(),
            sender: u32::try_from(slot % u64::from(self.senders)).unwrap_or_default(),
        }
    }
}

/// Senders in pairs, drawn without replacement; an odd one stays out.
fn pairs_of(senders: u32, rng: &mut Rng) -> Vec<(u32, u32)> {
    let mut order: Vec<u32> = (0..senders).collect();
    // Fisher and Yates: from the last place down, each takes one of those not yet placed.
    for place in (1..order.len()).rev() {
        let bound = u64::try_from(place).unwrap_or_default() + 1;
        order.swap(place, usize::try_from(rng.below(bound)).unwrap_or_default());
    }
    order.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests;
