//! The order book in integers: best price first, within a price the oldest order first.
//!
//! Source: `contracts/src/OrderBook.sol`. What an order does depends on all before it, so a plan's operations are
//! expected in the plan's order; the generator keeps a book of its own to name orders that wait.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::U256;

use super::Refusal;
use crate::{accounts::AccountId, operation::Operation, world::TokenId};

/// What the order book trades.
pub const BASE: TokenId = TokenId(0);

/// What the order book prices it in.
pub const QUOTE: TokenId = TokenId(1);

/// Units of base in a lot: a thousandth of a token.
pub const LOT_SIZE: u128 = 1_000_000_000_000_000;

/// Units of quote that a tick adds to the price of a lot: at tick 10,000 the two tokens are worth the same.
pub const TICK_SIZE: u128 = 100_000_000_000;

/// An order that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who placed it.
    pub owner: AccountId,
    /// Whether it buys base.
    pub bid: bool,
    /// Its price.
    pub tick: u32,
    /// What is left of it.
    pub lots: u64,
}

/// What became of an order when it was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name.
    pub id: u64,
    /// Lots that traded at once.
    pub filled: u64,
    /// Lots that wait.
    pub rested: u64,
}

/// The book and what accounts may trade on it.
#[derive(Clone, Debug, Default)]
pub struct Book {
    last_id: u64,
    orders: BTreeMap<u64, Order>,
    bids: BTreeMap<u32, VecDeque<u64>>,
    asks: BTreeMap<u32, VecDeque<u64>>,
    balances: BTreeMap<AccountId, Balance>,
}

/// Units that an account may trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance {
    base: U256,
    quote: U256,
}

impl Book {
    /// Does an operation of the book; others change nothing.
    ///
    /// # Errors
    /// [`Refusal::Book`] where the contract would revert; the book may then have done a part.
    pub fn apply(&mut self, from: AccountId, operation: &Operation) -> Result<(), Refusal> {
        match operation {
            Operation::FundBook { asset, amount } => self.fund(from, *asset, U256::from(*amount)),
            Operation::PlaceOrder { bid, tick, lots } => self.place(from, *bid, *tick, *lots).map(drop),
            Operation::CancelOrder { order } => self.cancel(from, *order),
            _ => Ok(()),
        }
    }

    /// Trades with what waits at `tick` or better, and lets the rest wait.
    ///
    /// # Errors
    /// [`Refusal::Book`] if the account cannot pay.
    pub fn place(&mut self, owner: AccountId, bid: bool, tick: u32, lots: u64) -> Result<Placed, Refusal> {
        self.last_id += 1;
        let (mut rested, mut moved) = (lots, U256::ZERO);
        while let Some(best) = self.best(!bid).filter(|best| if bid { *best <= tick } else { *best >= tick }) {
            if rested == 0 {
                break;
            }
            let filled = self.fill(!bid, best, rested);
            moved += worth(best, filled);
            rested -= filled;
        }
        let filled = lots - rested;
        let balance = self.balances.entry(owner).or_default();
        if bid {
            balance.quote = less(balance.quote, moved + worth(tick, rested))?;
            balance.base += base(filled);
        } else {
            balance.base = less(balance.base, base(lots))?;
            balance.quote += moved;
        }
        if rested > 0 {
            self.orders.insert(self.last_id, Order { owner, bid, tick, lots: rested });
            let id = self.last_id;
            self.side(bid).entry(tick).or_default().push_back(id);
        }
        Ok(Placed { id: self.last_id, filled, rested })
    }

    /// Takes an order out.
    ///
    /// # Errors
    /// [`Refusal::Book`] for an order that does not wait or is somebody else's.
    pub fn cancel(&mut self, owner: AccountId, id: u64) -> Result<(), Refusal> {
        let order = self.orders.get(&id).copied().ok_or(Refusal::Book("OrderUnknown"))?;
        if order.owner != owner {
            return Err(Refusal::Book("NotOrderOwner"));
        }
        self.orders.remove(&id);
        let side = self.side(order.bid);
        if let Some(level) = side.get_mut(&order.tick) {
            level.retain(|other| *other != id);
            if level.is_empty() {
                side.remove(&order.tick);
            }
        }
        let balance = self.balances.entry(owner).or_default();
        if order.bid {
            balance.quote += worth(order.tick, order.lots);
        } else {
            balance.base += base(order.lots);
        }
        Ok(())
    }

    /// An order that waits.
    #[must_use]
    pub fn order(&self, id: u64) -> Option<Order> {
        self.orders.get(&id).copied()
    }

    /// The name of the latest order.
    #[must_use]
    pub const fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The best price of a side.
    #[must_use]
    pub fn best(&self, bid: bool) -> Option<u32> {
        if bid { self.bids.keys().next_back().copied() } else { self.asks.keys().next().copied() }
    }

    /// Units of base and of quote that each account may trade.
    pub fn balances(&self) -> impl Iterator<Item = (AccountId, U256, U256)> {
        self.balances.iter().map(|(id, balance)| (*id, balance.base, balance.quote))
    }

