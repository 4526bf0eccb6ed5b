//! Opening a folder: lock, identity, genesis, segments, then recovery.
//!
//! Every step can be interrupted and done again; none assumes that the one before it left more than
//! what it made durable.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::B256;
use engine::{genesis::ChainSpec, ports::Recovered, types::Height};
use parking_lot::{Mutex, RwLock};

use crate::{
    blocks::{self, Blocks},
    cache::Cache,
    checkpoint::{self, Checkpointed},
    disk::{Disk, FolderLock, RealDisk},
    error::{Fault, OpenError},
    failpoint::FailPoints,
    genesis,
    history::Records,
    housekeeper::Housekeeper,
    index::{Files, Index},
    kv::{self, Env, WriteTxn},
    log::{self, LOG_BYTES_MAX, LOG_BYTES_MIN, Log},
    metrics, offline,
    overlay::Overlay,
    past::Past,
    place::Place,
    portable, prune, recovery, scrub,
    segment::{self, Appender, FIRST_OFFSET, Identity, SegmentFile, Segments},
    snapshot::{Snapshots, StateSnapshot},
    store::{Codes, Config, Database, Dirty, Inner},
    tables::{self, Applied, CHAIN_TABLES, Fields, Position, SCHEMA, STATE_TABLES, meta},
    trie::{evict::Bound, state::StateTrie},
};

/// Smallest segment that makes sense, in bytes.
const SEGMENT_BYTES_MIN: u64 = 8_192;

/// Opens or creates the store.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    fail: Arc<FailPoints>,
    config: Config,
    chain: Arc<ChainSpec>,
) -> Result<Database, OpenError> {
    if config.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::Config(format!(
            "segment_bytes is {}, at least {SEGMENT_BYTES_MIN}",
            config.segment_bytes
        )));
    }
    if !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&config.log_bytes) {
        let text = format!("log_bytes is {}, {LOG_BYTES_MIN} to {LOG_BYTES_MAX}", config.log_bytes);
        return Err(OpenError::Config(text));
    }
    let segments_dir = config.dir.join("segments");
    RealDisk.create_dir(&config.dir).map_err(Fault::from)?;
    disk.create_dir(&segments_dir).map_err(Fault::from)?;
    disk.create_dir(&past_in(&config.dir)).map_err(Fault::from)?;
    let lock =
        FolderLock::take(&config.dir).map_err(Fault::from)?.ok_or_else(|| OpenError::Locked(config.dir.clone()))?;

    let floors = (config.free_bytes_min, config.free_bytes_low);
    let place = Arc::new(Place::of(&config.dir, floors, config.allow_remote_disk)?);
    let chain_env = environment(&config.dir, "chain", CHAIN_TABLES, config.map_bytes_max)?;
    let identity = identify(&chain_env, &config.dir, &chain)?;
    let state = environment(&config.dir, "state", STATE_TABLES, config.map_bytes_max)?;
    // Whoever gave them their names may have been killed before that was durable; segments must not outlive them.
    RealDisk.sync_dir(&config.dir).map_err(Fault::from)?;
    fail.hit("genesis.identity").map_err(Fault::Failed)?;
    if portable::is_unfinished(&state)? {
        return Err(OpenError::Unfinished(config.dir));
    }
    let applied = match read_applied(&state)? {
        Some(applied) => applied,
        None => {
            genesis::load(&state, &chain, &fail)?;
            read_applied(&state)?.ok_or_else(|| Fault::corrupt("the genesis state has no height"))?
        }
    };
    let mark = prune::enter(&chain_env, &config.dir, config.keep)?;
    prune::finish((&*disk, &segments_dir), mark)?;
    offline::rewind::finish(&chain_env, (&*disk, &segments_dir), identity, &fail)?;
    let first = read_base(&chain_env)?.max(mark.height).next();
    let appender = open_segments((disk, &fail, &place), &segments_dir, &config, identity, first)?;
    build(config, chain, fail, (state, chain_env), applied, appender, (place, lock))
}

/// The folder of what checkpoints replaced.
pub(crate) fn past_in(dir: &Path) -> PathBuf {
    dir.join("past")
}

