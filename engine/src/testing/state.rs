//! State in maps, with roots computed from scratch: slow, and obviously right.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{
    TrieAccount,
    root::{state_root_unhashed, storage_root_unhashed},
};

use crate::{
    genesis::GenesisAccount,
    ports::{StateError, StateView},
    types::{Account, Height, StateChanges, TrieHandle},
};

/// One account of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapAccount {
    /// Nonce, balance, code hash.
    pub account: Account,
    /// Non-zero slots.
    pub storage: BTreeMap<U256, U256>,
}

/// A whole state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapState {
    /// Accounts by address.
    pub accounts: BTreeMap<Address, MapAccount>,
    /// Code by hash.
    pub codes: BTreeMap<B256, Bytes>,
    /// Hashes of earlier blocks by height.
    pub block_hashes: BTreeMap<u64, B256>,
}

impl MapState {
    /// The state of a genesis block with these accounts.
    #[must_use]
    pub fn genesis(alloc: &BTreeMap<Address, GenesisAccount>) -> Self {
        let mut state = Self::default();
        for (address, genesis) in alloc {
            state.insert(*address, genesis);
        }
        state
    }

    /// Puts an account in, in place of any that was there.
    pub fn insert(&mut self, address: Address, account: &GenesisAccount) {
        let mut code_hash = KECCAK256_EMPTY;
        if !account.code.is_empty() {
            code_hash = keccak256(&account.code);
            self.codes.insert(code_hash, account.code.clone());
        }
        let storage = account.storage.iter().filter(|(_, value)| !value.is_zero());
        let storage = storage.map(|(key, value)| (*key, *value)).collect();
        let account = Account { nonce: account.nonce, balance: account.balance, code_hash };
        self.accounts.insert(address, MapAccount { account, storage });
    }

    /// The state root, from every account and slot.
    #[must_use]
    pub fn root(&self) -> B256 {
        state_root_unhashed(self.accounts.iter().map(|(address, MapAccount { account, storage })| {
            let slots = storage.iter().map(|(key, value)| (B256::from(*key), *value));
            let account = TrieAccount {
                nonce: account.nonce,
                balance: account.balance,
                storage_root: storage_root_unhashed(slots),
                code_hash: account.code_hash,
            };
            (*address, account)
        }))
    }

    /// Moves on by one block's changes.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] if the changes name another value before the block than this state has.
    pub fn apply(&mut self, changes: &StateChanges) -> Result<(), StateError> {
        for (address, change) in &changes.accounts {
            let (before, mut storage) = match self.accounts.remove(address) {
                Some(had) => (Some(had.account), had.storage),
                None => (None, BTreeMap::new()),
            };
            if before != change.before {
                return Err(StateError::Corrupt(format!("{address} was {before:?}, changes say {:?}", change.before)));
            }
            for (key, slot) in &change.slots {
                let had = storage.get(key).copied().unwrap_or_default();
                if had != slot.before {
                    return Err(StateError::Corrupt(format!(
                        "{address}[{key}] was {had}, changes say {}",
                        slot.before
                    )));
                }
            }
            if change.wiped {
                storage.clear();
            }
            for (key, slot) in &change.slots {
                if slot.after.is_zero() {
                    storage.remove(key);
                } else {
                    storage.insert(*key, slot.after);
                }
            }
            if let Some(account) = change.after {
                self.accounts.insert(*address, MapAccount { account, storage });
            } else if !storage.is_empty() {
                return Err(StateError::Corrupt(format!("{address} is gone, its storage is not")));
            }
        }
        self.codes.extend(changes.codes.iter().map(|(hash, code)| (*hash, code.clone())));
        Ok(())
    }
}

impl StateView for MapState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.accounts.get(&address).map(|entry| entry.account))
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let storage = self.accounts.get(&address).map(|entry| &entry.storage);
        Ok(storage.and_then(|storage| storage.get(&key)).copied().unwrap_or_default())
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.codes.get(&hash).cloned().ok_or_else(|| StateError::Corrupt(format!("no code has the hash {hash}")))
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        Ok(self.block_hashes.get(&height.0).copied())
    }

    /// The handle carries the whole state after the changes.
    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        let mut after = match parent {
            None => self.clone(),
            Some(TrieHandle(handle)) => {
                let parent = handle.downcast_ref::<Self>();
                parent.cloned().ok_or_else(|| StateError::Corrupt("the handle is not a MapState".to_owned()))?
            }
        };
        after.apply(changes)?;
        Ok((after.root(), TrieHandle(Arc::new(after))))
    }
}
