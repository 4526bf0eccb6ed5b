//! Honest validators on the real rules, among faulty ones that may say anything to anybody.
//!
//! What is kept of the world is what every honest validator sent, and what each knows. Nothing is in flight: a vote
//! that was sent may be counted by anybody at any time, a certificate may reach any validator at any time or never,
//! a timer may fire at any time. Faulty validators are taken to have signed every statement, and show it to whom they
//! like: a statement has a certificate as soon as the honest validators that made it reach a quorum with all of the
//! faulty stake. That leaves no step of a faulty voter to explore, and no behaviour out.
//!
//! A faulty leader proposes whatever an honest validator would accept: any parent that an honest validator voted for,
//! two blocks in a slot, invalid ones. Who voted for a third block of a slot is, for all others, one who did not vote:
//! of three blocks two at most can be notarized, even by broken rules.
//!
//! Validators that weigh the same and lead nothing are interchangeable: a state stands for all that differ by such an
//! exchange.

use std::{ops::Range, sync::Mutex};

use engine::{
    ordering::{
        planted::{Bug, Planted},
        rules::Mark,
    },
    types::{Epoch, PublicKey, Signers, Statement, Validator, ValidatorIndex, ValidatorSet},
};
use stateright::{Model, Property};

use super::{
    block::{Block, INVALID, SLOTS, Word, slot},
    properties,
    records::{Answer, Number, Records, Wish},
};

/// Honest validators that a model may have.
pub const HONEST: usize = 3;

/// When validators skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timers {
    /// As ordering does it: a timer of the frontier's window skips every later slot of that window as well.
    Paced,
    /// Any slot at any time, one by one: whatever the rules grant.
    Free,
    /// As [`Timers::Free`], but nobody votes before that changes anything; see [`Network::together`].
    Late,
}

/// When certificates reach validators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// At any time or never, each one alone.
    Any,
    /// At once where that can only add behaviours; see [`Network::hasten`].
    Eager,
    /// As before, and Finalizations are not learned.
    EagerWithoutFinalizations,
}

/// What becomes of a validator's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    Never,
    /// At any time; the log has all that was signed above the floor, and every certificate.
    Log,
    /// As before, but the log has no certificates.
    LogWithoutCertificates,
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Stake of honest validators.
    pub honest: Vec<u64>,
    /// Stake of the faulty ones.
    pub faulty: Vec<u64>,
    pub slots: usize,
    /// Slots of a window.
    pub window: usize,
    /// Honest leaders of the windows; other windows are led by the faulty.
    pub leaders: Vec<Option<usize>>,
    pub timers: Timers,
    pub knowledge: Knowledge,
    pub restarts: Restarts,
    /// The only property to look at.
    pub only: Option<&'static str>,
    pub planted: Option<Bug>,
}

/// What a validator sent for one slot; more than two different ones are as bad as two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Said {
    notarized: [Block; 2],
    finalized: [Block; 2],
    pub skipped: bool,
}

fn note(place: &mut [Block; 2], block: Block) {
    if place[0] == Block::BASE {
        place[0] = block;
    } else if place[0] != block {
        place[1] = block;
    }
}

fn noted(place: &[Block; 2]) -> impl Iterator<Item = Block> {
    place.iter().copied().filter(|block| *block != Block::BASE)
}

impl Said {
    pub fn notarized(&self) -> impl Iterator<Item = Block> {
        noted(&self.notarized)
    }

    pub fn words(&self, slot: usize) -> impl Iterator<Item = Word> {
        let skipped = self.skipped.then_some(Word::Skip(slot));
        self.notarized().map(Word::Notarize).chain(skipped).chain(noted(&self.finalized).map(Word::Finalize))
    }
}

/// One honest validator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    pub record: Number,
    /// What it sent, by slot; unlike its record this forgets nothing.
    pub said: [Said; SLOTS],
}

impl Party {
    pub fn words(&self) -> impl Iterator<Item = Word> {
        (0..SLOTS).flat_map(|slot| self.said[slot].words(slot))
    }

    fn says(&mut self, word: Word) {
        let place = |block: Block| block.slot().expect("not the base");
        match word {
            Word::Notarize(block) => note(&mut self.said[place(block)].notarized, block),
            Word::Skip(slot) => self.said[slot].skipped = true,
            Word::Finalize(block) => note(&mut self.said[place(block)].finalized, block),
        }
    }
}

