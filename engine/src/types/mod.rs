//! The words of the chain: what flows from a socket to a durable block.
//!
//! A value's type names the stage it has passed; no function accepts an earlier one:
//!
//! ```text
//! RawTransaction -> PooledTransaction -> BuiltBlock -> ExecutedBlock -> FinalizedBlock -> CommittedBlock
//!     bytes          sender known,       leader only    has a layer,     ordered for       durable here
//!                    payable                            header equal     ever
//! ```

pub mod access_list;
pub mod block;
pub mod codec;
pub mod ids;
pub mod layer;
pub mod log_filter;
pub mod message;
pub mod receipt;
#[cfg(test)]
mod tests;
pub mod transaction;
pub mod validator;
pub mod vote;
pub mod wish;

pub use access_list::{AccessList, NamedList};
pub use block::{
    Block, BlockBody, BuiltBlock, CommittedBlock, ConsensusHeader, ExecutedBlock, Finality, FinalizedBlock,
};
pub use ids::{Epoch, Gas, Height, Slot, Stake, ValidatorIndex};
pub use layer::{Account, AccountChange, SlotChange, StateChanges, TrieHandle};
pub use log_filter::{LogBlocks, LogFilter};
pub use message::{
    Chain, Contact, Evidence, Fetch, Highest, Incoming, Letter, Message, Proposal, Range, SignedHeader, Status,
};
pub use receipt::Receipt;
pub use transaction::{Envelope, PooledTransaction, RawTransaction, Transaction};
pub use validator::{EpochStart, PublicKey, Validator, ValidatorSet};
pub use vote::{Certificate, Domain, Signature, Signers, Statement, Vote};
pub use wish::{HeadSlice, StateWish};
