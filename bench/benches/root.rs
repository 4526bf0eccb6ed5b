//! The state root after a block: changed slots of a large storage trie, against the walk that other clients do.
//!
//! `SLUICE_ROOT_LEAVES` sets the slots of the trie, a million unless told otherwise. Both compute the root of the same
//! changes, one after the other, and both must give the same. What each needs is in memory: branches of the trie, and
//! pages of the peer's MDBX. `SLUICE_ROOT_COLD=1` begins with no branch in memory, as a store does that was just
//! opened.
#![expect(missing_docs, clippy::print_stdout, reason = "criterion_group makes a public function; ratios are printed")]

mod durable;
#[path = "walker/mod.rs"]
mod walker;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{HashBuilder, Nibbles, TrieAccount};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    genesis::GenesisAccount,
    ports::Store as _,
    types::{Account, AccountChange, Height, SlotChange, StateChanges},
};
use storage::{Database, testing::world::chain_with};
use walker::{Item, Walker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The account whose slots change.
const CONTRACT: Address = Address::repeat_byte(0xc0);

/// Slots that are changed together until all branches are in memory.
const WARMED_TOGETHER: usize = 200_000;

/// Both sides over one trie.
struct World {
    store: Database,
    peer: Walker,
    slots: u64,
    random: u64,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(slots: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let mut leaves: Vec<_> = (0..slots).map(|slot| (hashed(slot), value(slot, 0))).collect();
        leaves.sort_unstable();
        let path = folder.path().join("peer");
        std::fs::create_dir(&path).expect("a new folder");
        let (peer, storage_root) = Walker::load(&path, &leaves);
        drop(leaves);
        let storage: BTreeMap<U256, U256> = (0..slots).map(|slot| (U256::from(slot), value(slot, 0))).collect();
        let account = GenesisAccount { nonce: 1, storage, ..GenesisAccount::default() };
        let chain = chain_with(BTreeMap::from([(CONTRACT, account)]));
        assert_eq!(chain.genesis_header.state_root, state_root(storage_root), "both begin with the same trie");
        let config = storage::Config { trie_bytes_max: 16 << 30, ..storage::Config::dev(folder.path().join("ours")) };
        let store = Database::open(config, chain).expect("a new folder can be opened");
        Self { store, peer, slots, random: 1, _folder: folder }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 20
    }

    /// New values for so many slots: of a hundred 90 changed, 8 new and 2 deleted.
    fn changes(&mut self, count: usize) -> (StateChanges, Vec<Item>) {
        let mut slots = BTreeMap::new();
        while slots.len() < count {
            let (kind, slot, salt) = (self.next() % 100, self.next() % self.slots, self.next());
            let (slot, after) = match kind {
                0..8 => (self.slots + salt % (1 << 40), value(slot, salt)),
                8..10 => (slot, U256::ZERO),
                _ => (slot, value(slot, salt)),
            };
            slots.insert(slot, after);
        }
        self.changed(slots)
    }

    /// Reads every branch into memory, which stay there.
    fn warm(&self) {
        let view = self.store.view(Height::GENESIS).expect("the tip's state is kept");
        for first in (0..self.slots).step_by(WARMED_TOGETHER) {
            let some = first..self.slots.min(first + WARMED_TOGETHER as u64);
            let (changes, _) = self.changed(some.map(|slot| (slot, value(slot, 1))).collect());
            view.root_after(None, &changes).expect("a root");
        }
    }

    /// These slots' new values, for both sides.
    fn changed(&self, slots: BTreeMap<u64, U256>) -> (StateChanges, Vec<Item>) {
        let mut items: Vec<Item> =
            slots.iter().map(|(slot, after)| (hashed(*slot), (!after.is_zero()).then_some(*after))).collect();
        items.sort_unstable_by_key(|item| item.0);
        let before = |slot| if slot < self.slots { value(slot, 0) } else { U256::ZERO };
        let slots =
            slots.into_iter().map(|(slot, after)| (U256::from(slot), SlotChange { before: before(slot), after }));
        let account = Some(Account { nonce: 1, ..Account::default() });
        let change = AccountChange { before: account, after: account, wiped: false, slots: slots.collect() };
        (StateChanges { accounts: [(CONTRACT, change)].into_iter().collect(), ..StateChanges::default() }, items)
    }
}

fn hashed(slot: u64) -> B256 {
    keccak256(U256::from(slot).to_be_bytes::<32>())
}

fn value(slot: u64, salt: u64) -> U256 {
    U256::from_limbs([slot | 1, salt, 0, 0])
}

/// Root of a state that has the contract alone.
fn state_root(storage_root: B256) -> B256 {
    let account = TrieAccount { nonce: 1, storage_root, ..TrieAccount::default() };
    let mut builder = HashBuilder::default();
    builder.add_leaf(Nibbles::unpack(keccak256(CONTRACT)), &alloy_rlp::encode(account));
    builder.root()
}

/// Keeps free memory as nodes do, see `tools/src/allocator.rs`.
#[expect(unsafe_code, reason = "the allocator's options have no safe interface")]
fn keep_memory() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the option takes any number, and no other thread is running yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 10_000) };
}

fn root(criterion: &mut Criterion) {
    keep_memory();
    let leaves = std::env::var("SLUICE_ROOT_LEAVES").map_or(1_000_000, |text| text.parse().expect("a number"));
    let mut world = World::new(leaves);
    if std::env::var("SLUICE_ROOT_COLD").is_err() {
        world.warm();
    }
    let view = world.store.view(Height::GENESIS).expect("the tip's state is kept");
    for changed in [1_000, 10_000, 50_000] {
        let mut group = criterion.benchmark_group(format!("root::{leaves} leaves, {changed} changed"));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
        group.throughput(Throughput::Elements(changed as u64));
        let mut spent = [Duration::ZERO; 2];
        for (side, name) in ["trie in memory", "hash builder over MDBX"].into_iter().enumerate() {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        let (changes, items) = world.changes(changed);
                        let begun = Instant::now();
                        let (ours, _trie) = view.root_after(None, &changes).expect("a root");
                        let between = Instant::now();
                        let theirs = world.peer.root(&items);
                        let times = [between - begun, between.elapsed()];
                        assert_eq!(ours, state_root(theirs), "two roots of the same changes");
                        total += times[side];
                        spent = [spent[0] + times[0], spent[1] + times[1]];
                    }
                    total
                });
            });
        }
        group.finish();
        println!("{leaves} leaves, {changed} changed: {:.2} of the peer", spent[0].div_duration_f64(spent[1]));
    }
}

criterion_group!(benches, root);
criterion_main!(benches);
