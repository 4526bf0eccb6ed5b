//! Using an access list: the state at every index of a block, and the comparison of what a transaction did
//! with what the list says it did.
//!
//! The list is a claim. Every read is answered from it or from the state before the block; every access must
//! be listed, every change must stand there with its value, and at the end nothing may be listed that did
//! not happen. Only then are its values the block's.
//!
//! ```text
//! value at index i   the last write below i, unless a wipe came after it; without either, the value before
//!                    the block
//! ```
//!
//! Source: EIP-7928.

use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256, map::AddressMap};
use engine::{
    ports::{StateError, StateView},
    types::{
        AccessList, Account, AccountChange, Height, SlotChange, StateChanges, TrieHandle,
        access_list::{AccountChanges, StorageChange},
    },
};
use revm::state::{Account as EvmAccount, Bytecode, EvmState};

use crate::{code, transfer::Moved};

/// Locations a thread fetches at a time.
const PREFETCH_CHUNK: usize = 16;

/// Where an execution and its access list part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    /// Something was accessed that is not listed.
    #[error("index {at} accesses {what}, which is not listed")]
    Outside {
        /// Block access index.
        at: u32,
        /// What was accessed.
        what: String,
    },
    /// A change is not listed, or with another value.
    #[error("index {at} changes {what}, which is not listed so")]
    Change {
        /// Block access index.
        at: u32,
        /// What was changed.
        what: String,
    },
    /// Changes are listed that did not happen.
    #[error("index {at} makes {made} changes, {listed} are listed")]
    Missing {
        /// Block access index.
        at: u32,
        /// Changes that happened.
        made: u32,
        /// Changes listed.
        listed: u32,
    },
    /// An access is listed that did not happen.
    #[error("{0} is listed and not accessed")]
    Invented(String),
}

/// A slot of the list.
struct Slot<'a> {
    key: U256,
    before: OnceLock<U256>,
    writes: &'a [StorageChange],
    seen: AtomicBool,
}

/// An account of the list.
struct Entry<'a> {
    changes: &'a AccountChanges,
    before: OnceLock<Option<Account>>,
    /// Index, hash and analysed code of each code change.
    codes: Vec<(u64, B256, Bytecode)>,
    wipes: &'a [u64],
    slots: Range<usize>,
    seen: AtomicBool,
}

/// A list, ready to be read at any index.
pub(crate) struct Index<'a> {
    view: &'a dyn StateView,
    by_address: AddressMap<usize>,
    entries: Vec<Entry<'a>>,
    slots: Vec<Slot<'a>>,
    /// Changes listed per index.
    counts: Vec<u32>,
}

/// Notes that something was accessed; written once, so that threads do not fight for the line.
fn see(seen: &AtomicBool) {
    if !seen.load(Ordering::Relaxed) {
        seen.store(true, Ordering::Relaxed);
    }
}

/// The last element whose index is below `at`.
fn last_below<T>(list: &[T], at: u32, index: impl Fn(&T) -> u64) -> Option<&T> {
    let end = list.partition_point(|element| index(element) < u64::from(at));
    list[..end].last()
}

/// The element at exactly `at`.
fn exactly<T>(list: &[T], at: u32, index: impl Fn(&T) -> u64) -> Option<&T> {
    let found = list.binary_search_by_key(&u64::from(at), index).ok()?;
    list.get(found)
}

impl<'a> Index<'a> {
    /// Prepares a list that passed [`AccessList::check`] for a block of so many transactions.
    pub(crate) fn new(view: &'a dyn StateView, list: &'a AccessList, transactions: usize) -> Self {
        let mut index = Self {
            view,
            by_address: AddressMap::with_capacity_and_hasher(list.accounts.len(), Default::default()),
            entries: Vec::with_capacity(list.accounts.len()),
            slots: Vec::new(),
            counts: vec![0; transactions.saturating_add(2)],
        };
        let mut wipes = list.wipes.iter().peekable();
        for changes in &list.accounts {
            let wipes = wipes.next_if(|wipe| wipe.address == changes.address);
            let wipes = wipes.map_or(&[][..], |wipe| &wipe.indices);
            index.add(changes, wipes);
        }
        index
    }

