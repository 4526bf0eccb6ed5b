//! A market maker: quotes both sides of an order book with every block, and knows how each of its transactions ended.
//!
//! ```text
//! sluice node --dev --dev.block-time 200ms --quic 127.0.0.1:8547
//! cargo run --release -p bench --example market_maker [QUIC [JSON-RPC [ROUNDS]]]
//! ```
//!
//! Without words: `127.0.0.1:8547 http://127.0.0.1:8545 20`. JSON-RPC tells the first nonce and fee, and no more:
//!
//! ```text
//! set-up   two tokens and the order book are deployed, minted, approved, funded
//! round    a head comes     what waits in the book is cancelled, and both sides are quoted anew, at once
//!          all is admitted  the price has moved: the same nonces once more, other prices, a tenth more fees
//!          all has ended    of each nonce one is included; the other one was replaced, or came too late to replace it
//! end      what waits in the book is cancelled
//! ```
//!
//! Without `--dev.block-time` a development node includes what comes at once, and more replacements come too late. A
//! connection that is lost costs time and nothing else: the client goes on over the next one.
//!
//! Exits with 1 if a transaction has no end, or a nonce was not used by one of this program's.
#![expect(clippy::print_stdout, reason = "a program tells what it does")]

use std::{
    collections::BTreeMap,
    fmt::{Display, Formatter},
    process::ExitCode,
    time::{Duration, Instant},
};

use alloy_primitives::{U64, U128, U256, keccak256};
use alloy_signer_local::PrivateKeySigner;
use bench::{
    AccountId, Accounts, Operation, World,
    expect::{BASE, QUOTE},
    rng::Rng,
    sign::{Fees, GasLimits, sign_one},
    world::{Deployment, Layout, Spender},
};
use net::{
    NodeKey,
    client::{Client, ClientConfig, Submission},
    ingress::wire::{Event, Head, Included, REPLACED},
    rpc_client::RpcClient,
};
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// The first account of a development chain; everybody knows its key.
const DEV_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// The maker's account, which deploys the contracts as well.
const MAKER: AccountId = AccountId::FUNDER;

/// Units of each token that the book is funded with.
const FUNDS: u128 = 1_000_000_000_000_000_000_000;

/// Lots that each order is for.
const LOTS: u64 = 10;

/// Ticks from the price to each quote: more than the price moves in a round, so that no quote meets an older one.
const HALF_SPREAD: u32 = 5;

/// Wei per gas for the proposer.
const TIP: u128 = 10_000_000;

/// Longest wait for a block or for the next event about a transaction.
const PATIENCE: Duration = Duration::from_secs(30);

/// Codes of refused and dropped ones whose nonce was used.
const LATE: [u16; 2] = [15, 101];

type Failure = Box<dyn std::error::Error>;

/// A transaction that was submitted, and whoever listens to what becomes of it.
struct UnderWay {
    what: String,
    nonce: u64,
    admitted: oneshot::Receiver<()>,
    heard: JoinHandle<Heard>,
}

/// What became of a transaction.
#[derive(Default)]
struct Heard {
    /// How long until it was admitted, notarized and final.
    stages: [Option<Duration>; 3],
    end: Option<Event>,
}

/// Listens until a transaction ends, or nothing more is heard of it; tells whoever waits until it is in the pool.
async fn listen(mut submission: Submission, since: Instant, admitted: oneshot::Sender<()>) -> Heard {
    let (mut heard, mut admitted) = (Heard::default(), Some(admitted));
    while heard.end.is_none()
        && let Ok(Some(event)) = timeout(PATIENCE, submission.stage()).await
    {
        let stage = match event {
            Event::Admitted(_) => 0,
            Event::Notarized(..) => 1,
            Event::Final(..) => 2,
            _ => heard.stages.len(),
        };
        if let Some(stage) = heard.stages.get_mut(stage) {
            *stage = Some(since.elapsed());
        }
        heard.end = event.is_end().then_some(event);
        // An error says that nobody waits for it.
        let _ = admitted.take().map(|admitted| admitted.send(()));
    }
    heard
}

