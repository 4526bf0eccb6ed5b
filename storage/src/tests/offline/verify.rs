//! Whatever byte is changed, the file and the place are named; what is only unfinished is not.

use super::*;
use crate::tables::{CODE, EPOCH, GARBAGE, HEADER, STATE_TABLES, ended_at};

fn verify(dir: &Path, world: &World) -> offline::Verified {
    offline::verify(dir, &world.chain, &mut |_| {}).unwrap()
}

/// Offset behind the last byte that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = made(dir.path(), 8, 40);
    let sound = verify(dir.path(), &world);
    assert_eq!((&sound.bad[..], sound.blocks, sound.unfinished_bytes), (&[][..], world.tip().0, 0));
    assert!(sound.missing_indices.is_empty() && sound.indices > 2 && sound.records > 4 * sound.blocks);
    let mut files: Vec<_> = ["segments", "log"]
        .iter()
        .flat_map(|name| std::fs::read_dir(dir.path().join(name)).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "spare"))
        .collect();
    files.sort();
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        let header = if name.ends_with(".log") {
            108
        } else if name.ends_with(".seg") {
            80
        } else {
            72
        };
        for _ in 0..6 {
            // The header, or what follows its page.
            let end = used(&bytes);
            let place = world.roll(9);
            let at =
                if place == 0 { world.roll(header) as usize } else { 4_096 + world.roll(end as u64 - 4_096) as usize };
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << world.roll(8);
            std::fs::write(&path, &flipped).unwrap();
            let found = verify(dir.path(), &world);
            let named = found.bad.iter().find(|bad| bad.file == name);
            assert!(named.is_some(), "{name} at {at}: {found:?}");
            let offset = named.unwrap().offset.unwrap();
            assert!(offset <= at as u64, "{name} at {at}: {offset}");
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(verify(dir.path(), &world), sound);
}

#[test]
fn damage_in_the_middle_hides_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = made(dir.path(), 9, 40);
    let path = dir.path().join("segments/00000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    let sound = verify(dir.path(), &world);
    // Two places far apart, the lengths of two records.
    (bytes[4_096], bytes[end - 300]) = (0xff, bytes[end - 300] ^ 0x40);
    std::fs::write(&path, &bytes).unwrap();
    let found = verify(dir.path(), &world);
    let offsets: Vec<_> = found.bad.iter().filter(|bad| bad.file.ends_with("1.seg")).map(|bad| bad.offset).collect();
    assert!(offsets.contains(&Some(4_096)) && offsets.iter().any(|at| *at > Some(6_000)), "{found:?}");
    assert!(found.blocks >= sound.blocks - 4, "{} of {} blocks", found.blocks, sound.blocks);
    std::fs::remove_file(&path).unwrap();
    let found = verify(dir.path(), &world);
    assert!(found.bad.iter().any(|bad| bad.what.contains("there is a gap")), "{found:?}");
}

#[test]
fn a_group_that_was_being_written_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = made(dir.path(), 10, 20);
    let armed = Config { fail_point: None, ..settings(dir.path()) };
    let disk = Arc::new(crate::disk::RealDisk);
    let store =
        Database::open_on(disk, killed_at("segment.append.partial:2"), armed, Arc::clone(&world.chain)).unwrap();
    world.commit(&store, 1).unwrap();
    world.commit(&store, 1).unwrap_err();
    crate::testing::crash(store);
    let found = verify(dir.path(), &world);
    assert_eq!((&found.bad[..], found.blocks), (&[][..], world.tip().0));
    assert!(found.unfinished_bytes > 0);
    std::fs::remove_file(dir.path().join("segments/00000000.idx")).unwrap();
    assert!(verify(dir.path(), &world).missing_indices.contains(&0));
}

#[test]
fn rows_with_a_hash_or_a_checksum_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let world = made(dir.path(), 11, 40);
    for (name, tables, table, what) in [
        ("state", STATE_TABLES, CODE, "code"),
        ("state", STATE_TABLES, GARBAGE, "garbage"),
        ("chain", CHAIN_TABLES, EPOCH, "epoch"),
        ("chain", CHAIN_TABLES, HEADER, "header"),
        ("chain", CHAIN_TABLES, crate::tables::CANONICAL, "canonical"),
    ] {
        let put = |key: &[u8], row: &[u8]| {
            let env = env(dir.path(), name, tables);
            let mut txn = env.write().unwrap();
            txn.put(table, key, row).unwrap();
            txn.commit().unwrap();
        };
        if table == GARBAGE {
            put(&9_u64.to_be_bytes(), &ended_at(9, world.tip()));
        }
        let (key, row) = rows(&env(dir.path(), name, tables), table).pop().unwrap();
        let mut wrong = row.clone();
        *wrong.last_mut().unwrap() ^= 1;
        put(&key, &wrong);
        let found = verify(dir.path(), &world);
        let named = found.bad.iter().any(|bad| bad.file == format!("{name}/mdbx.dat") && bad.what.contains(what));
        assert!(named, "{what}: {found:?}");
        put(&key, &row);
        assert_eq!(verify(dir.path(), &world).bad, []);
    }
}