    fn add(&mut self, changes: &'a AccountChanges, wipes: &'a [u64]) {
        let start = self.slots.len();
        let slot = |key, writes| Slot { key, before: OnceLock::new(), writes, seen: AtomicBool::new(false) };
        let mut reads = changes.storage_reads.iter().peekable();
        for written in &changes.storage_changes {
            while let Some(key) = reads.next_if(|key| **key < written.slot) {
                self.slots.push(slot(*key, &[][..]));
            }
            self.slots.push(slot(written.slot, &written.changes));
            written.changes.iter().for_each(|change| self.count(change.block_access_index.get()));
        }
        self.slots.extend(reads.map(|key| slot(*key, &[][..])));
        changes.balance_changes.iter().for_each(|change| self.count(change.block_access_index.get()));
        changes.nonce_changes.iter().for_each(|change| self.count(change.block_access_index.get()));
        changes.code_changes.iter().for_each(|change| self.count(change.block_access_index.get()));
        wipes.iter().for_each(|at| self.count(*at));
        let codes = changes.code_changes.iter().map(|change| {
            let hash = if change.new_code.is_empty() { KECCAK256_EMPTY } else { keccak256(&change.new_code) };
            (change.block_access_index.get(), hash, code::analyse(change.new_code.clone()))
        });
        self.by_address.insert(changes.address, self.entries.len());
        self.entries.push(Entry {
            changes,
            before: OnceLock::new(),
            codes: codes.collect(),
            wipes,
            slots: start..self.slots.len(),
            seen: AtomicBool::new(false),
        });
    }

    fn count(&mut self, at: u64) {
        if let Some(count) = usize::try_from(at).ok().and_then(|at| self.counts.get_mut(at)) {
            *count = count.saturating_add(1);
        }
    }

    /// Changes listed at an index: a measure of the work there.
    pub(crate) fn changes_at(&self, at: usize) -> u32 {
        self.counts.get(at).copied().unwrap_or_default()
    }

    /// Fetches what no other thread has fetched yet, until all is there; run by every thread of the batch.
    pub(crate) fn prefetch(&self, next: &AtomicUsize) -> Result<(), StateError> {
        let all = self.entries.len().saturating_add(self.slots.len());
        loop {
            let start = next.fetch_add(PREFETCH_CHUNK, Ordering::Relaxed);
            if start >= all {
                return Ok(());
            }
            for at in start..start.saturating_add(PREFETCH_CHUNK).min(all) {
                match at.checked_sub(self.entries.len()) {
                    None => drop(self.before(&self.entries[at])?),
                    Some(slot) => {
                        let owner = self.entries.partition_point(|entry| entry.slots.end <= slot);
                        self.slot_before(&self.entries[owner], &self.slots[slot])?;
                    }
                }
            }
        }
    }

    fn before(&self, entry: &Entry<'_>) -> Result<Option<Account>, StateError> {
        if let Some(before) = entry.before.get() {
            return Ok(*before);
        }
        let before = self.view.account(entry.changes.address)?;
        Ok(*entry.before.get_or_init(|| before))
    }

    fn slot_before(&self, entry: &Entry<'_>, slot: &Slot<'_>) -> Result<U256, StateError> {
        if let Some(before) = slot.before.get() {
            return Ok(*before);
        }
        let before = self.view.slot(entry.changes.address, slot.key)?;
        Ok(*slot.before.get_or_init(|| before))
    }

    fn find(&self, address: Address, at: u32) -> Result<usize, Mismatch> {
        let found = self.by_address.get(&address).copied();
        found.ok_or_else(|| Mismatch::Outside { at, what: address.to_string() })
    }

