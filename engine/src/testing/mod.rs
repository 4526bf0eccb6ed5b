//! The simulator kit: the world as a test wants it.

pub mod executor;
pub mod journal;
pub mod mock;
pub mod network;
pub mod state;
pub mod store;

use std::{collections::BTreeMap, sync::Arc};

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, Bytes};

pub use executor::{PANIC_GAS, ToyExecutor};
pub use journal::MemoryJournal;
pub use mock::{MockScheme, MockSigner};
pub use network::RecordingNetwork;
pub use state::{MapAccount, MapState};
pub use store::MemoryStore;

use crate::{
    genesis::GenesisAccount,
    types::{
        Certificate, ConsensusHeader, Finality, PooledTransaction, Signature, Signers, Statement, Transaction,
        ValidatorIndex,
    },
};

/// A transaction as admission leaves it, without its checks.
#[must_use]
pub const fn pooled(transaction: Arc<Transaction>) -> PooledTransaction {
    PooledTransaction::admitted(transaction)
}

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

/// Accounts of the contracts that every fork up to Osaka calls.
#[must_use]
pub fn system_contracts() -> BTreeMap<Address, GenesisAccount> {
    let codes = [
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE),
    ];
    let account = |code: &Bytes| GenesisAccount { nonce: 1, code: code.clone(), ..GenesisAccount::default() };
    codes.into_iter().map(|(address, code)| (address, account(code))).collect()
}
