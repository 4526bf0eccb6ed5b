//! Errors inside the vm, before they become one of the port's.

use std::time::Duration;

use engine::ports::{ExecutionError, StateError};
use revm::{
    context_interface::result::{EVMError, InvalidTransaction},
    database_interface::DBErrorMarker,
};

/// A failed state read on its way through revm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ViewError(#[from] pub StateError);

impl DBErrorMarker for ViewError {}

/// Why a transaction is not in the block.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not valid on this state in this block.
    #[error("{0}")]
    Invalid(InvalidTransaction),
    /// The block has less gas left than the transaction asks for.
    #[error("gas limit of the transaction is {wanted}, left in the block are {left}")]
    BlockGas {
        /// Gas limit of the transaction.
        wanted: u64,
        /// Gas left in the block.
        left: u64,
    },
    /// The block has less blob gas left than the transaction uses.
    #[error("blob gas of the transaction is {wanted}, left in the block are {left}")]
    BlobGas {
        /// Blob gas of the transaction.
        wanted: u64,
        /// Blob gas left in the block.
        left: u64,
    },
    /// It might take longer than the block under construction has time left.
    #[error("the transaction may take {wanted:?}, left for the block are {left:?}")]
    BlockTime {
        /// What all of its gas takes in the worst case.
        wanted: Duration,
        /// Time left for the block's transactions.
        left: Duration,
    },
    /// It took longer than the block under construction had time left.
    #[error("the transaction took {took:?}, left for the block were {left:?}")]
    TooSlow {
        /// What it took.
        took: Duration,
        /// Time that was left for the block's transactions.
        left: Duration,
    },
    /// The state below could not be read; nothing can be said about the transaction.
    #[error(transparent)]
    State(#[from] StateError),
    /// revm gave up for a reason that is neither the transaction's nor the state's.
    #[error("evm: {0}")]
    Evm(String),
}

impl From<EVMError<ViewError>> for Refusal {
    fn from(error: EVMError<ViewError>) -> Self {
        match error {
            EVMError::Transaction(invalid) => Self::Invalid(invalid),
            EVMError::Database(ViewError(state)) => Self::State(state),
            other => Self::Evm(other.to_string()),
        }
    }
}

impl Refusal {
    /// The port's error for a block that carries this transaction at `index`.
    #[must_use]
    pub fn in_block(self, index: usize) -> ExecutionError {
        match self {
            Self::State(state) => ExecutionError::State(state),
            other => ExecutionError::Invalid(format!("transaction {index}: {other}")),
        }
    }
}
