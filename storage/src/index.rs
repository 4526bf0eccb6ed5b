//! Where a transaction is, by its hash.
//!
//! The open segment's transactions are in memory, rebuilt when the store opens. A sealed segment gets
//! a file, written once in order of hash and never changed:
//!
//! ```text
//! NNNNNNNN.txi  header page: magic "SLUICTXI" | major u16 | minor u16 | chain digest 32 | segment u32 | entries u64
//!               | CRC32C u32 over all before it | zeros
//!               pages of 4,096 bytes: up to 92 entries (hash 32, height u64, index u32) | zeros
//!               | entries in page u16 | 38 bytes after the last possible entry | CRC32C u32 of the page
//! ```
//!
//! Hashes are evenly spread, so the first guess at a page is within a page or two of the right one.
//! A missing or damaged file is built again from its segment.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::{B256, keccak256, map::B256Map};
use alloy_rlp::Header as ListHeader;
use engine::types::Height;
use parking_lot::RwLock;
use tracing::warn;

use crate::{
    disk::{Disk, DiskError, DiskFile},
    error::Fault,
    failpoint::FailPoints,
    record,
    segment::{self, Entry, FIRST_OFFSET, Identity, SegmentFile},
    tables::{Fields, SCHEMA},
};

const MAGIC: &[u8; 8] = b"SLUICTXI";
const PAGE: usize = 4_096;
const ENTRY: usize = 44;
const ENTRIES_PER_PAGE: usize = 92;
const COUNT_AT: usize = ENTRY * ENTRIES_PER_PAGE;
const CRC_AT: usize = PAGE - 4;
const HEADER_LENGTH: usize = 8 + 4 + 32 + 4 + 8 + 4;

/// Height and index in the block.
pub(crate) type Place = (Height, u32);
type Places = B256Map<Place>;

/// A sealed segment's index on disk.
struct IndexFile {
    file: Arc<dyn DiskFile>,
    pages: u64,
}

enum Sealed {
    /// Not written yet.
    Memory(Arc<Places>),
    File(IndexFile),
}

struct SealedIndex {
    segment: u32,
    content: RwLock<Sealed>,
}

struct Open {
    segment: u32,
    places: Places,
}

/// The index over all segments.
pub(crate) struct TransactionIndex {
    open: RwLock<Open>,
    sealed: RwLock<VecDeque<Arc<SealedIndex>>>,
    files: Files,
}

/// What writing an index file takes.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) fail: Arc<FailPoints>,
}

impl TransactionIndex {
    /// Opens the indices of all sealed segments, building what is missing; `last` is the open one.
    pub(crate) fn open(files: Files, segments: &[Arc<SegmentFile>], last_end: u64) -> Result<Self, Fault> {
        let (last, older) = segments.split_last().expect("a store has a segment");
        let mut sealed = VecDeque::new();
        for segment in older {
            let content = match IndexFile::open(&files, segment.number) {
                Ok(file) => file,
                Err(reason) => {
                    warn!(segment = segment.number, %reason, "building a transaction index again");
                    files.write(segment.number, &collect(segment, segment.size)?)?
                }
            };
            let content = RwLock::new(Sealed::File(content));
            sealed.push_front(Arc::new(SealedIndex { segment: segment.number, content }));
        }
        let open = RwLock::new(Open { segment: last.number, places: collect(last, last_end)? });
        Ok(Self { open, sealed: RwLock::new(sealed), files })
    }

    /// Adds a block's transactions; returns a job when that sealed the segment before.
    pub(crate) fn insert(
        self: &Arc<Self>,
        segment: u32,
        height: Height,
        hashes: impl Iterator<Item = B256>,
    ) -> Option<crate::housekeeper::Job> {
        let mut open = self.open.write();
        let mut job: Option<crate::housekeeper::Job> = None;
        if open.segment != segment {
            let places = Arc::new(std::mem::take(&mut open.places));
            let number = std::mem::replace(&mut open.segment, segment);
            let entry =
                Arc::new(SealedIndex { segment: number, content: RwLock::new(Sealed::Memory(Arc::clone(&places))) });
            self.sealed.write().push_front(Arc::clone(&entry));
            let files = self.files.clone();
            job = Some(Box::new(move || match files.write(number, &places) {
                Ok(file) => *entry.content.write() = Sealed::File(file),
                Err(error) => warn!(segment = number, %error, "a transaction index stays in memory"),
            }));
        }
        open.places.extend((0..).zip(hashes).map(|(index, hash)| (hash, (height, index))));
        job
    }

