//! The `Network` port over QUIC: nodes that know each other by key, one connection for each pair.
//!
//! ```text
//!  ordering thread --> Network --> Lanes of every peer --> link (writers) ==QUIC==> link (readers) of a peer
//!                                                                                      |
//!  ordering thread <-- Inbox <-------------- opened, checked -------------------------+--> admission
//! ```
//!
//! | file | promise |
//! |---|---|
//! | [`record`] | who a node is, signed |
//! | [`frame`] | bytes on the wire, bounded before anything is allocated |
//! | `lanes` | what waits for a peer, each lane with its answer to "full" |
//! | `peers` | who is connected, who may be, who may not for a while |
//! | `link` | one connection at work |
//! | `quota` | what one peer may say per second |
//! | `dial` | who is dialled, and who is let in |
//! | `forward` | transactions of this node's own clients, the next leaders first |
//! | `relay` | large bodies and access lists in shares: cut, passed on once, put together |
//!
//! A node is dialled by its address and known by its key. A validator's vote counts unverified only over a connection
//! whose record that validator signed. Whoever is no validator may ask, send transactions and pass on what is
//! certified; it has no vote.

mod dial;
mod forward;
pub mod frame;
mod lanes;
mod link;
mod peers;
mod quota;
pub mod record;
mod relay;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, Bytes, map::HashSet};
use engine::{
    admission::{Admission, AdmissionError},
    crypto::{Committee, Scheme as _, bls::BlsScheme},
    events::Events,
    genesis::{ChainSpec, GenesisError},
    limits,
    ordering::event::Identity,
    pipeline::Inbox,
    ports::{Delivery, Network, Offender},
    query::Query,
    types::{
        Block, ConsensusHeader, Contact, Domain, Epoch, Incoming, Letter, Message, NamedList, PublicKey,
        RawTransaction, Slot, StateWish, Transaction, ValidatorSet, access_list::ListError, vote::Kind,
    },
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use self::{
    dial::Book,
    frame::{FrameError, SealedLetter},
    link::Close,
    peers::{Peer, Peers, SCORE_MAX},
    record::{NodeId, NodeRecord},
    relay::Relay,
};
use crate::{endpoint::ListenError, identity::NodeKey, metrics};

/// Answers that are being looked up at a time for validators and configured nodes.
const ANSWERING_MAX: usize = 4;

/// Answers that are being looked up at a time for all others.
const ANSWERING_OTHERS_MAX: usize = 2;

/// Hashes of transactions that came from peers, which need not be sent to peers again.
const HEARD_MAX: usize = 1 << 16;

/// Transactions of peers on their way into the pool: what is left of the queue before it by those of clients.
const TAKING_MAX: usize = limits::ADMISSION_QUEUE_TRANSACTIONS_MAX / 16;

/// Admitted transactions of this node's own clients that wait to be sent to peers, and that are remembered.
const OUTGOING_TRANSACTIONS_MAX: usize = 8_192;

/// A node that is told of by whoever runs this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its key.
    pub identity: NodeId,
    /// Where it is: `host:port`.
    pub address: String,
}

/// What the transport is told once.
#[derive(Debug)]
pub struct TransportConfig {
    /// Where it listens, over UDP.
    pub listen: SocketAddr,
    /// Where others reach it, if that is somewhere else.
    pub external: Option<SocketAddr>,
    /// Its own key.
    pub key: NodeKey,
    /// Nodes to be connected with, beside the chain's validators. Of a validator they replace the address.
    pub peers: Vec<PeerAddress>,
    /// Whether addresses that others tell of may lie on this machine or in private networks.
    pub may_dial_private: bool,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The genesis values make no set of validators.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A validator's key is none.
    #[error("the validators' keys make no committee")]
    Committee,
    /// Nobody is served.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// What peers reach in this node.
#[derive(Clone, Debug)]
pub struct Doors {
    /// For what they say.
    pub inbox: Inbox,
    /// For transactions.
    pub admission: Admission,
    /// For what is known here.
    pub query: Query,
    /// Tells of admitted transactions.
    pub events: Events,
}

/// What one node tells of one of its peers.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerInfo {
    /// Its key.
    pub identity: NodeId,
    /// The validator behind it.
    pub validator: Option<PublicKey>,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub is_outbound: bool,
    /// Milliseconds to it and back.
    pub round_trip_ms: f64,
    /// Bytes sent to it, headers of packets included.
    pub sent_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Of what was sent, packets that were lost.
    pub lost_packets: u64,
    /// What it did wrong; it is refused at 100.
    pub score: f64,
}

