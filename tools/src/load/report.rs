//! What a run says: a few lines for people, everything for machines.

use std::{collections::BTreeMap, time::Duration};

use alloy_primitives::U256;
use bench::{Kind, Plan};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    drive::Trace,
    machine::{ByName, Machine, Threads, Usage},
    setup::PhaseReport,
    stages::StageReport,
    submit::Pace,
    verify::{Inclusion, Problems},
};

/// Threads are shown that take more than one part in so many of a process's time.
const THREADS_SHOWN: f64 = 50.0;

/// Everything about a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Nothing lost, duplicated, refused, reverted or wrong.
    pub(crate) ok: bool,
    pub(crate) shape: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) machine: Machine,
    /// When the accounts of the process were read before and after the timed part.
    pub(crate) began_unix_ms: u64,
    pub(crate) ended_unix_ms: u64,
    pub(crate) node: Node,
    pub(crate) setup: Vec<PhaseReport>,
    pub(crate) presign_seconds: f64,
    pub(crate) counts: Counts,
    pub(crate) rates: Rates,
    /// From when each was due to its submission: what this load generator took, in open loop.
    pub(crate) late_ms: Option<Percentiles>,
    /// From submission to the answer of the node.
    pub(crate) answer_ms: Option<Percentiles>,
    /// From submission, or from when it was due, to the answer of the node.
    pub(crate) accept_ms: Option<Percentiles>,
    /// From submission, or from when it was due, to the word that a quorum has notarized its block; over QUIC.
    pub(crate) notarize_ms: Option<Percentiles>,
    /// From submission, or from when it was due, to the sight of a block with the transaction.
    pub(crate) include_ms: Option<Percentiles>,
    /// What became of the time in between, by the nodes' own count.
    pub(crate) stages: Vec<StageReport>,
    pub(crate) kinds: BTreeMap<&'static str, KindReport>,
    pub(crate) blocks: Blocks,
    pub(crate) process: Option<Process>,
    /// CPU time of this load generator per included transaction.
    pub(crate) generator_cpu_us_per_tx: f64,
    /// Figures of accounts and contracts compared with the model.
    pub(crate) compared: usize,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) problems: Problems,
}

/// The chain as it was found.
#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) url: String,
    pub(crate) version: String,
    pub(crate) chain_id: u64,
    pub(crate) fee_max: u128,
    pub(crate) gas_limits: BTreeMap<&'static str, u64>,
}

/// What became of the transactions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) planned: usize,
    pub(crate) sent: usize,
    pub(crate) accepted: usize,
    pub(crate) included: usize,
    pub(crate) succeeded: usize,
    pub(crate) reverted: u64,
    pub(crate) lost: usize,
    pub(crate) duplicated: u64,
    pub(crate) wrong: u64,
    pub(crate) refused: u64,
    pub(crate) retried: u64,
}

/// Throughput from the first submission to the sight of the last block.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rates {
    pub(crate) seconds: f64,
    pub(crate) submitted_per_second: f64,
    pub(crate) included_per_second: f64,
    pub(crate) gas_per_second: f64,
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
}

/// Operations of one kind.
#[derive(Debug, Default, Serialize)]
pub(crate) struct KindReport {
    pub(crate) included: u64,
    pub(crate) gas_mean: f64,
}

/// Blocks from the first to the last with transactions of the run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Blocks {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: usize,
    /// Seconds between two blocks, on average, by the times in their headers.
    pub(crate) interval_seconds: f64,
    pub(crate) gas_limit: u64,
    pub(crate) gas_used_mean: f64,
    pub(crate) gas_used_max: u64,
    pub(crate) transactions_max: usize,
    /// Mean gas used over half the gas limit: above 1 the base fee rises.
    pub(crate) share_of_target: f64,
    pub(crate) base_fee_first: u128,
    pub(crate) base_fee_max: u128,
    pub(crate) base_fee_last: u128,
}

/// What the node's process used.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) pids: Vec<u32>,
    pub(crate) cpu_us_per_tx: f64,
    /// By the names of threads.
    pub(crate) threads: BTreeMap<String, ThreadReport>,
    #[serde(flatten)]
    pub(crate) usage: Usage,
}

