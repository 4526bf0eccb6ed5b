//! What was ever said of a cluster, kept so that nobody can take it back: final blocks, heights, votes.
//!
//! Each of these is an oracle: one block and one state at a height, over all nodes and all times; a height that a node
//! reported never falls, not even over a kill; no key signs two things that exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;

/// A block as a node reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Height.
    pub height: u64,
    /// Hash of the block.
    pub hash: B256,
    /// State after it.
    pub root: B256,
}

/// Everything that was reported.
#[derive(Debug, Default)]
pub struct Ledger {
    blocks: BTreeMap<u64, (Reported, usize)>,
    heights: BTreeMap<usize, u64>,
    signed: BTreeMap<Place, Signed>,
    certified: BTreeMap<(Slot, Word), usize>,
}

/// Epoch and slot.
pub type Slot = (u64, u64);

/// A validator and the slot it signed for.
type Place = (usize, Slot);

/// What a line of a log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// A proposal of a block.
    Propose(B256),
    /// A vote or certificate for a block.
    Notarize(B256),
    /// A vote or certificate for its finality.
    Finalize(B256),
    /// A vote or certificate to go on without one.
    Skip,
}

/// What one validator signed for one slot.
type Signed = BTreeSet<Word>;

/// One line of `sluice log show` that says who signed what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A proposal of the log's own validator.
    Own(Slot, Word),
    /// A vote, and its voter's index.
    Vote(Slot, Word, usize),
    /// A certificate that it held.
    Certificate(Slot, Word),
}

impl Line {
    /// Reads a line; `None` if it is about something else.
    ///
    /// # Panics
    /// If it begins as one of these and does not go on so: then the test would see nothing.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        if !["proposal", "vote", "certificate"].contains(&kind) {
            return None;
        }
        let broken = || panic!("a line of the log that nobody understands: {line}");
        let parsed = (|| {
            let rest = rest.trim_start().strip_prefix("epoch ")?;
            let (epoch, rest) = rest.split_once(", slot ")?;
            let (slot, said) = rest.split_once(": ")?;
            let slot = (epoch.parse().ok()?, slot.parse().ok()?);
            let words: Vec<&str> = said.split_whitespace().collect();
            Some(match (kind, &*words) {
                ("proposal", [id, "at", "height", _]) => Self::Own(slot, Word::Propose(id.parse().ok()?)),
                ("vote", [said @ .., "by", voter]) => Self::Vote(slot, statement(said)?, voter.parse().ok()?),
                ("certificate", [said @ .., "by", _, "of", _]) => Self::Certificate(slot, statement(said)?),
                _ => return None,
            })
        })();
        Some(parsed.unwrap_or_else(broken))
    }
}

fn statement(words: &[&str]) -> Option<Word> {
    match words {
        ["skip"] => Some(Word::Skip),
        ["notarize", id] => Some(Word::Notarize(id.parse().ok()?)),
        ["finalize", id] => Some(Word::Finalize(id.parse().ok()?)),
        _ => None,
    }
}

