//! Pace: a block when one is due, never two builds at once, never too far ahead of the disk.

use std::{sync::Arc, time::Duration};

use alloy_consensus::{Header, Sealable};
use alloy_primitives::{Bytes, Signature, TxKind};

use super::{Idle, Input, Now, Ordering, Output, Settings, Tip};
use crate::types::{
    Block, BlockBody, BuiltBlock, ConsensusHeader, Envelope, ExecutedBlock, Height, StateChanges, Transaction,
    TrieHandle,
};

const SLOT: Duration = Duration::from_millis(200);

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), wall_ms: 1_000_000 + ms }
}

fn machine(slot_time: Duration, idle: Idle) -> Ordering {
    Ordering::new(Settings { chain_id: 7, slot_time, build_time: SLOT, idle, in_flight_max: 2 })
}

fn built(order: &super::BuildOrder, transactions: usize) -> Input {
    let tx = alloy_consensus::TxEip1559 { to: TxKind::Create, ..Default::default() };
    let envelope: Envelope = alloy_consensus::SignableTransaction::into_signed(tx, Signature::test_signature()).into();
    let encoded: Bytes = alloy_eips::eip2718::Encodable2718::encoded_2718(&envelope).into();
    let tx = Arc::new(Transaction::with_known_sender(encoded, Default::default()).expect("just encoded"));
    let header = Header { number: order.consensus.height, ..Header::default() }.seal_slow();
    let consensus = ConsensusHeader { block_hash: header.seal(), ..order.consensus.clone() };
    let block =
        Block { consensus, header, body: BlockBody { transactions: vec![tx; transactions], withdrawals: None } };
    let executed = ExecutedBlock {
        block: Arc::new(block),
        receipts: Arc::default(),
        changes: Arc::new(StateChanges::default()),
        trie: TrieHandle(Arc::new(())),
        access_list: Arc::default(),
    };
    Input::Built { block: Box::new(BuiltBlock(executed)), more: false }
}

/// The one build among the outputs.
fn build(outputs: Vec<Output>) -> super::BuildOrder {
    let mut orders = outputs.into_iter().filter_map(|output| match output {
        Output::Build(order) => Some(order),
        _ => None,
    });
    let order = orders.next().expect("a build");
    assert!(orders.next().is_none(), "two builds at once");
    order
}

fn builds(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Build(_))).count()
}

fn commits(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Commit(_))).count()
}

#[test]
fn an_idle_development_chain_builds_nothing_until_a_transaction_waits() {
    let mut ordering = machine(Duration::ZERO, Idle::Wait);
    let first = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    let outputs = ordering.handle(built(&first, 0), at(1));
    assert!(outputs.is_empty(), "an empty block is thrown away: {outputs:?}");
    let order = build(ordering.handle(Input::TransactionsWaiting, at(50_000)));
    assert_eq!(order.consensus.height, 1);
    let outputs = ordering.handle(built(&order, 1), at(50_001));
    assert_eq!((commits(&outputs), builds(&outputs)), (1, 0));
}

#[test]
fn a_transaction_that_comes_while_building_gets_the_next_block() {
    let mut ordering = machine(Duration::ZERO, Idle::Wait);
    let first = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    assert!(ordering.handle(Input::TransactionsWaiting, at(1)).is_empty());
    let next = build(ordering.handle(built(&first, 1), at(2)));
    assert_eq!(next.consensus.height, 2);
}

#[test]
fn blocks_chain_by_id_and_slots_rise() {
    let mut ordering = machine(Duration::ZERO, Idle::Wait);
    let first = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    ordering.handle(Input::TransactionsWaiting, at(1));
    let outputs = ordering.handle(built(&first, 1), at(2));
    let committed = outputs.iter().find_map(|output| match output {
        Output::Commit(block) => Some(block.finalization),
        _ => None,
    });
    let second = build(outputs);
    assert_eq!(Some(second.parent_id), committed.map(|finalization| finalization.id));
    assert_eq!((second.consensus.slot, second.consensus.parent_slot), (1, 0));
    assert!(second.consensus.timestamp_ms >= first.consensus.timestamp_ms);
}

#[test]
fn nothing_is_built_further_ahead_of_the_disk_than_allowed() {
    let mut ordering = machine(Duration::ZERO, Idle::Wait);
    let mut order = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    ordering.handle(Input::TransactionsWaiting, at(1));
    order = build(ordering.handle(built(&order, 1), at(2)));
    ordering.handle(Input::TransactionsWaiting, at(3));
    let outputs = ordering.handle(built(&order, 1), at(4));
    assert_eq!((commits(&outputs), builds(&outputs)), (1, 0), "two blocks wait for the disk");
    let next = build(ordering.handle(Input::Committed(Height(1)), at(5)));
    assert_eq!(next.consensus.height, 3);
}

#[test]
fn under_load_blocks_keep_the_slot_time() {
    let mut ordering = machine(SLOT, Idle::EmptyAfter(Duration::from_secs(1)));
    let first = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    ordering.handle(Input::TransactionsWaiting, at(1));
    let outputs = ordering.handle(built(&first, 1), at(10));
    assert!(matches!(outputs.last(), Some(Output::Wake(wake)) if *wake == Duration::from_millis(200)), "{outputs:?}");
    assert_eq!(builds(&ordering.handle(Input::Wake, at(199))), 0);
    assert_eq!(builds(&ordering.handle(Input::Wake, at(200))), 1);
}

#[test]
fn an_idle_chain_makes_one_empty_block_per_interval() {
    let mut ordering = machine(SLOT, Idle::EmptyAfter(Duration::from_secs(1)));
    let first = build(ordering.handle(Input::Start(Tip::default()), at(0)));
    let outputs = ordering.handle(built(&first, 0), at(1));
    assert_eq!(commits(&outputs), 0, "the interval is not over");
    let order = build(ordering.handle(Input::Wake, at(1_000)));
    let outputs = ordering.handle(built(&order, 0), at(1_001));
    assert_eq!(commits(&outputs), 1);
    assert!(matches!(outputs.last(), Some(Output::Wake(wake)) if *wake == Duration::from_millis(2_000)));
}

#[test]
fn block_time_rises_by_half_a_slot_even_if_the_clock_falls_back() {
    let mut ordering = machine(SLOT, Idle::Wait);
    let tip = Tip { height: Height(9), timestamp_ms: 5_000_000, ..Tip::default() };
    ordering.handle(Input::Start(tip), at(0));
    let order = build(ordering.handle(Input::TransactionsWaiting, at(200)));
    assert_eq!(order.consensus.timestamp_ms, 5_000_100);
}
