//! What the tests in `it/` and `clusters/` stand on: real nodes as child processes, alone and as clusters with networks
//! and machines that fail, a JSON-RPC client, signed transactions.
//!
//! Everything random prints its seed and takes it back through `SLUICE_SEED`.

pub mod client;
pub mod cluster;
pub mod flood;
pub mod liar;
pub mod machine;
pub mod namespaces;
pub mod node;
pub mod power;
pub mod relay;
pub mod rng;
pub mod rpc;
pub mod simulation;
pub mod wallet;
pub mod whole;
