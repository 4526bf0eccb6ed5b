//! Log filters, and queries over past blocks.
//!
//! The store's index says which blocks hold what a filter names, and only those are read. Logs are counted, in number
//! and in bytes of JSON, while they are collected. For the block of the moment, whose logs go to subscribers, the bloom
//! filter in its header says the same.

use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::{Address, B256, Bloom, keccak256, map::B256Set};
use alloy_rpc_types_eth::Log;
use engine::{
    query::BlockRef,
    types::{CommittedBlock, Height, LogFilter},
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    Node,
    block_id::BlockTag,
    convert,
    error::{self, Refusal, header_not_found, invalid, limit, out_of_time, refused},
    limits::{LOG_FILTER_ADDRESSES_MAX, LOG_FILTER_TOPICS_MAX},
    methods::{Registered, Registry},
    params::Arguments,
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.call("eth_getLogs", get_logs)
}

/// Which blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogRange {
    /// From one to another, both included.
    Blocks(BlockRef, BlockRef),
    /// One block.
    Block(B256),
}

/// A filter and the blocks it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogQuery {
    /// Which logs.
    pub(super) filter: LogFilter,
    /// Which blocks.
    pub(super) range: LogRange,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    from_block: Option<BlockTag>,
    to_block: Option<BlockTag>,
    block_hash: Option<B256>,
    address: Option<Addresses>,
    topics: Option<Vec<Option<Topics>>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid address: want one or a list")]
enum Addresses {
    One(Address),
    Many(Vec<Address>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid topic: want one, a list or null")]
enum Topics {
    One(B256),
    Many(Vec<Option<B256>>),
}

impl<'de> Deserialize<'de> for LogQuery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let range = match (fields.block_hash, fields.from_block, fields.to_block) {
            (Some(hash), None, None) => LogRange::Block(hash),
            (Some(_), ..) => {
                let reason = "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other";
                return Err(D::Error::custom(reason));
            }
            (None, from, to) => {
                let of = |tag: Option<BlockTag>| tag.map_or(BlockRef::Latest, |tag| tag.0);
                LogRange::Blocks(of(from), of(to))
            }
        };
        let addresses = match fields.address {
            None => Vec::new(),
            Some(Addresses::One(address)) => vec![address],
            Some(Addresses::Many(addresses)) => addresses,
        };
        let topics = fields.topics.unwrap_or_default().into_iter().map(alternatives).collect::<Vec<_>>();
        if addresses.len() > LOG_FILTER_ADDRESSES_MAX {
            return Err(D::Error::custom("exceed max addresses"));
        }
        if topics.len() > 4 || topics.iter().any(|position| position.len() > LOG_FILTER_TOPICS_MAX) {
            return Err(D::Error::custom("exceed max topics"));
        }
        let topics = topics.into_iter().map(B256Set::from_iter).collect();
        Ok(Self { filter: LogFilter { addresses: addresses.into_iter().collect(), topics }, range })
    }
}

/// The topics that fit at one position; none of them, or null among them, means that any fits.
fn alternatives(position: Option<Topics>) -> Vec<B256> {
    match position {
        None => Vec::new(),
        Some(Topics::One(topic)) => vec![topic],
        Some(Topics::Many(topics)) => topics.into_iter().collect::<Option<_>>().unwrap_or_default(),
    }
}

impl LogQuery {
    /// The lowest and the highest height that can hold a log of the query, whatever the chain comes to.
    pub(super) const fn bounds(&self) -> (u64, u64) {
        match self.range {
            LogRange::Blocks(from, to) => {
                let low = if let BlockRef::Height(height) = from { height.0 } else { 0 };
                let high = if let BlockRef::Height(height) = to { height.0 } else { u64::MAX };
                (low, high)
            }
            LogRange::Block(_) => (0, u64::MAX),
        }
    }
}

/// The places of the logs of a block that fit, in order.
pub(super) fn places(filter: &LogFilter, block: &CommittedBlock) -> Vec<LogPlace> {
    let mut places = Vec::new();
    let mut first_log = 0_usize;
    for (transaction, receipt) in block.receipts.iter().enumerate() {
        for (log, entry) in receipt.logs.iter().enumerate() {
            if filter.matches(entry) {
                places.push(LogPlace { transaction, log, first_log, json_bytes: convert::log_json_bytes(entry) });
            }
        }
        first_log = first_log.saturating_add(receipt.logs.len());
    }
    places
}

/// Where a log stands in its block.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogPlace {
    transaction: usize,
    log: usize,
    first_log: usize,
    json_bytes: usize,
}

impl LogPlace {
    /// The log at this place as clients see it.
    pub(super) fn json(self, block: &CommittedBlock) -> Option<Log> {
        convert::log_at(block, self.transaction, self.log, self.first_log)
    }
}

/// Bits of a bloom.
const BLOOM_BITS: usize = 2_048;

