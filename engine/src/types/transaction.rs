//! Transactions: raw bytes, then decoded with a recovered sender, then pooled.
//!
//! The sender is recovered exactly once per node and carried along: from admission through the
//! pool into the block, its execution and its receipt. [`Transaction::recover`] is the only caller of
//! the curve, so the counter `engine_signature_recovered_total` counts them all.
//!
//! Source: EIP-2718 (envelope), EIP-2 and EIP-155 (signatures).

use std::{ops::Deref, sync::Arc};

use alloy_consensus::{EthereumTxEnvelope, Transaction as _, TxEip4844, Typed2718, transaction::SignerRecoverable};
use alloy_eips::eip2718::{Decodable2718, Eip2718Error};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};

use crate::metrics;

/// A signed Ethereum transaction of any type; blob transactions without their sidecar.
pub type Envelope = EthereumTxEnvelope<TxEip4844>;

/// Bytes that somebody claims to be an EIP-2718 transaction, and what its hash is if they are one: computed once, where
/// they enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTransaction {
    bytes: Bytes,
    hash: B256,
}

impl RawTransaction {
    /// Hashes the bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { hash: keccak256(&bytes), bytes }
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their keccak256.
    #[must_use]
    pub const fn hash(&self) -> B256 {
        self.hash
    }
}

/// Why bytes are not a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The envelope does not decode.
    #[error("rlp: {0}")]
    Malformed(String),
    /// Bytes remain behind the envelope.
    #[error("{0} bytes behind the transaction")]
    Trailing(usize),
    /// The signature recovers to no address.
    #[error("invalid transaction v, r, s values")]
    InvalidSignature,
}

/// A decoded transaction whose sender is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    envelope: Envelope,
    sender: Address,
    raw: RawTransaction,
}

/// Decodes one EIP-2718 envelope and nothing behind it.
///
/// # Errors
/// [`TransactionError::Malformed`] and [`TransactionError::Trailing`].
pub fn decode(raw: &[u8]) -> Result<Envelope, TransactionError> {
    let mut rest = raw;
    let envelope = Envelope::decode_2718(&mut rest).map_err(|error| {
        TransactionError::Malformed(match error {
            Eip2718Error::RlpError(inner) => inner.to_string(),
            other => other.to_string(),
        })
    })?;
    if rest.is_empty() { Ok(envelope) } else { Err(TransactionError::Trailing(rest.len())) }
}

impl Transaction {
    /// Recovers the sender of a decoded envelope; costs some 30 microseconds of a core.
    ///
    /// `raw` is the envelope's own EIP-2718 encoding.
    ///
    /// # Errors
    /// [`TransactionError::InvalidSignature`], also for an s value in the upper half (EIP-2).
    pub fn recover(envelope: Envelope, raw: RawTransaction) -> Result<Self, TransactionError> {
        metrics::SIGNATURE_RECOVERED.increment();
        let sender = envelope.recover_signer().map_err(|_| TransactionError::InvalidSignature)?;
        Ok(Self { envelope, sender, raw })
    }

    /// Decodes and recovers in one step.
    ///
    /// # Errors
    /// Those of [`decode`] and [`Transaction::recover`].
    pub fn decode(encoded: Bytes) -> Result<Self, TransactionError> {
        Self::recover(decode(&encoded)?, RawTransaction::new(encoded))
    }

    /// Takes a sender that this node recovered earlier and kept beside the bytes.
    ///
    /// # Errors
    /// Those of [`decode`].
    pub fn with_known_sender(encoded: Bytes, sender: Address) -> Result<Self, TransactionError> {
        Ok(Self { envelope: decode(&encoded)?, sender, raw: RawTransaction::new(encoded) })
    }

    /// The signed envelope.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The recovered sender.
    #[must_use]
    pub const fn sender(&self) -> Address {
        self.sender
    }

    /// The EIP-2718 encoding.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.raw.bytes
    }

    /// The transaction hash.
    #[must_use]
    pub const fn hash(&self) -> B256 {
        self.raw.hash
    }

    /// Size of the EIP-2718 encoding in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.raw.bytes.len()
    }

    /// The most wei the transaction can take from its sender: value, gas at the maximum fee, blobs.
    #[must_use]
    pub fn cost_max(&self) -> U256 {
        let gas = U256::from(self.envelope.gas_limit()).saturating_mul(U256::from(self.envelope.max_fee_per_gas()));
        let blob_fee = U256::from(self.envelope.max_fee_per_blob_gas().unwrap_or_default());
        let blobs = U256::from(self.envelope.blob_gas_used().unwrap_or_default()).saturating_mul(blob_fee);
        self.envelope.value().saturating_add(gas).saturating_add(blobs)
    }

    /// Address of the contract that this transaction creates, if it creates one.
    #[must_use]
    pub fn created_address(&self) -> Option<Address> {
        (self.envelope.kind() == TxKind::Create).then(|| self.sender.create(self.envelope.nonce()))
    }

    /// The EIP-2718 type byte; 0 for legacy.
    #[must_use]
    pub fn type_byte(&self) -> u8 {
        self.envelope.ty()
    }
}

/// A transaction that passed admission: decoded, sender known, payable when it was checked.
///
/// Cheap to clone. Only [`crate::admission`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledTransaction(Arc<Transaction>);

impl PooledTransaction {
    pub(crate) const fn admitted(transaction: Arc<Transaction>) -> Self {
        Self(transaction)
    }

    /// The shared transaction, as a block carries it.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Transaction> {
        &self.0
    }
}

impl Deref for PooledTransaction {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.0
    }
}
