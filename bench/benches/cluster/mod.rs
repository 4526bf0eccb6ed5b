//! Validators that talk over QUIC on loopback through the transport that a node has, and say what the bench says.
//!
//! ```text
//!  bench --> Transport ==QUIC==> Transport --> Inbox --> bench
//! ```
//!
//! Behind every transport stands a whole node whose ordering does not run: nobody votes, asks or proposes by itself,
//! and the bench takes what came out of an inbox in ordering's place. All share one runtime, a thread for each core.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use alloy_consensus::Header;
use alloy_primitives::{Address, Bytes, FixedBytes, U256};
use engine::{
    admission::PoolLimits,
    crypto::bls::{BlsScheme, SecretKey},
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, GenesisValidator, OrderingParams},
    ordering::event::{Identity, Now},
    pipeline::{Config, Ports, stepped::SteppedNode},
    ports::{Delivery, Network as _, Recovered},
    testing::{MemoryJournal, MemoryStore, RecordingNetwork, ToyExecutor, system_contracts},
    types::{Incoming, Letter, RawTransaction, Signature, Transaction, ValidatorIndex, ValidatorSet},
};
use net::{
    NodeKey,
    transport::{Doors, PeerAddress, Transport, TransportConfig},
};
use tokio::runtime::Runtime;

/// Chain id of everything here.
pub(crate) const CHAIN_ID: u64 = 9;

/// A signature that nobody made: a transport carries it and does not look at it.
pub(crate) const SIGNATURE: Signature = Signature(FixedBytes::repeat_byte(0x5a));

/// How long anything may take on a busy machine; what takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Slots of a window. Shares are taken for four windows from the first undecided slot on, which here is always the
/// same; the longest that a genesis file may say leaves room for [`Cluster::SLOTS_MAX`] blocks.
const WINDOW: u64 = 1_024;

/// Bytes that went over every connection up to some moment, as QUIC counts them: what UDP carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// What the leader sent.
    pub(crate) leader: u64,
    /// What all sent.
    pub(crate) total: u64,
    /// What all received.
    pub(crate) received: u64,
    /// Packets that were lost.
    pub(crate) lost: u64,
}

impl Traffic {
    /// What was added to an earlier count.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self {
            leader: self.leader - earlier.leader,
            total: self.total - earlier.total,
            received: self.received - earlier.received,
            lost: self.lost - earlier.lost,
        }
    }
}

/// One validator.
struct Member {
    transport: Arc<Transport>,
    node: SteppedNode,
}

/// A validator set of which each is connected with each.
pub(crate) struct Cluster {
    /// The first is the leader.
    members: Vec<Member>,
    /// Its validators, of equal stake.
    pub(crate) set: Arc<ValidatorSet>,
    /// Ends after the transports.
    _runtime: Runtime,
}

impl Cluster {
    /// Slots from 1 on in which a proposal's shares are taken.
    pub(crate) const SLOTS_MAX: u64 = 4 * WINDOW;

    /// Place of the leader in the set.
    pub(crate) const LEADER: ValidatorIndex = ValidatorIndex(0);

    /// Starts so many validators, each of which has the transactions in its pool, and waits until all are connected.
    pub(crate) fn start(validators: u8, pooled: &[Arc<Transaction>]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
        let spec = Arc::new(spec(validators, pooled));
        let (mut members, mut peers) = (Vec::new(), Vec::new());
        for number in 0..validators {
            let node = node(&spec, pooled);
            let (transport, peer) = transport(number, &spec, peers.clone(), &node, &runtime);
            members.push(Member { transport, node });
            peers.push(peer);
        }
        let set = Arc::new(spec.validator_set().expect("a set"));
        assert_eq!(set.index_of(&secret(0).public_key()), Some(Self::LEADER), "the set is in the genesis file's order");
        let cluster = Self { members, set, _runtime: runtime };
        cluster.meet();
        cluster
    }

    /// How many get what the leader sends.
    pub(crate) const fn receivers(&self) -> usize {
        self.members.len() - 1
    }

    fn meet(&self) {
        let begun = Instant::now();
        let is_complete = |member: &Member| {
            let peers = member.transport.peers();
            peers.len() == self.receivers() && peers.iter().all(|peer| peer.validator.is_some())
        };
        while !self.members.iter().all(is_complete) {
            assert!(begun.elapsed() < PATIENCE, "validators on one machine find each other");
            sleep(Duration::from_millis(2));
        }
    }

    /// The leader tells all others.
    pub(crate) fn broadcast(&self, letter: &Letter) {
        assert_eq!(self.members[0].transport.broadcast(letter), Delivery::Sent, "the lanes have room");
    }

    /// Everybody tells all others, who hear it.
    pub(crate) fn broadcast_all(&self, letter: &Letter) {
        for member in &self.members {
            assert_eq!(member.transport.broadcast(letter), Delivery::Sent, "the lanes have room");
        }
        for member in &self.members {
            (0..self.receivers()).for_each(|_| drop(member.next()));
        }
    }

