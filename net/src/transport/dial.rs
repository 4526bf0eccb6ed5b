//! Who is dialled, who is let in, and how two nodes come to know each other.
//!
//! ```text
//!  Book: validators, configured nodes, records --> dial --+
//!                                                         +--> TLS --> records exchanged --> Peers --> link::run
//!  Initial packets --> doorkeeper: places, proof of address --+
//! ```
//!
//! A node dials every validator and every configured node until it is connected, and a few of those that records tell
//! of. Others are let in as long as there are places.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use alloy_primitives::Bytes;
use engine::{genesis::ChainSpec, limits, types::PublicKey};
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, EndpointConfig, IdleTimeout, TransportConfig as QuicConfig, VarInt,
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    PeerAddress, Shared,
    frame::{self, Kind},
    lanes::Lanes,
    link::{self, Close},
    peers::Peer,
    record::{NodeId, NodeRecord},
};
use crate::{
    doorkeeper::{Doorkeeper, NetworkGroup},
    endpoint::{self, ListenError},
    identity::NodeKey,
    metrics,
    tls::{self, Protocol},
};

/// How long a handshake, records included, may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a node is waited for that was dialled; then it is dialled anew, since a packet that was lost is sent again
/// ever more seldom.
const DIAL_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The time there and back that a new connection reckons with: what is lost is first sent again after three of them.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(80);

/// A connection that is silent for this long is gone. After a cut a new one stands sooner than an old one, whose last
/// try may be as far away as the cut was long, finds that it is over.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Something is sent at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Receive window of one stream: a share is read in one go within a window of it.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Receive window of a connection, whatever its streams.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes that are sent and not acknowledged, at most.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// Streams that a peer may have open: its lanes, and shares.
const STREAMS_MAX: u32 = 64;

/// Bytes of datagrams that wait on either side; a vote takes under 200.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// How often is looked for somebody to dial.
const DIAL_INTERVAL: Duration = Duration::from_millis(200);

/// The wait after the first failure to reach a node, and the longest; validators and configured nodes, which a cut may
/// have kept away, are soon tried again however long it took.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
const RETRY_RESERVED_MAX: Duration = Duration::from_millis(400);

/// Nodes that are dialled at a time.
const DIALLING_MAX: usize = 32;

/// Nodes that are neither validators nor configured and that this node wants to be connected with by its own choice.
const OUTBOUND_MAX: usize = 8;

/// How often peers are told of the records known here.
const GOSSIP_INTERVAL: Duration = Duration::from_secs(30);

/// A node that may be dialled.
#[derive(Clone, Debug)]
struct Target {
    /// Tried one after the other.
    addresses: Vec<String>,
    is_reserved: bool,
    record: Option<NodeRecord>,
    failures: u32,
    next: Option<Instant>,
    is_dialling: bool,
}

impl Target {
    /// Its addresses as far as they are no names.
    fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter_map(|address| Some(address.parse::<SocketAddr>().ok()?.ip().to_canonical()))
    }

    const fn at(addresses: Vec<String>, is_reserved: bool) -> Self {
        Self { addresses, is_reserved, record: None, failures: 0, next: None, is_dialling: false }
    }
}

/// Where nodes are, as far as this one knows.
#[derive(Debug)]
pub(super) struct Book {
    own: NodeId,
    targets: BTreeMap<NodeId, Target>,
    /// Identities that the genesis file names.
    validators: BTreeSet<NodeId>,
    /// Where those are that have places of their own; looked at for every first packet.
    reserved: BTreeSet<IpAddr>,
    may_dial_private: bool,
}

impl Book {
    pub(super) fn new(own: NodeId, chain: &ChainSpec, peers: &[PeerAddress], may_dial_private: bool) -> Self {
        let (mut targets, mut validators) = (BTreeMap::new(), BTreeSet::new());
        for validator in &chain.ordering.validators {
            let Ok(identity) = NodeId::try_from(validator.identity.as_ref()) else { continue };
            validators.insert(identity);
            if !validator.addresses.is_empty() {
                targets.insert(identity, Target::at(validator.addresses.clone(), true));
            }
        }
        for PeerAddress { identity, address } in peers {
            targets.insert(*identity, Target::at(vec![address.clone()], true));
        }
        targets.remove(&own);
        let reserved = targets.values().flat_map(Target::ips).collect();
        Self { own, targets, validators, reserved, may_dial_private }
    }

