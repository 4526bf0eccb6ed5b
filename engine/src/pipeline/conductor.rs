//! The ordering thread: owns the state machine, feeds it, and carries its outputs out in order.
//!
//! ```text
//!  letters, wakes --+                       +-- Build, Execute --> [jobs]    --> execution thread --+
//!  timer ----------+|                       +-- Persist ---------> [lines]   --> log thread --------+
//!  progress -------++--> Machine::handle ---+-- Commit ----------> [decided] --> commit thread -----+
//!  done -----------+                        +-- Broadcast, Send --> Network                         |
//!      ^                                                                                            |
//!      +------------------- Built, Executed; Synced; Committed -------------------------------------+
//! ```
//!
//! It never waits for a thread that waits for it: what the log and the commit thread report is two numbers and a bell.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering as Atomic},
    },
    time::Duration,
};

use alloy_primitives::B256;
use crossbeam::channel::{Receiver, Sender, never, select_biased};
use tracing::Span;

use super::{Decided, Done, Execution, Job, Lines, PipelineError, Stages, Way};
use crate::{
    dissemination::Plans,
    events::Event,
    execution::Layer,
    limits, metrics,
    ordering::{
        event::{Input, Output, Place, Source},
        journal::{Entry, KeptBlock},
        machine::Machine,
    },
    ports::Offender,
    spans,
    types::{
        Block, Certificate, Epoch, EpochStart, ExecutedBlock, Finality, FinalizedBlock, Height, Incoming, Letter,
        Message, NamedList, SignedHeader, ValidatorIndex, vote::Kind,
    },
};

/// How far the log and the store are, and whether somebody came or went; told without anybody waiting.
#[derive(Debug)]
pub(super) struct Progress {
    synced: AtomicU64,
    durable: AtomicU64,
    have_peers_changed: AtomicBool,
    bell: Sender<()>,
}

impl Progress {
    pub(super) const fn new(bell: Sender<()>) -> Self {
        let (synced, durable, have_peers_changed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { synced, durable, have_peers_changed, bell }
    }

    /// What was persisted up to this token would survive a power cut.
    pub(super) fn synced(&self, token: u64) {
        self.synced.store(token, Atomic::Release);
        self.ring();
    }

    /// The store holds every block up to this height.
    pub(super) fn committed(&self, height: Height) {
        self.durable.store(height.0, Atomic::Release);
        self.ring();
    }

    /// Somebody came or went.
    pub(super) fn peers_changed(&self) {
        self.have_peers_changed.store(true, Atomic::Release);
        self.ring();
    }

    fn ring(&self) {
        // A bell that rings already is enough, and after the end nobody listens.
        let _ = self.bell.try_send(());
    }
}

/// Where inputs come from.
pub(super) struct Sources {
    pub(super) stop: Receiver<()>,
    pub(super) progress: Receiver<()>,
    pub(super) done: Receiver<Done>,
    pub(super) wakes: Receiver<()>,
    pub(super) letters: Receiver<Incoming>,
}

/// Where outputs go.
pub(super) struct Queues {
    pub(super) jobs: Sender<Job>,
    pub(super) lines: Sender<Lines>,
    pub(super) decided: Sender<Decided>,
    pub(super) fail: Sender<PipelineError>,
}

/// The thread's state.
pub(super) struct Conductor {
    stages: Arc<Stages>,
    machine: Machine,
    queues: Queues,
    /// How bodies travel among the validators of the present epoch.
    plans: Arc<Plans>,
    /// Blocks that are here whole and not executed yet.
    bodies: BTreeMap<B256, Arc<Block>>,
    /// Access lists of blocks that are not executed yet, of which headers that are here name the hash.
    lists: BTreeMap<B256, NamedList>,
    /// The ways of blocks that were proposed and are not decided yet.
    ways: BTreeMap<B256, Way>,
    /// What was built and not adopted yet, with its access list if that is worth sending.
    built: Option<(ExecutedBlock, Option<NamedList>)>,
    /// The access list of the newest block of this node's own.
    own_list: Option<(B256, NamedList)>,
    wake_at: Option<Duration>,
    /// The window whose leaders were told last.
    window: Option<(Epoch, u64)>,
    /// Inputs that an output led to.
    next: VecDeque<Input>,
}

/// The node stops: a stage has ended, or somebody was told why.
pub(super) struct Ended;

impl Conductor {
    pub(super) fn new(
        stages: Arc<Stages>,
        machine: Machine,
        queues: Queues,
        bodies: BTreeMap<B256, Arc<Block>>,
    ) -> Self {
        let plans = Arc::new(Plans::new(machine.set().clone()));
        let (lists, ways, next) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let (built, own_list, wake_at, window) = (None, None, None, None);
        Self { stages, machine, queues, plans, bodies, lists, ways, built, own_list, wake_at, window, next }
    }

