//! The only room that opens files: blocks in append-only segments, state in MDBX, the state trie, the write-ahead log.
//!
//! ```text
//! commit(blocks)  -> segments/NNNNNNNN.seg   one fdatasync, then the blocks are final to the world
//!                 -> overlay, trie handles   what changed since the checkpoint, in memory
//! checkpoint      -> state/, chain/          every few seconds, many blocks in one MDBX transaction
//! view(height)    -> overlay, else snapshot  frozen, shared by threads; of old heights: index, then the records
//! checkpoint      -> past/FIRST-LAST.past    what it replaces, for proofs of old heights
//! checkpoint      -> prune                   what is older than the settings keep, whole segments at a time
//! open            -> recovery                replays the records above the checkpoint
//! journal()       -> log/NNNNNNNN.log        what was signed here, synced before it is sent
//! keep_waiting()  -> waiting                 what waits in the pool as the node stops, for its next start
//! ```
//!
//! Modules in reading order: [`store`] (the port), `open` and `recovery`, `commit`, `segment`,
//! `record`, `blocks`, [`log`], `index`, `checkpoint`, `prefetch`, `overlay`, `cache`, `view`, `history`, `past`,
//! `snapshot`, [`trie`], `tables`, `pages`, `prune`, `scrub`, `kv`, `load`, [`portable`], `waiting`, `disk`, `place`,
//! [`offline`].

pub mod store;

mod blocks;
mod cache;
mod checkpoint;
mod commit;
mod disk;
mod epochs;
mod error;
pub mod failpoint;
pub mod genesis;
mod history;
mod housekeeper;
mod index;
mod kv;
mod load;
pub mod log;
pub mod metrics;
pub mod offline;
mod open;
mod overlay;
mod pages;
mod past;
mod place;
pub mod portable;
mod prefetch;
mod prune;
mod rebuild;
mod record;
mod recovery;
mod scrub;
mod segment;
mod snapshot;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trie;
mod view;
mod waiting;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small random numbers; seeds are printed")]
mod tests;

pub use error::OpenError;
pub use prune::Keep;
pub use scrub::{Finding, Scrubbed};
pub use store::{CheckpointPolicy, Config, Database};