/// Threads of one name.
#[derive(Debug, Serialize)]
pub(crate) struct ThreadReport {
    pub(crate) count: usize,
    pub(crate) cpu_us_per_tx: f64,
    /// What they would take with a core each.
    pub(crate) alone_per_second: f64,
}

/// What stands between a rate and a higher one.
#[derive(Debug)]
struct Limit<'r> {
    /// The threads that are busiest.
    stage: &'r str,
    /// What these would take with a core each.
    stage_alone: f64,
    /// What the cores would take if nothing but nodes and load generator ran on them.
    cores: f64,
}

/// A count as a figure to divide with; counts here are far below 2^53.
pub(crate) fn float(count: impl TryInto<u64>) -> f64 {
    let count: u64 = count.try_into().unwrap_or(u64::MAX);
    let (high, low) = (u32::try_from(count >> 32).unwrap_or(u32::MAX), u32::try_from(count & 0xffff_ffff).unwrap_or(0));
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

pub(crate) fn ratio(above: f64, below: f64) -> f64 {
    if below > 0.0 { above / below } else { 0.0 }
}

impl Rates {
    pub(crate) fn new(trace: &Trace, inclusions: &[Inclusion]) -> Self {
        let first = trace.sent.iter().flatten().min().copied().unwrap_or_default();
        let until = |moments: &[Option<Duration>]| {
            let last = moments.iter().flatten().max().copied().unwrap_or_default();
            (moments.iter().flatten().count(), last.saturating_sub(first).as_secs_f64())
        };
        let (accepted, accept_seconds) = until(&trace.accepted);
        let (included, seconds) = until(&trace.included);
        let gas: u64 = inclusions.iter().map(|inclusion| inclusion.gas_used).sum();
        Self {
            seconds,
            submitted_per_second: ratio(float(accepted), accept_seconds),
            included_per_second: ratio(float(included), seconds),
            gas_per_second: ratio(float(gas), seconds),
        }
    }
}

impl Percentiles {
    /// Latencies to `moments`: from when each was due in open loop, else from when it was sent.
    pub(crate) fn new(pace: &Pace, trace: &Trace, moments: &[Option<Duration>]) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).ok()?;
        for (index, moment) in moments.iter().enumerate() {
            let begin = pace.due(index).or(trace.sent[index]);
            if let (Some(moment), Some(begin)) = (moment, begin) {
                let micros = u64::try_from(moment.saturating_sub(begin).as_micros()).unwrap_or(u64::MAX);
                histogram.saturating_record(micros.max(1));
            }
        }
        let at = |quantile| float(histogram.value_at_quantile(quantile)) / 1_000.0;
        let (max, mean) = (float(histogram.max()) / 1_000.0, histogram.mean() / 1_000.0);
        (!histogram.is_empty()).then(|| Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), max, mean })
    }
}

impl Blocks {
    pub(crate) fn new(trace: &Trace, plan: &Plan, inclusions: &[Inclusion]) -> Self {
        let busy = |gas: u64| gas > 0;
        let blocks: &[_] = match (
            trace.blocks.iter().position(|block| busy(block.gas_used.to())),
            trace.blocks.iter().rposition(|block| busy(block.gas_used.to())),
        ) {
            (Some(first), Some(last)) if !plan.operations.is_empty() && !inclusions.is_empty() => {
                &trace.blocks[first..=last]
            }
            _ => return Self::default(),
        };
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Self::default() };
        let seconds = last.timestamp.to::<u64>().saturating_sub(first.timestamp.to());
        let gas: u64 = blocks.iter().map(|block| block.gas_used.to::<u64>()).sum();
        let gas_used_mean = ratio(float(gas), float(blocks.len()));
        let gas_limit: u64 = last.gas_limit.to();
        let fee = |fee: U256| u128::try_from(fee).unwrap_or(u128::MAX);
        Self {
            first: first.height(),
            last: last.height(),
            count: blocks.len(),
            interval_seconds: ratio(float(seconds), float(blocks.len() - 1)),
            gas_limit,
            gas_used_mean,
            gas_used_max: blocks.iter().map(|block| block.gas_used.to()).max().unwrap_or_default(),
            transactions_max: blocks.iter().map(|block| block.transactions.len()).max().unwrap_or_default(),
            share_of_target: ratio(gas_used_mean, float(gas_limit) / 2.0),
            base_fee_first: fee(first.base_fee_per_gas),
            base_fee_max: blocks.iter().map(|block| fee(block.base_fee_per_gas)).max().unwrap_or_default(),
            base_fee_last: fee(last.base_fee_per_gas),
        }
    }
}

