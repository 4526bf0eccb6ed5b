//! Where the oracle looks on: every message, line of the log, commit and frontier of every honest node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_primitives::B256;
use engine::{
    crypto::{Committee, Scheme as _},
    ordering::{
        event::{Anchor, Place},
        journal::Entry,
        verify,
    },
    testing::MockScheme,
    types::{Certificate, ConsensusHeader, Evidence, Message, SignedHeader, ValidatorIndex, ValidatorSet, vote::Kind},
};

use super::{
    answers::Lie,
    cluster::{index_of, members},
    faults::FaultKind,
    keys::public_key,
    ledger::Ledger,
    node::Node,
    witness::Liar,
    world::World,
};

/// A certificate that was learned is passed on within this time, in microseconds; slow disks take 0.2 s.
const PASS_ON_US: u64 = 2_000_000;
/// Beyond its timers a window may last this much longer for slow disks and executors, in microseconds.
const SLOW_US: u64 = 1_500_000;
/// And this much where votes are lost, which are asked for after stalls of 2, 3 and 4.5 s; in microseconds.
const STALLS_US: u64 = 10_000_000;
/// After this long in a calm network every node counts windows as the others do, in microseconds.
const SETTLED_US: u64 = 5_000_000;

/// The sets of all epochs so far, with what verifies their signatures.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<u64, (Arc<ValidatorSet>, Arc<dyn Committee>)>);

/// What one honest node is held to.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Certificates that it wrote down and has told nobody of, and since when.
    owed: BTreeMap<(u64, u64, Kind), u64>,
    /// Certificates that it told of and has not written down yet.
    told: BTreeSet<(u64, u64, Kind)>,
    /// The window under way, when it was entered, and how many were entered since a Finalization came.
    window: (u64, u64),
    entered_us: u64,
    entered: u32,
}

impl World {
    pub(super) fn set_of(&mut self, epoch: u64) -> Arc<ValidatorSet> {
        self.committee_of(epoch).0
    }

    fn committee_of(&mut self, epoch: u64) -> (Arc<ValidatorSet>, Arc<dyn Committee>) {
        let (options, stakes) = (&self.options, &self.stakes);
        let made = || {
            let set = members(options, stakes, epoch);
            let committee = MockScheme.committee(&set).expect("keys of the mock scheme");
            (Arc::new(set), committee)
        };
        self.sets.0.entry(epoch).or_insert_with(made).clone()
    }

    /// A node starts: its log says what it may sign.
    pub(super) fn watch_start(&mut self, node: usize) {
        let heights = self.settings.epoch_heights;
        let mut bases = BTreeMap::from([(0, self.genesis.id)]);
        let disk = &self.nodes[node].disk;
        for (anchor, _) in disk.chain.iter().filter(|(anchor, _)| anchor.header.height.is_multiple_of(heights)) {
            bases.insert(anchor.header.height / heights, anchor.id);
        }
        let secret = self.nodes[node].secret;
        let forgotten = if disk.is_log_lost { self.oracle.signed_up_to(secret) } else { None };
        let mut ledger = Ledger::new(self.options.window, bases, forgotten);
        disk.log.iter().for_each(|entry| ledger.note(entry));
        if let Some((_, finalization)) = disk.chain.last() {
            ledger.certificate(finalization);
        }
        self.nodes[node].ledger = ledger;
        self.nodes[node].witness = super::witness::Witness::default();
        self.nodes[node].watched = Watched { entered_us: self.now, ..Watched::default() };
    }

    /// An honest node writes a line into its log.
    pub(super) fn watch_entry(&mut self, node: usize, entry: &Entry) {
        let broken = match entry {
            Entry::Certificate(certificate) => {
                self.watch_certificate(node, certificate);
                Ok(())
            }
            Entry::Vote(vote) => {
                let judged = vote.statement.id().map(|id| (id, self.judged(node, &id)));
                let block = judged.and_then(|(id, verdict)| Some((&self.headers.get(&id)?.0, verdict)));
                let allowed = self.nodes[node].ledger.vote(vote.epoch.0, vote.statement, block);
                allowed.map_err(|rule| format!("votes {:?} {rule}", vote.statement))
            }
            Entry::Proposal { header, id, .. } => {
                let allowed = self.nodes[node].ledger.proposal(header, *id);
                allowed.map_err(|rule| format!("proposes in slot {} {rule}", header.slot))
            }
            Entry::Floor { .. } | Entry::Regained { .. } | Entry::EpochStart { .. } => Ok(()),
        };
        if let Err(what) = broken {
            self.oracle.violated(format!("node {node} {what}"));
        }
        self.nodes[node].ledger.note(entry);
    }