    /// Whether a node has a place of its own here.
    fn is_reserved(&self, identity: &NodeId) -> bool {
        self.targets.get(identity).is_some_and(|target| target.is_reserved) || self.validators.contains(identity)
    }

    /// Whether an address is one of a node that has a place of its own.
    fn is_reserved_address(&self, address: IpAddr) -> bool {
        self.reserved.contains(&address.to_canonical())
    }

    /// Whether a record says anything that is not known.
    pub(super) fn is_news(&self, record: &NodeRecord) -> bool {
        let known = self.targets.get(&record.identity).and_then(|target| target.record.as_ref());
        record.identity != self.own && known.is_none_or(|known| known.sequence < record.sequence)
    }

    /// Takes what a node says of where it is. An operator's word on a configured node stays.
    pub(super) fn learn(&mut self, record: NodeRecord, validator: Option<PublicKey>) {
        let dialled = record.addresses.iter().filter(|address| self.may_dial(address));
        let addresses: Vec<String> = dialled.map(ToString::to_string).collect();
        if addresses.is_empty() || !self.is_news(&record) {
            return;
        }
        let is_reserved = validator.is_some();
        if let Some(known) = self.targets.get_mut(&record.identity) {
            if !known.is_reserved {
                known.addresses = addresses;
            }
            known.record = Some(record);
        } else if is_reserved || self.has_room(&addresses) {
            let target = Target { record: Some(record.clone()), ..Target::at(addresses, is_reserved) };
            self.reserved.extend(target.ips().filter(|_| is_reserved));
            self.targets.insert(record.identity, target);
        }
    }

    fn has_room(&self, addresses: &[String]) -> bool {
        let new = Target::at(addresses.to_vec(), false);
        let groups: BTreeSet<NetworkGroup> = new.ips().map(NetworkGroup::of).collect();
        let learned = || self.targets.values().filter(|target| !target.is_reserved);
        let near = learned().filter(|target| target.ips().any(|ip| groups.contains(&NetworkGroup::of(ip))));
        learned().count() < limits::RECORDS_MAX && near.count() < limits::RECORDS_PER_NETWORK_MAX
    }

    /// Whether an address that somebody else named may be dialled.
    fn may_dial(&self, address: &SocketAddr) -> bool {
        address.port() != 0 && (self.may_dial_private || is_public(address.ip()))
    }

    /// Who is to be dialled now: everybody with a place of its own who is not connected, and others as long as few are.
    fn due(&mut self, is_connected: &dyn Fn(&NodeId) -> bool, outbound: usize, now: Instant) -> Vec<(NodeId, String)> {
        let dialling = self.targets.values().filter(|target| target.is_dialling).count();
        let mut room = DIALLING_MAX.saturating_sub(dialling);
        let mut wanted = OUTBOUND_MAX.saturating_sub(outbound);
        let mut due = Vec::new();
        for (identity, target) in &mut self.targets {
            if room == 0 {
                break;
            }
            let is_time = target.next.is_none_or(|next| next <= now) && !target.is_dialling;
            if !is_time || is_connected(identity) || (!target.is_reserved && wanted == 0) {
                continue;
            }
            if !target.is_reserved {
                wanted = wanted.saturating_sub(1);
            }
            room = room.saturating_sub(1);
            target.is_dialling = true;
            let turn = usize::try_from(target.failures).unwrap_or_default().checked_rem(target.addresses.len());
            due.extend(turn.and_then(|turn| target.addresses.get(turn)).map(|address| (*identity, address.clone())));
        }
        due
    }

    fn dialled(&mut self, identity: &NodeId, is_reached: bool, now: Instant) {
        let Some(target) = self.targets.get_mut(identity) else { return };
        target.is_dialling = false;
        target.failures = if is_reached { 0 } else { target.failures.saturating_add(1) };
        let longest = if target.is_reserved { RETRY_RESERVED_MAX } else { RETRY_MAX };
        let mut wait = RETRY_FIRST;
        for _ in 0..target.failures.min(16) {
            wait = wait.saturating_add(wait / 2).min(longest);
        }
        // Two nodes that dial each other again and again should not do so in step.
        let spread = u32::from(identity.0[0]).saturating_add(256);
        target.next = now.checked_add(wait.saturating_mul(spread) / 384);
        if target.failures > 16 && !target.is_reserved {
            self.targets.remove(identity);
        }
    }

