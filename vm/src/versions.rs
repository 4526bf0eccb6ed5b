//! Multi-version memory: what every place of the state holds, as committed and as guessed ahead.
//!
//! A place is an account or a slot that somebody read or wrote in this block. It has a dense number for as long
//! as the block lasts; the whole key is compared when the number is given out, never a hash of it. Each place
//! has a cell:
//!
//! ```text
//! cell    committed (two buffers, written by the lane alone)
//!         guessed   (a few versions, each with the number of its transaction)
//! ```
//!
//! Readers take no lock and never wait: whoever reads for transaction t takes the guessed version of the highest
//! transaction below t that is not committed yet, else the committed one. A version that is being written is
//! passed over, and where no room is left the oldest guess makes way. Both may give an old value, which costs
//! time and nothing else: the lane compares every value that a guess read with the committed ones.
//!
//! Source: Block-STM (Gelashvili et al., 2022), section 3, for versions by transaction.

mod cell;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloy_primitives::{Address, B256, U256, map::DefaultHashBuilder};
use dashmap::DashMap;
use engine::{
    ports::{StateError, StateView},
    types::Account,
};
use revm::state::Bytecode;

use self::cell::Cell;

/// Words of a slot's value.
const SLOT_WORDS: usize = 4;
/// Words of an account: whether there is one, nonce, balance, code hash.
const ACCOUNT_WORDS: usize = 10;

fn account_words(account: Option<Account>) -> [u64; ACCOUNT_WORDS] {
    let Some(Account { nonce, balance, code_hash }) = account else { return [0; ACCOUNT_WORDS] };
    let [b0, b1, b2, b3] = balance.into_limbs();
    let [c0, c1, c2, c3] = U256::from_be_bytes(code_hash.0).into_limbs();
    [1, nonce, b0, b1, b2, b3, c0, c1, c2, c3]
}

fn account_of(words: [u64; ACCOUNT_WORDS]) -> Option<Account> {
    let [exists, nonce, b0, b1, b2, b3, c0, c1, c2, c3] = words;
    let code_hash = B256::from(U256::from_limbs([c0, c1, c2, c3]));
    (exists != 0).then(|| Account { nonce, balance: U256::from_limbs([b0, b1, b2, b3]), code_hash })
}

/// An account that somebody read or wrote.
#[derive(Debug)]
pub(crate) struct AccountPlace {
    pub(crate) address: Address,
    cell: Cell<ACCOUNT_WORDS>,
    /// It existed before the block.
    existed: bool,
}

/// A slot that somebody read or wrote.
#[derive(Debug)]
pub(crate) struct SlotPlace {
    /// Number of the account's place.
    pub(crate) account: u32,
    pub(crate) key: U256,
    cell: Cell<SLOT_WORDS>,
    /// A guess failed on it.
    hot: AtomicBool,
}

/// All places of a block.
pub(crate) struct Versions<'a> {
    view: &'a dyn StateView,
    accounts: boxcar::Vec<AccountPlace>,
    account_numbers: DashMap<Address, u32, DefaultHashBuilder>,
    slots: boxcar::Vec<SlotPlace>,
    slot_numbers: DashMap<(u32, U256), u32, DefaultHashBuilder>,
    codes: DashMap<B256, Bytecode, DefaultHashBuilder>,
    /// The lowest transaction that is not committed; transactions are numbered from 1 through the whole block.
    lowest: AtomicU32,
}

/// What goes wrong only after four billion places, or where a number was never given out.
fn lost() -> StateError {
    StateError::Corrupt("a place of the block's memory has no number".to_owned())
}

impl<'a> Versions<'a> {
    /// An empty memory over the state before the block.
    pub(crate) fn new(view: &'a dyn StateView) -> Self {
        Self {
            view,
            accounts: boxcar::Vec::new(),
            account_numbers: DashMap::default(),
            slots: boxcar::Vec::new(),
            slot_numbers: DashMap::default(),
            codes: DashMap::default(),
            lowest: AtomicU32::new(1),
        }
    }

    /// The lowest transaction that is not committed.
    pub(crate) fn lowest(&self) -> u32 {
        self.lowest.load(Ordering::Acquire)
    }

    /// Everything below `lowest` is committed.
    pub(crate) fn advance(&self, lowest: u32) {
        self.lowest.store(lowest, Ordering::Release);
    }

