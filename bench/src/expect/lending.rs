//! The money market in integers: scaled balances, two indices, simple interest between touches.
//!
//! Source: `contracts/src/Lending.sol`. Health is not modelled: no sender of a plan comes near its limit, and
//! the liquidated accounts stay far below it.

use alloy_primitives::U256;

use super::{Holder, Model, Refusal};
use crate::{
    accounts::AccountId,
    operation::Operation,
    world::{Spender, TokenId},
};

/// How every market of a plan behaves; basis points, rates per year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the contract, which describes them")]
pub struct MarketConfig {
    pub collateral_factor: u16,
    pub liquidation_bonus: u16,
    pub reserve_factor: u16,
    pub kink: u16,
    pub rate_base: u16,
    pub rate_slope: u16,
    pub rate_slope_steep: u16,
}

/// The configuration of every market of a plan.
pub const MARKET: MarketConfig = MarketConfig {
    collateral_factor: 7_500,
    liquidation_bonus: 800,
    reserve_factor: 1_000,
    kink: 8_000,
    rate_base: 100,
    rate_slope: 700,
    rate_slope_steep: 10_000,
};

impl MarketConfig {
    /// The words of the contract's struct.
    #[must_use]
    pub fn words(self) -> [u128; 7] {
        [
            self.collateral_factor,
            self.liquidation_bonus,
            self.reserve_factor,
            self.kink,
            self.rate_base,
            self.rate_slope,
            self.rate_slope_steep,
        ]
        .map(u128::from)
    }
}

/// One market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Ray: what one scaled unit of supply is worth.
    pub supply_index: U256,
    /// Ray: what one scaled unit of debt owes.
    pub borrow_index: U256,
    /// Scaled supply of all accounts.
    pub scaled_supply: U256,
    /// Scaled debt of all accounts.
    pub scaled_debt: U256,
    /// Units held.
    pub cash: U256,
    /// Units that belong to the owner of the market.
    pub fees: U256,
    /// Second of the last accrual.
    pub updated_at: u64,
}

/// What one account has in one market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Supply over the index at its time.
    pub scaled_supply: U256,
    /// Debt over the index at its time.
    pub scaled_debt: U256,
}

const RAY: U256 = U256::from_limbs([11_515_845_246_265_065_472, 54_210_108, 0, 0]);
const WAD: U256 = U256::from_limbs([1_000_000_000_000_000_000, 0, 0, 0]);
const BPS: U256 = U256::from_limbs([10_000, 0, 0, 0]);
const YEAR: U256 = U256::from_limbs([365 * 86_400, 0, 0, 0]);

impl Reserve {
    /// A market that is opened at a time.
    #[must_use]
    pub const fn new(timestamp: u64) -> Self {
        Self {
            supply_index: RAY,
            borrow_index: RAY,
            scaled_supply: U256::ZERO,
            scaled_debt: U256::ZERO,
            cash: U256::ZERO,
            fees: U256::ZERO,
            updated_at: timestamp,
        }
    }

    /// The market with interest up to a time that is not before its last.
    #[must_use]
    pub fn accrued(mut self, timestamp: u64) -> Self {
        let elapsed = U256::from(timestamp.saturating_sub(self.updated_at));
        if elapsed.is_zero() {
            return self;
        }
        self.updated_at = timestamp;
        if self.scaled_debt.is_zero() {
            return self;
        }
        let growth = self.rate() * (RAY / WAD) * elapsed / YEAR;
        let rise = self.borrow_index * growth / RAY;
        self.borrow_index += rise;
        let interest = self.scaled_debt * rise / RAY;
        let earns = !self.scaled_supply.is_zero();
        let fee = if earns { interest * U256::from(MARKET.reserve_factor) / BPS } else { interest };
        self.fees += fee;
        if earns {
            self.supply_index += (interest - fee) * RAY / self.scaled_supply;
        }
        self
    }

    /// What borrowers pay per year, 18 decimals: a line up to the kink and a steeper one beyond it.
    #[must_use]
    pub fn rate(&self) -> U256 {
        let wad = |basis_points: u16| U256::from(basis_points) * WAD / BPS;
        let debt = divide_up(self.scaled_debt * self.borrow_index, RAY);
        if debt.is_zero() {
            return wad(MARKET.rate_base);
        }
        let utilisation = debt * WAD / (self.cash + debt);
        let kink = wad(MARKET.kink);
        if utilisation <= kink {
            return wad(MARKET.rate_base) + wad(MARKET.rate_slope) * utilisation / kink;
        }
        let steep = wad(MARKET.rate_slope_steep) * (utilisation - kink) / (WAD - kink);
        wad(MARKET.rate_base) + wad(MARKET.rate_slope) + steep
    }

    fn take_cash(&mut self, amount: U256) -> Result<(), Refusal> {
        if amount > self.cash.saturating_sub(self.fees) {
            return Err(Refusal::Market("InsufficientLiquidity"));
        }
        self.cash -= amount;
        Ok(())
    }
}

