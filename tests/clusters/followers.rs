//! Nodes without a vote: one that starts from nothing, and one that was away.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{
    cluster::{P2P_PORT, Plan, until},
    flood::word,
    liar::Lie,
    namespaces::Place,
};

use crate::{Scene, rng, setting, skipped};

/// A follower takes up blocks at least so many times as fast as the chain makes them.
const TIMES_AS_FAST: f64 = 10.0;

/// Four validators; the chain may be made to grow faster than chains do, so that many blocks are there soon.
fn plan() -> Plan {
    Plan { sluice: json!({"slot_time_ms": setting("SLUICE_CLUSTERS_SLOT_MS", 200)}), ..Plan::validators(4) }
}

#[test]
fn a_follower_from_nothing_and_one_that_was_away_reach_the_tip() {
    if skipped("follower") {
        return;
    }
    let blocks = setting("SLUICE_CLUSTERS_BLOCKS", 100);
    println!("a follower of four validators, {blocks} blocks behind");
    let follower = 4;
    let mut scene = Scene::new(&Plan { followers: 1, ..plan() });
    for what in ["from nothing", "was away"] {
        let (begun, from) = (Instant::now(), scene.cluster.height(0));
        let limit = Duration::from_secs(blocks);
        let tip =
            until("the chain is ahead", limit, || Some(scene.cluster.height(0)).filter(|tip| *tip >= from + blocks));
        let own_speed = (tip - from) as f64 / begun.elapsed().as_secs_f64();
        let behind = tip - scene.cluster.ledger.highest(follower);
        let begun = Instant::now();
        scene.cluster.start(follower);
        let first = scene.cluster.reach(&[follower], tip - behind + 1, limit);
        let took = scene.cluster.reach(&[follower], tip, limit);
        let speed = (behind - 1) as f64 / took.max(Duration::from_millis(1)).as_secs_f64();
        println!(
            "  {what}: first of {behind} blocks {first:?} after it served, the others in {took:?}, from its start"
        );
        println!("  {:?}: {speed:.0} blocks a second; the chain makes {own_speed:.1}", begun.elapsed());
        scene.cluster.observe(follower);
        assert!(speed >= TIMES_AS_FAST * own_speed, "{speed:.0} blocks a second, the chain makes {own_speed:.1}");
        // At the tip it stays with the others.
        scene.cluster.advance(&[0, follower], 10, Duration::from_secs(20));
        scene.cluster.stop(follower);
    }
    scene.cluster.start(follower);
    scene.finish();
}

/// Liars at work; ended when dropped.
struct Liars(Vec<Child>);

impl Liars {
    /// One at each place from `first` on, each with a lie of its own.
    fn start(scene: &Scene, lies: &[Lie], first: usize, to: usize, lasts: Duration) -> Self {
        let spaces = &scene.cluster.spaces;
        let liar = |(number, lie): (usize, &Lie)| {
            let line = spaces.command(Place::Node(first + number));
            Command::new(&line[0])
                .args(&line[1..])
                .arg(env!("CARGO_BIN_EXE_liar"))
                .arg(word(lie))
                .arg(format!("--from={}", spaces.address(first + number)))
                .arg(format!("--to={}:{P2P_PORT}", spaces.address(to)))
                .arg(format!("--honest={}:{P2P_PORT}", spaces.address(0)))
                .arg(format!("--seconds={}", lasts.as_secs().min(3_600)))
                .arg(format!("--seed={}", rng("liar").next() ^ number as u64))
                .spawn()
                .expect("it starts")
        };
        Self(lies.iter().enumerate().map(liar).collect())
    }
}

impl Drop for Liars {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_follower_among_liars_reaches_the_tip_by_the_one_honest_peer() {
    if skipped("liars") {
        return;
    }
    let blocks = setting("SLUICE_CLUSTERS_BLOCKS", 100);
    println!("a follower {blocks} blocks behind, one honest peer, {} liars", Lie::ALL.len());
    let follower = 4;
    let plan = Plan { followers: 1, strangers: Lie::ALL.len(), ..plan() };
    let mut scene = Scene::new(&plan);
    for other in 0..4 {
        scene.cluster.spaces.cut(other, follower);
        scene.cluster.spaces.cut(follower, other);
    }
    let (begun, limit) = (Instant::now(), Duration::from_secs(60 + blocks));
    let tip = until("the chain is ahead", limit, || Some(scene.cluster.height(0)).filter(|tip| *tip >= blocks));
    let own_speed = tip as f64 / begun.elapsed().as_secs_f64();
    let liars = Liars::start(&scene, &Lie::ALL, follower + 1, follower, limit);
    scene.cluster.start(follower);
    until("the liars are its peers", limit, || (scene.cluster.peers(follower) == Lie::ALL.len()).then_some(()));
    let (begun, had) = (Instant::now(), scene.cluster.height(follower));
    scene.cluster.spaces.lose(0, follower, 0);
    scene.cluster.spaces.lose(follower, 0, 0);
    let took = scene.cluster.reach(&[follower], tip, limit);
    let speed = tip.saturating_sub(had) as f64 / took.max(Duration::from_millis(1)).as_secs_f64();
    println!("  from {had} to {tip} in {took:?}: {speed:.0} blocks a second; the chain makes {own_speed:.1}");
    scene.cluster.advance(&[0, follower], 10, Duration::from_secs(30));
    println!("  at the tip with the others after {:?}", begun.elapsed());
    println!("  {:?}", scene.cluster.metrics(follower, &["net_peer_"]));
    drop(liars);
    scene.cluster.spaces.heal();
    scene.finish();
    // A short way is over before it is known who lies.
    assert!(blocks < 1_000 || speed >= TIMES_AS_FAST * own_speed, "{speed:.0} blocks a second");
}
