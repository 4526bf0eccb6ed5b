//! The three ways to execute a block, side by side: ratios to the plain loop, on a state in memory.
//!
//! ```text
//! cargo bench -p bench --bench modes -- [--rounds N] [NAME..]
//! ```
//!
//! The plain loop is the baseline: one EVM for the block, state in hash maps, no list made. Rounds are
//! interleaved, and a ratio compares neighbours; its median and spread are printed, beside the ratio that two
//! cores could reach (from the times of single transactions and from who reads what whom wrote). Below stand what
//! making the access list adds to the time of the same mode without it, and how many times as fast as the interpreter
//! transfers are, both round by round as well. Without `--bench`, which cargo passes, small blocks are executed once
//! in every mode and compared.

#[path = "../../tools/src/allocator.rs"]
mod allocator;
mod frozen;
mod lab;

use std::time::{Duration, Instant};

use bench::{Contention, ceiling::makespan, spread::spread};
use engine::{
    ports::Store as _,
    types::{AccessList, Block},
};
use frozen::{Frozen, Slow};
use lab::Lab;
use rustix::time::{ClockId, clock_gettime};
use vm::{
    RevmExecutor,
    code::CodeCache,
    metrics,
    sequential::{Finished, Run},
    workers::Workers,
};

const ROUNDS: usize = 9;

/// What a read takes on the disk of a commodity server.
const COLD_READ: Duration = Duration::from_micros(100);

/// What is executed, with the transactions of a block.
const WORKLOADS: [(Contention, usize); 15] = [
    (Contention::Pools(1), 2_048),
    (Contention::Pools(2), 2_048),
    (Contention::Pools(4), 2_048),
    (Contention::Pools(16), 2_048),
    (Contention::Pools(64), 2_048),
    (Contention::Pools(256), 2_048),
    (Contention::Pools(2_048), 2_048),
    (Contention::OrderBook, 2_000),
    (Contention::TokenSpread, 10_000),
    (Contention::TokenHot, 10_000),
    (Contention::LendOne, 2_000),
    (Contention::LendMany, 2_000),
    (Contention::NativeSpread, 10_000),
    (Contention::NativeChain, 10_000),
    (Contention::NativeHot, 10_000),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One transaction after the other.
    Plain,
    /// The same with the access list made.
    Listing,
    /// The same without the path for transfers: the interpreter runs everything.
    Interpreted,
    Lead,
    /// The same with the access list made.
    LeadListing,
    Replay,
}

/// A mode on some threads, and what it took.
struct Contender {
    mode: Mode,
    threads: usize,
    executor: RevmExecutor,
    spans: Vec<Duration>,
    cpu: Vec<Duration>,
    /// Guesses that held and that failed.
    guesses: (u64, u64),
}

impl Contender {
    fn new(lab: &Lab, mode: Mode, threads: usize) -> Self {
        let workers = Workers::new(threads).expect("a few threads can be started");
        let executor = RevmExecutor::new(lab.executor.chain().clone()).with_workers(workers);
        Self { mode, threads, executor, spans: Vec::new(), cpu: Vec::new(), guesses: (0, 0) }
    }

    fn name(&self) -> String {
        match self.mode {
            Mode::Plain => "plain".to_owned(),
            Mode::Listing => "plain + list".to_owned(),
            Mode::Interpreted => "interpreted".to_owned(),
            Mode::Lead => format!("lead {}", self.threads),
            Mode::LeadListing => format!("lead {} + list", self.threads),
            Mode::Replay => format!("replay {}", self.threads),
        }
    }

    fn execute(&self, case: &Case) -> Finished {
        let (state, block) = (&case.state, &case.block);
        match self.mode {
            Mode::Plain => self.executor.transactions(state, block, false).expect("the block is valid"),
            Mode::Listing => self.executor.transactions(state, block, true).expect("the block is valid"),
            Mode::Interpreted => interpreted(&self.executor, case),
            Mode::Lead => self.executor.transactions_led(state, block, false).expect("the block is valid"),
            Mode::LeadListing => self.executor.transactions_led(state, block, true).expect("the block is valid"),
            Mode::Replay => {
                self.executor.transactions_listed(state, block, &case.list).expect("the list is the block's")
            }
        }
    }

    fn round(&mut self, case: &Case) {
        let (held, failed) = (metrics::GUESS_HELD.value(), metrics::GUESS_FAILED.value());
        let (cpu, start) = (cpu_time(), Instant::now());
        let finished = self.execute(case);
        self.spans.push(start.elapsed());
        self.cpu.push(cpu_time().saturating_sub(cpu));
        self.guesses.0 += metrics::GUESS_HELD.value() - held;
        self.guesses.1 += metrics::GUESS_FAILED.value() - failed;
        drop(finished);
    }
}