    fn find_slot(&self, entry: &Entry<'_>, key: U256, at: u32) -> Result<&Slot<'a>, Mismatch> {
        let slots = &self.slots[entry.slots.clone()];
        let found = slots.binary_search_by(|slot| slot.key.cmp(&key)).ok().and_then(|found| slots.get(found));
        found.ok_or_else(|| Mismatch::Outside { at, what: format!("slot {key:#x} of {}", entry.changes.address) })
    }

    /// The account as it is before whatever happens at `at`, with its code where the block changed that.
    fn account_at<'e>(
        &self,
        entry: &'e Entry<'_>,
        at: u32,
    ) -> Result<(Option<Account>, Option<&'e Bytecode>), StateError> {
        let before = self.before(entry)?;
        let changes = entry.changes;
        let balance = last_below(&changes.balance_changes, at, |change| change.block_access_index.get());
        let nonce = last_below(&changes.nonce_changes, at, |change| change.block_access_index.get());
        let code = last_below(&entry.codes, at, |change| change.0);
        if balance.is_none() && nonce.is_none() && code.is_none() {
            return Ok((before, None));
        }
        let mut account = before.unwrap_or_default();
        account.balance = balance.map_or(account.balance, |change| change.post_balance);
        account.nonce = nonce.map_or(account.nonce, |change| change.new_nonce);
        account.code_hash = code.map_or(account.code_hash, |change| change.1);
        // EIP-161: what is empty does not exist.
        if account.is_empty() { Ok((None, None)) } else { Ok((Some(account), code.map(|change| &change.2))) }
    }

    fn slot_at(&self, entry: &Entry<'_>, slot: &Slot<'_>, at: u32) -> Result<U256, StateError> {
        let write = last_below(slot.writes, at, |change| change.block_access_index.get());
        let wipe = last_below(entry.wipes, at, |index| *index);
        match (write, wipe) {
            (Some(write), Some(wipe)) if *wipe > write.block_access_index.get() => Ok(U256::ZERO),
            (Some(write), _) => Ok(write.new_value),
            (None, Some(_)) => Ok(U256::ZERO),
            (None, None) => self.slot_before(entry, slot),
        }
    }

    /// Compares what was done at `at` with the list.
    pub(crate) fn compare(&self, at: u32, state: &EvmState) -> Result<(), Failure> {
        let mut made = 0_u32;
        for (address, account) in state {
            let entry = &self.entries[self.find(*address, at)?];
            see(&entry.seen);
            if account.is_touched() {
                made = made.saturating_add(self.compare_account(at, entry, account)?);
            }
        }
        Ok(self.compare_count(at, made)?)
    }

    fn compare_count(&self, at: u32, made: u32) -> Result<(), Mismatch> {
        let listed = usize::try_from(at).map_or(0, |at| self.changes_at(at));
        if made == listed { Ok(()) } else { Err(Mismatch::Missing { at, made, listed }) }
    }

    /// Compares one touched account and gives the number of its changes.
    fn compare_account(&self, at: u32, entry: &Entry<'_>, account: &EvmAccount) -> Result<u32, Failure> {
        let (before, _) = self.account_at(entry, at)?;
        let created = account.is_created();
        let gone = account.is_selfdestructed() || (account.is_empty() && !created);
        let mut made = 0_u32;
        if created || gone {
            for key in account.storage.keys() {
                see(&self.find_slot(entry, *key, at)?.seen);
            }
            if before.is_some() {
                made = made.saturating_add(1);
                exactly(entry.wipes, at, |index| *index).ok_or_else(|| changed(at, entry, "its existence"))?;
            }
        }
        let mut after = Account::default();
        if !gone {
            after = Account { nonce: account.info.nonce, balance: account.info.balance, ..after };
            if !account.info.code_hash.is_zero() {
                after.code_hash = account.info.code_hash;
            }
        }
        made = made.saturating_add(compare_info(at, entry, before.unwrap_or_default(), after)?);
        if !gone {
            for (key, slot) in account.storage.iter().filter(|(_, slot)| slot.is_changed()) {
                let listed = self.find_slot(entry, *key, at)?;
                let write = exactly(listed.writes, at, |change| change.block_access_index.get());
                if write.is_none_or(|write| write.new_value != slot.present_value()) {
                    return Err(changed(at, entry, &format!("slot {key:#x}")).into());
                }
                made = made.saturating_add(1);
            }
        }
        Ok(made)
    }

