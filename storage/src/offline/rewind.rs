//! The chain and the state as they were at an earlier height.
//!
//! ```text
//! 1. state    step by step down, each one transaction and compared with a header's root: killed here, the store
//!             replays the blocks that are all there
//! 2. mark     one row: from here on the chain ends at that height
//! 3. rest     rows of later epochs and blocks, segments above, what is behind the block in its own; then the mark
//!             goes: killed here, the rest is done when the store is opened
//! ```
//!
//! What a change was before stands in the block's own record. Slots that a wipe took without naming them do not: where
//! a root shows that there were some, the account's records are read from block 1 on.
//!
//! The log stays as it is. A validator signs nothing again at or below what it signed, whatever its chain ends with, so
//! it goes on by taking the blocks from others; and blocks that the log holds as final come back with the next start.

mod changes;

use std::{path::Path, sync::Arc};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::B256;
use alloy_rlp::Decodable as _;
use engine::{
    genesis::ChainSpec,
    ports::{Store as _, StoreError},
    types::{EpochStart, Height, StateChanges, codec},
};
use serde::Serialize;

use super::{Listener, Progress, ensure_store};
use crate::{
    Config, Database, blocks,
    checkpoint::{Batch, write_state},
    disk::{Disk, RealDisk},
    error::{Fault, OpenError},
    failpoint::{Action, FailPoints},
    index::Half,
    kv::{Env, Row},
    recovery,
    segment::{self, Identity, SegmentFile, zero_tail},
    snapshot::StateSnapshot,
    store::Inner,
    tables::{self, Applied, Fields, meta},
    trie::state::StateTrie,
};

/// Bytes of records that are taken back in one step.
const STEP_BYTES: usize = 32 << 20;
/// Heights whose rows are deleted in one transaction.
const ROWS_HEIGHTS: usize = 4_096;

/// What a rewind came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rewound {
    /// Height of the newest block before.
    pub from: u64,
    /// Height of the newest block.
    pub to: u64,
    /// Its hash.
    pub hash: B256,
    /// The root of the state.
    pub root: B256,
}

/// Why a chain does not go back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// The store does not open, or fails.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to take back.
    #[error("height {to} is above the chain, which ends at {tip}")]
    Above {
        /// The height asked for.
        to: Height,
        /// Where the chain ends.
        tip: Height,
    },
    /// What leads back so far is not kept.
    #[error("height {to} is not kept: the lowest kept height is {lowest}")]
    Below {
        /// The height asked for.
        to: Height,
        /// The lowest height that is kept.
        lowest: Height,
    },
}

impl From<Fault> for RewindError {
    fn from(fault: Fault) -> Self {
        Self::Open(fault.into())
    }
}

impl From<StoreError> for RewindError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        Self::Open(if matches!(error, StoreError::Corrupt(_)) {
            OpenError::Corrupt(text)
        } else {
            OpenError::Failed(text)
        })
    }
}

/// Ends the chain of a data folder at a height.
///
/// # Errors
/// [`RewindError`].
pub fn rewind(config: Config, chain: Arc<ChainSpec>, to: Height, listen: Listener<'_>) -> Result<Rewound, RewindError> {
    let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Abort).map_err(OpenError::Config)?;
    rewind_on(Arc::new(RealDisk), fail, config, chain, to, listen)
}

pub(crate) fn rewind_on(
    disk: Arc<dyn Disk>,
    fail: FailPoints,
    config: Config,
    chain: Arc<ChainSpec>,
    to: Height,
    listen: Listener<'_>,
) -> Result<Rewound, RewindError> {
    ensure_store(&config.dir)?;
    // Nothing goes at the other end meanwhile.
    let config = Config { background: false, keep: None, ..config };
    let store = Database::open_on(disk, fail, config, chain)?;
    let tip = store.tip().height();
    if to > tip {
        return Err(RewindError::Above { to, tip });
    }
    let (inner, lowest) = (&store.inner, store.inner.segments.lowest());
    // Where a chain ends there must be a segment to end.
    let is_kept = to >= lowest && inner.segments.get(recovery::canonical(&inner.chain_env, to)?.segment).is_ok();
    if !is_kept {
        return Err(RewindError::Below { to, lowest: lowest.next() });
    }
    let header = store.header(to)?.ok_or_else(|| Fault::corrupt(format!("there is no header {to}")))?;
    let rewound = Rewound { from: tip.0, to: to.0, hash: header.seal(), root: header.state_root };
    if to == tip {
        return Ok(rewound);
    }
    // Now state, rows and chain end with the same block.
    store.checkpoint()?;
    state(inner, to, listen)?;
    mark(&inner.chain_env, to, &inner.fail)?;
    let appender = inner.appender.lock();
    finish(&inner.chain_env, (&*appender.disk, &appender.dir), appender.identity, &inner.fail)?;
    Ok(rewound)
}

