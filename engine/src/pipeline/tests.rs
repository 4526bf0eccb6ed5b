//! The whole flow over the toy executor: in, ordered, durable, announced; and what happens when a stage fails.

mod bodies;
mod cluster;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Config, Node, PipelineError, Ports};
use crate::{
    admission::{AdmissionError, PoolLimits},
    crypto::bls::{BlsScheme, SecretKey},
    events::{DropReason, Event, NotarizedBlock},
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ordering::{event::Identity, journal::Entry},
    ports::{Executor, HintLimits, Recovered, Store},
    testing::{MemoryJournal, MemoryStore, PANIC_GAS, RecordingNetwork, ToyExecutor},
    types::{CommittedBlock, Envelope, Height, Message, RawTransaction, Transaction},
};

/// A transaction with a signature of its own, and the sender that the curve makes of it.
fn transaction(index: u64, nonce: u64) -> (Bytes, Address) {
    transaction_with_gas(index, nonce, 21_000)
}

fn transaction_with_gas(index: u64, nonce: u64, gas_limit: u64) -> (Bytes, Address) {
    transaction_with_input(index, nonce, gas_limit, Bytes::new())
}

fn transaction_with_input(index: u64, nonce: u64, gas_limit: u64, input: Bytes) -> (Bytes, Address) {
    let tx = TxEip1559 {
        chain_id: 9,
        nonce,
        gas_limit,
        max_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(1)),
        value: U256::from(index),
        input,
        ..TxEip1559::default()
    };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded: Bytes = envelope.encoded_2718().into();
    let sender = Transaction::decode(encoded.clone()).expect("any signature recovers").sender();
    (encoded, sender)
}

struct Running {
    node: Node,
    store: Arc<MemoryStore>,
    journal: Arc<MemoryJournal>,
    network: Arc<RecordingNetwork>,
    blocks: Receiver<Arc<CommittedBlock>>,
}

fn chain(senders: &[Address]) -> ChainSpec {
    let alloc: BTreeMap<_, _> = senders
        .iter()
        .map(|sender| (*sender, GenesisAccount { balance: U256::from(u64::MAX), ..GenesisAccount::default() }))
        .collect();
    ChainSpec {
        chain_id: 9,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: alloy_consensus::Header { gas_limit: 30_000_000, ..Default::default() },
        alloc,
    }
}

fn config() -> Config {
    Config {
        slot_time: Duration::ZERO,
        build_time: Duration::from_secs(1),
        idle_interval: None,
        identity: Some(Identity::new(SecretKey::development())),
        scheme: Arc::new(BlsScheme),
        beneficiary: Address::ZERO,
        extra_data: Bytes::new(),
        admission_workers: 2,
        pool: PoolLimits::default(),
        hint_percent: 100,
        give_way: || {},
    }
}

fn start(senders: &[Address]) -> Running {
    start_with(senders, Arc::new(ToyExecutor::default()))
}

fn start_with(senders: &[Address], executor: Arc<dyn Executor>) -> Running {
    start_as(config(), senders, executor)
}

fn start_as(config: Config, senders: &[Address], executor: Arc<dyn Executor>) -> Running {
    let store = Arc::new(MemoryStore::new(Arc::new(chain(senders))));
    let network = Arc::new(RecordingNetwork::default());
    let journal = Arc::new(MemoryJournal::default());
    let ports = Ports { store: store.clone(), journal: journal.clone(), executor, network: network.clone() };
    let node = Node::start(config, ports, Recovered::default()).expect("it starts");
    let (sender, blocks) = bounded(1_000);
    node.events.listen(Box::new(move |event| {
        if let Event::Committed(block) = event {
            sender.send(block.clone()).expect("the test listens");
        }
    }));
    Running { node, store, journal, network, blocks }
}

fn submit(node: &Node, raw: &Bytes) -> Result<B256, AdmissionError> {
    let (answer, answered) = bounded(1);
    let done = Box::new(move |result| answer.send(result).expect("the test waits"));
    node.admission.submit(RawTransaction::new(raw.clone()), done);
    answered.recv_timeout(Duration::from_secs(10)).expect("exactly one answer")
}

