//! What the tests in `it/` stand on: real nodes as child processes, a JSON-RPC client, signed transactions.
//!
//! Everything random prints its seed and takes it back through `SLUICE_SEED`.

pub mod client;
pub mod machine;
pub mod namespaces;
pub mod node;
pub mod relay;
pub mod rng;
pub mod rpc;
pub mod simulation;
pub mod wallet;
pub mod whole;