/// The world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub parties: [Party; HONEST],
    /// Blocks of honest leaders, by slot.
    proposed: [[Block; 2]; SLOTS],
    /// Somebody was shown a certificate that contradicts one it holds.
    pub alarm: bool,
}

impl State {
    pub fn proposed(&self, slot: usize) -> impl Iterator<Item = Block> {
        noted(&self.proposed[slot])
    }

    /// Blocks of a slot that an honest validator voted for.
    pub fn voted(&self, slot: usize) -> Vec<Block> {
        let mut blocks: Vec<Block> = self.parties.iter().flat_map(|party| party.said[slot].notarized()).collect();
        blocks.sort();
        blocks.dedup();
        blocks
    }
}

/// What happens to one validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Vote(Word),
    /// It votes Notarize before the block is executed.
    Early(Block),
    Timer(usize),
    Learn(Word),
    /// It skips the slot of a block, and then learns that the block is notarized.
    SkipAndLearn(Block),
    /// These validators notarize a block, which makes its Notarization.
    NotarizeTogether(Block, usize),
    /// These validators skip a slot, which makes its SkipCertificate; each may notarize a block before.
    SkipTogether(usize, usize, [Block; HONEST]),
    Propose(Block),
    /// It stops and starts; `committed` if its log was pruned to the newest final block that it knew.
    Restart {
        committed: bool,
    },
}

/// A step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub who: usize,
    pub act: Act,
}

/// The model.
pub struct Network {
    pub setting: Setting,
    planted: Planted,
    /// Whether honest validators, one bit each, are a quorum with all of the faulty.
    decides: [bool; 1 << HONEST],
    /// Whether they are one without.
    decides_alone: [bool; 1 << HONEST],
    /// Places of validators that may be exchanged.
    alike: Vec<Range<usize>>,
    pub records: Mutex<Records>,
}

/// The set of a setting, honest validators first.
fn set(setting: &Setting) -> ValidatorSet {
    let stakes = setting.honest.iter().chain(&setting.faulty);
    let validator = |(stake, key): (&u64, u8)| Validator {
        public_key: PublicKey([key; 48].into()),
        stake: *stake,
        operator: Default::default(),
    };
    ValidatorSet::new(Epoch(0), stakes.zip(1..).map(validator).collect()).expect("stakes of a set")
}

/// Whether these validators are a quorum, or are taken for one by a planted bug of counting.
fn is_quorum(set: &ValidatorSet, signers: &Signers, planted: Planted) -> bool {
    let (stake, quorum) = (signers.stake(set).0, set.quorum().0);
    let last = signers.iter().last().map_or(0, |last| set.stake(last).0);
    if planted.has(Bug::QuorumLessOne) {
        stake + 1 >= quorum
    } else if planted.has(Bug::CountHeads) {
        signers.iter().count() > 2 * set.size() / 3
    } else if planted.has(Bug::CountTwice) {
        stake + last >= quorum
    } else {
        stake >= quorum
    }
}

impl Network {
    pub fn new(setting: Setting) -> Self {
        let set = set(&setting);
        let planted = Planted(setting.planted);
        let honest = setting.honest.len();
        assert!(honest <= HONEST && setting.slots <= SLOTS);
        let decides = |faulty: bool| {
            std::array::from_fn(|mask: usize| {
                let mut signers = Signers::none(set.size());
                let signs = |at: usize| if at < honest { mask >> at & 1 == 1 } else { faulty };
                for at in (0..set.size()).filter(|at| signs(*at)) {
                    signers.add(ValidatorIndex(at as u16));
                }
                is_quorum(&set, &signers, planted)
            })
        };
        let leads = |at: &usize| setting.leaders.contains(&Some(*at));
        let mut alike: Vec<Range<usize>> = Vec::new();
        for at in (0..honest).filter(|at| !leads(at)) {
            match alike.last_mut() {
                Some(range) if range.end == at && setting.honest[range.start] == setting.honest[at] => range.end += 1,
                _ => alike.push(at..at + 1),
            }
        }
        alike.retain(|range| range.len() > 1);
        let records = Mutex::new(Records::new(setting.window as u64, planted));
        Self { decides: decides(true), decides_alone: decides(false), alike, records, planted, setting }
    }

    pub fn honest(&self) -> Range<usize> {
        0..self.setting.honest.len()
    }

    pub fn is_planted(&self, bug: Bug) -> bool {
        self.planted.has(bug)
    }

    pub fn window_of(&self, slot: usize) -> Range<usize> {
        let start = slot - slot % self.setting.window;
        start..(start + self.setting.window).min(self.setting.slots)
    }

