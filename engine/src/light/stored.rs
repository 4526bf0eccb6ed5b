//! What a store can show to those who trust validators and no server.

use super::FinalityProof;
use crate::{
    limits,
    ports::{Store, StoreError},
    query::EpochSet,
    types::{ConsensusHeader, Epoch, EpochStart, Finality, Height},
};

/// What shows that a durable block is final; `None` for block 0, which is so by itself.
///
/// # Errors
/// [`StoreError`]; `NotKept` where the block or those above it are kept no longer, `Unavailable` for a height that is
/// not durable, and where the certified header lies more than [`limits::FINALITY_HEADERS_MAX`] above the block.
pub fn proof_of(store: &dyn Store, height: Height) -> Result<Option<FinalityProof>, StoreError> {
    let block = store.block(height)?.ok_or(StoreError::Unavailable(height))?;
    let Some(Finality { certificate, .. }) = block.finality else { return Ok(None) };
    let certified = certificate.statement.id();
    let mut headers = vec![block.block.consensus.clone()];
    // Above the last block of an epoch only tail headers are final, which lie beside the start of the next.
    let start = store.epoch(Epoch(certificate.epoch.0.saturating_add(1)))?;
    let mut tail = start.map(|start| start.tail).unwrap_or_default();
    while headers.last().map(ConsensusHeader::id) != certified {
        let top = height.0.saturating_add(u64::try_from(headers.len()).unwrap_or(u64::MAX));
        let above = store.block(Height(top))?.map(|block| block.block.consensus.clone());
        let above =
            above.filter(|above| above.epoch() == certificate.epoch).or_else(|| tail.pop().map(|above| above.header));
        let Some(above) = above.filter(|_| headers.len() < limits::FINALITY_HEADERS_MAX) else {
            return Err(StoreError::Unavailable(height));
        };
        headers.push(above);
    }
    headers.reverse();
    Ok(Some(FinalityProof { headers, certificate, block: block.block.header.inner().clone() }))
}

/// Who votes in an epoch and, but for the first, the header and certificate that handed over to them; `None` if it has
/// not begun.
///
/// # Errors
/// [`StoreError`].
pub fn set_of(store: &dyn Store, epoch: Epoch) -> Result<Option<EpochSet>, StoreError> {
    if epoch == Epoch(0) {
        let set = store.chain().validator_set().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        return Ok(Some((set, None)));
    }
    let Some(EpochStart { set, base, handover, tail }) = store.epoch(epoch)? else { return Ok(None) };
    let last = || -> Result<Option<ConsensusHeader>, StoreError> {
        let Some(height) = store.height_of_id(base)? else { return Ok(None) };
        Ok(store.block(height)?.map(|block| block.block.consensus.clone()))
    };
    let header = match tail.into_iter().next() {
        Some(top) => Some(top.header),
        None => last()?,
    };
    let header = header.ok_or_else(|| StoreError::Corrupt(format!("epoch {epoch} began on no block")))?;
    Ok(Some((set, Some((header, handover)))))
}
