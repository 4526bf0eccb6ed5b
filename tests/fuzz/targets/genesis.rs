//! Genesis files: whatever the text, an error that names the trouble or a chain that passes its own check.

#![no_main]

#[path = "../../../tools/src/genesis.rs"]
#[allow(dead_code)]
mod genesis;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Ok(chain) = genesis::parse(data) {
        assert!(chain.check().is_ok());
    }
});
