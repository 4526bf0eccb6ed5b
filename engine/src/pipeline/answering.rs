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
    ordering::serving::{self, Shelved},
    types::{Block, Fetch, Height, Letter, Message, Range, SignedHeader},
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
            let stored = self.shelved(self.store.height_of_id(id).ok().flatten()?)?;
            Some((stored.signed.signature, stored.body))
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
        Letter { message: Message::Blocks(headers), blocks, list: None }
    }

    fn shelved(&self, height: Height) -> Option<Shelved<Arc<Block>>> {
        let found = self.store.block(height).ok().flatten()?;
        let finality = found.finality?;
        let signed = SignedHeader { header: found.block.consensus.clone(), signature: finality.proposal };
        let (certificate, size_bytes) = (finality.certificate, found.block.rlp_size_bytes());
        Some(Shelved { signed, certificate, body: found.block.clone(), size_bytes })
    }

    /// Durable blocks above a height, and what makes them final.
    fn chain_above(&self, range: &Range) -> Letter {
        let (newest, epoch_heights) = (self.store.tip().height(), self.store.chain().ordering.epoch_slots);
        let (shelved, tail) = (|height| self.shelved(height), |id| self.tail_header(id));
        let (chain, blocks) = serving::chain_above(range, newest, epoch_heights, &shelved, &tail);
        Letter { message: Message::Chain(Box::new(chain)), blocks, list: None }
    }
}
