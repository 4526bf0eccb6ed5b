//! Every byte of a data folder that carries a checksum or a hash, read and compared; nothing is changed.
//!
//! | file | compared |
//! |---|---|
//! | `segments/*.seg` | header and records with their checksums; order of records; blocks with the block below, their bodies with the roots in their headers, and both with their rows |
//! | `segments/*.idx`, `*.chg` | every byte with the index that the segment makes |
//! | `past/*.past` | header, directory and pages with their checksums; order of rows |
//! | `log/*.log` | header and records with their checksums, and what records say of what was synced |
//! | `chain/mdbx.dat` | rows of blocks with the blocks, rows of epochs with their checksums |
//! | `state/mdbx.dat` | code with its hash, rows of ended storage with their checksums |
//!
//! What has neither, the other rows of the state, is what a scrub compares ([`crate::Database::scrub`]). A group that
//! was being written when the power went is no damage, and told as unfinished; an index that is not there is made when
//! the store is opened, and told as missing.

mod past;
mod same;
mod segments;

use std::{ops::ControlFlow, path::Path, sync::Arc};

use alloy_primitives::{hex, keccak256};
use engine::genesis::ChainSpec;
use serde::Serialize;

use super::{Closed, Listener, Progress};
use crate::{
    disk::RealDisk,
    epochs,
    error::{Fault, OpenError},
    index::Files,
    kv::{Env, Table},
    log,
    open::past_in,
    place::Place,
    tables,
};

/// Places that are told; how many there are is told as well.
const BAD_MAX: usize = 10_000;

/// A place that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The file, below the data folder.
    pub file: String,
    /// Where in it; rows of MDBX are told by their keys.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What was read, and what is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Bytes of segments, indices, what blocks replaced, and log that were read.
    pub bytes: u64,
    /// Blocks that were found.
    pub blocks: u64,
    /// Records of segments and log.
    pub records: u64,
    /// Rows of MDBX.
    pub rows: u64,
    /// Files of indices that were compared.
    pub indices: u64,
    /// Files of what blocks replaced that were read.
    pub past_files: u64,
    /// Bytes behind the last whole block, or record of the log, which were being written when a process ended.
    pub unfinished_bytes: u64,
    /// Full segments whose index is not there, or half of it, or as an older program made it.
    pub missing_indices: Vec<u32>,
    /// How many places are damaged.
    pub bad_places: u64,
    /// The first of them.
    pub bad: Vec<Bad>,
}

impl Verified {
    fn note(&mut self, file: &str, offset: impl Into<Option<u64>>, what: impl Into<String>) {
        self.bad_places = self.bad_places.saturating_add(1);
        if self.bad.len() < BAD_MAX {
            self.bad.push(Bad { file: file.to_owned(), offset: offset.into(), what: what.into() });
        }
    }

    fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// Reads a data folder and tells what in it is damaged.
///
/// # Errors
/// [`OpenError`] if the folder cannot be looked at as a whole; whatever is damaged is no error.
pub fn verify(dir: &Path, chain: &Arc<ChainSpec>, listen: Listener<'_>) -> Result<Verified, OpenError> {
    let closed = Closed::open(dir, chain)?;
    let mut found = Verified::default();
    let files = Files {
        disk: Arc::new(RealDisk),
        dir: dir.join("segments"),
        identity: closed.identity,
        fail: Arc::default(),
        place: Arc::new(Place::of(dir, (0, 0), true)?),
    };
    segments::all(&closed, &files, chain, &mut found, listen)?;
    past::all(&Files { dir: past_in(dir), ..files }, &mut found, listen)?;
    let looked = log::look(&RealDisk, &log::folder_in(dir), log::Identity::of(chain))?;
    found.bytes = found.bytes.saturating_add(looked.bytes);
    found.records = found.records.saturating_add(looked.records);
    found.unfinished_bytes = found.unfinished_bytes.saturating_add(looked.unfinished_bytes);
    if let Some((file, offset, what)) = looked.damage {
        found.note(&format!("{}/{file}", log::FOLDER), offset, what);
    }
    let code = |key: &[u8], row: &[u8]| (keccak256(row) != key).then(|| "code with another hash".to_owned());
    let ended = |key: &[u8], row: &[u8]| tables::ended_height(key, row).is_none().then(|| "damaged".to_owned());
    let epoch = |key: &[u8], row: &[u8]| epochs::check(key, row).err().map(|fault| fault.to_string());
    rows(&closed.state, ("state", tables::CODE, "code"), &code, &mut found, listen)?;
    rows(&closed.state, ("state", tables::GARBAGE, "garbage"), &ended, &mut found, listen)?;
    rows(&closed.chain, ("chain", tables::EPOCH, "epoch"), &epoch, &mut found, listen)?;
    Ok(found)
}

/// What is wrong with a row.
type Check<'c> = &'c dyn Fn(&[u8], &[u8]) -> Option<String>;

fn rows(
    env: &Env,
    (name, table, what): (&str, Table, &'static str),
    check: Check<'_>,
    found: &mut Verified,
    listen: Listener<'_>,
) -> Result<(), Fault> {
    let all = env.size()?.tables.get(table.0).map_or(0, |table| table.rows);
    let file = format!("{name}/mdbx.dat");
    let mut done = 0_u64;
    let outcome = env.snapshot()?.scan(table, &[0], |key, row| {
        done = done.saturating_add(1);
        if let Some(wrong) = check(key, row) {
            found.note(&file, None, format!("row {} of {what}: {wrong}", hex::encode(key)));
        }
        if done.is_multiple_of(1_024) {
            listen(Progress { what, done, all });
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = outcome {
        found.note(&file, None, error.to_string());
    } else if done != all {
        found.note(&file, None, format!("table {what} says that it has {all} rows, and {done} can be read"));
    }
    found.rows = found.rows.saturating_add(done);
    Ok(())
}