/// The network as one node sees it.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    endpoint: OnceLock<quinn::Endpoint>,
    config: Mutex<Option<TransportConfig>>,
}

/// What every task of the transport shares.
#[derive(Debug)]
pub(super) struct Shared {
    domain: Domain,
    set: Arc<ValidatorSet>,
    committee: Arc<dyn Committee>,
    /// This node's own word on who it is.
    record: NodeRecord,
    peers: Mutex<Peers>,
    book: Mutex<Book>,
    relay: Relay,
    doors: OnceLock<Doors>,
    heard: Mutex<Heard>,
    taking: Arc<Semaphore>,
    own: Mutex<VecDeque<(Instant, B256)>>,
    answering: Semaphore,
    answering_others: Semaphore,
    /// Nobody is dialled any more.
    is_closed: AtomicBool,
    /// A peer has come or gone.
    changed: Notify,
}

/// Hashes in the order in which they came; the oldest leave.
#[derive(Debug, Default)]
struct Heard {
    known: HashSet<B256>,
    order: VecDeque<B256>,
}

impl Heard {
    fn insert(&mut self, hash: B256) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
            if self.order.len() > HEARD_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

impl Transport {
    /// Prepares the network of a chain; nobody is connected before [`Self::start`].
    ///
    /// # Errors
    /// [`TransportError::Genesis`] and [`TransportError::Committee`].
    pub fn new(
        config: TransportConfig,
        chain: &ChainSpec,
        validator: Option<&Identity>,
    ) -> Result<Arc<Self>, TransportError> {
        let set = Arc::new(chain.validator_set()?);
        let committee = BlsScheme.committee(&set).ok_or(TransportError::Committee)?;
        let domain = chain.domain();
        let addresses = config.external.or_else(|| {
            let is_somewhere = !config.listen.ip().is_unspecified() && config.listen.port() != 0;
            is_somewhere.then_some(config.listen)
        });
        let record = NodeRecord::sign(&domain, &config.key, started_ms(), addresses.into_iter().collect(), validator);
        let own_validator = validator.map(|validator| validator.public_key);
        let book = Book::new(record.identity, chain, &config.peers, config.may_dial_private);
        let shared = Shared {
            domain,
            relay: Relay::new(set.clone(), own_validator),
            set,
            committee,
            peers: Mutex::new(Peers::new(record.identity)),
            book: Mutex::new(book),
            record,
            doors: OnceLock::new(),
            heard: Mutex::default(),
            taking: Arc::new(Semaphore::new(TAKING_MAX)),
            own: Mutex::default(),
            answering: Semaphore::new(ANSWERING_MAX),
            answering_others: Semaphore::new(ANSWERING_OTHERS_MAX),
            is_closed: AtomicBool::new(false),
            changed: Notify::new(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), endpoint: OnceLock::new(), config: Mutex::new(Some(config)) }))
    }

    /// Opens what peers reach in this node, on the runtime that serves it; listens if it does not yet. Gives the
    /// address.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn start(&self, doors: Doors) -> Result<SocketAddr, TransportError> {
        let address = self.listen()?;
        let (offered, admitted) = mpsc::channel(OUTGOING_TRANSACTIONS_MAX);
        doors.events.listen(self.shared.clone().forwarder(offered));
        let _ = self.shared.doors.set(doors);
        tokio::spawn(self.shared.clone().send_transactions(admitted));
        // Some may be connected already.
        self.shared.peers_changed();
        Ok(address)
    }

    /// Listens, dials, and lets peers in, on the runtime that serves it. Until [`Self::start`] they get nothing from
    /// this node, and what they say is lost; it may ask them for a state. Gives the address.
    ///
    /// # Errors
    /// [`TransportError::Listen`].
    pub fn listen(&self) -> Result<SocketAddr, TransportError> {
        let Some(config) = self.config.lock().take() else {
            let address = self.endpoint.get().and_then(|endpoint| endpoint.local_addr().ok());
            let gone = || ListenError::from(rustls::Error::General("the transport did not start".to_owned()));
            return Ok(address.ok_or_else(gone)?);
        };
        let (endpoint, address) = dial::endpoint(config.listen, &config.key)?;
        tokio::spawn(dial::accept(endpoint.clone(), self.shared.clone()));
        tokio::spawn(dial::dial(endpoint.clone(), self.shared.clone()));
        tokio::spawn(relay::spread(self.shared.clone()));
        let _ = self.endpoint.set(endpoint);
        Ok(address)
    }

    /// Asks a peer for a piece of a state; `None` where it has none, or none now, or is gone. What it says wrongly in
    /// form is held against it.
    pub async fn ask_state(&self, peer: u64, wish: &StateWish) -> Option<Bytes> {
        let peer = self.shared.peers.lock().get(peer).cloned()?;
        match link::ask_state(&peer.connection, wish).await {
            Ok(piece) => piece,
            Err(FrameError::Gone | FrameError::Slow | FrameError::Cut) => None,
            Err(error) => {
                self.shared.punish(&peer, &error.to_string());
                None
            }
        }
    }

    /// Waits until a peer comes or goes, or has since this was last waited for. Of those who wait one is woken.
    pub async fn peers_changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Says goodbye to every peer and waits until that is on its way.
    pub async fn stop(&self) {
        self.close();
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.wait_idle().await;
        }
    }

    fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.close((Close::Stopping as u32).into(), b"the node stops");
        }
    }

    /// This node's own record.
    #[must_use]
    pub fn record(&self) -> &NodeRecord {
        &self.shared.record
    }

    /// What there is to tell of every peer.
    #[must_use]
    pub fn peer_infos(&self) -> Vec<PeerInfo> {
        let (peers, now) = (self.shared.peers.lock(), Instant::now());
        let info = |peer: &Peer| {
            let stats = peer.connection.stats();
            PeerInfo {
                identity: peer.identity,
                validator: peer.validator,
                address: peer.address,
                is_outbound: peer.is_outbound,
                round_trip_ms: stats.path.rtt.as_secs_f64() * 1_000.0,
                sent_bytes: stats.udp_tx.bytes,
                received_bytes: stats.udp_rx.bytes,
                lost_packets: stats.path.lost_packets,
                score: peers.score(&peer.identity, now),
            }
        };
        peers.iter().map(info).collect()
    }

    /// Cuts a node off until it is let in again; `false` if it was cut off, or not, already.
    #[must_use]
    pub fn block(&self, identity: NodeId, is_blocked: bool) -> bool {
        let mut peers = self.shared.peers.lock();
        let has_changed = peers.block(identity, is_blocked);
        if let Some(peer) = peers.of_identity(&identity).filter(|_| is_blocked) {
            Close::Blocked.close(&peer.connection, "blocked by the operator");
        }
        has_changed
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.close();
    }
}