impl Model {
    /// Does an operation of the market.
    pub(super) fn lend(&mut self, from: AccountId, operation: &Operation, timestamp: u64) -> Result<(), Refusal> {
        match operation {
            Operation::Deposit { asset, amount } => self.deposit(from, *asset, U256::from(*amount), timestamp),
            Operation::Withdraw { asset, amount } => self.withdraw(from, *asset, U256::from(*amount), timestamp),
            Operation::Borrow { asset, amount } => self.borrow(from, *asset, U256::from(*amount), timestamp),
            Operation::Repay { asset, amount } => {
                self.accrue(*asset, timestamp)?;
                let paid = self.settle(*asset, from, U256::from(*amount))?;
                self.pull(*asset, from, Spender::Lending, Holder::Lending, paid)
            }
            Operation::Liquidate { debt, collateral, account, amount } => {
                self.liquidate(from, *debt, *collateral, *account, U256::from(*amount), timestamp)
            }
            _ => Ok(()),
        }
    }

    fn deposit(&mut self, from: AccountId, asset: TokenId, amount: U256, timestamp: u64) -> Result<(), Refusal> {
        let reserve = self.accrue(asset, timestamp)?;
        let scaled = amount * RAY / reserve.supply_index;
        if scaled.is_zero() {
            return Err(Refusal::Market("AmountTooSmall"));
        }
        reserve.scaled_supply += scaled;
        reserve.cash += amount;
        self.position(asset, from).scaled_supply += scaled;
        self.pull(asset, from, Spender::Lending, Holder::Lending, amount)
    }

    fn withdraw(&mut self, from: AccountId, asset: TokenId, amount: U256, timestamp: u64) -> Result<(), Refusal> {
        let held = self.position(asset, from).scaled_supply;
        let reserve = self.accrue(asset, timestamp)?;
        let supply = held * reserve.supply_index / RAY;
        if amount > supply {
            return Err(Refusal::Market("InsufficientSupply"));
        }
        reserve.take_cash(amount)?;
        let scaled = if amount == supply { held } else { divide_up(amount * RAY, reserve.supply_index) };
        reserve.scaled_supply -= scaled;
        self.position(asset, from).scaled_supply -= scaled;
        self.pay(asset, Holder::Lending, Holder::Account(from), amount)
    }

    fn borrow(&mut self, from: AccountId, asset: TokenId, amount: U256, timestamp: u64) -> Result<(), Refusal> {
        let reserve = self.accrue(asset, timestamp)?;
        reserve.take_cash(amount)?;
        let scaled = divide_up(amount * RAY, reserve.borrow_index);
        reserve.scaled_debt += scaled;
        self.position(asset, from).scaled_debt += scaled;
        self.pay(asset, Holder::Lending, Holder::Account(from), amount)
    }

    fn liquidate(
        &mut self,
        from: AccountId,
        debt_asset: TokenId,
        collateral_asset: TokenId,
        account: AccountId,
        amount: U256,
        timestamp: u64,
    ) -> Result<(), Refusal> {
        let index = self.accrue(debt_asset, timestamp)?.borrow_index;
        let debt = divide_up(self.position(debt_asset, account).scaled_debt * index, RAY);
        // Whatever the health is, half the debt may be repaid; a plan stays below that.
        if amount > debt / U256::from(2) {
            return Err(Refusal::Market("close factor"));
        }
        let supply_index = self.accrue(collateral_asset, timestamp)?.supply_index;
        let price = |asset: TokenId| self.prices.get(&asset).copied().ok_or(Refusal::Market("PriceUnknown"));
        let debt_side = price(debt_asset)? * (BPS + U256::from(MARKET.liquidation_bonus));
        let seized = amount * debt_side / (price(collateral_asset)? * BPS);
        let held = self.position(collateral_asset, account).scaled_supply;
        if seized.is_zero() || seized >= held * supply_index / RAY {
            return Err(Refusal::Market("InsufficientSupply"));
        }
        let repaid = self.settle(debt_asset, account, amount)?;
        let scaled = seized * RAY / supply_index;
        self.position(collateral_asset, account).scaled_supply -= scaled;
        self.position(collateral_asset, from).scaled_supply += scaled;
        self.pull(debt_asset, from, Spender::Lending, Holder::Lending, repaid)
    }

    /// Takes up to `amount` off a debt; returns what is paid.
    fn settle(&mut self, asset: TokenId, account: AccountId, amount: U256) -> Result<U256, Refusal> {
        let scaled_debt = self.position(asset, account).scaled_debt;
        let reserve = self.reserves.get_mut(&asset).ok_or(Refusal::Market("ReserveUnknown"))?;
        let debt = divide_up(scaled_debt * reserve.borrow_index, RAY);
        let paid = amount.min(debt);
        let scaled = if paid == debt { scaled_debt } else { paid * RAY / reserve.borrow_index };
        if scaled.is_zero() {
            return Err(Refusal::Market("NoDebt"));
        }
        reserve.scaled_debt -= scaled;
        reserve.cash += paid;
        self.position(asset, account).scaled_debt -= scaled;
        Ok(paid)
    }

    fn accrue(&mut self, asset: TokenId, timestamp: u64) -> Result<&mut Reserve, Refusal> {
        let reserve = self.reserves.get_mut(&asset).ok_or(Refusal::Market("ReserveUnknown"))?;
        *reserve = reserve.accrued(timestamp);
        Ok(reserve)
    }

    fn position(&mut self, asset: TokenId, account: AccountId) -> &mut Position {
        self.positions.entry((asset, account)).or_default()
    }
}

fn divide_up(x: U256, y: U256) -> U256 {
    x.div_ceil(y)
}

#[cfg(test)]
mod tests;
