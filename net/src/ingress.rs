//! Transactions over QUIC: market makers' way in, on a port of its own.
//!
//! ```text
//!  client ==QUIC==> session: cut into transactions --backlog, window, ways in--> engine::admission
//!    ^                                                                                |
//!    +---- events <---- unread <---- admitted, refused -------------------------------+
//!                          ^
//!                          +-------- final, dropped <---- watched <---- engine::events
//! ```
//!
//! | file | promise |
//! |---|---|
//! | [`wire`] | bytes on the wire, bounded before anything is allocated |
//! | `places` | how many clients there may be, and what those with weight get |
//! | `backlog` | how much clients may have submitted that no block includes yet |
//! | `conduct` | what a client may cost in vain |
//! | `session` | one client at work |
//! | [`limits`] | every bound |
//!
//! A client is known by the key of its certificate. Whatever it submits is answered on the same connection, and each
//! transaction has exactly one end: refused, final or dropped. When the ways into the pool are full, or as much waits
//! as the next slots take, clients are not read from, each in its turn, so that flow control holds them back and none
//! gets more than its share; keys that have weight have ways of their own.

mod backlog;
mod conduct;
pub mod limits;
mod places;
mod session;
#[cfg(test)]
mod tests;
pub mod wire;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use alloy_consensus::Transaction as _;
use alloy_primitives::{
    B256,
    map::{B256Map, Entry},
};
use aws_lc_rs::hmac;
use engine::{
    admission::Admission,
    events::{self, Events, NotarizedBlock},
    query::{BlockRef, Query, TransactionPlace},
    types::{CommittedBlock, Height},
};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use smallvec::SmallVec;
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

pub use self::session::Close;
use self::{
    backlog::{Backlog, Inside},
    limits::{
        BACKLOG_LEAST, BACKLOG_SLOT_TIME_MIN, BLOCKS_QUEUE_MAX, HANDSHAKE_TIME_MAX, IDLE_MAX, LOOKING_UP_MAX,
        OUTSTANDING_MAX, QUESTIONS_MAX, STREAMS_MAX, WINDOW_BYTES,
    },
    places::Places,
    session::Session,
    wire::{Event, Included, Notarized, Reason},
};
use crate::{
    doorkeeper::Doorkeeper,
    endpoint::{self, ListenError},
    identity::NodeKey,
    metrics,
    tls::Protocol,
    transport::record::NodeId,
};

/// What the way in is told once.
#[derive(Debug)]
pub struct IngressConfig {
    /// Where it listens, over UDP.
    pub listen: SocketAddr,
    /// The node's key, which clients know it by.
    pub key: NodeKey,
    /// Keys of clients with weight, and how much each has: validators by their stake, and whom the operator names.
    pub weights: Vec<(NodeId, u64)>,
}

/// What clients reach in this node.
#[derive(Clone, Debug)]
pub struct Doors {
    /// For transactions.
    pub admission: Admission,
    /// For what is known here.
    pub query: Query,
    /// Tells of what becomes of transactions.
    pub events: Events,
}

/// What every task of the way in shares.
#[derive(Debug)]
struct Shared {
    doors: Doors,
    /// Who is told what becomes of a transaction. There are no more than pool and admission hold.
    watched: Mutex<B256Map<Watched>>,
    /// Of clients without weight, and of those with.
    backlogs: [Arc<Backlog>; 2],
    looking_up: Semaphore,
    /// Blocks, each once and in order.
    told: broadcast::Sender<Arc<CommittedBlock>>,
}

/// A transaction of clients that has no end yet.
#[derive(Debug, Default)]
struct Watched {
    by: SmallVec<[Weak<Session>; 1]>,
    /// Its place in a backlog, if it was submitted.
    inside: Option<Inside>,
}

/// The way in; stops when it is told to, or dropped.
#[derive(Debug)]
pub struct Ingress {
    endpoint: Endpoint,
    address: SocketAddr,
    identity: NodeId,
    tasks: [JoinHandle<()>; 3],
}

impl Ingress {
    /// Lets clients in, on the runtime that serves it.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn start(config: IngressConfig, doors: Doors) -> Result<Self, ListenError> {
        let crypto = Protocol::Clients.server(&config.key)?;
        let (endpoint, address) =
            endpoint::listen(config.listen, crypto, Arc::new(quic_config()), resets(&config.key))?;
        let shared = Arc::new(Shared {
            doors,
            watched: Mutex::default(),
            backlogs: BACKLOG_LEAST.map(Backlog::new),
            looking_up: Semaphore::new(LOOKING_UP_MAX),
            told: broadcast::Sender::new(BLOCKS_QUEUE_MAX),
        });
        let (blocks, committed) = mpsc::channel(BLOCKS_QUEUE_MAX);
        let next = shared.doors.query.tip().height().0.saturating_add(1);
        // The engine keeps listeners for its whole life; what it tells ends with the way in.
        let listener = Arc::downgrade(&shared);
        shared.doors.events.listen(Box::new(move |event| take_event(&listener, &blocks, event)));
        let told = tokio::spawn(tell_blocks(shared.clone(), committed, next));
        let counted = tokio::spawn(count_slots(shared.clone()));
        let places = Places::new(&config.weights, shared.backlogs.clone());
        let accepted = tokio::spawn(accept(endpoint.clone(), shared, places));
        Ok(Self { endpoint, address, identity: config.key.public_key().into(), tasks: [told, counted, accepted] })
    }

    /// Where clients find it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that clients know the node by.
    #[must_use]
    pub const fn identity(&self) -> NodeId {
        self.identity
    }

    /// Says goodbye to every client and waits until that is on its way.
    pub async fn stop(&self) {
        self.endpoint.close(VarInt::from_u32(Close::Stopping as u32), b"the node stops");
        self.endpoint.wait_idle().await;
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.endpoint.close(VarInt::from_u32(Close::Stopping as u32), b"the node stops");
    }
}

