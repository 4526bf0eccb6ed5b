//! Four whole nodes that talk over channels: what one admits, all commit; who was away catches up; and nobody needs
//! another clock than its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy_primitives::{Address, B256, Bytes};
use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, RwLock};

use super::{chain, submit, transaction, transaction_with_input};
use crate::{
    admission::PoolLimits,
    crypto::bls::{BlsScheme, SecretKey},
    dissemination::{Plans, check},
    events::{Event, NotarizedBlock},
    genesis::{ChainSpec, GenesisValidator},
    ordering::event::Identity,
    pipeline::{Config, Inbox, Node, Ports},
    ports::{Delivery, Network, Offender, Store},
    testing::{MemoryJournal, MemoryStore, ToyExecutor},
    types::{
        Block, CommittedBlock, ConsensusHeader, Contact, Epoch, Height, Incoming, Letter, Message, NamedList, Proposal,
        PublicKey, Range, Signature, Transaction, codec,
    },
};

const VALIDATORS: u8 = 4;
/// A node that only follows.
const FOLLOWER: u8 = 4;
/// Another one, which is connected to the first one alone.
const LEAF: u8 = 5;
const NODES: u8 = 6;

/// Whether two nodes are connected.
fn are_connected(one: u8, other: u8) -> bool {
    one != other && (one != LEAF || other == FOLLOWER) && (other != LEAF || one == FOLLOWER)
}

/// The key that a node has proved to have.
fn key_of(number: u8) -> Option<PublicKey> {
    (number < VALIDATORS).then(|| secret(number).public_key())
}

fn secret(number: u8) -> SecretKey {
    let mut secret = [0; 32];
    secret[31] = number.saturating_add(1);
    SecretKey::from_bytes(&mut secret).expect("a small number is a key")
}

/// Who can be reached.
#[derive(Debug, Default)]
struct Exchange(RwLock<BTreeMap<u8, Inbox>>);

/// One node's way to the others.
#[derive(Debug)]
struct Wire {
    number: u8,
    exchange: Arc<Exchange>,
    banned: Mutex<Vec<&'static str>>,
    /// Blocks that came to this node in ranges.
    in_ranges: std::sync::atomic::AtomicU64,
    /// Whether it sends another access list than its block's.
    lies: AtomicBool,
}

impl Network for Wire {
    fn broadcast(&self, letter: &Letter) -> Delivery {
        (0..NODES).filter(|to| are_connected(self.number, *to)).for_each(|to| {
            self.send(u64::from(to), letter);
        });
        Delivery::Sent
    }

    fn send(&self, peer: u64, letter: &Letter) -> Delivery {
        let validator = key_of(self.number);
        let mut incoming = Incoming { peer: u64::from(self.number), validator, letter: letter.clone() };
        if let (true, Some((_, list))) = (self.lies.load(Ordering::Relaxed), &mut incoming.letter.list) {
            *list = NamedList::new(Arc::default());
        }
        let inbox = |peer: u64| u8::try_from(peer).ok().and_then(|peer| self.exchange.0.read().get(&peer).cloned());
        let answer = inbox(peer).and_then(|inbox| inbox.answer(&letter.message));
        if let Some((letter, own)) = answer.zip(inbox(u64::from(self.number))) {
            if let Message::Chain(chain) = &letter.message {
                self.in_ranges.fetch_add(chain.bodies, Ordering::Relaxed);
            }
            let validator = u8::try_from(peer).ok().and_then(key_of);
            return own.deliver(Incoming { peer, validator, letter }).unwrap_or(Delivery::Full);
        }
        let inbox = inbox(peer);
        let deliver = |inbox: &Inbox| inbox.deliver(incoming).inspect_err(|reason| self.banned.lock().push(reason));
        inbox.map_or(Delivery::Full, |inbox| deliver(&inbox).unwrap_or(Delivery::Full))
    }

    fn ban(&self, _offender: &Offender, reason: &'static str) {
        self.banned.lock().push(reason);
    }

    fn peers(&self) -> Vec<Contact> {
        let others = (0..NODES).filter(|other| are_connected(self.number, *other));
        others.map(|other| Contact { peer: u64::from(other), validator: key_of(other) }).collect()
    }
}

/// One validator: what it remembers, and the node while it runs.
struct Member {
    store: Arc<MemoryStore>,
    journal: Arc<MemoryJournal>,
    wire: Arc<Wire>,
    executor: Arc<ToyExecutor>,
    node: Option<Node>,
}