    /// Compares what a transfer did at `at` with the list.
    pub(crate) fn compare_transfer(&self, at: u32, moved: &Moved) -> Result<(), Failure> {
        let mut made = 0_u32;
        for touched in moved.accounts() {
            let entry = &self.entries[self.find(touched.address, at)?];
            see(&entry.seen);
            let (before, after) = (touched.before.unwrap_or_default(), touched.after.unwrap_or_default());
            let changes = compare_info(at, entry, before, after)?;
            made = made.saturating_add(changes);
        }
        Ok(self.compare_count(at, made)?)
    }

    /// Compares the record that was kept while the block itself did something at `at`.
    pub(crate) fn compare_record(&self, at: u32, record: &AccessList) -> Result<(), Failure> {
        let mut made = 0_u32;
        for account in &record.accounts {
            let entry = &self.entries[self.find(account.address, at)?];
            see(&entry.seen);
            for key in account.storage_slots() {
                see(&self.find_slot(entry, key, at)?.seen);
            }
            for written in &account.storage_changes {
                let listed = self.find_slot(entry, written.slot, at)?;
                let write = exactly(listed.writes, at, |change| change.block_access_index.get());
                if write.map(|write| write.new_value) != written.changes.last().map(|change| change.new_value) {
                    return Err(changed(at, entry, &format!("slot {:#x}", written.slot)).into());
                }
                made = made.saturating_add(1);
            }
            let (before, _) = self.account_at(entry, at)?;
            let before = before.unwrap_or_default();
            let code = account.code_changes.last().map(|change| &change.new_code);
            let after = Account {
                balance: account.balance_post_state().unwrap_or(before.balance),
                nonce: account.nonce_changes.last().map_or(before.nonce, |change| change.new_nonce),
                code_hash: code.map_or(before.code_hash, keccak256),
            };
            made = made.saturating_add(compare_info(at, entry, before, after)?);
        }
        for wipe in &record.wipes {
            let entry = &self.entries[self.find(wipe.address, at)?];
            exactly(entry.wipes, at, |index| *index).ok_or_else(|| changed(at, entry, "its existence"))?;
            made = made.saturating_add(1);
        }
        Ok(self.compare_count(at, made)?)
    }

    /// Checks that everything listed was accessed.
    pub(crate) fn compare_end(&self) -> Result<(), Mismatch> {
        for entry in &self.entries {
            if !entry.seen.load(Ordering::Relaxed) {
                return Err(Mismatch::Invented(entry.changes.address.to_string()));
            }
            let slots = &self.slots[entry.slots.clone()];
            // A slot with writes was compared at each of them.
            let unseen = slots.iter().find(|slot| slot.writes.is_empty() && !slot.seen.load(Ordering::Relaxed));
            if let Some(slot) = unseen {
                return Err(Mismatch::Invented(format!("slot {:#x} of {}", slot.key, entry.changes.address)));
            }
        }
        Ok(())
    }

    /// The block's net changes, as the list says.
    pub(crate) fn changes(&self) -> Result<StateChanges, StateError> {
        let mut changes = StateChanges::default();
        changes.accounts.reserve(self.entries.len());
        for entry in &self.entries {
            let before = self.before(entry)?;
            let (after, code) = self.account_at(entry, u32::MAX)?;
            let wiped = before.is_some() && !entry.wipes.is_empty();
            let mut change = AccountChange { before, after, wiped, ..AccountChange::default() };
            let slots = if after.is_some() { &self.slots[entry.slots.clone()] } else { &[] };
            for slot in slots.iter().filter(|slot| wiped || !slot.writes.is_empty()) {
                let (before, after) = (self.slot_before(entry, slot)?, self.slot_at(entry, slot, u32::MAX)?);
                if before != after || (wiped && !after.is_zero()) {
                    change.slots.insert(slot.key, SlotChange { before, after });
                }
            }
            if before == after && !wiped && change.slots.is_empty() {
                continue;
            }
            if let (Some(after), Some(code)) = (after, code)
                && after.has_code()
                && before.is_none_or(|before| before.code_hash != after.code_hash)
            {
                changes.codes.insert(after.code_hash, code.original_bytes());
            }
            changes.accounts.insert(entry.changes.address, change);
        }
        Ok(changes)
    }
}

