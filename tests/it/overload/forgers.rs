//! Clients that submit transactions whose signatures are nobody's, as many as they are let.

use std::{
    fmt::{Display, Formatter},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{B256, Bytes, Signature, TxKind, keccak256};
use net::{
    client::{Client, ClientConfig},
    ingress::wire::{Event, FAULTS},
};
use tests::wallet::template;
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{interval, timeout},
};

use super::{SINK, crowd::client_key};

/// How often a client looks what is due.
const TICK: Duration = Duration::from_millis(2);

/// Longest wait of a client that flow control holds back for a look whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    /// Refused before anybody looked for a sender.
    unheard: AtomicU64,
    /// Refused after that.
    refused: AtomicU64,
    admitted: AtomicU64,
}

/// Forgers at work, on one thread of their own.
pub(crate) struct Forgers {
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    begun: Instant,
}

/// What forgers came to.
pub(crate) struct Forged {
    pub(crate) time: Duration,
    pub(crate) sent: u64,
    pub(crate) unheard: u64,
    pub(crate) refused: u64,
    pub(crate) admitted: u64,
}

impl Display for Forged {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { time, sent, unheard, refused, admitted } = self;
        write!(f, "{sent} sent in {time:?}, {unheard} not looked at, {refused} refused else, {admitted} admitted")
    }
}

/// A transfer of whoever this signature is: for every second one there is somebody, who has nothing.
fn forged(number: u64) -> Bytes {
    let part = |name: &str| B256::from(keccak256(format!("forged {name} {number}"))).into();
    let tx = TxEip1559 { to: TxKind::Call(SINK), ..template(0) };
    let signature = Signature::new(part("r"), part("s") >> 1_usize, number.is_multiple_of(2));
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

impl Forgers {
    /// So many clients, which together want to send so many a second.
    pub(crate) fn begin(node: &str, count: usize, per_second: u64) -> Self {
        let (counts, over) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (node, counted, ended) = (node.to_owned(), counts.clone(), over.clone());
        let thread = thread::spawn(move || {
            let raws: Arc<Vec<Bytes>> = Arc::new((0..per_second).map(forged).collect());
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..count {
                    let (counts, over, raws) = (counted.clone(), ended.clone(), raws.clone());
                    let client = connect(&node, number, counts.clone()).await;
                    let each = per_second / u64::try_from(count).expect("a few");
                    all.spawn(async move { submit(&client, each, &raws, (number, count), &counts, &over).await });
                }
                all.join_all().await;
            });
        });
        Self { counts, over, thread, begun: Instant::now() }
    }

    pub(crate) fn end(self) -> Forged {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("they forge");
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { sent, unheard, refused, admitted } = &*self.counts;
        Forged {
            time: self.begun.elapsed(),
            sent: of(sent),
            unheard: of(unheard),
            refused: of(refused),
            admitted: of(admitted),
        }
    }
}

async fn connect(node: &str, number: usize, counts: Arc<Counts>) -> Client {
    let listener = Box::new(move |event: &Event| {
        let count = match event {
            Event::Refused(_, reason) if reason.code == FAULTS => &counts.unheard,
            Event::Refused(..) => &counts.refused,
            Event::Admitted(_) => &counts.admitted,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    });
    let key = client_key("forger", number);
    let config = ClientConfig { listener: Some(listener), ..ClientConfig::new(node, key) };
    Client::connect(config).await.expect("it is let in")
}

/// One client, at so many a second; what flow control holds back comes later, or never.
async fn submit(
    client: &Client,
    per_second: u64,
    raws: &[Bytes],
    (number, forgers): (usize, usize),
    counts: &Counts,
    over: &AtomicBool,
) {
    let begun = Instant::now();
    let mut raws = raws.iter().cycle().skip(number * raws.len() / forgers);
    let (mut ticks, mut sent) = (interval(TICK), 0);
    loop {
        ticks.tick().await;
        let due = u64::try_from(begun.elapsed().as_micros()).expect("a short time") * per_second / 1_000_000;
        while sent < due {
            let mut sending = Box::pin(client.send(raws.next().expect("a cycle does not end").clone()));
            while timeout(LOOK, &mut sending).await.is_err() && !over.load(Ordering::Relaxed) {}
            if over.load(Ordering::Relaxed) {
                return;
            }
            sent += 1;
            counts.sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}