struct Cluster {
    exchange: Arc<Exchange>,
    members: Vec<Member>,
    /// Rung whenever a node commits.
    bell: (Sender<()>, Receiver<()>),
}

impl Cluster {
    fn new(senders: &[Address], epoch_heights: u64) -> Self {
        let mut spec: ChainSpec = chain(senders);
        spec.ordering.epoch_slots = epoch_heights;
        spec.ordering.slot_time_ms = 20;
        spec.ordering.delta_ms = 30;
        spec.ordering.idle_interval_ms = 60;
        let validator = |number| {
            let key = secret(number);
            GenesisValidator {
                bls_pubkey: Bytes::copy_from_slice(key.public_key().0.as_slice()),
                proof_of_possession: Bytes::copy_from_slice(key.prove_possession(Address::ZERO, 9).0.as_slice()),
                identity: Bytes::new(),
                addresses: Vec::new(),
                stake: 1,
                fee_recipient: Address::ZERO,
            }
        };
        spec.ordering.validators = (0..VALIDATORS).map(validator).collect();
        let (spec, exchange) = (Arc::new(spec), Arc::new(Exchange::default()));
        let member = |number| Member {
            store: Arc::new(MemoryStore::new(spec.clone())),
            journal: Arc::default(),
            wire: Arc::new(Wire {
                number,
                exchange: exchange.clone(),
                banned: Default::default(),
                in_ranges: Default::default(),
                lies: Default::default(),
            }),
            executor: Arc::new(ToyExecutor::listing()),
            node: None,
        };
        let members = (0..NODES).map(member).collect();
        let mut cluster = Self { exchange, members, bell: bounded(1) };
        (0..VALIDATORS).for_each(|number| cluster.start(number));
        cluster
    }

    fn start(&mut self, number: u8) {
        let member = &mut self.members[usize::from(number)];
        let config = Config {
            slot_time: Duration::from_millis(20),
            build_time: Duration::from_millis(20),
            idle_interval: Some(Duration::from_millis(60)),
            identity: (number < VALIDATORS).then(|| Identity::new(secret(number))),
            scheme: Arc::new(BlsScheme),
            beneficiary: Address::ZERO,
            extra_data: Bytes::new(),
            admission_workers: 1,
            pool: PoolLimits::default(),
            hint_percent: 0,
            give_way: || {},
        };
        let ports = Ports {
            store: member.store.clone(),
            journal: member.journal.clone(),
            executor: member.executor.clone(),
            network: member.wire.clone(),
        };
        let node = Node::start(config, ports, member.journal.recovered()).expect("it starts");
        let bell = self.bell.0.clone();
        node.events.listen(Box::new(move |_| {
            // One that rings already is enough.
            let _ = bell.try_send(());
        }));
        self.exchange.0.write().insert(number, node.inbox.clone());
        member.node = Some(node);
    }

    /// A power cut: what was not synced is gone.
    fn kill(&mut self, number: u8) {
        self.exchange.0.write().remove(&number);
        self.members[usize::from(number)].node = None;
    }

    fn height(&self, number: u8) -> u64 {
        self.members[usize::from(number)].store.tip().height().0
    }

    fn block(&self, number: u8, height: u64) -> Arc<CommittedBlock> {
        let found = self.members[usize::from(number)].store.block(Height(height)).expect("readable");
        found.expect("it was committed")
    }

    /// Transactions in the chain of the first node.
    fn included(&self) -> usize {
        (1..=self.height(0)).map(|height| self.block(0, height).block.body.transactions.len()).sum()
    }

    /// Hands every validator some of these in turn, and waits until all are committed by all.
    fn commit_all(&self, transactions: &[(Bytes, Address)]) {
        for (index, (raw, _)) in transactions.iter().enumerate() {
            let node = self.members[index % usize::from(VALIDATORS)].node.as_ref().expect("it runs");
            submit(node, raw).expect("valid");
        }
        while self.included() < transactions.len() {
            assert!(self.height(0) < 1_000, "{} of {} included", self.included(), transactions.len());
            self.reach(&[0, 1, 2, 3], self.height(0) + 1);
        }
        assert_eq!(self.included(), transactions.len(), "each once");
        self.reach(&[0, 1, 2, 3], self.height(0));
    }

