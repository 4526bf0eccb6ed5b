//! What the tables come to: every row is read again, and makes the records of the tries and the roots.

use std::ops::ControlFlow;

use alloy_primitives::{B256, U256};

use super::{PortableError, Progress};
use crate::{
    error::Fault,
    failpoint::FailPoints,
    kv::{Env, Snapshot},
    load::{Chunk, StorageRecords},
    tables::{self, AccountRow, storage_key},
    trie::{
        node::Root,
        state::{AccountLeaf, StorageTrie},
        stream::Stream,
    },
};

/// Accounts from one telling of the progress to the next.
const TOLD_EVERY: u64 = 10_000;

/// Makes the records of all tries from the rows, which must make the storage roots that they name; gives the state
/// root.
pub(super) fn build(env: &Env, fail: &FailPoints, all: u64, told: &dyn Fn(Progress)) -> Result<B256, PortableError> {
    let mut txn = env.write()?;
    txn.clear(tables::ACCOUNT_NODE)?;
    txn.clear(tables::STORAGE_NODE)?;
    txn.commit()?;
    let rows = env.snapshot()?;
    let (mut chunk, mut accounts) = (Chunk::new(env, fail), Stream::default());
    let (mut progress, mut failure) = (Progress { all, ..Progress::default() }, None);
    rows.scan(tables::ACCOUNT, &[0], |key, row| {
        let mut one = || {
            let (key, row) = decoded(key, row)?;
            let (hash, slots) = storage(&rows, &row, &mut chunk)?;
            if hash != row.storage_root {
                let what = format!("the storage root of account {key}");
                return Err(PortableError::Root { what, expected: row.storage_root, found: hash });
            }
            let storage = StorageTrie { root: Root::stored(hash), hash, incarnation: None };
            accounts.push(key, AccountLeaf { account: row.account, storage }, &mut chunk)?;
            Ok(slots)
        };
        match one() {
            Ok(slots) => progress.rows = progress.rows.saturating_add(slots).saturating_add(1),
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        progress.done = progress.rows;
        if progress.rows % TOLD_EVERY == 0 {
            told(progress);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let root = accounts.finish(&mut chunk)?;
    chunk.write(true)?;
    told(Progress { done: all, ..progress });
    Ok(root)
}

fn decoded(key: &[u8], row: &[u8]) -> Result<(B256, AccountRow), PortableError> {
    let found = B256::try_from(key).ok().zip(AccountRow::decode(row));
    found.ok_or_else(|| PortableError::Store("an account row does not decode".to_owned()))
}

/// The storage root of an account's rows, and how many there are.
fn storage(rows: &Snapshot, row: &AccountRow, chunk: &mut Chunk<'_>) -> Result<(B256, u64), PortableError> {
    let id = row.storage_id;
    let (mut stream, mut count, mut failure) = (Stream::default(), 0_u64, None);
    let mut records = StorageRecords(id, chunk);
    if id != 0 {
        rows.scan(tables::STORAGE, &storage_key(id, &B256::ZERO), |key, value| {
            let Some(hashed) = key.strip_prefix(&id.to_be_bytes()) else { return ControlFlow::Break(()) };
            let slot = B256::try_from(hashed).ok().zip(U256::try_from_be_slice(value));
            let pushed = match slot {
                Some((key, value)) => stream.push(key, value, &mut records),
                None => Err(Fault::corrupt(format!("a storage row of {id} does not decode"))),
            };
            count = count.saturating_add(1);
            match pushed {
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => {
                    failure = Some(fault);
                    ControlFlow::Break(())
                }
            }
        })?;
    }
    if let Some(fault) = failure {
        return Err(fault.into());
    }
    Ok((stream.finish(&mut records)?, count))
}
