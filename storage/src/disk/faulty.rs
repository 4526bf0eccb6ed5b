//! A disk in memory that fails and forgets on demand.
//!
//! Writes are seen at once and durable after a sync; names likewise after a sync of their folder. A
//! crash keeps what is durable and, by seed, any subset of the other writes, each cut at a sector, and
//! the other changes of names up to any one of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{Disk, DiskError, DiskFile};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Default)]
struct State {
    files: Vec<FileState>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// The names after each change since they were durable.
    names: Vec<BTreeMap<PathBuf, usize>>,
    /// Operations that changed something, or would have.
    operations: u64,
    /// How many of them work before the machine is dead.
    stop_after: Option<u64>,
    /// Folders whose names were made durable, in order.
    synced_dirs: Vec<PathBuf>,
    /// No file can grow.
    is_full: bool,
    /// Operations left until one fails, by kind.
    writes_left: Option<u64>,
    syncs_left: Option<u64>,
}

/// The disk; clones share it.
#[derive(Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

struct FaultyFile {
    disk: FaultyDisk,
    id: usize,
    path: PathBuf,
}

fn error(action: &'static str, path: &Path, reason: &str) -> DiskError {
    DiskError { action, path: path.display().to_string(), reason: reason.to_owned() }
}

fn write_to(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

/// A small generator, so that tests need no crate for it.
pub(crate) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
impl FaultyDisk {
    /// A copy that shares nothing.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// Lets the `count`-th write or sync from now fail (1 is the next).
    pub(crate) fn fail_write(&self, count: u64) {
        self.0.lock().writes_left = Some(count);
    }

    /// Lets the `count`-th sync from now fail.
    pub(crate) fn fail_sync(&self, count: u64) {
        self.0.lock().syncs_left = Some(count);
    }

    /// Lets nothing fail from now on.
    pub(crate) fn works_again(&self) {
        let mut state = self.0.lock();
        (state.writes_left, state.syncs_left, state.stop_after) = (None, None, None);
    }

    /// Lets `count` more operations that change something work, and none after them.
    pub(crate) fn stop_after(&self, count: u64) {
        let mut state = self.0.lock();
        state.stop_after = Some(state.operations.saturating_add(count));
    }

    /// Operations so far that changed something, or would have.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Folders whose names were made durable so far, in order.
    pub(crate) fn synced_dirs(&self) -> Vec<PathBuf> {
        self.0.lock().synced_dirs.clone()
    }

    /// Lets files grow no more, or again.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock();
        state.files[state.live[path]].live.clone()
    }

    /// Replaces a file's bytes, durably.
    pub(crate) fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let id = state.live[path];
        state.files[id] = FileState { live: bytes.clone(), durable: bytes, pending: Vec::new() };
    }
}

impl FaultyDisk {
    /// What a power cut leaves, by seed.
    pub(crate) fn crashed(&self, mut seed: u64) -> Self {
        let mut state = self.0.lock().clone();
        state.writes_left = None;
        state.syncs_left = None;
        state.stop_after = None;
        for file in &mut state.files {
            let mut bytes = std::mem::take(&mut file.durable);
            for (offset, data) in file.pending.drain(..) {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    if next(&mut seed).is_multiple_of(2) {
                        write_to(&mut bytes, offset + index * SECTOR, sector);
                    }
                }
            }
            file.live.clone_from(&bytes);
            file.durable = bytes;
        }
        let changes = u64::try_from(state.names.len()).expect("a few");
        let kept = usize::try_from(next(&mut seed) % (changes + 1)).expect("a few");
        if let Some(names) = kept.checked_sub(1).map(|last| state.names[last].clone()) {
            state.durable = names;
        }
        state.live = state.durable.clone();
        state.names.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Removes a name, durably.
    pub(crate) fn forget(&self, path: &Path) {
        let mut state = self.0.lock();
        state.live.remove(path);
        state.durable.remove(path);
        state.names.iter_mut().for_each(|names| {
            names.remove(path);
        });
    }

    /// Names that are there.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.0.lock().live.keys().cloned().collect()
    }

    /// Begins an operation that changes something.
    fn change(&self, action: &'static str, path: &Path) -> Result<MutexGuard<'_, State>, DiskError> {
        let mut state = self.0.lock();
        state.operations = state.operations.saturating_add(1);
        if state.stop_after.is_some_and(|last| state.operations > last) {
            return Err(error(action, path, "the machine is off"));
        }
        Ok(state)
    }

    /// Changes names.
    fn rename_all(
        &self,
        (action, path): (&'static str, &Path),
        change: impl FnOnce(&mut State) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut state = self.change(action, path)?;
        change(&mut state)?;
        let names = state.live.clone();
        state.names.push(names);
        Ok(())
    }

    fn file(&self, id: usize, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { disk: self.clone(), id, path: path.to_owned() })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let id = self.0.lock().live.get(path).copied().ok_or_else(|| error("opening", path, "not found"))?;
        Ok(self.file(id, path))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DiskError> {
        let mut id = 0;
        self.rename_all(("creating", path), |state| {
            id = state.files.len();
            state.files.push(FileState::default());
            state.live.insert(path.to_owned(), id);
            Ok(())
        })?;
        Ok(self.file(id, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.rename_all(("renaming", from), |state| {
            let id = state.live.remove(from).ok_or_else(|| error("renaming", from, "not found"))?;
            state.live.insert(to.to_owned(), id);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.rename_all(("removing", path), |state| {
            state.live.remove(path);
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, DiskError> {
        let state = self.0.lock();
        let inside = state.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create_dir(&self, _: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        let mut state = self.change("syncing", dir)?;
        state.durable = state.live.clone();
        state.names.clear();
        state.synced_dirs.push(dir.to_owned());
        Ok(())
    }
}

fn count_down(left: &mut Option<u64>) -> bool {
    match left {
        None => false,
        Some(0) => true,
        Some(count) => {
            *count -= 1;
            *count == 0
        }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        let state = self.disk.0.lock();
        let bytes = &state.files[self.id].live;
        let start = usize::try_from(offset).expect("a small file");
        let found = bytes.get(start..start + buffer.len()).ok_or_else(|| error("reading", &self.path, "short"))?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let mut state = self.disk.change("writing", &self.path)?;
        let length = state.files[self.id].live.len();
        let grows = usize::try_from(offset).expect("a small file") + bytes.len() > length;
        if count_down(&mut state.writes_left) || (state.is_full && grows) {
            return Err(error("writing", &self.path, "No space left on device (os error 28)"));
        }
        let offset = usize::try_from(offset).expect("a small file");
        let file = &mut state.files[self.id];
        write_to(&mut file.live, offset, bytes);
        file.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        crate::metrics::FSYNC.increment();
        let mut state = self.disk.change("fdatasync of", &self.path)?;
        if count_down(&mut state.syncs_left) {
            // As Linux does: the pages stay readable, count as clean, and no later sync writes them.
            state.files[self.id].pending.clear();
            return Err(error("fdatasync of", &self.path, "Input/output error (os error 5)"));
        }
        let FileState { pending, durable, .. } = &mut state.files[self.id];
        for (offset, data) in pending.drain(..) {
            write_to(durable, offset, &data);
        }
        Ok(())
    }

    fn length(&self) -> Result<u64, DiskError> {
        Ok(u64::try_from(self.disk.0.lock().files[self.id].live.len()).expect("a small file"))
    }
}
