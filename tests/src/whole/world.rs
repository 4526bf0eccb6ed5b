//! The event loop of whole nodes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, hex, keccak256};
use engine::{
    pipeline::{PipelineError, stepped::SteppedNode},
    ports::Store as _,
    types::{Height, Incoming, Letter, Message, RawTransaction},
};

use super::{
    chain::{SENDERS, chain, signer},
    member::{Member, To},
    oracle::Oracle,
};
use crate::{
    rng::Rng,
    simulation::Report,
    wallet::{account, sign, template},
};

/// Time at the end without faults, in which everybody must come to one chain; in microseconds.
const CALM_US: u64 = 20_000_000;

/// Bytes of input that make a body too large to travel whole.
static LARGE_INPUT: [u8; 70_000] = [0; 70_000];

/// Logs 5 bytes, stores 7 in slot 5 and deploys nothing.
const LOGGING_INITCODE: [u8; 10] = hex!("60055fa0600760055500");

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Validators.
    pub validators: usize,
    /// Simulated seconds; the last 20 are calm.
    pub seconds: u64,
    /// Power cuts, lost logs, partitions and lost letters.
    pub has_faults: bool,
    /// A control: nodes forget at a power cut what they signed, so that somebody says two things.
    pub is_forgetful: bool,
    /// The first node is down from the second second on, and comes back for the calm.
    pub is_away: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Deliver { from: usize, to: usize, letter: Arc<Letter> },
    Wake { node: usize },
    Job { node: usize, start: u32 },
    Report { node: usize, start: u32 },
    Append { node: usize, start: u32 },
    Sync { node: usize, start: u32 },
    Commit { node: usize, start: u32 },
    Send,
    Crash { node: usize },
    Start { node: usize },
    Part,
    Heal,
}

const JOB: usize = 0;
const LINES: usize = 1;
const BLOCKS: usize = 2;

/// Nodes, what lies between them, and who watches.
pub struct World {
    options: Options,
    random: Rng,
    now: Arc<AtomicU64>,
    events: BTreeMap<(u64, u64, u64), Event>,
    count: u64,
    hash: B256,
    members: Vec<Member>,
    /// Side of a partition that each node is on.
    sides: Vec<bool>,
    nonces: Vec<u64>,
    has_lost_a_log: bool,
    /// By how many heights the node that was away was behind, and how many blocks came to it in ranges.
    away: Option<(u64, u64)>,
    oracle: Oracle,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("options", &self.options).finish_non_exhaustive()
    }
}

impl World {
    /// Nodes that have not started.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let chain = chain(options.validators);
        Self {
            random: Rng::new(options.seed ^ 0x5a1e),
            now: Arc::default(),
            events: BTreeMap::new(),
            count: 0,
            hash: B256::ZERO,
            members: (0..options.validators).map(|number| Member::new(number, &chain, options.is_forgetful)).collect(),
            sides: vec![false; options.validators],
            nonces: vec![0; SENDERS as usize],
            has_lost_a_log: false,
            away: None,
            oracle: Oracle::default(),
            options,
        }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn end_us(&self) -> u64 {
        self.options.seconds.saturating_mul(1_000_000)
    }

    fn is_calm(&self) -> bool {
        self.now().saturating_add(CALM_US) >= self.end_us()
    }

    fn after(&mut self, wait_us: u64, event: Event) {
        let order = self.random.next();
        self.count += 1;
        self.events.insert((self.now().saturating_add(wait_us), order, self.count), event);
    }

    /// Runs to the end and says what happened.
    #[must_use]
    pub fn run(mut self) -> Report {
        for node in 0..self.options.validators {
            self.after(node as u64, Event::Start { node });
            if self.options.has_faults {
                let wait = self.random.below(6_000_000);
                self.after(wait, Event::Crash { node });
            }
        }
        if self.options.has_faults {
            self.after(3_000_000, Event::Part);
        }
        if self.options.is_away {
            self.after(2_000_000, Event::Crash { node: 0 });
        }
        self.after(10_000, Event::Send);
        let mut events = 0;
        while let Some(((at, _, _), event)) = self.events.pop_first() {
            if at > self.end_us() || self.oracle.is_violated() {
                break;
            }
            self.now.store(at, Ordering::Relaxed);
            events += 1;
            self.note(&event);
            self.step(event);
        }
        self.check_end();
        let height = self.members.iter().map(Member::height).min().unwrap_or_default();
        let violation = self.oracle.take();
        let hash = u64::from_be_bytes(self.hash.0[..8].try_into().unwrap_or_default());
        let caught_up = self.away.into_iter().collect();
        Report { seed: self.options.seed, hash, events, height, violation, caught_up, ..Report::default() }
    }