/// Takes the state back, a step at a time.
fn state(inner: &Inner, to: Height, listen: Listener<'_>) -> Result<(), Fault> {
    let mut checkpointed = inner.checkpointed.lock();
    let from = checkpointed.applied.height;
    while checkpointed.applied.height > to {
        // Nothing of it is in memory, so that no step keeps what the one before has read.
        let old = StateTrie::stored(checkpointed.applied.root);
        let (header, trie) = step_back(inner, &old, checkpointed.applied.height, to)?;
        let height = Height(header.number);
        let batch = Batch::collect(&old, &trie, &inner.snapshots, checkpointed.next_storage_id)?;
        let applied = Applied { height, hash: header.seal(), root: trie.hash };
        inner.fail.hit("rewind.state").map_err(Fault::Failed)?;
        write_state(inner, &batch, applied)?;
        inner.snapshots.replace(StateSnapshot::new(inner.state.snapshot()?, height));
        let (stored, next_storage_id) = (Arc::new(StateTrie::stored(applied.root)), batch.next_storage_id);
        (checkpointed.applied, checkpointed.trie, checkpointed.next_storage_id) = (applied, stored, next_storage_id);
        listen(Progress { what: "state", done: from.0.saturating_sub(height.0), all: from.0.saturating_sub(to.0) });
    }
    Ok(())
}

/// The state after an earlier block, from the newest one.
pub(crate) fn state_at(inner: &Inner, to: Height) -> Result<StateTrie, Fault> {
    let (mut height, newest) = inner.blocks.newest_trie();
    let mut trie = StateTrie::clone(&newest);
    while height > to {
        let (header, before) = step_back(inner, &trie, height, to)?;
        (height, trie) = (Height(header.number), before);
    }
    Ok(trie)
}

/// The state some blocks before one at a height, `to` or later, with the header there.
fn step_back(inner: &Inner, newer: &StateTrie, from: Height, to: Height) -> Result<(Sealed<Header>, StateTrie), Fault> {
    let above = step(inner, to, from)?;
    let height = above.first().and_then(|(first, _)| first.previous()).unwrap_or(to);
    let header = inner.blocks.header(height)?.ok_or_else(|| Fault::corrupt(format!("there is no header {height}")))?;
    let trie = changes::taken_back(inner, newer, height, &above, header.state_root)?;
    Ok((header, trie))
}

/// What some blocks changed, by height.
type Above = Vec<(Height, StateChanges)>;

/// The blocks of one step down from a height, the lowest first.
fn step(inner: &Inner, to: Height, from: Height) -> Result<Above, Fault> {
    let (mut above, mut bytes, mut height) = (Vec::new(), 0, from);
    while height > to && bytes < STEP_BYTES {
        let record = inner.blocks.changes(height)?;
        bytes += record.len();
        let changes = codec::decode_changes(&record)
            .map_err(|_| Fault::corrupt(format!("the changes of block {height} do not decode")))?;
        above.push((height, changes));
        height = height.previous().unwrap_or(to);
    }
    above.reverse();
    Ok(above)
}

/// Notes that the chain ends at a height; from here on it does.
fn mark(env: &Env, to: Height, fail: &FailPoints) -> Result<(), Fault> {
    let mut txn = env.write()?;
    txn.put(tables::CHAIN_META, meta::REWIND, &to.0.to_be_bytes())?;
    txn.put(tables::CHAIN_META, meta::INDEXED, &to.0.to_be_bytes())?;
    fail.hit("rewind.before_mark").map_err(Fault::Failed)?;
    txn.commit()?;
    fail.hit("rewind.marked").map_err(Fault::Failed)
}

