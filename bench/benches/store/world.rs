//! A state of many slots and accounts in a store, and blocks that change some of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hint::black_box,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{Header, Sealable as _};
use alloy_primitives::{Address, B256, U256, keccak256};
use bench::rng::Rng;
use engine::{
    genesis::{ChainSpec, GenesisAccount},
    ports::{StateView, Store as _},
    types::{
        Account, AccountChange, Block, BlockBody, ConsensusHeader, ExecutedBlock, FinalizedBlock, Height, SlotChange,
        StateChanges,
    },
};
use storage::{CheckpointPolicy, Config, Database, testing::world::chain_with};
use tempfile::TempDir;

/// The account with the slots.
pub(crate) const CONTRACT: Address = Address::repeat_byte(0xc0);
/// Entries that are touched together.
const CHUNK: u64 = 100_000;

/// A row of a flat table of slots.
pub(crate) type Row = (B256, U256);

/// The store. Its entries are numbered: slots of one contract first, then accounts.
pub(crate) struct World {
    pub(crate) store: Arc<Database>,
    pub(crate) slots: u64,
    pub(crate) entries: u64,
    /// How often entries were changed, if ever.
    versions: HashMap<u64, u64>,
    random: Rng,
    home: TempDir,
}

impl World {
    /// A new state below `target`, all of whose trie may stay in memory. Checkpoints are written when asked for.
    pub(crate) fn new(slots: u64, accounts: u64, proof_window: u64) -> Self {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let never = CheckpointPolicy {
            interval: Duration::from_secs(1 << 20),
            dirty_slots_max: usize::MAX,
            dirty_bytes_max: usize::MAX,
        };
        let config = Config {
            checkpoint: never,
            segment_bytes: 32 << 20,
            trie_bytes_max: 16 << 30,
            scrub_interval: None,
            proof_window,
            ..Config::new(home.path().join("store"))
        };
        let store = Database::open(config, chain(slots, accounts)).expect("a new folder can be opened");
        Self {
            store: Arc::new(store),
            slots,
            entries: slots + accounts,
            versions: HashMap::new(),
            random: Rng::new(1),
            home,
        }
    }

    /// The file that holds its state.
    pub(crate) fn file(&self) -> PathBuf {
        self.home.path().join("store/state/mdbx.dat")
    }

    /// The folder with what blocks replaced.
    pub(crate) fn past(&self) -> PathBuf {
        self.home.path().join("store/past")
    }

    /// Brings the file with its state into memory.
    pub(crate) fn read_pages(&self) {
        black_box(std::fs::read(self.file()).expect("the file is readable"));
    }

    /// A new folder on the same disk.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        path
    }

    /// The tip's state.
    pub(crate) fn view(&self) -> Arc<dyn StateView> {
        self.store.view(self.store.tip().height()).expect("the tip's state is kept")
    }

    /// So many different entries of a range.
    pub(crate) fn random(&mut self, range: Range<u64>, count: usize) -> BTreeSet<u64> {
        let mut picked = BTreeSet::new();
        while picked.len() < count {
            picked.insert(self.random.between(range.start, range.end));
        }
        picked
    }

    /// New values for entries.
    pub(crate) fn changes(&mut self, entries: impl IntoIterator<Item = u64>) -> StateChanges {
        let mut changes = StateChanges::default();
        let whole = Some(Account { nonce: 1, ..Account::default() });
        let mut contract = AccountChange { before: whole, after: whole, ..AccountChange::default() };
        for entry in entries {
            let version = self.versions.entry(entry).or_default();
            let old = *version;
            *version += 1;
            if entry < self.slots {
                let change = SlotChange { before: value(entry, old), after: value(entry, *version) };
                contract.slots.insert(U256::from(entry), change);
            } else {
                let (before, after) = (Some(account(entry, old)), Some(account(entry, *version)));
                changes.accounts.insert(address(entry), AccountChange { before, after, ..AccountChange::default() });
            }
        }
        if !contract.slots.is_empty() {
            changes.accounts.insert(CONTRACT, contract);
        }
        changes
    }

    /// A block with these changes on the tip, and how long its root took.
    pub(crate) fn block(&self, changes: StateChanges) -> (FinalizedBlock, Duration) {
        let (tip, view) = (self.store.tip(), self.view());
        let begun = Instant::now();
        let (state_root, trie) = view.root_after(None, &changes).expect("a root");
        let took = begun.elapsed();
        let (parent, number) = (&tip.block.header, tip.height().next().0);
        let header = Header { parent_hash: parent.hash(), number, state_root, ..parent.inner().clone() }.seal_slow();
        let consensus =
            ConsensusHeader { slot: number, height: number, block_hash: header.seal(), ..ConsensusHeader::default() };
        let finality = engine::testing::finality(&consensus);
        let block = Arc::new(Block { consensus, header, body: BlockBody::default() });
        let (receipts, access_list) = (Arc::default(), Arc::default());
        let executed = ExecutedBlock { block, receipts, changes: Arc::new(changes), trie, access_list };
        (FinalizedBlock { executed, finality }, took)
    }

    /// Makes a block durable; gives how long that took.
    pub(crate) fn commit(&self, block: FinalizedBlock) -> Duration {
        let begun = Instant::now();
        self.store.commit(&[block]).expect("the disk takes a block");
        begun.elapsed()
    }

    /// Writes a checkpoint; gives how long that took.
    pub(crate) fn checkpoint(&self) -> Duration {
        let begun = Instant::now();
        self.store.checkpoint().expect("the disk takes a checkpoint");
        begun.elapsed()
    }

    /// Brings the branches above all entries of a new state into memory, where they stay.
    pub(crate) fn touch_all(&mut self) {
        assert_eq!(self.store.tip().height(), Height::GENESIS, "nothing changed yet");
        for first in (0..self.entries).step_by(usize::try_from(CHUNK).expect("a small number")) {
            let changes = self.changes(first..self.entries.min(first + CHUNK));
            self.view().root_after(None, &changes).expect("a root");
            self.versions.clear();
        }
    }

    /// The slots as a flat table has them, in order of key.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..self.slots).map(|slot| (hashed(slot), value(slot, 0))).collect();
        rows.sort_unstable();
        rows
    }
}

