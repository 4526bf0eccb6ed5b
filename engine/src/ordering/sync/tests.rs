//! One good peer among many bad ones is enough, bad ones are asked ever less, and what is under way is bounded.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::{Asked, Need, Sync};
use crate::{
    limits,
    types::{Contact, Height, Range},
};

/// How a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// At once, all of it.
    Good,
    /// One block, however many are wanted.
    Drip,
    /// Nothing, and no height either.
    Empty,
    /// Nothing, and a height that is none.
    Boasts,
    /// Never.
    Silent,
    /// Well as long as nobody trusts it, and never after.
    Turns,
}

const MANNERS: [Manner; 6] = [Manner::Good, Manner::Drip, Manner::Empty, Manner::Boasts, Manner::Silent, Manner::Turns];

/// Time of a step, and of an answer.
const STEP: Duration = Duration::from_millis(20);

/// A node that is behind, and its peers.
struct World {
    sync: Sync,
    manners: Vec<Manner>,
    now: Duration,
    tip: u64,
    target: u64,
    is_far: bool,
    /// Answers that come with the next step.
    coming: Vec<(u64, Range)>,
    /// How often each was asked.
    asked: BTreeMap<u64, u32>,
    /// Heights that came, each with the last height of what came with it.
    here: BTreeMap<u64, u64>,
}

impl World {
    fn new(manners: &[Manner], target: u64) -> Self {
        let mut sync = Sync::default();
        let contacts: Vec<Contact> = (0..manners.len() as u64).map(|peer| Contact { peer, validator: None }).collect();
        sync.peers(&contacts);
        let (coming, asked, here) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (now, tip, is_far) = (Duration::from_secs(1), 0, true);
        Self { sync, manners: manners.to_vec(), now, tip, target, is_far, coming, asked, here }
    }

    fn need(&self) -> Need {
        let (now, tip, is_far) = (self.now, self.tip, self.is_far && self.tip < self.target);
        Need { now, tip, last: 100_000, is_far, wait: Duration::from_millis(100) }
    }

    fn manner(&self, peer: u64) -> Manner {
        self.manners[usize::try_from(peer).expect("small")]
    }

    /// Answers come, eight blocks are executed, and wishes leave.
    fn step(&mut self) {
        self.now += STEP;
        for (peer, range) in std::mem::take(&mut self.coming) {
            self.answer(peer, range);
        }
        for _ in 0..8 {
            let covers = self.here.range(..=self.tip + 1).any(|(_, last)| *last > self.tip);
            self.tip += u64::from(covers);
        }
        let tip = self.tip;
        self.here.retain(|_, last| *last > tip);
        let need = self.need();
        self.sync.look(&need);
        while let Some((peer, range)) = self.sync.next(&need) {
            assert!(range.count > 0 && range.count <= limits::RANGE_BLOCKS_MAX, "{range:?}");
            *self.asked.entry(peer).or_default() += 1;
            self.coming.push((peer, range));
            assert!(self.sync.busy() <= limits::SYNC_RANGES_MAX + 2 * super::TRIED_MAX, "{:?}", self.sync);
        }
    }

    fn answer(&mut self, peer: u64, range: Range) {
        let manner = self.manner(peer);
        let is_trusted = self.sync.peers.get(&peer).is_some_and(|peer| peer.is_trusted);
        if manner == Manner::Silent || (manner == Manner::Turns && is_trusted) {
            return;
        }
        let has = self.target.saturating_sub(range.from.0).min(range.count);
        let (height, gives) = match manner {
            Manner::Empty => (range.from.0.min(self.target), 0),
            Manner::Boasts => (self.target + 1_000, 0),
            Manner::Drip => (self.target, has.min(1)),
            _ => (self.target, has),
        };
        let Some(asked) = self.sync.answered(peer, range.from, Height(height)) else { return };
        if gives == 0 {
            return self.sync.had_nothing(peer, &asked, self.now);
        }
        self.sync.served(peer, &asked, gives, self.now);
        let last = range.from.0 + gives;
        if self.sync.hold(&asked, last, self.now) {
            self.here.insert(range.from.0 + 1, last);
        }
    }

    /// Steps until the target is reached.
    fn run(&mut self, steps_max: u32) -> u32 {
        for step in 0..steps_max {
            if self.tip >= self.target {
                return step;
            }
            self.step();
        }
        panic!("at {} of {} after {steps_max} steps: {:?}", self.tip, self.target, self.sync);
    }
}

