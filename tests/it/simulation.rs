//! The simulator: equal options give equal runs, and crashes between signing and sending take no word back.

use tests::simulation::{CrashPoint, Faults, Options, World};

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
