//! An access list that arrives in fragments, beside the transactions whose changes they hold.
//!
//! ```text
//! fragment   changes of the transactions that come with it; the first also of index 0, the last also of the
//!            index after the last transaction. Its reads name what has not been named before.
//! name       an account or slot must be named, as read or as changed, with or before the first transaction
//!            that touches it. A slot named as read may be written later; it is then no read any more.
//! ```
//!
//! Fragments come from peers. What does not continue the list is refused, and never anything but that.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use alloy_primitives::{Address, U256, map::AddressMap};

use super::{
    AccessList, AccountChanges, BalanceChange, CodeChange, NonceChange, SlotChanges, StorageChange, Wipe, check_items,
    first_word,
};

/// The part of an access list that is there.
///
/// Accounts and slots have numbers, in order of arrival. Nothing is copied out of a fragment that is lent.
#[derive(Debug)]
pub struct PartialList<'a> {
    accounts: Vec<PartialAccount<'a>>,
    slots: Vec<PartialSlot<'a>>,
    /// Where to look for the accounts of the first fragment, which have the lowest numbers, in order of address.
    first: Directory,
    /// Numbers of the accounts that came later.
    later: AddressMap<usize>,
    counts: Counts,
    /// Transactions that are there.
    transactions: usize,
    /// Whether the changes after the last transaction are there.
    ended: bool,
    items: u64,
    items_max: u64,
}

/// Where addresses stand among addresses in rising order: for each of some equal parts of all addresses, how many
/// stand before it. Of addresses as hashes make them a part has about one, of chosen ones all may be in one part.
#[derive(Debug, Default)]
struct Directory {
    /// Addresses in all.
    count: usize,
    /// Bits of an address's first word that do not tell the part.
    shift: u32,
    /// By part; one more at the end.
    before: Vec<usize>,
}

impl Directory {
    fn of<'l>(addresses: impl ExactSizeIterator<Item = &'l Address>) -> Self {
        let count = addresses.len();
        let parts = count.next_power_of_two().max(2);
        let shift = u64::BITS.saturating_sub(parts.trailing_zeros());
        let mut directory = Self { count, shift, before: vec![0; parts.saturating_add(1)] };
        for address in addresses {
            let next = directory.part(address).saturating_add(1);
            directory.before[next] = directory.before[next].saturating_add(1);
        }
        for part in 0..parts {
            let before = directory.before[part];
            let next = &mut directory.before[part.saturating_add(1)];
            *next = next.saturating_add(before);
        }
        directory
    }

    #[inline]
    fn part(&self, address: &Address) -> usize {
        usize::try_from(first_word(address) >> self.shift).unwrap_or(usize::MAX)
    }

    /// Where the address stands if it is there.
    #[inline]
    fn range(&self, address: &Address) -> Range<usize> {
        let part = self.part(address);
        match self.before.get(part..part.saturating_add(2)) {
            Some([start, end]) => *start..*end,
            _ => 0..0,
        }
    }
}

/// An account of a list, as far as it is there; changes in order of index.
#[derive(Debug)]
pub struct PartialAccount<'a> {
    /// The account.
    pub address: Address,
    /// Its balance after each change.
    pub balances: Cow<'a, [BalanceChange]>,
    /// Its nonce after each change.
    pub nonces: Cow<'a, [NonceChange]>,
    /// Its slots of the first fragment that names any, in order of key.
    slots: Range<usize>,
    rare: Option<Box<Rare<'a>>>,
}

/// What few accounts have: apart, because a block may have many accounts.
#[derive(Debug, Default)]
struct Rare<'a> {
    codes: Cow<'a, [CodeChange]>,
    wipes: Cow<'a, [u64]>,
    /// Numbers of slots that were not named with the first ones, by key.
    later: BTreeMap<U256, usize>,
}

impl<'a> PartialAccount<'a> {
    /// Its code after each change.
    #[must_use]
    #[inline]
    pub fn codes(&self) -> &[CodeChange] {
        self.rare.as_ref().map_or(&[], |rare| &rare.codes)
    }

