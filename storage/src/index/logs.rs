//! Which blocks hold logs of a filter, in time proportional to how many there are.
//!
//! Each address and topic that a filter names has a list of logs, by height and by index in the block. The lists of the
//! alternatives at one position are one list, and a log that fits stands in the list of every position: so each list
//! in turn is asked for its first log at or above the last answer, until all give one answer. A step passes over
//! whatever the others do not have, so the shortest list decides how many there are, whatever the longest one holds.

use std::{cmp::Reverse, collections::BinaryHeap, ops::RangeInclusive};

use engine::{
    limits::{LOG_LOOK_BLOCKS_MAX, LOG_LOOK_STEPS_MAX},
    types::{Height, LogBlocks, LogFilter},
};

use super::{
    Index,
    key::{Key, Keys, Posting},
    part::Part,
    part_of,
    sealed::Half,
};
use crate::error::Fault;

/// The logs of one key in one part.
struct Cursor {
    /// Some of them, and where this stands among those.
    postings: Vec<Posting>,
    place: usize,
}

/// The logs of several keys in one part.
struct Position<'k> {
    keys: &'k [Key],
    cursors: Vec<Cursor>,
    /// Where each cursor stands that is not at its end, the lowest first.
    next: BinaryHeap<Reverse<(Posting, usize)>>,
}

/// A walk through one part.
struct Walk<'i> {
    index: &'i Index,
    part: &'i Part,
    /// Where it must get to before it may stop: above this height.
    start: Height,
    /// Lists that may still be opened.
    steps: usize,
}

impl Walk<'_> {
    fn open(&mut self, key: Key, at: Posting) -> Result<Cursor, Fault> {
        self.steps = self.steps.saturating_sub(1);
        let postings = self.index.ask(self.part, |content| content.seek(key, at))?;
        Ok(Cursor { postings, place: 0 })
    }

    /// The first log of a position at or above `at`.
    fn seek(&mut self, position: &mut Position<'_>, at: Posting) -> Result<Option<Posting>, Fault> {
        if position.cursors.is_empty() {
            for (number, key) in position.keys.iter().enumerate() {
                let cursor = self.open(*key, at)?;
                position.next.extend(cursor.postings.first().map(|first| Reverse((*first, number))));
                position.cursors.push(cursor);
            }
        }
        while let Some(Reverse((posting, number))) = position.next.peek().copied() {
            if posting >= at {
                return Ok(Some(posting));
            }
            position.next.pop();
            let cursor = &mut position.cursors[number];
            cursor.place += cursor.postings[cursor.place..].partition_point(|posting| *posting < at);
            if cursor.place == cursor.postings.len() {
                *cursor = self.open(position.keys[number], at)?;
            }
            position.next.extend(cursor.postings.get(cursor.place).map(|next| Reverse((*next, number))));
        }
        Ok(None)
    }

    /// The first log at or above `at` that stands in every position; below it is none when the walk is over.
    fn next(&mut self, positions: &mut [Position<'_>], mut at: Posting) -> Result<Option<Posting>, Fault> {
        let mut agreed = 0;
        for turn in (0..positions.len()).cycle() {
            let Some(found) = self.seek(&mut positions[turn], at)? else { return Ok(None) };
            agreed = if found == at { agreed + 1 } else { 1 };
            at = found;
            if agreed == positions.len() || self.is_over(at) {
                break;
            }
        }
        Ok(Some(at))
    }

    /// Collects the heights of logs up to `end`; the height at which it stopped, if it stopped.
    fn collect(&mut self, keys: &[Vec<Key>], end: Height, heights: &mut Vec<Height>) -> Result<Option<Height>, Fault> {
        let first = self.part.first;
        let position = |keys| Position { keys, cursors: Vec::new(), next: BinaryHeap::new() };
        let mut positions: Vec<Position<'_>> = keys.iter().map(|keys| position(&**keys)).collect();
        let mut at = Posting::at(first, first.max(self.start), 0);
        while let Some(from) = at {
            let Some(posting) = self.next(&mut positions, from)? else { break };
            let height = posting.height(first);
            if height > end {
                break;
            }
            if heights.len() == LOG_LOOK_BLOCKS_MAX || self.is_over(posting) {
                return Ok(Some(height));
            }
            heights.push(height);
            at = posting.above.checked_add(1).map(|above| Posting { above, index: 0 });
        }
        Ok(None)
    }

    /// Whether it has worked for long, and got on.
    fn is_over(&self, at: Posting) -> bool {
        self.steps == 0 && at.height(self.part.first) > self.start
    }
}

