//! One node: a machine while it runs, a disk always.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::{B256, keccak256};
use engine::{
    crypto::Signer,
    ordering::{
        chain::mix,
        event::{Anchor, Identity, Now, Output, Settings, Snapshot},
        journal::Entry,
        machine::{Machine, StartError},
        planted::Planted,
    },
    testing::MockSigner,
    types::{ConsensusHeader, Height, ValidatorSet},
};

use super::{
    answers::Lie,
    costs::{Meter, Metered},
    disk::Disk,
    faults::FaultKind,
    keys::public_key,
    ledger::Ledger,
    watch::Watched,
    witness::Witness,
};

/// A job of the executor that is under way.
#[derive(Clone, Debug)]
pub enum Job {
    /// A build, with the header that comes out of it.
    Build(Box<ConsensusHeader>, bool),
    /// An execution.
    Execute(B256),
}

/// One node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its key; twins share one.
    pub secret: u64,
    /// What makes it faulty.
    pub fault: Option<FaultKind>,
    /// The rules, while it runs.
    pub machine: Option<Box<Machine>>,
    /// Counts its starts; what was under way before one is void after it.
    pub start: u32,
    /// What it remembers.
    pub disk: Disk,
    /// Height of the newest block handed to the disk.
    pub committed: u64,
    /// The newest block handed to the disk.
    pub top: Option<Anchor>,
    /// When to wake it, in simulated time; and which wish that is.
    pub wake: (u64, u32),
    /// Job under way.
    pub job: Option<Job>,
    /// Microseconds that a block takes it.
    pub execute_us: u64,
    /// Microseconds that a sync takes it.
    pub sync_us: u64,
    /// How fast its clock runs, in parts per million of true time.
    pub clock_ppm: u64,
    /// How far its clock is ahead, in milliseconds.
    pub clock_ahead_ms: i64,
    /// What its clock shows as long as it stands still.
    pub clock_stopped_ms: Option<u64>,
    /// Its clock jumps.
    pub is_jumping: bool,
    /// It lost its log, or came back with an old one; in this run it may not happen to too many.
    pub has_forgotten: bool,
    /// A copy of its disk, made earlier.
    pub backup: Option<Disk>,
    /// What its log allows it to sign.
    pub(super) ledger: Ledger,
    /// What it was told.
    pub(super) witness: Witness,
    /// What it is held to.
    pub(super) watched: Watched,
    /// When the newest sync under way ends.
    pub synced_at: u64,
    /// When the newest commit under way ends.
    pub durable_at: u64,
    /// Blocks it executed or built since it started.
    pub executed: BTreeSet<B256>,
    /// Blocks it told of as notarized since it started.
    pub notarized: BTreeSet<B256>,
    /// It never starts.
    pub is_absent: bool,
    /// It starts when those who were away come back.
    pub is_late: bool,
    /// How it lies to those who are behind.
    pub lie: Option<Lie>,
    /// Until then it is at something.
    pub busy_us: u64,
    /// Microseconds that its signatures took it.
    pub cpu_us: u64,
    /// What it sent, encoded.
    pub sent_bytes: u64,
}

/// What the toy executor makes of a block: it depends on everything below it.
#[must_use]
pub fn outcome(parent: &ConsensusHeader, header: &ConsensusHeader, empty: bool) -> B256 {
    let mut bytes = Vec::with_capacity(81);
    bytes.extend_from_slice(parent.block_hash.as_slice());
    bytes.extend_from_slice(header.parent_id.as_slice());
    bytes.extend_from_slice(&header.height.to_be_bytes());
    bytes.extend_from_slice(&header.timestamp_ms.to_be_bytes());
    bytes.push(u8::from(empty));
    keccak256(bytes)
}

impl Node {
    /// Its clock.
    #[must_use]
    pub fn now(&self, at_us: u64, epoch_ms: u64) -> Now {
        let local_us = at_us / 1_000_000 * self.clock_ppm + at_us % 1_000_000 * self.clock_ppm / 1_000_000;
        Now {
            monotonic: std::time::Duration::from_micros(local_us),
            wall_ms: self
                .clock_stopped_ms
                .unwrap_or_else(|| (epoch_ms + local_us / 1_000).saturating_add_signed(self.clock_ahead_ms)),
        }
    }

    /// True time at which its clock shows this, at the earliest.
    #[must_use]
    pub fn true_us(&self, local: std::time::Duration) -> u64 {
        let local = u64::try_from(local.as_micros()).unwrap_or(u64::MAX);
        local / self.clock_ppm.max(1) * 1_000_000
            + (local % self.clock_ppm.max(1)).saturating_mul(1_000_000).div_ceil(self.clock_ppm.max(1))
    }