/// Does what is left of a rewind, if there is one: opening a store begins with this.
pub(crate) fn finish(
    env: &Env,
    (disk, dir): (&dyn Disk, &Path),
    identity: Identity,
    fail: &FailPoints,
) -> Result<(), Fault> {
    let Some(row) = env.write()?.get(tables::CHAIN_META, meta::REWIND)? else { return Ok(()) };
    let to = Fields(&row).u64().map(Height).ok_or_else(|| Fault::corrupt("the rewind row does not decode"))?;
    let position = recovery::canonical(env, to)?;
    forget_epochs(env, to)?;
    fail.hit("rewind.epochs").map_err(Fault::Failed)?;
    forget_blocks(env, to)?;
    fail.hit("rewind.rows").map_err(Fault::Failed)?;
    forget_segments(env, (disk, dir), position.segment, fail)?;
    let path = segment::path(dir, position.segment, "seg");
    let segment = SegmentFile::open(disk, &path, position.segment, identity)?;
    zero_tail(&segment, position.offset.saturating_add(u64::from(position.length)))?;
    fail.hit("rewind.tail").map_err(Fault::Failed)?;
    let mut txn = env.write()?;
    txn.delete(tables::CHAIN_META, meta::REWIND)?;
    txn.commit()?;
    fail.hit("rewind.done").map_err(Fault::Failed)
}

/// Some rows from a key on.
fn rows_from(env: &Env, table: crate::kv::Table, key: &[u8], limit: usize) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    env.snapshot()?.scan(table, key, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < limit { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
    })?;
    Ok(rows)
}

/// Deletes the rows of all blocks above a height.
fn forget_blocks(env: &Env, to: Height) -> Result<(), Fault> {
    loop {
        let rows = rows_from(env, tables::CANONICAL, &to.next().0.to_be_bytes(), ROWS_HEIGHTS)?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut txn = env.write()?;
        for (key, row) in rows {
            blocks::forget_rows(&mut txn, &key, &row)?;
        }
        txn.commit()?;
    }
}

/// Deletes the rows of epochs that began on a block above a height, while that block's rows tell where it is. Epochs
/// stay that began on a block without rows: it lies below an imported state.
fn forget_epochs(env: &Env, to: Height) -> Result<(), Fault> {
    let rows = rows_from(env, tables::EPOCH, &[0], usize::MAX)?;
    let mut txn = env.write()?;
    for (key, row) in rows.iter().filter(|(key, _)| key.len() == 8) {
        let start = EpochStart::decode(&mut &row[..]).map_err(|_| Fault::corrupt("an epoch row does not decode"))?;
        let base = txn.get(tables::HEIGHT_BY_HASH, start.base.as_slice())?.and_then(|row| Fields(&row).u64());
        if base.is_some_and(|base| base > to.0) {
            txn.delete(tables::EPOCH, key)?;
            for above in &start.tail {
                txn.delete(tables::EPOCH, above.header.id().as_slice())?;
            }
        }
    }
    Ok(txn.commit()?)
}

/// Removes the segments above one, the last first, and the index of that one, which is open again.
fn forget_segments(env: &Env, (disk, dir): (&dyn Disk, &Path), last: u32, fail: &FailPoints) -> Result<(), Fault> {
    let number = |name: &String| name.strip_suffix(".seg").and_then(|stem| stem.parse::<u32>().ok());
    let mut above: Vec<u32> = disk.list(dir)?.iter().filter_map(number).filter(|number| *number > last).collect();
    above.sort_unstable();
    let forget =
        |number| Half::ALL.iter().try_for_each(|half| disk.remove(&segment::path(dir, number, half.extension())));
    forget(last)?;
    for number in above.into_iter().rev() {
        forget(number)?;
        disk.remove(&segment::path(dir, number, "seg"))?;
        // None may outlive one below it.
        disk.sync_dir(dir)?;
        fail.hit("rewind.segment").map_err(Fault::Failed)?;
    }
    disk.sync_dir(dir)?;
    let mut txn = env.write()?;
    for (key, mut row) in rows_from(env, tables::SEGMENT, &last.to_be_bytes(), usize::MAX)? {
        if key == last.to_be_bytes() {
            if let Some(state) = row.last_mut() {
                *state = 0;
            }
            txn.put(tables::SEGMENT, &key, &row)?;
        } else {
            txn.delete(tables::SEGMENT, &key)?;
        }
    }
    Ok(txn.commit()?)
}
