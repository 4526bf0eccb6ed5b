//! The other end of [`ingress`](crate::ingress): submits transactions over QUIC and hears what becomes of them.
//!
//! ```no_run
//! # async fn quote(raw: alloy_primitives::Bytes) -> Result<(), Box<dyn std::error::Error>> {
//! use net::{NodeKey, client::{Client, ClientConfig}};
//!
//! let client = Client::connect(ClientConfig::new("127.0.0.1:8547", NodeKey::from_seed(&[7; 32])?)).await?;
//! let mut submission = client.submit(raw).await?;
//! submission.admitted().await?;
//! let included = submission.included().await?;
//! println!("block {}, gas {}", included.height, included.gas_used);
//! # Ok(())
//! # }
//! ```
//!
//! Submissions are pipelined: [`Client::submit`] waits only where the node holds the client back. A connection that is
//! lost is made anew; what became of transactions meanwhile is asked for by hash, and those that the node does not know
//! are submitted again, which is harmless, since their nonces are used once.
//!
//! A whole market maker is `bench/examples/market_maker.rs`: it quotes an order book with every block, moves its quotes
//! by cancelling and by replacing, and knows how each of its transactions ended.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy_primitives::{
    B256, Bytes, bytes, keccak256,
    map::{B256Map, Entry},
};
use engine::{limits::TRANSACTION_BYTES_MAX, types::LogFilter};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use crate::{
    identity::NodeKey,
    ingress::wire::{self, Cutter, EVENT_BYTES_MAX, Event, Included, QUESTION_HASHES_MAX, Question, Reason, WireError},
    tls::{self, Protocol},
    transport::record::NodeId,
};

/// Submissions that wait to be written.
const QUEUE_MAX: usize = 1_024;

/// Bytes that are read at a time.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Events of one submission that nobody has taken yet; its end has a place of its own.
const STAGES_MAX: usize = 4;

/// How long a connection may take to be made, its first event included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// The wait after a connection was lost, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A connection that is silent for this long is gone, and how often something is sent.
const IDLE_MAX: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Receive window of the connection: some hundred thousand events.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Why a client does not serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The address has no meaning here.
    #[error("{0} has no address")]
    Address(String),
    /// The node is not reached.
    #[error("the node is not reached: {0}")]
    Connect(String),
    /// It answers what no node answers.
    #[error("the node sent {0}")]
    Wire(#[from] WireError),
    /// A transaction of no bytes, or of more than a node takes.
    #[error("a transaction of {0} bytes, where 1 to {TRANSACTION_BYTES_MAX} are allowed")]
    Length(usize),
    /// The same transaction is under way already.
    #[error("transaction {0} is under way already")]
    UnderWay(B256),
    /// The node refused the transaction.
    #[error("refused: {text} (code {code})", text = .0.text, code = .0.code)]
    Refused(Reason),
    /// The node dropped the transaction.
    #[error("dropped: {text} (code {code})", text = .0.text, code = .0.code)]
    Dropped(Reason),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// What a client is told once.
pub struct ClientConfig {
    /// `host:port` of the node.
    pub node: String,
    /// The client's own key, which the node knows it by.
    pub key: NodeKey,
    /// The key of the node, if no other is to be talked to.
    pub expected: Option<NodeId>,
    /// Hears every event about this client's transactions, on the task that reads them; must return at once.
    pub listener: Option<Listener>,
}

/// See [`ClientConfig::listener`].
pub type Listener = Box<dyn Fn(&Event) + Send + Sync>;

impl ClientConfig {
    /// A client of any node at this address.
    #[must_use]
    pub fn new(node: &str, key: NodeKey) -> Self {
        Self { node: node.to_owned(), key, expected: None, listener: None }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a node said when it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Chain id.
    pub chain_id: u64,
    /// Height of its newest durable block then.
    pub height: u64,
    /// Transactions that may be on their way into its pool.
    pub window: u32,
    /// Transactions that may wait to be included.
    pub outstanding: u32,
}

/// A transaction that has not ended.
struct Waiting {
    /// Its number in the order of submission.
    number: u64,
    raw: Bytes,
    is_admitted: bool,
    stages: Option<mpsc::Sender<Event>>,
    _room: OwnedSemaphorePermit,
}

struct Inner {
    node: String,
    endpoint: Endpoint,
    welcome: Welcome,
    queue: mpsc::Sender<Bytes>,
    waiting: Mutex<B256Map<Waiting>>,
    submitted: AtomicU64,
    connection: watch::Sender<Option<Connection>>,
    room: Arc<Semaphore>,
    listener: Option<Listener>,
}

/// A client of one node; cheap to clone. It is closed when its last clone is dropped.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("node", &self.0.node).field("welcome", &self.0.welcome).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(0), b"the client is done");
    }
}

