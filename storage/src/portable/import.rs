//! A snapshot into an empty folder, step by step, each of which can be interrupted.
//!
//! ```text
//! row `import` names the snapshot        nothing opens the folder any more
//! each chunk: checked alone, then one    its rows, and how many chunks are done: what is done is never read again
//!   transaction
//! records of the tries                   from the rows on the disk, which must make the state root; anew each time
//! rows of the chain                      blocks that are carried, headers, epochs
//! row `applied`, `import` gone           one transaction: the state counts
//! ```

use std::thread;

use alloy_consensus::{Header, Sealed};
use alloy_primitives::B256;
use engine::{
    genesis::ChainSpec,
    types::{CommittedBlock, EpochStart, Height},
};

use super::{
    PortableError, Progress, Source,
    chunk::{Accounts, Body, Checked, Chunk, Slots, Storage},
    manifest::{ChunkEntry, Manifest},
    nodes, verify,
};
use crate::{
    blocks,
    disk::{Disk as _, FolderLock, RealDisk},
    epochs,
    error::{Fault, OpenError},
    failpoint::{Action, FailPoints},
    kv::{Env, WriteTxn},
    open,
    segment::FIRST_OFFSET,
    store::Config,
    tables::{self, AccountRow, Applied, Fields, Position, meta, storage_key},
};

/// What the chain of an imported folder begins with; the caller has seen that all of it is final.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Blocks that are kept whole, the one whose state is imported last.
    pub blocks: Vec<CommittedBlock>,
    /// Headers of the blocks before that one, the newest first.
    pub headers: Vec<Sealed<Header>>,
    /// How epochs began, up to that block's own.
    pub epochs: Vec<EpochStart>,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Chunks that an earlier import had done.
    pub resumed: u64,
    /// Chunks that this one did.
    pub chunks: u64,
    /// Accounts and slots.
    pub rows: u64,
}

/// How far an import has come, as its folder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    id: B256,
    chunks: u64,
    next_storage_id: u64,
}

impl Reached {
    fn encode(&self) -> Vec<u8> {
        [self.id.as_slice(), &self.chunks.to_be_bytes(), &self.next_storage_id.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let reached = Self { id: fields.hash()?, chunks: fields.u64()?, next_storage_id: fields.u64()? };
        fields.0.is_empty().then_some(reached)
    }
}

/// Imports a snapshot into a folder that holds no chain; goes on with an import of it that was interrupted.
///
/// `told` hears of chunks, then of rows that are read again.
///
/// # Errors
/// [`PortableError`]; what is done stays done, and the folder opens only once all of it is.
pub fn import(
    config: &Config,
    chain: &ChainSpec,
    source: &Source,
    foundation: &Foundation,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Imported, PortableError> {
    let newest = fits(chain, &source.manifest, foundation)?;
    let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Abort).map_err(PortableError::Setting)?;
    import_with(config, (chain, source, foundation), newest, &fail, threads, told)
}

/// Compares a snapshot with the chain and with what was shown to be final; gives the block whose state it is.
///
/// # Errors
/// [`PortableError::Foreign`], naming the value that differs.
pub fn fits<'f>(
    chain: &ChainSpec,
    manifest: &Manifest,
    foundation: &'f Foundation,
) -> Result<&'f CommittedBlock, PortableError> {
    let newest = foundation.blocks.last().ok_or_else(|| PortableError::Setting("no block is final".to_owned()))?;
    let differ = |what, expected: String, found: String| {
        if expected == found { Ok(()) } else { Err(PortableError::Foreign { what, expected, found }) }
    };
    differ("chain id", chain.chain_id.to_string(), manifest.chain_id.to_string())?;
    differ("chain digest", chain.digest().to_string(), manifest.chain_digest.to_string())?;
    differ("height", newest.height().to_string(), manifest.height.to_string())?;
    differ("block hash", newest.hash().to_string(), manifest.hash.to_string())?;
    differ("state root", newest.block.header.state_root.to_string(), manifest.state_root.to_string())?;
    Ok(newest)
}

