//! Everything that changes a store, in an order that a seed gives, against the model.
//!
//! The model keeps every height's state in maps, and how epochs began; the root in each header is made from scratch by
//! other code. Blocks are committed and forks dropped, checkpoints written, segments pruned, chains rewound, states
//! exported, imported and given part by part, tables compacted; the store is closed, or dies by a cut of the power,
//! between two calls and at named points. After each of these it is looked at, after some as a whole.
//!
//! `SLUICE_MODEL_OPERATIONS` sets how many of them there are (default 4,000), `SLUICE_SEED` with which seed they begin.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use engine::{
    ports::Store as _,
    types::{CommittedBlock, Epoch, EpochStart, FinalizedBlock, Height},
};
use serde_json::json;

use super::{
    kit::{EPOCH_HEIGHTS, FaultyDisk, World, begin_epoch, check_kept, config, lowest, next, open_on},
    model::crash,
};
use crate::{
    Config, Database, Keep,
    failpoint::{
        Action, EPOCH_FAIL_POINTS, FAIL_POINTS, FailPoints, OFFLINE_FAIL_POINTS, PORTABLE_FAIL_POINTS,
        PRUNE_FAIL_POINTS,
    },
    index::Half,
    offline::{compact::compact_with, rewind::rewind_on},
    portable::{Foundation, Head, Intake, Source, export, import::import_with, serve, verify},
    testing::world::{Differences, State},
};

/// Operations of one store.
const OPERATIONS: u64 = 400;
/// Of so many, one is followed by a look at everything.
const LOOKS: u64 = 40;
const STOPPED: &str = "stopped at fail point";

/// Blocks that were made together, with the states that they lead to.
type Group = (Vec<FinalizedBlock>, Vec<Arc<State>>);

/// A number that a variable of the environment sets.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_is_done_to_a_store_it_agrees_with_the_model() {
    let (mut left, mut seed) = (number("SLUICE_MODEL_OPERATIONS", 4_000), number("SLUICE_SEED", 1));
    let mut done = BTreeMap::new();
    while left > 0 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for operation in 1..=OPERATIONS.min(left) {
            run.step();
            run.look();
            if operation % LOOKS == 0 {
                run.look_at_everything();
            }
        }
        run.done.into_iter().for_each(|(what, count)| *done.entry(what).or_insert(0) += count);
        (left, seed) = (left.saturating_sub(OPERATIONS), seed + 1);
    }
    let all: u64 = OPERATION_NAMES.iter().filter_map(|name| done.get(name)).sum();
    println!("model operations {all}: {done:?}");
    assert!(all >= number("SLUICE_MODEL_OPERATIONS", 4_000));
}

/// What counts as an operation; what else is counted tells what became of them.
const OPERATION_NAMES: [&str; 10] = [
    "blocks",
    "forks dropped",
    "checkpoints",
    "crashes",
    "restarts",
    "rewinds",
    "snapshots",
    "parts",
    "compactions",
    "epochs",
];

