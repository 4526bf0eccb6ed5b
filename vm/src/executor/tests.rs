//! Blocks through the door: what is built is accepted, what is tampered with is refused.

mod listed;
mod modes;

use alloy_consensus::{Header, Sealable, Transaction as _};
use alloy_eips::{eip2935, eip4788, eip4895::Withdrawal, eip7002, eip7685::EMPTY_REQUESTS_HASH};
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, TxKind, U256, bytes};
use engine::{
    ports::StateError,
    types::{Account, Height, StateChanges, TrieHandle},
};

use super::*;
use crate::testing::{
    ALICE, BOB, GAS_LIMIT, GWEI, LOOP, POOR, PROPOSER, Queue, REVERT, STORE, World, blob, delegate, legacy, send,
    transfer,
};

fn word(value: u64) -> Bytes {
    U256::from(value).to_be_bytes_vec().into()
}

/// A bit of everything.
fn mixed() -> Vec<Arc<Transaction>> {
    vec![
        transfer(ALICE, 0, BOB, U256::from(5)),
        send(ALICE, 1, STORE.into(), U256::ZERO, word(9), 100_000),
        send(BOB, 0, REVERT.into(), U256::ZERO, Bytes::new(), 100_000),
        // Init code that returns two bytes of code and writes a slot before.
        send(BOB, 1, TxKind::Create, U256::from(3), bytes!("60076001556133ff5f526002601ef3"), 200_000),
        legacy(ALICE, 2, 50 * GWEI),
        delegate(ALICE, 3),
        send(ALICE, 4, STORE.into(), U256::ZERO, word(0), 100_000),
    ]
}

fn build(world: &World, candidates: impl IntoIterator<Item = Arc<Transaction>>) -> ExecutedBlock {
    let executor = RevmExecutor::new(world.chain.clone());
    let mut queue = Queue::of(candidates);
    executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &BuildTime::UNLIMITED).unwrap().0
}

fn execute(world: &World, block: Block) -> Result<ExecutedBlock, ExecutionError> {
    RevmExecutor::new(world.chain.clone()).execute(&world.state, &world.parent, &Arc::new(block))
}

/// The block with its header changed and both headers sealed again.
fn resealed(block: &Block, change: impl FnOnce(&mut Header)) -> Block {
    let mut header = block.header.inner().clone();
    change(&mut header);
    let header = header.seal_slow();
    let mut consensus = block.consensus.clone();
    consensus.block_hash = header.seal();
    Block { consensus, header, body: block.body.clone() }
}

