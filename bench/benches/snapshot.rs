//! A snapshot of a large state: exported, verified and imported, against copying its bytes in the same run.
//!
//! ```text
//! cargo bench -p bench --bench snapshot -- [--accounts N] [--chunk-bytes N]
//! ```
//!
//! The state has N accounts and a contract with a slot for each, as a token has, on the disk that holds `target`. Each
//! step runs once; files are written and synced, and read back from the page cache. Without `--bench`, which cargo
//! passes, there are 2,000 accounts.
#![expect(clippy::print_stdout, reason = "a bench tells what it measured")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{Header, Sealable as _};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use engine::{
    genesis::{ChainSpec, GenesisAccount},
    ports::Store as _,
    types::{Block, BlockBody, ConsensusHeader, ExecutedBlock, FinalizedBlock, Height, StateChanges},
};
use storage::{
    Config, Database,
    portable::{self, Foundation, Source},
    testing::world::chain_with,
};

/// Accounts of a run that measures.
const ACCOUNTS: u64 = 1_000_000;
/// Accounts of one that only shows that the bench runs.
const ACCOUNTS_IN_TEST: u64 = 2_000;

fn options() -> (u64, usize) {
    let mut arguments = std::env::args().skip(1);
    let (mut accounts, mut chunk_bytes) = (ACCOUNTS_IN_TEST, 12 << 20);
    let number =
        |text: Option<String>| text.and_then(|text| text.parse().ok()).expect("the flag is followed by a number");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" if accounts == ACCOUNTS_IN_TEST => accounts = ACCOUNTS,
            "--accounts" => accounts = number(arguments.next()),
            "--chunk-bytes" => chunk_bytes = usize::try_from(number(arguments.next())).expect("it fits"),
            _ => {}
        }
    }
    (accounts, chunk_bytes)
}

/// A chain with so many accounts.
fn chain(accounts: u64) -> Arc<ChainSpec> {
    let number = |index: u64| U256::from_be_bytes(keccak256(index.to_be_bytes()).0);
    let account = |index: u64| {
        let balance = number(index) >> 180;
        let account = GenesisAccount { nonce: index % 7, balance, ..GenesisAccount::default() };
        (Address::from_word(keccak256(index.to_be_bytes())), account)
    };
    let mut alloc: BTreeMap<Address, GenesisAccount> = (0..accounts).map(account).collect();
    let storage = (0..accounts).map(|index| (number(index), (number(index) >> 180) | U256::ONE)).collect();
    let token = GenesisAccount { nonce: 1, code: Bytes::from(vec![0xfe; 8_000]), storage, balance: U256::ZERO };
    alloc.insert(Address::repeat_byte(0x70), token);
    chain_with(alloc)
}

/// An empty block on block 0.
fn block(store: &Database) -> FinalizedBlock {
    let (tip, changes) = (store.tip(), StateChanges::default());
    let (state_root, trie) =
        store.view(tip.height()).map(|view| view.root_after(None, &changes)).expect("a view").expect("a root");
    let header =
        Header { parent_hash: tip.hash(), number: 1, state_root, timestamp: 2, ..tip.block.header.inner().clone() };
    let header = header.seal_slow();
    let consensus =
        ConsensusHeader { chain_id: 1_337, height: 1, block_hash: header.seal(), ..ConsensusHeader::default() };
    let finality = engine::testing::finality(&consensus);
    let block = Arc::new(Block { consensus, header, body: BlockBody::default() });
    let (receipts, access_list) = (Arc::default(), Arc::default());
    FinalizedBlock {
        executed: ExecutedBlock { block, receipts, changes: Arc::new(changes), trie, access_list },
        finality,
    }
}

fn timed<T>(what: &str, bytes: u64, leaves: u64, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    let took = start.elapsed();
    let per = |amount: u64| amount as f64 / took.as_secs_f64() / 1e6;
    println!("{what:24} {:8.3} s {:9.1} MB/s {:8.3} M leaves/s", took.as_secs_f64(), per(bytes), per(leaves));
    (done, took)
}

/// Copies all files of a folder and syncs each.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a name");
        let to = to.join(entry.file_name());
        std::fs::copy(entry.path(), &to).expect("it is copied");
        std::fs::File::open(to).and_then(|file| file.sync_all()).expect("it is synced");
    }
}

fn main() {
    let (accounts, chunk_bytes) = options();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = tempfile::Builder::new().prefix("snapshot").tempdir_in(target).expect("a folder");
    let place = |name: &str| home.path().join(name);
    let chain = chain(accounts);
    let config = |name: &str| Config { scrub_interval: None, ..Config::dev(place(name)) };
    let (store, _) =
        timed("genesis", 0, accounts * 2, || Database::open(config("a"), chain.clone()).expect("it opens"));
    let committed = store.commit(&[block(&store)]).expect("it is committed");
    store.checkpoint().expect("a checkpoint");
    let start = Instant::now();
    let finality = vec![(Height(1), serde_json::json!({}))];
    let manifest =
        portable::export(&store, finality, &place("snapshot"), chunk_bytes, &|_| ()).expect("it is exported");
    let took = start.elapsed();
    let bytes: u64 = manifest.chunks.iter().map(|chunk| chunk.bytes).sum();
    let leaves: u64 = manifest.chunks.iter().map(|chunk| chunk.part.rows + chunk.part.slots).sum();
    println!("{accounts} accounts, {leaves} leaves, {} chunks, {:.1} MB", manifest.chunks.len(), bytes as f64 / 1e6);
    drop(store);
    let (_, copied) = timed("copying the files", bytes, leaves, || copy(&place("snapshot"), &place("copy")));
    let times = |time: Duration| time.as_secs_f64() / copied.as_secs_f64();
    println!("{:24} {:8.3} s, {:.1} times as long as copying", "export", took.as_secs_f64(), times(took));
    let source = Source::open(&place("snapshot")).expect("a snapshot");
    for threads in [1, 2] {
        let what = format!("verify, {threads} threads");
        let (failures, took) = timed(&what, bytes, leaves, || portable::verify(&source, threads, &|_| ()));
        assert_eq!(failures, Vec::new());
        println!("{:24} {:.1} times as long as copying", "", times(took));
    }
    let file = source.blocks().expect("blocks");
    let blocks = vec![(*committed[0]).clone()];
    let foundation = Foundation { blocks, headers: file.headers, epochs: Vec::new() };
    let import = || portable::import(&config("b"), &chain, &source, &foundation, 2, &|_| ()).expect("it is imported");
    let (_, took) = timed("import", bytes, leaves, import);
    println!("{:24} {:.1} times as long as copying", "", times(took));
    let store = Database::open(config("b"), chain.clone()).expect("it opens");
    assert_eq!((store.tip().hash(), store.tip().height()), (committed[0].hash(), Height(1)));
    assert_ne!(store.tip().block.header.state_root, B256::ZERO);
}
