//! Segments and their indices.

use std::sync::Arc;

use alloy_consensus::{Header, Sealable as _};
use alloy_primitives::B256;
use alloy_rlp::Decodable as _;
use engine::{genesis::ChainSpec, types::Height};

use super::{Closed, Listener, Progress, Verified, same::Same};
use crate::{
    blocks::{self, Stored},
    disk::DiskFile,
    error::{Fault, OpenError},
    index::{Files, Half, Name, Table, tables_of},
    kv::Snapshot,
    open,
    prune::{self, Mark},
    record::{self, HEADER_BYTES, Kind},
    segment::{self, Entry, FIRST_OFFSET, SegmentFile},
    tables::{self, Applied, Fields, Position, SCHEMA, meta},
};

/// Bytes that are searched at a time for the next record behind damage.
const SEARCH_BYTES: usize = 1 << 20;
/// Bytes behind the last whole block in which a later group is looked for.
const CLAIM_BYTES_MAX: u64 = 64 << 20;

/// Reads all segments, oldest first, then compares the indices of those that are full.
pub(super) fn all(
    closed: &Closed,
    files: &Files,
    chain: &Arc<ChainSpec>,
    found: &mut Verified,
    listen: Listener<'_>,
) -> Result<(), OpenError> {
    let name = |name: &String| name.strip_suffix(".seg").and_then(|stem| stem.parse::<u32>().ok());
    // A folder that took a state over gets segments when a node first opens it.
    let names = if files.dir.is_dir() { files.disk.list(&files.dir).map_err(Fault::from)? } else { Vec::new() };
    let mark = Mark::read(&closed.chain)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(name).filter(|number| *number >= mark.segment).collect();
    numbers.sort_unstable();
    if (mark.segment..).zip(&numbers).any(|(expected, number)| expected != *number) {
        found.note("segments", None, format!("there is a gap in {numbers:?}, which begin with {}", mark.segment));
    }
    let rows = closed.chain.snapshot().map_err(Fault::from)?;
    let mut walk = Walk::new(closed, rows, chain)?;
    let mut whole = Vec::new();
    let all = u64::try_from(numbers.len()).unwrap_or(u64::MAX);
    for (done, number) in (1..).zip(&numbers) {
        let path = segment::path(&files.dir, *number, "seg");
        let file = format!("segments/{number:08}.seg");
        match SegmentFile::open(&*files.disk, &path, *number, closed.identity) {
            Ok(segment) => {
                let before = found.bad_places;
                let is_last = numbers.last() == Some(number);
                if let Err(fault) = walk.segment(&segment, &file, is_last, found) {
                    found.note(&file, None, fault.to_string());
                }
                if found.bad_places == before && !is_last {
                    whole.push(segment);
                }
            }
            Err(fault) => {
                found.note(&file, 0, fault.to_string());
                walk.below = None;
            }
        }
        listen(Progress { what: "segments", done, all });
    }
    walk.end(found);
    let all = u64::try_from(whole.len()).unwrap_or(u64::MAX);
    let changes = prune::first_changes(&closed.chain, &names)?;
    for (done, segment) in (1..).zip(&whole) {
        index(files, segment, (&names, changes), found)?;
        listen(Progress { what: "indices", done, all });
    }
    Ok(())
}

/// Compares the index of a full segment, which is whole, with what it must be. Changes are indexed from one segment on.
fn index(
    files: &Files,
    segment: &SegmentFile,
    (names, changes): (&[String], u32),
    found: &mut Verified,
) -> Result<(), Fault> {
    for (half, table) in Half::ALL.into_iter().zip(tables_of(segment)?) {
        let name = format!("{:08}.{}", segment.number, half.extension());
        let of = (half, segment.number, segment.first_height);
        let file = match names.contains(&name) {
            true => Some(files.disk.open(&files.dir.join(&name))?),
            false => None,
        };
        // What an older program made is made again as well.
        match file.filter(|file| files.front(&**file, of).map_or(true, |(minor, _)| minor == SCHEMA.1)) {
            Some(file) => compare(files, of, (&name, file), &table, found)?,
            None if half == Half::Changes && segment.number < changes => {}
            None if found.missing_indices.last() == Some(&segment.number) => {}
            None => found.missing_indices.push(segment.number),
        }
    }
    Ok(())
}

/// Compares a file of an index with what it must hold.
fn compare(
    files: &Files,
    of: Name,
    (name, file): (&str, Arc<dyn DiskFile>),
    table: &Table,
    found: &mut Verified,
) -> Result<(), Fault> {
    let same = Same::new(Arc::clone(&file));
    let pages = files.fill(&same, of, table)?;
    let (length, expected) = (file.length()?, pages.saturating_add(1).saturating_mul(4_096));
    let name = format!("segments/{name}");
    for offset in same.differs() {
        found.note(&name, offset, "not what its segment makes");
    }
    if length != expected {
        found.note(&name, length.min(expected), format!("it has {length} bytes, not {expected}"));
    }
    found.indices = found.indices.saturating_add(1);
    found.bytes = found.bytes.saturating_add(length);
    Ok(())
}

