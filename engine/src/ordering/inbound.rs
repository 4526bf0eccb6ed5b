//! What peers say: checked cheaply first, then taken in.
//!
//! Order of checks: chain, epoch, slot within reach, place inside the set, author, duplicate, conflict; only then a
//! signature. A vote that its author's own connection brings is taken unverified, since the blame is certain if it
//! turns out to be forged; a vote that somebody else passes on is verified alone.

use alloy_primitives::{B256, keccak256};

use super::{
    blocks::Known,
    certify::certify,
    event::{Output, Source},
    machine::Machine,
    planted::Bug,
    rules::Parent,
    verify,
    votes::Taken,
};
use crate::{
    limits,
    types::{
        Certificate, ConsensusHeader, Contact, Epoch, Evidence, Message, Proposal, Signature, SignedHeader, Signers,
        Slot, Stake, Statement, ValidatorIndex, Vote, vote::Kind,
    },
};

/// Names the certificates that came with a proposal: keccak256 over their hashes, zero where there are none.
pub(super) fn certificates_hash(certificates: &[Certificate]) -> B256 {
    if certificates.is_empty() {
        return B256::ZERO;
    }
    let hashes: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.hash().0).collect();
    keccak256(hashes)
}

impl Machine {
    pub(super) fn receive(&mut self, source: Source, message: Message) {
        if let Some(heard) = source.validator.and_then(|from| self.heard.get_mut(usize::from(from.0))) {
            *heard = self.now.monotonic;
        }
        if self.halted {
            return;
        }
        self.hear_epoch(source, &message);
        if self.is_early(source, &message) {
            return;
        }
        match message {
            Message::Proposal(proposal) => self.proposal(source, *proposal),
            Message::Vote(vote) => self.vote_from(source, vote),
            Message::Certificate(certificate) => self.certificate_from(source, *certificate),
            Message::Status(status) => self.status(source, status),
            Message::Highest(highest) => self.highest(source, highest),
            Message::Blocks(blocks) => self.fetched(source, blocks),
            Message::Evidence(evidence) => self.evidence_from(source, *evidence),
            Message::Chain(chain) => self.chain_from(source, *chain),
            // Whoever holds the bodies answers.
            Message::Fetch(_) | Message::Range(_) => {}
        }
    }

    /// Keeps what belongs to the next epoch; the oldest makes way where there is too much.
    fn is_early(&mut self, source: Source, message: &Message) -> bool {
        let epoch = match message {
            Message::Proposal(proposal) => Epoch(proposal.header.epoch),
            Message::Vote(vote) => vote.epoch,
            Message::Certificate(certificate) => certificate.epoch,
            _ => return false,
        };
        let is_early = epoch.0 == self.record.epoch().0.saturating_add(1);
        if is_early {
            if self.early.len() >= self.set.size().saturating_mul(limits::EARLY_MESSAGES_PER_VALIDATOR) {
                self.early.pop_front();
            }
            self.early.push_back((source, message.clone()));
        }
        is_early
    }

    fn proposal(&mut self, source: Source, proposal: Proposal) {
        let Proposal { header, signature, certificates } = proposal;
        // One that is sent again may come without.
        let is_named = certificates.is_empty() || certificates_hash(&certificates) == header.certificates_hash;
        if certificates.len() > limits::PROPOSAL_CERTIFICATES_MAX || !is_named {
            return self.emit(Output::Ban(source.peer, "certificates of a proposal do not match its header"));
        }
        for certificate in certificates {
            self.certificate_from(source, certificate);
        }
        let id = header.id();
        self.header_from(source, id, SignedHeader { header, signature });
    }