    /// Waits until these nodes have committed up to a height; fails after so many commits that they never will.
    fn reach(&self, numbers: &[u8], height: u64) {
        let mut patience = 5_000_u32;
        while numbers.iter().any(|number| self.height(*number) < height) {
            let heights: Vec<_> = (0..NODES).map(|number| self.height(number)).collect();
            patience = patience.checked_sub(1).unwrap_or_else(|| panic!("heights {heights:?}, {height} awaited"));
            for number in numbers {
                let node = self.members[usize::from(*number)].node.as_ref().expect("it runs");
                assert_eq!(node.failure.try_recv().ok(), None, "node {number} runs");
            }
            // A node that fails rings no bell.
            if self.bell.1.recv_timeout(Duration::from_secs(1)).is_err() {
                patience = patience.saturating_sub(80);
            }
        }
    }

    /// All nodes have the same chain as far as each has one, and nobody was taken for faulty.
    fn agree(&self) {
        let least = (0..VALIDATORS).map(|number| self.height(number)).min().expect("there are some");
        for height in 1..=least {
            let one = self.block(0, height).block.clone();
            for number in 1..VALIDATORS {
                assert_eq!(self.block(number, height).block, one, "block {height} of node {number}");
            }
        }
        for member in &self.members {
            assert_eq!(*member.wire.banned.lock(), Vec::<&str>::new(), "nobody is banned");
        }
    }
}

#[test]
fn four_nodes_commit_one_chain_with_everything_that_was_admitted_anywhere() {
    let transactions: Vec<_> = (0..40).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(&senders, 1_000);
    cluster.commit_all(&transactions);
    let proposers: std::collections::BTreeSet<_> =
        (1..=cluster.height(0)).map(|height| cluster.block(0, height).block.consensus.proposer).collect();
    assert!(proposers.len() > 1 || cluster.height(0) <= 4, "leaders take turns: {proposers:?}");
    cluster.agree();
}

#[test]
fn every_node_tells_of_notarized_blocks_once_and_before_they_are_durable() {
    let transactions: Vec<_> = (0..40).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(&senders, 1_000);
    let told: Vec<_> = (0..VALIDATORS).map(|_| Arc::<Mutex<Vec<(B256, bool)>>>::default()).collect();
    for (member, told) in cluster.members.iter().zip(&told) {
        let telling = told.clone();
        let listener = move |event: &Event| match event {
            Event::Notarized(NotarizedBlock { block, .. }) => telling.lock().push((block.hash(), false)),
            Event::Committed(block) => telling.lock().push((block.hash(), true)),
            _ => {}
        };
        member.node.as_ref().expect("it runs").events.listen(Box::new(listener));
    }
    cluster.commit_all(&transactions);
    for told in told {
        let told = told.lock();
        for (at, (hash, is_durable)) in told.iter().enumerate() {
            let earlier = told[..at].iter().filter(|(other, _)| other == hash);
            let earlier: Vec<bool> = earlier.map(|(_, is_durable)| *is_durable).collect();
            let most: &[bool] = if *is_durable { &[false] } else { &[] };
            assert!(most.starts_with(&earlier), "{hash} is told {is_durable} after {earlier:?}");
        }
        assert!(told.iter().any(|(_, is_durable)| !is_durable), "a block is told before it is durable");
    }
}

/// Blocks that somebody else proposed, which have transactions.
fn of_others(cluster: &Cluster, number: u8) -> u64 {
    let blocks = (1..=cluster.height(0)).map(|height| cluster.block(0, height).block.clone());
    let are_theirs = |block: &Arc<Block>| block.consensus.proposer != u16::from(number);
    blocks.filter(|block| are_theirs(block) && !block.body.transactions.is_empty()).count() as u64
}

#[test]
fn blocks_are_executed_along_the_lists_that_come_beside_them_and_fetched_ones_without() {
    let transactions: Vec<_> = (0..40).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let mut cluster = Cluster::new(&senders, 1_000);
    cluster.commit_all(&transactions);
    let mut listed = 0;
    for number in 0..VALIDATORS {
        let (executor, theirs) = (&cluster.members[usize::from(number)].executor, of_others(&cluster, number));
        assert!(executor.listed() + executor.unlisted() >= theirs, "node {number}: {theirs} blocks of others");
        listed += executor.listed();
    }
    assert!(listed > 0, "somebody executes along a list");
    for height in 1..=cluster.height(0) {
        let header = cluster.block(0, height).block.consensus.clone();
        assert_ne!(header.access_list_hash, B256::ZERO, "block {height} names a list");
    }
    // All that has transactions comes to a newcomer in ranges.
    cluster.start(FOLLOWER);
    cluster.reach(&[0, 1, 2, 3, FOLLOWER], cluster.height(0) + 3);
    let executor = &cluster.members[usize::from(FOLLOWER)].executor;
    assert!(executor.listed() == 0 && executor.unlisted() > 0, "fetched blocks come without");
    cluster.agree();
}

