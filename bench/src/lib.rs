//! Measures: the canonical load shapes, shared by `sluice load`, the criterion benches and the tests.
//!
//! ```text
//!  Settings -> Plan --- phases()        set-up: fund, deploy, configure, enter, crash
//!              |   \--- operations      what is timed, in order of intended arrival
//!              |        sign()          the same as EIP-1559 transactions
//!              |
//!              +-> expect::Model        replays operations in chain order: what every balance must be
//! ```
//!
//! A plan is a function of its settings: the same seed gives the same bytes, transaction for transaction.
//! Nothing here knows a node; whoever drives one brings nonces, fees and gas limits.
//!
//! Reading order: [`shapes`] (what is sent), [`contention`] (the same to find out how an executor bears conflicts),
//! [`world`] (on which contracts), [`plan`], [`sign`], [`expect`].
//! Apart from them: [`worst`], blocks that nobody means well with.

pub mod shapes;

pub mod contention;

pub mod operation;

pub mod encode;

pub mod world;

pub mod plan;

pub mod accounts;

pub mod sign;

pub mod expect;

pub mod artifacts;

pub mod calldata;

pub mod rng;

pub mod ceiling;

pub mod spread;

pub mod worst;

pub use accounts::{AccountId, Accounts};
pub use contention::Contention;
pub use operation::{Kind, Operation};
pub use plan::{Phase, Plan, Settings, Step, Traffic};
pub use shapes::Shape;
pub use world::World;
pub use worst::WorstCase;
