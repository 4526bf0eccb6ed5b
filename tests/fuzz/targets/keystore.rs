//! Keystores: whatever the bytes, an error that names the trouble, or a keystore within its bounds that is the same
//! once written and read again.

#![no_main]

#[path = "../../../tools/src/keys/keystore.rs"]
#[allow(dead_code)]
mod keystore;

use keystore::{Kdf, Keystore};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(keystore) = Keystore::parse(data) else { return };
    match keystore.kdf {
        Kdf::Scrypt { log_n, r, p } => {
            let (n, r, p) = (1_u128 << log_n, u128::from(r), u128::from(p));
            assert!(128 * r * (n + p) <= 512 << 20 && 128 * r * n * p <= 1 << 30);
        }
        Kdf::Pbkdf2 { rounds } => assert!(rounds <= 1 << 22),
    }
    assert!(Keystore::parse(keystore.text().as_bytes()).is_ok_and(|again| again == keystore));
});
