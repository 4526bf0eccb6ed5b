//! Which layer lies on which parent: executed blocks that are not durable yet, over the store's tip.
//!
//! Promise: a view taken here shows the state after the newest executed block, and the layers below it
//! stay alive as long as the view does. A layer leaves when its block is committed, after the store
//! shows it, so no reader ever sees a gap.

use std::{collections::VecDeque, sync::Arc};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, U256, map::B256Map};
use parking_lot::RwLock;

use crate::{
    ports::{StateError, StateView, Store},
    types::{Account, ExecutedBlock, Height, PooledTransaction, StateChanges, TrieHandle},
};

#[derive(Debug, Default)]
struct Layers {
    /// Oldest first.
    blocks: VecDeque<ExecutedBlock>,
    transactions: B256Map<PooledTransaction>,
}

/// Executed blocks on their way to the disk.
#[derive(Debug, Default)]
pub struct Pending(RwLock<Layers>);

impl Pending {
    /// Puts a block on top.
    pub fn push(&self, executed: ExecutedBlock) {
        let mut layers = self.0.write();
        for transaction in &executed.block.body.transactions {
            layers.transactions.insert(transaction.hash(), PooledTransaction::admitted(transaction.clone()));
        }
        layers.blocks.push_back(executed);
    }

    /// Removes the blocks up to `height`; call it once the store shows them.
    pub fn committed(&self, height: Height) {
        let mut layers = self.0.write();
        while layers.blocks.front().is_some_and(|lowest| lowest.block.height() <= height) {
            if let Some(gone) = layers.blocks.pop_front() {
                for transaction in &gone.block.body.transactions {
                    layers.transactions.remove(&transaction.hash());
                }
            }
        }
    }

    /// A transaction of a block that is not durable yet.
    #[must_use]
    pub fn transaction(&self, hash: B256) -> Option<PooledTransaction> {
        self.0.read().transactions.get(&hash).cloned()
    }

    /// Header of the newest executed block.
    #[must_use]
    pub fn top(&self, store: &dyn Store) -> Sealed<Header> {
        let layers = self.0.read();
        layers.blocks.back().map_or_else(|| store.tip().block.header.clone(), |top| top.block.header.clone())
    }

    /// State after the newest executed block, and its height.
    ///
    /// # Errors
    /// [`StateError`] if the store cannot show its tip.
    pub fn view(&self, store: &dyn Store) -> Result<(Arc<dyn StateView>, Height), StateError> {
        // The layers are read first: a block that is committed meanwhile is then in both, never in neither.
        let layers: Vec<ExecutedBlock> = self.0.read().blocks.iter().rev().cloned().collect();
        let tip = store.tip().height();
        let base = store.view(tip).map_err(|error| StateError::Unreadable(error.to_string()))?;
        let layers: Vec<_> = layers.into_iter().filter(|layer| layer.block.height() > tip).collect();
        match layers.first().map(|top| top.block.height()) {
            Some(height) => Ok((Arc::new(LayeredView { layers, base }), height)),
            None => Ok((base, tip)),
        }
    }
}

/// State after a block that is not durable yet.
struct LayeredView {
    /// Newest first.
    layers: Vec<ExecutedBlock>,
    base: Arc<dyn StateView>,
}

impl LayeredView {
    fn changes(&self) -> impl Iterator<Item = &StateChanges> {
        self.layers.iter().map(|layer| &*layer.changes)
    }
}

impl StateView for LayeredView {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        match self.changes().find_map(|changes| changes.accounts.get(&address)) {
            Some(change) => Ok(change.after),
            None => self.base.account(address),
        }
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        for change in self.changes().filter_map(|changes| changes.accounts.get(&address)) {
            if let Some(slot) = change.slots.get(&key) {
                return Ok(slot.after);
            }
            if change.wiped {
                return Ok(U256::ZERO);
            }
        }
        self.base.slot(address, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        match self.changes().find_map(|changes| changes.codes.get(&hash)) {
            Some(code) => Ok(code.clone()),
            None => self.base.code(hash),
        }
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        match self.layers.iter().find(|layer| layer.block.height() == height) {
            Some(layer) => Ok(Some(layer.block.hash())),
            None => self.base.block_hash(height),
        }
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        let own = self.layers.first().map(|layer| &layer.trie);
        self.base.root_after(parent.or(own), changes)
    }
}
