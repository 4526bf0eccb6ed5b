//! Power cuts, over all that a store keeps: segments, indices, the log and both MDBX environments.
//!
//! ```text
//! work      a store is opened, gets blocks, signs, checkpoints, is opened again; it marks what it promised
//! recorder  a C library, preloaded: every write, sync and change of a name, in order, in one trace
//! machine   plays the trace up to a cut and keeps apart what a sync covered and what none did
//! image     what a cut leaves: all that was covered, and of the rest what chance says, sector by sector
//! check     the store opens, and everything that was promised before the cut is there, and nothing else
//! ```
//!
//! What a machine may do to writes that no sync covers: each sector of 512 bytes holds any of the contents that it had
//! since the last sync, apart from every other sector; a file has any of the lengths that it had; each folder has its
//! names up to any of its changes, and the sync of a file makes no name durable. A sync that failed covers nothing, and
//! no later one covers what it should have. Some images are opened under the recorder in turn, and the recovery is cut.
//!
//! The same recorder lets the N-th write, sync or change of a name fail, once or from then on (see [`faults`]).
//!
//! And bits of a store that was closed are flipped, one at a time (see [`flips`]).
//!
//! Of every eight seeds one gives a run that is long enough for old segments to go, and one a store that begins with a
//! state which others give, part by part; both are cut at every step of that as well.
//!
//! A seed gives one run and its images. Work without threads of the store's own gives the same trace every time; with
//! them the trace of a failed run is kept, and `power --trace` plays it again.

pub mod campaign;
mod check;
pub mod faults;
pub mod flips;
mod image;
mod machine;
pub mod recorder;
mod taking;
pub mod trace;
pub mod work;

pub use check::Expected;
pub use machine::Machine;
pub use taking::Taken;
