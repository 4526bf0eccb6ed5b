//! From an operation to the call that does it.

use alloy_primitives::{Address, Bytes, TxKind, U256};

use crate::{
    accounts::{AccountId, Accounts},
    calldata::Calldata,
    expect::MARKET,
    operation::Operation,
    world::{PoolId, TokenId, World},
};

/// Target, value and input of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Called contract or account, or creation.
    pub to: TxKind,
    /// Wei sent along.
    pub value: U256,
    /// Call data or creation code.
    pub input: Bytes,
}

const TRANSFER: &str = "transfer(address,uint256)";
const APPROVE: &str = "approve(address,uint256)";
const MINT_BATCH: &str = "mintBatch(address[],uint256)";
const SWAP: &str = "swapExactIn(address[],uint256,uint256,address,uint256)";
const ADD_LIQUIDITY: &str = "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)";
const DEPOSIT: &str = "deposit(address,uint256)";
const WITHDRAW: &str = "withdraw(address,uint256)";
const BORROW: &str = "borrow(address,uint256)";
const REPAY: &str = "repay(address,uint256)";
const LIQUIDATE: &str = "liquidate(address,address,address,uint256)";
const LIST_RESERVE: &str = "listReserve(address,(uint16,uint16,uint16,uint16,uint16,uint16,uint16))";
const SET_PRICE: &str = "setPrice(address,uint256)";
const PLACE: &str = "place(bool,uint24,uint64)";
const CANCEL: &str = "cancel(uint64)";
const TRANSFER_OWNERSHIP: &str = "transferOwnership(address)";

/// A deadline that never comes, and an allowance that never runs down.
const UNLIMITED: U256 = U256::MAX;

impl Operation {
    /// The call that `from` makes.
    ///
    /// # Panics
    /// For ids of another plan.
    #[must_use]
    pub fn call(&self, from: AccountId, world: &World, accounts: &Accounts) -> Call {
        if let Self::Deploy(deployment) = self {
            return Call { to: TxKind::Create, value: U256::ZERO, input: world.creation(*deployment).finish() };
        }
        let input = self.input(from, world, accounts).map(Calldata::finish).unwrap_or_default();
        let to = TxKind::Call(self.target(world, accounts));
        Call { to, value: U256::from(self.value()), input }
    }

    fn target(&self, world: &World, accounts: &Accounts) -> Address {
        match self {
            Self::Transfer { to, .. } => accounts.address(*to),
            Self::TokenTransfer { token, .. } | Self::Mint { token, .. } | Self::Approve { token, .. } => {
                world.token(*token)
            }
            Self::Swap { .. } | Self::AddLiquidity { .. } => world.router,
            Self::SetPrice { .. } | Self::TransferOracle { .. } => world.oracle,
            Self::PlaceOrder { .. } | Self::CancelOrder { .. } | Self::FundBook { .. } => world.book,
            Self::Deploy(_) => Address::ZERO,
            Self::Deposit { .. }
            | Self::Withdraw { .. }
            | Self::Borrow { .. }
            | Self::Repay { .. }
            | Self::Liquidate { .. }
            | Self::ListReserve { .. } => world.lending,
        }
    }

