//! **engine** decides: the words, the rules and the pipeline. No socket, no file, no async runtime.
//!
//! Modules in reading order:
//!
//! - [`pipeline`]: the main flow; builds the stages, their queues and threads.
//! - [`types`]: the words, and the types whose names tell the stage a value has passed.
//! - [`ports`]: what the rules need from the world.
//! - [`genesis`]: chain parameters, fork schedule, block 0.
//! - [`admission`]: from raw bytes to a pooled transaction, and the pool.
//! - [`hints`]: when a waiting transaction is simulated, for those who will build with it.
//! - [`ordering`]: the pure state machine that decides which block comes next and when it is final.
//! - [`crypto`]: who signed what.
//! - [`dissemination`]: a large body in shares, any so many of which give it back.
//! - [`light`]: finality without a node, for those who trust a validator set alone.
//! - [`execution`]: which layer lies on which parent.
//! - [`commit`]: finalized blocks, in order, through the store.
//! - [`query`] and [`events`]: what clients may ask and hear.
//! - [`limits`]: every bound. [`metrics`]: every name and counter.

pub mod admission;
pub mod commit;
pub mod crypto;
pub mod dissemination;
pub mod events;
pub mod execution;
pub mod genesis;
pub mod hints;
pub mod light;
pub mod limits;
pub mod metrics;
pub mod ordering;
pub mod pipeline;
pub mod ports;
pub mod query;
pub mod spans;
pub mod standing;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod types;
