//! From the layout of an older program to that of this one.
//!
//! | from | what is done |
//! |---|---|
//! | 2.0 | rows of epochs and of ended storage get their checksum; indices of transactions alone are removed: an index of everything is built when the store is opened |
//! | 2.1 | nothing but the number: newer rows are read beside those that there are |
//! | 2.2 | nothing but the number: indices in two files are built when the store is opened |
//!
//! Every step can be done again, and the schema row is written with the last of them that changes rows. So a process
//! that was killed leaves a folder that both programs read, and the next run goes on. Folders of another major version
//! cannot be read, and so not be migrated.

use std::{ops::ControlFlow, path::Path};

use engine::genesis::ChainSpec;
use serde::Serialize;

use super::{Closed, Listener, Progress};
use crate::{
    disk::{Disk as _, RealDisk},
    epochs,
    error::{Fault, OpenError},
    failpoint::{Action, FailPoints},
    kv::{Env, Row, Table},
    tables::{self, Fields, SCHEMA, meta},
};

/// Rows that are rewritten in one transaction.
const CHUNK_ROWS: usize = 4_096;

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Schema before.
    pub from: (u16, u16),
    /// Schema now.
    pub to: (u16, u16),
    /// Rows that were rewritten.
    pub rows: u64,
    /// Files that were removed.
    pub files: u64,
}

/// Brings a data folder to the schema of this program; one that has it, or a newer minor one, is left alone.
///
/// # Errors
/// [`OpenError`]; a row that is damaged ends it, and stays as it is.
pub fn migrate(
    dir: &Path,
    chain: &ChainSpec,
    fail_point: Option<&str>,
    listen: Listener<'_>,
) -> Result<Migrated, OpenError> {
    let fail = FailPoints::parse(fail_point, Action::Abort).map_err(OpenError::Config)?;
    migrate_with(dir, chain, &fail, listen)
}

pub(crate) fn migrate_with(
    dir: &Path,
    chain: &ChainSpec,
    fail: &FailPoints,
    listen: Listener<'_>,
) -> Result<Migrated, OpenError> {
    let closed = Closed::open(dir, chain)?;
    let schema = closed.chain.write().and_then(|txn| txn.get(tables::CHAIN_META, meta::SCHEMA)).map_err(Fault::from)?;
    let schema = schema.unwrap_or_default();
    let mut fields = Fields(&schema);
    let from = fields.u16().zip(fields.u16()).ok_or_else(|| Fault::corrupt("the schema row does not decode"))?;
    if from >= SCHEMA {
        return Ok(Migrated { from, to: from, rows: 0, files: 0 });
    }
    let mut rows = seal(&closed.state, tables::GARBAGE, ("ended storage", &ended), listen)?;
    fail.hit("migrate.state").map_err(Fault::Failed)?;
    rows += seal(&closed.chain, tables::EPOCH, ("epochs", &epoch), listen)?;
    fail.hit("migrate.chain").map_err(Fault::Failed)?;
    let files = remove_old_indices(&dir.join("segments"))?;
    fail.hit("migrate.files").map_err(Fault::Failed)?;
    let mut txn = closed.chain.write().map_err(Fault::from)?;
    let now = [SCHEMA.0.to_be_bytes(), SCHEMA.1.to_be_bytes()].concat();
    txn.put(tables::CHAIN_META, meta::SCHEMA, &now).map_err(Fault::from)?;
    txn.commit().map_err(Fault::from)?;
    fail.hit("migrate.schema").map_err(Fault::Failed)?;
    Ok(Migrated { from, to: SCHEMA, rows, files })
}

/// Gives a row the form of this schema.
type Sealer<'s> = &'s dyn Fn(&[u8], &[u8]) -> Result<Vec<u8>, Fault>;

fn ended(key: &[u8], row: &[u8]) -> Result<Vec<u8>, Fault> {
    let damaged = || Fault::corrupt(format!("the garbage row of {} is damaged", alloy_primitives::hex::encode(key)));
    let height = tables::ended_height(key, row).ok_or_else(damaged)?;
    Ok(tables::ended_at(Fields(key).u64().ok_or_else(damaged)?, height))
}

fn epoch(key: &[u8], row: &[u8]) -> Result<Vec<u8>, Fault> {
    epochs::check(key, row)?;
    epochs::resealed(key, row)
}

/// Rewrites the rows of a table that do not have the form of this schema; gives how many.
fn seal(env: &Env, table: Table, (what, form): (&'static str, Sealer<'_>), listen: Listener<'_>) -> Result<u64, Fault> {
    let (snapshot, mut from, mut sealed, mut seen) = (env.snapshot()?, vec![0], 0, 0);
    let all = env.size()?.tables.get(table.0).map_or(0, |table| table.rows);
    loop {
        let (mut rows, mut next): (Vec<Row>, _) = (Vec::new(), None);
        snapshot.scan(table, &from, |key, row| {
            if rows.len() == CHUNK_ROWS {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows.push((key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })?;
        let mut txn = env.write()?;
        for (key, row) in &rows {
            let now = form(key, row)?;
            if now != *row {
                txn.put(table, key, &now)?;
                sealed += 1;
            }
        }
        txn.commit()?;
        seen += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        listen(Progress { what, done: seen, all });
        match next {
            Some(next) => from = next,
            None => return Ok(sealed),
        }
    }
}

/// Removes the files that only held where transactions are.
fn remove_old_indices(dir: &Path) -> Result<u64, Fault> {
    let mut removed = 0;
    for name in RealDisk.list(dir)? {
        let is_old = name.strip_suffix(".txi").is_some_and(|stem| stem.parse::<u32>().is_ok());
        if is_old {
            RealDisk.remove(&dir.join(name))?;
            removed += 1;
        }
    }
    if removed > 0 {
        RealDisk.sync_dir(dir)?;
    }
    Ok(removed)
}
