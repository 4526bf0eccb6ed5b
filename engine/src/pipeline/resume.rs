//! Where ordering goes on after a start: read off the chain in the store and the log.
//!
//! What the log knows to be final and the store does not hold is committed first, before anybody is served: a client
//! that reads the chain after a restart is not surprised by blocks that were final before it.
//!
//! Every block's `mix_hash` is the seed mixed up to it, so the seeds of all epochs stand in the chain: epochs 0 and 1
//! have the id of block 0, epoch e the mix at the last block of epoch e - 2.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::B256;

use super::PipelineError;
use crate::{
    limits,
    ordering::{
        event::{Anchor, Snapshot},
        journal::{Entry, KeptBlock},
    },
    ports::{Executor, Recovered, Store, StoreError},
    types::{
        Block, Certificate, CommittedBlock, Epoch, EpochStart, Finality, FinalizedBlock, Height, ValidatorSet,
        vote::Kind,
    },
};

/// Commits what the log makes final and the store does not hold.
///
/// # Errors
/// [`PipelineError::Start`].
pub(super) fn replay(store: &dyn Store, executor: &dyn Executor, recovered: &Recovered) -> Result<(), PipelineError> {
    let kept: BTreeMap<B256, &KeptBlock> =
        recovered.blocks.iter().map(|kept| (kept.signed.header.id(), kept)).collect();
    let mut finals: Vec<Certificate> = recovered.entries.iter().filter_map(finalization).collect();
    finals.sort_by_key(|certificate| (certificate.epoch, certificate.statement.slot()));
    for certificate in finals {
        let chain = chain_down(&kept, certificate.statement.id(), store.tip().block.consensus.id());
        for KeptBlock { signed, block } in chain.into_iter().flatten().rev() {
            let Some(block) = block else { continue };
            let finality = Finality { proposal: signed.signature, certificate };
            commit(store, executor, block, finality)?;
        }
    }
    for entry in &recovered.entries {
        if let Entry::EpochStart { epoch, base, set } = entry
            && store.epoch(*epoch).map_err(failed)?.is_none()
            && let Some(height) = store.height_of_id(*base).map_err(failed)?
            && let Some(handover) = block_at(store, height.0)?.finality.map(|finality| finality.certificate)
        {
            let above = chain_down(&kept, handover.statement.id(), *base).unwrap_or_default();
            let tail = above.into_iter().map(|kept| kept.signed.clone()).collect();
            store.begin_epoch(&EpochStart { set: set.clone(), base: *base, handover, tail }).map_err(failed)?;
        }
    }
    Ok(())
}

fn finalization(entry: &Entry) -> Option<Certificate> {
    match entry {
        Entry::Certificate(held) if held.statement.kind() == Kind::Finalize => Some(*held),
        _ => None,
    }
}

/// The kept blocks from one down to those above another, newest first; `None` if one is missing.
fn chain_down<'k>(kept: &BTreeMap<B256, &'k KeptBlock>, from: Option<B256>, to: B256) -> Option<Vec<&'k KeptBlock>> {
    let (mut chain, mut next) = (Vec::new(), from?);
    while next != to {
        let block = *kept.get(&next)?;
        chain.push(block);
        next = block.signed.header.parent_id;
    }
    Some(chain)
}

fn commit(
    store: &dyn Store,
    executor: &dyn Executor,
    block: &Arc<Block>,
    finality: Finality,
) -> Result<(), PipelineError> {
    let tip = store.tip();
    let view = store.view(tip.height()).map_err(failed)?;
    let executed = executor.execute(&*view, &tip.block.header, block);
    let executed = executed.map_err(|error| {
        PipelineError::Start(format!("block {} is final, and cannot be executed here: {error}", block.height()))
    })?;
    store.commit(&[FinalizedBlock { executed, finality }]).map_err(failed)?;
    tracing::info!(height = block.height().0, hash = %block.hash(), "block committed from the log");
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: StoreError) -> PipelineError {
    PipelineError::Start(error.to_string())
}

fn block_at(store: &dyn Store, height: u64) -> Result<Arc<CommittedBlock>, PipelineError> {
    let found = store.block(Height(height)).map_err(failed)?;
    found.ok_or_else(|| PipelineError::Start(format!("block {height} is missing")))
}

