//! Accounts and slots that were read from the tables lately.
//!
//! A view asks here after the overlay and before its snapshot. That is right because of what the overlay answers:
//! everything that changed above the floor. What it knows nothing of, a slot's account not wiped either, has one value
//! from the floor to the tip, in whichever snapshot it was read. An entry is forgotten before the overlay lets go of
//! the change that makes it wrong, and an entry is made only while the floor is at or below what the view pinned,
//! which nobody can raise in between ([`Overlay::at_floor`]).
//!
//! Bounded in bytes: an entry takes the same room whatever it holds.

use alloy_primitives::{Address, U256, map::DefaultHashBuilder};
use engine::types::{Account, Height, StateChanges};
use quick_cache::{
    UnitWeighter,
    sync::{self, DefaultLifecycle},
};

use crate::{metrics, overlay::Overlay};

/// What an entry takes beside key and value: two links, a hash, a place in a table that is half full.
const ENTRY_BYTES: usize = 48;

type Entries<K, V> = sync::Cache<K, V, UnitWeighter, DefaultHashBuilder>;
type Slot = (Address, U256);

/// Values of the tables, by plain key.
pub(crate) struct Cache {
    accounts: Entries<Address, Option<Account>>,
    slots: Entries<Slot, U256>,
}

fn entries<K: Eq + std::hash::Hash, V: Clone>(bytes: usize) -> Entries<K, V> {
    let items = (bytes / (size_of::<K>() + size_of::<V>() + ENTRY_BYTES)).max(1);
    let weight = u64::try_from(items).unwrap_or(u64::MAX);
    sync::Cache::with(items, weight, UnitWeighter, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

impl Cache {
    /// An empty cache of at most so many bytes, a quarter of them for accounts.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { accounts: entries(bytes_max / 4), slots: entries(bytes_max - bytes_max / 4) }
    }

    /// An account that the overlay does not know.
    pub(crate) fn account(&self, address: &Address) -> Option<Option<Account>> {
        counted(self.accounts.get(address))
    }

    /// A slot that the overlay does not know.
    pub(crate) fn slot(&self, address: Address, key: U256) -> Option<U256> {
        counted(self.slots.get(&(address, key)))
    }

    /// Keeps an account that a view read from its snapshot; `pinned` is what it pinned.
    pub(crate) fn keep_account(&self, overlay: &Overlay, pinned: Height, address: Address, account: Option<Account>) {
        overlay.at_floor(pinned, || self.accounts.insert(address, account));
    }

    /// Keeps a slot that a view read from its snapshot.
    pub(crate) fn keep_slot(&self, overlay: &Overlay, pinned: Height, slot: Slot, value: U256) {
        overlay.at_floor(pinned, || self.slots.insert(slot, value));
    }

    /// Forgets what a block changed, before the overlay does.
    pub(crate) fn forget(&self, changes: &StateChanges) {
        for (address, change) in &changes.accounts {
            self.accounts.remove(address);
            for key in change.slots.keys() {
                self.slots.remove(&(*address, *key));
            }
            if change.wiped || change.after.is_none() {
                // It names no slot, and there is none after Cancun.
                self.slots.clear();
            }
        }
    }
}

fn counted<V>(found: Option<V>) -> Option<V> {
    found.inspect(|_| metrics::CACHE_HIT.increment())
}
