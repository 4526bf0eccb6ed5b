//! The index of a full segment on disk: written once in order of key, and never changed.
//!
//! ```text
//! NNNNNNNN.idx  header page: magic "SLUICIDX" | major u16 | minor u16 | chain digest 32 | salt u32 | segment u32
//!               | first height u64 | pages u64 | CRC32C u32 over all before it | zeros
//!               pages of 4,096 bytes: entries | zeros | bytes of entries u16 | CRC32C u32 of the page
//! NNNNNNNN.chg  the same under the magic "SLUICCHG"
//! entry         key 16 | bytes of postings u16 | postings
//! posting       heights above the one before (the first: above the segment's first height)
//!               | index in the block, less that of the one before if both are in one block; both LEB128
//! ```
//!
//! Integers are big-endian. Entries are in order of key; postings that do not fit a page go on under the same key in
//! the next one, so every page is read by itself. Pages are searched by key and posting together: keys are evenly
//! spread, so the second guess is hardly ever wrong, and a list over many pages is entered where it is asked for. What
//! guesses do not find is bisected, so no content makes a search long.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::types::Height;

use super::{
    key::{KEY_BYTES, Key, Posting},
    table::Table,
};
use crate::{
    disk::{Disk, DiskError, DiskFile},
    error::Fault,
    failpoint::FailPoints,
    metrics,
    pages::{self, PageWriter},
    place::{Place, Room},
    segment::{self, Identity},
    tables::{Fields, SCHEMA},
};

pub(super) const PAGE: usize = 4_096;
const HEADER_LENGTH: usize = 8 + 4 + 32 + 4 + 4 + 8 + 8 + 4;
/// Room that an entry with one posting may take.
const ENTRY_BYTES_MIN: usize = KEY_BYTES + 2 + 5 + 5;
/// Guesses at a page, each from where the one before came out; then the rest is bisected.
const GUESSES_MAX: usize = 4;

/// What one of the two files of an index tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// Where transactions and logs are.
    Places,
    /// When accounts and slots changed.
    Changes,
}

impl Half {
    pub(crate) const ALL: [Self; 2] = [Self::Places, Self::Changes];

    /// How the names of its files end.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Places => "idx",
            Self::Changes => "chg",
        }
    }

    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Places => b"SLUICIDX",
            Self::Changes => b"SLUICCHG",
        }
    }
}

/// What writing an index file takes.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) fail: Arc<FailPoints>,
    pub(crate) place: Arc<Place>,
}

/// Which file of an index: its half, its segment's number and first height.
pub(crate) type Name = (Half, u32, Height);

/// A number in as few bytes as it needs, the low ones first.
fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// What [`put_number`] wrote; `None` for anything else that is longer than a number gets.
fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

fn put_posting(out: &mut Vec<u8>, before: Posting, posting: Posting) {
    let above = posting.above.saturating_sub(before.above);
    let index = if above == 0 { posting.index.saturating_sub(before.index) } else { posting.index };
    put_number(out, above);
    put_number(out, index);
}

fn take_posting(bytes: &mut &[u8], before: Posting) -> Option<Posting> {
    let (above, index) = (take_number(bytes)?, take_number(bytes)?);
    let base = if above == 0 { before.index } else { 0 };
    Some(Posting { above: before.above.checked_add(above)?, index: base.checked_add(index)? })
}

/// Adds the postings of a key, on as many pages as they take. `entry` is room to write in.
fn add(
    pages: &mut PageWriter<'_, PAGE>,
    entry: &mut Vec<u8>,
    key: Key,
    mut postings: &[Posting],
) -> Result<(), DiskError> {
    while !postings.is_empty() {
        let left = pages.left();
        if left < ENTRY_BYTES_MIN {
            pages.end_page()?;
            continue;
        }
        entry.clear();
        entry.extend_from_slice(&key.0.to_be_bytes());
        entry.extend_from_slice(&[0; 2]);
        let (mut before, mut count) = (Posting::FIRST, 0);
        for posting in postings {
            let mark = entry.len();
            put_posting(entry, before, *posting);
            if entry.len() > left {
                entry.truncate(mark);
                break;
            }
            (before, count) = (*posting, count + 1);
        }
        let length = u16::try_from(entry.len() - KEY_BYTES - 2).expect("a page has 4,096 bytes");
        entry[KEY_BYTES..KEY_BYTES + 2].copy_from_slice(&length.to_be_bytes());
        pages.put(entry);
        postings = &postings[count..];
    }
    Ok(())
}