/// What a block changes in such a table, in order of key.
pub(crate) fn rows(changes: &StateChanges) -> Vec<Row> {
    let slots = &changes.accounts[&CONTRACT].slots;
    let mut rows: Vec<Row> = slots.iter().map(|(key, slot)| (keccak256(key.to_be_bytes::<32>()), slot.after)).collect();
    rows.sort_unstable();
    rows
}

/// Key of a slot in a flat table.
pub(crate) fn hashed(slot: u64) -> B256 {
    keccak256(U256::from(slot).to_be_bytes::<32>())
}

/// A number of 32 bytes.
fn value(slot: u64, version: u64) -> U256 {
    U256::from_limbs([slot, version, 0, 1 << 63])
}

/// The account of an entry.
pub(crate) fn address(entry: u64) -> Address {
    Address::from_word(U256::from(entry + (1 << 32)).into())
}

fn account(entry: u64, version: u64) -> Account {
    Account { nonce: version, balance: U256::from_limbs([entry, 1, 0, 0]), ..Account::default() }
}

fn chain(slots: u64, accounts: u64) -> Arc<ChainSpec> {
    let storage = (0..slots).map(|slot| (U256::from(slot), value(slot, 0))).collect();
    let others = (slots..slots + accounts).map(|entry| {
        let Account { nonce, balance, .. } = account(entry, 0);
        (address(entry), GenesisAccount { nonce, balance, ..GenesisAccount::default() })
    });
    let mut alloc: BTreeMap<Address, GenesisAccount> = others.collect();
    alloc.insert(CONTRACT, GenesisAccount { nonce: 1, storage, ..GenesisAccount::default() });
    chain_with(alloc)
}

/// Takes a file that this process has mapped out of memory, as far as it is on the disk.
///
/// The system keeps pages that are mapped, whoever asks; so they are unmapped first. What is mapped anew is the file's.
#[expect(unsafe_code, reason = "advice on memory has no safe interface")]
pub(crate) fn drop_pages(path: &Path) {
    const DONT_NEED: core::ffi::c_int = 4;
    unsafe extern "C" {
        fn madvise(address: *mut core::ffi::c_void, length: usize, advice: core::ffi::c_int) -> core::ffi::c_int;
    }
    let path = path.canonicalize().expect("the file is there");
    let file = std::fs::File::open(&path).expect("the file can be read");
    file.sync_all().expect("the file can be synced");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the system tells what is mapped");
    for line in maps.lines().filter(|line| line.ends_with(path.to_str().expect("a name in ASCII"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).expect("an address"));
        // SAFETY: the range is a shared map of a file that is only read; a page of it that is gone is read again.
        let outcome = unsafe { madvise(std::ptr::with_exposed_provenance_mut(from), to - from, DONT_NEED) };
        assert_eq!(outcome, 0, "the system takes the advice");
    }
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("the system takes the advice");
}

/// Pages that this process has had to wait for on the disk.
pub(crate) fn major_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the system tells");
    let fields = stat.rsplit(')').next().expect("fields behind the name");
    fields.split_whitespace().nth(9).and_then(|text| text.parse().ok()).expect("a count")
}
