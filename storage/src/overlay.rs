//! State at recent heights: what changed, above what the snapshot holds.
//!
//! For every account and slot that changed within the kept heights there is a list of versions, each
//! with the value before and after its block. A view at height H reads the newest version at or below
//! H; failing that, the value before the oldest version above H; failing that, the key did not change
//! between H and the snapshot, whichever is older, and the snapshot answers.
//!
//! Wiping an account takes its slots without naming them. A wipe is therefore a record of its own: a
//! slot version older than the wipe is zero after it, and a view below the wipe reads the rows of the
//! storage id that the wipe ended, which stay until no view can ask for them.
//!
//! The floor is the height up to which versions are dropped. A view asks nothing below it: every view
//! holds a pin, and one that falls [`PIN_HEIGHTS_MAX`] behind is told that its height is gone. The
//! floor is published before anything is dropped, and readers look at it after reading.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy_primitives::{Address, U256, map::DefaultHashBuilder};
use dashmap::DashMap;
use engine::{
    limits::STATE_WINDOW_HEIGHTS,
    types::{Account, Height, StateChanges},
};
use parking_lot::{Mutex, RwLock};

use crate::trie::state::Incarnation;

/// Heights a view may lag behind the kept window before it loses its state.
const PIN_HEIGHTS_MAX: u64 = 1_024;

#[derive(Clone, Copy, Debug)]
struct Version<T> {
    height: Height,
    before: T,
    after: T,
}

/// Which storage rows a wipe ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The account had no storage.
    Nothing,
    /// Those of this incarnation; none if it never got an id.
    Rows(Arc<Incarnation>),
    /// A wipe from before this process started; nothing says which rows those were.
    Unknown,
}

#[derive(Clone, Debug)]
struct Wipe {
    height: Height,
    ended: Ended,
    /// Slots with versions below the wipe that outlive their own height: rows they stand for may
    /// never have been written.
    deferred: Vec<U256>,
}

/// What the overlay knows about a slot at a height.
#[derive(Clone, Debug)]
pub(crate) enum SlotRead {
    /// Its value.
    Value(U256),
    /// The snapshot's rows under the account's storage id hold it.
    Current,
    /// The same, and it has this value at every kept height.
    Steady,
    /// The rows of an ended incarnation hold it.
    Rows(Arc<Incarnation>),
    /// It stood in rows that nothing points at; the records of its blocks tell it.
    Gone,
}

type Map<K, V> = DashMap<K, V, DefaultHashBuilder>;

/// Versions of recent heights.
#[derive(Default)]
pub(crate) struct Overlay {
    accounts: Map<Address, Vec<Version<Option<Account>>>>,
    slots: Map<(Address, U256), Vec<Version<U256>>>,
    wipes: Map<Address, Vec<Wipe>>,
    /// Raised around every change of `wipes`, so that a reader notices.
    wipe_epoch: AtomicU64,
    floor: AtomicU64,
    /// Held while the floor rises.
    gate: RwLock<()>,
    pins: Mutex<BTreeMap<Height, usize>>,
    kept: Mutex<VecDeque<(Height, Arc<StateChanges>)>>,
}

fn at<T: Copy>(versions: &[Version<T>], height: Height) -> Result<Version<T>, Option<Version<T>>> {
    let next = versions.partition_point(|version| version.height <= height);
    match next.checked_sub(1) {
        Some(index) => Ok(versions[index]),
        None => Err(versions.first().copied()),
    }
}

impl Overlay {
    /// Adds a block's changes; heights rise. `ended` tells which rows a wiped account had.
    pub(crate) fn insert(&self, height: Height, changes: &Arc<StateChanges>, mut ended: impl FnMut(&Address) -> Ended) {
        for (address, _) in changes.accounts.iter().filter(|(_, change)| change.wiped || change.after.is_none()) {
            let wipe = Wipe { height, ended: ended(address), deferred: Vec::new() };
            self.wipes.entry(*address).or_default().push(wipe);
            self.wipe_epoch.fetch_add(1, Ordering::SeqCst);
        }
        for (address, change) in &changes.accounts {
            for (key, slot) in &change.slots {
                let version = Version { height, before: slot.before, after: slot.after };
                self.slots.entry((*address, *key)).or_default().push(version);
            }
            if change.before != change.after {
                let version = Version { height, before: change.before, after: change.after };
                self.accounts.entry(*address).or_default().push(version);
            }
        }
        self.kept.lock().push_back((height, Arc::clone(changes)));
    }

    /// The account at `height`, `None` where the snapshot answers.
    pub(crate) fn account(&self, address: &Address, height: Height) -> Option<Option<Account>> {
        let versions = self.accounts.get(address)?;
        match at(&versions, height) {
            Ok(version) => Some(version.after),
            Err(next) => next.map(|version| version.before),
        }
    }

    /// What is known about a slot at `height`, above a snapshot of `applied`.
    pub(crate) fn slot(&self, address: &Address, key: &U256, height: Height, applied: Height) -> SlotRead {
        loop {
            let epoch = self.wipe_epoch.load(Ordering::SeqCst);
            let read = self.slot_once(address, key, height, applied);
            if self.wipe_epoch.load(Ordering::SeqCst) == epoch {
                return read;
            }
        }
    }