/// One connection with its two streams.
struct Met {
    connection: Connection,
    events: Events,
    submissions: SendStream,
    welcome: Welcome,
}

impl Client {
    /// Connects to a node, on the calling runtime.
    ///
    /// # Errors
    /// [`ClientError::Address`], [`ClientError::Connect`] and [`ClientError::Wire`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { node, key, expected, listener } = config;
        let crypto = Protocol::Clients.client(&key, expected).map_err(lost)?;
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
        transport.max_concurrent_uni_streams(VarInt::from_u32(1));
        transport.receive_window(VarInt::from_u32(WINDOW_BYTES));
        transport.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
        let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
        quic.transport_config(Arc::new(transport));
        let address = resolve(&node).await?;
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
        let mut endpoint = Endpoint::client(any).map_err(lost)?;
        endpoint.set_default_client_config(quic);
        let met = meet(&endpoint, &node).await?;
        let welcome = met.welcome;
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let room = Arc::new(Semaphore::new(usize::try_from(welcome.outstanding).unwrap_or(Semaphore::MAX_PERMITS)));
        let inner = Arc::new(Inner {
            node,
            endpoint,
            welcome,
            queue,
            waiting: Mutex::default(),
            submitted: AtomicU64::new(0),
            connection: watch::Sender::new(Some(met.connection.clone())),
            room,
            listener,
        });
        tokio::spawn(serve(Arc::downgrade(&inner), met, queued));
        Ok(Self(inner))
    }

    /// What the node said when it was met first.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.0.welcome
    }

    /// Submits a transaction in its EIP-2718 encoding; waits while as many wait to be included as may.
    ///
    /// # Errors
    /// [`ClientError::Length`], [`ClientError::UnderWay`] and [`ClientError::Closed`].
    pub async fn submit(&self, raw: Bytes) -> Result<Submission, ClientError> {
        let (stages, heard) = mpsc::channel(STAGES_MAX);
        let hash = self.send_with(raw, Some(stages)).await?;
        Ok(Submission { hash, heard, _client: self.clone() })
    }

    /// The same for who has a [`ClientConfig::listener`]; gives the transaction's hash.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn send(&self, raw: Bytes) -> Result<B256, ClientError> {
        self.send_with(raw, None).await
    }

    /// Blocks from now on; waits while there is no connection. One that is lost ends it, and who reads too slowly.
    ///
    /// # Errors
    /// [`ClientError::Connect`] and [`ClientError::Closed`].
    pub async fn heads(&self) -> Result<Subscription, ClientError> {
        self.follow(&Question::Heads).await
    }

    /// Logs that fit a filter of blocks from now on, as [`Self::heads`].
    ///
    /// # Errors
    /// As [`Self::heads`].
    pub async fn logs(&self, filter: LogFilter) -> Result<Subscription, ClientError> {
        self.follow(&Question::Logs(filter)).await
    }

    async fn follow(&self, question: &Question) -> Result<Subscription, ClientError> {
        let is_alive =
            |made: &Option<Connection>| made.as_ref().is_some_and(|connection| connection.close_reason().is_none());
        let mut connections = self.0.connection.subscribe();
        loop {
            let made = connections.wait_for(is_alive).await.ok().and_then(|made| made.clone());
            let connection = made.ok_or(ClientError::Closed)?;
            match put(&connection, question).await {
                Err(_) if connection.close_reason().is_some() => {}
                events => return Ok(Subscription { events: events?, _client: self.clone() }),
            }
        }
    }

    async fn send_with(&self, raw: Bytes, stages: Option<mpsc::Sender<Event>>) -> Result<B256, ClientError> {
        if !(1..=TRANSACTION_BYTES_MAX).contains(&raw.len()) {
            return Err(ClientError::Length(raw.len()));
        }
        let room = self.0.room.clone().acquire_owned().await.map_err(|_| ClientError::Closed)?;
        let place = self.0.queue.reserve().await.map_err(|_| ClientError::Closed)?;
        let hash = keccak256(&raw);
        // What is written later has the higher number, whoever else submits; nothing is half submitted.
        let mut waiting = self.0.waiting.lock();
        let Entry::Vacant(entry) = waiting.entry(hash) else { return Err(ClientError::UnderWay(hash)) };
        let number = self.0.submitted.fetch_add(1, Ordering::Relaxed);
        entry.insert(Waiting { number, raw: raw.clone(), is_admitted: false, stages, _room: room });
        place.send(raw);
        Ok(hash)
    }
}

