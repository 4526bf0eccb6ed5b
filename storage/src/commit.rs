//! One group of finalized blocks -> the segments, one sync, then memory.
//!
//! Order alone carries correctness: records, sync, overlay and trie handles, and last the tip, so that
//! whoever sees a height can read everything about it.

use std::{sync::Arc, time::Instant};

use engine::{
    ports::StoreError,
    types::{CommittedBlock, FinalizedBlock, Height},
};

use crate::{
    error::Fault,
    metrics,
    overlay::Ended,
    past::Asked,
    record,
    segment::Written,
    store::Inner,
    tables::Position,
    trie::state::{StateTrie, hash_address},
};

/// Makes blocks durable, in order; all of them, or the store is poisoned, or the disk is full and nothing was written.
pub(crate) fn commit(inner: &Arc<Inner>, blocks: &[FinalizedBlock]) -> Result<Vec<Arc<CommittedBlock>>, StoreError> {
    let start = Instant::now();
    inner.check()?;
    wait_for_checkpoint(inner)?;
    let mut appender = inner.appender.lock();
    let tries = check_order(inner, blocks)?;
    let durable = inner.blocks.tip().height();
    let style = record::Style { salt: appender.identity.salt, compress: inner.config.compress };
    let encoded: Vec<(Height, Vec<u8>)> = blocks
        .iter()
        .map(|block| {
            let mut bytes = Vec::new();
            record::append_block(&mut bytes, block, durable, style);
            (block.executed.block.height(), bytes)
        })
        .collect();
    if !encoded.is_empty() {
        inner.place.check(appender.needs(&encoded))?;
    }
    let written = appender.append(&encoded).map_err(|fault| inner.poison(fault))?;
    drop(appender);
    metrics::elapsed(&metrics::COMMIT_BUSY, start);
    metrics::BLOCK_COMMITTED.add(u64::try_from(blocks.len()).unwrap_or(u64::MAX));

    let mut committed = Vec::with_capacity(blocks.len());
    for ((block, trie), place) in blocks.iter().zip(tries).zip(written) {
        let bytes = usize::try_from(place.length).unwrap_or(usize::MAX);
        committed.push(publish(inner, block, trie, place)?);
        note_dirty(inner, block.executed.block.height(), block.executed.changes.len(), bytes);
    }
    Ok(committed)
}

/// Holds the commit back while the checkpoint is too far behind.
fn wait_for_checkpoint(inner: &Inner) -> Result<(), Fault> {
    let policy = inner.config.checkpoint;
    let start = Instant::now();
    let mut waited = false;
    let mut dirty = inner.dirty.lock();
    while inner.config.background
        && !dirty.stop
        && (dirty.slots > policy.dirty_slots_max.saturating_mul(2)
            || dirty.bytes > policy.dirty_bytes_max.saturating_mul(2))
    {
        inner.check()?;
        if dirty.is_full {
            return Err(Fault::Full("the checkpoint that this block waits for waits for room on the disk".to_owned()));
        }
        dirty.asked = true;
        waited = true;
        inner.dirty_changed.notify_all();
        inner.dirty_changed.wait(&mut dirty);
    }
    drop(dirty);
    if waited {
        metrics::elapsed(&metrics::COMMIT_STALLED, start);
    }
    inner.check()
}

/// Checks that the blocks extend the tip and that their tries are what their headers say.
fn check_order(inner: &Inner, blocks: &[FinalizedBlock]) -> Result<Vec<Arc<StateTrie>>, StoreError> {
    let tip = inner.blocks.tip();
    let (mut height, mut hash) = (tip.height(), tip.hash());
    let mut tries = Vec::with_capacity(blocks.len());
    for block in blocks {
        let executed = &block.executed;
        let header = executed.block.header.inner();
        if executed.block.height() != height.next() {
            return Err(StoreError::OutOfOrder { got: executed.block.height(), tip: height });
        }
        height = executed.block.height();
        if header.parent_hash != hash {
            let text = format!("block {height} names parent {}, not {hash}", header.parent_hash);
            return Err(StoreError::Corrupt(text));
        }
        hash = executed.block.hash();
        let trie = StateTrie::of(&executed.trie)
            .ok_or_else(|| StoreError::Corrupt(format!("block {height} has a trie of another store")))?;
        if trie.hash != header.state_root {
            let text = format!("block {height} has state root {}, its trie {}", header.state_root, trie.hash);
            return Err(StoreError::Corrupt(text));
        }
        tries.push(trie);
    }
    Ok(tries)
}

