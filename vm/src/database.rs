//! A block's own view of the state: what it read, what it changed, and what was there before.
//!
//! One entry per account, in a vector that revm indexes by account id, so a storage read hashes one
//! key and not two. Every slot keeps the value from before the block; at the end only true changes
//! leave, as [`StateChanges`].
//!
//! ```text
//! view, frozen before the block       -> before
//! revm's commit of each transaction   -> now, and one line per change in the record
//! into_parts                          -> where before != now, and the block's access list
//! ```

use std::collections::hash_map::Entry;

use alloy_primitives::{
    Address, B256, KECCAK256_EMPTY, U256,
    map::{AddressMap, HashMap},
};
use engine::{
    ports::{StateError, StateView},
    types::{AccessList, Account, AccountChange, Height, SlotChange, StateChanges},
};
use revm::{
    Database, DatabaseCommit,
    primitives::{StorageKey, StorageKeyMap, StorageValue},
    state::{Account as EvmAccount, AccountId, AccountInfo, Bytecode},
};

use crate::{
    code::{CodeCache, NearCodes},
    error::ViewError,
    guess::{Guess, Reads},
    record::Record,
    transfer::Moved,
    versions::Versions,
    workers::Workers,
};

/// Lines of a record from which it takes longer to make the list of them than to wake a thread, some 50 microseconds.
const LINES_WORTH: usize = 1_000;
/// What has no place in the memory that guesses read.
const NO_PLACE: u32 = u32::MAX;

/// A slot as this block sees it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Its number in this block, by which the record names it.
    id: u32,
    /// Value before the block; `None` while nobody needed to know, which is so only under a wipe.
    before: Option<U256>,
    /// Value at this point of the block.
    now: U256,
    /// Number of its place where guesses see it, [`NO_PLACE`] as long as they need not.
    place: u32,
}

impl Slot {
    const fn new(id: u32, before: Option<U256>, now: U256) -> Self {
        Self { id, before, now, place: NO_PLACE }
    }
}

/// An account as this block sees it.
#[derive(Debug)]
struct Cached {
    address: Address,
    before: Option<Account>,
    now: Option<Account>,
    /// Number of its place where guesses see it, [`NO_PLACE`] as long as they need not.
    place: u32,
    /// Code of `now`, once somebody fetched it.
    code: Option<Bytecode>,
    /// Storage from before the block is gone.
    wiped: bool,
    slots: StorageKeyMap<Slot>,
}

impl Cached {
    fn new(address: Address, before: Option<Account>) -> Self {
        let slots = StorageKeyMap::default();
        Self { address, before, now: before, place: NO_PLACE, code: None, wiped: false, slots }
    }

    /// Takes all storage away; the values from before the block stay known where they were.
    fn wipe(&mut self) {
        self.wiped |= self.before.is_some();
        for slot in self.slots.values_mut() {
            slot.now = U256::ZERO;
        }
    }

    /// What the view holds in a slot that is not cached, `None` if it has to be asked.
    fn known_before(&self) -> Option<U256> {
        self.before.is_none().then_some(U256::ZERO)
    }

    /// Lists slots that revm answered by itself: those of a new account.
    fn list_slots<'k>(&mut self, keys: impl Iterator<Item = &'k U256>, next: &mut u32) {
        let before = self.known_before();
        for key in keys {
            self.slots.entry(*key).or_insert_with(|| Slot::new(number(next), before, U256::ZERO));
        }
    }

    /// Sets a slot; `next` is the number of the next new one.
    fn set_slot(&mut self, key: U256, now: U256, next: &mut u32) -> &mut Slot {
        let before = self.known_before();
        match self.slots.entry(key) {
            Entry::Occupied(slot) => {
                let slot = slot.into_mut();
                slot.now = now;
                slot
            }
            Entry::Vacant(vacant) => vacant.insert(Slot::new(number(next), before, now)),
        }
    }
}

/// The next number.
fn number(next: &mut u32) -> u32 {
    let id = *next;
    *next = next.saturating_add(1);
    id
}

/// The memory that guesses read, and what of it this block's own view holds as well.
struct Published<'a> {
    versions: &'a Versions<'a>,
    /// By number of the place: one more than the account's id, 0 for one that the block has not seen.
    accounts: Vec<usize>,
    /// By number of the place: whether the block has seen the slot.
    slots: Vec<bool>,
    /// Nobody guesses: only places that were met are shown what is committed.
    quiet: bool,
}

