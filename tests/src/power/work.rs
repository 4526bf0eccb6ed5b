//! What a recorded process does with a store, and what it promises on the way.
//!
//! Blocks, votes and epochs follow from the seed alone, whatever the disk does, so whoever runs the work once knows
//! what every other run must hold. The process says what it promised in marks, each when it is true:
//!
//! ```text
//! begins N     N entries of the log may be there from here on
//! logged N     N entries are there
//! commits H    blocks up to H may be there from here on
//! committed H  blocks up to H are there
//! epoch E      the row of epoch E is there
//! lowest H     blocks up to H are gone, and stay so
//! takes N      part N of a state may be there from here on
//! took N       it is
//! ```

use std::{path::Path, sync::Arc, time::Duration};

use alloy_primitives::FixedBytes;
use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::Store as _,
    types::{
        Epoch, EpochStart, FinalizedBlock, Height, Signature, SignedHeader, Slot, Statement, ValidatorIndex, Vote,
    },
};
use storage::{
    CheckpointPolicy, Config, Database, Keep,
    testing::{
        crash, lowest,
        world::{State, World},
    },
};

use super::taking::{EPOCH_HEIGHTS, Given, Taken};
use crate::rng::Rng;

/// Everything that was made so far: what a store may hold.
#[derive(Clone, Debug)]
pub struct Work {
    /// Blocks, and the state after each.
    pub world: World,
    /// Entries of the log, in order.
    pub entries: Vec<Entry>,
    /// Blocks of the log, in order; one for each that is final later, and the last ones.
    pub kept: Vec<KeptBlock>,
    /// How many entries there were when a block was kept.
    pub kept_at: Vec<usize>,
    /// How epochs began, from the first on.
    pub epochs: Vec<EpochStart>,
    /// The state that the store begins with, if that is not block 0's.
    pub given: Option<Given>,
}

/// Blocks with the states that they lead to.
type Group = (Vec<FinalizedBlock>, Vec<Arc<State>>);

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Some blocks.
    Short,
    /// So many that old segments go.
    Prunes,
    /// A state is taken in first.
    Takes,
}

const fn course(seed: u64) -> Course {
    match seed % 8 {
        1 => Course::Prunes,
        4 => Course::Takes,
        _ => Course::Short,
    }
}

/// The settings of a store for a seed: small files, so that a short run fills several.
#[must_use]
pub fn config(dir: &Path, seed: u64) -> Config {
    let mut rng = Rng::new(seed ^ 0x5e77);
    let mut pick = |values: &[u64]| values[usize::try_from(rng.next() >> 8).unwrap_or_default() % values.len()];
    let has_threads = has_threads(seed);
    let interval = if has_threads { Duration::from_millis(3) } else { Duration::from_secs(3_600) };
    let keeps_little = course(seed) == Course::Prunes;
    let keep = keeps_little.then_some(Keep::Window { time: Duration::ZERO, bytes: 0 });
    Config {
        segment_bytes: pick(if keeps_little { &[8_192, 16_384] } else { &[8_192, 16_384, 65_536] }),
        log_bytes: pick(&[16_384, 32_768]),
        trie_bytes_max: usize::try_from(pick(&[0, 1 << 20])).unwrap_or_default(),
        compress: pick(&[0, 0, 1]) == 1,
        map_bytes_max: 1 << 30,
        checkpoint: CheckpointPolicy { interval, ..CheckpointPolicy::default() },
        background: has_threads,
        proof_window: if keeps_little { 8 } else { 10_000 },
        keep,
        ..Config::new(dir)
    }
}

/// Whether the store has its threads; without them a run is the same every time.
#[must_use]
pub const fn has_threads(seed: u64) -> bool {
    seed % 3 == 2
}

fn vote(slot: Slot, statement: Statement) -> Entry {
    let signature = Signature(FixedBytes::left_padding_from(&slot.0.to_be_bytes()));
    Entry::Vote(Vote { epoch: Epoch(0), statement, voter: ValidatorIndex(0), signature })
}

