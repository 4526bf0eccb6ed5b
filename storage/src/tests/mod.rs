//! The store through its public door: random blocks against a plain model, crashes, refusals.

mod blocks;
mod crash;
mod full;
mod golden;
mod history;
pub(crate) mod kit;
mod log;
mod logs;
pub(crate) mod model;
mod offline;
mod opening;
mod operations;
mod prune;
mod room;
mod scrub;