    /// Takes a header that its leader signed, and its id.
    fn header_from(&mut self, source: Source, id: B256, block: SignedHeader) -> bool {
        let header = &block.header;
        let slot = header.slot();
        if header.epoch() != self.record.epoch() || self.tip_slot.is_some_and(|tip| slot <= tip) {
            return false;
        }
        if self.blocks.get(&id).is_some() {
            return true;
        }
        let is_wanted = self.wants.contains_key(&id) || self.is_certified(slot, id);
        if (slot > self.horizon() || self.blocks.count(slot) >= limits::SLOT_PROPOSALS_MAX) && !is_wanted {
            return false;
        }
        let Some(parent) = self.resolve(header) else {
            self.emit(Output::Ban(source.peer, "a proposal on a parent of a later slot, or for another chain"));
            return false;
        };
        if self.schedule.leader(slot) != header.proposer() {
            self.emit(Output::Ban(source.peer, "a proposal of a validator that does not lead"));
            return false;
        }
        let domain = &self.settings.domain;
        if verify::proposal(&self.set, &*self.committee, domain, &block).is_err() {
            self.emit(Output::Ban(source.peer, "a proposal with a wrong signature"));
            return false;
        }
        self.detect_second_proposal(&block, id);
        self.insert(block, id, parent, None, None);
        true
    }

    pub(super) fn is_certified(&self, slot: Slot, id: B256) -> bool {
        let record = self.record.slot(slot);
        record.notarization == Some(id) || record.finalization == Some(id)
    }

    /// What a header says that it stands on.
    pub(super) fn parent_in(&self, header: &ConsensusHeader) -> Parent {
        let is_base = header.parent_id == self.base.id;
        Parent { slot: (!is_base).then_some(Slot(header.parent_slot)), id: header.parent_id }
    }

    /// What a header stands on; `None` if it cannot stand there.
    fn resolve(&self, header: &ConsensusHeader) -> Option<Parent> {
        let parent = self.parent_in(header);
        let is_below = match parent.slot {
            Some(slot) => slot < header.slot(),
            None => header.parent_slot == 0,
        };
        (is_below && header.chain_id == self.settings.domain.chain_id).then_some(parent)
    }

    fn detect_second_proposal(&mut self, block: &SignedHeader, id: B256) {
        let slot = block.header.slot();
        let Some(first) = self.blocks.first(slot).filter(|first| first.id != id) else { return };
        let first = SignedHeader { header: first.header.clone(), signature: first.signature };
        if self.accused.insert((slot, block.header.proposer())) {
            self.accuse(Evidence::Proposals(Box::new(first), Box::new(block.clone())));
        }
        self.give_up_early(slot);
    }

    pub(super) fn insert(
        &mut self,
        block: SignedHeader,
        id: B256,
        parent: Parent,
        empty: Option<bool>,
        valid: Option<bool>,
    ) {
        let SignedHeader { header, signature } = block;
        let arrived = self.now.monotonic;
        let known = Known {
            id,
            header,
            signature,
            parent,
            empty,
            valid,
            is_tail: false,
            mix: None,
            is_kept: false,
            is_final: false,
            arrived,
            heard: arrived,
            is_cut: false,
        };
        self.blocks.insert(known);
        self.changed = true;
    }

    /// Takes a block that was on disk when the node started.
    pub(super) fn restore_block(&mut self, block: SignedHeader, empty: bool) {
        let slot = block.header.slot();
        let is_here = block.header.epoch() == self.record.epoch() && self.tip_slot.is_none_or(|tip| slot > tip);
        if let Some(parent) = self.resolve(&block.header).filter(|_| is_here) {
            let id = block.header.id();
            self.insert(block, id, parent, Some(empty), None);
            if let Some(known) = self.blocks.get_mut(&id) {
                known.is_kept = true;
            }
        }
    }

    pub(super) fn body(&mut self, id: B256, empty: bool) {
        let is_wanted = self.wants_body(&id);
        if let Some(known) = self.blocks.get_mut(&id).filter(|_| is_wanted) {
            known.empty = Some(empty);
            self.changed = true;
        }
    }

    fn vote_from(&mut self, source: Source, vote: Vote) {
        let slot = vote.statement.slot();
        let lowest = self.kept_from().0.saturating_sub(self.evidence_slots());
        if vote.epoch != self.record.epoch() || slot.0 < lowest || slot > self.horizon() {
            return;
        }
        if usize::from(vote.voter.0) >= self.set.size() {
            return self.emit(Output::Ban(source.peer, "a vote of a validator that is not in the set"));
        }
        // Own votes that come from outside are no exception: what counts as signed here was.
        let is_its_own = source.validator == Some(vote.voter) && self.me != Some(vote.voter);
        if !is_its_own && !self.is_genuine(&vote) {
            return self.emit(Output::Ban(source.peer, "a vote with a wrong signature"));
        }
        self.count(vote);
        let is_skip_of_leader = vote.statement.kind() == Kind::Skip && self.schedule.leader(slot) == vote.voter;
        if is_skip_of_leader && Some(slot.0 / self.settings.window) == self.pacemaker.window() {
            self.give_up_early(slot);
        }
    }

