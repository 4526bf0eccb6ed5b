//! A small ordered key-value store with snapshots, over MDBX.
//!
//! The only file that names MDBX. Every transaction is Durable, memory maps are read-only, keys are
//! unique. MDBX aborts the process on a key that is too long, so lengths are checked here.
//!
//! A [`Snapshot`] is one committed state, read by any number of threads through a few read
//! transactions ("lanes") that were opened together; each thread prefers a lane of its own.

use std::{
    borrow::Cow,
    fs::OpenOptions,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use mdbx::{
    Database as Dbi, DatabaseFlags, Environment, EnvironmentFlags, Geometry, Mode, Ro, Rw, SyncMode, TxUnsync,
    WriteFlags,
};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use crate::metrics;

/// Longest key, in bytes; ours are 41 at most, MDBX takes some 2,000.
const KEY_BYTES_MAX: usize = 128;
/// Name of an environment's file in its folder.
pub(crate) const FILE: &str = "mdbx.dat";
/// Name of the file beside it that says who reads; there is nothing in it to keep.
pub(crate) const LOCK_FILE: &str = "mdbx.lck";
/// Bytes of that file: 32 for each reader, and a page.
const LOCK_BYTES: u64 = READERS_MAX * 32 + 4_096;
/// Step by which a file grows, in bytes.
const GROWTH_BYTES: isize = 16 << 20;
/// Read transactions per snapshot.
const LANES: usize = 8;
/// Read transactions in all: a thousand snapshots, most of them held by views that are far behind.
const READERS_MAX: u64 = 8_192;

/// Why the key-value store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} of {table}: {reason}")]
pub(crate) struct KvError {
    action: &'static str,
    table: String,
    reason: String,
}

impl KvError {
    fn new(action: &'static str, table: impl Into<String>, reason: impl ToString) -> Self {
        Self { action, table: table.into(), reason: in_words(reason.to_string()) }
    }
}

/// MDBX hands errors of the system on as bare numbers.
fn in_words(reason: String) -> String {
    let code = reason.strip_prefix("unknown error code: ").and_then(|code| code.parse().ok());
    code.map_or(reason, |code| std::io::Error::from_raw_os_error(code).to_string())
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// A table of an environment: its place in the list the environment was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table(pub(crate) usize);

/// How much room an environment takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnvSize {
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Bytes of it that nothing uses.
    pub free_bytes: u64,
    /// Its tables.
    pub tables: Vec<TableSize>,
}

/// How much room a table takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// Bytes of its pages.
    pub bytes: u64,
    /// How many pages lie above a row, that with the row included.
    pub depth: u32,
}

/// Room for the file that says who reads.
///
/// MDBX empties it when it closes an environment, and fills it through a memory map when it opens one: on a full disk
/// that is the end of the process. So the room is taken before, and again afterwards.
struct LockRoom(PathBuf);

impl LockRoom {
    fn take(&self, create: bool) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).create(create).truncate(false).open(&self.0)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, LOCK_BYTES) {
            // A file system that cannot take room beforehand.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            taken => Ok(taken?),
        }
    }
}

impl Drop for LockRoom {
    fn drop(&mut self) {
        // Whoever opens it next is told if there is none.
        let _ = self.take(false);
    }
}

/// One MDBX environment with its tables.
pub(crate) struct Env {
    env: Environment,
    file: PathBuf,
    tables: Vec<Dbi>,
    names: &'static [&'static str],
    /// Dropped behind the environment.
    lock: Arc<LockRoom>,
}

