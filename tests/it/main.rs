//! Properties of the whole, in one test binary.

mod crash;
mod faults;
mod hostile;
mod rpc;
mod tidy;
