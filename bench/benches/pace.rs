//! Blocks built out of nothing but worst cases, by a leader's clock, and what they take a replica.
//!
//! ```text
//! cargo bench -p bench --bench pace -- [--blocks N] [--threads N] [CASE..|mix|ambush]
//! ```
//!
//! A chain on a disk with slots of 200 ms. Each block is offered more than it can take, in transactions of
//! the largest gas limit and, every other block, of the largest that may begin until the end of the slot. In an
//! ambush a slot of logs, whose receipts take long afterwards, ends with the slowest arithmetic. Each block is
//! built with a node's times, executed by the plain loop with roots and header checks, and committed. Without
//! `--bench`, which cargo passes, one block of small transactions is built of each.

mod calls;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::Header;
use alloy_primitives::{Address, Bytes, U256, keccak256};
use bench::{
    WorstCase,
    worst::{Account, TRANSACTION_GAS_MAX, WorstCall},
};
use calls::CHAIN_ID;
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    limits,
    ports::{BuildSettings, BuildTime, Candidates, Executor, Store},
    testing::MapState,
    types::{BuiltBlock, ConsensusHeader, FinalizedBlock, Transaction},
};
use storage::Database;
use vm::{RevmExecutor, workers::Workers};

const SLOT_TIME: Duration = Duration::from_millis(200);

/// Gas limit of a block, the node's own.
const GAS_LIMIT: u64 = 300_000_000;

/// Gas of a transaction that may begin until the end of a slot.
const LATE_GAS: u64 = 6_900_000;

/// Gas of a transaction before an ambush.
const EARLY_GAS: u64 = 6_200_000;

/// When an ambush comes: as late as a transaction may begin.
const AMBUSH_AT: Duration = Duration::from_millis(190);

/// Gas of a transaction that only shows that the bench runs.
const GAS_IN_TEST: u64 = 2_000_000;

/// Senders, and transactions that are offered to a block: more than its gas is enough for.
const SENDERS: usize = 48;

/// Blocks of each case.
const BLOCKS: usize = 4;

struct Options {
    blocks: usize,
    threads: usize,
    gas: [u64; 2],
    /// Cases that are fed one by one.
    cases: Vec<WorstCase>,
    /// Whether all of them are then fed together.
    mix: bool,
    /// Whether the slowest then lies in wait for the end of a slot.
    ambush: bool,
}

impl Options {
    fn read() -> Self {
        let mut arguments = std::env::args().skip(1);
        let mut options =
            Self { blocks: 1, threads: 1, gas: [GAS_IN_TEST; 2], cases: Vec::new(), mix: false, ambush: false };
        let (mut blocks, mut named) = (None, false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => (options.blocks, options.gas) = (BLOCKS, [TRANSACTION_GAS_MAX, LATE_GAS]),
                "--blocks" => blocks = Some(number(arguments.next())),
                "--threads" => options.threads = number(arguments.next()),
                "mix" => (options.mix, named) = (true, true),
                "ambush" => (options.ambush, named) = (true, true),
                name => {
                    options.cases.extend(WorstCase::ALL.into_iter().filter(|case| case.name() == name));
                    named = true;
                }
            }
        }
        if !named {
            (options.cases, options.mix, options.ambush) = (WorstCase::ALL.to_vec(), true, true);
        }
        options.blocks = blocks.unwrap_or(options.blocks);
        options
    }
}

fn number(argument: Option<String>) -> usize {
    argument.and_then(|text| text.parse().ok()).expect("the flag is followed by a number")
}

fn sender(nth: usize) -> Address {
    Address::from_word(U256::from(0x5e4d_0000 + nth).into())
}

/// What one block is offered: one transaction of every sender.
struct Offer {
    waiting: VecDeque<Arc<Transaction>>,
    /// Comes next once it is late.
    ambush: Option<Arc<Transaction>>,
    start: Instant,
    thrown_out: usize,
}

