//! The cluster, its events, and the run.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::B256;
use engine::{
    limits,
    ordering::{
        event::{Anchor, Input, Output, Settings},
        leader::Schedule,
        planted::Planted,
    },
    testing::MockScheme,
    types::{Certificate, ConsensusHeader, Domain, Epoch, Message, Slot},
};

use super::{
    cluster::{members, nodes, secret_at, stakes},
    costs::{Meter, Metered},
    crashes::CrashPoint,
    faults::FaultKind,
    network::Links,
    node::{Boot, Job, Node},
    options::Options,
    oracle::Oracle,
    report::{self, Report},
    traffic::Parcel,
    watch::Sets,
};
use crate::rng::Rng;

/// Time beyond a run's own in which the slots that must pass may do so, in microseconds.
const OVERTIME_US: u64 = 60_000_000;
/// Blocks that a node may hold above its tip: ranges that are not executed yet, and as many as an answer to a fetch has
/// and are near, twice.
const BLOCKS_HELD_MAX: usize = limits::SYNC_RANGES_MAX * 64 + 2 * 64;
/// What the clocks show at the beginning.
const EPOCH_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
pub(super) enum Event {
    Deliver { to: usize, from: usize, parcel: Arc<Parcel> },
    Ask { to: usize, from: usize, wish: Message },
    Wake { node: usize, wish: u32 },
    Done { node: usize, start: u32 },
    Synced { node: usize, start: u32, token: Option<u64>, batches: u64 },
    Durable { node: usize, start: u32, blocks: Vec<Anchor>, finalization: Box<Certificate> },
    NextSet { node: usize, start: u32, epoch: u64 },
    Crash { node: usize },
    Restart { node: usize },
    Copy { node: usize },
    Clock { node: usize, ahead_ms: i64, stands: bool },
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
    pub(super) options: Options,
    pub(super) rng: Rng,
    pub(super) now: u64,
    seq: u64,
    heap: BinaryHeap<Reverse<Entered>>,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Links,
    pub(super) stakes: Vec<u64>,
    pub(super) settings: Settings,
    meter: Arc<Meter>,
    pub(super) genesis: Anchor,
    pub(super) sets: Sets,
    pub(super) headers: BTreeMap<B256, (ConsensusHeader, bool)>,
    /// How long builds took, by slot and parent, where that is chosen by whoever builds; of final blocks, the sum.
    pub(super) builds_us: BTreeMap<(u64, B256), u64>,
    pub(super) built_us: u64,
    pub(super) oracle: Oracle,
    trace: u64,
    events: u64,
    pub(super) proposed_at: BTreeMap<B256, u64>,
    pub(super) finality_us: Vec<u64>,
    /// When each height was first final at an honest node.
    pub(super) final_us: BTreeMap<u64, u64>,
    pub(super) crash_points: [u64; CrashPoint::COUNT],
    /// Slots that passed at some honest node in the first epoch.
    slots_passed: u64,
    /// Nodes that are behind; and by how many heights those that were so were, and how long they were.
    pub(super) behind: BTreeMap<usize, (u64, u64)>,
    caught_up: Vec<(u64, u64)>,
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
        let drawn = if has(FaultKind::Epochs) { 20 + rng.below(60) } else { 18_000 };
        let epoch_heights = options.epoch_heights.unwrap_or(drawn);
        let genesis_header = ConsensusHeader { chain_id: 7, block_hash: B256::with_last_byte(1), ..Default::default() };
        let genesis = Anchor { id: genesis_header.id(), header: genesis_header, mix: B256::with_last_byte(9) };
        let meter = Arc::new(Meter::default());
        let settings = Settings {
            domain: Domain { chain_id: 7, genesis: genesis.id },
            window: options.window,
            epoch_heights,
            timing: options.timing,
            build_time: if options.full_percent.is_some() {
                options.timing.slot_time
            } else {
                Duration::from_millis(100)
            },
            in_flight_max: 64,
            scheme: if options.is_wide { Arc::new(Metered::new(MockScheme, &meter)) } else { Arc::new(MockScheme) },
            identity: None,
            planted: Planted::default(),
        };
        let mut nodes = nodes(&options, &stakes, &mut rng);
        if has(FaultKind::Drift) {
            for node in &mut nodes {
                node.clock_ppm = 999_000 + rng.below(2_000);
                node.clock_ahead_ms = i64::try_from(rng.below(400)).expect("small");
            }
        }
        let mut links = Links::new(nodes.len(), options.delay, &mut rng);
        links.loss_per_mille = if has(FaultKind::Loss) { 20 } else { options.loss_per_mille };
        links.twice_per_mille = if has(FaultKind::Duplicate) { 20 } else { 0 };
        links.varies = has(FaultKind::Reorder);
        Self {
            oracle: Oracle::new(options.only_forks),
            sets: Sets::default(),
            options,
            rng,
            now: 0,
            seq: 0,
            heap: BinaryHeap::new(),
            nodes,
            links,
            stakes,
            settings,
            meter,
            genesis,
            headers: BTreeMap::new(),
            builds_us: BTreeMap::new(),
            built_us: 0,
            trace: 0,
            events: 0,
            proposed_at: BTreeMap::new(),
            finality_us: Vec::new(),
            final_us: BTreeMap::new(),
            crash_points: [0; CrashPoint::COUNT],
            slots_passed: 0,
            behind: BTreeMap::new(),
            caught_up: Vec::new(),
        }
    }

    /// Who leads which window of the first epoch.
    fn schedule(&mut self) -> Schedule {
        let set = self.set_of(0);
        Schedule::new(self.genesis.id, &set, self.options.window)
    }

    /// Whoever leads the window that is to have no leader never starts.
    fn choose_absent(&mut self) {
        let Some(window) = self.options.absent_leader else { return };
        let leader = self.schedule().leader(Slot(window * self.options.window));
        let secret = secret_at(&self.options, leader, 0);
        for node in self.nodes.iter_mut().filter(|node| node.secret == secret) {
            (node.is_absent, node.fault) = (true, Some(FaultKind::Dead));
        }
    }

    /// Slots that were skipped in the first epoch: of leaders that are there, and of one that is not.
    fn skipped(&mut self) -> [u64; 2] {
        let schedule = self.schedule();
        let absent = self.nodes.iter().filter(|node| node.is_absent).map(|node| node.secret).collect::<Vec<_>>();
        let mut counted = [0, 0];
        for slot in self.oracle.skipped(0) {
            let secret = secret_at(&self.options, schedule.leader(slot), 0);
            counted[usize::from(absent.contains(&secret))] += 1;
        }
        counted
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
        self.choose_absent();
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_absent && !self.nodes[node].is_late {
                self.boot(node);
            }
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
        self.judge_debts();
        self.judge_liveness();
        self.finality_us.sort_unstable();
        let skipped = self.skipped();
        let top = |node: &Node| node.machine.as_ref().map_or(0, |machine| machine.place().height.0);
        Report {
            seed: self.options.seed,
            hash: self.trace,
            events: self.events,
            height: self.nodes.iter().map(top).max().unwrap_or_default(),
            convicted: self.oracle.convicted.len(),
            violation: self.oracle.violation,
            finality_us: self.finality_us,
            crash_points: self.crash_points,
            bytes_sent: self.nodes.iter().map(|node| node.sent_bytes).collect(),
            cpu_us: self.nodes.iter().map(|node| node.cpu_us).collect(),
            final_us: self.final_us,
            skipped,
            slots: self.slots_passed,
            built_us: self.built_us,
            caught_up: self.caught_up,
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

    pub(super) fn at(&mut self, time: u64, event: Event) {
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
            meter: self.options.is_wide.then_some(&self.meter),
        };
        let nonce = self.rng.next();
        let started = self.nodes[node].boot(&boot, self.now, nonce);
        self.watch_start(node);
        match started {
            Ok(outputs) => {
                self.apply(node, outputs);
                let peers = self.contacts(node);
                self.input(node, Input::Peers(peers));
            }
            Err(error) => self.oracle.violated(format!("node {node} cannot start: {error}")),
        }
    }

    /// The node that an event keeps busy.
    const fn busied(event: &Event) -> Option<usize> {
        match event {
            Event::Deliver { to: node, .. }
            | Event::Wake { node, .. }
            | Event::Done { node, .. }
            | Event::Synced { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn step(&mut self, event: Event) {
        if let Some(free) = Self::busied(&event).map(|node| self.nodes[node].busy_us).filter(|free| *free > self.now) {
            // Whatever waits keeps its order.
            self.seq += 1;
            return self.heap.push(Reverse(Entered((free, 0, self.seq), event)));
        }
        match event {
            Event::Deliver { to, from, parcel } => self.deliver(to, from, &parcel),
            Event::Ask { to, from, wish } => self.answer(to, from, &wish),
            Event::Wake { node, wish } => {
                if self.nodes[node].wake.1 == wish {
                    self.input(node, Input::Wake);
                }
            }
            Event::Done { node, start } => self.done(node, start),
            Event::Synced { node, start, token, batches } => self.synced(node, start, token, batches),
            Event::Durable { node, start, blocks, finalization } => {
                self.made_durable(node, start, blocks, &finalization);
            }
            Event::NextSet { node, start, epoch } => {
                if self.nodes[node].start == start && self.nodes[node].machine.is_some() {
                    let set = self.set_of(epoch);
                    self.input(node, Input::NextSet((*set).clone()));
                }
            }
            Event::Crash { node } => self.crash(node),
            Event::Restart { node } => {
                if self.nodes[node].machine.is_none() && self.nodes[node].fault != Some(FaultKind::Dead) {
                    let behind = self.top() - self.nodes[node].durable().0;
                    self.behind.insert(node, (behind, self.now));
                    self.boot(node);
                }
            }
            Event::Copy { node } => {
                let copy = self.nodes[node].disk.copy();
                self.nodes[node].backup = Some(copy);
            }
            Event::Clock { node, ahead_ms, stands } => self.set_clock(node, ahead_ms, stands),
            Event::Cut { groups, one_way } => self.cut(&groups, one_way),
            Event::Heal => self.links.heal(),
        }
    }

    fn set_clock(&mut self, node: usize, ahead_ms: i64, stands: bool) {
        let node = &mut self.nodes[node];
        (node.clock_ahead_ms, node.clock_stopped_ms) = (ahead_ms, None);
        node.clock_stopped_ms = stands.then_some(node.now(self.now, EPOCH_MS).wall_ms);
    }

    pub(super) fn cut(&mut self, groups: &[usize], one_way: bool) {
        for (from, to) in (0..groups.len()).flat_map(|from| (0..groups.len()).map(move |to| (from, to))) {
            let cut = groups[from] != groups[to] && (!one_way || groups[from] == 0);
            self.links.set_cut(from, to, cut);
        }
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.now, EPOCH_MS);
        let Some(machine) = &mut self.nodes[node].machine else { return };
        let outputs = machine.handle(input, now);
        let place = machine.place();
        if self.options.is_wide {
            let took = self.meter.take();
            self.nodes[node].cpu_us += took;
            self.nodes[node].busy_us = self.nodes[node].busy_us.max(self.now) + took;
        }
        let honest = self.nodes[node].fault.is_none();
        if honest && place.epoch == Epoch(0) {
            self.slots_passed = self.slots_passed.max(place.frontier.0);
        }
        self.trace = fold(self.trace, self.now ^ (node as u64) << 56);
        self.trace = fold(self.trace, place.frontier.0 << 32 ^ place.height.0 ^ (outputs.len() as u64) << 20);
        self.apply(node, outputs);
        if honest && self.nodes[node].machine.is_some() {
            self.watch_place(node, place);
        }
        self.see_caught_up(node);
    }

    /// The highest height that anybody handed to its store.
    fn top(&self) -> u64 {
        self.nodes.iter().map(|node| node.committed).max().unwrap_or_default()
    }

    /// Notes that a node which was behind is not any more.
    fn see_caught_up(&mut self, node: usize) {
        let Some((behind, since)) = self.behind.get(&node).copied() else { return };
        let held = self.nodes[node].machine.as_ref().map_or(0, |machine| machine.blocks_held());
        if held > BLOCKS_HELD_MAX {
            self.oracle.violated(format!("node {node} is behind, and holds {held} blocks"));
        }
        if self.nodes[node].committed + 4 >= self.top() {
            self.behind.remove(&node);
            self.caught_up.push((behind, self.now - since));
        }
    }

    /// Does what the machine asks for, in order; a crash in the middle leaves the rest undone.
    fn apply(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            if self.nodes[node].machine.is_none() {
                return;
            }
            self.one(node, output);
        }
    }

    fn one(&mut self, node: usize, output: Output) {
        if self.options.verbose {
            eprintln!("{:>9} us node {node} {}", self.now, report::shortened(&output));
        }
        let honest = self.nodes[node].fault.is_none();
        match output {
            Output::Build(order) => self.build(node, *order),
            Output::Adopt(block) => {
                let header = block.header;
                let empty = matches!(self.nodes[node].job, Some(Job::Build(_, true))) || self.is_built_empty(&header);
                let id = header.id();
                self.headers.insert(id, (header, empty));
                self.nodes[node].executed.insert(id);
            }
            Output::Execute { id, parent } => self.execute(node, id, parent, honest),
            // What a node keeps of tail headers it is asked for as for blocks.
            Output::Abandon(_) | Output::Tail(_) => {}
            Output::Notarized(id) if honest => self.watch_notarized(node, id),
            Output::Notarized(_) => {}
            Output::Persist { entries, bodies, token } => self.persist(node, entries, bodies, token, honest),
            Output::Broadcast(message) => self.broadcast(node, message, honest),
            Output::Send(peer, wish @ (Message::Fetch(_) | Message::Range(_))) => self.ask(node, peer, wish),
            Output::Send(peer, message) => {
                self.check_sent(node, &message, honest);
                let parcel = self.parcel(message);
                if let Ok(peer) = usize::try_from(peer) {
                    self.send(node, peer, &parcel);
                }
            }
            Output::Commit { ids, finalization } => self.commit(node, &ids, finalization, honest),
            Output::Wake(at) => {
                let time = self.nodes[node].true_us(at).max(self.now);
                let wish = self.nodes[node].wake.1 + 1;
                self.nodes[node].wake = (time, wish);
                self.at(time, Event::Wake { node, wish });
            }
            Output::EpochEnded { epoch, base, tail, .. } => {
                // Whoever is behind asks for them.
                self.nodes[node].disk.tails.extend(tail.iter().map(|above| above.header.id()));
                if honest {
                    self.oracle.hands_over(epoch.0, base.id);
                }
                let wait = 1 + self.rng.below(50_000);
                let start = self.nodes[node].start;
                self.at(self.now + wait, Event::NextSet { node, start, epoch: epoch.0 + 2 });
            }
            Output::Evidence(evidence) if honest => self.accuse(node, &evidence),
            Output::Halt(reason) if honest => self.oracle.violated(format!("node {node} halted: {reason}")),
            Output::Ban(peer, reason) if honest => self.banned_peer(node, peer, reason),
            Output::BanValidator(epoch, index, reason) if honest => self.banned(node, epoch.0, index, reason),
            Output::Evidence(_) | Output::Halt(_) | Output::Ban(..) | Output::BanValidator(..) => {}
        }
    }
}
