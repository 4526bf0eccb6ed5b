//! The cluster, its events, and the run.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::B256;
use engine::{
    ordering::{
        event::{Anchor, Input, Output, Settings, Source},
        journal::Entry,
        pacemaker::Timing,
        planted::Planted,
    },
    testing::{MockScheme, MockSigner},
    types::{ConsensusHeader, Domain, Epoch, Evidence, Fetch, Message, SignedHeader, ValidatorIndex, ValidatorSet},
};

use super::{
    cluster::{index_of, members, nodes, secret_of, stakes},
    disk::Body,
    faults::{FaultKind, Faults},
    network::{Delay, Links},
    node::{Boot, Job, Node, outcome},
    oracle::Oracle,
    report::{self, Report},
};
use crate::rng::Rng;

/// Time beyond a run's own in which the slots that must pass may do so, in microseconds.
const OVERTIME_US: u64 = 60_000_000;
/// What the clocks show at the beginning.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Validators.
    pub validators: usize,
    /// Simulated time in microseconds.
    pub length_us: u64,
    /// Time at the end in which nothing new goes wrong, so that everybody must come to one end; in microseconds.
    pub calm_us: u64,
    /// From one partition to the next, in microseconds at most.
    pub partition_us: u64,
    /// Slots that must pass, if need be after the time is over and everything has healed.
    pub slots_min: u64,
    /// Groups that the nodes are in from the beginning to the end, instead of partitions that come and go.
    pub groups: Option<Vec<usize>>,
    /// Go on whatever else is violated, until two blocks are final at one height.
    pub only_forks: bool,
    /// What may go wrong.
    pub faults: Faults,
    /// Delays of the links.
    pub delay: Delay,
    /// Timers.
    pub timing: Timing,
    /// Slots of a window.
    pub window: u64,
    /// Validators that are faulty; `None` for as many as may be.
    pub byzantine: Option<usize>,
    /// A bug that the honest nodes have.
    pub planted: Planted,
    /// Microseconds that a block takes to execute.
    pub execute_us: u64,
    /// Microseconds that a sync takes.
    pub sync_us: u64,
    /// Tell of every event.
    pub verbose: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Deliver { to: usize, from: usize, message: Arc<Message>, bodies: Arc<Vec<(B256, bool)>> },
    Ask { to: usize, from: usize, fetch: Fetch },
    Wake { node: usize, wish: u32 },
    Done { node: usize, start: u32 },
    Synced { node: usize, start: u32, token: Option<u64>, batches: u64 },
    Durable { node: usize, start: u32, blocks: Vec<Anchor>, finalization: Box<engine::types::Certificate> },
    NextSet { node: usize, start: u32, epoch: u64 },
    Crash { node: usize },
    Restart { node: usize },
    Cut { groups: Vec<usize>, one_way: bool },
    Heal,
}

/// A time, a number that shuffles what happens at one time, and the order of arising.
type Key = (u64, u64, u64);

struct Entered(Key, Event);

impl PartialEq for Entered {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Entered {}

impl PartialOrd for Entered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A run under way.
pub struct World {
    options: Options,
    pub(super) rng: Rng,
    now: u64,
    seq: u64,
    heap: BinaryHeap<Reverse<Entered>>,
    pub(super) nodes: Vec<Node>,
    links: Links,
    stakes: Vec<u64>,
    pub(super) settings: Settings,
    genesis: Anchor,
    pub(super) headers: BTreeMap<B256, (ConsensusHeader, bool)>,
    oracle: Oracle,
    trace: u64,
    events: u64,
    sent: Vec<u64>,
    proposed_at: BTreeMap<B256, u64>,
    finality_us: Vec<u64>,
    /// Slots that passed at some honest node in the first epoch.
    slots_passed: u64,
    no_bodies: Arc<Vec<(B256, bool)>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).field("events", &self.events).finish_non_exhaustive()
    }
}

