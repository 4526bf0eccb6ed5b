//! A cluster in one thread: the real ordering code of every validator, and everything else made up from a seed.
//!
//! ```text
//! heap of events by time    Deliver, Wake, JobDone, Synced, Durable, Crash, Restart, ..
//!   -> one node's Machine   -> outputs -> network (delay, loss, partitions), disk (syncs), executor (time)
//!   -> oracle               after every event: nothing that may not be
//! ```
//!
//! Promise: equal options give equal events, and the trace hash says so. No clock and no thread is in here.

mod answers;
mod cluster;
mod costs;
pub mod crashes;
pub mod disk;
pub mod faults;
mod hosting;
pub mod keys;
mod ledger;
mod lies;
pub mod network;
pub mod node;
pub mod options;
pub mod oracle;
mod plan;
pub mod report;
mod traffic;
mod watch;
mod witness;
pub mod world;

pub use answers::Lie;
pub use crashes::CrashPoint;
pub use faults::{FaultKind, Faults};
pub use options::Options;
pub use report::Report;
pub use world::World;