/// The three bits that an address or a topic sets in a bloom (yellow paper 4.3.1).
struct Bits([usize; 3]);

impl Bits {
    fn of(bytes: &[u8]) -> Self {
        let hash = keccak256(bytes);
        Self([0, 2, 4].map(|at| usize::from(u16::from_be_bytes([hash[at], hash[at + 1]])) % BLOOM_BITS))
    }

    fn are_in(&self, bloom: &Bloom) -> bool {
        self.0.iter().all(|bit| bloom[(BLOOM_BITS - 1 - bit) / 8] & (1 << (bit % 8)) != 0)
    }
}

/// Bits of the wanted addresses and topics: of each group one must be in a block's bloom.
pub(super) struct LogBlooms(Vec<Vec<Bits>>);

impl LogBlooms {
    /// What a filter wants.
    pub(super) fn of(filter: &LogFilter) -> Self {
        let addresses = filter.addresses.iter().map(|address| Bits::of(address.as_slice())).collect();
        let topics = filter.topics.iter().map(|position| position.iter().map(|topic| Bits::of(&topic[..])).collect());
        Self(std::iter::once(addresses).chain(topics).filter(|wanted: &Vec<_>| !wanted.is_empty()).collect())
    }

    /// Whether a block with this bloom may hold a log that fits.
    pub(super) fn may_be_in(&self, bloom: &Bloom) -> bool {
        self.0.iter().all(|wanted| wanted.iter().any(|bits| bits.are_in(bloom)))
    }
}

/// What a walk over blocks gave.
pub(super) struct Collected {
    /// Logs of whole blocks, in order.
    pub(super) logs: Vec<Log>,
    /// The first height that was not read, because the answer was full; `None` at the end.
    pub(super) stopped_at: Option<u64>,
}

impl Node {
    /// Heights that a range means: both ends included, the upper one at most the tip.
    fn log_heights(&self, from: BlockRef, to: BlockRef) -> Result<std::ops::RangeInclusive<u64>, Refusal> {
        let tip = self.query.tip().height().0;
        let height = |block| match block {
            BlockRef::Height(height) => height.0,
            BlockRef::Latest | BlockRef::Finalized | BlockRef::Pending | BlockRef::Hash(_) => tip,
        };
        let (from, to) = (height(from), height(to));
        if from > to {
            return Err(invalid("invalid block range params"));
        }
        Ok(from..=to.min(tip))
    }

    /// Collects logs of a range until it ends or the answer is full.
    pub(super) fn collect_logs(
        &self,
        filter: &LogFilter,
        heights: std::ops::RangeInclusive<u64>,
        cancel: &AtomicBool,
    ) -> Result<Collected, Refusal> {
        let (mut logs, mut bytes) = (Vec::new(), 0_usize);
        let (mut next, end) = (Some(Height(*heights.start())), Height(*heights.end()));
        while let Some(from) = next.filter(|from| *from <= end) {
            if cancel.load(Ordering::Relaxed) {
                return Err(out_of_time());
            }
            let found = self.query.blocks_with_logs(filter, from..=end).map_err(error::store)?;
            for height in found.heights {
                if cancel.load(Ordering::Relaxed) {
                    return Err(out_of_time());
                }
                let block = self.block(BlockRef::Height(height))?.ok_or_else(header_not_found)?;
                let places = places(filter, &block);
                bytes = places.iter().fold(bytes, |sum, place| sum.saturating_add(place.json_bytes));
                // The logs of one block are never too many, or a client could not read them at all.
                let too_many = !logs.is_empty() && logs.len().saturating_add(places.len()) > self.limits.logs_max;
                if too_many || bytes > self.response_bytes_max() {
                    return Ok(Collected { logs, stopped_at: Some(height.0) });
                }
                logs.extend(places.into_iter().filter_map(|place| place.json(&block)));
            }
            next = found.next;
        }
        Ok(Collected { logs, stopped_at: None })
    }

    /// All logs of a query, or the reason why they are too many.
    pub(super) fn query_logs(&self, query: &LogQuery, cancel: &AtomicBool) -> Result<Vec<Log>, Refusal> {
        let heights = match query.range {
            LogRange::Block(hash) => {
                let height = self.query.height(BlockRef::Hash(hash)).map_err(error::store)?;
                let height = height.ok_or_else(|| refused("unknown block"))?.0;
                height..=height
            }
            LogRange::Blocks(from, to) => self.log_heights(from, to)?,
        };
        let (start, end) = (*heights.start(), *heights.end());
        // What names something is found in time proportional to what there is of it, and that is limited.
        let blocks_max = self.limits.log_blocks_max;
        if query.filter.items() == 0 && end.saturating_sub(start) >= blocks_max {
            return Err(invalid(format!("exceed maximum block range: {blocks_max}")));
        }
        let collected = self.collect_logs(&query.filter, heights, cancel)?;
        match collected.stopped_at {
            None => Ok(collected.logs),
            Some(height) if !collected.logs.is_empty() => Err(limit(format!(
                "query exceeds max results {}, retry with the range {start}-{}",
                self.limits.logs_max,
                height.saturating_sub(1)
            ))),
            Some(_) => Err(error::too_large()),
        }
    }
}

