//! A thread that looks at one node for as long as it lives, and the figures that follow from what it saw.
//!
//! Finality latency is taken from the time that a proposal carries, the leader's clock when it proposed, to the moment
//! in which the block is seen as final and durable at the node that is looked at; a look takes place every few
//! milliseconds, and that much the figures are too large. All nodes and the watch share this machine's clock.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, hex};
use alloy_rlp::Decodable;
use engine::types::{Certificate, ConsensusHeader};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ledger::{Reported, Slot};
use crate::rpc::{Rpc, quantity};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What makes a block final can be had so long after the block itself, at the latest.
const AVAILABLE_WITHIN: Duration = Duration::from_secs(10);

/// A final block as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the node reported.
    pub reported: Reported,
    /// When it was seen.
    pub at: Instant,
    /// Milliseconds from the time its proposal carries to that moment.
    pub finality_ms: u64,
    /// Its transactions.
    pub transactions: Vec<B256>,
    /// What ordering agreed on.
    pub header: ConsensusHeader,
    /// Id of that.
    pub id: B256,
    /// Slot of the proposal, with its epoch.
    pub slot: Slot,
    /// Validators in the certificate that made it final.
    pub signers: Vec<usize>,
    /// Slot of that certificate, with its epoch.
    pub certified: Slot,
}

/// A thread that looks at one node; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    told: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look at a node from the block after `height` on, through kills and restarts.
    ///
    /// # Panics
    /// If the machine has no thread for it.
    #[must_use]
    pub fn start(url: &str, height: u64) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        let told = Arc::new(AtomicU64::new(height));
        let (url, shared, highest, stopped) = (url.to_owned(), seen.clone(), told.clone(), stop.clone());
        let run = move || {
            let rpc = Rpc::new(&url);
            let mut next = Next { height: height + 1, told: None };
            while !stopped.load(Ordering::Relaxed) {
                // A node that is away says nothing, which is no news.
                if let Some(tip) = tip(&rpc) {
                    highest.fetch_max(tip, Ordering::Relaxed);
                    while next.height <= tip && !stopped.load(Ordering::Relaxed) {
                        let Some(block) = next.look(&rpc) else { break };
                        shared.lock().push(block);
                        next = Next { height: next.height + 1, told: None };
                    }
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(run).expect("a thread");
        Self { seen, told, stop, thread: Some(thread) }
    }

    /// Everything seen up to this moment.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The highest height that the node told, whether or not it then lived long enough to show the block.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// The last block seen.
    #[must_use]
    pub fn last(&self) -> Option<Seen> {
        self.seen.lock().last().cloned()
    }

    /// The first block seen at or after a moment that fits.
    #[must_use]
    pub fn first(&self, after: Instant, fits: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let seen = self.seen.lock();
        let from = seen.partition_point(|block| block.at < after);
        seen[from..].iter().find(|block| fits(block)).cloned()
    }

    /// What was seen between two moments.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Vec<Seen> {
        self.seen.lock().iter().filter(|block| block.at >= from && block.at < to).cloned().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a node answered what nobody understands");
        }
    }
}

fn tip(rpc: &Rpc) -> Option<u64> {
    rpc.try_call("eth_blockNumber", &json!([]))?.ok().map(|height| quantity(&height))
}

/// The block that is looked for.
struct Next {
    height: u64,
    /// When the node first told that it has it, and milliseconds since 1970 at that moment.
    told: Option<(Instant, u64)>,
}

impl Next {
    /// The block as a node reports it; `None` if the connection broke, or what makes it final is not to be had yet: the
    /// certificate of a later block, which is written after it.
    ///
    /// # Panics
    /// If the node has said that it has the block, and gives another answer than one.
    fn look(&mut self, rpc: &Rpc) -> Option<Seen> {
        let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis()));
        let (at, now_ms) = *self.told.get_or_insert_with(|| (Instant::now(), now().unwrap_or(u64::MAX)));
        let tag = format!("{:#x}", self.height);
        let block = rpc.try_call("eth_getBlockByNumber", &json!([tag, false]))?.expect("a block that it said it has");
        let shown = match rpc.try_call("sluice_getFinality", &json!([tag]))? {
            Ok(shown) => shown,
            Err(error) if error.message.contains("is not available") && at.elapsed() < AVAILABLE_WITHIN => return None,
            Err(error) => panic!("what shows that block {} is final: {error:?}", self.height),
        };
        let own = shown["headers"].as_array().and_then(|headers| headers.last()).expect("its own header");
        let header: ConsensusHeader = decoded(own);
        let certificate: Certificate = decoded(&shown["certificate"]);
        let transactions = block["transactions"].as_array().expect("hashes").iter().map(hash).collect();
        Some(Seen {
            reported: reported(&block),
            at,
            finality_ms: now_ms.saturating_sub(header.timestamp_ms),
            transactions,
            id: header.id(),
            slot: (header.epoch, header.slot),
            header,
            signers: certificate.signers.iter().map(|index| usize::from(index.0)).collect(),
            certified: (certificate.epoch.0, certificate.statement.slot().0),
        })
    }
}

