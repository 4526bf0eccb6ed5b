//! The block access list: every account and slot that a block touches, with the value after each change.
//!
//! The form is EIP-7928's: index 0 is what comes before the transactions, `i + 1` is transaction `i`, and
//! the last index is what comes after them. Whoever has the list can execute the transactions in any order.
//! It is a claim: the executor compares it with what the transactions do.
//!
//! EIP-7928 has no word for "all storage of this account is gone", which a block needs when it destroys an
//! account (before Cancun) or creates one over a balance. Such wipes stand beside the list; where there are
//! none, hash and bytes are EIP-7928's own.
//!
//! ```text
//! hash      keccak256(rlp(accounts)) without wipes, else keccak256(rlp([accounts, wipes]))
//! encoding  rlp([accounts, [[address, [index, ..]], ..]])
//! ```
//!
//! Source: EIP-7928.

pub use alloy_eips::eip7928::{
    AccountChanges, BalanceChange, BlockAccessIndex, CodeChange, NonceChange, SlotChanges, StorageChange,
};
use alloy_eips::eip7928::{total_bal_items, validate_block_access_list};
use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};

use crate::genesis::Fork;

/// Items a list may have beyond what gas pays for: the system contracts and what they touch.
const FREE_ITEMS: u64 = 64;
/// Least gas of a block that touches an account or a slot: what EIP-7928 reckons with (ITEM_COST, 2,000), less
/// the fifth that refunds can take off a transaction's gas (EIP-3529), which Amsterdam no longer does.
const ITEM_GAS: u64 = 1_600;
/// The same before Berlin priced cold access: BALANCE on Frontier costs 20, and refunds took up to half.
const ITEM_GAS_BEFORE_BERLIN: u64 = 10;

/// When the storage of one account was wiped.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Wipe {
    /// The account.
    pub address: Address,
    /// Block access indices in rising order.
    pub indices: Vec<u64>,
}

/// What a block touches, and what it leaves there.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct AccessList {
    /// Accounts in order of address.
    pub accounts: Vec<AccountChanges>,
    /// Wipes of storage, in order of address.
    pub wipes: Vec<Wipe>,
}

impl AccessList {
    /// The hash that a block names.
    #[must_use]
    pub fn hash(&self) -> B256 {
        let mut out = Vec::new();
        if self.wipes.is_empty() {
            self.accounts.encode(&mut out)
        } else {
            self.encode(&mut out)
        }
        keccak256(out)
    }

    /// Decodes the whole of `bytes`.
    ///
    /// # Errors
    /// Whatever is no list, and bytes behind it.
    pub fn decode_exact(mut bytes: &[u8]) -> alloy_rlp::Result<Self> {
        let list = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(list) } else { Err(alloy_rlp::Error::UnexpectedLength) }
    }

    /// Checks order, uniqueness, indices and size: everything that can be said without executing.
    ///
    /// # Errors
    /// The first rule that is broken, with the values.
    pub fn check(&self, fork: Fork, gas_limit: u64, transactions: usize) -> Result<(), String> {
        let item_gas = if fork >= Fork::Berlin { ITEM_GAS } else { ITEM_GAS_BEFORE_BERLIN };
        let wipes = self.wipes.iter().fold(0, |sum: usize, wipe| sum.saturating_add(wipe.indices.len()));
        let items = total_bal_items(&self.accounts).saturating_add(u64::try_from(wipes).unwrap_or(u64::MAX));
        let items_max = (gas_limit / item_gas).saturating_add(FREE_ITEMS);
        if items > items_max {
            return Err(format!("{items} items in the access list, {gas_limit} gas pay for {items_max}"));
        }
        validate_block_access_list(&self.accounts, transactions).map_err(|error| error.to_string())?;
        let last = u64::try_from(transactions).unwrap_or(u64::MAX).saturating_add(1);
        let mut previous: Option<Address> = None;
        for Wipe { address, indices } in &self.wipes {
            if previous.is_some_and(|previous| previous >= *address) {
                return Err(format!("wipe of {address} is out of order"));
            }
            previous = Some(*address);
            if indices.is_empty() || indices.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(format!("wipes of {address} are not in order: {indices:?}"));
            }
            if indices.last().is_some_and(|index| *index > last) {
                return Err(format!("wipe of {address} at {indices:?}, the last index is {last}"));
            }
            if self.accounts.binary_search_by_key(address, |account| account.address).is_err() {
                return Err(format!("wipe of {address}, which is not in the list"));
            }
        }
        Ok(())
    }
}
