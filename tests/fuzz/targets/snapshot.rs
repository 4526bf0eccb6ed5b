//! Files of a snapshot, and heads and parts of peers, that anybody may have made: no bytes make a decoder or a check
//! panic, and what decodes has one encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::portable::{BlocksFile, Chunk, Head, Manifest};

fuzz_target!(|data: &[u8]| {
    if let Ok(chunk) = Chunk::decode(data) {
        assert_eq!(chunk.encode(), data);
        let _ = chunk.check(chunk.root());
    }
    if let Ok(file) = BlocksFile::decode(data) {
        assert_eq!(file.encode(), data);
        for carried in &file.blocks {
            let _ = carried.block(Default::default(), engine::testing::finality(&Default::default()).certificate);
        }
    }
    if let Ok(head) = Head::decode(data) {
        assert_eq!(Head::decode(&head.encode()), Ok(head));
    }
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(manifest.to_json().as_bytes()), Ok(manifest));
    }
});