/// Blocks or logs as they come.
pub struct Subscription {
    events: Events,
    _client: Client,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next one: [`Event::Head`] or [`Event::Log`].
    ///
    /// # Errors
    /// [`ClientError::Connect`] where there is none behind it, [`ClientError::Wire`].
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        self.events.next().await?.ok_or_else(|| lost("it has ended"))
    }
}

/// A transaction under way.
#[derive(Debug)]
pub struct Submission {
    /// Its hash.
    pub hash: B256,
    heard: mpsc::Receiver<Event>,
    _client: Client,
}

impl Submission {
    /// The next event about it; `None` behind the last, or if the client is closed.
    pub async fn stage(&mut self) -> Option<Event> {
        self.heard.recv().await
    }

    /// Waits until it is in the pool, or included at once.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Dropped`] and [`ClientError::Closed`].
    pub async fn admitted(&mut self) -> Result<(), ClientError> {
        self.stage().await.map_or(Err(ClientError::Closed), |event| judged(event).map(drop))
    }

    /// Waits until it is included in a final block.
    ///
    /// # Errors
    /// As [`Self::admitted`].
    pub async fn included(&mut self) -> Result<Included, ClientError> {
        while let Some(event) = self.stage().await {
            if let Some(included) = judged(event)? {
                return Ok(included);
            }
        }
        Err(ClientError::Closed)
    }
}

fn judged(event: Event) -> Result<Option<Included>, ClientError> {
    match event {
        Event::Final(_, included) => Ok(Some(included)),
        Event::Refused(_, reason) => Err(ClientError::Refused(reason)),
        Event::Dropped(_, reason) => Err(ClientError::Dropped(reason)),
        _ => Ok(None),
    }
}

fn lost(error: impl std::fmt::Display) -> ClientError {
    ClientError::Connect(error.to_string())
}

async fn resolve(node: &str) -> Result<SocketAddr, ClientError> {
    let found = tokio::net::lookup_host(node).await.ok().and_then(|mut found| found.next());
    found.ok_or_else(|| ClientError::Address(node.to_owned()))
}

async fn meet(endpoint: &Endpoint, node: &str) -> Result<Met, ClientError> {
    let met = async {
        let connecting = endpoint.connect(resolve(node).await?, tls::NAME).map_err(lost)?;
        let connection = connecting.await.map_err(lost)?;
        let mut events = Events::of(connection.accept_uni().await.map_err(lost)?);
        let Some(Event::Welcome { chain_id, height, window, outstanding, .. }) = events.next().await? else {
            return Err(lost("it does not say who it is"));
        };
        let submissions = connection.open_uni().await.map_err(lost)?;
        Ok(Met { connection, events, submissions, welcome: Welcome { chain_id, height, window, outstanding } })
    };
    timeout(CONNECT_TIME_MAX, met).await.map_err(|_| lost("it does not answer in time"))?
}

/// Events as they arrive.
struct Events {
    stream: RecvStream,
    cutter: Cutter,
    arrived: bytes::Bytes,
}

impl Events {
    fn of(stream: RecvStream) -> Self {
        Self { stream, cutter: Cutter::new(EVENT_BYTES_MAX), arrived: bytes::Bytes::new() }
    }

    /// The next one that is known here; `None` at the end.
    async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            let mut rest = &self.arrived[..];
            let piece = self.cutter.next(&mut rest).map_err(WireError::Event)?;
            let taken = self.arrived.len().saturating_sub(rest.len());
            let _ = self.arrived.split_to(taken);
            match piece {
                Some(piece) => {
                    if let Some(event) = Event::decode(&piece)? {
                        return Ok(Some(event));
                    }
                }
                None => match self.stream.read_chunk(READ_BYTES_MAX, true).await {
                    Ok(Some(chunk)) => self.arrived = chunk.bytes,
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(lost(error)),
                },
            }
        }
    }
}