    /// When it wants to be woken.
    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn wake_at(&self) -> Option<Duration> {
        self.wake_at
    }

    /// Where ordering stands.
    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn place(&self) -> Place {
        self.machine.place()
    }

    /// Carries out what the start asked for, then serves until the node stops.
    pub(super) fn run(mut self, first: Vec<Output>, sources: &Sources) {
        let mut state = self.carry_all(first).and_then(|()| self.look_at_peers());
        while state.is_ok() {
            let wait = |at: Duration| at.saturating_sub(self.stages.now().monotonic);
            let timer = self.wake_at.map_or_else(never, |at| crossbeam::channel::after(wait(at)));
            state = select_biased! {
                recv(sources.stop) -> _ => return,
                recv(sources.progress) -> _ => self.progress(),
                recv(sources.done) -> done => done.map_err(|_| Ended).and_then(|done| self.done(done)),
                recv(sources.wakes) -> _ => self.handle(Input::TransactionsWaiting),
                recv(sources.letters) -> letter => letter.map_err(|_| Ended).and_then(|letter| self.receive(letter)),
                recv(timer) -> _ => self.wake(),
            };
        }
    }

    pub(super) fn wake(&mut self) -> Result<(), Ended> {
        self.wake_at = None;
        self.handle(Input::Wake)
    }

    pub(super) fn handle(&mut self, input: Input) -> Result<(), Ended> {
        self.feed(input)?;
        let Place { epoch, frontier, .. } = self.machine.place();
        let window = (epoch, frontier.0 / self.stages.store.chain().ordering.window.max(1));
        if self.window.replace(window) != Some(window) {
            self.stages.standing.are_leaders(self.machine.leaders());
        }
        self.stages.standing.is_at(epoch, frontier);
        Ok(())
    }

    fn feed(&mut self, input: Input) -> Result<(), Ended> {
        let outputs = self.machine.handle(input, self.stages.now());
        self.carry_all(outputs)?;
        while let Some(next) = self.next.pop_front() {
            let outputs = self.machine.handle(next, self.stages.now());
            self.carry_all(outputs)?;
        }
        Ok(())
    }

    /// Tells ordering who is connected.
    pub(super) fn look_at_peers(&mut self) -> Result<(), Ended> {
        self.handle(Input::Peers(self.stages.network.peers()))
    }

    pub(super) fn progress(&mut self) -> Result<(), Ended> {
        if self.stages.progress.have_peers_changed.swap(false, Atomic::AcqRel) {
            self.look_at_peers()?;
        }
        self.handle(Input::Synced(self.stages.progress.synced.load(Atomic::Acquire)))?;
        self.handle(Input::Committed(Height(self.stages.progress.durable.load(Atomic::Acquire))))
    }

    pub(super) fn done(&mut self, done: Done) -> Result<(), Ended> {
        match done {
            Done::Built { block, list, more } => {
                let header = Box::new(block.0.block.consensus.clone());
                let empty = block.0.block.body.transactions.is_empty();
                self.built = Some((block.0, list));
                self.handle(Input::Built { header, empty, more })
            }
            Done::Executed { id, verdict } => {
                self.enters(&id, spans::vote());
                if let Err(reason) = &verdict {
                    tracing::warn!(%id, reason, "a block is refused");
                }
                self.handle(Input::Executed { id, verdict })
            }
        }
    }

