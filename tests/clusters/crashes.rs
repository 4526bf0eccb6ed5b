//! Processes that die: f of them for good, a leader in the middle of its window, one validator again and again, all at
//! once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tests::cluster::{
    Cluster, Plan,
    ledger::notarized,
    throughout, until,
    watch::{Percentiles, Watch, ms},
};

use crate::{ALIVE, Scene, TOGETHER, as_fast_as_it_goes, rng, setting, skipped, throughput};

/// A validator that was killed serves, and votes again, within this time.
const VOTES_AGAIN: Duration = Duration::from_secs(5);

#[test]
fn with_f_crashed_the_rest_bears_its_share_of_the_load() {
    if skipped("f crashed") {
        return;
    }
    println!("f crashed: transfers as fast as the nodes answer");
    let mut cluster = Cluster::new(&Plan::validators(4));
    cluster.start_all();
    cluster.reach(&[0, 1, 2, 3], 3, ALIVE);
    let base = throughput(&cluster, &[0, 1, 2, 3], 1);
    cluster.kill(3);
    let crashed = throughput(&cluster, &[0, 1, 2], 2);
    println!("  {:.2} of the throughput of all four", crashed / base);
    cluster.start(3);
    cluster.advance(&[0, 1, 2, 3], 3, TOGETHER);
    println!("  oracles: {}", cluster.finish(TOGETHER));
    assert!(crashed >= 0.75 * base, "{crashed:.0} tx/s with one of four crashed, {base:.0} with all");
}

#[test]
fn a_leader_killed_in_its_window_costs_one_timer_and_no_notarized_block() {
    if skipped("leader killed") {
        return;
    }
    println!("leader killed in the middle of its window");
    let mut scene = Scene::new(&Plan::validators(4));
    let timing = scene.cluster.timing;
    let usual = scene.measure("before").gap.p50;
    for _ in 0..setting("SLUICE_CLUSTERS_LEADERS", 3) {
        let leads = || {
            let last = scene.watch.last()?;
            let leader = usize::from(last.header.proposer);
            let early = last.header.slot % timing.window < timing.window / 2;
            (leader != 0 && early && last.at.elapsed() < timing.slot / 4).then_some((leader, last))
        };
        let (leader, _) = until("another leader begins its window", 2 * ALIVE, leads);
        scene.cluster.kill(leader);
        let died = Instant::now();
        let held = notarized(&scene.cluster.log_lines(leader));
        let other = |block: &tests::cluster::watch::Seen| usize::from(block.header.proposer) != leader;
        let after = until("a block of another leader", ALIVE, || scene.watch.first(died, other));
        let seen = scene.watch.seen();
        let before = seen.iter().rev().find(|block| block.at < after.at).expect("blocks before it").clone();
        // Windows that the dead leader leads in a row cost a timer each, the later ones a longer one.
        let windows = (after.header.slot / timing.window).saturating_sub(before.header.slot / timing.window);
        // After an empty block a leader may wait for a transaction, and is waited for: in the window from its start on.
        let start = (before.header.slot + 1) / timing.window * timing.window;
        let waited_for = |block: &&tests::cluster::watch::Seen| block.header.slot + 1 >= start && block.at <= before.at;
        let counts: Vec<usize> = seen.iter().filter(waited_for).map(|block| block.transactions.len()).collect();
        let empty = u32::try_from(counts.iter().filter(|count| **count == 0).count()).expect("few");
        let first = timing.timer + (timing.idle_timer - timing.timer) * empty;
        let timers = std::iter::successors(Some(first), |timer| Some(timer.mul_f64(1.5)));
        let allowed: Duration = timers.zip(0..windows.max(1)).map(|(timer, _)| timer).sum();
        let cost = ms(after.at.duration_since(before.at)).saturating_sub(usual);
        let (from, to) = (before.header.slot, after.header.slot);
        println!(
            "  validator {leader} died: {cost} ms lost from slot {from} to {to}, after blocks of {counts:?} transactions"
        );
        // The rest is what signing, syncing and sending take on a machine that is shared by all of them.
        let allowed = allowed + 2 * timing.slot;
        assert!(cost <= ms(allowed), "{cost} ms lost, at most {allowed:?}; one timer is {first:?}");
        let beyond = |block: &tests::cluster::watch::Seen| block.header.slot >= after.header.slot + 2;
        until("the chain goes on", ALIVE, || scene.watch.first(died, beyond));
        let seen = scene.watch.seen();
        let ids: BTreeSet<_> = seen.iter().map(|block| block.id).collect();
        let first = seen.first().expect("blocks").slot;
        let lost: Vec<_> = held.iter().filter(|(slot, id)| *slot >= first && !ids.contains(id)).collect();
        assert!(lost.is_empty(), "notarized and not in the chain: {lost:?}");
        println!("  {} notarized blocks in its log, all of them in the chain", held.len());
        scene.cluster.start(leader);
        scene.rejoined(leader);
    }
    scene.finish();
}

