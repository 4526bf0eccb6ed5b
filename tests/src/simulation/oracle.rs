//! What may never be, whatever happens: checked after every event.
//!
//! Agreement; one Notarization per slot; never Finalization and SkipCertificate of one slot; what is final was
//! notarized; nobody honest contradicts itself, over crashes too; certificates weigh a quorum; a signature is in the
//! log before it leaves; commits without gaps; one hand-over per epoch; evidence and bans hit the faulty alone.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use engine::{
    ordering::journal::Entry,
    types::{Certificate, ConsensusHeader, Evidence, Slot, Statement, ValidatorSet, vote::Kind},
};

/// All that was ever said and done in one run.
#[derive(Debug, Default)]
pub struct Oracle {
    final_at: BTreeMap<u64, B256>,
    certified: BTreeMap<(u64, Slot, Kind), Statement>,
    handover: BTreeMap<u64, B256>,
    /// By secret: everything that an honest validator signed and sent, by epoch and slot.
    said: BTreeMap<(u64, u64, Slot), Vec<Statement>>,
    proposed: BTreeMap<(u64, u64, Slot), B256>,
    /// Proof that somebody is faulty, by secret.
    pub convicted: BTreeMap<u64, u64>,
    /// The first thing that may not be.
    pub violation: Option<String>,
    only_forks: bool,
}

impl Oracle {
    /// An oracle; with `only_forks`, it minds nothing but forks.
    #[must_use]
    pub fn new(only_forks: bool) -> Self {
        Self { only_forks, ..Self::default() }
    }

    /// Notes a violation; the first one counts.
    pub fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        if self.only_forks && !what.starts_with("fork") {
            return;
        }
        self.violation.get_or_insert(what);
    }

    /// An honest node sends a vote.
    pub fn votes(&mut self, secret: u64, epoch: u64, statement: Statement) {
        let slot = statement.slot();
        let said = self.said.entry((secret, epoch, slot)).or_default();
        if said.contains(&statement) {
            return;
        }
        if let Some(earlier) = said.iter().find(|earlier| earlier.contradicts(&statement)) {
            let what = format!("validator {secret:x} said {earlier:?} and {statement:?} in epoch {epoch}");
            self.violated(what);
        }
        self.said.entry((secret, epoch, slot)).or_default().push(statement);
    }

    /// The highest epoch and slot in which a validator ever signed anything that it sent.
    #[must_use]
    pub fn signed_up_to(&self, secret: u64) -> Option<(u64, u64)> {
        let all = (secret, 0, Slot(0))..=(secret, u64::MAX, Slot(u64::MAX));
        let voted = self.said.range(all.clone()).next_back().map(|((_, epoch, slot), _)| (*epoch, slot.0));
        let proposed = self.proposed.range(all).next_back().map(|((_, epoch, slot), _)| (*epoch, slot.0));
        voted.max(proposed)
    }

    /// An honest node sends a proposal of its own.
    pub fn proposes(&mut self, secret: u64, header: &ConsensusHeader) {
        let id = header.id();
        let known = self.proposed.entry((secret, header.epoch, header.slot())).or_insert(id);
        if *known != id {
            self.violated(format!("validator {secret:x} proposed twice in slot {}", header.slot));
        }
    }

    /// Some honest node shows that it holds a certificate.
    pub fn holds(&mut self, set: &ValidatorSet, certificate: &Certificate) {
        let (statement, epoch) = (certificate.statement, certificate.epoch.0);
        let slot = statement.slot();
        if let Some(known) = self.certified.get(&(epoch, slot, statement.kind())) {
            if *known != statement {
                self.violated(format!("{known:?} and {statement:?} are both certified"));
            }
            return;
        }
        let stake = certificate.signers.stake(set);
        if stake < set.quorum() {
            self.violated(format!("{statement:?} is certified by a stake of {stake}"));
        }
        self.certified.insert((epoch, slot, statement.kind()), statement);
        let is_final = self.certified.contains_key(&(epoch, slot, Kind::Finalize));
        if is_final && self.certified.contains_key(&(epoch, slot, Kind::Skip)) {
            self.violated(format!("slot {slot} is final and skipped"));
        }
        if statement.kind() == Kind::Finalize {
            let notarized = self.certified.get(&(epoch, slot, Kind::Notarize));
            if notarized.and_then(Statement::id) != statement.id() {
                self.violated(format!("slot {slot} is final and was not notarized"));
            }
        }
    }

    /// Slots of an epoch with a skip certificate.
    pub fn skipped(&self, epoch: u64) -> impl Iterator<Item = Slot> + '_ {
        let of_epoch = self.certified.keys().filter(move |(at, _, kind)| *at == epoch && *kind == Kind::Skip);
        of_epoch.map(|(_, slot, _)| *slot)
    }

    /// An honest node commits a block on top of another, of which these are height and id.
    pub fn commits(&mut self, below: (u64, B256), header: &ConsensusHeader) {
        let id = header.id();
        if header.height != below.0 + 1 || header.parent_id != below.1 {
            self.violated(format!("height {} committed on {} of height {}", header.height, below.1, below.0));
        }
        let known = self.final_at.entry(header.height).or_insert(id);
        if *known != id {
            let known = *known;
            self.violated(format!("fork: {known} and {id} are both final at height {}", header.height));
        }
    }

    /// An honest node goes on to the next epoch.
    pub fn hands_over(&mut self, epoch: u64, base: B256) {
        let known = self.handover.entry(epoch).or_insert(base);
        if *known != base {
            self.violated(format!("epoch {epoch} ends on two blocks"));
        }
    }

    /// An honest node sends a signature: the log must hold it.
    pub fn needs(&mut self, log: &[Entry], is_it: impl Fn(&Entry) -> bool, what: &str) {
        if !log.iter().rev().any(is_it) {
            self.violated(format!("{what} left before it was in the log"));
        }
    }

    /// An honest node accuses somebody.
    pub fn accuses(&mut self, set: &ValidatorSet, evidence: &Evidence, is_faulty: impl Fn(u64) -> bool) {
        let secret = |index: engine::types::ValidatorIndex| {
            set.get(index).map_or(0, |it| u64::from_be_bytes(it.public_key.0[..8].try_into().expect("eight bytes")))
        };
        let accused: Vec<u64> = match evidence {
            Evidence::Proposals(one, _) => vec![secret(one.header.proposer())],
            Evidence::Votes(one, _) => vec![secret(one.voter)],
            Evidence::Certificates(one, two) => one.signers.both(&two.signers).iter().map(secret).collect(),
        };
        for secret in accused {
            *self.convicted.entry(secret).or_default() += 1;
            if !is_faulty(secret) {
                self.violated(format!("validator {secret:x} is honest and accused: {evidence:?}"));
            }
        }
    }
}
