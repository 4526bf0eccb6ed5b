//! Time per gas of the worst blocks: transactions and receipts root, by the plain loop on a state in memory.
//!
//! ```text
//! cargo bench -p bench --bench worst -- [--gas N] [--rounds N] [CASE..]
//! ```
//!
//! Rounds are interleaved over the cases, after one that is not timed. Without `--bench`, which cargo passes,
//! small blocks are executed once.

mod arena;

use std::time::{Duration, Instant};

use arena::Arena;
use bench::WorstCase;
use vm::outcome;

/// Gas of a block.
const GAS: u64 = 30_000_000;

/// Gas of a block that only shows that the bench runs.
const GAS_IN_TEST: u64 = 2_000_000;

/// Timed executions of every block.
const ROUNDS: usize = 9;

struct Options {
    gas: u64,
    rounds: usize,
    cases: Vec<WorstCase>,
}

impl Options {
    fn read() -> Self {
        let mut arguments = std::env::args().skip(1);
        let mut options = Self { gas: GAS_IN_TEST, rounds: 1, cases: Vec::new() };
        let mut given = (None, None);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => (options.gas, options.rounds) = (GAS, ROUNDS),
                "--gas" => given.0 = Some(number(arguments.next())),
                "--rounds" => given.1 = Some(usize::try_from(number(arguments.next())).expect("a small number")),
                name => options.cases.extend(WorstCase::ALL.into_iter().filter(|case| case.name() == name)),
            }
        }
        if options.cases.is_empty() {
            options.cases = WorstCase::ALL.to_vec();
        }
        (options.gas, options.rounds) = (given.0.unwrap_or(options.gas), given.1.unwrap_or(options.rounds).max(1));
        options
    }
}

fn number(argument: Option<String>) -> u64 {
    argument.and_then(|text| text.parse().ok()).expect("the flag is followed by a number")
}

struct Contender {
    case: WorstCase,
    arena: Arena,
    transactions: usize,
    gas_used: u64,
    times: Vec<Duration>,
}

impl Contender {
    fn new(case: WorstCase, gas: u64) -> Self {
        let calls = case.calls(gas);
        let arena = Arena::new(&case.accounts(), &calls);
        let finished = arena.run();
        assert!(finished.receipts.iter().all(|receipt| receipt.success), "{} has no failures", case.name());
        Self { case, arena, transactions: calls.len(), gas_used: finished.gas_used, times: Vec::new() }
    }

    fn run(&mut self) {
        let start = Instant::now();
        let finished = self.arena.run();
        let roots = outcome::receipts_root(&finished.receipts);
        self.times.push(start.elapsed());
        std::hint::black_box((finished, roots));
    }

    fn row(&mut self) -> String {
        self.times.sort_unstable();
        let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
        let median = milliseconds(&self.times[self.times.len() / 2]);
        let (least, most) = (milliseconds(&self.times[0]), milliseconds(&self.times[self.times.len() - 1]));
        let megagas = self.gas_used as f64 / 1e6;
        format!(
            "{:<14}{:>4}{megagas:>8.2}{:>28}{:>25}{:>8.0}",
            self.case.name(),
            self.transactions,
            format!("{median:.2} ({least:.2}..{most:.2})"),
            format!("{:.3} ({:.3}..{:.3})", median / megagas, least / megagas, most / megagas),
            megagas / median * 1e3,
        )
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the bench is run for")]
fn main() {
    let options = Options::read();
    let mut contenders: Vec<_> = options.cases.iter().map(|case| Contender::new(*case, options.gas)).collect();
    for _ in 0..options.rounds {
        contenders.iter_mut().for_each(Contender::run);
    }
    println!("{} rounds, median (min..max)", options.rounds);
    println!("{:<14}{:>4}{:>8}{:>28}{:>25}{:>8}", "case", "txs", "Mgas", "ms", "ms/Mgas", "Mgas/s");
    for contender in &mut contenders {
        println!("{}", contender.row());
    }
}
