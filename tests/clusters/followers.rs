//! Nodes without a vote: one that starts from nothing, and one that was away.

use std::time::{Duration, Instant};

use tests::cluster::{Plan, until};

use crate::{Scene, setting, skipped};

/// A follower takes up blocks at least so many times as fast as the chain makes them.
const TIMES_AS_FAST: f64 = 10.0;

#[test]
fn a_follower_from_nothing_and_one_that_was_away_reach_the_tip() {
    if skipped("follower") {
        return;
    }
    let blocks = setting("SLUICE_CLUSTERS_BLOCKS", 100);
    println!("a follower of four validators, {blocks} blocks behind");
    let follower = 4;
    let mut scene = Scene::new(&Plan { followers: 1, ..Plan::validators(4) });
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
