//! Orders about a mid price: about half of them match at once, the others wait; some that wait are cancelled.

use std::collections::VecDeque;

use crate::{
    accounts::{AccountId, Accounts},
    expect::{BASE, Book, QUOTE},
    operation::Operation,
    plan::{COLLATERAL, Step},
    rng::Rng,
};

/// The price about which orders are placed.
const MID: u32 = 10_000;

/// Ticks from the mid within which orders wait; an order that is to match takes any of these prices.
const WIDTH: u32 = 16;

/// Lots of an order that waits and of one that is to match, at most. The second is less, because what waits is
/// also cancelled; it bounds the gas of an order, which fills as many others at most.
const LOTS_MAX: (u64, u64) = (6, 5);

/// Of a hundred operations, those that cancel, and those that cancel or wait.
const SHARES: (u64, u64) = (13, 58);

/// Draws the operations of an order book, with a book of its own to know which orders wait.
#[derive(Debug, Default)]
pub(super) struct Orders {
    book: Book,
    /// Orders that each sender placed, oldest first; some may have been filled.
    own: Vec<VecDeque<u64>>,
}

impl Orders {
    /// The book as the set-up leaves it.
    pub(super) fn new(accounts: &Accounts) -> Self {
        let mut orders = Self { book: Book::default(), own: vec![VecDeque::new(); accounts.senders().len()] };
        for Step { from, operation } in deposits(accounts) {
            orders.book.apply(from, &operation).expect("the book takes any deposit of its tokens");
        }
        for Step { from, operation } in quotes(accounts) {
            let sender = from.index() - accounts.sender(0).index();
            if let Operation::PlaceOrder { bid, tick, lots } = operation {
                orders.place(sender, from, bid, tick, lots);
            }
        }
        orders
    }

    /// The next operation of the sender at a position.
    pub(super) fn draw(&mut self, rng: &mut Rng, sender: usize, from: AccountId) -> Operation {
        let kind = rng.below(100);
        if kind < SHARES.0
            && let Some(order) = self.waiting(sender)
        {
            self.book.cancel(from, order).expect("the order waits and is the sender's");
            return Operation::CancelOrder { order };
        }
        let bid = rng.below(2) == 0;
        let offset = u32::try_from(rng.below(u64::from(WIDTH))).unwrap_or_default() + 1;
        let waits = kind < SHARES.1;
        let lots = 1 + rng.below(if waits { LOTS_MAX.0 } else { LOTS_MAX.1 });
        let tick = match (waits, bid) {
            (true, true) => MID - offset,
            (true, false) => MID + offset,
            (false, true) => MID + WIDTH,
            (false, false) => MID - WIDTH,
        };
        self.place(sender, from, bid, tick, lots);
        Operation::PlaceOrder { bid, tick, lots }
    }

    #[cfg(test)]
    pub(super) fn into_book(self) -> Book {
        self.book
    }

    fn place(&mut self, sender: usize, from: AccountId, bid: bool, tick: u32, lots: u64) {
        let placed = self.book.place(from, bid, tick, lots).expect("senders deposit more than all their orders cost");
        if placed.rested > 0 {
            self.own[sender].push_back(placed.id);
        }
    }

    /// The sender's oldest order that waits.
    fn waiting(&mut self, sender: usize) -> Option<u64> {
        while let Some(id) = self.own[sender].pop_front() {
            if self.book.order(id).is_some() {
                return Some(id);
            }
        }
        None
    }
}

/// What senders deposit before the clock starts.
pub(super) fn deposits(accounts: &Accounts) -> Vec<Step> {
    let fund =
        |from| [BASE, QUOTE].map(|asset| Step { from, operation: Operation::FundBook { asset, amount: COLLATERAL } });
    accounts.senders().flat_map(fund).collect()
}

/// The orders that wait when the clock starts: a bid and an ask of each sender.
pub(crate) fn quotes(accounts: &Accounts) -> Vec<Step> {
    let quote = |(position, from): (u32, AccountId)| {
        let (offset, lots) = (position % WIDTH + 1, 1 + u64::from(position) % LOTS_MAX.0);
        let place = |bid, tick| Step { from, operation: Operation::PlaceOrder { bid, tick, lots } };
        [place(true, MID - offset), place(false, MID + offset)]
    };
    (0..).zip(accounts.senders()).flat_map(quote).collect()
}
