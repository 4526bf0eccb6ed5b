//! The JSON-RPC server over loopback, in front of a whole pipeline with a toy in place of the EVM.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod kit;

mod batches;
mod doors;
mod methods;
mod refusals;
mod sending;
mod stopping;
mod subscriptions;