impl Network for Transport {
    fn broadcast(&self, letter: &Letter) -> Delivery {
        let packed = self.shared.spread(letter);
        let sending = Sending::new(letter, packed.as_deref());
        let peers = self.shared.peers.lock();
        let full = peers.iter().filter(|peer| self.shared.send(peer, &sending) == Delivery::Full).count();
        if full == 0 { Delivery::Sent } else { Delivery::Full }
    }

    fn send(&self, peer: u64, letter: &Letter) -> Delivery {
        let peers = self.shared.peers.lock();
        peers.get(peer).map_or(Delivery::Full, |peer| self.shared.send(peer, &Sending::new(letter, None)))
    }

    fn ban(&self, offender: &Offender, reason: &'static str) {
        let peer = {
            let peers = self.shared.peers.lock();
            match offender {
                Offender::Peer(id) => peers.get(*id).cloned(),
                Offender::Validator(key) => peers.of_validator(key).cloned(),
            }
        };
        if let Some(peer) = peer {
            self.shared.punish(&peer, reason);
        }
    }

    fn peers(&self) -> Vec<Contact> {
        let contact = |peer: &Peer| Contact { peer: peer.id, validator: peer.validator };
        self.shared.peers.lock().iter().map(contact).collect()
    }
}

/// A letter as it goes to any number of peers.
enum Sending {
    Vote(lanes::VoteKey, Bytes),
    Request(Message),
    Word { frame: Bytes, final_slot: Option<(Epoch, Slot)> },
}

