//! Votes and blocks over QUIC on loopback, through the transport that a node has: how long until they are in the inbox
//! of whoever gets them, and how many bytes that takes.
//!
//! - `votes`: from the first `broadcast` of one validator until all votes are in the inbox of the other, for votes of
//!   different slots that are said together. One alone is the latency of the lane; a batch shows what a vote costs.
//! - `blocks`: from the leader's `broadcast` of a proposal until the last of three receivers has the whole block, one
//!   block at a time on a network that is quiet: the inverse of a block's latency, encoding, cutting, decoding, checks
//!   of its roots and the inbox included. Transactions of 1 KiB are in every pool, as most are when a block comes.
//! - A table, printed once and not timed: bytes that UDP carried for each, beside the least that could do.
//!
//! Two bounds must not be what is measured. A peer may say so much per second (`net/src/transport/quota.rs`): between
//! batches, and between blocks, is waited outside of the time until the receiver allows as much as it did before. And
//! lanes and QUIC's buffers of datagrams drop votes when they are full: the largest batch is half of a lane's. A vote
//! that does not arrive fails the bench. All validators share the cores of this machine and one process.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod cluster;

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use alloy_consensus::{
    Header, Sealable, SignableTransaction, TxEip1559,
    proofs::{calculate_transaction_root, calculate_withdrawals_root},
};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use cluster::{CHAIN_ID, Cluster, SIGNATURE, Traffic};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use engine::{
    dissemination::{Plan, Plans, commit},
    limits,
    types::{
        Block, BlockBody, ConsensusHeader, Envelope, Epoch, Incoming, Letter, Message, Proposal, Slot, Statement,
        Transaction, ValidatorIndex, Vote, codec,
    },
};

/// Votes that are said together; the most is half of what waits for one peer.
const BATCHES: [u64; 3] = [1, 16, limits::PEER_VOTES_MAX as u64 / 2];

/// Name of a body, and bytes that it takes at most. The first two travel whole, the others in shares.
const SIZES: [(&str, usize); 4] = [("10k", 10 << 10), ("60k", 60 << 10), ("256k", 256 << 10), ("1M", 1 << 20)];

/// A vote may be said so often: a tenth more seldom than the quota allows.
const VOTE_INTERVAL: Duration = Duration::from_micros(1_100);

/// Who has said nothing for so long has nothing more to say, for QUIC waits 25 ms at most for more to acknowledge. The
/// word and the share of a block that the leader says to each are a tenth of what the quota allows in that time.
const QUIET: Duration = Duration::from_millis(30);

/// Batches and blocks that let the connections find out how large a packet may be and how many may be under way.
const WARM_UP: usize = 4;

/// Bytes of one transaction's input; all of it takes 1 KiB.
const INPUT_BYTES: usize = 910;

/// Votes alone, and blocks of each size, whose bytes are counted.
const COUNTED: u64 = 8;

/// Votes said together whose bytes are counted.
const TOGETHER: u64 = 64;

/// The same for every body: those of a smaller one are the first of a larger one's.
fn transactions(count: usize) -> Vec<Arc<Transaction>> {
    let transaction = |index: usize| {
        let words = (0..).flat_map(|word: usize| keccak256([index.to_be_bytes(), word.to_be_bytes()].concat()).0);
        let tx = TxEip1559 {
            chain_id: CHAIN_ID,
            // EIP-7623: every byte may be no zero.
            gas_limit: 21_000 + 40 * INPUT_BYTES as u64,
            max_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(Address::repeat_byte(1)),
            value: U256::from(index),
            input: words.take(INPUT_BYTES).collect::<Vec<u8>>().into(),
            ..TxEip1559::default()
        };
        let envelope: Envelope = tx.into_signed(alloy_primitives::Signature::test_signature()).into();
        let encoded: Bytes = envelope.encoded_2718().into();
        Arc::new(Transaction::decode(encoded).expect("any signature recovers to somebody"))
    };
    (0..count).map(transaction).collect()
}

/// As many as surely fit a body of so many bytes beside its header, and hardly fewer than could.
fn filling(bytes: usize) -> Vec<Arc<Transaction>> {
    let one = transactions(1)[0].encoded().len() + 3;
    transactions((bytes - 700) / one)
}

