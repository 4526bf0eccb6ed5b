//! Files of an index against the tables they were made of, and their bytes.

use std::{path::PathBuf, sync::Arc};

use alloy_primitives::{Address, B256, U256, hex};
use engine::types::Height;

use parking_lot::{Mutex, RwLock};

use super::{
    Index,
    key::{Key, Keys, Posting},
    part::{Content, Part},
    sealed::{Files, Half, IndexFile, Name},
    table::Table,
};
use crate::{
    disk::{
        Disk,
        faulty::{FaultyDisk, next},
    },
    failpoint::{Action, FailPoints},
    housekeeper::Housekeeper,
    place::{Place, Room},
    segment::Identity,
};

const FIRST: Height = Height(7);
const NAME: Name = (Half::Places, 3, FIRST);

fn files(disk: &FaultyDisk) -> Files {
    let identity = Identity { chain_id: 1, chain_digest: B256::repeat_byte(0xcd), salt: 0x5a17 };
    let fail = FailPoints::parse(None, Action::Fail).expect("nothing is armed");
    let place = Arc::new(Place::of(&std::env::temp_dir(), (0, 0), true).expect("a folder"));
    Files { disk: Arc::new(disk.clone()), dir: PathBuf::from("/segments"), identity, fail: Arc::new(fail), place }
}

/// An index of one segment with these postings.
pub(crate) fn index_of(is_sealed: bool, postings: impl FnOnce(Keys) -> Vec<(Key, Posting)>) -> Index {
    let disk = FaultyDisk::default();
    let files = files(&disk);
    let mut table = Table::default();
    for (key, posting) in postings(Keys { salt: files.identity.salt }) {
        table.insert(key, posting);
    }
    let content =
        if is_sealed { Content::File(files.write(NAME, &table, Room::Little).unwrap()) } else { Content::Table(table) };
    let disk = (Arc::new(disk) as Arc<dyn Disk>, files.dir.clone(), Arc::clone(&files.place));
    let housekeeper = Housekeeper::start(disk, 0, Arc::clone(&files.fail), false).unwrap();
    Index {
        shelves: [content, Content::Table(Table::default())]
            .map(|content| RwLock::new(Arc::new(vec![Arc::new(Part::new(NAME, content))]))),
        waiting: Mutex::default(),
        absorbing: Mutex::default(),
        building: Arc::default(),
        files,
        segments: Arc::default(),
        housekeeper,
    }
}

fn path() -> PathBuf {
    PathBuf::from("/segments/00000003.idx")
}

fn posting(above: u32, index: u32) -> Posting {
    Posting { above, index }
}

#[test]
fn files_keep_their_bytes() {
    let disk = FaultyDisk::default();
    let mut table = Table::default();
    table.insert(Key(2), posting(300, 1));
    table.insert(Key(1 << 100), posting(0, 5));
    table.insert(Key(1 << 100), posting(0, 133));
    table.insert(Key(1 << 100), posting(2, 7));
    files(&disk).write(NAME, &table, Room::Little).unwrap();
    let bytes = disk.bytes(&path());
    assert_eq!(bytes.len(), 8_192);
    let header =
        format!("{}00020003{}00005a1700000003{:016x}{:016x}", hex::encode("SLUICIDX"), "cd".repeat(32), FIRST.0, 1);
    assert_eq!(hex::encode(&bytes[..68]), header);
    assert_eq!(bytes[68..72], crc32c::crc32c(&bytes[..68]).to_be_bytes());
    let entries = [
        "00000000000000000000000000000002",
        "0003",
        "ac0201",
        "00000010000000000000000000000000",
        "0007",
        "0005",
        "008001",
        "0207",
    ];
    let entries = entries.concat();
    assert_eq!(hex::encode(&bytes[4_096..4_096 + entries.len() / 2]), entries);
    assert!(bytes[4_096 + entries.len() / 2..8_186].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[8_186..8_188], u16::try_from(entries.len() / 2).unwrap().to_be_bytes());
    assert_eq!(bytes[8_188..], crc32c::crc32c(&bytes[4_096..8_188]).to_be_bytes());
}