impl Candidates for Offer {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        if self.start.elapsed() >= AMBUSH_AT || self.waiting.is_empty() {
            return self.ambush.take().or_else(|| self.waiting.pop_front());
        }
        self.waiting.pop_front()
    }

    fn skip_sender(&mut self, _: Address) {}

    fn throw_out(&mut self, _: &Transaction) {
        self.thrown_out += 1;
    }
}

/// A chain, its leader and a replica.
struct Lab {
    leader: RevmExecutor,
    replica: RevmExecutor,
    store: Database,
    nonces: Vec<u64>,
    /// Transactions offered so far, by case.
    sent: BTreeMap<WorstCase, u64>,
    _folder: tempfile::TempDir,
}

/// What the blocks of a case came to.
#[derive(Default)]
struct Figures {
    blocks: usize,
    transactions: usize,
    gas: u64,
    build: Duration,
    replica: Duration,
    thrown_out: usize,
}

impl Lab {
    fn new(cases: &[WorstCase], threads: usize) -> Self {
        let chain = Arc::new(chain(cases));
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let config = storage::Config { segment_bytes: 16 << 20, ..storage::Config::dev(folder.path()) };
        let store = Database::open(config, chain.clone()).expect("a new folder can be opened");
        let workers = Workers::new(threads).expect("threads start");
        let leader = RevmExecutor::new(chain.clone()).with_workers(workers);
        let replica = RevmExecutor::new(chain);
        Self { leader, replica, store, nonces: vec![0; SENDERS], sent: BTreeMap::new(), _folder: folder }
    }

    fn offer(&mut self, cases: &[WorstCase], gas: u64) -> Offer {
        let next = |(nth, case): (usize, &WorstCase)| {
            let sent = self.sent.entry(*case).or_default();
            let call = case.calls_after(gas, *sent).swap_remove(0);
            *sent += 1;
            transaction(nth, self.nonces[nth], &call)
        };
        let waiting = cases.iter().cycle().take(SENDERS).enumerate().map(next).collect();
        Offer { waiting, ambush: None, start: Instant::now(), thrown_out: 0 }
    }

    /// Logs, and one transaction that lies in wait.
    fn ambush(&mut self) -> Offer {
        let mut offer = self.offer(&[WorstCase::Log], EARLY_GAS);
        let call = WorstCase::KzgPoint.calls(LATE_GAS).swap_remove(0);
        offer.waiting.pop_back();
        offer.ambush = Some(transaction(SENDERS - 1, self.nonces[SENDERS - 1], &call));
        offer
    }

    /// Builds, executes and commits a block.
    fn block(&mut self, mut offer: Offer, figures: &mut Figures) {
        let tip = self.store.tip();
        let view = self.store.view(tip.height()).expect("the tip's state is kept");
        let settings = self.settings();
        let start = Instant::now();
        offer.start = start;
        let elapsed = || start.elapsed();
        let replica_max = limits::replica_time(SLOT_TIME);
        let time = BuildTime { elapsed: &elapsed, begin_max: SLOT_TIME, replica_max };
        let parent = &tip.block.header;
        let BuiltBlock(built) =
            self.leader.build(&*view, parent, &settings, &mut offer, &time).expect("worst cases are valid");
        figures.build = figures.build.max(start.elapsed());
        let start = Instant::now();
        let executed = self.replica.execute(&*view, parent, &built.block).expect("the replica agrees");
        figures.replica = figures.replica.max(start.elapsed());
        assert!(executed.receipts.iter().all(|receipt| receipt.success), "no case fails");
        figures.blocks += 1;
        figures.thrown_out += offer.thrown_out;
        figures.transactions += built.block.body.transactions.len();
        figures.gas += built.block.header.gas_used;
        for transaction in &built.block.body.transactions {
            let nth = (0..SENDERS).find(|nth| sender(*nth) == transaction.sender()).expect("one of ours");
            self.nonces[nth] += 1;
        }
        let consensus = &built.block.consensus;
        let finality = engine::testing::finality(consensus);
        self.store.commit(&[FinalizedBlock { executed: built, finality }]).expect("the disk takes a block");
    }

