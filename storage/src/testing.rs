//! A machine whose power can be cut: segments and log on a disk in memory that tears what was not synced.
//!
//! MDBX is the real one, in a folder that stays. With its background threads off, a cut between two calls leaves it
//! what its durable mode promises: every transaction that was committed, and nothing of any other.

pub mod decoders;
pub mod world;

use std::{path::Path, sync::Arc, time::Duration};

use alloy_primitives::{B256, Bytes};
use engine::{genesis::ChainSpec, ports::StoreError, types::Height};

use crate::{
    Config, Database, OpenError, checkpoint,
    disk::{Disk, faulty::FaultyDisk},
    failpoint::{Action, FailPoints},
    portable::serve,
    store::CheckpointPolicy,
    trie::evict,
};

/// The disk of such a machine.
#[derive(Clone, Default)]
pub struct TornDisk(FaultyDisk);

impl std::fmt::Debug for TornDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TornDisk")
    }
}

impl TornDisk {
    /// Opens the data folder, whose MDBX lies in `dir`, on this thread alone.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open(&self, dir: &Path, chain: &Arc<ChainSpec>) -> Result<Database, OpenError> {
        let config = Config {
            segment_bytes: 256 << 10,
            // Room for the large bodies of all blocks that are not final yet.
            log_bytes: 1 << 20,
            checkpoint: CheckpointPolicy { interval: Duration::from_secs(3_600), ..CheckpointPolicy::default() },
            map_bytes_max: 1 << 30,
            background: false,
            ..Config::new(dir)
        };
        let fail = FailPoints::parse(None, Action::Fail).map_err(OpenError::Config)?;
        let disk: Arc<dyn Disk> = Arc::new(self.0.clone());
        Database::open_on(disk, fail, config, Arc::clone(chain))
    }

    /// Cuts the power: what was synced stays, and of the rest what the seed says. The database must be gone.
    pub fn cut(&mut self, seed: u64) {
        self.0 = self.0.crashed(seed);
    }

    /// The log's files are gone.
    pub fn lose_log(&self) {
        for path in self.0.names().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")) {
            self.0.forget(&path);
        }
    }
}

/// Ends a database as a power cut does: nothing more is written.
pub fn crash(store: Database) {
    store.stop_threads();
    drop(store);
}

/// The height up to which segments hold nothing: 0, or that of a state that was imported, or of blocks that went.
#[must_use]
pub fn lowest(store: &Database) -> Height {
    store.inner.segments.lowest()
}

/// A part of the state after a block, as peers get it, but of some other size.
///
/// # Errors
/// As [`engine::ports::Store::state_part`].
pub fn state_part(
    store: &Database,
    block: B256,
    (owner, from): (Option<B256>, B256),
    bytes: usize,
) -> Result<Bytes, StoreError> {
    serve::part(store, block, (owner, from), bytes)
}

/// Forgets the leaves of storage that the trie of the newest checkpoint has in memory; gives the bytes of what it has
/// beside.
#[must_use]
pub fn trie_bytes(store: &Database) -> usize {
    evict::evict(&store.inner.checkpointed.lock().trie, usize::MAX)
}

/// Writes a checkpoint as [`Database::checkpoint`] does, but reads nothing ahead of its one writer.
///
/// # Errors
/// As [`Database::checkpoint`].
pub fn checkpoint_serially(store: &Database) -> Result<(), StoreError> {
    Ok(checkpoint::run_with(&store.inner, |_, _| Ok(()))?)
}