/// An element of a list that grows as its numbers do.
fn grown<T: Clone + Default>(list: &mut Vec<T>, number: u32) -> &mut T {
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    if at >= list.len() {
        list.resize(at.saturating_add(1).next_power_of_two(), T::default());
    }
    &mut list[at]
}

impl Published<'_> {
    /// The id of the account at a place, if the block's own view has met the place.
    fn account(&self, place: u32) -> Option<usize> {
        let at = usize::try_from(place).ok()?;
        self.accounts.get(at)?.checked_sub(1)
    }

    fn has_slot(&self, place: u32) -> bool {
        usize::try_from(place).ok().and_then(|at| self.slots.get(at)).copied().unwrap_or_default()
    }

    /// An account of the block's own view has this place from now on.
    fn link_account(&mut self, id: usize, entry: &mut Cached, place: u32) -> Result<(), StateError> {
        entry.place = place;
        *grown(&mut self.accounts, place) = id.saturating_add(1);
        self.versions.account(place)?.commit(entry.now);
        Ok(())
    }

    /// A slot of the block's own view has this place from now on.
    fn link_slot(&mut self, slot: &mut Slot, place: u32) -> Result<(), StateError> {
        slot.place = place;
        *grown(&mut self.slots, place) = true;
        self.versions.slot(place)?.commit(slot.now);
        Ok(())
    }

    /// Shows an account as it is now.
    fn commit_account(&mut self, id: usize, entry: &mut Cached) -> Result<(), StateError> {
        if entry.place == NO_PLACE {
            if self.quiet {
                return Ok(());
            }
            let place = self.versions.known_account_number(entry.address, entry.before)?;
            return self.link_account(id, entry, place);
        }
        self.versions.account(entry.place)?.commit(entry.now);
        Ok(())
    }

    /// Shows a slot of the account at place `account` as it is now.
    fn commit_slot(&mut self, account: u32, key: U256, slot: &mut Slot) -> Result<(), StateError> {
        if slot.place == NO_PLACE {
            if self.quiet || account == NO_PLACE {
                return Ok(());
            }
            let place = self.versions.known_slot_number(account, key, slot.before.unwrap_or_default())?;
            return self.link_slot(slot, place);
        }
        self.versions.slot(slot.place)?.commit(slot.now);
        Ok(())
    }

    /// What the slot at a place holds at this point of the block, once the place of its account was looked for in
    /// the block's own view.
    fn slot_now(&mut self, accounts: &mut [Cached], number: u32) -> Result<U256, StateError> {
        let place = self.versions.slot(number)?;
        if self.has_slot(number) {
            return Ok(place.committed());
        }
        // An account that this block has not met it has not changed.
        let Some(entry) = self.account(place.account).map(|id| &mut accounts[id]) else { return Ok(place.committed()) };
        let hidden = entry.wiped || entry.known_before().is_some();
        match entry.slots.get_mut(&place.key) {
            Some(slot) => {
                self.link_slot(slot, number)?;
                Ok(slot.now)
            }
            None if hidden => Ok(U256::ZERO),
            // What this block has not met it has not changed.
            None => Ok(place.committed()),
        }
    }
}

/// The state during a block, over the frozen state before it.
pub struct BlockState<'a> {
    view: &'a dyn StateView,
    index: AddressMap<usize>,
    accounts: Vec<Cached>,
    codes: NearCodes<'a>,
    block_hashes: HashMap<u64, B256>,
    /// Number of the next slot that is read or written for the first time.
    next_slot: u32,
    record: Option<Record>,
    /// Where those who guess ahead find what was committed.
    published: Option<Published<'a>>,
    /// A read that failed where revm's interface has no way to say so.
    failure: Option<StateError>,
}

impl std::fmt::Debug for BlockState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockState").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}

impl<'a> BlockState<'a> {
    /// Starts where `view` stands.
    #[must_use]
    pub fn new(view: &'a dyn StateView, shared_codes: &'a CodeCache) -> Self {
        Self {
            view,
            index: AddressMap::default(),
            accounts: Vec::new(),
            codes: NearCodes::new(shared_codes),
            block_hashes: HashMap::default(),
            next_slot: 0,
            record: None,
            published: None,
            failure: None,
        }
    }