    /// Indices that wiped its storage.
    #[must_use]
    #[inline]
    pub fn wipes(&self) -> &[u64] {
        self.rare.as_ref().map_or(&[], |rare| &rare.wipes)
    }

    /// Whether a slot of it is named.
    #[must_use]
    #[inline]
    pub fn has_slots(&self) -> bool {
        // There is none later without a first one.
        !self.slots.is_empty()
    }

    #[inline]
    fn later(&self, key: U256) -> Option<usize> {
        self.rare.as_ref().and_then(|rare| rare.later.get(&key).copied())
    }

    fn rare(&mut self) -> &mut Rare<'a> {
        self.rare.get_or_insert_default()
    }
}

/// A slot of a list, as far as it is there.
#[derive(Debug)]
pub struct PartialSlot<'a> {
    /// Number of its account.
    pub account: usize,
    /// The key.
    pub key: U256,
    /// Its value after each change, in order of index; none for a slot that is only read.
    pub writes: Cow<'a, [StorageChange]>,
}

/// Puts `more` behind what is there; what is there alone stays where it is.
fn append<'a, T: Clone>(there: &mut Cow<'a, [T]>, more: Cow<'a, [T]>) {
    if there.is_empty() {
        *there = more;
    } else if !more.is_empty() {
        there.to_mut().extend(more.into_owned());
    }
}

/// The changes of a fragment, counted at their indices.
#[derive(Debug, Default)]
struct Counts {
    /// Changes per index.
    all: Vec<u32>,
    /// The first index of the fragment.
    start: usize,
}

impl Counts {
    /// Counts changes; those outside the fragment's range are an error.
    fn add<T>(&mut self, address: Address, changes: &[T], index: impl Fn(&T) -> u64) -> Result<(), String> {
        for index in changes.iter().map(index) {
            let place = usize::try_from(index).unwrap_or(usize::MAX);
            match self.all.get_mut(place) {
                Some(count) if place >= self.start => *count = count.saturating_add(1),
                _ => {
                    let range = self.start..self.all.len();
                    return Err(format!("index {index} of {address} is not in {range:?}"));
                }
            }
        }
        Ok(())
    }
}

impl<'a> PartialList<'a> {
    /// The empty list of a block that can pay for so many items, see [`AccessList::items_max`].
    #[must_use]
    pub fn new(items_max: u64) -> Self {
        Self {
            accounts: Vec::new(),
            slots: Vec::new(),
            first: Directory::default(),
            later: AddressMap::default(),
            counts: Counts::default(),
            transactions: 0,
            ended: false,
            items: 0,
            items_max,
        }
    }

    /// Accounts by number.
    #[must_use]
    pub fn accounts(&self) -> &[PartialAccount<'a>] {
        &self.accounts
    }

    /// Slots by number.
    #[must_use]
    pub fn slots(&self) -> &[PartialSlot<'a>] {
        &self.slots
    }

    /// Number of an account.
    #[must_use]
    #[inline]
    pub fn find(&self, address: Address) -> Option<usize> {
        let range = self.first.range(&address);
        let start = range.start;
        match self.accounts.get(range)?.binary_search_by(|account| account.address.cmp(&address)) {
            Ok(place) => Some(start.saturating_add(place)),
            Err(_) => self.later.get(&address).copied(),
        }
    }

    /// Number of a slot of the account with this number.
    #[must_use]
    #[inline]
    pub fn find_slot(&self, account: usize, key: U256) -> Option<usize> {
        let account = &self.accounts[account];
        match self.slots[account.slots.clone()].binary_search_by(|slot| slot.key.cmp(&key)) {
            Ok(place) => Some(account.slots.start.saturating_add(place)),
            Err(_) => account.later(key),
        }
    }

