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
//! The list may arrive in fragments: what has arrived answers for the indices that have, because everything that
//! comes later lies behind them.
//!
//! Source: EIP-7928.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256, map::B256Map};
use engine::{
    ports::{StateError, StateView},
    types::{
        AccessList, Account, AccountChange, Height, SlotChange, StateChanges, TrieHandle,
        access_list::{PartialAccount, PartialList, PartialSlot},
    },
};
use revm::state::{Account as EvmAccount, Bytecode, EvmState};

use crate::{code, transfer::Moved};

/// Locations a thread fetches at a time.
const PREFETCH_CHUNK: usize = 8;

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

/// What is known of a slot of the list.
#[derive(Default)]
struct Slot {
    before: OnceLock<U256>,
    seen: AtomicBool,
}

/// What is known of an account of the list.
#[derive(Default)]
struct Entry {
    before: OnceLock<Option<Account>>,
    seen: AtomicBool,
}

/// A list, ready to be read at any index that is there.
pub(crate) struct Index<'a> {
    view: &'a dyn StateView,
    list: PartialList<'a>,
    /// By account number.
    entries: Vec<Entry>,
    /// By slot number.
    slots: Vec<Slot>,
    /// By number of an account whose code changes: index, hash and analysed code of each change.
    codes: BTreeMap<usize, Vec<(u64, B256, Bytecode)>>,
    /// By hash: the lowest index at which some account gets the code, and the code.
    new_codes: B256Map<(u64, Bytecode)>,
    /// Accounts and slots before these numbers have been fetched.
    fetched: (usize, usize),
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
    /// Of a block that can pay for so many items.
    pub(crate) fn new(view: &'a dyn StateView, items_max: u64) -> Self {
        Self {
            view,
            list: PartialList::new(items_max),
            entries: Vec::new(),
            slots: Vec::new(),
            codes: BTreeMap::new(),
            new_codes: B256Map::default(),
            fetched: (0, 0),
        }
    }

    /// Takes the next fragment, see [`PartialList::extend`].
    pub(crate) fn extend(&mut self, fragment: Cow<'a, AccessList>, transactions: usize) -> Result<(), String> {
        let coded = fragment.accounts.iter().filter(|account| !account.code_changes.is_empty());
        let coded: Vec<Address> = coded.map(|account| account.address).collect();
        self.list.extend(fragment, transactions)?;
        self.entries.resize_with(self.list.accounts().len(), Entry::default);
        self.slots.resize_with(self.list.slots().len(), Slot::default);
        for id in coded.into_iter().filter_map(|address| self.list.find(address)) {
            let codes = self.codes.entry(id).or_default();
            for change in self.list.accounts()[id].codes().iter().skip(codes.len()) {
                let hash = if change.new_code.is_empty() { KECCAK256_EMPTY } else { keccak256(&change.new_code) };
                let (at, code) = (change.block_access_index.get(), code::analyse(change.new_code.clone()));
                let known = self.new_codes.entry(hash).or_insert_with(|| (at, code.clone()));
                known.0 = known.0.min(at);
                codes.push((at, hash, code));
            }
        }
        Ok(())
    }

    /// The list as far as it is there.
    pub(crate) const fn list(&self) -> &PartialList<'a> {
        &self.list
    }

    /// The list that has arrived.
    pub(crate) fn into_list(self) -> AccessList {
        self.list.into_list()
    }

    /// Whether something has arrived that was not there at the last fetch.
    pub(crate) fn wants_fetch(&self) -> bool {
        self.fetched != (self.entries.len(), self.slots.len())
    }

    /// Notes that everything there has been fetched.
    pub(crate) const fn set_fetched(&mut self) {
        self.fetched = (self.entries.len(), self.slots.len());
    }

    /// Accounts and slots that were listed and not read yet.
    pub(crate) fn wanted(&self) -> usize {
        let (accounts, slots) = self.fetched;
        let new_accounts = self.entries.len().saturating_sub(accounts);
        new_accounts.saturating_add(self.slots.len().saturating_sub(slots))
    }

    /// Fetches what arrived since the last fetch and no other thread has fetched yet, until all is there; run by
    /// every thread of the batch.
    pub(crate) fn prefetch(&self, next: &AtomicUsize) -> Result<(), StateError> {
        let (accounts, slots) = self.fetched;
        let new_accounts = self.entries.len().saturating_sub(accounts);
        let all = self.wanted();
        loop {
            let start = next.fetch_add(PREFETCH_CHUNK, Ordering::Relaxed);
            if start >= all {
                return Ok(());
            }
            for at in start..start.saturating_add(PREFETCH_CHUNK).min(all) {
                match at.checked_sub(new_accounts) {
                    None => drop(self.before(accounts.saturating_add(at))?),
                    Some(at) => drop(self.slot_before(slots.saturating_add(at))?),
                }
            }
        }
    }

    fn account(&self, id: usize) -> &PartialAccount<'a> {
        &self.list.accounts()[id]
    }

    fn codes(&self, id: usize) -> &[(u64, B256, Bytecode)] {
        if self.account(id).codes().is_empty() { &[] } else { self.codes.get(&id).map_or(&[], |codes| codes) }
    }

    fn slot(&self, slot: usize) -> &PartialSlot<'a> {
        &self.list.slots()[slot]
    }

    fn before(&self, id: usize) -> Result<Option<Account>, StateError> {
        let known = &self.entries[id].before;
        if let Some(before) = known.get() {
            return Ok(*before);
        }
        let before = self.view.account(self.account(id).address)?;
        Ok(*known.get_or_init(|| before))
    }

    fn slot_before(&self, slot: usize) -> Result<U256, StateError> {
        let known = &self.slots[slot].before;
        if let Some(before) = known.get() {
            return Ok(*before);
        }
        let slot = self.slot(slot);
        let before = self.view.slot(self.account(slot.account).address, slot.key)?;
        Ok(*known.get_or_init(|| before))
    }

    fn find(&self, address: Address, at: u32) -> Result<usize, Mismatch> {
        self.list.find(address).ok_or_else(|| Mismatch::Outside { at, what: address.to_string() })
    }

    fn find_slot(&self, id: usize, key: U256, at: u32) -> Result<usize, Mismatch> {
        let found = self.list.find_slot(id, key);
        found.ok_or_else(|| Mismatch::Outside { at, what: format!("slot {key:#x} of {}", self.account(id).address) })
    }

    /// The account as it is before whatever happens at `at`, with its code where the block changed that.
    fn account_at(&self, id: usize, at: u32) -> Result<(Option<Account>, Option<&Bytecode>), StateError> {
        let before = self.before(id)?;
        let changes = self.account(id);
        let balance = last_below(&changes.balances, at, |change| change.block_access_index.get());
        let nonce = last_below(&changes.nonces, at, |change| change.block_access_index.get());
        let code = last_below(self.codes(id), at, |change| change.0);
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

    fn slot_at(&self, slot: usize, at: u32) -> Result<U256, StateError> {
        let listed = self.slot(slot);
        let write = last_below(&listed.writes, at, |change| change.block_access_index.get());
        let wipe = last_below(self.account(listed.account).wipes(), at, |index| *index);
        match (write, wipe) {
            (Some(write), Some(wipe)) if *wipe > write.block_access_index.get() => Ok(U256::ZERO),
            (Some(write), _) => Ok(write.new_value),
            (None, Some(_)) => Ok(U256::ZERO),
            (None, None) => self.slot_before(slot),
        }
    }

    /// Checks that a write at `at` stands in the list.
    fn compare_write(&self, at: u32, id: usize, key: U256, value: Option<U256>) -> Result<(), Mismatch> {
        let writes = &self.slot(self.find_slot(id, key, at)?).writes;
        let write = exactly(writes, at, |change| change.block_access_index.get());
        if write.map(|write| write.new_value) == value && value.is_some() {
            return Ok(());
        }
        Err(self.changed(at, id, &format!("slot {key:#x}")))
    }

    /// Checks that a wipe at `at` stands in the list.
    fn compare_wipe(&self, at: u32, id: usize) -> Result<(), Mismatch> {
        match exactly(self.account(id).wipes(), at, |index| *index) {
            Some(_) => Ok(()),
            None => Err(self.changed(at, id, "its existence")),
        }
    }

    fn changed(&self, at: u32, id: usize, what: &str) -> Mismatch {
        Mismatch::Change { at, what: format!("{what} of {}", self.account(id).address) }
    }

    /// Compares what was done at `at` with the list.
    pub(crate) fn compare(&self, at: u32, state: &EvmState) -> Result<(), Failure> {
        let mut made = 0_u32;
        for (address, account) in state {
            let id = self.find(*address, at)?;
            see(&self.entries[id].seen);
            if account.is_touched() {
                made = made.saturating_add(self.compare_account(at, id, account)?);
            }
        }
        Ok(self.compare_count(at, made)?)
    }

    fn compare_count(&self, at: u32, made: u32) -> Result<(), Mismatch> {
        let listed = usize::try_from(at).map_or(0, |at| self.list.changes_at(at));
        if made == listed { Ok(()) } else { Err(Mismatch::Missing { at, made, listed }) }
    }

    /// Compares one touched account and gives the number of its changes.
    fn compare_account(&self, at: u32, id: usize, account: &EvmAccount) -> Result<u32, Failure> {
        let (before, _) = self.account_at(id, at)?;
        let created = account.is_created();
        let gone = account.is_selfdestructed() || (account.is_empty() && !created);
        let mut made = 0_u32;
        if created || gone {
            for key in account.storage.keys() {
                see(&self.slots[self.find_slot(id, *key, at)?].seen);
            }
            if before.is_some() {
                made = made.saturating_add(1);
                self.compare_wipe(at, id)?;
            }
        }
        let mut after = Account::default();
        if !gone {
            after = Account { nonce: account.info.nonce, balance: account.info.balance, ..after };
            if !account.info.code_hash.is_zero() {
                after.code_hash = account.info.code_hash;
            }
        }
        made = made.saturating_add(self.compare_info(at, id, before.unwrap_or_default(), after)?);
        if !gone {
            for (key, slot) in account.storage.iter().filter(|(_, slot)| slot.is_changed()) {
                self.compare_write(at, id, *key, Some(slot.present_value()))?;
                made = made.saturating_add(1);
            }
        }
        Ok(made)
    }

    /// Compares what a transfer did at `at` with the list; its accounts were loaded by their numbers here.
    pub(crate) fn compare_transfer(&self, at: u32, moved: &Moved) -> Result<(), Failure> {
        let mut made = 0_u32;
        for touched in moved.accounts() {
            see(&self.entries[touched.id].seen);
            let (before, after) = (touched.before.unwrap_or_default(), touched.after.unwrap_or_default());
            made = made.saturating_add(self.compare_info(at, touched.id, before, after)?);
        }
        Ok(self.compare_count(at, made)?)
    }

    /// Compares the record that was kept while the block itself did something at `at`.
    pub(crate) fn compare_record(&self, at: u32, record: &AccessList) -> Result<(), Failure> {
        let mut made = 0_u32;
        for account in &record.accounts {
            let id = self.find(account.address, at)?;
            see(&self.entries[id].seen);
            for key in account.storage_slots() {
                see(&self.slots[self.find_slot(id, key, at)?].seen);
            }
            for written in &account.storage_changes {
                self.compare_write(at, id, written.slot, written.changes.last().map(|change| change.new_value))?;
                made = made.saturating_add(1);
            }
            let (before, _) = self.account_at(id, at)?;
            let before = before.unwrap_or_default();
            let code = account.code_changes.last().map(|change| &change.new_code);
            let after = Account {
                balance: account.balance_post_state().unwrap_or(before.balance),
                nonce: account.nonce_changes.last().map_or(before.nonce, |change| change.new_nonce),
                code_hash: code.map_or(before.code_hash, keccak256),
            };
            made = made.saturating_add(self.compare_info(at, id, before, after)?);
        }
        for wipe in &record.wipes {
            self.compare_wipe(at, self.find(wipe.address, at)?)?;
            made = made.saturating_add(1);
        }
        Ok(self.compare_count(at, made)?)
    }

    /// Compares nonce, balance and code, and gives the number of changes.
    fn compare_info(&self, at: u32, id: usize, before: Account, after: Account) -> Result<u32, Mismatch> {
        let (mut made, changes) = (0_u32, self.account(id));
        if before.balance != after.balance {
            let listed = exactly(&changes.balances, at, |change| change.block_access_index.get());
            if listed.is_none_or(|change| change.post_balance != after.balance) {
                return Err(self.changed(at, id, "the balance"));
            }
            made = made.saturating_add(1);
        }
        if before.nonce != after.nonce {
            let listed = exactly(&changes.nonces, at, |change| change.block_access_index.get());
            if listed.is_none_or(|change| change.new_nonce != after.nonce) {
                return Err(self.changed(at, id, "the nonce"));
            }
            made = made.saturating_add(1);
        }
        if before.code_hash != after.code_hash {
            let listed = exactly(self.codes(id), at, |change| change.0);
            if listed.is_none_or(|change| change.1 != after.code_hash) {
                return Err(self.changed(at, id, "the code"));
            }
            made = made.saturating_add(1);
        }
        Ok(made)
    }

    /// Checks that everything listed was accessed.
    pub(crate) fn compare_end(&self) -> Result<(), Mismatch> {
        let unseen = |seen: &AtomicBool| !seen.load(Ordering::Relaxed);
        let account = self.entries.iter().position(|entry| unseen(&entry.seen));
        if let Some(id) = account {
            return Err(Mismatch::Invented(self.account(id).address.to_string()));
        }
        // A slot with writes was compared at each of them.
        let mut slots = self.slots.iter().zip(self.list.slots());
        match slots.find(|(slot, listed)| listed.writes.is_empty() && unseen(&slot.seen)) {
            None => Ok(()),
            Some((_, PartialSlot { account, key, .. })) => {
                Err(Mismatch::Invented(format!("slot {key:#x} of {}", self.account(*account).address)))
            }
        }
    }

    /// The block's net changes, as the list says.
    pub(crate) fn changes(&self) -> Result<StateChanges, StateError> {
        let mut changes = StateChanges::default();
        changes.accounts.reserve(self.entries.len());
        for (id, account) in self.list.accounts().iter().enumerate() {
            let before = self.before(id)?;
            let (after, code) = self.account_at(id, u32::MAX)?;
            let wiped = before.is_some() && !account.wipes().is_empty();
            let mut change = AccountChange { before, after, wiped, ..AccountChange::default() };
            if after.is_some() && account.has_slots() {
                for slot in self.list.slots_of(id).filter(|slot| wiped || !self.slot(*slot).writes.is_empty()) {
                    let (before, after) = (self.slot_before(slot)?, self.slot_at(slot, u32::MAX)?);
                    if before != after || (wiped && !after.is_zero()) {
                        change.slots.insert(self.slot(slot).key, SlotChange { before, after });
                    }
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
            changes.accounts.insert(account.address, change);
        }
        Ok(changes)
    }
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
        let (account, code) = self.index.account_at(id, self.at)?;
        Ok((account, id, code))
    }

    /// Number and account.
    pub(crate) fn numbered(&self, address: Address) -> Result<(usize, Option<Account>), StateError> {
        let (account, id, _) = self.load(address)?;
        Ok((id, account))
    }

    /// Slot of the account with this number.
    pub(crate) fn slot_of(&self, id: usize, key: U256) -> Result<U256, StateError> {
        let slot = self.listed(self.index.find_slot(id, key, self.at))?;
        if self.index.slot(slot).writes.is_empty() {
            see(&self.index.slots[slot].seen);
        }
        self.index.slot_at(slot, self.at)
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
        match self.index.new_codes.get(&hash) {
            Some((at, code)) if *at < u64::from(self.at) => Ok(code.original_bytes()),
            _ => self.index.view.code(hash),
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
