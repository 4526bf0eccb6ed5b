//! What a data folder that no node uses can be asked, and what can be made of it.
//!
//! | | changes | if the process is killed |
//! |---|---|---|
//! | [`stats()`] | nothing | |
//! | [`verify()`] | nothing | |
//! | [`compact()`] | nothing that is told: the tables take less room | the old tables or the new ones |
//! | [`rewind()`] | the chain ends earlier; the log stays as it is | the whole chain, or the shorter one |
//! | [`migrate()`] | rows and files of an older schema get the form of this one | it goes on when it is begun again |
//!
//! Each takes the lock of the folder, and refuses one that is in use, is none, or is of another chain.

pub(crate) mod compact;
pub(crate) mod migrate;
pub(crate) mod rewind;
mod stats;
mod verify;

use std::path::Path;

use engine::genesis::ChainSpec;
use serde::Serialize;

pub use self::{
    compact::{Compacted, compact},
    migrate::{Migrated, migrate},
    rewind::{RewindError, Rewound, rewind},
    stats::{Stats, stats},
    verify::{Bad, Verified, verify},
};
use crate::{
    Config,
    disk::FolderLock,
    error::{Fault, OpenError},
    kv::{self, Env},
    open::{check_chain, stored_identity},
    segment::Identity,
    tables::{CHAIN_TABLES, STATE_TABLES},
};

/// How far a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub what: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub all: u64,
}

/// Hears how far the work is.
pub type Listener<'a> = &'a mut dyn FnMut(Progress);

/// Refuses a folder that holds no store.
///
/// # Errors
/// [`OpenError::NoStore`].
pub fn ensure_store(dir: &Path) -> Result<(), OpenError> {
    let is_there = ["chain", "state"].iter().all(|name| dir.join(name).join(kv::FILE).is_file());
    if is_there { Ok(()) } else { Err(OpenError::NoStore(dir.to_owned())) }
}

/// A data folder that no node uses.
struct Closed {
    chain: Env,
    state: Env,
    identity: Identity,
    _lock: FolderLock,
}

impl Closed {
    /// Opens the folder of a chain; nothing is recovered.
    fn open(dir: &Path, chain: &ChainSpec) -> Result<Self, OpenError> {
        ensure_store(dir)?;
        let lock = FolderLock::take(dir).map_err(Fault::from)?.ok_or_else(|| OpenError::Locked(dir.to_owned()))?;
        let env = |name, tables| Env::open(&dir.join(name), tables, Config::new(dir).map_bytes_max);
        let tables = env("chain", CHAIN_TABLES).map_err(Fault::from)?;
        let stored = stored_identity(&tables.write().map_err(Fault::from)?, dir)?;
        let identity = stored.ok_or_else(|| OpenError::NoStore(dir.to_owned()))?;
        check_chain(dir, identity, chain)?;
        let state = env("state", STATE_TABLES).map_err(Fault::from)?;
        Ok(Self { chain: tables, state, identity, _lock: lock })
    }

    /// Both environments, with their names.
    const fn environments(&self) -> [(&'static str, &Env); 2] {
        [("chain", &self.chain), ("state", &self.state)]
    }
}
