//! Tries of kept heights that are not in memory.
//!
//! Handles of recent heights live in memory and end with the process; the changes of those heights are read back at the
//! start. Every change knows the value before it, so the trie of a height is the newest one with all changes above the
//! height taken back. It is made when somebody asks and checked against the header; slots that a wipe took without
//! naming them cannot be put back, and then the height has no trie.

use std::sync::Arc;

use engine::types::{AccountChange, Height, SlotChange, StateChanges};

use crate::{store::Inner, trie::state::StateTrie};

/// The trie of a kept height, `None` if it cannot be had.
pub(crate) fn trie_at(inner: &Inner, height: Height) -> Option<Arc<StateTrie>> {
    inner.blocks.trie(height).or_else(|| rebuilt(inner, height))
}

/// The trie of a kept height, made from the newest one.
pub(crate) fn rebuilt(inner: &Inner, height: Height) -> Option<Arc<StateTrie>> {
    // A handle at the newest height can always be read. One at a time: it is a lot of work.
    let _one = inner.rewinding.lock();
    let (newest, trie) = inner.blocks.newest_trie();
    if height < inner.overlay.floor() || height > newest {
        return None;
    }
    let mut back = StateChanges::default();
    for (at, changes) in inner.overlay.changes_above(height).into_iter().rev() {
        if at <= newest {
            take_back(&changes, &mut back);
        }
    }
    let trie = Arc::new(trie.apply(&back, &inner.snapshots).ok()?);
    let header = inner.blocks.header(height).ok()??;
    (trie.hash == header.state_root).then_some(trie)
}

/// Adds what takes `changes` back to what takes back all that came after them.
fn take_back(changes: &StateChanges, back: &mut StateChanges) {
    for (address, change) in &changes.accounts {
        let entry = back.accounts.entry(*address).or_insert_with(|| AccountChange {
            before: change.after,
            after: None,
            wiped: false,
            slots: Default::default(),
        });
        entry.after = change.before;
        for (key, slot) in &change.slots {
            let entry = entry.slots.entry(*key).or_insert(SlotChange { before: slot.after, after: slot.before });
            entry.after = slot.before;
        }
    }
}