impl Files {
    pub(super) fn header(&self, (half, segment, first): Name, pages: u64, minor: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE);
        out.extend_from_slice(half.magic());
        out.extend_from_slice(&SCHEMA.0.to_be_bytes());
        out.extend_from_slice(&minor.to_be_bytes());
        out.extend_from_slice(self.identity.chain_digest.as_slice());
        out.extend_from_slice(&self.identity.salt.to_be_bytes());
        out.extend_from_slice(&segment.to_be_bytes());
        out.extend_from_slice(&first.0.to_be_bytes());
        out.extend_from_slice(&pages.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out.resize(PAGE, 0);
        out
    }

    /// Writes half the index of a full segment: temporary file, sync, rename, sync of the folder; nothing if the disk
    /// has less than so much room.
    pub(crate) fn write(&self, name: Name, table: &Table, room: Room) -> Result<IndexFile, Fault> {
        let (half, segment, _) = name;
        if self.place.room(0)? > room {
            return Err(Fault::Full(format!("the index of segment {segment} waits for room on the disk")));
        }
        let path = |extension| segment::path(&self.dir, segment, extension);
        let (temporary, target) = (path("tmp"), path(half.extension()));
        let file = self.disk.create(&temporary)?;
        let pages = self.fill(&*file, name, table).inspect_err(|_| {
            // Half a file would only take room; one that cannot be removed is overwritten later.
            let _ = self.disk.remove(&temporary);
        })?;
        self.fail.hit("index.write").map_err(Fault::Failed)?;
        file.sync()?;
        self.fail.hit("index.rename").map_err(Fault::Failed)?;
        self.disk.rename(&temporary, &target)?;
        self.disk.sync_dir(&self.dir)?;
        Ok(IndexFile { file, pages })
    }

    /// Writes what a file holds; gives the number of pages behind the first.
    pub(crate) fn fill(&self, file: &dyn DiskFile, name: Name, table: &Table) -> Result<u64, DiskError> {
        let (mut writer, mut entry) = (PageWriter::new(file), Vec::new());
        for (key, postings) in table.sorted() {
            add(&mut writer, &mut entry, key, postings)?;
        }
        let pages = writer.finish()?;
        metrics::INDEX_BYTES.add(pages::offset::<PAGE>(pages));
        file.write_at(&self.header(name, pages, SCHEMA.1), 0)?;
        Ok(pages)
    }

    /// Opens half the index of a full segment; the reason why it cannot be used otherwise.
    pub(crate) fn open(&self, name: Name) -> Result<IndexFile, String> {
        let path = segment::path(&self.dir, name.1, name.0.extension());
        if !exists(&*self.disk, &path).map_err(|error| error.to_string())? {
            return Err("missing".to_owned());
        }
        let file = self.disk.open(&path).map_err(|error| error.to_string())?;
        let (minor, pages) = self.front(&*file, name)?;
        if minor != SCHEMA.1 {
            return Err(format!("made under schema {}.{minor}", SCHEMA.0));
        }
        if file.length().map_err(|error| error.to_string())? != pages::offset::<PAGE>(pages) {
            return Err("wrong length".to_owned());
        }
        Ok(IndexFile { file, pages })
    }

    /// What the header of a file says, if it is whole: minor number of the schema, and pages.
    pub(crate) fn front(&self, file: &dyn DiskFile, name: Name) -> Result<(u16, u64), String> {
        let mut header = [0; HEADER_LENGTH];
        file.read_at(&mut header, 0).map_err(|error| error.to_string())?;
        let pages = Fields(&header[HEADER_LENGTH - 12..]).u64().ok_or("short header")?;
        let minor = u16::from_be_bytes([header[10], header[11]]);
        let is_whole = header[..] == self.header(name, pages, minor)[..HEADER_LENGTH];
        is_whole.then_some((minor, pages)).ok_or_else(|| "damaged header".to_owned())
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    let dir = path.parent().unwrap_or(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(disk.list(dir)?.contains(&name))
}

/// A sealed index; every answer is checked, or the reason why there is none.
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    pages: u64,
}

/// The page that was read last.
struct Page {
    number: u64,
    bytes: [u8; PAGE],
    used: usize,
}

impl Page {
    fn damaged(&self) -> String {
        format!("damaged page {}", self.number)
    }