/// A leader's block without a slot, and what its consensus header says of its body.
fn block(cluster: &Cluster, transactions: &[Arc<Transaction>]) -> Block {
    let envelopes: Vec<&Envelope> = transactions.iter().map(|transaction| transaction.envelope()).collect();
    let header = Header {
        number: 1,
        base_fee_per_gas: Some(7),
        transactions_root: calculate_transaction_root(&envelopes),
        withdrawals_root: Some(calculate_withdrawals_root(&[])),
        ..Header::default()
    };
    let header = header.seal_slow();
    let consensus = ConsensusHeader {
        chain_id: CHAIN_ID,
        height: 1,
        proposer: Cluster::LEADER.0,
        block_hash: header.seal(),
        seed_share: SIGNATURE,
        ..ConsensusHeader::default()
    };
    let body = BlockBody { transactions: transactions.to_vec(), withdrawals: Some(Default::default()) };
    let mut block = Block { consensus, header, body };
    let commitment = commit(&Plans::new(cluster.set.clone()), &block).expect("it travels");
    (block.consensus.body_root, block.consensus.body_size_bytes) = (commitment.root, commitment.size_bytes);
    block
}

fn vote(slot: u64) -> Letter {
    let statement = Statement::Notarize { slot: Slot(slot), id: B256::repeat_byte(7) };
    Letter::of(Message::Vote(Vote { epoch: Epoch(0), statement, voter: Cluster::LEADER, signature: SIGNATURE }))
}

/// What a leader says, slot by slot, as fast as everybody may hear it.
struct Leader<'a> {
    cluster: &'a Cluster,
    slot: u64,
    /// When its peers will have room for more votes of it.
    next: Instant,
}

impl<'a> Leader<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, slot: 0, next: Instant::now() }
    }

    fn next_slot(&mut self) -> u64 {
        self.slot += 1;
        self.slot
    }

    /// Says so many votes together, and waits until every receiver has all of them.
    fn votes(&mut self, count: u64) -> Duration {
        sleep(self.next.saturating_duration_since(Instant::now()));
        self.next = Instant::now() + VOTE_INTERVAL * u32::try_from(count).expect("a lane has little room");
        let letters: Vec<Letter> = (0..count).map(|_| vote(self.next_slot())).collect();
        let begun = Instant::now();
        letters.iter().for_each(|letter| self.cluster.broadcast(letter));
        let rounds: Vec<_> = letters.iter().map(|_| self.cluster.heard(|came| Some(came.letter))).collect();
        let time = begun.elapsed();
        for receiver in 0..self.cluster.receivers() {
            // A datagram may overtake another.
            let slot = |letter: &Letter| match &letter.message {
                Message::Vote(vote) => vote.statement.slot(),
                other => panic!("{other:?} is no vote"),
            };
            let mut came: Vec<&Letter> = rounds.iter().map(|round| &round[receiver]).collect();
            came.sort_by_key(|letter| slot(letter));
            assert!(came.iter().copied().eq(&letters), "each vote comes once, as it was said");
        }
        time
    }

    /// Proposes a block on a quiet network, and waits until every receiver has it whole.
    fn block(&mut self, block: &Block) -> Duration {
        let mut block = block.clone();
        block.consensus.slot = self.next_slot();
        let is_cut = block.consensus.body_size_bytes > 0;
        assert!(!is_cut || self.slot <= Cluster::SLOTS_MAX, "receivers look at this slot");
        let proposal = Proposal { header: block.consensus.clone(), signature: SIGNATURE, certificates: Vec::new() };
        let letter =
            Letter { message: Message::Proposal(Box::new(proposal)), blocks: vec![Arc::new(block)], list: None };
        let slot = self.slot;
        // Of a block in shares the proposal comes alone, and may be left from the slot before.
        let whole = |came: Incoming| came.letter.blocks.into_iter().find(|block| block.consensus.slot == slot);
        self.cluster.quiet(QUIET);
        let begun = Instant::now();
        self.cluster.broadcast(&letter);
        let came = self.cluster.heard(whole);
        let time = begun.elapsed();
        assert_eq!(came.len(), self.cluster.receivers());
        assert!(came.iter().all(|block| *block == letter.blocks[0]), "what comes is what was proposed");
        time
    }
}

