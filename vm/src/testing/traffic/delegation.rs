//! Authorizations of EIP-7702 with real signatures, since the authority is recovered from them.

use std::sync::LazyLock;

use alloy_consensus::crypto::secp256k1;
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, U256};

/// Accounts whose keys are known here.
pub(crate) const AUTHORITIES: usize = 5;

static ADDRESSES: LazyLock<[Address; AUTHORITIES]> = LazyLock::new(|| {
    std::array::from_fn(|key| {
        let hash = B256::repeat_byte(1);
        secp256k1::recover_signer(&secp256k1::sign_message(secret(key), hash).unwrap(), hash).unwrap()
    })
});

fn secret(key: usize) -> B256 {
    B256::repeat_byte(0x51 + u8::try_from(key).unwrap())
}

/// The account of a key, below [`AUTHORITIES`].
pub(crate) fn authority(key: usize) -> Address {
    ADDRESSES[key]
}

/// Every account whose key is known.
pub(crate) fn authorities() -> impl Iterator<Item = Address> {
    ADDRESSES.iter().copied()
}

/// The authority's word that its code is that of `target`, which zero takes back.
pub(crate) fn authorization(key: usize, chain_id: u64, target: Address, nonce: u64) -> SignedAuthorization {
    let authorization = Authorization { chain_id: U256::from(chain_id), address: target, nonce };
    let signature = secp256k1::sign_message(secret(key), authorization.signature_hash()).unwrap();
    authorization.into_signed(signature)
}

/// The same with a signature that is nobody's.
pub(crate) fn by_nobody(target: Address, nonce: u64) -> SignedAuthorization {
    let authorization = Authorization { chain_id: U256::from(7), address: target, nonce };
    SignedAuthorization::new_unchecked(authorization, 0, U256::ZERO, U256::ZERO)
}