/// What ordering starts from, and the blocks above the store's tip that it may want executed.
pub(super) struct Resumed {
    pub(super) snapshot: Snapshot,
    pub(super) bodies: BTreeMap<B256, Arc<Block>>,
}

/// The durable chain as ordering reads it.
struct Chain<'s> {
    store: &'s dyn Store,
    epoch_heights: u64,
}

impl Chain<'_> {
    /// The block that an epoch began on.
    fn base(&self, epoch: u64) -> Result<Anchor, PipelineError> {
        Ok(anchor(&*block_at(self.store, epoch.saturating_mul(self.epoch_heights))?))
    }

    fn seed(&self, epoch: u64) -> Result<B256, PipelineError> {
        match epoch.checked_sub(1) {
            None | Some(0) => Ok(self.base(0)?.id),
            Some(before) => Ok(self.base(before)?.mix),
        }
    }

    /// The newest epoch that has begun: its first block may not be there yet.
    fn epoch(&self, tip: &CommittedBlock, entries: &[Entry]) -> u64 {
        let is_there = |epoch: &u64, base: &B256| {
            let height = epoch.saturating_mul(self.epoch_heights);
            height <= tip.height().0 && self.base(*epoch).is_ok_and(|anchor| anchor.id == *base)
        };
        let begun = entries.iter().filter_map(|entry| match entry {
            Entry::EpochStart { epoch: Epoch(epoch), base, .. } => is_there(epoch, base).then_some(*epoch),
            _ => None,
        });
        begun.max().unwrap_or_default().max(tip.block.consensus.epoch)
    }

    /// What made the last blocks of the epochs before this one final, oldest first.
    fn handovers(&self, epoch: u64) -> Result<Vec<Certificate>, PipelineError> {
        let kept = u64::try_from(limits::HANDOVERS_MAX).unwrap_or(u64::MAX);
        let mut handovers = Vec::new();
        for next in epoch.saturating_sub(kept).saturating_add(1)..=epoch {
            // A chain that began with a snapshot of its state has few of the blocks before.
            let last = match self.store.block(Height(next.saturating_mul(self.epoch_heights))) {
                Err(StoreError::NotKept { .. }) => None,
                found => found.map_err(failed)?,
            };
            handovers.extend(last.and_then(|last| last.finality).map(|finality| finality.certificate));
        }
        Ok(handovers)
    }
}

fn anchor(block: &CommittedBlock) -> Anchor {
    let block = &block.block;
    Anchor { id: block.consensus.id(), header: block.consensus.clone(), mix: block.header.inner().mix_hash }
}

/// Reads where ordering goes on.
///
/// # Errors
/// [`PipelineError::Start`].
pub(super) fn resume(
    store: &dyn Store,
    genesis_set: &ValidatorSet,
    recovered: Recovered,
    nonce: u64,
) -> Result<Resumed, PipelineError> {
    let chain = Chain { store, epoch_heights: store.chain().ordering.epoch_slots };
    let Recovered { entries, blocks: kept, is_lost } = recovered;
    let tip = store.tip();
    let epoch = chain.epoch(&tip, &entries);
    let base = chain.base(epoch)?;
    let finality = tip.finality.filter(|_| tip.block.consensus.epoch == epoch);
    let (mut blocks, mut bodies) = (Vec::new(), BTreeMap::new());
    for KeptBlock { signed, block } in kept.into_iter().filter(|kept| kept.signed.header.epoch == epoch) {
        let empty = block.as_ref().is_none_or(|block| block.body.transactions.is_empty());
        bodies.extend(block.map(|block| (signed.header.id(), block)));
        blocks.push((signed, empty));
    }
    blocks.sort_by_key(|(signed, _)| (signed.header.slot, signed.header.id()));
    let snapshot = Snapshot {
        set: genesis_set.in_epoch(Epoch(epoch)),
        next_set: Some(genesis_set.in_epoch(Epoch(epoch.saturating_add(1)))),
        seed: chain.seed(epoch)?,
        next_seed: chain.seed(epoch.saturating_add(1))?,
        handovers: chain.handovers(epoch)?,
        tip: finality.map(|finality| (anchor(&tip), finality.certificate)),
        base,
        blocks,
        entries,
        is_log_lost: is_lost,
        nonce,
    };
    Ok(Resumed { snapshot, bodies })
}
