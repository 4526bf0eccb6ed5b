//! Native transfers to accounts without code, without the interpreter.
//!
//! Nothing runs in such a transaction: a nonce rises and three balances move. Only what is plainly valid is
//! done here; whatever is doubtful (code or delegation on either side, a precompile, a fee, nonce or balance
//! that does not fit, forks before EIP-161) goes to revm, which alone refuses. The outcome is revm's, bit for bit.
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
/// What a block's transfers have in common.
#[derive(Debug)]
pub(crate) struct Transfers {
    /// Highest EIP-2718 type that the fork knows and that carries nothing but a transfer; `None` before EIP-161.
    last_type: Option<u8>,
    chain_id: u64,
    base_fee: u128,
    beneficiary: Address,
    gas_max: u64,
    precompiles: &'static Precompiles,
    /// Every precompile's address is a small number, so that no other address needs to be looked up.
    precompiles_are_small: bool,
}

/// An account before and after a transfer; `None` for one that is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    address: Address,
    /// Its number where it was loaded.
    pub(crate) id: usize,
    pub(crate) before: Option<Account>,
    pub(crate) after: Option<Account>,
}

/// What a transfer touched, each account once: sender, recipient, fee recipient.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    accounts: [Touched; 3],
    count: usize,
}

impl Moved {
    /// Every account that was touched.
    pub(crate) fn accounts(&self) -> &[Touched] {
        &self.accounts[..self.count]
    }

    fn find(&self, address: Address) -> Option<usize> {
        self.accounts().iter().position(|known| known.address == address)
    }

    /// Loads an account unless it is there, and gives its place.
    fn load<E>(
        &mut self,
        address: Address,
        load: &mut impl FnMut(Address) -> Result<(usize, Option<Account>), E>,
    ) -> Result<usize, E> {
        if let Some(place) = self.find(address) {
            return Ok(place);
        }
        let place = self.count;
        let (id, before) = load(address)?;
        self.accounts[place] = Touched { address, id, before, after: before };
        self.count = place.saturating_add(1);
        Ok(place)
    }

    /// Adds to a balance; `false` if it would overflow.
    fn credit(&mut self, place: usize, amount: U256) -> bool {
        let slot = &mut self.accounts[place].after;
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
        let last_type = match chain.fork_at(header.timestamp) {
            fork if fork >= Fork::London => Some(2),
            Fork::Berlin => Some(1),
            fork if fork >= Fork::SpuriousDragon => Some(0),
            _ => None,
        };
        let precompiles = Precompiles::new(PrecompileSpecId::from_spec_id(cfg.spec));
        let base_fee = header.base_fee_per_gas.filter(|_| last_type == Some(2)).unwrap_or_default();
        Self {
            last_type,
            chain_id: chain.chain_id,
            base_fee: u128::from(base_fee),
            beneficiary: header.beneficiary,
            gas_max: cfg.tx_gas_limit_cap(),
            precompiles,
            precompiles_are_small: precompiles.addresses().all(is_small),
        }
    }

    /// Carries a transfer out on accounts that `load` gives, each with its number, and leaves in `moved` what it
    /// comes to; `false` where revm must decide.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn attempt<E>(
        &self,
        transaction: &Transaction,
        moved: &mut Moved,
        mut load: impl FnMut(Address) -> Result<(usize, Option<Account>), E>,
    ) -> Result<bool, E> {
        let Some((to, price)) = self.plain(transaction) else { return Ok(false) };
        let (envelope, from) = (transaction.envelope(), transaction.sender());
        // Fees that need more bits are left to revm; the price is at most the highest fee, so it fits as well.
        let Some(fee_max) = u128::from(envelope.gas_limit()).checked_mul(envelope.max_fee_per_gas()) else {
            return Ok(false);
        };
        moved.count = 0;
        let sender = moved.load(from, &mut load)?;
        let recipient = moved.load(to, &mut load)?;
        let Some(account) = moved.accounts[sender].before else { return Ok(false) };
        let value = envelope.value();
        let enough = U256::from(fee_max).checked_add(value).is_some_and(|most| most <= account.balance);
        let callable =
            moved.accounts[recipient].before.is_none_or(|account| !account.has_code() && !account.is_empty());
        if account.has_code() || account.nonce != envelope.nonce() || account.nonce == u64::MAX || !enough || !callable
        {
            return Ok(false);
        }
        let beneficiary = moved.load(self.beneficiary, &mut load)?;
        if moved.accounts[beneficiary].before.is_some_and(|account| account.is_empty()) {
            return Ok(false);
        }
        let paid = |price: u128| U256::from(price.saturating_mul(u128::from(TRANSFER_GAS)));
        let fee = paid(price);
        let balance = account.balance.saturating_sub(fee).saturating_sub(value);
        moved.accounts[sender].after = Some(Account { nonce: account.nonce.saturating_add(1), balance, ..account });
        let tip = paid(price.saturating_sub(self.base_fee));
        Ok(moved.credit(recipient, value) && moved.credit(beneficiary, tip))
    }

    /// Recipient and price per gas, if the transaction is plainly a transfer whatever the state.
    fn plain(&self, transaction: &Transaction) -> Option<(Address, u128)> {
        let envelope = transaction.envelope();
        let to = envelope.to()?;
        let gas = envelope.gas_limit();
        let (cap, tip) = (envelope.max_fee_per_gas(), envelope.max_priority_fee_per_gas().unwrap_or_default());
        let plain = self.last_type.is_some_and(|last| transaction.type_byte() <= last)
            && envelope.input().is_empty()
            && envelope.access_list().is_none_or(|list| list.is_empty())
            && envelope.chain_id().is_none_or(|id| id == self.chain_id)
            && (TRANSFER_GAS..=self.gas_max).contains(&gas)
            && cap >= self.base_fee
            && tip <= cap
            && ((self.precompiles_are_small && !is_small(&to)) || !self.precompiles.contains(&to));
        plain.then(|| (to, envelope.effective_gas_price(u64::try_from(self.base_fee).ok())))
    }
}

/// Whether an address is a number of at most two bytes.
fn is_small(address: &Address) -> bool {
    address.0[..18] == [0; 18]
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