    fn settings(&self) -> BuildSettings {
        let tip = self.store.tip();
        let parent = &tip.block.consensus;
        let consensus = ConsensusHeader {
            chain_id: CHAIN_ID,
            slot: tip.height().0,
            height: tip.height().next().0,
            parent_slot: parent.slot,
            parent_id: parent.id(),
            timestamp_ms: tip.block.header.timestamp * 1_000 + 1_000,
            ..ConsensusHeader::default()
        };
        BuildSettings {
            parent_id: consensus.parent_id,
            consensus,
            beneficiary: Address::with_last_byte(0xfe),
            gas_limit: GAS_LIMIT,
            extra_data: Bytes::new(),
            mix_hash: keccak256(tip.block.header.mix_hash),
        }
    }
}

fn chain(cases: &[WorstCase]) -> ChainSpec {
    let mut alloc = engine::testing::system_contracts();
    let rich = || GenesisAccount { balance: U256::MAX >> 8, ..GenesisAccount::default() };
    alloc.extend((0..SENDERS).map(|nth| (sender(nth), rich())));
    for Account { address, code, storage } in cases.iter().flat_map(|case| case.accounts()) {
        let storage = storage.into_iter().collect();
        alloc.insert(address, GenesisAccount { nonce: 1, balance: U256::ZERO, code, storage });
    }
    let genesis_header = Header {
        gas_limit: GAS_LIMIT,
        timestamp: 1_000,
        base_fee_per_gas: Some(1_000_000_000),
        state_root: MapState::genesis(&alloc).root(),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        ..Header::default()
    };
    ChainSpec {
        chain_id: CHAIN_ID,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header,
        alloc,
    }
}

/// Nothing here recovers a sender, so any signature will do.
/// Pays whatever the base fee has risen to.
fn transaction(nth: usize, nonce: u64, call: &WorstCall) -> Arc<Transaction> {
    calls::transaction(sender(nth), nonce, 1_000_000_000_000_000, call)
}

fn row(name: &str, figures: &Figures) -> String {
    let blocks = figures.blocks.max(1) as f64;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    format!(
        "{name:<14}{:>7}{:>10.1}{:>12.1}{:>10.0}{:>12.0}{:>12}",
        figures.blocks,
        figures.transactions as f64 / blocks,
        figures.gas as f64 / 1e6 / blocks,
        milliseconds(figures.build),
        milliseconds(figures.replica),
        figures.thrown_out,
    )
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn main() {
    let options = Options::read();
    let mut feeds: Vec<(&str, Vec<WorstCase>)> = options.cases.iter().map(|case| (case.name(), vec![*case])).collect();
    if options.mix {
        feeds.push(("mix", WorstCase::ALL.to_vec()));
    }
    if options.ambush {
        feeds.push(("ambush", Vec::new()));
    }
    let mut lab = Lab::new(&WorstCase::ALL, options.threads);
    println!("{} threads build; times are the longest", options.threads);
    println!(
        "{:<14}{:>7}{:>10}{:>12}{:>10}{:>12}{:>12}",
        "case", "blocks", "txs/block", "Mgas/block", "build ms", "replica ms", "thrown out"
    );
    let mut longest = Duration::ZERO;
    for (name, cases) in feeds {
        let mut figures = Figures::default();
        for nth in 0..options.blocks {
            let offer = if name == "ambush" { lab.ambush() } else { lab.offer(&cases, options.gas[nth % 2]) };
            lab.block(offer, &mut figures);
        }
        longest = longest.max(figures.replica);
        println!("{}", row(name, &figures));
    }
    let verdict = if longest <= 2 * SLOT_TIME { "held" } else { "NOT held" };
    println!(
        "longest replica time {} ms, two slots are {} ms: {verdict}",
        longest.as_millis(),
        2 * SLOT_TIME.as_millis()
    );
}
