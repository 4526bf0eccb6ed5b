//! The simulator: equal options give equal runs, crashes between signing and sending take no word back, finality
//! between distant hosts is as fast as it should be, and whole nodes come through power cuts, lost logs and partitions
//! with one chain.

use std::time::Duration;

use tests::{
    simulation::{CrashPoint, Faults, Lie, Options, Report, World},
    whole,
};

fn faults(names: &str) -> Faults {
    Faults::parse(names).expect("names of faults")
}

#[test]
fn equal_options_give_equal_runs_and_other_seeds_give_others() {
    let run = |seed| World::new(Options::cluster(seed, 4, 60, faults("all"))).run();
    let (one, again, other) = (run(7), run(7), run(8));
    assert_eq!(one.json(), again.json());
    assert_ne!(one.hash, other.hash);
    assert!(one.violation.is_none() && other.violation.is_none());
}

#[test]
fn crashes_between_signing_writing_sending_and_committing_give_no_double_sign() {
    let mut counted = [0_u64; CrashPoint::COUNT];
    for (seed, names) in (1..).zip(["all", "none", "torn-log,lost-log,old-log,loss", "equivocate,epochs,slow-disk"]) {
        for seed in seed * 100..seed * 100 + 10 {
            let options = Options::cluster(seed, 4, 60, faults(names));
            let report = World::new(Options { crash_points_per_mille: 40, ..options }).run();
            assert_eq!(report.violation, None, "seed {seed}, faults {names}");
            counted.iter_mut().zip(report.crash_points).for_each(|(sum, count)| *sum += count);
        }
    }
    println!("{} crash points: {counted:?}", counted.iter().sum::<u64>());
    for ((point, _), count) in CrashPoint::ALL.iter().zip(counted) {
        assert!(count >= 50, "{count} crashes at {point:?}");
    }
}

/// Leaders once built for a slot time what others took two to execute: those fell behind, and windows were skipped.
#[test]
fn leaders_build_what_everybody_can_follow() {
    for (percent, seconds_min) in [(60, 90), (200, 36), (600, 10)] {
        let options = Options { full_percent: Some(percent), ..Options::cluster(9, 4, 120, faults("none")) };
        let report = World::new(options).run();
        assert_eq!(report.violation, None);
        let [skipped, _] = report.skipped;
        let (built, slots) = (report.built_us / 1_000_000, report.slots);
        println!("executed in {percent} %: {built} s of builds, {skipped} of {slots} slots skipped");
        assert!(built >= seconds_min, "{built} s of builds are final, executed in {percent} %");
        assert!(skipped * 20 <= slots, "{skipped} of {slots} slots were skipped");
    }
}

/// A validator that was away and a follower that begins with nothing, both behind a chain of which this many seconds
/// passed; how long they took to be there, at most, in microseconds.
fn caught_up(options: Options, heights_min: u64) -> u64 {
    let (seed, lie) = (options.seed, options.lie);
    let report = World::new(options).run();
    assert_eq!(report.violation, None, "seed {seed}, {lie:?}");
    assert_eq!(report.caught_up.len(), 2, "seed {seed}, {lie:?}: {:?}", report.caught_up);
    println!("seed {seed}, {lie:?}: heights and us {:?}", report.caught_up);
    assert!(report.caught_up.iter().all(|(heights, _)| *heights >= heights_min), "{:?}", report.caught_up);
    report.caught_up.iter().map(|(_, us)| *us).max().expect("two")
}

#[test]
fn who_was_away_comes_to_the_tip_at_ten_times_the_pace_of_the_chain_though_all_but_one_lie() {
    for seed in 1..=3 {
        for lie in Lie::ALL.into_iter().map(Some).chain([None]) {
            let options = Options::sync(seed, lie, 100);
            let (away, back) = options.away_us.expect("somebody is away");
            let took = caught_up(options, 900);
            assert!(took * 10 <= back - away, "seed {seed}, {lie:?}: {took} us");
        }
    }
}

#[test]
fn thousands_of_heights_and_many_epochs_are_caught_up_at_that_pace() {
    for seed in [4, 6] {
        let options = Options::sync(seed, Some(Lie::Mixed), 600);
        let (away, back) = options.away_us.expect("somebody is away");
        let took = caught_up(options, 6_000);
        assert!(took * 10 <= back - away, "seed {seed}: {took} us");
    }
}

