//! What is kept of the past, and how the rest goes.
//!
//! ```text
//! due?       the oldest full segment, if it is too old or segments take too many bytes, and it lies behind every floor
//! mark       chain `meta`: up to where blocks go, with the blocks that epochs began on, kept whole; durable
//! let go     index and segment leave memory: from here on readers are refused, or end with the file they have open
//! unlink     NNNNNNNN.seg, NNNNNNNN.idx, NNNNNNNN.chg; sync of the folder
//! sweep      rows of blocks far below, some thousand with each checkpoint
//! ```
//!
//! The mark comes before everything else, so whoever opens the folder finishes what it says. Floors: state that can
//! only be had by replay, the window of proofs, two epochs. Nothing of an epoch's start is ever taken away.
//!
//! Where all blocks are kept, only the index of what old ones changed goes, NNNNNNNN.chg. Their segments make it again,
//! so nothing is marked: a store that opens unlinks what is behind its window, and builds what is missing in it.
//!
//! The housekeeper does it behind each checkpoint.

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use alloy_consensus::Header;
use alloy_rlp::Decodable as _;
use engine::{genesis::ChainSpec, limits::STATE_WINDOW_HEIGHTS, types::Height};

use crate::{
    blocks,
    disk::Disk,
    error::{Fault, OpenError},
    index::{Files, Half},
    kv::{Env, Row, WriteTxn},
    metrics,
    portable::HEADERS_MAX,
    segment::{self, SegmentFile},
    store::{Config, Inner},
    tables::{self, Fields, meta},
};

/// Epochs before the newest block's own that are kept whole: others catch up over them.
const EPOCHS_KEPT: u64 = 2;
/// Segments that go with one checkpoint.
const SEGMENTS_MAX: usize = 16;
/// Blocks whose rows go with one checkpoint.
const ROWS_HEIGHTS: usize = 4_096;

/// The mode in which changes may be missing and blocks not.
const FULL: &str = "full";

/// What a node keeps of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    All,
    /// All blocks, receipts and logs, and the state of a while.
    Blocks {
        /// How much older than the newest block the block of a state may be, by their timestamps; as far as segments
        /// go whole.
        time: Duration,
    },
    /// Blocks, receipts and changes of a while, and what lies before as far as segments go whole.
    Window {
        /// How much older than the newest block a block may be, by their timestamps.
        time: Duration,
        /// How many bytes segments may take together; floors go before this.
        bytes: u64,
    },
}

impl Keep {
    /// Its name in the folder and on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::All => "archive",
            Self::Blocks { .. } => FULL,
            Self::Window { .. } => "validator",
        }
    }
}

/// Up to where blocks were taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The highest of them; 0 if there is none.
    pub(crate) height: Height,
    /// Number of the first segment that is kept.
    pub(crate) segment: u32,
}