/// Counts and mean gas by kind of operation.
pub(crate) fn kinds(plan: &Plan, inclusions: &[Inclusion]) -> BTreeMap<&'static str, KindReport> {
    let mut sums: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    for inclusion in inclusions {
        let sum = sums.entry(plan.operations[inclusion.index].1.kind()).or_default();
        sum.0 += 1;
        sum.1 += inclusion.gas_used;
    }
    let report = |(count, gas)| KindReport { included: count, gas_mean: ratio(float(gas), float(count)) };
    sums.into_iter().map(|(kind, sum)| (kind.name(), report(sum))).collect()
}

impl Process {
    pub(crate) fn new(pids: &[u32], usage: Usage, threads: ByName, included: usize) -> Self {
        let report = |(stage, Threads { count, cpu_seconds }): (String, Threads)| {
            let cpu_us_per_tx = ratio(cpu_seconds * 1e6, float(included));
            (stage, ThreadReport { count, cpu_us_per_tx, alone_per_second: ratio(float(count) * 1e6, cpu_us_per_tx) })
        };
        Self {
            threads: threads.into_iter().map(report).collect(),
            pids: pids.to_vec(),
            cpu_us_per_tx: ratio(usage.cpu_seconds() * 1e6, float(included)),
            usage,
        }
    }
}

impl Report {
    /// Prints what people want to know.
    #[expect(clippy::print_stdout, reason = "the report is what the command is run for")]
    pub(crate) fn print(&self) {
        let Counts { sent, accepted, included, succeeded, .. } = self.counts;
        println!("node           {} at {}", self.node.version, self.node.url);
        let [one, five, fifteen] = self.machine.load_average;
        println!(
            "machine        {}, {} cores, Linux {}, load average {one} {five} {fifteen}",
            self.machine.cpu, self.machine.cores, self.machine.kernel
        );
        println!("{:14} {sent} sent, {accepted} accepted, {included} included, {succeeded} succeeded", self.shape);
        println!("submitted/s    {:.0}", self.rates.submitted_per_second);
        println!("included/s     {:.0} over {:.1} s", self.rates.included_per_second, self.rates.seconds);
        print_latency("sent late", self.late_ms.as_ref());
        print_latency("answered", self.answer_ms.as_ref());
        print_latency("accepted", self.accept_ms.as_ref());
        print_latency("notarized", self.notarize_ms.as_ref());
        print_latency("included", self.include_ms.as_ref());
        for StageReport { stage, transactions, mean_ms, p50_ms, p99_ms } in &self.stages {
            println!(
                "{stage:9} ms   mean {mean_ms:.2}, p50 {p50_ms:.2}, p99 {p99_ms:.2}, of {transactions} at the nodes"
            );
        }
        let blocks = &self.blocks;
        println!(
            "gas/s          {:.0} M; {} blocks of {:.2} s, {:.0} M gas each on average, {:.2} of the target",
            self.rates.gas_per_second / 1e6,
            blocks.count,
            blocks.interval_seconds,
            blocks.gas_used_mean / 1e6,
            blocks.share_of_target
        );
        println!("base fee       {} wei at first, {} at most", blocks.base_fee_first, blocks.base_fee_max);
        if let Some(process) = &self.process {
            println!(
                "node process   {:.1} us of CPU per transaction ({:.2} s user, {:.2} s system), {} MiB at most",
                process.cpu_us_per_tx,
                process.usage.user_seconds,
                process.usage.system_seconds,
                process.usage.memory_peak_bytes >> 20
            );
        }
        println!("generator      {:.1} us of CPU per transaction", self.generator_cpu_us_per_tx);
        self.print_threads();
        self.print_failures();
    }

