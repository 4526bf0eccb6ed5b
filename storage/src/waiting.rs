//! What waited in the pool when the node stopped, for its next start.
//!
//! ```text
//! waiting   magic "SLUICWTG" | version u16, 1 | chain id u64 | chain digest 32 | count u32
//!           | count times: length u32, EIP-2718 bytes | CRC32C u32 over all before it
//! ```
//!
//! Integers are big-endian. The file is written beside its place, synced and named, and is gone once it was read: it
//! holds no promise that was made to anybody, so whatever is wrong with it costs its transactions and never a start.
//! Nothing in it is believed: what it holds goes through admission like anything that a client sends.

use std::path::{Path, PathBuf};

use alloy_primitives::{B256, Bytes};
use engine::{
    limits::{POOL_BYTES_MAX, POOL_PLACES_MAX, TRANSACTION_BYTES_MAX},
    types::RawTransaction,
};

use crate::{
    disk::{Disk, DiskError},
    tables::Fields,
};

const MAGIC: &[u8; 8] = b"SLUICWTG";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 2 + 8 + 32 + 4;
/// Most bytes of a file.
const FILE_BYTES_MAX: usize = HEADER_BYTES + POOL_BYTES_MAX + 4 * POOL_PLACES_MAX + 4;

/// Id and digest of a chain.
type ChainKey = (u64, B256);

fn place(dir: &Path) -> PathBuf {
    dir.join("waiting")
}

/// Why a file was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WaitingError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{0} bytes are more than any pool holds")]
    Long(u64),
    #[error("it is damaged")]
    Damaged,
    #[error("a program of version {0} wrote it")]
    Version(u16),
    #[error("it is of another chain")]
    OtherChain,
}

/// The first of these, as far as a pool would hold them.
fn kept(waiting: &[RawTransaction]) -> &[RawTransaction] {
    let mut bytes = 0_usize;
    let fits = |raw: &&RawTransaction| {
        bytes = bytes.saturating_add(raw.bytes().len());
        bytes <= POOL_BYTES_MAX && raw.bytes().len() <= TRANSACTION_BYTES_MAX
    };
    &waiting[..waiting.iter().take(POOL_PLACES_MAX).take_while(fits).count()]
}

/// Writes the file, with as many of these as a pool would hold; returns how many.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    chain: ChainKey,
    waiting: &[RawTransaction],
) -> Result<usize, DiskError> {
    let kept = kept(waiting);
    let mut out = [&MAGIC[..], &VERSION.to_be_bytes(), &chain.0.to_be_bytes()].concat();
    out.extend_from_slice(chain.1.as_slice());
    let length = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length(kept.len()));
    for raw in kept.iter().map(RawTransaction::bytes) {
        out.extend_from_slice(&length(raw.len()));
        out.extend_from_slice(raw);
    }
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());

    let (place, beside) = (place(dir), dir.join("waiting.new"));
    let written = disk.create(&beside).and_then(|file| {
        file.write_at(&out, 0)?;
        file.sync()?;
        disk.rename(&beside, &place)?;
        disk.sync_dir(dir)
    });
    if written.is_err() {
        // What a full disk has of it is in the way.
        let _ = disk.remove(&beside);
    }
    written.map(|()| kept.len())
}

/// Reads the file if there is one, and removes it.
pub(crate) fn take(disk: &dyn Disk, dir: &Path, chain: ChainKey) -> Result<Vec<RawTransaction>, WaitingError> {
    if !disk.list(dir)?.iter().any(|name| name == "waiting") {
        return Ok(Vec::new());
    }
    let place = place(dir);
    let read = read(disk, &place, chain);
    disk.remove(&place)?;
    read
}

fn read(disk: &dyn Disk, place: &Path, chain: ChainKey) -> Result<Vec<RawTransaction>, WaitingError> {
    let file = disk.open(place)?;
    let length = file.length()?;
    let size = usize::try_from(length).ok().filter(|size| *size <= FILE_BYTES_MAX).ok_or(WaitingError::Long(length))?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    let (bytes, crc) = bytes.split_last_chunk().ok_or(WaitingError::Damaged)?;
    if crc32c::crc32c(bytes) != u32::from_be_bytes(*crc) {
        return Err(WaitingError::Damaged);
    }
    decode(Fields(bytes), chain)
}

