//! Blocks whose name tells their ancestry, and the words about them.
//!
//! A model has at most [`SLOTS`] slots. A block is two bits for each slot: zero where its chain has no block, else
//! which of the blocks of that slot with the same parent. So parent, slot and conflict need no table.

use alloy_primitives::B256;
use engine::{
    ordering::rules::{Candidate, Parent},
    types::{Slot, Statement},
};

/// Slots that a model may have.
pub const SLOTS: usize = 3;

/// Blocks that can be named.
pub const BLOCKS: usize = 1 << (2 * SLOTS);

/// A block of a Byzantine leader that execution refuses.
pub const INVALID: u8 = 3;

/// A block; the zero is the one that the epoch begins on.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u8);

impl Block {
    pub const BASE: Self = Self(0);

    /// A block of `slot` on this one.
    pub fn child(self, slot: usize, tag: u8) -> Self {
        assert!(self.slot().is_none_or(|own| own < slot) && slot < SLOTS && (1..=INVALID).contains(&tag));
        Self(self.0 | tag << (2 * slot))
    }

    /// The block that an id names.
    pub fn of(id: B256) -> Self {
        Self(id[31])
    }

    pub fn id(self) -> B256 {
        B256::with_last_byte(self.0)
    }

    /// Its slot; `None` for the base.
    pub fn slot(self) -> Option<usize> {
        (0..SLOTS).rev().find(|slot| self.tag(*slot) != 0)
    }

    /// What it has at a slot.
    pub fn tag(self, slot: usize) -> u8 {
        self.0 >> (2 * slot) & 3
    }

    pub fn parent(self) -> Self {
        self.slot().map_or(Self::BASE, |slot| Self(self.0 & !(3 << (2 * slot))))
    }

    /// Whether it is `other` or stands on it.
    pub fn is_on(self, other: Self) -> bool {
        other.slot().is_none_or(|slot| u16::from(self.0) & ((1 << (2 * slot + 2)) - 1) == u16::from(other.0))
    }

    /// It and its ancestors without the base, youngest first.
    pub fn chain(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |block| Some(block.parent())).take_while(|block| *block != Self::BASE)
    }

    /// What execution says of it.
    pub fn is_valid(self) -> bool {
        (0..SLOTS).all(|slot| self.tag(slot) != INVALID)
    }

    /// As the rules see it.
    pub fn candidate(self, valid: Option<bool>) -> Candidate {
        let parent = self.parent();
        let parent = Parent { slot: parent.slot().map(slot), id: parent.id() };
        Candidate { slot: slot(self.slot().expect("not the base")), id: self.id(), parent, valid }
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::BASE {
            return f.write_str("base");
        }
        let names = (0..SLOTS).filter(|slot| self.tag(*slot) != 0);
        let name = |slot| format!("{slot}{}", ["", "a", "b", "x"][usize::from(self.tag(slot))]);
        f.write_str(&names.map(name).collect::<Vec<_>>().join("-"))
    }
}

/// A slot as the engine writes it.
pub fn slot(slot: usize) -> Slot {
    Slot(slot as u64)
}

/// What a validator or a quorum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    Notarize(Block),
    Skip(usize),
    Finalize(Block),
}

impl Word {
    /// As the engine says it.
    pub fn statement(self) -> Statement {
        let place = |block: Block| slot(block.slot().expect("not the base"));
        match self {
            Self::Notarize(block) => Statement::Notarize { slot: place(block), id: block.id() },
            Self::Skip(at) => Statement::Skip { slot: slot(at) },
            Self::Finalize(block) => Statement::Finalize { slot: place(block), id: block.id() },
        }
    }
}
