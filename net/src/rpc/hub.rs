//! Spreads what the engine announces: heads and admitted transactions into rings, receipts to those
//! who wait for one.
//!
//! The engine's listener must not block, so it only puts into rings; everything else happens on the
//! readers' side. A reader that falls behind by a whole ring loses the oldest and is told so.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
};

use alloy_primitives::B256;
use engine::{
    events::{Event, Events},
    limits::HEADS_QUEUE_BLOCKS_MAX,
    types::{CommittedBlock, PooledTransaction},
};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::{
    sync::{broadcast, oneshot},
    task::JoinHandle,
};

use super::{
    convert,
    limits::{PENDING_RING_HASHES_MAX, PENDING_RING_TRANSACTIONS_MAX},
};

/// A new head, with its JSON made once for all subscribers.
#[derive(Debug)]
pub(super) struct Head {
    /// The block.
    pub(super) block: Arc<CommittedBlock>,
    json: OnceLock<Option<Box<RawValue>>>,
}

impl Head {
    fn new(block: Arc<CommittedBlock>) -> Self {
        Self { block, json: OnceLock::new() }
    }

    /// The header as `newHeads` sends it.
    pub(super) fn header_json(&self) -> Option<&RawValue> {
        self.json.get_or_init(|| serde_json::value::to_raw_value(&convert::header(&self.block)).ok()).as_deref()
    }
}

/// A block and the place of an awaited transaction in it.
pub(super) type Inclusion = (Arc<CommittedBlock>, usize);

/// The rings and the waiting callers.
pub(super) struct Hub {
    rings: Arc<Rings>,
    waiters: Arc<Waiters>,
    task: JoinHandle<()>,
}

struct Rings {
    heads: broadcast::Sender<Arc<Head>>,
    pending_hashes: broadcast::Sender<B256>,
    pending: broadcast::Sender<PooledTransaction>,
}

#[derive(Default)]
struct Waiters(Mutex<HashMap<B256, Vec<oneshot::Sender<Inclusion>>>>);

impl Hub {
    /// Listens to the engine; must be called inside a runtime.
    pub(super) fn start(events: &Events) -> Self {
        let rings = Arc::new(Rings {
            heads: broadcast::Sender::new(HEADS_QUEUE_BLOCKS_MAX),
            pending_hashes: broadcast::Sender::new(PENDING_RING_HASHES_MAX),
            pending: broadcast::Sender::new(PENDING_RING_TRANSACTIONS_MAX),
        });
        let waiters = Arc::new(Waiters::default());
        let task = tokio::spawn(answer_waiters(Arc::clone(&waiters), rings.heads.subscribe()));
        // The engine keeps listeners for its whole life; the rings end with the server.
        let listener = Arc::downgrade(&rings);
        events.listen(Box::new(move |event| announce(&listener, event)));
        Self { rings, waiters, task }
    }

    /// Heads from now on.
    pub(super) fn heads(&self) -> broadcast::Receiver<Arc<Head>> {
        self.rings.heads.subscribe()
    }

    /// Hashes of admitted transactions from now on; a slow reader holds no transaction in memory.
    pub(super) fn pending_hashes(&self) -> broadcast::Receiver<B256> {
        self.rings.pending_hashes.subscribe()
    }

    /// Admitted transactions from now on.
    pub(super) fn pending(&self) -> broadcast::Receiver<PooledTransaction> {
        self.rings.pending.subscribe()
    }

    /// Waits for a transaction to be durable; dropping the wait forgets it.
    pub(super) fn wait_for(&self, hash: B256) -> Wait {
        let (sender, receiver) = oneshot::channel();
        self.waiters.0.lock().entry(hash).or_default().push(sender);
        Wait { hash, receiver, waiters: Arc::clone(&self.waiters) }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A caller's wait for one transaction.
pub(super) struct Wait {
    hash: B256,
    receiver: oneshot::Receiver<Inclusion>,
    waiters: Arc<Waiters>,
}

impl Wait {
    /// The block that includes the transaction; `None` if the server stops first.
    pub(super) async fn included(&mut self) -> Option<Inclusion> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiters = self.waiters.0.lock();
        if let Some(waiting) = waiters.get_mut(&self.hash) {
            waiting.retain(|sender| !sender.is_closed());
            if waiting.is_empty() {
                waiters.remove(&self.hash);
            }
        }
    }
}

fn announce(rings: &Weak<Rings>, event: &Event) {
    let Some(rings) = rings.upgrade() else { return };
    // An error says that nobody listens.
    match event {
        Event::Committed(block) => {
            let _ = rings.heads.send(Arc::new(Head::new(Arc::clone(block))));
        }
        Event::Admitted(transaction) => {
            if rings.pending_hashes.receiver_count() > 0 {
                let _ = rings.pending_hashes.send(transaction.hash());
            }
            if rings.pending.receiver_count() > 0 {
                let _ = rings.pending.send(transaction.clone());
            }
        }
        Event::Dropped(..) | Event::Notarized(_) => {}
    }
}

async fn answer_waiters(waiters: Arc<Waiters>, mut heads: broadcast::Receiver<Arc<Head>>) {
    loop {
        let head = match heads.recv().await {
            Ok(head) => head,
            // Those who waited for a lost block find it in the store when their time is up.
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let mut waiters = waiters.0.lock();
        if waiters.is_empty() {
            continue;
        }
        for (index, transaction) in head.block.block.body.transactions.iter().enumerate() {
            for sender in waiters.remove(&transaction.hash()).unwrap_or_default() {
                let _ = sender.send((Arc::clone(&head.block), index));
            }
        }
    }
}