fn quic_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
    config.max_concurrent_bidi_streams(VarInt::from_u32(QUESTIONS_MAX));
    config.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(WINDOW_BYTES));
    config.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    config.datagram_receive_buffer_size(None);
    config
}

/// Lets a node that was killed tell clients of its last run, with their next packet, that their connections are gone
/// (RFC 9000, section 10.3): both runs make the same tokens, and nobody without the node's key does.
fn resets(key: &NodeKey) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.sign(b"sluice stateless reset"));
    let id_key =
        hmac::sign(&key, b"connection ids").as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

/// Lets clients in until the endpoint is closed.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>, places: Arc<Places>) {
    let keeper = Doorkeeper::new();
    while let Some(incoming) = endpoint.accept().await {
        let Some((connecting, begun)) = keeper.begin(incoming, false, metrics::CLIENT_REFUSED) else { continue };
        let (shared, places) = (shared.clone(), places.clone());
        tokio::spawn(async move {
            let connection = timeout(HANDSHAKE_TIME_MAX, connecting).await;
            drop(begun);
            if let Ok(Ok(connection)) = connection {
                serve(connection, shared, &places).await;
            }
        });
    }
}

async fn serve(connection: Connection, shared: Arc<Shared>, places: &Arc<Places>) {
    let shown = endpoint::shown(&connection);
    let Some(identity) = shown.and_then(|shown| Protocol::Clients.identity(&shown)) else {
        return Close::Key.close(&connection, "the certificate is over no Ed25519 key");
    };
    let place = match places.take(identity, connection.remote_address().ip()) {
        Ok(place) => place,
        Err(reason) => {
            ::metrics::counter!(metrics::CLIENT_REFUSED, "reason" => "places").increment(1);
            return Close::Full.close(&connection, reason);
        }
    };
    let _level = Level::new();
    session::run(Arc::new(Session::new(identity, connection, place.share.clone())), shared).await;
}

/// Counts a connected client as long as it lives.
struct Level;

impl Level {
    fn new() -> Self {
        ::metrics::gauge!(metrics::CLIENT_CONNECTION).increment(1.0);
        Self
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::CLIENT_CONNECTION).decrement(1.0);
    }
}

/// A block that clients are told of.
enum Told {
    Notarized(NotarizedBlock),
    Committed(Arc<CommittedBlock>),
}

/// Takes what the engine announces, on its thread.
fn take_event(shared: &Weak<Shared>, blocks: &mpsc::Sender<Told>, event: &events::Event) {
    match event {
        // One that finds no room is read from the store.
        events::Event::Committed(block) => drop(blocks.try_send(Told::Committed(block.clone()))),
        // One that finds none is told of when it is committed.
        events::Event::Notarized(block) => drop(blocks.try_send(Told::Notarized(block.clone()))),
        events::Event::Dropped(hash, reason) => {
            if let Some(shared) = shared.upgrade() {
                drop(shared.end(*hash, || Some(Event::Dropped(*hash, Reason::from(*reason)))));
            }
        }
        events::Event::Admitted(_) => {}
    }
}

/// Tells of what blocks include, from height `next` on, each block once.
async fn tell_blocks(shared: Arc<Shared>, mut blocks: mpsc::Receiver<Told>, mut next: u64) {
    while let Some(told) = blocks.recv().await {
        let block = match told {
            Told::Committed(block) => block,
            Told::Notarized(block) => {
                shared.tell_notarized(&block);
                continue;
            }
        };
        while next < block.height().0 {
            let (looking, height) = (shared.clone(), next);
            let missed = tokio::task::spawn_blocking(move || looking.block(height)).await;
            if let Ok(Some(missed)) = missed {
                shared.tell_block(&missed);
                let _ = shared.told.send(missed);
            }
            next = next.saturating_add(1);
        }
        if block.height().0 == next {
            shared.tell_block(&block);
            // An error says that nobody follows.
            let _ = shared.told.send(block);
            next = next.saturating_add(1);
        }
    }
}