/// Blocks that the lines of a log show as notarized.
#[must_use]
pub fn notarized(lines: &[String]) -> Vec<(Slot, B256)> {
    let of = |line: &String| match Line::read(line) {
        Some(Line::Certificate(slot, Word::Notarize(id))) => Some((slot, id)),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

/// Whether one key may not sign both for one slot.
fn exclude(one: Word, other: Word) -> bool {
    match (one, other) {
        (Word::Propose(one), Word::Propose(other))
        | (Word::Notarize(one), Word::Notarize(other))
        | (Word::Finalize(one), Word::Finalize(other)) => one != other,
        (Word::Skip, Word::Finalize(_)) | (Word::Finalize(_), Word::Skip) => true,
        _ => false,
    }
}

impl Ledger {
    /// Takes a block that a node reports as final.
    ///
    /// # Errors
    /// That another one stands at its height, or that its height is beyond what the node said it has.
    pub fn block(&mut self, node: usize, reported: Reported) -> Result<(), String> {
        match self.blocks.get(&reported.height) {
            Some((known, by)) if *known != reported => {
                Err(format!("node {node} has {reported:?}, where node {by} had {known:?}"))
            }
            Some(_) => Ok(()),
            None => {
                self.blocks.insert(reported.height, (reported, node));
                Ok(())
            }
        }
    }

    /// Takes the height that a node reports.
    ///
    /// # Errors
    /// That it has fallen.
    pub fn height(&mut self, node: usize, height: u64) -> Result<(), String> {
        let known = self.heights.entry(node).or_insert(0);
        if height < *known {
            return Err(format!("node {node} is at height {height}, and was at {known}"));
        }
        *known = height;
        Ok(())
    }

    /// The highest height that a node reported.
    #[must_use]
    pub fn highest(&self, node: usize) -> u64 {
        self.heights.get(&node).copied().unwrap_or(0)
    }

    /// The block at a height, if any node reported it.
    #[must_use]
    pub fn at(&self, height: u64) -> Option<Reported> {
        self.blocks.get(&height).map(|(reported, _)| *reported)
    }

    /// Blocks known.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Takes the lines of a validator's log.
    ///
    /// # Errors
    /// That it signed, in this log or an earlier one, something that excludes it, or holds somebody else's vote.
    pub fn log(&mut self, validator: usize, lines: &[String]) -> Result<(), String> {
        for line in lines.iter().filter_map(|line| Line::read(line)) {
            match line {
                Line::Own(slot, word) => self.signed(validator, slot, word)?,
                Line::Vote(slot, word, voter) if voter == validator => self.signed(validator, slot, word)?,
                Line::Vote(slot, _, voter) => {
                    return Err(format!("the log of validator {validator} has a vote of {voter} for {slot:?}"));
                }
                Line::Certificate(slot, word) => self.certificate(validator, slot, word)?,
            }
        }
        Ok(())
    }

    fn signed(&mut self, validator: usize, slot: Slot, word: Word) -> Result<(), String> {
        let signed = self.signed.entry((validator, slot)).or_default();
        if let Some(earlier) = signed.iter().find(|earlier| exclude(**earlier, word)) {
            return Err(format!("validator {validator} signed {earlier:?} and {word:?} for {slot:?}"));
        }
        signed.insert(word);
        Ok(())
    }

    /// No two certificates that exclude each other exist; of different blocks in one slot one is notarized.
    fn certificate(&mut self, node: usize, slot: Slot, word: Word) -> Result<(), String> {
        let from = |slot: Slot| (slot, Word::Propose(B256::ZERO));
        let known = self.certified.range(from(slot)..from((slot.0, slot.1 + 1)));
        for ((_, earlier), holder) in known {
            if exclude(*earlier, word) {
                return Err(format!("node {node} holds {word:?} for {slot:?}, and node {holder} held {earlier:?}"));
            }
        }
        self.certified.entry((slot, word)).or_insert(node);
        Ok(())
    }

    /// The last slot for which a validator is known to have signed something.
    #[must_use]
    pub fn last_signed(&self, validator: usize) -> Option<Slot> {
        self.signed.keys().filter(|(signer, _)| *signer == validator).map(|(_, slot)| *slot).max()
    }

    /// Slots for which a validator is known to have signed something.
    #[must_use]
    pub fn slots_signed(&self, validator: usize) -> usize {
        self.signed.keys().filter(|(signer, _)| *signer == validator).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = (2, 17);

    fn id(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn vote(said: &str) -> String {
        format!("vote        epoch 2, slot 17: {said} by 3")
    }

    #[test]
    fn lines_are_read_as_the_log_writes_them() {
        let one = id(1);
        let read = |line: &str| Line::read(line);
        assert_eq!(read(&vote(&format!("notarize {one}"))), Some(Line::Vote(SLOT, Word::Notarize(one), 3)));
        assert_eq!(read(&vote("skip")), Some(Line::Vote(SLOT, Word::Skip, 3)));
        let proposal = format!("proposal    epoch 2, slot 17: {one} at height 9");
        assert_eq!(read(&proposal), Some(Line::Own(SLOT, Word::Propose(one))));
        let certificate = format!("certificate epoch 2, slot 17: finalize {one} by 3 of 4");
        assert_eq!(read(&certificate), Some(Line::Certificate(SLOT, Word::Finalize(one))));
        for other in
            ["floor       epoch 0, slot 3", "lost        no", "block       epoch 0, slot 3: 0x at height 2", ""]
        {
            assert_eq!(read(other), None);
        }
    }

    #[test]
    #[should_panic(expected = "nobody understands")]
    fn a_line_in_another_form_is_not_passed_over() {
        let _ = Line::read("vote        epoch 2, slot 17: notarise 0x01 by 3");
    }

    #[test]
    fn what_excludes_each_other_is_seen_over_logs_and_nothing_else_is() {
        let legal = [format!("notarize {}", id(1)), format!("finalize {}", id(2)), format!("notarize {}", id(1))];
        let mut ledger = Ledger::default();
        for said in legal {
            ledger.log(3, &[vote(&said)]).expect("legal");
        }
        let refusal = ledger.log(3, &[vote(&format!("notarize {}", id(3)))]).expect_err("two blocks");
        assert!(refusal.contains("validator 3 signed"), "{refusal}");
        ledger.log(3, &[vote("skip")]).expect_err("a skip beside a finalize");
        ledger.log(2, &[vote("skip")]).expect_err("a vote of another one");
        assert_eq!(ledger.slots_signed(3), 1);
        let mut ledger = Ledger::default();
        ledger.log(3, &[vote("skip"), vote(&format!("notarize {}", id(1)))]).expect("notarize and skip are legal");
        ledger.log(3, &[vote(&format!("finalize {}", id(1)))]).expect_err("a finalize beside a skip");
        let held = |what: &str| vec![format!("certificate epoch 2, slot 17: {what} by 3 of 4")];
        ledger.log(0, &held(&format!("notarize {}", id(1)))).expect("the first");
        ledger.log(1, &held("skip")).expect("both may exist");
        ledger.log(1, &held(&format!("notarize {}", id(2)))).expect_err("two blocks are notarized");
        ledger.log(1, &held(&format!("finalize {}", id(1)))).expect_err("skipped and final");
        let log = [held(&format!("notarize {}", id(1))), held("skip")].concat();
        assert_eq!(notarized(&log), [(SLOT, id(1))]);
    }

    #[test]
    fn a_fork_and_a_falling_height_are_seen() {
        let mut ledger = Ledger::default();
        let block = |hash, root| Reported { height: 4, hash: id(hash), root: id(root) };
        ledger.block(0, block(1, 1)).expect("the first");
        ledger.block(1, block(1, 1)).expect("the same");
        ledger.block(1, block(2, 1)).expect_err("another block");
        ledger.block(1, block(1, 2)).expect_err("another state");
        ledger.height(0, 4).expect("it rises");
        ledger.height(1, 2).expect("another node");
        ledger.height(0, 3).expect_err("it falls");
        assert_eq!((ledger.highest(0), ledger.highest(1), ledger.highest(2)), (4, 2, 0));
    }
}