/// Keys of what a filter names, by position, those with the fewest first.
fn keys_of(filter: &LogFilter, keys: Keys) -> Vec<Vec<Key>> {
    let addresses = filter.addresses.iter().map(|address| keys.log_address(address)).collect();
    let topics = (0..).zip(&filter.topics);
    let topics = topics.map(|(position, topics)| topics.iter().map(|topic| keys.log_topic(position, topic)).collect());
    let named = |wanted: &Vec<Key>| !wanted.is_empty();
    let mut positions: Vec<Vec<Key>> = std::iter::once(addresses).chain(topics).filter(named).collect();
    if positions.is_empty() {
        positions.push(vec![keys.any_log()]);
    }
    positions.sort_unstable_by_key(Vec::len);
    positions
}

impl Index {
    /// Blocks between two heights that hold a log with what the filter names; stops as the port says.
    pub(crate) fn blocks_with_logs(
        &self,
        filter: &LogFilter,
        heights: &RangeInclusive<Height>,
    ) -> Result<LogBlocks, Fault> {
        self.absorb();
        let keys = keys_of(filter, self.keys());
        let (start, end) = (*heights.start(), *heights.end());
        let mut found = LogBlocks::default();
        // What the first part begins with does not count, or a filter that names much would never get on.
        let mut steps = keys.iter().fold(LOG_LOOK_STEPS_MAX, |sum, keys| sum.saturating_add(keys.len()));
        let parts = self.parts(Half::Places);
        for part in parts[part_of(&parts, start)..].iter().take_while(|part| part.first <= end) {
            if steps == 0 && part.first > start {
                found.next = Some(part.first);
                break;
            }
            let mut walk = Walk { index: self, part, start, steps };
            found.next = walk.collect(&keys, end, &mut found.heights)?;
            steps = walk.steps;
            if found.next.is_some() {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};

    use super::*;
    use crate::index::tests::index_of;

    /// One log of every block is of one address; ten of them have a topic that many other logs have as well.
    #[test]
    fn the_shortest_list_decides_how_many_are_opened() {
        let (hot, topic) = (Address::repeat_byte(1), B256::repeat_byte(2));
        let logs = |keys: Keys| {
            let mut postings = Vec::new();
            for above in 0..200_000 {
                postings.push((keys.log_address(&hot), Posting { above, index: 3 }));
                let index = if above % 20_000 == 9 { 3 } else { 4 };
                if above % 1_000 == 9 {
                    postings.push((keys.log_topic(1, &topic), Posting { above, index }));
                }
            }
            postings
        };
        let filter = |topics: Vec<B256>| LogFilter {
            addresses: [hot].into_iter().collect(),
            topics: vec![Default::default(), topics.into_iter().collect()],
        };
        let expected: Vec<Height> = (0..10).map(|number| Height(7 + number * 20_000 + 9)).collect();
        for is_sealed in [false, true] {
            let index = index_of(is_sealed, logs);
            let parts = index.parts(Half::Places);
            let part = &parts[0];
            let opened = |filter: &LogFilter, expected: &[Height]| {
                let (mut heights, steps) = (Vec::new(), 100_000);
                let mut walk = Walk { index: &index, part, start: Height(0), steps };
                let keys = keys_of(filter, index.keys());
                assert_eq!(walk.collect(&keys, Height(u64::MAX), &mut heights).unwrap(), None);
                assert_eq!(heights, expected);
                steps - walk.steps
            };
            // 200 logs have the topic; the address has 200,000, in 200 pages at least.
            let count = opened(&filter(vec![topic]), &expected);
            assert!(count <= 2 * 200 + 4, "{count} lists for 200 logs, sealed {is_sealed}");
            let count = opened(&filter(vec![B256::ZERO]), &[]);
            assert!(count <= 2, "{count} lists for no log, sealed {is_sealed}");
            let many = (0..1_000).map(|number| B256::left_padding_from(&u64::to_be_bytes(number)));
            let count = opened(&filter(many.chain([topic]).collect()), &expected);
            assert!(count <= 1_001 + 2 * 200 + 4, "{count} lists for many topics, sealed {is_sealed}");
        }
    }
}
