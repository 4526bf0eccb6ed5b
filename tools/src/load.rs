//! `sluice load`: drives any Ethereum node with DeFi traffic and checks every receipt and balance.
//!
//! ```text
//! plan -> set-up (fund, deploy, enter, crash) -> gas limits -> presign        nothing is timed yet
//!      -> drive: submit over many connections, follow blocks                  timed
//!      -> receipts against what was sent, balances against the model          nothing is timed any more
//! ```

mod balances;
mod board;
mod chain;
mod drive;
mod machine;
mod progress;
mod quic;
mod report;
mod setup;
mod stages;
mod submit;
mod verify;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_signer_local::PrivateKeySigner;
use bench::{
    AccountId, Plan, Settings, Shape,
    expect::{Ledger, Model},
    shapes::{MARKETS_MAX, Scale},
    sign::{Fees, GasLimits, SignedTransaction, sign},
};
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser as _};
use eyre::{WrapErr, ensure};

use self::{
    chain::Chain,
    drive::{Drive, Trace},
    machine::{Machine, Usage},
    report::{Blocks, Counts, Node, Percentiles, Process, Rates, Report, float},
    setup::PhaseReport,
    stages::Stages,
    submit::Pace,
    verify::{Inclusion, Problems, Sent},
};

/// Flags of `load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Nodes to drive, separated by commas; blocks are followed at the first.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8545", value_name = "URL")]
    rpc: Vec<String>,
    /// Send transactions over QUIC to these addresses, in turn, not over JSON-RPC: `HOST:PORT`, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
    quic: Vec<String>,
    /// What is sent.
    #[arg(
        long,
        default_value = "mixed",
        value_parser = PossibleValuesParser::new(Shape::ALL.map(Shape::name)).map(|name| shape(&name))
    )]
    shape: Shape,
    /// Transactions to send; default 10,000, or what --duration and --rate give.
    #[arg(long, value_name = "N")]
    txs: Option<usize>,
    /// Longest time to send, such as `30s`; what is signed and not sent by then stays unsent.
    #[arg(long, value_parser = crate::cli::duration, value_name = "TIME")]
    duration: Option<Duration>,
    /// Accounts that send.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    senders: u32,
    /// Same seed, same accounts and transactions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Transactions per second, each at its own time; or `max`: as fast as the node answers.
    #[arg(long, default_value = "max", value_parser = rate, value_name = "R|max")]
    rate: Rate,
    /// Transactions in one JSON-RPC request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    batch: u16,
    /// Kept connections; a sender stays on one.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    connections: u16,
    /// With --rate max: transactions of one sender under way.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    outstanding: u32,
    /// Pools of `swap` and `mixed`.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    pairs: u16,
    /// Lending markets of `lend` and `mixed`.
    #[arg(
        long,
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MARKETS_MAX)),
        value_name = "N"
    )]
    markets: u16,
    /// Key of the account that pays for everything; default is the first development account.
    #[arg(long, default_value = DEV_KEY, hide_default_value = true, value_name = "HEX")]
    key: PrivateKeySigner,
    /// Highest fee per gas in gwei; default is some eight times the base fee.
    #[arg(long, value_name = "GWEI")]
    max_fee: Option<u32>,
    /// Processes of the nodes on this machine, separated by commas: the CPU time and memory of all together are
    /// reported, and of their threads.
    #[arg(long, value_delimiter = ',', value_name = "PIDS")]
    pid: Vec<u32>,
    /// Metrics of nodes that were started with --stages, such as `http://127.0.0.1:9090/metrics`, separated by commas:
    /// how long transactions spent in each stage is reported.
    #[arg(long, value_delimiter = ',', value_name = "URLS")]
    metrics: Vec<String>,
    /// Write the whole report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Time between two looks for a new block.
    #[arg(long, default_value = "10ms", value_parser = crate::cli::duration, value_name = "TIME")]
    poll: Duration,
    /// Give up when nothing is included for so long.
    #[arg(long, default_value = "60s", value_parser = crate::cli::duration, value_name = "TIME")]
    stall: Duration,
    /// Time for work the node put off, counted as its CPU time, after the last transaction is included.
    #[arg(long, default_value = "2s", value_parser = crate::cli::duration, value_name = "TIME")]
    settle: Duration,
}