/// Keeps a connection as long as there is a client.
async fn serve(client: Weak<Inner>, met: Met, mut queued: mpsc::Receiver<Bytes>) {
    let mut next = Some(met);
    let mut wait = RETRY_FIRST;
    loop {
        if let Some(met) = next.take() {
            wait = RETRY_FIRST;
            let connection = met.connection.clone();
            if let Some(inner) = client.upgrade() {
                inner.connection.send_replace(Some(connection.clone()));
            }
            // What was submitted before goes first: a nonce that comes too early has to wait, and few may.
            let submit = async {
                let mut submissions = met.submissions;
                match catch_up(&client, &connection, &mut submissions).await {
                    Ok(()) => write(submissions, &mut queued).await,
                    Err(error) => tracing::debug!(%error, "what was submitted before is not taken up"),
                }
            };
            tokio::select! {
                () = hear(&client, met.events) => {}
                () = submit => {}
            }
            connection.close(VarInt::from_u32(0), b"");
        }
        let Some(inner) = client.upgrade() else { return };
        inner.connection.send_replace(None);
        let (endpoint, node) = (inner.endpoint.clone(), inner.node.clone());
        drop(inner);
        match meet(&endpoint, &node).await {
            Ok(met) => next = Some(met),
            Err(error) => {
                tracing::debug!(node, %error, "a connection is lost");
                sleep(wait).await;
                wait = wait.saturating_mul(2).min(RETRY_MAX);
            }
        }
    }
}

/// Hears events until the connection ends.
async fn hear(client: &Weak<Inner>, mut events: Events) {
    while let Ok(Some(event)) = events.next().await {
        let Some(inner) = client.upgrade() else { return };
        inner.take(event);
    }
}

/// Writes what is submitted, as much at once as there is, until the connection ends or the client does.
async fn write(mut stream: SendStream, queued: &mut mpsc::Receiver<Bytes>) {
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while queued.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        batch.drain(..).for_each(|raw| wire::put(&mut bytes, &raw));
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Asks what became of what was submitted over an earlier connection, and submits again what the node does not know, in
/// order.
async fn catch_up(
    client: &Weak<Inner>,
    connection: &Connection,
    submissions: &mut SendStream,
) -> Result<(), ClientError> {
    let hashes = client.upgrade().map(|inner| inner.waiting_in_order()).unwrap_or_default();
    let mut bytes = Vec::new();
    for some in hashes.chunks(QUESTION_HASHES_MAX) {
        let events = ask(connection, some).await?;
        let Some(inner) = client.upgrade() else { return Err(ClientError::Closed) };
        for event in events {
            match event {
                Event::Unknown(hash) => {
                    if let Some(waiting) = inner.waiting.lock().get(&hash) {
                        wire::put(&mut bytes, &waiting.raw);
                    }
                }
                event => inner.take(event),
            }
        }
        drop(inner);
        submissions.write_all(&bytes).await.map_err(lost)?;
        bytes.clear();
    }
    Ok(())
}

/// Asks a question; gives what is answered.
async fn put(connection: &Connection, question: &Question) -> Result<Events, ClientError> {
    let (mut asked, stream) = connection.open_bi().await.map_err(lost)?;
    asked.write_all(&question.encode()).await.map_err(lost)?;
    asked.finish().map_err(lost)?;
    Ok(Events::of(stream))
}

async fn ask(connection: &Connection, hashes: &[B256]) -> Result<Vec<Event>, ClientError> {
    let mut answers = put(connection, &Question::Transactions(hashes.to_vec())).await?;
    let mut events = Vec::with_capacity(hashes.len());
    while events.len() < hashes.len()
        && let Some(event) = answers.next().await?
    {
        events.push(event);
    }
    Ok(events)
}

impl Inner {
    fn waiting_in_order(&self) -> Vec<B256> {
        let mut waiting: Vec<(u64, B256)> =
            self.waiting.lock().iter().map(|(hash, waiting)| (waiting.number, *hash)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, hash)| hash).collect()
    }

    /// Takes what the node says of a transaction; what nobody waits for is nobody's business.
    fn take(&self, event: Event) {
        let Some(hash) = event.hash() else { return };
        let mut waiting = self.waiting.lock();
        let Some(found) = waiting.get_mut(&hash) else { return };
        // What was asked for or submitted once more is admitted again.
        if matches!(event, Event::Admitted(_)) && std::mem::replace(&mut found.is_admitted, true) {
            return;
        }
        let stages = found.stages.clone();
        if event.is_end() {
            waiting.remove(&hash);
        }
        drop(waiting);
        if let Some(listener) = &self.listener {
            listener(&event);
        }
        if let Some(stages) = stages
            && (event.is_end() || stages.capacity() > 1)
        {
            // An error says that nobody listens.
            let _ = stages.try_send(event);
        }
    }
}
