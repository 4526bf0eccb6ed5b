//! What the operations act on: which contracts there are, and where.
//!
//! Every address follows from the owner's address and its first nonce (EIP-161 creation), those of pairs from
//! the factory and the two tokens (EIP-1014), so that transactions can be signed before anything is deployed.
//!
//! Token i < markets is also the asset of market i. Token `markets` is the asset of one market more, the one
//! whose price falls before the clock starts: what the liquidated accounts have as collateral, and nobody else.

use alloy_primitives::{Address, keccak256};

use crate::{
    artifacts::Contract,
    calldata::Calldata,
    expect::{BASE, LOT_SIZE, QUOTE, TICK_SIZE},
    shapes::{Scale, Shape},
};

/// Index of a token in [`World::tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u16);

/// Index of a pool in [`World::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

impl TokenId {
    /// As an index into a list of tokens.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl PoolId {
    /// As an index into a list of pools.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A pair of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The token with the lower address.
    pub token0: TokenId,
    /// The token with the higher address.
    pub token1: TokenId,
    /// Where the pair is.
    pub address: Address,
}

/// Who may move tokens of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spender {
    /// The router of the exchange.
    Router,
    /// The lending market.
    Lending,
    /// The order book.
    OrderBook,
}

/// The contracts of a plan.
#[derive(Clone, Debug)]
pub struct World {
    /// Contracts in the order in which the owner creates them, with their addresses.
    pub deployments: Vec<(Deployment, Address)>,
    /// Addresses of the tokens.
    pub tokens: Vec<Address>,
    /// Pairs of the exchange, hottest first.
    pub pools: Vec<Pool>,
    /// Lending markets that senders use; one more is for the collateral that loses its worth.
    pub markets: u16,
    /// Creates pairs; zero where there is no exchange.
    pub factory: Address,
    /// What traders call; zero where there is no exchange.
    pub router: Address,
    /// Where prices come from; zero where there is no market.
    pub oracle: Address,
    /// The lending market; zero where there is none.
    pub lending: Address,
    /// The order book; zero where there is none.
    pub book: Address,
}

/// A contract with what tells it from others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// A token.
    Token(TokenId),
    /// The factory of pairs.
    PairFactory,
    /// The router.
    Router,
    /// The price oracle.
    PriceOracle,
    /// The lending market.
    Lending,
    /// The order book.
    OrderBook,
}

/// How many contracts of each kind there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Tokens.
    pub tokens: u16,
    /// The two tokens of each pool of the exchange; there is an exchange if there is a pool.
    pub pools: Vec<(TokenId, TokenId)>,
    /// Lending markets that senders use.
    pub markets: u16,
    /// Whether there is an order book, of the first two tokens.
    pub book: bool,
}

impl Layout {
    /// What a shape needs: tokens enough for its pools to be different, and one for each market.
    #[must_use]
    pub fn of(shape: Shape, scale: Scale) -> Self {
        let markets = if shape.has_market() { scale.markets } else { 0 };
        let pools: Vec<_> = pairs_of_tokens().take(usize::from(shape.pools(scale))).collect();
        let pooled = pools.iter().map(|(_, high)| high.0 + 1).max().unwrap_or_default();
        let listed = if markets == 0 { 0 } else { markets + 1 };
        let tokens = pooled.max(listed).max(u16::from(shape.has_token_transfers()));
        Self { tokens, pools, markets, book: false }
    }
}

/// Pairs of tokens in the order (0,1) (0,2) (1,2) (0,3) ...
fn pairs_of_tokens() -> impl Iterator<Item = (TokenId, TokenId)> {
    (1_u16..).flat_map(|high| (0..high).map(move |low| (TokenId(low), TokenId(high))))
}

impl Deployment {
    /// The contract that is deployed.
    #[must_use]
    pub const fn contract(self) -> Contract {
        match self {
            Self::Token(_) => Contract::Token,
            Self::PairFactory => Contract::PairFactory,
            Self::Router => Contract::Router,
            Self::PriceOracle => Contract::PriceOracle,
            Self::Lending => Contract::Lending,
            Self::OrderBook => Contract::OrderBook,
        }
    }
}

/// Seconds for which a price is valid: longer than any run.
const PRICE_AGE_MAX: u128 = 1 << 32;

impl World {
    /// Lays out the contracts for an owner whose next nonce is `owner_nonce`.
    #[must_use]
    pub fn new(layout: &Layout, owner: Address, owner_nonce: u64) -> Self {
        let mut world = Self {
            deployments: Vec::new(),
            tokens: Vec::new(),
            pools: Vec::new(),
            markets: layout.markets,
            factory: Address::ZERO,
            router: Address::ZERO,
            oracle: Address::ZERO,
            lending: Address::ZERO,
            book: Address::ZERO,
        };
        let mut nonce = owner_nonce..;
        let mut deploy = |deployment| {
            let address = owner.create(nonce.next().unwrap_or_default());
            world.deployments.push((deployment, address));
            address
        };
        world.tokens = (0..layout.tokens).map(|token| deploy(Deployment::Token(TokenId(token)))).collect();
        if !layout.pools.is_empty() {
            world.factory = deploy(Deployment::PairFactory);
            world.router = deploy(Deployment::Router);
        }
        if layout.markets > 0 {
            world.oracle = deploy(Deployment::PriceOracle);
            world.lending = deploy(Deployment::Lending);
        }
        if layout.book {
            world.book = deploy(Deployment::OrderBook);
        }
        world.pools = world.all_pools(&layout.pools);
        world
    }

