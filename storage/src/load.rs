//! A whole state into empty tables, in order of hashed address: genesis. And the records of one whose rows are there.
//!
//! Rows are written in chunks, each a transaction of its own; whatever calls this writes last the row that makes the
//! state count. Memory is bounded by a chunk, however large the state is.

use alloy_primitives::{B256, U256};
use engine::types::Account;

use crate::{
    error::Fault,
    failpoint::FailPoints,
    kv::{Env, Table},
    tables::{self, AccountRow, storage_key},
    trie::{
        node::{Branch, Root},
        record,
        state::{AccountLeaf, Incarnation, StorageTrie},
        stream::{Records, Stream},
    },
};

/// Rows per transaction.
const CHUNK_ROWS: usize = 200_000;

type Row = (Vec<u8>, Vec<u8>);

/// Rows that wait for their transaction, by table.
pub(crate) struct Chunk<'e> {
    env: &'e Env,
    fail: &'e FailPoints,
    accounts: Vec<Row>,
    slots: Vec<Row>,
    account_nodes: Vec<Row>,
    storage_nodes: Vec<Row>,
    rows: usize,
}

impl<'e> Chunk<'e> {
    /// An empty one.
    pub(crate) fn new(env: &'e Env, fail: &'e FailPoints) -> Self {
        let (accounts, slots, account_nodes, storage_nodes) = Default::default();
        Self { env, fail, accounts, slots, account_nodes, storage_nodes, rows: 0 }
    }

    /// Writes what waits if it is a chunk, or if it is the last one.
    pub(crate) fn write(&mut self, is_last: bool) -> Result<(), Fault> {
        if self.rows < CHUNK_ROWS && !is_last {
            return Ok(());
        }
        let mut txn = self.env.write()?;
        // Rows of leaves come in order of key. A branch comes after what is below it, so records have to be sorted.
        self.account_nodes.sort_unstable();
        self.storage_nodes.sort_unstable();
        let appended: [(Table, &mut Vec<Row>); 2] =
            [(tables::ACCOUNT, &mut self.accounts), (tables::STORAGE, &mut self.slots)];
        for (table, rows) in appended {
            for (key, value) in rows.drain(..) {
                txn.append(table, &key, &value)?;
            }
        }
        let sorted: [(Table, &mut Vec<Row>); 2] =
            [(tables::ACCOUNT_NODE, &mut self.account_nodes), (tables::STORAGE_NODE, &mut self.storage_nodes)];
        for (table, rows) in sorted {
            for (key, value) in rows.drain(..) {
                txn.put(table, &key, &value)?;
            }
        }
        self.rows = 0;
        txn.commit()?;
        self.fail.hit("genesis.rows").map_err(Fault::Failed)
    }
}

impl Records<AccountLeaf> for Chunk<'_> {
    type Error = Fault;

    fn record(&mut self, position: &[u8], branch: &Branch<'_, B256, AccountLeaf>) -> Result<(), Fault> {
        let mut key = Vec::with_capacity(8);
        record::position_key(position, &mut key);
        self.account_nodes.push((key, record::encode(branch)));
        self.rows = self.rows.saturating_add(1);
        self.write(false)
    }
}

/// The records of the storage trie with this id.
pub(crate) struct StorageRecords<'c, 'e>(pub(crate) u64, pub(crate) &'c mut Chunk<'e>);

impl Records<U256> for StorageRecords<'_, '_> {
    type Error = Fault;

    fn record(&mut self, position: &[u8], branch: &Branch<'_, B256, U256>) -> Result<(), Fault> {
        let mut key = Vec::with_capacity(16);
        key.extend_from_slice(&self.0.to_be_bytes());
        record::position_key(position, &mut key);
        self.1.storage_nodes.push((key, record::encode(branch)));
        self.1.rows = self.1.rows.saturating_add(1);
        self.1.write(false)
    }
}

/// Loads accounts one after the other.
pub(crate) struct Loader<'e> {
    chunk: Chunk<'e>,
    accounts: Stream<AccountLeaf>,
    next_storage_id: u64,
}

impl<'e> Loader<'e> {
    /// Empties the tables and begins.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn new(env: &'e Env, fail: &'e FailPoints) -> Result<Self, Fault> {
        let mut txn = env.write()?;
        for table in [
            tables::ACCOUNT,
            tables::STORAGE,
            tables::ACCOUNT_NODE,
            tables::STORAGE_NODE,
            tables::CODE,
            tables::GARBAGE,
        ] {
            txn.clear(table)?;
        }
        txn.commit()?;
        Ok(Self { chunk: Chunk::new(env, fail), accounts: Stream::default(), next_storage_id: 1 })
    }

    /// Adds an account and its slots, none of them zero; hashed addresses rise, and so do hashed keys.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn account(
        &mut self,
        hashed: B256,
        account: Account,
        slots: impl Iterator<Item = (B256, U256)>,
    ) -> Result<(), Fault> {
        let id = self.next_storage_id;
        let (mut stream, mut has_slots) = (Stream::default(), false);
        let mut records = StorageRecords(id, &mut self.chunk);
        for (key, value) in slots {
            has_slots = true;
            records.1.slots.push((storage_key(id, &key).to_vec(), value.to_be_bytes_trimmed_vec()));
            records.1.rows = records.1.rows.saturating_add(1);
            stream.push(key, value, &mut records)?;
        }
        let hash = stream.finish(&mut records)?;
        let incarnation = has_slots.then(|| Incarnation::stored(id));
        if has_slots {
            self.next_storage_id = id.saturating_add(1);
        }
        let storage_id = if has_slots { id } else { 0 };
        let row = AccountRow { account, storage_id, storage_root: hash };
        self.chunk.accounts.push((hashed.to_vec(), row.encode()));
        self.chunk.rows = self.chunk.rows.saturating_add(1);
        let storage = StorageTrie { root: Root::stored(hash), hash, incarnation };
        self.accounts.push(hashed, AccountLeaf { account, storage }, &mut self.chunk)?;
        self.chunk.write(false)
    }

    /// Ends the state; gives its root and the next free storage id.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn finish(mut self) -> Result<(B256, u64), Fault> {
        let root = self.accounts.finish(&mut self.chunk)?;
        self.chunk.write(true)?;
        Ok((root, self.next_storage_id))
    }
}