impl Sending {
    fn new(letter: &Letter, packed: Option<&[u8]>) -> Self {
        match &letter.message {
            Message::Vote(vote) => {
                let key = (vote.epoch, vote.statement.slot(), vote.statement.kind());
                Self::Vote(key, frame::vote_datagram(&letter.message).into())
            }
            Message::Fetch(_) | Message::Range(_) => Self::Request(letter.message.clone()),
            message => {
                let (with_bodies, final_slot) = match message {
                    // A large body goes in shares.
                    Message::Proposal(proposal) => (proposal.header.body_size_bytes == 0, None),
                    Message::Certificate(certificate) => {
                        let (statement, epoch) = (certificate.statement, certificate.epoch);
                        (false, (statement.kind() == Kind::Finalize).then(|| (epoch, statement.slot())))
                    }
                    _ => (true, None),
                };
                let encode = |with_bodies| {
                    let mut encoded = frame::encode_letter(letter, with_bodies);
                    packed.into_iter().for_each(|packed| frame::add_list(&mut encoded, packed));
                    frame::frame(frame::Kind::Letter, &[&encoded])
                };
                let whole = encode(with_bodies);
                // Nobody is sent what its lane does not take; bodies can be asked for.
                let fits = whole.len() <= frame::Lane::Words.frame_bytes_max();
                let frame = if fits { whole } else { encode(false) };
                Self::Word { frame: frame.into(), final_slot }
            }
        }
    }
}

impl Shared {
    /// Hands what does not fit a proposal's frame to the relay; gives the packed access list if that fits.
    fn spread(&self, letter: &Letter) -> Option<Vec<u8>> {
        let Message::Proposal(proposal) = &letter.message else { return None };
        if proposal.header.body_size_bytes > 0
            && let Some(block) = letter.blocks.first()
        {
            self.relay.spread_body(block.clone());
        }
        let (_, list) = letter.list.as_ref()?;
        let peers = self.peers.lock().iter().count();
        if peers == 0 {
            return None;
        }
        // The proposal waits while a list is packed that has a chance to go with it.
        let whole_max = limits::whole_list_bytes(peers);
        if list.size_bytes() <= whole_max.saturating_mul(2) {
            let packed = list.packed();
            if packed.len() <= whole_max {
                metrics::LIST_SENT_WHOLE.increment();
                return Some(packed);
            }
        }
        metrics::LIST_SENT_CUT.increment();
        self.relay.spread_list(proposal.header.clone(), list.clone());
        None
    }

    fn wants_lists(&self) -> bool {
        self.doors.get().is_some_and(|doors| doors.query.wants_lists())
    }

    /// Opens what is said to be the access list of the block with this header.
    fn open_list(
        &self,
        header: &ConsensusHeader,
        packed: &[u8],
        bytes_max: usize,
    ) -> Result<(B256, NamedList), ListError> {
        let items_max = self.doors.get().map_or(0, |doors| doors.query.chain().list_items_max(header));
        match NamedList::open(packed, &header.access_list_hash, bytes_max, items_max) {
            Ok(list) => Ok((header.id(), list)),
            Err(error) => {
                metrics::LIST_REFUSED.increment();
                tracing::warn!(slot = header.slot, proposer = header.proposer, %error, "an access list is refused");
                Err(error)
            }
        }
    }

    fn send(&self, peer: &Peer, sending: &Sending) -> Delivery {
        match sending {
            // Whoever is no validator counts no votes but in certificates.
            Sending::Vote(..) if peer.validator.is_none() => Delivery::Sent,
            Sending::Vote(key, datagram) => peer.lanes.vote(*key, datagram.clone()),
            Sending::Request(message) => peer.lanes.request(message.clone()),
            Sending::Word { frame, final_slot } => {
                if let Some((epoch, slot)) = final_slot {
                    peer.lanes.settle(*epoch, *slot);
                }
                let delivery = peer.lanes.word(frame.clone());
                if delivery == Delivery::Full {
                    // It would miss what it cannot do without; a new connection begins with where both stand.
                    Close::Slow.close(&peer.connection, "it does not read what it is sent");
                }
                delivery
            }
        }
    }

