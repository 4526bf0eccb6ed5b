//! The part of a state that a block reads, in maps: what is measured on it is execution and nothing else.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256, map::HashMap};
use engine::{
    ports::{StateError, StateView},
    types::{AccessList, Account, Height, StateChanges, TrieHandle},
};

/// A part of a state.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    accounts: HashMap<Address, (Option<Account>, HashMap<U256, U256>)>,
    codes: HashMap<B256, Bytes>,
}

impl Frozen {
    /// Everything that the access list of a block names, as it is in `view`.
    pub(crate) fn new(view: &dyn StateView, list: &AccessList, more: &[Address]) -> Self {
        let mut frozen = Self::default();
        for account in &list.accounts {
            let slots = account.storage_reads.iter().copied();
            let slots = slots.chain(account.storage_changes.iter().map(|changes| changes.slot));
            let slots: Vec<U256> = slots.collect();
            frozen.take(view, account.address, &slots);
        }
        for address in more {
            frozen.take(view, *address, &[]);
        }
        frozen
    }

    fn take(&mut self, view: &dyn StateView, address: Address, slots: &[U256]) {
        let account = view.account(address).expect("the state can be read");
        if let Some(account) = account.filter(Account::has_code) {
            let code = view.code(account.code_hash).expect("the state can be read");
            self.codes.insert(account.code_hash, code);
        }
        let entry = self.accounts.entry(address).or_insert_with(|| (account, HashMap::default()));
        for key in slots {
            entry.1.insert(*key, view.slot(address, *key).expect("the state can be read"));
        }
    }
}

/// The same on a disk: every read of an account or a slot takes a while, during which others can read.
pub(crate) struct Slow<'a>(pub(crate) &'a Frozen, pub(crate) Duration);

impl StateView for Slow<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        std::thread::sleep(self.1);
        self.0.account(address)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        std::thread::sleep(self.1);
        self.0.slot(address, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.0.code(hash)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        self.0.block_hash(height)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        self.0.root_after(parent, changes)
    }
}

impl StateView for Frozen {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.accounts.get(&address).and_then(|entry| entry.0))
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let slots = self.accounts.get(&address).map(|entry| &entry.1);
        Ok(slots.and_then(|slots| slots.get(&key)).copied().unwrap_or_default())
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.codes.get(&hash).cloned().ok_or_else(|| StateError::Corrupt(format!("no code has the hash {hash}")))
    }

    fn block_hash(&self, _: Height) -> Result<Option<B256>, StateError> {
        Ok(None)
    }

    fn root_after(&self, _: Option<&TrieHandle>, _: &StateChanges) -> Result<(B256, TrieHandle), StateError> {
        Err(StateError::Corrupt("a part of a state has no root".to_owned()))
    }
}