#[test]
fn a_validator_killed_at_random_moments_never_signs_twice_and_votes_again_soon() {
    if skipped("validator killed") {
        return;
    }
    let (kills, victim) = (setting("SLUICE_CLUSTERS_KILLS", 8), 1);
    println!("validator {victim} killed {kills} times");
    let mut rng = rng("validator killed");
    let mut scene = Scene::new(&Plan::validators(4));
    let (mut serves, mut votes) = (Vec::new(), Vec::new());
    for _ in 0..kills {
        throughout(Duration::from_micros(rng.below(1_200_000)), || ());
        scene.cluster.kill(victim);
        let signed = scene.cluster.ledger.last_signed(victim).expect("it has signed something");
        let started = Instant::now();
        scene.cluster.start(victim);
        serves.push(ms(started.elapsed()));
        let again = until("it votes again", 4 * VOTES_AGAIN, || {
            scene.watch.first(started, |block| block.certified > signed && block.signers.contains(&victim))
        });
        votes.push(ms(again.at.duration_since(started)));
    }
    let (serves, votes) = (Percentiles::of(serves), Percentiles::of(votes));
    println!("  from its start: serves after {serves}; in a certificate after {votes}");
    scene.finish();
    assert!(Duration::from_millis(votes.most) <= VOTES_AGAIN, "it voted again only after {votes}");
}

#[test]
fn a_validator_killed_at_full_load_votes_again_soon() {
    if skipped("killed at full load") {
        return;
    }
    let victim = 1;
    println!("validator {victim} killed while the others get transfers as fast as they answer");
    let Scene { mut cluster, watch, traffic } = Scene::new(&Plan::validators(4));
    drop(traffic);
    let mut loading = cluster.start_load(&[0, 2, 3], &as_fast_as_it_goes(3));
    let begun = Instant::now();
    until("the load is there", ALIVE, || watch.first(begun, |block| block.transactions.len() > 100));
    cluster.kill(victim);
    let signed = cluster.ledger.last_signed(victim).expect("it has signed something");
    let started = Instant::now();
    cluster.start(victim);
    let again = |block: &tests::cluster::watch::Seen| block.certified > signed && block.signers.contains(&victim);
    let again = until("it votes again", 4 * VOTES_AGAIN, || watch.first(started, again));
    let (took, rest) = (again.at.duration_since(started), loading.is_under_way());
    let report = loading.end();
    println!("  in a certificate {took:?} after its start, the load under way: {rest}; {}", report["rates"]);
    drop(watch);
    println!("  oracles: {}", cluster.finish(TOGETHER));
    assert!(rest, "the load was over before it voted");
    assert!(took <= 2 * VOTES_AGAIN, "it voted again only after {took:?}");
}

#[test]
fn all_killed_at_once_lose_nothing_that_any_of_them_reported_final() {
    if skipped("all killed") {
        return;
    }
    println!("all four killed at once");
    let mut rng = rng("all killed");
    let all = [0, 1, 2, 3];
    let Scene { mut cluster, watch, traffic } = Scene::new(&Plan::validators(4));
    drop(watch);
    for round in 0..setting("SLUICE_CLUSTERS_BLACKOUTS", 3) {
        let watches = all.map(|index| Watch::start(&cluster.members[index].url, cluster.ledger.highest(index)));
        throughout(Duration::from_micros(1_000_000 + rng.below(800_000)), || ());
        cluster.kill_all(&all);
        for (index, watch) in all.into_iter().zip(&watches) {
            cluster.remember(index, watch);
        }
        let told = watches.iter().map(Watch::told).collect::<Vec<_>>();
        drop(watches);
        let begun = Instant::now();
        cluster.start_all();
        let served = begun.elapsed();
        // Each has all that it had reported, before it has heard from anybody.
        all.into_iter().for_each(|index| cluster.observe(index));
        let highest = told.iter().max().copied().unwrap_or(0);
        cluster.reach(&all, highest + 1, ALIVE);
        let first = begun.elapsed();
        println!("  round {round}: told {told:?}, all serve after {served:?}, a new block at all after {first:?}");
    }
    drop(traffic);
    println!("  oracles: {}", cluster.finish(TOGETHER));
}
