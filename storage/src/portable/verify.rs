//! Each chunk alone: its bytes as the manifest names them, its rows as the state root has them.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use alloy_primitives::B256;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{
    Progress, Source,
    chunk::{Checked, Chunk},
    manifest::{ChunkEntry, Manifest},
};

/// Largest file of a snapshot that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A file that is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads a file of so many bytes at most.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= bytes_max) {
        Ok(bytes)
    } else {
        Err(format!("it has more than {bytes_max} bytes"))
    }
}

/// Reads a file that has to have this length and digest.
pub(super) fn named(dir: &Path, name: &str, length: u64, sha256: B256) -> Result<Vec<u8>, String> {
    if length > FILE_BYTES_MAX {
        return Err(format!("it is said to have {length} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let bytes = read(&dir.join(name), length)?;
    if u64::try_from(bytes.len()) != Ok(length) {
        return Err(format!("it has {} bytes, not {length}", bytes.len()));
    }
    let found = B256::new(Sha256::digest(&bytes).into());
    if found == sha256 { Ok(bytes) } else { Err(format!("it has SHA-256 {found}, not {sha256}")) }
}

/// Reads a chunk and checks all that can be checked of it alone.
pub(super) fn chunk(dir: &Path, entry: &ChunkEntry, root: B256) -> Result<(Chunk, Checked), Failure> {
    let checked = || {
        let bytes = named(dir, &entry.file, entry.bytes, entry.sha256)?;
        let chunk = Chunk::decode(&bytes).map_err(|error| error.to_string())?;
        let checked = chunk.check(root).map_err(|error| error.to_string())?;
        if checked.part != entry.part {
            return Err(format!("it holds {:?}, and the manifest says {:?}", checked.part, entry.part));
        }
        Ok((chunk, checked))
    };
    checked().map_err(|reason| Failure { file: entry.file.clone(), reason })
}

/// Checks every chunk alone, on so many threads; gives all that are not what they have to be, in order.
///
/// Together they are all of the state: the manifest, which names the part of each, was seen to have no gap.
///
/// # Panics
/// If a thread panics.
#[must_use]
pub fn verify(source: &Source, threads: usize, told: &(dyn Fn(Progress) + Sync)) -> Vec<Failure> {
    let Manifest { chunks, state_root, .. } = &source.manifest;
    let next = AtomicUsize::new(0);
    let all = u64::try_from(chunks.len()).unwrap_or(u64::MAX);
    let done = Mutex::new((Progress { all, ..Progress::default() }, Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 1_024) {
            scope.spawn(|| {
                while let Some(entry) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = chunk(&source.dir, entry, *state_root);
                    let mut done = done.lock();
                    let progress = &mut done.0;
                    progress.done = progress.done.saturating_add(1);
                    progress.chunks = progress.done;
                    progress.rows = progress.rows.saturating_add(entry.part.rows).saturating_add(entry.part.slots);
                    told(*progress);
                    done.1.extend(outcome.err());
                }
            });
        }
    });
    let mut failures: Vec<Failure> = done.into_inner().1;
    failures.sort_by(|left, right| left.file.cmp(&right.file));
    failures
}
