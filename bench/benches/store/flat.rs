//! The baseline: slots in one table of MDBX, each block a durable transaction.

use std::{hint::black_box, path::Path};

use alloy_primitives::B256;
use mdbx::{Database as Dbi, Environment, WriteFlags};

use crate::{durable, world::Row};

/// Rows in one transaction while loading.
const CHUNK_ROWS: usize = 500_000;

/// The table.
pub(crate) struct Flat {
    env: Environment,
    table: Dbi,
}

impl Flat {
    /// A table with these rows, in order of key, in an empty folder.
    pub(crate) fn load(folder: &Path, rows: &[Row]) -> Self {
        let (env, [table]) = durable::open(folder, ["slots"]);
        let flat = Self { env, table };
        rows.chunks(CHUNK_ROWS).for_each(|rows| flat.write(rows, WriteFlags::APPEND));
        flat
    }

    /// Makes a block's rows durable.
    pub(crate) fn commit(&self, rows: &[Row]) {
        self.write(rows, WriteFlags::UPSERT);
    }

    fn write(&self, rows: &[Row], flags: WriteFlags) {
        let txn = self.env.begin_rw_unsync().expect("nobody else writes");
        for (key, value) in rows {
            txn.put(self.table, key.as_slice(), value.to_be_bytes_trimmed_vec(), flags).expect("the row fits");
        }
        txn.commit().expect("the disk takes it");
    }

    /// Reads rows, one after the other.
    pub(crate) fn read(&self, keys: &[B256]) {
        let txn = self.env.begin_ro_unsync().expect("readers are free");
        for key in keys {
            let value: Option<Vec<u8>> = txn.get(self.table.dbi(), key.as_slice()).expect("readable");
            black_box(value.expect("the row is there"));
        }
    }
}
