//! Polling filters, for clients that cannot be sent anything.
//!
//! A filter keeps where it stands, not what it found: changes are looked up when they are asked for.
//! It dies when nobody has asked for [`FILTER_LIFE`]; old ones are swept whenever a new one comes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use alloy_primitives::{B256, U128};
use alloy_rpc_types_eth::Log;
use engine::{query::BlockRef, types::Height};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::{
    Node,
    error::{self, Refusal, invalid, limit, refused},
    limits::{FILTER_ITEMS_MAX, FILTER_LIFE, FILTERS_MAX, LOG_QUERY_BLOCKS_MAX},
    logs::{LogQuery, LogRange},
    methods::{Registered, Registry},
    params::Arguments,
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.read("eth_newFilter", new_log_filter)?;
    registry.read("eth_newBlockFilter", new_block_filter)?;
    registry.read("eth_newPendingTransactionFilter", new_pending_filter)?;
    registry.call("eth_getFilterChanges", changes)?;
    registry.call("eth_getFilterLogs", filter_logs)?;
    registry.inline("eth_uninstallFilter", uninstall)
}

/// All polling filters of the node.
#[derive(Default)]
pub(super) struct Filters {
    live: Mutex<HashMap<U128, Filter>>,
    random: RandomState,
}

struct Filter {
    asked: Instant,
    /// Addresses and topics it names.
    items: usize,
    kind: Arc<Mutex<Kind>>,
}

enum Kind {
    Logs { query: LogQuery, next: u64 },
    Blocks { next: u64 },
    Pending(Receiver<B256>),
}

/// What changed: hashes or logs.
#[derive(Serialize)]
#[serde(untagged)]
enum Changes {
    Hashes(Vec<B256>),
    Logs(Vec<Log>),
}

impl Filters {
    fn add(&self, kind: Kind) -> Result<U128, Refusal> {
        let now = Instant::now();
        let items = if let Kind::Logs { query, .. } = &kind { query.filter.items() } else { 0 };
        let mut live = self.live.lock();
        // Leaving a ring takes time in proportion to what the filter never asked for: not under the lock.
        let expired: Vec<_> =
            live.extract_if(|_, filter| now.duration_since(filter.asked) >= FILTER_LIFE).map(|(_, old)| old).collect();
        let held = live.values().fold(items, |sum, filter| sum.saturating_add(filter.items));
        let result = if live.len() >= FILTERS_MAX {
            Err(limit(format!("too many filters: at most {FILTERS_MAX} live at once")))
        } else if held > FILTER_ITEMS_MAX {
            Err(limit(format!("too many filters: at most {FILTER_ITEMS_MAX} addresses and topics in all of them")))
        } else {
            let id = self.id(live.len(), now);
            live.insert(id, Filter { asked: now, items, kind: Arc::new(Mutex::new(kind)) });
            Ok(id)
        };
        drop(live);
        drop(expired);
        result
    }

    /// An id that others cannot guess, so that nobody reads or removes a stranger's filter.
    fn id(&self, count: usize, now: Instant) -> U128 {
        let half = |salt: u8| {
            let mut hasher = self.random.build_hasher();
            hasher.write_u8(salt);
            hasher.write_usize(count);
            hasher.write_u64(RandomState::new().hash_one(now));
            u128::from(hasher.finish())
        };
        U128::from(half(0) << 64 | half(1))
    }

    fn find(&self, id: U128) -> Result<Arc<Mutex<Kind>>, Refusal> {
        let now = Instant::now();
        let mut live = self.live.lock();
        match live.get_mut(&id) {
            Some(filter) if now.duration_since(filter.asked) < FILTER_LIFE => {
                filter.asked = now;
                Ok(Arc::clone(&filter.kind))
            }
            _ => Err(refused("filter not found")),
        }
    }
}

fn next_height(node: &Node) -> u64 {
    node.query.tip().height().0.saturating_add(1)
}

