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
    assert!(sound.past_files > 2);
    let mut files: Vec<_> = ["segments", "log", "past"]
        .iter()
        .flat_map(|name| std::fs::read_dir(dir.path().join(name)).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "spare"))
        .collect();
    files.sort();
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        let (header, page) = match path.extension().unwrap().to_str().unwrap() {
            "log" => (108, 4_096),
            "seg" => (80, 4_096),
            "idx" | "chg" => (72, 4_096),
            _ => (80, 16_384),
        };
        for _ in 0..6 {
            // The header, or what follows its page, if anything does.
            let end = used(&bytes) as u64;
            let at = if end < page || world.roll(9) == 0 { world.roll(header) } else { page + world.roll(end - page) }
                as usize;
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

/// What was there before proves nothing false, so it is told and costs nothing else.
#[test]
fn files_of_the_past_that_are_cut_strange_or_out_of_order_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let world = made(dir.path(), 14, 60);
    let sound = verify(dir.path(), &world);
    assert_eq!(sound.bad, []);
    let past = dir.path().join("past");
    // What was only being written is none of them.
    std::fs::write(past.join("next.tmp"), [7; 100]).unwrap();
    assert_eq!(verify(dir.path(), &world), sound);
    let mut paths: Vec<_> = std::fs::read_dir(&past).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().unwrap() == "past");
    paths.sort();
    let name = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
    let bytes = std::fs::read(&paths[1]).unwrap();
    let rest = |length: usize| bytes[..length].to_vec();
    let longer = [&bytes[..], &[0]].concat();
    for wrong in [rest(0), rest(60), rest(16_384), rest(bytes.len() - 1), longer, std::fs::read(&paths[0]).unwrap()] {
        std::fs::write(&paths[1], wrong).unwrap();
        let found = verify(dir.path(), &world);
        assert_eq!((found.bad.len(), found.bad_places), (1, 1), "{found:?}");
        assert_eq!(found.bad[0].file, name(&paths[1]));
    }
    // Two rows change places, under a checksum that says so.
    let mut swapped = bytes.clone();
    let length =
        |at: usize| 3 + usize::from(bytes[at]) + usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]));
    let (first, second) = (16_384, 16_384 + length(16_384));
    swapped[first..second + length(second)].rotate_left(length(first));
    let crc = crc32c::crc32c(&swapped[first..2 * 16_384 - 4]);
    swapped[2 * 16_384 - 4..2 * 16_384].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(&paths[1], swapped).unwrap();
    let found = verify(dir.path(), &world);
    assert_eq!((found.bad.len(), found.bad[0].offset), (1, Some(16_384)), "{found:?}");
    std::fs::write(&paths[1], &bytes).unwrap();
    assert_eq!(verify(dir.path(), &world), sound);
    // A folder under such a name cannot be read, and two files cannot have one.
    std::fs::create_dir(past.join("00000000000000000900-00000000000000000901.past")).unwrap();
    std::fs::write(past.join("902-903.past"), &bytes).unwrap();
    let found = verify(dir.path(), &world);
    assert_eq!(found.bad.iter().filter(|bad| bad.file.starts_with("past/")).count(), 2, "{found:?}");
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
    for number in [1, 0] {
        std::fs::remove_file(dir.path().join(format!("segments/{number:08}.seg"))).unwrap();
        let found = verify(dir.path(), &world);
        assert!(found.bad.iter().any(|bad| bad.what.contains("there is a gap")), "{found:?}");
    }
    std::fs::remove_dir_all(dir.path().join("segments")).unwrap();
    let found = verify(dir.path(), &world);
    let told = format!("blocks end with 0, and {} was durable", world.tip());
    assert!(found.bad.iter().any(|bad| bad.what == told), "{found:?}");
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