/// The last block that was met.
#[derive(Clone, Copy)]
struct Below {
    height: Height,
    hash: B256,
    /// Transactions up to and including it, if that is known.
    transactions: u64,
}

/// A walk along the chain.
struct Walk {
    rows: Snapshot,
    /// Up to this height blocks have rows.
    indexed: Height,
    /// Up to this height blocks were durable.
    durable: Height,
    /// `None` behind damage.
    below: Option<Below>,
    /// The highest block that was met, or the one whose state was imported.
    highest: Height,
}

impl Walk {
    fn new(closed: &Closed, rows: Snapshot, chain: &ChainSpec) -> Result<Self, Fault> {
        let indexed = rows.get(tables::CHAIN_META, meta::INDEXED, |row| Fields(row).u64())?.flatten();
        let applied = closed.state.snapshot()?.get(tables::STATE_META, meta::APPLIED, Applied::decode)?.flatten();
        let indexed = Height(indexed.unwrap_or_default());
        let durable = indexed.max(applied.map_or(Height::GENESIS, |applied| applied.height));
        let below = Below { height: Height::GENESIS, hash: chain.genesis_hash(), transactions: 0 };
        Ok(Self { rows, indexed, durable, below: Some(below), highest: open::read_base(&closed.chain)? })
    }

    /// Reads a segment to its end.
    fn segment(&mut self, segment: &SegmentFile, file: &str, is_last: bool, found: &mut Verified) -> Result<(), Fault> {
        self.enter(segment.first_height);
        let (mut offset, mut block) = (FIRST_OFFSET, FIRST_OFFSET);
        let mut expected = Kind::ALL.into_iter();
        let mut height = segment.first_height;
        found.read(usize::try_from(FIRST_OFFSET).unwrap_or_default());
        loop {
            match segment.entry(offset)? {
                Entry::Record(header, payload) => {
                    found.records = found.records.saturating_add(1);
                    found.read(HEADER_BYTES.saturating_add(payload.len()));
                    let next = expected.next();
                    let length = u64::try_from(HEADER_BYTES.saturating_add(payload.len())).unwrap_or(u64::MAX);
                    if (header.height, Some(header.kind)) != (height, next) {
                        let what = format!("a {:?} record of block {}, not of {height}", header.kind, header.height);
                        found.note(file, offset, what);
                        self.below = None;
                        expected = Kind::ALL.into_iter();
                        let from = if header.kind == Kind::Block { offset } else { offset.saturating_add(length) };
                        offset = next_block(segment, from, &mut height)?;
                        block = offset;
                        continue;
                    }
                    offset = offset.saturating_add(length);
                    if header.kind == Kind::Finalization {
                        self.block(segment, file, (block, offset), height, found)?;
                        (block, height, expected) = (offset, height.next(), Kind::ALL.into_iter());
                    }
                }
                Entry::End if offset == block => break,
                Entry::End | Entry::Bad => {
                    if is_last && self.is_unfinished(segment, block, height)? {
                        found.unfinished_bytes = found.unfinished_bytes.saturating_add(used(segment, block)?);
                        return Ok(());
                    }
                    found.note(file, offset, format!("no record of block {height}"));
                    self.below = None;
                    expected = Kind::ALL.into_iter();
                    offset = next_block(segment, offset.saturating_add(1), &mut height)?;
                    block = offset;
                }
            }
        }
        let behind = used(segment, offset)?;
        if behind > 0 {
            found.note(file, offset, format!("{behind} bytes behind the last block are not zero"));
        }
        found.bytes = found.bytes.saturating_add(segment.size.saturating_sub(offset));
        Ok(())
    }

    /// Notes with which block a segment begins.
    fn enter(&mut self, first: Height) {
        if self.below.is_some_and(|below| below.height.next() == first) {
            return;
        }
        // Older blocks are not kept, or damaged; what their rows say is all there is.
        self.below = first.previous().and_then(|height| {
            let row = self.rows.get(tables::CANONICAL, &height.0.to_be_bytes(), Position::decode);
            let row = row.ok().flatten().flatten()?;
            let transactions = row.first_transaction.saturating_add(u64::from(row.transactions));
            Some(Below { height, hash: row.hash, transactions })
        });
    }

