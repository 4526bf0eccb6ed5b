//! The store through its public door: random blocks against a plain model, crashes, refusals.

mod blocks;
mod crash;
mod kit;
mod model;
mod opening;
