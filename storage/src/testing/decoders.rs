//! Whatever reads a data folder, for fuzzing: no bytes make any of it panic, and what decodes is the same once written
//! and read again. Chance does not get past a checksum, so files are made around what is given.

use std::sync::{Arc, LazyLock};

use alloy_primitives::{B256, U256};
use engine::types::{EpochStart, Height, SignedHeader};

use crate::{
    disk::{Disk as _, faulty::FaultyDisk},
    epochs,
    index::{self, Files},
    log, past,
    place::Place,
    portable, prune,
    record::{self, HEADER_BYTES, Kind},
    segment::{Entry, Identity, SegmentFile},
    tables::{self, AccountRow, Applied, Position},
    trie::{node::Link, record as branch},
};

const SALT: u32 = 0x5a17;

static FILES: LazyLock<Files> = LazyLock::new(|| Files {
    disk: Arc::new(FaultyDisk::default()),
    dir: "/fuzz".into(),
    identity: Identity { chain_id: 1, chain_digest: B256::ZERO, salt: SALT },
    fail: Arc::default(),
    place: Arc::new(Place::of(&std::env::temp_dir(), (0, 0), true).expect("a folder for temporary files")),
});

/// Takes bytes for the row of a table, which the first of them names.
pub fn row(bytes: &[u8]) {
    let Some((table, row)) = bytes.split_first() else { return };
    match table % 8 {
        0 => same(row, AccountRow::decode, AccountRow::encode),
        1 => same(row, Position::decode, Position::encode),
        2 => same(row, Applied::decode, Applied::encode),
        3 => same(row, prune::Mark::decode, |mark| mark.encode()),
        4 => {
            let Some((id, row)) = row.split_at_checked(8) else { return };
            let _ = tables::ended_height(id, row);
        }
        5 => {
            if let Some((key, row)) = row.split_at_checked(8) {
                let _ = (epochs::check(key, row), epochs::opened::<EpochStart>(key, row));
            }
            if let Some((key, row)) = row.split_at_checked(32) {
                let _ = (epochs::check(key, row), epochs::opened::<SignedHeader>(key, row));
            }
        }
        6 => portable::intake::fuzzed(row),
        _ => {
            let encode = |node: &Link<B256, U256>| branch::encode(&node.as_branch().expect("a record is a branch's"));
            if let Some(found) = branch::decode(row) {
                let written = encode(&found);
                assert_eq!(encode(&branch::decode(&written).expect("it was written")), written);
            }
        }
    }
}

/// What decodes has this one encoding.
fn same<T>(row: &[u8], decode: fn(&[u8]) -> Option<T>, encode: fn(&T) -> Vec<u8>) {
    if let Some(found) = decode(row) {
        assert_eq!(encode(&found), row);
    }
}

/// Takes bytes for a segment's records: as they are, and each piece of them under a front whose checksum holds.
pub fn segment(bytes: &[u8]) {
    let (disk, dir) = (FaultyDisk::default(), FILES.dir.clone());
    let mut framed = bytes.to_vec();
    for (payload, kind) in bytes.chunks(64).zip(Kind::ALL.into_iter().cycle()) {
        let flags = payload.first().map_or(0, |byte| byte & 1);
        framed.extend_from_slice(&record::framed(kind, flags, Height(1), payload, SALT));
    }
    let file = disk.create(&dir).expect("a disk in memory");
    file.write_at(&framed, 0).expect("a disk in memory");
    let size = u64::try_from(framed.len()).expect("a length fits");
    let segment = SegmentFile { number: 0, salt: SALT, first_height: Height(1), size, file, path: dir };
    let mut at = 0;
    while at < size {
        at += match segment.entry(at).expect("a disk in memory") {
            Entry::Record(header, payload) => {
                let _ = header.unpack(&payload);
                let _ = record::decode_finalization(&payload);
                u64::try_from(HEADER_BYTES + payload.len()).expect("a length fits")
            }
            Entry::End | Entry::Bad => 1,
        };
    }
    let _ = record::claims_durable(&framed, Height(1), SALT);
    let _ = record::split_block(framed.get(bytes.len()..).unwrap_or_default(), Height(1), SALT);
}

/// Takes bytes for the pages of an index.
pub fn index(bytes: &[u8]) {
    index::fuzz::fuzzed(&FILES, bytes);
}

/// Takes bytes for the directory and the pages of a file of the past, and for entries.
pub fn past(bytes: &[u8]) {
    past::fuzz::fuzzed(&FILES, bytes);
}

/// Takes bytes for a record of the log.
pub fn log(bytes: &[u8]) {
    log::fuzz::fuzzed(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faulty::next;

    /// What the fuzzer does for long is done here for a moment, so that its targets work.
    #[test]
    fn no_bytes_make_a_reader_panic() {
        let mut random = 3;
        for round in 0..4_000_u64 {
            let length = next(&mut random) % if round % 8 == 0 { 2_000 } else { 120 };
            // Small numbers are lengths and kinds that make sense.
            let mask = if next(&mut random).is_multiple_of(2) { 0xff } else { 0x0f };
            let bytes: Vec<u8> = (0..length).map(|_| next(&mut random).to_be_bytes()[0] & mask).collect();
            for read in [row, segment, index, past, log] {
                read(&bytes);
            }
        }
    }
}
