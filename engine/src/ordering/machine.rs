//! The step: an input and the time go in, effects come out, in the order they must happen.
//!
//! ```text
//! handle(input, now)   note the input                          inbound.rs
//!   advance            until nothing changes:
//!                        commit what is final                  chain.rs
//!                        enter windows, let timers fire        timers.rs
//!                        vote                                  voting.rs
//!                        build and propose                     leading.rs
//!                      ask for what is missing                 catching_up.rs
//!   flush              one Persist for all that was signed; what tells of it waits for its Synced
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::B256;

use super::{
    allowance::Allowance,
    blocks::Blocks,
    catching_up::{Amnesia, Stall, Want},
    event::{Anchor, Input, Now, Output, Place, Settings, Snapshot, Source},
    jobs::Job,
    journal::Entry,
    leader::Schedule,
    leading::{Lead, Ready},
    pacemaker::Pacemaker,
    planted::Bug,
    rules::{Mark, Parent, Record},
    sync::Sync,
    votes::Votes,
};
use crate::{
    crypto::Committee,
    limits,
    types::{
        Certificate, ConsensusHeader, Epoch, Evidence, Height, Message, PublicKey, SignedHeader, Slot, Statement,
        ValidatorIndex, ValidatorSet, vote::Kind,
    },
};

/// Rounds of one step; each round that changes something signs or decides a slot, and of those a step sees few.
const ROUNDS_MAX: usize = 256;

/// Why a node cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A key of the set is no point of the curve's group.
    #[error("the validator set of epoch {0} has a key that is none")]
    Key(Epoch),
    /// What the log holds contradicts what the segments hold.
    #[error("log and chain contradict each other: {0}")]
    Contradiction(String),
}

/// A block that is final, and a Finalization of it or of a block above it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Final {
    pub(super) id: B256,
    pub(super) certificate: Certificate,
}

/// One validator's or follower's side of the protocol.
#[derive(Debug)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) now: Now,

    // The epoch.
    pub(super) set: Arc<ValidatorSet>,
    pub(super) committee: Arc<dyn Committee>,
    pub(super) me: Option<ValidatorIndex>,
    pub(super) schedule: Schedule,
    pub(super) next_seed: B256,
    pub(super) next_set: Option<ValidatorSet>,
    pub(super) base: Anchor,
    /// The certificates that ended the epochs before, oldest first.
    pub(super) handovers: VecDeque<Certificate>,
    /// What the log holds of later epochs than the segments do.
    pub(super) later: Vec<Entry>,
    /// Messages of the next epoch, which may reach this node before the end of this one does.
    pub(super) early: VecDeque<(Source, Message)>,

    // What is known of its slots.
    pub(super) record: Record,
    pub(super) certificates: BTreeMap<(Slot, Kind), Certificate>,
    pub(super) votes: Votes,
    pub(super) blocks: Blocks,
    pub(super) pacemaker: Pacemaker,
    pub(super) allowance: Allowance,
    pub(super) accused: BTreeSet<(Slot, ValidatorIndex)>,

    // The chain.
    /// The newest block handed to the store.
    pub(super) tip: Anchor,
    /// Its slot; `None` for the block that the epoch began on.
    pub(super) tip_slot: Option<Slot>,
    pub(super) tip_empty: bool,
    /// When it arrived, or this node started.
    pub(super) tip_arrived: Duration,
    /// What is known to be final above it, and the newest one, by slot.
    pub(super) finals: BTreeMap<Slot, Final>,
    pub(super) durable: Height,

    // Work under way.
    pub(super) job: Option<Job>,
    pub(super) lead: Option<Lead>,
    pub(super) ready: Option<Ready>,
    /// What the build under way stands on, and when it began.
    pub(super) building: Option<(Parent, Duration)>,
    /// The window in which nothing new is proposed, since it may have been entered before a restart.
    pub(super) barred: Option<u64>,
    /// Something may be executable that the last build did not see.
    pub(super) waiting: bool,
    /// Slot from which the window's leader is given up before its timer.
    pub(super) fast_skip: Option<Slot>,
    pub(super) fast_skips: usize,
    pub(super) heard: Vec<Duration>,

    // Catching up.
    pub(super) sync: Sync,
    pub(super) wants: BTreeMap<B256, Want>,
    pub(super) stall: Stall,
    pub(super) answered: BTreeMap<u64, Duration>,
    pub(super) amnesia: Option<Amnesia>,

    // Persistence.
    entries: Vec<Entry>,
    bodies: Vec<B256>,
    must_sync: bool,
    next_token: u64,
    synced: u64,
    held: VecDeque<(u64, Output)>,

    pub(super) halted: bool,
    pub(super) changed: bool,
    outputs: Vec<Output>,
}

