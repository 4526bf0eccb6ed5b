//! Answers to others who are behind: read from what is durable and from what was executed, by whichever thread of the
//! network asks.
//!
//! Promise: ordering neither waits for such an answer nor knows of it; and an answer has at most
//! [`limits::LETTER_BYTES_MAX`] bytes of blocks, or one block, and is made from [`limits::CHAIN_HEADERS_MAX`] blocks at
//! most. A store that cannot be read stops the node elsewhere; here it has nothing.

use std::{collections::VecDeque, sync::Arc};

use alloy_primitives::B256;
use parking_lot::Mutex;

use super::Stages;
use crate::{
    limits,
    types::{Block, Certificate, Chain, Fetch, Height, Letter, Message, Range, SignedHeader},
};

/// The tail headers that ordering knows: those of an epoch that ended are in the store as well.
#[derive(Debug, Default)]
pub(super) struct Tails(Mutex<VecDeque<(B256, SignedHeader)>>);

impl Tails {
    /// Adds one; where there are too many, the oldest leaves.
    pub(super) fn insert(&self, signed: SignedHeader) {
        let id = signed.header.id();
        let mut tails = self.0.lock();
        if tails.iter().any(|(known, _)| *known == id) {
            return;
        }
        if tails.len() >= limits::TAIL_HEADERS_MAX {
            tails.pop_front();
        }
        tails.push_back((id, signed));
    }

    fn get(&self, id: &B256) -> Option<SignedHeader> {
        self.0.lock().iter().find(|(known, _)| known == id).map(|(_, signed)| signed.clone())
    }
}

/// A block of the store, and what makes it final.
struct Stored {
    signed: SignedHeader,
    block: Arc<Block>,
    certificate: Certificate,
}

/// What goes into a [`Chain`], as far as it is collected.
#[derive(Default)]
struct Links {
    headers: Vec<SignedHeader>,
    blocks: Vec<Arc<Block>>,
    /// How many of the headers lead up to one that is certified itself, and by what.
    proven: Option<(usize, Certificate)>,
    /// What makes the first of the blocks final, and the last of them.
    certificates: Option<(Certificate, Certificate)>,
}

impl Stages {
    /// Answers a wish for blocks; `None` to anything else.
    pub(super) fn answer(&self, message: &Message) -> Option<Letter> {
        match message {
            Message::Fetch(fetch) => Some(self.blocks_from(fetch)),
            Message::Range(range) => Some(self.chain_above(range)),
            _ => None,
        }
    }

    /// A tail header of this epoch or of one that ended.
    fn tail_header(&self, id: B256) -> Option<SignedHeader> {
        self.tails.get(&id).or_else(|| self.store.tail_header(id).ok().flatten())
    }

    /// A block or tail header and those below it, newest first, as far as they are here and fit one letter.
    fn blocks_from(&self, fetch: &Fetch) -> Letter {
        let (mut headers, mut blocks) = (Vec::new(), Vec::new());
        let (mut next, mut bytes) = (fetch.id, 0_usize);
        let stored = |id: B256| {
            let stored = self.stored(self.store.height_of_id(id).ok().flatten()?)?;
            Some((stored.signed.signature, stored.block))
        };
        for _ in 0..fetch.count.min(limits::FETCH_BLOCKS_MAX) {
            if let Some((signature, block)) = self.pending.block(&next).or_else(|| stored(next)) {
                bytes = bytes.saturating_add(block.rlp_size_bytes());
                if bytes > limits::LETTER_BYTES_MAX && !blocks.is_empty() {
                    break;
                }
                headers.push(SignedHeader { header: block.consensus.clone(), signature });
                blocks.push(block);
            } else if let Some(above) = self.tail_header(next) {
                headers.push(above);
            }
            match headers.last() {
                Some(last) if last.header.parent_id != next => next = last.header.parent_id,
                _ => break,
            }
        }
        Letter { message: Message::Blocks(headers), blocks }
    }