/// A transaction, and how it ended.
struct Sent {
    what: String,
    nonce: u64,
    heard: Heard,
}

impl Sent {
    const fn included(&self) -> Option<&Included> {
        match &self.heard.end {
            Some(Event::Final(_, included)) => Some(included),
            _ => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.heard.end {
            Some(Event::Final(_, included)) if included.success => Outcome::Included,
            Some(Event::Final(..)) => Outcome::Reverted,
            Some(Event::Dropped(_, reason)) if reason.code == REPLACED => Outcome::Replaced,
            Some(Event::Refused(_, reason) | Event::Dropped(_, reason)) if LATE.contains(&reason.code) => Outcome::Late,
            Some(Event::Refused(..)) => Outcome::Refused,
            Some(_) => Outcome::Dropped,
            None => Outcome::Lost,
        }
    }
}

impl Display for Sent {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5} {:20}", self.nonce, self.what)?;
        for (name, time) in STAGES.into_iter().zip(self.heard.stages) {
            match time {
                Some(time) => write!(f, "  {name} {:8.2} ms", milliseconds(time))?,
                None => write!(f, "  {name} {:>8}   ", "-")?,
            }
        }
        match &self.heard.end {
            Some(Event::Final(_, Included { height, index, success, .. })) => {
                write!(f, "  block {height}, place {index}{}", if *success { "" } else { ", reverted" })
            }
            Some(Event::Refused(_, reason)) => write!(f, "  refused: {}", reason.text),
            Some(Event::Dropped(_, reason)) => write!(f, "  dropped: {}", reason.text),
            _ => write!(f, "  no end"),
        }
    }
}

const STAGES: [&str; 3] = ["admitted", "notarized", "final"];

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Included,
    /// Included, but the call failed: what it cancels has been filled.
    Reverted,
    Replaced,
    /// Refused or dropped, because what it replaces was included.
    Late,
    Refused,
    Dropped,
    Lost,
}

struct Maker {
    client: Client,
    heads: watch::Receiver<Option<Head>>,
    accounts: Accounts,
    world: World,
    fees: Fees,
    next_nonce: u64,
    price: u32,
    rng: Rng,
    under_way: Vec<UnderWay>,
    sent: Vec<Sent>,
    /// Orders that wait in the book.
    waiting: Vec<u64>,
}

impl Maker {
    async fn connect(quic: &str, rpc: &str) -> Result<Self, Failure> {
        let key: PrivateKeySigner = DEV_KEY.parse()?;
        let accounts = Accounts::new(1, key, 0, 0);
        let address = accounts.address(MAKER);
        let rpc = RpcClient::new(rpc)?;
        let next_nonce = rpc.call::<U64>("eth_getTransactionCount", json!([address, "latest"])).await?.to();
        let base_fee: U128 = rpc.call("eth_gasPrice", json!([])).await?;
        // The node knows a client by this key; one with weight has a larger window, and places of its own.
        let client = Client::connect(ClientConfig::new(quic, NodeKey::from_seed(&[7; 32])?)).await?;
        let (newest, heads) = watch::channel(None);
        tokio::spawn(follow(client.clone(), newest));
        let layout = Layout { tokens: 2, book: true, ..Layout::default() };
        Ok(Self {
            heads,
            world: World::new(&layout, address, next_nonce),
            fees: fees(client.welcome().chain_id, base_fee.to()),
            client,
            accounts,
            next_nonce,
            price: 10_000,
            rng: Rng::new(1),
            under_way: Vec::new(),
            sent: Vec::new(),
            waiting: Vec::new(),
        })
    }