impl Mark {
    pub(crate) fn encode(self) -> Vec<u8> {
        [&self.height.0.to_be_bytes()[..], &self.segment.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let mark = Self { height: Height(fields.u64()?), segment: fields.u32()? };
        fields.0.is_empty().then_some(mark)
    }

    /// The mark of a folder.
    pub(crate) fn read(env: &Env) -> Result<Self, Fault> {
        let row = env.snapshot()?.get(tables::CHAIN_META, meta::PRUNED, Self::decode)?;
        row.map_or_else(
            || Ok(Self::default()),
            |mark| mark.ok_or_else(|| Fault::corrupt("the pruned row does not decode")),
        )
    }
}

/// The mode that a folder was last opened in, `None` if it never had one.
pub(crate) fn mode(env: &Env) -> Result<Option<String>, Fault> {
    Ok(env.snapshot()?.get(tables::CHAIN_META, meta::MODE, |row| String::from_utf8_lossy(row).into_owned())?)
}

/// Notes what is kept from now on, and gives the mark.
///
/// # Errors
/// [`OpenError::Pruned`] if all blocks are to be kept, and some are gone.
pub(crate) fn enter(env: &Env, dir: &Path, keep: Option<Keep>) -> Result<Mark, OpenError> {
    let mark = Mark::read(env)?;
    let Some(keep) = keep else { return Ok(mark) };
    if !matches!(keep, Keep::Window { .. }) && mark != Mark::default() {
        return Err(OpenError::Pruned { dir: dir.to_owned(), lowest: mark.height.next(), mode: keep.name() });
    }
    if mode(env)?.as_deref() != Some(keep.name()) {
        let mut txn = env.write().map_err(Fault::from)?;
        txn.put(tables::CHAIN_META, meta::MODE, keep.name().as_bytes()).map_err(Fault::from)?;
        txn.commit().map_err(Fault::from)?;
    }
    Ok(mark)
}

/// Unlinks what lies below the mark: opening a store begins with this.
pub(crate) fn finish((disk, dir): (&dyn Disk, &Path), mark: Mark) -> Result<(), Fault> {
    let number = |name: &String| name.split_once('.').and_then(|(stem, _)| stem.parse::<u32>().ok());
    let mut gone: Vec<String> = disk.list(dir)?;
    gone.retain(|name| number(name).is_some_and(|number| number < mark.segment));
    gone.iter().try_for_each(|name| disk.remove(&dir.join(name)))?;
    if gone.is_empty() { Ok(()) } else { Ok(disk.sync_dir(dir)?) }
}

/// Numbers of the segments whose changes have a file.
fn indexed_changes(names: &[String]) -> impl Iterator<Item = u32> {
    let extension = format!(".{}", Half::Changes.extension());
    names.iter().filter_map(move |name| name.strip_suffix(&*extension)?.parse().ok())
}

/// From which segment on a folder has changes indexed, by the names of its files; what is missing there was lost.
pub(crate) fn first_changes(env: &Env, names: &[String]) -> Result<u32, Fault> {
    let is_full = mode(env)?.is_some_and(|mode| mode == FULL);
    Ok(if is_full { indexed_changes(names).min().unwrap_or(u32::MAX) } else { 0 })
}

/// From which full segment on a store that opens with the block at `durable`, or above, has changes indexed. Where all
/// blocks are kept the files of those below are unlinked; else they go with their segments, and are not made again.
pub(crate) fn enter_window(
    env: &Env,
    files: &Files,
    segments: &[Arc<SegmentFile>],
    (config, chain): (&Config, &ChainSpec),
    durable: Height,
) -> Result<u32, Fault> {
    let names = files.disk.list(&files.dir)?;
    let window = |time| first_in_window(env, segments, (config, chain), durable, time);
    match config.keep {
        Some(Keep::All) => Ok(0),
        None => first_changes(env, &names),
        Some(Keep::Window { time, .. }) => Ok(indexed_changes(&names).fold(window(time)?, u32::min)),
        Some(Keep::Blocks { time }) => {
            let first = window(time)?;
            let gone: Vec<u32> = indexed_changes(&names).filter(|number| *number < first).collect();
            let extension = Half::Changes.extension();
            gone.iter().try_for_each(|number| files.disk.remove(&segment::path(&files.dir, *number, extension)))?;
            if !gone.is_empty() {
                files.disk.sync_dir(&files.dir)?;
            }
            Ok(first)
        }
    }
}

/// The first segment that does not lie behind the window, if the newest block is at `tip`; without their headers none
/// does.
fn first_in_window(
    env: &Env,
    segments: &[Arc<SegmentFile>],
    (config, chain): (&Config, &ChainSpec),
    tip: Height,
    time: Duration,
) -> Result<u32, Fault> {
    let rows = env.snapshot()?;
    let timestamp = |height: Height| -> Result<Option<u64>, Fault> {
        let header = rows.get(tables::HEADER, &height.0.to_be_bytes(), |mut row| Header::decode(&mut row))?;
        Ok(header.and_then(Result::ok).map(|header| header.timestamp))
    };
    let floor = floor_at((config, chain), tip, tip);
    let mut first = segments.first().map_or(0, |segment| segment.number);
    for next in segments.iter().skip(1) {
        let Some(last) = next.first_height.previous().filter(|last| last.0 < floor) else { break };
        let timestamps = timestamp(last)?.zip(timestamp(tip)?);
        if timestamps.is_none_or(|(block, newest)| !is_old(block, newest, time)) {
            break;
        }
        first = next.number;
    }
    Ok(first)
}

/// Whether a block is older than may be, by timestamps.
const fn is_old(block: u64, newest: u64, time: Duration) -> bool {
    newest.saturating_sub(block) > time.as_secs()
}

/// Takes away what need not be kept; a failure poisons the store.
pub(crate) fn run(inner: &Inner) {
    let (half, time, bytes) = match inner.config.keep {
        None | Some(Keep::All) => return,
        Some(Keep::Blocks { time }) => (Half::Changes, time, u64::MAX),
        Some(Keep::Window { time, bytes }) => (Half::Places, time, bytes),
    };
    let _one = inner.pruning.lock();
    for _ in 0..SEGMENTS_MAX {
        let outcome = match due(inner, half, time, bytes) {
            Ok(None) => return,
            Ok(Some((segment, mark))) => match half {
                Half::Places => take(inner, &segment, mark),
                Half::Changes => take_changes(inner, &segment, mark),
            },
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            drop(inner.poison(fault));
            return;
        }
    }
}

/// The oldest segment that has half an index, if it may go and must, with the mark that this leads to.
fn due(inner: &Inner, half: Half, time: Duration, bytes_max: u64) -> Result<Option<(Arc<SegmentFile>, Mark)>, Fault> {
    if inner.failed.get().is_some() {
        return Ok(None);
    }
    let mut all = inner.segments.all();
    let first = inner.index.first(half);
    all.retain(|segment| segment.number >= first);
    let [oldest, next, ..] = &all[..] else { return Ok(None) };
    let Some(last) = next.first_height.previous().filter(|last| last.0 < floor(inner)) else { return Ok(None) };
    let bytes = all.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.size));
    if bytes <= bytes_max {
        let header = inner.blocks.header(last)?;
        let header = header.ok_or_else(|| Fault::corrupt(format!("there is no header {last}")))?;
        if !is_old(header.timestamp, inner.blocks.tip().block.header.timestamp, time) {
            return Ok(None);
        }
    }
    let mark = Mark { height: last, segment: next.number };
    Ok(inner.index.is_sealed(oldest.number).then(|| (Arc::clone(oldest), mark)))
}