/// The first account of the well-known test mnemonic.
const DEV_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// Wei per gas for the proposer.
const PRIORITY_FEE: u128 = 10_000_000;

const GWEI: u128 = 1_000_000_000;

/// Transactions per second that are signed for a run as fast as possible whose number is not given.
const RATE_ASSUMED: u64 = 10_000;

/// Transactions looked up by hash at the end.
const LOOKUPS: usize = 100;

/// Arrivals per second, `None` for as fast as possible.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<u64>);

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate(None)),
        _ => match text.parse() {
            Ok(rate) if rate > 0 => Ok(Rate(Some(rate))),
            _ => Err("must be `max` or a number above 0".to_owned()),
        },
    }
}

fn shape(name: &str) -> Shape {
    Shape::ALL.into_iter().find(|shape| shape.name() == name).unwrap_or(Shape::Mixed)
}

/// Exit code for a node that cannot be reached.
const UNREACHABLE: u8 = 2;

/// Runs a load; 0 if all is right, 1 if anything is lost, wrong or fails, 2 if a node cannot be reached.
pub(crate) fn run(args: &LoadArgs) -> eyre::Result<ExitCode> {
    // Each may keep a core busy that the node wants as well.
    let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("load")
        .enable_all()
        .build()
        .wrap_err("cannot start the threads")?;
    for url in &args.rpc {
        if let Err(error) = Chain::new(url).and_then(|chain| runtime.block_on(chain.chain_id())) {
            eprintln!("error: cannot reach {url}: {error:#}");
            return Ok(ExitCode::from(UNREACHABLE));
        }
    }
    let report = Run::prepare(args, &runtime)?.measure(args, &runtime)?;
    report.print();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).wrap_err("cannot write the report")?;
        std::fs::write(path, text + "\n").wrap_err_with(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A chain that was set up, with transactions that were signed.
struct Run {
    chain: Chain,
    plan: Plan,
    fees: Fees,
    gas: GasLimits,
    model: Model,
    setup: Vec<PhaseReport>,
    transactions: Arc<Vec<SignedTransaction>>,
    presign_seconds: f64,
    /// Next nonces before anything that is timed.
    nonces: Vec<u64>,
}

impl Run {
    fn prepare(args: &LoadArgs, runtime: &tokio::runtime::Runtime) -> eyre::Result<Self> {
        let chain = Chain::new(&args.rpc[0])?;
        let settings = Settings {
            traffic: args.shape.into(),
            seed: args.seed,
            senders: args.senders,
            transactions: transactions(args),
            scale: Scale { pools: args.pairs, markets: args.markets },
            funder: args.key.clone(),
        };
        let plan = Plan::new(&settings, |accounts| runtime.block_on(chain.nonce(accounts.address(AccountId::OWNER))))?;
        let fees = runtime.block_on(fees(args, &chain))?;
        let mut nonces = runtime.block_on(chain.nonces(&plan.accounts.addresses()))?;
        let (model, setup) = runtime.block_on(setup::set_up(&chain, &drive(args), &plan, fees, &mut nonces))?;
        let gas = runtime.block_on(setup::gas_limits(&chain, &plan))?;
        let began = Instant::now();
        let signed = sign(&plan.operations, &plan.world, &plan.accounts, fees, &gas, &mut nonces.clone());
        let presign_seconds = began.elapsed().as_secs_f64();
        eprintln!("presigned: {} transactions in {presign_seconds:.1} s", signed.len());
        Ok(Self { chain, plan, fees, gas, model, setup, transactions: Arc::new(signed), presign_seconds, nonces })
    }

    /// The timed part, and everything that is checked after it.
    fn measure(mut self, args: &LoadArgs, runtime: &tokio::runtime::Runtime) -> eyre::Result<Report> {
        let balances = runtime.block_on(self.chain.balances(&self.plan.accounts.addresses()))?;
        let mut ledger = Ledger::new(balances);
        let drive = drive(args);
        let machine = Machine::read();
        let began_unix_ms = unix_ms();
        let stages = runtime.block_on(Stages::read(&args.metrics))?;
        let (before, threads) = (Usage::of_all(&args.pid)?, machine::threads(&args.pid)?);
        let own = Usage::of(std::process::id())?;
        let accounts = self.plan.accounts.count();
        let trace = runtime.block_on(drive.run(&self.chain, self.transactions.clone(), accounts, args.shape.name()))?;
        let own = Usage::of(std::process::id())?.since(own);
        std::thread::sleep(args.settle);
        let used = Usage::of_all(&args.pid)?.since(before);
        let threads = machine::threads_since(machine::threads(&args.pid)?, &threads);
        let ended_unix_ms = unix_ms();

        let mut problems = Problems::default();
        let inclusions = runtime.block_on(self.check_receipts(&trace, &mut problems))?;
        self.replay(&inclusions, &mut ledger, &mut problems);
        let compared = runtime.block_on(self.check_balances(&ledger, &mut problems))?;
        // A node counts the end of a stage behind what it tells of it, so this comes last.
        let stages = match args.metrics.is_empty() {
            true => Vec::new(),
            false => runtime.block_on(Stages::read(&args.metrics))?.since(&stages)?,
        };
        let counts = counts(&trace, &inclusions, &problems);
        let included = counts.included;
        Ok(Report {
            ok: problems.is_empty() && counts.lost == 0 && counts.refused == 0 && !trace.stalled,
            shape: args.shape.name(),
            args: public_args(std::env::args()),
            machine,
            began_unix_ms,
            ended_unix_ms,
            node: runtime.block_on(self.node(args))?,
            rates: Rates::new(&trace, &inclusions),
            late_ms: args.rate.0.and_then(|_| Percentiles::new(&drive.pace, &trace, &trace.sent)),
            answer_ms: Percentiles::new(&Pace { rate: None, ..drive.pace }, &trace, &trace.accepted),
            accept_ms: Percentiles::new(&drive.pace, &trace, &trace.accepted),
            notarize_ms: Percentiles::new(&drive.pace, &trace, &trace.notarized),
            include_ms: Percentiles::new(&drive.pace, &trace, &trace.included),
            stages,
            kinds: report::kinds(&self.plan, &inclusions),
            blocks: Blocks::new(&trace, &self.plan, &inclusions),
            process: (!args.pid.is_empty()).then(|| Process::new(&args.pid, used, threads, included)),
            generator_cpu_us_per_tx: own.cpu_seconds() * 1e6 / float(included.max(1)),
            setup: self.setup,
            presign_seconds: self.presign_seconds,
            counts,
            compared,
            refusals: trace.refusals,
            problems,
        })
    }

    async fn check_receipts(&self, trace: &Trace, problems: &mut Problems) -> eyre::Result<Vec<Inclusion>> {
        let sent = Sent {
            plan: &self.plan,
            operations: &self.plan.operations,
            transactions: &self.transactions,
            fees: self.fees,
        };
        let began = Instant::now();
        let inclusions = sent.verify(&self.chain, &trace.blocks, problems).await?;
        let seen = trace.included.iter().flatten().count();
        if inclusions.len() != seen {
            problems.add("wrong receipt", || format!("{} receipts for {seen} transactions", inclusions.len()));
        }
        if trace.included.iter().all(Option::is_some) {
            sent.sample(&self.chain, LOOKUPS, problems).await?;
        }
        eprintln!("verified: {} receipts in {:.1} s", inclusions.len(), began.elapsed().as_secs_f64());
        Ok(inclusions)
    }

    /// Does in the models what the chain did, in its order.
    fn replay(&mut self, inclusions: &[Inclusion], ledger: &mut Ledger, problems: &mut Problems) {
        for inclusion in inclusions {
            let (from, operation) = &self.plan.operations[inclusion.index];
            self.nonces[from.index()] += 1;
            if let Err(words) = ledger.apply(*from, operation, inclusion.fee, inclusion.succeeded) {
                problems.add("model", || words);
            }
            if !inclusion.succeeded {
                continue;
            }
            if let Err(refusal) = self.model.apply(&self.plan.world, *from, operation, inclusion.timestamp) {
                problems.add("model", || format!("{operation:?}: {refusal}"));
            }
        }
    }

    async fn check_balances(&self, ledger: &Ledger, problems: &mut Problems) -> eyre::Result<usize> {
        let accounts = balances::check_wei(&self.chain, &self.plan, ledger, &self.nonces, problems).await?;
        let figures = balances::check_contracts(&self.chain, &self.plan, &self.model, problems).await?;
        Ok(2 * accounts + figures)
    }

    async fn node(&self, args: &LoadArgs) -> eyre::Result<Node> {
        Ok(Node {
            url: args.rpc.join(","),
            version: self.chain.version().await.unwrap_or_default(),
            chain_id: self.fees.chain_id,
            fee_max: self.fees.fee_max,
            gas_limits: self.gas.iter().map(|(kind, limit)| (kind.name(), *limit)).collect(),
        })
    }
}

fn drive(args: &LoadArgs) -> Drive {
    let pace = Pace {
        rate: args.rate.0,
        batch: usize::from(args.batch),
        outstanding: args.outstanding,
        duration: args.duration,
    };
    let connections = usize::from(args.connections).max(args.rpc.len());
    Drive { urls: args.rpc.clone(), quic: args.quic.clone(), pace, connections, poll: args.poll, stall: args.stall }
}

fn transactions(args: &LoadArgs) -> usize {
    let of_time = |duration: Duration| {
        let rate = u128::from(args.rate.0.unwrap_or(RATE_ASSUMED));
        usize::try_from(duration.as_millis() * rate / 1_000).unwrap_or(usize::MAX)
    };
    args.txs.unwrap_or_else(|| args.duration.map_or(10_000, of_time))
}

/// Fees that the base fee does not reach within a run; in steps, so that two nodes give the same bytes.
async fn fees(args: &LoadArgs, chain: &Chain) -> eyre::Result<Fees> {
    let latest = chain.latest().await?;
    let base_fee = u128::try_from(latest.base_fee_per_gas).unwrap_or(u128::MAX);
    let gwei = match args.max_fee {
        Some(gwei) => u128::from(gwei),
        None => base_fee.max(GWEI).saturating_mul(8).div_ceil(GWEI).next_power_of_two(),
    };
    let fee_max = gwei * GWEI;
    ensure!(fee_max > base_fee + PRIORITY_FEE, "--max-fee is below the base fee of {base_fee} wei");
    Ok(Fees { chain_id: chain.chain_id().await?, fee_max, priority_fee: PRIORITY_FEE })
}

/// For whoever reads the node's metrics beside.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn counts(trace: &Trace, inclusions: &[Inclusion], problems: &Problems) -> Counts {
    let come = |moments: &[Option<Duration>]| moments.iter().flatten().count();
    let lost = trace
        .accepted
        .iter()
        .zip(&trace.included)
        .filter(|(accepted, included)| accepted.is_some() && included.is_none());
    let (reverted, duplicated) = (problems.count("reverted"), problems.count("duplicated"));
    let all: u64 = problems.counts.values().sum();
    Counts {
        planned: trace.sent.len(),
        sent: come(&trace.sent),
        accepted: come(&trace.accepted),
        included: come(&trace.included),
        succeeded: inclusions.iter().filter(|inclusion| inclusion.succeeded).count(),
        reverted,
        lost: lost.count(),
        duplicated: duplicated.max(trace.duplicates),
        wrong: all - reverted - duplicated,
        refused: trace.refusals.values().sum(),
        retried: trace.retries,
    }
}

/// The command line without the key: a report is made to be shown.
fn public_args(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut after_key = false;
    let public = |arg: String| match std::mem::replace(&mut after_key, arg == "--key") {
        true => "(left out)".to_owned(),
        false if arg.starts_with("--key=") => "--key=(left out)".to_owned(),
        false => arg,
    };
    args.map(public).collect()
}
