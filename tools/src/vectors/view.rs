//! State of a vector: maps to read from, and storage's own trie for the roots.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256, map::AddressMap};
use alloy_rlp::Encodable;
use alloy_trie::TrieAccount;
use engine::{
    genesis::GenesisAccount,
    ports::{StateError, StateView},
    types::{Account, AccountChange, Height, StateChanges, TrieHandle},
};
use storage::trie::MemoryTrie;

/// An account with its storage, in a map and in a trie.
#[derive(Clone, Debug, Default)]
struct Entry {
    account: Account,
    slots: BTreeMap<U256, U256>,
    trie: MemoryTrie,
}

impl Entry {
    fn set(&mut self, key: U256, value: U256) {
        let path = keccak256(B256::from(key));
        if value.is_zero() {
            self.slots.remove(&key);
            self.trie.remove(path.as_slice());
        } else {
            self.slots.insert(key, value);
            self.trie.insert(path.as_slice(), &alloy_rlp::encode(value));
        }
    }
}

/// State after some block; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrieState {
    accounts: AddressMap<Arc<Entry>>,
    trie: MemoryTrie,
    codes: BTreeMap<B256, Bytes>,
    block_hashes: BTreeMap<u64, B256>,
}

impl TrieState {
    /// The state with these accounts.
    pub(crate) fn genesis(alloc: &BTreeMap<Address, GenesisAccount>) -> Self {
        let mut state = Self::default();
        for (address, genesis) in alloc {
            let account = Account { nonce: genesis.nonce, balance: genesis.balance, code_hash: KECCAK256_EMPTY };
            let mut entry = Entry { account, ..Entry::default() };
            if !genesis.code.is_empty() {
                entry.account.code_hash = keccak256(&genesis.code);
                state.codes.insert(entry.account.code_hash, genesis.code.clone());
            }
            for (key, value) in &genesis.storage {
                entry.set(*key, *value);
            }
            state.put(*address, Some(entry));
        }
        state
    }

    fn put(&mut self, address: Address, entry: Option<Entry>) {
        let path = keccak256(address);
        let Some(entry) = entry else {
            self.accounts.remove(&address);
            self.trie.remove(path.as_slice());
            return;
        };
        let mut encoded = Vec::new();
        let Account { nonce, balance, code_hash } = entry.account;
        TrieAccount { nonce, balance, storage_root: entry.trie.root(), code_hash }.encode(&mut encoded);
        self.trie.insert(path.as_slice(), &encoded);
        self.accounts.insert(address, Arc::new(entry));
    }

    /// The state root.
    pub(crate) fn root(&self) -> B256 {
        self.trie.root()
    }

    /// Notes the hash of the block whose state this is.
    pub(crate) fn seal(&mut self, height: u64, hash: B256) {
        self.block_hashes.insert(height, hash);
    }

    /// Moves on by one block's changes, and checks that they know what was before.
    pub(crate) fn apply(&mut self, changes: &StateChanges) -> Result<(), StateError> {
        for (address, change) in &changes.accounts {
            let entry = self.changed(*address, change)?;
            self.put(*address, entry);
        }
        self.codes.extend(changes.codes.iter().map(|(hash, code)| (*hash, code.clone())));
        Ok(())
    }

    fn changed(&self, address: Address, change: &AccountChange) -> Result<Option<Entry>, StateError> {
        let corrupt = |what: String| Err(StateError::Corrupt(format!("change of {address}: {what}")));
        let before = self.accounts.get(&address);
        if before.map(|entry| entry.account) != change.before {
            return corrupt(format!("before is {:?}, must be {before:?}", change.before));
        }
        let mut entry = before.map(|entry| (**entry).clone()).unwrap_or_default();
        for (key, slot) in &change.slots {
            let had = entry.slots.get(key).copied().unwrap_or_default();
            if had != slot.before {
                return corrupt(format!("slot {key} before is {}, must be {had}", slot.before));
            }
        }
        if change.wiped {
            entry.slots.clear();
            entry.trie = MemoryTrie::new();
        }
        for (key, slot) in &change.slots {
            entry.set(*key, slot.after);
        }
        match change.after {
            Some(account) => {
                entry.account = account;
                Ok(Some(entry))
            }
            None if entry.slots.is_empty() => Ok(None),
            None => corrupt("the account is gone, its storage is not".to_owned()),
        }
    }

    /// First difference to what a vector wants after its last block.
    pub(crate) fn difference(&self, wanted: &BTreeMap<Address, GenesisAccount>) -> Option<String> {
        if let Some(address) = self.accounts.keys().find(|address| !wanted.contains_key(*address)) {
            return Some(format!("{address} exists"));
        }
        wanted.iter().find_map(|(address, want)| {
            let Some(entry) = self.accounts.get(address) else {
                return Some(format!("{address} does not exist"));
            };
            let got = (entry.account.nonce, entry.account.balance, entry.account.code_hash, &entry.slots);
            let slots = want.storage.iter().filter(|(_, value)| !value.is_zero());
            let slots: BTreeMap<U256, U256> = slots.map(|(key, value)| (*key, *value)).collect();
            let want = (want.nonce, want.balance, keccak256(&want.code), &slots);
            (got != want).then(|| format!("{address} is {got:?}, must be {want:?}"))
        })
    }
}

impl StateView for TrieState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.accounts.get(&address).map(|entry| entry.account))
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let entry = self.accounts.get(&address);
        Ok(entry.and_then(|entry| entry.slots.get(&key)).copied().unwrap_or_default())
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
        if parent.is_some() {
            return Err(StateError::Corrupt("vectors know no layers".to_owned()));
        }
        let mut after = self.clone();
        after.apply(changes)?;
        Ok((after.root(), TrieHandle(Arc::new(after))))
    }
}
