//! Transfers at a steady pace to some nodes, one account for each, through kills and restarts.
//!
//! The n-th transfer of an account is always the same bytes, so that it can be sent again whenever it is not known what
//! became of it: nothing is ever paid twice.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_signer_local::PrivateKeySigner;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    rpc::{Rpc, quantity},
    wallet::{account, hash, hex_of, transfer},
};

/// Time between two bursts.
const BURST_EVERY: Duration = Duration::from_millis(50);

/// Transfers of one account under way; none is sent beyond.
const UNDER_WAY_MAX: u64 = 1_000;

/// An account whose count does not rise for so long sends again what is not in the chain.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The account that pays for `sluice load` is 0; the accounts here come after it.
const FIRST_ACCOUNT: u32 = 1;

/// Threads that send; they end when dropped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    sent: Mutex<HashMap<B256, Instant>>,
    refused: Mutex<HashMap<String, u64>>,
    resent: AtomicU64,
    stop: AtomicBool,
}

impl Traffic {
    /// Begins to send so many transfers a second, all together, to these nodes; node `n` gets those of an account that
    /// nobody else uses.
    ///
    /// # Panics
    /// If the machine has no threads for it.
    #[must_use]
    pub fn start(nodes: &[(usize, String)], per_second: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let bursts = 1_000 / u64::try_from(BURST_EVERY.as_millis()).unwrap_or(1);
        let burst = per_second.div_ceil(bursts * nodes.len().max(1) as u64);
        let start = |(node, url): &(usize, String)| {
            let index = FIRST_ACCOUNT + u32::try_from(*node).expect("few nodes");
            let (url, shared) = (url.clone(), shared.clone());
            let run = move || Sender::new(index, &url, shared).run(burst);
            std::thread::Builder::new().name("traffic".to_owned()).spawn(run).expect("a thread")
        };
        let threads = nodes.iter().map(start).collect();
        Self { shared, threads }
    }

    /// Every transfer sent up to this moment, and when it was first sent.
    #[must_use]
    pub fn sent(&self) -> HashMap<B256, Instant> {
        self.shared.sent.lock().clone()
    }

    /// What nodes said when they refused one, and how often.
    #[must_use]
    pub fn refused(&self) -> HashMap<String, u64> {
        self.shared.refused.lock().clone()
    }

    /// Transfers that were sent again.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.shared.resent.load(Ordering::Relaxed)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Sender {
    key: PrivateKeySigner,
    rpc: Rpc,
    shared: Arc<Shared>,
    /// Nonce of the next one to send; `None` if the node has to be asked.
    next: Option<u64>,
    /// Nonce below which everything has been sent once.
    fresh: u64,
    /// Count of the account in the chain, and when it last rose.
    settled: (u64, Instant),
}

impl Sender {
    fn new(index: u32, url: &str, shared: Arc<Shared>) -> Self {
        let settled = (0, Instant::now());
        Self { key: account(index), rpc: Rpc::new(url), shared, next: None, fresh: 0, settled }
    }

    fn run(mut self, burst: u64) {
        let mut due = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            // A node that is away is asked again at the next burst.
            let _ = self.burst(burst);
            due += BURST_EVERY;
            while let Some(wait) = due.checked_duration_since(Instant::now()) {
                if self.shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::park_timeout(wait);
            }
            // Bursts that a busy machine missed are not made up for: the pace is an upper bound.
            due = due.max(Instant::now() - BURST_EVERY);
        }
    }

    /// Sends one burst; `None` if the node is away.
    fn burst(&mut self, burst: u64) -> Option<()> {
        let count = self.rpc.try_call("eth_getTransactionCount", &json!([self.key.address(), "latest"]));
        let Some(Ok(count)) = count else {
            self.next = None;
            return None;
        };
        let count = quantity(&count);
        if count > self.settled.0 {
            self.settled = (count, Instant::now());
        }
        let stuck = self.settled.1.elapsed() >= STUCK_AFTER && self.next.is_some_and(|next| next > count);
        if stuck {
            self.settled.1 = Instant::now();
        }
        let from = self.next.filter(|_| !stuck).unwrap_or(count).max(count);
        // What is sent again comes at once, so that the pace is one of new transfers.
        let again = self.fresh.saturating_sub(from);
        let to = (from + again.min(UNDER_WAY_MAX) + burst).min(count + UNDER_WAY_MAX).max(from);
        self.shared.resent.fetch_add(again, Ordering::Relaxed);
        let batch: Vec<Bytes> = (from..to).map(|nonce| self.transfer(nonce)).collect();
        self.send(&batch)?;
        self.next = Some(to);
        self.fresh = self.fresh.max(to);
        Some(())
    }

    fn transfer(&self, nonce: u64) -> Bytes {
        let to = Address::from_word(B256::from(U256::from(nonce) << 8 | U256::from(0x51)));
        transfer(&self.key, nonce, to)
    }

    fn send(&mut self, batch: &[Bytes]) -> Option<()> {
        let now = Instant::now();
        for chunk in batch.chunks(100) {
            let calls: Vec<Value> = (0..chunk.len())
                .map(|id| {
                    let params = json!([hex_of(&chunk[id])]);
                    json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": params})
                })
                .collect();
            // It may have come even if the answer does not.
            let is_new: Vec<bool> = {
                let mut sent = self.shared.sent.lock();
                let note = |raw| match sent.entry(hash(raw)) {
                    Entry::Vacant(place) => {
                        place.insert(now);
                        true
                    }
                    Entry::Occupied(_) => false,
                };
                chunk.iter().map(note).collect()
            };
            let Some((_, text)) = self.rpc.post(Value::Array(calls).to_string()) else {
                self.next = None;
                return None;
            };
            let answers: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            // One that is sent again may wait in the pool, or be in a block by now.
            let is_of_new = |answer: &&Value| {
                let place = answer["id"].as_u64().and_then(|id| usize::try_from(id).ok());
                place.and_then(|place| is_new.get(place)) != Some(&false)
            };
            for message in answers.iter().filter(is_of_new).filter_map(|answer| answer["error"]["message"].as_str()) {
                *self.shared.refused.lock().entry(message.to_owned()).or_default() += 1;
            }
        }
        Some(())
    }
}
