//! Whatever the chain and the wish, an answer is one that its receiver can prove, and no larger than it may be.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use proptest::{collection::vec, prelude::*};

use super::{Shelved, chain_above};
use crate::{
    limits,
    types::{
        Certificate, Chain, ConsensusHeader, Epoch, Height, Range, Signature, SignedHeader, Signers, Slot, Statement,
    },
};

fn certificate(header: &ConsensusHeader) -> Certificate {
    let statement = Statement::Finalize { slot: header.slot(), id: header.id() };
    Certificate { epoch: header.epoch(), statement, signers: Signers::none(4), signature: Signature::default() }
}

/// A chain in a store: blocks with their sizes, and tail headers by id.
#[derive(Debug, Default)]
struct Shelf {
    blocks: Vec<Shelved<u64>>,
    tails: BTreeMap<B256, SignedHeader>,
    epoch_heights: u64,
    /// Heights of blocks that were let go of, but for those that epochs began on.
    gone: std::ops::Range<u64>,
}

impl Shelf {
    /// Blocks of these sizes, of which every one that is marked has a certificate of its own; what is left over at the
    /// end of an epoch became final with a tail header so many slots above its last block.
    fn new(blocks: &[(bool, usize)], epoch_heights: u64, tail: u64) -> Self {
        let mut shelf = Self { epoch_heights, ..Self::default() };
        let (mut parent, mut parent_slot, mut slot, mut open) = (B256::ZERO, 0, 0, Vec::new());
        for ((is_certified, size_bytes), height) in blocks.iter().zip(1..) {
            let epoch = (height - 1) / epoch_heights;
            let header =
                ConsensusHeader { epoch, slot, height, parent_slot, parent_id: parent, ..ConsensusHeader::default() };
            let is_last = height % epoch_heights == 0;
            let mut top = header.clone();
            for _ in 0..if is_last { tail } else { 0 } {
                top = ConsensusHeader { slot: top.slot + 1, parent_slot: top.slot, parent_id: top.id(), ..top };
                let signed = SignedHeader { header: top.clone(), signature: Signature::default() };
                shelf.tails.insert(top.id(), signed);
            }
            (parent, parent_slot, slot) = (header.id(), header.slot, if is_last { 0 } else { slot + 1 });
            open.push((header, *size_bytes));
            if *is_certified || is_last || height == blocks.len() as u64 {
                let certificate = certificate(&top);
                for (header, size_bytes) in open.drain(..) {
                    let body = header.height;
                    let signed = SignedHeader { header, signature: Signature::default() };
                    shelf.blocks.push(Shelved { signed, certificate, body, size_bytes });
                }
            }
        }
        shelf
    }

    fn answer(&self, range: Range) -> (Chain, Vec<u64>) {
        let is_kept = |height: &u64| !self.gone.contains(height) || height.is_multiple_of(self.epoch_heights);
        let place = |height: u64| usize::try_from(height.checked_sub(1)?).ok();
        let shelved = |height: Height| self.blocks.get(place(Some(height.0).filter(is_kept)?)?).cloned();
        let tail = |id: B256| self.tails.get(&id).cloned();
        chain_above(&range, Height(self.blocks.len() as u64), self.epoch_heights, &shelved, &tail)
    }

    /// What a receiver proves, and the bounds.
    fn check(&self, range: Range) -> u64 {
        let (chain, bodies) = self.answer(range);
        assert_eq!((chain.from, chain.height.0), (range.from, self.blocks.len() as u64));
        assert_eq!(chain.bodies, bodies.len() as u64);
        assert!(chain.headers.len() <= limits::CHAIN_HEADERS_MAX && chain.bodies <= range.count);
        let sizes: Vec<usize> =
            bodies.iter().map(|height| self.blocks[usize::try_from(height - 1).expect("small")].size_bytes).collect();
        assert!(sizes.iter().sum::<usize>() <= limits::LETTER_BYTES_MAX || sizes.len() == 1, "{sizes:?}");
        let Some(top) = chain.headers.last() else {
            assert!(bodies.is_empty());
            let next = range.from.0 + 1;
            let has_next = next <= self.blocks.len() as u64 && !self.gone.contains(&next);
            assert_eq!(chain.certificate.is_some(), has_next, "{range:?}");
            return 0;
        };
        assert_eq!(bodies, (range.from.0 + 1..=range.from.0 + chain.bodies).collect::<Vec<_>>());
        assert!(chain.bodies > 0 && chain.headers[0].header.height == range.from.0 + 1);
        assert_eq!(chain.certificate.map(|it| it.statement.id()), Some(Some(top.header.id())));
        for pair in chain.headers.windows(2) {
            let (below, above) = (&pair[0].header, &pair[1].header);
            let step = u64::from(below.height % self.epoch_heights != 0);
            assert_eq!((above.parent_id, above.height), (below.id(), below.height + step));
            assert_eq!(above.epoch, below.epoch);
        }
        chain.bodies
    }
}

