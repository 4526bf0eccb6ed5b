//! State at recent heights: what changed, above what the snapshot holds.
//!
//! For every account and slot that changed within the kept heights there is a list of versions, each
//! with the value before and after its block. A view at height H reads the newest version at or below
//! H; failing that, the value before the oldest version above H; failing that, the key did not change
//! between H and the snapshot, whichever is older, and the snapshot answers.
//!
//! Making the lists takes a cache miss or two for each key, which nobody who waits for a block shall wait for: the
//! newest blocks are fresh, which is to say read as they came, until a thread that has time has entered them.
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
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use alloy_primitives::{Address, U256, map::DefaultHashBuilder};
use dashmap::DashMap;
use engine::{
    limits::STATE_WINDOW_HEIGHTS,
    types::{Account, AccountChange, Height, SlotChange, StateChanges},
};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::trie::state::Incarnation;

/// Heights a view may lag behind the kept window before it loses its state.
const PIN_HEIGHTS_MAX: u64 = 1_024;
/// Blocks that may be fresh: a reader may have to ask each of them.
const FRESH_MAX: usize = 16;

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

/// Versions of one key, oldest first. Most keys have one.
type Versions<T> = SmallVec<[Version<T>; 1]>;

/// What is known of a key at a height: its newest version there, or else the oldest above; `None` without any.
type Found<T> = Option<Result<Version<T>, Version<T>>>;

/// A block's changes.
type Changed = (Height, Arc<StateChanges>);

/// Versions of recent heights.
#[derive(Default)]
pub(crate) struct Overlay {
    /// Blocks that are not entered below, oldest first.
    fresh: RwLock<VecDeque<Changed>>,
    /// Their number: mostly there are none, and then nobody asks for the lock.
    fresh_count: AtomicUsize,
    /// Held by whoever enters a block.
    entering: Mutex<()>,
    /// Somebody was asked to enter all of them and has not begun.
    is_asked: AtomicBool,
    accounts: Map<Address, Versions<Option<Account>>>,
    slots: Map<(Address, U256), Versions<U256>>,
    wipes: Map<Address, Vec<Wipe>>,
    /// Raised around every change of `wipes`, so that a reader notices.
    wipe_epoch: AtomicU64,
    floor: AtomicU64,
    /// Held while the floor rises.
    gate: RwLock<()>,
    pins: Mutex<BTreeMap<Height, usize>>,
    kept: Mutex<VecDeque<Changed>>,
}

fn at<T: Copy>(versions: &[Version<T>], height: Height) -> Found<T> {
    let next = versions.partition_point(|version| version.height <= height);
    match next.checked_sub(1) {
        Some(index) => Some(Ok(versions[index])),
        None => versions.first().copied().map(Err),
    }
}

/// An account before and after a block, if it changed.
fn account_of(change: &AccountChange) -> Option<(Option<Account>, Option<Account>)> {
    (change.before != change.after).then_some((change.before, change.after))
}