    fn records(&self) -> impl Iterator<Item = &NodeRecord> {
        self.targets.values().filter_map(|target| target.record.as_ref())
    }
}

/// Whether an address is neither of this machine nor of a private network.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && (second & 0xc0) == 64;
            let is_reserved = first == 0 || first >= 240 || address.is_multicast() || address.is_documentation();
            let is_near = address.is_loopback() || address.is_private() || address.is_link_local() || is_shared;
            !is_near && !is_reserved
        }
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            let is_documentation = first == 0x2001 && second == 0xdb8;
            // Global unicast is 2000::/3.
            (first & 0xe000) == 0x2000 && !is_documentation
        }
    }
}

/// A socket with both sides of QUIC on it; gives where it is.
pub(super) fn endpoint(address: SocketAddr, key: &NodeKey) -> Result<(Endpoint, SocketAddr), ListenError> {
    let transport = Arc::new(quic_config());
    let (mut endpoint, address) =
        endpoint::listen(address, Protocol::Peers.server(key)?, transport.clone(), EndpointConfig::default())?;
    let mut client = ClientConfig::new(Arc::new(Protocol::Peers.client(key, None)?));
    client.transport_config(transport);
    endpoint.set_default_client_config(client);
    Ok((endpoint, address))
}

fn quic_config() -> QuicConfig {
    let mut config = QuicConfig::default();
    config.max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
    config.max_concurrent_bidi_streams(VarInt::from_u32(u32::try_from(limits::PEER_REQUESTS_MAX).unwrap_or(1)));
    config.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    config.send_window(SEND_WINDOW_BYTES);
    config.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.initial_rtt(ROUND_TRIP_FIRST);
    config.datagram_receive_buffer_size(Some(DATAGRAM_BYTES));
    config.datagram_send_buffer_size(DATAGRAM_BYTES);
    config
}

/// Lets peers in until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let keeper = Doorkeeper::new();
    while let Some(incoming) = endpoint.accept().await {
        let is_reserved = shared.book.lock().is_reserved_address(incoming.remote_address().ip());
        if let Some((connecting, place)) = keeper.begin(incoming, is_reserved, metrics::PEER_REFUSED) {
            let shared = shared.clone();
            tokio::spawn(async move {
                let met = timeout(HANDSHAKE_TIME_MAX, meet(connecting, None, &shared)).await;
                drop(place);
                serve(met.unwrap_or(Err("the handshake took too long")), &shared).await;
            });
        }
    }
}

/// Dials whoever should be connected and is not, until the endpoint is closed.
pub(super) async fn dial(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut dialling = JoinSet::new();
    let mut ticks = tokio::time::interval(DIAL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut gossiped = Instant::now();
    while !shared.is_closed.load(Ordering::Acquire) {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(_) = dialling.join_next() => continue,
        }
        let now = Instant::now();
        for (identity, address) in due(&shared, now) {
            let (endpoint, shared) = (endpoint.clone(), shared.clone());
            dialling.spawn(async move {
                let met = timeout(DIAL_TIME_MAX, reach(&endpoint, &identity, &address, &shared)).await;
                let met = met.unwrap_or(Err("nobody answered in time"));
                shared.book.lock().dialled(&identity, met.is_ok(), Instant::now());
                tokio::spawn(async move { serve(met, &shared).await });
            });
        }
        if now.saturating_duration_since(gossiped) >= GOSSIP_INTERVAL {
            gossiped = now;
            gossip(&shared);
        }
    }
}

fn due(shared: &Shared, now: Instant) -> Vec<(NodeId, String)> {
    let peers = shared.peers.lock();
    let outbound = peers.iter().filter(|peer| peer.is_outbound && !peer.is_reserved).count();
    let is_connected = |identity: &NodeId| peers.of_identity(identity).is_some() || peers.check(identity, now).is_err();
    shared.book.lock().due(&is_connected, outbound, now)
}

async fn reach(
    endpoint: &Endpoint,
    identity: &NodeId,
    address: &str,
    shared: &Arc<Shared>,
) -> Result<Peer, &'static str> {
    let mut found = tokio::net::lookup_host(address).await.map_err(|_| "its name has no address")?;
    let found = found.next().ok_or("its name has no address")?;
    let connecting = endpoint.connect(found, tls::NAME).map_err(|_| "its address cannot be dialled")?;
    meet(connecting, Some(identity), shared).await
}