fn new_log_filter(node: &Node, mut arguments: Arguments<'_>) -> Result<U128, Refusal> {
    let query: LogQuery = arguments.required()?;
    arguments.end()?;
    if matches!(query.range, LogRange::Block(_)) {
        return Err(invalid("a filter cannot be made for one block hash"));
    }
    let (low, high) = query.bounds();
    if low > high {
        return Err(invalid("invalid block range params"));
    }
    node.filters.add(Kind::Logs { query, next: next_height(node) })
}

fn new_block_filter(node: &Node, arguments: Arguments<'_>) -> Result<U128, Refusal> {
    arguments.end()?;
    node.filters.add(Kind::Blocks { next: next_height(node) })
}

fn new_pending_filter(node: &Node, arguments: Arguments<'_>) -> Result<U128, Refusal> {
    arguments.end()?;
    node.filters.add(Kind::Pending(node.hub.pending_hashes()))
}

fn uninstall(node: &Node, mut arguments: Arguments<'_>) -> Result<bool, Refusal> {
    let id: U128 = arguments.required()?;
    arguments.end()?;
    Ok(node.filters.live.lock().remove(&id).is_some())
}

fn filter_logs(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Vec<Log>, Refusal> {
    let id = arguments.required()?;
    arguments.end()?;
    let kind = node.filters.find(id)?;
    let query = match &*kind.try_lock().ok_or_else(in_use)? {
        Kind::Logs { query, .. } => query.clone(),
        Kind::Blocks { .. } | Kind::Pending(_) => return Err(refused("filter not found")),
    };
    node.query_logs(&query, cancel)
}

fn changes(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Changes, Refusal> {
    let id = arguments.required()?;
    arguments.end()?;
    let kind = node.filters.find(id)?;
    let mut kind = kind.try_lock().ok_or_else(in_use)?;
    match &mut *kind {
        Kind::Pending(ring) => Ok(Changes::Hashes(drain(ring))),
        Kind::Blocks { next } => new_hashes(node, next).map(Changes::Hashes),
        Kind::Logs { query, next } => new_logs(node, query, next, cancel).map(Changes::Logs),
    }
}

/// Two calls at once would share the changes between them, and the second would hold a thread.
fn in_use() -> Refusal {
    refused("filter is being read by another call")
}

/// Everything in the ring; a filter that was asked too rarely has lost the oldest.
fn drain(ring: &mut Receiver<B256>) -> Vec<B256> {
    let mut hashes = Vec::with_capacity(ring.len());
    loop {
        match ring.try_recv() {
            Ok(hash) => hashes.push(hash),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return hashes,
        }
    }
}

/// The heights since the last call, as many as one answer holds.
fn heights(node: &Node, next: u64) -> std::ops::RangeInclusive<u64> {
    let tip = node.query.tip().height().0;
    next..=tip.min(next.saturating_add(LOG_QUERY_BLOCKS_MAX.saturating_sub(1)))
}

fn new_hashes(node: &Node, next: &mut u64) -> Result<Vec<B256>, Refusal> {
    let mut hashes = Vec::new();
    for height in heights(node, *next) {
        let header = node.query.header(BlockRef::Height(Height(height))).map_err(error::store)?;
        hashes.extend(header.map(|header| header.seal()));
        *next = height.saturating_add(1);
    }
    Ok(hashes)
}

fn new_logs(node: &Node, query: &LogQuery, next: &mut u64, cancel: &AtomicBool) -> Result<Vec<Log>, Refusal> {
    let heights = heights(node, *next);
    let end = heights.end().saturating_add(1).max(*next);
    let (low, high) = query.bounds();
    let wanted = low.max(*heights.start())..=high.min(*heights.end());
    let first = *wanted.start();
    let collected = node.collect_logs(&query.filter, wanted, cancel)?;
    // A block whose logs fill an answer alone is passed over, or the filter would stand still for ever.
    let reached = match collected.stopped_at {
        Some(height) if height == first => height.saturating_add(1),
        Some(height) => height,
        None => end,
    };
    *next = reached;
    Ok(collected.logs)
}
