//! Every bug that can be planted in ordering is seen: by the simulator here, or by the model in `tests/models`.

use std::{fs, path::Path};

use engine::ordering::planted::{Bug, Planted};
use tests::simulation::{Faults, Lie, Options, World};

/// A change of ordering or of the simulator moves the seed that finds a bug; so many are looked at from there on.
const SEEDS: u64 = 60;

/// Where a bug is seen: the run, the first seed to look at, and words of what the simulator then says.
struct Case {
    bug: Bug,
    faults: &'static str,
    validators: usize,
    crash_points_per_mille: u64,
    seed: u64,
    says: &'static str,
    /// The run is one of those in which somebody is far behind.
    is_sync: bool,
}

const fn case(bug: Bug, faults: &'static str, seed: u64, says: &'static str) -> Case {
    Case { bug, faults, validators: 4, crash_points_per_mille: 0, seed, says, is_sync: false }
}

/// The same with crashes between signing and sending.
const fn struck(bug: Bug, faults: &'static str, seed: u64, says: &'static str) -> Case {
    Case { crash_points_per_mille: 40, ..case(bug, faults, seed, says) }
}

const SIMULATED: [Case; 31] = [
    case(Bug::NotarizeAfterSkip, "partition", 1, "in a window that it skipped"),
    case(Bug::NotarizeOnUncertifiedParent, "all", 1, "on a parent without a certificate"),
    case(Bug::NotarizeOverGap, "withhold,partition", 1, "which was not skipped"),
    case(Bug::NotarizeUnexecuted, "none", 1, "that it did not execute"),
    case(Bug::NotarizeInvalid, "invalid-blocks", 1, "votes Notarize"),
    case(Bug::IgnoreFloor, "lost-log", 1, "with the floor of the log at"),
    struck(Bug::SkipNotarized, "lost-log", 600, "a slot whose Notarization it holds"),
    case(Bug::ProposeOnOldBase, "partition", 1, "below the certified block"),
    case(Bug::ClearEarly, "partition", 1, "is not decided"),
    case(Bug::KeepCertificates, "none", 1, ""),
    case(Bug::CommitWithoutAncestors, "partition", 1, "committed on"),
    case(Bug::SendBeforeSync, "none", 1, "left before it was in the log"),
    struck(Bug::ForgetVotes, "crash", 2, "in a window that"),
    struck(Bug::ForgetFloor, "lost-log", 1, "with the floor of the log at"),
    case(Bug::IgnoreAmnesia, "old-log", 1, "while it may have signed up to"),
    struck(Bug::ProposeAfterRestart, "crash", 1, "a second block of the slot"),
    case(Bug::KeepSet, "epochs", 1, "the aggregate signature does not hold"),
    case(Bug::BeginOnTail, "all", 1, ""),
    case(Bug::IgnoreNextSet, "wrong-set,epochs", 1, "that names another next set"),
    case(Bug::AcceptOldEpoch, "epochs", 1, "which is honest: a certificate that does not hold"),
    Case { validators: 6, ..case(Bug::QuorumLessOne, "none", 1, "by a stake of 400") },
    case(Bug::CountHeads, "weights,partition", 1, "is below the quorum"),
    case(Bug::CountTwice, "duplicate", 1, "is below the quorum"),
    case(Bug::AcceptUnverified, "forge", 1, "is certified by a stake of 100"),
    case(Bug::KeepBadShare, "bad-shares", 1, "the aggregate signature does not hold"),
    case(Bug::FinalizeUnfetched, "loss", 1, "that it did not execute"),
    case(Bug::AcceptWrongBlock, "wrong-blocks,partition", 1, ""),
    Case { validators: 5, is_sync: true, ..case(Bug::TakeUnproven, "epochs", 1, "holds Finalize") },
    case(Bug::NeverResetTimers, "dead", 1, "lasts"),
    case(Bug::AccuseHonest, "partition", 1, "is honest and accused"),
    case(Bug::DropEvidence, "equivocate", 1, "and no evidence"),
];

/// Ordering does not even ask the rules for these, so only the model, which asks for everything, gets to them.
const MODELLED: [Bug; 6] = [
    Bug::NotarizeTwice,
    Bug::FinalizeAfterSkip,
    Bug::FinalizeUnnotarized,
    Bug::FinalizeTwice,
    Bug::SkipAfterFinalize,
    Bug::ProposeTwice,
];

impl Case {
    /// What the simulator says of a run of this seed, with the bug or without.
    fn violation(&self, seed: u64, planted: Planted) -> Option<String> {
        let faults = Faults::parse(self.faults).expect("names of faults");
        let crash_points_per_mille = self.crash_points_per_mille;
        if self.is_sync {
            return World::new(Options { planted, ..Options::sync(seed, Some(Lie::WrongBlocks), 40) }).run().violation;
        }
        let cluster = Options::cluster(seed, self.validators, 60, faults);
        World::new(Options { planted, crash_points_per_mille, ..cluster }).run().violation
    }
}

#[test]
fn the_simulator_sees_planted_bugs_and_nothing_where_none_is() {
    for case in SIMULATED {
        let Case { bug, faults, validators, crash_points_per_mille: points, .. } = case;
        let seen = (case.seed..case.seed + SEEDS)
            .find_map(|seed| Some((seed, case.violation(seed, Planted(Some(bug)))?)))
            .unwrap_or_else(|| panic!("{bug:?} is not seen in {SEEDS} seeds with {faults}"));
        let (seed, says) = seen;
        let short = says.split(" {").next().unwrap_or_default();
        println!("| {bug:?} | {faults} | {validators} | {points} | {seed} | {short} |");
        assert!(says.contains(case.says), "{bug:?}, seed {seed}: {says}");
        assert_eq!(case.violation(seed, Planted::default()), None, "seed {seed} with {faults}, and nothing planted");
    }
}

#[test]
fn every_bug_has_a_place_where_it_is_seen_and_a_line_that_says_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/MUTATIONS.md");
    let lines = fs::read_to_string(path).expect("a list of mutations");
    for bug in Bug::ALL {
        let places = SIMULATED.iter().filter(|case| case.bug == bug).count()
            + MODELLED.iter().filter(|modelled| **modelled == bug).count();
        assert_eq!(places, 1, "{bug:?}");
        assert!(lines.contains(&format!("| {bug:?} |")), "{bug:?} has no line");
    }
}