#[test]
fn what_is_admitted_is_committed_once_and_announced_after_it_can_be_read() {
    let transactions: Vec<_> = (0..200).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let running = start(&senders);
    for (raw, _) in &transactions {
        submit(&running.node, raw).expect("valid");
    }
    let mut included = Vec::new();
    while included.len() < transactions.len() {
        let block = running.blocks.recv_timeout(Duration::from_secs(10)).expect("blocks keep coming");
        let stored = running.store.block(block.height()).expect("readable").expect("there");
        assert_eq!(stored, block);
        included.extend(block.block.body.transactions.iter().map(|tx| tx.hash()));
    }
    let mut unique = included.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((unique.len(), included.len()), (200, 200));
    let letters = running.network.0.lock();
    let proposed: Vec<_> = letters.iter().filter(|letter| matches!(letter.message, Message::Proposal(_))).collect();
    assert_eq!(proposed.len(), usize::try_from(running.store.tip().height().0).expect("few"));
    assert!(proposed.iter().all(|letter| letter.blocks.len() == 1), "a proposal brings its block");
    drop(letters);
    assert_eq!(running.node.query.pool_status().pending, 0);
    assert_eq!(submit(&running.node, &transactions[0].0), Err(AdmissionError::NonceTooLow { next: 1, nonce: 0 }));
}

#[test]
fn a_block_is_told_when_it_is_notarized_and_then_when_it_is_durable() {
    let transactions: Vec<_> = (0..20).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let running = start(&senders);
    let (telling, told) = bounded(1_000);
    running.node.events.listen(Box::new(move |event| match event {
        Event::Notarized(NotarizedBlock { block, receipts }) => {
            telling.send((false, block.clone(), receipts.clone())).expect("the test listens");
        }
        Event::Committed(block) => {
            telling.send((true, block.block.clone(), block.receipts.clone())).expect("the test listens");
        }
        _ => {}
    }));
    for (raw, _) in &transactions {
        submit(&running.node, raw).expect("valid");
    }
    let (mut notarized, mut included) = (VecDeque::new(), 0);
    while included < transactions.len() {
        let (is_durable, block, receipts) = told.recv_timeout(Duration::from_secs(10)).expect("blocks keep coming");
        if is_durable {
            included += block.body.transactions.len();
            assert_eq!(notarized.pop_front(), Some((block, receipts)));
        } else {
            notarized.push_back((block, receipts));
        }
    }
}

#[test]
fn stopping_commits_what_was_executed_and_refuses_the_rest() {
    let (raw, sender) = transaction(1, 0);
    let running = start(&[sender]);
    submit(&running.node, &raw).expect("valid");
    running.blocks.recv_timeout(Duration::from_secs(10)).expect("a block");
    running.node.stop();
    assert_eq!(running.store.tip().height(), Height(1));
    assert_eq!(submit(&running.node, &raw), Err(AdmissionError::Closed));
    assert_eq!(running.node.wait(), None);
}

#[test]
fn a_failed_commit_stops_the_node_and_announces_nothing() {
    let (raw, sender) = transaction(1, 0);
    let running = start(&[sender]);
    running.store.fail();
    submit(&running.node, &raw).expect("valid");
    let failure = running.node.wait();
    assert_eq!(failure, Some(PipelineError::Commit("storage failed: told to fail".to_owned())));
    assert!(running.blocks.try_recv().is_err());
}

/// A client read the nonce of a block ago from a node that had just restarted, and was told that it was too low.
#[test]
fn what_the_log_makes_final_is_committed_before_anybody_is_served() {
    let (raw, sender) = transaction(1, 0);
    let running = start(&[sender]);
    running.store.fail();
    let hash = submit(&running.node, &raw).expect("valid");
    assert!(matches!(running.node.wait(), Some(PipelineError::Commit(_))));
    running.node.stop();
    let recovered = running.journal.recovered();
    let store = Arc::new(MemoryStore::new(Arc::new(chain(&[sender]))));
    let ports = Ports {
        store: store.clone(),
        journal: running.journal.clone(),
        executor: Arc::new(ToyExecutor::default()),
        network: running.network,
    };
    let node = Node::start(config(), ports.clone(), recovered.clone()).expect("it starts");
    assert_eq!(store.transaction_position(hash).expect("readable"), Some((Height(1), 0)));
    node.stop();
    let lost = Recovered { is_lost: true, ..recovered };
    let refusal = Node::start(config(), ports, lost).expect_err("it cannot know what it signed");
    assert!(matches!(&refusal, PipelineError::Start(reason) if reason.contains("signing history")), "{refusal}");
}

