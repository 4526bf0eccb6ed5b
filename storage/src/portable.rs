//! A snapshot of the state in files, which proves itself: made, checked, and taken over by an empty folder.
//!
//! ```text
//! manifest.json   what it is, what shows that its block is final, and the files     (see `manifest`)
//! blocks          the block, what its successors have to know of those before it    (see `blocks`)
//! 000000.chunk    ranges of accounts and of slots, each proven under the state root (see `chunk`)
//! ```
//!
//! Each chunk can be checked alone and in any order; what makes them all of the state is that each begins where the one
//! before ended, which the manifest shows before any of them is read. That the block is final is judged by the caller,
//! who knows validators; nothing here asks for them.

mod blocks;
mod chunk;
mod cut;
mod export;
mod gaps;
mod head;
pub(crate) mod import;
pub(crate) mod intake;
mod manifest;
mod nodes;
pub(crate) mod serve;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::print_stdout, reason = "small random numbers; seeds are printed")]
mod tests;
mod verify;

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use alloy_primitives::B256;
use sha2::{Digest as _, Sha256};

pub(crate) use blocks::HEADERS_MAX;
pub use blocks::{BlocksFile, Carried};
pub use chunk::{Checked, Chunk, ChunkError};
pub use export::export;
pub use gaps::Gap;
pub use head::{Head, carried};
pub use import::{Foundation, Imported, fits, import};
pub(crate) use intake::is_unfinished;
pub use intake::{Held, Intake};
pub use manifest::{ChunkEntry, FileEntry, MANIFEST, Manifest, Part};
pub use verify::{Failure, verify};

use crate::{
    disk::DiskError,
    error::{Fault, OpenError},
    kv::KvError,
    trie::node::TrieError,
};

/// How large chunks may be wished, in bytes. The last one of a trie is smaller; others may be larger by a quarter, by a
/// code and by their proof.
pub const CHUNK_BYTES: RangeInclusive<usize> = 1 << 10..=64 << 20;

/// Why a snapshot was not made, or not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortableError {
    /// The folder to write has something in it.
    #[error("{0} is not empty")]
    NotEmpty(PathBuf),
    /// A setting cannot work.
    #[error("{0}")]
    Setting(String),
    /// The manifest contradicts itself.
    #[error("{MANIFEST}: {0}")]
    Manifest(String),
    /// A file is not what the manifest says, or does not prove itself.
    #[error("{}: {}", .0.file, .0.reason)]
    File(Failure),
    /// The snapshot is of another chain, or of another block than was shown to be final.
    #[error("the snapshot has {what} {found}, not {expected}")]
    Foreign {
        /// Which value.
        what: &'static str,
        /// The expected one.
        expected: String,
        /// The snapshot's.
        found: String,
    },
    /// The folder that is to take it over holds a chain.
    #[error("{0} holds a chain already")]
    HoldsChain(PathBuf),
    /// The folder holds the beginning of another import.
    #[error("{0} holds the beginning of the import of another snapshot: go on with that, or remove the folder")]
    OtherImport(PathBuf),
    /// What was written does not make the state root.
    #[error("what was imported makes {what} {found}, not {expected}")]
    Root {
        /// Which root.
        what: String,
        /// The right one.
        expected: B256,
        /// What was found.
        found: B256,
    },
    /// Reading or writing failed, or what is stored contradicts itself.
    #[error("{0}")]
    Store(String),
}

impl From<Fault> for PortableError {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.to_string())
    }
}

impl From<DiskError> for PortableError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<KvError> for PortableError {
    fn from(error: KvError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<TrieError> for PortableError {
    fn from(error: TrieError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<OpenError> for PortableError {
    fn from(error: OpenError) -> Self {
        Self::Store(error.to_string())
    }
}

/// How far something has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is done, of [`Self::all`].
    pub done: u64,
    /// All there is to do.
    pub all: u64,
    /// Chunks that are done.
    pub chunks: u64,
    /// Accounts and slots that are done.
    pub rows: u64,
}

/// A snapshot in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes: the name of this snapshot.
    pub id: B256,
}

impl Source {
    /// Reads the manifest in a folder.
    ///
    /// # Errors
    /// [`PortableError`].
    pub fn open(dir: &Path) -> Result<Self, PortableError> {
        let text = verify::read(&dir.join(MANIFEST), manifest::MANIFEST_BYTES_MAX).map_err(PortableError::Manifest)?;
        let manifest = Manifest::parse(&text)?;
        Ok(Self { dir: dir.to_owned(), manifest, id: B256::new(Sha256::digest(&text).into()) })
    }

    /// Reads the file with blocks.
    ///
    /// # Errors
    /// [`PortableError::File`].
    pub fn blocks(&self) -> Result<BlocksFile, PortableError> {
        let FileEntry { file, bytes, sha256 } = &self.manifest.blocks;
        let found = verify::named(&self.dir, file, *bytes, *sha256).and_then(|bytes| BlocksFile::decode(&bytes));
        found.map_err(|reason| PortableError::File(Failure { file: file.clone(), reason }))
    }
}
