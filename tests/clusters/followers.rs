//! Nodes without a vote: one that starts from nothing, and one that was away.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::cluster::{Plan, until};

use crate::{Scene, setting, skipped};

/// A follower takes up blocks at least so many times as fast as the chain makes them.
const TIMES_AS_FAST: f64 = 10.0;

#[test]
fn a_follower_from_nothing_and_one_that_was_away_reach_the_tip() {
    if skipped("follower") {
        return;
    }
    let blocks = setting("SLUICE_CLUSTERS_BLOCKS", 250);
    println!("a follower of four validators, {blocks} blocks behind");
    let follower = 4;
    let plan = Plan { followers: 1, sluice: json!({"slot_time_ms": 60}), ..Plan::validators(4) };
    let mut scene = Scene::new(&plan);
    for what in ["from nothing", "was away"] {
        let (begun, from) = (Instant::now(), scene.cluster.height(0));
        let limit = Duration::from_secs(blocks);
        let tip =
            until("the chain is ahead", limit, || Some(scene.cluster.height(0)).filter(|tip| *tip >= from + blocks));
        let own_speed = (tip - from) as f64 / begun.elapsed().as_secs_f64();
        let behind = tip - scene.cluster.ledger.highest(follower);
        let begun = Instant::now();
        scene.cluster.start(follower);
        scene.cluster.reach(&[follower], tip, limit);
        let took = begun.elapsed();
        let speed = behind as f64 / took.as_secs_f64();
        println!("  {what}: {behind} blocks in {took:?}, {speed:.0} a second; the chain makes {own_speed:.1}");
        scene.cluster.observe(follower);
        assert!(speed >= TIMES_AS_FAST * own_speed, "{speed:.0} blocks a second, the chain makes {own_speed:.1}");
        // At the tip it stays with the others.
        scene.cluster.advance(&[0, follower], 10, Duration::from_secs(20));
        scene.cluster.stop(follower);
    }
    scene.cluster.start(follower);
    scene.finish();
}