    /// The next letter in the inbox of each receiver that `take` makes something of, in order of receivers; all others
    /// are dropped.
    pub(crate) fn heard<T>(&self, take: impl Fn(Incoming) -> Option<T>) -> Vec<T> {
        let heard = |member: &Member| std::iter::repeat_with(|| member.next()).find_map(&take);
        self.members[1..].iter().filter_map(heard).collect()
    }

    fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        for (place, member) in self.members.iter().enumerate() {
            for peer in member.transport.peer_infos() {
                assert_eq!(peer.score, 0.0, "nobody does anything wrong");
                traffic.leader += if place == 0 { peer.sent_bytes } else { 0 };
                traffic.total += peer.sent_bytes;
                traffic.received += peer.received_bytes;
                traffic.lost += peer.lost_packets;
            }
        }
        traffic
    }

    /// Waits until nobody has sent or received anything for so long, and counts.
    pub(crate) fn quiet(&self, time: Duration) -> Traffic {
        let begun = Instant::now();
        let (mut last, mut since) = (self.traffic(), begun);
        while since.elapsed() < time {
            assert!(begun.elapsed() < PATIENCE, "they fall silent");
            sleep(Duration::from_millis(1));
            let traffic = self.traffic();
            if traffic != last {
                (last, since) = (traffic, Instant::now());
            }
        }
        last
    }
}

impl Member {
    fn next(&self) -> Incoming {
        self.node.intercept(PATIENCE).expect("what is sent on one machine arrives")
    }
}

fn secret(number: u8) -> SecretKey {
    let mut secret = [0; 32];
    secret[31] = number + 1;
    SecretKey::from_bytes(&mut secret).expect("a small number is a key")
}

fn node_key(number: u8) -> NodeKey {
    NodeKey::from_seed(&[number + 1; 32]).expect("any seed")
}

/// A node that follows, with these transactions in its pool before it has peers that it would send them to.
fn node(spec: &Arc<ChainSpec>, pooled: &[Arc<Transaction>]) -> SteppedNode {
    let config = Config {
        slot_time: Duration::from_millis(200),
        build_time: Duration::from_millis(200),
        idle_interval: None,
        identity: None,
        scheme: Arc::new(BlsScheme),
        beneficiary: Address::ZERO,
        extra_data: Bytes::new(),
        admission_workers: 1,
        pool: PoolLimits::default(),
        hint_percent: 0,
        give_way: || {},
    };
    let ports = Ports {
        store: Arc::new(MemoryStore::new(spec.clone())),
        journal: Arc::new(MemoryJournal::default()),
        executor: Arc::new(ToyExecutor::default()),
        network: Arc::new(RecordingNetwork::default()),
    };
    let mut node = SteppedNode::start(config, ports, Recovered::default(), Now::default, 1).expect("it starts");
    for transaction in pooled {
        let raw = RawTransaction::new(transaction.encoded().clone());
        node.submit(raw).expect("it runs").expect("the transaction is valid");
    }
    node
}

fn transport(
    number: u8,
    spec: &ChainSpec,
    peers: Vec<PeerAddress>,
    node: &SteppedNode,
    runtime: &Runtime,
) -> (Arc<Transport>, PeerAddress) {
    let key = node_key(number);
    let identity = key.public_key().into();
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = TransportConfig { listen, external: None, key, peers, may_dial_private: true };
    let transport = Transport::new(config, spec, Some(&Identity::new(secret(number)))).expect("a network");
    let doors = Doors {
        inbox: node.inbox().clone(),
        admission: node.admission().clone(),
        query: node.query().clone(),
        events: node.events().clone(),
    };
    let _inside = runtime.enter();
    let address = transport.start(doors).expect("it listens on any free port").to_string();
    (transport, PeerAddress { identity, address })
}

/// A chain with these validators of equal stake, on which the senders of these transactions are rich.
fn spec(validators: u8, pooled: &[Arc<Transaction>]) -> ChainSpec {
    let rich = GenesisAccount { balance: U256::from(u64::MAX), ..GenesisAccount::default() };
    let mut alloc = system_contracts();
    alloc.extend(pooled.iter().map(|transaction| (transaction.sender(), rich.clone())));
    let validator = |number| {
        let key = secret(number);
        GenesisValidator {
            bls_pubkey: Bytes::copy_from_slice(key.public_key().0.as_slice()),
            proof_of_possession: Bytes::copy_from_slice(key.prove_possession(Address::ZERO, CHAIN_ID).0.as_slice()),
            identity: Bytes::copy_from_slice(&node_key(number).public_key()),
            addresses: Vec::new(),
            stake: 1,
            fee_recipient: Address::ZERO,
        }
    };
    let validators = (0..validators).map(validator).collect();
    ChainSpec {
        chain_id: CHAIN_ID,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams { window: WINDOW, validators, ..OrderingParams::default() },
        genesis_header: Header { gas_limit: 100_000_000, ..Header::default() },
        alloc,
    }
}