fn votes(criterion: &mut Criterion) {
    let cluster = Cluster::start(2, &[]);
    let mut leader = Leader::new(&cluster);
    let mut group = criterion.benchmark_group("lanes");
    // What is waited between batches counts here; it is not in the time of a vote.
    group.sample_size(30).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(5));
    group.sampling_mode(SamplingMode::Flat);
    for _ in 0..WARM_UP {
        leader.votes(BATCHES[BATCHES.len() - 1]);
    }
    for count in BATCHES {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("votes/together={count} receivers=1"), |bencher| {
            bencher.iter_custom(|batches| (0..batches).map(|_| leader.votes(count)).sum());
        });
    }
}

fn blocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lanes");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(4));
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(1));
    for (name, bytes) in SIZES {
        let transactions = filling(bytes);
        let cluster = Cluster::start(4, &transactions);
        let block = block(&cluster, &transactions);
        let mut leader = Leader::new(&cluster);
        for _ in 0..WARM_UP {
            leader.block(&block);
        }
        group.bench_function(format!("blocks/bytes={name} receivers=3"), |bencher| {
            bencher.iter_custom(|blocks| (0..blocks).map(|_| leader.block(&block)).sum());
        });
    }
}

/// Bytes of the datagram of a vote: two before the message.
fn vote_bytes() -> usize {
    vote(1).message.encoded().len() + 2
}

/// The least that a leader, and all together, must send of a block so that everybody has it.
fn least(cluster: &Cluster, block: &Block) -> (usize, usize) {
    let (size, receivers) = (codec::body_bytes(block), cluster.receivers());
    if block.consensus.body_size_bytes == 0 {
        return (size * receivers, size * receivers);
    }
    let plan = Plan::new(&cluster.set, Cluster::LEADER);
    let shares = plan.receivers().map(|index: ValidatorIndex| plan.share_bytes(index, size)).sum();
    (shares, size * receivers)
}

/// Counts what one thing, said `count` times, took.
fn counted(cluster: &Cluster, count: u64, mut say: impl FnMut()) -> (f64, f64, Traffic) {
    // Whoever was silent for a second lets its peers know that it is there; nobody was when this begins.
    cluster.broadcast_all(&vote(0));
    let before = cluster.quiet(QUIET);
    (0..count).for_each(|_| say());
    let traffic = cluster.quiet(QUIET).since(before);
    assert!(traffic.received <= traffic.total, "nothing comes that nobody sent");
    (traffic.leader as f64 / count as f64, traffic.total as f64 / count as f64, traffic)
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn row(name: &str, bytes: usize, least: (usize, usize), (leader, total, traffic): (f64, f64, Traffic)) {
    let (least_leader, least_total) = (least.0 as f64, least.1 as f64);
    assert!(leader >= least_leader && total >= least_total, "{name}: nobody does with less than there is to say");
    println!(
        "{name:<20} {bytes:>9} {leader:>11.0} {least_leader:>9.0} {:>6.3} {total:>11.0} {least_total:>9.0} {:>6.3} {:>5}",
        leader / least_leader,
        total / least_total,
        traffic.lost,
    );
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn table(_: &mut Criterion) {
    println!("bytes in UDP per vote and per block, four validators; those of IP and UDP, 28 a packet, are not counted");
    println!(
        "{:<20} {:>9} {:>11} {:>9} {:>6} {:>11} {:>9} {:>6} {:>5}",
        "", "bytes", "leader sent", "least", "ratio", "all sent", "least", "ratio", "lost"
    );
    let largest = filling(SIZES[SIZES.len() - 1].1);
    let cluster = Cluster::start(4, &largest);
    let mut leader = Leader::new(&cluster);
    for _ in 0..WARM_UP {
        leader.votes(TOGETHER);
    }
    let one = vote_bytes();
    let least_vote = (one * cluster.receivers(), one * cluster.receivers());
    let alone = counted(&cluster, COUNTED, || {
        leader.votes(1);
        cluster.quiet(QUIET);
    });
    row("a vote alone", one, least_vote, alone);
    let (sent, total, traffic) = counted(&cluster, 1, || {
        leader.votes(TOGETHER);
    });
    let each = (sent / TOGETHER as f64, total / TOGETHER as f64, traffic);
    row(&format!("a vote of {TOGETHER}"), one, least_vote, each);
    for (name, bytes) in SIZES {
        let block = block(&cluster, &filling(bytes));
        let figures = counted(&cluster, COUNTED, || {
            leader.block(&block);
        });
        row(&format!("a block of {name}"), codec::body_bytes(&block), least(&cluster, &block), figures);
    }
}

criterion_group!(benches, votes, blocks, table);
criterion_main!(benches);
