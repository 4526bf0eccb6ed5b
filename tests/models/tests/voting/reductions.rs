//! What is left out of the largest explorations is nothing: whatever certificates can be, can be there too.

use std::collections::{BTreeSet, HashSet};

use stateright::Model;

use super::{
    block::{Block, SLOTS, Word},
    is_wide,
    network::{Network, Setting, Timers},
    setting, whole,
};

/// The same certificates, but for which twin is called the first: the least of all ways to call them.
fn canonical(certificates: &[Word]) -> Vec<Word> {
    let renamed = |swapped: usize| {
        let rename = |block: Block| {
            let bits = (0..SLOTS).map(|slot| {
                let tag = block.tag(slot);
                let twin = if swapped >> slot & 1 == 1 && (tag == 1 || tag == 2) { 3 - tag } else { tag };
                twin << (2 * slot)
            });
            Block(bits.sum())
        };
        let mut words: Vec<Word> = certificates
            .iter()
            .map(|word| match word {
                Word::Notarize(block) => Word::Notarize(rename(*block)),
                Word::Skip(slot) => Word::Skip(*slot),
                Word::Finalize(block) => Word::Finalize(rename(*block)),
            })
            .collect();
        words.sort_unstable();
        words
    };
    (0..1 << SLOTS).map(renamed).min().expect("some way")
}

/// Every set of certificates that can be.
fn outcomes(setting: Setting) -> BTreeSet<Vec<Word>> {
    let network = Network::new(setting);
    let mut found = BTreeSet::new();
    let mut pending = network.init_states();
    let mut seen: HashSet<_> = pending.iter().copied().collect();
    while let Some(state) = pending.pop() {
        found.insert(canonical(&network.certificates(&state)));
        pending.extend(network.next_states(&state).into_iter().filter(|next| seen.insert(*next)));
    }
    found
}

#[test]
fn reductions_lose_no_outcome() {
    let sizes: &[(usize, usize, usize)] = if is_wide() {
        &[(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (0, 2, 2), (0, 2, 1), (1, 2, 1), (2, 2, 1), (3, 2, 1)]
    } else {
        &[(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (0, 2, 2)]
    };
    for (stakes, slots, window) in sizes.iter().copied() {
        let all = outcomes(Setting { timers: Timers::Free, ..whole(stakes, slots, window) });
        let reduced = outcomes(setting(stakes, slots, window));
        let is_covered = |outcome: &Vec<Word>| {
            reduced.contains(outcome) || reduced.iter().any(|more| outcome.iter().all(|word| more.contains(word)))
        };
        let lost: Vec<_> = all.iter().filter(|outcome| !is_covered(outcome)).take(3).collect();
        assert!(lost.is_empty(), "stakes {stakes}, {slots} slots, windows of {window}: {lost:?} of {}", all.len());
        assert!(reduced.is_subset(&all), "a reduction only leaves out");
        println!("stakes {stakes}, {slots} slots, windows of {window}: {} of {} outcomes", reduced.len(), all.len());
    }
}