/// Opens an environment inside a data folder. One that is not there is made beside its place, and named when it is
/// whole and durable: a file that MDBX was only just making when the power went is none that it opens.
pub(crate) fn environment(
    dir: &Path,
    name: &str,
    tables: &'static [&'static str],
    map_bytes_max: usize,
) -> Result<Env, Fault> {
    let (place, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    // Somebody was killed while making it; or while compacting, and then the old one is in its place.
    clear_folder(&beside)?;
    if !RealDisk.list(dir)?.iter().any(|known| known == name) {
        RealDisk.create_dir(&beside)?;
        drop(Env::open(&beside, tables, map_bytes_max)?);
        // MDBX syncs the first of a new file's three heads, and leaves the others to a later sync.
        RealDisk.open(&beside.join(kv::FILE))?.sync()?;
        RealDisk.sync_dir(&beside)?;
        RealDisk.rename(&beside, &place)?;
    }
    Ok(Env::open(&place, tables, map_bytes_max)?)
}

/// Removes a folder and the files in it, if it is there.
pub(crate) fn clear_folder(dir: &Path) -> Result<(), Fault> {
    if dir.is_dir() {
        for left_over in RealDisk.list(dir)? {
            RealDisk.remove(&dir.join(left_over))?;
        }
        RealDisk.remove_dir(dir)?;
    }
    Ok(())
}

/// Compares the folder's chain with the one asked for; an empty folder takes it over and draws its salt.
pub(crate) fn identify(env: &Env, dir: &Path, chain: &ChainSpec) -> Result<Identity, OpenError> {
    let mut txn = env.write().map_err(Fault::from)?;
    let (chain_id, chain_digest) = (chain.chain_id, chain.digest());
    let Some(found) = stored_identity(&txn, dir)? else {
        let identity = Identity { chain_id, chain_digest, salt: random() };
        let schema = [SCHEMA.0.to_be_bytes(), SCHEMA.1.to_be_bytes()].concat();
        let write = |txn: &mut WriteTxn<'_>| {
            txn.put(tables::CHAIN_META, meta::SCHEMA, &schema)?;
            txn.put(tables::CHAIN_META, meta::CHAIN_ID, &chain_id.to_be_bytes())?;
            txn.put(tables::CHAIN_META, meta::SALT, &identity.salt.to_be_bytes())?;
            txn.put(tables::CHAIN_META, meta::CHAIN_DIGEST, chain_digest.as_slice())
        };
        write(&mut txn).map_err(Fault::from)?;
        txn.commit().map_err(Fault::from)?;
        return Ok(identity);
    };
    check_chain(dir, found, chain)?;
    Ok(found)
}

/// Refuses a folder of another chain.
pub(crate) fn check_chain(dir: &Path, found: Identity, chain: &ChainSpec) -> Result<(), OpenError> {
    let (found, expected) = ((found.chain_id, found.chain_digest), (chain.chain_id, chain.digest()));
    if found.1 == expected.1 { Ok(()) } else { Err(OpenError::WrongChain { dir: dir.to_owned(), found, expected }) }
}

/// The chain that a folder belongs to; `None` if it is empty.
pub(crate) fn stored_identity(txn: &WriteTxn<'_>, dir: &Path) -> Result<Option<Identity>, OpenError> {
    let read = |name| txn.get(tables::CHAIN_META, name).map_err(Fault::from);
    let Some(found) = read(meta::CHAIN_DIGEST)? else { return Ok(None) };
    let schema = read(meta::SCHEMA)?.unwrap_or_default();
    let mut fields = Fields(&schema);
    let schema = fields.u16().zip(fields.u16()).ok_or_else(|| Fault::corrupt("the schema row does not decode"))?;
    if schema.0 > SCHEMA.0 {
        return Err(OpenError::NewerSchema { dir: dir.to_owned(), found: schema, known: SCHEMA });
    }
    if schema.0 < SCHEMA.0 {
        return Err(OpenError::OlderSchema { dir: dir.to_owned(), found: schema, known: SCHEMA });
    }
    let chain_digest =
        B256::try_from(&found[..]).map_err(|_| Fault::corrupt("the chain_digest row does not decode"))?;
    let chain_id = read(meta::CHAIN_ID)?.and_then(|row| Fields(&row).u64()).unwrap_or_default();
    let salt = read(meta::SALT)?.and_then(|row| Fields(&row).u32());
    let salt = salt.ok_or_else(|| Fault::corrupt("the salt row does not decode"))?;
    Ok(Some(Identity { chain_id, chain_digest, salt }))
}

