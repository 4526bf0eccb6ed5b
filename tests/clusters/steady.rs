//! Clusters with which nothing is wrong: latency, the same state everywhere, unequal stakes, many processes.

use std::time::{Duration, Instant};

use tests::cluster::{
    Cluster, Plan, throughout,
    traffic::Traffic,
    until,
    watch::{Figures, Watch, latencies},
};

use crate::{ALIVE, PACE, Scene, TOGETHER, setting, skipped, span};

#[test]
fn four_validators_keep_one_chain_and_every_transfer_becomes_final() {
    if skipped("four validators") {
        return;
    }
    println!("four validators, {PACE} transfers a second to all of them");
    let mut scene = Scene::new(&Plan::validators(4));
    let begun = Instant::now();
    let figures = scene.measure("steady");
    let settled = settle(&scene);
    println!("  sent to final: {settled}");
    let slot = scene.cluster.timing.slot;
    let p50 = Duration::from_millis(figures.finality.p50);
    assert!(p50 <= 2 * slot, "half of the blocks take more than {p50:?} to be final, slots {slot:?}");
    assert!(figures.transactions_per_second >= 0.9 * PACE as f64, "{figures}");
    let status = scene.cluster.status(0);
    println!("  node 0 says of itself: {}", status["finality"]);
    // All lead, and all vote.
    let seen = scene.watch.between(begun, Instant::now());
    for validator in 0..4 {
        let led = scene.watch.seen().iter().filter(|block| usize::from(block.header.proposer) == validator).count();
        let signed = seen.iter().filter(|block| block.signers.contains(&validator)).count();
        println!("  validator {validator}: led {led} blocks, is in {signed} of {} certificates", seen.len());
        assert!(signed > 0, "validator {validator} is in no certificate");
    }
    let together = scene.cluster.advance(&[0, 1, 2, 3], 2, TOGETHER);
    println!("  two more blocks at all of them in {together:?}");
    scene.finish();
}

/// Waits until every transfer sent before this moment is final, and gives how long they took.
fn settle(scene: &Scene) -> tests::cluster::watch::Percentiles {
    let sent = scene.traffic.sent();
    assert_eq!(scene.traffic.refused().len(), 0, "{:?}", scene.traffic.refused());
    until("every transfer is final", Duration::from_secs(15), || {
        (latencies(&sent, &scene.watch.seen()).count >= sent.len()).then_some(())
    });
    latencies(&sent, &scene.watch.seen())
}

#[test]
fn five_and_seven_validators_of_unequal_stake_keep_one_chain() {
    if skipped("unequal stakes") {
        return;
    }
    for stakes in [vec![1, 1, 2, 3, 5], vec![1, 1, 1, 2, 2, 3, 3]] {
        println!("stakes {stakes:?}");
        let (total, quorum) = (stakes.iter().sum::<u64>(), stakes.iter().sum::<u64>() * 2 / 3 + 1);
        let scene = Scene::new(&Plan { stakes: stakes.clone(), ..Plan::validators(0) });
        let figures = scene.measure("steady");
        assert!(figures.blocks as u128 * 2 >= span().as_millis() / scene.cluster.timing.slot.as_millis(), "{figures}");
        println!("  sent to final: {}", settle(&scene));
        for block in scene.watch.seen() {
            let stake: u64 = block.signers.iter().map(|signer| stakes[*signer]).sum();
            assert!(stake >= quorum, "{stake} of {total} made {:?} final", block.reported);
        }
        scene.finish();
    }
}

/// Not one of the runs of every day: what limits twenty processes on this machine is read from the figures.
#[test]
fn twenty_processes_keep_one_chain() {
    if skipped("twenty processes") || setting("SLUICE_CLUSTERS_WIDE", 0) == 0 {
        println!("twenty processes: set SLUICE_CLUSTERS_WIDE=1 as well");
        return;
    }
    let all: Vec<usize> = (0..20).collect();
    println!("twenty validators, {} transfers a second to four of them", PACE / 4);
    let mut cluster = Cluster::new(&Plan::validators(20));
    cluster.start_these(&all);
    let watch = Watch::start(&cluster.members[0].url, 0);
    let took = cluster.reach(&all, 3, 6 * ALIVE);
    let traffic = Traffic::start(&cluster.urls(&all[..4]), PACE / 4);
    println!("  three blocks at all of them in {took:?}");
    let (begun, before) = (Instant::now(), cluster.usage());
    throughout(3 * span(), || ());
    let (after, figures) = (cluster.usage(), Figures::of(&watch.seen(), begun, Instant::now()));
    println!("  {figures}");
    let cpu = |usage: &[Option<tests::machine::Usage>]| usage.iter().flatten().map(|usage| usage.cpu).sum::<Duration>();
    let used = (cpu(&after) - cpu(&before)).as_secs_f64() / begun.elapsed().as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let resident = after.iter().flatten().map(|usage| usage.resident_bytes >> 20).max().unwrap_or(0);
    println!("  {used:.2} of {cores} cores used by the nodes, the largest has {resident} MiB");
    assert!(figures.blocks > 0, "{figures}");
    drop(traffic);
    cluster.remember(0, &watch);
    drop(watch);
    println!("  oracles: {}", cluster.finish(6 * TOGETHER));
}
