//! What a header says of its body is made by who builds the block, and checked by who executes it.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, FixedBytes};
use tracing::Span;

use super::{config, transaction_with_input};
use crate::{
    admission::{AdmissionError, PoolLimits},
    dissemination::{Plan, Plans},
    ordering::{
        chain,
        event::{BuildOrder, Now},
    },
    pipeline::{Config, Done, Ends, Execution, Job, Parts, Ports},
    ports::{Recovered, Store},
    testing::{MemoryJournal, MemoryStore, RecordingNetwork, ToyExecutor},
    types::{
        Block, ConsensusHeader, Epoch, PublicKey, RawTransaction, Signature, Transaction, Validator, ValidatorIndex,
        ValidatorSet, codec,
    },
};

/// A node whose stages are called one by one, with one transaction of so many bytes in its pool.
fn node(input_bytes: usize) -> (Parts, Arc<MemoryStore>) {
    node_with(input_bytes, PoolLimits::default())
}

fn node_with(input_bytes: usize, pool: PoolLimits) -> (Parts, Arc<MemoryStore>) {
    let (raw, sender) = transaction_with_input(1, 0, 2_000_000, vec![0; input_bytes].into());
    let store = Arc::new(MemoryStore::new(Arc::new(super::chain(&[sender]))));
    let ports = Ports {
        store: store.clone(),
        journal: Arc::new(MemoryJournal::default()),
        executor: Arc::new(ToyExecutor::default()),
        network: Arc::new(RecordingNetwork::default()),
    };
    let clock = Arc::new(|| Now { monotonic: std::time::Duration::ZERO, wall_ms: 1 });
    let config = Config { admission_workers: 1, pool, ..config() };
    let parts = Parts::new(config, ports, Recovered::default(), (clock, 1), Ends::roomy()).expect("it starts");
    parts.workers[0].admit(RawTransaction::new(raw)).expect("valid");
    (parts, store)
}

/// Who submits again what is included must not be told that the pool is full.
#[test]
fn a_full_pool_looks_at_what_it_knows_before_it_says_that_it_is_full() {
    let (parts, _store) = node_with(0, PoolLimits { places_max: 1, ..PoolLimits::default() });
    let (raw, _) = transaction_with_input(2, 0, 2_000_000, Bytes::new());
    let admit = || parts.workers[0].admit(RawTransaction::new(raw.clone()));
    assert_eq!(admit(), Err(AdmissionError::PoolFull));
    parts.stages.pool.remember(&Arc::new(Transaction::decode(raw.clone()).expect("signed")));
    assert!(matches!(admit(), Err(AdmissionError::InsufficientFunds { .. })), "its sender has nothing");
}

fn plans(validators: u8, epoch: u64) -> Arc<Plans> {
    let validator = |number| Validator {
        public_key: PublicKey(FixedBytes::repeat_byte(number)),
        stake: 1,
        operator: Default::default(),
    };
    Arc::new(Plans::new(Arc::new(
        ValidatorSet::new(Epoch(epoch), (0..validators).map(validator).collect()).expect("it"),
    )))
}

fn build(parts: &Parts, store: &MemoryStore, plans: &Arc<Plans>) -> Arc<Block> {
    let tip = store.tip();
    let header = ConsensusHeader {
        chain_id: 9,
        height: 1,
        parent_id: tip.block.consensus.id(),
        timestamp_ms: 1,
        ..ConsensusHeader::default()
    };
    let mix = chain::mix(tip.block.header.mix_hash, &header.seed_share);
    let order = Box::new(BuildOrder { header, mix, deadline: std::time::Duration::from_secs(1) });
    match parts.stages.work(&Job::Build { order, plans: plans.clone(), span: Span::none() }) {
        Ok(Done::Built { block, .. }) => block.0.block,
        _ => panic!("nothing was built"),
    }
}

fn execute(parts: &Parts, block: &Block, plans: &Arc<Plans>) -> Result<(), String> {
    let execution = Execution {
        id: block.consensus.id(),
        parent: block.consensus.parent_id,
        block: Arc::new(block.clone()),
        signature: Signature::default(),
        list: None,
        plans: plans.clone(),
    };
    match parts.stages.work(&Job::Execute(Box::new(execution))) {
        Ok(Done::Executed { verdict, .. }) => verdict,
        _ => panic!("nothing was executed"),
    }
}

#[test]
fn a_large_body_is_committed_to_and_every_other_word_about_it_refused() {
    let (parts, store) = node(80_000);
    let plans = plans(4, 0);
    let block = build(&parts, &store, &plans);
    let bytes = codec::encode_body(&block);
    let root = Plan::new(plans.set(), ValidatorIndex(0)).root(&bytes);
    let said = |block: &Block| (block.consensus.body_root, block.consensus.body_size_bytes);
    assert_eq!(said(&block), (root, bytes.len() as u64));
    assert_eq!(execute(&parts, &block, &plans), Ok(()));

    let changed = |change: &dyn Fn(&mut ConsensusHeader)| {
        let mut block = Block::clone(&block);
        change(&mut block.consensus);
        execute(&parts, &block, &plans).expect_err("it is not what the body comes to")
    };
    let zero = B256::ZERO;
    let words = format!("body_root and body_size_bytes are {zero} and 0, not {root} and {}", bytes.len());
    assert_eq!(changed(&|header| (header.body_root, header.body_size_bytes) = (zero, 0)), words);
    assert!(changed(&|header| header.body_size_bytes += 1).contains(&format!("and {}, not", bytes.len() + 1)));
    assert!(changed(&|header| header.proposer = 1).contains("body_root"), "another leader cuts it otherwise");
    assert_eq!(changed(&|header| header.proposer = 4), "validator 4 does not lead in epoch 0");
}

#[test]
fn a_small_body_and_any_that_nobody_else_needs_travel_whole() {
    for (input_bytes, validators) in [(50_000, 4), (80_000, 1)] {
        let (parts, store) = node(input_bytes);
        let plans = plans(validators, 0);
        let mut block = Block::clone(&build(&parts, &store, &plans));
        assert_eq!(block.body.transactions.len(), 1);
        assert_eq!((block.consensus.body_root, block.consensus.body_size_bytes), (B256::ZERO, 0));
        assert_eq!(execute(&parts, &block, &plans), Ok(()));
        block.consensus.body_size_bytes = codec::body_bytes(&block) as u64;
        assert!(execute(&parts, &block, &plans).is_err_and(|reason| reason.contains("not 0x00")));
    }
}

/// A build that was asked for in the last moment of an epoch is answered in the next one.
#[test]
fn a_block_of_an_epoch_that_ended_is_built_and_says_nothing() {
    let (parts, store) = node(80_000);
    let block = build(&parts, &store, &plans(2, 1));
    assert_eq!((block.consensus.body_root, block.consensus.body_size_bytes), (B256::ZERO, 0));
    assert_eq!(execute(&parts, &block, &plans(2, 1)), Err("validator 0 does not lead in epoch 0".to_owned()));
}