fn refusal(world: &World, block: Block) -> String {
    match execute(world, block) {
        Err(ExecutionError::Invalid(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_is_built_is_executed_to_the_same_bits_under_every_fork() {
    for fork in [Fork::Shanghai, Fork::Cancun, Fork::Prague, Fork::Osaka] {
        let world = World::new(fork);
        let built = build(&world, mixed().into_iter().filter(|tx| fork >= Fork::Prague || tx.type_byte() != 4));
        let executed = execute(&world, (*built.block).clone()).unwrap();
        assert_eq!(built.block, executed.block);
        assert_eq!(built.receipts, executed.receipts);
        assert_eq!(built.changes, executed.changes);
        assert_eq!(built.block.consensus.block_hash, built.block.hash());
        let failed: Vec<_> = built.receipts.iter().filter(|receipt| !receipt.success).collect();
        assert!(failed.len() == 1 && failed[0].logs.is_empty() && failed[0].contract.is_none());
        assert_eq!(built.receipts.len(), if fork >= Fork::Prague { 7 } else { 5 });
        assert_eq!(built.receipts.last().unwrap().cumulative_gas_used, built.block.header.gas_used);
    }
}

#[test]
fn receipts_root_is_that_of_the_consensus_form() {
    let built = build(&World::new(Fork::Osaka), mixed());
    let encoded: Vec<Vec<u8>> = built
        .receipts
        .iter()
        .map(|receipt| {
            let mut out = if receipt.type_byte == 0 { Vec::new() } else { vec![receipt.type_byte] };
            receipt.consensus().encode(&mut out);
            out
        })
        .collect();
    assert_eq!(built.block.header.receipts_root, alloy_consensus::proofs::ordered_trie_root_encoded(&encoded));
    assert_ne!(built.block.header.logs_bloom, Bloom::ZERO);
}

#[test]
fn changes_hold_what_differs_and_nothing_else() {
    let built = build(&World::new(Fork::Osaka), mixed());
    // Slot 0 of STORE went from 0 to 9 and back.
    assert!(!built.changes.accounts.contains_key(&STORE));
    assert!(!built.changes.accounts.contains_key(&REVERT));
    let created = BOB.create(1);
    let change = &built.changes.accounts[&created];
    assert_eq!((change.before, change.wiped), (None, false));
    let after = change.after.unwrap();
    assert_eq!((after.nonce, after.balance), (1, U256::from(3)));
    assert_eq!(built.changes.codes[&after.code_hash], bytes!("33ff"));
    assert_eq!(change.slots[&U256::from(1)].after, U256::from(7));
    assert!(built.changes.accounts[&PROPOSER].after.unwrap().balance > U256::ZERO);
}

#[test]
fn a_block_with_any_header_field_changed_is_refused_by_its_name() {
    let world = World::new(Fork::Osaka);
    let block = build(&world, mixed()).block;
    type Change = fn(&mut Header);
    let cases: [(&str, Change); 21] = [
        ("parent_hash", |header| header.parent_hash = B256::ZERO),
        ("ommers_hash", |header| header.ommers_hash = B256::ZERO),
        ("state_root", |header| header.state_root = B256::ZERO),
        ("transactions_root", |header| header.transactions_root = B256::ZERO),
        ("receipts_root", |header| header.receipts_root = B256::ZERO),
        ("logs_bloom", |header| header.logs_bloom = Bloom::ZERO),
        ("difficulty", |header| header.difficulty = U256::from(1)),
        ("height", |header| header.number += 1),
        ("gas_limit", |header| header.gas_limit += 1),
        ("gas_used", |header| header.gas_used += 1),
        ("gas_used", |header| header.gas_used = header.gas_limit + 1),
        ("timestamp", |header| header.timestamp += 1),
        ("extra_data", |header| header.extra_data = vec![0; 33].into()),
        ("nonce", |header| header.nonce = B64::repeat_byte(1)),
        ("base_fee_per_gas", |header| header.base_fee_per_gas = header.base_fee_per_gas.map(|fee| fee + 1)),
        ("withdrawals_root", |header| header.withdrawals_root = Some(B256::ZERO)),
        ("blob_gas_used", |header| header.blob_gas_used = Some(131_072)),
        ("excess_blob_gas", |header| header.excess_blob_gas = Some(1)),
        ("parent_beacon_block_root", |header| header.parent_beacon_block_root = Some(B256::ZERO)),
        ("requests_hash", |header| header.requests_hash = None),
        ("slot_number", |header| header.slot_number = Some(1)),
    ];
    for (field, change) in cases {
        let reason = refusal(&world, resealed(&block, change));
        assert!(reason.contains(field), "{field}: {reason}");
        assert!(reason.contains(" is ") && reason.contains("must be"), "{field}: {reason}");
    }
    // The producer's free choice changes what the block does, so the roots tell.
    let reason = refusal(&world, resealed(&block, |header| header.beneficiary = ALICE));
    assert!(reason.starts_with("state_root is 0x"), "{reason}");
}

#[test]
fn the_consensus_header_must_agree_with_the_block() {
    let world = World::new(Fork::Osaka);
    let block = build(&world, mixed()).block;
    type Change = fn(&mut Block);
    let cases: [(&str, Change); 5] = [
        ("chain_id", |block| block.consensus.chain_id = 8),
        ("height", |block| block.consensus.height = 2),
        ("block_hash", |block| block.consensus.block_hash = B256::ZERO),
        ("timestamp", |block| block.consensus.timestamp_ms += 1_000),
        ("parent_beacon_block_root", |block| block.consensus.parent_id = B256::ZERO),
    ];
    for (field, change) in cases {
        let mut changed = (*block).clone();
        change(&mut changed);
        let reason = refusal(&world, changed);
        assert!(reason.contains(field), "{field}: {reason}");
    }
}

#[test]
fn a_changed_body_is_refused() {
    let world = World::new(Fork::Osaka);
    let block = build(&world, mixed()).block;
    let mut without = (*block).clone();
    without.body.transactions.pop();
    assert!(refusal(&world, without).starts_with("transactions_root is"));
    let mut withdrawing = (*block).clone();
    withdrawing.body.withdrawals = Some(vec![Withdrawal::default()].into());
    assert_eq!(refusal(&world, withdrawing), "withdrawals is 1, must be 0");
    let mut before_shanghai = (*block).clone();
    before_shanghai.body.withdrawals = None;
    assert_eq!(refusal(&world, before_shanghai), "withdrawals is absent, must be present");
}

#[test]
fn a_blob_makes_a_sluice_block_invalid() {
    let world = World::with(Fork::Osaka, []);
    let mut block = (*build(&world, mixed()).block).clone();
    block.body.transactions = vec![blob(ALICE, 0)];
    let root = outcome::transactions_root(&block.body.transactions);
    let change = |header: &mut Header| {
        header.transactions_root = root;
        header.blob_gas_used = Some(131_072);
    };
    assert_eq!(refusal(&world, resealed(&block, change)), "blob_gas_used is 131072, must be at most 0");
}

#[test]
fn a_transaction_that_is_not_valid_makes_the_block_invalid() {
    let world = World::new(Fork::Osaka);
    let mut block = (*build(&world, mixed()).block).clone();
    block.body.transactions = vec![transfer(ALICE, 5, BOB, U256::ZERO)];
    let root = outcome::transactions_root(&block.body.transactions);
    let reason = refusal(&world, resealed(&block, |header| header.transactions_root = root));
    assert_eq!(reason, "transaction 0: nonce 5 too high, expected 0");
}

#[test]
fn a_timestamp_may_repeat_on_sluice_and_must_rise_on_ethereum() {
    let world = World::new(Fork::Osaka);
    let built = build(&world, []);
    assert_eq!(built.block.header.timestamp, world.parent.timestamp);
    let block = resealed(&built.block, |_| {});
    let ethereum = RevmExecutor::with_rules(world.chain.clone(), HeaderRules::ETHEREUM);
    let refused = ethereum.execute(&world.state, &world.parent, &Arc::new(block)).unwrap_err();
    assert_eq!(refused, ExecutionError::Invalid("timestamp is 1000, must be at least 1001".to_owned()));
}

#[test]
fn candidates_that_cannot_be_included_are_passed_over() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone());
    let good = [transfer(ALICE, 0, BOB, U256::from(1)), transfer(BOB, 0, ALICE, U256::from(1))];
    let mut queue = Queue::of([
        // Not allowed here.
        blob(PROPOSER, 0),
        // Cannot pay.
        transfer(POOR, 0, BOB, U256::from(1)),
        // Never offered: its sender is skipped.
        transfer(POOR, 1, BOB, U256::from(1)),
        good[0].clone(),
        // Included already; the sender's next one is still good.
        transfer(ALICE, 0, BOB, U256::from(1)),
        transfer(ALICE, 1, BOB, U256::from(2)),
        good[1].clone(),
        // Below the base fee.
        legacy(BOB, 1, 1),
        // A gap.
        transfer(ALICE, 7, BOB, U256::from(1)),
    ]);
    let built =
        executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &BuildTime::UNLIMITED).unwrap().0;
    let nonces: Vec<_> = built.block.body.transactions.iter().map(|tx| (tx.sender(), tx.envelope().nonce())).collect();
    assert_eq!(nonces, [(ALICE, 0), (ALICE, 1), (BOB, 0)]);
    assert_eq!(queue.skipped, [PROPOSER, POOR, BOB, ALICE].into_iter().collect());
    execute(&world, (*built.block).clone()).unwrap();
}

#[test]
fn a_build_ends_when_the_gas_is_used_up_or_its_time() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone());
    // 16 million gas each, reserved and not used up: the third does not fit beside two that used 21,000.
    let big = |sender, nonce| send(sender, nonce, STORE.into(), U256::ZERO, Bytes::new(), 16_000_000);
    let burner = |sender, nonce| send(sender, nonce, LOOP.into(), U256::ZERO, Bytes::new(), 16_000_000);
    let mut queue = Queue::of([burner(ALICE, 0), big(BOB, 0), transfer(ALICE, 1, BOB, U256::ZERO)]);
    let built =
        executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &BuildTime::UNLIMITED).unwrap().0;
    assert_eq!(built.block.body.transactions.len(), 2);
    assert_eq!(built.block.header.gas_used, 16_021_000);
    assert!(queue.skipped.contains(&BOB));

    let mut queue = Queue::of(mixed());
    let over = BuildTime { begin_max: std::time::Duration::ZERO, ..BuildTime::UNLIMITED };
    let built = executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &over).unwrap().0;
    assert!(built.block.body.transactions.is_empty());
    assert_eq!(queue.waiting.len(), mixed().len());
}