    /// Numbers of the slots of the account with this number.
    #[inline]
    pub fn slots_of(&self, account: usize) -> impl Iterator<Item = usize> {
        let PartialAccount { slots, rare, .. } = &self.accounts[account];
        slots.clone().chain(rare.iter().flat_map(|rare| rare.later.values().copied()))
    }

    /// Changes at an index.
    #[must_use]
    #[inline]
    pub fn changes_at(&self, index: usize) -> u32 {
        self.counts.all.get(index).copied().unwrap_or_default()
    }

    /// Takes the next fragment; with it, so many of the block's transactions are there. Changes at the index
    /// after the last of them end the block. After an error the list is of no further use.
    ///
    /// # Errors
    /// What does not continue the list: an index outside the fragment's range, a wrong order, a name without
    /// anything new, a transaction after the block's end, more items than the block can pay for.
    pub fn extend(&mut self, fragment: Cow<'a, AccessList>, transactions: usize) -> Result<(), String> {
        if transactions < self.transactions {
            return Err(format!("{transactions} transactions, {} have been there", self.transactions));
        }
        if self.ended && transactions > self.transactions {
            return Err(format!("the block has ended after {} transactions", self.transactions));
        }
        let last = transactions.saturating_add(1);
        if u32::try_from(last).is_err() {
            return Err(format!("{transactions} transactions are too many"));
        }
        fragment.check_size(self.items_max)?;
        fragment.check_form()?;
        self.counts.all.resize(last.saturating_add(1), 0);
        self.accounts.reserve(fragment.accounts.len());
        if self.accounts.is_empty() {
            self.first = Directory::of(fragment.accounts.iter().map(|account| &account.address));
        } else {
            self.later.reserve(fragment.accounts.len());
        }
        self.take(fragment)?;
        check_items(self.items, self.items_max)?;
        self.transactions = transactions;
        self.ended = self.changes_at(last) > 0;
        self.counts.start = last.saturating_add(usize::from(self.ended));
        Ok(())
    }

    fn take(&mut self, fragment: Cow<'a, AccessList>) -> Result<(), String> {
        match fragment {
            Cow::Borrowed(list) => {
                for account in &list.accounts {
                    let silent = || !account.has_changes() && account.storage_reads.is_empty();
                    let (balances, nonces) = (&account.balance_changes, &account.nonce_changes);
                    let id = self.take_info(account.address, silent, balances.into(), nonces.into())?;
                    let slots = account.storage_changes.iter().map(|slot| (slot.slot, Cow::from(&slot.changes)));
                    self.take_slots(id, slots, account.storage_reads.iter().copied())?;
                    self.take_codes(id, (&account.code_changes).into())?;
                }
                list.wipes.iter().try_for_each(|wipe| self.take_wipes(wipe.address, (&wipe.indices).into()))
            }
            Cow::Owned(list) => {
                for account in list.accounts {
                    let silent = !account.has_changes() && account.storage_reads.is_empty();
                    let (balances, nonces) = (account.balance_changes, account.nonce_changes);
                    let id = self.take_info(account.address, || silent, balances.into(), nonces.into())?;
                    let slots = account.storage_changes.into_iter().map(|slot| (slot.slot, slot.changes.into()));
                    self.take_slots(id, slots, account.storage_reads.into_iter())?;
                    self.take_codes(id, account.code_changes.into())?;
                }
                list.wipes.into_iter().try_for_each(|wipe| self.take_wipes(wipe.address, wipe.indices.into()))
            }
        }
    }

