//! Many blocks -> one MDBX transaction.
//!
//! The trie of the newest durable height is compared with the trie of the last checkpoint; what
//! differs is exactly what the tables lack. One Durable transaction of the `state` environment takes
//! it, then one of `chain` takes the rows of the new blocks. Order carries correctness: `state` may be
//! ahead of `chain`, recovery reads the blocks between from their segments. Nothing here holds a lock
//! that a commit or a view needs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use engine::types::Height;

use crate::{
    error::Fault,
    kv::{Env, KvError, Table, WriteTxn},
    metrics, prefetch, prune,
    snapshot::StateSnapshot,
    store::Inner,
    tables::{self, AccountRow, Applied, meta, storage_key},
    trie::{
        diff::{Scope, Sink, diff},
        encode::hash_all,
        evict::Bound,
        node::{Branch, TrieError},
        record,
        state::{AccountLeaf, AccountSource, StateSource, StateTrie, StorageTrie},
    },
};

/// Rows of ended storage deleted per checkpoint.
const GARBAGE_ROWS_MAX: usize = 20_000;
/// Storage ids looked at for deletion per checkpoint.
const GARBAGE_IDS_MAX: usize = 1_024;
/// Longest until a full disk is looked at again.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// What the `state` environment holds.
pub(crate) struct Checkpointed {
    pub(crate) applied: Applied,
    pub(crate) trie: Arc<StateTrie>,
    pub(crate) next_storage_id: u64,
    /// What of the trie may be in memory.
    pub(crate) bound: Bound,
}

/// A key with its value, `None` to delete it.
pub(crate) type Row = (Vec<u8>, Option<Vec<u8>>);

/// Reads the pages of rows before somebody reads or writes these one by one.
pub(crate) type Ahead = fn(&Env, &[(Table, &[u8])]) -> Result<(), KvError>;

/// Rows that lead from one trie to another, by table.
pub(crate) struct Batch<'a> {
    source: &'a dyn StateSource,
    pub(crate) accounts: Vec<Row>,
    pub(crate) slots: Vec<Row>,
    pub(crate) account_nodes: Vec<Row>,
    pub(crate) storage_nodes: Vec<Row>,
    /// Storage ids that ended.
    pub(crate) garbage: Vec<u64>,
    pub(crate) next_storage_id: u64,
}

impl<'a> Batch<'a> {
    /// Compares two versions of the state.
    pub(crate) fn collect(
        old: &StateTrie,
        new: &StateTrie,
        source: &'a dyn StateSource,
        next_storage_id: u64,
    ) -> Result<Self, TrieError> {
        let mut batch = Self {
            source,
            accounts: Vec::new(),
            slots: Vec::new(),
            account_nodes: Vec::new(),
            storage_nodes: Vec::new(),
            garbage: Vec::new(),
            next_storage_id,
        };
        diff(&old.root, &new.root, &AccountSource(source), Scope::Deep, &mut batch)?;
        // Leaves come in order of key; positions are packed, so their order is not that of their keys.
        batch.account_nodes.sort_unstable();
        batch.storage_nodes.sort_unstable();
        batch.slots.sort_unstable();
        Ok(batch)
    }

    /// All rows with their tables.
    pub(crate) fn tables(&self) -> [(Table, &[Row]); 4] {
        [
            (tables::ACCOUNT, &self.accounts),
            (tables::STORAGE, &self.slots),
            (tables::ACCOUNT_NODE, &self.account_nodes),
            (tables::STORAGE_NODE, &self.storage_nodes),
        ]
    }