    /// The number of an account's place; it gets one if it has none.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn account_number(&self, address: Address) -> Result<u32, StateError> {
        match self.find_account(address) {
            Some(number) => Ok(number),
            // Outside the map's lock: others may look in the same part of it meanwhile.
            None => self.known_account_number(address, self.view.account(address)?),
        }
    }

    /// The number of an account's place if it has one.
    pub(crate) fn find_account(&self, address: Address) -> Option<u32> {
        self.account_numbers.get(&address).map(|number| *number)
    }

    /// The number of the place of an account that was so before the block.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn known_account_number(&self, address: Address, before: Option<Account>) -> Result<u32, StateError> {
        let place = || AccountPlace { address, cell: Cell::new(account_words(before)), existed: before.is_some() };
        let number = || u32::try_from(self.accounts.push(place())).map_err(|_| lost());
        Ok(*self.account_numbers.entry(address).or_try_insert_with(number)?)
    }

    /// The number of a slot's place; it gets one if it has none.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn slot_number(&self, account: u32, key: U256) -> Result<u32, StateError> {
        if let Some(number) = self.find_slot(account, key) {
            return Ok(number);
        }
        let AccountPlace { address, existed, .. } = self.account(account)?;
        let before = if *existed { self.view.slot(*address, key)? } else { U256::ZERO };
        self.known_slot_number(account, key, before)
    }

    /// The number of a slot's place if it has one.
    pub(crate) fn find_slot(&self, account: u32, key: U256) -> Option<u32> {
        self.slot_numbers.get(&(account, key)).map(|number| *number)
    }

    /// The number of the place of a slot that held `before` before the block.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn known_slot_number(&self, account: u32, key: U256, before: U256) -> Result<u32, StateError> {
        let place = || SlotPlace { account, key, cell: Cell::new(before.into_limbs()), hot: AtomicBool::new(false) };
        let number = || u32::try_from(self.slots.push(place())).map_err(|_| lost());
        Ok(*self.slot_numbers.entry((account, key)).or_try_insert_with(number)?)
    }

    /// The account's place.
    ///
    /// # Errors
    /// [`StateError`] if the number was not given out here.
    pub(crate) fn account(&self, number: u32) -> Result<&AccountPlace, StateError> {
        usize::try_from(number).ok().and_then(|at| self.accounts.get(at)).ok_or_else(lost)
    }

    /// The slot's place.
    ///
    /// # Errors
    /// [`StateError`] if the number was not given out here.
    pub(crate) fn slot(&self, number: u32) -> Result<&SlotPlace, StateError> {
        usize::try_from(number).ok().and_then(|at| self.slots.get(at)).ok_or_else(lost)
    }

    /// A code that some transaction of the block deployed.
    pub(crate) fn code(&self, hash: B256) -> Option<Bytecode> {
        self.codes.get(&hash).map(|code| code.clone())
    }

    /// Some transaction deploys this code.
    pub(crate) fn add_code(&self, hash: B256, code: &Bytecode) {
        self.codes.insert(hash, code.clone());
    }
}

impl AccountPlace {
    pub(crate) fn committed(&self) -> Option<Account> {
        account_of(self.cell.committed())
    }

    pub(crate) fn commit(&self, account: Option<Account>) {
        self.cell.commit(account_words(account));
    }

    pub(crate) fn read(&self, number: u32, lowest: u32) -> Option<Account> {
        account_of(self.cell.read(number, lowest))
    }

    pub(crate) fn guess(&self, number: u32, lowest: u32, account: Option<Account>) {
        self.cell.guess(number, lowest, account_words(account));
    }
}

impl SlotPlace {
    pub(crate) fn heat(&self) {
        self.hot.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_hot(&self) -> bool {
        self.hot.load(Ordering::Relaxed)
    }

    pub(crate) fn committed(&self) -> U256 {
        U256::from_limbs(self.cell.committed())
    }

    pub(crate) fn commit(&self, value: U256) {
        self.cell.commit(value.into_limbs());
    }

    pub(crate) fn read(&self, number: u32, lowest: u32) -> U256 {
        U256::from_limbs(self.cell.read(number, lowest))
    }

    pub(crate) fn guess(&self, number: u32, lowest: u32, value: U256) {
        self.cell.guess(number, lowest, value.into_limbs());
    }
}

#[cfg(test)]
mod tests;
