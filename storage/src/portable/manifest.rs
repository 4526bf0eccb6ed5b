//! The manifest of a snapshot: which state it is, what shows that it is final, and which files hold it.
//!
//! ```json
//! { "format": "sluice-snapshot", "version": 1, "chain_id": 1001, "chain_digest": "0x..",
//!   "height": 36000, "hash": "0x..", "state_root": "0x..", "finality": [{}],
//!   "blocks": { "file": "blocks", "bytes": 12345, "sha256": "0x.." },
//!   "chunks": [{ "file": "000000.chunk", "bytes": 12345, "sha256": "0x..",
//!                "part": { "from": "0x..", "last": "0x..", "rows": 7, "slots": 9, "apart": [], "ends": true } }] }
//! ```
//!
//! `finality` has for each block of the file `blocks` what shows that it is final, in the form of finality files; the
//! last one is the block whose state this is. Whoever uses the snapshot judges that; here it is passed on. A part goes
//! from a key to the key of its last row; `owner` names the account if its rows are slots; `apart` lists accounts whose
//! slots follow in chunks of their own, in this order, before the next accounts; `ends` says that the trie has nothing
//! behind it. Files are named by their place. Unknown fields, formats and versions are refused.

use std::collections::VecDeque;

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PortableError;

/// Name of the manifest in its folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the file with blocks.
pub(super) const BLOCKS: &str = "blocks";
/// Largest manifest that is read, in bytes: some hundred thousand chunks.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

const FORMAT: &str = "sluice-snapshot";
const VERSION: u64 = 1;

/// A file of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: B256,
}

/// A chunk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntry {
    /// Its name in the folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: B256,
    /// What it holds.
    pub part: Part,
}

/// Which part of the state a chunk is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The account whose slots these are, by its hashed address; `None` for accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<B256>,
    /// First key that may be in it.
    pub from: B256,
    /// Key of its last row; `None` if it has none.
    pub last: Option<B256>,
    /// Accounts, or slots of the owner.
    pub rows: u64,
    /// Slots that travel with their accounts.
    pub slots: u64,
    /// Accounts whose slots are in chunks of their own.
    pub apart: Vec<B256>,
    /// Nothing lies behind it.
    pub ends: bool,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u64,
    /// Chain id.
    pub chain_id: u64,
    /// Digest of everything that makes the chain.
    pub chain_digest: B256,
    /// Height of the block whose state this is.
    pub height: u64,
    /// Its hash.
    pub hash: B256,
    /// Its state root.
    pub state_root: B256,
    /// What shows that blocks are final; of the block itself last.
    pub finality: Vec<Value>,
    /// The file with the blocks.
    pub blocks: FileEntry,
    /// The chunks, in order.
    pub chunks: Vec<ChunkEntry>,
}

/// What a manifest is made of, apart from its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) chain_id: u64,
    pub(super) chain_digest: B256,
    pub(super) height: u64,
    pub(super) hash: B256,
    pub(super) state_root: B256,
    pub(super) finality: Vec<Value>,
}

/// The name of a chunk's file.
pub(super) fn chunk_name(index: usize) -> String {
    format!("{index:06}.chunk")
}

/// The next key; `None` behind the last.
pub(super) fn after(key: B256) -> Option<B256> {
    U256::from_be_bytes(key.0).checked_add(U256::ONE).map(B256::from)
}

impl Manifest {
    pub(super) fn new(head: Head, blocks: FileEntry, chunks: Vec<ChunkEntry>) -> Self {
        let Head { chain_id, chain_digest, height, hash, state_root, finality } = head;
        let (format, version) = (FORMAT.to_owned(), VERSION);
        Self { format, version, chain_id, chain_digest, height, hash, state_root, finality, blocks, chunks }
    }

    /// Its text.
    ///
    /// # Panics
    /// Never: it is made of numbers and strings.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    /// Reads a manifest; its chunks follow one another from the first key to the last, none missing and none twice.
    ///
    /// # Errors
    /// [`PortableError::Manifest`], naming the file that is out of place.
    pub fn parse(text: &[u8]) -> Result<Self, PortableError> {
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| refused(format!("it does not decode: {error}")))?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            let Self { format, version, .. } = &manifest;
            return Err(refused(format!("it is {format:?}, version {version}, not {FORMAT:?}, version {VERSION}")));
        }
        if manifest.blocks.file != BLOCKS {
            return Err(refused(format!("{:?} is no file of blocks", manifest.blocks.file)));
        }
        if manifest.finality.is_empty() {
            return Err(refused("nothing shows that its block is final".to_owned()));
        }
        let mut course = Course { accounts: Some(B256::ZERO), apart: VecDeque::new() };
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let name = chunk_name(index);
            if chunk.file != name {
                return Err(refused(format!("chunk {index} is {:?}, not {name:?}", chunk.file)));
            }
            course.take(&chunk.part).map_err(|reason| refused(format!("{name}: {reason}")))?;
        }
        course.end().map_err(refused)?;
        Ok(manifest)
    }
}

fn refused(reason: String) -> PortableError {
    PortableError::Manifest(reason)
}

/// Where the next chunk has to begin.
struct Course {
    /// The first account that is not covered; `None` behind the last.
    accounts: Option<B256>,
    /// Accounts whose slots have to follow, the first with its first slot that is not covered.
    apart: VecDeque<(B256, B256)>,
}

impl Course {
    fn take(&mut self, part: &Part) -> Result<(), String> {
        let next = match (part.ends, part.last) {
            (true, _) => None,
            (false, Some(last)) if last >= part.from => after(last),
            (false, _) => return Err("it has no row and does not end".to_owned()),
        };
        if let Some((owner, from)) = self.apart.front().copied() {
            if part.owner != Some(owner) {
                return Err(format!("the slots of account {owner} from {from} are missing before it"));
            }
            begins(from, part.from, "slots")?;
            match next {
                Some(next) => self.apart[0].1 = next,
                None => drop(self.apart.pop_front()),
            }
            return Ok(());
        }
        if let Some(owner) = part.owner {
            return Err(format!("slots of account {owner} are not expected here"));
        }
        let Some(from) = self.accounts else { return Err("all accounts came before".to_owned()) };
        begins(from, part.from, "accounts")?;
        let is_in = |key: &B256| *key >= part.from && part.last.is_some_and(|last| *key <= last);
        if !part.apart.iter().all(is_in) || part.apart.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("accounts with slots apart are not its own, or not in order".to_owned());
        }
        self.apart = part.apart.iter().map(|owner| (*owner, B256::ZERO)).collect();
        self.accounts = next;
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        match (self.apart.front(), self.accounts) {
            (Some((owner, from)), _) => Err(format!("the slots of account {owner} from {from} are missing")),
            (None, Some(from)) => Err(format!("the accounts from {from} are missing")),
            (None, None) => Ok(()),
        }
    }
}

fn begins(expected: B256, found: B256, what: &str) -> Result<(), String> {
    match found.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            Err(format!("it begins with {found}, and the {what} from {expected} are missing"))
        }
        std::cmp::Ordering::Less => Err(format!("it begins with {found}, and came before up to {expected}")),
    }
}
