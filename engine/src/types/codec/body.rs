//! A block's body as it travels between nodes: what the consensus header names, and no senders.
//!
//! Whoever gets it looks its transactions up among those that it knows, and recovers the senders of the others.

#[cfg(test)]
mod tests;

use std::{panic::resume_unwind, sync::Arc, thread};

use alloy_consensus::{Header, Sealable, proofs::ordered_trie_root_encoded};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::{BufMut, Decodable, EMPTY_STRING_CODE, Encodable, Error, Header as ListHeader};

use super::{finished, open};
use crate::{
    limits,
    types::{
        block::{Block, BlockBody, ConsensusHeader},
        transaction::{Transaction, TransactionError},
    },
};

/// Fewer senders are not worth a thread of their own; they take a millisecond.
const RECOVERIES_PER_THREAD_MIN: usize = 32;

/// Why bytes are not the body that a header names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than any that travels.
    #[error("a body of {size} bytes; at most {max} travel", max = limits::BODY_BYTES_MAX)]
    TooLarge {
        /// Its bytes.
        size: usize,
    },
    /// It does not decode.
    #[error("rlp: {0}")]
    Malformed(#[from] Error),
    /// It belongs to another header.
    #[error("{part} {has}, not {expected}")]
    Foreign {
        /// What differs.
        part: &'static str,
        /// What came.
        has: B256,
        /// What the header names.
        expected: B256,
    },
    /// A transaction that nobody signed, or none at all.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Its place in the block.
        index: usize,
        /// What is wrong.
        error: TransactionError,
    },
}

/// Bytes that a list or string header adds in front of so many.
const fn framed(payload: usize) -> usize {
    alloy_rlp::length_of_length(payload).saturating_add(payload)
}

fn transactions_bytes(block: &Block) -> usize {
    let sizes = block.body.transactions.iter().map(|transaction| transaction.encoded().length());
    sizes.fold(0, usize::saturating_add)
}

fn payload_bytes(block: &Block) -> usize {
    let withdrawals = block.body.withdrawals.as_ref().map_or(1, Encodable::length);
    let header = block.header.inner().length();
    header.saturating_add(framed(transactions_bytes(block))).saturating_add(withdrawals)
}

/// Bytes that [`encode_body`] makes, without making them.
#[must_use]
pub fn body_bytes(block: &Block) -> usize {
    framed(payload_bytes(block))
}

/// Encodes what travels of a block beside its consensus header.
#[must_use]
pub fn encode_body(block: &Block) -> Vec<u8> {
    let list = |payload_length| ListHeader { list: true, payload_length };
    let payload = payload_bytes(block);
    let mut out = Vec::with_capacity(framed(payload));
    list(payload).encode(&mut out);
    block.header.inner().encode(&mut out);
    list(transactions_bytes(block)).encode(&mut out);
    block.body.transactions.iter().for_each(|transaction| transaction.encoded().encode(&mut out));
    match &block.body.withdrawals {
        Some(withdrawals) => withdrawals.encode(&mut out),
        None => out.put_u8(EMPTY_STRING_CODE),
    }
    out
}

/// Decodes what [`encode_body`] made, for the consensus header that names it.
///
/// `known` finds transactions by hash, so that no sender is recovered twice on a node; the rest are recovered on up to
/// `threads` threads, the calling one among them, and not before it is sure that they are the header's. Whether all of
/// the body is the header's says [`Block::is_whole`], as of every block that comes in.
///
/// # Errors
/// [`BodyError`]. Whoever sent it is faulty, or the leader is, if its header commits to these bytes.
pub fn decode_body(
    consensus: ConsensusHeader,
    bytes: &[u8],
    known: &dyn Fn(&B256) -> Option<Arc<Transaction>>,
    threads: usize,
) -> Result<Block, BodyError> {
    if bytes.len() > limits::BODY_BYTES_MAX {
        return Err(BodyError::TooLarge { size: bytes.len() });
    }
    let mut all = bytes;
    let mut rest = open(&mut all)?;
    finished(all)?;
    let header = Header::decode(&mut rest)?.seal_slow();
    equal("block hash", header.seal(), consensus.block_hash)?;
    let mut encoded = open(&mut rest)?;
    let mut raw = Vec::new();
    while !encoded.is_empty() {
        let one = ListHeader::decode_bytes(&mut encoded, false)?;
        if one.len() < limits::TRANSACTION_BYTES_MIN {
            return Err(Error::Custom("shorter than any transaction").into());
        }
        raw.push(one);
    }
    let withdrawals = if let Some((&EMPTY_STRING_CODE, behind)) = rest.split_first() {
        rest = behind;
        None
    } else {
        Some(Withdrawals::decode(&mut rest)?)
    };
    finished(rest)?;
    let transactions = find(&raw, known, threads, &|| {
        let root = ordered_trie_root_encoded(&raw);
        equal("transactions root", root, header.transactions_root)
    })?;
    Ok(Block { consensus, header, body: BlockBody { transactions, withdrawals } })
}

fn equal(part: &'static str, has: B256, expected: B256) -> Result<(), BodyError> {
    if has == expected { Ok(()) } else { Err(BodyError::Foreign { part, has, expected }) }
}

/// The transactions with these encodings; before senders are recovered, `check` must allow it.
fn find(
    raw: &[&[u8]],
    known: &dyn Fn(&B256) -> Option<Arc<Transaction>>,
    threads: usize,
    check: &dyn Fn() -> Result<(), BodyError>,
) -> Result<Vec<Arc<Transaction>>, BodyError> {
    let mut found: Vec<Option<Arc<Transaction>>> = raw.iter().map(|raw| known(&keccak256(raw))).collect();
    let unknown: Vec<(usize, &[u8])> =
        (0..).zip(raw).filter(|(at, _)| matches!(found.get(*at), Some(None))).map(|(at, raw)| (at, *raw)).collect();
    if !unknown.is_empty() {
        check()?;
    }
    for (at, transaction) in recover(&unknown, threads)? {
        if let Some(place) = found.get_mut(at) {
            *place = Some(transaction);
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// A transaction and its place in the block.
type Placed = (usize, Arc<Transaction>);

/// Decodes transactions and recovers their senders; tells the first one that is none.
fn recover(unknown: &[(usize, &[u8])], threads: usize) -> Result<Vec<Placed>, BodyError> {
    let recover_part = |part: &[(usize, &[u8])]| -> Result<Vec<Placed>, BodyError> {
        let one = |(index, raw): &(usize, &[u8])| {
            let transaction = Transaction::decode(Bytes::copy_from_slice(raw));
            let transaction = transaction.map_err(|error| BodyError::Transaction { index: *index, error })?;
            Ok((*index, Arc::new(transaction)))
        };
        part.iter().map(one).collect()
    };
    let threads = threads.min(unknown.len() / RECOVERIES_PER_THREAD_MIN).max(1);
    let mut parts = unknown.chunks(unknown.len().div_ceil(threads).max(1));
    let Some(first) = parts.next() else { return Ok(Vec::new()) };
    thread::scope(|scope| {
        let beside = parts.map(|part| {
            let thread = thread::Builder::new().name("senders".to_owned());
            // Without a thread it takes longer.
            (part, thread.spawn_scoped(scope, move || recover_part(part)).ok())
        });
        let beside: Vec<_> = beside.collect();
        let mut all = recover_part(first)?;
        for (part, thread) in beside {
            let recovered = thread.map_or_else(
                || recover_part(part),
                |thread| thread.join().unwrap_or_else(|panicked| resume_unwind(panicked)),
            );
            all.extend(recovered?);
        }
        Ok(all)
    })
}