    /// Keys of the branches.
    fn branches(&self) -> Vec<(Table, &[u8])> {
        let [_, _, accounts, storage] = self.tables();
        [accounts, storage]
            .into_iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(key, _)| (table, &key[..])))
            .collect()
    }

    fn storage(&mut self, old: Option<&StorageTrie>, new: &StorageTrie) -> Result<(), TrieError> {
        let same = old.filter(|old| old.same_incarnation(new));
        if same.is_none() {
            self.garbage.extend(old.map(StorageTrie::id).filter(|id| *id != 0));
        }
        let Some(incarnation) = &new.incarnation else { return Ok(()) };
        if incarnation.id() == 0 {
            incarnation.assign(self.next_storage_id);
            self.next_storage_id = self.next_storage_id.saturating_add(1);
        }
        let id = incarnation.id();
        let source = new.rows(self.source);
        let mut sink = SlotSink { id, slots: &mut self.slots, nodes: &mut self.storage_nodes };
        diff(same.map_or(&None, |old| &old.root), &new.root, &source, Scope::All, &mut sink)
    }
}

impl Sink<B256, AccountLeaf> for Batch<'_> {
    fn leaf(&mut self, key: &B256, old: Option<&AccountLeaf>, new: Option<&AccountLeaf>) -> Result<(), TrieError> {
        let Some(leaf) = new else {
            self.garbage.extend(old.map(|leaf| leaf.storage.id()).filter(|id| *id != 0));
            self.accounts.push((key.to_vec(), None));
            return Ok(());
        };
        self.storage(old.map(|leaf| &leaf.storage), &leaf.storage)?;
        self.accounts.push((key.to_vec(), Some(AccountRow::of(leaf).encode())));
        Ok(())
    }

    fn node(
        &mut self,
        position: &[u8],
        _: Option<&Branch<'_, B256, AccountLeaf>>,
        branch: Option<&Branch<'_, B256, AccountLeaf>>,
    ) {
        let mut key = Vec::with_capacity(8);
        record::position_key(position, &mut key);
        self.account_nodes.push((key, branch.map(record::encode)));
    }
}

struct SlotSink<'b> {
    id: u64,
    slots: &'b mut Vec<Row>,
    nodes: &'b mut Vec<Row>,
}

impl Sink<B256, U256> for SlotSink<'_> {
    fn leaf(&mut self, key: &B256, _: Option<&U256>, new: Option<&U256>) -> Result<(), TrieError> {
        self.slots.push((storage_key(self.id, key).to_vec(), new.map(U256::to_be_bytes_trimmed_vec)));
        Ok(())
    }

    fn node(&mut self, position: &[u8], _: Option<&Branch<'_, B256, U256>>, branch: Option<&Branch<'_, B256, U256>>) {
        let mut key = Vec::with_capacity(16);
        key.extend_from_slice(&self.id.to_be_bytes());
        record::position_key(position, &mut key);
        self.nodes.push((key, branch.map(record::encode)));
    }
}

/// Writes rows, in order.
pub(crate) fn write_rows(txn: &mut WriteTxn<'_>, table: Table, rows: &[Row]) -> Result<(), Fault> {
    for (key, value) in rows {
        match value {
            Some(value) => txn.put(table, key, value)?,
            None => txn.delete(table, key)?,
        }
    }
    Ok(())
}

/// Writes a checkpoint of everything durable; a failure poisons the store. On a full disk nothing is written.
pub(crate) fn run(inner: &Arc<Inner>) -> Result<(), Fault> {
    run_with(inner, prefetch::pages)
}

/// The same, with what reads pages ahead of the writer.
pub(crate) fn run_with(inner: &Arc<Inner>, ahead: Ahead) -> Result<(), Fault> {
    let mut checkpointed = inner.checkpointed.lock();
    inner.check()?;
    inner.place.check(0)?;
    write(inner, &mut checkpointed, ahead).map_err(|fault| inner.poison(fault))?;
    drop(checkpointed);
    let own = Arc::clone(inner);
    inner.housekeeper.submit(Box::new(move || prune::run(&own)));
    Ok(())
}

