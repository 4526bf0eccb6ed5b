//! Files of the log: their header, and how a spare becomes one.
//!
//! ```text
//! NNNNNNNN.log  header, 4,096 bytes: magic "SLUICLOG" | major u16 | minor u16 | chain id u64 | chain digest 32
//!               | hash of block 0 32 | salt u64 | number u32 | size u64 | CRC32C u32 over all before it | zeros
//!               records (see `record`), then zeros to the end
//! spare.log     the next file: all zeros, written and synced in the background
//! ```

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::B256;
use engine::genesis::ChainSpec;

use super::record::{FRONT_BYTES, Front, Mark, Unsealed};
use crate::{
    disk::{Disk, DiskError, DiskFile},
    error::{Fault, OpenError},
    failpoint::FailPoints,
    tables::{Fields, SCHEMA},
};

/// Offset of the first record.
pub(super) const FIRST_OFFSET: u64 = 4_096;
/// Smallest file of the log that makes sense, in bytes.
pub(crate) const LOG_BYTES_MIN: u64 = 8_192;
/// Largest file of the log, in bytes: it is read at once when the log is opened.
pub(crate) const LOG_BYTES_MAX: u64 = 1 << 30;
const MAGIC: &[u8; 8] = b"SLUICLOG";
const HEADER_LENGTH: usize = 8 + 4 + 8 + 32 + 32 + 8 + 4 + 8 + 4;

/// Which chain a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) chain_id: u64,
    pub(crate) chain_digest: B256,
    pub(crate) genesis_hash: B256,
}

impl Identity {
    pub(crate) fn of(chain: &ChainSpec) -> Self {
        Self { chain_id: chain.chain_id, chain_digest: chain.digest(), genesis_hash: chain.genesis_hash() }
    }
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) salt: u64,
    pub(super) number: u32,
    pub(super) size: u64,
}

/// A file of the log.
pub(super) struct Generation {
    pub(super) header: Header,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
}

/// A number that nobody outside this process can know: the standard library seeds its hashers from the system.
fn random() -> u64 {
    // Zeros must not look like the beginning of a record.
    RandomState::new().hash_one("salt").max(1)
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LENGTH);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&SCHEMA.0.to_be_bytes());
        out.extend_from_slice(&SCHEMA.1.to_be_bytes());
        out.extend_from_slice(&self.identity.chain_id.to_be_bytes());
        out.extend_from_slice(self.identity.chain_digest.as_slice());
        out.extend_from_slice(self.identity.genesis_hash.as_slice());
        out.extend_from_slice(&self.salt.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    /// Decodes a header with its schema, `None` if it is damaged.
    fn decode(bytes: &[u8]) -> Option<((u16, u16), Self)> {
        let bytes = bytes.get(..HEADER_LENGTH)?;
        let mut fields = Fields(bytes);
        let magic = fields.bytes(MAGIC.len())?;
        let schema = (fields.u16()?, fields.u16()?);
        let identity = Identity { chain_id: fields.u64()?, chain_digest: fields.hash()?, genesis_hash: fields.hash()? };
        let header = Self { identity, salt: fields.u64()?, number: fields.u32()?, size: fields.u64()? };
        let is_whole = magic == MAGIC && crc32c::crc32c(&bytes[..HEADER_LENGTH - 4]) == fields.u32()?;
        is_whole.then_some((schema, header))
    }
}

