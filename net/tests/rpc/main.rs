//! The JSON-RPC server over loopback, in front of a whole pipeline with a toy in place of the EVM.

mod kit;

mod batches;
mod doors;
mod methods;
mod perf;
mod refusals;
mod sending;
mod stopping;
mod subscriptions;