    pub(super) fn receive(&mut self, incoming: Incoming) -> Result<(), Ended> {
        self.stages.queued_bytes.fetch_sub(incoming.letter.size_bytes(), Atomic::Relaxed);
        let Incoming { peer, validator, letter: Letter { message, blocks, list } } = incoming;
        let validator = validator.and_then(|key| self.machine.set().index_of(&key));
        let source = Source { peer, validator };
        let proposed = match &message {
            Message::Proposal(proposal) => Some((proposal.header.id(), self.stages.now().monotonic)),
            _ => None,
        };
        self.handle(Input::Received(source, message))?;
        if let Some((id, now)) = proposed.filter(|(id, _)| self.machine.signed(id).is_some()) {
            self.ways.entry(id).or_insert_with(|| Way::new(now, 0, spans::propagate()));
        }
        // Before the body, with which its execution may begin.
        if let Some((id, list)) = list {
            self.keep_list(id, list);
        }
        for block in blocks {
            let id = block.consensus.id();
            if self.machine.wants_body(&id) {
                let transactions = block.body.transactions.len();
                self.stages.pool.found(&block);
                if let Some(way) = self.ways.get_mut(&id) {
                    way.transactions = transactions;
                }
                self.enters(&id, spans::execute());
                self.bodies.insert(id, block);
                self.handle(Input::Body { id, empty: transactions == 0 })?;
            }
        }
        Ok(())
    }

    /// Keeps an access list that the header of its block names; nobody waits for one.
    fn keep_list(&mut self, id: B256, list: NamedList) {
        let Some(named) = self.machine.awaited_list(&id) else { return metrics::LIST_LATE.increment() };
        if named != list.hash() {
            return;
        }
        if self.lists.len() >= limits::LISTS_MAX {
            self.lists.retain(|id, _| self.machine.awaited_list(id).is_some());
        }
        if self.lists.len() < limits::LISTS_MAX {
            self.lists.insert(id, list);
        }
    }

    pub(super) fn carry_all(&mut self, outputs: Vec<Output>) -> Result<(), Ended> {
        outputs.into_iter().try_for_each(|output| self.carry(output))
    }

    fn carry(&mut self, output: Output) -> Result<(), Ended> {
        let network = &self.stages.network;
        match output {
            Output::Build(order) => {
                self.stages.has_been_told(false);
                let plans = self.plans();
                return self.queues.jobs.send(Job::Build { order, plans, span: spans::build() }).map_err(|_| Ended);
            }
            Output::Adopt(signed) => return self.adopt(*signed),
            Output::Execute { id, parent } => return self.execute(id, parent),
            Output::Persist { entries, bodies, token } => {
                let gives_up =
                    |entry: &&Entry| matches!(entry, Entry::Vote(vote) if vote.statement.kind() == Kind::Skip);
                let given_up = entries.iter().filter(gives_up).count();
                metrics::SLOT_GIVEN_UP.add(u64::try_from(given_up).unwrap_or(u64::MAX));
                let blocks = bodies.iter().filter_map(|id| self.kept(id)).collect();
                return self.queues.lines.send(Lines { entries, blocks, token }).map_err(|_| Ended);
            }
            Output::Notarized(id) => self.tell_notarized(&id),
            Output::Commit { ids, finalization } => return self.commit(&ids, *finalization),
            Output::EpochEnded { epoch, finalization, tail, base } => {
                let set = (**self.machine.set()).clone();
                let after = Epoch(epoch.0.saturating_add(2));
                self.next.push_back(Input::NextSet(set.in_epoch(after)));
                let start = EpochStart { set, base: base.id, handover: *finalization, tail };
                return self.queues.decided.send(Decided::Epoch(Box::new(start))).map_err(|_| Ended);
            }
            Output::Wake(at) => self.wake_at = Some(at),
            Output::Broadcast(message) => {
                network.broadcast(&self.letter(message));
            }
            Output::Send(peer, message) => {
                network.send(peer, &self.letter(message));
            }
            Output::Tail(signed) => self.stages.tails.insert(*signed),
            Output::Evidence(evidence) => {
                tracing::warn!(?evidence, "a validator is faulty");
                network.broadcast(&Letter::of(Message::Evidence(evidence)));
            }
            Output::Ban(peer, reason) => network.ban(&Offender::Peer(peer), reason),
            Output::BanValidator(epoch, index, reason) => self.ban_validator(epoch, index, reason),
            // One block is executed at a time, and that one is answered.
            Output::Abandon(_) => {}
            Output::Halt(reason) => return self.stop(PipelineError::Halted(reason)),
        }
        Ok(())
    }