impl Machine {
    /// Starts where the snapshot stands.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(mut settings: Settings, snapshot: Snapshot, now: Now) -> Result<(Self, Vec<Output>), StartError> {
        let Snapshot { set, next_set, seed, next_seed, base, tip, blocks, entries, is_log_lost, nonce, .. } = snapshot;
        let handovers = snapshot.handovers.into_iter().take(limits::HANDOVERS_MAX).collect();
        settings.window = settings.window.max(1);
        let committee = settings.scheme.committee(&set).ok_or_else(|| StartError::Key(set.epoch()))?;
        let set = Arc::new(set);
        let me = settings.identity.as_ref().and_then(|identity| set.index_of(&identity.public_key));
        let planted = settings.planted;
        let record = Record::new(set.epoch(), settings.window, base.id, None, planted);
        let (tip, finalization) = tip.map_or_else(|| (base.clone(), None), |(tip, last)| (tip, Some(last)));
        let tip_slot = (tip.id != base.id).then_some(Slot(tip.header.slot));
        let mut machine = Self {
            now,
            schedule: Schedule::new(seed, &set, settings.window),
            committee,
            me,
            next_seed,
            next_set,
            handovers,
            later: Vec::new(),
            early: VecDeque::new(),
            certificates: BTreeMap::new(),
            votes: Votes::new(set.clone(), planted),
            blocks: Blocks::default(),
            pacemaker: Pacemaker::new(settings.timing),
            allowance: Allowance::new(settings.build_time, &settings.timing),
            accused: BTreeSet::new(),
            durable: Height(tip.header.height),
            base,
            tip,
            tip_slot,
            tip_empty: false,
            tip_arrived: now.monotonic,
            finals: BTreeMap::new(),
            job: None,
            lead: None,
            ready: None,
            building: None,
            barred: None,
            waiting: true,
            fast_skip: None,
            fast_skips: 0,
            heard: vec![now.monotonic; set.size()],
            sync: Sync::default(),
            wants: BTreeMap::new(),
            stall: Stall::default(),
            answered: BTreeMap::new(),
            amnesia: None,
            entries: Vec::new(),
            bodies: Vec::new(),
            must_sync: false,
            next_token: 1,
            synced: 0,
            held: VecDeque::new(),
            halted: false,
            changed: false,
            outputs: Vec::new(),
            record,
            set,
            settings,
        };
        machine.recover(finalization, &entries)?;
        for (block, empty) in blocks {
            machine.restore_block(block, empty);
        }
        let outputs = machine.begin(&entries, is_log_lost, nonce);
        Ok((machine, outputs))
    }

    /// Takes over what the segments and the log hold.
    fn recover(&mut self, finalization: Option<Certificate>, entries: &[Entry]) -> Result<(), StartError> {
        let epoch = self.record.epoch();
        for entry in entries {
            if let Some(floor) = entry.floor()
                && !self.settings.planted.has(Bug::ForgetFloor)
            {
                self.record.raise_floor(floor);
            }
        }
        if let Some(certificate) = finalization.filter(|certificate| certificate.epoch == epoch) {
            self.restore_certificate(&certificate)?;
            self.record.raise_floor((epoch, certificate.statement.slot()));
        }
        self.restore(entries)
    }

    /// Takes over what the log holds of this epoch, and keeps what it holds of later ones.
    pub(super) fn restore(&mut self, entries: &[Entry]) -> Result<(), StartError> {
        let epoch = self.record.epoch();
        for entry in entries {
            if let Entry::Certificate(certificate) = entry
                && certificate.epoch == epoch
            {
                self.restore_certificate(certificate)?;
            }
        }
        let planted = self.settings.planted;
        let (forgets, proposes_anew) = (planted.has(Bug::ForgetVotes), planted.has(Bug::ProposeAfterRestart));
        let mut is_marked = false;
        for entry in entries.iter().filter(|_| !forgets) {
            match entry {
                Entry::Vote(vote) if vote.epoch == epoch => {
                    self.record.restore(&Mark::Vote(vote.statement));
                    // A vote that is a quorum alone clears its slot.
                    self.count(*vote);
                    is_marked = true;
                }
                Entry::Proposal { epoch: of, slot, id, .. } if *of == epoch && !proposes_anew => {
                    self.record.restore(&Mark::Proposal { slot: *slot, id: *id });
                    is_marked = true;
                }
                _ => {}
            }
        }
        self.certificates = self.certificates.split_off(&(self.kept_from(), Kind::Proposal));
        if let Some(tip) = self.tip_slot {
            self.forget_finals(tip);
        }
        self.later = entries.iter().filter(|entry| entry.epoch() > epoch).cloned().collect();
        if is_marked && !proposes_anew {
            self.barred = Some(self.record.frontier().0 / self.settings.window);
        }
        Ok(())
    }

    fn restore_certificate(&mut self, certificate: &Certificate) -> Result<(), StartError> {
        let statement = &certificate.statement;
        let observed = self.record.observe(statement);
        observed.map_err(|found| StartError::Contradiction(format!("{found:?}")))?;
        self.certificates.insert((statement.slot(), statement.kind()), *certificate);
        if let Statement::Finalize { slot, id } = *statement {
            self.finals.insert(slot, Final { id, certificate: *certificate });
        }
        Ok(())
    }

    /// The window that may have been entered before, and what was signed in it.
    fn begin(&mut self, entries: &[Entry], is_log_lost: bool, nonce: u64) -> Vec<Output> {
        let is_fresh = entries.is_empty() && self.tip_slot.is_none() && !is_log_lost;
        if !is_fresh && !self.settings.planted.has(Bug::ProposeAfterRestart) {
            self.barred = Some(self.record.frontier().0 / self.settings.window);
        }
        if is_log_lost && self.me.is_some() && !self.settings.planted.has(Bug::IgnoreAmnesia) {
            self.amnesia = Some(Amnesia::new(nonce, self.set.size()));
        }
        self.advance();
        self.flush();
        std::mem::take(&mut self.outputs)
    }

    /// Takes one input and lists what must happen, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        // A clock that falls back must not make timers wait longer.
        self.now = Now { monotonic: self.now.monotonic.max(now.monotonic), wall_ms: now.wall_ms };
        match input {
            Input::Wake => self.changed = true,
            Input::TransactionsWaiting => (self.waiting, self.changed) = (true, true),
            Input::Received(source, message) => self.receive(source, message),
            Input::Body { id, empty } => self.body(id, empty),
            Input::Built { header, empty, more } => self.built(*header, empty, more),
            Input::Executed { id, verdict } => self.executed(id, verdict),
            Input::NextSet(set) => (self.next_set, self.changed) = (Some(set), true),
            Input::Synced(token) => self.synced(token),
            Input::Committed(height) => {
                self.changed |= height > self.durable;
                self.durable = self.durable.max(height);
            }
            Input::Peers(contacts) => self.peers(contacts),
        }
        if self.changed {
            self.advance();
        }
        self.flush();
        std::mem::take(&mut self.outputs)
    }

    /// Who votes in the present epoch.
    #[must_use]
    pub const fn set(&self) -> &Arc<ValidatorSet> {
        &self.set
    }

    /// The header of a block above the newest committed one, as its leader signed it.
    #[must_use]
    pub fn signed(&self, id: &B256) -> Option<SignedHeader> {
        let known = self.blocks.get(id)?;
        Some(SignedHeader { header: known.header.clone(), signature: known.signature })
    }

    /// As [`Self::signed`], for a tail header, which has no body.
    #[must_use]
    pub fn tail_header(&self, id: &B256) -> Option<SignedHeader> {
        self.blocks.get(id).filter(|known| known.is_tail).and_then(|_| self.signed(id))
    }

    /// Whether the header of this block is here, and its body is not and can be used.
    #[must_use]
    pub fn wants_body(&self, id: &B256) -> bool {
        let is_taken = |is_final: bool| is_final || !self.is_far();
        self.blocks.get(id).is_some_and(|known| known.empty.is_none() && is_taken(known.is_final))
    }

    /// The hash of the access list of this block, if its header is here and its execution has not begun.
    #[must_use]
    pub fn awaited_list(&self, id: &B256) -> Option<B256> {
        let known = self.blocks.get(id).filter(|known| known.valid.is_none() && !known.is_tail)?;
        (self.executing() != Some(*id)).then_some(known.header.access_list_hash)
    }

    /// Blocks above the newest committed one whose bodies are here.
    #[must_use]
    pub fn blocks_held(&self) -> usize {
        self.blocks.iter().filter(|known| known.empty.is_some() && !known.is_tail).count()
    }

    /// Where this node stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        let (epoch, frontier) = (self.record.epoch(), self.record.frontier());
        Place { epoch, frontier, height: Height(self.tip.header.height) }
    }

    /// Who leads the window of the least slot that nothing has decided, and the one after it.
    #[must_use]
    pub fn leaders(&self) -> [PublicKey; 2] {
        let now = self.record.frontier();
        let next = Slot(now.0.saturating_add(self.settings.window));
        [now, next].map(|slot| {
            self.set.get(self.schedule.leader(slot)).map(|validator| validator.public_key).unwrap_or_default()
        })
    }

    fn advance(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.changed = false;
            if self.halted {
                return;
            }
            self.commit_final();
            self.enter_window();
            self.fire_timers();
            self.vote();
            self.lead();
            if !self.changed {
                break;
            }
        }
        self.execute_next();
        self.ask_for_ranges();
        self.ask_for_missing();
        self.report_stall();
        self.wake();
    }

    /// The first slot whose certificates are kept.
    pub(super) fn kept_from(&self) -> Slot {
        self.record.last_final().map_or(Slot(0), |(slot, _)| slot)
    }

    /// The header that a block stands on, if it is here.
    pub(super) fn parent_of(&self, parent: &Parent) -> Option<(&ConsensusHeader, B256)> {
        if parent.id == self.tip.id {
            return Some((&self.tip.header, self.tip.mix));
        }
        let known = self.blocks.get(&parent.id)?;
        Some((&known.header, known.mix?))
    }

    /// Notes something that should survive a restart.
    pub(super) fn remember(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Notes a signature: it must survive before anybody hears of it.
    pub(super) fn remember_signed(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.must_sync = true;
    }

    /// A block's body and those below it must be on disk with what was signed; of a tail header, the header.
    pub(super) fn keep_bodies(&mut self, id: B256) {
        let mut next = Some(id);
        while let Some(known) = next.and_then(|id| self.blocks.get(&id)).filter(|known| !known.is_kept) {
            let (id, parent) = (known.id, known.parent.id);
            self.bodies.push(id);
            if let Some(known) = self.blocks.get_mut(&id) {
                known.is_kept = true;
            }
            next = Some(parent);
        }
    }

    /// Emits something that tells of nothing signed here since the last sync.
    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Emits something once everything signed here so far would survive a power cut.
    pub(super) fn emit_after_sync(&mut self, output: Output) {
        let last = if self.must_sync { self.next_token } else { self.next_token.saturating_sub(1) };
        if self.synced >= last || self.settings.planted.has(Bug::SendBeforeSync) {
            self.outputs.push(output);
        } else {
            self.held.push_back((last, output));
        }
    }

    fn synced(&mut self, token: u64) {
        self.synced = self.synced.max(token.min(self.next_token.saturating_sub(1)));
        while let Some((waits_for, _)) = self.held.front()
            && *waits_for <= self.synced
        {
            if let Some((_, output)) = self.held.pop_front() {
                self.outputs.push(output);
            }
        }
    }

    fn flush(&mut self) {
        if self.entries.is_empty() && self.bodies.is_empty() {
            return;
        }
        let token = self.must_sync.then_some(self.next_token);
        if self.must_sync {
            self.next_token = self.next_token.saturating_add(1);
            self.must_sync = false;
        }
        let (entries, bodies) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.bodies));
        self.outputs.push(Output::Persist { entries, bodies, token });
    }

    /// Signs nothing more: what others certified cannot be.
    pub(super) fn halt(&mut self, reason: String) {
        if !self.halted {
            self.halted = true;
            self.outputs.push(Output::Halt(reason));
        }
    }

    /// Takes a certificate that holds.
    pub(super) fn learn(&mut self, certificate: Certificate) {
        let statement = certificate.statement;
        let (slot, kind) = (statement.slot(), statement.kind());
        match self.record.observe(&statement) {
            Ok(false) => return,
            Ok(true) => {}
            Err(found) => {
                let held = self.certificates.get(&(found.held.slot(), found.held.kind())).copied();
                if let Some(held) = held.filter(|held| held.statement.contradicts(&statement)) {
                    self.accuse(Evidence::Certificates(Box::new(held), Box::new(certificate)));
                }
                self.halt(format!("certificates contradict each other: {:?} and {:?}", found.held, found.came));
                return;
            }
        }
        self.changed = true;
        self.certificates.insert((slot, kind), certificate);
        self.remember(Entry::Certificate(certificate));
        if !self.settings.planted.has(Bug::KeepCertificates) {
            let message = Output::Broadcast(Message::Certificate(Box::new(certificate)));
            let is_mine = self.me.is_some_and(|me| certificate.signers.contains(me));
            if is_mine { self.emit_after_sync(message) } else { self.emit(message) }
        }
        match statement {
            Statement::Finalize { slot, id } => self.finalized(slot, Final { id, certificate }),
            Statement::Skip { .. } => self.skipped(slot),
            Statement::Notarize { slot, id } => {
                if let Some(known) = self.blocks.get(&id).filter(|known| !known.is_final) {
                    self.allowance.notarized(known.heard, self.now.monotonic, known.is_cut);
                }
                self.tell_notarized(slot, id);
            }
        }
    }

    /// Tells of a block that is both notarized and valid, when the later of the two comes about.
    pub(super) fn tell_notarized(&mut self, slot: Slot, id: B256) {
        let is_valid = self.blocks.get(&id).is_some_and(|known| known.valid == Some(true) && !known.is_tail);
        if is_valid && self.record.slot(slot).notarization == Some(id) {
            // The certificate may hold a share of our own.
            self.emit_after_sync(Output::Notarized(id));
        }
    }

    /// Notes a block that is final.
    pub(super) fn keep_final(&mut self, slot: Slot, known: Final) {
        self.finals.insert(slot, known);
        if self.finals.len() > limits::FINALS_MAX
            && let Some(second) = self.finals.keys().rev().nth(1).copied()
        {
            self.finals.remove(&second);
        }
    }

    fn finalized(&mut self, slot: Slot, known: Final) {
        let epoch = known.certificate.epoch;
        self.keep_final(slot, known);
        if !self.settings.planted.has(Bug::NeverResetTimers) {
            self.pacemaker.finalized();
        }
        self.fast_skips = 0;
        self.record.raise_floor((epoch, slot));
        self.remember(Entry::Floor { epoch, slot });
        let kept = self.kept_from();
        self.certificates = self.certificates.split_off(&(kept, Kind::Proposal));
        let evidence_from = Slot(kept.0.saturating_sub(self.evidence_slots()));
        self.votes.prune(evidence_from);
        self.accused = self.accused.split_off(&(evidence_from, ValidatorIndex(0)));
    }

    /// Slots below the newest final one in which somebody may still be found faulty.
    pub(super) const fn evidence_slots(&self) -> u64 {
        self.settings.window.saturating_mul(limits::HORIZON_WINDOWS)
    }

    /// The highest slot about which anything is taken in.
    pub(super) const fn horizon(&self) -> Slot {
        Slot(self.record.frontier().0.saturating_add(self.settings.window.saturating_mul(4)))
    }
}
