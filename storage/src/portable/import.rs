//! A snapshot in files into an empty folder: each chunk is checked alone, side by side with others, and written in
//! order; what an interrupted import had written is not read again.

use std::thread;

use alloy_consensus::{Header, Sealed};
use engine::{
    genesis::ChainSpec,
    types::{CommittedBlock, EpochStart},
};

use super::{
    PortableError, Progress, Source,
    chunk::{Checked, Chunk},
    intake::{Intake, Order},
    manifest::{ChunkEntry, Manifest},
    verify,
};
use crate::{
    error::Fault,
    failpoint::{Action, FailPoints},
    store::Config,
};

/// What the chain of an imported folder begins with; the caller has seen that all of it is final.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Blocks that are kept whole, the one whose state is imported last.
    pub blocks: Vec<CommittedBlock>,
    /// Headers of the blocks before that one, the newest first.
    pub headers: Vec<Sealed<Header>>,
    /// How epochs began, up to that block's own.
    pub epochs: Vec<EpochStart>,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Chunks that an earlier import had done.
    pub resumed: u64,
    /// Chunks that this one did.
    pub chunks: u64,
    /// Accounts and slots.
    pub rows: u64,
}

/// Imports a snapshot into a folder that holds no chain; goes on with an import of it that was interrupted.
///
/// `told` hears of chunks, then of rows that are read again.
///
/// # Errors
/// [`PortableError`]; what is done stays done, and the folder opens only once all of it is.
pub fn import(
    config: &Config,
    chain: &ChainSpec,
    source: &Source,
    foundation: &Foundation,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Imported, PortableError> {
    let newest = fits(chain, &source.manifest, foundation)?;
    let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Abort).map_err(PortableError::Setting)?;
    import_with(config, (chain, source, foundation), newest, &fail, threads, told)
}

/// Compares a snapshot with the chain and with what was shown to be final; gives the block whose state it is.
///
/// # Errors
/// [`PortableError::Foreign`], naming the value that differs.
pub fn fits<'f>(
    chain: &ChainSpec,
    manifest: &Manifest,
    foundation: &'f Foundation,
) -> Result<&'f CommittedBlock, PortableError> {
    let newest = foundation.blocks.last().ok_or_else(|| PortableError::Setting("no block is final".to_owned()))?;
    let differ = |what, expected: String, found: String| {
        if expected == found { Ok(()) } else { Err(PortableError::Foreign { what, expected, found }) }
    };
    differ("chain id", chain.chain_id.to_string(), manifest.chain_id.to_string())?;
    differ("chain digest", chain.digest().to_string(), manifest.chain_digest.to_string())?;
    differ("height", newest.height().to_string(), manifest.height.to_string())?;
    differ("block hash", newest.hash().to_string(), manifest.hash.to_string())?;
    differ("state root", newest.block.header.state_root.to_string(), manifest.state_root.to_string())?;
    Ok(newest)
}

pub(crate) fn import_with(
    config: &Config,
    (chain, source, foundation): (&ChainSpec, &Source, &Foundation),
    newest: &CommittedBlock,
    fail: &FailPoints,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Imported, PortableError> {
    let mut intake = Intake::open_with(config, chain, source.id, Order::Ascending)?;
    fail.hit("import.begun").map_err(Fault::Failed)?;
    let (resumed, rows) = chunks(&mut intake, source, fail, threads, told)?;
    let chunks = u64::try_from(source.manifest.chunks.len()).unwrap_or(u64::MAX).saturating_sub(resumed);
    intake.finish_with((chain, foundation), newest, fail, rows, told)?;
    Ok(Imported { resumed, chunks, rows })
}

type Outcome = Result<(Chunk, Checked), super::Failure>;

/// Checks and writes the chunks that are not done; gives how many were, and the rows of all.
fn chunks(
    intake: &mut Intake,
    source: &Source,
    fail: &FailPoints,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(u64, u64), PortableError> {
    let Manifest { chunks, state_root, .. } = &source.manifest;
    let rows = |chunks: &[ChunkEntry]| {
        chunks.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.part.rows).saturating_add(entry.part.slots))
    };
    // They are taken over in order.
    let done = chunks.iter().take_while(|entry| !intake.is_missing(&entry.part)).count();
    let (resumed, all) = (u64::try_from(done).unwrap_or(u64::MAX), u64::try_from(chunks.len()).unwrap_or(u64::MAX));
    let mut progress = Progress { done: resumed, all, chunks: resumed, rows: rows(&chunks[..done]) };
    // Some are checked side by side while those before are written.
    let mut batches = chunks[done..].chunks(threads.clamp(1, 64));
    let check = |batch: &[ChunkEntry]| -> Vec<Outcome> {
        thread::scope(|scope| {
            let one = |entry| move || verify::chunk(&source.dir, entry, *state_root);
            let running: Vec<_> = batch.iter().map(|entry| scope.spawn(one(entry))).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    let mut checked = batches.next().map(check).unwrap_or_default();
    while !checked.is_empty() {
        checked = thread::scope(|scope| {
            let next = batches.next().map(|batch| scope.spawn(|| check(batch)));
            for outcome in checked {
                let (chunk, checked) = outcome.map_err(PortableError::File)?;
                intake.write(&chunk, &checked)?;
                progress.chunks = progress.chunks.saturating_add(1);
                (progress.done, progress.rows) = (
                    progress.chunks,
                    progress.rows.saturating_add(checked.part.rows).saturating_add(checked.part.slots),
                );
                told(progress);
                fail.hit("import.chunk").map_err(Fault::Failed)?;
            }
            let next = next.map(|next| next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            Ok::<_, PortableError>(next.unwrap_or_default())
        })?;
    }
    Ok((resumed, rows(chunks)))
}