    fn input(&self, from: AccountId, world: &World, accounts: &Accounts) -> Option<Calldata> {
        let amount_of = |signature, asset: &TokenId, amount: &u128| {
            Calldata::call(signature).address(world.token(*asset)).number(*amount)
        };
        Some(match self {
            Self::Transfer { .. } | Self::Deploy(_) => return None,
            Self::TokenTransfer { to, amount, .. } => {
                Calldata::call(TRANSFER).address(accounts.address(*to)).number(*amount)
            }
            Self::Swap { pool, sell_token0, amount } => {
                swap(world, *pool, *sell_token0, *amount, accounts.address(from))
            }
            Self::Deposit { asset, amount } | Self::FundBook { asset, amount } => amount_of(DEPOSIT, asset, amount),
            Self::Withdraw { asset, amount } => amount_of(WITHDRAW, asset, amount),
            Self::Borrow { asset, amount } => amount_of(BORROW, asset, amount),
            Self::Repay { asset, amount } => amount_of(REPAY, asset, amount),
            Self::SetPrice { asset, price } => amount_of(SET_PRICE, asset, price),
            Self::Liquidate { debt, collateral, account, amount } => Calldata::call(LIQUIDATE)
                .address(world.token(*debt))
                .address(world.token(*collateral))
                .address(accounts.address(*account))
                .number(*amount),
            Self::Mint { to, amount, .. } => {
                let to = to.clone().map(|id| accounts.address(AccountId(id)));
                Calldata::call(MINT_BATCH).number(0x40).number(*amount).addresses(to)
            }
            Self::Approve { spender, .. } => Calldata::call(APPROVE).address(world.spender(*spender)).uint(UNLIMITED),
            Self::AddLiquidity { pool, amount } => add_liquidity(world, *pool, *amount, accounts.address(from)),
            Self::ListReserve { asset } => {
                let words = MARKET.words().into_iter();
                words.fold(Calldata::call(LIST_RESERVE).address(world.token(*asset)), Calldata::number)
            }
            Self::PlaceOrder { bid, tick, lots } => {
                Calldata::call(PLACE).boolean(*bid).number(u128::from(*tick)).number(u128::from(*lots))
            }
            Self::CancelOrder { order } => Calldata::call(CANCEL).number(u128::from(*order)),
            Self::TransferOracle { to } => Calldata::call(TRANSFER_OWNERSHIP).address(accounts.address(*to)),
        })
    }
}

/// Takes any price: the order of trades is not known when they are signed.
fn swap(world: &World, pool: PoolId, sell_token0: bool, amount: u128, to: Address) -> Calldata {
    let pool = world.pool(pool);
    let (sold, bought) = if sell_token0 { (pool.token0, pool.token1) } else { (pool.token1, pool.token0) };
    let path = [world.token(sold), world.token(bought)];
    let data = Calldata::call(SWAP).number(0xa0).number(amount).number(1).address(to).uint(UNLIMITED);
    data.addresses(path.into_iter())
}

fn add_liquidity(world: &World, pool: PoolId, amount: u128, to: Address) -> Calldata {
    let pool = world.pool(pool);
    let data = Calldata::call(ADD_LIQUIDITY).address(world.token(pool.token0)).address(world.token(pool.token1));
    data.number(amount).number(amount).number(0).number(0).address(to).uint(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{hex, keccak256};

    use super::*;
    use crate::artifacts::{Contract, tests::has_function};

    #[test]
    fn every_signature_is_in_the_abi_of_its_contract() {
        let called = [
            (Contract::Token, vec![TRANSFER, APPROVE, MINT_BATCH]),
            (Contract::Router, vec![SWAP, ADD_LIQUIDITY]),
            (Contract::Lending, vec![DEPOSIT, WITHDRAW, BORROW, REPAY, LIQUIDATE, LIST_RESERVE]),
            (Contract::PriceOracle, vec![SET_PRICE, TRANSFER_OWNERSHIP]),
            (Contract::OrderBook, vec![PLACE, CANCEL, DEPOSIT]),
        ];
        for (contract, signatures) in called {
            for signature in signatures {
                assert!(has_function(contract, signature), "{} has no {signature}", contract.name());
            }
        }
    }

    #[test]
    fn selectors_are_those_written_down_with_the_contracts() {
        let selectors = [(SWAP, hex!("c2f15fb2")), (LIQUIDATE, hex!("aab3f868")), (LIST_RESERVE, hex!("224afcf7"))];
        for (signature, selector) in selectors {
            assert_eq!(keccak256(signature)[..4], selector, "{signature}");
        }
    }
}
