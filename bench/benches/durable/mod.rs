//! MDBX alone, as a client that commits block by block sets it up: durable, without a writable map.

use std::path::Path;

use mdbx::{Database as Dbi, DatabaseFlags, Environment, EnvironmentFlags, Geometry, Mode, SyncMode};

/// Makes an environment with these tables in a folder.
pub(crate) fn open<const N: usize>(folder: &Path, names: [&str; N]) -> (Environment, [Dbi; N]) {
    let env = Environment::builder()
        .set_max_dbs(N)
        .set_geometry(Geometry { size: Some(0..64 << 30), growth_step: Some(64 << 20), ..Geometry::default() })
        .set_flags(EnvironmentFlags {
            mode: Mode::ReadWrite { sync_mode: SyncMode::Durable },
            no_rdahead: true,
            ..EnvironmentFlags::default()
        })
        .open(folder)
        .expect("a new folder can be opened");
    let txn = env.begin_rw_unsync().expect("nobody else writes");
    let tables = names.map(|name| txn.create_db(Some(name), DatabaseFlags::empty()).expect("a new table"));
    txn.commit().expect("the disk takes it");
    (env, tables)
}