    /// Units of base that the book owes, to accounts and to those whose orders are filled.
    #[must_use]
    pub fn base(&self) -> U256 {
        let free: U256 = self.balances.values().map(|balance| balance.base).sum();
        let locked = self.orders.values().filter(|order| !order.bid).map(|order| base(order.lots));
        free + locked.sum::<U256>()
    }

    /// Units of quote that the book owes, as for base.
    #[must_use]
    pub fn quote(&self) -> U256 {
        let free: U256 = self.balances.values().map(|balance| balance.quote).sum();
        let locked = self.orders.values().filter(|order| order.bid).map(|order| worth(order.tick, order.lots));
        free + locked.sum::<U256>()
    }

    fn fund(&mut self, owner: AccountId, asset: TokenId, amount: U256) -> Result<(), Refusal> {
        let balance = self.balances.entry(owner).or_default();
        match asset {
            BASE => balance.base += amount,
            QUOTE => balance.quote += amount,
            _ => return Err(Refusal::Book("TokenUnknown")),
        }
        Ok(())
    }

    /// Fills waiting orders of one price, oldest first, and pays their owners; returns the lots filled.
    fn fill(&mut self, bid: bool, tick: u32, lots: u64) -> u64 {
        let mut left = lots;
        let mut level = self.side(bid).remove(&tick).unwrap_or_default();
        while let (Some(id), true) = (level.front().copied(), left > 0) {
            let Some(order) = self.orders.get_mut(&id) else { break };
            let filled = order.lots.min(left);
            left -= filled;
            order.lots -= filled;
            let balance = self.balances.entry(order.owner).or_default();
            if bid {
                balance.base += base(filled);
            } else {
                balance.quote += worth(tick, filled);
            }
            if order.lots == 0 {
                self.orders.remove(&id);
                level.pop_front();
            }
        }
        if !level.is_empty() {
            self.side(bid).insert(tick, level);
        }
        lots - left
    }

    const fn side(&mut self, bid: bool) -> &mut BTreeMap<u32, VecDeque<u64>> {
        if bid { &mut self.bids } else { &mut self.asks }
    }
}

fn base(lots: u64) -> U256 {
    U256::from(lots) * U256::from(LOT_SIZE)
}

fn worth(tick: u32, lots: u64) -> U256 {
    U256::from(lots) * U256::from(tick) * U256::from(TICK_SIZE)
}

fn less(balance: U256, amount: U256) -> Result<U256, Refusal> {
    balance.checked_sub(amount).ok_or(Refusal::Book("InsufficientBalance"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: AccountId = AccountId(2);
    const BOB: AccountId = AccountId(3);

    fn book() -> Book {
        let mut book = Book::default();
        for (owner, asset) in [(ANN, BASE), (ANN, QUOTE), (BOB, BASE), (BOB, QUOTE)] {
            book.fund(owner, asset, U256::from(1_000 * LOT_SIZE)).unwrap();
        }
        book
    }

    #[test]
    fn the_best_price_trades_first_and_then_the_oldest_order() {
        let mut book = book();
        let asks = [(102, 5), (101, 1), (101, 2), (103, 9)];
        let ids = asks.map(|(tick, lots)| book.place(ANN, false, tick, lots).unwrap().id);
        assert_eq!(ids, [1, 2, 3, 4]);
        let placed = book.place(BOB, true, 102, 2).unwrap();
        assert_eq!(placed, Placed { id: 5, filled: 2, rested: 0 });
        assert_eq!((book.order(2), book.order(3).unwrap().lots), (None, 1));
        let placed = book.place(BOB, true, 102, 9).unwrap();
        assert_eq!(placed, Placed { id: 6, filled: 6, rested: 3 });
        assert_eq!((book.best(true), book.best(false)), (Some(102), Some(103)));
    }

    #[test]
    fn a_trade_is_at_the_price_that_waited_and_nothing_is_made_or_lost() {
        let mut book = book();
        let before = (book.base(), book.quote());
        book.place(ANN, false, 100, 4).unwrap();
        book.place(BOB, true, 150, 3).unwrap();
        let paid = U256::from(1_000 * LOT_SIZE) - worth(100, 3);
        assert_eq!(book.balances[&BOB], Balance { base: base(1_003), quote: paid });
        book.place(BOB, true, 90, 7).unwrap();
        assert_eq!((book.base(), book.quote()), before);
        book.cancel(BOB, 3).unwrap();
        book.cancel(ANN, 1).unwrap();
        assert_eq!((book.base(), book.quote()), before);
        assert_eq!(book.balances[&BOB].quote, paid);
        assert_eq!((book.best(true), book.best(false)), (None, None));
    }

    #[test]
    fn wrong_calls_are_refused() {
        let mut book = book();
        book.place(ANN, true, 100, 1).unwrap();
        assert_eq!(book.cancel(BOB, 1), Err(Refusal::Book("NotOrderOwner")));
        assert_eq!(book.cancel(BOB, 2), Err(Refusal::Book("OrderUnknown")));
        assert_eq!(book.place(BOB, false, 101, 1_001), Err(Refusal::Book("InsufficientBalance")));
        assert_eq!(book.fund(BOB, TokenId(2), U256::ZERO), Err(Refusal::Book("TokenUnknown")));
    }
}
