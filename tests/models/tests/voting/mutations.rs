//! Bugs planted in the rules, in counting and in what is remembered: the model finds each of them.
//!
//! `tests/models/MUTATIONS.md` is the list of all planted bugs with the property that each breaks.

use std::collections::BTreeSet;

use engine::ordering::planted::Bug;
use stateright::{Checker, HasDiscoveries, Model};

use super::{
    exhaust, is_wide,
    network::{Knowledge, Network, Restarts, Setting, Timers},
    properties::{
        AGREEMENT, ANCESTRY, FINISHED, FRONTIER, HEARD, HONEST_WORD, LEFT, ONE_NOTARIZATION, ONE_PROPOSAL, PROGRESS,
        SKIP_OR_FINAL, VALID,
    },
    setting, whole,
};

/// Two faulty validators with dust, two honest ones without whom nothing is decided.
fn dust() -> Setting {
    Setting { honest: vec![10, 10], faulty: vec![1, 1], ..free() }
}

/// Any skip at any time, certificates as soon as it is harmless; two slots.
fn free() -> Setting {
    Setting { timers: Timers::Free, knowledge: Knowledge::Eager, ..setting(0, 2, 1) }
}

fn restarting(restarts: Restarts) -> Setting {
    Setting { timers: Timers::Free, restarts, ..whole(0, 1, 1) }
}

fn led() -> Setting {
    Setting { leaders: vec![None, Some(0)], ..whole(0, 2, 1) }
}

/// Half of the stake is faulty: nothing can be promised but that the honest do not contradict themselves.
fn beyond(restarts: Restarts) -> Setting {
    Setting { honest: vec![1, 1], faulty: vec![1, 1], restarts, timers: Timers::Free, ..whole(0, 1, 1) }
}

/// Looks for a state that breaks one property, and prints how it was found.
fn find(planted: Option<Bug>, property: &'static str, setting: Setting) {
    let setting = Setting { planted, only: Some(property), ..setting };
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = Network::new(setting).checker().finish_when(wanted).spawn_bfs().join();
    let name = planted.map_or_else(|| "no bug".to_owned(), |bug| format!("{bug:?}"));
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{name} does not break that {property}"));
    let steps = path.into_actions();
    println!("| {name} | {property} | {} | {} |", checker.unique_state_count(), steps.len());
    if std::env::var("SLUICE_MODELS_TRACE").is_ok() {
        println!("{steps:#?}");
    }
}

#[test]
fn bugs_in_the_rules_are_found() {
    let lost = || restarting(Restarts::LogWithoutCertificates);
    find(Some(Bug::NotarizeTwice), ONE_NOTARIZATION, free());
    find(Some(Bug::NotarizeAfterSkip), LEFT, whole(0, 1, 1));
    find(Some(Bug::NotarizeOnUncertifiedParent), ANCESTRY, free());
    find(Some(Bug::NotarizeOnUncertifiedParent), AGREEMENT, free());
    find(Some(Bug::NotarizeOverGap), ANCESTRY, free());
    find(Some(Bug::NotarizeOverGap), AGREEMENT, free());
    find(Some(Bug::NotarizeUnexecuted), VALID, whole(0, 1, 1));
    find(Some(Bug::NotarizeInvalid), VALID, whole(0, 1, 1));
    find(Some(Bug::FinalizeAfterSkip), SKIP_OR_FINAL, free());
    find(Some(Bug::FinalizeAfterSkip), AGREEMENT, free());
    find(Some(Bug::FinalizeUnnotarized), ANCESTRY, free());
    find(Some(Bug::FinalizeUnnotarized), AGREEMENT, free());
    find(Some(Bug::FinalizeTwice), HONEST_WORD, beyond(Restarts::LogWithoutCertificates));
    find(Some(Bug::SkipAfterFinalize), SKIP_OR_FINAL, lost());
    find(Some(Bug::SkipNotarized), FINISHED, whole(0, 1, 1));
    find(Some(Bug::ProposeTwice), ONE_PROPOSAL, led());
    find(Some(Bug::ProposeOnOldBase), HEARD, led());
    find(Some(Bug::ClearEarly), FRONTIER, Setting { timers: Timers::Free, ..whole(0, 2, 1) });
}

#[test]
fn bugs_in_counting_are_found() {
    find(Some(Bug::QuorumLessOne), AGREEMENT, free());
    find(Some(Bug::QuorumLessOne), AGREEMENT, Setting { honest: vec![34, 32, 1], faulty: vec![33], ..free() });
    find(Some(Bug::CountTwice), AGREEMENT, free());
    find(Some(Bug::CountHeads), AGREEMENT, dust());
    exhaust("two Byzantine validators with dust", dust());
}

#[test]
fn bugs_in_what_is_remembered_are_found() {
    let lost = || restarting(Restarts::LogWithoutCertificates);
    find(Some(Bug::ForgetVotes), HONEST_WORD, restarting(Restarts::Log));
    find(Some(Bug::ForgetVotes), SKIP_OR_FINAL, lost());
    find(Some(Bug::ForgetFloor), HONEST_WORD, lost());
    find(Some(Bug::IgnoreFloor), HONEST_WORD, lost());
    find(Some(Bug::KeepCertificates), PROGRESS, whole(0, 1, 1));
    // A Finalize vote whose Notarization is lost neither helps the slot nor lets it be skipped.
    find(None, PROGRESS, lost());
}

#[test]
fn a_third_of_faulty_stake_can_fork_and_the_honest_still_keep_their_word() {
    find(None, AGREEMENT, beyond(Restarts::Never));
    for restarts in [Restarts::Never, Restarts::Log, Restarts::LogWithoutCertificates] {
        let setting = Setting { only: Some(HONEST_WORD), ..beyond(restarts) };
        exhaust(&format!("half of the stake is faulty, {restarts:?}"), setting);
    }
}

#[test]
fn some_clauses_serve_progress_alone() {
    let (slots, property) = if is_wide() { (2, AGREEMENT) } else { (1, SKIP_OR_FINAL) };
    for bug in [Bug::NotarizeAfterSkip, Bug::SkipNotarized] {
        let planted = Some(bug);
        let setting = Setting { planted, timers: Timers::Free, only: Some(property), ..whole(0, slots, slots) };
        exhaust(&format!("{bug:?} does not fork, {slots} slots"), setting);
    }
}
