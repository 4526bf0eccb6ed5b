//! Properties of the whole, in one test binary.

#![allow(clippy::print_stdout, reason = "a long test tells what it did")]

mod chain;
mod crash;
mod db;
mod faults;
mod finality;
mod hostile;
mod localnet;
mod log;
mod overload;
mod planted;
mod power;
mod prune;
mod quic;
mod rpc;
mod simulation;
mod snapshot;
mod tidy;
mod vectors;
mod worst;