    async fn set_up(&mut self) -> Result<(), Failure> {
        let deployments: Vec<Deployment> = self.world.deployments.iter().map(|(deployment, _)| *deployment).collect();
        let mut operations: Vec<_> = deployments.into_iter().map(Operation::Deploy).collect();
        for token in [BASE, QUOTE] {
            operations.extend([
                Operation::Mint { token, to: MAKER.0..MAKER.0 + 1, amount: FUNDS },
                Operation::Approve { token, spender: Spender::OrderBook },
                Operation::FundBook { asset: token, amount: FUNDS },
            ]);
        }
        for operation in operations {
            let nonce = self.take_nonce();
            self.submit(&operation, nonce, self.fees).await?;
        }
        self.settle().await?;
        if self.sent.iter().any(|sent| sent.outcome() != Outcome::Included) {
            return Err("the set-up failed".into());
        }
        println!("order book {}", self.world.book);
        Ok(())
    }

    /// One block's quotes: the old ones leave the book, the new ones are moved once on their way into it.
    async fn round(&mut self) -> Result<(), Failure> {
        let head = self.newest_head().await?;
        self.fees = fees(self.fees.chain_id, head.base_fee.into());
        self.move_price();
        println!("block {}: price {}", head.height, self.price);
        self.cancel_all().await?;
        let quoted = self.next_nonce;
        for quote in self.quotes() {
            let nonce = self.take_nonce();
            self.submit(&quote, nonce, self.fees).await?;
        }
        for one in &mut self.under_way {
            (&mut one.admitted).await?;
        }
        self.move_price();
        for (quote, nonce) in self.quotes().iter().zip(quoted..) {
            self.submit(quote, nonce, raised(self.fees)).await?;
        }
        self.settle().await
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.cancel_all().await?;
        self.settle().await
    }

    async fn cancel_all(&mut self) -> Result<(), Failure> {
        for order in std::mem::take(&mut self.waiting) {
            let nonce = self.take_nonce();
            self.submit(&Operation::CancelOrder { order }, nonce, self.fees).await?;
        }
        Ok(())
    }

    fn quotes(&self) -> [Operation; 2] {
        let quote = |bid, tick| Operation::PlaceOrder { bid, tick, lots: LOTS };
        [quote(true, self.price - HALF_SPREAD), quote(false, self.price + HALF_SPREAD)]
    }

    /// A market's price would come from elsewhere.
    fn move_price(&mut self) {
        let moved = u32::try_from(self.rng.between(1, 3)).unwrap_or_default();
        self.price = if self.price < 10_000 { self.price + moved } else { self.price - moved };
    }

    async fn submit(&mut self, operation: &Operation, nonce: u64, fees: Fees) -> Result<(), Failure> {
        let gas = GasLimits::new();
        let signed = sign_one(MAKER, operation, nonce, &self.world, &self.accounts, fees, &gas);
        let what = match operation {
            Operation::PlaceOrder { bid: true, tick, .. } => format!("bid at {tick}"),
            Operation::PlaceOrder { tick, .. } => format!("ask at {tick}"),
            Operation::CancelOrder { order } => format!("cancel {order}"),
            Operation::Deploy(deployment) => format!("deploy {}", deployment.contract().name()),
            _ => "fund the book".to_owned(),
        };
        let since = Instant::now();
        let submission = self.client.submit(signed.raw).await?;
        let (admitting, admitted) = oneshot::channel();
        let heard = tokio::spawn(listen(submission, since, admitting));
        self.under_way.push(UnderWay { what, nonce, admitted, heard });
        Ok(())
    }

