//! The log on a disk that fails and forgets: what was synced is there, what is there was appended, in order and whole.

mod crash;
mod damage;
mod golden;
mod interchange;
mod kit;
mod process;
mod room;
mod sync;