impl Env {
    /// Opens or creates an environment in a folder that exists.
    pub(crate) fn open(path: &Path, names: &'static [&'static str], map_bytes_max: usize) -> Result<Self, KvError> {
        let lock = LockRoom(path.join(LOCK_FILE));
        lock.take(true).map_err(|error| KvError::new("opening", lock.0.display().to_string(), error))?;
        let fail = |error: mdbx::MdbxError| KvError::new("opening", path.display().to_string(), error);
        let env = Environment::builder()
            .set_max_dbs(names.len())
            .set_max_readers(READERS_MAX)
            .set_geometry(Geometry {
                size: Some(0..map_bytes_max),
                growth_step: Some(GROWTH_BYTES),
                shrink_threshold: Some(0),
                page_size: None,
            })
            .set_flags(EnvironmentFlags {
                mode: Mode::ReadWrite { sync_mode: SyncMode::Durable },
                no_rdahead: true,
                ..EnvironmentFlags::default()
            })
            .open(path)
            .map_err(fail)?;
        let txn = env.begin_rw_unsync().map_err(fail)?;
        let tables = names
            .iter()
            .map(|name| txn.create_db(Some(name), DatabaseFlags::empty()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        txn.commit().map_err(fail)?;
        Ok(Self { env, file: path.join(FILE), tables, names, lock: Arc::new(lock) })
    }

    /// How much room it and its tables take.
    pub(crate) fn size(&self) -> Result<EnvSize, KvError> {
        let fail = |error: &dyn ToString| KvError::new("measuring", "environment", error.to_string());
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let txn = self.env.begin_ro_unsync().map_err(|error| fail(&error))?;
        let mut tables = Vec::with_capacity(self.tables.len());
        let mut page = 0;
        for (name, table) in self.names.iter().zip(&self.tables) {
            let stat = txn.db_stat(table).map_err(|error| fail(&error))?;
            page = u64::from(stat.page_size());
            let pages = [stat.branch_pages(), stat.leaf_pages(), stat.overflow_pages()];
            let bytes = pages.into_iter().map(count).fold(0, u64::saturating_add).saturating_mul(page);
            tables.push(TableSize { name, rows: count(stat.entries()), bytes, depth: stat.depth() });
        }
        let info = self.env.info().map_err(|error| fail(&error))?;
        let free = self.env.freelist().map_err(|error| fail(&error))?;
        let reached = count(info.last_pgno()).saturating_add(1).saturating_mul(page);
        let file_bytes = std::fs::metadata(&self.file).map_err(|error| fail(&error))?.len();
        let behind = file_bytes.saturating_sub(reached);
        Ok(EnvSize { file_bytes, free_bytes: behind.saturating_add(count(free).saturating_mul(page)), tables })
    }

    /// Begins the one write transaction; waits for another to end.
    pub(crate) fn write(&self) -> Result<WriteTxn<'_>, KvError> {
        let txn = self.env.begin_rw_unsync().map_err(|error| KvError::new("begin", "write transaction", error))?;
        Ok(WriteTxn { txn, env: self, bytes: 0, rows: 0 })
    }

    /// Opens a snapshot of what is committed; the caller must be the only writer.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, KvError> {
        self.snapshot_for(LANES)
    }

    /// The same, for so many threads at once.
    pub(crate) fn snapshot_for(&self, lanes: usize) -> Result<Snapshot, KvError> {
        let lanes = (0..lanes)
            .map(|_| self.env.begin_ro_unsync().map(Mutex::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| KvError::new("begin", "read transaction", error))?;
        Ok(Snapshot { lanes, tables: self.tables.clone(), names: self.names, _lock: Arc::clone(&self.lock) })
    }
}

fn checked_key<'k>(key: &'k [u8], names: &[&'static str], table: Table) -> Result<&'k [u8], KvError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let reason = format!("key of {} bytes, at most {KEY_BYTES_MAX}", key.len());
        return Err(KvError::new("access", names[table.0], reason));
    }
    Ok(key)
}

/// One committed state.
pub(crate) struct Snapshot {
    lanes: Vec<Mutex<TxUnsync<Ro>>>,
    tables: Vec<Dbi>,
    names: &'static [&'static str],
    /// The environment is there as long as its last reader.
    _lock: Arc<LockRoom>,
}

impl Snapshot {
    fn lane(&self) -> MutexGuard<'_, TxUnsync<Ro>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let own = LANE.with(|lane| *lane) % self.lanes.len();
        for offset in 0..self.lanes.len() {
            if let Some(lane) = self.lanes[(own + offset) % self.lanes.len()].try_lock() {
                return lane;
            }
        }
        self.lanes[own].lock()
    }

    /// How many rows a table says that it has.
    pub(crate) fn rows(&self, table: Table) -> Result<u64, KvError> {
        let stat = self.lane().db_stat(&self.tables[table.0]);
        let stat = stat.map_err(|error| KvError::new("measuring", self.names[table.0], error))?;
        Ok(u64::try_from(stat.entries()).unwrap_or(u64::MAX))
    }

    /// Hands the value of `key` to `read`.
    pub(crate) fn get<R>(&self, table: Table, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, KvError> {
        let key = checked_key(key, self.names, table)?;
        metrics::READ.increment();
        let lane = self.lane();
        let value: Option<Cow<'_, [u8]>> = lane
            .get(self.tables[table.0].dbi(), key)
            .map_err(|error| KvError::new("reading", self.names[table.0], error))?;
        Ok(value.map(|bytes| read(&bytes)))
    }

    /// Brings the pages on the way to `key` into memory.
    pub(crate) fn touch(&self, table: Table, key: &[u8]) -> Result<(), KvError> {
        let key = checked_key(key, self.names, table)?;
        let lane = self.lane();
        let found: Option<Cow<'_, [u8]>> = lane
            .get(self.tables[table.0].dbi(), key)
            .map_err(|error| KvError::new("reading", self.names[table.0], error))?;
        // A value lies on the page that led to it, but for one of more than a page.
        std::hint::black_box(found.and_then(|value| value.last().copied()));
        Ok(())
    }

    /// Hands the first row at or above `key` to `read`.
    pub(crate) fn seek<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8], &[u8]) -> R,
    ) -> Result<Option<R>, KvError> {
        let mut outcome = None;
        let mut read = Some(read);
        self.scan(table, key, |key, value| {
            outcome = read.take().map(|read| read(key, value));
            ControlFlow::Break(())
        })?;
        Ok(outcome)
    }

    /// Hands rows from `key` on to `visit`, in order, until it breaks.
    pub(crate) fn scan(
        &self,
        table: Table,
        key: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let key = checked_key(key, self.names, table)?;
        metrics::READ.increment();
        let fail = |error: mdbx::ReadError| KvError::new("scanning", self.names[table.0], error);
        let lane = self.lane();
        let mut cursor = lane.cursor(self.tables[table.0]).map_err(|error| fail(error.into()))?;
        let mut row = cursor.set_range::<Cow<'_, [u8]>, Cow<'_, [u8]>>(key).map_err(fail)?;
        while let Some((key, value)) = row {
            if visit(&key, &value).is_break() {
                break;
            }
            row = cursor.next().map_err(fail)?;
        }
        Ok(())
    }
}

