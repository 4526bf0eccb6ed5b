//! Keys and their postings in memory.

use std::slice;

use alloy_primitives::map::{Entry, HashMap};

use super::key::{Key, Posting};

/// Postings of one key, rising. Most keys have one, which costs 32 bytes with its key.
#[expect(clippy::box_collection, reason = "a vector in place would double what a key with one posting takes")]
enum List {
    One(Posting),
    Many(Box<Vec<Posting>>),
}

impl List {
    fn postings(&self) -> &[Posting] {
        match self {
            Self::One(posting) => slice::from_ref(posting),
            Self::Many(list) => list,
        }
    }
}

/// A table under construction.
#[derive(Default)]
pub(crate) struct Table(HashMap<Key, List>);

impl Table {
    /// Adds a posting above all that its key has.
    pub(crate) fn insert(&mut self, key: Key, posting: Posting) {
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(List::One(posting));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                List::Many(list) => list.push(posting),
                List::One(first) => {
                    let list = vec![*first, posting];
                    entry.insert(List::Many(Box::new(list)));
                }
            },
        }
    }

    /// The postings of a key.
    pub(crate) fn get(&self, key: Key) -> &[Posting] {
        self.0.get(&key).map_or(&[], List::postings)
    }

    /// Everything in order of key.
    pub(crate) fn sorted(&self) -> Vec<(Key, &[Posting])> {
        let mut all: Vec<_> = self.0.iter().map(|(key, list)| (*key, list.postings())).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}
