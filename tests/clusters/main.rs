//! Clusters of real node processes, with everything that networks and machines do to them.
//!
//! They need root, network namespaces, nftables, strace and libfaketime, and minutes; they run when
//! `SLUICE_CLUSTERS=1`, one at a time (`--test-threads 1`), and say plainly when they do not. Each prints what it
//! measured; chance follows from `SLUICE_SEED`. More of each: `SLUICE_CLUSTERS_SECONDS`, `SLUICE_CLUSTERS_KILLS`,
//! `SLUICE_CLUSTERS_BLOCKS`, `SLUICE_CLUSTERS_SLOT_MS`, `SLUICE_CLUSTERS_TXS`, `SLUICE_CLUSTERS_WIDE=1`;
//! `SLUICE_CLUSTERS_KEEP=1` keeps the folders of a run that failed.

#![allow(clippy::print_stdout, reason = "a long test tells what it did and measured")]

mod crashes;
mod floods;
mod followers;
mod kit;
mod machines;
mod networks;
mod steady;

use std::time::{Duration, Instant};

use alloy_primitives::Address;
use engine::{
    ordering::leader::Schedule,
    types::{Epoch, PublicKey, Slot, Validator, ValidatorSet},
};
use tests::{
    cluster::{
        Cluster, Plan, throughout,
        traffic::Traffic,
        until,
        watch::{Figures, Watch},
    },
    rng::Rng,
};

/// A cluster that starts, or comes back, makes blocks within this time.
const ALIVE: Duration = Duration::from_secs(20);

/// All nodes come to the same height within this time, once nothing is wrong with them.
const TOGETHER: Duration = Duration::from_secs(20);

/// Transfers per second, all together, unless a scenario says otherwise: a load that two cores bear easily, and three
/// for each of four nodes in every burst.
const PACE: u64 = 240;

/// Whether a test does not run here; it says so.
fn skipped(test: &str) -> bool {
    let skip = std::env::var("SLUICE_CLUSTERS").as_deref() != Ok("1");
    if skip {
        println!("{test}: SKIPPED, set SLUICE_CLUSTERS=1 as root with nftables, strace and faketime installed");
    }
    skip
}

/// A number that the environment may raise.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// How long each measurement takes.
fn span() -> Duration {
    Duration::from_secs(setting("SLUICE_CLUSTERS_SECONDS", 8))
}

/// A scenario's chance.
fn rng(test: &str) -> Rng {
    Rng::seeded(test, 5)
}

/// The flags of `sluice load` for transfers as fast as nodes answer; another seed is other accounts.
fn as_fast_as_it_goes(seed: u64) -> Vec<String> {
    let txs = setting("SLUICE_CLUSTERS_TXS", 30_000);
    let line = format!("--shape transfer --txs {txs} --batch 10 --settle 1ms --seed {seed}");
    line.split(' ').map(str::to_owned).collect()
}

/// How many transfers a second these nodes take up into blocks, at most.
fn throughput(cluster: &Cluster, nodes: &[usize], seed: u64) -> f64 {
    let report = cluster.load(nodes, &as_fast_as_it_goes(seed));
    let rate = report["rates"]["included_per_second"].as_f64().expect("a rate");
    println!("  to nodes {nodes:?}: {rate:.0} tx/s included, p50 {} ms", report["include_ms"]["p50"]);
    rate
}

/// A cluster whose validators all run and make blocks, under traffic to all of them, looked at from node 0.
struct Scene {
    cluster: Cluster,
    watch: Watch,
    traffic: Traffic,
}

impl Scene {
    fn new(plan: &Plan) -> Self {
        let mut cluster = Cluster::new(plan);
        let validators: Vec<usize> = (0..plan.stakes.len()).collect();
        cluster.start_these(&validators);
        let watch = Watch::start(&cluster.members[0].url, 0);
        let traffic = Traffic::start(&cluster.urls(&validators), PACE);
        let took = cluster.reach(&validators, 5, ALIVE);
        let begun = Instant::now();
        for index in &validators {
            until("all are connected", ALIVE, || (cluster.peers(*index) + 1 >= validators.len()).then_some(()));
        }
        let connected = begun.elapsed();
        println!("  {} validators made 5 blocks in {took:?}, all connected {connected:?} later", validators.len());
        Self { cluster, watch, traffic }
    }

    /// Waits until a validator that was started again is with the others: at their height, connected with all of them,
    /// and in a certificate.
    fn rejoined(&mut self, index: usize) {
        let (begun, tip) = (Instant::now(), self.cluster.height(0));
        self.cluster.reach(&[index], tip, TOGETHER);
        let caught_up = begun.elapsed();
        let others = self.cluster.running().len() - 1;
        until("it is connected with all", TOGETHER, || (self.cluster.peers(index) >= others).then_some(()));
        let connected = begun.elapsed();
        until("it votes", TOGETHER, || self.watch.first(begun + connected, |block| block.signers.contains(&index)));
        let votes = begun.elapsed();
        println!("  node {index} again: at the tip after {caught_up:?}, with all after {connected:?}, votes {votes:?}");
    }

    /// What a stretch of time is like from here on.
    fn measure(&self, what: &str) -> Figures {
        let (begun, span) = (Instant::now(), span());
        throughout(span, || ());
        let figures = Figures::of(&self.watch.seen(), begun, begun + span);
        println!("  {what}: {figures}");
        figures
    }

    /// Time that went by in one validator's windows of which blocks are missing, of four with equal stakes, in a
    /// stretch up to now: the first two windows lost in a row cost a timer each, and every further one half as much
    /// again as the one before. How many fall to a validator that is not heard is chance.
    fn spent_on_timers(&self, sick: usize, from: Instant) -> Duration {
        let to = Instant::now();
        // What is missing at the end is told by the next block.
        until("a block after that", 4 * ALIVE, || self.watch.first(to, |_| true));
        let genesis = self.watch.seen().first().expect("the first block").header.parent_id;
        let validator =
            |number: u8| Validator { public_key: PublicKey([number; 48].into()), stake: 1, operator: Address::ZERO };
        let set = ValidatorSet::new(Epoch(0), (0..4).map(validator).collect()).expect("a set");
        let size = self.cluster.timing.window;
        let schedule = Schedule::new(genesis, &set, size);
        let seen = self.watch.between(from, Instant::now());
        let lost = seen.windows(2).flat_map(|pair| {
            let missing = pair[0].header.slot + 1..pair[1].header.slot;
            let windows = missing.start / size..missing.end.saturating_sub(1) / size + 1;
            windows.take(if missing.is_empty() { 0 } else { usize::MAX }).zip(0_i32..)
        });
        let its = lost.filter(|(window, _)| usize::from(schedule.leader(Slot(window * size)).0) == sick);
        its.map(|(_, before)| self.cluster.timing.timer.mul_f64(1.5_f64.powi((before - 1).max(0)))).sum()
    }

    /// Ends it: every oracle, over all nodes.
    fn finish(self) {
        let Self { mut cluster, watch, traffic } = self;
        drop(traffic);
        cluster.remember(0, &watch);
        drop(watch);
        println!("  oracles: {}", cluster.finish(TOGETHER));
    }
}
