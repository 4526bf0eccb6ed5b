//! Networks that fail: a partition without a quorum, losses, cuts that go one way.

use std::time::{Duration, Instant};

use tests::{
    cluster::{
        Between, Plan, throughout, until,
        watch::{Watch, ms},
    },
    relay::Conditions,
};

use crate::{ALIVE, Scene, rng, setting, skipped};

#[test]
fn a_partition_without_a_quorum_makes_no_block_and_no_fork_and_heals_within_three_timers() {
    if skipped("partition") {
        return;
    }
    println!("partition of two and two");
    let Scene { mut cluster, watch, traffic } = Scene::new(&Plan::validators(4));
    let other = Watch::start(&cluster.members[2].url, 0);
    let (all, timing) = ([0, 1, 2, 3], cluster.timing);
    for seconds in [setting("SLUICE_CLUSTERS_PARTITION", 4), 3 * setting("SLUICE_CLUSTERS_PARTITION", 4)] {
        let before = cluster.heights(&all);
        cluster.spaces.partition(&[&[0, 1], &[2, 3]]);
        // What was certified before the cut may still become final on its side.
        throughout(2 * timing.slot, || ());
        let cut = cluster.heights(&all);
        throughout(Duration::from_secs(seconds), || {
            assert_eq!(cluster.heights(&all), cut, "a block without a quorum");
        });
        let healed = Instant::now();
        cluster.spaces.heal();
        let firsts = [&watch, &other].map(|watch| {
            let height = *cut.iter().max().expect("four");
            let new = || watch.first(healed, |block| block.reported.height > height);
            until("a new final block", 4 * ALIVE, new).at.duration_since(healed)
        });
        println!("  {seconds} s: at {before:?}, cut at {cut:?}; first new final block on either side after {firsts:?}");
        let slowest = firsts.into_iter().max().expect("two");
        assert!(slowest <= 3 * timing.timer, "{slowest:?} after healing, a timer is {:?}", timing.timer);
        cluster.advance(&all, 5, ALIVE);
    }
    drop((other, traffic));
    cluster.remember(0, &watch);
    drop(watch);
    println!("  oracles: {}", cluster.finish(ALIVE));
}

#[test]
fn one_packet_in_ten_lost_costs_at_most_three_times_the_latency() {
    if skipped("losses") {
        return;
    }
    let seed = rng("losses").next();
    let mut conditions = Conditions { jitter: Duration::from_millis(2), ..Conditions::delay_ms(10) };
    println!("a relay between all nodes, 10 to 12 ms one way");
    let scene = Scene::new(&Plan { between: Between::Relay(seed, conditions), ..Plan::validators(4) });
    let relay = scene.cluster.relay.as_ref().expect("a relay");
    let base = scene.measure("no loss");
    let quiet = relay.pairs().filter(|(from, to)| relay.counts(*from, *to).forwarded == 0).count();
    assert_eq!(quiet, 0, "{quiet} ways carry nothing: packets go another way");
    let mut measured = Vec::new();
    for (loss, reorder) in [(100, 0), (100, 100)] {
        (conditions.loss, conditions.reorder) = (loss, reorder);
        relay.set_all(conditions);
        measured.push(scene.measure(&format!("{loss} of 1000 lost, {reorder} held back 20 ms")));
    }
    println!("  relay: {:?}", relay.total());
    relay.set_all(Conditions { loss: 0, reorder: 0, ..conditions });
    scene.finish();
    for lossy in measured {
        let (p50, mean) = (lossy.finality.p50, lossy.finality.mean);
        assert!(p50 <= 3 * base.finality.p50, "p50 {p50} ms, without loss {}", base.finality.p50);
        assert!(mean <= 3 * base.finality.mean, "mean {mean} ms, without loss {}", base.finality.mean);
    }
}

#[test]
fn cuts_that_go_one_way_do_not_stop_a_connected_quorum() {
    if skipped("one-way cuts") {
        return;
    }
    println!("cuts that go one way; 0, 1 and 2 stay connected");
    let mut scene = Scene::new(&Plan::validators(4));
    let patterns: [(&str, &[(usize, usize)]); 4] = [
        ("3 is not heard by 0", &[(3, 0)]),
        ("3 does not hear 0", &[(0, 3)]),
        ("3 is heard by nobody", &[(3, 0), (3, 1), (3, 2)]),
        ("3 hears nobody", &[(0, 3), (1, 3), (2, 3)]),
    ];
    let slot = scene.cluster.timing.slot;
    for (what, cuts) in patterns {
        cuts.iter().for_each(|(from, to)| scene.cluster.spaces.cut(*from, *to));
        let cut = Instant::now();
        let figures = scene.measure(what);
        // A cut validator's windows cost their timers, however many come in a row; there is no other cost.
        let timers = scene.spent_on_timers(3, cut);
        let least = figures.span.saturating_sub(timers).div_duration_f64(slot * 2);
        let blocks = figures.blocks;
        assert!(blocks as f64 >= least, "{what}: {blocks} blocks, at least {least:.1} besides {timers:?} of timers");
        for leader in 0..3 {
            let leads = || scene.watch.first(cut, |block| block.header.proposer == leader);
            until("each of the connected leads", 3 * ALIVE, leads);
        }
        let begun = Instant::now();
        scene.cluster.spaces.heal();
        scene.cluster.advance(&[0, 1, 2, 3], 2, ALIVE);
        println!("  healed: two blocks at all four after {} ms", ms(begun.elapsed()));
    }
    scene.finish();
}
