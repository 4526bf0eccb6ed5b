//! How epochs began: one row each, written when the block that an epoch began on is durable; and one for each tail
//! header, by its id, for those who catch up over the end of an epoch.
//!
//! A row is RLP, then the CRC32C of its key and that; rows that were written before schema 2.1 end without.

use alloy_primitives::{B256, hex};
use alloy_rlp::{Decodable, encode};
use engine::{
    ports::StoreError,
    types::{Epoch, EpochStart, SignedHeader},
};

use crate::{
    error::Fault,
    kv::{KvError, WriteTxn},
    store::Inner,
    tables,
};

/// Writes the row of an epoch that began; durable when it returns.
pub(crate) fn begin(inner: &Inner, start: &EpochStart) -> Result<(), StoreError> {
    inner.check()?;
    let write = || -> Result<(), Fault> {
        let mut txn = inner.chain_env.write()?;
        put(&mut txn, start)?;
        for above in &start.tail {
            let id = above.header.id();
            txn.put(tables::EPOCH, id.as_slice(), &sealed(id.as_slice(), encode(above)))?;
        }
        inner.fail.hit("epoch.row").map_err(Fault::Failed)?;
        Ok(txn.commit()?)
    };
    write().map_err(|fault| StoreError::from(inner.poison(fault)))
}

/// Writes the row of an epoch, none of its tail headers.
pub(crate) fn put(txn: &mut WriteTxn<'_>, start: &EpochStart) -> Result<(), KvError> {
    let epoch = start.set.epoch().0.to_be_bytes();
    txn.put(tables::EPOCH, &epoch, &sealed(&epoch, encode(start)))
}

/// A row's bytes with their checksum.
fn sealed(key: &[u8], mut row: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &row);
    row.extend_from_slice(&crc.to_be_bytes());
    row
}

/// A whole row in the form of this schema.
pub(crate) fn resealed(key: &[u8], row: &[u8]) -> Result<Vec<u8>, Fault> {
    let rlp = match key.len() {
        8 => encode(opened::<EpochStart>(key, row)?),
        _ => encode(opened::<SignedHeader>(key, row)?),
    };
    Ok(sealed(key, rlp))
}

/// What a row holds, once its checksum is seen to be right.
pub(crate) fn opened<T: Decodable>(key: &[u8], row: &[u8]) -> Result<T, Fault> {
    let damaged = |error| Fault::corrupt(format!("the epoch row of {} does not decode: {error}", hex::encode(key)));
    let mut rest = row;
    let held = T::decode(&mut rest).map_err(damaged)?;
    let rlp = &row[..row.len() - rest.len()];
    if rest.is_empty() || sealed(key, rlp.to_vec()) == row {
        return Ok(held);
    }
    Err(Fault::corrupt(format!("the epoch row of {} has another checksum", hex::encode(key))))
}

/// Whether a row is what was written.
pub(crate) fn check(key: &[u8], row: &[u8]) -> Result<(), Fault> {
    let (is_it, held) = match key.len() {
        8 => {
            let start: EpochStart = opened(key, row)?;
            (start.set.epoch().0.to_be_bytes() == key, "the start of an epoch")
        }
        _ => (opened::<SignedHeader>(key, row)?.header.id().as_slice() == key, "a header"),
    };
    is_it.then_some(()).ok_or_else(|| Fault::corrupt(format!("{held} has another key")))
}

fn read<T: Decodable>(inner: &Inner, key: &[u8]) -> Result<Option<T>, Fault> {
    inner
        .chain_env
        .snapshot()?
        .get(tables::EPOCH, key, |row| check(key, row).and_then(|()| opened(key, row)))?
        .transpose()
}

/// How an epoch began.
pub(crate) fn find(inner: &Inner, epoch: Epoch) -> Result<Option<EpochStart>, Fault> {
    read(inner, &epoch.0.to_be_bytes())
}

/// A tail header by its id.
pub(crate) fn tail_header(inner: &Inner, id: B256) -> Result<Option<SignedHeader>, Fault> {
    read(inner, id.as_slice())
}