    /// The honest leader of a slot.
    pub fn leader(&self, slot: usize) -> Option<usize> {
        self.setting.leaders.get(slot / self.setting.window).copied().flatten()
    }

    /// Everything that some honest validator said, with those who did, one bit each.
    fn words(&self, state: &State) -> impl Iterator<Item = (Word, usize)> {
        let mut words = [(Word::Skip(0), 0_usize); 5 * SLOTS * HONEST];
        let mut count = 0;
        for who in self.honest() {
            for word in state.parties[who].words() {
                match words[..count].iter_mut().find(|(said, _)| *said == word) {
                    Some((_, mask)) => *mask |= 1 << who,
                    None => {
                        words[count] = (word, 1 << who);
                        count += 1;
                    }
                }
            }
        }
        words.into_iter().take(count)
    }

    /// Every certificate that can be.
    pub fn certificates(&self, state: &State) -> Vec<Word> {
        self.words(state).filter(|(_, mask)| self.decides[*mask]).map(|(word, _)| word).collect()
    }

    /// Every certificate that is, though the faulty say nothing.
    pub fn certificates_of_the_honest(&self, state: &State) -> Vec<Word> {
        self.words(state).filter(|(_, mask)| self.decides_alone[*mask]).map(|(word, _)| word).collect()
    }

    /// Whether honest validators, one bit each, are a quorum together with all of the faulty.
    pub fn deciding(&self) -> [bool; 1 << HONEST] {
        self.decides
    }

    pub fn is_decided_by(&self, mask: usize) -> bool {
        self.decides[mask]
    }

    /// Blocks that a validator may be shown for a slot.
    pub fn candidates(&self, state: &State, slot: usize) -> Vec<Block> {
        if self.leader(slot).is_some() {
            return state.proposed(slot).collect();
        }
        let mut blocks = state.voted(slot);
        let known = blocks.len();
        if known < 2 {
            let parents: Vec<Block> = (0..slot).flat_map(|below| state.voted(below)).chain([Block::BASE]).collect();
            for parent in parents {
                let first = parent.child(slot, 1);
                let fresh = if blocks[..known].contains(&first) { parent.child(slot, 2) } else { first };
                blocks.push(fresh);
            }
            blocks.push(Block::BASE.child(slot, INVALID));
        }
        blocks
    }

    /// What a leader may propose.
    fn proposals(&self, records: &Records, state: &State, who: usize, acts: &mut Vec<Act>) {
        let twice = self.is_planted(Bug::ProposeTwice);
        for slot in (0..self.setting.slots).filter(|slot| self.leader(*slot) == Some(who)) {
            let tag = match state.proposed(slot).count() {
                0 => 1,
                1 if twice => 2,
                _ => continue,
            };
            let start = self.window_of(slot).start;
            let known = records.known(state.parties[who].record);
            let parent = if slot > start {
                state.proposed(slot - 1).next()
            } else {
                known.base[slot].filter(|_| known.frontier >= slot)
            };
            acts.extend(parent.map(|parent| Act::Propose(parent.child(slot, tag))));
        }
    }

    /// The least groups of validators that make a quorum with those who said a word.
    fn groups(&self, state: &State, word: Word) -> impl Iterator<Item = usize> {
        let said = self.words(state).find(|(said, _)| *said == word).map_or(0, |(_, mask)| mask);
        let is_enough = move |mask: usize| self.decides[mask | said];
        let honest = self.honest();
        let is_least = move |mask: &usize| {
            mask & said == 0 && honest.clone().all(|who| mask >> who & 1 == 0 || !is_enough(mask & !(1 << who)))
        };
        (1..1 << self.setting.honest.len()).filter(move |mask| is_enough(*mask) && !is_enough(0)).filter(is_least)
    }

