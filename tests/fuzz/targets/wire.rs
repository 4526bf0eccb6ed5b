//! Any bytes of a peer: whatever a lane decodes is bounded, never panics, and has one encoding where it has any.

#![no_main]

use alloy_primitives::Bytes;
use libfuzzer_sys::fuzz_target;
use net::transport::{
    frame::{SealedLetter, decode_batch, decode_records, decode_share, read_datagram},
    record::NodeRecord,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((lane, rest)) = bytes.split_first() else { return };
    match lane % 6 {
        0 => {
            if let Ok(vote) = read_datagram(rest) {
                assert_eq!(&vote.encoded(), &rest[2..], "one encoding");
            }
        }
        1 => {
            if let Ok(letter) = SealedLetter::decode(&Bytes::copy_from_slice(rest)) {
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
        _ => {
            if let Ok((_, share)) = decode_share(&Bytes::copy_from_slice(rest)) {
                assert_eq!(share.encoded(), &rest[32..], "one encoding");
            }
        }
    }
});