fn decode(mut fields: Fields<'_>, chain: ChainKey) -> Result<Vec<RawTransaction>, WaitingError> {
    if fields.bytes(MAGIC.len()) != Some(MAGIC) {
        return Err(WaitingError::Damaged);
    }
    let version = fields.u16().ok_or(WaitingError::Damaged)?;
    if version != VERSION {
        return Err(WaitingError::Version(version));
    }
    if (fields.u64(), fields.hash()) != (Some(chain.0), Some(chain.1)) {
        return Err(WaitingError::OtherChain);
    }
    let count = fields.u32().ok_or(WaitingError::Damaged)?;
    let mut one = || {
        let length = usize::try_from(fields.u32()?).ok().filter(|length| *length <= TRANSACTION_BYTES_MAX)?;
        fields.bytes(length).map(|raw| RawTransaction::new(Bytes::copy_from_slice(raw)))
    };
    let waiting = (0..count).map(|_| one()).collect::<Option<Vec<_>>>().ok_or(WaitingError::Damaged)?;
    if fields.0.is_empty() { Ok(waiting) } else { Err(WaitingError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const HERE: ChainKey = (7, B256::repeat_byte(1));

    fn raws(sizes: &[usize]) -> Vec<RawTransaction> {
        sizes.iter().zip(1..).map(|(size, byte)| RawTransaction::new(vec![byte; *size].into())).collect()
    }

    #[test]
    fn what_waited_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(&RealDisk, dir.path(), HERE), Ok(Vec::new()));
        let waiting = raws(&[0, 100, TRANSACTION_BYTES_MAX]);
        assert_eq!(write(&RealDisk, dir.path(), HERE, &raws(&[5])), Ok(1));
        assert_eq!(write(&RealDisk, dir.path(), HERE, &waiting), Ok(3));
        assert_eq!(take(&RealDisk, dir.path(), HERE), Ok(waiting));
        assert_eq!(take(&RealDisk, dir.path(), HERE), Ok(Vec::new()));
    }

    #[test]
    fn a_file_of_another_chain_or_version_is_refused_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        for other in [(8, HERE.1), (HERE.0, B256::ZERO)] {
            write(&RealDisk, dir.path(), other, &raws(&[5])).unwrap();
            assert_eq!(take(&RealDisk, dir.path(), HERE), Err(WaitingError::OtherChain));
            assert_eq!(take(&RealDisk, dir.path(), HERE), Ok(Vec::new()));
        }
        write(&RealDisk, dir.path(), HERE, &raws(&[5])).unwrap();
        let mut bytes = std::fs::read(place(dir.path())).unwrap();
        bytes.truncate(bytes.len() - 4);
        bytes[9] = 2;
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        std::fs::write(place(dir.path()), bytes).unwrap();
        assert_eq!(take(&RealDisk, dir.path(), HERE), Err(WaitingError::Version(2)));
    }

    #[test]
    fn a_damaged_file_is_refused_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        write(&RealDisk, dir.path(), HERE, &raws(&[5, 0, 9])).unwrap();
        let whole = std::fs::read(place(dir.path())).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(place(dir.path()), bytes).unwrap();
            assert_eq!(take(&RealDisk, dir.path(), HERE), Err(WaitingError::Damaged));
            assert!(!place(dir.path()).exists());
        };
        (0..whole.len()).for_each(|cut| refused(&whole[..cut]));
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << (byte % 8);
            refused(&flipped);
        }
        refused(&[&whole[..], &[0]].concat());
    }

    /// Under a checksum that holds: nothing is allocated or read that is not there.
    #[test]
    fn lengths_that_lie_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(&RealDisk, dir.path(), HERE, &raws(&[5])).unwrap();
        let whole = std::fs::read(place(dir.path())).unwrap();
        let body = &whole[..whole.len() - 4];
        for (at, value) in [(HEADER_BYTES - 4, 0), (HEADER_BYTES - 4, 2), (HEADER_BYTES - 4, u32::MAX)]
            .into_iter()
            .chain([4, 6, u32::MAX].map(|length| (HEADER_BYTES, length)))
        {
            let mut lying = body.to_vec();
            lying[at..at + 4].copy_from_slice(&value.to_be_bytes());
            lying.extend(crc32c::crc32c(&lying).to_be_bytes());
            std::fs::write(place(dir.path()), lying).unwrap();
            assert_eq!(take(&RealDisk, dir.path(), HERE), Err(WaitingError::Damaged), "{at} {value}");
        }
        let long = u64::try_from(FILE_BYTES_MAX).unwrap() + 1;
        std::fs::File::create(place(dir.path())).unwrap().set_len(long).unwrap();
        assert_eq!(take(&RealDisk, dir.path(), HERE), Err(WaitingError::Long(long)));
    }

    #[test]
    fn more_than_a_pool_holds_is_not_kept() {
        let one = RawTransaction::new(vec![1; TRANSACTION_BYTES_MAX].into());
        let most = POOL_BYTES_MAX / TRANSACTION_BYTES_MAX;
        assert_eq!(kept(&vec![one; most + 1]).len(), most);
        assert_eq!(kept(&vec![RawTransaction::new(Bytes::new()); POOL_PLACES_MAX + 1]).len(), POOL_PLACES_MAX);
        assert_eq!(kept(&raws(&[5, TRANSACTION_BYTES_MAX + 1, 5])).len(), 1);
    }
}