/// A block of JSON-RPC.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn reported(block: &Value) -> Reported {
    Reported { height: quantity(&block["number"]), hash: hash(&block["hash"]), root: hash(&block["stateRoot"]) }
}

fn hash(value: &Value) -> B256 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no hash"))
}

fn decoded<T: Decodable>(value: &Value) -> T {
    let bytes = hex::decode(value.as_str().expect("hex")).expect("hex");
    T::decode(&mut &*bytes).expect("RLP")
}

/// Percentiles of a list of milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Values.
    pub count: usize,
    /// Half of them are at most this.
    pub p50: u64,
    /// So are 95 of 100.
    pub p95: u64,
    /// So are 99 of 100.
    pub p99: u64,
    /// All are.
    pub most: u64,
    /// Mean.
    pub mean: u64,
}

impl Percentiles {
    /// Of these values, by the nearest rank; zeros if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        let Some(most) = values.last().copied() else { return Self::default() };
        let count = values.len();
        let at = |percent: usize| values[(count * percent).div_ceil(100).max(1) - 1];
        let mean = values.iter().sum::<u64>() / count as u64;
        Self { count, p50: at(50), p95: at(95), p99: at(99), most, mean }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p95, p99, most, mean } = self;
        write!(f, "p50 {p50} p95 {p95} p99 {p99} max {most} mean {mean} ms of {count}")
    }
}

/// What a stretch of time was like at one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Its length.
    pub span: Duration,
    /// Blocks.
    pub blocks: usize,
    /// Transactions in them, per second.
    pub transactions_per_second: f64,
    /// From proposal to final and durable.
    pub finality: Percentiles,
    /// From one final block to the next.
    pub gap: Percentiles,
}

impl Figures {
    /// Of the blocks seen between two moments.
    #[must_use]
    pub fn of(seen: &[Seen], from: Instant, to: Instant) -> Self {
        let span = to.duration_since(from);
        let seen: Vec<&Seen> = seen.iter().filter(|block| block.at >= from && block.at < to).collect();
        let transactions: usize = seen.iter().map(|block| block.transactions.len()).sum();
        let gaps = seen.windows(2).map(|pair| ms(pair[1].at.duration_since(pair[0].at)));
        Self {
            span,
            blocks: seen.len(),
            transactions_per_second: transactions as f64 / span.as_secs_f64(),
            finality: Percentiles::of(seen.iter().map(|block| block.finality_ms)),
            gap: Percentiles::of(gaps),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, blocks, transactions_per_second, finality, gap } = self;
        let seconds = span.as_secs_f64();
        let (p50, p95, most) = (gap.p50, gap.p95, gap.most);
        write!(f, "{blocks} blocks in {seconds:.1} s, {transactions_per_second:.0} tx/s, finality {finality}, ")?;
        write!(f, "block to block p50 {p50} p95 {p95} max {most} ms")
    }
}

/// Milliseconds of a time span.
#[must_use]
pub fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// From when each transaction was sent to when it was seen as final, of those that were; in milliseconds.
#[must_use]
pub fn latencies(sent: &HashMap<B256, Instant>, seen: &[Seen]) -> Percentiles {
    let of = |block: &Seen| {
        let times = block.transactions.iter().filter_map(|hash| sent.get(hash));
        times.map(|sent| ms(block.at.saturating_duration_since(*sent))).collect::<Vec<_>>()
    };
    Percentiles::of(seen.iter().flat_map(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let of = |values: &[u64]| Percentiles::of(values.iter().copied());
        assert_eq!(of(&[]), Percentiles::default());
        let one = of(&[7]);
        assert_eq!((one.p50, one.p99, one.most, one.mean), (7, 7, 7, 7));
        let hundred = Percentiles::of((1..=100).rev());
        assert_eq!((hundred.p50, hundred.p95, hundred.p99, hundred.most, hundred.mean), (50, 95, 99, 100, 50));
    }

    #[test]
    fn figures_are_of_the_stretch_alone() {
        let begun = Instant::now();
        let block = |number: u8| Seen {
            reported: Reported { height: number.into(), hash: B256::ZERO, root: B256::ZERO },
            at: begun + Duration::from_millis(100) * number.into(),
            finality_ms: number.into(),
            transactions: vec![B256::with_last_byte(number); 10],
            header: ConsensusHeader::default(),
            id: B256::ZERO,
            slot: (0, 0),
            signers: Vec::new(),
            certified: (0, 0),
        };
        let seen: Vec<Seen> = (0..30).map(block).collect();
        let figures = Figures::of(&seen, begun + Duration::from_secs(1), begun + Duration::from_secs(2));
        assert_eq!((figures.blocks, figures.finality.count, figures.finality.most), (10, 10, 19));
        assert_eq!((figures.gap.p50, figures.gap.count), (100, 9));
        assert!((figures.transactions_per_second - 100.0).abs() < 1e-6);
        let sent = HashMap::from([(B256::with_last_byte(3), begun)]);
        assert_eq!(latencies(&sent, &seen).p50, 300);
    }
}
