//! The simulator kit: the world as a test wants it.

pub mod executor;
pub mod mock;
pub mod network;
pub mod state;
pub mod store;

pub use executor::{PANIC_GAS, ToyExecutor};
pub use mock::{MockScheme, MockSigner};
pub use network::RecordingNetwork;
pub use state::{MapAccount, MapState};
pub use store::MemoryStore;
