//! The constant-product pool in integers.
//!
//! Source: `contracts/src/Exchange.sol`.

use alloy_primitives::U256;

use super::{Holder, Model, Refusal};
use crate::{
    accounts::AccountId,
    world::{PoolId, Spender, World},
};

/// Reserves of a pool and the shares in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolModel {
    /// Units of the token with the lower address.
    pub reserve0: U256,
    /// Units of the token with the higher address.
    pub reserve1: U256,
    /// Shares issued, the locked ones included.
    pub shares: U256,
}

/// Shares locked by the first deposit.
const SHARES_MIN: U256 = U256::from_limbs([1_000, 0, 0, 0]);

impl PoolModel {
    /// Sells `amount`; returns what is paid, after the fee of 0.3 %, rounded down.
    ///
    /// # Errors
    /// [`Refusal::Pool`] for a pool without liquidity.
    pub fn swap(&mut self, sell_token0: bool, amount: U256) -> Result<U256, Refusal> {
        let (sold, bought) = if sell_token0 {
            (&mut self.reserve0, &mut self.reserve1)
        } else {
            (&mut self.reserve1, &mut self.reserve0)
        };
        if sold.is_zero() || bought.is_zero() {
            return Err(Refusal::Pool("InsufficientLiquidity"));
        }
        let less_fee = amount * U256::from(997);
        let paid = less_fee * *bought / (*sold * U256::from(1_000) + less_fee);
        if paid.is_zero() {
            return Err(Refusal::Pool("InsufficientOutput"));
        }
        *sold += amount;
        *bought -= paid;
        Ok(paid)
    }

    /// Deposits both tokens into an empty pool.
    ///
    /// # Errors
    /// [`Refusal::Pool`] for a deposit worth less than the locked shares.
    pub fn open(amount0: U256, amount1: U256) -> Result<Self, Refusal> {
        let shares = (amount0 * amount1).root(2);
        if shares <= SHARES_MIN {
            return Err(Refusal::Pool("InsufficientLiquidityMinted"));
        }
        Ok(Self { reserve0: amount0, reserve1: amount1, shares })
    }
}

impl Model {
    pub(super) fn swap(
        &mut self,
        world: &World,
        from: AccountId,
        pool: PoolId,
        sell_token0: bool,
        amount: U256,
    ) -> Result<(), Refusal> {
        let paid = self.pools.entry(pool).or_default().swap(sell_token0, amount)?;
        let pair = world.pool(pool);
        let (sold, bought) = if sell_token0 { (pair.token0, pair.token1) } else { (pair.token1, pair.token0) };
        self.pull(sold, from, Spender::Router, Holder::Pool(pool), amount)?;
        self.pay(bought, Holder::Pool(pool), Holder::Account(from), paid)
    }

    pub(super) fn add_liquidity(
        &mut self,
        world: &World,
        from: AccountId,
        pool: PoolId,
        amount: U256,
    ) -> Result<(), Refusal> {
        let pair = world.pool(pool);
        self.pull(pair.token0, from, Spender::Router, Holder::Pool(pool), amount)?;
        self.pull(pair.token1, from, Spender::Router, Holder::Pool(pool), amount)?;
        self.pools.insert(pool, PoolModel::open(amount, amount)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_pays_what_the_contract_computes() {
        let mut pool = PoolModel::open(U256::from(1_000_000), U256::from(4_000_000)).unwrap();
        assert_eq!(pool.shares, U256::from(2_000_000));
        // 10,000 less 0.3 % is 9,970: 9,970 * 4,000,000 / 1,009,970 = 39,486.3.
        assert_eq!(pool.swap(true, U256::from(10_000)).unwrap(), U256::from(39_486));
        assert_eq!((pool.reserve0, pool.reserve1), (U256::from(1_010_000), U256::from(3_960_514)));
    }

    #[test]
    fn the_product_never_falls_and_a_round_trip_never_gains() {
        let mut pool = PoolModel::open(U256::from(10_000_000), U256::from(3_000_000)).unwrap();
        let mut product = pool.reserve0 * pool.reserve1;
        for amount in [1_000_u64, 77_777, 3, 500_000] {
            let amount = U256::from(amount);
            let out = pool.swap(true, amount);
            let Ok(out) = out else { continue };
            let back = pool.swap(false, out).unwrap_or_default();
            assert!(back < amount);
            assert!(pool.reserve0 * pool.reserve1 >= product);
            product = pool.reserve0 * pool.reserve1;
        }
    }

    #[test]
    fn an_empty_pool_does_not_trade() {
        assert_eq!(PoolModel::default().swap(true, U256::from(1)), Err(Refusal::Pool("InsufficientLiquidity")));
    }
}