    pub(super) fn is_genuine(&self, vote: &Vote) -> bool {
        verify::vote(&self.set, &*self.committee, &self.settings.domain, vote).is_ok()
    }

    /// Counts a vote, and joins those for its statement once they weigh enough.
    pub(super) fn count(&mut self, vote: Vote) {
        let taken = self.votes.add(&vote);
        if !matches!(taken, Taken::Known | Taken::Full) {
            self.hear_news();
        }
        let stake = match taken {
            Taken::Known | Taken::Full => return,
            Taken::Counted(stake) => stake,
            Taken::Contradicts(earlier, stake) => {
                self.accuse_voter(earlier, vote);
                stake
            }
        };
        if stake >= self.quorum() {
            self.join(vote.statement);
        } else if stake >= self.set.honest_share() && vote.statement.id().is_some() {
            // Somebody honest holds the block.
            self.changed |= vote.statement.id().is_some_and(|id| self.blocks.get(&id).is_none());
        }
    }

    pub(super) fn quorum(&self) -> Stake {
        let Stake(quorum) = self.set.quorum();
        if self.settings.planted.has(Bug::QuorumLessOne) {
            return Stake(self.set.total().0.saturating_mul(2) / 3);
        }
        Stake(quorum)
    }

    fn join(&mut self, statement: Statement) {
        let slot = statement.slot();
        if self.certificates.contains_key(&(slot, statement.kind())) || slot < self.kept_from() {
            return;
        }
        let planted = self.settings.planted;
        let is_counted = planted.has(Bug::CountHeads) || planted.has(Bug::CountTwice);
        let least = if is_counted { Stake(0) } else { self.quorum() };
        let shares = self.votes.shares(&statement);
        let domain = &self.settings.domain;
        // What this node alone has signed nobody needs to look at.
        let is_own = !is_counted && shares.iter().all(|(voter, _)| Some(*voter) == self.me);
        let (joined, forged) = if is_own || planted.has(Bug::KeepBadShare) {
            (self.unchecked(statement, &shares), Vec::new())
        } else {
            certify(&self.set, &*self.committee, domain, &statement, &shares, least)
        };
        let epoch = self.record.epoch();
        for voter in forged {
            self.votes.remove(voter, &statement);
            self.emit(Output::BanValidator(epoch, voter, "a vote with a wrong signature"));
        }
        if let Some(certificate) = joined {
            self.learn(certificate);
        }
    }

    /// The certificate of shares that nobody looks at.
    fn unchecked(&self, statement: Statement, shares: &[(ValidatorIndex, Signature)]) -> Option<Certificate> {
        let mut signers = Signers::none(self.set.size());
        for (sender, _) in shares {
            signers.add(*sender);
        }
        let signatures: Vec<Signature> = shares.iter().map(|(_, signature)| *signature).collect();
        let signature = match signatures[..] {
            [alone] => alone,
            _ => self.committee.aggregate(&signatures)?,
        };
        Some(Certificate { epoch: self.record.epoch(), statement, signers, signature })
    }

    fn certificate_from(&mut self, source: Source, certificate: Certificate) {
        let statement = certificate.statement;
        let slot = statement.slot();
        let is_of_here = certificate.epoch == self.record.epoch() || self.settings.planted.has(Bug::AcceptOldEpoch);
        // A finalization moves a node that is behind, however far.
        let is_near = slot <= self.horizon() || statement.kind() == Kind::Finalize;
        if !is_of_here || !is_near || slot < self.kept_from() || self.is_held(&statement) {
            return;
        }
        let verdict = verify::certificate(&self.set, &*self.committee, &self.settings.domain, &certificate);
        if verdict.is_ok() || self.settings.planted.has(Bug::AcceptUnverified) {
            self.learn(certificate);
        } else {
            self.emit(Output::Ban(source.peer, "a certificate that does not hold"));
        }
    }