/// A store with its model.
struct Run {
    home: tempfile::TempDir,
    disk: FaultyDisk,
    settings: Config,
    world: World,
    /// How epochs began, with the height of the block that each began on.
    epochs: Vec<(Height, EpochStart)>,
    /// Always there but while an operation has it closed.
    store: Option<Database>,
    /// Whether only changes are ever let go.
    keeps_blocks: bool,
    /// Folders so far.
    folders: u64,
    done: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let mut world = World::with_epochs(seed, EPOCH_HEIGHTS);
        world.wipes = seed.is_multiple_of(3);
        let settings = Config { segment_bytes: 8_192 << (seed % 2), ..config(&home.path().join("0")) };
        let (disk, epochs, done) = Default::default();
        let keeps_blocks = seed % 5 < 2;
        let mut run = Self { home, disk, settings, world, epochs, store: None, keeps_blocks, folders: 1, done };
        run.open();
        run
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.world.roll(sides)
    }

    fn store(&self) -> &Database {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self) {
        let before = [lowest(self.store()), self.lowest_state()];
        match self.roll(200) {
            0..70 => self.blocks(),
            70..100 => self.fork(),
            100..140 => self.checkpoint(),
            140..156 => self.crash(),
            156..178 => self.restart(),
            178..183 => self.rewind(),
            183..186 => self.snapshot(),
            186..189 => self.parts(),
            189..192 => self.compact(),
            _ => self.epoch(),
        }
        if lowest(self.store()) > before[0].max(self.world.base) {
            self.count("of them with prunes");
        } else if self.lowest_state() > before[1].max(self.world.base) {
            self.count("of them with changes let go");
        }
    }

    fn lowest_state(&self) -> Height {
        self.store().inner.index.lowest(Half::Changes)
    }

    /// Opens the store with settings that chance gives; a third of the time it dies at some named point later.
    fn open(&mut self) {
        let keep = match self.roll(4) {
            0 => None,
            1 if self.keeps_blocks => Some(Keep::All),
            2 if self.keeps_blocks => Some(Keep::Blocks { time: Duration::from_secs(200) }),
            _ if self.keeps_blocks => Some(Keep::Blocks { time: Duration::ZERO }),
            1 => Some(Keep::Window { time: Duration::from_secs(200), bytes: u64::MAX }),
            _ => Some(Keep::Window { time: Duration::ZERO, bytes: 0 }),
        };
        let points = [&FAIL_POINTS[..], &PRUNE_FAIL_POINTS, &EPOCH_FAIL_POINTS].concat();
        let point = points[self.roll(points.len() as u64) as usize];
        let fail_point = format!("{point}:{}", 1 + self.roll(6));
        self.settings = Config {
            keep,
            proof_window: [12, 40][self.roll(2) as usize],
            trie_bytes_max: [0, 1 << 20][self.roll(2) as usize],
            compress: self.roll(2) == 0,
            fail_point: Some(fail_point).filter(|_| self.roll(3) == 0),
            ..self.settings.clone()
        };
        self.store = match open_on(&self.disk, self.settings.clone(), &self.world.chain) {
            Ok(store) => Some(store),
            Err(error) => {
                assert!(error.to_string().contains(STOPPED), "{error}");
                self.count("deaths at a point");
                self.disk = self.disk.crashed(self.world.roll(1 << 40));
                Some(self.opened_again())
            }
        };
    }

    /// The store, which is not armed and has to open.
    fn opened_again(&mut self) -> Database {
        self.settings.fail_point = None;
        open_on(&self.disk, self.settings.clone(), &self.world.chain).unwrap()
    }

    /// What a store that died leaves: all that was acknowledged, and of the blocks that were offered the first ones.
    fn die(&mut self, why: &str, offered: Group) {
        assert!(why.contains(STOPPED), "{why}");
        self.count("deaths at a point");
        crash(self.store.take().unwrap());
        self.disk = self.disk.crashed(self.world.roll(1 << 40));
        let store = self.opened_again();
        let tip = store.tip().height();
        assert!(tip >= self.world.tip(), "{tip} is below {}", self.world.tip());
        for (block, state) in offered.0.into_iter().zip(offered.1) {
            if self.world.tip() < tip {
                let (executed, finality) = (block.executed, Some(block.finality));
                let block = CommittedBlock { block: executed.block, receipts: executed.receipts, finality };
                self.world.blocks.push(Arc::new(block));
                self.world.states.push(state);
            }
        }
        self.store = Some(store);
    }

    fn commit(&mut self, group: Group) {
        match self.store().commit(&group.0) {
            Ok(committed) => {
                self.world.blocks.extend(committed);
                self.world.states.extend(group.1);
            }
            Err(error) => self.die(&error.to_string(), group),
        }
    }

    fn group(&mut self) -> Group {
        let count = 1 + self.roll(5);
        self.world.group(self.store.as_ref().unwrap(), count)
    }

    fn blocks(&mut self) {
        let group = self.group();
        self.commit(group);
        self.count("blocks");
    }

    /// Blocks that nobody makes final: all of a branch, one of two, or what follows the first of a branch.
    fn fork(&mut self) {
        let mut group = self.group();
        match self.roll(3) {
            0 => drop(group),
            1 => {
                let other = self.group();
                let (dropped, kept) = if self.roll(2) == 0 { (group, other) } else { (other, group) };
                drop(dropped);
                self.commit(kept);
            }
            _ => {
                group.0.truncate(1);
                group.1.truncate(1);
                self.commit(group);
            }
        }
        self.count("forks dropped");
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.store().checkpoint() {
            self.die(&error.to_string(), Group::default());
        }
        self.count("checkpoints");
    }

    fn crash(&mut self) {
        crash(self.store.take().unwrap());
        self.disk = self.disk.crashed(self.world.roll(1 << 40));
        self.open();
        self.count("crashes");
    }

    /// Closes the store; says whether it came to that.
    fn close(&mut self) -> bool {
        let store = self.store.take().unwrap();
        let error = match store.close() {
            Ok(()) => return true,
            Err(error) => error.to_string(),
        };
        assert!(error.contains(STOPPED), "{error}");
        self.count("deaths at a point");
        self.disk = self.disk.crashed(self.world.roll(1 << 40));
        self.store = Some(self.opened_again());
        false
    }

    fn restart(&mut self) {
        if self.close() {
            self.open();
        }
        self.count("restarts");
    }

    /// A point of some that begin so, a third of the time.
    fn armed(&mut self, points: &[&'static str], begin: &str) -> (FailPoints, Option<&'static str>) {
        let points: Vec<_> = points.iter().filter(|point| point.starts_with(begin)).collect();
        let point = *points[self.roll(points.len() as u64) as usize];
        let point = Some(point).filter(|_| self.roll(3) == 0);
        (FailPoints::parse(point, Action::Fail).unwrap(), point)
    }

    fn rewind(&mut self) {
        self.count("rewinds");
        if !self.close() {
            return;
        }
        let depth = if self.roll(16) == 0 { self.roll(400) } else { self.roll(24) };
        let to = Height(self.world.tip().0.saturating_sub(depth));
        let (fail, point) = self.armed(&OFFLINE_FAIL_POINTS, "rewind.");
        let (disk, settings) = (Arc::new(self.disk.clone()), Config { fail_point: None, ..self.settings.clone() });
        let outcome = rewind_on(disk, fail, settings, Arc::clone(&self.world.chain), to, &mut |_| {});
        let mut refusal = None;
        let goes_back = match outcome {
            Ok(rewound) => {
                assert_eq!(rewound.root, self.world.blocks[to.0 as usize].block.header.state_root);
                true
            }
            Err(error) if error.to_string().contains(STOPPED) => {
                self.count("deaths at a point");
                self.disk = self.disk.crashed(self.world.roll(1 << 40));
                !["rewind.state", "rewind.before_mark"].contains(&point.unwrap())
            }
            Err(error) => {
                refusal = Some(error.to_string());
                false
            }
        };
        if goes_back {
            self.world.truncate(to);
            self.epochs.retain(|(base, _)| *base <= to);
        }
        self.open();
        if let Some(refusal) = refusal {
            // What tells of wiped slots is gone, or what leads back so far; closing may have taken it away.
            let (kept, is_told) = (lowest(self.store()), self.world.wipes && refusal.contains("had at"));
            assert!(kept > Height::GENESIS && (to <= kept || is_told), "{refusal}");
        }
    }

    /// Blocks up to one at such a height that can be carried whole.
    fn up_to(&mut self, multiple: u64) {
        loop {
            let before = std::mem::replace(&mut self.world.transactions_max, 0);
            let group = self.world.group(self.store.as_ref().unwrap(), 1);
            self.world.transactions_max = before;
            self.commit(group);
            let tip = self.store().tip();
            if tip.height().0.is_multiple_of(multiple) && tip.block.body.transactions.is_empty() {
                return;
            }
        }
    }

    /// A folder that nobody has.
    fn folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.home.path().join(self.folders.to_string())
    }

    /// What a folder that takes over the state of a block has to know.
    fn founded(
        &self,
        block: CommittedBlock,
        headers: Vec<alloy_consensus::Sealed<alloy_consensus::Header>>,
    ) -> Foundation {
        assert_eq!(&block, &*self.world.blocks[block.height().0 as usize]);
        let epochs = self.epochs.iter().filter(|(base, _)| *base <= block.height());
        let epochs = epochs.map(|(_, start)| start.clone()).collect();
        Foundation { blocks: vec![block], headers, epochs }
    }

    /// Files, checked and taken over by an empty folder, which may be killed once.
    fn snapshot(&mut self) {
        self.count("snapshots");
        self.up_to(1);
        let (from, to) = (self.folder(), self.folder());
        let chunk_bytes = 1_024 << self.roll(6);
        let tip = self.world.tip();
        if let Err(error) = export(self.store(), vec![(tip, json!({}))], &from, chunk_bytes, &|_| ()) {
            return self.die(&error.to_string(), Group::default());
        }
        let source = Source::open(&from).unwrap();
        assert_eq!(verify(&source, 1, &|_| ()), []);
        let file = source.blocks().unwrap();
        let known = &self.world.blocks[tip.0 as usize];
        let certificate = known.finality.unwrap().certificate;
        let block = file.blocks[0].block(known.block.consensus.clone(), certificate).unwrap();
        file.check_headers(&block, self.world.chain.genesis_hash()).unwrap();
        let foundation = self.founded(block, file.headers);
        let settings = config(&to);
        let (fail, _) = self.armed(&PORTABLE_FAIL_POINTS, "import.");
        let import = |fail: &FailPoints| {
            let newest = foundation.blocks.last().unwrap();
            import_with(&settings, (&self.world.chain, &source, &foundation), newest, fail, 1, &|_| ())
        };
        if let Err(error) = import(&fail) {
            assert!(error.to_string().contains(STOPPED), "{error}");
            import(&FailPoints::default()).unwrap();
        }
        std::fs::remove_dir_all(from).unwrap();
        self.taken_over(to, tip);
    }

    /// Parts in any order, out of what was while the chain goes on.
    fn parts(&mut self) {
        self.count("parts");
        let wipes = std::mem::replace(&mut self.world.wipes, false);
        let to = self.folder();
        if let Some(height) = self.given(&to) {
            self.taken_over(to, height);
        }
        self.world.wipes = wipes;
    }

    /// Takes the newest state over that is given; `None` if it is given no longer before all of it is there.
    fn given(&mut self, to: &Path) -> Option<Height> {
        self.up_to(EPOCH_HEIGHTS);
        let height = self.world.tip();
        while self.store().checkpointed() < height {
            self.checkpoint();
        }
        let (block, bytes) = self.store().state_head(None, Epoch(0)).unwrap();
        let head = Head::decode(&bytes).unwrap();
        let header = head.proofs[0].headers.last().unwrap().clone();
        let newest = head.blocks.blocks[0].block(header, head.proofs[0].certificate).unwrap();
        let (root, foundation) = (newest.block.header.state_root, self.founded(newest, head.blocks.headers));
        let (settings, chunk_bytes) = (config(to), 400 << self.roll(4));
        let open = |world: &World| Intake::open(&settings, &world.chain, block).unwrap();
        let mut intake = open(&self.world);
        loop {
            let gaps = intake.gaps(4);
            if gaps.is_empty() {
                break;
            }
            let gap = gaps[self.roll(gaps.len() as u64) as usize];
            match serve::part(self.store(), block, (gap.owner, gap.from), chunk_bytes) {
                Ok(part) => drop(intake.take(root, &part).unwrap().unwrap()),
                Err(error) => {
                    let proven = self.store().inner.past.lowest(self.store().checkpointed());
                    assert!(proven > height, "{error}");
                    drop(intake);
                    Intake::discard(&settings).unwrap();
                    self.count("states given no longer");
                    return None;
                }
            }
            match self.roll(12) {
                0 => {
                    drop(intake);
                    intake = open(&self.world);
                }
                1 => {
                    let group = self.group();
                    self.commit(group);
                }
                2 => self.checkpoint(),
                _ => {}
            }
        }
        intake.finish(&self.world.chain, &foundation, &|_| ()).unwrap();
        Some(height)
    }

    /// Looks at a folder that took the state at a height over, and once in a while goes on with it.
    fn taken_over(&mut self, dir: PathBuf, height: Height) {
        let (settings, disk) = (Config { dir: dir.clone(), ..self.settings.clone() }, FaultyDisk::default());
        let settings = Config { fail_point: None, ..settings };
        let store = open_on(&disk, settings.clone(), &self.world.chain).unwrap();
        let mut world = self.world.clone();
        world.truncate(height);
        world.base = height;
        check_kept(&world, &store);
        if self.roll(8) > 0 {
            crash(store);
            return std::fs::remove_dir_all(dir).unwrap();
        }
        self.count("of them gone on with");
        crash(self.store.take().unwrap());
        std::fs::remove_dir_all(&self.settings.dir).unwrap();
        world.random = next(&mut self.world.random);
        self.epochs.retain(|(base, _)| *base <= height);
        (self.world, self.disk, self.settings, self.store) = (world, disk, settings, Some(store));
    }

    fn compact(&mut self) {
        self.count("compactions");
        if !self.close() {
            return;
        }
        let (fail, _) = self.armed(&OFFLINE_FAIL_POINTS, "compact.");
        if let Err(error) = compact_with(&self.settings.dir, &self.world.chain, &fail, &mut |_| {}) {
            assert!(error.to_string().contains(STOPPED), "{error}");
            self.count("deaths at a point");
        }
        self.open();
    }

    fn epoch(&mut self) {
        self.count("epochs");
        let number = self.epochs.last().map_or(1, |(_, start)| start.set.epoch().0 + 1);
        match begin_epoch(self.store(), number) {
            Ok(start) => self.epochs.push((self.world.tip(), start)),
            Err(error) => self.die(&error.to_string(), Group::default()),
        }
    }

    /// Looks at the tip, the state at a height of which everything is kept, and a proof.
    fn look(&mut self) {
        let (tip, kept) = (self.world.tip(), lowest(self.store()));
        assert_eq!(self.store().tip(), *self.world.blocks.last().unwrap());
        let span = (tip.0 - kept.0).min(engine::limits::STATE_WINDOW_HEIGHTS);
        let height = Height(tip.0 - self.roll(span + 1));
        self.compare(self.lowest_state(), |world, store, found| world.compare_state(store, height, found));
        if self.roll(8) == 0 {
            let proven = self.store().inner.past.lowest(self.store().checkpointed());
            let height = Height(tip.0 - self.roll(tip.0 - proven.0 + 1));
            self.compare(Height(1), |world, store, found| world.compare_proofs(store, height, found));
        }
    }

    fn look_at_everything(&self) {
        check_kept(&self.world, self.store());
        for (base, start) in &self.epochs {
            assert_eq!(self.store().epoch(start.set.epoch()).unwrap().as_ref(), Some(start), "began on {base}");
        }
        let next = self.epochs.last().map_or(1, |(_, start)| start.set.epoch().0 + 1);
        assert_eq!(self.store().epoch(Epoch(next)).unwrap(), None);
    }

    /// Compares something with the model; what was wiped may be refused where not all is kept.
    fn compare(&self, kept: Height, with: impl FnOnce(&World, &Database, &mut Differences)) {
        let mut found = Differences::default();
        with(&self.world, self.store(), &mut found);
        let may_refuse = self.world.wipes && kept > Height::GENESIS;
        assert_eq!(found.wrong, [""; 0]);
        assert!(found.errors.iter().all(|error| may_refuse && error.contains("is not available")), "{found:?}");
    }
}
