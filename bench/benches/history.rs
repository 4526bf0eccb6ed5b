//! Reading the past: logs of many blocks, old state, and what the index costs each block.
#![expect(missing_docs, reason = "criterion_group makes a public function")]

mod lab;

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Log, LogData, Signature as Ecdsa, U256, logs_bloom};
use bench::Shape;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    ports::Store,
    types::{
        Account, AccountChange, Block, BlockBody, ConsensusHeader, Envelope, ExecutedBlock, FinalizedBlock, Height,
        LogFilter, Receipt, SlotChange, StateChanges, Transaction,
    },
};
use lab::{Lab, finalized};
use storage::{Database, metrics, testing::world::chain_with};

/// Blocks of the long chain; each has three logs of one token.
const BLOCKS: u64 = 100_000;
/// Of them so many have one that is looked for.
const MATCHES: u64 = 10;
/// Blocks made durable by one sync.
const GROUP: u64 = 1_000;
/// Slots of the token, written in turn.
const SLOTS: u64 = 5_000;

const TOKEN: Address = Address::repeat_byte(0x70);
const EVENT: B256 = B256::repeat_byte(0xdd);
const RARE: B256 = B256::repeat_byte(0x4a);

fn open(folder: &tempfile::TempDir) -> Database {
    let config = storage::Config { segment_bytes: 16 << 20, ..storage::Config::dev(folder.path()) };
    Database::open(config, chain_with(BTreeMap::new())).expect("a new folder can be opened")
}

fn transaction(nonce: u64) -> Arc<Transaction> {
    let unsigned = TxEip1559 { chain_id: 31_337, nonce, to: TOKEN.into(), ..TxEip1559::default() };
    let envelope = Envelope::Eip1559(unsigned.into_signed(Ecdsa::new(U256::MAX, U256::MAX, false)));
    let sender = Address::repeat_byte(6);
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), sender).expect("it is encoded"))
}

fn logs(height: u64) -> Vec<Log> {
    let holder = |number: u64| B256::from(U256::from(number % 997));
    let mut logs: Vec<Log> = (0..3)
        .map(|index| {
            let topics = vec![EVENT, holder(height * 3 + index), holder(height * 7 + index)];
            Log { address: TOKEN, data: LogData::new_unchecked(topics, Bytes::from(vec![1; 32])) }
        })
        .collect();
    if height % (BLOCKS / MATCHES) == 7 {
        logs[1].data = LogData::new_unchecked(vec![EVENT, RARE], Bytes::new());
    }
    logs
}

/// What the token is after a height, and the slot that it wrote there.
fn changes(height: u64) -> StateChanges {
    let account = |height: u64| Account { nonce: 1, balance: U256::from(height), ..Account::default() };
    let written = |height: u64| U256::from(height / SLOTS + 1);
    let before = (height > 1).then(|| account(height - 1));
    let old = height.checked_sub(SLOTS).filter(|old| *old > 0).map_or(U256::ZERO, written);
    let slot = SlotChange { before: old, after: written(height) };
    let slots = [(U256::from(height % SLOTS), slot)].into_iter().filter(|(_, slot)| slot.before != slot.after);
    let change = AccountChange { before, after: Some(account(height)), wiped: false, slots: slots.collect() };
    StateChanges { accounts: [(TOKEN, change)].into_iter().collect(), ..StateChanges::default() }
}

/// The long chain.
fn long_chain(folder: &tempfile::TempDir) -> Database {
    let store = open(folder);
    while store.tip().height() < Height(BLOCKS) {
        let view = store.view(store.tip().height()).expect("the tip's state is kept");
        let (mut parent, mut trie, mut group) = (store.tip().block.header.clone(), None, Vec::new());
        for _ in 0..GROUP {
            let height = parent.number + 1;
            let (logs, changes) = (logs(height), changes(height));
            let (state_root, next) = view.root_after(trie.as_ref(), &changes).expect("the changes fit");
            let header = Header {
                parent_hash: parent.hash(),
                number: height,
                state_root,
                logs_bloom: logs_bloom(&logs),
                ..Header::default()
            };
            let header = header.seal_slow();
            let consensus =
                ConsensusHeader { slot: height, height, block_hash: header.seal(), ..ConsensusHeader::default() };
            let body = BlockBody { transactions: vec![transaction(height)], withdrawals: None };
            let receipt = Receipt {
                type_byte: 2,
                success: true,
                gas_used: 50_000,
                cumulative_gas_used: 50_000,
                contract: None,
                logs,
            };
            let finality = engine::testing::finality(&consensus);
            let executed = ExecutedBlock {
                block: Arc::new(Block { consensus, header: header.clone(), body }),
                receipts: Arc::new(vec![receipt]),
                changes: Arc::new(changes),
                trie: next.clone(),
                access_list: Arc::default(),
            };
            group.push(FinalizedBlock { executed, finality });
            (parent, trie) = (header, Some(next));
        }
        store.commit(&group).expect("the disk takes blocks");
    }
    store.checkpoint().expect("the disk takes a checkpoint");
    store
}

