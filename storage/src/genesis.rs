//! Block 0: its state root, its block, and how its accounts get into the tables.
//!
//! Loading writes rows in chunks and `applied` last, so a load that was interrupted is known by its
//! absence and starts over.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use engine::{
    genesis::{ChainSpec, GenesisAccount},
    types::{Account, AccountChange, CommittedBlock, Height, SlotChange, StateChanges},
};

use crate::{
    checkpoint::{Batch, write_rows},
    error::{Fault, OpenError},
    failpoint::FailPoints,
    kv::Env,
    tables::{self, Applied, meta},
    trie::state::{NoState, StateTrie},
};

/// Rows per transaction while loading.
const CHUNK_ROWS: usize = 200_000;

/// The genesis accounts as changes to the empty state.
#[must_use]
pub fn changes(alloc: &BTreeMap<Address, GenesisAccount>) -> StateChanges {
    let mut changes = StateChanges::default();
    for (address, genesis) in alloc {
        let code_hash = if genesis.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&genesis.code) };
        if !genesis.code.is_empty() {
            changes.codes.insert(code_hash, genesis.code.clone());
        }
        let after = Some(Account { nonce: genesis.nonce, balance: genesis.balance, code_hash });
        let slots = genesis
            .storage
            .iter()
            .map(|(key, value)| (*key, SlotChange { before: alloy_primitives::U256::ZERO, after: *value }));
        let change = AccountChange { before: None, after, wiped: false, slots: slots.collect() };
        changes.accounts.insert(*address, change);
    }
    changes
}

fn trie(alloc: &BTreeMap<Address, GenesisAccount>) -> StateTrie {
    let empty = StateTrie { root: None, hash: EMPTY_ROOT_HASH };
    empty.apply(&changes(alloc), &NoState).expect("a trie in memory has nothing to resolve")
}

/// The state root of the genesis accounts, for the header of block 0.
#[must_use]
pub fn state_root(alloc: &BTreeMap<Address, GenesisAccount>) -> B256 {
    trie(alloc).hash
}

/// Block 0 as the store shows it.
pub(crate) fn block(chain: &ChainSpec) -> CommittedBlock {
    CommittedBlock { block: Arc::new(chain.genesis_block()), receipts: Arc::default(), finality: None }
}

/// Loads the genesis state into empty tables.
pub(crate) fn load(env: &Env, chain: &ChainSpec, fail: &FailPoints) -> Result<(), OpenError> {
    let new = trie(&chain.alloc);
    if new.hash != chain.genesis_header.state_root {
        return Err(OpenError::GenesisRoot { header: chain.genesis_header.state_root, accounts: new.hash });
    }
    fill(env, chain, &new, fail).map_err(OpenError::from)
}

fn fill(env: &Env, chain: &ChainSpec, new: &StateTrie, fail: &FailPoints) -> Result<(), Fault> {
    let mut txn = env.write()?;
    for table in
        [tables::ACCOUNT, tables::STORAGE, tables::ACCOUNT_NODE, tables::STORAGE_NODE, tables::CODE, tables::GARBAGE]
    {
        txn.clear(table)?;
    }
    txn.commit()?;
    let empty = StateTrie { root: None, hash: EMPTY_ROOT_HASH };
    let batch = Batch::collect(&empty, new, &NoState, 1)?;
    for (table, rows) in batch.tables() {
        for chunk in rows.chunks(CHUNK_ROWS) {
            let mut txn = env.write()?;
            write_rows(&mut txn, table, chunk)?;
            txn.commit()?;
            fail.hit("genesis.rows").map_err(Fault::Failed)?;
        }
    }
    let mut txn = env.write()?;
    for account in chain.alloc.values().filter(|account| !account.code.is_empty()) {
        txn.put(tables::CODE, keccak256(&account.code).as_slice(), &account.code)?;
    }
    let applied = Applied { height: Height::GENESIS, hash: chain.genesis_hash(), root: new.hash };
    txn.put(tables::STATE_META, meta::NEXT_STORAGE_ID, &batch.next_storage_id.to_be_bytes())?;
    txn.put(tables::STATE_META, meta::APPLIED, &applied.encode())?;
    fail.hit("genesis.applied").map_err(Fault::Failed)?;
    Ok(txn.commit()?)
}