fn fold(trace: u64, word: u64) -> u64 {
    (trace.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

impl World {
    /// Sets a cluster up.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed.wrapping_mul(2).wrapping_add(1));
        let has = |kind| options.faults.has(kind);
        let stakes = stakes(&options, &mut rng);
        let epoch_heights = if has(FaultKind::Epochs) { 20 + rng.below(60) } else { 18_000 };
        let genesis_header = ConsensusHeader { chain_id: 7, block_hash: B256::with_last_byte(1), ..Default::default() };
        let genesis = Anchor { id: genesis_header.id(), header: genesis_header, mix: B256::with_last_byte(9) };
        let settings = Settings {
            domain: Domain { chain_id: 7, genesis: genesis.id },
            window: options.window,
            epoch_heights,
            timing: options.timing,
            build_time: Duration::from_millis(100),
            in_flight_max: 64,
            scheme: Arc::new(MockScheme),
            identity: None,
            planted: Planted::default(),
        };
        let mut nodes = nodes(&options, &stakes, &mut rng);
        if has(FaultKind::Drift) {
            for node in &mut nodes {
                node.clock_ppm = 999_000 + rng.below(2_000);
                node.clock_ahead_ms = rng.below(400);
            }
        }
        let mut links = Links::new(nodes.len(), options.delay, &mut rng);
        links.loss_per_mille = if has(FaultKind::Loss) { 20 } else { 0 };
        links.twice_per_mille = if has(FaultKind::Duplicate) { 20 } else { 0 };
        links.varies = has(FaultKind::Reorder);
        Self {
            oracle: Oracle::new(options.window, options.only_forks),
            sent: vec![0; nodes.len()],
            options,
            rng,
            now: 0,
            seq: 0,
            heap: BinaryHeap::new(),
            nodes,
            links,
            stakes,
            settings,
            genesis,
            headers: BTreeMap::new(),
            trace: 0,
            events: 0,
            proposed_at: BTreeMap::new(),
            finality_us: Vec::new(),
            slots_passed: 0,
            no_bodies: Arc::default(),
        }
    }

    /// Key and faultiness of every node that these options make.
    #[must_use]
    pub fn members_of(options: &Options) -> Vec<(u64, bool)> {
        Self::new(options.clone()).nodes.iter().map(|node| (node.secret, node.fault.is_some())).collect()
    }

    /// Runs to the end, or to the first thing that may not be.
    #[must_use]
    pub fn run(mut self) -> Report {
        self.headers.insert(self.genesis.id, (self.genesis.header.clone(), true));
        for node in 0..self.nodes.len() {
            self.boot(node);
        }
        self.plan();
        let end = self.options.length_us;
        while let Some(Reverse(Entered((at, _, _), event))) = self.heap.pop() {
            let is_over = at > end && (self.slots_passed >= self.options.slots_min || at > end + OVERTIME_US);
            if is_over || self.oracle.violation.is_some() {
                break;
            }
            self.now = at;
            self.events += 1;
            if self.options.verbose {
                eprintln!("{at:>9} us {}", report::shortened(&event));
            }
            self.step(event);
        }
        self.judge_liveness();
        self.finality_us.sort_unstable();
        let top = |node: &Node| node.machine.as_ref().map_or(0, |machine| machine.place().height.0);
        Report {
            seed: self.options.seed,
            hash: self.trace,
            events: self.events,
            height: self.nodes.iter().map(top).max().unwrap_or_default(),
            convicted: self.oracle.convicted.len(),
            violation: self.oracle.violation,
            finality_us: self.finality_us,
            bytes_sent: self.sent.iter().copied().max().unwrap_or_default(),
            slots: self.slots_passed,
        }
    }

    /// At the end every honest node must stand near the others.
    fn judge_liveness(&mut self) {
        let (passed, wanted) = (self.slots_passed, self.options.slots_min);
        if passed < wanted {
            self.oracle.violated(format!("{passed} slots passed, {wanted} are wanted"));
        }
        if self.oracle.violation.is_some() || self.options.calm_us == 0 {
            return;
        }
        let heights = self.honest().map(|node| self.nodes[node].committed);
        let (least, most) = heights.fold((u64::MAX, 0), |(least, most), at| (least.min(at), most.max(at)));
        if most < 2 || least + 60 < most {
            self.oracle.violated(format!("honest nodes end at heights {least} to {most}"));
        }
    }

    fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].fault.is_none())
    }

    fn set_of(&self, epoch: u64) -> ValidatorSet {
        members(&self.options, &self.stakes, epoch)
    }

    fn at(&mut self, time: u64, event: Event) {
        self.seq += 1;
        let shuffle = self.rng.next();
        self.heap.push(Reverse(Entered((time, shuffle, self.seq), event)));
    }

    fn boot(&mut self, node: usize) {
        let (options, stakes) = (self.options.clone(), self.stakes.clone());
        let of_epoch = move |epoch| members(&options, &stakes, epoch);
        let boot = Boot {
            settings: &self.settings,
            genesis: &self.genesis,
            set: &of_epoch,
            epoch_ms: EPOCH_MS,
            planted: self.options.planted,
        };
        let nonce = self.rng.next();
        match self.nodes[node].boot(&boot, self.now, nonce) {
            Ok(outputs) => self.apply(node, outputs),
            Err(error) => self.oracle.violated(format!("node {node} cannot start: {error}")),
        }
    }

    /// Plans crashes and partitions, all before the calm at the end.
    fn plan(&mut self) {
        if let Some(groups) = self.options.groups.clone() {
            return self.cut(&groups, false);
        }
        let end = self.options.length_us.saturating_sub(self.options.calm_us);
        if end == 0 {
            return;
        }
        let has = |kind| self.options.faults.has(kind);
        let (crash, lost) = (has(FaultKind::Crash), has(FaultKind::LostLog));
        let (partition, one_way) = (has(FaultKind::Partition), has(FaultKind::OneWay));
        if crash || lost {
            for _ in 0..self.rng.below(self.nodes.len() as u64 * 2) {
                let node = usize::try_from(self.rng.below(self.nodes.len() as u64)).expect("a node");
                let at = self.rng.below(end);
                self.at(at, Event::Crash { node });
                let down = if self.rng.below(4) == 0 { 8_000_000 } else { 1_500_000 };
                let back = (at + 1 + self.rng.below(down)).min(end);
                self.at(back, Event::Restart { node });
            }
        }
        let mut at = if partition || one_way { 0 } else { end };
        loop {
            at += 1 + self.rng.below(self.options.partition_us);
            if at >= end {
                break;
            }
            let groups = (0..self.nodes.len()).map(|_| usize::from(self.rng.below(2) == 0)).collect();
            let one_way = one_way && (!partition || self.rng.below(2) == 0);
            self.at(at, Event::Cut { groups, one_way });
            at += 1 + self.rng.below(self.options.partition_us);
            self.at(at.min(end), Event::Heal);
        }
        self.at(end, Event::Heal);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, message, bodies } => self.deliver(to, from, &message, &bodies),
            Event::Ask { to, from, fetch } => self.answer(to, from, &fetch),
            Event::Wake { node, wish } => {
                if self.nodes[node].wake.1 == wish {
                    self.input(node, Input::Wake);
                }
            }
            Event::Done { node, start } => self.done(node, start),
            Event::Synced { node, start, token, batches } => self.synced(node, start, token, batches),
            Event::Durable { node, start, blocks, finalization } => {
                if self.nodes[node].start == start && self.nodes[node].machine.is_some() {
                    self.nodes[node].disk.chain.extend(blocks.into_iter().map(|at| (at, *finalization)));
                    let height = self.nodes[node].durable();
                    self.input(node, Input::Committed(height));
                }
            }
            Event::NextSet { node, start, epoch } => {
                if self.nodes[node].start == start && self.nodes[node].machine.is_some() {
                    let set = self.set_of(epoch);
                    self.input(node, Input::NextSet(set));
                }
            }
            Event::Crash { node } => self.crash(node),
            Event::Restart { node } => {
                if self.nodes[node].machine.is_none() {
                    self.boot(node);
                }
            }
            Event::Cut { groups, one_way } => self.cut(&groups, one_way),
            Event::Heal => self.links.heal(),
        }
    }

    fn cut(&mut self, groups: &[usize], one_way: bool) {
        for (from, to) in (0..groups.len()).flat_map(|from| (0..groups.len()).map(move |to| (from, to))) {
            let cut = groups[from] != groups[to] && (!one_way || groups[from] == 0);
            self.links.set_cut(from, to, cut);
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.now, EPOCH_MS);
        let Some(machine) = &mut self.nodes[node].machine else { return };
        let outputs = machine.handle(input, now);
        let place = machine.place();
        if self.nodes[node].fault.is_none() && place.epoch == Epoch(0) {
            self.slots_passed = self.slots_passed.max(place.frontier.0);
        }
        self.trace = fold(self.trace, self.now ^ (node as u64) << 56);
        self.trace = fold(self.trace, place.frontier.0 << 32 ^ place.height.0 ^ (outputs.len() as u64) << 20);
        self.apply(node, outputs);
    }

    fn apply(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.one(node, output);
        }
    }

    fn one(&mut self, node: usize, output: Output) {
        if self.options.verbose {
            eprintln!("{:>9} us node {node} {}", self.now, report::shortened(&output));
        }
        let honest = self.nodes[node].fault.is_none();
        match output {
            Output::Build(order) => self.build(node, order.header),
            Output::Adopt(block) => {
                let header = block.header;
                let empty = matches!(self.nodes[node].job, Some(Job::Build(_, true))) || self.is_built_empty(&header);
                let id = header.id();
                self.headers.insert(id, (header, empty));
                self.nodes[node].executed.insert(id);
            }
            Output::Execute { id, .. } => {
                let wait = self.nodes[node].execute_us;
                self.nodes[node].job = Some(Job::Execute(id));
                let start = self.nodes[node].start;
                self.at(self.now + wait, Event::Done { node, start });
            }
            Output::Abandon(_) => {}
            Output::Persist { entries, bodies, token } => self.persist(node, entries, bodies, token, honest),
            Output::Broadcast(message) => self.broadcast(node, message, honest),
            Output::Send(peer, message) => {
                self.check_sent(node, &message, honest);
                let bodies = self.bodies_of(&message);
                if let Ok(peer) = usize::try_from(peer) {
                    self.send(node, peer, &Arc::new(message), &bodies);
                }
            }
            Output::Request(whom, fetch) => self.ask(node, whom, fetch),
            Output::Commit { ids, finalization } => self.commit(node, &ids, finalization, honest),
            Output::Wake(at) => {
                let time = self.nodes[node].true_us(at).max(self.now);
                let wish = self.nodes[node].wake.1 + 1;
                self.nodes[node].wake = (time, wish);
                self.at(time, Event::Wake { node, wish });
            }
            Output::Evidence(evidence) if honest => self.accuse(&evidence),
            Output::EpochEnded { epoch, base, tail, .. } => {
                // Whoever is behind asks for them.
                self.nodes[node].disk.tails.extend(tail.iter().map(ConsensusHeader::id));
                if honest {
                    self.oracle.hands_over(epoch.0, base.id);
                }
                let wait = 1 + self.rng.below(50_000);
                let start = self.nodes[node].start;
                self.at(self.now + wait, Event::NextSet { node, start, epoch: epoch.0 + 2 });
            }
            Output::Halt(reason) if honest => self.oracle.violated(format!("node {node} halted: {reason}")),
            Output::Ban(peer, reason) if honest => {
                let banned = usize::try_from(peer).expect("a node");
                if self.nodes[banned].fault.is_none() {
                    self.oracle.violated(format!("node {node} bans node {banned}, which is honest: {reason}"));
                }
            }
            Output::BanValidator(epoch, index, reason) if honest => self.banned(node, epoch.0, index, reason),
            Output::Evidence(_) | Output::Halt(_) | Output::Ban(..) | Output::BanValidator(..) => {}
        }
    }

    fn banned(&mut self, node: usize, epoch: u64, index: ValidatorIndex, reason: &str) {
        let key = self.set_of(epoch).get(index).map(|it| it.public_key);
        let is_honest = |it: &Node| it.fault.is_none() && Some(super::keys::public_key(it.secret)) == key;
        let twinned =
            |key| self.nodes.iter().any(|it| it.fault.is_some() && Some(super::keys::public_key(it.secret)) == key);
        if self.nodes.iter().any(is_honest) && !twinned(key) {
            self.oracle.violated(format!("node {node} bans validator {index}, which is honest: {reason}"));
        }
    }

    fn is_built_empty(&self, header: &ConsensusHeader) -> bool {
        let parent = self.headers.get(&header.parent_id).map(|(parent, _)| parent);
        parent.is_some_and(|parent| outcome(parent, header, true) == header.block_hash)
    }

    fn build(&mut self, node: usize, mut header: ConsensusHeader) {
        let Some((parent, _)) = self.headers.get(&header.parent_id) else {
            return self.oracle.violated(format!("node {node} builds on a block that nobody made"));
        };
        // Some blocks find no transactions.
        let empty = self.rng.below(8) == 0;
        header.block_hash = outcome(parent, &header, empty);
        if self.nodes[node].fault == Some(FaultKind::InvalidBlocks) && self.rng.below(2) == 0 {
            header.block_hash = B256::with_last_byte(0xee);
        }
        let start = self.nodes[node].start;
        self.nodes[node].job = Some(Job::Build(Box::new(header), empty));
        let wait = self.nodes[node].execute_us;
        self.at(self.now + wait, Event::Done { node, start });
    }

    fn done(&mut self, node: usize, start: u32) {
        if self.nodes[node].start != start || self.nodes[node].machine.is_none() {
            return;
        }
        match self.nodes[node].job.take() {
            Some(Job::Build(header, empty)) => {
                let more = !empty || self.rng.below(2) == 0;
                self.input(node, Input::Built { header, empty, more });
            }
            Some(Job::Execute(id)) => {
                let verdict = self.verdict(&id);
                self.nodes[node].executed.insert(id);
                self.input(node, Input::Executed { id, verdict });
            }
            None => {}
        }
    }

    fn verdict(&self, id: &B256) -> Result<(), String> {
        let Some((header, empty)) = self.headers.get(id) else { return Err("nobody made it".to_owned()) };
        let Some((parent, _)) = self.headers.get(&header.parent_id) else { return Err("no parent".to_owned()) };
        let ours = outcome(parent, header, *empty);
        if ours == header.block_hash { Ok(()) } else { Err(format!("block hash {ours}")) }
    }

    fn persist(&mut self, node: usize, entries: Vec<Entry>, bodies: Vec<B256>, token: Option<u64>, honest: bool) {
        if honest {
            for entry in &entries {
                match entry {
                    Entry::Certificate(certificate) => {
                        let set = self.set_of(certificate.epoch.0);
                        self.oracle.holds(&set, certificate);
                    }
                    Entry::Vote(vote) => {
                        let disk = &self.nodes[node].disk;
                        let pending = disk.unsynced.iter().flat_map(|(entries, _)| entries);
                        let log: Vec<&Entry> =
                            disk.log.iter().skip(disk.log.len().saturating_sub(256)).chain(pending).collect();
                        self.oracle.records(&log, vote.epoch.0, vote.statement);
                    }
                    _ => {}
                }
            }
        }
        for id in &bodies {
            self.keep(node, *id);
        }
        self.nodes[node].disk.write(entries, bodies);
        if token.is_some() {
            let wait = self.nodes[node].sync_us / 2 + 1 + self.rng.below(self.nodes[node].sync_us);
            let start = self.nodes[node].start;
            let done = (self.now + wait).max(self.nodes[node].synced_at + 1);
            self.nodes[node].synced_at = done;
            let batches = self.nodes[node].disk.batches();
            self.at(done, Event::Synced { node, start, token, batches });
        }
    }

    /// Writes a body that the node has into its disk.
    fn keep(&mut self, node: usize, id: B256) {
        if self.nodes[node].disk.bodies.contains_key(&id) {
            return;
        }
        let Some((header, empty)) = self.headers.get(&id) else { return };
        let block = SignedHeader { header: header.clone(), signature: self.signature_of(header, &id) };
        let body = Body { block, empty: *empty, is_durable: false };
        self.nodes[node].disk.bodies.insert(id, body);
    }

    pub(super) fn signature_of(&self, header: &ConsensusHeader, id: &B256) -> engine::types::Signature {
        use engine::crypto::Signer as _;
        let set = self.set_of(header.epoch);
        let key = set
            .get(header.proposer())
            .map_or(0, |it| u64::from_be_bytes(it.public_key.0[..8].try_into().expect("eight bytes")));
        let hash = self.settings.domain.hash(engine::types::vote::Kind::Proposal, header.epoch(), header.slot(), *id);
        MockSigner::new(key).sign(hash)
    }

    fn synced(&mut self, node: usize, start: u32, token: Option<u64>, batches: u64) {
        if self.nodes[node].start != start || self.nodes[node].machine.is_none() {
            return;
        }
        let Some(token) = token else { return };
        self.nodes[node].disk.sync_through(batches);
        self.input(node, Input::Synced(token));
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].machine.take().is_none() {
            return;
        }
        let survive = usize::try_from(self.rng.below(4)).expect("small");
        let node_fault = self.nodes[node].fault;
        let lose = self.options.faults.has(FaultKind::LostLog) && self.rng.below(4) == 0;
        // With more than a third faulty or forgetful the chain stops by design.
        let weak = |at: &usize| *at == node || self.nodes[*at].fault.is_some() || self.nodes[*at].disk.is_log_lost;
        let mut weak: Vec<u64> = (0..self.nodes.len()).filter(weak).map(|at| self.nodes[at].secret).collect();
        weak.dedup();
        let stake = |secret: &u64| self.stakes[usize::try_from(*secret - secret_of(0)).expect("small")];
        let may_lose = lose && weak.iter().map(stake).sum::<u64>() * 3 < self.stakes.iter().sum();
        let disk = &mut self.nodes[node].disk;
        disk.cut(survive);
        if may_lose && node_fault.is_none() {
            disk.log.clear();
            disk.is_log_lost = true;
        } else if node_fault == Some(FaultKind::Forget) {
            disk.log.clear();
        }
        self.nodes[node].job = None;
        self.nodes[node].wake.1 += 1;
    }

    fn broadcast(&mut self, node: usize, message: Message, honest: bool) {
        self.check_sent(node, &message, honest);
        if let Message::Proposal(proposal) = &message {
            // Tail headers have no block, so nothing adopted them.
            self.headers.entry(proposal.header.id()).or_insert_with(|| (proposal.header.clone(), true));
        }
        if let (true, Message::Proposal(proposal)) = (honest, &message) {
            self.proposed_at.entry(proposal.header.id()).or_insert(self.now);
        }
        match self.nodes[node].fault {
            None | Some(FaultKind::Twins | FaultKind::InvalidBlocks | FaultKind::Forget) => {
                self.tell_all(node, message);
            }
            Some(fault) => self.lie(node, fault, message),
        }
    }

    pub(super) fn tell_all(&mut self, node: usize, message: Message) {
        let bodies = self.bodies_of(&message);
        let message = Arc::new(message);
        for to in 0..self.nodes.len() {
            if to != node {
                self.send(node, to, &message, &bodies);
            }
        }
    }

    pub(super) fn bodies_of(&self, message: &Message) -> Arc<Vec<(B256, bool)>> {
        match message {
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                Arc::new(self.headers.get(&id).map(|(_, empty)| (id, *empty)).into_iter().collect())
            }
            _ => self.no_bodies.clone(),
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: &Arc<Message>, bodies: &Arc<Vec<(B256, bool)>>) {
        self.sent[from] += size_of_message(message);
        for at in self.links.arrivals(from, to, self.now, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Deliver { to, from, message: message.clone(), bodies: bodies.clone() });
        }
    }

    fn deliver(&mut self, to: usize, from: usize, message: &Message, bodies: &[(B256, bool)]) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let source = self.source(to, from);
        self.input(to, Input::Received(source, message.clone()));
        for (id, empty) in bodies {
            self.input(to, Input::Body { id: *id, empty: *empty });
        }
    }

    /// Which validator of the receiver's epoch the sender is.
    fn source(&self, to: usize, from: usize) -> Source {
        let epoch = self.nodes[to].machine.as_ref().map_or(0, |machine| machine.place().epoch.0);
        let validator = index_of(&self.options, self.nodes[from].secret, epoch);
        Source { peer: from as u64, validator }
    }

    fn ask(&mut self, node: usize, whom: ValidatorIndex, fetch: Fetch) {
        let epoch = self.nodes[node].machine.as_ref().map_or(0, |machine| machine.place().epoch.0);
        let is_it = |it: &Node| index_of(&self.options, it.secret, epoch) == Some(whom);
        let Some(to) = (0..self.nodes.len()).find(|to| *to != node && is_it(&self.nodes[*to])) else { return };
        for at in self.links.arrivals(node, to, self.now, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Ask { to, from: node, fetch });
        }
    }

    fn answer(&mut self, node: usize, from: usize, fetch: &Fetch) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        let mut blocks = Vec::new();
        let mut bodies = Vec::new();
        let mut next = fetch.id;
        while blocks.len() < usize::try_from(fetch.count).unwrap_or(64).min(64) {
            let node = &self.nodes[node];
            let has = node.disk.bodies.contains_key(&next)
                || node.executed.contains(&next)
                || node.disk.tails.contains(&next);
            let Some((header, empty)) = self.headers.get(&next).filter(|_| has) else { break };
            blocks.push(SignedHeader { header: header.clone(), signature: self.signature_of(header, &next) });
            bodies.push((next, *empty));
            next = header.parent_id;
        }
        if !blocks.is_empty() {
            self.send(node, from, &Arc::new(Message::Blocks(blocks)), &Arc::new(bodies));
        }
    }

    fn commit(&mut self, node: usize, ids: &[B256], finalization: Box<engine::types::Certificate>, honest: bool) {
        let mut blocks = Vec::with_capacity(ids.len());
        let mut below = self.nodes[node].top.clone().unwrap_or_else(|| self.genesis.clone());
        for id in ids {
            let Some((header, _)) = self.headers.get(id).cloned() else {
                return self.oracle.violated(format!("node {node} commits a block that nobody made"));
            };
            if honest {
                if !self.nodes[node].executed.contains(id) {
                    self.oracle.violated(format!("node {node} commits a block that it did not execute"));
                }
                self.oracle.commits(self.nodes[node].committed, &header);
            }
            self.nodes[node].committed = header.height;
            self.keep(node, *id);
            if let Some(at) = self.proposed_at.get(id).filter(|_| honest) {
                self.finality_us.push(self.now - at);
            }
            below = self.nodes[node].anchor(&below, &header);
            blocks.push(below.clone());
        }
        self.nodes[node].top = Some(below);
        let start = self.nodes[node].start;
        let wait = self.nodes[node].sync_us + self.rng.below(self.nodes[node].sync_us);
        // The store takes one group after the other.
        let done = (self.now + wait).max(self.nodes[node].durable_at + 1);
        self.nodes[node].durable_at = done;
        self.at(done, Event::Durable { node, start, blocks, finalization });
    }

    fn accuse(&mut self, evidence: &Evidence) {
        let epoch = match evidence {
            Evidence::Proposals(one, _) => one.header.epoch,
            Evidence::Votes(one, _) => one.epoch.0,
            Evidence::Certificates(one, _) => one.epoch.0,
        };
        let set = self.set_of(epoch);
        let faulty: Vec<u64> = self.nodes.iter().filter(|it| it.fault.is_some()).map(|it| it.secret).collect();
        self.oracle.accuses(&set, evidence, |secret| faulty.contains(&secret));
    }

    /// Whatever an honest node sends of its own must be in its log.
    fn check_sent(&mut self, node: usize, message: &Message, honest: bool) {
        if !honest {
            return;
        }
        let secret = self.nodes[node].secret;
        match message {
            Message::Vote(vote) => {
                let is_own = index_of(&self.options, secret, vote.epoch.0) == Some(vote.voter);
                if is_own {
                    let log = &self.nodes[node].disk.log;
                    self.oracle.needs(log, |entry| matches!(entry, Entry::Vote(known) if known == vote), "a vote");
                    self.oracle.votes(secret, vote.epoch.0, vote.statement);
                }
            }
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                let log = &self.nodes[node].disk.log;
                let is_it = |entry: &Entry| matches!(entry, Entry::Proposal { id: known, .. } if *known == id);
                self.oracle.needs(log, is_it, "a proposal");
                self.oracle.proposes(secret, &proposal.header);
            }
            _ => {}
        }
    }
}

fn size_of_message(message: &Message) -> u64 {
    match message {
        Message::Proposal(proposal) => 460 + 180 * proposal.certificates.len() as u64,
        Message::Vote(_) => 150,
        Message::Certificate(_) => 180,
        Message::Blocks(blocks) => 460 * blocks.len() as u64,
        _ => 64,
    }
}