    /// What the busiest threads and all cores would take, if this was measured.
    fn limit(&self) -> Option<Limit<'_>> {
        let process = self.process.as_ref()?;
        let busy = process.threads.iter().filter(|(_, threads)| threads.cpu_us_per_tx > 0.0);
        let (stage, threads) = busy.min_by(|(_, a), (_, b)| a.alone_per_second.total_cmp(&b.alone_per_second))?;
        let per_tx = process.cpu_us_per_tx + self.generator_cpu_us_per_tx;
        let cores = ratio(float(self.machine.cores) * 1e6, per_tx);
        Some(Limit { stage, stage_alone: threads.alone_per_second, cores })
    }

    #[expect(clippy::print_stdout, reason = "the report is what the command is run for")]
    fn print_threads(&self) {
        let Some(process) = &self.process else { return };
        for (stage, ThreadReport { count, cpu_us_per_tx, alone_per_second }) in &process.threads {
            if cpu_us_per_tx * THREADS_SHOWN > process.cpu_us_per_tx {
                println!(
                    "{stage:14} {cpu_us_per_tx:.1} us of CPU per transaction; {count} threads with a core each would \
                     take {alone_per_second:.0}/s"
                );
            }
        }
        if let Some(Limit { stage, stage_alone, cores }) = self.limit() {
            println!(
                "efficiency     {:.2} of what the slowest stage alone would take ({stage}, {stage_alone:.0}/s), {:.2} \
                 of what all cores would ({cores:.0}/s)",
                ratio(self.rates.included_per_second, stage_alone),
                ratio(self.rates.included_per_second, cores),
            );
        }
    }

    #[expect(clippy::print_stdout, reason = "the report is what the command is run for")]
    fn print_failures(&self) {
        let Counts { reverted, lost, duplicated, wrong, refused, retried, .. } = self.counts;
        println!(
            "failures       {lost} lost, {duplicated} duplicated, {wrong} wrong, {reverted} reverted, \
             {refused} refused; {retried} sent again"
        );
        for (reason, count) in &self.refusals {
            println!("refused        {count} times: {reason}");
        }
        for example in &self.problems.examples {
            println!("problem        {example}");
        }
        let verdict = if self.ok { "every receipt and balance is right" } else { "NOT right" };
        println!("checked        {} figures of accounts and contracts: {verdict}", self.compared);
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is run for")]
fn print_latency(name: &str, percentiles: Option<&Percentiles>) {
    if let Some(Percentiles { p50, p95, p99, max, .. }) = percentiles {
        println!("{name:9} ms   p50 {p50:.1}, p95 {p95:.1}, p99 {p99:.1}, max {max:.1}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(sent: &[u64], included: &[u64]) -> Trace {
        let times = |list: &[u64]| list.iter().map(|ms| Some(Duration::from_millis(*ms))).collect::<Vec<_>>();
        Trace {
            sent: times(sent),
            accepted: times(sent),
            notarized: Vec::new(),
            included: times(included),
            blocks: Vec::new(),
            refusals: BTreeMap::new(),
            retries: 0,
            duplicates: 0,
            stalled: false,
        }
    }

    #[test]
    fn open_loop_latency_counts_from_when_it_was_due() {
        let trace = trace(&[100, 100], &[200, 200]);
        let pace = Pace { rate: Some(10), batch: 1, outstanding: 1, duration: None };
        let open = Percentiles::new(&pace, &trace, &trace.included).unwrap();
        assert!((open.max - 200.0).abs() < 1.0, "the first was due at 0: {open:?}");
        let closed = Percentiles::new(&Pace { rate: None, ..pace }, &trace, &trace.included).unwrap();
        assert!((closed.max - 100.0).abs() < 1.0, "{closed:?}");
    }

    #[test]
    fn rates_count_from_the_first_submission() {
        let rates = Rates::new(&trace(&[1_000, 1_500], &[2_000, 3_000]), &[]);
        assert!((rates.included_per_second - 1.0).abs() < 1e-9);
        assert!((rates.submitted_per_second - 4.0).abs() < 1e-9);
    }

    #[test]
    fn counts_become_figures_exactly() {
        assert!((float(1_u64 << 40) - 1_099_511_627_776.0).abs() < f64::EPSILON);
    }
}
