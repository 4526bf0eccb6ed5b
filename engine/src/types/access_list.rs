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

mod named;
mod partial;

use std::borrow::Cow;

pub use alloy_eips::eip7928::{
    AccountChanges, BalanceChange, BlockAccessIndex, CodeChange, NonceChange, SlotChanges, StorageChange,
};
use alloy_eips::eip7928::{total_bal_items, validate_block_access_list};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
pub use named::{ListError, NamedList, unpack};
pub use partial::{PartialAccount, PartialList, PartialSlot};

use crate::genesis::Fork;

/// Items a list may have beyond what gas pays for: the system contracts and what they touch.
const FREE_ITEMS: u64 = 64;
/// Least gas of a block that touches an account or a slot: what EIP-7928 reckons with (ITEM_COST, 2,000), less
/// the fifth that refunds can take off a transaction's gas (EIP-3529), which Amsterdam no longer does.
const ITEM_GAS: u64 = 1_600;
/// The same before Berlin priced cold access: BALANCE on Frontier costs 20, and refunds took up to half.
const ITEM_GAS_BEFORE_BERLIN: u64 = 10;

/// The first eight bytes of an address: in order of it addresses are in order, but for the few that share it.
#[must_use]
pub fn first_word(address: &Address) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.0.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

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
        keccak256(self.hashed_bytes())
    }

    /// Decodes the whole of `bytes`.
    ///
    /// # Errors
    /// Whatever is no list, and bytes behind it.
    pub fn decode_exact(mut bytes: &[u8]) -> alloy_rlp::Result<Self> {
        let list = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(list) } else { Err(alloy_rlp::Error::UnexpectedLength) }
    }

    /// Accounts, slots and wipes that the gas of a block can pay for.
    #[must_use]
    pub fn items_max(fork: Fork, gas_limit: u64) -> u64 {
        let item_gas = if fork >= Fork::Berlin { ITEM_GAS } else { ITEM_GAS_BEFORE_BERLIN };
        (gas_limit / item_gas).saturating_add(FREE_ITEMS)
    }

    /// Checks order, uniqueness, indices and size of a whole list: everything that can be said without executing.
    ///
    /// # Errors
    /// The first rule that is broken, with the values.
    pub fn check(&self, fork: Fork, gas_limit: u64, transactions: usize) -> Result<(), String> {
        PartialList::new(Self::items_max(fork, gas_limit)).extend(Cow::Borrowed(self), transactions)
    }

    fn check_size(&self, items_max: u64) -> Result<(), String> {
        let wipes = self.wipes.iter().fold(0, |sum: usize, wipe| sum.saturating_add(wipe.indices.len()));
        let wipes = u64::try_from(wipes).unwrap_or(u64::MAX);
        check_items(total_bal_items(&self.accounts).saturating_add(wipes), items_max)
    }

    /// Checks order and uniqueness.
    fn check_form(&self) -> Result<(), String> {
        validate_block_access_list(&self.accounts, usize::MAX).map_err(|error| error.to_string())?;
        let mut previous: Option<Address> = None;
        for Wipe { address, indices } in &self.wipes {
            if previous.is_some_and(|previous| previous >= *address) {
                return Err(format!("wipe of {address} is out of order"));
            }
            previous = Some(*address);
            if indices.is_empty() || indices.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(format!("wipes of {address} are not in order: {indices:?}"));
            }
        }
        Ok(())
    }

    /// Splits a whole list at these numbers of transactions, in rising order: one fragment more than cuts, of
    /// which each holds the changes of its transactions, the first also those before them, the last those after.
    ///
    /// The first names all that the block touches, so that whoever has it can fetch everything at once, and
    /// because a transaction may read what only a later one writes.
    #[must_use]
    pub fn fragments(&self, cuts: &[usize]) -> Vec<Self> {
        let mut parts = Parts { starts: vec![0], lists: vec![Self::default()] };
        for cut in cuts {
            let start = u64::try_from(*cut).unwrap_or(u64::MAX).saturating_add(1);
            parts.starts.push(start.max(parts.starts.last().copied().unwrap_or_default()));
            parts.lists.push(Self::default());
        }
        for account in &self.accounts {
            parts.place(account);
        }
        for Wipe { address, indices } in &self.wipes {
            for index in indices {
                let part = parts.of(*index);
                let wipes = &mut parts.lists[part].wipes;
                match wipes.last_mut().filter(|wipe| wipe.address == *address) {
                    Some(wipe) => wipe.indices.push(*index),
                    None => wipes.push(Wipe { address: *address, indices: vec![*index] }),
                }
            }
        }
        parts.lists
    }
}

fn check_items(items: u64, items_max: u64) -> Result<(), String> {
    if items <= items_max {
        return Ok(());
    }
    Err(format!("{items} items in the access list, the block's gas pays for {items_max}"))
}

/// A list on its way into fragments.
struct Parts {
    /// First index of each.
    starts: Vec<u64>,
    lists: Vec<AccessList>,
}

impl Parts {
    /// The fragment that an index belongs to.
    fn of(&self, index: u64) -> usize {
        self.starts.partition_point(|start| *start <= index).saturating_sub(1)
    }

    /// An account in the fragment that an index belongs to; accounts come in order.
    fn account(&mut self, address: Address, index: BlockAccessIndex) -> &mut AccountChanges {
        let part = self.of(index.get());
        let accounts = &mut self.lists[part].accounts;
        if accounts.last().is_none_or(|account| account.address != address) {
            accounts.push(AccountChanges::new(address));
        }
        let last = accounts.len().saturating_sub(1);
        &mut accounts[last]
    }

    fn place(&mut self, account: &AccountChanges) {
        let address = account.address;
        let mut named: Vec<U256> = account.storage_reads.clone();
        for written in &account.storage_changes {
            let key = written.slot;
            let first = written.changes.first().map(|change| self.of(change.block_access_index.get()));
            if first != Some(0) {
                named.push(key);
            }
            for change in &written.changes {
                let slots = &mut self.account(address, change.block_access_index).storage_changes;
                match slots.last_mut().filter(|slot| slot.slot == key) {
                    Some(slot) => slot.changes.push(change.clone()),
                    None => slots.push(SlotChanges::new(key, vec![change.clone()])),
                }
            }
        }
        named.sort_unstable();
        self.account(address, BlockAccessIndex::new(0)).storage_reads = named;
        for change in &account.balance_changes {
            self.account(address, change.block_access_index).balance_changes.push(change.clone());
        }
        for change in &account.nonce_changes {
            self.account(address, change.block_access_index).nonce_changes.push(change.clone());
        }
        for change in &account.code_changes {
            self.account(address, change.block_access_index).code_changes.push(change.clone());
        }
    }
}
