//! What a node's surroundings do: executor, disk and store.

use alloy_primitives::B256;
use engine::{
    crypto::Signer as _,
    ordering::{
        event::{Anchor, BuildOrder, Input},
        journal::Entry,
    },
    testing::MockSigner,
    types::{Certificate, ConsensusHeader, Signature, SignedHeader, vote::Kind},
};

use super::{
    cluster::secret_at,
    crashes::CrashPoint,
    disk::Body,
    faults::FaultKind,
    node::{Job, outcome},
    world::{Event, World},
};

impl World {
    pub(super) fn is_built_empty(&self, header: &ConsensusHeader) -> bool {
        let parent = self.headers.get(&header.parent_id).map(|(parent, _)| parent);
        parent.is_some_and(|parent| outcome(parent, header, true) == header.block_hash)
    }

    pub(super) fn build(&mut self, node: usize, order: BuildOrder) {
        let BuildOrder { mut header, deadline, .. } = order;
        let Some((parent, _)) = self.headers.get(&header.parent_id) else {
            return self.oracle.violated(format!("node {node} builds on a block that nobody made"));
        };
        // Some blocks find no transactions.
        let is_full = self.options.is_wide || self.options.full_percent.is_some();
        let empty = !is_full && self.rng.below(8) == 0;
        header.block_hash = outcome(parent, &header, empty);
        if self.nodes[node].fault == Some(FaultKind::InvalidBlocks) && self.rng.below(2) == 0 {
            header.block_hash = B256::with_last_byte(0xee);
        }
        if self.nodes[node].fault == Some(FaultKind::WrongSet) && !header.next_set_hash.is_zero() {
            header.next_set_hash = B256::with_last_byte(0xdd);
        }
        let start = self.nodes[node].start;
        let mut wait = self.nodes[node].execute_us;
        if self.options.full_percent.is_some() {
            wait = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
            self.builds_us.insert((header.slot, header.parent_id), wait);
        }
        self.nodes[node].job = Some(Job::Build(Box::new(header), empty));
        self.at(self.now + wait, Event::Done { node, start });
    }

    /// A node begins to execute a block on what it takes for its parent.
    pub(super) fn execute(&mut self, node: usize, id: B256, parent: B256, honest: bool) {
        if honest && self.headers.get(&id).is_none_or(|(header, _)| header.parent_id != parent) {
            return self.oracle.violated(format!("node {node} executes {id} on {parent}, which is not its parent"));
        }
        let mut wait = self.nodes[node].execute_us;
        if let (Some(percent), Some((header, _))) = (self.options.full_percent, self.headers.get(&id)) {
            wait = self.builds_us.get(&(header.slot, parent)).map_or(wait, |us| us * percent / 100);
        }
        self.nodes[node].job = Some(Job::Execute(id));
        let start = self.nodes[node].start;
        self.at(self.now + wait, Event::Done { node, start });
    }

    pub(super) fn done(&mut self, node: usize, start: u32) {
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

    pub(super) fn verdict(&self, id: &B256) -> Result<(), String> {
        let Some((header, empty)) = self.headers.get(id) else { return Err("nobody made it".to_owned()) };
        let Some((parent, _)) = self.headers.get(&header.parent_id) else { return Err("no parent".to_owned()) };
        let ours = outcome(parent, header, *empty);
        if ours == header.block_hash { Ok(()) } else { Err(format!("block hash {ours}")) }
    }

    pub(super) fn persist(
        &mut self,
        node: usize,
        entries: Vec<Entry>,
        bodies: Vec<B256>,
        token: Option<u64>,
        honest: bool,
    ) {
        let is_signed = token.is_some();
        if is_signed && self.strikes(node, CrashPoint::BeforeAppend) {
            return;
        }
        for entry in &entries {
            if let Entry::Proposal { id, header, .. } = entry {
                // Tail headers have no block, so nothing adopted them.
                self.headers.entry(*id).or_insert_with(|| ((**header).clone(), true));
            }
            if honest {
                self.watch_entry(node, entry);
            }
        }
        for id in &bodies {
            self.keep(node, *id);
        }
        self.nodes[node].disk.write(entries, bodies);
        if is_signed && self.strikes(node, CrashPoint::BeforeSync) {
            return;
        }
        if is_signed {
            let wait = self.nodes[node].sync_us / 2 + 1 + self.rng.below(self.nodes[node].sync_us);
            let start = self.nodes[node].start;
            let done = (self.now + wait).max(self.nodes[node].synced_at + 1);
            self.nodes[node].synced_at = done;
            let batches = self.nodes[node].disk.batches();
            self.at(done, Event::Synced { node, start, token, batches });
        }
    }

    /// Writes a body that the node has into its disk.
    pub(super) fn keep(&mut self, node: usize, id: B256) {
        if self.nodes[node].disk.bodies.contains_key(&id) {
            return;
        }
        let Some((header, empty)) = self.headers.get(&id) else { return };
        let block = SignedHeader { header: header.clone(), signature: self.signature_of(header, &id) };
        let body = Body { block, empty: *empty, is_durable: false };
        self.nodes[node].disk.bodies.insert(id, body);
    }

    /// The signature of a header's leader.
    pub(super) fn signature_of(&self, header: &ConsensusHeader, id: &B256) -> Signature {
        let secret = secret_at(&self.options, header.proposer(), header.epoch);
        MockSigner::new(secret).sign(self.settings.domain.hash(Kind::Proposal, header.epoch(), header.slot(), *id))
    }

    pub(super) fn synced(&mut self, node: usize, start: u32, token: Option<u64>, batches: u64) {
        if self.nodes[node].start != start || self.nodes[node].machine.is_none() {
            return;
        }
        let Some(token) = token else { return };
        self.nodes[node].disk.sync_through(batches);
        if self.strikes(node, CrashPoint::BeforeSend) {
            return;
        }
        self.input(node, Input::Synced(token));
    }

    pub(super) fn commit(&mut self, node: usize, ids: &[B256], finalization: Box<Certificate>, honest: bool) {
        if self.strikes(node, CrashPoint::BeforeCommit) {
            return;
        }
        if honest {
            self.is_known(&finalization);
        }
        let mut blocks = Vec::with_capacity(ids.len());
        let mut below = self.nodes[node].top.clone().unwrap_or_else(|| self.genesis.clone());
        for id in ids {
            let Some((header, _)) = self.headers.get(id).cloned() else {
                return self.oracle.violated(format!("node {node} commits a block that nobody made"));
            };
            if honest {
                self.watch_commit(node, &below, &header);
            }
            self.nodes[node].committed = header.height;
            if honest {
                self.final_us.entry(header.height).or_insert_with(|| {
                    self.built_us += self.builds_us.get(&(header.slot, header.parent_id)).copied().unwrap_or_default();
                    self.now
                });
            }
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

    /// The store made blocks durable; a crash in the middle leaves the first of them.
    pub(super) fn made_durable(&mut self, node: usize, start: u32, blocks: Vec<Anchor>, finalization: &Certificate) {
        if self.nodes[node].start != start || self.nodes[node].machine.is_none() {
            return;
        }
        let is_struck = self.is_struck(node, CrashPoint::WhileCommitting);
        let most = blocks.len() as u64;
        let first = if is_struck { self.rng.below(most + 1) } else { most };
        let made = blocks.into_iter().take(usize::try_from(first).expect("small"));
        self.nodes[node].disk.chain.extend(made.map(|at| (at, *finalization)));
        if is_struck {
            return self.fall(node);
        }
        let height = self.nodes[node].durable();
        self.input(node, Input::Committed(height));
    }
}
