//! The in-memory result of an executed block: what it changed and the trie it leads to.
//!
//! Every change keeps the value before and the value after. The same record is thus layer (read
//! through while the block is not in the checkpoint), redo log (written beside the block, applied at
//! recovery) and changeset (state at earlier heights).

use std::{any::Any, fmt, sync::Arc};

use alloy_primitives::{
    B256, Bytes, KECCAK256_EMPTY, U256,
    map::{AddressMap, B256Map, HashMap},
};

/// An account as the state trie commits to it, less its storage root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Transactions sent, or contracts created by a contract.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
    /// keccak256 of the code; that of the empty string for an account without code.
    pub code_hash: B256,
}

impl Default for Account {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY }
    }
}

impl Account {
    /// Whether EIP-161 calls the account empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nonce == 0 && self.balance.is_zero() && self.code_hash == KECCAK256_EMPTY
    }

    /// Whether the account carries code (a delegation of EIP-7702 is code as well).
    #[must_use]
    pub fn has_code(&self) -> bool {
        self.code_hash != KECCAK256_EMPTY
    }
}

/// One storage slot before and after a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// Value before the block; zero if the slot was empty.
    pub before: U256,
    /// Value after the block; zero deletes the slot.
    pub after: U256,
}

/// What a block did to one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// The account before the block; `None` if it did not exist.
    pub before: Option<Account>,
    /// The account after the block; `None` if it does not exist.
    pub after: Option<Account>,
    /// All storage from before the block is gone, whatever `slots` says; slots in `slots` were
    /// written after that, and their `before` still tells the value before the block.
    pub wiped: bool,
    /// Slots whose value changed (or was written after a wipe).
    pub slots: HashMap<U256, SlotChange>,
}

/// Everything one block changed in the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// Changed accounts.
    pub accounts: AddressMap<AccountChange>,
    /// Code that the block deployed, by its hash.
    pub codes: B256Map<Bytes>,
}

impl StateChanges {
    /// Number of changed accounts and slots together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.values().fold(self.accounts.len(), |sum, change| sum.saturating_add(change.slots.len()))
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.codes.is_empty()
    }
}

/// The trie after a block, as storage represents it; opaque above storage.
///
/// Shares everything unchanged with the trie it grew from. Dropping it drops exactly what the block
/// added, so an abandoned block leaves nothing behind.
#[derive(Clone)]
pub struct TrieHandle(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for TrieHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrieHandle")
    }
}
