//! One validator: its disk always, its node while it runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy_primitives::Address;
use engine::{
    admission::PoolLimits,
    events::Event as Heard,
    genesis::ChainSpec,
    ordering::event::{Identity, Now},
    pipeline::{Config, PipelineError, Ports, stepped::SteppedNode},
    ports::{Delivery, Journal, Network, Offender, Recovered, Store as _},
    testing::{MemoryJournal, MockScheme},
    types::{CommittedBlock, Contact, Letter},
};
use parking_lot::Mutex;
use storage::{Database, testing::TornDisk};

use super::chain::signer;

/// What a clock shows when a simulation begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_000_000;

/// Whom a letter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    All,
    One(usize),
}

/// What a node says and announces, until the world takes it.
#[derive(Debug, Default)]
pub(super) struct Tray {
    pub(super) letters: Vec<(To, Letter)>,
    pub(super) announced: Vec<Arc<CommittedBlock>>,
    pub(super) bans: Vec<String>,
}

/// A node's way to the others.
#[derive(Debug)]
struct Post {
    number: usize,
    validators: usize,
    tray: Arc<Mutex<Tray>>,
}

impl Post {
    fn put(&self, to: To, letter: &Letter) -> Delivery {
        self.tray.lock().letters.push((to, letter.clone()));
        Delivery::Sent
    }
}

impl Network for Post {
    fn broadcast(&self, letter: &Letter) -> Delivery {
        self.put(To::All, letter)
    }

    fn send(&self, peer: u64, letter: &Letter) -> Delivery {
        usize::try_from(peer).map_or(Delivery::Full, |peer| self.put(To::One(peer), letter))
    }

    fn ban(&self, offender: &Offender, reason: &'static str) {
        self.tray.lock().bans.push(format!("{offender:?}: {reason}"));
    }

    fn peers(&self) -> Vec<Contact> {
        let others = (0..self.validators).filter(|other| *other != self.number);
        others.map(|other| Contact { peer: other as u64, validator: Some(signer(other).public_key()) }).collect()
    }
}

/// One validator.
pub(super) struct Member {
    number: usize,
    chain: Arc<ChainSpec>,
    folder: tempfile::TempDir,
    is_forgetful: bool,
    pub(super) disk: TornDisk,
    pub(super) store: Option<Arc<Database>>,
    pub(super) node: Option<SteppedNode>,
    pub(super) tray: Arc<Mutex<Tray>>,
    /// Counts its starts; what was under way before one is void after it.
    pub(super) start: u32,
    /// Stages that are at work.
    pub(super) busy: [bool; 3],
    /// When it is to be woken, in microseconds.
    pub(super) wake_us: Option<u64>,
    /// The highest block that it announced.
    pub(super) announced: u64,
}

impl Member {
    pub(super) fn new(number: usize, chain: &Arc<ChainSpec>, is_forgetful: bool) -> Self {
        Self {
            number,
            chain: chain.clone(),
            folder: tempfile::tempdir().expect("a folder can be made"),
            is_forgetful,
            disk: TornDisk::default(),
            store: None,
            node: None,
            tray: Arc::default(),
            start: 0,
            busy: [false; 3],
            wake_us: None,
            announced: 0,
        }
    }

    fn config(&self) -> Config {
        let key = signer(self.number);
        Config {
            slot_time: Duration::from_millis(self.chain.ordering.slot_time_ms),
            build_time: Duration::from_millis(self.chain.ordering.slot_time_ms),
            idle_interval: Some(Duration::from_millis(self.chain.ordering.idle_interval_ms)),
            identity: Some(Identity { public_key: key.public_key(), signer: Arc::new(key) }),
            scheme: Arc::new(MockScheme),
            beneficiary: Address::with_last_byte(u8::try_from(self.number).unwrap_or_default()),
            extra_data: Default::default(),
            admission_workers: 1,
            pool: PoolLimits::default(),
            hint_percent: 0,
            give_way: || {},
        }
    }

    /// Starts it from its disk.
    pub(super) fn boot(&mut self, clock: &Arc<AtomicU64>, nonce: u64) -> Result<(), PipelineError> {
        self.start += 1;
        (self.busy, self.wake_us) = ([false; 3], None);
        let opened = self.disk.open(self.folder.path(), &self.chain);
        let store = Arc::new(opened.map_err(|error| PipelineError::Start(error.to_string()))?);
        let journal: Arc<dyn Journal> =
            if self.is_forgetful { Arc::new(MemoryJournal::default()) } else { store.journal() };
        // Every block comes with its access list, and is executed along it by two threads.
        let workers = vm::workers::Workers::new(2).map_err(|error| PipelineError::Thread(error.to_string()))?;
        let ports = Ports {
            store: store.clone(),
            journal,
            executor: Arc::new(vm::RevmExecutor::new(self.chain.clone()).with_workers(workers).with_threads_from(0)),
            network: Arc::new(Post {
                number: self.number,
                validators: self.chain.ordering.validators.len(),
                tray: self.tray.clone(),
            }),
        };
        let recovered = if self.is_forgetful { Recovered::default() } else { store.take_recovered() };
        let shown = clock.clone();
        self.store = Some(store);
        let now = move || {
            let at_us = shown.load(Ordering::Relaxed);
            Now { monotonic: Duration::from_micros(at_us), wall_ms: EPOCH_MS + at_us / 1_000 }
        };
        let node = SteppedNode::start(self.config(), ports, recovered, now, nonce)?;
        let tray = self.tray.clone();
        node.events().listen(Box::new(move |heard| {
            if let Heard::Committed(block) = heard {
                tray.lock().announced.push(block.clone());
            }
        }));
        self.node = Some(node);
        Ok(())
    }

    /// Cuts its power.
    pub(super) fn crash(&mut self, seed: u64) {
        self.node = None;
        if let Some(store) = self.store.take().and_then(Arc::into_inner) {
            storage::testing::crash(store);
        }
        // What was said before stays said; what lay in the tray never left.
        *self.tray.lock() = Tray::default();
        self.disk.cut(seed);
    }

    /// Height of its store.
    pub(super) fn height(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.tip().height().0)
    }
}
