//! What must be true at the end: plain integer models of the tokens, the exchange, the market and the order book.
//!
//! A [`Model`] starts with nothing deployed. Fed with every operation of a plan in the order in which the
//! chain included it, each with the time of its block, it knows every balance, reserve, index and position to
//! the unit. The models follow `contracts/src/*.sol`, and `contracts/model.mjs` is the same in JavaScript.

mod book;
mod exchange;
mod ledger;
mod lending;

pub use book::{BASE, Book, LOT_SIZE, Order, Placed, QUOTE, TICK_SIZE};
pub use exchange::PoolModel;
pub use ledger::Ledger;
pub use lending::{MARKET, MarketConfig, Position, Reserve};

use std::collections::BTreeMap;

use alloy_primitives::U256;

use crate::{
    accounts::AccountId,
    operation::Operation,
    world::{PoolId, Spender, TokenId, World},
};

/// Why the model expects a transaction to fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The account has fewer tokens than it gives.
    #[error("{holder:?} has {balance} of {token:?} and gives {amount}")]
    Balance {
        /// Who gives.
        holder: Holder,
        /// Which token.
        token: TokenId,
        /// Units held.
        balance: U256,
        /// Units given.
        amount: U256,
    },
    /// The spender was not approved.
    #[error("{0:?} has not let {2:?} take {1:?}")]
    Allowance(AccountId, TokenId, Spender),
    /// The market refuses; the name is that of its error.
    #[error("the market refuses: {0}")]
    Market(&'static str),
    /// The pool refuses; the name is that of its error.
    #[error("the pool refuses: {0}")]
    Pool(&'static str),
    /// The order book refuses; the name is that of its error.
    #[error("the order book refuses: {0}")]
    Book(&'static str),
}

/// Who can hold tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// An account.
    Account(AccountId),
    /// A pair of the exchange.
    Pool(PoolId),
    /// The lending market.
    Lending,
    /// The order book.
    OrderBook,
}

/// Everything the contracts hold.
#[derive(Clone, Debug, Default)]
pub struct Model {
    tokens: BTreeMap<(TokenId, Holder), U256>,
    supplies: BTreeMap<TokenId, U256>,
    allowances: std::collections::BTreeSet<(AccountId, TokenId, Spender)>,
    pools: BTreeMap<PoolId, PoolModel>,
    reserves: BTreeMap<TokenId, Reserve>,
    positions: BTreeMap<(TokenId, AccountId), Position>,
    prices: BTreeMap<TokenId, U256>,
    book: Book,
}

impl Model {
    /// Does what the chain did at `timestamp`, in seconds since 1970.
    ///
    /// # Errors
    /// [`Refusal`] where the contracts would have reverted; the model may then have done a part.
    pub fn apply(
        &mut self,
        world: &World,
        from: AccountId,
        operation: &Operation,
        timestamp: u64,
    ) -> Result<(), Refusal> {
        let sender = Holder::Account(from);
        match operation {
            Operation::Transfer { .. } | Operation::Deploy(_) | Operation::TransferOracle { .. } => {}
            Operation::TokenTransfer { token, to, amount } => {
                self.pay(*token, sender, Holder::Account(*to), U256::from(*amount))?;
            }
            Operation::Mint { token, to, amount } => self.mint(*token, to.clone(), U256::from(*amount)),
            Operation::Approve { token, spender } => {
                self.allowances.insert((from, *token, *spender));
            }
            Operation::Swap { pool, sell_token0, amount } => {
                self.swap(world, from, *pool, *sell_token0, U256::from(*amount))?;
            }
            Operation::AddLiquidity { pool, amount } => self.add_liquidity(world, from, *pool, U256::from(*amount))?,
            Operation::SetPrice { asset, price } => {
                self.prices.insert(*asset, U256::from(*price));
            }
            Operation::ListReserve { asset } => {
                self.reserves.insert(*asset, Reserve::new(timestamp));
            }
            Operation::FundBook { asset, amount } => {
                self.pull(*asset, from, Spender::OrderBook, Holder::OrderBook, U256::from(*amount))?;
                self.book.apply(from, operation)?;
            }
            Operation::PlaceOrder { .. } | Operation::CancelOrder { .. } => self.book.apply(from, operation)?,
            _ => self.lend(from, operation, timestamp)?,
        }
        Ok(())
    }

    /// Units of a token that somebody holds.
    #[must_use]
    pub fn balance(&self, token: TokenId, holder: Holder) -> U256 {
        self.tokens.get(&(token, holder)).copied().unwrap_or_default()
    }

    /// Units of a token in existence.
    #[must_use]
    pub fn supply(&self, token: TokenId) -> U256 {
        self.supplies.get(&token).copied().unwrap_or_default()
    }

    /// Every token and holder of it that ever had some.
    pub fn holdings(&self) -> impl Iterator<Item = (TokenId, Holder, U256)> {
        self.tokens.iter().map(|((token, holder), balance)| (*token, *holder, *balance))
    }

    /// A pool; empty if nobody provided liquidity.
    #[must_use]
    pub fn pool(&self, pool: PoolId) -> PoolModel {
        self.pools.get(&pool).copied().unwrap_or_default()
    }

    /// A market with interest up to a time, `None` if it is not listed.
    #[must_use]
    pub fn reserve(&self, asset: TokenId, timestamp: u64) -> Option<Reserve> {
        self.reserves.get(&asset).map(|reserve| reserve.accrued(timestamp))
    }

    /// The order book; empty if there is none.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// Every position that ever was.
    pub fn positions(&self) -> impl Iterator<Item = (TokenId, AccountId, Position)> {
        self.positions.iter().map(|((asset, account), position)| (*asset, *account, *position))
    }

    /// Checks what must hold in the model whatever was done: nothing is made or lost.
    ///
    /// # Errors
    /// A sentence that names what does not add up.
    pub fn check(&self) -> Result<(), String> {
        for (token, supply) in &self.supplies {
            let held: U256 = self.holdings().filter(|(held, ..)| held == token).map(|(.., units)| units).sum();
            if held != *supply {
                return Err(format!("{token:?}: {held} held, {supply} in existence"));
            }
        }
        for (pool, model) in &self.pools {
            if model.shares.is_zero() {
                return Err(format!("{pool:?} has no shares"));
            }
        }
        for (asset, reserve) in &self.reserves {
            let of_asset = || self.positions().filter(|(held, ..)| held == asset).map(|(.., position)| position);
            let (supply, debt): (U256, U256) =
                (of_asset().map(|at| at.scaled_supply).sum(), of_asset().map(|at| at.scaled_debt).sum());
            if (supply, debt) != (reserve.scaled_supply, reserve.scaled_debt) {
                return Err(format!("{asset:?}: positions add up to {supply} and {debt}, not to {reserve:?}"));
            }
            let cash = self.balance(*asset, Holder::Lending);
            if cash != reserve.cash {
                return Err(format!("{asset:?}: the market holds {cash} and counts {}", reserve.cash));
            }
        }
        for (asset, owed) in [(BASE, self.book.base()), (QUOTE, self.book.quote())] {
            let held = self.balance(asset, Holder::OrderBook);
            if held != owed {
                return Err(format!("{asset:?}: the order book holds {held} and owes {owed}"));
            }
        }
        Ok(())
    }

    fn pay(&mut self, token: TokenId, from: Holder, to: Holder, amount: U256) -> Result<(), Refusal> {
        let balance = self.balance(token, from);
        let left = balance.checked_sub(amount).ok_or(Refusal::Balance { holder: from, token, balance, amount })?;
        self.tokens.insert((token, from), left);
        *self.tokens.entry((token, to)).or_default() += amount;
        Ok(())
    }

    /// As `pay`, by a contract that must have been approved.
    fn pull(
        &mut self,
        token: TokenId,
        from: AccountId,
        spender: Spender,
        to: Holder,
        amount: U256,
    ) -> Result<(), Refusal> {
        if !self.allowances.contains(&(from, token, spender)) {
            return Err(Refusal::Allowance(from, token, spender));
        }
        self.pay(token, Holder::Account(from), to, amount)
    }

    fn mint(&mut self, token: TokenId, to: std::ops::Range<u32>, amount: U256) {
        for id in to {
            *self.tokens.entry((token, Holder::Account(AccountId(id)))).or_default() += amount;
            *self.supplies.entry(token).or_default() += amount;
        }
    }
}