    /// The postings of the first entry whose key is not below `key`, still encoded, with that key.
    fn entry_from(&self, key: Key) -> Result<Option<(Key, &[u8])>, String> {
        let mut fields = Fields(&self.bytes[..self.used]);
        while !fields.0.is_empty() {
            let entry = (|| {
                let key = u128::from_be_bytes(fields.bytes(KEY_BYTES)?.try_into().ok()?);
                let length = usize::from(fields.u16()?);
                Some((Key(key), fields.bytes(length)?))
            })();
            let entry = entry.ok_or_else(|| self.damaged())?;
            if entry.0 >= key {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The first key with its first posting.
    fn first(&self) -> Result<(Key, Posting), String> {
        let (key, mut postings) = self.entry_from(Key(0))?.ok_or_else(|| self.damaged())?;
        Ok((key, take_posting(&mut postings, Posting::FIRST).ok_or_else(|| self.damaged())?))
    }

    /// Whether there is an entry of a higher key.
    fn has_above(&self, key: Key) -> Result<bool, String> {
        Ok(match key.0.checked_add(1) {
            Some(next) => self.entry_from(Key(next))?.is_some(),
            None => false,
        })
    }

    /// Hands on the postings of a key in order, as long as `visit` wants more.
    fn each(&self, key: Key, mut visit: impl FnMut(Posting) -> bool) -> Result<(), String> {
        let Some((_, mut bytes)) = self.entry_from(key)?.filter(|(found, _)| *found == key) else { return Ok(()) };
        let mut before = Posting::FIRST;
        while !bytes.is_empty() {
            before = take_posting(&mut bytes, before).ok_or_else(|| self.damaged())?;
            if !visit(before) {
                break;
            }
        }
        Ok(())
    }
}

impl IndexFile {
    fn read(&self, number: u64, page: &mut Page) -> Result<(), String> {
        if page.used > 0 && page.number == number {
            return Ok(());
        }
        (page.number, page.used) = (number, 0);
        self.file.read_at(&mut page.bytes, pages::offset::<PAGE>(number)).map_err(|error| error.to_string())?;
        page.used = pages::used(&page.bytes).filter(|used| *used > 0).ok_or_else(|| page.damaged())?;
        Ok(())
    }

    /// The last page that begins at or below a posting of a key, or the first page; `None` if there is no page.
    fn locate(&self, key: Key, at: Posting) -> Result<Option<Page>, String> {
        if self.pages == 0 {
            return Ok(None);
        }
        let mut page = Page { number: 0, bytes: [0; PAGE], used: 0 };
        // The page lies in low..high.
        let (mut low, mut high) = (0, self.pages);
        let mut probe = self.pages_in(key.0);
        let mut guesses = 0;
        while high - low > 1 {
            probe = probe.clamp(low + 1, high - 1);
            self.read(probe, &mut page)?;
            let first = page.first()?;
            if first <= (key, at) {
                low = probe;
                if page.has_above(key)? {
                    break;
                }
                probe = probe.saturating_add(self.pages_in(key.0 - first.0.0));
            } else {
                high = probe;
                probe = probe.saturating_sub(self.pages_in(first.0.0 - key.0).saturating_add(1));
            }
            guesses += 1;
            if guesses >= GUESSES_MAX {
                probe = low.midpoint(high);
            }
        }
        self.read(low, &mut page)?;
        Ok(Some(page))
    }

    /// Pages that so much of the range of keys takes, if keys are evenly spread.
    fn pages_in(&self, range: u128) -> u64 {
        u64::try_from(((range >> 64) * u128::from(self.pages)) >> 64).unwrap_or(self.pages)
    }

    /// Postings of a key from `at` on, in order: some if there are any.
    pub(crate) fn seek(&self, key: Key, at: Posting) -> Result<Vec<Posting>, String> {
        let mut found = Vec::new();
        let Some(mut page) = self.locate(key, at)? else { return Ok(found) };
        loop {
            page.each(key, |posting| {
                if posting >= at {
                    found.push(posting);
                }
                true
            })?;
            let next = page.number.saturating_add(1);
            // Whatever the next page begins with is above `at`; it is the key's, or the key has no more.
            let is_over = page.has_above(key)? || next >= self.pages;
            if !found.is_empty() || is_over {
                return Ok(found);
            }
            self.read(next, &mut page)?;
        }
    }

    /// The last posting of a key up to `at`.
    pub(crate) fn last(&self, key: Key, at: Posting) -> Result<Option<Posting>, String> {
        let mut last = None;
        let Some(page) = self.locate(key, at)? else { return Ok(last) };
        page.each(key, |posting| {
            if posting <= at {
                last = Some(posting);
            }
            posting < at
        })?;
        Ok(last)
    }
}