    /// The hash of the run goes on.
    fn note(&mut self, event: &Event) {
        let (tag, node): (u8, usize) = match event {
            Event::Deliver { to, .. } => (1, *to),
            Event::Wake { node } => (2, *node),
            Event::Job { node, .. } => (3, *node),
            Event::Report { node, .. } => (4, *node),
            Event::Append { node, .. } => (5, *node),
            Event::Sync { node, .. } => (6, *node),
            Event::Commit { node, .. } => (7, *node),
            Event::Send => (8, 0),
            Event::Crash { node } => (9, *node),
            Event::Start { node } => (10, *node),
            Event::Part => (11, 0),
            Event::Heal => (12, 0),
        };
        let mut bytes = self.hash.to_vec();
        bytes.extend_from_slice(&self.now().to_be_bytes());
        bytes.extend_from_slice(&[tag, u8::try_from(node).unwrap_or(u8::MAX)]);
        if let Event::Deliver { letter, .. } = event {
            bytes.extend_from_slice(&letter.message.encoded());
        }
        self.hash = keccak256(bytes);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, letter } => {
                let validator = Some(signer(from).public_key());
                if let (0, Message::Chain(chain), Some((_, blocks))) = (to, &letter.message, &mut self.away) {
                    *blocks += chain.bodies;
                }
                let incoming = Incoming { peer: from as u64, validator, letter: Letter::clone(&letter) };
                self.with(to, None, |node| node.receive(incoming));
            }
            Event::Wake { node } => {
                if self.members[node].wake_us == Some(self.now()) {
                    self.members[node].wake_us = None;
                    self.with(node, None, SteppedNode::wake);
                }
            }
            Event::Job { node, start } => {
                self.with(node, Some(start), SteppedNode::do_job);
                self.after(1 + node as u64, Event::Report { node, start });
            }
            Event::Report { node, start } => self.finish(node, start, JOB, SteppedNode::report_job),
            Event::Append { node, start } => {
                self.with(node, Some(start), SteppedNode::append_lines);
                let wait = 200 + self.random.below(3_000);
                self.after(wait, Event::Sync { node, start });
            }
            Event::Sync { node, start } => self.finish(node, start, LINES, SteppedNode::sync_lines),
            Event::Commit { node, start } => self.finish(node, start, BLOCKS, SteppedNode::commit),
            Event::Send => self.send(),
            Event::Crash { node } => self.crash(node),
            Event::Start { node } => self.start(node),
            Event::Part => self.part(),
            Event::Heal => self.sides.fill(false),
        }
    }

    /// Does something with a node that runs, and is still the one that `start` names.
    fn with(
        &mut self,
        number: usize,
        start: Option<u32>,
        act: impl FnOnce(&mut SteppedNode) -> Result<(), PipelineError>,
    ) {
        let member = &mut self.members[number];
        if start.is_some_and(|start| start != member.start) {
            return;
        }
        let Some(node) = &mut member.node else { return };
        if let Err(error) = act(node) {
            self.oracle.violated(format!("node {number} stops: {error}"));
        }
        self.settle(number);
    }

    fn finish(
        &mut self,
        number: usize,
        start: u32,
        stage: usize,
        act: impl FnOnce(&mut SteppedNode) -> Result<(), PipelineError>,
    ) {
        if self.members[number].start == start {
            self.members[number].busy[stage] = false;
        }
        self.with(number, Some(start), act);
    }

    /// Takes what a node said and announced, and gives its stages work.
    fn settle(&mut self, number: usize) {
        let tray = std::mem::take(&mut *self.members[number].tray.lock());
        for ban in tray.bans {
            self.oracle.violated(format!("node {number} bans somebody honest: {ban}"));
        }
        for block in tray.announced {
            let expected = self.members[number].announced;
            if block.height().0 != expected + 1 {
                self.oracle.violated(format!("node {number} announces {} after {expected}", block.height()));
            }
            self.members[number].announced = block.height().0;
            self.oracle.block(number, &block);
        }
        for (to, letter) in tray.letters {
            self.oracle.said(number, &letter.message);
            let letter = Arc::new(letter);
            for other in (0..self.options.validators).filter(|other| *other != number) {
                if to == To::All || to == To::One(other) {
                    self.post(number, other, &letter);
                }
            }
        }
        let member = &self.members[number];
        let (Some(node), start) = (&member.node, member.start) else { return };
        let (work, wake, busy) = (node.work(), node.wake_at(), member.busy);
        let wake = wake.map(|at| u64::try_from(at.as_micros()).unwrap_or(u64::MAX).max(self.now() + 1));
        if work.job && !busy[JOB] {
            self.members[number].busy[JOB] = true;
            let wait = 500 + self.random.below(20_000);
            self.after(wait, Event::Job { node: number, start });
        }
        if work.lines && !busy[LINES] {
            self.members[number].busy[LINES] = true;
            self.after(20, Event::Append { node: number, start });
        }
        if work.blocks && !busy[BLOCKS] {
            self.members[number].busy[BLOCKS] = true;
            let wait = 300 + self.random.below(4_000);
            self.after(wait, Event::Commit { node: number, start });
        }
        if let Some(at) = wake.filter(|at| self.members[number].wake_us != Some(*at)) {
            self.members[number].wake_us = Some(at);
            self.after(at - self.now(), Event::Wake { node: number });
        }
    }

    fn post(&mut self, from: usize, to: usize, letter: &Arc<Letter>) {
        let is_lost = self.options.has_faults && !self.is_calm() && self.random.below(50) == 0;
        if is_lost || self.sides[from] != self.sides[to] {
            return;
        }
        let wait = 2_000 + self.random.below(40_000);
        self.after(wait, Event::Deliver { from, to, letter: letter.clone() });
    }

    fn crash(&mut self, node: usize) {
        if self.is_calm() {
            return;
        }
        let seed = self.random.next();
        self.members[node].crash(seed);
        if self.options.is_away {
            let wait = self.end_us().saturating_sub(CALM_US + self.now());
            return self.after(wait, Event::Start { node });
        }
        if !self.has_lost_a_log && self.random.below(8) == 0 {
            self.has_lost_a_log = true;
            self.members[node].disk.lose_log();
        }
        let (down, up) = (50_000 + self.random.below(3_000_000), self.random.below(12_000_000));
        self.after(down, Event::Start { node });
        self.after(down + up, Event::Crash { node });
    }

    fn start(&mut self, node: usize) {
        let (nonce, clock) = (self.random.next(), self.now.clone());
        let top = self.members.iter().map(Member::height).max().unwrap_or_default();
        if let Err(error) = self.members[node].boot(&clock, nonce) {
            return self.oracle.violated(format!("node {node} cannot start: {error}"));
        }
        let (height, announced) = (self.members[node].height(), self.members[node].announced);
        if self.options.is_away && top > 0 {
            self.away = Some((top - height, 0));
        }
        if height < announced {
            self.oracle.violated(format!("node {node} announced {announced}, and has {height} after a power cut"));
        }
        let Some(store) = self.members[node].store.clone() else { return };
        for height in announced + 1..=height {
            match store.block(Height(height)) {
                Ok(Some(block)) => self.oracle.block(node, &block),
                other => self.oracle.violated(format!("node {node} has no block {height}: {other:?}")),
            }
        }
        self.members[node].announced = height;
        self.settle(node);
    }

    fn part(&mut self) {
        if self.is_calm() {
            return;
        }
        for side in &mut self.sides {
            *side = self.random.below(3) == 0;
        }
        let (apart, together) = (self.random.below(3_000_000), self.random.below(6_000_000));
        self.after(apart, Event::Heal);
        self.after(apart + together, Event::Part);
    }

    /// A client sends its next transaction to any node; a node that is down takes none.
    fn send(&mut self) {
        let wait = self.random.below(60_000);
        self.after(wait, Event::Send);
        let (sender, number) = (self.random.below(SENDERS.into()), self.random.below(self.options.validators as u64));
        let (sender, number) = (usize::try_from(sender).unwrap_or(0), usize::try_from(number).unwrap_or(0));
        let Some(store) = self.members[number].store.clone() else { return };
        let key = account(u32::try_from(sender).unwrap_or(0));
        let tip = store.tip().height();
        let known = store.view(tip).ok().and_then(|view| view.account(key.address()).ok().flatten());
        // What a node that crashed had taken may be lost; what another one holds may come later.
        let next = known.map_or(0, |account| account.nonce);
        let nonce = if self.random.below(4) == 0 { next } else { next.max(self.nonces[sender]) };
        let raw = if self.random.below(2) == 0 {
            let to = Address::with_last_byte(u8::try_from(self.random.below(200)).unwrap_or(1));
            sign(&key, TxEip1559 { to: TxKind::Call(to), ..template(nonce) })
        } else if nonce % 16 == 3 {
            let (to, input) = (TxKind::Call(key.address()), Bytes::from_static(&LARGE_INPUT));
            sign(&key, TxEip1559 { to, input, gas_limit: 1_000_000, ..template(nonce) })
        } else {
            let input = Bytes::from_static(&LOGGING_INITCODE);
            sign(&key, TxEip1559 { to: TxKind::Create, input, gas_limit: 100_000, ..template(nonce) })
        };
        let mut is_admitted = false;
        self.with(number, None, |node| {
            is_admitted = node.submit(RawTransaction::new(raw))?.is_ok();
            Ok(())
        });
        if is_admitted {
            self.nonces[sender] = nonce + 1;
        }
    }

    /// In the end everybody is at one height but for what is under way, and has the state that its header says.
    fn check_end(&mut self) {
        if self.oracle.is_violated() {
            return;
        }
        let heights: Vec<u64> = self.members.iter().map(Member::height).collect();
        let (least, most) = (heights.iter().min().copied(), heights.iter().max().copied());
        if most > least.map(|least| least + 8) || self.options.seconds / 2 > least.unwrap_or_default() {
            self.oracle.violated(format!("heights {heights:?} at the end"));
        }
        if self.oracle.transactions() == 0 {
            self.oracle.violated("no transaction was included".to_owned());
        }
        if self.oracle.transactions() > 200 && self.oracle.large_blocks() == 0 {
            self.oracle.violated("no block was large".to_owned());
        }
        for number in 0..self.options.validators {
            let Some(store) = self.members[number].store.clone() else { continue };
            let stated = store.tip().block.header.inner().state_root;
            match store.rebuild_root() {
                Ok(rebuilt) if rebuilt == stated => {}
                other => self.oracle.violated(format!("node {number} has state {other:?}, its header {stated}")),
            }
        }
    }
}