/// A signing history holds what was signed and no certificates, and raises the floor over all of it.
#[test]
fn a_lone_validator_goes_on_from_a_signing_history() {
    let (transactions, senders): (Vec<_>, Vec<_>) = (0..2).map(|index| transaction(index, 0)).unzip();
    let running = start(&senders);
    submit(&running.node, &transactions[0]).expect("valid");
    running.blocks.recv_timeout(Duration::from_secs(10)).expect("a block");
    running.node.stop();
    // A restart gives up what is left of its window.
    let ports = Ports {
        store: running.store.clone(),
        journal: running.journal.clone(),
        executor: Arc::new(ToyExecutor::default()),
        network: running.network,
    };
    Node::start(config(), ports.clone(), running.journal.recovered()).expect("it starts").stop();
    let mut history = running.journal.recovered();
    history.blocks.clear();
    history.entries.retain(|entry| matches!(entry, Entry::Vote(_) | Entry::Proposal { .. }));
    let (epoch, slot) = history.entries.iter().map(Entry::place).max().expect("something was signed");
    assert!(slot > running.store.tip().block.consensus.slot(), "votes to skip are above the chain");
    history.entries.push(Entry::Regained { epoch, slot });
    let node = Node::start(config(), ports, history).expect("it starts");
    submit(&node, &transactions[1]).expect("valid");
    let (sender, blocks) = bounded(10);
    node.events.listen(Box::new(move |event| {
        if let Event::Committed(block) = event {
            sender.send(block.height()).expect("the test listens");
        }
    }));
    let tip = running.store.tip().height();
    if tip < Height(2) {
        assert_eq!(blocks.recv_timeout(Duration::from_secs(10)), Ok(Height(2)));
    }
    node.stop();
}

#[test]
fn nothing_is_proposed_or_committed_that_the_log_does_not_hold() {
    let (raw, sender) = transaction(1, 0);
    let running = start(&[sender]);
    running.journal.fail();
    submit(&running.node, &raw).expect("valid");
    assert_eq!(running.node.wait(), Some(PipelineError::Log("storage failed: told to fail".to_owned())));
    running.node.stop();
    assert!(running.blocks.try_recv().is_err() && running.network.0.lock().is_empty());
    assert_eq!(running.store.tip().height(), Height(0));
}

#[test]
fn a_store_that_fails_in_the_background_stops_an_idle_node() {
    let running = start(&[]);
    running.store.fail();
    assert_eq!(running.node.wait(), Some(PipelineError::Commit("storage failed: told to fail".to_owned())));
}

#[test]
fn what_waits_for_too_long_leaves_though_the_chain_makes_no_block() {
    let (raw, sender) = transaction(1, 1);
    let pool = PoolLimits { lifetime: Duration::from_millis(1), ..PoolLimits::default() };
    let running = start_as(Config { pool, ..config() }, &[sender], Arc::new(ToyExecutor::default()));
    let (telling, told) = bounded(10);
    running.node.events.listen(Box::new(move |event| {
        if let Event::Dropped(hash, reason) = event {
            telling.send((*hash, *reason)).expect("the test listens");
        }
    }));
    let hash = submit(&running.node, &raw).expect("it waits for an earlier nonce");
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok((hash, DropReason::Expired)));
    assert_eq!(running.store.tip().height(), Height(0));
}

