//! Finalized blocks, in order, through the store; then the announcement.
//!
//! Promise: nothing is announced before the store says it would survive a power cut. Blocks that wait
//! together are written together and share one sync. What the log says of them is durable before they are, so that a
//! log that knows less than the store is an old one; and it forgets nothing that the store does not hold.

use std::sync::Arc;

use crate::{
    events::{Event, Events},
    execution::Pending,
    metrics,
    ports::{Journal, Store, StoreError},
    types::{ConsensusHeader, EpochStart, FinalizedBlock, Height},
};

/// Makes blocks durable and says so.
pub struct Committer {
    store: Arc<dyn Store>,
    journal: Arc<dyn Journal>,
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
    pub fn new(store: Arc<dyn Store>, journal: Arc<dyn Journal>, pending: Arc<Pending>, events: Events) -> Self {
        Self { store, journal, pending, events }
    }

    /// Commits a group of blocks in order, and the start of the epoch after the last of them; returns the new durable
    /// height.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the group may then be announced, and the node must stop. After
    /// [`StoreError::Full`] the same group may be committed later.
    pub fn commit(&self, group: &[FinalizedBlock], epoch: Option<&EpochStart>) -> Result<Height, StoreError> {
        self.journal.sync()?;
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
            self.events.emit(&Event::Committed(block));
        }
        if let Some(epoch) = epoch {
            self.store.begin_epoch(epoch)?;
        }
        let tip = self.store.tip();
        if !group.is_empty() || epoch.is_some() {
            self.forget(&tip.block.consensus, epoch.is_some());
        }
        Ok(tip.height())
    }

    /// The start of an epoch rests on headers above its last block, which only the log has until the store has both.
    fn forget(&self, newest: &ConsensusHeader, has_begun: bool) {
        let is_last = newest.height.checked_rem(self.store.chain().ordering.epoch_slots) == Some(0);
        if !is_last || has_begun {
            self.journal.forget_below(newest.epoch(), newest.slot(), newest.height());
        }
    }
}
