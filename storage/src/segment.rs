//! Append-only segment files: the log that acknowledges finality.
//!
//! ```text
//! NNNNNNNN.seg  header, 4,096 bytes: magic "SLUICSEG" | major u16 | minor u16 | chain id u64 | chain digest 32
//!               | salt u32 | number u32 | first height u64 | size u64 | CRC32C u32 over all before it | zeros
//!               records (see `record`), then zeros to the end
//! spare.seg     the next segment: all zeros, written and synced in the background
//! ```
//!
//! Segments are zero-written to their whole size before use, so an append changes no metadata of the
//! file and one fdatasync of a megabyte costs a fraction of a millisecond; it also moves "disk full"
//! to the preparation of the spare, where nothing is lost. A spare becomes a segment by: header, sync,
//! rename, sync of the folder. Everything in a segment is synced before the next one gets a record.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::B256;
use engine::types::Height;
use parking_lot::RwLock;

use crate::{
    disk::{Disk, DiskError, DiskFile, write_zeros},
    error::Fault,
    failpoint::FailPoints,
    housekeeper::Housekeeper,
    metrics,
    record::{self, HEADER_BYTES},
    tables::{Fields, SCHEMA},
};

/// Offset of the first record.
pub(crate) const FIRST_OFFSET: u64 = 4_096;
const MAGIC: &[u8; 8] = b"SLUICSEG";
const HEADER_LENGTH: usize = 8 + 4 + 8 + 32 + 4 + 4 + 8 + 8 + 4;
/// Bytes compared at a time.
const ZERO_CHUNK: usize = 1 << 20;

/// Which chain a segment belongs to, and which folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) chain_id: u64,
    pub(crate) chain_digest: B256,
    /// Seed of the folder's record checksums, drawn when it was created.
    pub(crate) salt: u32,
}

/// A segment on disk.
pub(crate) struct SegmentFile {
    pub(crate) number: u32,
    pub(crate) salt: u32,
    pub(crate) first_height: Height,
    pub(crate) size: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
}

/// What stands at an offset of a segment.
pub(crate) enum Entry {
    /// A whole record.
    Record(record::Header, Vec<u8>),
    /// Zeros, or no room for a record.
    End,
    /// Bytes that are no record.
    Bad,
}

impl SegmentFile {
    fn header(&self, identity: Identity) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LENGTH);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&SCHEMA.0.to_be_bytes());
        out.extend_from_slice(&SCHEMA.1.to_be_bytes());
        out.extend_from_slice(&identity.chain_id.to_be_bytes());
        out.extend_from_slice(identity.chain_digest.as_slice());
        out.extend_from_slice(&identity.salt.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.first_height.0.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    /// Opens a segment and checks its header.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, number: u32, identity: Identity) -> Result<Self, Fault> {
        let file = disk.open(path)?;
        let bad = |what: &str| Fault::corrupt(format!("segment {} has {what}", path.display()));
        if file.length()? < FIRST_OFFSET {
            return Err(bad("no room for its header"));
        }
        let mut bytes = [0; HEADER_LENGTH];
        file.read_at(&mut bytes, 0)?;
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let mut parse = || {
            let (major, _minor, chain_id) = (fields.u16()?, fields.u16()?, fields.u64()?);
            let (chain_digest, salt) = (fields.hash()?, fields.u32()?);
            Some((
                major,
                Identity { chain_id, chain_digest, salt },
                fields.u32()?,
                Height(fields.u64()?),
                fields.u64()?,
                fields.u32()?,
            ))
        };
        let (major, found, stored, first_height, size, crc) = parse().expect("the buffer has the header's length");
        if !bytes.starts_with(MAGIC) || crc32c::crc32c(&bytes[..HEADER_LENGTH - 4]) != crc {
            return Err(bad("a damaged header"));
        }
        if found != identity || stored != number {
            return Err(bad("the header of another chain, folder or place"));
        }
        if major != SCHEMA.0 || file.length()? < size {
            return Err(bad("an unknown version or a wrong length"));
        }
        Ok(Self { number, salt: identity.salt, first_height, size, file, path: path.to_owned() })
    }

    /// What stands at `offset`.
    pub(crate) fn entry(&self, offset: u64) -> Result<Entry, DiskError> {
        let room = self.size.saturating_sub(offset);
        let header_bytes = HEADER_BYTES as u64;
        if room < header_bytes {
            return Ok(Entry::End);
        }
        let mut front = [0; HEADER_BYTES];
        self.file.read_at(&mut front, offset)?;
        if front == [0; HEADER_BYTES] {
            return Ok(Entry::End);
        }
        let Some(header) = record::Header::decode(&front) else { return Ok(Entry::Bad) };
        if u64::try_from(header.length).is_ok_and(|length| length > room.saturating_sub(header_bytes)) {
            return Ok(Entry::Bad);
        }
        let mut payload = vec![0; header.length];
        self.file.read_at(&mut payload, offset.saturating_add(header_bytes))?;
        Ok(if header.matches(&payload, self.salt) { Entry::Record(header, payload) } else { Entry::Bad })
    }

    /// The front of the record at `offset`, unchecked; `None` if there is none.
    pub(crate) fn front(&self, offset: u64) -> Result<Option<record::Header>, DiskError> {
        if self.size.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut front = [0; HEADER_BYTES];
        self.file.read_at(&mut front, offset)?;
        Ok(record::Header::decode(&front))
    }

    /// Reads `length` bytes at `offset`.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; length];
        self.file.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Path of a segment, or of its index with another extension.