    fn watch_certificate(&mut self, node: usize, certificate: &Certificate) {
        let (set, committee) = self.committee_of(certificate.epoch.0);
        if let Err(error) = verify::certificate(&set, &*committee, &self.settings.domain, certificate) {
            self.oracle.violated(format!("node {node} holds {:?}: {error}", certificate.statement));
        }
        let key = (certificate.epoch.0, certificate.statement.slot().0, certificate.statement.kind());
        let watched = &mut self.nodes[node].watched;
        if key.2 == Kind::Finalize {
            watched.entered = 0;
        }
        if !watched.told.remove(&key) {
            watched.owed.insert(key, self.now);
        }
    }

    /// What a block should have come to at a node that votes for it or commits it.
    fn judged(&mut self, node: usize, id: &B256) -> Result<(), String> {
        let Some((header, _)) = self.headers.get(id) else { return Err("that nobody made".to_owned()) };
        let Some((parent, _)) = self.headers.get(&header.parent_id) else { return Err("on no block".to_owned()) };
        let (epoch, named, is_tail) = (header.epoch, header.next_set_hash, parent.height == header.height);
        let is_last = header.height == self.settings.epoch_heights.saturating_mul(epoch + 1);
        if is_last && self.set_of(epoch + 1).hash() != named {
            return Err("that names another next set".to_owned());
        }
        if is_tail {
            return Ok(());
        }
        if !self.nodes[node].executed.contains(id) {
            return Err("that it did not execute".to_owned());
        }
        self.verdict(id)
    }

    /// An honest node tells its clients of a notarized block.
    pub(super) fn watch_notarized(&mut self, node: usize, id: B256) {
        if let Err(why) = self.judged(node, &id) {
            self.oracle.violated(format!("node {node} tells of a notarized block {why}"));
        }
        if !self.nodes[node].notarized.insert(id) {
            self.oracle.violated(format!("node {node} tells twice that block {id} is notarized"));
        }
    }

    /// An honest node commits a block on top of another.
    pub(super) fn watch_commit(&mut self, node: usize, below: &Anchor, header: &ConsensusHeader) {
        let id = header.id();
        if let Err(why) = self.judged(node, &id) {
            self.oracle.violated(format!("node {node} commits a block {why}"));
        }
        self.oracle.commits((below.header.height, below.id), header);
    }

