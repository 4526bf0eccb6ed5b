//! The simulator: equal options give equal runs, crashes between signing and sending take no word back, and whole nodes
//! come through power cuts, lost logs and partitions with one chain.

use tests::{
    simulation::{CrashPoint, Faults, Options, World},
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

fn whole_nodes(seed: u64, has_faults: bool, is_forgetful: bool) -> tests::simulation::Report {
    whole::World::new(whole::Options { seed, validators: 4, seconds: 30, has_faults, is_forgetful }).run()
}

#[test]
fn whole_nodes_come_through_power_cuts_lost_logs_and_partitions_with_one_chain() {
    let (one, again, calm) = (whole_nodes(3, true, false), whole_nodes(3, true, false), whole_nodes(3, false, false));
    assert_eq!((one.violation, calm.violation), (None, None));
    assert_eq!((one.hash, one.height), (again.hash, again.height));
    assert!(calm.height > one.height, "faults cost blocks: {} and {}", calm.height, one.height);
}

#[test]
fn whole_nodes_that_forget_what_they_signed_are_seen() {
    let found = (1..=12).find_map(|seed| whole_nodes(seed, true, true).violation);
    let found = found.expect("somebody says two things");
    assert!(found.contains("after") || found.contains("two proposals"), "{found}");
}