    /// Takes an account's balances and nonces, and gives its number; `silent` tells whether the fragment says
    /// nothing at all of the account.
    fn take_info(
        &mut self,
        address: Address,
        silent: impl FnOnce() -> bool,
        balances: Cow<'a, [BalanceChange]>,
        nonces: Cow<'a, [NonceChange]>,
    ) -> Result<usize, String> {
        self.counts.add(address, &balances, |change| change.block_access_index.get())?;
        self.counts.add(address, &nonces, |change| change.block_access_index.get())?;
        let id = self.accounts.len();
        let is_first = id < self.first.count;
        let known = if is_first { None } else { self.find(address) };
        match known {
            None => {
                if !is_first {
                    self.later.insert(address, id);
                }
                self.accounts.push(PartialAccount { address, balances, nonces, slots: 0..0, rare: None });
                self.items = self.items.saturating_add(1);
                Ok(id)
            }
            Some(_) if silent() => Err(format!("account {address} is named again")),
            Some(known) => {
                let account = &mut self.accounts[known];
                append(&mut account.balances, balances);
                append(&mut account.nonces, nonces);
                Ok(known)
            }
        }
    }

    fn take_codes(&mut self, id: usize, codes: Cow<'a, [CodeChange]>) -> Result<(), String> {
        if codes.is_empty() {
            return Ok(());
        }
        let account = &mut self.accounts[id];
        self.counts.add(account.address, &codes, |change| change.block_access_index.get())?;
        append(&mut account.rare().codes, codes);
        Ok(())
    }