    fn stored(&self, height: Height) -> Option<Stored> {
        let found = self.store.block(height).ok().flatten()?;
        let finality = found.finality?;
        let signed = SignedHeader { header: found.block.consensus.clone(), signature: finality.proposal };
        Some(Stored { signed, block: found.block.clone(), certificate: finality.certificate })
    }

    /// Final blocks above a height and what makes them final.
    ///
    /// Most blocks have a Finalization of their own, or one of a block a few heights above; the answer ends on such a
    /// one, or on the tail header that ended the epoch.
    fn chain_above(&self, range: &Range) -> Letter {
        let height = self.store.tip().height();
        let links = self.links(range, height);
        let (from, lowest) = (range.from, links.certificates.map(|(lowest, _)| lowest));
        let Some(Links { headers, blocks, proven: Some((_, certificate)), .. }) = self.proven(links) else {
            let nothing = Chain { from, height, headers: Vec::new(), bodies: 0, certificate: lowest };
            return Letter::of(Message::Chain(Box::new(nothing)));
        };
        let bodies = u64::try_from(blocks.len()).unwrap_or(u64::MAX);
        let chain = Chain { from, height, headers, bodies, certificate: Some(certificate) };
        Letter { message: Message::Chain(Box::new(chain)), blocks }
    }

    /// Blocks of one epoch as far as there is room, and headers above them up to one that is certified itself.
    fn links(&self, range: &Range, newest: Height) -> Links {
        let (mut links, mut bytes, mut is_full) = (Links::default(), 0_usize, false);
        let heights = range.from.0.saturating_add(1)..=newest.0;
        for height in heights.take(limits::CHAIN_HEADERS_MAX) {
            let Some(Stored { signed, block, certificate }) = self.stored(Height(height)) else { break };
            if links.headers.first().is_some_and(|first| first.header.epoch != signed.header.epoch) {
                break;
            }
            let is_own = certificate.statement.id() == Some(signed.header.id());
            links.headers.push(signed);
            let lowest = links.certificates.map_or(certificate, |(lowest, _)| lowest);
            links.certificates = Some((lowest, certificate));
            bytes = bytes.saturating_add(block.rlp_size_bytes());
            let held = u64::try_from(links.blocks.len()).unwrap_or(u64::MAX);
            is_full |= held >= range.count || (bytes > limits::LETTER_BYTES_MAX && held > 0);
            if !is_full {
                links.blocks.push(block);
            }
            if is_own {
                links.proven = Some((links.headers.len(), certificate));
                if is_full {
                    break;
                }
            }
        }
        links
    }

    /// Cut to what is proven, or led up to the tail header that ended the epoch; `None` if nothing is proven.
    fn proven(&self, mut links: Links) -> Option<Links> {
        let (_, certificate) = links.certificates?;
        let last = links.headers.last()?;
        let epoch_heights = self.store.chain().ordering.epoch_slots;
        if last.header.height.checked_rem(epoch_heights) == Some(0)
            && let Some(tail) = self.tail_above(last.header.id(), &certificate)
            && links.headers.len().saturating_add(tail.len()) <= limits::CHAIN_HEADERS_MAX
        {
            links.headers.extend(tail);
            links.proven = Some((links.headers.len(), certificate));
            return Some(links);
        }
        let (count, _) = links.proven?;
        links.headers.truncate(count);
        links.blocks.truncate(count);
        Some(links)
    }

    /// The tail headers from one above a block up to the one that a certificate names, lowest first.
    fn tail_above(&self, id: B256, certificate: &Certificate) -> Option<Vec<SignedHeader>> {
        let (mut tail, mut next) = (Vec::new(), certificate.statement.id()?);
        while next != id {
            if tail.len() >= limits::CHAIN_HEADERS_MAX {
                return None;
            }
            let above = self.tail_header(next)?;
            next = above.header.parent_id;
            tail.push(above);
        }
        tail.reverse();
        Some(tail)
    }
}