/// The write transaction; dropped without [`WriteTxn::commit`] it leaves nothing behind.
pub(crate) struct WriteTxn<'e> {
    txn: TxUnsync<Rw>,
    env: &'e Env,
    bytes: u64,
    rows: u64,
}

impl WriteTxn<'_> {
    fn fail(&self, action: &'static str, table: Table, error: impl ToString) -> KvError {
        KvError::new(action, self.env.names[table.0], error)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let key = checked_key(key, self.env.names, table)?;
        let dbi = self.env.tables[table.0].dbi();
        self.txn.get(dbi, key).map_err(|error| self.fail("reading", table, error))
    }

    /// Inserts or replaces a row.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.write(table, key, value, WriteFlags::UPSERT)
    }

    fn write(&mut self, table: Table, key: &[u8], value: &[u8], flags: WriteFlags) -> Result<(), KvError> {
        let key = checked_key(key, self.env.names, table)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX));
        self.rows = self.rows.saturating_add(1);
        self.txn.put(self.env.tables[table.0], key, value, flags).map_err(|error| self.fail("writing", table, error))
    }

    /// Inserts a row whose key is above all that are there: faster than [`Self::put`].
    pub(crate) fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.write(table, key, value, WriteFlags::APPEND)
    }

    /// Deletes a row if it is there.
    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        let key = checked_key(key, self.env.names, table)?;
        self.rows = self.rows.saturating_add(1);
        let deleted = self.txn.del(self.env.tables[table.0], key, None);
        deleted.map(|_| ()).map_err(|error| self.fail("deleting", table, error))
    }

    /// Deletes up to `limit` rows whose key begins with `prefix`; returns how many.
    pub(crate) fn delete_prefix(&mut self, table: Table, prefix: &[u8], limit: usize) -> Result<usize, KvError> {
        let prefix = checked_key(prefix, self.env.names, table)?;
        let env = self.env;
        let fail = |error: mdbx::ReadError| KvError::new("deleting", env.names[table.0], error);
        let mut cursor = self.txn.cursor(env.tables[table.0]).map_err(|error| fail(error.into()))?;
        let mut deleted = 0;
        while deleted < limit {
            let row = cursor.set_range::<Vec<u8>, ()>(prefix).map_err(fail)?;
            if !row.is_some_and(|(key, ())| key.starts_with(prefix)) {
                break;
            }
            cursor.del().map_err(|error| fail(error.into()))?;
            deleted += 1;
        }
        drop(cursor);
        self.rows = self.rows.saturating_add(u64::try_from(deleted).unwrap_or(u64::MAX));
        Ok(deleted)
    }

    /// All rows of a small table.
    pub(crate) fn rows(&self, table: Table, limit: usize) -> Result<Vec<Row>, KvError> {
        let fail = |error: mdbx::ReadError| self.fail("scanning", table, error);
        let mut cursor = self.txn.cursor(self.env.tables[table.0]).map_err(|error| fail(error.into()))?;
        let mut rows = Vec::new();
        let mut row = cursor.first::<Vec<u8>, Vec<u8>>().map_err(fail)?;
        while let Some(pair) = row.filter(|_| rows.len() < limit) {
            rows.push(pair);
            row = cursor.next().map_err(fail)?;
        }
        Ok(rows)
    }

    /// Deletes every row of a table.
    pub(crate) fn clear(&mut self, table: Table) -> Result<(), KvError> {
        self.txn.clear_db(self.env.tables[table.0]).map_err(|error| self.fail("clearing", table, error))
    }

    /// Commits; when this returns, everything written is on disk.
    pub(crate) fn commit(self) -> Result<(), KvError> {
        metrics::CHECKPOINT_BYTES.add(self.bytes);
        metrics::CHECKPOINT_ROWS.add(self.rows);
        let start = Instant::now();
        self.txn.commit().map_err(|error| KvError::new("committing", "transaction", error))?;
        metrics::elapsed(&metrics::CHECKPOINT_COMMIT_BUSY, start);
        Ok(())
    }
}
