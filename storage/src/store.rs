//! The Store port: one writer, many views.
//!
//! [`Database::open`] recovers and starts two threads: one writes checkpoints, one prepares segments.
//! `commit` is called by one thread; everything else by any number. A failed write or sync poisons the
//! store: every later commit fails with the first failure's words, and only opening it again recovers.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::Duration,
};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256, map::B256Map};
use engine::{
    genesis::ChainSpec,
    limits,
    ports::{AccountProof, Journal, Recovered, StateView, Store, StoreError},
    types::{
        CommittedBlock, Epoch, EpochStart, FinalizedBlock, Height, LogBlocks, LogFilter, RawTransaction, SignedHeader,
    },
};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::{
    blocks::Blocks,
    cache::Cache,
    checkpoint::Checkpointed,
    commit,
    disk::{Disk, FolderLock, RealDisk},
    epochs,
    error::{Fault, OpenError},
    failpoint::{Action, FailPoints},
    history::{History, Records},
    housekeeper::Housekeeper,
    index::{Half, Index},
    kv::Env,
    log::{Log, Port},
    offline::{Listener, Progress},
    overlay::Overlay,
    past::Past,
    place::Place,
    portable,
    prune::Keep,
    rebuild,
    scrub::{self, Scrubbed},
    segment::{Appender, Segments},
    snapshot::Snapshots,
    trie::{
        node::TrieError,
        proof::prove,
        state::{AccountSource, StateSource, StateTrie, hash_address},
    },
    view::View,
    waiting,
};

/// When a checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// At least this often while blocks come.
    pub interval: Duration,
    /// As soon as this many accounts and slots changed since the last; commits wait at twice this.
    pub dirty_slots_max: usize,
    /// As soon as changes of this many encoded bytes came since the last; commits wait at twice this.
    pub dirty_bytes_max: usize,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), dirty_slots_max: 1_000_000, dirty_bytes_max: 256 << 20 }
    }
}

/// Settings of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder; created if it is not there.
    pub dir: PathBuf,
    /// Size of a segment in bytes, zero-written in advance; a block that needs more gets a larger one.
    pub segment_bytes: u64,
    /// Size of a file of the log in bytes, zero-written in advance; there are two. It must hold everything that is
    /// signed and voted for before it is final, blocks as well.
    pub log_bytes: u64,
    /// When checkpoints are written.
    pub checkpoint: CheckpointPolicy,
    /// Bytes of trie nodes that stay in memory after a checkpoint.
    pub trie_bytes_max: usize,
    /// Bytes of accounts and slots that stay in memory once they were read.
    pub cache_bytes_max: usize,
    /// Address space reserved for each MDBX file, in bytes; its largest size.
    pub map_bytes_max: usize,
    /// Whether records are lz4-compressed: fewer bytes, some milliseconds per megabyte on the finality path.
    pub compress: bool,
    /// Whether checkpoints and segments are prepared by threads; `false` leaves them to
    /// [`Database::checkpoint`] and to the commit that needs a segment.
    pub background: bool,
    /// Bytes of the disk that stay free: with fewer the store takes no block until there are more again.
    pub free_bytes_min: u64,
    /// Bytes below which work that can wait does: indices of a few full segments.
    pub free_bytes_low: u64,
    /// Whether the folder may be on a disk of another machine.
    pub allow_remote_disk: bool,
    /// How often a random place of the tables is compared with what it must hold, by a thread if there are threads;
    /// `None` for never. Costs some milliseconds each time.
    pub scrub_interval: Option<Duration>,
    /// How many blocks back the state is proven.
    pub proof_window: u64,
    /// What is kept of the past; `None` leaves that as the folder has it, and takes nothing away.
    pub keep: Option<Keep>,
    /// For crash tests: `name:count` of a place where the process aborts, see [`crate::failpoint`].
    pub fail_point: Option<String>,
}

impl Config {
    /// The settings of a validator.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 256 << 20,
            log_bytes: 64 << 20,
            checkpoint: CheckpointPolicy::default(),
            trie_bytes_max: 1 << 30,
            cache_bytes_max: 256 << 20,
            map_bytes_max: 1 << 40,
            compress: false,
            background: true,
            free_bytes_min: 256 << 20,
            free_bytes_low: 1 << 30,
            allow_remote_disk: false,
            scrub_interval: Some(Duration::from_secs(60)),
            proof_window: 10_000,
            keep: None,
            fail_point: None,
        }
    }

    /// The settings of a development chain: smaller files, less memory.
    #[must_use]
    pub fn dev(dir: impl Into<PathBuf>) -> Self {
        Self {
            segment_bytes: 16 << 20,
            log_bytes: 16 << 20,
            trie_bytes_max: 256 << 20,
            cache_bytes_max: 32 << 20,
            free_bytes_min: 16 << 20,
            free_bytes_low: 64 << 20,
            ..Self::new(dir)
        }
    }
}

