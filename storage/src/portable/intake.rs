//! A state into an empty folder, chunk by chunk in any order, each step of which can be interrupted.
//!
//! ```text
//! row `import` names the state           nothing opens the folder any more
//! each chunk: checked alone, then one    its rows, and what is missing still: what is here is never written again
//!   transaction
//! records of the tries                   from the rows on the disk, which must make the state root; anew each time
//! rows of the chain                      blocks that are carried, headers, epochs
//! row `applied`, `import` gone           one transaction: the state counts
//! ```

use alloy_primitives::{B256, keccak256};
use engine::{
    genesis::ChainSpec,
    types::{CommittedBlock, Height},
};

use super::{
    ChunkError, Foundation, PortableError, Progress,
    chunk::{APART_MAX, Accounts, Body, Checked, Chunk, Slots, Storage},
    gaps::{Gap, Gaps},
    manifest::Part,
    nodes,
};
use crate::{
    blocks,
    disk::{Disk as _, FolderLock, RealDisk},
    epochs,
    error::{Fault, OpenError},
    failpoint::FailPoints,
    kv::{Env, KvError, Table, WriteTxn},
    open,
    segment::FIRST_OFFSET,
    store::Config,
    tables::{self, AccountRow, Applied, Fields, Position, meta, storage_key},
};

/// In which order chunks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// In that of keys, the slots of an account behind it: rows are appended.
    Ascending,
    /// In any.
    Any,
}

/// How far an intake has come, as its folder knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reached {
    id: B256,
    next_storage_id: u64,
    gaps: Gaps,
}

impl Reached {
    fn encode(&self) -> Vec<u8> {
        [self.id.as_slice(), &self.next_storage_id.to_be_bytes(), &self.gaps.encode()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self { id: fields.hash()?, next_storage_id: fields.u64()?, gaps: Gaps::decode(&mut fields)? })
    }
}

/// Takes bytes for the row that tells how far an intake is; what decodes is the same once written and read again.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn fuzzed(row: &[u8]) {
    if let Some(mut reached) = Reached::decode(row) {
        assert_eq!(Reached::decode(&reached.encode()), Some(reached.clone()));
        let _ = reached.gaps.split();
    }
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Neither a chain nor a part of a state.
    Nothing,
    /// A part of the state with this name.
    Part(B256),
    /// A chain.
    Chain,
}

/// A folder that takes a state over.
pub struct Intake {
    state: Env,
    chain_env: Env,
    reached: Reached,
    order: Order,
    _lock: FolderLock,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("id", &self.reached.id).finish_non_exhaustive()
    }
}

impl Intake {
    /// Opens a folder that holds no chain for the state with this name, or goes on with it; chunks come in any order.
    ///
    /// # Errors
    /// [`PortableError`], [`PortableError::OtherImport`] if it holds a part of another state.
    pub fn open(config: &Config, chain: &ChainSpec, id: B256) -> Result<Self, PortableError> {
        Self::open_with(config, chain, id, Order::Any)
    }

    pub(super) fn open_with(config: &Config, chain: &ChainSpec, id: B256, order: Order) -> Result<Self, PortableError> {
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
        let reached = match begun(&state)? {
            Some(reached) if reached.id == id => reached,
            Some(_) => return Err(PortableError::OtherImport(dir.clone())),
            None => begin(&state, id)?,
        };
        Ok(Self { state, chain_env, reached, order, _lock })
    }

    /// What a folder holds.
    ///
    /// # Errors
    /// [`PortableError`].
    pub fn held(config: &Config) -> Result<Held, PortableError> {
        if !config.dir.join("state").is_dir() {
            return Ok(Held::Nothing);
        }
        let state = open::environment(&config.dir, "state", tables::STATE_TABLES, config.map_bytes_max)?;
        if open::read_applied(&state)?.is_some() {
            return Ok(Held::Chain);
        }
        Ok(begun(&state)?.map_or(Held::Nothing, |reached| Held::Part(reached.id)))
    }