#[test]
fn a_list_that_no_header_names_is_dropped_and_its_block_executed_without() {
    let transactions: Vec<_> = (0..20).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(&senders, 1_000);
    cluster.members.iter().for_each(|member| member.wire.lies.store(true, Ordering::Relaxed));
    cluster.commit_all(&transactions);
    for number in 0..VALIDATORS {
        let executor = &cluster.members[usize::from(number)].executor;
        let theirs = of_others(&cluster, number);
        assert!(executor.listed() == 0 && executor.unlisted() >= theirs, "node {number}: {theirs} blocks of others");
    }
    cluster.agree();
}

#[test]
fn the_header_of_a_block_with_a_large_body_commits_to_its_shares_in_every_epoch() {
    let large = |index| transaction_with_input(index, 0, 2_000_000, vec![0; 100_000].into());
    let transactions: Vec<_> = (0..12).map(large).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(&senders, 10);
    let (mut blocks, mut sent) = (Vec::new(), 0);
    while blocks.iter().filter(|block: &&Arc<Block>| block.consensus.body_size_bytes > 0).count() < 4 {
        // Some in every epoch, so that leaders of each have a large block.
        if let Some((raw, _)) = transactions.get(sent).filter(|_| blocks.len() >= sent * 3) {
            submit(cluster.members[sent % 4].node.as_ref().expect("it runs"), raw).expect("valid");
            sent += 1;
        }
        let height = blocks.len() as u64 + 1;
        assert!(height < 200, "{sent} large transactions are included by then");
        cluster.reach(&[0, 1, 2, 3], height);
        blocks.push(cluster.block(0, height).block.clone());
    }
    cluster.agree();
    let epochs: std::collections::BTreeSet<u64> = blocks.iter().map(|block| block.consensus.epoch).collect();
    assert!(epochs.len() > 1, "{epochs:?}");
    for block in blocks {
        let start = cluster.members[0].store.epoch(block.consensus.epoch()).expect("readable");
        let genesis = || cluster.members[0].store.chain().validator_set().expect("a set");
        let plans = Plans::new(Arc::new(start.map_or_else(genesis, |start| start.set)));
        assert_eq!(check(&plans, &block), Ok(()), "block {}", block.height());
        let is_large = !block.body.transactions.is_empty();
        let expected = if is_large { codec::encode_body(&block).len() as u64 } else { 0 };
        assert_eq!(block.consensus.body_size_bytes, expected, "block {}", block.height());
    }
}

#[test]
fn the_chain_goes_on_without_one_and_takes_it_back_and_crosses_epochs() {
    let mut cluster = Cluster::new(&[], 40);
    cluster.reach(&[0, 1, 2, 3], 3);
    cluster.kill(2);
    cluster.reach(&[0, 1, 3], 42);
    cluster.start(2);
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3], now + 6);
    cluster.agree();
    let store = &cluster.members[2].store;
    let start = store.epoch(Epoch(1)).expect("readable").expect("it began");
    let base = cluster.block(2, 40);
    assert_eq!((start.base, start.set.epoch()), (base.block.consensus.id(), Epoch(1)));
    assert_eq!(start.handover.epoch, Epoch(0), "the set before made it final");
}