    /// Compares a whole block with the one below, with its own header, and with its rows.
    fn block(
        &mut self,
        segment: &SegmentFile,
        file: &str,
        (from, to): (u64, u64),
        height: Height,
        found: &mut Verified,
    ) -> Result<(), Fault> {
        let length = to.saturating_sub(from);
        let bytes = segment.read(from, usize::try_from(length).unwrap_or(usize::MAX))?;
        let Ok(Stored { block, .. }) = blocks::decode(&bytes, height, segment.salt) else {
            found.note(file, from, format!("block {height} does not decode"));
            self.below = None;
            return Ok(());
        };
        found.blocks = found.blocks.saturating_add(1);
        self.highest = self.highest.max(height);
        let parent = block.block.header.parent_hash;
        if block.height() != height || self.below.is_some_and(|below| below.hash != parent) {
            found.note(file, from, format!("block {} names parent {parent}, which is not below it", block.height()));
        }
        if !block.block.is_whole() {
            found.note(file, from, format!("the body of block {height} is not the one that its header names"));
        }
        let transactions = u32::try_from(block.block.body.transactions.len()).unwrap_or(u32::MAX);
        let first = self.below.map(|below| below.transactions);
        let position = Position {
            hash: block.hash(),
            id: block.block.consensus.id(),
            segment: segment.number,
            offset: from,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            first_transaction: first.unwrap_or_default(),
            transactions,
        };
        if height <= self.indexed {
            self.row(height, position, first.is_some(), found)?;
        }
        let transactions = position.first_transaction.saturating_add(u64::from(transactions));
        self.below = Some(Below { height, hash: block.hash(), transactions });
        Ok(())
    }

    /// Compares the rows of a block with it.
    fn row(&self, height: Height, expected: Position, is_counted: bool, found: &mut Verified) -> Result<(), Fault> {
        let file = "chain/mdbx.dat";
        let key = height.0.to_be_bytes();
        found.rows = found.rows.saturating_add(2);
        let row = self.rows.get(tables::CANONICAL, &key, Position::decode)?.flatten();
        let counted = |row: Position| if is_counted { row } else { Position { first_transaction: 0, ..row } };
        if row.map(counted) != Some(counted(expected)) {
            found.note(file, None, format!("row {height} of canonical says {row:?}, not {expected:?}"));
        }
        let header = self.rows.get(tables::HEADER, &key, |mut row| Header::decode(&mut row))?.and_then(Result::ok);
        if header.is_none_or(|header| header.seal_slow().seal() != expected.hash) {
            found.note(file, None, format!("row {height} of header is not the header of {}", expected.hash));
        }
        Ok(())
    }

    /// Whether what is behind the last whole block of all was only being written.
    fn is_unfinished(&self, segment: &SegmentFile, block: u64, height: Height) -> Result<bool, Fault> {
        let length = segment.size.saturating_sub(block).min(CLAIM_BYTES_MAX);
        let tail = segment.read(block, usize::try_from(length).unwrap_or(usize::MAX))?;
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        Ok(height > self.durable && !record::claims_durable(&tail[..used], height, segment.salt))
    }

    /// Notes that blocks are missing at the end.
    fn end(&self, found: &mut Verified) {
        if self.highest < self.durable {
            let (highest, durable) = (self.highest, self.durable);
            found.note("segments", None, format!("blocks end with {highest}, and {durable} was durable"));
        }
    }
}

/// Where the next block's first record is, if that is whole, and its height; the end of the segment if there is none.
fn next_block(segment: &SegmentFile, from: u64, height: &mut Height) -> Result<u64, Fault> {
    let mut at = from;
    while at < segment.size {
        let left = usize::try_from(segment.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = segment.read(at, left.min(SEARCH_BYTES.saturating_add(HEADER_BYTES)))?;
        for (index, window) in bytes.windows(HEADER_BYTES).enumerate() {
            // Most bytes begin no record, as the one that tells its kind says.
            if window[4] != Kind::Block as u8 {
                continue;
            }
            let header = window.first_chunk().and_then(record::Header::decode);
            let Some(header) = header.filter(|header| header.height >= segment.first_height) else { continue };
            let offset = at.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
            if matches!(segment.entry(offset)?, Entry::Record(..)) {
                *height = header.height;
                return Ok(offset);
            }
        }
        at = at.saturating_add(u64::try_from(SEARCH_BYTES).unwrap_or(u64::MAX));
    }
    Ok(segment.size)
}

/// Bytes from an offset to the last that is not zero.
fn used(segment: &SegmentFile, from: u64) -> Result<u64, Fault> {
    let (mut at, mut used) = (from, 0);
    while at < segment.size {
        let left = usize::try_from(segment.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = segment.read(at, left.min(SEARCH_BYTES))?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            used = at.saturating_sub(from).saturating_add(u64::try_from(last).unwrap_or(u64::MAX)).saturating_add(1);
        }
        at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
    Ok(used)
}
