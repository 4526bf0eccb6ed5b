//! State and blocks of a store into files: chunks first, each synced, the manifest last.
//!
//! Memory is bounded by a chunk. Every node and row that is read is compared with what its parent names, so a store
//! that is damaged gives an error and no snapshot.

use std::{path::Path, sync::Arc};

use alloy_primitives::B256;
use engine::{
    ports::Store as _,
    types::{CommittedBlock, Height},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    CHUNK_BYTES, PortableError, Progress,
    blocks::{BlocksFile, Carried, HEADERS_MAX},
    chunk::{Body, Chunk},
    cut::Cutter,
    manifest::{BLOCKS, ChunkEntry, FileEntry, Head, MANIFEST, Manifest, Part, after, chunk_name},
};
use crate::{
    disk::{Disk as _, RealDisk},
    error::Fault,
    offline,
    store::{Database, Inner},
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
    let trie = offline::rewind::state_at(inner, newest.height())?;
    RealDisk.create_dir(dir)?;
    if !RealDisk.list(dir)?.is_empty() {
        return Err(PortableError::NotEmpty(dir.to_owned()));
    }
    let view = store.view(inner.blocks.tip().height()).map_err(|error| PortableError::Store(error.to_string()))?;
    let progress = Progress { all: u64::from(u32::MAX), ..Progress::default() };
    let cutter = Cutter { trie: &trie, source: &inner.snapshots, view: &*view, chunk_bytes };
    let exporter = Exporter { inner, cutter, dir, chunks: Vec::new(), progress, told };
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

pub(super) fn blocks_file(store: &Database, blocks: &[Arc<CommittedBlock>]) -> Result<BlocksFile, PortableError> {
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
    cutter: Cutter<'a>,
    dir: &'a Path,
    chunks: Vec<ChunkEntry>,
    progress: Progress,
    told: &'a dyn Fn(Progress),
}

impl Exporter<'_> {
    /// Writes all chunks.
    fn state(mut self) -> Result<Vec<ChunkEntry>, PortableError> {
        let mut next = Some(B256::ZERO);
        while let Some(from) = next {
            let (accounts, ends) = self.cutter.accounts(from)?;
            let part = accounts.part(ends);
            let (last, apart) = (part.last, part.apart.clone());
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
        let bytes = Chunk { root: self.cutter.trie.hash, body }.encode();
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

    /// Writes the slots of an account.
    fn slots(&mut self, owner: B256) -> Result<(), PortableError> {
        let mut next = Some(B256::ZERO);
        while let Some(from) = next {
            let gone = || PortableError::Store(format!("account {owner} is not there"));
            let (slots, ends) = self.cutter.slots(owner, from)?.ok_or_else(gone)?;
            let part = slots.part(ends);
            next = if ends { None } else { part.last.and_then(after) };
            self.chunk(Body::Slots(slots), part)?;
        }
        Ok(())
    }
}
