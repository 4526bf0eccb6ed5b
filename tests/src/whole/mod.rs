//! Whole nodes in one thread: the pipeline of each, the real vm, the real store and its log, by a seed.
//!
//! ```text
//! heap of events by time   Deliver, Wake, Job, Report, Append, Sync, Commit, Send, Crash, Start, Part, Heal
//!   -> one node's stage    -> letters to others (delay, loss, partitions), work for its other stages (time)
//!   -> oracle              after every event: one chain, nothing lost that was announced, nobody says two things
//! ```
//!
//! Segments and log lie on a disk in memory that tears what was not synced; MDBX is the real one, whose transactions
//! are there after a power cut if they were committed ([`storage::testing`]). Equal options give equal runs.

mod chain;
mod member;
mod oracle;
mod world;

pub use self::world::{Options, World};