    /// Where the transaction with this hash is.
    pub(crate) fn find(
        &self,
        hash: &B256,
        rebuild: &dyn Fn(u32) -> Result<Arc<SegmentFile>, Fault>,
    ) -> Result<Option<Place>, Fault> {
        if let Some(place) = self.open.read().places.get(hash) {
            return Ok(Some(*place));
        }
        let sealed: Vec<_> = self.sealed.read().iter().cloned().collect();
        for index in sealed {
            let found = match &*index.content.read() {
                Sealed::Memory(places) => Ok(places.get(hash).copied()),
                Sealed::File(file) => file.find(hash),
            };
            let found = match found {
                Ok(found) => found,
                Err(reason) => {
                    warn!(segment = index.segment, %reason, "building a transaction index again");
                    let segment = rebuild(index.segment)?;
                    let places = collect(&segment, segment.size)?;
                    let found = places.get(hash).copied();
                    *index.content.write() = Sealed::File(self.files.write(index.segment, &places)?);
                    found
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Hashes of the transactions in an encoded block, without decoding them.
fn transaction_hashes(block: &[u8]) -> alloy_rlp::Result<Vec<B256>> {
    let mut rest = ListHeader::decode_bytes(&mut &*block, true)?;
    ListHeader::decode_bytes(&mut rest, true)?;
    ListHeader::decode_bytes(&mut rest, true)?;
    let mut transactions = ListHeader::decode_bytes(&mut rest, true)?;
    let mut hashes = Vec::new();
    while !transactions.is_empty() {
        hashes.push(keccak256(ListHeader::decode_bytes(&mut transactions, false)?));
    }
    Ok(hashes)
}

/// Reads the transactions of a segment up to `end`.
fn collect(segment: &SegmentFile, end: u64) -> Result<Places, Fault> {
    let mut places = Places::default();
    let mut offset = FIRST_OFFSET;
    while offset < end {
        let (header, payload) = match segment.entry(offset)? {
            Entry::Record(header, payload) => (header, payload),
            Entry::End => break,
            Entry::Bad => {
                return Err(Fault::corrupt(format!("{} is damaged at offset {offset}", segment.path.display())));
            }
        };
        if header.kind == record::Kind::Block {
            let damaged =
                || Fault::corrupt(format!("block {} in {} does not decode", header.height, segment.path.display()));
            let block = header.unpack(&payload).ok_or_else(damaged)?;
            let hashes = transaction_hashes(&block).map_err(|_| damaged())?;
            places.extend((0..).zip(hashes).map(|(index, hash)| (hash, (header.height, index))));
        }
        let length = u64::try_from(record::HEADER_BYTES + payload.len()).unwrap_or(u64::MAX);
        offset = offset.saturating_add(length);
    }
    Ok(places)
}

impl Files {
    fn header(&self, segment: u32, entries: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&SCHEMA.0.to_be_bytes());
        out.extend_from_slice(&SCHEMA.1.to_be_bytes());
        out.extend_from_slice(self.identity.chain_digest.as_slice());
        out.extend_from_slice(&segment.to_be_bytes());
        out.extend_from_slice(&entries.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out.resize(PAGE, 0);
        out
    }

    /// Writes the index of a sealed segment: temporary file, sync, rename, sync of the folder.
    fn write(&self, segment: u32, places: &Places) -> Result<IndexFile, Fault> {
        let mut entries: Vec<_> = places.iter().collect();
        entries.sort_unstable_by_key(|(hash, _)| **hash);
        let mut bytes = self.header(segment, u64::try_from(entries.len()).unwrap_or(u64::MAX));
        for group in entries.chunks(ENTRIES_PER_PAGE) {
            let start = bytes.len();
            for (hash, (height, index)) in group {
                bytes.extend_from_slice(hash.as_slice());
                bytes.extend_from_slice(&height.0.to_be_bytes());
                bytes.extend_from_slice(&index.to_be_bytes());
            }
            bytes.resize(start + COUNT_AT, 0);
            let count = u16::try_from(group.len()).expect("a page has at most 92 entries");
            bytes.extend_from_slice(&count.to_be_bytes());
            bytes.resize(start + CRC_AT, 0);
            let crc = crc32c::crc32c(&bytes[start..]);
            bytes.extend_from_slice(&crc.to_be_bytes());
        }
        let (temporary, target) = (segment::path(&self.dir, segment, "tmp"), segment::path(&self.dir, segment, "txi"));
        let file = self.disk.create(&temporary)?;
        file.write_at(&bytes, 0)?;
        self.fail.hit("index.write").map_err(Fault::Failed)?;
        file.sync()?;
        self.fail.hit("index.rename").map_err(Fault::Failed)?;
        self.disk.rename(&temporary, &target)?;
        self.disk.sync_dir(&self.dir)?;
        let pages = entries.len().div_ceil(ENTRIES_PER_PAGE);
        Ok(IndexFile { file, pages: u64::try_from(pages).unwrap_or(u64::MAX) })
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    let dir = path.parent().unwrap_or(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(disk.list(dir)?.contains(&name))
}

impl IndexFile {
    fn open(files: &Files, segment: u32) -> Result<Self, String> {
        let path = segment::path(&files.dir, segment, "txi");
        if !exists(&*files.disk, &path).map_err(|error| error.to_string())? {
            return Err("missing".to_owned());
        }
        let file = files.disk.open(&path).map_err(|error| error.to_string())?;
        let mut header = [0; HEADER_LENGTH];
        file.read_at(&mut header, 0).map_err(|error| error.to_string())?;
        let entries = Fields(&header[HEADER_LENGTH - 12..]).u64().ok_or("short header")?;
        if header[..] != files.header(segment, entries)[..HEADER_LENGTH] {
            return Err("damaged header".to_owned());
        }
        let pages = entries.div_ceil(u64::try_from(ENTRIES_PER_PAGE).expect("a small constant"));
        let expected = pages.saturating_add(1).saturating_mul(u64::try_from(PAGE).expect("a small constant"));
        if file.length().map_err(|error| error.to_string())? != expected {
            return Err("wrong length".to_owned());
        }
        Ok(Self { file, pages })
    }

    /// A page's entries, checked.
    fn page<'b>(&self, number: u64, buffer: &'b mut [u8; PAGE]) -> Result<&'b [[u8; ENTRY]], String> {
        let page_bytes = u64::try_from(PAGE).expect("a small constant");
        let offset = number.saturating_add(1).saturating_mul(page_bytes);
        self.file.read_at(buffer, offset).map_err(|error| error.to_string())?;
        let damaged = || format!("damaged page {number}");
        let crc = Fields(&buffer[CRC_AT..]).u32().ok_or_else(damaged)?;
        let count = usize::from(Fields(&buffer[COUNT_AT..]).u16().ok_or_else(damaged)?);
        if crc32c::crc32c(&buffer[..CRC_AT]) != crc || count == 0 || count > ENTRIES_PER_PAGE {
            return Err(damaged());
        }
        Ok(&buffer[..COUNT_AT].as_chunks().0[..count])
    }

    fn find(&self, hash: &B256) -> Result<Option<Place>, String> {
        let (mut low, mut high) = (0, self.pages);
        let spread = u128::from(Fields(&hash[..]).u64().unwrap_or_default());
        let mut guess = u64::try_from((spread * u128::from(self.pages)) >> 64).unwrap_or_default();
        let mut step = 1;
        let mut buffer = [0; PAGE];
        while low < high {
            guess = guess.clamp(low, high - 1);
            let entries = self.page(guess, &mut buffer)?;
            let (first, last) = (&entries[0][..32], &entries[entries.len() - 1][..32]);
            if hash.as_slice() < first {
                high = guess;
                guess = guess.saturating_sub(step);
            } else if hash.as_slice() > last {
                low = guess.saturating_add(1);
                guess = guess.saturating_add(step);
            } else {
                let found = entries.binary_search_by(|entry| entry[..32].cmp(hash.as_slice())).ok();
                return Ok(found.and_then(|at| {
                    let mut fields = Fields(&entries[at][32..]);
                    Some((Height(fields.u64()?), fields.u32()?))
                }));
            }
            step = step.saturating_mul(2);
        }
        Ok(None)
    }
}
