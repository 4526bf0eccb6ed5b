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
    /// Creates pairs; zero where the shape has no exchange.
    pub factory: Address,
    /// What traders call; zero where the shape has no exchange.
    pub router: Address,
    /// Where prices come from; zero where the shape has no market.
    pub oracle: Address,
    /// The lending market; zero where the shape has none.
    pub lending: Address,
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
        }
    }
}

/// Seconds for which a price is valid: longer than any run.
const PRICE_AGE_MAX: u128 = 1 << 32;

impl World {
    /// Lays out the contracts of a shape for an owner whose next nonce is `owner_nonce`.
    #[must_use]
    pub fn new(shape: Shape, scale: Scale, owner: Address, owner_nonce: u64) -> Self {
        let mut world = Self {
            deployments: Vec::new(),
            tokens: Vec::new(),
            pools: Vec::new(),
            markets: if shape.has_market() { scale.markets } else { 0 },
            factory: Address::ZERO,
            router: Address::ZERO,
            oracle: Address::ZERO,
            lending: Address::ZERO,
        };
        let mut nonce = owner_nonce..;
        let mut deploy = |deployment| {
            let address = owner.create(nonce.next().unwrap_or_default());
            world.deployments.push((deployment, address));
            address
        };
        world.tokens = (0..tokens(shape, scale)).map(|token| deploy(Deployment::Token(TokenId(token)))).collect();
        if shape.has_exchange() {
            world.factory = deploy(Deployment::PairFactory);
            world.router = deploy(Deployment::Router);
        }
        if shape.has_market() {
            world.oracle = deploy(Deployment::PriceOracle);
            world.lending = deploy(Deployment::Lending);
        }
        if shape.has_exchange() {
            world.pools = world.all_pools(shape.pools(scale));
        }
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
        }
    }

    /// The first `count` pairs of tokens, in the order (0,1) (0,2) (1,2) (0,3) ...
    fn all_pools(&self, count: u16) -> Vec<Pool> {
        let code_hash = keccak256(Contract::Pair.creation_code());
        let pairs = self.token_ids().flat_map(|high| (0..high.0).map(move |low| (TokenId(low), high)));
        let pool = |(a, b): (TokenId, TokenId)| {
            let (token0, token1) = if self.token(a) < self.token(b) { (a, b) } else { (b, a) };
            let salt = keccak256([self.token(token0).as_slice(), self.token(token1).as_slice()].concat());
            Pool { token0, token1, address: self.factory.create2(salt, code_hash) }
        };
        pairs.take(usize::from(count)).map(pool).collect()
    }
}

/// Tokens a shape needs: enough for its pools to be different, and one for each market.
fn tokens(shape: Shape, scale: Scale) -> u16 {
    let pools = if shape.has_exchange() { u32::from(shape.pools(scale)) } else { 0 };
    let pooled = (1_u16..).find(|count| u32::from(*count) * (u32::from(*count) - 1) / 2 >= pools).unwrap_or(u16::MAX);
    let listed = if shape.has_market() { scale.markets + 1 } else { 0 };
    match shape {
        Shape::Transfer => 0,
        _ => pooled.max(listed),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn world(shape: Shape) -> World {
        World::new(shape, Scale { pools: 50, markets: 4 }, Address::with_last_byte(9), 0)
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
