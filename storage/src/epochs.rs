//! How epochs began: one row each, written when the block that an epoch began on is durable; and one for each tail
//! header, by its id, for those who catch up over the end of an epoch.

use alloy_primitives::B256;
use alloy_rlp::{Decodable as _, encode};
use engine::{
    ports::StoreError,
    types::{Epoch, EpochStart, SignedHeader},
};

use crate::{error::Fault, store::Inner, tables};

/// Writes the row of an epoch that began; durable when it returns.
pub(crate) fn begin(inner: &Inner, start: &EpochStart) -> Result<(), StoreError> {
    inner.check()?;
    let write = || -> Result<(), Fault> {
        let mut txn = inner.chain_env.write()?;
        txn.put(tables::EPOCH, &start.set.epoch().0.to_be_bytes(), &encode(start))?;
        for above in &start.tail {
            txn.put(tables::EPOCH, above.header.id().as_slice(), &encode(above))?;
        }
        inner.fail.hit("epoch.row").map_err(Fault::Failed)?;
        Ok(txn.commit()?)
    };
    write().map_err(|fault| StoreError::from(inner.poison(fault)))
}

/// How an epoch began.
pub(crate) fn find(inner: &Inner, epoch: Epoch) -> Result<Option<EpochStart>, Fault> {
    let read = |mut row: &[u8]| EpochStart::decode(&mut row);
    let row = inner.chain_env.snapshot()?.get(tables::EPOCH, &epoch.0.to_be_bytes(), read)?;
    row.transpose().map_err(|error| Fault::corrupt(format!("the row of epoch {epoch} does not decode: {error}")))
}

/// A tail header by its id.
pub(crate) fn tail_header(inner: &Inner, id: B256) -> Result<Option<SignedHeader>, Fault> {
    let read = |mut row: &[u8]| SignedHeader::decode(&mut row);
    let row = inner.chain_env.snapshot()?.get(tables::EPOCH, id.as_slice(), read)?;
    row.transpose().map_err(|error| Fault::corrupt(format!("the row of tail header {id} does not decode: {error}")))
}
