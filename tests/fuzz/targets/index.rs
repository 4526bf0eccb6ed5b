//! Pages of indices: no bytes make a reader panic; see `storage::testing::decoders`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| storage::testing::decoders::index(data));
