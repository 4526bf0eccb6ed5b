//! Tables written anew hold the same rows, whenever the process is killed.

use super::*;
use crate::{failpoint::OFFLINE_FAIL_POINTS, offline::compact::compact_with, tables::STATE_TABLES};

/// Every row of every table.
fn all_rows(dir: &Path) -> Vec<Vec<Row>> {
    [("chain", CHAIN_TABLES), ("state", STATE_TABLES)]
        .into_iter()
        .flat_map(|(name, tables)| {
            let env = env(dir, name, tables);
            (0..tables.len()).map(|table| rows(&env, Table(table))).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn compacted_tables_hold_the_same_rows_in_less_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = made(dir.path(), 4, 60);
    // Rows that come and go leave pages that nothing uses.
    let state = env(dir.path(), "state", STATE_TABLES);
    let junk = |key: u64| [&key.to_be_bytes()[..], &[7; 32]].concat();
    let mut txn = state.write().unwrap();
    (1 << 40..(1 << 40) + 80_000).for_each(|key| txn.put(crate::tables::STORAGE_NODE, &junk(key), &[1; 400]).unwrap());
    txn.commit().unwrap();
    let mut txn = state.write().unwrap();
    (1 << 40..(1 << 40) + 80_000).for_each(|key| txn.delete(crate::tables::STORAGE_NODE, &junk(key)).unwrap());
    txn.commit().unwrap();
    drop(state);
    let before = all_rows(dir.path());
    let mut heard = Vec::new();
    let compacted = offline::compact(dir.path(), &world.chain, None, &mut |progress| heard.push(progress)).unwrap();
    assert_eq!(all_rows(dir.path()), before);
    assert!(heard.iter().any(|progress| progress.what == "state" && progress.done == progress.all));
    let [chain, state] = &compacted[..] else { panic!("{compacted:?}") };
    assert_eq!(chain.rows + state.rows, before.iter().map(|rows| rows.len() as u64).sum::<u64>());
    assert!(state.bytes + (4 << 20) < state.bytes_before, "{state:?}");
    let store = open(dir.path(), &world);
    world.check(&store);
    world.commit(&store, 3).unwrap();
    store.close().unwrap();
}

#[test]
fn a_kill_while_compacting_leaves_the_old_tables_or_the_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = made(dir.path(), 5, 30);
    let points = OFFLINE_FAIL_POINTS.iter().filter(|point| point.starts_with("compact."));
    let points: Vec<String> = points.flat_map(|point| [format!("{point}:1"), format!("{point}:2")]).collect();
    assert_eq!(points.len(), 8);
    for point in points {
        let before = all_rows(dir.path());
        let outcome = compact_with(dir.path(), &world.chain, &killed_at(&point), &mut |_| {});
        assert!(outcome.unwrap_err().to_string().contains("stopped at fail point"), "{point}");
        assert_eq!(all_rows(dir.path()), before, "{point}");
        let store = open(dir.path(), &world);
        world.check(&store);
        world.commit(&store, 2).unwrap();
        store.close().unwrap();
        let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{point}");
    }
    offline::compact(dir.path(), &world.chain, None, &mut |_| {}).unwrap();
    world.check(&open(dir.path(), &world));
}