fn get_logs(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Vec<Log>, Refusal> {
    let query = arguments.required()?;
    arguments.end()?;
    node.query_logs(&query, cancel)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Bytes, LogData};

    use super::*;

    fn address(byte: u8) -> Address {
        Address::repeat_byte(byte)
    }

    fn topic(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn log(from: u8, topics: &[u8]) -> alloy_primitives::Log {
        let topics = topics.iter().map(|byte| topic(*byte)).collect();
        alloy_primitives::Log { address: address(from), data: LogData::new_unchecked(topics, Bytes::new()) }
    }

    fn query(text: String) -> Result<LogQuery, String> {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn check(filter: &str, entry: &alloy_primitives::Log, expected: bool) {
        let filter = query(filter.to_owned()).unwrap().filter;
        assert_eq!(filter.matches(entry), expected, "{filter:?} {entry:?}");
        if expected {
            let bloom = alloy_primitives::logs_bloom([entry]);
            assert!(LogBlooms::of(&filter).may_be_in(&bloom), "{filter:?} {entry:?}");
        }
    }

    #[test]
    fn filters_match_addresses_and_topics_by_position() {
        let (one, two) = (address(1), address(2));
        let (a, b) = (topic(0xa), topic(0xb));
        let entry = log(1, &[0xa, 0xb]);
        check("{}", &entry, true);
        check("{}", &log(1, &[]), true);
        check(&format!(r#"{{"address":"{one}"}}"#), &entry, true);
        check(&format!(r#"{{"address":"{two}"}}"#), &entry, false);
        check(&format!(r#"{{"address":["{two}","{one}"]}}"#), &entry, true);
        check(r#"{"address":[]}"#, &entry, true);
        check(&format!(r#"{{"topics":["{a}"]}}"#), &entry, true);
        check(&format!(r#"{{"topics":["{b}"]}}"#), &entry, false);
        check(&format!(r#"{{"topics":[null,"{b}"]}}"#), &entry, true);
        check(&format!(r#"{{"topics":["{a}",["{a}","{b}"]]}}"#), &entry, true);
        check(&format!(r#"{{"topics":["{a}",["{a}",null]]}}"#), &entry, true);
        check(&format!(r#"{{"topics":[["{b}"],null]}}"#), &entry, false);
        check(r#"{"topics":[null,null]}"#, &entry, true);
        check(r#"{"topics":[null,null,null]}"#, &entry, false);
        check(r#"{"topics":[]}"#, &entry, true);
    }

    #[test]
    fn blooms_rule_out_what_is_not_there() {
        let filter = query(format!(r#"{{"address":"{}","topics":["{}"]}}"#, address(1), topic(9))).unwrap().filter;
        assert!(!LogBlooms::of(&filter).may_be_in(&Bloom::ZERO));
        assert!(!LogBlooms::of(&filter).may_be_in(&alloy_primitives::logs_bloom([&log(1, &[8])])));
        assert!(LogBlooms::of(&LogFilter::default()).may_be_in(&Bloom::ZERO));
    }

    #[test]
    fn ranges_and_limits_are_read() {
        let hash = topic(7);
        let blocks = |from, to| LogRange::Blocks(from, to);
        for (text, range) in [
            ("{}".to_owned(), blocks(BlockRef::Latest, BlockRef::Latest)),
            (r#"{"fromBlock":"0x1"}"#.to_owned(), blocks(BlockRef::Height(Height(1)), BlockRef::Latest)),
            (
                r#"{"fromBlock":"earliest","toBlock":"0x2"}"#.to_owned(),
                blocks(BlockRef::Height(Height(0)), BlockRef::Height(Height(2))),
            ),
            (format!(r#"{{"blockHash":"{hash}"}}"#), LogRange::Block(hash)),
        ] {
            assert_eq!(query(text).unwrap().range, range);
        }
        let many = |count: usize, one: String| vec![one; count].join(",");
        for text in [
            format!(r#"{{"blockHash":"{hash}","fromBlock":"0x1"}}"#),
            r#"{"fromBlock":1}"#.to_owned(),
            r#"{"fromBlock":"0x+1"}"#.to_owned(),
            r#"{"address":"0x12"}"#.to_owned(),
            r#"{"topics":"0x12"}"#.to_owned(),
            r#"{"topics":[["0x12"]]}"#.to_owned(),
            r#"{"topics":[null,null,null,null,null]}"#.to_owned(),
            format!(r#"{{"address":[{}]}}"#, many(1_001, format!("\"{}\"", address(1)))),
            format!(r#"{{"topics":[[{}]]}}"#, many(1_001, format!("\"{hash}\""))),
        ] {
            assert!(query(text.clone()).is_err(), "{text}");
        }
    }
}