    /// Makes room for accounts that will be met.
    pub fn reserve(&mut self, accounts: usize) {
        self.accounts.reserve(accounts);
        self.index.reserve(accounts);
        if let Some(record) = &mut self.record {
            record.reserve(accounts);
        }
    }

    /// Shows every further commit to those who guess ahead.
    ///
    /// A plain transfer shows accounts that somebody has met, everything else what it changed.
    pub(crate) fn publish_to(&mut self, versions: &'a Versions<'a>) {
        let new = || Published { versions, accounts: Vec::new(), slots: Vec::new(), quiet: false };
        self.published.get_or_insert_with(new);
    }

    /// Whether anybody guesses: what nobody has met yet is shown only to those.
    pub(crate) const fn set_quiet(&mut self, quiet: bool) {
        if let Some(published) = &mut self.published {
            published.quiet = quiet;
        }
    }

    /// Shows an account as it is now.
    fn publish(&mut self, id: usize) -> Result<(), StateError> {
        match &mut self.published {
            Some(published) => published.commit_account(id, &mut self.accounts[id]),
            None => Ok(()),
        }
    }

    /// Takes an account's storage away.
    fn wipe(&mut self, id: usize) -> Result<(), StateError> {
        let entry = &mut self.accounts[id];
        entry.wipe();
        if let Some(published) = &self.published {
            for slot in entry.slots.values().filter(|slot| slot.place != NO_PLACE) {
                published.versions.slot(slot.place)?.commit(U256::ZERO);
            }
        }
        Ok(())
    }

    /// Whether a guess is what the transaction does on the state as it is.
    ///
    /// Everything it read must be so, but for balances that nobody looked at: there it is enough that both
    /// balances pay for all that was paid, and the guess's own change is moved onto the present balance. `upfront`
    /// is what the sender must be able to pay before anything runs.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn reconcile(&mut self, guess: &mut Guess, sender: Address, upfront: U256) -> Result<bool, StateError> {
        let Some(published) = &mut self.published else { return Ok(false) };
        for at in 0..guess.reads.accounts.len() {
            let (number, read) = guess.reads.accounts[at];
            let place = published.versions.account(number)?;
            let id = published.account(number).or_else(|| self.index.get(&place.address).copied());
            let now = match id.map(|id| (id, &mut self.accounts[id])) {
                Some((id, entry)) => {
                    if entry.place == NO_PLACE {
                        published.link_account(id, entry, number)?;
                    }
                    entry.now
                }
                // What this block has not met it has not changed.
                None => place.committed(),
            };
            let upfront = if place.address == sender { upfront } else { U256::ZERO };
            if now != read {
                if !move_balance(guess, place.address, upfront, read, now) {
                    return Ok(false);
                }
                // What was read may be another guess's that came to nothing; from here on it is as it is.
                guess.reads.accounts[at].1 = now;
            }
        }
        for (number, value) in &guess.reads.slots {
            let was_shown = published.has_slot(*number);
            if published.slot_now(&mut self.accounts, *number)? != *value {
                // What was not shown before says nothing about who meets whom.
                if was_shown {
                    published.versions.slot(*number)?.heat();
                    guess.reads.hot.push(*number);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes over what a guess read that holds, so that nothing is read twice.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn take_reads(&mut self, reads: &Reads) -> Result<(), StateError> {
        let Some(published) = &mut self.published else { return Ok(()) };
        for (number, account) in &reads.accounts {
            if published.account(*number).is_none() {
                let address = published.versions.account(*number)?.address;
                let id = self.accounts.len();
                self.index.insert(address, id);
                self.accounts.push(Cached::new(address, *account));
                published.link_account(id, &mut self.accounts[id], *number)?;
            }
        }
        for (number, value) in &reads.slots {
            if published.has_slot(*number) {
                continue;
            }
            let place = published.versions.slot(*number)?;
            let Some(id) = published.account(place.account) else { continue };
            let entry = &mut self.accounts[id];
            let before = if entry.wiped { None } else { entry.known_before().or(Some(*value)) };
            let next = &mut self.next_slot;
            let slot = entry.slots.entry(place.key).or_insert_with(|| Slot::new(self::number(next), before, *value));
            published.link_slot(slot, *number)?;
        }
        Ok(())
    }

    /// Keeps a record from here on, for [`Self::into_parts`].
    pub fn start_record(&mut self) {
        self.record = Some(Record::default());
    }

    /// What is committed from here on belongs to the next index of the access list.
    pub const fn next_index(&mut self) {
        if let Some(record) = &mut self.record {
            record.next_index();
        }
    }

    fn load(&mut self, address: Address) -> Result<usize, StateError> {
        let unknown = match self.index.entry(address) {
            Entry::Occupied(known) => return Ok(*known.get()),
            Entry::Vacant(unknown) => unknown,
        };
        let id = self.accounts.len();
        let shown = self.published.as_ref().filter(|published| !published.quiet);
        let place = shown.and_then(|published| published.versions.find_account(address));
        match (&mut self.published, place) {
            (Some(published), Some(place)) => {
                let before = published.versions.account(place)?.committed();
                self.accounts.push(Cached::new(address, before));
                published.link_account(id, &mut self.accounts[id], place)?;
            }
            _ => self.accounts.push(Cached::new(address, self.view.account(address)?)),
        }
        unknown.insert(id);
        Ok(id)
    }

    /// The account at this point of the block.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn account(&mut self, address: Address) -> Result<Option<Account>, StateError> {
        let id = self.load(address)?;
        Ok(self.accounts[id].now)
    }

    /// The number that an account keeps through the block, and the account at this point of it.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn numbered(&mut self, address: Address) -> Result<(usize, Option<Account>), StateError> {
        let id = self.load(address)?;
        Ok((id, self.accounts[id].now))
    }

    /// Adds to a balance outside any transaction: a withdrawal of EIP-4895.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn credit(&mut self, address: Address, amount: U256) -> Result<(), StateError> {
        let id = self.load(address)?;
        let entry = &mut self.accounts[id];
        let mut account = entry.now.unwrap_or_default();
        account.balance = account.balance.saturating_add(amount);
        if let Some(record) = &mut self.record {
            record.account(id, entry.now, Some(account), None);
        }
        // EIP-161: a touched account that is empty does not exist afterwards.
        entry.now = (!account.is_empty()).then_some(account);
        if account.is_empty() {
            self.wipe(id)?;
        }
        self.publish(id)
    }

