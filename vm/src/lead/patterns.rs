//! Which hot places transactions of one kind touch, learned from guesses that failed and from simulations (`hint`).
//!
//! A place is hot in a block once a guess failed on it. Transactions are of one kind if they call the same
//! function of the same contract with the same addresses among its arguments: swaps on one pool, payments in one
//! token to one account. What a kind touched is remembered over blocks, and whoever looks for something to guess
//! passes over what would meet an unfinished transaction at a hot place. A wrong pattern costs time and nothing
//! else.

use std::sync::atomic::{AtomicU64, Ordering};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U256, map::HashMap};
use engine::types::Transaction;
use parking_lot::Mutex;

/// Hot places that a kind of transaction is remembered to touch.
pub(crate) const PLACES_MAX: usize = 8;
/// Marks of places are below this.
pub(crate) const MARKS: usize = 4_096;
/// Kinds that are remembered in each of two generations.
const KINDS_MAX: usize = 16_384;
/// Arguments that are searched for addresses.
const ARGUMENTS_MAX: usize = 16;
const WORD: usize = 32;
const SELECTOR: usize = 4;
/// Places in one word of a pattern.
const PLACES_IN_WORD: usize = 4;
const PLACE_BITS: usize = 16;

/// A short mark of a hot place, never 0; two places may share one.
pub(crate) type Mark = u16;

/// Every bit of `bytes` reaches every bit of the result.
///
/// Source: the finalizer of SplitMix64 (Steele et al., 2014).
fn mix(hash: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(hash, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mut hash = (hash ^ u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    })
}

/// What stands for a slot where taking one for another costs time only.
pub(crate) fn place(address: Address, key: U256) -> u64 {
    mix(mix(0, address.as_slice()), &key.to_be_bytes::<WORD>())
}

/// The mark of a place.
pub(crate) fn mark_of(place: u64) -> Mark {
    let below = place % u64::try_from(MARKS.saturating_sub(1)).unwrap_or(u64::MAX);
    Mark::try_from(below.saturating_add(1)).unwrap_or(1)
}

/// The mark of a slot.
pub(crate) fn mark(address: Address, key: U256) -> Mark {
    mark_of(place(address, key))
}

/// What kind of transaction it is; `None` for one that calls nobody.
pub(crate) fn kind(transaction: &Transaction) -> Option<u64> {
    let envelope = transaction.envelope();
    let (to, input) = (envelope.to()?, envelope.input());
    let (selector, arguments) = input.split_at_checked(SELECTOR)?;
    let mut kind = mix(mix(0, to.as_slice()), selector);
    for argument in arguments.chunks_exact(WORD).take(ARGUMENTS_MAX) {
        let (zeros, address) = argument.split_at(WORD - Address::len_bytes());
        let is_address = zeros.iter().all(|byte| *byte == 0) && address[..SELECTOR].iter().any(|byte| *byte != 0);
        // The sender itself says nothing about whom it meets; the order of the others does not matter.
        if is_address && address != transaction.sender().as_slice() {
            kind = kind.wrapping_add(mix(1, address));
        }
    }
    Some(kind)
}

/// The hot places of a kind, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Pattern([AtomicU64; PLACES_MAX / PLACES_IN_WORD]);

impl Pattern {
    fn of(marks: &[Mark; PLACES_MAX]) -> Self {
        let pattern = Self::default();
        marks.iter().for_each(|mark| pattern.add(*mark));
        pattern
    }

    /// The marks; 0 where there is none.
    pub(crate) fn marks(&self) -> [Mark; PLACES_MAX] {
        let words: [u64; PLACES_MAX / PLACES_IN_WORD] = std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed));
        std::array::from_fn(|at| {
            let shifted = words[at / PLACES_IN_WORD] >> (at % PLACES_IN_WORD * PLACE_BITS);
            Mark::try_from(shifted & u64::from(Mark::MAX)).unwrap_or_default()
        })
    }

    /// Adds a place, unless it is 0, while there is room; who meets another adding one may lose its own.
    pub(crate) fn add(&self, mark: Mark) {
        let marks = self.marks();
        if mark == 0 || marks.contains(&mark) {
            return;
        }
        let Some(free) = marks.iter().position(|known| *known == 0) else { return };
        let bits = u64::from(mark) << (free % PLACES_IN_WORD * PLACE_BITS);
        self.0[free / PLACES_IN_WORD].fetch_or(bits, Ordering::Relaxed);
    }
}

/// A bounded map in two generations: when the young one is full it becomes the old one, and what the old one held
/// and nobody set anew is gone.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
    generation_max: usize,
}

impl<V: Copy> Recent<V> {
    pub(crate) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), generation_max }
    }

    pub(crate) fn get(&self, key: u64) -> Option<V> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(crate) fn set(&mut self, key: u64, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

/// Patterns of recent blocks and simulations.
#[derive(Debug)]
pub(crate) struct Patterns(Mutex<Recent<[Mark; PLACES_MAX]>>);

impl Default for Patterns {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(KINDS_MAX)))
    }
}

impl Patterns {
    /// What is known of a stretch of transactions before it begins.
    pub(crate) fn of<'t>(&self, transactions: impl Iterator<Item = &'t Transaction>) -> Known {
        let mut known = Known::default();
        let mut numbers: HashMap<u64, usize> = HashMap::default();
        let recent = self.0.lock();
        for transaction in transactions {
            let Some(kind) = kind(transaction) else {
                known.of.push(None);
                continue;
            };
            let number = *numbers.entry(kind).or_insert_with(|| {
                known.patterns.push((kind, Pattern::of(&recent.get(kind).unwrap_or_default())));
                known.patterns.len().saturating_sub(1)
            });
            known.of.push(Some(number));
        }
        known
    }

    /// Remembers what was learned of a stretch.
    pub(crate) fn remember(&self, known: &Known) {
        known.patterns.iter().for_each(|(kind, pattern)| self.add(*kind, &pattern.marks()));
    }

    /// Remembers that a kind touches these hot places.
    pub(crate) fn add(&self, kind: u64, marks: &[Mark]) {
        if marks.iter().all(|mark| *mark == 0) {
            return;
        }
        let mut recent = self.0.lock();
        let pattern = Pattern::of(&recent.get(kind).unwrap_or_default());
        marks.iter().for_each(|mark| pattern.add(*mark));
        recent.set(kind, pattern.marks());
    }
}

/// The patterns of a stretch of transactions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    patterns: Vec<(u64, Pattern)>,
    of: Vec<Option<usize>>,
}

impl Known {
    fn pattern(&self, at: usize) -> Option<&Pattern> {
        let number = (*self.of.get(at)?)?;
        self.patterns.get(number).map(|(_, pattern)| pattern)
    }

    /// The hot places that a transaction will most likely touch.
    pub(crate) fn marks(&self, at: usize) -> [Mark; PLACES_MAX] {
        self.pattern(at).map(Pattern::marks).unwrap_or_default()
    }

    /// The transaction touched these hot places.
    pub(crate) fn learn(&self, at: usize, marks: impl IntoIterator<Item = Mark>) {
        if let Some(pattern) = self.pattern(at) {
            marks.into_iter().for_each(|mark| pattern.add(mark));
        }
    }
}

#[cfg(test)]
mod tests;
