//! One place's versions: read without locks, written by the lane and by those who guess.
//!
//! Source: Boehm, "Can seqlocks get along with programming language memory models?" (2012).

use crate::sync::{AtomicU64, Ordering, fence};

/// Guessed versions that a place can hold.
const GUESSED: usize = 3;
/// What guesses wrote into a version whose writer is not done.
const WRITING: u64 = 1;
/// Where a version's mark holds the number of its transaction.
const NUMBER_SHIFT: u32 = 32;
type Words<const N: usize> = [AtomicU64; N];

/// One place's versions.
#[derive(Debug)]
pub(crate) struct Cell<const N: usize> {
    /// Commits so far; the newest value lies in the buffer of the same parity.
    commits: AtomicU64,
    committed: [Words<N>; 2],
    /// Number of the transaction, a count of writes and [`WRITING`]; 0 where there was never a version.
    marks: [AtomicU64; GUESSED],
    guessed: [Words<N>; GUESSED],
}

fn words<const N: usize>(values: [u64; N]) -> Words<N> {
    values.map(AtomicU64::new)
}

fn load<const N: usize>(words: &Words<N>) -> [u64; N] {
    std::array::from_fn(|at| words[at].load(Ordering::Relaxed))
}

fn store<const N: usize>(words: &Words<N>, values: [u64; N]) {
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Number of the transaction that wrote the version with this mark.
const fn writer(mark: u64) -> u64 {
    mark >> NUMBER_SHIFT
}

impl<const N: usize> Cell<N> {
    pub(crate) fn new(before: [u64; N]) -> Self {
        Self {
            commits: AtomicU64::new(0),
            committed: [words(before), words([0; N])],
            marks: words([0; GUESSED]),
            guessed: std::array::from_fn(|_| words([0; N])),
        }
    }

    fn buffer(&self, commits: u64) -> &Words<N> {
        &self.committed[usize::from(commits % 2 == 1)]
    }

    /// The committed value.
    pub(crate) fn committed(&self) -> [u64; N] {
        loop {
            let commits = self.commits.load(Ordering::Acquire);
            let values = load(self.buffer(commits));
            fence(Ordering::Acquire);
            if self.commits.load(Ordering::Relaxed) == commits {
                return values;
            }
        }
    }

    /// Replaces the committed value; for the lane alone.
    pub(crate) fn commit(&self, values: [u64; N]) {
        let next = self.commits.load(Ordering::Relaxed).wrapping_add(1);
        // Whoever sees one of these words also sees that the buffer is no longer the newest.
        fence(Ordering::Release);
        store(self.buffer(next), values);
        self.commits.store(next, Ordering::Release);
    }

    /// What transaction `number` finds, while `lowest` is the lowest that is not committed.
    pub(crate) fn read(&self, number: u32, lowest: u32) -> [u64; N] {
        let below = |mark: u64| mark & WRITING == 0 && (u64::from(lowest)..u64::from(number)).contains(&writer(mark));
        let mut newest: Option<(u64, usize)> = None;
        for (at, mark) in self.marks.iter().enumerate() {
            let mark = mark.load(Ordering::Acquire);
            if below(mark) && newest.is_none_or(|(known, _)| writer(known) < writer(mark)) {
                newest = Some((mark, at));
            }
        }
        if let Some((mark, at)) = newest {
            let values = load(&self.guessed[at]);
            fence(Ordering::Acquire);
            if self.marks[at].load(Ordering::Relaxed) == mark {
                return values;
            }
        }
        self.committed()
    }

    /// Keeps what transaction `number` is guessed to leave here, in place of its own earlier version, of one that
    /// nobody needs any more, or of the oldest.
    pub(crate) fn guess(&self, number: u32, lowest: u32, values: [u64; N]) {
        let marks: [u64; GUESSED] = std::array::from_fn(|at| self.marks[at].load(Ordering::Relaxed));
        let use_of = |mark: u64| match writer(mark) {
            own if own == u64::from(number) => 0,
            old if old < u64::from(lowest) => 1,
            other => other,
        };
        let Some((at, mark)) = marks.into_iter().enumerate().min_by_key(|(_, mark)| use_of(*mark)) else { return };
        if mark & WRITING != 0 {
            return;
        }
        let count = mark.wrapping_add(2) & u64::from(u32::MAX) & !WRITING;
        let next = (u64::from(number) << NUMBER_SHIFT) | count;
        let claim = self.marks[at].compare_exchange(mark, next | WRITING, Ordering::Acquire, Ordering::Relaxed);
        if claim.is_err() {
            return;
        }
        fence(Ordering::Release);
        store(&self.guessed[at], values);
        self.marks[at].store(next, Ordering::Release);
    }
}
