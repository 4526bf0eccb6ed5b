//! Native transfers to accounts without code, without the interpreter.
//!
//! Nothing runs in such a transaction: a nonce rises and three balances move. Only what is plainly valid is
//! done here; whatever is doubtful (code or delegation on either side, a precompile, a fee, nonce or balance
//! that does not fit, forks before Paris) goes to revm, which alone refuses. The outcome is revm's, bit for bit.
//!
//! Source: EIP-1559 (price and reward), EIP-3607 (no code at the sender), EIP-161 (empty accounts), EIP-7623
//! (the floor equals the intrinsic gas where there is no input), EIP-7825 (gas cap).

use alloy_consensus::{Header, Transaction as _};
use alloy_primitives::{Address, U256};
use engine::{
    genesis::{ChainSpec, Fork},
    types::{Account, Receipt, Transaction},
};
use revm::{
    context_interface::Cfg as _,
    precompile::{PrecompileSpecId, Precompiles},
};

use crate::env;

/// Gas of a transfer.
pub(crate) const TRANSFER_GAS: u64 = 21_000;
/// EIP-2718 type of EIP-1559's transactions, the last kind that carries nothing but a transfer.
const LAST_TYPE: u8 = 2;

/// What a block's transfers have in common.
#[derive(Debug)]
pub(crate) struct Transfers {
    active: bool,
    chain_id: u64,
    base_fee: u128,
    beneficiary: Address,
    gas_max: u64,
    precompiles: &'static Precompiles,
}

/// The accounts after a transfer, each once: sender, recipient, fee recipient.
#[derive(Debug)]
pub(crate) struct Moved {
    accounts: [(Address, Option<Account>); 3],
    count: usize,
}

impl Moved {
    /// Every account that was touched; `None` for one that is still empty.
    pub(crate) fn accounts(&self) -> &[(Address, Option<Account>)] {
        &self.accounts[..self.count]
    }

    fn find(&self, address: Address) -> Option<usize> {
        self.accounts().iter().position(|(known, _)| *known == address)
    }

    /// Loads an account unless it is there, and gives its place.
    fn load<E>(
        &mut self,
        address: Address,
        load: &mut impl FnMut(Address) -> Result<Option<Account>, E>,
    ) -> Result<usize, E> {
        if let Some(place) = self.find(address) {
            return Ok(place);
        }
        let place = self.count;
        self.accounts[place] = (address, load(address)?);
        self.count = place.saturating_add(1);
        Ok(place)
    }

    /// Adds to a balance; `false` if it would overflow.
    fn credit(&mut self, place: usize, amount: U256) -> bool {
        let slot = &mut self.accounts[place].1;
        if amount.is_zero() {
            return true;
        }
        let account = slot.unwrap_or_default();
        let Some(balance) = account.balance.checked_add(amount) else { return false };
        *slot = Some(Account { balance, ..account });
        true
    }
}

impl Transfers {
    /// The settings of a block with this header.
    pub(crate) fn new(chain: &ChainSpec, header: &Header) -> Self {
        let cfg = env::chain(chain, header.timestamp);
        Self {
            active: chain.fork_at(header.timestamp) >= Fork::Paris,
            chain_id: chain.chain_id,
            base_fee: u128::from(header.base_fee_per_gas.unwrap_or_default()),
            beneficiary: header.beneficiary,
            gas_max: cfg.tx_gas_limit_cap(),
            precompiles: Precompiles::new(PrecompileSpecId::from_spec_id(cfg.spec)),
        }
    }

    /// Carries a transfer out on accounts that `load` gives; `None` where revm must decide.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn attempt<E>(
        &self,
        transaction: &Transaction,
        mut load: impl FnMut(Address) -> Result<Option<Account>, E>,
    ) -> Result<Option<Moved>, E> {
        let Some((to, price)) = self.plain(transaction) else { return Ok(None) };
        let (envelope, from) = (transaction.envelope(), transaction.sender());
        let mut moved = Moved { accounts: [(Address::ZERO, None); 3], count: 0 };
        let sender = moved.load(from, &mut load)?;
        let recipient = moved.load(to, &mut load)?;
        let Some(account) = moved.accounts[sender].1 else { return Ok(None) };
        let value = envelope.value();
        let gas = U256::from(envelope.gas_limit());
        let enough = gas
            .checked_mul(U256::from(envelope.max_fee_per_gas()))
            .and_then(|fee| fee.checked_add(value))
            .is_some_and(|most| most <= account.balance);
        let callable = moved.accounts[recipient].1.is_none_or(|account| !account.has_code() && !account.is_empty());
        if account.has_code() || account.nonce != envelope.nonce() || account.nonce == u64::MAX || !enough || !callable
        {
            return Ok(None);
        }
        let beneficiary = moved.load(self.beneficiary, &mut load)?;
        if moved.accounts[beneficiary].1.is_some_and(|account| account.is_empty()) {
            return Ok(None);
        }
        let fee = U256::from(price).saturating_mul(U256::from(TRANSFER_GAS));
        let balance = account.balance.saturating_sub(fee).saturating_sub(value);
        moved.accounts[sender].1 = Some(Account { nonce: account.nonce.saturating_add(1), balance, ..account });
        let tip = U256::from(price.saturating_sub(self.base_fee)).saturating_mul(U256::from(TRANSFER_GAS));
        let fits = moved.credit(recipient, value) && moved.credit(beneficiary, tip);
        Ok(fits.then_some(moved))
    }

    /// Recipient and price per gas, if the transaction is plainly a transfer whatever the state.
    fn plain(&self, transaction: &Transaction) -> Option<(Address, u128)> {
        let envelope = transaction.envelope();
        let to = envelope.to()?;
        let gas = envelope.gas_limit();
        let (cap, tip) = (envelope.max_fee_per_gas(), envelope.max_priority_fee_per_gas().unwrap_or_default());
        let plain = self.active
            && transaction.type_byte() <= LAST_TYPE
            && envelope.input().is_empty()
            && envelope.access_list().is_none_or(|list| list.is_empty())
            && envelope.chain_id().is_none_or(|id| id == self.chain_id)
            && (TRANSFER_GAS..=self.gas_max).contains(&gas)
            && cap >= self.base_fee
            && tip <= cap
            && !self.precompiles.contains(&to);
        plain.then(|| (to, envelope.effective_gas_price(u64::try_from(self.base_fee).ok())))
    }
}

/// The receipt of a transfer.
pub(crate) fn receipt(transaction: &Transaction, gas_used_before: u64) -> Receipt {
    Receipt {
        type_byte: transaction.type_byte(),
        success: true,
        gas_used: TRANSFER_GAS,
        cumulative_gas_used: gas_used_before.saturating_add(TRANSFER_GAS),
        contract: None,
        logs: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