    /// Takes over the accounts that a transfer moved value between, loaded by [`Self::numbered`].
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn commit_transfer(&mut self, moved: &Moved) -> Result<(), StateError> {
        for touched in moved.accounts() {
            let id = touched.id;
            if let Some(record) = &mut self.record {
                record.account(id, touched.before, touched.after, None);
            }
            self.accounts[id].now = touched.after;
            if self.accounts[id].place != NO_PLACE {
                self.publish(id)?;
            }
        }
        Ok(())
    }

    /// Replaces an account, as a call's state override does; `code` belongs to its code hash.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn replace(&mut self, address: Address, account: Account, code: Option<Bytecode>) -> Result<(), StateError> {
        let id = self.load(address)?;
        let entry = &mut self.accounts[id];
        entry.now = Some(account);
        if let Some(code) = code {
            self.codes.insert(account.code_hash, code.clone());
            entry.code = Some(code);
        }
        Ok(())
    }

    /// Replaces slots, as a call's state override does; with `wipe` all others become zero.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn replace_slots(
        &mut self,
        address: Address,
        wipe: bool,
        slots: impl IntoIterator<Item = (U256, U256)>,
    ) -> Result<(), StateError> {
        let id = self.load(address)?;
        let entry = &mut self.accounts[id];
        if wipe {
            entry.wipe();
        }
        for (key, value) in slots {
            entry.set_slot(key, value, &mut self.next_slot);
        }
        Ok(())
    }

    /// Fixes the answer of BLOCKHASH for one height.
    pub fn replace_block_hash(&mut self, height: u64, hash: B256) {
        self.block_hashes.insert(height, hash);
    }

    fn slot(&mut self, id: usize, key: U256) -> Result<U256, StateError> {
        let entry = &mut self.accounts[id];
        let known_before = entry.known_before();
        match entry.slots.entry(key) {
            Entry::Occupied(slot) => Ok(slot.get().now),
            Entry::Vacant(vacant) => {
                let id = number(&mut self.next_slot);
                if entry.wiped || known_before.is_some() {
                    vacant.insert(Slot::new(id, known_before, U256::ZERO));
                    return Ok(U256::ZERO);
                }
                let place = match &self.published {
                    Some(published) if entry.place != NO_PLACE && !published.quiet => {
                        published.versions.find_slot(entry.place, key)
                    }
                    _ => None,
                };
                let (Some(published), Some(place)) = (&mut self.published, place) else {
                    let value = self.view.slot(entry.address, key)?;
                    vacant.insert(Slot::new(id, Some(value), value));
                    return Ok(value);
                };
                let value = published.versions.slot(place)?.committed();
                published.link_slot(vacant.insert(Slot::new(id, Some(value), value)), place)?;
                Ok(value)
            }
        }
    }

    fn commit_account(&mut self, address: Address, account: EvmAccount) -> Result<(), StateError> {
        let id = self.load(address)?;
        let entry = &mut self.accounts[id];
        let before = entry.now;
        let created = account.is_touched() && account.is_created();
        // EIP-161; revm marks what older forks keep although it is empty.
        let gone =
            account.is_touched() && (account.is_selfdestructed() || (account.is_empty() && !account.is_created()));
        if let Some(record) = &mut self.record {
            record.touch(id);
            if created || gone {
                entry.list_slots(account.storage.keys(), &mut self.next_slot);
                if before.is_some() {
                    record.wipe(id);
                }
            }
        }
        if !account.is_touched() {
            if entry.code.is_none() && entry.now.is_some() {
                entry.code = account.info.code.filter(|code| !code.is_empty());
            }
            return Ok(());
        }
        if gone {
            entry.now = None;
            entry.code = None;
            if let Some(record) = &mut self.record {
                record.account(id, before, None, None);
            }
            self.wipe(id)?;
            return self.publish(id);
        }
        if created {
            self.wipe(id)?;
        }
        let entry = &mut self.accounts[id];
        let AccountInfo { balance, nonce, code_hash, code, .. } = account.info;
        let code_hash = if code_hash.is_zero() { KECCAK256_EMPTY } else { code_hash };
        entry.now = Some(Account { nonce, balance, code_hash });
        entry.code = code.filter(|code| !code.is_empty());
        if code_hash != before.map_or(KECCAK256_EMPTY, |before| before.code_hash)
            && let Some(code) = &entry.code
        {
            self.codes.insert(code_hash, code.clone());
            if let Some(published) = &self.published {
                published.versions.add_code(code_hash, code);
            }
        }
        for (key, slot) in account.storage {
            if slot.is_changed() {
                let place = entry.place;
                let own = entry.set_slot(key, slot.present_value(), &mut self.next_slot);
                if let Some(record) = &mut self.record {
                    record.write(own.id, slot.present_value());
                }
                if let Some(published) = &mut self.published {
                    published.commit_slot(place, key, own)?;
                }
            }
        }
        if let Some(record) = &mut self.record {
            record.account(id, before, entry.now, entry.code.as_ref());
        }
        if before != entry.now {
            self.publish(id)?;
        }
        Ok(())
    }

    /// The net changes since the view was taken.
    ///
    /// # Errors
    /// [`StateError`], also of a read that failed earlier.
    pub fn into_changes(self) -> Result<StateChanges, StateError> {
        Ok(self.into_parts(&Workers::alone())?.0)
    }

    /// The net changes since the view was taken, and the access list if a record was kept; another thread makes the
    /// list meanwhile if it is worth waking one.
    ///
    /// # Errors
    /// [`StateError`], also of a read that failed earlier.
    pub fn into_parts(mut self, workers: &Workers) -> Result<(StateChanges, Option<AccessList>), StateError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(record) = self.record.take() else { return Ok((self.net_changes()?, None)) };
        let is_worth_it = record.len() >= LINES_WORTH;
        let list = || {
            let slots = |id: usize| self.accounts[id].slots.iter().map(|(key, slot)| (key, slot.id));
            record.into_list(|id| &self.accounts[id].address, self.accounts.len(), self.next_slot, slots)
        };
        let (list, changes) =
            if is_worth_it { workers.beside(list, || self.net_changes()) } else { (list(), self.net_changes()) };
        Ok((changes?, Some(list)))
    }

    /// The net changes since the view was taken.
    fn net_changes(&self) -> Result<StateChanges, StateError> {
        let mut changes = StateChanges::default();
        changes.accounts.reserve(self.accounts.len());
        for entry in &self.accounts {
            let slots = net_slots(self.view, entry)?;
            if entry.before == entry.now && !entry.wiped && slots.is_empty() {
                continue;
            }
            if let Some(after) = entry.now
                && after.has_code()
                && entry.before.is_none_or(|before| before.code_hash != after.code_hash)
                && let Some(code) = self.codes.known(after.code_hash)
            {
                changes.codes.insert(after.code_hash, code.original_bytes());
            }
            let change = AccountChange { before: entry.before, after: entry.now, wiped: entry.wiped, slots };
            changes.accounts.insert(entry.address, change);
        }
        Ok(changes)
    }
}