proptest! {
    #[test]
    fn one_good_peer_among_bad_ones_is_enough(
        bad in vec(1_usize..MANNERS.len(), 0..12),
        place in 0_usize..12,
    ) {
        let mut manners: Vec<Manner> = bad.iter().map(|at| MANNERS[*at]).collect();
        let good = place.min(manners.len());
        manners.insert(good, Manner::Good);
        let mut world = World::new(&manners, 4_000);
        // Eight blocks a step can be executed; the good one alone, twice that can be loaded.
        let steps = world.run(3_000);
        let honest = World::new(&[Manner::Good], 4_000).run(3_000);
        // Whoever is tried in vain costs one wait of five steps, some at a time.
        let found = 6 * u32::try_from(manners.len()).expect("small");
        prop_assert!(steps <= 2 * honest + found, "{steps} steps, {honest} with the good one alone");
        for (peer, manner) in (0..).zip(&manners) {
            let asked = world.asked.get(&peer).copied().unwrap_or_default();
            // Rests of a wait, then half as long again each time.
            let is_silent = matches!(manner, Manner::Silent | Manner::Boasts);
            prop_assert!(!is_silent || asked <= 14, "{manner:?} was asked {asked} times in {steps} steps");
        }
    }
}

#[test]
fn nobody_is_asked_where_nothing_says_that_there_is_more() {
    let mut world = World::new(&[Manner::Good, Manner::Boasts], 0);
    world.is_far = false;
    (0..100).for_each(|_| world.step());
    assert_eq!(world.asked, BTreeMap::new());
    assert!(world.sync.hear_ahead(1, world.now + STEP), "it is heard of for the first time");
    assert!(!world.sync.hear_ahead(1, world.now + STEP));
    (0..100).for_each(|_| world.step());
    assert_eq!(world.asked.keys().collect::<Vec<_>>(), [&1], "whoever speaks of more is asked for it, and nobody else");
}

#[test]
fn whoever_speaks_of_more_in_vain_is_asked_ever_less() {
    let mut world = World::new(&[Manner::Boasts], 0);
    world.is_far = false;
    for _ in 0..50 * 60 {
        world.sync.hear_ahead(0, world.now);
        world.step();
    }
    let asked = world.asked[&0];
    assert!((8..=16).contains(&asked), "{asked} times in a minute");
}

#[test]
fn a_height_that_falls_is_believed() {
    let mut world = World::new(&[Manner::Good], 200);
    world.run(200);
    world.is_far = false;
    assert_eq!(world.sync.peers[&0].height, Some(200));
    world.target = 150;
    let need = Need { tip: 100, ..world.need() };
    let (peer, range) = world.sync.next(&need).expect("it said that it has 200");
    world.answer(peer, Range { from: Height(190), ..range });
    let asked = world.sync.peers[&0].asked.clone();
    assert_eq!(asked.len(), 1, "an answer to what was not asked counts for nothing");
    world.sync.answered(peer, range.from, Height(150)).expect("it was asked");
    assert_eq!(world.sync.peers[&0].height, Some(150));
    assert!(world.sync.next(&Need { tip: 145, ..need }).is_none(), "what is near comes by itself");
}

#[test]
fn what_is_held_above_a_gap_does_not_keep_the_gap_from_being_asked_for() {
    let mut world = World::new(&[Manner::Good], 10_000);
    let need = world.need();
    world.sync.look(&need);
    for place in 1..=8 {
        let (from, count) = (place * 100, 50);
        let asked =
            Asked { from, count, since: need.now, until: need.now, is_try: false, is_late: false, is_owed: false };
        assert!(world.sync.hold(&asked, from + count, need.now));
    }
    let (_, range) = world.sync.next(&need).expect("the lowest is always asked for");
    assert_eq!(range.from, Height(0));
    assert!(world.sync.next(&need).is_none(), "and nothing else, with so much here");
}

#[test]
fn who_answers_late_is_waited_for_longer_and_its_answer_counts() {
    let mut world = World::new(&[Manner::Silent], 1_000);
    world.step();
    let (peer, range) = world.coming.pop().expect("it is asked");
    // Five steps are waited for it, and as many it rests.
    (0..8).for_each(|_| world.step());
    assert!(!world.sync.peers[&0].is_trusted && world.sync.peers[&0].strikes == 1);
    world.manners[0] = Manner::Good;
    world.answer(peer, range);
    assert!(world.sync.peers[&0].is_trusted);
    assert_eq!(world.sync.peers[&0].wait, 2 * 8 * STEP);
    assert_eq!(world.here, BTreeMap::from([(1, range.count)]));
}