    /// Starts it from its disk.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn boot(&mut self, world: &Boot<'_>, at_us: u64, nonce: u64) -> Result<Vec<Output>, StartError> {
        self.start += 1;
        self.job = None;
        self.executed.clear();
        self.notarized.clear();
        self.wake = (u64::MAX, self.wake.1 + 1);
        self.top = self.disk.chain.last().map(|(tip, _)| tip.clone());
        self.committed = self.disk.chain.last().map_or(0, |(tip, _)| tip.header.height);
        let snapshot = self.snapshot(world, nonce);
        let signer = MockSigner::new(self.secret);
        let signer: Arc<dyn Signer> = match world.meter {
            Some(meter) => Arc::new(Metered::new(signer, meter)),
            None => Arc::new(signer),
        };
        let settings = Settings {
            identity: Some(Identity { public_key: public_key(self.secret), signer }),
            planted: if self.fault.is_none() { world.planted } else { Planted::default() },
            ..world.settings.clone()
        };
        let now = self.now(at_us, world.epoch_ms);
        let (machine, outputs) = Machine::start(settings, snapshot, now)?;
        self.machine = Some(Box::new(machine));
        Ok(outputs)
    }

    fn snapshot(&self, world: &Boot<'_>, nonce: u64) -> Snapshot {
        let heights = world.settings.epoch_heights;
        let tip = self.disk.chain.last();
        let begun = self.disk.log.iter().filter_map(|entry| match entry {
            Entry::EpochStart { epoch, base, .. } => self.at(*base).map(|_| epoch.0),
            _ => None,
        });
        let epoch = begun.max().unwrap_or_default().max(tip.map_or(0, |(tip, _)| tip.header.epoch));
        let at_height = |height: u64| match height.checked_sub(1) {
            Some(place) => usize::try_from(place).ok().and_then(|place| self.disk.chain.get(place)).map(|(at, _)| at),
            None => Some(world.genesis),
        };
        let base = at_height(epoch * heights).unwrap_or(world.genesis).clone();
        let seed = |epoch: u64| match epoch.checked_sub(1) {
            Some(before) => at_height(before * heights)
                .map_or(world.genesis.id, |at| if before == 0 { world.genesis.id } else { at.mix }),
            None => world.genesis.id,
        };
        let blocks = self.disk.bodies.values().filter(|body| body.is_durable && body.block.header.epoch == epoch);
        let mut blocks: Vec<_> = blocks.map(|body| (body.block.clone(), body.empty)).collect();
        blocks.sort_by_key(|(block, _)| (block.header.slot, block.header.id()));
        let ended = (0..epoch).filter_map(|ended| {
            let last = usize::try_from((ended + 1) * heights - 1).ok()?;
            self.disk.chain.get(last).map(|(_, finalization)| *finalization)
        });
        Snapshot {
            handovers: ended.collect(),
            set: (world.set)(epoch),
            next_set: Some((world.set)(epoch + 1)),
            seed: seed(epoch),
            next_seed: seed(epoch + 1),
            tip: tip.filter(|(tip, _)| tip.header.epoch == epoch && tip.id != base.id).cloned(),
            base,
            blocks,
            entries: self.disk.log.clone(),
            is_log_lost: self.disk.is_log_lost,
            nonce,
        }
    }

    fn at(&self, id: B256) -> Option<&Anchor> {
        self.disk.chain.iter().rev().map(|(at, _)| at).find(|at| at.id == id)
    }

    /// The chain of anchors from the newest durable or pending block to this one, for the disk.
    #[must_use]
    pub fn anchor(&self, below: &Anchor, header: &ConsensusHeader) -> Anchor {
        Anchor { id: header.id(), header: header.clone(), mix: mix(below.mix, &header.seed_share) }
    }

    /// Height that this node has made durable.
    #[must_use]
    pub fn durable(&self) -> Height {
        Height(self.disk.chain.last().map_or(0, |(tip, _)| tip.header.height))
    }
}

/// What every node starts from.
pub struct Boot<'w> {
    /// Settings of all nodes but for their keys.
    pub settings: &'w Settings,
    /// Block 0.
    pub genesis: &'w Anchor,
    /// The set of an epoch.
    pub set: &'w dyn Fn(u64) -> ValidatorSet,
    /// What the clock of a simulation shows at its beginning, in milliseconds since 1970.
    pub epoch_ms: u64,
    /// A bug that the honest nodes have.
    pub planted: Planted,
    /// Counts what signatures cost, where they cost something.
    pub(super) meter: Option<&'w Arc<Meter>>,
}
