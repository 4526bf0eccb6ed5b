//! How many chunks a body is cut into, and who gets how many: by stake, so that whoever is honest has enough.
//!
//! A set of total stake W tolerates faulty validators of F = W - Q together. Each receiver gets chunks in proportion to
//! its stake, at least one. The most that receivers of stake F can hold back is found exactly (a knapsack over chunks);
//! what is left then is how many chunks must do. Rounding costs little if there are many chunks, and many chunks cost
//! time, so their number is doubled as long as that clearly helps.

use crate::{
    limits,
    types::{ValidatorIndex, ValidatorSet},
};

/// How the body of a block is cut for one set and one leader; a function of these two alone.
///
/// Promise: all receivers but some of less than a third of all stake hold [`Self::data_chunks`] chunks or more, if the
/// leader has at most half of all stake. If it has more they may hold less, for there are at most
/// [`limits::BODY_EXPANSION_MAX`] times as many chunks; who lacks some asks the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where each validator's chunks begin, in set order, and at last where they end.
    starts: Vec<usize>,
    data: usize,
}

/// One way to cut.
struct Cut {
    /// Chunks of each validator in set order.
    chunks: Vec<usize>,
    total: usize,
    data: usize,
    /// Whether faulty validators may hold back so much that too little is left.
    is_short: bool,
}

impl Plan {
    /// Finds the plan; takes up to some milliseconds for hundreds of validators.
    ///
    /// The leader has no share. A leader that is not in the set is nobody: everybody has one.
    #[must_use]
    pub fn new(set: &ValidatorSet, leader: ValidatorIndex) -> Self {
        let stake = |index| if index == leader { 0 } else { set.stake(index).0 };
        let stakes: Vec<u64> = (0..).map(ValidatorIndex).take(set.size()).map(stake).collect();
        let receivers = stakes.iter().filter(|stake| **stake > 0).count();
        let faulty = set.total().0.saturating_sub(set.quorum().0);
        let mut best = Cut::new(&stakes, receivers, faulty);
        let mut chunks = receivers.saturating_mul(2);
        while receivers > 0 && chunks.saturating_add(receivers) <= limits::BODY_CHUNKS_MAX {
            let next = Cut::new(&stakes, chunks, faulty);
            if next.is_clearly_better(&best) {
                best = next;
            }
            chunks = chunks.saturating_mul(2);
        }
        let mut starts = vec![0];
        starts.extend(best.chunks.iter().scan(0_usize, |end, chunks| {
            *end = end.saturating_add(*chunks);
            Some(*end)
        }));
        Self { starts, data: best.data }
    }

    /// Whether there is nobody to send anything to.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.data == 0
    }

    /// Chunks that give the body back, any of them.
    #[must_use]
    pub const fn data_chunks(&self) -> usize {
        self.data
    }

    /// All chunks.
    #[must_use]
    pub fn total_chunks(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Validators of the set, the leader included.
    #[must_use]
    pub const fn validators(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many chunks a validator gets; none for the leader and for who is not in the set.
    #[must_use]
    pub fn chunks_of(&self, index: ValidatorIndex) -> usize {
        self.range(index).len()
    }

    /// Who gets a share, in set order.
    pub fn receivers(&self) -> impl Iterator<Item = ValidatorIndex> {
        self.indices().filter(|index| self.chunks_of(*index) > 0)
    }

    /// Everybody in set order.
    pub(super) fn indices(&self) -> impl Iterator<Item = ValidatorIndex> + use<> {
        (0..).map(ValidatorIndex).take(self.validators())
    }

    /// Bytes of each chunk of a body of this size: even, and at least 2.
    #[must_use]
    pub const fn chunk_bytes(&self, body_bytes: usize) -> usize {
        let exact = if self.data == 0 { 0 } else { body_bytes.div_ceil(self.data) };
        let even = exact.saturating_add(exact % 2);
        if even == 0 { 2 } else { even }
    }

    /// Bytes of a validator's chunks of a body of this size.
    #[must_use]
    pub fn share_bytes(&self, index: ValidatorIndex, body_bytes: usize) -> usize {
        self.chunks_of(index).saturating_mul(self.chunk_bytes(body_bytes))
    }

    /// Which chunks are a validator's.
    pub(super) fn range(&self, index: ValidatorIndex) -> std::ops::Range<usize> {
        let at = usize::from(index.0);
        let end = at.saturating_add(1);
        self.starts.get(at).zip(self.starts.get(end)).map_or(0..0, |(start, end)| *start..*end)
    }
}

impl Cut {
    /// Some `wanted` chunks in proportion to stake; more if many have little.
    fn new(stakes: &[u64], wanted: usize, faulty: u64) -> Self {
        let all: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum();
        let rounded = |stake: u64| {
            // Both factors are below 2^64, and what comes out is at most `wanted`.
            let product = u128::from(stake).saturating_mul(u128::try_from(wanted).unwrap_or(u128::MAX));
            usize::try_from(product.saturating_add(all / 2) / all.max(1)).unwrap_or(wanted)
        };
        let fair = stakes.iter().map(|stake| if *stake == 0 { 0 } else { rounded(*stake).max(1) });
        let mut chunks: Vec<usize> = fair.collect();
        let total: usize = chunks.iter().sum();
        let left = total.saturating_sub(most_held_back(stakes, &chunks, faulty));
        let data = left.max(total.div_ceil(limits::BODY_EXPANSION_MAX));
        // Who has as many chunks as there are data chunks has the body: more would be of no use to anybody.
        chunks.iter_mut().for_each(|chunks| *chunks = (*chunks).min(data));
        Self { total: chunks.iter().sum(), chunks, data, is_short: data > left }
    }

    /// Whether it keeps the promise and the other does not; or sends over a 64th less.
    const fn is_clearly_better(&self, other: &Self) -> bool {
        if self.is_short != other.is_short {
            return other.is_short;
        }
        let (mine, theirs) = (self.data.saturating_mul(other.total), other.data.saturating_mul(self.total));
        mine.saturating_mul(64) > theirs.saturating_mul(65)
    }
}

/// The most chunks that validators of at most so much stake have together.
fn most_held_back(stakes: &[u64], chunks: &[usize], stake_max: u64) -> usize {
    let total: usize = chunks.iter().sum();
    // The least stake that has exactly so many chunks.
    let mut least = vec![None; total.saturating_add(1)];
    least[0] = Some(0_u64);
    let mut reached = 0_usize;
    for (stake, chunks) in stakes.iter().zip(chunks).filter(|(stake, _)| (1..=stake_max).contains(*stake)) {
        for have in (0..=reached).rev() {
            let with = least[have].and_then(|least| least.checked_add(*stake)).filter(|with| *with <= stake_max);
            let place = &mut least[have.saturating_add(*chunks)];
            *place = match (*place, with) {
                (Some(before), Some(with)) => Some(before.min(with)),
                (before, with) => before.or(with),
            };
        }
        reached = reached.saturating_add(*chunks);
    }
    least.iter().rposition(Option::is_some).unwrap_or_default()
}