/// The lowest height that must stay.
fn floor(inner: &Inner) -> u64 {
    let replayed = inner.snapshots.current().applied.min(inner.blocks.indexed());
    floor_at((&inner.config, &inner.chain), replayed, inner.blocks.tip().height())
}

/// The same where state above `durable` is had by replay, and the newest block is at `tip`.
fn floor_at((config, chain): (&Config, &ChainSpec), durable: Height, tip: Height) -> u64 {
    let replayed = durable.0.saturating_sub(config.proof_window.max(STATE_WINDOW_HEIGHTS));
    let epoch_heights = chain.ordering.epoch_slots.max(1);
    let epoch = tip.0 / epoch_heights;
    replayed.min(epoch.saturating_sub(EPOCHS_KEPT).saturating_mul(epoch_heights))
}

/// Takes a segment away.
fn take(inner: &Inner, segment: &SegmentFile, mark: Mark) -> Result<(), Fault> {
    let epoch_heights = inner.chain.ordering.epoch_slots.max(1);
    let first = segment.first_height.0.div_ceil(epoch_heights);
    let mut landmarks = Vec::new();
    for height in (first..=mark.height.0 / epoch_heights).map(|epoch| Height(epoch.saturating_mul(epoch_heights))) {
        let block = inner.blocks.block(height)?;
        let encoded = block.as_deref().and_then(blocks::encode_landmark);
        let encoded =
            encoded.ok_or_else(|| Fault::corrupt(format!("block {height}, which an epoch began on, is gone")))?;
        landmarks.push((height, encoded));
    }
    let mut txn = inner.chain_env.write()?;
    for (height, encoded) in landmarks {
        txn.put(tables::LANDMARK, &height.0.to_be_bytes(), &encoded)?;
    }
    txn.put(tables::CHAIN_META, meta::PRUNED, &mark.encode())?;
    txn.delete(tables::SEGMENT, &segment.number.to_be_bytes())?;
    inner.fail.hit("prune.before_mark").map_err(Fault::Failed)?;
    txn.commit()?;
    inner.fail.hit("prune.marked").map_err(Fault::Failed)?;
    inner.blocks.refresh(&inner.chain_env)?;
    inner.index.let_go(&Half::ALL, mark.segment, |files| {
        inner.segments.let_go(mark.segment);
        for extension in ["seg", "idx", "chg"] {
            files.disk.remove(&segment::path(&files.dir, segment.number, extension))?;
            inner.fail.hit("prune.removed").map_err(Fault::Failed)?;
        }
        Ok(files.disk.sync_dir(&files.dir)?)
    })?;
    metrics::SEGMENT_PRUNED.increment();
    metrics::LOWEST.set(mark.height.next().0);
    metrics::LOWEST_STATE.set(inner.index.lowest(Half::Changes).0);
    tracing::info!(segment = segment.number, height = mark.height.0, "blocks up to this height are kept no longer");
    inner.fail.hit("prune.done").map_err(Fault::Failed)
}