fn write(inner: &Inner, checkpointed: &mut Checkpointed, ahead: Ahead) -> Result<(), Fault> {
    let start = Instant::now();
    let (height, trie) = inner.blocks.newest_trie();
    let leaves = leaves_above(inner, checkpointed.applied.height, &trie)?;
    ahead(&inner.state, &leaves.iter().map(|(table, key)| (*table, &key[..])).collect::<Vec<_>>())?;
    drop(leaves);
    inner.past.absorb(&inner.snapshots);
    inner.fail.hit("checkpoint.start").map_err(Fault::Failed)?;
    if height > checkpointed.applied.height {
        let hash = inner.blocks.hash(height)?.ok_or_else(|| Fault::corrupt(format!("block {height} has no hash")))?;
        let batch = Batch::collect(&checkpointed.trie, &trie, &inner.snapshots, checkpointed.next_storage_id)?;
        let applied = Applied { height, hash, root: trie.hash };
        inner.past.seal(height)?;
        ahead(&inner.state, &batch.branches())?;
        write_state(inner, &batch, applied)?;
        let rows = inner.state.snapshot()?;
        inner.snapshots.replace(StateSnapshot::new(rows, height));
        let next_storage_id = batch.next_storage_id;
        (checkpointed.applied, checkpointed.trie, checkpointed.next_storage_id) = (applied, trie, next_storage_id);
    }
    inner.fail.hit("checkpoint.between").map_err(Fault::Failed)?;
    write_chain(inner, checkpointed.applied.height)?;
    inner.past.tidy(checkpointed.applied.height)?;
    inner.fail.hit("checkpoint.after").map_err(Fault::Failed)?;
    settle(inner, checkpointed);
    metrics::CHECKPOINT.increment();
    metrics::elapsed(&metrics::CHECKPOINT_BUSY, start);
    Ok(())
}

/// Keys of the leaves that blocks above a height changed, in order: what stood there is compared and replaced.
fn leaves_above(inner: &Inner, height: Height, trie: &StateTrie) -> Result<Vec<(Table, Vec<u8>)>, Fault> {
    let mut leaves = Vec::new();
    for (_, changes) in inner.overlay.changes_above(height) {
        let accounts = hash_all(changes.accounts.keys().map(|address| address.as_slice()));
        for (account, change) in accounts.into_iter().zip(changes.accounts.values()) {
            leaves.push((tables::ACCOUNT, account.to_vec()));
            if change.slots.is_empty() {
                continue;
            }
            let id = trie.leaf(&account, &inner.snapshots)?.map_or(0, |leaf| leaf.storage.id());
            let slots: Vec<[u8; 32]> = change.slots.keys().map(U256::to_be_bytes).collect();
            let slots = hash_all(slots.iter().filter(|_| id != 0).map(<[u8; 32]>::as_slice));
            leaves.extend(slots.iter().map(|slot| (tables::STORAGE, storage_key(id, slot).to_vec())));
        }
    }
    leaves.sort_unstable();
    leaves.dedup();
    Ok(leaves)
}

/// Writes rows of the `state` environment, and up to where it is then.
pub(crate) fn write_state(inner: &Inner, batch: &Batch<'_>, applied: Applied) -> Result<(), Fault> {
    let mut txn = inner.state.write()?;
    for (table, rows) in batch.tables() {
        write_rows(&mut txn, table, rows)?;
    }
    let codes: Vec<_> = {
        let codes = inner.codes.read();
        let pending = codes.pending.iter().filter(|(_, (height, _))| *height <= applied.height);
        pending.map(|(hash, (_, code))| (*hash, code.clone())).collect()
    };
    for (hash, code) in codes {
        txn.put(tables::CODE, hash.as_slice(), &code)?;
    }
    for id in &batch.garbage {
        txn.put(tables::GARBAGE, &id.to_be_bytes(), &tables::ended_at(*id, applied.height))?;
    }
    collect_garbage(inner, &mut txn)?;
    txn.put(tables::STATE_META, meta::NEXT_STORAGE_ID, &batch.next_storage_id.to_be_bytes())?;
    txn.put(tables::STATE_META, meta::APPLIED, &applied.encode())?;
    inner.fail.hit("checkpoint.before_state").map_err(Fault::Failed)?;
    Ok(txn.commit()?)
}