/// Moves what a guess did to a balance that nobody looked at onto the present balance, if nothing else stands
/// in the way.
fn move_balance(
    guess: &mut Guess,
    address: Address,
    upfront: U256,
    read: Option<Account>,
    now: Option<Account>,
) -> bool {
    let (Some(now), Some(read)) = (now, read) else { return false };
    let same = now.nonce == read.nonce && now.code_hash == read.code_hash;
    // An account that its balance alone keeps alive is another matter.
    let alive = now.nonce > 0 || now.has_code();
    let paid = guess.debits.get(&address).copied().unwrap_or_default().saturating_add(upfront);
    if !same || !alive || paid > now.balance.min(read.balance) || guess.observed.contains(&address) {
        return false;
    }
    let Some(after) = guess.state.get_mut(&address) else { return true };
    let moved = after.info.balance.checked_add(now.balance).and_then(|sum| sum.checked_sub(read.balance));
    moved.is_some_and(|balance| {
        after.info.balance = balance;
        true
    })
}

/// Slots of an account whose value differs from before the block, or that a wipe would lose.
fn net_slots(view: &dyn StateView, entry: &Cached) -> Result<HashMap<U256, SlotChange>, StateError> {
    let mut changed = HashMap::default();
    if entry.now.is_none() {
        return Ok(changed);
    }
    for (key, slot) in &entry.slots {
        let after = slot.now;
        let before = match slot.before {
            Some(before) => before,
            None => view.slot(entry.address, *key)?,
        };
        if before != after || (entry.wiped && !after.is_zero()) {
            changed.insert(*key, SlotChange { before, after });
        }
    }
    Ok(changed)
}

