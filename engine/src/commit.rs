//! Finalized blocks, in order, through the store; then the announcement.
//!
//! Promise: nothing is announced before the store says it would survive a power cut. Blocks that wait
//! together are written together and share one sync.

use std::sync::Arc;

use crate::{
    events::{Event, Events},
    execution::Pending,
    metrics,
    ports::{Message, Network, Store, StoreError},
    types::{FinalizedBlock, Height},
};

/// Makes blocks durable and says so.
pub struct Committer {
    store: Arc<dyn Store>,
    network: Arc<dyn Network>,
    pending: Arc<Pending>,
    events: Events,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    /// Joins what a commit touches.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, network: Arc<dyn Network>, pending: Arc<Pending>, events: Events) -> Self {
        Self { store, network, pending, events }
    }

    /// Commits a group of blocks in order and returns the new durable height.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the group may then be announced, and the node must stop.
    pub fn commit(&self, group: &[FinalizedBlock]) -> Result<Height, StoreError> {
        let committed = self.store.commit(group)?;
        for block in committed {
            self.pending.committed(block.height());
            let transactions = u64::try_from(block.block.body.transactions.len()).unwrap_or(u64::MAX);
            metrics::TRANSACTION_COMMITTED.add(transactions);
            metrics::BLOCK_COMMITTED.increment();
            ::metrics::gauge!(metrics::HEIGHT).set(metrics::level(block.height().0));
            let header = block.block.header.inner();
            tracing::info!(
                height = header.number,
                hash = %block.hash(),
                txs = transactions,
                gas = header.gas_used,
                base_fee = header.base_fee_per_gas.unwrap_or_default(),
                "block committed"
            );
            self.network.broadcast(&Message::Committed(block.clone()));
            self.events.emit(&Event::Committed(block));
        }
        Ok(self.store.tip().height())
    }
}