    /// Votes that change something, with all votes that this takes.
    ///
    /// A vote to notarize or to skip that is not part of a certificate changes nothing for others. What it takes from
    /// its validator is votes for the same slot: another notarization; after a skip, a notarization or finalization.
    /// So whatever can be reached is reached too, but for idle votes, if a validator notarizes only when the
    /// Notarization comes to be, together with the others that it takes, or just before it skips; and if it skips only
    /// when the SkipCertificate comes to be, or just before it learns a Notarization, after which it could not.
    fn together(&self, state: &State, candidates: &[Block]) -> Vec<Act> {
        let mut acts = Vec::new();
        for block in candidates.iter().copied().filter(|block| block.is_valid()) {
            let groups = self.groups(state, Word::Notarize(block));
            acts.extend(groups.map(|mask| Act::NotarizeTogether(block, mask)));
        }
        for slot in 0..self.setting.slots {
            let blocks = candidates.iter().copied().filter(|block| block.is_valid() && block.slot() == Some(slot));
            let choices: Vec<Block> = blocks.chain([Block::BASE]).collect();
            for mask in self.groups(state, Word::Skip(slot)) {
                let mut before = vec![[Block::BASE; HONEST]];
                for who in self.honest().filter(|who| mask >> who & 1 == 1) {
                    if state.parties[who].said[slot].notarized().next().is_none() {
                        let with = |choice: &Block, mut rest: [Block; HONEST]| {
                            rest[who] = *choice;
                            rest
                        };
                        before = choices.iter().flat_map(|one| before.iter().map(|rest| with(one, *rest))).collect();
                    }
                }
                acts.extend(before.into_iter().map(|before| Act::SkipTogether(slot, mask, before)));
            }
        }
        acts
    }

    /// Puts the same wish to several validators; whether all could fulfil it.
    fn put_to(&self, records: &mut Records, state: &mut State, mask: usize, wish: Wish) -> bool {
        self.honest().filter(|who| mask >> who & 1 == 1).all(|who| self.put(records, state, who, wish))
    }

    /// Everything that may be tried with a validator.
    fn wishes(&self, records: &Records, state: &State, candidates: &[Block], learn: &[Word], who: usize) -> Vec<Act> {
        let mut acts: Vec<Act> = learn.iter().copied().map(Act::Learn).collect();
        if self.setting.knowledge == Knowledge::EagerWithoutFinalizations {
            acts.retain(|act| !matches!(act, Act::Learn(Word::Finalize(_))));
        }
        if self.setting.timers != Timers::Late {
            acts.extend(candidates.iter().map(|block| Act::Vote(Word::Notarize(*block))));
            acts.extend(candidates.iter().filter(|block| !block.is_valid()).map(|block| Act::Early(*block)));
        }
        for slot in 0..self.setting.slots {
            acts.extend(state.voted(slot).into_iter().map(|block| Act::Vote(Word::Finalize(block))));
        }
        match self.setting.timers {
            Timers::Paced => {
                let frontier = records.known(state.parties[who].record).frontier;
                if frontier < self.setting.slots {
                    acts.extend((frontier..self.window_of(frontier).end).map(Act::Timer));
                }
            }
            Timers::Late => {
                let notarized = learn.iter().filter_map(|word| match word {
                    Word::Notarize(block) => Some(Act::SkipAndLearn(*block)),
                    _ => None,
                });
                acts.extend(notarized);
                if who == 0 {
                    acts.extend(self.together(state, candidates));
                }
            }
            Timers::Free => acts.extend((0..self.setting.slots).map(|slot| Act::Vote(Word::Skip(slot)))),
        }
        self.proposals(records, state, who, &mut acts);
        if self.setting.restarts != Restarts::Never {
            acts.extend([true, false].map(|committed| Act::Restart { committed }));
        }
        acts
    }

    /// Puts a wish to a validator's record; whether something came of it.
    pub fn put(&self, records: &mut Records, state: &mut State, who: usize, wish: Wish) -> bool {
        match records.ask(state.parties[who].record, wish) {
            Answer::No => return false,
            Answer::Contradiction => state.alarm = true,
            Answer::Yes(record) => {
                state.parties[who].record = record;
                match wish {
                    Wish::Vote(word) => state.parties[who].says(word),
                    Wish::Early(block) => state.parties[who].says(Word::Notarize(block)),
                    Wish::Propose(block) => note(&mut state.proposed[block.slot().expect("not the base")], block),
                    Wish::Learn(_) => {}
                }
            }
        }
        true
    }

    fn restart(&self, records: &mut Records, state: &mut State, who: usize, committed: bool) -> bool {
        let party = state.parties[who];
        let known = *records.known(party.record);
        let floor = known.last_final.filter(|_| committed);
        let mut marks: Vec<Mark> = party.words().map(|word| Mark::Vote(word.statement())).collect();
        for at in (0..self.setting.slots).filter(|at| self.leader(*at) == Some(who)) {
            marks.extend(state.proposed(at).map(|block| Mark::Proposal { slot: slot(at), id: block.id() }));
        }
        let pruned = records.record(party.record).floor().map(|(_, slot)| slot).max(floor.map(slot));
        marks.retain(|mark| pruned.is_none_or(|pruned| mark.slot() > pruned) && !self.is_planted(Bug::ForgetVotes));
        let mut certificates: Vec<Statement> = known.certificates().map(Word::statement).collect();
        if self.setting.restarts == Restarts::LogWithoutCertificates {
            certificates.clear();
        }
        let floor = if self.is_planted(Bug::ForgetFloor) { None } else { pruned };
        let record = records.restart(floor, &marks, &certificates);
        let changed = record != party.record;
        state.parties[who].record = record;
        changed
    }