/// Heights of matching blocks, as a query finds them.
fn matching(store: &Database, filter: &LogFilter) -> usize {
    let (mut count, mut next) = (0, Some(Height::GENESIS));
    while let Some(from) = next {
        let found = store.blocks_with_logs(filter, from..=Height(BLOCKS)).expect("the index is readable");
        for height in found.heights {
            let block = store.block(height).expect("the block is readable").expect("the block is there");
            count += block.receipts[0].logs.iter().filter(|log| filter.matches(log)).count();
        }
        next = found.next;
    }
    count
}

fn reading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
    let store = long_chain(&folder);
    let mut group = criterion.benchmark_group("history::logs");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let only =
        |topic| LogFilter { topics: vec![Default::default(), [topic].into_iter().collect()], ..Default::default() };
    let rare = LogFilter { addresses: [TOKEN].into_iter().collect(), ..only(RARE) };
    assert_eq!(matching(&store, &rare), usize::try_from(MATCHES).expect("a few"));
    group.bench_function(format!("blocks={BLOCKS} matches={MATCHES} by=index"), |bencher| {
        bencher.iter(|| matching(&store, black_box(&rare)));
    });
    group.bench_function(format!("blocks={BLOCKS} matches={MATCHES} by=bloom"), |bencher| {
        let bloom = logs_bloom([&Log { address: TOKEN, data: LogData::new_unchecked(vec![RARE], Bytes::new()) }]);
        let header = |height: u64| store.header(Height(height)).expect("a header is readable").expect("it is there");
        bencher.iter(|| (1..=BLOCKS).filter(|height| header(*height).logs_bloom.contains(&bloom)).count());
    });
    group.finish();

    let mut group = criterion.benchmark_group("history::slot");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let mut seed = 1_u64;
    let mut random = |range: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % range
    };
    group.bench_function(format!("blocks={BLOCKS} changed=later"), |bencher| {
        bencher.iter(|| {
            let view = store.view(Height(random(BLOCKS - 2 * SLOTS))).expect("every height is kept");
            view.slot(TOKEN, U256::from(random(SLOTS))).expect("the slot can be told")
        });
    });
    group.bench_function(format!("blocks={BLOCKS} changed=never"), |bencher| {
        bencher.iter(|| {
            let view = store.view(Height(random(BLOCKS / 10))).expect("every height is kept");
            view.slot(TOKEN, U256::from(SLOTS + random(SLOTS))).expect("the slot can be told")
        });
    });
    group.finish();
    drop(store);
    opening(criterion, &folder);
}

/// A start that finds no index: every segment is read and its index written.
#[expect(clippy::print_stdout, reason = "the bytes belong to the time")]
fn opening(criterion: &mut Criterion, folder: &tempfile::TempDir) {
    let segments = || std::fs::read_dir(folder.path().join("segments")).expect("the folder is there").flatten();
    let files = |kind: &'static str| {
        segments().map(|file| file.path()).filter(move |path| path.extension().is_some_and(|found| found == kind))
    };
    let bytes = |kind| files(kind).map(|path| path.metadata().expect("the file is there").len()).sum::<u64>();
    println!("history::open bytes of segments {}, of their indices {}", bytes("seg"), bytes("idx") + bytes("chg"));
    let mut group = criterion.benchmark_group("history::open");
    group.sample_size(10).throughput(Throughput::Bytes(bytes("seg")));
    group.bench_function(format!("blocks={BLOCKS} indices=missing"), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                files("idx")
                    .chain(files("chg"))
                    .for_each(|path| std::fs::remove_file(path).expect("the file can be removed"));
                let start = Instant::now();
                let store = open(folder);
                spent += start.elapsed();
                drop(store);
            }
            spent
        });
    });
    group.finish();
}

/// What the index costs, beside the path that acknowledges a block.
#[expect(clippy::print_stdout, reason = "the bytes belong to the time")]
fn indexing(criterion: &mut Criterion) {
    const TRANSACTIONS: usize = 2_000;
    let mut group = criterion.benchmark_group("history::index");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(TRANSACTIONS as u64));
    let mut lab = Lab::new(Shape::Erc20, 5_000);
    let mut sent = 0;
    let counted = (metrics::INDEX_BYTES.value(), metrics::SEGMENT_BYTES.value());
    group.bench_function(format!("shape=erc20 txs={TRANSACTIONS}"), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = 0;
            for _ in 0..rounds {
                let signed = lab.signed(TRANSACTIONS);
                let transactions = lab.transactions(&signed);
                let block = finalized(lab.build(&transactions));
                let start = metrics::INDEX_BUSY.value();
                lab.store.commit(&[block]).expect("the disk takes a block");
                // Whoever asks finds the block in its index.
                let place = lab.store.transaction_position(transactions[7].hash()).expect("the index is readable");
                assert_eq!(place.map(|(_, index)| index), Some(7));
                spent += metrics::INDEX_BUSY.value() - start;
                sent += TRANSACTIONS as u64;
            }
            Duration::from_nanos(spent)
        });
    });
    group.finish();
    let (index, segment) = (metrics::INDEX_BYTES.value() - counted.0, metrics::SEGMENT_BYTES.value() - counted.1);
    println!("history::index {sent} transfers: bytes in segments {segment}, in indices of full ones {index}");
}

criterion_group!(benches, reading, indexing);
criterion_main!(benches);
