//! RLP records as they lie on disk, and access lists as peers will send them: no bytes make a decoder panic,
//! and what decodes has one encoding.

#![no_main]

use std::borrow::Cow;

use engine::{
    genesis::Fork,
    types::{AccessList, access_list::PartialList, codec},
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
        if list.check(Fork::Osaka, 30_000_000, 3).is_ok() {
            let mut merged = PartialList::new(u64::MAX);
            for (fragment, transactions) in list.fragments(&[1, 2]).into_iter().zip(1..) {
                merged.extend(Cow::Owned(fragment), transactions).expect("it continues the list");
            }
            assert!(merged.is(&list));
            assert_eq!(merged.into_list(), list);
        }
    }
    if let Ok(changes) = codec::decode_changes(data) {
        let again = codec::encode_changes(&changes);
        assert_eq!(codec::decode_changes(&again), Ok(changes));
    }
});