    /// Lets go of a part of a state that nobody gives any more, if the folder holds one.
    ///
    /// # Errors
    /// [`PortableError`].
    pub fn discard(config: &Config) -> Result<(), PortableError> {
        if let Held::Part(_) = Self::held(config)? {
            let _lock = FolderLock::take(&config.dir)?.ok_or_else(|| OpenError::Locked(config.dir.clone()))?;
            let state = open::environment(&config.dir, "state", tables::STATE_TABLES, config.map_bytes_max)?;
            let mut txn = state.write()?;
            txn.delete(tables::STATE_META, meta::IMPORT)?;
            txn.commit()?;
        }
        Ok(())
    }

    /// Ranges of keys that are missing, the slots of accounts that are here first: so many, or more, if ranges can be
    /// cut.
    #[must_use]
    pub fn gaps(&mut self, least: usize) -> Vec<Gap> {
        let gaps = &mut self.reached.gaps;
        while !gaps.is_empty() && gaps.iter().count() < least && gaps.split() {}
        let mut gaps: Vec<Gap> = gaps.iter().collect();
        gaps.sort_by_key(|gap| (gap.owner.is_none(), *gap));
        gaps
    }

    /// Whether anything of a part is missing.
    pub(super) fn is_missing(&self, part: &Part) -> bool {
        self.reached.gaps.meets(part)
    }

    /// Takes a chunk of the state with this root over, if it is one; of it, what is missing.
    ///
    /// # Errors
    /// [`PortableError::Store`]; inside, the reason why it is none.
    pub fn take(&mut self, root: B256, bytes: &[u8]) -> Result<Result<Part, ChunkError>, PortableError> {
        let chunk = Chunk::decode(bytes);
        let (chunk, checked) = match chunk.and_then(|chunk| chunk.check(root).map(|checked| (chunk, checked))) {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        // What is missing must not grow by what somebody makes up.
        if checked.part.apart.len() > APART_MAX {
            return Ok(Err(ChunkError::Apart(checked.part.apart.len())));
        }
        self.write(&chunk, &checked)?;
        Ok(Ok(checked.part))
    }

    /// Writes the rows of a chunk that are missing, with what is missing then.
    pub(super) fn write(&mut self, chunk: &Chunk, checked: &Checked) -> Result<(), PortableError> {
        if !self.is_missing(&checked.part) {
            return Ok(());
        }
        let (mut txn, mut reached) = (self.state.write()?, self.reached.clone());
        match &chunk.body {
            Body::Accounts(accounts) => self.accounts(&mut txn, accounts, &checked.roots, &mut reached)?,
            Body::Slots(slots) => self.slots(&mut txn, slots)?,
        }
        reached.gaps.fill(&checked.part);
        txn.put(tables::STATE_META, meta::IMPORT, &reached.encode())?;
        txn.commit()?;
        self.reached = reached;
        Ok(())
    }

    fn put(&self, txn: &mut WriteTxn<'_>, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        match self.order {
            Order::Ascending => txn.append(table, key, value),
            Order::Any => txn.put(table, key, value),
        }
    }

    /// Writes accounts that are missing.
    ///
    /// Those whose slots are here get their storage ids before the others, so that keys of slots rise if chunks do.
    fn accounts(
        &self,
        txn: &mut WriteTxn<'_>,
        accounts: &Accounts,
        roots: &[B256],
        reached: &mut Reached,
    ) -> Result<(), PortableError> {
        let mut rows: Vec<_> = accounts.rows.iter().zip(roots).map(|(row, root)| (row, root, 0)).collect();
        rows.retain(|(row, ..)| self.reached.gaps.has(None, row.key));
        for is_apart in [false, true] {
            for (row, _, id) in &mut rows {
                let has_slots = match &row.storage {
                    Storage::Here(slots) => !is_apart && !slots.is_empty(),
                    Storage::Apart(_) => is_apart,
                };
                if has_slots {
                    *id = reached.next_storage_id;
                    reached.next_storage_id = reached.next_storage_id.saturating_add(1);
                }
            }
        }
        for (row, root, id) in rows {
            let stored = AccountRow { account: row.account, storage_id: id, storage_root: *root };
            self.put(txn, tables::ACCOUNT, row.key.as_slice(), &stored.encode())?;
            if let Storage::Here(slots) = &row.storage {
                for (key, value) in slots {
                    self.put(txn, tables::STORAGE, &storage_key(id, key), &value.to_be_bytes_trimmed_vec())?;
                }
            }
        }
        for code in &accounts.codes {
            txn.put(tables::CODE, keccak256(code).as_slice(), code)?;
        }
        Ok(())
    }

