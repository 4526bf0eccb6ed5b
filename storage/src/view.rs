//! State at one height.
//!
//! Reads go: overlay, then what was read lately, then the snapshot the view was opened on. The overlay answers for
//! everything that changed within the kept heights, so the snapshot may be older or newer than the view.

use std::{sync::Arc, time::Instant};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256, map::AddressMap};
use engine::{
    ports::{StateError, StateView, StoreError},
    types::{Account, Height, StateChanges, TrieHandle},
};
use parking_lot::RwLock;

use crate::{
    error::Fault,
    history, metrics,
    overlay::SlotRead,
    snapshot::StateSnapshot,
    store::Inner,
    tables,
    trie::{node::TrieError, state::StateTrie},
};

/// Bytes of code kept in memory.
const CODE_CACHE_BYTES_MAX: usize = 64 << 20;

/// State after the block at one height.
pub(crate) struct View {
    inner: Arc<Inner>,
    height: Height,
    /// Lowest height the overlay must still know for this view.
    pinned: Height,
    snapshot: Arc<StateSnapshot>,
    /// Storage ids by account, as the snapshot has them; 0 for none.
    storage_ids: RwLock<AddressMap<u64>>,
}

impl View {
    /// Opens the state at `height`.
    pub(crate) fn open(inner: &Arc<Inner>, height: Height) -> Result<Self, StoreError> {
        if height > inner.blocks.tip().height() {
            return Err(StoreError::Unavailable(height));
        }
        let snapshot = inner.snapshots.current();
        let pinned = height.min(snapshot.applied);
        inner.overlay.pin(pinned);
        let view = Self { inner: Arc::clone(inner), height, pinned, snapshot, storage_ids: RwLock::default() };
        view.check().map_err(|_| StoreError::Unavailable(height))?;
        Ok(view)
    }

    /// Its height.
    pub(crate) const fn height(&self) -> Height {
        self.height
    }

    /// Whether the overlay still knows this height; asked after reading it.
    fn check(&self) -> Result<(), StateError> {
        if self.inner.overlay.floor() > self.pinned {
            return Err(StateError::Unavailable(self.height));
        }
        Ok(())
    }

    fn storage_id(&self, address: Address) -> Result<u64, Fault> {
        if let Some(id) = self.storage_ids.read().get(&address) {
            return Ok(*id);
        }
        let id = self.snapshot.account(&keccak256(address))?.map_or(0, |row| row.storage_id);
        self.storage_ids.write().insert(address, id);
        Ok(id)
    }

    fn stored_slot(&self, id: u64, key: U256) -> Result<U256, StateError> {
        if id == 0 {
            return Ok(U256::ZERO);
        }
        Ok(self.snapshot.slot(id, &keccak256(key.to_be_bytes::<32>()))?)
    }

    fn trie(&self) -> Result<Arc<StateTrie>, StateError> {
        self.inner.blocks.trie(self.height).ok_or(StateError::Unavailable(self.height))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.inner.overlay.unpin(self.pinned);
    }
}

impl StateView for View {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        let known = self.inner.overlay.account(&address, self.height);
        self.check()?;
        if let Some(account) = known {
            return Ok(account);
        }
        if let Some(account) = self.inner.cache.account(&address) {
            return Ok(account);
        }
        let row = self.snapshot.account(&keccak256(address))?;
        self.storage_ids.write().insert(address, row.as_ref().map_or(0, |row| row.storage_id));
        let account = row.map(|row| row.account);
        self.inner.cache.keep_account(&self.inner.overlay, self.pinned, address, account);
        Ok(account)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        let read = self.inner.overlay.slot(&address, &key, self.height, self.snapshot.applied);
        self.check()?;
        match read {
            SlotRead::Value(value) => Ok(value),
            SlotRead::Current => self.stored_slot(self.storage_id(address)?, key),
            SlotRead::Steady => {
                if let Some(value) = self.inner.cache.slot(address, key) {
                    return Ok(value);
                }
                let value = self.stored_slot(self.storage_id(address)?, key)?;
                self.inner.cache.keep_slot(&self.inner.overlay, self.pinned, (address, key), value);
                Ok(value)
            }
            SlotRead::Rows(incarnation) => self.stored_slot(incarnation.id(), key),
            SlotRead::Gone => {
                let value = history::slot(&self.inner, address, key, self.height, self.snapshot.applied)?;
                value.ok_or(StateError::Unavailable(self.height))
            }
        }
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytes::new());
        }
        {
            let codes = self.inner.codes.read();
            let known = codes.pending.get(&hash).map(|(_, code)| code).or_else(|| codes.cached.get(&hash));
            if let Some(code) = known {
                return Ok(code.clone());
            }
        }
        let stored = |snapshot: &StateSnapshot| {
            snapshot.rows().get(tables::CODE, hash.as_slice(), Bytes::copy_from_slice).map_err(Fault::from)
        };
        let code = match stored(&self.snapshot)? {
            Some(code) => code,
            // Deployed above this view's snapshot and checkpointed since.
            None => stored(&self.inner.snapshots.current())?
                .ok_or_else(|| StateError::Corrupt(format!("no code with hash {hash}")))?,
        };
        if keccak256(&code) != hash {
            return Err(StateError::Corrupt(format!("the code row of {hash} has code with another hash")));
        }
        let mut codes = self.inner.codes.write();
        if codes.cached.insert(hash, code.clone()).is_none() {
            codes.order.push_back(hash);
            codes.cached_bytes = codes.cached_bytes.saturating_add(code.len());
        }
        while codes.cached_bytes > CODE_CACHE_BYTES_MAX {
            let Some(oldest) = codes.order.pop_front() else { break };
            let freed = codes.cached.remove(&oldest).map_or(0, |code| code.len());
            codes.cached_bytes = codes.cached_bytes.saturating_sub(freed);
        }
        Ok(code)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        if height > self.height {
            return Ok(None);
        }
        let hash = self.inner.blocks.hash(height)?;
        self.check()?;
        Ok(hash)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        let start = Instant::now();
        let base = match parent {
            Some(handle) => {
                StateTrie::of(handle).ok_or_else(|| StateError::Corrupt("a trie of another store".to_owned()))?
            }
            None => self.trie()?,
        };
        let next = base.apply(changes, &self.inner.snapshots).map_err(|error| match error {
            TrieError::Mismatch { .. } if self.height < self.inner.blocks.tip().height() => {
                StateError::Unavailable(self.height)
            }
            error => StateError::from(Fault::from(error)),
        })?;
        metrics::elapsed(&metrics::ROOT_BUSY, start);
        Ok((next.hash, Arc::new(next).handle()))
    }
}
