//! State and blocks of a store into files: chunks first, each synced, the manifest last.
//!
//! Memory is bounded by a chunk. Every node and row that is read is compared with what its parent names, so a store
//! that is damaged gives an error and no snapshot.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY};
use engine::{
    ports::{StateView, Store as _},
    types::{CommittedBlock, Height},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    CHUNK_BYTES, PortableError, Progress,
    blocks::{BlocksFile, Carried, HEADERS_MAX},
    chunk::{Accounts, Body, Chunk, Row, Slots, Storage, slot_size},
    manifest::{BLOCKS, ChunkEntry, FileEntry, Head, MANIFEST, Manifest, Part, after, chunk_name},
};
use crate::{
    disk::{Disk as _, RealDisk},
    error::Fault,
    offline,
    store::{Database, Inner},
    trie::{
        node::{Source, Tree, Value as Leaf},
        proof::prove,
        range::{Range, edges, range, rows},
        state::{AccountLeaf, AccountSource, StateTrie, StorageSource},
    },
};

/// Writes a snapshot of the state after a block into a folder, which is empty or not there.
///
/// `finality` names the blocks that are carried, in order of height and that block last, with what shows that they are
/// final; whether that is so is for the caller to see. The store must not commit blocks meanwhile.
///
/// # Errors
/// [`PortableError`]; what was written so far stays in the folder, without a manifest.
pub fn export(
    store: &Database,
    finality: Vec<(Height, Value)>,
    dir: &Path,
    chunk_bytes: usize,
    told: &dyn Fn(Progress),
) -> Result<Manifest, PortableError> {
    if !CHUNK_BYTES.contains(&chunk_bytes) {
        return Err(PortableError::Setting(format!("chunks of {chunk_bytes} bytes: {CHUNK_BYTES:?}")));
    }
    let inner = &store.inner;
    crate::checkpoint::run(inner)?;
    let (heights, finality): (Vec<Height>, Vec<Value>) = finality.into_iter().unzip();
    let blocks = heights.iter().map(|height| block(store, *height)).collect::<Result<Vec<_>, _>>()?;
    let newest = blocks.last().ok_or_else(|| PortableError::Setting("no block is named".to_owned()))?;
    let trie = Arc::new(offline::rewind::state_at(inner, newest.height())?);
    RealDisk.create_dir(dir)?;
    if !RealDisk.list(dir)?.is_empty() {
        return Err(PortableError::NotEmpty(dir.to_owned()));
    }
    let view = store.view(inner.blocks.tip().height()).map_err(|error| PortableError::Store(error.to_string()))?;
    let progress = Progress { all: u64::from(u32::MAX), ..Progress::default() };
    let exporter = Exporter { inner, view, trie, dir, chunk_bytes, chunks: Vec::new(), progress, told };
    let chunks = exporter.state()?;
    let blocks_file = write(dir, BLOCKS, &blocks_file(store, &blocks)?.encode())?;
    let head = Head {
        chain_id: inner.chain.chain_id,
        chain_digest: inner.chain.digest(),
        height: newest.height().0,
        hash: newest.hash(),
        state_root: newest.block.header.state_root,
        finality,
    };
    let manifest = Manifest::new(head, blocks_file, chunks);
    inner.fail.hit("export.manifest").map_err(Fault::Failed)?;
    let beside = format!("{MANIFEST}.new");
    write(dir, &beside, manifest.to_json().as_bytes())?;
    // Every file's name is durable before the manifest has its own.
    RealDisk.sync_dir(dir)?;
    RealDisk.rename(&dir.join(beside), &dir.join(MANIFEST))?;
    RealDisk.sync_dir(dir)?;
    Ok(manifest)
}

fn block(store: &Database, height: Height) -> Result<Arc<CommittedBlock>, PortableError> {
    let found = store.block(height).map_err(|error| PortableError::Store(error.to_string()))?;
    found.ok_or_else(|| PortableError::Setting(format!("there is no block {height}")))
}

fn blocks_file(store: &Database, blocks: &[Arc<CommittedBlock>]) -> Result<BlocksFile, PortableError> {
    let carried = blocks.iter().map(|block| {
        let carried = Carried::of(block);
        carried.ok_or_else(|| PortableError::Setting(format!("block {} is final by itself", block.height())))
    });
    let carried = carried.collect::<Result<_, _>>()?;
    let newest = blocks.last().map_or(0, |block| block.height().0);
    let headers = (newest.saturating_sub(HEADERS_MAX).max(1)..newest).rev().map(|height| {
        let header = store.inner.blocks.header(Height(height))?;
        header.ok_or_else(|| PortableError::Store(format!("the header of block {height} is missing")))
    });
    Ok(BlocksFile { blocks: carried, headers: headers.collect::<Result<_, _>>()? })
}

/// Writes a file and syncs it.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry, PortableError> {
    let file = RealDisk.create(&dir.join(name))?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    let (length, sha256) = (u64::try_from(bytes.len()).unwrap_or(u64::MAX), B256::new(Sha256::digest(bytes).into()));
    Ok(FileEntry { file: name.to_owned(), bytes: length, sha256 })
}

struct Exporter<'a> {
    inner: &'a Inner,
    view: Arc<dyn StateView>,
    trie: Arc<StateTrie>,
    dir: &'a Path,
    chunk_bytes: usize,
    chunks: Vec<ChunkEntry>,
    progress: Progress,
    told: &'a dyn Fn(Progress),
}