    /// Ends a connection for what came over it, and refuses the node behind it for a while.
    fn punish(&self, peer: &Peer, reason: &str) {
        self.fault(peer, SCORE_MAX, reason);
    }

    /// Adds to what a node did wrong; too much ends the connection.
    fn fault(&self, peer: &Peer, weight: f64, reason: &str) {
        let Some(banned) = self.peers.lock().fault(peer.identity, weight, Instant::now()) else { return };
        let (identity, address, seconds) = (&peer.identity, peer.address, banned.as_secs());
        // Strangers, who may be anybody at any number, fill no log.
        if peer.is_reserved {
            tracing::warn!(peer = %identity, %address, reason, seconds, "a peer is refused");
        } else {
            tracing::debug!(peer = %identity, %address, reason, seconds, "a stranger is refused");
        }
        ::metrics::counter!(metrics::PEER_BANNED).increment(1);
        Close::Misbehaviour.close(&peer.connection, reason);
    }

    fn deliver(&self, peer: &Peer, letter: Letter) {
        if let Err(reason) = self.hand_in(peer, letter) {
            self.punish(peer, reason);
        }
    }

    /// Gives a letter to ordering, or says what no honest node would have put into it.
    fn hand_in(&self, peer: &Peer, letter: Letter) -> Result<(), &'static str> {
        let Some(doors) = self.doors.get() else { return Ok(()) };
        if doors.inbox.deliver(Incoming { peer: peer.id, validator: peer.validator, letter })? == Delivery::Full {
            ::metrics::counter!(metrics::PEER_DROPPED, "lane" => "inbox").increment(1);
        }
        Ok(())
    }

    fn take_vote(&self, peer: &Peer, vote: Message) {
        self.deliver(peer, Letter::of(vote));
    }

    fn peers_changed(&self) {
        self.changed.notify_one();
        if let Some(doors) = self.doors.get() {
            doors.inbox.peers_changed();
        }
    }

    /// Opens a letter and hands it on.
    async fn take_letter(self: &Arc<Self>, peer: &Peer, payload: &Bytes) -> Result<(), FrameError> {
        let mut sealed = SealedLetter::decode(payload)?;
        let list = sealed.take_list();
        match &sealed.message {
            // These have lanes of their own.
            Message::Vote(_) | Message::Fetch(_) | Message::Range(_) => {
                return Err(FrameError::Kind(sealed.message.tag()));
            }
            Message::Proposal(proposal) => self.relay.open_body(self, peer, &proposal.header),
            _ => {}
        }
        // What others than the leader call its list is not even unpacked, nor one that is of no use here.
        let list = list.filter(|(header, _)| self.wants_lists() && self.relay.is_leaders_word(self, peer, header));
        let (letter, list) = tokio::join!(self.open(sealed), self.open_beside(list));
        let (list, fault) = match list {
            Ok(list) => (list, Ok(())),
            Err(error) => (None, if error.is_fault() { Err(error.into()) } else { Ok(()) }),
        };
        // Whatever the list is, the block is executed.
        self.deliver(peer, Letter { list, ..letter? });
        fault
    }

    /// Opens the access list that came beside a header where nobody else waits for it.
    async fn open_beside(
        self: &Arc<Self>,
        list: Option<(ConsensusHeader, Bytes)>,
    ) -> Result<Option<(B256, NamedList)>, ListError> {
        let Some((header, packed)) = list else { return Ok(None) };
        let shared = self.clone();
        let bytes_max = limits::WHOLE_LIST_UNPACKED_BYTES_MAX;
        let open = move || shared.open_list(&header, &packed, bytes_max).map(Some);
        // Its thread is gone where the node stops.
        let opened = tokio::task::spawn_blocking(open).await.unwrap_or(Ok(None));
        opened.inspect(|_| metrics::LIST_BESIDE.increment())
    }

    /// Whether a block is of a slot that ordering looks at.
    fn is_near(&self, header: &ConsensusHeader) -> bool {
        let Some(doors) = self.doors.get() else { return false };
        let (epoch, slot) = doors.query.place();
        let reach = doors.query.chain().ordering.window.saturating_mul(limits::HORIZON_WINDOWS);
        header.epoch() == epoch && (slot.0..=slot.0.saturating_add(reach)).contains(&header.slot)
    }

    /// Decodes bodies where nobody else waits for it.
    async fn open(self: &Arc<Self>, sealed: SealedLetter) -> Result<Letter, FrameError> {
        if !sealed.has_bodies() {
            return Ok(Letter::of(sealed.message));
        }
        let shared = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let letter = sealed.open(&|hash| shared.known_transaction(*hash))?;
            letter.blocks.iter().for_each(|block| shared.remember(block));
            Ok(letter)
        });
        opened.await.unwrap_or(Err(FrameError::Gone))
    }

    fn known_transaction(&self, hash: B256) -> Option<Arc<Transaction>> {
        self.doors.get().and_then(|doors| doors.query.recovered(hash))
    }

    /// What a body brought is known when it comes again.
    fn remember(&self, block: &Block) {
        if let Some(doors) = self.doors.get() {
            doors.query.remember(block);
        }
    }

    /// A record that does not hold may be somebody else's fault; it is only not kept.
    fn take_record(&self, record: NodeRecord) {
        if self.book.lock().is_news(&record)
            && let Ok(validator) = record.check(&self.domain, &self.set, &*self.committee)
        {
            self.book.lock().learn(record, validator);
        }
    }

    /// Takes a peer's transaction once there is room for it on its way into the pool.
    async fn take_transaction(self: &Arc<Self>, peer: &Peer, raw: Bytes) {
        let Some(doors) = self.doors.get() else { return };
        let raw = RawTransaction::new(raw);
        let hash = raw.hash();
        if self.heard.lock().known.contains(&hash) && doors.query.pooled(hash).is_some() {
            return;
        }
        let Ok(room) = self.taking.clone().acquire_owned().await else { return };
        self.heard.lock().insert(hash);
        let (shared, peer) = (self.clone(), peer.clone());
        let answer = Box::new(move |admitted: Result<B256, AdmissionError>| {
            drop(room);
            // Nonces and balances change while a transaction is on its way; a signature does not.
            if let Err(AdmissionError::Malformed(error)) = admitted {
                shared.punish(&peer, &error.to_string());
            }
        });
        doors.admission.submit(raw, answer);
    }

    /// The frame that answers a wish for a piece of a state.
    async fn answer_wish(self: &Arc<Self>, peer: &Peer, wish: StateWish) -> Vec<u8> {
        let look_up =
            move |doors: &Doors| doors.query.state(&wish).map(|piece| (frame::Kind::StatePiece, piece.into()));
        self.looked_up(peer, look_up).await
    }

    /// The frame with what is looked up where nobody else waits for it, if there is a place.
    async fn looked_up(
        self: &Arc<Self>,
        peer: &Peer,
        look_up: impl FnOnce(&Doors) -> Option<(frame::Kind, Vec<u8>)> + Send + 'static,
    ) -> Vec<u8> {
        let places = if peer.is_reserved { &self.answering } else { &self.answering_others };
        let Ok(_permit) = places.try_acquire() else {
            ::metrics::counter!(metrics::PEER_DROPPED, "lane" => "requests").increment(1);
            return frame::frame(frame::Kind::Busy, &[]);
        };
        let shared = self.clone();
        let found = tokio::task::spawn_blocking(move || look_up(shared.doors.get()?));
        let (kind, payload) = found.await.ok().flatten().unwrap_or((frame::Kind::Nothing, Vec::new()));
        frame::frame(kind, &[&payload])
    }

    /// The frame that answers a request.
    async fn answer(self: &Arc<Self>, peer: &Peer, request: Message) -> Result<Vec<u8>, FrameError> {
        if !matches!(request, Message::Fetch(_) | Message::Range(_)) {
            return Err(FrameError::Kind(request.tag()));
        }
        let look_up = move |doors: &Doors| {
            let letter = doors.inbox.answer(&request)?;
            Some((frame::Kind::Letter, frame::encode_letter(&letter, true)))
        };
        Ok(self.looked_up(peer, look_up).await)
    }
}

fn started_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