/// Tells backlogs of each slot that goes by.
async fn count_slots(shared: Arc<Shared>) {
    let slot_time = Duration::from_millis(shared.doors.query.chain().ordering.slot_time_ms);
    let mut slots = interval(slot_time.max(BACKLOG_SLOT_TIME_MIN));
    slots.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        slots.tick().await;
        shared.backlogs.iter().for_each(|backlog| backlog.slot());
    }
}

impl Shared {
    fn welcome(&self, session: &Session) -> Event {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Event::Welcome {
            version: wire::VERSION,
            chain_id: self.doors.query.chain().chain_id,
            height: self.doors.query.tip().height().0,
            window: session.share.window.size,
            outstanding: count(OUTSTANDING_MAX),
        }
    }

    /// From now on a session is told how a transaction ends, which has this place in a backlog if it submits it;
    /// `false` if it was before.
    fn watch(&self, hash: B256, session: &Arc<Session>, inside: Option<Inside>) -> bool {
        let mut watched = self.watched.lock();
        let Watched { by, inside: before } = watched.entry(hash).or_default();
        // One that another has submitted too takes one place.
        if before.is_none() {
            *before = inside;
        }
        by.retain(|other| other.strong_count() > 0);
        let is_new = !by.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(session)));
        if is_new {
            by.push(Arc::downgrade(session));
            session.begun();
        }
        is_new
    }

    /// It is not, after all; `false` if it was told meanwhile.
    fn unwatch(&self, hash: B256, session: &Arc<Session>) -> bool {
        let mut watched = self.watched.lock();
        let Entry::Occupied(mut entry) = watched.entry(hash) else { return false };
        let is_it = |other: &Weak<Session>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(session));
        let Some(place) = entry.get().by.iter().position(is_it) else { return false };
        entry.get_mut().by.swap_remove(place);
        if entry.get().by.is_empty() {
            entry.remove();
        }
        session.ended();
        true
    }

    /// Tells everybody who watches a transaction how it ended; its place in a backlog.
    fn end(&self, hash: B256, event: impl FnOnce() -> Option<Event>) -> Option<Inside> {
        let Watched { by, inside } = self.watched.lock().remove(&hash)?;
        if let Some(event) = event() {
            for session in by.iter().filter_map(Weak::upgrade) {
                session.tell(&event);
                session.ended();
            }
        }
        inside
    }

    /// Tells everybody who watches a transaction that it is in a notarized block.
    fn tell_notarized(&self, block: &NotarizedBlock) {
        let (height, hash) = (block.block.height().0, block.block.hash());
        for ((sent, receipt), index) in block.block.body.transactions.iter().zip(&*block.receipts).zip(0_u32..) {
            let watching = self.watched.lock().get(&sent.hash()).map(|watched| watched.by.clone());
            let Some(watching) = watching else { continue };
            let event =
                Event::Notarized(sent.hash(), Notarized { height, index, block: hash, success: receipt.success });
            watching.iter().filter_map(Weak::upgrade).for_each(|session| session.tell(&event));
        }
    }

    fn tell_block(&self, block: &CommittedBlock) {
        for (sent, index) in block.block.body.transactions.iter().zip(0..) {
            if let Some(inside) = self.end(sent.hash(), || included(block, index)) {
                inside.included();
            }
        }
    }

    fn block(&self, height: u64) -> Option<Arc<CommittedBlock>> {
        self.doors.query.block(BlockRef::Height(Height(height))).ok().flatten()
    }

    /// What became of a transaction; if nothing has yet, the session is told from now on.
    fn look_up(&self, hash: B256, session: &Arc<Session>) -> Event {
        let is_new = self.watch(hash, session, None);
        let event = match self.find(hash) {
            Found::Waiting if is_new && session.has_too_many() => Session::refusal(hash),
            Found::Waiting => return Event::Admitted(hash),
            Found::Ended(event) => event,
            Found::Nowhere => Event::Unknown(hash),
        };
        if is_new {
            self.unwatch(hash, session);
        }
        event
    }

    /// Where a transaction is.
    fn find(&self, hash: B256) -> Found {
        match self.doors.query.transaction(hash) {
            Ok(Some(TransactionPlace::Waiting(_))) => Found::Waiting,
            Ok(Some(TransactionPlace::Included { block, index })) => {
                included(&block, index).map_or(Found::Nowhere, Found::Ended)
            }
            Ok(None) => Found::Nowhere,
            Err(error) => {
                tracing::warn!(%error, "what became of a client's transaction cannot be read");
                Found::Nowhere
            }
        }
    }
}

/// Where a transaction is.
enum Found {
    /// In the pool, or in a block that is not durable yet.
    Waiting,
    /// In a block.
    Ended(Event),
    /// As far as this node knows.
    Nowhere,
}

/// How a transaction of a block ended.
fn included(block: &CommittedBlock, index: usize) -> Option<Event> {
    let (sent, receipt) = (block.block.body.transactions.get(index)?, block.receipts.get(index)?);
    let price = sent.envelope().effective_gas_price(block.block.header.base_fee_per_gas);
    let place = (block.height().0, u32::try_from(index).unwrap_or(u32::MAX), block.hash());
    Some(Event::Final(sent.hash(), Included::of(receipt, place, price)))
}