/// Finishes the handshake and exchanges records; the peer is in the table then.
async fn meet(connecting: Connecting, expected: Option<&NodeId>, shared: &Arc<Shared>) -> Result<Peer, &'static str> {
    let connection = connecting.await.map_err(|_| "the handshake failed")?;
    let identity = identity_of(&connection).ok_or("it showed no key")?;
    let refuse = |close: Close, reason| {
        close.close(&connection, reason);
        Err(reason)
    };
    if expected.is_some_and(|expected| *expected != identity) {
        return refuse(Close::Record, "another node answers there");
    }
    if shared.peers.lock().check(&identity, Instant::now()).is_err() {
        return refuse(Close::Blocked, "it is refused here");
    }
    let record = match hello(&connection, expected.is_some(), shared).await {
        Some(record) if record.identity == identity => record,
        Some(_) => return refuse(Close::Record, "a record of another identity"),
        None => return refuse(Close::Record, "no record, or one that is not known here"),
    };
    let Ok(validator) = record.check(&shared.domain, &shared.set, &*shared.committee) else {
        return refuse(Close::Record, "a record that does not hold, or of another chain");
    };
    let is_reserved = validator.is_some() || shared.book.lock().is_reserved(&identity);
    let peer = Peer {
        id: 0,
        identity,
        validator,
        address: connection.remote_address(),
        is_outbound: expected.is_some(),
        sequence: record.sequence,
        is_reserved,
        lanes: Arc::new(Lanes::default()),
        connection: connection.clone(),
    };
    let inserted = shared.peers.lock().insert(peer, Instant::now());
    match inserted {
        Ok((peer, old)) => {
            if let Some(old) = old {
                Close::Duplicate.close(&old.connection, "a newer connection of the same node");
            }
            shared.book.lock().learn(record, validator);
            Ok(peer)
        }
        Err(refusal) => {
            ::metrics::counter!(metrics::PEER_REFUSED, "reason" => "places").increment(1);
            tracing::debug!(peer = %identity, %refusal, "a connection is not taken");
            refuse(Close::Full, "no place for it here")
        }
    }
}

/// Each side tells who it is; whoever dialled begins.
async fn hello(connection: &Connection, is_dialler: bool, shared: &Shared) -> Option<NodeRecord> {
    let own = frame::frame(Kind::Record, &[&shared.record.encoded()]);
    let streams = if is_dialler { connection.open_bi().await } else { connection.accept_bi().await };
    let (mut send, mut receive) = streams.ok()?;
    send.write_all(&own).await.ok()?;
    let _ = send.finish();
    let room = Arc::new(Semaphore::new(frame::HELLO_BYTES_MAX));
    let frame = frame::read_frame(&mut receive, frame::HELLO_BYTES_MAX, &room).await.ok()??;
    let mut bytes = &frame.payload[..];
    let record = (frame.kind == Kind::Record).then(|| NodeRecord::decode(&mut bytes).ok()).flatten();
    record.filter(|_| bytes.is_empty())
}

fn identity_of(connection: &Connection) -> Option<NodeId> {
    Protocol::Peers.identity(&endpoint::shown(connection)?)
}

/// Serves a peer until it is gone.
async fn serve(met: Result<Peer, &'static str>, shared: &Arc<Shared>) {
    let peer = match met {
        Ok(peer) => peer,
        Err(reason) => return tracing::debug!(reason, "no connection"),
    };
    let (id, validator) = (peer.id, peer.validator.and_then(|key| shared.set.index_of(&key)));
    tracing::info!(peer = %peer.identity, address = %peer.address, ?validator, "a peer is connected");
    shared.peers_changed();
    gossip_to(&peer, shared);
    shared.welcome(&peer);
    link::run(peer, shared.clone()).await;
    shared.peers.lock().remove(id);
    shared.peers_changed();
}

/// Tells everybody of some records.
fn gossip(shared: &Arc<Shared>) {
    let peers: Vec<Peer> = shared.peers.lock().iter().cloned().collect();
    peers.iter().for_each(|peer| gossip_to(peer, shared));
}

/// Tells a peer of records, its own apart; validators' first.
fn gossip_to(peer: &Peer, shared: &Shared) {
    let book = shared.book.lock();
    let mut records: Vec<&NodeRecord> = book.records().filter(|record| record.identity != peer.identity).collect();
    records.sort_by_key(|record| record.validator.is_none());
    let encoded: Vec<Vec<u8>> =
        records.into_iter().take(frame::RECORDS_PER_FRAME_MAX).map(NodeRecord::encoded).collect();
    if !encoded.is_empty() {
        let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        let _ = peer.lanes.word(Bytes::from(frame::frame(Kind::Records, &parts)));
    }
}