/// Several threads take candidates out ahead of their turn; whoever offers them must not think that none is left.
#[test]
fn a_build_of_several_threads_that_ends_early_gives_its_candidates_back() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(2).unwrap()).with_threads_from(0);
    for (begin_max, taken) in [(std::time::Duration::ZERO, 0), (std::time::Duration::MAX, 1)] {
        let mut queue = Queue::of([transfer(ALICE, 0, BOB, U256::from(1))]);
        let time = BuildTime { begin_max, ..BuildTime::UNLIMITED };
        let built = executor.build(&world.state, &world.parent, &world.settings(), &mut queue, &time).unwrap().0;
        assert_eq!(built.block.body.transactions.len(), taken);
        assert_eq!((queue.given_back, queue.waiting.len()), (taken == 0, 0));
    }
}

#[test]
fn a_block_stays_within_the_size_of_osaka() {
    let world = World::new(Fork::Osaka);
    let zeros: Bytes = vec![0; 120_000].into();
    let mut settings = world.settings();
    settings.gas_limit = 1_000_000_000;
    let mut chain = (*world.chain).clone();
    chain.genesis_header.gas_limit = settings.gas_limit;
    let roomy = RevmExecutor::new(Arc::new(chain));
    let sends =
        |count: u64| (0..count).map(|nonce| send(ALICE, nonce, BOB.into(), U256::ZERO, zeros.clone(), 1_300_000));
    let mut queue = Queue::of(sends(80));
    let built = roomy.build(&world.state, &world.parent, &settings, &mut queue, &BuildTime::UNLIMITED).unwrap().0;
    assert!(built.block.rlp_size_bytes() <= limits::BLOCK_RLP_BYTES_MAX_OSAKA);
    assert_eq!(built.block.body.transactions.len(), 69);
}

