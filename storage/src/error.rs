//! Errors: why a folder does not open, and what went wrong below the ports.

use std::path::PathBuf;

use alloy_primitives::B256;
use engine::{
    ports::{StateError, StoreError},
    types::Height,
};

use crate::{disk::DiskError, kv::KvError, trie::node::TrieError};

/// Why a database folder does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the folder.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The folder holds no store.
    #[error("{0} is no data folder")]
    NoStore(PathBuf),
    /// The folder belongs to another chain, or to the same one under other parameters.
    #[error(
        "{dir} holds another genesis: chain {} with parameters {}, not chain {} with {}",
        found.0, found.1, expected.0, expected.1
    )]
    WrongChain {
        /// The folder.
        dir: PathBuf,
        /// Chain id and digest in the folder.
        found: (u64, B256),
        /// Chain id and digest asked for.
        expected: (u64, B256),
    },
    /// A newer program wrote the folder.
    #[error("{dir} has schema {}.{}, this program knows up to {}.{}", found.0, found.1, known.0, known.1)]
    NewerSchema {
        /// The folder.
        dir: PathBuf,
        /// Schema in the folder.
        found: (u16, u16),
        /// Newest schema this program knows.
        known: (u16, u16),
    },
    /// A program wrote the folder whose records this one does not read.
    #[error(
        "{dir} has schema {}.{}, this program reads {}.{}: start with a new folder",
        found.0, found.1, known.0, known.1
    )]
    OlderSchema {
        /// The folder.
        dir: PathBuf,
        /// Schema in the folder.
        found: (u16, u16),
        /// The schema that this program reads.
        known: (u16, u16),
    },
    /// The folder is on a disk of another machine.
    #[error(
        "{dir} is on {system}, a disk of another machine: syncs, locks and mapped files are not what they are here"
    )]
    RemoteDisk {
        /// The folder.
        dir: PathBuf,
        /// The kind of file system.
        system: &'static str,
    },
    /// The genesis header names another state than the genesis accounts make.
    #[error("genesis header has state root {header}, its accounts have {accounts}")]
    GenesisRoot {
        /// Root in the header.
        header: B256,
        /// Root of the accounts.
        accounts: B256,
    },
    /// The import of a snapshot into the folder did not end.
    #[error(
        "{0} holds a part of a snapshot: import it again or start with --snapshot-sync, whichever began it, or remove the folder"
    )]
    Unfinished(PathBuf),
    /// All blocks are to be kept, and some are gone.
    #[error(
        "{dir} keeps blocks from height {lowest} on, not all as mode {mode} does: run it as a validator, or begin anew"
    )]
    Pruned {
        /// The folder.
        dir: PathBuf,
        /// Height of the lowest block that is kept.
        lowest: Height,
        /// The mode that was asked for.
        mode: &'static str,
    },
    /// A setting cannot work.
    #[error("storage setting {0}")]
    Config(String),
    /// Reading or writing failed.
    #[error("storage failed: {0}")]
    Failed(String),
    /// Stored bytes contradict themselves.
    #[error("storage is corrupt: {0}")]
    Corrupt(String),
}

/// What goes wrong inside this room, before it is told in the words of a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Reading or writing failed.
    #[error("{0}")]
    Failed(String),
    /// Stored bytes contradict themselves.
    #[error("{0}")]
    Corrupt(String),
    /// The disk has no room; nothing was written.
    #[error("{0}")]
    Full(String),
}

impl Fault {
    /// A contradiction, in words.
    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt(text.into())
    }
}

impl From<KvError> for Fault {
    fn from(error: KvError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<TrieError> for Fault {
    fn from(error: TrieError) -> Self {
        match error {
            TrieError::Unreadable(text) => Self::Failed(text),
            mismatch @ TrieError::Mismatch { .. } => Self::Corrupt(mismatch.to_string()),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(text) => Self::Failed(text),
            Fault::Corrupt(text) => Self::Corrupt(text),
            Fault::Full(text) => Self::Full(text),
        }
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(text) | Fault::Full(text) => Self::Unreadable(text),
            Fault::Corrupt(text) => Self::Corrupt(text),
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(text) | Fault::Full(text) => Self::Failed(text),
            Fault::Corrupt(text) => Self::Corrupt(text),
        }
    }
}
