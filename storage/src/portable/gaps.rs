//! What of a state is not here yet: ranges of keys, from which every chunk that is taken over goes away.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256};

use super::manifest::{Part, after};
use crate::tables::Fields;

/// A range of keys that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The account whose slots they are, by its hashed address; `None` for accounts.
    pub owner: Option<B256>,
    /// The first key.
    pub from: B256,
    /// The first key behind it; `None` for the end.
    pub to: Option<B256>,
}

/// Ranges by owner and first key; none meets another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gaps(BTreeMap<(Option<B256>, B256), Option<B256>>);

impl Default for Gaps {
    /// All of a state.
    fn default() -> Self {
        Self(BTreeMap::from([((None, B256::ZERO), None)]))
    }
}

/// Whether `to` lies at or before a key; `None` is behind all keys.
fn ends_by(to: Option<B256>, key: Option<B256>) -> bool {
    match (to, key) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(to), Some(key)) => to <= key,
    }
}

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Gap> + '_ {
        self.0.iter().map(|((owner, from), to)| Gap { owner: *owner, from: *from, to: *to })
    }

    /// The range that a key is in.
    fn around(&self, owner: Option<B256>, key: B256) -> Option<Gap> {
        let ((found, from), to) = self.0.range(..=(owner, key)).next_back()?;
        let is_in = *found == owner && to.is_none_or(|to| key < to);
        is_in.then_some(Gap { owner, from: *from, to: *to })
    }

    /// Whether a key is missing.
    pub(super) fn has(&self, owner: Option<B256>, key: B256) -> bool {
        self.around(owner, key).is_some()
    }

    /// Whether anything of a part is missing.
    pub(super) fn meets(&self, part: &Part) -> bool {
        self.has(part.owner, part.from) || self.first_in(part).is_some()
    }

    /// The first range that begins in a part.
    fn first_in(&self, part: &Part) -> Option<Gap> {
        let ((found, from), to) = self.0.range((part.owner, part.from)..).next()?;
        let is_in = *found == part.owner && end_of(part).is_none_or(|end| *from < end);
        is_in.then_some(Gap { owner: part.owner, from: *from, to: *to })
    }

    /// Takes away what a part covers, and adds the slots of those of its accounts that have them apart.
    pub(super) fn fill(&mut self, part: &Part) {
        let (owner, to) = (part.owner, end_of(part));
        let apart = part.apart.iter().filter(|account| self.has(None, **account)).copied().collect::<Vec<_>>();
        if let Some(gap) = self.around(owner, part.from) {
            self.0.remove(&(owner, gap.from));
            if gap.from < part.from {
                self.0.insert((owner, gap.from), Some(part.from));
            }
            self.rest(gap, to);
        }
        while let Some(gap) = self.first_in(part) {
            self.0.remove(&(owner, gap.from));
            self.rest(gap, to);
        }
        self.0.extend(apart.into_iter().map(|account| ((Some(account), B256::ZERO), None)));
    }

    /// Keeps what of a range lies behind a key.
    fn rest(&mut self, gap: Gap, to: Option<B256>) {
        if let Some(to) = to.filter(|_| !ends_by(gap.to, to)) {
            self.0.insert((gap.owner, to), gap.to);
        }
    }

    /// Cuts the widest range in two, so that two peers can be asked; `false` where none can be cut.
    pub(super) fn split(&mut self) -> bool {
        let middle = |gap: &Gap| {
            let from = U256::from_be_bytes(gap.from.0);
            let last = gap.to.map_or(U256::MAX, |to| U256::from_be_bytes(to.0));
            (last.saturating_sub(from), from.saturating_add(last.saturating_sub(from) / U256::from(2)))
        };
        let Some(widest) = self.iter().max_by_key(|gap| middle(gap).0) else { return false };
        let (_, at) = middle(&widest);
        let at = B256::from(at);
        if at <= widest.from {
            return false;
        }
        self.0.insert((widest.owner, widest.from), Some(at));
        self.0.insert((widest.owner, at), widest.to);
        true
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len().saturating_mul(97));
        for Gap { owner, from, to } in self.iter() {
            out.push(u8::from(owner.is_some()) | u8::from(to.is_some()) << 1);
            out.extend_from_slice(owner.unwrap_or_default().as_slice());
            out.extend_from_slice(from.as_slice());
            out.extend_from_slice(to.unwrap_or_default().as_slice());
        }
        out
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let mut gaps = BTreeMap::new();
        while !fields.0.is_empty() {
            let flags = fields.bytes(1)?[0];
            let (owner, from, to) = (fields.hash()?, fields.hash()?, fields.hash()?);
            let only = |bit: u8, hash: B256| (flags & bit != 0).then_some(hash);
            gaps.insert((only(1, owner), from), only(2, to));
        }
        Some(Self(gaps))
    }
}

/// The first key behind a part.
fn end_of(part: &Part) -> Option<B256> {
    if part.ends { None } else { part.last.and_then(after) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tests::kit::next;

    fn key(byte: u64) -> B256 {
        B256::from(U256::from(byte) << 248)
    }

    /// Keys that begin with a byte are missing all together or not at all.
    #[test]
    fn gaps_are_what_is_missing_of_a_set() {
        for seed in 0..200 {
            let (mut random, mut gaps) = (seed, Gaps::default());
            let mut missing: BTreeSet<(bool, u64)> = (0..256).map(|byte| (false, byte)).collect();
            for _ in 0..60 {
                if next(&mut random).is_multiple_of(3) {
                    gaps.split();
                }
                let is_slots = next(&mut random).is_multiple_of(2);
                let (first, length) = (next(&mut random) % 256, next(&mut random) % 40);
                let last = (first + length).min(255);
                let covered = |byte: u64| (first..=last).contains(&byte);
                let part = Part {
                    owner: is_slots.then(|| key(7)),
                    from: key(first),
                    last: Some(B256::from((U256::from(last) << 248) + (U256::MAX >> 8))),
                    rows: 1,
                    slots: 0,
                    apart: if !is_slots && covered(7) { vec![key(7)] } else { Vec::new() },
                    ends: last == 255 && length > 0,
                };
                let meets = missing.iter().any(|(slots, byte)| *slots == is_slots && covered(*byte));
                assert_eq!(gaps.meets(&part), meets, "seed {seed}");
                // The owner's slots are missing as soon as its account is here.
                let is_owner_new = !part.apart.is_empty() && missing.contains(&(false, 7));
                gaps.fill(&part);
                missing.retain(|(slots, byte)| *slots != is_slots || !covered(*byte));
                missing.extend((0..256).filter(|_| is_owner_new).map(|byte| (true, byte)));
                for byte in 0..256 {
                    assert_eq!(gaps.has(None, key(byte)), missing.contains(&(false, byte)), "seed {seed}, {byte}");
                    let slots = gaps.has(Some(key(7)), key(byte));
                    assert_eq!(slots, missing.contains(&(true, byte)), "seed {seed}, slot {byte}");
                }
                assert_eq!(Gaps::decode(&mut Fields(&gaps.encode())), Some(gaps.clone()));
                assert_eq!(gaps.is_empty(), missing.is_empty());
            }
        }
    }
}