proptest! {
    #[test]
    fn every_answer_is_proven_linked_and_bounded(
        blocks in vec((prop::bool::weighted(0.4), 1_usize..3_000_000), 1..200),
        epoch_heights in 3_u64..90,
        tail in 0_u64..6,
        from in 0_u64..210,
        count in 1_u64..=64,
        kept_from in 0_u64..210,
    ) {
        let shelf = Shelf { gone: 0..kept_from, ..Shelf::new(&blocks, epoch_heights, tail) };
        shelf.check(Range { from: Height(from), count });
    }

    /// Whoever goes on from what he got comes to the end, over all ends of epochs.
    #[test]
    fn answer_after_answer_leads_to_the_tip(
        blocks in vec((prop::bool::weighted(0.2), 1_usize..3_000_000), 1..300),
        epoch_heights in 3_u64..90,
        tail in 0_u64..6,
        count in 1_u64..=64,
    ) {
        let shelf = Shelf::new(&blocks, epoch_heights, tail);
        let mut from = 0;
        while from < blocks.len() as u64 {
            let bodies = shelf.check(Range { from: Height(from), count });
            // More than fit an answer became final at once: a certificate is all there is.
            if bodies == 0 {
                let open = shelf.blocks[usize::try_from(from).expect("small")..].iter();
                let until = open.take_while(|block| {
                    block.certificate == shelf.blocks[usize::try_from(from).expect("small")].certificate
                });
                let run = until.count() + usize::try_from(tail).expect("small");
                prop_assert!(run > limits::CHAIN_HEADERS_MAX - 1, "{run} blocks became final at once above {from}");
                return Ok(());
            }
            from += bodies;
        }
    }
}

#[test]
fn what_cannot_be_proven_in_one_answer_is_named_by_its_certificate() {
    let shelf = Shelf::new(&vec![(false, 100); 80], 1_000, 0);
    let (chain, bodies) = shelf.answer(Range { from: Height(3), count: 64 });
    assert!(chain.headers.is_empty() && bodies.is_empty());
    assert_eq!(chain.certificate, Some(certificate(&shelf.blocks[79].signed.header)));
    assert_eq!(shelf.check(Range { from: Height(16), count: 64 }), 64, "64 headers lead to the one that is certified");
}

/// A block whose certificate lies among those that are gone is none that too much lies above.
#[test]
fn what_ends_before_blocks_that_are_gone_is_not_told_as_a_certificate() {
    let mut shelf = Shelf::new(&[(false, 100), (false, 100), (true, 100)], 1_000, 0);
    shelf.gone = 2..3;
    let (chain, bodies) = shelf.answer(Range { from: Height(0), count: 64 });
    assert!(chain.headers.is_empty() && bodies.is_empty() && chain.certificate.is_none());
}

#[test]
fn headers_without_bodies_lead_from_a_full_letter_to_the_certified_one_and_to_tail_headers() {
    let blocks: Vec<(bool, usize)> = (1..=12).map(|height| (height == 5, 4_000_000)).collect();
    let shelf = Shelf::new(&blocks, 12, 3);
    let (chain, bodies) = shelf.answer(Range { from: Height(0), count: 64 });
    assert_eq!((bodies, chain.headers.len()), (vec![1, 2], 5));
    let (chain, bodies) = shelf.answer(Range { from: Height(10), count: 64 });
    assert_eq!((bodies, chain.headers.len()), (vec![11, 12], 5), "the last two blocks and three tail headers");
    assert_eq!(chain.certificate.map(|it| it.epoch), Some(Epoch(0)));
    assert_eq!(chain.headers[4].header.slot(), Slot(14));
}