/// Shows one durable block to readers.
fn publish(
    inner: &Arc<Inner>,
    block: &FinalizedBlock,
    trie: Arc<StateTrie>,
    place: Written,
) -> Result<Arc<CommittedBlock>, Fault> {
    let executed = &block.executed;
    let height = executed.block.height();
    let parent = inner.blocks.newest_trie().1;
    insert_changes(inner, height, &executed.changes, Some(&parent))?;
    if inner.overlay.asks() {
        let own = Arc::clone(inner);
        inner.housekeeper.submit(Box::new(move || own.overlay.enter_all()));
    }
    let committed = Arc::new(CommittedBlock {
        block: Arc::clone(&executed.block),
        receipts: Arc::clone(&executed.receipts),
        finality: Some(block.finality),
    });
    inner.index.insert(place.segment, &committed, &executed.changes)?;
    let position = Position {
        hash: executed.block.hash(),
        id: executed.block.consensus.id(),
        segment: place.segment,
        offset: place.offset,
        length: place.length,
        first_transaction: 0,
        transactions: u32::try_from(executed.block.body.transactions.len()).unwrap_or(u32::MAX),
    };
    match inner.past.note(height, (&parent, &trie), &executed.changes) {
        Asked::Nothing => {}
        Asked::Now => inner.past.absorb(&inner.snapshots),
        Asked::Soon => {
            let inner = Arc::clone(inner);
            let housekeeper = Arc::clone(&inner.housekeeper);
            housekeeper.submit(Box::new(move || inner.past.absorb(&inner.snapshots)));
        }
    }
    let outdated = inner.blocks.push(Arc::clone(&committed), position, Some(trie));
    if !outdated.is_empty() {
        inner.housekeeper.submit(Box::new(move || drop(outdated)));
    }
    Ok(committed)
}

/// Adds a block's changes and code to what is in memory; `parent` is the trie before the block.
pub(crate) fn insert_changes(
    inner: &Inner,
    height: Height,
    changes: &Arc<engine::types::StateChanges>,
    parent: Option<&StateTrie>,
) -> Result<(), Fault> {
    if !changes.codes.is_empty() {
        let mut codes = inner.codes.write();
        codes.pending.extend(changes.codes.iter().map(|(hash, code)| (*hash, (height, code.clone()))));
    }
    let mut failure = None;
    inner.overlay.insert(height, changes, |address| {
        let Some(parent) = parent else { return Ended::Unknown };
        match parent.leaf(&hash_address(*address), &inner.snapshots) {
            Ok(leaf) => leaf.and_then(|leaf| leaf.storage.incarnation).map_or(Ended::Nothing, Ended::Rows),
            Err(error) => {
                failure = Some(error);
                Ended::Unknown
            }
        }
    });
    failure.map_or(Ok(()), |error| Err(inner.poison(error.into())))
}

/// Counts a block's changes towards the next checkpoint.
pub(crate) fn note_dirty(inner: &Inner, height: Height, slots: usize, bytes: usize) {
    let policy = inner.config.checkpoint;
    let mut dirty = inner.dirty.lock();
    dirty.blocks.push_back((height, slots, bytes));
    dirty.slots = dirty.slots.saturating_add(slots);
    dirty.bytes = dirty.bytes.saturating_add(bytes);
    if dirty.slots > policy.dirty_slots_max || dirty.bytes > policy.dirty_bytes_max {
        dirty.asked = true;
        inner.dirty_changed.notify_all();
    }
}