#[test]
fn keys_keep_their_bytes_and_tell_kinds_apart() {
    let keys = Keys { salt: 0x5a17 };
    let (address, word) = (Address::repeat_byte(1), B256::repeat_byte(1));
    let all = [
        keys.transaction(&word),
        keys.account(&address),
        keys.slot(&address, &word.into()),
        keys.wipe(&address),
        keys.any_log(),
        keys.log_address(&address),
        keys.log_topic(0, &word),
        keys.log_topic(1, &word),
        keys.log_topic(2, &word),
        keys.log_topic(3, &word),
    ];
    for (index, key) in all.iter().enumerate() {
        assert!(!all[..index].contains(key) && *key != Keys { salt: 0x5a18 }.any_log());
    }
    let mut bytes = hex!("00005a1703").to_vec();
    bytes.extend_from_slice(address.as_slice());
    bytes.extend_from_slice(word.as_slice());
    let hash = alloy_primitives::keccak256(bytes);
    assert_eq!(keys.slot(&address, &U256::from_be_bytes(word.0)).0.to_be_bytes(), hash[..16]);
}

/// Many keys with one posting, some with many, some over many pages; keys as they come, or crowded at one end.
fn random_table(random: &mut u64, crowded: bool) -> (Table, Vec<Key>) {
    let mut table = Table::default();
    let mut keys = Vec::new();
    for index in 0..next(random) % 3_000 {
        let key = Key(u128::from(next(random)) << if crowded { 8 } else { 64 } | u128::from(index));
        let count = match index % 100 {
            0 => 1 + next(random) % 20_000,
            1..10 => 1 + next(random) % 300,
            _ => 1,
        };
        let mut at = Posting::FIRST;
        for _ in 0..count {
            let step = next(random);
            at = match step % 4 {
                0 => posting(at.above + (step >> 8) as u32 % 5_000, (step >> 32) as u32 % 3_000),
                _ => posting(at.above, at.index + 1 + (step >> 8) as u32 % 300),
            };
            if table.get(key).last().is_none_or(|last| *last < at) {
                table.insert(key, at);
            }
        }
        keys.push(key);
    }
    (table, keys)
}

fn compare(table: Table, keys: &[Key], file: IndexFile, random: &mut u64) {
    let (table, file) = (Content::Table(table), Content::File(file));
    let all = |content: &Content, key: Key| {
        let mut found = Vec::new();
        let mut at = Some(Posting::FIRST);
        while let Some(from) = at {
            let some = content.seek(key, from).unwrap();
            at = some.last().map(|last| posting(last.above, last.index + 1));
            found.extend(some);
        }
        found
    };
    for key in keys {
        let expected = all(&table, *key);
        assert!(expected.is_sorted() && all(&file, *key) == expected, "{key:?}");
        for _ in 0..4 {
            let near = expected[next(random) as usize % expected.len()];
            let at = posting(near.above, near.index.saturating_add_signed(next(random) as i32 % 3));
            assert_eq!(file.seek(*key, at).unwrap().first(), table.seek(*key, at).unwrap().first());
            assert_eq!(file.last(*key, at).unwrap(), table.last(*key, at).unwrap());
        }
        for other in [Key(key.0 ^ 1 << 40), Key(key.0 ^ 1)].into_iter().filter(|other| !keys.contains(other)) {
            assert_eq!(
                (file.seek(other, Posting::FIRST).unwrap(), file.last(other, posting(9, 9)).unwrap()),
                (vec![], None)
            );
        }
    }
    let end = posting(u32::MAX, u32::MAX);
    for key in [Key(0), Key(u128::MAX)] {
        assert_eq!((file.seek(key, Posting::FIRST).unwrap(), file.last(key, end).unwrap()), (vec![], None));
    }
}