    fn is_held(&self, statement: &Statement) -> bool {
        let held = self.certificates.get(&(statement.slot(), statement.kind()));
        held.is_some_and(|held| held.statement == *statement)
    }

    fn accuse_voter(&mut self, earlier: Vote, later: Vote) {
        let is_new = !self.accused.contains(&(later.statement.slot(), later.voter));
        if !is_new {
            return;
        }
        // What an author's own connection brought was not verified before.
        for vote in [earlier, later] {
            if !self.is_genuine(&vote) {
                self.votes.remove(vote.voter, &vote.statement);
                return self.emit(Output::BanValidator(vote.epoch, vote.voter, "a vote with a wrong signature"));
            }
        }
        self.accused.insert((later.statement.slot(), later.voter));
        self.accuse(Evidence::Votes(earlier, later));
    }

    pub(super) fn accuse(&mut self, evidence: Evidence) {
        if !self.settings.planted.has(Bug::DropEvidence) {
            self.emit(Output::Evidence(Box::new(evidence)));
        }
    }

    fn evidence_from(&mut self, source: Source, evidence: Evidence) {
        match verify::evidence(&self.set, &*self.committee, &self.settings.domain, &evidence) {
            Ok(faulty) => {
                let slot = verify::slot_of(&evidence);
                let is_near = slot.0 >= self.kept_from().0.saturating_sub(self.evidence_slots());
                let is_near = is_near && slot <= self.horizon();
                let mut is_new = false;
                for validator in faulty.iter().filter(|_| is_near) {
                    is_new |= self.accused.insert((slot, validator));
                }
                if is_new {
                    self.accuse(evidence);
                }
            }
            Err(_) => self.emit(Output::Ban(source.peer, "evidence that proves nothing")),
        }
    }

    /// Takes blocks that were asked for, newest first.
    fn fetched(&mut self, source: Source, blocks: Vec<SignedHeader>) {
        let mut wanted: Option<B256> = None;
        for block in blocks.into_iter().take(usize::try_from(limits::FETCH_BLOCKS_MAX).unwrap_or(usize::MAX)) {
            let mut id = block.header.id();
            let is_asked_for = self.wants.contains_key(&id) || wanted == Some(id);
            if !is_asked_for {
                // Whatever comes is what was asked for: only where a test plants that.
                let asked = wanted.or_else(|| self.wants.keys().next().copied());
                match asked.filter(|_| self.settings.planted.has(Bug::AcceptWrongBlock)) {
                    Some(asked) => id = asked,
                    None => return,
                }
            }
            wanted = Some(block.header.parent_id);
            if wanted == Some(self.tip.id) {
                wanted = None;
            }
            if let Some(parent) = wanted {
                self.wants.entry(parent).or_default();
            }
            if !self.header_from(source, id, block) {
                return;
            }
            // Far from the tip nothing is asked for but what leads down from a final block.
            let is_final = self.is_far();
            if let Some(known) = self.blocks.get_mut(&id) {
                known.is_final |= is_final;
            }
        }
    }

    /// Notes who is connected.
    pub(super) fn peers(&mut self, mut contacts: Vec<Contact>) {
        contacts.truncate(limits::PEERS_MAX);
        if self.sync.peers(&contacts) {
            self.greet();
        }
        self.changed |= !self.wants.is_empty() || self.is_left_to_ranges();
    }

    /// The connection to a validator.
    pub(super) fn peer_of(&self, index: ValidatorIndex) -> Option<u64> {
        let key = self.set.get(index)?.public_key;
        self.sync.peer_of(&key)
    }

    /// The validators other than this one, starting from a place that a number chooses.
    pub(super) fn others(&self, start: usize) -> impl Iterator<Item = ValidatorIndex> + use<> {
        let (size, me) = (self.set.size(), self.me);
        let places = (0..size).map(move |step| start.wrapping_add(step) % size.max(1));
        places.filter_map(|place| u16::try_from(place).ok().map(ValidatorIndex)).filter(move |index| Some(*index) != me)
    }
}
