//! What a block replaced: branches by comparing two tries, leaves by its changes.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use engine::types::{AccountChange, Height, StateChanges};

use super::entry::{self, Place};
use crate::{
    tables::AccountRow,
    trie::{
        diff::{Scope, Sink, diff},
        encode::hash_all,
        node::{Branch, TrieError},
        state::{AccountLeaf, AccountSource, Incarnation, StateSource, StateTrie},
    },
};

/// What stood somewhere before a block; storage has no id until a checkpoint writes it.
pub(crate) struct Was {
    /// Whose storage; `None` for accounts.
    owner: Option<Arc<Incarnation>>,
    place: Place,
    height: Height,
    value: Value,
}

enum Value {
    Bytes(Vec<u8>),
    Account(Box<AccountLeaf>),
}

impl Was {
    /// Its block.
    pub(crate) const fn height(&self) -> Height {
        self.height
    }

    /// Its key and value; `None` for storage that was gone before a checkpoint could see it.
    pub(crate) fn row(self) -> Option<(Vec<u8>, Vec<u8>)> {
        let id = self.owner.as_ref().map(|owner| owner.id());
        if id == Some(0) {
            return None;
        }
        let mut key = entry::key(id.unwrap_or_default(), &self.place);
        key.extend_from_slice(&self.height.0.to_be_bytes());
        let value = match self.value {
            Value::Bytes(bytes) => bytes,
            Value::Account(leaf) => AccountRow::of(&leaf).encode(),
        };
        Some((key, value))
    }
}

/// Takes down the branches of one trie.
struct Branches<'w> {
    owner: Option<&'w Arc<Incarnation>>,
    height: Height,
    found: &'w mut Vec<Was>,
}

impl<V> Sink<B256, V> for Branches<'_> {
    fn leaf(&mut self, _: &B256, _: Option<&V>, _: Option<&V>) -> Result<(), TrieError> {
        Ok(())
    }

    fn node(&mut self, position: &[u8], old: Option<&Branch<'_, B256, V>>, new: Option<&Branch<'_, B256, V>>) {
        let (owner, height) = (self.owner.cloned(), self.height);
        let place = entry::branch_place(position);
        self.found.push(Was { owner, place, height, value: Value::Bytes(entry::encode(old, new)) });
    }
}

/// What the block at `height` replaced, which led from one trie to another.
///
/// # Errors
/// [`TrieError`] when a replaced node cannot be resolved.
pub(crate) fn replaced(
    height: Height,
    (before, after): (&StateTrie, &StateTrie),
    changes: &StateChanges,
    source: &dyn StateSource,
) -> Result<Vec<Was>, TrieError> {
    let mut found = Vec::new();
    let mut sink = Branches { owner: None, height, found: &mut found };
    diff(&before.root, &after.root, &AccountSource(source), Scope::Branches, &mut sink)?;
    let hashes = hash_all(changes.accounts.keys().map(|address: &Address| address.as_slice()));
    for (hashed, change) in hashes.into_iter().zip(changes.accounts.values()) {
        let (old, new) = (before.leaf(&hashed, source)?, after.leaf(&hashed, source)?);
        if old == new {
            continue;
        }
        if let (Some(old), Some(new)) = (&old, &new)
            && let Some(owner) = &old.storage.incarnation
            && old.storage.same_incarnation(&new.storage)
        {
            let rows = old.storage.rows(source);
            let mut sink = Branches { owner: Some(owner), height, found: &mut found };
            diff(&old.storage.root, &new.storage.root, &rows, Scope::Branches, &mut sink)?;
            slots(owner, height, change, &mut found);
        }
        let place = entry::leaf_place(&hashed);
        let value = old.map_or_else(|| Value::Bytes(Vec::new()), |leaf| Value::Account(Box::new(leaf)));
        found.push(Was { owner: None, place, height, value });
    }
    Ok(found)
}

/// Takes down the slots of an account that keeps its storage.
fn slots(owner: &Arc<Incarnation>, height: Height, change: &AccountChange, found: &mut Vec<Was>) {
    let changed = || change.slots.iter().filter(|(_, slot)| slot.before != slot.after);
    let keys: Vec<[u8; 32]> = changed().map(|(key, _)| U256::to_be_bytes(key)).collect();
    for (hashed, (_, slot)) in hash_all(keys.iter().map(<[u8; 32]>::as_slice)).into_iter().zip(changed()) {
        let place = entry::leaf_place(&hashed);
        let value = Value::Bytes(slot.before.to_be_bytes_trimmed_vec());
        found.push(Was { owner: Some(Arc::clone(owner)), place, height, value });
    }
}