    fn slots(&self, txn: &mut WriteTxn<'_>, slots: &Slots) -> Result<(), PortableError> {
        let owner = txn.get(tables::ACCOUNT, slots.owner.key.as_slice())?.and_then(|row| AccountRow::decode(&row));
        let id = owner.map(|owner| owner.storage_id).filter(|id| *id != 0);
        let id = id.ok_or_else(|| PortableError::Store(format!("account {} has no storage", slots.owner.key)))?;
        for (key, value) in slots.rows.iter().filter(|(key, _)| self.reached.gaps.has(Some(slots.owner.key), *key)) {
            self.put(txn, tables::STORAGE, &storage_key(id, key), &value.to_be_bytes_trimmed_vec())?;
        }
        Ok(())
    }

    /// Makes a chain of what was taken over, once nothing is missing: it begins with the newest block of a foundation,
    /// whose state this has to be. The folder can be opened then.
    ///
    /// # Errors
    /// [`PortableError`].
    pub fn finish(
        self,
        chain: &ChainSpec,
        foundation: &Foundation,
        told: &dyn Fn(Progress),
    ) -> Result<(), PortableError> {
        let newest = foundation.blocks.last().ok_or_else(|| PortableError::Setting("no block is final".to_owned()))?;
        self.finish_with((chain, foundation), newest, &FailPoints::default(), 0, told)
    }

    pub(super) fn finish_with(
        self,
        (chain, foundation): (&ChainSpec, &Foundation),
        newest: &CommittedBlock,
        fail: &FailPoints,
        rows: u64,
        told: &dyn Fn(Progress),
    ) -> Result<(), PortableError> {
        if !self.reached.gaps.is_empty() {
            return Err(PortableError::Store("a part of the state is missing".to_owned()));
        }
        let root = nodes::build(&self.state, fail, rows, told)?;
        let expected = newest.block.header.state_root;
        if root != expected {
            return Err(PortableError::Root { what: "the state root".to_owned(), expected, found: root });
        }
        fail.hit("import.nodes").map_err(Fault::Failed)?;
        chain_rows(&self.chain_env, chain, foundation, newest)?;
        fail.hit("import.chain").map_err(Fault::Failed)?;
        let mut txn = self.state.write()?;
        let applied = Applied { height: newest.height(), hash: newest.hash(), root };
        txn.put(tables::STATE_META, meta::NEXT_STORAGE_ID, &self.reached.next_storage_id.to_be_bytes())?;
        txn.put(tables::STATE_META, meta::APPLIED, &applied.encode())?;
        txn.delete(tables::STATE_META, meta::IMPORT)?;
        fail.hit("import.applied").map_err(Fault::Failed)?;
        Ok(txn.commit()?)
    }
}

/// How far the intake of a folder has come, if there is one.
fn begun(state: &Env) -> Result<Option<Reached>, Fault> {
    let row = state.write()?.get(tables::STATE_META, meta::IMPORT)?;
    let reached = row.map(|row| Reached::decode(&row).ok_or_else(|| Fault::corrupt("the import row does not decode")));
    reached.transpose()
}

/// Takes the tables for a state.
fn begin(state: &Env, id: B256) -> Result<Reached, Fault> {
    let mut txn = state.write()?;
    // The load of a genesis state may have been interrupted here.
    for table in [tables::ACCOUNT, tables::STORAGE, tables::CODE, tables::GARBAGE] {
        txn.clear(table)?;
    }
    let reached = Reached { id, next_storage_id: 1, gaps: Gaps::default() };
    txn.put(tables::STATE_META, meta::IMPORT, &reached.encode())?;
    txn.commit()?;
    Ok(reached)
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

/// What an intake writes is read by nobody until it is all there.
pub(crate) fn is_unfinished(state: &Env) -> Result<bool, Fault> {
    Ok(state.write()?.get(tables::STATE_META, meta::IMPORT)?.is_some())
}
