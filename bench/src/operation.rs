//! One thing an account does; [`crate::encode`] has the call that does it.

use std::ops::Range;

use crate::{
    accounts::AccountId,
    world::{Deployment, PoolId, Spender, TokenId},
};

/// What an account does; amounts are in the smallest unit of what they count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Operation {
    /// Sends wei.
    Transfer { to: AccountId, value: u128 },
    /// Sends tokens.
    TokenTransfer { token: TokenId, to: AccountId, amount: u128 },
    /// Sells exactly `amount` of one token of a pool for the other.
    Swap { pool: PoolId, sell_token0: bool, amount: u128 },
    /// Supplies to a market.
    Deposit { asset: TokenId, amount: u128 },
    /// Takes supply back.
    Withdraw { asset: TokenId, amount: u128 },
    /// Borrows from a market.
    Borrow { asset: TokenId, amount: u128 },
    /// Pays debt back; at most what is owed.
    Repay { asset: TokenId, amount: u128 },
    /// Pays debt of another account for its collateral.
    Liquidate { debt: TokenId, collateral: TokenId, account: AccountId, amount: u128 },
    /// Sets a price, 8 decimals.
    SetPrice { asset: TokenId, price: u128 },
    /// Trades on the order book up to a price, and lets the rest wait.
    PlaceOrder { bid: bool, tick: u32, lots: u64 },
    /// Takes an order of the caller out of the order book.
    CancelOrder { order: u64 },
    /// Adds to what the caller may trade on the order book.
    FundBook { asset: TokenId, amount: u128 },
    /// Creates a contract.
    Deploy(Deployment),
    /// Creates `amount` tokens for each of a range of accounts.
    Mint { token: TokenId, to: Range<u32>, amount: u128 },
    /// Lets a contract move any amount of a token of the caller.
    Approve { token: TokenId, spender: Spender },
    /// Creates a pool with `amount` of each token.
    AddLiquidity { pool: PoolId, amount: u128 },
    /// Opens a market.
    ListReserve { asset: TokenId },
    /// Hands the oracle to another owner.
    TransferOracle { to: AccountId },
}

/// The name of an operation, for counts and gas limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the operations are")]
pub enum Kind {
    Transfer,
    TokenTransfer,
    Swap,
    Deposit,
    Withdraw,
    Borrow,
    Repay,
    Liquidate,
    SetPrice,
    PlaceOrder,
    CancelOrder,
    Setup,
}

impl Kind {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::TokenTransfer => "token_transfer",
            Self::Swap => "swap",
            Self::Deposit => "deposit",
            Self::Withdraw => "withdraw",
            Self::Borrow => "borrow",
            Self::Repay => "repay",
            Self::Liquidate => "liquidate",
            Self::SetPrice => "set_price",
            Self::PlaceOrder => "place_order",
            Self::CancelOrder => "cancel_order",
            Self::Setup => "setup",
        }
    }

    /// Gas that no operation of this kind exceeds, whatever state it meets; what accounts are funded for.
    #[must_use]
    pub const fn gas_max(self) -> u64 {
        match self {
            Self::Transfer => 21_000,
            Self::TokenTransfer | Self::SetPrice => 100_000,
            Self::Swap => 250_000,
            Self::Deposit => 300_000,
            Self::Withdraw | Self::Borrow | Self::Repay => 350_000,
            // An order of a plan fills as many others as it has lots at most, each at a price of its own.
            Self::Liquidate | Self::PlaceOrder => 500_000,
            Self::CancelOrder => 150_000,
            Self::Setup => 1 << 24,
        }
    }
}

/// What a minted account costs, a little above 25,000, and what any call costs before it.
const MINT_GAS: (u64, u64) = (80_000, 30_000);

impl Operation {
    /// The name of the operation.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Transfer { .. } => Kind::Transfer,
            Self::TokenTransfer { .. } => Kind::TokenTransfer,
            Self::Swap { .. } => Kind::Swap,
            Self::Deposit { .. } => Kind::Deposit,
            Self::Withdraw { .. } => Kind::Withdraw,
            Self::Borrow { .. } => Kind::Borrow,
            Self::Repay { .. } => Kind::Repay,
            Self::Liquidate { .. } => Kind::Liquidate,
            Self::SetPrice { .. } => Kind::SetPrice,
            Self::PlaceOrder { .. } => Kind::PlaceOrder,
            Self::CancelOrder { .. } => Kind::CancelOrder,
            _ => Kind::Setup,
        }
    }

    /// Gas limit that is always enough for this operation, below the cap of EIP-7825.
    #[must_use]
    pub fn gas_limit_max(&self) -> u64 {
        match self {
            Self::Mint { to, .. } => MINT_GAS.0 + MINT_GAS.1 * u64::from(to.end - to.start),
            Self::Deploy(deployment) => {
                let size = deployment.contract().creation_code().len();
                // 16 a byte of call data, 200 a byte of code, a word in 32 of EIP-3860; the rest is execution.
                1_000_000 + 240 * u64::try_from(size).unwrap_or(u64::MAX / 240)
            }
            Self::Approve { .. } | Self::TransferOracle { .. } => 80_000,
            Self::AddLiquidity { .. } => 3_500_000,
            Self::FundBook { .. } => 150_000,
            Self::ListReserve { .. } => 400_000,
            _ => self.kind().gas_max(),
        }
    }

    /// Wei that leaves the account besides the fee.
    #[must_use]
    pub const fn value(&self) -> u128 {
        match self {
            Self::Transfer { value, .. } => *value,
            _ => 0,
        }
    }

    /// Events the operation emits when it succeeds.
    #[must_use]
    pub const fn logs(&self) -> Option<usize> {
        match self {
            Self::Transfer { .. } => Some(0),
            Self::TokenTransfer { .. } | Self::SetPrice { .. } | Self::Approve { .. } => Some(1),
            Self::CancelOrder { .. } => Some(1),
            Self::Swap { .. } => Some(4),
            Self::Deposit { .. } | Self::Withdraw { .. } | Self::Borrow { .. } | Self::Repay { .. } => Some(2),
            Self::Liquidate { .. } | Self::FundBook { .. } => Some(2),
            _ => None,
        }
    }
}
