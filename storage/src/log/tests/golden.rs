//! The bytes of the log's files and records, as this schema has them; the rest is in `tests/golden.rs` of this room.

use alloy_primitives::{hex, keccak256};

use super::kit::*;
use crate::log::{
    file::Header,
    record::{Batch, FRONT_BYTES, Front, Unsealed},
};

const SALT: u64 = 0x5a17;

#[test]
fn files_and_records_of_the_log_keep_their_bytes() {
    let header = Header { identity: identity(), salt: SALT, number: 3, size: BYTES };
    let (digest, genesis) = ("01".repeat(32), "02".repeat(32));
    let fields = "0000000000005a170000000300000000000040002dbf0d41";
    assert_eq!(
        hex::encode(header.encode()),
        format!("{}000200030000000000000007{digest}{genesis}{fields}", hex::encode("SLUICLOG"))
    );
    let check = |entries: Vec<_>, blocks: Vec<_>, expected: &str| {
        let record = Unsealed::new(entries.iter(), blocks.iter()).unwrap().first(true);
        let bytes = record.seal(SALT, 9, 4_096, mark(1, 2, 3));
        let front = Front::decode(bytes.first_chunk().unwrap(), SALT).unwrap();
        assert_eq!((front.sequence, front.durable, front.length), (9, 4_096, bytes.len() - FRONT_BYTES));
        assert!(front.matches(&bytes[FRONT_BYTES..], SALT));
        let batch = Batch { is_first: true, is_lost: true, mark: mark(1, 2, 3), entries, blocks };
        assert_eq!(Batch::decode(&bytes[FRONT_BYTES..]), Ok(batch));
        let told = if bytes.len() < 100 { hex::encode(&bytes) } else { keccak256(&bytes).to_string() };
        assert_eq!(told, expected);
    };
    check(
        vec![floor(1, 5)],
        Vec::new(),
        "0000000000005a17000000210000000000000009000000000000100011e649f124452d75030000000000000001000000000000000200000000\
         0000000300000004c3040105",
    );
    // One of each kind, in the order of `entry`.
    let entries = [0, 1, 3, 4, 5, 6, 7, 8].map(|seed| entry(1, 2, seed));
    check(
        entries.to_vec(),
        vec![block(1, 2, 3, 2), block(1, 2, 3, 0)],
        "0x53ecc6a2cee1e05db8e82a77eaf3865b24f3819c966dda58085d7c6a11cfdb71",
    );
}