    const fn take_nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce - 1
    }

    /// Waits for the ends of what is under way, and takes up which orders wait in the book.
    async fn settle(&mut self) -> Result<(), Failure> {
        for UnderWay { what, nonce, heard, .. } in std::mem::take(&mut self.under_way) {
            let sent = Sent { what, nonce, heard: heard.await? };
            println!("{sent}");
            let logs = sent.included().into_iter().flat_map(|included| &included.logs);
            let own = logs.filter(|log| log.address == self.world.book);
            self.waiting.extend(own.filter_map(|log| placed(log.topics().first_chunk()?, &log.data.data)));
            self.sent.push(sent);
        }
        if self.unaccounted() > 0 { Err("not all is accounted for".into()) } else { Ok(()) }
    }

    /// Transactions without an end, and nonces that were not used once.
    fn unaccounted(&self) -> usize {
        let mut used: BTreeMap<u64, usize> = BTreeMap::new();
        for sent in &self.sent {
            *used.entry(sent.nonce).or_default() += usize::from(sent.included().is_some());
        }
        self.count(Outcome::Lost) + used.values().filter(|included| **included != 1).count()
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.sent.iter().filter(|sent| sent.outcome() == outcome).count()
    }

    async fn newest_head(&mut self) -> Result<Head, Failure> {
        timeout(PATIENCE, self.heads.changed()).await.map_err(|_| "there is no further block")??;
        self.heads.borrow_and_update().clone().ok_or_else(|| "there is no block".into())
    }

    /// Prints how long it took and how it ended.
    fn sum_up(&self) {
        for (stage, name) in STAGES.into_iter().enumerate() {
            let mut times: Vec<Duration> = self.sent.iter().filter_map(|sent| sent.heard.stages[stage]).collect();
            times.sort_unstable();
            let Some(most) = times.last().copied() else { continue };
            let part = |percent: usize| milliseconds(times[(times.len() - 1) * percent / 100]);
            let (half, tail, most) = (part(50), part(99), milliseconds(most));
            println!("until {name:9} p50 {half:8.2} ms  p99 {tail:8.2} ms  most {most:8.2} ms  of {}", times.len());
        }
        println!(
            "{} submitted: {} included, {} reverted, {} replaced, {} too late, {} refused, {} dropped; {} unaccounted \
             for; {} orders wait",
            self.sent.len(),
            self.count(Outcome::Included),
            self.count(Outcome::Reverted),
            self.count(Outcome::Replaced),
            self.count(Outcome::Late),
            self.count(Outcome::Refused),
            self.count(Outcome::Dropped),
            self.unaccounted(),
            self.waiting.len()
        );
    }
}

/// Keeps the newest block in sight, over as many connections as that takes.
async fn follow(client: Client, newest: watch::Sender<Option<Head>>) {
    while let Ok(mut heads) = client.heads().await {
        while let Ok(Event::Head(head)) = heads.next().await {
            newest.send_replace(Some(head));
        }
    }
}

/// Enough for some blocks that are full.
const fn fees(chain_id: u64, base_fee: u128) -> Fees {
    Fees { chain_id, fee_max: 2 * base_fee + TIP, priority_fee: TIP }
}

/// What replaces a transaction pays a tenth more at least, of both.
const fn raised(fees: Fees) -> Fees {
    let (fee_max, priority_fee) = ((fees.fee_max * 11).div_ceil(10), (fees.priority_fee * 11).div_ceil(10));
    Fees { fee_max, priority_fee, ..fees }
}

/// The order that an event of the book says waits.
fn placed([event, order]: &[alloy_primitives::B256; 2], data: &[u8]) -> Option<u64> {
    let rested = U256::from_be_slice(data.get(96..128)?);
    let is_it = *event == keccak256("Placed(uint64,address,bool,uint24,uint64,uint64)") && !rested.is_zero();
    if is_it { U256::from_be_bytes(order.0).try_into().ok() } else { None }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

async fn trade(maker: &mut Maker, rounds: u32) -> Result<(), Failure> {
    maker.set_up().await?;
    for _ in 0..rounds {
        maker.round().await?;
    }
    maker.finish().await
}

async fn run() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = |default: &str| words.next().unwrap_or_else(|| default.to_owned());
    let (quic, rpc, rounds) = (word("127.0.0.1:8547"), word("http://127.0.0.1:8545"), word("20").parse()?);
    let mut maker = Maker::connect(&quic, &rpc).await?;
    let traded = trade(&mut maker, rounds).await;
    maker.sum_up();
    traded
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
