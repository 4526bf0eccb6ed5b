//! What one node was told by those who contradict themselves: it must find the proof.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use engine::{
    ordering::event::Place,
    types::{ConsensusHeader, Evidence, Statement, ValidatorIndex, Vote},
};

/// Genuine words that reached a node since its start, in slots that it takes words about, and whom it accused.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    epoch: u64,
    votes: BTreeMap<(u64, ValidatorIndex), Vec<Statement>>,
    proposals: BTreeMap<(u64, ValidatorIndex), Vec<B256>>,
    accused: BTreeSet<(u64, u64, ValidatorIndex)>,
}

/// Whoever said two things: epoch, slot and place in the set.
pub(super) type Liar = (u64, u64, ValidatorIndex);

impl Witness {
    fn turn(&mut self, place: Place) {
        if self.epoch != place.epoch.0 {
            (self.epoch, self.votes, self.proposals) = (place.epoch.0, BTreeMap::new(), BTreeMap::new());
        }
    }

    /// A genuine vote comes; a validator that contradicts itself by it. `reach` is four windows in slots.
    pub(super) fn vote(&mut self, place: Place, reach: u64, vote: &Vote) -> Option<Liar> {
        self.turn(place);
        let (slot, frontier) = (vote.statement.slot().0, place.frontier.0);
        if vote.epoch != place.epoch || slot + reach < frontier || slot > frontier + reach {
            return None;
        }
        self.votes = self.votes.split_off(&(frontier.saturating_sub(reach), ValidatorIndex(0)));
        let said = self.votes.entry((slot, vote.voter)).or_default();
        if said.contains(&vote.statement) {
            return None;
        }
        let lies = said.iter().any(|earlier| earlier.contradicts(&vote.statement));
        said.push(vote.statement);
        lies.then_some((vote.epoch.0, slot, vote.voter))
    }

    /// A genuine proposal comes; its leader if it is another than before.
    pub(super) fn proposal(&mut self, place: Place, reach: u64, header: &ConsensusHeader, id: B256) -> Option<Liar> {
        self.turn(place);
        let (slot, frontier) = (header.slot, place.frontier.0);
        if header.epoch() != place.epoch || slot < frontier || slot > frontier + reach {
            return None;
        }
        self.proposals = self.proposals.split_off(&(frontier, ValidatorIndex(0)));
        let made = self.proposals.entry((slot, header.proposer())).or_default();
        if !made.contains(&id) {
            made.push(id);
        }
        (made.len() > 1).then_some((header.epoch, slot, header.proposer()))
    }

    /// The node accuses somebody.
    pub(super) fn accuses(&mut self, evidence: &Evidence) {
        let accused: Vec<Liar> = match evidence {
            Evidence::Proposals(one, _) => vec![(one.header.epoch, one.header.slot, one.header.proposer())],
            Evidence::Votes(one, _) => vec![(one.epoch.0, one.statement.slot().0, one.voter)],
            Evidence::Certificates(one, two) => {
                let both = one.signers.both(&two.signers);
                both.iter().map(|index| (one.epoch.0, one.statement.slot().0, index)).collect()
            }
        };
        self.accused.extend(accused);
    }

    /// Whether the node accused this one.
    #[must_use]
    pub(super) fn has_accused(&self, liar: &Liar) -> bool {
        self.accused.contains(liar)
    }
}
