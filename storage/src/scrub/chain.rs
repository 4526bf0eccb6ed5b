//! Rows of the chain environment, compared with the blocks in the segments.

use std::ops::ControlFlow;

use alloy_consensus::{Header, Sealable as _};
use alloy_primitives::hex;
use alloy_rlp::Decodable as _;
use engine::types::Height;

use super::{BLOCKS_MAX, Scrubbed};
use crate::{
    blocks, epochs as rows_of_epochs,
    error::Fault,
    kv::Snapshot,
    segment::FIRST_OFFSET,
    store::Inner,
    tables::{self, Fields, Position, meta},
};

/// Rows of epochs that one step reads.
const EPOCHS_MAX: usize = 256;

/// Compares the rows of some blocks from a height on; the next height.
pub(super) fn blocks(inner: &Inner, from: u64, done: &mut Scrubbed) -> Result<Option<u64>, Fault> {
    let snapshot = inner.blocks.rows();
    let indexed = snapshot.get(tables::CHAIN_META, meta::INDEXED, |row| Fields(row).u64())?.flatten();
    let Some(indexed) = indexed else {
        done.find("meta", "the indexed row is missing or does not decode");
        return Ok(None);
    };
    // Of what lies below the base there is what came with it.
    let lowest = inner.segments.lowest().0;
    let mut height = from;
    for _ in 0..BLOCKS_MAX {
        if height < lowest {
            height = next_kept(&snapshot, height)?.unwrap_or(lowest).min(lowest);
        }
        if height > indexed {
            return Ok(None);
        }
        block(inner, &snapshot, Height(height), done)?;
        height = height.saturating_add(1);
    }
    Ok(Some(height))
}

/// The first height from one on that any row is of, or the genesis block, which is always there.
fn next_kept(snapshot: &Snapshot, from: u64) -> Result<Option<u64>, Fault> {
    if from == 0 {
        return Ok(Some(from));
    }
    let mut next = None;
    for table in [tables::CANONICAL, tables::HEADER, tables::LANDMARK] {
        let found = snapshot.seek(table, &from.to_be_bytes(), |key, _| Fields(key).u64())?.flatten();
        next = next.into_iter().chain(found).min();
    }
    Ok(next)
}

fn position(snapshot: &Snapshot, height: Height) -> Result<Option<Position>, Fault> {
    Ok(snapshot.get(tables::CANONICAL, &height.0.to_be_bytes(), Position::decode)?.flatten())
}

fn block(inner: &Inner, snapshot: &Snapshot, height: Height, done: &mut Scrubbed) -> Result<(), Fault> {
    done.count(4);
    let Some(found) = position(snapshot, height)? else {
        done.find("canonical", format!("the row of {height} is missing or does not decode"));
        return Ok(());
    };
    let header = snapshot.get(tables::HEADER, &height.0.to_be_bytes(), |mut row| Header::decode(&mut row))?;
    if header.and_then(Result::ok).is_none_or(|header| header.seal_slow().seal() != found.hash) {
        done.find("header", format!("the row of {height} is not the header of {}", found.hash));
    }
    for key in [found.hash, found.id].into_iter().filter(|key| !key.is_zero()) {
        let named = snapshot.get(tables::HEIGHT_BY_HASH, key.as_slice(), |row| Fields(row).u64())?.flatten();
        if named != Some(height.0) {
            done.find("height_by_hash", format!("the row of {key} names {named:?}, not {height}"));
        }
    }
    match expected(inner, snapshot, height, &found) {
        Ok(expected) if expected == found => {}
        Ok(expected) => done.find("canonical", format!("the row of {height} says {found:?}, not {expected:?}")),
        Err(fault) => done.find("canonical", format!("the block of the row of {height} cannot be read: {fault}")),
    }
    Ok(())
}