impl Database for BlockState<'_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        let id = self.load(address)?;
        let entry = &mut self.accounts[id];
        let Some(account) = entry.now else {
            return Ok(None);
        };
        if !account.has_code() {
            entry.code = None;
        } else if entry.code.is_none() {
            entry.code = self.codes.known(account.code_hash).cloned();
        }
        let info = AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            account_id: AccountId::new(id),
            ..AccountInfo::default()
        };
        Ok(Some(if account.has_code() { AccountInfo { code: entry.code.clone(), ..info } } else { info }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        Ok(self.codes.get(self.view, code_hash)?)
    }

    fn storage(&mut self, address: Address, index: StorageKey) -> Result<StorageValue, ViewError> {
        let id = self.load(address)?;
        Ok(self.slot(id, index)?)
    }

    fn storage_by_account_id(
        &mut self,
        _address: Address,
        account_id: AccountId,
        storage_key: StorageKey,
    ) -> Result<StorageValue, ViewError> {
        Ok(self.slot(account_id.get(), storage_key)?)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ViewError> {
        if let Some(hash) = self.block_hashes.get(&number) {
            return Ok(*hash);
        }
        let hash = self.view.block_hash(Height(number))?.unwrap_or_default();
        self.block_hashes.insert(number, hash);
        Ok(hash)
    }
}

impl DatabaseCommit for BlockState<'_> {
    fn commit(&mut self, changes: AddressMap<EvmAccount>) {
        // The order of the map reaches nothing: entries are independent and leave as a map again.
        for (address, account) in changes {
            if let Err(failure) = self.commit_account(address, account) {
                self.failure.get_or_insert(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests;