/// A number that nobody outside this process can know: the standard library seeds its hashers from the system.
fn random() -> u32 {
    let hash = RandomState::new().hash_one("salt").to_be_bytes();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

pub(crate) fn read_applied(env: &Env) -> Result<Option<Applied>, Fault> {
    let txn = env.write()?;
    let row = txn.get(tables::STATE_META, meta::APPLIED)?;
    row.map(|row| Applied::decode(&row).ok_or_else(|| Fault::corrupt("the applied row does not decode"))).transpose()
}

/// Opens the segments, beginning the first one if there is none.
fn open_segments(
    (disk, fail, place): (Arc<dyn Disk>, &Arc<FailPoints>, &Arc<Place>),
    dir: &Path,
    config: &Config,
    identity: Identity,
    first: Height,
) -> Result<Appender, Fault> {
    let spare = dir.join("spare.seg");
    disk.remove(&spare)?;
    let mut segments = Segments::open(&*disk, dir, identity, 0)?;
    if segments.all().is_empty() {
        let file = segment::create_zeroed(&*disk, &spare, config.segment_bytes)?;
        segment::begin((&*disk, dir, fail), identity, (0, first, config.segment_bytes), file)?;
        segments = Segments::open(&*disk, dir, identity, 0)?;
    }
    let found = segments.lowest().next();
    if found != first {
        let text = format!("segments in {} begin with height {found}, not with {first}", dir.display());
        return Err(Fault::corrupt(text));
    }
    metrics::LOWEST.set(first.0);
    let housekeeper = Housekeeper::start(
        (Arc::clone(&disk), dir.to_owned(), Arc::clone(place)),
        config.segment_bytes,
        Arc::clone(fail),
        config.background,
    )?;
    let current: Arc<SegmentFile> = segments.all().pop().ok_or_else(|| Fault::corrupt("there is no segment"))?;
    Ok(Appender {
        disk,
        dir: dir.to_owned(),
        identity,
        segment_bytes: config.segment_bytes,
        segments: Arc::new(segments),
        housekeeper,
        fail: Arc::clone(fail),
        current,
        offset: FIRST_OFFSET,
    })
}

/// Puts the parts together and recovers.
fn build(
    config: Config,
    chain: Arc<ChainSpec>,
    fail: Arc<FailPoints>,
    (state, chain_env): (Env, Env),
    applied: Applied,
    mut appender: Appender,
    (place, lock): (Arc<Place>, FolderLock),
) -> Result<Database, OpenError> {
    let indexed = read_indexed(&chain_env, &chain)?;
    let next_storage_id = read_next_storage_id(&state)?;
    let snapshots = Snapshots::new(StateSnapshot::new(state.snapshot().map_err(Fault::from)?, applied.height));
    let durable = applied.height.min(indexed);
    let scan = recovery::scan(&chain_env, &mut appender, &chain, durable, applied, indexed)?;
    let files = Files {
        disk: Arc::clone(&appender.disk),
        dir: appender.dir.clone(),
        identity: appender.identity,
        fail: Arc::clone(&fail),
        place: Arc::clone(&place),
    };
    let (segments, housekeeper) = (Arc::clone(&appender.segments), Arc::clone(&appender.housekeeper));
    let changes = prune::enter_window(&chain_env, &files, &segments.all(), (&config, &chain), durable)?;
    let ends = (appender.offset, changes);
    let index = Arc::new(Index::open(files.clone(), Arc::clone(&segments), ends, Arc::clone(&housekeeper))?);
    let past = Past::open(Files { dir: past_in(&config.dir), ..files }, config.proof_window, applied.height)?;
    let (trie, bound) = (Arc::new(StateTrie::stored(applied.root)), Bound::new(config.trie_bytes_max));
    let rows = chain_env.snapshot().map_err(Fault::from)?;
    let blocks = Blocks::new(
        (Arc::new(genesis::block(&chain)), Arc::clone(&scan.base)),
        (applied.height, Arc::clone(&trie)),
        scan.transactions,
        rows,
        Arc::clone(&segments),
    );
    let inner = Arc::new(Inner {
        chain,
        fail,
        state,
        chain_env,
        snapshots,
        blocks,
        segments,
        index,
        records: Records::default(),
        housekeeper,
        overlay: Overlay::default(),
        cache: Cache::new(config.cache_bytes_max),
        codes: RwLock::new(Codes::default()),
        appender: Mutex::new(appender),
        checkpointed: Mutex::new(Checkpointed { applied, trie, next_storage_id, bound }),
        past,
        pruning: Mutex::default(),
        dirty: Mutex::new(Dirty::default()),
        dirty_changed: parking_lot::Condvar::new(),
        failed: std::sync::OnceLock::new(),
        place,
        config,
        _lock: lock,
    });
    recovery::replay(&inner, scan, applied)?;
    let (log, recovered) = open_log(&inner)?;
    inner.housekeeper.prepare_spare();
    let checkpointer = if inner.config.background { Some(checkpoint::start(Arc::clone(&inner))?) } else { None };
    let every = inner.config.scrub_interval.filter(|_| inner.config.background);
    let scrubber = every.map(|every| scrub::start(Arc::clone(&inner), every)).transpose()?;
    let (checkpointer, scrubber, recovered) =
        (Mutex::new(checkpointer), Mutex::new(scrubber), Mutex::new(Some(recovered)));
    Ok(Database { inner, checkpointer, scrubber, log: Arc::new(log), recovered })
}

/// Opens the log beside a store that is recovered; makes it if the folder never had one.
fn open_log(inner: &Inner) -> Result<(Log, Recovered), OpenError> {
    let appender = inner.appender.lock();
    let folder = log::Folder {
        disk: Arc::clone(&appender.disk),
        dir: log::folder_in(&inner.config.dir),
        identity: log::Identity::of(&inner.chain),
        bytes: inner.config.log_bytes,
        fail: Arc::clone(&inner.fail),
        housekeeper: Some(Arc::clone(&inner.housekeeper)),
    };
    drop(appender);
    let tip = inner.blocks.tip();
    let header = &tip.block.consensus;
    let tip = log::Mark { epoch: header.epoch(), slot: header.slot(), height: tip.height() };
    let was_made = was_log_made(&inner.chain_env)?;
    let opened = log::open(folder, was_made, tip)?;
    inner.fail.hit("log.open.made").map_err(Fault::Failed)?;
    if !was_made {
        note_log_made(&inner.chain_env)?;
    }
    Ok(opened)
}

/// Whether the folder ever had a log.
pub(crate) fn was_log_made(env: &Env) -> Result<bool, Fault> {
    Ok(env.write()?.get(tables::CHAIN_META, meta::LOG)?.is_some())
}

/// Notes that the folder has a log, which is durable.
pub(crate) fn note_log_made(env: &Env) -> Result<(), Fault> {
    let mut txn = env.write()?;
    txn.put(tables::CHAIN_META, meta::LOG, &SCHEMA.0.to_be_bytes())?;
    Ok(txn.commit()?)
}

/// Height of the block that the chain in this folder begins on.
pub(crate) fn read_base(env: &Env) -> Result<Height, Fault> {
    let row = env.write()?.get(tables::CHAIN_META, meta::BASE)?;
    let decoded = |row: Vec<u8>| Fields(&row).u64().ok_or_else(|| Fault::corrupt("the base row does not decode"));
    Ok(Height(row.map(decoded).transpose()?.unwrap_or_default()))
}

fn read_next_storage_id(env: &Env) -> Result<u64, Fault> {
    let row = env.write()?.get(tables::STATE_META, meta::NEXT_STORAGE_ID)?;
    let next = row.and_then(|row| Fields(&row).u64());
    let next = next.ok_or_else(|| Fault::corrupt("the next storage id does not decode"))?;
    // Storage that gets an id which is in use would be mixed with what has it.
    let used = env.snapshot()?.seek(tables::STORAGE, &next.to_be_bytes(), |key, _| Fields(key).u64())?;
    match used {
        Some(used) => Err(Fault::corrupt(format!("the next storage id is {next}, and {used:?} is in use"))),
        None => Ok(next),
    }
}

/// Up to which height the chain rows are; writes those of block 0 first.
pub(crate) fn read_indexed(env: &Env, chain: &ChainSpec) -> Result<Height, Fault> {
    let mut txn = env.write()?;
    if let Some(row) = txn.get(tables::CHAIN_META, meta::INDEXED)? {
        let height = Fields(&row).u64().ok_or_else(|| Fault::corrupt("the indexed row does not decode"))?;
        return Ok(Height(height));
    }
    let position = Position {
        hash: chain.genesis_hash(),
        id: chain.genesis_block().consensus.id(),
        segment: 0,
        offset: FIRST_OFFSET,
        length: 0,
        first_transaction: 0,
        transactions: 0,
    };
    blocks::write_row(&mut txn, Height::GENESIS, &position, &chain.genesis_header, &mut Vec::new())?;
    txn.put(tables::CHAIN_META, meta::INDEXED, &0u64.to_be_bytes())?;
    txn.commit()?;
    Ok(Height::GENESIS)
}
