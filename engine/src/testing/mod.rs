//! The simulator kit: the world as a test wants it.

pub mod executor;
pub mod journal;
pub mod mock;
pub mod network;
pub mod state;
pub mod store;

pub use executor::{PANIC_GAS, ToyExecutor};
pub use journal::MemoryJournal;
pub use mock::{MockScheme, MockSigner};
pub use network::RecordingNetwork;
pub use state::{MapAccount, MapState};
pub use store::MemoryStore;

use crate::types::{Certificate, ConsensusHeader, Finality, Signature, Signers, Statement, ValidatorIndex};

/// What a set of one says of a block, with signatures that are none: for those who only carry it.
#[must_use]
pub fn finality(header: &ConsensusHeader) -> Finality {
    let mut signers = Signers::none(1);
    signers.add(ValidatorIndex(0));
    let statement = Statement::Finalize { slot: header.slot(), id: header.id() };
    let signature = Signature(alloy_primitives::FixedBytes::repeat_byte(0x5a));
    let certificate = Certificate { epoch: header.epoch(), statement, signers, signature };
    Finality { proposal: signature, certificate }
}