/// Path of a file of the log.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Numbers of the files in a folder, in rising order.
pub(super) fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u32>, DiskError> {
    let number = |name: &String| {
        let number = name.strip_suffix(".log")?.parse().ok()?;
        (path(dir, number).file_name() == Some(name.as_ref())).then_some(number)
    };
    let mut numbers: Vec<u32> = disk.list(dir)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a file whole; `None` in place of a header that is damaged or that of another file.
///
/// # Errors
/// A file that this program cannot read, or of another chain than `identity`.
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    number: u32,
    identity: Option<Identity>,
) -> Result<Option<(Generation, Vec<u8>)>, OpenError> {
    let path = path(dir, number);
    let file = disk.open(&path).map_err(Fault::from)?;
    let length = file.length().map_err(Fault::from)?;
    let mut front = vec![0; HEADER_LENGTH.min(usize::try_from(length).unwrap_or(usize::MAX))];
    file.read_at(&mut front, 0).map_err(Fault::from)?;
    let Some((schema, header)) = Header::decode(&front) else { return Ok(None) };
    if schema.0 > SCHEMA.0 {
        return Err(OpenError::NewerSchema { dir: path, found: schema, known: SCHEMA });
    }
    if schema.0 < SCHEMA.0 {
        return Err(OpenError::OlderSchema { dir: path, found: schema, known: SCHEMA });
    }
    if let Some(identity) = identity.filter(|identity| *identity != header.identity) {
        return Err(OpenError::WrongChain {
            dir: path,
            found: (header.identity.chain_id, header.identity.chain_digest),
            expected: (identity.chain_id, identity.chain_digest),
        });
    }
    if header.number != number || !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&header.size) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(header.size.min(length)).unwrap_or_default()];
    file.read_at(&mut bytes, 0).map_err(Fault::from)?;
    Ok(Some((Generation { header, file, path }, bytes)))
}

/// Turns a spare of `size` bytes into the file `number` that begins with `state`; returns it with the offset behind
/// that record, which is durable.
///
/// | the process ends | what is there |
/// |---|---|
/// | before the rename | the older files as they were; the spare is zeroed again |
/// | after it, before the sync of the folder | the older files, and after a power cut maybe this one, whole |
/// | later | this one, whole; the older ones are not read again |
pub(super) fn begin(
    (disk, dir, fail): (&dyn Disk, &Path, &FailPoints),
    (identity, number, size): (Identity, u32, u64),
    (state, sequence, mark): (Unsealed, u64, Mark),
    spare: Arc<dyn DiskFile>,
) -> Result<(Generation, u64), Fault> {
    let header = Header { identity, salt: random(), number, size };
    let generation = Generation { header, file: spare, path: path(dir, number) };
    let end = FIRST_OFFSET.saturating_add(state.length());
    fail.hit("log.roll.before_header").map_err(Fault::Failed)?;
    generation.file.write_at(&header.encode(), 0)?;
    generation.file.write_at(&state.seal(header.salt, sequence, 0, mark), FIRST_OFFSET)?;
    generation.file.sync()?;
    fail.hit("log.roll.before_rename").map_err(Fault::Failed)?;
    disk.rename(&dir.join(super::spare::NAME), &generation.path)?;
    fail.hit("log.roll.before_dir_sync").map_err(Fault::Failed)?;
    disk.sync_dir(dir)?;
    fail.hit("log.roll.after").map_err(Fault::Failed)?;
    Ok((generation, end))
}

/// Offset behind the last byte that is not zero; `from` if there is none behind it.
pub(super) fn used(bytes: &[u8], from: usize) -> usize {
    let zeros = [0; 4_096];
    let tail = bytes.get(from..).unwrap_or_default();
    let is_used = |chunk: &&[u8]| **chunk != zeros[..chunk.len()];
    let chunks: Vec<&[u8]> = tail.chunks(zeros.len()).collect();
    let Some(last) = chunks.iter().rposition(is_used) else { return from };
    let within = chunks[last].iter().rposition(|byte| *byte != 0).map_or(0, |at| at.saturating_add(1));
    from.saturating_add(last.saturating_mul(zeros.len())).saturating_add(within)
}

/// The first front of a record of this file at or behind `from`.
pub(super) fn next_front(bytes: &[u8], from: usize, salt: u64) -> Option<(usize, Front)> {
    let pattern = salt.to_be_bytes();
    let tail = bytes.get(from..)?;
    tail.windows(FRONT_BYTES).enumerate().find_map(|(at, window)| {
        let front = window.first_chunk::<FRONT_BYTES>().filter(|front| front.starts_with(&pattern))?;
        Some((from.saturating_add(at), Front::decode(front, salt)?))
    })
}
