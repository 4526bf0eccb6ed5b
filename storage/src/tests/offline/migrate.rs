//! A folder as a program of schema 2.0 wrote it becomes one of this schema.

use super::*;
use crate::{
    failpoint::OFFLINE_FAIL_POINTS,
    offline::{Migrated, migrate::migrate_with},
    tables::{EPOCH, GARBAGE, SCHEMA, STATE_TABLES, ended_at},
};

/// Writes a number into the header of a file, and its checksum.
fn set_minor(path: &Path, length: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[10..12].copy_from_slice(&[0, 0]);
    let crc = crc32c::crc32c(&bytes[..length - 4]).to_be_bytes();
    bytes[length - 4..length].copy_from_slice(&crc);
    std::fs::write(path, bytes).unwrap();
}

/// Gives a folder the layout of schema 2.0: rows of epochs and of ended storage without checksums, files that say so,
/// and an index of transactions alone beside full segments.
fn as_schema_2_0(dir: &Path) {
    let rewrite = |env: &Env, table, length: &dyn Fn(&[u8]) -> usize| {
        let all = rows(env, table);
        let mut txn = env.write().unwrap();
        all.iter().for_each(|(key, row)| txn.put(table, key, &row[..length(row)]).unwrap());
        txn.commit().unwrap();
        all.len()
    };
    let (state, chain) = (env(dir, "state", STATE_TABLES), env(dir, "chain", CHAIN_TABLES));
    assert!(rewrite(&state, GARBAGE, &|_| 8) > 0 && rewrite(&chain, EPOCH, &|row| row.len() - 4) > 1);
    let mut txn = chain.write().unwrap();
    txn.put(CHAIN_META, meta::SCHEMA, &[0, 2, 0, 0]).unwrap();
    txn.commit().unwrap();
    for path in std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()) {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("chg") => std::fs::remove_file(&path).unwrap(),
            Some("idx") => std::fs::rename(&path, path.with_extension("txi")).unwrap(),
            Some("seg") if path.file_stem().is_some_and(|stem| stem != "spare") => set_minor(&path, 80),
            _ => {}
        }
    }
    set_minor(&dir.join("log/00000000.log"), 108);
}

fn made_by_2_0(dir: &Path, seed: u64) -> (World, [Vec<Row>; 2]) {
    let world = made(dir, seed, 40);
    let state = env(dir, "state", STATE_TABLES);
    if rows(&state, GARBAGE).is_empty() {
        let mut txn = state.write().unwrap();
        txn.put(GARBAGE, &1_000_000_u64.to_be_bytes(), &ended_at(1_000_000, world.tip())).unwrap();
        txn.commit().unwrap();
    }
    drop(state);
    let sealed = sealed_rows(dir);
    as_schema_2_0(dir);
    (world, sealed)
}

fn sealed_rows(dir: &Path) -> [Vec<Row>; 2] {
    [rows(&env(dir, "state", STATE_TABLES), GARBAGE), rows(&env(dir, "chain", CHAIN_TABLES), EPOCH)]
}

fn schema(dir: &Path) -> Option<Vec<u8>> {
    env(dir, "chain", CHAIN_TABLES).write().unwrap().get(CHAIN_META, meta::SCHEMA).unwrap()
}

fn old_indices(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|kind| kind == "txi")).count()
}

#[test]
fn a_folder_of_schema_2_0_becomes_one_of_this_program() {
    let dir = tempfile::tempdir().unwrap();
    let (mut world, sealed) = made_by_2_0(dir.path(), 12);
    // It is read as it is.
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    world.check(&open(copy.path(), &world));
    let files = old_indices(dir.path()) as u64;
    let count = sealed.iter().map(|rows| rows.len() as u64).sum();
    let migrated = offline::migrate(dir.path(), &world.chain, None, &mut |_| {}).unwrap();
    assert_eq!(migrated, Migrated { from: (2, 0), to: SCHEMA, rows: count, files });
    assert!(files > 1);
    check(dir.path(), &mut world, &sealed);
    let again = offline::migrate(dir.path(), &world.chain, None, &mut |_| {}).unwrap();
    assert_eq!(again, Migrated { from: SCHEMA, to: SCHEMA, rows: 0, files: 0 });
}

fn check(dir: &Path, world: &mut World, sealed: &[Vec<Row>; 2]) {
    assert_eq!(sealed_rows(dir), *sealed);
    assert_eq!(schema(dir), Some([SCHEMA.0.to_be_bytes(), SCHEMA.1.to_be_bytes()].concat()));
    assert_eq!(old_indices(dir), 0);
    let store = open(dir, world);
    assert!(!store.take_recovered().is_lost);
    world.check(&store);
    assert_eq!(store.scrub().findings, []);
    world.commit(&store, 2).unwrap();
    store.close().unwrap();
    let verified = offline::verify(dir, &world.chain, &mut |_| {}).unwrap();
    assert_eq!((verified.bad, verified.missing_indices), (vec![], vec![]));
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_all(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn a_killed_migration_goes_on_and_is_read_meanwhile() {
    let points = OFFLINE_FAIL_POINTS.iter().filter(|point| point.starts_with("migrate."));
    for (seed, point) in (0..).zip(points) {
        let dir = tempfile::tempdir().unwrap();
        let (mut world, sealed) = made_by_2_0(dir.path(), 300 + seed);
        let outcome = migrate_with(dir.path(), &world.chain, &killed_at(point), &mut |_| {});
        assert!(outcome.unwrap_err().to_string().contains("stopped at fail point"), "{point}");
        let copy = tempfile::tempdir().unwrap();
        copy_all(dir.path(), copy.path());
        world.check(&open(copy.path(), &world));
        offline::migrate(dir.path(), &world.chain, None, &mut |_| {}).unwrap();
        check(dir.path(), &mut world, &sealed);
    }
}

#[test]
fn a_row_that_is_damaged_ends_a_migration_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = made_by_2_0(dir.path(), 13);
    let chain = env(dir.path(), "chain", CHAIN_TABLES);
    let (key, mut row) = rows(&chain, EPOCH).pop().unwrap();
    row.truncate(row.len() - 3);
    let mut txn = chain.write().unwrap();
    txn.put(EPOCH, &key, &row).unwrap();
    txn.commit().unwrap();
    drop(chain);
    let outcome = offline::migrate(dir.path(), &world.chain, None, &mut |_| {});
    assert!(matches!(outcome, Err(OpenError::Corrupt(_))), "{outcome:?}");
    assert_eq!(schema(dir.path()), Some(vec![0, 2, 0, 0]));
    assert!(rows(&env(dir.path(), "chain", CHAIN_TABLES), EPOCH).contains(&(key, row)));
}