impl Overlay {
    /// Adds a block's changes, and enters the oldest fresh ones if there are too many; heights rise. `ended` tells
    /// which rows a wiped account had.
    pub(crate) fn insert(&self, height: Height, changes: &Arc<StateChanges>, mut ended: impl FnMut(&Address) -> Ended) {
        for (address, _) in changes.accounts.iter().filter(|(_, change)| change.wiped || change.after.is_none()) {
            let wipe = Wipe { height, ended: ended(address), deferred: Vec::new() };
            self.wipes.entry(*address).or_default().push(wipe);
            self.wipe_epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.kept.lock().push_back((height, Arc::clone(changes)));
        {
            let mut fresh = self.fresh.write();
            fresh.push_back((height, Arc::clone(changes)));
            self.fresh_count.store(fresh.len(), Ordering::SeqCst);
        }
        self.enter(FRESH_MAX);
    }

    /// Whether somebody shall be asked to [enter all](Self::enter_all): not while somebody is who has not begun.
    pub(crate) fn asks(&self) -> bool {
        !self.is_asked.swap(true, Ordering::SeqCst)
    }

    /// Enters every fresh block, those that come meanwhile too.
    pub(crate) fn enter_all(&self) {
        self.is_asked.store(false, Ordering::SeqCst);
        self.enter(0);
    }

    /// Enters fresh blocks, the oldest first, until so many are left.
    fn enter(&self, left: usize) {
        loop {
            let _entering = self.entering.lock();
            let oldest = {
                let fresh = self.fresh.read();
                fresh.front().filter(|_| fresh.len() > left).cloned()
            };
            let Some((height, changes)) = oldest else { return };
            for (address, change) in &changes.accounts {
                for (key, SlotChange { before, after }) in &change.slots {
                    let version = Version { height, before: *before, after: *after };
                    self.slots.entry((*address, *key)).or_default().push(version);
                }
                if let Some((before, after)) = account_of(change) {
                    self.accounts.entry(*address).or_default().push(Version { height, before, after });
                }
            }
            let mut fresh = self.fresh.write();
            fresh.pop_front();
            self.fresh_count.store(fresh.len(), Ordering::SeqCst);
        }
    }

    /// The versions of a key: `of` looks into a block, `entered` among those that are entered.
    fn find<T: Copy>(
        &self,
        height: Height,
        of: impl Fn(&StateChanges) -> Option<(T, T)>,
        entered: impl FnOnce() -> Found<T>,
    ) -> Found<T> {
        let mut above = None;
        // In this order: a block that is entered in between is found twice, and none is missed.
        if self.fresh_count.load(Ordering::SeqCst) > 0 {
            for (block, changes) in self.fresh.read().iter().rev() {
                let Some((before, after)) = of(changes) else { continue };
                let version = Version { height: *block, before, after };
                if *block <= height {
                    return Some(Ok(version));
                }
                above = Some(version);
            }
        }
        entered().or_else(|| above.map(Err))
    }

    /// The account at `height`, `None` where the snapshot answers.
    pub(crate) fn account(&self, address: &Address, height: Height) -> Option<Option<Account>> {
        let fresh = |changes: &StateChanges| changes.accounts.get(address).and_then(account_of);
        let entered = || self.accounts.get(address).and_then(|versions| at(&versions, height));
        Some(match self.find(height, fresh, entered)? {
            Ok(version) => version.after,
            Err(next) => next.before,
        })
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
        let fresh = |changes: &StateChanges| {
            let slot = changes.accounts.get(address)?.slots.get(key)?;
            Some((slot.before, slot.after))
        };
        let entered = || self.slots.get(&(*address, *key)).and_then(|versions| at(&versions, height));
        let version = self.find(height, fresh, entered);
        match version {
            Some(Ok(version)) if last_wipe.is_some_and(|wipe| wipe > version.height) => {
                return SlotRead::Value(U256::ZERO);
            }
            Some(Ok(version)) => return SlotRead::Value(version.after),
            Some(Err(next)) if next_wipe.as_ref().is_none_or(|(wipe, _)| *wipe >= next.height) => {
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
    pub(crate) fn changes_above(&self, height: Height) -> Vec<Changed> {
        self.kept.lock().iter().filter(|(at, _)| *at > height).cloned().collect()
    }

    /// Drops versions that neither a kept height nor a pinned view needs; before a block's go, `forget` is told.
    pub(crate) fn prune(&self, tip: Height, applied: Height, forget: impl Fn(&StateChanges)) {
        // What is dropped is entered.
        self.enter(0);
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
        self.enter(0);
        self.accounts.len() + self.slots.len()
    }
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "seeds are printed")]
mod tests {
    use super::*;
    use crate::disk::faulty::next;

    const KEYS: usize = 4;

    /// A block that follows on `state`: values of the slots of few accounts, `None` for an account that is not there.
    fn block(random: &mut u64, state: &mut [Option<[u64; KEYS]>]) -> StateChanges {
        let mut changes = StateChanges::default();
        let account = |there: bool, nonce| there.then_some(Account { nonce, ..Account::default() });
        for (number, held) in (0_u8..).zip(state) {
            let (kind, before) = (next(random) % 8, *held);
            let nonce = next(random);
            let mut change = AccountChange { before: account(before.is_some(), 1), ..AccountChange::default() };
            *held = match (kind, before) {
                (0..4, _) => continue,
                (4, _) => None,
                (5, _) => Some([0; KEYS]),
                (_, before) => Some(before.unwrap_or_default()),
            };
            change.wiped = kind == 5;
            change.after = account(held.is_some(), if kind == 6 { nonce } else { 1 });
            if let Some(slots) = held {
                for (key, slot) in (0_u64..).zip(slots).filter(|_| next(random).is_multiple_of(2)) {
                    let (before, after) = (U256::from(*slot), U256::from(nonce));
                    *slot = nonce;
                    change.slots.insert(U256::from(key), SlotChange { before, after });
                }
            }
            changes.accounts.insert(Address::repeat_byte(number), change);
        }
        changes
    }

    #[test]
    fn fresh_blocks_read_as_entered_ones() {
        for seed in 1..40 {
            println!("seed {seed}");
            let (mut random, mut state) = (seed, [None; 3]);
            let (entered, fresh) = (Overlay::default(), Overlay::default());
            for tip in (1..80).map(Height) {
                let changes = Arc::new(block(&mut random, &mut state));
                for overlay in [&entered, &fresh] {
                    overlay.insert(tip, &changes, |_| Ended::Nothing);
                }
                entered.enter(0);
                fresh.enter(usize::try_from(next(&mut random) % 32).unwrap());
                if next(&mut random).is_multiple_of(8) {
                    let (tip, applied) = (Height(tip.0 + STATE_WINDOW_HEIGHTS - 20), tip);
                    [&entered, &fresh].iter().for_each(|overlay| overlay.prune(tip, applied, |_| {}));
                }
                let floor = entered.floor();
                assert_eq!(fresh.floor(), floor);
                for (height, number) in (floor.0..=tip.0).flat_map(|height| (0..3).map(move |number| (height, number)))
                {
                    let (height, address) = (Height(height), Address::repeat_byte(number));
                    assert_eq!(fresh.account(&address, height), entered.account(&address, height), "{height}");
                    for key in (0..KEYS).map(U256::from) {
                        let read = |overlay: &Overlay| format!("{:?}", overlay.slot(&address, &key, height, floor));
                        assert_eq!(read(&fresh), read(&entered), "slot {key} at {height}, the tip at {tip}");
                    }
                }
            }
            assert_eq!(fresh.keys(), entered.keys());
        }
    }

    #[test]
    fn one_is_asked_to_enter_blocks_until_it_begins() {
        let overlay = Overlay::default();
        let (mut random, mut state) = (1, [None; 3]);
        for tip in (1..8).map(Height) {
            overlay.insert(tip, &Arc::new(block(&mut random, &mut state)), |_| Ended::Nothing);
            assert_eq!(overlay.asks(), tip == Height(1));
        }
        overlay.enter_all();
        assert_eq!(overlay.fresh_count.load(Ordering::SeqCst), 0);
        assert!(overlay.asks(), "the next block needs another");
    }
}
