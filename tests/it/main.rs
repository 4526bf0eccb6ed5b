//! Properties of the whole, in one test binary.

#![allow(clippy::print_stdout, reason = "a long test tells what it did")]

mod crash;
mod faults;
mod hostile;
mod rpc;
mod tidy;