    /// The address of a token.
    ///
    /// # Panics
    /// For a token of another plan.
    #[must_use]
    pub fn token(&self, token: TokenId) -> Address {
        self.tokens[token.index()]
    }

    /// A pool.
    ///
    /// # Panics
    /// For a pool of another plan.
    #[must_use]
    pub fn pool(&self, pool: PoolId) -> Pool {
        self.pools[pool.index()]
    }

    /// Every token.
    pub fn token_ids(&self) -> impl Iterator<Item = TokenId> + use<> {
        (0..u16::try_from(self.tokens.len()).unwrap_or(u16::MAX)).map(TokenId)
    }

    /// Every pool.
    pub fn pool_ids(&self) -> impl Iterator<Item = PoolId> + use<> {
        (0..u16::try_from(self.pools.len()).unwrap_or(u16::MAX)).map(PoolId)
    }

    /// The assets of all markets, the one that loses its worth last; empty without a market.
    pub fn assets(&self) -> impl Iterator<Item = TokenId> + use<> {
        let count = if self.markets == 0 { 0 } else { self.markets + 1 };
        (0..count).map(TokenId)
    }

    /// The collateral that loses its worth.
    #[must_use]
    pub const fn falling_asset(&self) -> TokenId {
        TokenId(self.markets)
    }

    /// The address of a spender.
    #[must_use]
    pub const fn spender(&self, spender: Spender) -> Address {
        match spender {
            Spender::Router => self.router,
            Spender::Lending => self.lending,
            Spender::OrderBook => self.book,
        }
    }

    /// Creation code and constructor arguments of a deployment.
    #[must_use]
    pub fn creation(&self, deployment: Deployment) -> Calldata {
        let data = Calldata::creation(&deployment.contract().creation_code());
        match deployment {
            Deployment::Token(token) => {
                let (name, symbol) = (format!("Sluice Token {}", token.0), format!("T{}", token.0));
                data.number(0x60).number(0xa0).number(18).text(&name).text(&symbol)
            }
            Deployment::PairFactory => data,
            Deployment::Router => data.address(self.factory),
            Deployment::PriceOracle => data.number(PRICE_AGE_MAX),
            Deployment::Lending => data.address(self.oracle),
            Deployment::OrderBook => {
                let tokens = data.address(self.token(BASE)).address(self.token(QUOTE));
                tokens.number(LOT_SIZE).number(TICK_SIZE)
            }
        }
    }

    fn all_pools(&self, pairs: &[(TokenId, TokenId)]) -> Vec<Pool> {
        let code_hash = keccak256(Contract::Pair.creation_code());
        let pool = |(a, b): (TokenId, TokenId)| {
            let (token0, token1) = if self.token(a) < self.token(b) { (a, b) } else { (b, a) };
            let salt = keccak256([self.token(token0).as_slice(), self.token(token1).as_slice()].concat());
            Pool { token0, token1, address: self.factory.create2(salt, code_hash) }
        };
        pairs.iter().copied().map(pool).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn world(shape: Shape) -> World {
        World::new(&Layout::of(shape, Scale { pools: 50, markets: 4 }), Address::with_last_byte(9), 0)
    }

    #[test]
    fn a_shape_deploys_what_it_uses_and_no_more() {
        let counts = |shape| {
            let world = world(shape);
            (world.tokens.len(), world.pools.len(), world.assets().count(), world.deployments.len())
        };
        assert_eq!(counts(Shape::Transfer), (0, 0, 0, 0));
        assert_eq!(counts(Shape::Erc20), (1, 0, 0, 1));
        assert_eq!(counts(Shape::Swap), (11, 50, 0, 13));
        assert_eq!(counts(Shape::HotPool), (2, 1, 0, 4));
        assert_eq!(counts(Shape::Lend), (5, 0, 5, 7));
        assert_eq!(counts(Shape::Mixed), (11, 50, 5, 15));
    }

    #[test]
    fn pools_are_pairs_of_different_tokens_in_address_order() {
        let world = world(Shape::Swap);
        let addresses: BTreeSet<Address> = world.pools.iter().map(|pool| pool.address).collect();
        assert_eq!(addresses.len(), world.pools.len());
        assert!(world.pools.iter().all(|pool| world.token(pool.token0) < world.token(pool.token1)));
    }
}