    fn ban_validator(&self, epoch: Epoch, index: ValidatorIndex, reason: &'static str) {
        let set = self.machine.set();
        if let Some(validator) = set.get(index).filter(|_| set.epoch() == epoch) {
            self.stages.network.ban(&Offender::Validator(validator.public_key), reason);
        }
    }

    fn stop(&self, error: PipelineError) -> Result<(), Ended> {
        let _ = self.queues.fail.try_send(error);
        Err(Ended)
    }

    fn plans(&mut self) -> Arc<Plans> {
        if !Arc::ptr_eq(self.plans.set(), self.machine.set()) {
            self.plans = Arc::new(Plans::new(self.machine.set().clone()));
        }
        self.plans.clone()
    }

    /// What was built is proposed under this header.
    fn adopt(&mut self, SignedHeader { header, signature }: SignedHeader) -> Result<(), Ended> {
        let is_it = |built: &(ExecutedBlock, _)| built.0.block.consensus.block_hash == header.block_hash;
        let Some((mut executed, list)) = self.built.take().filter(is_it) else {
            return self.stop(PipelineError::Ordering("adopted a block that was not built"));
        };
        let id = header.id();
        let transactions = executed.block.body.transactions.len();
        self.ways.insert(id, Way::new(self.stages.now().monotonic, transactions, spans::vote()));
        self.own_list = list.map(|list| (id, list));
        Arc::make_mut(&mut executed.block).consensus = header;
        self.stages.pending.insert(id, Layer { signature, executed });
        Ok(())
    }

    fn execute(&mut self, id: B256, parent: B256) -> Result<(), Ended> {
        let block = self.bodies.remove(&id);
        let Some((block, signed)) = block.zip(self.machine.signed(&id)) else {
            return self.stop(PipelineError::Ordering("wants a block executed that is not here"));
        };
        let (list, plans, signature) = (self.lists.remove(&id), self.plans(), signed.signature);
        let execution = Box::new(Execution { id, parent, block, signature, list, plans });
        self.queues.jobs.send(Job::Execute(execution)).map_err(|_| Ended)
    }

    /// A block that was proposed here has passed a stage, and is in this one.
    fn enters(&mut self, id: &B256, stage: Span) {
        if let Some(way) = self.ways.get_mut(id) {
            way.enters(stage);
        }
    }

    fn tell_notarized(&self, id: &B256) {
        if let Some(notarized) = self.stages.pending.notarized(id) {
            self.stages.events.emit(&Event::Notarized(notarized));
        }
    }

    fn commit(&mut self, ids: &[B256], certificate: Certificate) -> Result<(), Ended> {
        let layers = self.stages.pending.decide(ids);
        if layers.len() != ids.len() {
            return self.stop(PipelineError::Ordering("commits a block that was not executed on the one below"));
        }
        for Layer { signature, executed } in layers {
            let base_fee = self.stages.store.chain().base_fee.next(executed.block.header.inner());
            self.stages.pool.advance(&executed.block, &executed.changes, base_fee);
            let finality = Finality { proposal: signature, certificate };
            let id = executed.block.consensus.id();
            self.enters(&id, spans::commit());
            let way = self.ways.remove(&id);
            let block = Box::new(FinalizedBlock { executed, finality });
            self.queues.decided.send(Decided::Block(block, way)).map_err(|_| Ended)?;
        }
        self.bodies.retain(|id, _| self.machine.signed(id).is_some());
        self.lists.retain(|id, _| self.machine.awaited_list(id).is_some());
        self.ways.retain(|id, _| self.machine.signed(id).is_some());
        Ok(())
    }

    /// A block that votes rest on, as the log keeps it; of a tail header the header.
    fn kept(&self, id: &B256) -> Option<KeptBlock> {
        let executed = self.stages.pending.block(id).map(|(signature, block)| KeptBlock {
            signed: SignedHeader { header: block.consensus.clone(), signature },
            block: Some(block),
        });
        executed.or_else(|| self.machine.tail_header(id).map(|signed| KeptBlock { signed, block: None }))
    }

    /// A message with the block that it is about, and with the access list of the newest one of this node's own.
    fn letter(&self, message: Message) -> Letter {
        let (block, list) = match &message {
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                (self.stages.pending.block(&id), self.own_list.as_ref().filter(|(of, _)| *of == id))
            }
            _ => (None, None),
        };
        Letter { message, blocks: block.into_iter().map(|(_, block)| block).collect(), list: list.cloned() }
    }
}