/// Whether a trie has nothing behind a key.
fn ends<V: Leaf>(
    tree: &Tree<B256, V>,
    last: Option<B256>,
    source: &dyn Source<B256, V>,
) -> Result<bool, PortableError> {
    let Some(next) = last.and_then(after) else { return Ok(true) };
    Ok(rows(tree, next, source, |_, _| false)?.is_empty())
}

impl Exporter<'_> {
    /// Writes all chunks.
    fn state(mut self) -> Result<Vec<ChunkEntry>, PortableError> {
        let mut next = Some(B256::ZERO);
        while let Some(from) = next {
            let accounts = self.accounts(from)?;
            let last = accounts.rows.last().map(|row| row.key);
            let ends = ends(&self.trie.root, last, &AccountSource(&self.inner.snapshots))?;
            let apart: Vec<Row> =
                accounts.rows.iter().filter(|row| matches!(row.storage, Storage::Apart(_))).cloned().collect();
            let part = accounts.part(ends);
            self.chunk(Body::Accounts(accounts), part)?;
            for owner in apart {
                self.slots(owner)?;
            }
            next = if ends { None } else { last.and_then(after) };
        }
        (self.told)(Progress { done: self.progress.all, ..self.progress });
        Ok(self.chunks)
    }

    fn chunk(&mut self, body: Body, part: Part) -> Result<(), PortableError> {
        let name = chunk_name(self.chunks.len());
        let bytes = Chunk { root: self.trie.hash, body }.encode();
        let FileEntry { file, bytes, sha256 } = write(self.dir, &name, &bytes)?;
        let progress = &mut self.progress;
        progress.rows = progress.rows.saturating_add(part.rows).saturating_add(part.slots);
        progress.chunks = progress.chunks.saturating_add(1);
        // Keys are hashes, so that the first bits of an account's tell how much of the state lies before it.
        let share = part.owner.or(part.last).map_or(0, |key| u32::from_be_bytes([key[0], key[1], key[2], key[3]]));
        progress.done = progress.done.max(u64::from(share));
        (self.told)(*progress);
        self.chunks.push(ChunkEntry { file, bytes, sha256, part });
        Ok(self.inner.fail.hit("export.chunk").map_err(Fault::Failed)?)
    }

    fn accounts(&self, from: B256) -> Result<Accounts, PortableError> {
        let source = AccountSource(&self.inner.snapshots);
        let (mut taken, mut codes, mut bytes, mut failure) = (Vec::new(), BTreeMap::new(), 0_usize, None);
        rows(&self.trie.root, from, &source, |key, leaf| {
            match self.row(key, leaf, &mut codes, &mut bytes) {
                Ok(row) => taken.push(row),
                Err(error) => failure = Some(error),
            }
            failure.is_none() && bytes < self.chunk_bytes
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let proof = edges(&self.trie.root, from, taken.last().map(|row| &row.key), &source)?;
        Ok(Accounts { from, rows: taken, codes: codes.into_values().collect(), proof })
    }

    /// An account with what of it fits a chunk; adds its code.
    fn row(
        &self,
        key: &B256,
        leaf: &AccountLeaf,
        codes: &mut BTreeMap<B256, Bytes>,
        bytes: &mut usize,
    ) -> Result<Row, PortableError> {
        let source = StorageSource { source: &self.inner.snapshots, id: leaf.storage.id() };
        let mut left = self.chunk_bytes / 4;
        let slots = rows(&leaf.storage.root, B256::ZERO, &source, |key, value| {
            left = left.saturating_sub(slot_size(&(*key, *value)));
            left > 0
        })?;
        let storage = if left == 0 { Storage::Apart(leaf.storage.hash) } else { Storage::Here(slots) };
        let row = Row { key: *key, account: leaf.account, storage };
        *bytes = bytes.saturating_add(row.size());
        let hash = leaf.account.code_hash;
        if hash != KECCAK256_EMPTY && !codes.contains_key(&hash) {
            let code = self.view.code(hash).map_err(|error| PortableError::Store(error.to_string()))?;
            *bytes = bytes.saturating_add(code.len());
            codes.insert(hash, code);
        }
        Ok(row)
    }

    /// Writes the slots of an account.
    fn slots(&mut self, owner: Row) -> Result<(), PortableError> {
        let source = AccountSource(&self.inner.snapshots);
        let (leaf, owner_proof) = prove(&self.trie.root, &owner.key, &source)?;
        let storage = leaf.map(|leaf| leaf.storage).unwrap_or_default();
        let source = StorageSource { source: &self.inner.snapshots, id: storage.id() };
        let mut next = Some(B256::ZERO);
        while let Some(from) = next {
            let mut bytes = 0_usize;
            let Range { rows, proof } = range(&storage.root, from, &source, |key, value| {
                bytes = bytes.saturating_add(slot_size(&(*key, *value)));
                bytes < self.chunk_bytes
            })?;
            let last = rows.last().map(|(last, _)| *last);
            let ends = ends(&storage.root, last, &source)?;
            let slots = Slots { owner: owner.clone(), owner_proof: owner_proof.clone(), from, rows, proof };
            let part = slots.part(ends);
            self.chunk(Body::Slots(slots), part)?;
            next = if ends { None } else { last.and_then(after) };
        }
        Ok(())
    }
}