/// More blocks became final at once than fit one answer, at every peer and everywhere in the chain.
#[test]
fn where_no_range_can_be_proven_blocks_are_fetched_by_hash_from_the_nearest_certificate() {
    for seed in [2, 4] {
        let options = Options { truthful: None, ..Options::sync(seed, Some(Lie::Bare), 100) };
        let (away, back) = options.away_us.expect("somebody is away");
        let took = caught_up(options, 900);
        assert!(took * 2 <= back - away, "seed {seed}: {took} us");
    }
}

fn whole_nodes(seed: u64, has_faults: bool, is_forgetful: bool) -> Report {
    let is_away = false;
    whole::World::new(whole::Options { seed, validators: 4, seconds: 40, has_faults, is_forgetful, is_away }).run()
}

#[test]
fn a_whole_node_that_was_away_comes_back_by_ranges_over_many_epochs() {
    let options =
        whole::Options { seed: 5, validators: 4, seconds: 60, has_faults: false, is_forgetful: false, is_away: true };
    let report = whole::World::new(options).run();
    assert_eq!(report.violation, None);
    let (behind, blocks) = report.caught_up.first().copied().expect("the node that was away");
    assert!(behind >= 100 && blocks >= behind, "{blocks} blocks came in ranges to a node {behind} heights behind");
}

/// Nobody served the tail headers of an epoch that had ended, so who had missed them stayed in it for ever.
#[test]
fn whole_nodes_catch_up_over_an_epoch_that_ended_with_a_tail_header() {
    assert_eq!(whole_nodes(212_123_255, true, false).violation, None);
}

#[test]
fn whole_nodes_come_through_power_cuts_lost_logs_and_partitions_with_one_chain() {
    let listed = engine::metrics::BLOCK_LISTED.value();
    let (one, again, calm) = (whole_nodes(3, true, false), whole_nodes(3, true, false), whole_nodes(3, false, false));
    assert_eq!((one.violation, calm.violation), (None, None));
    assert!(engine::metrics::BLOCK_LISTED.value() > listed, "blocks are executed along their lists");
    assert_eq!(vm::metrics::REPLAY_MISMATCH.value(), 0, "which are the blocks' own");
    assert_eq!((one.hash, one.height), (again.hash, again.height));
    assert!(calm.height > one.height, "faults cost blocks: {} and {}", calm.height, one.height);
}

#[test]
fn whole_nodes_that_forget_what_they_signed_are_seen() {
    let found = (1..=12).find_map(|seed| whole_nodes(seed, true, true).violation);
    let found = found.expect("somebody says two things");
    assert!(found.contains("after") || found.contains("two proposals"), "{found}");
}

/// Validators around the world: one way takes 75 ms in the median and 150 ms at most, one message in a hundred is lost.
fn wide(validators: usize, seconds: u64, delta_ms: u64, absent_leader: Option<u64>) -> Report {
    let mut options = Options::cluster(1, validators, seconds, Faults::default());
    (options.delay.median_us, options.timing.delta) = (75_000, Duration::from_millis(delta_ms));
    let report = World::new(Options { is_wide: true, loss_per_mille: 10, absent_leader, ..options }).run();
    assert_eq!(report.violation, None);
    println!("{}", report.pace(seconds));
    report
}

#[test]
fn a_hundred_validators_around_the_world_agree_within_three_delays() {
    let report = wide(100, 5, 150, None);
    assert_eq!(report.skipped, [0, 0]);
    assert!(report.finality(500) <= 300_000, "half of all take {} us", report.finality(500));
    assert!(report.finality(990) <= 600_000, "99 of 100 take {} us", report.finality(990));
    assert!(report.gaps_us().0 <= 200_000, "a slot takes {} us", report.gaps_us().0);
}

#[test]
fn a_leader_that_is_not_there_costs_one_timer() {
    for (delta_ms, timer_us) in [(150, 1_000_000), (75, 700_000)] {
        let report = wide(10, 8, delta_ms, Some(4));
        assert!(report.skipped[0] == 0 && report.skipped[1] > 0, "{:?}", report.skipped);
        // The slot that passes anyway, the timer, and one delay for the votes to skip.
        let most = 200_000 + timer_us + 150_000;
        assert!(report.gaps_us().1 <= most, "nothing was final for {} us, {most} are allowed", report.gaps_us().1);
    }
}