pub(super) fn import_with(
    config: &Config,
    (chain, source, foundation): (&ChainSpec, &Source, &Foundation),
    newest: &CommittedBlock,
    fail: &FailPoints,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Imported, PortableError> {
    let dir = &config.dir;
    RealDisk.create_dir(dir)?;
    let _lock = FolderLock::take(dir)?.ok_or_else(|| OpenError::Locked(dir.clone()))?;
    let chain_env = open::environment(dir, "chain", tables::CHAIN_TABLES, config.map_bytes_max)?;
    open::identify(&chain_env, dir, chain)?;
    let state = open::environment(dir, "state", tables::STATE_TABLES, config.map_bytes_max)?;
    RealDisk.sync_dir(dir)?;
    if open::read_applied(&state)?.is_some() {
        return Err(PortableError::HoldsChain(dir.clone()));
    }
    let begun = begin(&state, source.id).map_err(|fault| match fault {
        Begun::Other => PortableError::OtherImport(dir.clone()),
        Begun::Failed(fault) => fault.into(),
    })?;
    fail.hit("import.begun").map_err(Fault::Failed)?;
    let (reached, rows) = chunks(&state, source, begun, fail, threads, told)?;
    let root = nodes::build(&state, fail, rows, told)?;
    let expected = newest.block.header.state_root;
    if root != expected {
        return Err(PortableError::Root { what: "the state root".to_owned(), expected, found: root });
    }
    fail.hit("import.nodes").map_err(Fault::Failed)?;
    chain_rows(&chain_env, chain, foundation, newest)?;
    fail.hit("import.chain").map_err(Fault::Failed)?;
    let mut txn = state.write()?;
    let applied = Applied { height: newest.height(), hash: newest.hash(), root };
    txn.put(tables::STATE_META, meta::NEXT_STORAGE_ID, &reached.next_storage_id.to_be_bytes())?;
    txn.put(tables::STATE_META, meta::APPLIED, &applied.encode())?;
    txn.delete(tables::STATE_META, meta::IMPORT)?;
    fail.hit("import.applied").map_err(Fault::Failed)?;
    txn.commit()?;
    Ok(Imported { resumed: begun.chunks, chunks: reached.chunks.saturating_sub(begun.chunks), rows })
}

enum Begun {
    /// Another snapshot is being imported.
    Other,
    Failed(Fault),
}

impl From<crate::kv::KvError> for Begun {
    fn from(error: crate::kv::KvError) -> Self {
        Self::Failed(error.into())
    }
}

/// Takes the tables for a snapshot, or finds how far its import has come.
fn begin(state: &Env, id: B256) -> Result<Reached, Begun> {
    let mut txn = state.write()?;
    if let Some(row) = txn.get(tables::STATE_META, meta::IMPORT)? {
        let reached = Reached::decode(&row);
        let reached = reached.ok_or_else(|| Begun::Failed(Fault::corrupt("the import row does not decode")))?;
        return if reached.id == id { Ok(reached) } else { Err(Begun::Other) };
    }
    // The load of a genesis state may have been interrupted here.
    for table in [tables::ACCOUNT, tables::STORAGE, tables::CODE, tables::GARBAGE] {
        txn.clear(table)?;
    }
    let reached = Reached { id, chunks: 0, next_storage_id: 1 };
    txn.put(tables::STATE_META, meta::IMPORT, &reached.encode())?;
    txn.commit()?;
    Ok(reached)
}

type Outcome = Result<(Chunk, Checked), super::Failure>;

/// Checks and writes the chunks that are not done; gives the rows of all.
fn chunks(
    state: &Env,
    source: &Source,
    mut reached: Reached,
    fail: &FailPoints,
    threads: usize,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(Reached, u64), PortableError> {
    let Manifest { chunks, state_root, .. } = &source.manifest;
    let rows = |chunks: &[ChunkEntry]| {
        chunks.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.part.rows).saturating_add(entry.part.slots))
    };
    let done = usize::try_from(reached.chunks).unwrap_or(usize::MAX).min(chunks.len());
    let all = u64::try_from(chunks.len()).unwrap_or(u64::MAX);
    let mut progress = Progress { done: reached.chunks, all, chunks: reached.chunks, rows: rows(&chunks[..done]) };
    // Some are checked side by side while those before are written.
    let mut batches = chunks[done..].chunks(threads.clamp(1, 64));
    let check = |batch: &[ChunkEntry]| -> Vec<Outcome> {
        thread::scope(|scope| {
            let one = |entry| move || verify::chunk(&source.dir, entry, *state_root);
            let running: Vec<_> = batch.iter().map(|entry| scope.spawn(one(entry))).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    let mut checked = batches.next().map(check).unwrap_or_default();
    while !checked.is_empty() {
        checked = thread::scope(|scope| {
            let next = batches.next().map(|batch| scope.spawn(|| check(batch)));
            for outcome in checked {
                let (chunk, checked) = outcome.map_err(PortableError::File)?;
                reached = write(state, &chunk, &checked, reached)?;
                progress.chunks = reached.chunks;
                (progress.done, progress.rows) = (
                    reached.chunks,
                    progress.rows.saturating_add(checked.part.rows).saturating_add(checked.part.slots),
                );
                told(progress);
                fail.hit("import.chunk").map_err(Fault::Failed)?;
            }
            let next = next.map(|next| next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            Ok::<_, PortableError>(next.unwrap_or_default())
        })?;
    }
    Ok((reached, rows(chunks)))
}

/// Writes the rows of a chunk with how far the import has come.
fn write(state: &Env, chunk: &Chunk, checked: &Checked, reached: Reached) -> Result<Reached, PortableError> {
    let mut txn = state.write()?;
    let next_storage_id = match &chunk.body {
        Body::Accounts(accounts) => write_accounts(&mut txn, accounts, &checked.roots, reached.next_storage_id)?,
        Body::Slots(slots) => {
            write_slots(&mut txn, slots)?;
            reached.next_storage_id
        }
    };
    let reached = Reached { chunks: reached.chunks.saturating_add(1), next_storage_id, ..reached };
    txn.put(tables::STATE_META, meta::IMPORT, &reached.encode())?;
    txn.commit()?;
    Ok(reached)
}

/// Writes accounts; gives the next storage id.
///
/// Accounts whose slots are here get their ids before the others, so that all keys of slots rise over all chunks.
fn write_accounts(
    txn: &mut WriteTxn<'_>,
    accounts: &Accounts,
    roots: &[B256],
    mut next_id: u64,
) -> Result<u64, PortableError> {
    let mut ids = vec![0; accounts.rows.len()];
    for is_apart in [false, true] {
        for (row, id) in accounts.rows.iter().zip(&mut ids) {
            let has_slots = match &row.storage {
                Storage::Here(slots) => !is_apart && !slots.is_empty(),
                Storage::Apart(_) => is_apart,
            };
            if has_slots {
                *id = next_id;
                next_id = next_id.saturating_add(1);
            }
        }
    }
    for ((row, id), root) in accounts.rows.iter().zip(ids).zip(roots) {
        let stored = AccountRow { account: row.account, storage_id: id, storage_root: *root };
        txn.append(tables::ACCOUNT, row.key.as_slice(), &stored.encode())?;
        if let Storage::Here(slots) = &row.storage {
            for (key, value) in slots {
                txn.append(tables::STORAGE, &storage_key(id, key), &value.to_be_bytes_trimmed_vec())?;
            }
        }
    }
    for code in &accounts.codes {
        txn.put(tables::CODE, alloy_primitives::keccak256(code).as_slice(), code)?;
    }
    Ok(next_id)
}

fn write_slots(txn: &mut WriteTxn<'_>, slots: &Slots) -> Result<(), PortableError> {
    let owner = txn.get(tables::ACCOUNT, slots.owner.key.as_slice())?.and_then(|row| AccountRow::decode(&row));
    let id = owner.map(|owner| owner.storage_id).filter(|id| *id != 0);
    let id = id.ok_or_else(|| PortableError::Store(format!("account {} has no storage", slots.owner.key)))?;
    for (key, value) in &slots.rows {
        txn.append(tables::STORAGE, &storage_key(id, key), &value.to_be_bytes_trimmed_vec())?;
    }
    Ok(())
}

/// Writes the rows that the chain begins with.
fn chain_rows(
    env: &Env,
    chain: &ChainSpec,
    foundation: &Foundation,
    newest: &CommittedBlock,
) -> Result<(), PortableError> {
    open::read_indexed(env, chain)?;
    let mut txn = env.write()?;
    let mut buffer = Vec::with_capacity(640);
    let at = |hash, id, transactions| {
        let (segment, offset, length, first_transaction) = (0, FIRST_OFFSET, 0, 0);
        Position { hash, id, segment, offset, length, first_transaction, transactions }
    };
    // The child of each names the id of its consensus header, from Cancun on.
    let mut id = newest.block.header.parent_beacon_block_root;
    for header in &foundation.headers {
        let position = at(header.seal(), id.unwrap_or_default(), 0);
        blocks::write_row(&mut txn, Height(header.number), &position, header.inner(), &mut buffer)?;
        id = header.parent_beacon_block_root;
    }
    for block in &foundation.blocks {
        let count = u32::try_from(block.block.body.transactions.len()).unwrap_or(u32::MAX);
        let position = at(block.hash(), block.block.consensus.id(), count);
        blocks::write_row(&mut txn, block.height(), &position, block.block.header.inner(), &mut buffer)?;
        let encoded = blocks::encode_landmark(block).ok_or_else(|| Fault::corrupt("a block is final by itself"))?;
        txn.put(tables::LANDMARK, &block.height().0.to_be_bytes(), &encoded)?;
    }
    for start in &foundation.epochs {
        epochs::put(&mut txn, start)?;
    }
    let height = newest.height().0.to_be_bytes();
    txn.put(tables::CHAIN_META, meta::BASE, &height)?;
    txn.put(tables::CHAIN_META, meta::INDEXED, &height)?;
    Ok(txn.commit()?)
}

/// What an import writes is read by nobody until it is all there.
pub(crate) fn is_unfinished(state: &Env) -> Result<bool, Fault> {
    Ok(state.write()?.get(tables::STATE_META, meta::IMPORT)?.is_some())
}