/// Blocks whose state has to be read first: serial reads against the list's, which are made at once.
#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn cold(count: usize, rounds: usize) {
    let mut lab = Lab::new(Contention::TokenSpread, 2_000);
    let case = Case::new(&mut lab, count);
    let (plain, replay) = (Contender::new(&lab, Mode::Plain, 1), Contender::new(&lab, Mode::Replay, 2));
    let slow = Slow(&case.state, COLD_READ);
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let serial = plain.executor.transactions(&slow, &case.block, false).expect("the block is valid");
        let (serial_took, start) = (start.elapsed(), Instant::now());
        let listed = replay.executor.transactions_listed(&slow, &case.block, &case.list).expect("the list is right");
        ratios.push(serial_took.as_secs_f64() / start.elapsed().as_secs_f64());
        assert!(serial.receipts == listed.receipts, "both give the same");
    }
    let (median, least, most) = spread(ratios);
    println!("cold: {count} token transfers, {COLD_READ:?} a read: replay {median:.1} ({least:.1}..{most:.1})");
}

/// Decoding and checking the access list of a block, which a replica does before it uses it.
fn list_time(case: &Case) -> Duration {
    let bytes = alloy_rlp::encode(&case.list);
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        let list = AccessList::decode_exact(&bytes).expect("it was encoded here");
        let header = case.block.header.inner();
        let count = case.block.body.transactions.len();
        list.check(engine::genesis::Fork::Osaka, header.gas_limit, count).expect("it is the block's");
        start.elapsed()
    });
    Duration::from_secs_f64(spread(times.map(|time| time.as_secs_f64()).collect()).0)
}

fn interpreted(executor: &RevmExecutor, case: &Case) -> Finished {
    let codes = CodeCache::default();
    let mut run = Run::open(executor.chain(), &codes, &case.state, case.block.header.inner());
    run.interpret_transfers();
    for transaction in &case.block.body.transactions {
        run.transact(transaction).expect("the block is valid");
    }
    run.close(None).expect("the state can be read")
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(now).expect("time does not run backwards")
}

/// A block on a state in memory.
struct Case {
    block: Block,
    list: AccessList,
    state: Frozen,
}

impl Case {
    fn new(lab: &mut Lab, count: usize) -> Self {
        let signed = lab.signed(count);
        let transactions = lab.transactions(&signed);
        let built = lab.build(&transactions).0;
        assert!(built.receipts.iter().all(|receipt| receipt.success), "every transaction succeeds");
        let (view, block) = (lab.store.view(lab.store.tip().height()).expect("the tip is kept"), &built.block);
        let whole = Frozen::new(&*view, &built.access_list, &[block.header.beneficiary]);
        let block = Block::clone(block);
        let plain = lab.executor.transactions(&whole, &block, true).expect("the block is valid");
        Self { block, list: plain.access_list.unwrap_or_default(), state: whole }
    }

    /// What two cores could reach at best: with conflicts, and without.
    fn ceilings(&self, executor: &RevmExecutor) -> (f64, f64) {
        let transactions = &self.block.body.transactions;
        let mut times = vec![f64::MAX; transactions.len()];
        for _ in 0..3 {
            let codes = CodeCache::default();
            let mut run = Run::open(executor.chain(), &codes, &self.state, self.block.header.inner());
            for (time, transaction) in times.iter_mut().zip(transactions) {
                let start = Instant::now();
                run.transact(transaction).expect("the block is valid");
                *time = time.min(start.elapsed().as_secs_f64());
            }
        }
        let dependencies = executor.dependencies(&self.state, &self.block).expect("the block is valid");
        let independent = vec![Vec::new(); times.len()];
        let sum: f64 = times.iter().sum();
        (sum / makespan(&times, &dependencies, 2), sum / makespan(&times, &independent, 2))
    }
}

fn seconds(spans: &[Duration]) -> Vec<f64> {
    spans.iter().map(Duration::as_secs_f64).collect()
}

/// How many times as fast as `baseline`, round by round: median, least and most.
fn ratio(baseline: &Contender, contender: &Contender) -> (f64, f64, f64) {
    let (own, base) = (seconds(&contender.spans), seconds(&baseline.spans));
    spread(base.iter().zip(&own).map(|(base, own)| base / own).collect())
}

