//! The only door to files, other than MDBX's own.
//!
//! [`Disk`] is what segments and indices need of a file system; [`RealDisk`] gives it. The faulty one
//! in memory that the tests use keeps unsynced writes apart, so that a test can lose or tear them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::metrics;

#[cfg(any(test, feature = "testing"))]
pub(crate) mod faulty;

/// A failed file operation, with the file and the system's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} {path}: {reason}")]
pub(crate) struct DiskError {
    pub(crate) action: &'static str,
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl DiskError {
    pub(crate) fn new(action: &'static str, path: &Path, error: &io::Error) -> Self {
        Self { action, path: path.display().to_string(), reason: error.to_string() }
    }
}

/// A file system, as far as segments need one.
pub(crate) trait Disk: Send + Sync {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Creates an empty file, replacing an older one.
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Removes a file if it is there.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Names in a folder, in no order.
    fn list(&self, dir: &Path) -> Result<Vec<String>, DiskError>;
    /// Creates a folder and those above it, durably.
    fn create_dir(&self, dir: &Path) -> Result<(), DiskError>;
    /// Makes created and renamed names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError>;
    /// Makes everything written durable; after a failure nothing is known about the file's bytes.
    fn sync(&self) -> Result<(), DiskError>;
    /// Length in bytes.
    fn length(&self) -> Result<u64, DiskError>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealDisk;

struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealDisk {
    /// Removes an empty folder.
    pub(crate) fn remove_dir(self, dir: &Path) -> Result<(), DiskError> {
        std::fs::remove_dir(dir).map_err(|error| DiskError::new("removing", dir, &error))
    }

    fn with(options: &OpenOptions, action: &'static str, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = options.open(path).map_err(|error| DiskError::new(action, path, &error))?;
        Ok(Arc::new(RealFile { file, path: path.to_owned() }))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        Self::with(OpenOptions::new().read(true).write(true), "opening", path)
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        Self::with(OpenOptions::new().read(true).write(true).create(true).truncate(true), "creating", path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        std::fs::rename(from, to).map_err(|error| DiskError::new("renaming", from, &error))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("removing", path, &error)),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, DiskError> {
        let fail = |error: io::Error| DiskError::new("listing", dir, &error);
        std::fs::read_dir(dir)
            .map_err(fail)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(fail))
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> Result<(), DiskError> {
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
        let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
        std::fs::create_dir_all(dir).map_err(|error| DiskError::new("creating", dir, &error))?;
        // One that is there may have been made by somebody who was killed before its name was durable.
        let made = if missing.is_empty() { vec![dir] } else { missing };
        for parent in made.into_iter().rev().filter_map(Path::parent) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            match File::open(parent).and_then(|parent| parent.sync_all()) {
                // Somebody else's folder, who made this one long ago.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                outcome => outcome.map_err(|error| DiskError::new("syncing", parent, &error))?,
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        metrics::FSYNC.increment();
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| DiskError::new("syncing", dir, &error))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| DiskError::new("reading", &self.path, &error))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|error| DiskError::new("writing", &self.path, &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        metrics::FSYNC.increment();
        let start = Instant::now();
        let outcome = self.file.sync_data().map_err(|error| DiskError::new("fdatasync of", &self.path, &error));
        metrics::elapsed(&metrics::SYNC_BUSY, start);
        outcome
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file.metadata().map(|meta| meta.len()).map_err(|error| DiskError::new("measuring", &self.path, &error))
    }
}

/// Bytes zeroed at a time.
const ZERO_CHUNK: usize = 1 << 20;

/// Writes zeros from one offset up to another.
pub(crate) fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> Result<(), DiskError> {
    let zeros = vec![0; usize::try_from(to.saturating_sub(from)).map_or(ZERO_CHUNK, |size| size.min(ZERO_CHUNK))];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_at(&zeros[..length], at)?;
        at = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// How often a taken lock is asked for again.
const LOCK_ATTEMPTS: u32 = 50;
/// Pause between two attempts; together a quarter of a second.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// An exclusive lock on a folder, held while it lives; the system lets go of it when the process ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock, `None` if somebody else has it.
    pub(crate) fn take(dir: &Path) -> Result<Option<Self>, DiskError> {
        let path = dir.join("LOCK");
        let fail = |error: io::Error| DiskError::new("locking", &path, &error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        // A process that is just ending, or was just forked off the one before, may hold it a moment longer.
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(std::fs::TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
        Ok(None)
    }
}