/// Changes above the checkpoint.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) blocks: VecDeque<(Height, usize, usize)>,
    pub(crate) slots: usize,
    pub(crate) bytes: usize,
    /// A checkpoint is asked for.
    pub(crate) asked: bool,
    /// A checkpoint waits for room on the disk.
    pub(crate) is_full: bool,
    pub(crate) stop: bool,
}

/// Code that is not in the checkpoint, and code read lately.
#[derive(Default)]
pub(crate) struct Codes {
    /// Deployed above the checkpoint, with the height.
    pub(crate) pending: B256Map<(Height, Bytes)>,
    pub(crate) cached: B256Map<Bytes>,
    pub(crate) order: VecDeque<B256>,
    pub(crate) cached_bytes: usize,
}

/// Everything behind the port, shared with the threads and the views.
pub(crate) struct Inner {
    pub(crate) chain: Arc<ChainSpec>,
    pub(crate) config: Config,
    pub(crate) fail: Arc<FailPoints>,
    pub(crate) state: Env,
    pub(crate) chain_env: Env,
    pub(crate) snapshots: Snapshots,
    pub(crate) blocks: Blocks,
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: Arc<Index>,
    pub(crate) records: Records,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) overlay: Overlay,
    pub(crate) cache: Cache,
    pub(crate) codes: RwLock<Codes>,
    pub(crate) appender: Mutex<Appender>,
    pub(crate) checkpointed: Mutex<Checkpointed>,
    pub(crate) past: Past,
    /// Held by whoever takes old blocks away.
    pub(crate) pruning: Mutex<()>,
    pub(crate) dirty: Mutex<Dirty>,
    pub(crate) dirty_changed: Condvar,
    pub(crate) failed: OnceLock<Fault>,
    pub(crate) place: Arc<Place>,
    /// Last, so that the folder is let go after everything in it is closed; a view keeps it too.
    pub(crate) _lock: FolderLock,
}

impl Inner {
    /// Refuses work after a failure.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.failed.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Poisons the store with its first failure.
    pub(crate) fn poison(&self, fault: Fault) -> Fault {
        tracing::error!(%fault, "the store takes no further block");
        let first = self.failed.get_or_init(|| fault).clone();
        // Whoever waits for a checkpoint must not wait for ever; with the lock, none is between its look
        // at the failure and its wait.
        drop(self.dirty.lock());
        self.dirty_changed.notify_all();
        first
    }
}

