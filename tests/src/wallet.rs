//! The development accounts and transactions signed by them.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English};
use serde_json::Value;

/// Chain id of a development node.
pub const CHAIN_ID: u64 = 31_337;

/// Development account `index`.
///
/// # Panics
/// Never for the well-known mnemonic.
#[must_use]
pub fn account(index: u32) -> PrivateKeySigner {
    MnemonicBuilder::<English>::default()
        .phrase("test test test test test test test test test test test junk")
        .index(index)
        .and_then(|builder| builder.build())
        .expect("the mnemonic is valid")
}

/// Signs a transaction as it stands.
///
/// # Panics
/// If the key cannot sign.
#[must_use]
pub fn sign<T: SignableTransaction<alloy_primitives::Signature>>(key: &PrivateKeySigner, tx: T) -> Bytes
where
    alloy_consensus::TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let signature = key.sign_hash_sync(&tx.signature_hash()).expect("a key signs");
    alloy_consensus::TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

/// A transfer of one wei with ample fees.
#[must_use]
pub fn transfer(key: &PrivateKeySigner, nonce: u64, to: Address) -> Bytes {
    sign(key, TxEip1559 { to: TxKind::Call(to), value: U256::from(1), ..template(nonce) })
}

/// A transaction with ample fees and gas for a transfer.
#[must_use]
pub fn template(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        ..TxEip1559::default()
    }
}

/// Hash of an encoded transaction.
#[must_use]
pub fn hash(raw: &Bytes) -> B256 {
    keccak256(raw)
}

/// Raw bytes as JSON-RPC wants them.
#[must_use]
pub fn hex_of(raw: &Bytes) -> Value {
    Value::String(format!("0x{}", hex::encode(raw)))
}
