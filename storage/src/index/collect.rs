//! From blocks to postings: the one place that says what an index holds.
//!
//! The same postings come from a block that was just committed and from the records of a segment.

use alloy_primitives::{B256, keccak256};
use alloy_rlp::Header as ListHeader;
use engine::types::{Height, Receipt, StateChanges, codec};

use super::{
    key::{Key, Keys, Posting},
    sealed::Half,
    table::Table,
};
use crate::{
    error::Fault,
    record::{self, Kind},
    segment::{Entry, FIRST_OFFSET, SegmentFile},
};

/// Postings of blocks of one segment.
pub(crate) struct Collector {
    keys: Keys,
    first: Height,
    /// What was collected, by half; those of one key rise as heights do.
    postings: [Vec<(Key, Posting)>; 2],
    /// Topic and key that stood at each position last: most logs of a block are of one event.
    last: [Option<(B256, Key)>; 4],
}

impl Collector {
    pub(crate) const fn new(keys: Keys, first: Height) -> Self {
        Self { keys, first, postings: [const { Vec::new() }; 2], last: [None; 4] }
    }

    fn post(&mut self, half: Half, key: Key, height: Height, index: usize) -> Result<(), Fault> {
        let posting = Posting::at(self.first, height, index);
        let posting =
            posting.ok_or_else(|| Fault::corrupt(format!("block {height} is in no segment of its height")))?;
        self.postings[half as usize].push((key, posting));
        Ok(())
    }

    /// A block's transactions, by their hashes.
    pub(crate) fn transactions(&mut self, height: Height, hashes: impl Iterator<Item = B256>) -> Result<(), Fault> {
        for (index, hash) in hashes.enumerate() {
            self.post(Half::Places, self.keys.transaction(&hash), height, index)?;
        }
        Ok(())
    }

    /// A block's logs.
    pub(crate) fn logs(&mut self, height: Height, receipts: &[Receipt]) -> Result<(), Fault> {
        let mut address = None;
        for (index, log) in receipts.iter().flat_map(|receipt| &receipt.logs).enumerate() {
            if index == 0 {
                self.post(Half::Places, self.keys.any_log(), height, 0)?;
            }
            let by_address = match address {
                Some((last, key)) if last == log.address => key,
                _ => self.keys.log_address(&log.address),
            };
            address = Some((log.address, by_address));
            self.post(Half::Places, by_address, height, index)?;
            for (position, topic) in (0..4).zip(log.data.topics()) {
                let last = self.last[usize::from(position)].filter(|(last, _)| last == topic);
                let key = last.map_or_else(|| self.keys.log_topic(position, topic), |(_, key)| key);
                self.last[usize::from(position)] = Some((*topic, key));
                self.post(Half::Places, key, height, index)?;
            }
        }
        Ok(())
    }

    /// What a block changed.
    pub(crate) fn changes(&mut self, height: Height, changes: &StateChanges) -> Result<(), Fault> {
        for (address, change) in &changes.accounts {
            if change.before != change.after {
                self.post(Half::Changes, self.keys.account(address), height, 0)?;
            }
            if change.wiped || change.after.is_none() {
                self.post(Half::Changes, self.keys.wipe(address), height, 0)?;
            }
            for key in change.slots.keys() {
                self.post(Half::Changes, self.keys.slot(address, key), height, 0)?;
            }
        }
        Ok(())
    }

    /// Moves everything of one half into its table.
    pub(crate) fn drain_into(&mut self, half: Half, table: &mut Table) {
        for (key, posting) in self.postings[half as usize].drain(..) {
            table.insert(key, posting);
        }
    }
}

/// Reads the records of a segment up to `end`; gives both halves of its index.
pub(crate) fn segment(segment: &SegmentFile, end: u64) -> Result<[Table; 2], Fault> {
    let mut tables = [Table::default(), Table::default()];
    let mut collector = Collector::new(Keys { salt: segment.salt }, segment.first_height);
    let mut offset = FIRST_OFFSET;
    while offset < end {
        let (header, payload) = match segment.entry(offset)? {
            Entry::Record(header, payload) => (header, payload),
            Entry::End => break,
            Entry::Bad => {
                return Err(Fault::corrupt(format!("{} is damaged at offset {offset}", segment.path.display())));
            }
        };
        let damaged = || {
            let (height, kind) = (header.height, header.kind);
            Fault::corrupt(format!("the {kind:?} record {height} in {} does not decode", segment.path.display()))
        };
        let bytes = header.unpack(&payload).ok_or_else(damaged)?;
        match header.kind {
            Kind::Block => {
                let hashes = transaction_hashes(&bytes).map_err(|_| damaged())?;
                collector.transactions(header.height, hashes.into_iter())?;
            }
            Kind::Receipts => {
                collector.logs(header.height, &codec::decode_receipts(&bytes).map_err(|_| damaged())?)?;
            }
            Kind::Changes => {
                collector.changes(header.height, &codec::decode_changes(&bytes).map_err(|_| damaged())?)?;
            }
            Kind::Finalization => {}
        }
        for (half, table) in Half::ALL.into_iter().zip(&mut tables) {
            collector.drain_into(half, table);
        }
        let length = u64::try_from(record::HEADER_BYTES + payload.len()).unwrap_or(u64::MAX);
        offset = offset.saturating_add(length);
    }
    Ok(tables)
}

/// Hashes of the transactions in an encoded block, without decoding them.
fn transaction_hashes(block: &[u8]) -> alloy_rlp::Result<Vec<B256>> {
    let mut rest = ListHeader::decode_bytes(&mut &*block, true)?;
    ListHeader::decode_bytes(&mut rest, true)?;
    ListHeader::decode_bytes(&mut rest, true)?;
    let mut transactions = ListHeader::decode_bytes(&mut rest, true)?;
    let mut hashes = Vec::new();
    while !transactions.is_empty() {
        hashes.push(keccak256(ListHeader::decode_bytes(&mut transactions, false)?));
    }
    Ok(hashes)
}