/// Takes away what the blocks of a segment changed, and keeps them.
fn take_changes(inner: &Inner, segment: &SegmentFile, mark: Mark) -> Result<(), Fault> {
    inner.index.let_go(&[Half::Changes], mark.segment, |files| {
        files.disk.remove(&segment::path(&files.dir, segment.number, Half::Changes.extension()))?;
        inner.fail.hit("prune.removed").map_err(Fault::Failed)?;
        Ok(files.disk.sync_dir(&files.dir)?)
    })?;
    metrics::CHANGES_PRUNED.increment();
    metrics::LOWEST_STATE.set(inner.index.lowest(Half::Changes).0);
    tracing::info!(segment = segment.number, height = mark.height.0, "states below this height are kept no longer");
    inner.fail.hit("prune.done").map_err(Fault::Failed)
}

/// Deletes rows of blocks so far below the lowest that no block of any state kept can ask for them.
pub(crate) fn sweep(inner: &Inner, txn: &mut WriteTxn<'_>) -> Result<(), Fault> {
    if txn.get(tables::CHAIN_META, meta::PRUNED)?.is_none() {
        return Ok(());
    }
    let below = inner.segments.lowest().0.saturating_sub(HEADERS_MAX).to_be_bytes();
    let from = txn.get(tables::CHAIN_META, meta::SWEPT)?.unwrap_or_else(|| 1_u64.to_be_bytes().to_vec());
    let (mut rows, mut next): (Vec<Row>, _) = (Vec::new(), below.to_vec());
    inner.blocks.rows().scan(tables::CANONICAL, &from, |key, row| {
        if key >= &below[..] {
            return ControlFlow::Break(());
        }
        if rows.len() == ROWS_HEIGHTS {
            next = key.to_vec();
            return ControlFlow::Break(());
        }
        rows.push((key.to_vec(), row.to_vec()));
        ControlFlow::Continue(())
    })?;
    for (key, row) in rows {
        // An epoch began on it, or it came with an imported state.
        if txn.get(tables::LANDMARK, &key)?.is_none() {
            blocks::forget_rows(txn, &key, &row)?;
        }
    }
    if next > from {
        txn.put(tables::CHAIN_META, meta::SWEPT, &next)?;
    }
    Ok(())
}
