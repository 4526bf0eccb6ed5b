//! Which layer lies on which parent: executed blocks that are not durable yet, over the store's tip.
//!
//! ```text
//! store's tip <- final <- final          on their way to the disk, one chain; the last one is the head
//!                           ^- open <- open
//!                           ^- open      executed here, and maybe never final: a tree
//! ```
//!
//! Promise: a view taken here shows the state after the block that was asked for, and the layers below it stay alive as
//! long as the view does. A layer leaves when its block is committed, after the store shows it, so no reader ever sees
//! a gap; or when another block became final in its place.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_consensus::{Header, Sealed, Transaction as _};
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map},
};
use parking_lot::RwLock;

use crate::{
    events::NotarizedBlock,
    ports::{StateError, StateView, Store},
    types::{
        Account, Block, CommittedBlock, ExecutedBlock, Height, PooledTransaction, Signature, StateChanges, TrieHandle,
    },
};

/// A block that was executed here, as its leader signed it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The leader's signature over its consensus header.
    pub signature: Signature,
    /// What came out.
    pub executed: ExecutedBlock,
}

impl Layer {
    fn parent(&self) -> B256 {
        self.executed.block.consensus.parent_id
    }
}

#[derive(Debug)]
struct Layers {
    /// Id of the newest final block.
    head: B256,
    /// Final and not durable yet, oldest first, with their ids.
    decided: VecDeque<(B256, Layer)>,
    open: BTreeMap<B256, Layer>,
    /// Transactions of the final ones.
    transactions: B256Map<PooledTransaction>,
}

/// Executed blocks on their way to the disk, or to nowhere.
#[derive(Debug)]
pub struct Pending(RwLock<Layers>);

/// What a block is executed on.
pub struct Ground {
    /// State after the parent.
    pub view: Arc<dyn StateView>,
    /// Header of the parent.
    pub parent: Sealed<Header>,
    /// The blocks between the store's tip and this state, newest first.
    above: Vec<Arc<Block>>,
}

impl Ground {
    /// The nonce after the last one of each sender whose transactions a pool may still offer that follows final blocks.
    #[must_use]
    pub fn next_nonces(&self) -> AddressMap<u64> {
        let transactions = self.above.iter().rev().flat_map(|block| &block.body.transactions);
        transactions.map(|sent| (sent.sender(), sent.envelope().nonce().saturating_add(1))).collect()
    }
}

impl Layers {
    fn get(&self, id: &B256) -> Option<&Layer> {
        let decided = || self.decided.iter().find(|(decided, _)| decided == id).map(|(_, layer)| layer);
        self.open.get(id).or_else(decided)
    }

    /// The layers from a block down to the store's tip, newest first; `None` if it does not stand on the head.
    fn down_from(&self, id: B256) -> Option<Vec<ExecutedBlock>> {
        let (mut layers, mut next) = (Vec::new(), id);
        while next != self.head {
            let layer = self.open.get(&next)?;
            layers.push(layer.executed.clone());
            next = layer.parent();
        }
        layers.extend(self.decided.iter().rev().map(|(_, layer)| layer.executed.clone()));
        Some(layers)
    }

    /// Open blocks that no longer stand on the head are of no use.
    fn drop_lost(&mut self) {
        let stands = |id: &B256| {
            let mut next = *id;
            while next != self.head {
                let Some(layer) = self.open.get(&next) else { return false };
                next = layer.parent();
            }
            true
        };
        let lost: Vec<B256> = self.open.keys().copied().filter(|id| !stands(id)).collect();
        for id in lost {
            self.open.remove(&id);
        }
    }
}

impl Pending {
    /// Nothing above the store's tip.
    #[must_use]
    pub fn new(store: &dyn Store) -> Self {
        let head = store.tip().block.consensus.id();
        let (decided, open, transactions) = (VecDeque::new(), BTreeMap::new(), B256Map::default());
        Self(RwLock::new(Layers { head, decided, open, transactions }))
    }

    /// Puts an executed block on its parent.
    pub fn insert(&self, id: B256, layer: Layer) {
        self.0.write().open.insert(id, layer);
    }

