//! Who is in a cluster: keys, stakes, sets by epoch, and which validators are faulty.

use engine::types::{ValidatorIndex, ValidatorSet};

use super::{
    answers::Lie, disk::Disk, faults::FaultKind, keys::set, ledger::Ledger, node::Node, options::Options,
    watch::Watched, witness::Witness,
};
use crate::rng::Rng;

pub(super) fn secret_of(validator: usize) -> u64 {
    0x1000 + validator as u64
}

/// Place of a key in an epoch's set.
pub(super) fn index_of(options: &Options, secret: u64, epoch: u64) -> Option<ValidatorIndex> {
    let size = options.validators as u64;
    if secret - secret_of(0) >= size {
        return None;
    }
    let place = (secret - secret_of(0) + epoch_turn(options, epoch)) % size;
    u16::try_from(place).ok().map(ValidatorIndex)
}

/// The key at a place in an epoch's set.
pub(super) fn secret_at(options: &Options, index: ValidatorIndex, epoch: u64) -> u64 {
    let size = options.validators as u64;
    let validator = (u64::from(index.0) + size - epoch_turn(options, epoch)) % size;
    secret_of(0) + validator
}

/// By how many places the set of an epoch is turned.
fn epoch_turn(options: &Options, epoch: u64) -> u64 {
    if options.faults.has(FaultKind::Epochs) { epoch % options.validators as u64 } else { 0 }
}

/// The set of an epoch: where epochs are short, every one has another order and other stakes.
pub(super) fn members(options: &Options, stakes: &[u64], epoch: u64) -> ValidatorSet {
    let size = options.validators as u64;
    let turn = epoch_turn(options, epoch);
    let member = |place: u64| {
        let validator = (place + size - turn) % size;
        (secret_of(0) + validator, stakes[usize::try_from(validator).expect("small")])
    };
    set(epoch, &(0..size).map(member).collect::<Vec<_>>())
}

pub(super) fn stakes(options: &Options, rng: &mut Rng) -> Vec<u64> {
    let even = vec![100; options.validators];
    if !options.faults.has(FaultKind::Weights) {
        return even;
    }
    match rng.below(3) {
        // One just under a third, the others even.
        0 => {
            let others = options.validators as u64 - 1;
            let mut stakes = vec![100; options.validators];
            stakes[0] = (others * 100 / 2).saturating_sub(1).max(1);
            stakes
        }
        // Dust beside a few.
        1 => (0..options.validators).map(|at| if at < 4 { 1_000 } else { 1 }).collect(),
        _ => (0..options.validators).map(|_| 50 + rng.below(100)).collect(),
    }
}

/// A validator, or a node that only follows, on an empty disk.
fn node(options: &Options, validator: usize, fault: Option<FaultKind>, rng: &mut Rng) -> Node {
    Node {
        secret: secret_of(validator),
        fault,
        machine: None,
        start: 0,
        disk: Disk::default(),
        committed: 0,
        top: None,
        durable_at: 0,
        synced_at: 0,
        wake: (u64::MAX, 0),
        job: None,
        execute_us: if options.faults.has(FaultKind::SlowExecutor) && rng.below(4) == 0 {
            options.execute_us * 20
        } else {
            options.execute_us
        },
        sync_us: if options.faults.has(FaultKind::SlowDisk) && rng.below(4) == 0 {
            options.sync_us * 100
        } else {
            options.sync_us
        },
        clock_ppm: 1_000_000,
        clock_ahead_ms: 0,
        clock_stopped_ms: None,
        is_jumping: false,
        has_forgotten: false,
        backup: None,
        ledger: Ledger::default(),
        witness: Witness::default(),
        watched: Watched::default(),
        executed: std::collections::BTreeSet::new(),
        notarized: std::collections::BTreeSet::new(),
        is_absent: false,
        is_late: false,
        lie: None,
        busy_us: 0,
        cpu_us: 0,
        sent_bytes: 0,
    }
}

pub(super) fn nodes(options: &Options, stakes: &[u64], rng: &mut Rng) -> Vec<Node> {
    let total: u64 = stakes.iter().sum();
    let mut kinds: Vec<FaultKind> = options.faults.of_a_third().collect();
    let forgets = [FaultKind::LostLog, FaultKind::TornLog, FaultKind::OldLog];
    if options.byzantine.is_none() && forgets.iter().any(|kind| options.faults.has(*kind)) && rng.below(3) == 0 {
        // Who forgets takes from the third too.
        kinds.clear();
    }
    let (mut faulty, mut count) = (0_u64, 0_usize);
    let mut nodes = Vec::new();
    let first = usize::try_from(rng.below(options.validators as u64)).expect("small");
    for step in 0..options.validators {
        let validator = (first + step) % options.validators;
        let fits = match options.byzantine {
            Some(wanted) => count < wanted,
            None => (faulty + stakes[validator]) * 3 < total,
        };
        if kinds.is_empty() || !fits {
            nodes.push(node(options, validator, None, rng));
            continue;
        }
        (faulty, count) = (faulty + stakes[validator], count + 1);
        let kind = kinds[usize::try_from(rng.below(kinds.len() as u64)).expect("small")];
        // Whose clock is wrong keeps all rules, and cannot help the others on.
        let is_jumping = kind == FaultKind::ClockJumps;
        nodes.push(Node { is_jumping, ..node(options, validator, Some(kind).filter(|_| !is_jumping), rng) });
        if kind == FaultKind::Twins {
            nodes.push(node(options, validator, Some(kind), rng));
        }
    }
    add_followers_and_liars(options, &mut nodes, rng);
    nodes
}

fn add_followers_and_liars(options: &Options, nodes: &mut Vec<Node>, rng: &mut Rng) {
    for follower in options.validators..options.validators + options.followers {
        nodes.push(Node { is_late: true, ..node(options, follower, None, rng) });
    }
    if options.truthful.is_some() || options.lie.is_some() {
        let is_asked = |at: usize, node: &Node| at > 0 && !node.is_late && Some(at) != options.truthful;
        let liars = nodes.iter_mut().enumerate().filter(|(at, node)| is_asked(*at, node));
        for (_, liar) in liars {
            let draw = usize::try_from(rng.below(Lie::ALL.len() as u64)).expect("small");
            liar.lie = Some(options.lie.unwrap_or(Lie::ALL[draw]));
        }
    }
}