pub(crate) fn path(dir: &Path, number: u32, extension: &str) -> PathBuf {
    dir.join(format!("{number:08}.{extension}"))
}

/// All segments, by number.
#[derive(Default)]
pub(crate) struct Segments {
    files: RwLock<BTreeMap<u32, Arc<SegmentFile>>>,
}

impl Segments {
    /// Opens the segments of a folder from a number on; those below are being taken away.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, identity: Identity, first: u32) -> Result<Self, Fault> {
        let mut files = BTreeMap::new();
        for name in disk.list(dir)? {
            let number = name.strip_suffix(".seg").and_then(|stem| stem.parse().ok());
            let Some(number) = number.filter(|number| *number >= first) else { continue };
            let path = path(dir, number, "seg");
            files.insert(number, Arc::new(SegmentFile::open(disk, &path, number, identity)?));
        }
        let numbers: Vec<u32> = files.keys().copied().collect();
        if numbers.windows(2).any(|pair| pair[1] != pair[0].saturating_add(1)) {
            return Err(Fault::corrupt(format!("segments {numbers:?} in {} have a gap", dir.display())));
        }
        Ok(Self { files: RwLock::new(files) })
    }

    /// The segment with this number.
    pub(crate) fn get(&self, number: u32) -> Result<Arc<SegmentFile>, Fault> {
        let found = self.files.read().get(&number).cloned();
        found.ok_or_else(|| Fault::corrupt(format!("segment {number} is missing")))
    }

    /// Below the first height that a segment holds: the chain's beginning, the base, or what blocks were kept up to.
    pub(crate) fn lowest(&self) -> Height {
        let files = self.files.read();
        files.values().next().and_then(|first| first.first_height.previous()).unwrap_or(Height::GENESIS)
    }

    /// All segments, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<SegmentFile>> {
        self.files.read().values().cloned().collect()
    }

    /// Lets go of the segments below a number; whoever reads in one has it open.
    pub(crate) fn let_go(&self, first: u32) {
        let mut files = self.files.write();
        let kept = files.split_off(&first);
        *files = kept;
    }

    fn add(&self, file: &Arc<SegmentFile>) {
        self.files.write().insert(file.number, Arc::clone(file));
    }
}

/// Writes a file full of zeros and syncs it; removes it again when that fails.
pub(crate) fn create_zeroed(disk: &dyn Disk, path: &Path, size: u64) -> Result<Arc<dyn DiskFile>, DiskError> {
    let file = disk.create(path)?;
    let fill = || {
        write_zeros(&*file, 0, size)?;
        file.sync()
    };
    if let Err(error) = fill() {
        // The error that matters is the first; a file that cannot be removed is overwritten later.
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(file)
}

/// Where one block went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// The one writer of segments.
pub(crate) struct Appender {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) segment_bytes: u64,
    pub(crate) segments: Arc<Segments>,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) fail: Arc<FailPoints>,
    pub(crate) current: Arc<SegmentFile>,
    /// Where the next record goes.
    pub(crate) offset: u64,
}

impl Appender {
    /// Appends encoded blocks, each with its height, and syncs once (twice where a segment ends).
    ///
    /// After an error nothing is known about the bytes behind the last acknowledged block; the caller
    /// must not append again before a recovery.
    pub(crate) fn append(&mut self, blocks: &[(Height, Vec<u8>)]) -> Result<Vec<Written>, Fault> {
        let mut written = Vec::with_capacity(blocks.len());
        let mut pending = Vec::new();
        for (height, bytes) in blocks {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let begin = self.offset.saturating_add(u64::try_from(pending.len()).unwrap_or(u64::MAX));
            let begin = if begin.saturating_add(length) <= self.current.size {
                begin
            } else {
                self.flush(&mut pending)?;
                self.roll(*height, length)?;
                FIRST_OFFSET
            };
            let length = u32::try_from(bytes.len())
                .map_err(|_| Fault::Failed(format!("block {height} has {length} bytes, over 4 GiB")))?;
            written.push(Written { segment: self.current.number, offset: begin, length });
            if blocks.len() == 1 {
                self.write(bytes)?;
            } else {
                pending.extend_from_slice(bytes);
            }
        }
        self.flush(&mut pending)?;
        Ok(written)
    }