    /// These blocks are final: each one's parent is the one before, the first one's the head. Blocks that cannot become
    /// final any more leave. Ends at the first block that is not here.
    #[must_use]
    pub fn decide(&self, ids: &[B256]) -> Vec<Layer> {
        let mut layers = self.0.write();
        let mut decided = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(layer) = layers.open.remove(id).filter(|layer| layer.parent() == layers.head) else { break };
            for transaction in &layer.executed.block.body.transactions {
                layers.transactions.insert(transaction.hash(), PooledTransaction::admitted(transaction.clone()));
            }
            layers.head = *id;
            layers.decided.push_back((*id, layer.clone()));
            decided.push(layer);
        }
        layers.drop_lost();
        decided
    }

    /// Removes the final blocks up to `height`; call it once the store shows them.
    pub fn committed(&self, height: Height) {
        let mut layers = self.0.write();
        while layers.decided.front().is_some_and(|(_, lowest)| lowest.executed.block.height() <= height) {
            if let Some((_, gone)) = layers.decided.pop_front() {
                for transaction in &gone.executed.block.body.transactions {
                    layers.transactions.remove(&transaction.hash());
                }
            }
        }
    }

    /// A block that was executed here and is not durable yet, and its leader's signature.
    #[must_use]
    pub fn block(&self, id: &B256) -> Option<(Signature, Arc<Block>)> {
        let layers = self.0.read();
        let layer = layers.get(id)?;
        Some((layer.signature, layer.executed.block.clone()))
    }

    /// A block that was executed here and is not durable yet, as clients see it once it is notarized.
    #[must_use]
    pub fn notarized(&self, id: &B256) -> Option<NotarizedBlock> {
        let layers = self.0.read();
        let ExecutedBlock { block, receipts, .. } = &layers.get(id)?.executed;
        Some(NotarizedBlock { block: block.clone(), receipts: receipts.clone() })
    }

    /// A transaction of a final block that is not durable yet.
    #[must_use]
    pub fn transaction(&self, hash: B256) -> Option<PooledTransaction> {
        self.0.read().transactions.get(&hash).cloned()
    }

    /// Header of the newest final block.
    #[must_use]
    pub fn top(&self, store: &dyn Store) -> Sealed<Header> {
        let layers = self.0.read();
        let top = layers.decided.back().map(|(_, top)| top.executed.block.header.clone());
        top.unwrap_or_else(|| store.tip().block.header.clone())
    }

    /// State after the newest final block, and its height.
    ///
    /// # Errors
    /// [`StateError`] if the store cannot show its tip.
    pub fn view(&self, store: &dyn Store) -> Result<(Arc<dyn StateView>, Height), StateError> {
        // The layers are read first: a block that is committed meanwhile is then in both, never in neither.
        let mut layers: Vec<_> = self.0.read().decided.iter().rev().map(|(_, layer)| layer.executed.clone()).collect();
        let (tip, base) = base_below(&mut layers, store)?;
        let height = layers.first().map_or_else(|| tip.height(), |top| top.block.height());
        Ok((stacked(layers, base), height))
    }

    /// What a block on this parent is executed on; `None` if no final block can stand there any more.
    ///
    /// # Errors
    /// [`StateError`] if the store cannot show its tip.
    pub fn ground(&self, parent: B256, store: &dyn Store) -> Result<Option<Ground>, StateError> {
        let Some(mut layers) = self.0.read().down_from(parent) else { return Ok(None) };
        let (tip, base) = base_below(&mut layers, store)?;
        let above: Vec<_> = layers.iter().map(|layer| layer.block.clone()).collect();
        let parent = above.first().map_or_else(|| tip.block.header.clone(), |top| top.header.clone());
        Ok(Some(Ground { view: stacked(layers, base), parent, above }))
    }
}

/// The store's tip and the state there; layers that the store shows by now are taken out.
fn base_below(
    layers: &mut Vec<ExecutedBlock>,
    store: &dyn Store,
) -> Result<(Arc<CommittedBlock>, Arc<dyn StateView>), StateError> {
    let tip = store.tip();
    let base = store.view(tip.height()).map_err(|error| StateError::Unreadable(error.to_string()))?;
    layers.retain(|layer| layer.block.height() > tip.height());
    Ok((tip, base))
}

/// The state under these layers, newest first.
fn stacked(layers: Vec<ExecutedBlock>, base: Arc<dyn StateView>) -> Arc<dyn StateView> {
    if layers.is_empty() { base } else { Arc::new(LayeredView { layers, base }) }
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
