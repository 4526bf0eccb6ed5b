//! What faulty validators make of what they would say.

use alloy_primitives::B256;
use engine::{
    crypto::Signer as _,
    testing::MockSigner,
    types::{Certificate, ConsensusHeader, Epoch, Message, Proposal, Signers, Slot, Statement, ValidatorIndex, Vote},
};

use super::{faults::FaultKind, node::outcome, world::World};

impl World {
    /// What a faulty validator makes of what it would say.
    pub(super) fn lie(&mut self, node: usize, fault: FaultKind, message: Message) {
        match (fault, message) {
            (FaultKind::Equivocate, Message::Proposal(proposal)) => self.equivocate(node, *proposal),
            (FaultKind::Withhold, message @ Message::Certificate(_)) => {
                let to = usize::try_from(self.rng.below(self.nodes.len() as u64)).expect("a node");
                let parcel = self.parcel(message);
                self.send(node, to, &parcel);
            }
            (FaultKind::BadShares, Message::Vote(mut vote)) => {
                if self.rng.below(2) == 0 {
                    vote.signature.0.0[3] ^= 1;
                }
                self.tell_all(node, Message::Vote(vote));
            }
            (FaultKind::Flood, Message::Vote(vote)) => {
                for ahead in [1, 5, 50, 1_000_000] {
                    let slot = Slot(vote.statement.slot().0 + ahead);
                    let statement = Statement::Notarize { slot, id: B256::with_last_byte(7) };
                    self.tell_all(node, Message::Vote(self.signed(node, vote.epoch, statement, vote.voter)));
                }
                self.tell_all(node, Message::Vote(vote));
            }
            (FaultKind::Equivocate, Message::Vote(vote)) => self.vote_both(node, vote),
            (FaultKind::Forge, Message::Vote(vote)) => {
                self.forge(node, &vote);
                self.tell_all(node, Message::Vote(vote));
            }
            (_, message) => self.tell_all(node, message),
        }
    }

    fn signed(&self, node: usize, epoch: Epoch, statement: Statement, voter: ValidatorIndex) -> Vote {
        let hash = self.settings.domain.vote(epoch, &statement);
        let signature = MockSigner::new(self.nodes[node].secret).sign(hash);
        Vote { epoch, statement, voter, signature }
    }

    /// Two blocks for one slot, each to some.
    fn equivocate(&mut self, node: usize, proposal: Proposal) {
        let mut other = proposal.clone();
        other.header.timestamp_ms += 1;
        let Some((parent, _)) = self.headers.get(&other.header.parent_id) else { return };
        let empty = self.headers.get(&proposal.header.id()).is_some_and(|(_, empty)| *empty);
        if parent.height != other.header.height {
            other.header.block_hash = outcome(parent, &other.header, empty);
        }
        let id = other.header.id();
        other.signature = self.signature_of(&other.header, &id);
        self.headers.insert(id, (other.header.clone(), empty));
        let parcels = [proposal, other].map(|proposal| self.parcel(Message::Proposal(Box::new(proposal))));
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let draw = self.rng.below(5);
            for which in 0..2 {
                if draw == 4 || draw % 2 == which {
                    let which = usize::try_from(which).expect("small");
                    self.send(node, to, &parcels[which]);
                }
            }
        }
    }

    /// A vote for every block of the slot, and to finalize and to skip it.
    fn vote_both(&mut self, node: usize, vote: Vote) {
        let slot = vote.statement.slot();
        let of_slot = |(header, _): &(ConsensusHeader, bool)| header.slot() == slot && header.epoch == vote.epoch.0;
        let ids: Vec<B256> = self.headers.iter().filter(|(_, it)| of_slot(it)).map(|(id, _)| *id).collect();
        let mut statements = vec![vote.statement];
        for id in ids {
            statements.extend([Statement::Notarize { slot, id }, Statement::Finalize { slot, id }]);
        }
        if self.rng.below(4) == 0 {
            statements.push(Statement::Skip { slot });
        }
        for statement in statements {
            let vote = self.signed(node, vote.epoch, statement, vote.voter);
            self.tell_all(node, Message::Vote(vote));
        }
    }

    /// Certificates that nobody signed but the sender: of a quorum, of everybody, or of the sender alone.
    fn forge(&mut self, node: usize, vote: &Vote) {
        let slot = vote.statement.slot();
        let id = vote.statement.id().unwrap_or_else(|| B256::with_last_byte(7));
        let statements = [Statement::Notarize { slot, id }, Statement::Skip { slot }, Statement::Finalize { slot, id }];
        let statement = statements[usize::try_from(self.rng.below(3)).expect("small")];
        let (size, voter) = (self.options.validators, vote.voter);
        let mut signers = Signers::none(size);
        signers.add(voter);
        let further = [0, size * 2 / 3, size][usize::try_from(self.rng.below(3)).expect("small")];
        for index in (0..size).filter_map(|at| u16::try_from(at).ok()).map(ValidatorIndex).take(further) {
            signers.add(index);
        }
        let signature = self.signed(node, vote.epoch, statement, voter).signature;
        let certificate = Certificate { epoch: vote.epoch, statement, signers, signature };
        self.tell_all(node, Message::Certificate(Box::new(certificate)));
    }
}