/// The row that the block itself and the row below call for.
fn expected(inner: &Inner, snapshot: &Snapshot, height: Height, found: &Position) -> Result<Position, Fault> {
    let Some(below) = height.previous() else {
        let (hash, id) = (inner.chain.genesis_hash(), inner.chain.genesis_block().consensus.id());
        return Ok(Position { hash, id, length: 0, first_transaction: 0, transactions: 0, ..*found });
    };
    if height <= inner.segments.lowest() {
        return at_base(snapshot, height, found);
    }
    let segment = match inner.segments.get(found.segment) {
        // It was let go just now.
        Err(_) if height <= inner.segments.lowest() => return at_base(snapshot, height, found),
        segment => segment?,
    };
    let length = usize::try_from(found.length).expect("a length of 32 bits fits");
    let bytes = segment.read(found.offset, length)?;
    let block = blocks::decode(&bytes, height, segment.salt)?.block;
    let below = position(snapshot, below)?.ok_or_else(|| Fault::corrupt("the row below is missing"))?;
    if block.block.header.parent_hash != below.hash {
        return Err(Fault::corrupt(format!("it names parent {}, not {}", block.block.header.parent_hash, below.hash)));
    }
    Ok(Position {
        hash: block.hash(),
        id: block.block.consensus.id(),
        first_transaction: below.first_transaction.saturating_add(u64::from(below.transactions)),
        transactions: u32::try_from(block.block.body.transactions.len()).unwrap_or(u32::MAX),
        ..*found
    })
}

/// The row of a block that came with an imported state, or whose segment is gone: of most of them there is only the
/// header. Where it was in its segment, and how many transactions there were, nothing tells any more.
fn at_base(snapshot: &Snapshot, height: Height, found: &Position) -> Result<Position, Fault> {
    let header =
        |height: Height| snapshot.get(tables::HEADER, &height.0.to_be_bytes(), |mut row| Header::decode(&mut row));
    let whole = blocks::landmark(snapshot, height)?;
    let named = match header(height.next())? {
        Some(Ok(child)) => child.parent_beacon_block_root,
        _ => None,
    };
    let id = whole.as_ref().map(|block| block.block.consensus.id()).or(named).unwrap_or(found.id);
    let hash = match (&whole, header(height)?) {
        (Some(block), _) => block.hash(),
        (None, Some(Ok(header))) => header.seal_slow().seal(),
        (None, _) => found.hash,
    };
    if found.length > 0 {
        return Ok(Position { hash, id, ..*found });
    }
    let transactions = whole.map_or(0, |block| u32::try_from(block.block.body.transactions.len()).unwrap_or(u32::MAX));
    Ok(Position { hash, id, segment: 0, offset: FIRST_OFFSET, length: 0, first_transaction: 0, transactions })
}

/// Compares rows of epochs from a key on; the next key.
pub(super) fn epochs(inner: &Inner, from: &[u8], done: &mut Scrubbed) -> Result<Option<Vec<u8>>, Fault> {
    let snapshot = inner.blocks.rows();
    if from.is_empty() {
        all_epochs(&snapshot, done)?;
    }
    let from = if from.is_empty() { &[0][..] } else { from };
    let (mut rows, mut next) = (Vec::new(), None);
    snapshot.scan(tables::EPOCH, from, |key, row| {
        if rows.len() == EPOCHS_MAX {
            next = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        if let Err(fault) = rows_of_epochs::check(key, row) {
            done.find("epoch", format!("the row of {}: {fault}", hex::encode(key)));
        }
        rows.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    done.count(rows.len());
    for key in rows {
        let is_it = snapshot.get(tables::EPOCH, &key, |row| rows_of_epochs::check(&key, row).is_ok())?;
        if is_it != Some(true) {
            done.find("epoch", format!("the row of {} is not found by its key", hex::encode(key)));
        }
    }
    Ok(next)
}

/// Compares how many rows of epochs are met in order with how many there are: no other row calls for one of them.
pub(super) fn all_epochs(snapshot: &Snapshot, done: &mut Scrubbed) -> Result<(), Fault> {
    let (mut rows, mut last) = (0_u64, Vec::new());
    snapshot.scan(tables::EPOCH, &[0], |key, _| {
        if *key <= last[..] {
            done.find("epoch", format!("the row of {} is out of place", hex::encode(key)));
        }
        rows = rows.saturating_add(1);
        last = key.to_vec();
        ControlFlow::Continue(())
    })?;
    let all = snapshot.rows(tables::EPOCH)?;
    if rows != all {
        done.find("epoch", format!("{rows} rows are met in order, and there are {all}"));
    }
    Ok(())
}
