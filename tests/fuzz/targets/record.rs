//! RLP records as they lie on disk, and access lists as peers will send them: no bytes make a decoder panic,
//! and what decodes has one encoding.

#![no_main]

use engine::{
    genesis::Fork,
    types::{AccessList, codec},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(block) = codec::decode_block(data) {
        assert_eq!(codec::encode_block(&block), data);
    }
    if let Ok(receipts) = codec::decode_receipts(data) {
        assert_eq!(codec::encode_receipts(&receipts), data);
    }
    if let Ok(list) = AccessList::decode_exact(data) {
        let checked = list.check(Fork::Osaka, 30_000_000, 3);
        assert!(checked.is_err() || list.hash() == list.clone().hash());
    }
    if let Ok(changes) = codec::decode_changes(data) {
        let again = codec::encode_changes(&changes);
        assert_eq!(codec::decode_changes(&again), Ok(changes));
    }
});