fn changed(at: u32, entry: &Entry<'_>, what: &str) -> Mismatch {
    Mismatch::Change { at, what: format!("{what} of {}", entry.changes.address) }
}

/// Compares nonce, balance and code, and gives the number of changes.
fn compare_info(at: u32, entry: &Entry<'_>, before: Account, after: Account) -> Result<u32, Mismatch> {
    let (mut made, changes) = (0_u32, entry.changes);
    if before.balance != after.balance {
        let listed = exactly(&changes.balance_changes, at, |change| change.block_access_index.get());
        if listed.is_none_or(|change| change.post_balance != after.balance) {
            return Err(changed(at, entry, "the balance"));
        }
        made = made.saturating_add(1);
    }
    if before.nonce != after.nonce {
        let listed = exactly(&changes.nonce_changes, at, |change| change.block_access_index.get());
        if listed.is_none_or(|change| change.new_nonce != after.nonce) {
            return Err(changed(at, entry, "the nonce"));
        }
        made = made.saturating_add(1);
    }
    if before.code_hash != after.code_hash {
        let listed = exactly(&entry.codes, at, |change| change.0);
        if listed.is_none_or(|change| change.1 != after.code_hash) {
            return Err(changed(at, entry, "the code"));
        }
        made = made.saturating_add(1);
    }
    Ok(made)
}

/// Why a comparison did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The list is wrong.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The state before the block cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The state before whatever happens at one index, as a view.
pub(crate) struct At<'i, 'a> {
    pub(crate) index: &'i Index<'a>,
    pub(crate) at: u32,
    /// The first access that is not listed.
    pub(crate) outside: OnceLock<Mismatch>,
}

impl<'i, 'a> At<'i, 'a> {
    pub(crate) const fn new(index: &'i Index<'a>, at: u32) -> Self {
        Self { index, at, outside: OnceLock::new() }
    }

    fn listed<T>(&self, found: Result<T, Mismatch>) -> Result<T, StateError> {
        found.map_err(|mismatch| {
            let text = mismatch.to_string();
            let _ = self.outside.set(mismatch);
            StateError::Unreadable(text)
        })
    }

    /// Account, number and, where the block changed it, code.
    pub(crate) fn load(&self, address: Address) -> Result<(Option<Account>, usize, Option<&'i Bytecode>), StateError> {
        let id = self.listed(self.index.find(address, self.at))?;
        let (account, code) = self.index.account_at(&self.index.entries[id], self.at)?;
        Ok((account, id, code))
    }

    /// Slot of the account with this number.
    pub(crate) fn slot_of(&self, id: usize, key: U256) -> Result<U256, StateError> {
        let entry = &self.index.entries[id];
        let slot = self.listed(self.index.find_slot(entry, key, self.at))?;
        if slot.writes.is_empty() {
            see(&slot.seen);
        }
        self.index.slot_at(entry, slot, self.at)
    }
}

impl StateView for At<'_, '_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.load(address)?.0)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let id = self.listed(self.index.find(address, self.at))?;
        self.slot_of(id, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        let changed = self.index.entries.iter().flat_map(|entry| &entry.codes);
        let mut changed = changed.filter(|(at, code_hash, _)| *at < u64::from(self.at) && *code_hash == hash);
        match changed.next() {
            Some((_, _, code)) => Ok(code.original_bytes()),
            None => self.index.view.code(hash),
        }
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        self.index.view.block_hash(height)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        self.index.view.root_after(parent, changes)
    }
}
