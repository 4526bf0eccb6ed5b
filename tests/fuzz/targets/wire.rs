//! Any bytes of a peer: whatever a lane decodes is bounded, never panics, and has one encoding where it has any.

#![no_main]

use alloy_primitives::{Bytes, keccak256};
use engine::types::{AccessList, HeadSlice, NamedList, access_list::unpack};
use libfuzzer_sys::fuzz_target;
use net::transport::{
    frame::{SealedLetter, decode_batch, decode_notice, decode_records, decode_share, decode_wish, read_datagram},
    record::NodeRecord,
};

/// Items that the gas of a block pays for.
const ITEMS: u64 = 1_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((lane, rest)) = bytes.split_first() else { return };
    match lane % 9 {
        0 => {
            if let Ok(vote) = read_datagram(rest) {
                assert_eq!(&vote.encoded(), &rest[2..], "one encoding");
            }
        }
        1 => {
            if let Ok(mut letter) = SealedLetter::decode(&Bytes::copy_from_slice(rest)) {
                if let Some((header, packed)) = letter.take_list() {
                    let _ = NamedList::open(&packed, &header.access_list_hash, usize::MAX, ITEMS);
                }
                let _ = letter.open(&|_| None);
            }
        }
        2 => {
            if let Ok(batch) = decode_batch(rest) {
                let size: usize = batch.iter().map(|transaction| transaction.len() + 4).sum();
                assert_eq!(size, rest.len(), "nothing is lost");
            }
        }
        3 => drop(decode_records(rest)),
        4 => {
            let mut left = rest;
            if let Ok(record) = NodeRecord::decode(&mut left) {
                assert_eq!(record.encoded(), rest[..rest.len() - left.len()], "one encoding");
            }
        }
        5 => {
            if let Ok((_, share)) = decode_share(&Bytes::copy_from_slice(rest)) {
                assert_eq!(share.encoded(), &rest[32..], "one encoding");
            }
        }
        6 => {
            if let Ok(notice) = decode_notice(rest) {
                assert_eq!(alloy_rlp::encode(notice), rest, "one encoding");
            }
        }
        7 => {
            if let Ok(wish) = decode_wish(rest) {
                assert_eq!(alloy_rlp::encode(wish), rest, "one encoding");
            }
            if let Some(slice) = HeadSlice::decode(rest) {
                assert_eq!(slice.encoded(), rest, "one encoding");
            }
        }
        _ => {
            // Whatever it unpacks to, as the list that a header names.
            if let Ok(bytes) = unpack(rest, AccessList::bytes_max(ITEMS))
                && let Ok(list) = NamedList::open(rest, &keccak256(&bytes), usize::MAX, ITEMS)
            {
                assert_eq!(list.list().hashed_bytes(), bytes, "one encoding");
                let again = NamedList::open(&list.packed(), &list.hash(), usize::MAX, ITEMS);
                assert!(again == Ok(list) || again.is_err_and(|error| !error.is_fault()), "it comes back");
            }
        }
    }
});
