//! The real records of validators, each kept once, with the real rules' answer to every wish that was put to it.
//!
//! A [`Record`] is a value and its methods are functions of it. So a state of the model names a record by a number,
//! and a rule runs once for every record and wish.

use std::collections::HashMap;

use engine::{
    ordering::{
        planted::Planted,
        rules::{Candidate, Mark, Record},
    },
    types::{Epoch, Slot, Statement},
};

use super::block::{BLOCKS, Block, SLOTS, Word, slot};

/// A record that is kept.
pub type Number = u32;

/// What a validator may want of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To vote, for a block whose execution is done.
    Vote(Word),
    /// To vote Notarize for a block whose execution is not done.
    Early(Block),
    /// To sign a block as its leader.
    Propose(Block),
    /// To note a certificate.
    Learn(Word),
}

impl Wish {
    /// Wishes that can be named.
    const ALL: usize = 6 * BLOCKS + 2 * SLOTS;

    fn place(self) -> usize {
        let word = |word| match word {
            Word::Notarize(block) => usize::from(block.0),
            Word::Finalize(block) => BLOCKS + usize::from(block.0),
            Word::Skip(slot) => 2 * BLOCKS + slot,
        };
        match self {
            Self::Vote(said) => word(said),
            Self::Learn(said) => 2 * BLOCKS + SLOTS + word(said),
            Self::Early(block) => 4 * BLOCKS + 2 * SLOTS + usize::from(block.0),
            Self::Propose(block) => 5 * BLOCKS + 2 * SLOTS + usize::from(block.0),
        }
    }
}

/// What a record answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Withheld, or nothing new.
    No,
    /// Granted or noted; the record is another one from here on.
    Yes(Number),
    /// The certificate contradicts one that is held.
    Contradiction,
}

/// What a record knows, for quick looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    pub frontier: usize,
    /// The block with a Notarization, by slot.
    pub notarized: [Option<Block>; SLOTS],
    pub skipped: [bool; SLOTS],
    pub finalized: [Option<Block>; SLOTS],
    /// What a leader proposes on in a window that begins at a slot.
    pub base: [Option<Block>; SLOTS],
    /// The slot of the newest final block.
    pub last_final: Option<usize>,
}

impl Known {
    fn of(record: &Record) -> Self {
        let mut known = Self {
            frontier: usize::try_from(record.frontier().0).expect("a slot of the model"),
            last_final: record.last_final().map(|(slot, _)| usize::try_from(slot.0).expect("a slot of the model")),
            ..Self::default()
        };
        for at in 0..SLOTS {
            let held = record.slot(slot(at));
            known.notarized[at] = held.notarization.map(Block::of);
            known.skipped[at] = held.skip_certificate;
            known.finalized[at] = held.finalization.map(Block::of);
            known.base[at] = record.base_of(slot(at)).map(|parent| Block::of(parent.id));
        }
        known
    }

    /// Every certificate that is held.
    pub fn certificates(&self) -> impl Iterator<Item = Word> {
        (0..SLOTS).flat_map(|at| {
            let notarized = self.notarized[at].map(Word::Notarize);
            let skipped = self.skipped[at].then_some(Word::Skip(at));
            [notarized, skipped, self.finalized[at].map(Word::Finalize)].into_iter().flatten()
        })
    }
}

const UNASKED: u32 = u32::MAX;
const NO: u32 = u32::MAX - 1;
const CONTRADICTION: u32 = u32::MAX - 2;

struct Kept {
    record: Record,
    known: Known,
    answers: Box<[u32]>,
}

/// All records that came up.
pub struct Records {
    window: u64,
    planted: Planted,
    kept: Vec<Kept>,
    numbers: HashMap<Record, Number>,
}

impl Records {
    /// With the empty record as number 0.
    pub fn new(window: u64, planted: Planted) -> Self {
        let mut records = Self { window, planted, kept: Vec::new(), numbers: HashMap::new() };
        let empty = records.empty();
        assert_eq!(records.keep(empty), 0);
        records
    }

    fn empty(&self) -> Record {
        Record::new(Epoch(0), self.window, Block::BASE.id(), None, self.planted)
    }

    fn keep(&mut self, record: Record) -> Number {
        if let Some(number) = self.numbers.get(&record) {
            return *number;
        }
        let number = Number::try_from(self.kept.len()).expect("fewer records than that");
        self.numbers.insert(record.clone(), number);
        let answers = vec![UNASKED; Wish::ALL].into_boxed_slice();
        self.kept.push(Kept { known: Known::of(&record), record, answers });
        number
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn record(&self, number: Number) -> &Record {
        &self.kept[number as usize].record
    }

    pub fn known(&self, number: Number) -> &Known {
        &self.kept[number as usize].known
    }

    /// Puts a wish to a record.
    pub fn ask(&mut self, number: Number, wish: Wish) -> Answer {
        let place = wish.place();
        let mut answer = self.kept[number as usize].answers[place];
        if answer == UNASKED {
            answer = self.put(number, wish);
            self.kept[number as usize].answers[place] = answer;
        }
        match answer {
            NO => Answer::No,
            CONTRADICTION => Answer::Contradiction,
            next => Answer::Yes(next),
        }
    }

    fn put(&mut self, number: Number, wish: Wish) -> u32 {
        let mut record = self.record(number).clone();
        let (ballot, mark) = match wish {
            Wish::Learn(word) => {
                return match record.observe(&word.statement()) {
                    Ok(true) => self.keep(record),
                    Ok(false) => NO,
                    Err(_) => CONTRADICTION,
                };
            }
            Wish::Vote(word @ Word::Notarize(block)) => {
                (record.notarize(&block.candidate(Some(block.is_valid()))), Mark::Vote(word.statement()))
            }
            Wish::Early(block) => {
                (record.notarize(&block.candidate(None)), Mark::Vote(Word::Notarize(block).statement()))
            }
            Wish::Vote(word @ Word::Skip(at)) => (record.skip(slot(at)), Mark::Vote(word.statement())),
            Wish::Vote(word @ Word::Finalize(block)) => {
                let candidate = block.candidate(Some(block.is_valid()));
                (record.finalize(candidate.slot, candidate.id, candidate.valid), Mark::Vote(word.statement()))
            }
            Wish::Propose(block) => {
                let Candidate { slot, id, .. } = block.candidate(None);
                (record.propose(slot, id), Mark::Proposal { slot, id })
            }
        };
        ballot.map_or(NO, |ballot| {
            assert_eq!((ballot.epoch(), ballot.mark()), (Epoch(0), mark), "a ballot is for what was wished");
            self.keep(record)
        })
    }

    /// A record after a restart: what the log holds of marks and certificates, under the floor that it holds.
    pub fn restart(&mut self, floor: Option<Slot>, marks: &[Mark], certificates: &[Statement]) -> Number {
        let mut record = self.empty();
        if let Some(floor) = floor {
            record.raise_floor((Epoch(0), floor));
        }
        for mark in marks {
            record.restore(mark);
        }
        for certificate in certificates {
            record.observe(certificate).expect("it was held before");
        }
        self.keep(record)
    }
}