#[test]
fn a_file_answers_as_the_table_it_was_made_of() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut random = seed;
        let disk = FaultyDisk::default();
        let (table, keys) = random_table(&mut random, seed % 2 == 1);
        drop(files(&disk).write(NAME, &table, Room::Little).unwrap());
        compare(table, &keys, files(&disk).open(NAME).unwrap(), &mut random);
    }
    let disk = FaultyDisk::default();
    let empty = files(&disk).write(NAME, &Table::default(), Room::Little).unwrap();
    compare(Table::default(), &[], empty, &mut 0);
    assert!(files(&disk).open(NAME).is_ok());
}

#[test]
fn no_damaged_byte_of_a_file_changes_an_answer() {
    let disk = FaultyDisk::default();
    let (table, mut keys) = random_table(&mut 5, false);
    keys.truncate(200);
    drop(files(&disk).write(NAME, &table, Room::Little).unwrap());
    let whole = disk.bytes(&path());
    let table = Content::Table(table);
    let mut refused = 0;
    for at in (0..4_096).step_by(13).chain((4_096..whole.len()).step_by(1_009)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.set_bytes(&path(), bytes);
        let Ok(file) = files(&disk).open(NAME) else {
            refused += 1;
            continue;
        };
        let file = Content::File(file);
        for key in &keys {
            match file.seek(*key, Posting::FIRST) {
                Ok(found) => assert_eq!(found.first(), table.seek(*key, Posting::FIRST).unwrap().first(), "byte {at}"),
                Err(reason) => {
                    assert!(reason.contains("damaged page"), "{reason}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn files_of_another_place_chain_or_folder_are_refused() {
    let disk = FaultyDisk::default();
    let files = files(&disk);
    drop(files.write(NAME, &random_table(&mut 1, false).0, Room::Little).unwrap());
    let whole = disk.bytes(&path());
    assert!(files.open(NAME).is_ok());
    assert!(files.open((Half::Places, 3, Height(8))).is_err());
    assert!(files.open((Half::Places, 2, FIRST)).is_err());
    for change in [Identity { chain_digest: B256::ZERO, ..files.identity }, Identity { salt: 1, ..files.identity }] {
        assert!(Files { identity: change, ..files.clone() }.open(NAME).is_err());
    }
    for bytes in [Vec::new(), whole[..whole.len() - 1].to_vec(), [&whole[..], &[0]].concat(), vec![0; whole.len()]] {
        disk.set_bytes(&path(), bytes);
        assert!(files.open(NAME).is_err());
    }
}

#[test]
fn no_pages_make_a_search_panic_or_last() {
    let disk = FaultyDisk::default();
    let (table, keys) = random_table(&mut 9, false);
    drop(files(&disk).write(NAME, &table, Room::Little).unwrap());
    let whole = disk.bytes(&path());
    let mut random = 10;
    for round in 0..60 {
        let mut bytes = whole.clone();
        for page in bytes[4_096..].chunks_mut(4_096) {
            match next(&mut random) % 4 {
                // Entries in no order, of any length.
                0 => page[..4_090].fill_with(|| next(&mut random) as u8 & if round % 2 == 0 { 0xff } else { 0x81 }),
                1 => page[4_090..4_092].copy_from_slice(&(next(&mut random) as u16 % 4_096).to_be_bytes()),
                2 => page[next(&mut random) as usize % 4_090] ^= 1 << (round % 8),
                _ => {}
            }
            let crc = crc32c::crc32c(&page[..4_092]);
            page[4_092..].copy_from_slice(&crc.to_be_bytes());
        }
        disk.set_bytes(&path(), bytes);
        let file = files(&disk).open(NAME).unwrap();
        for key in keys.iter().take(300) {
            let at = posting(next(&mut random) as u32 % 100, 0);
            let _ = (file.seek(*key, at), file.last(*key, at));
        }
    }
}