#[cfg(test)]
mod tests {
    use engine::types::Domain;

    use super::*;
    use crate::{identity::NodeKey, transport::tests::kit::spec};

    fn key(number: u16) -> NodeKey {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        NodeKey::from_seed(&seed).expect("any seed")
    }

    fn record(number: u16, sequence: u64, addresses: &[&str]) -> NodeRecord {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        NodeRecord::sign(&Domain::default(), &key(number), sequence, addresses, None)
    }

    fn book() -> Book {
        Book::new(key(0).public_key().into(), &spec(1, &[]), &[], false)
    }

    fn addresses(book: &Book, number: u16) -> Option<Vec<String>> {
        book.targets.get(&NodeId::from(key(number).public_key())).map(|target| target.addresses.clone())
    }

    /// Whoever names an address must not make this node knock at its own doors.
    #[test]
    fn nobody_is_dialled_on_this_machine_or_in_a_private_network_because_somebody_said_so() {
        for private in [
            "127.0.0.1:9",
            "10.1.2.3:9",
            "172.16.0.1:9",
            "192.168.1.1:9",
            "169.254.1.1:9",
            "100.64.0.1:9",
            "0.0.0.0:9",
            "224.0.0.1:9",
            "255.255.255.255:9",
            "192.0.2.1:9",
            "[::1]:9",
            "[::]:9",
            "[fe80::1]:9",
            "[fc00::1]:9",
            "[ff02::1]:9",
            "[2001:db8::1]:9",
            "[::ffff:127.0.0.1]:9",
            "[::ffff:10.0.0.1]:9",
            "8.8.8.8:0",
        ] {
            let mut book = book();
            book.learn(record(1, 1, &[private]), None);
            assert_eq!(addresses(&book, 1), None, "{private}");
        }
        let mut book = book();
        book.learn(record(1, 1, &["10.0.0.1:9", "8.8.8.8:9", "[2606:4700::1]:9"]), None);
        assert_eq!(addresses(&book, 1), Some(vec!["8.8.8.8:9".to_owned(), "[2606:4700::1]:9".to_owned()]));
    }

    #[test]
    fn a_newer_record_replaces_an_older_one_and_networks_have_few_places() {
        let mut book = book();
        book.learn(record(1, 5, &["8.8.8.8:1"]), None);
        book.learn(record(1, 4, &["8.8.8.8:2"]), None);
        assert_eq!(addresses(&book, 1), Some(vec!["8.8.8.8:1".to_owned()]));
        book.learn(record(1, 6, &["8.8.8.8:3"]), None);
        assert_eq!(addresses(&book, 1), Some(vec!["8.8.8.8:3".to_owned()]));
        for number in 2..100 {
            book.learn(record(number, 1, &["8.8.8.9:1"]), None);
        }
        assert_eq!(book.targets.len(), limits::RECORDS_PER_NETWORK_MAX);
        book.learn(record(200, 1, &["8.8.9.9:1"]), None);
        assert!(addresses(&book, 200).is_some(), "another network");
        book.learn(record(0, 9, &["8.9.9.9:1"]), None);
        assert_eq!(addresses(&book, 0), None, "nobody dials itself");
    }

    #[test]
    fn addresses_of_a_node_are_tried_in_turn() {
        let mut book = book();
        book.learn(record(1, 1, &["8.8.8.8:1", "8.8.8.8:2"]), None);
        let (identity, mut now) = (NodeId::from(key(1).public_key()), Instant::now());
        let mut tried = Vec::new();
        for _ in 0..4 {
            tried.extend(book.due(&|_| false, 0, now).into_iter().map(|(_, address)| address));
            assert!(book.due(&|_| false, 0, now).is_empty(), "it is being dialled");
            book.dialled(&identity, false, now);
            now += RETRY_MAX * 2;
        }
        assert_eq!(tried, ["8.8.8.8:1", "8.8.8.8:2", "8.8.8.8:1", "8.8.8.8:2"]);
        assert!(book.due(&|_| true, 0, now).is_empty(), "it is connected");
        assert!(book.due(&|_| false, OUTBOUND_MAX, now).is_empty(), "enough others are");
    }
}
