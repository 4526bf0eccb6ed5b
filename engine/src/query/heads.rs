//! What shows that blocks are final, kept for whoever asks for its next piece.
//!
//! Promise: no more than [`limits::STATE_HEADS_MAX`] of them, with no more than [`limits::STATE_HEAD_BYTES_MAX`] bytes
//! together. The one that nobody has asked for longest leaves, so a few who ask for others do not take away what
//! somebody is at.

use std::collections::VecDeque;

use alloy_primitives::{B256, Bytes};
use parking_lot::Mutex;

use crate::{limits, types::Epoch};

/// One of them, from the set of an epoch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) block: B256,
    pub(super) from: Epoch,
    pub(super) bytes: Bytes,
}

/// The one that was asked for last is in front.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<VecDeque<Head>>);

impl Heads {
    /// The one of a block, if it is kept.
    pub(super) fn get(&self, block: B256, from: Epoch) -> Option<Head> {
        let mut heads = self.0.lock();
        let place = heads.iter().position(|head| (head.block, head.from) == (block, from))?;
        let head = heads.remove(place)?;
        heads.push_front(head.clone());
        Some(head)
    }

    /// Keeps one that was made.
    pub(super) fn keep(&self, head: Head) {
        let mut heads = self.0.lock();
        heads.retain(|kept| (kept.block, kept.from) != (head.block, head.from));
        heads.push_front(head);
        heads.truncate(limits::STATE_HEADS_MAX);
        let mut bytes = 0_u64;
        let is_room = |head: &Head| {
            bytes = bytes.saturating_add(u64::try_from(head.bytes.len()).unwrap_or(u64::MAX));
            bytes <= limits::STATE_HEAD_BYTES_MAX
        };
        let kept = heads.iter().map(is_room).take_while(|is_room| *is_room).count();
        heads.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u8, length: usize) -> Head {
        let (block, from) = (B256::repeat_byte(number), Epoch(u64::from(number % 2)));
        Head { block, from, bytes: Bytes::from(vec![number; length]) }
    }

    #[test]
    fn what_was_asked_for_lately_stays_and_what_nobody_asks_for_leaves() {
        let heads = Heads::default();
        let (own, of_other_set) = (head(0, 9), Head { from: Epoch(7), ..head(0, 8) });
        [own.clone(), of_other_set.clone()].into_iter().for_each(|head| heads.keep(head));
        let others = u8::try_from(limits::STATE_HEADS_MAX).expect("a few");
        for number in 1..=3 * others {
            heads.keep(head(number, 9));
            assert_eq!(heads.get(own.block, own.from), Some(own.clone()));
            assert!(heads.0.lock().len() <= limits::STATE_HEADS_MAX);
        }
        assert_eq!(heads.get(of_other_set.block, of_other_set.from), None);
        assert_eq!(heads.get(head(1, 9).block, head(1, 9).from), None);
        heads.keep(Head { bytes: Bytes::new(), ..own });
        assert_eq!(heads.get(own.block, own.from).map(|head| head.bytes.len()), Some(0), "the one made last");
    }

    #[test]
    fn large_ones_have_less_company() {
        let (heads, half) = (Heads::default(), usize::try_from(limits::STATE_HEAD_BYTES_MAX / 2).expect("it fits"));
        let all = [head(1, 1), head(2, half), head(3, half), head(4, 2 * half)];
        let kept = |heads: &Heads| heads.0.lock().iter().map(|head| head.block[0]).collect::<Vec<_>>();
        all[..3].iter().for_each(|head| heads.keep(head.clone()));
        assert_eq!(kept(&heads), [3, 2], "together they take what there is");
        heads.keep(all[3].clone());
        assert_eq!(kept(&heads), [4]);
    }
}