#[test]
fn what_waits_at_a_stop_is_admitted_again_with_the_usual_checks() {
    let transactions: Vec<_> = (0..300).map(|index| transaction(index, 1)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let first = start(&senders);
    let hashes: Vec<_> = transactions.iter().map(|(raw, _)| submit(&first.node, raw).expect("it waits")).collect();
    first.node.stop();
    let mut waiting = first.node.query.waiting();
    let kept: Vec<_> = waiting.iter().map(RawTransaction::hash).collect();
    assert_eq!(kept, hashes, "who came first is the first to come again");
    waiting.insert(150, RawTransaction::new(Bytes::from_static(b"no transaction")));
    let second = start(&senders[..200]);
    second.node.admit_again(waiting.clone());
    assert!(hashes[..200].iter().all(|hash| second.node.query.pooled(*hash).is_some()));
    assert_eq!(second.node.query.pool_status().queued, 200, "the others own nothing");
    second.node.stop();
    second.node.admit_again(waiting);
}

/// A dead stage once left a node that served and made no blocks, or one that ended as if asked to.
#[test]
fn a_stage_that_panics_stops_the_node_and_is_named() {
    let (raw, sender) = transaction_with_gas(1, 0, PANIC_GAS);
    let running = start(&[sender]);
    submit(&running.node, &raw).expect("valid");
    assert_eq!(running.node.wait(), Some(PipelineError::Panicked("execution".to_owned())));
    running.node.stop();
}

/// A sender whose transaction found no room in a block was forgotten until somebody sent another one.
#[test]
fn what_found_no_room_gets_the_next_block_without_being_asked_for() {
    let transactions: Vec<_> = (0..400).map(|index| transaction_with_gas(index, 0, 16_000_000)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let running = start(&senders);
    for (raw, _) in &transactions {
        // Faster than blocks are made, so that most wait when the last one arrives.
        let answer = Box::new(|result: Result<B256, AdmissionError>| assert_ne!(B256::ZERO, result.expect("valid")));
        running.node.admission.submit(RawTransaction::new(raw.clone()), answer);
    }
    let mut included = 0;
    while included < transactions.len() {
        let block = running.blocks.recv_timeout(Duration::from_secs(10)).expect("blocks keep coming");
        included += block.block.body.transactions.len();
    }
    assert_eq!(running.node.query.pool_status().pending, 0);
}

/// A node whose simulations do what `hint` does, in the middle of one; and a transaction that it has not seen.
fn simulating(hint: impl Fn(&Sender<()>, &HintLimits<'_>) + Send + Sync + 'static) -> (Running, Bytes) {
    let transactions: Vec<_> = (0..200).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let (begins, begun) = bounded(200);
    let running = start_with(&senders, Arc::new(ToyExecutor::hinting(move |limits| hint(&begins, limits))));
    // The first ones may find that no time is saved up yet.
    for (raw, _) in &transactions[1..] {
        submit(&running.node, raw).expect("valid");
        if begun.recv_timeout(Duration::from_millis(50)).is_ok() {
            return (running, transactions[0].0.clone());
        }
    }
    panic!("nothing was simulated");
}

/// Admits a transaction and waits for its block.
fn include(running: &Running, raw: &Bytes) {
    let hash = submit(&running.node, raw).expect("valid");
    let has = |block: &CommittedBlock| block.block.body.transactions.iter().any(|tx| tx.hash() == hash);
    while !has(&running.blocks.recv_timeout(Duration::from_secs(10)).expect("blocks keep coming")) {}
}

#[test]
fn admission_and_blocks_do_not_wait_for_a_simulation() {
    let (release, released) = bounded::<()>(0);
    let (running, raw) = simulating(move |begins, _| {
        begins.send(()).expect("there is room");
        // Until the test lets go.
        let _ = released.recv();
    });
    include(&running, &raw);
    drop(release);
    running.node.stop();
    assert_eq!(running.node.wait(), None);
}

#[test]
fn stopping_cuts_a_simulation() {
    let (running, _) = simulating(|begins, limits| {
        begins.send(()).expect("there is room");
        while !(limits.is_over)() {}
    });
    running.node.stop();
    assert_eq!(running.node.wait(), None);
}

#[test]
fn a_simulation_that_panics_ends_the_hints_and_not_the_node() {
    let (running, raw) = simulating(|begins, _| {
        begins.send(()).expect("there is room");
        panic!("told to panic");
    });
    include(&running, &raw);
    running.node.stop();
    assert_eq!(running.node.wait(), None);
}