/// Over the ends of three epochs, and without a pause at any of them.
#[test]
fn a_follower_that_begins_with_nothing_comes_to_the_tip_by_ranges_and_follows_on() {
    let mut cluster = Cluster::new(&[], 40);
    cluster.reach(&[0, 1, 2, 3], 130);
    cluster.start(FOLLOWER);
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3, FOLLOWER], now + 10);
    let in_ranges = cluster.members[usize::from(FOLLOWER)].wire.in_ranges.load(Ordering::Relaxed);
    assert!(in_ranges >= 80, "{in_ranges} blocks came in ranges");
    cluster.agree();
    for height in 1..=now {
        assert_eq!(cluster.block(FOLLOWER, height).block, cluster.block(0, height).block);
    }
    // Whoever followed can be asked as well, and answers at every height with a chain that ends on what is certified.
    let inbox = cluster.members[usize::from(FOLLOWER)].node.as_ref().expect("it runs").inbox.clone();
    let answer = |from| inbox.answer(&Message::Range(Range { from, count: 16 })).expect("a wish for blocks");
    // Blocks that one certificate from far above made final are named by it alone until that block is here as well.
    let mut height = cluster.height(FOLLOWER);
    while (0..now).any(|from| answer(Height(from)).blocks.is_empty()) {
        height += 1;
        assert!(height <= now + 100, "it cannot be asked at height {height}");
        cluster.reach(&[FOLLOWER], height);
    }
    for from in (0..now).map(Height) {
        let letter = answer(from);
        assert!(letter.is_whole());
        let Message::Chain(chain) = letter.message else { panic!("{:?}", letter.message) };
        let top = chain.headers.last().expect("headers").header.id();
        assert_eq!(chain.certificate.expect("a certificate").statement.id(), Some(top), "above {from}");
        assert_eq!(letter.blocks[0].height(), from.next());
        assert!(chain.headers.windows(2).all(|pair| pair[1].header.parent_id == pair[0].header.id()));
    }
    assert_eq!(inbox.answer(&Message::Blocks(Vec::new())), None, "no wish, no answer");
}

#[test]
fn a_follower_that_knows_no_validator_follows_another_follower() {
    let mut cluster = Cluster::new(&[], 40);
    cluster.start(FOLLOWER);
    cluster.reach(&[0, 1, 2, 3, FOLLOWER], 90);
    cluster.start(LEAF);
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3, FOLLOWER, LEAF], now + 50);
    assert!(cluster.members[usize::from(LEAF)].wire.in_ranges.load(Ordering::Relaxed) >= 40);
    cluster.agree();
    for height in 1..=now {
        assert_eq!(cluster.block(LEAF, height).block, cluster.block(0, height).block);
    }
}

#[test]
fn all_nodes_lose_power_at_once_and_go_on_where_they_were() {
    let mut cluster = Cluster::new(&[], 1_000);
    for round in 1..=3 {
        cluster.reach(&[0, 1, 2, 3], round * 4);
        let heights: Vec<_> = (0..VALIDATORS).map(|number| cluster.height(number)).collect();
        (0..VALIDATORS).for_each(|number| cluster.kill(number));
        (0..VALIDATORS).for_each(|number| cluster.start(number));
        for (number, height) in (0..VALIDATORS).zip(heights) {
            assert!(cluster.height(number) >= height, "what was committed stays");
        }
    }
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3], now + 4);
    cluster.agree();
}

#[test]
fn a_peer_that_lies_and_floods_is_banned_and_stops_nobody() {
    let (raw, sender) = transaction(1, 0);
    let cluster = Cluster::new(&[sender], 1_000);
    cluster.reach(&[0, 1, 2, 3], 2);
    let inbox = cluster.members[0].node.as_ref().expect("it runs").inbox.clone();
    let letter = |letter| Incoming { peer: 77, validator: None, letter };

    let mut other = Block::clone(&cluster.block(0, 1).block);
    other.body.transactions.push(Arc::new(Transaction::decode(raw).expect("a transaction")));
    let forged = Letter { message: Message::Blocks(Vec::new()), blocks: vec![Arc::new(other)], list: None };
    assert_eq!(inbox.deliver(letter(forged)), Err("a block with a body that is not its own"));
    let answer = inbox.answer(&Message::Range(Range { from: Height(0), count: 2 })).expect("a wish for blocks");
    let without = Letter { blocks: answer.blocks[..1].to_vec(), ..answer.clone() };
    let swapped = Letter { blocks: answer.blocks.iter().rev().cloned().collect(), ..answer };
    for wrong in [without, swapped] {
        assert_eq!(inbox.deliver(letter(wrong)), Err("a block with a body that is not its own"));
    }

    let honest = cluster.block(0, 2).block.clone();
    let header = ConsensusHeader { slot: honest.consensus.slot + 8, ..honest.consensus.clone() };
    let proposal = Proposal { header, signature: Signature::default(), certificates: Vec::new() };
    let lie = Letter { message: Message::Proposal(Box::new(proposal)), blocks: vec![honest], list: None };
    let sent = (0..20_000).filter(|_| inbox.deliver(letter(lie.clone())) == Ok(Delivery::Sent)).count();
    assert!(sent < 20_000, "a full inbox says so");
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3], now + 4);
    assert!(!cluster.members[0].wire.banned.lock().is_empty(), "a proposal that its leader did not sign");
    assert!(cluster.members[1..].iter().all(|member| member.wire.banned.lock().is_empty()));
}