/// Deletes rows of storage that no kept height can see, a bounded number at a time.
fn collect_garbage(inner: &Inner, txn: &mut WriteTxn<'_>) -> Result<(), Fault> {
    let floor = inner.overlay.floor();
    let mut left = GARBAGE_ROWS_MAX;
    for (id, height) in txn.rows(tables::GARBAGE, GARBAGE_IDS_MAX)? {
        let ended = tables::ended_height(&id, &height);
        let ended = ended.ok_or_else(|| Fault::corrupt(format!("garbage row {id:?} has another checksum")))?;
        if ended > floor {
            continue;
        }
        for table in [tables::STORAGE, tables::STORAGE_NODE] {
            left = left.saturating_sub(txn.delete_prefix(table, &id, left)?);
        }
        if left == 0 {
            break;
        }
        txn.delete(tables::GARBAGE, &id)?;
    }
    Ok(())
}

fn write_chain(inner: &Inner, height: Height) -> Result<(), Fault> {
    let mut txn = inner.chain_env.write()?;
    inner.blocks.write_rows(&mut txn, height)?;
    prune::sweep(inner, &mut txn)?;
    for segment in inner.segments.all().iter().rev().take(2) {
        let open = inner.segments.all().last().is_some_and(|last| last.number == segment.number);
        let row = [&segment.first_height.0.to_be_bytes()[..], &[u8::from(!open)]].concat();
        txn.put(tables::SEGMENT, &segment.number.to_be_bytes(), &row)?;
    }
    txn.commit()?;
    inner.blocks.rows_written(&inner.chain_env, height)
}

/// Lets go of what the checkpoint made superfluous.
fn settle(inner: &Inner, checkpointed: &mut Checkpointed) {
    let height = checkpointed.applied.height;
    inner.codes.write().pending.retain(|_, (deployed, _)| *deployed > height);
    inner.overlay.prune(inner.blocks.tip().height(), height, |changes| inner.cache.forget(changes));
    checkpointed.bound.keep(&checkpointed.trie);
    let mut dirty = inner.dirty.lock();
    dirty.is_full = false;
    while let Some((done, slots, bytes)) = dirty.blocks.front().copied().filter(|(done, ..)| *done <= height) {
        debug_assert!(done <= height);
        dirty.slots = dirty.slots.saturating_sub(slots);
        dirty.bytes = dirty.bytes.saturating_sub(bytes);
        dirty.blocks.pop_front();
    }
    drop(dirty);
    inner.dirty_changed.notify_all();
}

/// Starts the thread that writes checkpoints by the policy.
pub(crate) fn start(inner: Arc<Inner>) -> Result<JoinHandle<()>, Fault> {
    thread::Builder::new()
        .name("storage-checkpoint".to_owned())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| work(&inner))).is_err() {
                inner.poison(Fault::Failed("the checkpoint thread panicked".to_owned()));
            }
        })
        .map_err(|error| Fault::Failed(format!("starting a thread: {error}")))
}

/// Waits, however much is dirty, until it is worth looking again.
fn wait_for_room(inner: &Inner, interval: Duration) {
    let due = Instant::now() + interval.min(ROOM_INTERVAL);
    let mut dirty = inner.dirty.lock();
    dirty.is_full = true;
    inner.dirty_changed.notify_all();
    while !dirty.stop && !inner.dirty_changed.wait_until(&mut dirty, due).timed_out() {}
    dirty.asked |= !dirty.stop;
}

fn work(inner: &Arc<Inner>) {
    let policy = inner.config.checkpoint;
    loop {
        let due = Instant::now() + policy.interval;
        let mut dirty = inner.dirty.lock();
        while !dirty.stop && !dirty.asked {
            if inner.dirty_changed.wait_until(&mut dirty, due).timed_out() {
                break;
            }
        }
        if dirty.stop {
            return;
        }
        dirty.asked = false;
        let idle = dirty.blocks.is_empty();
        drop(dirty);
        match if idle { Ok(()) } else { run(inner) } {
            Ok(()) => {}
            // Blocks wait as well; it is looked at again as soon as a checkpoint would be due.
            Err(Fault::Full(_)) => wait_for_room(inner, policy.interval),
            Err(_) => return,
        }
    }
}