    /// A message reaches an honest node; who contradicts himself by it.
    pub(super) fn watch_heard(&mut self, node: usize, message: &Message) -> Option<Liar> {
        let place = self.nodes[node].machine.as_ref()?.place();
        let reach = self.options.window * 4;
        let (set, committee) = self.committee_of(place.epoch.0);
        let domain = &self.settings.domain;
        match message {
            Message::Vote(vote) => {
                verify::vote(&set, &*committee, domain, vote).ok()?;
                self.nodes[node].witness.vote(place, reach, vote)
            }
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                // What was on disk at the start is not compared with what comes.
                if self.nodes[node].disk.bodies.contains_key(&id) {
                    return None;
                }
                let block = SignedHeader { header: proposal.header.clone(), signature: proposal.signature };
                verify::proposal(&set, &*committee, domain, &block).ok()?;
                self.nodes[node].witness.proposal(place, reach, &proposal.header, id)
            }
            _ => None,
        }
    }

    /// What came of it.
    pub(super) fn watch_accused(&mut self, node: usize, liar: Option<Liar>) {
        let Some(liar) = liar else { return };
        if !self.nodes[node].witness.has_accused(&liar) {
            let (epoch, slot, index) = liar;
            self.oracle.violated(format!(
                "node {node} has both words of validator {index} on {epoch}/{slot}, and no evidence"
            ));
        }
    }

    /// Where an honest node stands after a step.
    pub(super) fn watch_place(&mut self, node: usize, place: Place) {
        if let Err(what) = self.nodes[node].ledger.frontier(place.epoch.0, place.frontier.0) {
            self.oracle.violated(format!("node {node} has {what}"));
        }
        let watched = &mut self.nodes[node].watched;
        let window = (place.epoch.0, place.frontier.0 / self.options.window.max(1));
        if watched.window != window {
            if watched.window.0 != window.0 {
                watched.entered = 0;
            }
            (watched.window, watched.entered_us) = (window, self.now);
            watched.entered += 1;
        }
        self.watch_window(node);
    }

    /// In a calm network a window lasts no longer than its timers, whoever leads it.
    fn watch_window(&mut self, node: usize) {
        let calm = self.options.length_us.saturating_sub(self.options.calm_us);
        let watched = &self.nodes[node].watched;
        if self.options.calm_us == 0 || watched.entered_us < calm + SETTLED_US {
            return;
        }
        // Who started later than others counts fewer windows, and waits for those that count the most.
        let windows = self.nodes.iter().filter(|it| it.fault.is_none()).map(|it| it.watched.entered);
        let windows = windows.max().unwrap_or_default();
        let timing = &self.options.timing;
        let idle = timing.idle_interval.unwrap_or_default();
        let slots = u32::try_from(self.options.window).unwrap_or(u32::MAX);
        let mut longest = timing.delta * 4 + timing.slot_time + idle.max(timing.slot_time) * slots;
        for _ in 1..windows.min(12) {
            longest += longest / 2;
        }
        let slack = if self.options.faults.has(FaultKind::Loss) { STALLS_US } else { SLOW_US };
        let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX).saturating_add(slack);
        let lasted = self.now.saturating_sub(watched.entered_us);
        if lasted > longest {
            let (epoch, window) = watched.window;
            self.oracle.violated(format!("window {epoch}/{window} lasts {lasted} us at node {node}"));
        }
    }

    /// Every honest node that runs has told the others of what it learned, but for the newest of it.
    pub(super) fn judge_debts(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].fault.is_some() || self.nodes[node].machine.is_none() {
                continue;
            }
            let late = self.nodes[node].watched.owed.iter().find(|(_, since)| **since + PASS_ON_US < self.now);
            if let Some(((epoch, slot, kind), _)) = late {
                let what = format!("node {node} never told of its {kind:?} certificate of {epoch}/{slot}");
                self.oracle.violated(what);
            }
        }
    }

    pub(super) fn banned_peer(&mut self, node: usize, peer: u64, reason: &str) {
        let is_honest = usize::try_from(peer)
            .ok()
            .and_then(|at| self.nodes.get(at))
            .is_none_or(|it| it.fault.is_none() && matches!(it.lie, None | Some(Lie::Pruned)));
        if is_honest {
            self.oracle.violated(format!("node {node} bans node {peer}, which is honest: {reason}"));
        }
    }

    pub(super) fn banned(&mut self, node: usize, epoch: u64, index: ValidatorIndex, reason: &str) {
        let key = self.set_of(epoch).get(index).map(|it| it.public_key);
        let is_honest = |it: &Node| it.fault.is_none() && Some(public_key(it.secret)) == key;
        let twinned = |key| self.nodes.iter().any(|it| it.fault.is_some() && Some(public_key(it.secret)) == key);
        if self.nodes.iter().any(is_honest) && !twinned(key) {
            self.oracle.violated(format!("node {node} bans validator {index}, which is honest: {reason}"));
        }
    }

    pub(super) fn accuse(&mut self, node: usize, evidence: &Evidence) {
        let epoch = match evidence {
            Evidence::Proposals(one, _) => one.header.epoch,
            Evidence::Votes(one, _) => one.epoch.0,
            Evidence::Certificates(one, _) => one.epoch.0,
        };
        self.nodes[node].witness.accuses(evidence);
        let set = self.set_of(epoch);
        let faulty: Vec<u64> = self.nodes.iter().filter(|it| it.fault.is_some()).map(|it| it.secret).collect();
        self.oracle.accuses(&set, evidence, |secret| faulty.contains(&secret));
    }

    /// Whatever an honest node signed must be in its log when it is sent.
    pub(super) fn check_sent(&mut self, node: usize, message: &Message, honest: bool) {
        if !honest {
            return;
        }
        let secret = self.nodes[node].secret;
        match message {
            Message::Vote(vote) if index_of(&self.options, secret, vote.epoch.0) == Some(vote.voter) => {
                let log = &self.nodes[node].disk.log;
                self.oracle.needs(log, |entry| matches!(entry, Entry::Vote(known) if known == vote), "a vote");
                self.oracle.votes(secret, vote.epoch.0, vote.statement);
            }
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                let log = &self.nodes[node].disk.log;
                let is_it = |entry: &Entry| matches!(entry, Entry::Proposal { id: known, .. } if *known == id);
                self.oracle.needs(log, is_it, "a proposal");
                self.oracle.proposes(secret, &proposal.header);
            }
            // One that was not told yet may rest on an own vote that a power cut takes back.
            Message::Certificate(certificate) => self.is_known(certificate),
            _ => {}
        }
    }

    /// An honest node shows that it holds a certificate.
    pub(super) fn is_known(&mut self, certificate: &Certificate) {
        let set = self.set_of(certificate.epoch.0);
        self.oracle.holds(&set, certificate);
    }

    /// A node tells everybody of a certificate.
    pub(super) fn watch_told(&mut self, node: usize, message: &Message) {
        if let Message::Certificate(certificate) = message {
            let key = (certificate.epoch.0, certificate.statement.slot().0, certificate.statement.kind());
            let watched = &mut self.nodes[node].watched;
            if watched.owed.remove(&key).is_none() {
                watched.told.insert(key);
            }
        }
    }
}
