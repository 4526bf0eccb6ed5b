//! Why a transaction was refused, in the words geth's users and libraries know.
//!
//! Source: go-ethereum `core/error.go`, `core/txpool/errors.go` (the words, not the code).

use alloy_primitives::{Address, U256};

use crate::{
    ports::StateError,
    types::{Height, transaction::TransactionError},
};

/// Why admission refused a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The bytes are no transaction.
    #[error("{0}")]
    Malformed(TransactionError),
    /// The encoding is larger than the pool takes.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Size in bytes.
        size: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A type the chain does not take; blob transactions above all.
    #[error("transaction type not supported: {0}")]
    TypeNotSupported(&'static str),
    /// A legacy transaction without chain id.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// Signed for another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    WrongChain {
        /// Chain id in the transaction.
        have: u64,
        /// Ours.
        want: u64,
    },
    /// More gas than a block holds.
    #[error("exceeds block gas limit: tx gas {gas}, current limit {limit}")]
    GasAboveBlock {
        /// Gas limit of the transaction.
        gas: u64,
        /// Gas limit of a block.
        limit: u64,
    },
    /// More gas than EIP-7825 allows one transaction.
    #[error("transaction gas limit too high (cap: {cap}, tx: {gas})")]
    GasAboveCap {
        /// Gas limit of the transaction.
        gas: u64,
        /// The cap.
        cap: u64,
    },
    /// Less gas than the transaction costs before it runs.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// Gas limit of the transaction.
        gas: u64,
        /// Least that could work.
        needed: u64,
    },
    /// Less gas than its call data costs at least (EIP-7623).
    #[error("insufficient gas for floor data gas cost: gas {gas}, minimum needed {needed}")]
    FloorGas {
        /// Gas limit of the transaction.
        gas: u64,
        /// Least that could work.
        needed: u64,
    },
    /// A creation whose init code is larger than EIP-3860 allows.
    #[error("max initcode size exceeded: code size {size}, limit {limit}")]
    InitCode {
        /// Size in bytes.
        size: usize,
        /// Most bytes.
        limit: usize,
    },
    /// The tip is above the whole fee.
    #[error("max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: {tip}, maxFeePerGas: {fee}")]
    TipAboveFee {
        /// Maximum priority fee in wei.
        tip: u128,
        /// Maximum fee in wei.
        fee: u128,
    },
    /// The maximum fee is below what any block of this chain charges.
    #[error("transaction underpriced: gas fee cap {fee}, minimum needed {minimum}")]
    Underpriced {
        /// Maximum fee in wei.
        fee: u128,
        /// Least base fee of the chain in wei.
        minimum: u128,
    },
    /// An EIP-7702 transaction without authorizations.
    #[error("EIP-7702 transaction with empty auth list")]
    EmptyAuthorizations,
    /// The same transaction is in the pool.
    #[error("already known")]
    AlreadyKnown,
    /// The nonce was used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The account's nonce.
        next: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// The nonce is the last there is (EIP-2681).
    #[error("nonce has max value: address {0}")]
    NonceMax(Address),
    /// The nonce is so far ahead that the pool does not keep it.
    #[error("nonce too high: next nonce {next}, tx nonce {nonce}, at most {ahead} ahead are kept")]
    NonceTooFar {
        /// The account's next nonce.
        next: u64,
        /// The transaction's.
        nonce: u64,
        /// How far ahead one may be.
        ahead: usize,
    },
    /// The sender cannot pay for it, alone or with its earlier transactions.
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {overshot}")]
    InsufficientFunds {
        /// Balance in wei.
        balance: U256,
        /// Cost in wei, earlier transactions included.
        cost: U256,
        /// What is missing in wei.
        overshot: U256,
    },
    /// The sender is a contract (EIP-3607).
    #[error("sender not an eoa: address {0}")]
    SenderHasCode(Address),
    /// Another transaction of this nonce pays nearly as much or more.
    #[error("replacement transaction underpriced")]
    ReplacementUnderpriced,
    /// A sender with delegated code has one transaction waiting already (EIP-7702).
    #[error("in-flight transaction limit reached for delegated accounts")]
    DelegatedLimit,
    /// The sender has as many transactions waiting as one may have.
    #[error("account limit exceeded: {0} transactions of one sender are waiting")]
    SenderLimit(usize),
    /// A transaction of the sender took longer than a block may.
    #[error("sender is not heard before block {}: its last transaction took longer than a block may", until.0)]
    SenderTooSlow {
        /// Height of the state from which on it is.
        until: Height,
    },
    /// Everything in the pool pays more, or the queue before it is full.
    #[error("txpool is full")]
    PoolFull,
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node is shutting down.
    #[error("node is shutting down")]
    Closed,
}

impl AdmissionError {
    /// Whether its sender was recovered in vain through nobody else's doing: to send more such ones is an attack, or a
    /// mistake. What a full pool refuses is not, nor what comes too early because an earlier one was refused.
    #[must_use]
    pub const fn is_own_fault(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::NonceTooLow { .. }
                | Self::NonceMax(_)
                | Self::InsufficientFunds { .. }
                | Self::SenderHasCode(_)
                | Self::ReplacementUnderpriced
                | Self::SenderTooSlow { .. }
        )
    }

    /// A fixed word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Oversized { .. } => "oversized",
            Self::TypeNotSupported(_) => "type_not_supported",
            Self::Unprotected => "unprotected",
            Self::WrongChain { .. } => "wrong_chain",
            Self::GasAboveBlock { .. } => "gas_above_block",
            Self::GasAboveCap { .. } => "gas_above_cap",
            Self::IntrinsicGas { .. } => "intrinsic_gas",
            Self::FloorGas { .. } => "floor_gas",
            Self::InitCode { .. } => "init_code",
            Self::TipAboveFee { .. } => "tip_above_fee",
            Self::Underpriced { .. } => "underpriced",
            Self::EmptyAuthorizations => "empty_authorizations",
            Self::AlreadyKnown => "already_known",
            Self::NonceTooLow { .. } => "nonce_too_low",
            Self::NonceMax(_) => "nonce_max",
            Self::NonceTooFar { .. } => "nonce_too_far",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::SenderHasCode(_) => "sender_has_code",
            Self::ReplacementUnderpriced => "replacement_underpriced",
            Self::DelegatedLimit => "delegated_limit",
            Self::SenderLimit(_) => "sender_limit",
            Self::SenderTooSlow { .. } => "sender_too_slow",
            Self::PoolFull => "pool_full",
            Self::State(_) => "state",
            Self::Closed => "closed",
        }
    }
}