    fn slot_once(&self, address: &Address, key: &U256, height: Height, applied: Height) -> SlotRead {
        let (last_wipe, next_wipe) = match self.wipes.get(address) {
            None => (None, None),
            Some(wipes) => {
                let next = wipes.partition_point(|wipe| wipe.height <= height);
                let last = next.checked_sub(1).map(|index| wipes[index].height);
                (last, wipes.get(next).map(|wipe| (wipe.height, wipe.ended.clone())))
            }
        };
        let version = self.slots.get(&(*address, *key)).map(|versions| at(&versions, height));
        match version {
            Some(Ok(version)) if last_wipe.is_some_and(|wipe| wipe > version.height) => {
                return SlotRead::Value(U256::ZERO);
            }
            Some(Ok(version)) => return SlotRead::Value(version.after),
            Some(Err(Some(next))) if next_wipe.as_ref().is_none_or(|(wipe, _)| *wipe >= next.height) => {
                return SlotRead::Value(next.before);
            }
            _ => {}
        }
        if version.is_none() && last_wipe.is_none() && next_wipe.is_none() {
            return SlotRead::Steady;
        }
        if last_wipe.is_some_and(|wipe| wipe > applied) {
            return SlotRead::Value(U256::ZERO);
        }
        match next_wipe {
            Some((wipe, ended)) if wipe <= applied => match ended {
                Ended::Nothing => SlotRead::Value(U256::ZERO),
                Ended::Rows(incarnation) => SlotRead::Rows(incarnation),
                Ended::Unknown => SlotRead::Gone,
            },
            _ => SlotRead::Current,
        }
    }

    /// Holds versions above `height` for a view.
    pub(crate) fn pin(&self, height: Height) {
        let mut pins = self.pins.lock();
        let count = pins.entry(height).or_default();
        *count = count.saturating_add(1);
    }

    /// Lets go of a pin.
    pub(crate) fn unpin(&self, height: Height) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&height) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                pins.remove(&height);
            }
        }
    }

    /// The height up to which versions are gone.
    pub(crate) fn floor(&self) -> Height {
        Height(self.floor.load(Ordering::SeqCst))
    }

    /// Does something while the floor stays at or below `height`; nothing if it is above.
    pub(crate) fn at_floor(&self, height: Height, work: impl FnOnce()) {
        let _gate = self.gate.read();
        if self.floor() <= height {
            work();
        }
    }

    /// Sets the floor when the store opens.
    pub(crate) fn start_at(&self, floor: Height) {
        self.floor.store(floor.0, Ordering::SeqCst);
    }

    /// The changes above `height`, oldest first.
    pub(crate) fn changes_above(&self, height: Height) -> Vec<(Height, Arc<StateChanges>)> {
        self.kept.lock().iter().filter(|(at, _)| *at > height).cloned().collect()
    }

    /// Drops versions that neither a kept height nor a pinned view needs; before a block's go, `forget` is told.
    pub(crate) fn prune(&self, tip: Height, applied: Height, forget: impl Fn(&StateChanges)) {
        let limit = applied.0.min(tip.0.saturating_sub(STATE_WINDOW_HEIGHTS));
        {
            // A view that pins after this reads the new floor; one that pinned before is honoured.
            let pins = self.pins.lock();
            let pinned = pins.keys().next().map_or(limit, |height| height.0);
            let floor = limit.min(pinned.max(limit.saturating_sub(PIN_HEIGHTS_MAX)));
            let _gate = self.gate.write();
            self.floor.fetch_max(floor, Ordering::SeqCst);
        }
        let floor = self.floor();
        loop {
            let (height, changes) = {
                let mut kept = self.kept.lock();
                match kept.front() {
                    Some((height, _)) if *height <= floor => kept.pop_front().expect("the front was there"),
                    _ => return,
                }
            };
            forget(&changes);
            self.drop_height(height, &changes);
        }
    }

    fn drop_height(&self, height: Height, changes: &StateChanges) {
        for (address, change) in &changes.accounts {
            for key in change.slots.keys() {
                self.drop_slot(address, key, height);
            }
            if let dashmap::Entry::Occupied(mut entry) = self.accounts.entry(*address) {
                entry.get_mut().retain(|version| version.height > height);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        for (address, _) in changes.accounts.iter().filter(|(_, change)| change.wiped || change.after.is_none()) {
            self.drop_wipe(address, height);
        }
    }

    fn drop_slot(&self, address: &Address, key: &U256, height: Height) {
        if let Some(mut wipes) = self.wipes.get_mut(address)
            && let Some(wipe) = wipes.iter_mut().find(|wipe| wipe.height > height)
        {
            wipe.deferred.push(*key);
            return;
        }
        if let dashmap::Entry::Occupied(mut entry) = self.slots.entry((*address, *key)) {
            entry.get_mut().retain(|version| version.height > height);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Drops a wipe, and first the versions that waited for it: without the wipe they would show again.
    fn drop_wipe(&self, address: &Address, height: Height) {
        let deferred: Vec<U256> = self.wipes.get_mut(address).map_or_else(Vec::new, |mut wipes| {
            let done = wipes.iter_mut().filter(|wipe| wipe.height <= height);
            done.flat_map(|wipe| std::mem::take(&mut wipe.deferred)).collect()
        });
        for key in deferred {
            if let dashmap::Entry::Occupied(mut entry) = self.slots.entry((*address, key)) {
                entry.get_mut().retain(|version| version.height >= height);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        self.wipe_epoch.fetch_add(1, Ordering::SeqCst);
        if let dashmap::Entry::Occupied(mut entry) = self.wipes.entry(*address) {
            entry.get_mut().retain(|wipe| wipe.height > height);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        self.wipe_epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Number of keys with versions.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.accounts.len() + self.slots.len()
    }
}
