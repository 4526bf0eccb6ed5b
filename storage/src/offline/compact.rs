//! MDBX environments without the pages that nothing uses.
//!
//! ```text
//! NAME/mdbx.dat -> every row, in order -> NAME.new/mdbx.dat, synced -> rename over NAME/mdbx.dat -> sync of NAME
//! ```
//!
//! The rename is the one moment at which the old file becomes the new one; before it, the old one is as it was. What a
//! process that was killed leaves beside it is removed when the store is opened, or begun again here.

use std::{ops::ControlFlow, path::Path};

use engine::genesis::ChainSpec;
use serde::Serialize;

use super::{Closed, Listener, Progress};
use crate::{
    Config,
    disk::{Disk as _, RealDisk},
    error::{Fault, OpenError},
    failpoint::{Action, FailPoints},
    kv::{self, Env, Row, Table},
    open::clear_folder,
    place::Place,
    tables::{CHAIN_TABLES, STATE_TABLES},
};

/// Rows that are copied in one transaction, about.
const CHUNK_ROWS: usize = 100_000;
/// Bytes that are copied in one transaction, about.
const CHUNK_BYTES: usize = 32 << 20;

/// What compaction of one environment came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Name of the environment.
    pub name: &'static str,
    /// Rows in its tables.
    pub rows: u64,
    /// Bytes of its file before.
    pub bytes_before: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// Writes both environments anew, each without unused pages.
///
/// # Errors
/// [`OpenError`]; where the new file is not in place, the old one is as it was.
pub fn compact(
    dir: &Path,
    chain: &ChainSpec,
    fail_point: Option<&str>,
    listen: Listener<'_>,
) -> Result<Vec<Compacted>, OpenError> {
    let fail = FailPoints::parse(fail_point, Action::Abort).map_err(OpenError::Config)?;
    compact_with(dir, chain, &fail, listen)
}

pub(crate) fn compact_with(
    dir: &Path,
    chain: &ChainSpec,
    fail: &FailPoints,
    listen: Listener<'_>,
) -> Result<Vec<Compacted>, OpenError> {
    let Closed { chain: tables, state, _lock, .. } = Closed::open(dir, chain)?;
    let place = Place::of(dir, (0, 0), true)?;
    let mut done = Vec::new();
    for (name, env, names) in [("chain", tables, CHAIN_TABLES), ("state", state, STATE_TABLES)] {
        done.push(environment((dir, name), env, names, (&place, fail), listen)?);
    }
    Ok(done)
}

fn environment(
    (dir, name): (&Path, &'static str),
    old: Env,
    names: &'static [&'static str],
    (place, fail): (&Place, &FailPoints),
    listen: Listener<'_>,
) -> Result<Compacted, Fault> {
    let size = old.size()?;
    let rows = size.tables.iter().map(|table| table.rows).fold(0, u64::saturating_add);
    place.check(size.file_bytes.saturating_sub(size.free_bytes))?;
    let (home, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    clear_folder(&beside)?;
    RealDisk.create_dir(&beside)?;
    let new = Env::open(&beside, names, Config::new(dir).map_bytes_max)?;
    let copied = copy(&old, &new, names, &mut |done| listen(Progress { what: name, done, all: rows }))?;
    if copied != rows {
        return Err(Fault::corrupt(format!("{name} says that it has {rows} rows, and {copied} can be read")));
    }
    drop(new);
    // The file is renamed under nobody who reads it.
    drop(old);
    let file = RealDisk.open(&beside.join(kv::FILE))?;
    file.sync()?;
    let bytes = file.length()?;
    drop(file);
    fail.hit("compact.copied").map_err(Fault::Failed)?;
    // What this says of readers is said of the old file; whoever opens the new one makes it again.
    RealDisk.remove(&home.join(kv::LOCK_FILE))?;
    fail.hit("compact.before_rename").map_err(Fault::Failed)?;
    RealDisk.rename(&beside.join(kv::FILE), &home.join(kv::FILE))?;
    fail.hit("compact.renamed").map_err(Fault::Failed)?;
    RealDisk.sync_dir(&home)?;
    fail.hit("compact.synced").map_err(Fault::Failed)?;
    clear_folder(&beside)?;
    Ok(Compacted { name, rows, bytes_before: size.file_bytes, bytes })
}

/// Copies every row of every table, in order; gives how many there were.
fn copy(old: &Env, new: &Env, names: &[&str], tell: &mut dyn FnMut(u64)) -> Result<u64, Fault> {
    let (snapshot, mut copied) = (old.snapshot()?, 0);
    for table in (0..names.len()).map(Table) {
        let mut from = vec![0];
        loop {
            let (mut rows, mut bytes, mut next): (Vec<Row>, _, _) = (Vec::new(), 0, None);
            snapshot.scan(table, &from, |key, value| {
                if rows.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                    next = Some(key.to_vec());
                    return ControlFlow::Break(());
                }
                bytes += key.len() + value.len();
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
            let mut txn = new.write()?;
            for (key, value) in &rows {
                txn.append(table, key, value)?;
            }
            txn.commit()?;
            copied += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            tell(copied);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(copied)
}