    /// Does at once what nobody gains by doing late.
    ///
    /// With free timers and without planted bugs, no rule withholds anything because a SkipCertificate is held; nor
    /// because a Notarization is held by one who skipped the slot. Who holds the Notarization of a slot that it did
    /// not skip cannot skip it any more, so a Finalize vote takes nothing from it. All three only add votes and
    /// certificates, and every property of safety speaks of votes and certificates that must not be.
    ///
    /// A Finalization that is learned only withholds: it certifies a parent and moves a frontier, for which there are
    /// notarizations and skip certificates too, as the property of ancestry says. So these may be left out.
    fn hasten(&self, records: &mut Records, state: &mut State) {
        loop {
            let mut moved = false;
            for word in self.certificates(state) {
                for who in self.honest() {
                    let harmless = match word {
                        Word::Skip(_) => true,
                        Word::Notarize(block) => block.slot().is_some_and(|at| state.parties[who].said[at].skipped),
                        Word::Finalize(_) => false,
                    };
                    moved |= harmless && !state.alarm && self.put(records, state, who, Wish::Learn(word));
                }
            }
            for who in self.honest() {
                for block in records.known(state.parties[who].record).notarized.into_iter().flatten() {
                    moved |= self.put(records, state, who, Wish::Vote(Word::Finalize(block)));
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Takes a step of one validator; whether something came of it.
    fn act(&self, records: &mut Records, state: &mut State, Step { who, act }: Step) -> bool {
        match act {
            Act::Vote(word) => self.put(records, state, who, Wish::Vote(word)),
            Act::Early(block) => self.put(records, state, who, Wish::Early(block)),
            Act::Learn(word) => self.put(records, state, who, Wish::Learn(word)),
            Act::Propose(block) => self.put(records, state, who, Wish::Propose(block)),
            Act::SkipAndLearn(block) => {
                let slot = block.slot().expect("not the base");
                self.put(records, state, who, Wish::Vote(Word::Skip(slot)))
                    && self.put(records, state, who, Wish::Learn(Word::Notarize(block)))
            }
            Act::NotarizeTogether(block, mask) => self.put_to(records, state, mask, Wish::Vote(Word::Notarize(block))),
            Act::SkipTogether(slot, mask, before) => {
                let first = self.honest().filter(|who| before[*who] != Block::BASE);
                let wish = |who: usize| Wish::Vote(Word::Notarize(before[who]));
                first.into_iter().all(|who| self.put(records, state, who, wish(who)))
                    && self.put_to(records, state, mask, Wish::Vote(Word::Skip(slot)))
            }
            Act::Timer(slot) => {
                let skips = (slot..self.window_of(slot).end).map(|slot| Wish::Vote(Word::Skip(slot)));
                skips.fold(false, |changed, wish| self.put(records, state, who, wish) | changed)
            }
            Act::Restart { committed } => self.restart(records, state, who, committed),
        }
    }
}

impl Model for Network {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let mut records = self.records.lock().expect("no one panicked");
        let candidates: Vec<Block> = (0..self.setting.slots).flat_map(|slot| self.candidates(state, slot)).collect();
        let certificates = self.certificates(state);
        for who in self.honest() {
            let same = who > 0 && self.alike.iter().any(|range| range.contains(&who) && range.contains(&(who - 1)));
            if same && state.parties[who] == state.parties[who - 1] {
                continue;
            }
            for act in self.wishes(&records, state, &candidates, &certificates, who) {
                let step = Step { who, act };
                if self.act(&mut records, &mut state.clone(), step) {
                    actions.push(step);
                }
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut records = self.records.lock().expect("no one panicked");
        let mut next = *state;
        let changed = self.act(&mut records, &mut next, step);
        if changed && self.setting.knowledge != Knowledge::Any {
            self.hasten(&mut records, &mut next);
        }
        for range in &self.alike {
            next.parties[range.clone()].sort_unstable();
        }
        changed.then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.setting)
    }
}
