//! **vm** computes: transactions and a state view become receipts, state changes and a header.
//!
//! Execution is a function of (parent state, block) and nothing else: no clock, no file, no socket, no
//! randomness, no curve for senders (they come with the transactions).
//!
//! Modules in reading order:
//!
//! - [`executor`]: the door; builds and executes blocks, answers calls.
//! - [`rules`]: what a header and a body must look like, Ethereum's way and Sluice's.
//! - [`sequential`]: the plain loop, one transaction after the other.
//! - `pace`: how long the transactions of a block under construction may take.
//! - `lead`: the same loop with other threads guessing ahead of it; `guess`: one attempt of one transaction;
//!   `versions`: what guesses read, multi-version memory.
//! - `hint`: what waiting transactions tell beforehand.
//! - `replay`: all transactions at once, along the block's access list; `access_list`: the state at each
//!   index of a list, and the comparison with it; `record`: how a list is made; [`workers`]: the threads.
//! - [`arrival`]: the same for a block that is still arriving, part by part.
//! - `transfer`: native transfers, without the interpreter.
//! - `dependencies`: which transactions need others before them, for those who measure.
//! - [`system`]: what a block does by itself: system contracts, requests, withdrawals.
//! - [`outcome`]: receipts, blooms, roots.
//! - [`database`]: a block's view of the state, as revm reads and writes it; [`code`]: analysed code.
//! - `crypto`: the arithmetic of precompiles, where revm's own is too slow for its price.
//! - [`mod@env`]: revm's block, chain and transaction settings.
//! - [`call`]: eth_call, gas estimation, access lists.
//! - [`intrinsic`]: what can be said about a transaction without any state.

mod access_list;
pub mod arrival;
pub mod call;
pub mod code;
mod crypto;
pub mod database;
mod dependencies;
pub mod env;
pub mod error;
pub mod executor;
mod guess;
mod hint;
pub mod intrinsic;
mod lead;
pub mod metrics;
pub mod outcome;
mod pace;
mod record;
pub mod replay;
pub mod rules;
pub mod sequential;
mod sync;
pub mod system;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "a part of it is for this room's tests alone"))]
#[expect(clippy::unwrap_used, reason = "a kit for tests and benches")]
mod testing;
mod transfer;
mod versions;
pub mod workers;

pub use arrival::Arrival;
pub use executor::RevmExecutor;
pub use rules::HeaderRules;
#[cfg(feature = "testing")]
pub use testing::traffic::{Adversarial, adversarial};
