//! How fast a node that was away follows, against the time in which the blocks were made.
//!
//! A node is driven to its peak first. A chain is then recorded at a tenth of that, a block every 200 ms, and replayed
//! on a store that has its beginning, in turns: by execution, along access lists or without, block by block as it comes
//! from others (decoded, senders recovered, executed on two threads, roots and headers checked, committed on the
//! disk); and by what blocks changed alone, as a store does that was killed: it applies the lists with values that its
//! segments hold and compares roots.
#![expect(clippy::print_stdout, reason = "ratios are printed")]

#[path = "../../tools/src/allocator.rs"]
mod allocator;
mod lab;
mod node;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bench::{Shape, spread::spread};
use engine::{
    events::Event,
    genesis::ChainSpec,
    ports::{Executor as _, Store as _},
    types::{Block, BuiltBlock, ConsensusHeader, Height, NamedList, codec},
};
use lab::Lab;
use storage::Database;
use vm::{RevmExecutor, workers::Workers};

/// From one block to the next.
const SLOT_TIME: Duration = Duration::from_millis(200);

/// Transactions that the peak is taken of.
const PEAK_TRANSACTIONS: usize = 8_000;

/// Blocks of a round, and rounds of each kind.
const BLOCKS: u32 = 100;
const ROUNDS: usize = 5;

/// A block as it travels.
struct Sent {
    consensus: ConsensusHeader,
    body: Vec<u8>,
    list: Vec<u8>,
}

/// Transactions that a node makes durable in a second.
fn peak() -> u128 {
    let mut lab = Lab::new(Shape::Mixed, 100);
    let node = node::start(&lab, SLOT_TIME / 4, 1);
    let (block, blocks) = mpsc::sync_channel(1_000);
    node.events.listen(Box::new(move |event| {
        if let Event::Committed(committed) = event {
            let _ = block.try_send(committed.receipts.len());
        }
    }));
    let raws = node::raws(&mut lab, PEAK_TRANSACTIONS);
    let begun = Instant::now();
    node::admit(&node, &raws);
    let mut durable = 0;
    while durable < PEAK_TRANSACTIONS {
        durable += blocks.recv().expect("the node runs");
    }
    let took = begun.elapsed();
    node.stop();
    PEAK_TRANSACTIONS as u128 * 1_000 / took.as_millis()
}

/// Makes the next block of so many transactions.
fn record(lab: &mut Lab, transactions: usize) -> Sent {
    let signed = lab.signed(transactions);
    let built = lab.build(&lab.transactions(&signed));
    let block = Arc::clone(&built.0.block);
    let list = NamedList::new(Arc::clone(&built.0.access_list)).packed();
    lab.commit(built);
    Sent { consensus: block.consensus.clone(), body: codec::encode_body(&block), list }
}

/// A node that is behind.
struct Follower {
    store: Database,
    executor: RevmExecutor,
    folder: tempfile::TempDir,
}

impl Follower {
    /// One that has all blocks of a chain so far.
    fn new(lab: &Lab) -> Self {
        let chain = lab.executor.chain();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let store = open(&folder, chain);
        let workers = Workers::new(2).expect("two threads can be started");
        let executor = RevmExecutor::new(Arc::clone(chain)).with_workers(workers);
        let follower = Self { store, executor, folder };
        for height in (1..=lab.store.tip().height().0).map(Height) {
            let block = &lab.store.block(height).expect("a block").expect("it was committed").block;
            let (consensus, body) = (block.consensus.clone(), codec::encode_body(block));
            follower.replay(&Sent { consensus, body, list: Vec::new() }, false);
        }
        follower
    }

    /// Executes and commits what was sent.
    fn replay(&self, sent: &Sent, is_listed: bool) {
        let tip = self.store.tip();
        let view = self.store.view(tip.height()).expect("the tip's state is kept");
        let parent = &tip.block.header;
        let block = codec::decode_body(sent.consensus.clone(), &sent.body, &|_| None, 2);
        let block: Arc<Block> = Arc::new(block.expect("it was encoded"));
        let executed = if is_listed {
            let items = self.store.chain().list_items_max(&block.consensus);
            let list = NamedList::open(&sent.list, &block.consensus.access_list_hash, usize::MAX, items);
            self.executor.execute_listed(&*view, parent, &block, &list.expect("the header names it"))
        } else {
            self.executor.execute(&*view, parent, &block)
        };
        let built = BuiltBlock(executed.expect("a block that was built here is valid"));
        self.store.commit(&[lab::finalized(built)]).expect("the disk takes a block");
    }

    /// Kills the store and opens it again.
    fn restart(self) -> Self {
        let Self { store, executor, folder } = self;
        let (height, chain) = (store.tip().height(), Arc::clone(executor.chain()));
        storage::testing::crash(store);
        let store = open(&folder, &chain);
        assert_eq!(store.tip().height(), height, "nothing is lost");
        Self { store, executor, folder }
    }
}

/// A store that writes no checkpoint unless told to.
fn open(folder: &tempfile::TempDir, chain: &Arc<ChainSpec>) -> Database {
    let config = storage::Config::dev(folder.path());
    let checkpoint = storage::CheckpointPolicy { interval: Duration::from_secs(3_600), ..config.checkpoint };
    let config = storage::Config { segment_bytes: 256 << 20, checkpoint, ..config };
    Database::open(config, Arc::clone(chain)).expect("the folder can be opened")
}

fn main() {
    allocator::keep_memory();
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (blocks, rounds) = if is_bench { (BLOCKS, ROUNDS) } else { (2, 1) };
    let peak = if is_bench { peak() } else { 1_000 };
    let transactions = usize::try_from(peak / 10 * SLOT_TIME.as_millis() / 1_000).expect("a few");
    let mut chain = Lab::new(Shape::Mixed, 100);
    let mut follower = Follower::new(&chain);
    let mut ratios: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        for (is_listed, way) in [(false, 0), (true, 1)] {
            let sent: Vec<Sent> = (0..blocks).map(|_| record(&mut chain, transactions)).collect();
            follower.store.checkpoint().expect("a checkpoint");
            let begun = Instant::now();
            sent.iter().for_each(|sent| follower.replay(sent, is_listed));
            let between = Instant::now();
            follower = follower.restart();
            let spans = [(way, between - begun), (2, between.elapsed())];
            for (way, span) in spans {
                ratios[way].push((SLOT_TIME * blocks).div_duration_f64(span));
            }
        }
    }
    println!("peak {peak} tx/s; recorded at a tenth of it, {transactions} transactions a block");
    for (ratios, what) in ratios.into_iter().zip(["executed", "executed along access lists", "of changes alone"]) {
        let (median, least, most) = spread(ratios);
        println!("replay, {what}: {median:.1} times the chain's speed ({least:.1}..{most:.1})");
    }
}
