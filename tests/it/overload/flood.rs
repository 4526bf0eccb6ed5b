//! Clients without weight that come in great number, half of them again and again, and submit what nobody can pay for.

use std::{
    fmt::{Display, Formatter},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use alloy_primitives::Bytes;
use net::{
    client::{Client, ClientConfig},
    ingress::wire::Event,
};
use tests::wallet::transfer;
use tokio::{runtime::Builder, sync::Semaphore, task::JoinSet};

use super::{
    SINK,
    crowd::{client_key, keys},
};

/// Transactions that one client has under way.
const UNDER_WAY: usize = 16;

/// What a client that comes again submits before it goes.
const SUBMITTED_MAX: usize = 32;

/// Signed before the flood begins; all clients submit the same.
const TRANSACTIONS: u64 = 512;

/// What came of it.
#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU32,
    let_in: AtomicU32,
    turned_away: AtomicU32,
    submitted: AtomicU64,
}

/// A flood under way, on one thread of its own.
pub(crate) struct Flood {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// What came of a flood.
pub(crate) struct Flooded(Arc<Counts>);

impl Display for Flooded {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let Counts { begun, let_in, turned_away, submitted } = &*self.0;
        let (begun, let_in, away) = (of(begun), of(let_in), of(turned_away));
        write!(f, "{begun} came, {let_in} were let in, {away} not, {} submitted", submitted.load(Ordering::Relaxed))
    }
}

impl Flood {
    /// So many clients in all, so many of them at a time; half of these stay.
    pub(crate) fn begin(node: &str, attempts: u32, at_a_time: u32) -> Self {
        let counts = Arc::new(Counts::default());
        let (node, counted) = (node.to_owned(), counts.clone());
        let thread = thread::spawn(move || {
            let payers = keys("flood account", 8);
            let signed = (0..TRANSACTIONS).map(|number| transfer(&payers[(number % 8) as usize], number / 8, SINK));
            let signed: Arc<Vec<Bytes>> = Arc::new(signed.collect());
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut staying = JoinSet::new();
                let mut coming = JoinSet::new();
                for number in 0..at_a_time {
                    let (node, counts, signed) = (node.clone(), counted.clone(), signed.clone());
                    if number % 2 == 0 {
                        counts.begun.fetch_add(1, Ordering::Relaxed);
                        staying.spawn(async move { visit(&node, number, &counts, &signed, usize::MAX).await });
                    } else {
                        coming.spawn(async move {
                            loop {
                                let number = counts.begun.fetch_add(1, Ordering::Relaxed);
                                if number >= attempts {
                                    counts.begun.fetch_sub(1, Ordering::Relaxed);
                                    return;
                                }
                                visit(&node, at_a_time + number, &counts, &signed, SUBMITTED_MAX).await;
                            }
                        });
                    }
                }
                while coming.join_next().await.is_some() {}
                staying.shutdown().await;
            });
        });
        Self { counts, thread: Some(thread) }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(crate) fn end(&mut self) -> Flooded {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it floods");
        }
        Flooded(self.counts.clone())
    }
}

/// One client from its handshake to its end.
async fn visit(node: &str, number: u32, counts: &Counts, signed: &[Bytes], count: usize) {
    let free = Arc::new(Semaphore::new(UNDER_WAY));
    let freed = free.clone();
    let listener = Box::new(move |event: &Event| {
        if event.is_end() {
            freed.add_permits(1);
        }
    });
    let key = client_key("flood client", number as usize);
    let config = ClientConfig { listener: Some(listener), ..ClientConfig::new(node, key) };
    let Ok(client) = Client::connect(config).await else {
        counts.turned_away.fetch_add(1, Ordering::Relaxed);
        return;
    };
    counts.let_in.fetch_add(1, Ordering::Relaxed);
    for raw in signed.iter().cycle().skip(number as usize % signed.len()).take(count) {
        free.acquire().await.expect("nobody closes it").forget();
        if client.send(raw.clone()).await.is_err() {
            return;
        }
        counts.submitted.fetch_add(1, Ordering::Relaxed);
    }
}