    /// Bytes of files that these blocks need beside what is there.
    pub(crate) fn needs(&self, blocks: &[(Height, Vec<u8>)]) -> u64 {
        let (mut offset, mut size, mut needed) = (self.offset, self.current.size, 0_u64);
        let mut spare_is_taken = false;
        for (_, bytes) in blocks {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if offset.saturating_add(length) > size {
                (offset, size) = (FIRST_OFFSET, self.segment_bytes.max(length.saturating_add(FIRST_OFFSET)));
                let has_spare = !std::mem::replace(&mut spare_is_taken, true) && self.housekeeper.has_spare();
                let is_there = has_spare && size == self.segment_bytes;
                needed = needed.saturating_add(if is_there { 0 } else { size });
            }
            offset = offset.saturating_add(length);
        }
        needed
    }

    fn flush(&mut self, pending: &mut Vec<u8>) -> Result<(), Fault> {
        if !pending.is_empty() {
            self.write(pending)?;
            pending.clear();
        }
        Ok(())
    }

    /// Writes bytes behind the last record and makes them durable.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.fail.hit("segment.append.before_write").map_err(Fault::Failed)?;
        if self.fail.is_armed("segment.append.partial") {
            self.current.file.write_at(&bytes[..bytes.len() / 2], self.offset)?;
            self.fail.hit("segment.append.partial").map_err(Fault::Failed)?;
        }
        self.current.file.write_at(bytes, self.offset)?;
        self.fail.hit("segment.append.before_sync").map_err(Fault::Failed)?;
        self.current.file.sync()?;
        self.fail.hit("segment.append.after_sync").map_err(Fault::Failed)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        metrics::SEGMENT_BYTES.add(length);
        self.offset = self.offset.saturating_add(length);
        Ok(())
    }

    /// Begins the next segment with `first_height`, a block of `length` bytes.
    fn roll(&mut self, first_height: Height, length: u64) -> Result<(), Fault> {
        let size = self.segment_bytes.max(length.saturating_add(FIRST_OFFSET));
        let number = self.current.number.saturating_add(1);
        let file = self.housekeeper.take_spare(size)?;
        let parts = (&*self.disk, &*self.dir, &*self.fail);
        self.current = begin(parts, self.identity, (number, first_height, size), file)?;
        self.segments.add(&self.current);
        self.offset = FIRST_OFFSET;
        self.housekeeper.prepare_spare();
        Ok(())
    }
}

/// Turns a spare into the segment `(number, first height, size)`.
pub(crate) fn begin(
    (disk, dir, fail): (&dyn Disk, &Path, &FailPoints),
    identity: Identity,
    (number, first_height, size): (u32, Height, u64),
    file: Arc<dyn DiskFile>,
) -> Result<Arc<SegmentFile>, Fault> {
    let path = path(dir, number, "seg");
    let segment = Arc::new(SegmentFile { number, salt: identity.salt, first_height, size, file, path });
    fail.hit("segment.roll.before_header").map_err(Fault::Failed)?;
    segment.file.write_at(&segment.header(identity), 0)?;
    segment.file.sync()?;
    fail.hit("segment.roll.before_rename").map_err(Fault::Failed)?;
    disk.rename(&dir.join("spare.seg"), &segment.path)?;
    fail.hit("segment.roll.before_dir_sync").map_err(Fault::Failed)?;
    disk.sync_dir(dir)?;
    fail.hit("segment.roll.after").map_err(Fault::Failed)?;
    Ok(segment)
}

/// Zeroes everything from `offset` to the end of a segment and makes that durable.
///
/// Afterwards no byte of a record that was cut off can ever look like a record again. Bytes already
/// zero are left alone, so a clean end costs reading only.
pub(crate) fn zero_tail(segment: &SegmentFile, mut offset: u64) -> Result<(), DiskError> {
    let mut buffer = vec![0; ZERO_CHUNK];
    let zeros = vec![0; ZERO_CHUNK];
    let mut dirty = false;
    while offset < segment.size {
        let length = usize::try_from(segment.size - offset).map_or(ZERO_CHUNK, |left| left.min(ZERO_CHUNK));
        segment.file.read_at(&mut buffer[..length], offset)?;
        if buffer[..length] != zeros[..length] {
            segment.file.write_at(&zeros[..length], offset)?;
            dirty = true;
        }
        offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    if dirty { segment.file.sync() } else { Ok(()) }
}