impl Work {
    /// Nothing but block 0, or the state that is given.
    ///
    /// # Panics
    /// If that cannot be made.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut world =
            if course(seed) == Course::Short { World::new(seed) } else { World::with_epochs(seed, EPOCH_HEIGHTS) };
        // What was wiped is not told below what is kept.
        world.wipes = course(seed) == Course::Short;
        let given = (course(seed) == Course::Takes).then(|| Given::of(&mut world).expect("a state that is given"));
        Self { world, entries: Vec::new(), kept: Vec::new(), kept_at: Vec::new(), epochs: Vec::new(), given }
    }

    /// Makes a store of what is given, if the folder has none yet.
    ///
    /// # Errors
    /// The failure of the store, in its words.
    pub fn begin(&self, dir: &Path, taken: Taken, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        self.given.as_ref().map_or(Ok(()), |given| given.complete(dir, &self.world, taken, tell))
    }

    /// Writes a checkpoint, behind which old segments go.
    fn checkpoint(&self, store: &Database, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        store.checkpoint().map_err(|error| error.to_string())?;
        tell(format!("lowest {}", lowest(store)));
        Ok(())
    }

    /// Signs, appends and syncs.
    fn sign(
        &mut self,
        store: &Database,
        (entries, kept): (Vec<Entry>, Vec<KeptBlock>),
        tell: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        let journal = store.journal();
        self.entries.extend(entries.iter().cloned());
        self.kept_at.extend(kept.iter().map(|_| self.entries.len()));
        self.kept.extend(kept.iter().cloned());
        tell(format!("begins {}", self.entries.len()));
        journal.append(&entries, &kept).map_err(|error| error.to_string())?;
        journal.sync().map_err(|error| error.to_string())?;
        tell(format!("logged {}", self.entries.len()));
        Ok(())
    }

    /// Votes for a group of blocks, which the log keeps, and commits it once it is final.
    ///
    /// # Errors
    /// The failure of the store, in its words.
    pub fn round(&mut self, store: &Database, count: u64, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        let group: Group = self.world.group(store, count);
        let blocks: Vec<_> = group.0.iter().map(|block| Arc::clone(&block.executed.block)).collect();
        let said = |of: fn(Slot, alloy_primitives::B256) -> Statement| {
            let votes = blocks.iter().map(move |block| {
                let header = &block.consensus;
                vote(header.slot(), of(header.slot(), header.id()))
            });
            votes.collect::<Vec<_>>()
        };
        let kept = blocks.iter().map(|block| {
            let signed = SignedHeader { header: block.consensus.clone(), signature: Signature::default() };
            KeptBlock { signed, block: Some(Arc::clone(block)) }
        });
        self.sign(store, (said(|slot, id| Statement::Notarize { slot, id }), kept.collect()), tell)?;
        let tip = Height(self.world.tip().0 + count);
        let mut last = said(|slot, id| Statement::Finalize { slot, id });
        last.push(Entry::Floor { epoch: Epoch(0), slot: Slot(tip.0) });
        self.sign(store, (last, Vec::new()), tell)?;
        self.commit(store, group, tip, tell)
    }

    /// Takes blocks that others made final, many at once.
    fn catch_up(&mut self, store: &Database, count: u64, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        let (group, tip) = (self.world.group(store, count), Height(self.world.tip().0 + count));
        self.sign(store, (vec![Entry::Floor { epoch: Epoch(0), slot: Slot(tip.0) }], Vec::new()), tell)?;
        self.commit(store, group, tip, tell)
    }

    fn commit(
        &mut self,
        store: &Database,
        group: Group,
        tip: Height,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        tell(format!("commits {tip}"));
        self.world.commit_group(store, group).map_err(|error| error.to_string())?;
        tell(format!("committed {tip}"));
        store.journal().forget_below(Epoch(0), Slot(tip.0), tip);
        Ok(())
    }

    /// Notes how the next epoch begins on the tip.
    fn begin_epoch(&mut self, store: &Database, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        let base = store.tip();
        let epoch = Epoch(u64::try_from(self.epochs.len()).unwrap_or(u64::MAX).saturating_add(1));
        let set = self.world.chain.validator_set().map_err(|error| error.to_string())?.in_epoch(epoch);
        let header = base.block.consensus.clone();
        let handover = engine::testing::finality(&header).certificate;
        let tail = vec![SignedHeader { header: header.clone(), signature: Signature::default() }];
        let start = EpochStart { set, base: header.id(), handover, tail };
        self.epochs.push(start.clone());
        store.begin_epoch(&start).map_err(|error| error.to_string())?;
        tell(format!("epoch {epoch}"));
        Ok(())
    }

    fn open(&mut self, dir: &Path, seed: u64, tell: &mut dyn FnMut(String)) -> Result<Database, String> {
        let store = Database::open(config(dir, seed), Arc::clone(&self.world.chain));
        let store = store.map_err(|error| error.to_string())?;
        if store.take_recovered().is_lost {
            if self.given.is_none() || !self.entries.is_empty() {
                return Err("the log is lost".to_owned());
            }
            self.regain(&store, tell)?;
        }
        Ok(store)
    }

    /// Notes what others tell of what was signed before.
    ///
    /// # Errors
    /// The failure of the store, in its words.
    pub fn regain(&mut self, store: &Database, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        let regained = Entry::Regained { epoch: Epoch(0), slot: Slot(self.world.base.0) };
        self.sign(store, (vec![regained], Vec::new()), tell)
    }

    /// Opens the store again, votes for blocks that do not become final, and closes it in order.
    ///
    /// # Errors
    /// The failure of the store, in its words.
    pub fn close(&mut self, dir: &Path, seed: u64) -> Result<(), String> {
        let store = self.open(dir, seed, &mut |_| {})?;
        let tip = self.world.tip().0;
        for slot in (tip + 1..tip + 4).map(Slot) {
            self.sign(&store, (vec![vote(slot, Statement::Skip { slot })], Vec::new()), &mut |_| {})?;
        }
        store.close().map_err(|error| error.to_string())
    }

    /// Does the work of a seed in a folder that is not there yet.
    ///
    /// # Errors
    /// The first failure of the store, in its words.
    pub fn run(&mut self, dir: &Path, seed: u64, tell: &mut dyn FnMut(String)) -> Result<(), String> {
        let mut rng = Rng::new(seed ^ 0x07a5);
        let rounds = 8 + rng.below(16);
        self.begin(dir, Taken::default(), tell)?;
        let mut store = self.open(dir, seed, tell)?;
        if course(seed) == Course::Prunes {
            for _ in 0..10 {
                self.catch_up(&store, 15, tell)?;
            }
        }
        for _ in 0..rounds {
            self.round(&store, 1 + rng.below(3), tell)?;
            match rng.below(12) {
                0..3 => self.checkpoint(&store, tell)?,
                3 => self.begin_epoch(&store, tell)?,
                4 => {
                    store.close().map_err(|error| error.to_string())?;
                    store = self.open(dir, seed, tell)?;
                }
                5 => {
                    crash(store);
                    store = self.open(dir, seed, tell)?;
                }
                _ => {}
            }
        }
        if rng.below(2) == 0 {
            store.close().map_err(|error| error.to_string())?;
        } else {
            crash(store);
        }
        Ok(())
    }
}
