//! Block 0: its state root, its block, and how its accounts get into the tables.
//!
//! Loading writes rows in chunks and `applied` last, so a load that was interrupted is known by its
//! absence and starts over.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use engine::{
    genesis::{ChainSpec, GenesisAccount},
    types::{Account, CommittedBlock, Height},
};

use crate::{
    error::{Fault, OpenError},
    failpoint::FailPoints,
    kv::Env,
    load::Loader,
    tables::{self, Applied, meta},
    trie::{
        encode::hash_all,
        node::Root,
        state::{AccountLeaf, StorageTrie},
        stream::{NoRecords, Stream},
    },
};

/// The genesis accounts in order of their hash.
fn in_order(alloc: &BTreeMap<Address, GenesisAccount>) -> Vec<(B256, &GenesisAccount)> {
    let hashes = hash_all(alloc.keys().map(|address| address.as_slice()));
    let mut order: Vec<_> = hashes.into_iter().zip(alloc.values()).collect();
    order.sort_unstable_by_key(|(hashed, _)| *hashed);
    order
}

/// The slots of a genesis account that are not zero, in order of their hash.
fn slots(account: &GenesisAccount) -> Vec<(B256, U256)> {
    let keys: Vec<[u8; 32]> = account.storage.keys().map(U256::to_be_bytes).collect();
    let hashes = hash_all(keys.iter().map(<[u8; 32]>::as_slice));
    let slots = hashes.into_iter().zip(account.storage.values().copied());
    let mut slots: Vec<_> = slots.filter(|(_, value)| !value.is_zero()).collect();
    slots.sort_unstable_by_key(|(hashed, _)| *hashed);
    slots
}

fn account(genesis: &GenesisAccount) -> Account {
    let code_hash = if genesis.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&genesis.code) };
    Account { nonce: genesis.nonce, balance: genesis.balance, code_hash }
}

/// The state root of the genesis accounts, for the header of block 0.
#[must_use]
pub fn state_root(alloc: &BTreeMap<Address, GenesisAccount>) -> B256 {
    let mut accounts = Stream::default();
    let outcome = in_order(alloc).into_iter().try_for_each(|(hashed, genesis)| {
        let mut storage = Stream::default();
        slots(genesis).into_iter().try_for_each(|(key, value)| storage.push(key, value, &mut NoRecords))?;
        let hash = storage.finish(&mut NoRecords)?;
        let storage = StorageTrie { root: Root::stored(hash), hash, incarnation: None };
        accounts.push(hashed, AccountLeaf { account: account(genesis), storage }, &mut NoRecords)
    });
    let Ok(root) = outcome.and_then(|()| accounts.finish(&mut NoRecords)).map_err(|never: Infallible| match never {});
    root
}

/// Block 0 as the store shows it.
pub(crate) fn block(chain: &ChainSpec) -> CommittedBlock {
    CommittedBlock { block: Arc::new(chain.genesis_block()), receipts: Arc::default(), finality: None }
}

/// Loads the genesis state into empty tables.
pub(crate) fn load(env: &Env, chain: &ChainSpec, fail: &FailPoints) -> Result<(), OpenError> {
    let mut loader = Loader::new(env, fail)?;
    for (hashed, genesis) in in_order(&chain.alloc) {
        loader.account(hashed, account(genesis), slots(genesis).into_iter())?;
    }
    let (root, next_storage_id) = loader.finish()?;
    if root != chain.genesis_header.state_root {
        return Err(OpenError::GenesisRoot { header: chain.genesis_header.state_root, accounts: root });
    }
    Ok(finish(env, chain, next_storage_id, fail)?)
}

/// Writes the codes, and the rows that make the state count.
fn finish(env: &Env, chain: &ChainSpec, next_storage_id: u64, fail: &FailPoints) -> Result<(), Fault> {
    let mut txn = env.write()?;
    for account in chain.alloc.values().filter(|account| !account.code.is_empty()) {
        txn.put(tables::CODE, keccak256(&account.code).as_slice(), &account.code)?;
    }
    let root = chain.genesis_header.state_root;
    let applied = Applied { height: Height::GENESIS, hash: chain.genesis_hash(), root };
    txn.put(tables::STATE_META, meta::NEXT_STORAGE_ID, &next_storage_id.to_be_bytes())?;
    txn.put(tables::STATE_META, meta::APPLIED, &applied.encode())?;
    fail.hit("genesis.applied").map_err(Fault::Failed)?;
    Ok(txn.commit()?)
}