/// A store on disk.
pub struct Database {
    pub(crate) inner: Arc<Inner>,
    pub(crate) checkpointer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) scrubber: Mutex<Option<JoinHandle<()>>>,
    pub(crate) log: Arc<Log>,
    pub(crate) recovered: Mutex<Option<Recovered>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("dir", &self.inner.config.dir).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the store in a folder: creates it with block 0, or recovers what is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: Config, chain: Arc<ChainSpec>) -> Result<Self, OpenError> {
        let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Abort).map_err(OpenError::Config)?;
        Self::open_on(Arc::new(RealDisk), fail, config, chain)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        fail: FailPoints,
        config: Config,
        chain: Arc<ChainSpec>,
    ) -> Result<Self, OpenError> {
        crate::open::open(disk, Arc::new(fail), config, chain)
    }

    /// Writes a checkpoint of everything durable now; returns when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Failed`] poisons the store; [`StoreError::Full`] changes nothing.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(crate::checkpoint::run(&self.inner)?)
    }

    /// The log of what this node signs. The folder stays locked while it is held.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(Port { log: Arc::clone(&self.log), _inner: Arc::clone(&self.inner) })
    }

    /// What the log held when the store was opened, given once; whoever asks again is told that it is lost.
    #[must_use]
    pub fn take_recovered(&self) -> Recovered {
        let again = Recovered { is_lost: true, ..Recovered::default() };
        self.recovered.lock().take().unwrap_or(again)
    }

    /// Keeps what waits in the pool for the next start, the first ones first; one file, whose loss costs nothing else.
    pub fn keep_waiting(&self, waiting: &[RawTransaction]) {
        if waiting.is_empty() {
            return;
        }
        let Inner { config, chain, .. } = &*self.inner;
        match waiting::write(&RealDisk, &config.dir, (chain.chain_id, chain.digest()), waiting) {
            Ok(kept) => tracing::info!(kept, of = waiting.len(), "transactions wait for the next start"),
            Err(error) => tracing::warn!(%error, lost = waiting.len(), "waiting transactions are not kept"),
        }
    }

    /// What waited when the node was stopped; given once. A file of which anything is wrong is told of and given up.
    #[must_use]
    pub fn take_waiting(&self) -> Vec<RawTransaction> {
        let Inner { config, chain, .. } = &*self.inner;
        waiting::take(&RealDisk, &config.dir, (chain.chain_id, chain.digest())).unwrap_or_else(|error| {
            tracing::warn!(%error, "transactions that waited at the last stop are given up: their file is not taken");
            Vec::new()
        })
    }

    /// Height of the newest checkpoint.
    #[must_use]
    pub fn checkpointed(&self) -> Height {
        self.inner.snapshots.current().applied
    }

    /// Computes the state root at the tip from the flat tables and the changes above them, using nothing
    /// of the stored trie.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rebuild_root(&self) -> Result<B256, StoreError> {
        Ok(rebuild::root(&self.inner)?)
    }

    /// Compares every row of the newest checkpoint with what it must be, and every row of the chain with its block.
    ///
    /// Takes as long as reading the whole store; blocks and checkpoints go on meanwhile. A store that was found damaged
    /// goes on as well: whoever asks decides.
    #[must_use]
    pub fn scrub(&self) -> Scrubbed {
        self.scrub_with(&mut |_| {})
    }

    /// The same, telling how far it is.
    #[must_use]
    pub fn scrub_with(&self, listen: Listener<'_>) -> Scrubbed {
        let all = scrub::rows(&self.inner);
        scrub::all(&self.inner, &mut |done| listen(Progress { what: "rows", done, all: all.max(done) }))
    }

    /// Ends the threads after a last checkpoint. Dropping the store does the same.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the last checkpoint fails; nothing is lost then, opening replays. On a full disk there
    /// is none, and that is no failure.
    pub fn close(self) -> Result<(), StoreError> {
        self.shut_down()
    }

    fn shut_down(&self) -> Result<(), StoreError> {
        self.stop_threads();
        if let Err(fault) = self.log.conclude() {
            tracing::warn!(%fault, "the log ends without a last word");
        }
        let outcome = self.inner.check().and_then(|()| crate::checkpoint::run(&self.inner));
        match outcome {
            Err(Fault::Full(why)) => {
                tracing::warn!(%why, "no checkpoint at the end; the next start replays more blocks");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// What was found at a height; what is not kept of the chain is no unknown block.
    fn known<T>(&self, height: Height, found: Option<T>) -> Result<Option<T>, StoreError> {
        let lowest = self.inner.segments.lowest();
        if found.is_none() && height <= lowest {
            return Err(StoreError::NotKept { height, lowest: lowest.next() });
        }
        Ok(found)
    }

    /// Ends the threads and nothing else, as a crash would.
    pub(crate) fn stop_threads(&self) {
        self.inner.dirty.lock().stop = true;
        self.inner.dirty_changed.notify_all();
        if let Some(thread) = self.checkpointer.lock().take()
            && thread.join().is_err()
        {
            tracing::warn!("the checkpoint thread panicked");
        }
        if let Some(thread) = self.scrubber.lock().take() {
            // It catches its own panics.
            let _ = thread.join();
        }
        self.inner.housekeeper.stop();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Closed already, crashed on purpose, or failed: then there is nothing left to write.
        let running = self.checkpointer.lock().is_some();
        if running && let Err(error) = self.shut_down() {
            tracing::warn!(%error, "no checkpoint at the end; the next start replays more blocks");
        }
        self.inner.housekeeper.stop();
    }
}

impl Store for Database {
    fn chain(&self) -> &Arc<ChainSpec> {
        &self.inner.chain
    }

    fn tip(&self) -> Arc<CommittedBlock> {
        self.inner.blocks.tip()
    }

    fn commit(&self, blocks: &[FinalizedBlock]) -> Result<Vec<Arc<CommittedBlock>>, StoreError> {
        commit::commit(&self.inner, blocks)
    }

    fn begin_epoch(&self, start: &EpochStart) -> Result<(), StoreError> {
        epochs::begin(&self.inner, start)
    }

    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochStart>, StoreError> {
        Ok(epochs::find(&self.inner, epoch)?)
    }

    fn tail_header(&self, id: B256) -> Result<Option<SignedHeader>, StoreError> {
        Ok(epochs::tail_header(&self.inner, id)?)
    }

    fn view(&self, height: Height) -> Result<Arc<dyn StateView>, StoreError> {
        match View::open(&self.inner, height) {
            Ok(view) => Ok(Arc::new(view)),
            Err(StoreError::Unavailable(_)) => Ok(Arc::new(History::open(&self.inner, height)?)),
            Err(error) => Err(error),
        }
    }

    fn block(&self, height: Height) -> Result<Option<Arc<CommittedBlock>>, StoreError> {
        self.known(height, self.inner.blocks.block(height)?)
    }

    fn header(&self, height: Height) -> Result<Option<Sealed<Header>>, StoreError> {
        self.known(height, self.inner.blocks.header(height)?)
    }

    fn height_of(&self, hash: B256) -> Result<Option<Height>, StoreError> {
        Ok(self.inner.blocks.height_of(hash)?)
    }

    fn height_of_id(&self, id: B256) -> Result<Option<Height>, StoreError> {
        Ok(self.inner.blocks.height_of_id(id)?)
    }

    fn transaction_position(&self, hash: B256) -> Result<Option<(Height, usize)>, StoreError> {
        let place = self.inner.index.transaction(&hash)?;
        Ok(place.map(|(height, index)| (height, usize::try_from(index).expect("an index of 32 bits fits"))))
    }

    fn blocks_with_logs(&self, filter: &LogFilter, heights: RangeInclusive<Height>) -> Result<LogBlocks, StoreError> {
        let (start, end) = (*heights.start(), self.inner.blocks.tip().height().min(*heights.end()));
        let found = self.inner.index.blocks_with_logs(filter, &(start..=end));
        // Asked for afterwards: some of it may have been let go meanwhile.
        let lowest = self.inner.index.lowest(Half::Places);
        if start <= lowest && lowest != Height::GENESIS {
            return Err(StoreError::NotKept { height: start, lowest: lowest.next() });
        }
        Ok(found?)
    }

    fn state_head(&self, block: Option<B256>, from: Epoch) -> Result<(B256, Bytes), StoreError> {
        portable::serve::head(self, block, from)
    }

    fn state_part(&self, block: B256, owner: Option<B256>, from: B256) -> Result<Bytes, StoreError> {
        portable::serve::part(self, block, (owner, from), limits::STATE_PART_BYTES)
    }

    fn proof(&self, height: Height, address: Address, slots: &[U256]) -> Result<AccountProof, StoreError> {
        let inner = &self.inner;
        if height > inner.blocks.tip().height() {
            return Err(StoreError::Unavailable(height));
        }
        let lowest = inner.past.lowest(inner.snapshots.current().applied);
        let refused = StoreError::NoProof { height, lowest };
        if height < lowest {
            return Err(refused);
        }
        if let Some(trie) = inner.blocks.trie(height) {
            match prove_account(&trie, &inner.snapshots, address, slots) {
                // A checkpoint has replaced nodes that the trie shared with its successors.
                Err(TrieError::Mismatch { .. }) if height < inner.snapshots.current().applied => {}
                outcome => return outcome.map_err(|error| Fault::from(error).into()),
            }
        }
        let past = inner.past.at(height, &inner.snapshots).ok_or(refused)?;
        let header = inner.blocks.header(height)?.ok_or(StoreError::Unavailable(height))?;
        match prove_account(&StateTrie::stored(header.state_root), &past, address, slots) {
            // Storage that was wiped since leaves nothing behind, as it could before Cancun.
            Err(TrieError::Mismatch { .. }) => Err(StoreError::Unavailable(height)),
            outcome => outcome.map_err(|error| Fault::from(error).into()),
        }
    }
}

fn prove_account(
    trie: &StateTrie,
    source: &dyn StateSource,
    address: Address,
    slots: &[U256],
) -> Result<AccountProof, TrieError> {
    let (leaf, nodes) = prove(&trie.root, &hash_address(address), &AccountSource(source))?;
    let storage = leaf.as_ref().map(|leaf| leaf.storage.clone()).unwrap_or_default();
    let rows = storage.rows(source);
    let slots = slots.iter().map(|slot| {
        let (value, nodes) = prove(&storage.root, &keccak256(slot.to_be_bytes::<32>()), &rows)?;
        Ok((*slot, value.unwrap_or_default(), nodes))
    });
    let slots = slots.collect::<Result<_, TrieError>>()?;
    Ok(AccountProof { account: leaf.map(|leaf| leaf.account), storage_root: storage.hash, nodes, slots })
}
