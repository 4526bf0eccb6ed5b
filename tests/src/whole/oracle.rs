//! What may never happen to whole nodes, checked after every event.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use engine::types::{CommittedBlock, Message, Statement};

/// What all nodes together have said and done.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// The chain: what was announced or found in a store first.
    canon: BTreeMap<u64, B256>,
    included: BTreeMap<B256, u64>,
    /// Heights of blocks whose bodies do not travel whole.
    large: BTreeSet<u64>,
    votes: BTreeMap<(u64, u64, u16), Vec<Statement>>,
    proposals: BTreeMap<(u64, u64), BTreeSet<B256>>,
    violation: Option<String>,
}

impl Oracle {
    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn take(&mut self) -> Option<String> {
        self.violation.take()
    }

    pub(super) const fn is_violated(&self) -> bool {
        self.violation.is_some()
    }

    /// Transactions in the chain.
    pub(super) fn transactions(&self) -> usize {
        self.included.len()
    }

    /// Blocks whose bodies do not travel whole.
    pub(super) fn large_blocks(&self) -> usize {
        self.large.len()
    }

    /// A node has this block in its chain: all have the same, and no transaction is in it twice.
    pub(super) fn block(&mut self, node: usize, block: &CommittedBlock) {
        let (height, hash) = (block.height().0, block.hash());
        let known = *self.canon.entry(height).or_insert(hash);
        if known != hash {
            self.violated(format!("node {node} has {hash} at height {height}, another one {known}"));
        }
        if block.block.consensus.body_size_bytes > 0 {
            self.large.insert(height);
        }
        for transaction in &block.block.body.transactions {
            let first = *self.included.entry(transaction.hash()).or_insert(height);
            if first != height {
                self.violated(format!("{} is in blocks {first} and {height}", transaction.hash()));
            }
        }
    }

    /// A node says something: never two things that contradict each other, whatever happened in between.
    pub(super) fn said(&mut self, node: usize, message: &Message) {
        match message {
            Message::Vote(vote) => {
                let said = self.votes.entry((vote.epoch.0, vote.statement.slot().0, vote.voter.0)).or_default();
                if let Some(other) = said.iter().find(|other| other.contradicts(&vote.statement)) {
                    let text = format!("node {node} votes {:?} after {other:?}", vote.statement);
                    self.violated(text);
                } else if !said.contains(&vote.statement) {
                    said.push(vote.statement);
                }
            }
            Message::Proposal(proposal) => {
                let header = &proposal.header;
                let said = self.proposals.entry((header.epoch, header.slot)).or_default();
                said.insert(header.id());
                if said.len() > 1 {
                    self.violated(format!("slot {} of epoch {} has two proposals", header.slot, header.epoch));
                }
            }
            Message::Evidence(evidence) => self.violated(format!("node {node} accuses somebody honest: {evidence:?}")),
            _ => {}
        }
    }
}
