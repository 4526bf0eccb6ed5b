//! Which block comes next, and when it is final: a pure state machine.
//!
//! [`machine`] is the protocol, for one validator as for hundreds: in [`rules`] stands who may sign what and why that
//! is safe, in [`event`] what goes in and comes out. The pipeline feeds it and carries out what it asks for.
//!
//! No clock, socket, file, thread, randomness or await is in here: inputs come in, outputs go out, time is handed in,
//! timers are handed out. Equal inputs give equal outputs, byte for byte.
//!
//! On a chain of one validator its own share is a quorum, so a block is proposed, notarized and final in one step: what
//! was signed is synced, and the block is committed.

mod allowance;
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
mod ranges;
pub mod rules;
pub mod serving;
mod sync;
mod timers;
pub mod verify;
mod votes;
mod voting;