/// What one contender takes beyond another, and how the transfers' own path stands to the interpreter.
fn comparisons(contenders: &[Contender]) -> String {
    let find = |mode: Mode, threads: usize| contenders.iter().find(|one| (one.mode, one.threads) == (mode, threads));
    let mut text = String::from("  list adds");
    for (with, without, threads) in [(Mode::Listing, Mode::Plain, 1), (Mode::LeadListing, Mode::Lead, 2)] {
        if let (Some(with), Some(without)) = (find(with, threads), find(without, threads)) {
            let (median, least, most) = ratio(with, without);
            let [median, least, most] = [median, least, most].map(|times| (times - 1.0) * 100.0);
            text += &format!("  {}: {median:.1} % ({least:.1}..{most:.1})", without.name());
        }
    }
    if let Some(interpreted) = find(Mode::Interpreted, 1) {
        text += "\n  times the interpreter";
        for own in [find(Mode::Plain, 1), find(Mode::Lead, 2), find(Mode::Replay, 2)].into_iter().flatten() {
            let (median, least, most) = ratio(interpreted, own);
            text += &format!("  {}: {median:.2} ({least:.2}..{most:.2})", own.name());
        }
    }
    text
}

fn row(baseline: &Contender, contender: &Contender, best: Option<f64>) -> String {
    let (own, (median, least, most)) = (seconds(&contender.spans), ratio(baseline, contender));
    let cpu = |contender: &Contender| spread(seconds(&contender.cpu)).0;
    let rounds = contender.spans.len() as u64;
    let guesses = match contender.guesses {
        (0, 0) => String::new(),
        (held, failed) => format!("  {} held, {} failed", held / rounds, failed / rounds),
    };
    format!(
        "  {:<14}{:>10.3} ms{:>8.3} ({least:.3}..{most:.3}){:>9}{:>9.2}{guesses}",
        contender.name(),
        spread(own).0 * 1e3,
        median,
        best.map_or_else(String::new, |best| format!("{best:.2}")),
        cpu(contender) / cpu(baseline),
    )
}

fn compare(contenders: &[Contender], case: &Case) {
    let plain = contenders[0].execute(case);
    for contender in &contenders[1..] {
        let finished = contender.execute(case);
        let same = (&finished.receipts, &finished.changes) == (&plain.receipts, &plain.changes);
        assert!(same, "{} gives what the plain loop gives", contender.name());
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn measure(contention: Contention, count: usize, rounds: usize) {
    let senders = u32::try_from(count).expect("a small number").saturating_mul(2);
    let mut lab = Lab::new(contention, senders);
    let case = Case::new(&mut lab, count);
    let native = matches!(contention, Contention::NativeSpread | Contention::NativeChain | Contention::NativeHot);
    let mut contenders: Vec<Contender> = [(Mode::Plain, 1), (Mode::Listing, 1), (Mode::Lead, 1), (Mode::Lead, 2)]
        .into_iter()
        .chain([(Mode::LeadListing, 2), (Mode::Lead, 4), (Mode::Replay, 2)])
        .chain(native.then_some((Mode::Interpreted, 1)))
        .map(|(mode, threads)| Contender::new(&lab, mode, threads))
        .collect();
    compare(&contenders, &case);
    for _ in 0..rounds {
        contenders.iter_mut().for_each(|contender| contender.round(&case));
    }
    let (lead, replay) = case.ceilings(&lab.executor);
    let base = spread(contenders[0].spans.iter().map(Duration::as_secs_f64).collect()).0;
    let gas = case.block.header.gas_used as f64;
    println!(
        "{}: {count} txs, {:.1} Mgas, plain {:.2} Ggas/s, {:.0} tx/s, list of {} kB decoded and checked in {:.2} ms",
        contention.name(),
        gas / 1e6,
        gas / base / 1e9,
        count as f64 / base,
        alloy_rlp::encode(&case.list).len() / 1_000,
        list_time(&case).as_secs_f64() * 1e3,
    );
    for contender in &contenders {
        let best = match (contender.mode, contender.threads) {
            (Mode::Lead, 2..) => Some(lead),
            (Mode::Replay, _) => Some(replay),
            _ => None,
        };
        println!("{}", row(&contenders[0], contender, best));
    }
    println!("{}", comparisons(&contenders));
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn main() {
    allocator::keep_memory();
    let (mut rounds, mut small, mut names) = (ROUNDS, true, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => small = false,
            "--rounds" => {
                let given = arguments.next().and_then(|text| text.parse().ok());
                rounds = given.expect("--rounds is followed by a number");
            }
            name => names.push(name.to_owned()),
        }
    }
    println!("mode, time, ratio to plain (least..most), ceiling on 2 cores, CPU to plain; medians of {rounds} rounds");
    if names.is_empty() || names.iter().any(|name| name == "cold") {
        cold(if small { 20 } else { 500 }, if small { 1 } else { rounds });
    }
    for (contention, count) in WORKLOADS {
        if names.is_empty() || names.contains(&contention.name()) {
            let (count, rounds) = if small { (count / 64, 1) } else { (count, rounds) };
            measure(contention, count, rounds);
        }
    }
}
