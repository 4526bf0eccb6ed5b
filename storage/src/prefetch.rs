//! Pages that a checkpoint is about to read and change, read by many threads before its one thread needs them.
//!
//! A thread that meets pages on the disk waits for them one by one, and a disk gives many at once as fast as one. Rows
//! that are in memory anyway are not read twice: a sample of them tells.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    kv::{Env, KvError, Table},
    metrics,
};

/// Rows that tell where the others are.
const SAMPLES: usize = 64;
/// A row that takes longer than this, of the samples' mean, came from a disk.
const COLD: Duration = Duration::from_micros(12);
/// Threads that read.
const THREADS: usize = 32;
/// Rows of one thread, at least.
const ROWS_MIN: usize = 64;

/// Reads the pages of all these rows, if they are not in memory; a few rows are left to who needs them.
///
/// # Errors
/// [`KvError`].
pub(crate) fn pages(env: &Env, rows: &[(Table, &[u8])]) -> Result<(), KvError> {
    if rows.len() < SAMPLES {
        return Ok(());
    }
    let snapshot = &env.snapshot_for(THREADS)?;
    let begun = Instant::now();
    let step = rows.len().div_ceil(SAMPLES);
    let samples = rows.len().div_ceil(step);
    rows.iter().step_by(step).try_for_each(|(table, key)| snapshot.touch(*table, key))?;
    if begun.elapsed() < COLD.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX)) {
        return Ok(());
    }
    metrics::PREFETCHED.add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
    let part = rows.len().div_ceil(THREADS).max(ROWS_MIN);
    let touch = |part: &[(Table, &[u8])]| part.iter().try_for_each(|(table, key)| snapshot.touch(*table, key));
    thread::scope(|scope| {
        let threads: Vec<_> = rows.chunks(part).map(|part| scope.spawn(move || touch(part))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    metrics::elapsed(&metrics::PREFETCH_BUSY, begun);
    Ok(())
}