    /// Takes the slots that a fragment names of one account, each kind in order of key.
    fn take_slots(
        &mut self,
        id: usize,
        written: impl Iterator<Item = (U256, Cow<'a, [StorageChange]>)>,
        reads: impl Iterator<Item = U256>,
    ) -> Result<(), String> {
        let Self { accounts, slots, counts, .. } = self;
        let (account, slots_before) = (&mut accounts[id], slots.len());
        if account.slots.is_empty() {
            let mut reads = reads.peekable();
            for (key, writes) in written {
                counts.add(account.address, &writes, |change| change.block_access_index.get())?;
                while let Some(read) = reads.next_if(|read| *read < key) {
                    slots.push(PartialSlot { account: id, key: read, writes: Cow::default() });
                }
                slots.push(PartialSlot { account: id, key, writes });
            }
            slots.extend(reads.map(|key| PartialSlot { account: id, key, writes: Cow::default() }));
            account.slots = slots_before..slots.len();
        } else {
            for (key, writes) in written.chain(reads.map(|key| (key, Cow::default()))) {
                counts.add(account.address, &writes, |change| change.block_access_index.get())?;
                let first = slots[account.slots.clone()].binary_search_by(|slot| slot.key.cmp(&key)).ok();
                let first = first.map(|place| account.slots.start.saturating_add(place));
                match first.or_else(|| account.later(key)) {
                    Some(_) if writes.is_empty() => {
                        return Err(format!("slot {key:#x} of {} is named again", account.address));
                    }
                    Some(slot) => append(&mut slots[slot].writes, writes),
                    None => {
                        account.rare().later.insert(key, slots.len());
                        slots.push(PartialSlot { account: id, key, writes });
                    }
                }
            }
        }
        let named = slots.len().saturating_sub(slots_before);
        self.items = self.items.saturating_add(u64::try_from(named).unwrap_or(u64::MAX));
        Ok(())
    }

    fn take_wipes(&mut self, address: Address, indices: Cow<'a, [u64]>) -> Result<(), String> {
        let id = self.find(address).ok_or_else(|| format!("wipe of {address}, which is not in the list"))?;
        self.counts.add(address, &indices, |index| *index)?;
        self.items = self.items.saturating_add(u64::try_from(indices.len()).unwrap_or(u64::MAX));
        append(&mut self.accounts[id].rare().wipes, indices);
        Ok(())
    }

    /// Whether the fragments make up this list.
    #[must_use]
    pub fn is(&self, list: &AccessList) -> bool {
        let wipes = self.accounts.iter().filter(|account| !account.wipes().is_empty()).count();
        let wiped = |wipe: &Wipe| self.find(wipe.address).is_some_and(|id| self.accounts[id].wipes() == wipe.indices);
        self.accounts.len() == list.accounts.len()
            && wipes == list.wipes.len()
            && list.accounts.iter().all(|account| self.has(account))
            && list.wipes.iter().all(wiped)
    }

    /// Whether an account stands here as it stands there.
    fn has(&self, named: &AccountChanges) -> bool {
        let Some(id) = self.find(named.address) else { return false };
        let account = &self.accounts[id];
        let writes = |key: U256| self.find_slot(id, key).map(|slot| &self.slots[slot].writes[..]);
        account.balances[..] == named.balance_changes
            && account.nonces[..] == named.nonce_changes
            && account.codes() == named.code_changes
            && self.slots_of(id).count() == named.storage_slots().count()
            && named.storage_reads.iter().all(|key| writes(*key) == Some(&[]))
            && named.storage_changes.iter().all(|slot| writes(slot.slot) == Some(&slot.changes))
    }

    /// The list that the fragments make up.
    #[must_use]
    pub fn into_list(self) -> AccessList {
        let Self { mut accounts, mut slots, .. } = self;
        accounts.sort_unstable_by_key(|account| account.address);
        let mut list = AccessList { accounts: Vec::with_capacity(accounts.len()), wipes: Vec::new() };
        for account in accounts {
            let mut named = AccountChanges::new(account.address);
            let rare = account.rare.map_or_else(Rare::default, |rare| *rare);
            let mut keys: Vec<usize> = account.slots.chain(rare.later.into_values()).collect();
            keys.sort_unstable_by_key(|slot| slots[*slot].key);
            for slot in keys {
                let PartialSlot { key, writes, .. } = &mut slots[slot];
                if writes.is_empty() {
                    named.storage_reads.push(*key);
                } else {
                    named.storage_changes.push(SlotChanges::new(*key, std::mem::take(writes).into_owned()));
                }
            }
            named.balance_changes = account.balances.into_owned();
            named.nonce_changes = account.nonces.into_owned();
            named.code_changes = rare.codes.into_owned();
            list.accounts.push(named);
            if !rare.wipes.is_empty() {
                list.wipes.push(Wipe { address: account.address, indices: rare.wipes.into_owned() });
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses whose first words are these, in order.
    fn addresses(mut words: Vec<u64>) -> Vec<Address> {
        words.sort_unstable();
        let of = |(at, word): (usize, &u64)| {
            let mut address = Address::with_last_byte(u8::try_from(at % 200).unwrap());
            address.0[..8].copy_from_slice(&word.to_be_bytes());
            address.0[10..18].copy_from_slice(&u64::try_from(at).unwrap().to_be_bytes());
            address
        };
        words.iter().enumerate().map(of).collect()
    }

    #[test]
    fn every_account_is_found_wherever_the_addresses_lie() {
        let spread = |count: u64| (0..count).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
        let chosen = vec![vec![0; 500], vec![u64::MAX; 3], [vec![7; 90], spread(90)].concat(), (0..300).collect()];
        for words in (0..70).chain([1_000, 1_024, 1_025]).map(spread).chain(chosen) {
            let addresses = addresses(words);
            let (named, unknown): (Vec<_>, Vec<_>) = addresses.iter().enumerate().partition(|(at, _)| at % 3 != 1);
            let accounts = named.iter().map(|(_, address)| AccountChanges::new(**address)).collect();
            let mut list = PartialList::new(10_000);
            list.extend(Cow::Owned(AccessList { accounts, wipes: Vec::new() }), 1).unwrap();
            for (at, (_, address)) in named.iter().enumerate() {
                assert_eq!(list.find(**address), Some(at));
            }
            assert!(unknown.iter().all(|(_, address)| list.find(**address).is_none()));
            let accounts = unknown.iter().map(|(_, address)| AccountChanges::new(**address)).collect();
            list.extend(Cow::Owned(AccessList { accounts, wipes: Vec::new() }), 2).unwrap();
            for (at, (_, address)) in named.iter().chain(&unknown).enumerate() {
                assert_eq!(list.find(**address), Some(at));
                assert_eq!(list.accounts()[at].address, **address);
            }
        }
    }
}
