//! From a signature to one that survives a power cut: one append and one sync on the disk that holds `target`.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Signature as Ecdsa, U256};
use criterion::{Criterion, criterion_group, criterion_main};
use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::Journal,
    types::{
        Block, BlockBody, ConsensusHeader, Envelope, Epoch, Height, Signature, SignedHeader, Slot, Statement,
        Transaction, ValidatorIndex, Vote,
    },
};
use storage::{Database, testing::world::chain_with};

/// Transactions of a block of some 250 kB, each with a kilobyte of input.
const TRANSACTIONS: u64 = 225;

fn store(folder: &tempfile::TempDir) -> Database {
    let config = storage::Config { segment_bytes: 1 << 20, ..storage::Config::dev(folder.path()) };
    Database::open(config, chain_with(BTreeMap::new())).expect("a new folder can be opened")
}

fn vote(slot: u64) -> Entry {
    let statement = Statement::Notarize { slot: Slot(slot), id: B256::repeat_byte(7) };
    Entry::Vote(Vote { epoch: Epoch(0), statement, voter: ValidatorIndex(1), signature: Signature::default() })
}

fn transaction(nonce: u64) -> Arc<Transaction> {
    let unsigned = TxEip1559 {
        chain_id: 31_337,
        nonce,
        to: Address::repeat_byte(5).into(),
        input: vec![9; 1_000].into(),
        ..TxEip1559::default()
    };
    let envelope = Envelope::Eip1559(unsigned.into_signed(Ecdsa::new(U256::MAX, U256::MAX, false)));
    let sender = Address::repeat_byte(6);
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), sender).expect("it is encoded"))
}

fn block() -> Block {
    let transactions = (0..TRANSACTIONS).map(transaction).collect();
    let body = BlockBody { transactions, withdrawals: None };
    Block { consensus: ConsensusHeader::default(), header: Header::default().seal_slow(), body }
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log::append_sync");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let block = Arc::new(block());
    for (name, with_block) in [("votes=1 block_kb=0", false), ("votes=1 block_kb=250", true)] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let store = store(&folder);
        let journal: Arc<dyn Journal> = store.journal();
        let mut slot = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                slot += 1;
                let header = ConsensusHeader { slot, height: slot, ..ConsensusHeader::default() };
                let signed = SignedHeader { header, signature: Signature::default() };
                let kept = KeptBlock { signed, block: Some(Arc::clone(&block)) };
                let blocks = if with_block { std::slice::from_ref(&kept) } else { &[] };
                journal.append(&[vote(slot)], blocks).expect("the disk takes a vote");
                journal.sync().expect("the disk keeps it");
                let final_slot = slot.saturating_sub(4);
                journal.forget_below(Epoch(0), Slot(final_slot), Height(final_slot));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
