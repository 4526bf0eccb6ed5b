//! Tries of kept heights from before the store was opened.
//!
//! Handles of recent heights live in memory and end with the process; the changes of those heights
//! are read back at the start. Every change knows the value before it, so the trie of the height below
//! is the same trie with the changes taken back. It is made when somebody asks and checked against the
//! header; slots that a wipe took without naming them cannot be put back, and then the height has no trie.

use std::sync::Arc;

use engine::types::{AccountChange, Height, SlotChange, StateChanges};

use crate::{store::Inner, trie::state::StateTrie};

/// The trie of a kept height, `None` if it cannot be had.
pub(crate) fn trie_at(inner: &Inner, height: Height) -> Option<Arc<StateTrie>> {
    if let Some(trie) = inner.blocks.trie(height) {
        return Some(trie);
    }
    if height < inner.overlay.floor() || height > inner.blocks.tip().height() {
        return None;
    }
    let _one = inner.rewinding.lock();
    loop {
        let (oldest, trie) = inner.blocks.oldest_trie();
        if oldest <= height {
            return inner.blocks.trie(height);
        }
        let below = oldest.previous()?;
        let changes = inner.overlay.changes_at(oldest)?;
        let trie = Arc::new(trie.apply(&taken_back(&changes), &inner.snapshots).ok()?);
        let header = inner.blocks.header(below).ok()??;
        if trie.hash != header.state_root {
            return None;
        }
        inner.blocks.push_oldest_trie(below, trie);
    }
}

fn taken_back(changes: &StateChanges) -> StateChanges {
    let accounts = changes.accounts.iter().map(|(address, change)| {
        let slots =
            change.slots.iter().map(|(key, slot)| (*key, SlotChange { before: slot.after, after: slot.before }));
        let slots = slots.collect();
        (*address, AccountChange { before: change.after, after: change.before, wiped: false, slots })
    });
    StateChanges { accounts: accounts.collect(), ..StateChanges::default() }
}
