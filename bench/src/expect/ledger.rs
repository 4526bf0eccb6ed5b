//! Wei: what every account must have, from what it had and what its receipts say.

use alloy_primitives::U256;

use crate::{accounts::AccountId, operation::Operation};

/// Wei of every account of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger(Vec<U256>);

impl Ledger {
    /// Starts with what every account has, indexed by account.
    #[must_use]
    pub const fn new(balances: Vec<U256>) -> Self {
        Self(balances)
    }

    /// Takes the fee and the value of an included transaction, and gives the value to whom it went.
    ///
    /// # Errors
    /// A sentence, if the account cannot pay.
    pub fn apply(&mut self, from: AccountId, operation: &Operation, fee: U256, succeeded: bool) -> Result<(), String> {
        let value = if succeeded { U256::from(operation.value()) } else { U256::ZERO };
        let balance = self.0[from.index()];
        let left = fee.checked_add(value).and_then(|cost| balance.checked_sub(cost));
        self.0[from.index()] = left.ok_or_else(|| format!("{from:?} has {balance} wei for a fee of {fee}"))?;
        if let (Operation::Transfer { to, .. }, true) = (operation, succeeded) {
            self.0[to.index()] += value;
        }
        Ok(())
    }

    /// What an account must have.
    ///
    /// # Panics
    /// For an id of another plan.
    #[must_use]
    pub fn balance(&self, account: AccountId) -> U256 {
        self.0[account.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_moves_its_value_and_burns_its_fee() {
        let mut ledger = Ledger::new(vec![U256::from(100), U256::from(5)]);
        let transfer = Operation::Transfer { to: AccountId(1), value: 30 };
        ledger.apply(AccountId(0), &transfer, U256::from(7), true).unwrap();
        assert_eq!((ledger.balance(AccountId(0)), ledger.balance(AccountId(1))), (U256::from(63), U256::from(35)));
        ledger.apply(AccountId(0), &transfer, U256::from(7), false).unwrap();
        assert_eq!((ledger.balance(AccountId(0)), ledger.balance(AccountId(1))), (U256::from(56), U256::from(35)));
        assert!(ledger.apply(AccountId(1), &transfer, U256::from(36), false).is_err());
    }
}
