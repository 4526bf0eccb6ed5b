//! Which block comes next, and when it is final: pure state machines.
//!
//! [`machine`] is the protocol of many validators: in [`rules`] stands who may sign what and why that is safe, in
//! [`event`] what goes in and comes out. It does not drive a node yet: what follows, and [`Ordering`], is the chain of
//! one validator that the pipeline runs.
//!
//! The validator set of this chain is one validator that holds all the stake, so its own decision is a
//! quorum and every block it proposes is final the moment it is executed. What remains of the protocol
//! is pace: one slot per block, a block as soon as one is due, never further ahead of the disk than
//! [`crate::limits::COMMIT_QUEUE_BLOCKS_MAX`].
//!
//! The border is the one the consensus protocol keeps: [`Input`]s in, [`Output`]s out, time handed in,
//! timers handed out. No clock, socket, file, thread, randomness or await is in here; equal inputs give
//! equal outputs, byte for byte.
//!
//! ```text
//!  TransactionsWaiting --+
//!  Wake ----------------+|   due?    +--> Build(slot, parent, deadline) --> [execution]
//!  Committed ----------++|---------->+
//!                        |           +--> Wake(at)
//!  Built(block) ---------+--> Commit(block, Finalization) ----------------> [commit]
//! ```

mod blocks;
mod catching_up;
pub mod certify;
pub mod chain;
pub mod event;
mod inbound;
mod jobs;
pub mod journal;
pub mod leader;
mod leading;
pub mod machine;
pub mod pacemaker;
pub mod planted;
pub mod rules;
mod state;
#[cfg(test)]
mod tests;
mod timers;
pub mod verify;
mod votes;
mod voting;

use std::time::Duration;

use alloy_primitives::B256;

pub use self::{event::Now, state::Ordering};
use crate::types::{BuiltBlock, ConsensusHeader, FinalizedBlock, Height, ParentRef};

/// When a chain without transactions makes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Never: the next block waits for a transaction.
    Wait,
    /// An empty block after this long.
    EmptyAfter(Duration),
}

/// What ordering is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Chain id, for the consensus header.
    pub chain_id: u64,
    /// From one block to the next under load.
    pub slot_time: Duration,
    /// How long a build may take.
    pub build_time: Duration,
    /// What an idle chain does.
    pub idle: Idle,
    /// Executed blocks that may wait for the disk.
    pub in_flight_max: usize,
}

/// The block everything continues from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// Height.
    pub height: Height,
    /// Slot and id of its consensus header.
    pub parent: ParentRef,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: u64,
}

/// What reaches ordering.
#[derive(Debug)]
pub enum Input {
    /// The store is open and ends here; comes first, once.
    Start(Tip),
    /// The time asked for by [`Output::Wake`] has come.
    Wake,
    /// The pool has something that was not there at the last build.
    TransactionsWaiting,
    /// A build is done.
    Built {
        /// The block, executed.
        block: Box<BuiltBlock>,
        /// Executable transactions remain that this block had no room for.
        more: bool,
    },
    /// The store made every block up to this height durable.
    Committed(Height),
}

/// A block to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOrder {
    /// Everything in the consensus header but the hash of the Ethereum block.
    pub consensus: ConsensusHeader,
    /// Id of the parent's consensus header.
    pub parent_id: B256,
    /// How long the build may take from now.
    pub deadline: Duration,
}

/// What ordering asks for, in the order it must happen.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one is made at a time, and none is kept")]
pub enum Output {
    /// Build a block on the newest layer.
    Build(BuildOrder),
    /// The block is final: put its layer on top and make it durable.
    Commit(Box<FinalizedBlock>),
    /// Send [`Input::Wake`] at this time; replaces an earlier wish.
    Wake(Duration),
}