#[test]
fn system_contracts_are_called_at_the_edges_of_a_block() {
    let world = World::new(Fork::Osaka);
    let built = build(&world, []);
    let slot = |address, key: u64| built.changes.accounts[&address].slots[&U256::from(key)].after;
    assert_eq!(slot(eip2935::HISTORY_STORAGE_ADDRESS, 0), U256::from_be_bytes(world.parent.seal().0));
    let timestamp = built.block.header.timestamp;
    assert_eq!(slot(eip4788::BEACON_ROOTS_ADDRESS, timestamp % 8_191), U256::from(timestamp));
    let root = U256::from_be_bytes(world.settings().parent_id.0);
    assert_eq!(slot(eip4788::BEACON_ROOTS_ADDRESS, timestamp % 8_191 + 8_191), root);
    assert_eq!(built.block.header.requests_hash, Some(EMPTY_REQUESTS_HASH));
}

#[test]
fn requests_reach_the_header() {
    let world = World::new(Fork::Osaka);
    // 48 bytes of key and 8 of amount; the fee is 1 wei while the queue is empty.
    let request = send(
        ALICE,
        0,
        eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS.into(),
        U256::from(1),
        vec![0x11; 56].into(),
        200_000,
    );
    let built = build(&world, [request]);
    assert!(built.receipts[0].success);
    let mut expected = vec![1];
    expected.extend_from_slice(ALICE.as_slice());
    expected.extend_from_slice(&[0x11; 48]);
    expected.extend_from_slice(&[0x11; 8]);
    let mut requests = alloy_eips::eip7685::Requests::default();
    requests.push_request(expected.into());
    assert_eq!(built.block.header.requests_hash, Some(requests.requests_hash()));
    execute(&world, (*built.block).clone()).unwrap();
}

#[test]
fn a_missing_request_contract_makes_every_block_invalid() {
    let mut world = World::new(Fork::Osaka);
    world.state.accounts.remove(&eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS);
    let executor = RevmExecutor::new(world.chain.clone());
    let refused = executor
        .build(&world.state, &world.parent, &world.settings(), &mut Queue::default(), &BuildTime::UNLIMITED)
        .unwrap_err();
    assert!(
        matches!(refused, ExecutionError::Invalid(reason) if reason.contains("EIP-7002") && reason.contains("no code"))
    );
}

#[test]
fn settings_that_make_an_invalid_block_are_refused() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone());
    let mut settings = world.settings();
    settings.gas_limit = GAS_LIMIT + 1;
    let refused = executor
        .build(&world.state, &world.parent, &settings, &mut Queue::default(), &BuildTime::UNLIMITED)
        .unwrap_err();
    let text = format!("gas_limit is {}, must be {GAS_LIMIT}", GAS_LIMIT + 1);
    assert_eq!(refused, ExecutionError::Invalid(text));
}

#[test]
fn a_view_that_cannot_be_read_is_not_an_invalid_block() {
    struct Broken;
    impl StateView for Broken {
        fn account(&self, _: Address) -> Result<Option<Account>, StateError> {
            Err(StateError::Unreadable("disk".to_owned()))
        }
        fn slot(&self, _: Address, _: U256) -> Result<U256, StateError> {
            Err(StateError::Unreadable("disk".to_owned()))
        }
        fn code(&self, _: B256) -> Result<Bytes, StateError> {
            Err(StateError::Unreadable("disk".to_owned()))
        }
        fn block_hash(&self, _: Height) -> Result<Option<B256>, StateError> {
            Err(StateError::Unreadable("disk".to_owned()))
        }
        fn root_after(&self, _: Option<&TrieHandle>, _: &StateChanges) -> Result<(B256, TrieHandle), StateError> {
            Err(StateError::Unreadable("disk".to_owned()))
        }
    }
    let world = World::new(Fork::Osaka);
    let block = build(&world, mixed()).block;
    let executor = RevmExecutor::new(world.chain.clone());
    assert!(matches!(executor.execute(&Broken, &world.parent, &block), Err(ExecutionError::State(_))));
}
