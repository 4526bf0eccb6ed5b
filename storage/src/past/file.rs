//! Rows in order of key in a file that never changes.
//!
//! ```text
//! FIRST-LAST.past  header page: magic "SLUICPST" | major u16 | minor u16 | chain digest 32 | salt u32
//!                  | first height u64 | last height u64 | pages u32 | bytes of the directory u32
//!                  | CRC32C u32 of the directory | CRC32C u32 over all before it | zeros
//!                  pages of 16,384 bytes: rows | zeros | bytes of rows u16 | CRC32C u32 of the page
//!                  directory: for each page the length u8 of its first key, and the key
//! row              length of key u8 | length of value u16 | key | value
//! ```
//!
//! Integers are big-endian. The directory is in memory while the file is open, so whatever is looked for costs one
//! read.

use std::{path::PathBuf, sync::Arc};

use engine::types::Height;

use crate::{
    disk::DiskFile,
    error::Fault,
    index::Files,
    pages::{self, PageWriter},
    tables::{Fields, SCHEMA},
};

const MAGIC: &[u8; 8] = b"SLUICPST";
/// Bytes of a page, and of the header.
pub(super) const PAGE: usize = 16_384;
const HEADER_LENGTH: usize = 8 + 4 + 32 + 4 + 8 + 8 + 4 + 4 + 4 + 4;
/// How a file's name ends.
pub(crate) const EXTENSION: &str = ".past";

/// A key with its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Where a page is.
fn offset(page: usize) -> u64 {
    pages::offset::<PAGE>(u64::try_from(page).unwrap_or(u64::MAX))
}

/// First keys of pages, one behind the other.
#[derive(Default)]
struct Directory {
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl Directory {
    fn push(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
    }

    fn key(&self, page: usize) -> &[u8] {
        let start = page.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.keys[start..self.ends[page]]
    }

    const fn pages(&self) -> usize {
        self.ends.len()
    }

    /// The last page that begins at or below a key, or the first one.
    fn page_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.pages());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.key(middle) <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len() + self.pages());
        for page in 0..self.pages() {
            let key = self.key(page);
            out.push(u8::try_from(key.len()).expect("a key has less than 256 bytes"));
            out.extend_from_slice(key);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut fields, mut directory) = (Fields(bytes), Self::default());
        while !fields.0.is_empty() {
            let length = usize::from(fields.bytes(1)?[0]);
            directory.push(fields.bytes(length)?);
        }
        (1..directory.pages()).all(|page| directory.key(page - 1) < directory.key(page)).then_some(directory)
    }
}

/// Bytes of a file of these rows, at most.
pub(crate) fn bytes_of(rows: &[Row]) -> u64 {
    let bytes: usize = rows.iter().map(|(key, value)| 3 + key.len() + value.len()).sum();
    // A page is left when the next row does not fit, so half of it is filled.
    u64::try_from(bytes.saturating_mul(2)).unwrap_or(u64::MAX).saturating_add(offset(2))
}

/// A file of rows; holds the values before the blocks from `first` to `last`.
pub(crate) struct PastFile {
    file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) first: Height,
    pub(crate) last: Height,
    directory: Directory,
}

/// What a file is called.
pub(super) fn name(first: Height, last: Height) -> String {
    format!("{:020}-{:020}{EXTENSION}", first.0, last.0)
}

/// The heights in a file's name.
pub(crate) fn heights(name: &str) -> Option<(Height, Height)> {
    let (first, last) = name.strip_suffix(EXTENSION)?.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((Height(first), Height(last)))
}

pub(super) fn header(
    files: &Files,
    (first, last): (Height, Height),
    (pages, directory): (usize, &[u8]),
    minor: u16,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(PAGE);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&SCHEMA.0.to_be_bytes());
    out.extend_from_slice(&minor.to_be_bytes());
    out.extend_from_slice(files.identity.chain_digest.as_slice());
    out.extend_from_slice(&files.identity.salt.to_be_bytes());
    out.extend_from_slice(&first.0.to_be_bytes());
    out.extend_from_slice(&last.0.to_be_bytes());
    out.extend_from_slice(&u32::try_from(pages).ok()?.to_be_bytes());
    out.extend_from_slice(&u32::try_from(directory.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(directory).to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    Some(out)
}

/// Adds a row, and to the directory the first key of each page.
fn add(pages: &mut PageWriter<'_, PAGE>, directory: &mut Directory, (key, value): &Row) -> Result<(), Fault> {
    let too_long = || Fault::Failed(format!("a row of {} bytes of key, {} of value", key.len(), value.len()));
    let (key_length, value_length) = (u8::try_from(key.len()), u16::try_from(value.len()));
    let (key_length, value_length) = key_length.ok().zip(value_length.ok()).ok_or_else(too_long)?;
    let length = 3 + key.len() + value.len();
    if length > pages::room::<PAGE>() {
        return Err(too_long());
    }
    if length > pages.left() {
        pages.end_page()?;
    }
    if pages.is_empty() {
        directory.push(key);
    }
    pages.put(&[key_length]);
    pages.put(&value_length.to_be_bytes());
    pages.put(key);
    pages.put(value);
    Ok(())
}

impl PastFile {
    /// Writes rows, in order of key, for the blocks of a range: temporary file, sync, rename, sync of the folder.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn write(
        files: &Files,
        range: (Height, Height),
        rows: impl Iterator<Item = Result<Row, Fault>>,
    ) -> Result<Self, Fault> {
        let path = files.dir.join(name(range.0, range.1));
        let temporary = files.dir.join("next.tmp");
        let file = files.disk.create(&temporary)?;
        let (mut pages, mut directory) = (PageWriter::new(&*file), Directory::default());
        for row in rows {
            add(&mut pages, &mut directory, &row?)?;
        }
        pages.finish()?;
        let encoded = directory.encode();
        file.write_at(&encoded, offset(directory.pages()))?;
        let header = header(files, range, (directory.pages(), &encoded), SCHEMA.1);
        let header = header.ok_or_else(|| Fault::Failed("a file of more than 4 billion pages".to_owned()))?;
        file.write_at(&header, 0)?;
        files.fail.hit("past.write").map_err(Fault::Failed)?;
        file.sync()?;
        files.fail.hit("past.rename").map_err(Fault::Failed)?;
        files.disk.rename(&temporary, &path)?;
        files.disk.sync_dir(&files.dir)?;
        Ok(Self { file, path, first: range.0, last: range.1, directory })
    }

    /// Opens the file of a range; the reason why it cannot be used otherwise.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(files: &Files, range: (Height, Height)) -> Result<Self, String> {
        let path = files.dir.join(name(range.0, range.1));
        let told = |error: crate::disk::DiskError| error.to_string();
        let file = files.disk.open(&path).map_err(told)?;
        let length = file.length().map_err(told)?;
        let mut found = [0; HEADER_LENGTH];
        file.read_at(&mut found, 0).map_err(told)?;
        let mut fields = Fields(&found[HEADER_LENGTH - 16..]);
        let (pages, size) = fields.u32().zip(fields.u32()).ok_or("short header")?;
        let (pages, size) = usize::try_from(pages).ok().zip(usize::try_from(size).ok()).ok_or("damaged header")?;
        let end = offset(pages).saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if end != length {
            return Err("wrong length".to_owned());
        }
        let mut encoded = vec![0; size];
        file.read_at(&mut encoded, offset(pages)).map_err(told)?;
        // An older minor has the same layout.
        let minor = u16::from_be_bytes([found[10], found[11]]).min(SCHEMA.1);
        if header(files, range, (pages, &encoded), minor).as_deref() != Some(&found[..]) {
            return Err("damaged header or directory, or of another folder".to_owned());
        }
        let directory = Directory::decode(&encoded).filter(|directory| directory.pages() == pages);
        let directory = directory.ok_or("damaged directory")?;
        Ok(Self { file, path, first: range.0, last: range.1, directory })
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        let directory = self.directory.keys.len() + self.directory.pages();
        offset(self.directory.pages()).saturating_add(u64::try_from(directory).unwrap_or(u64::MAX))
    }

    /// Compares every page with its checksum and its place in the directory; gives those that are not what was written,
    /// with their offsets.
    pub(crate) fn check(&self) -> Vec<(u64, Fault)> {
        let pages = (0..self.directory.pages()).map(|page| (offset(page), self.check_page(page)));
        pages.filter_map(|(offset, outcome)| Some((offset, outcome.err()?))).collect()
    }

    fn check_page(&self, page: usize) -> Result<(), Fault> {
        let bytes = self.page(page)?;
        let (mut fields, mut last): (_, Option<&[u8]>) = (Fields(&bytes), None);
        while !fields.0.is_empty() {
            let (key, _) = take_row(&mut fields).ok_or_else(|| self.damaged(page))?;
            let is_next = match last {
                None => key == self.directory.key(page),
                Some(last) => last < key,
            };
            if !is_next {
                return Err(self.damaged(page));
            }
            last = Some(key);
        }
        let end = (page + 1 < self.directory.pages()).then(|| self.directory.key(page + 1));
        let is_in_order = last.is_some_and(|last| end.is_none_or(|end| last < end));
        is_in_order.then_some(()).ok_or_else(|| self.damaged(page))
    }

    /// The rows from a key on, in order.
    pub(crate) fn rows_from<'f>(&'f self, key: &[u8]) -> Rows<'f> {
        let page = self.directory.page_of(key);
        Rows { file: self, page, bytes: Vec::new(), at: 0, from: key.to_vec() }
    }

    /// The rows of a page, without what fills it up.
    fn page(&self, page: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; PAGE];
        self.file.read_at(&mut bytes, offset(page))?;
        let used = pages::used(&bytes).ok_or_else(|| self.damaged(page))?;
        bytes.truncate(used);
        Ok(bytes)
    }

    fn damaged(&self, page: usize) -> Fault {
        Fault::corrupt(format!("{} is damaged at byte {}", self.path.display(), offset(page)))
    }
}

/// Reads a row off the front of a page's rows.
fn take_row<'a>(fields: &mut Fields<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let (key, value) = (usize::from(fields.bytes(1)?[0]), usize::from(fields.u16()?));
    Some((fields.bytes(key)?, fields.bytes(value)?))
}

/// Rows of a file, in order of key.
pub(crate) struct Rows<'f> {
    file: &'f PastFile,
    /// The page to be read next.
    page: usize,
    /// The page that was read, from `at` on not handed out.
    bytes: Vec<u8>,
    at: usize,
    from: Vec<u8>,
}

impl Rows<'_> {
    fn next_row(&mut self) -> Result<Option<Row>, Fault> {
        loop {
            if self.at == self.bytes.len() {
                if self.page >= self.file.directory.pages() {
                    return Ok(None);
                }
                (self.bytes, self.at) = (self.file.page(self.page)?, 0);
                self.page += 1;
                continue;
            }
            let mut fields = Fields(&self.bytes[self.at..]);
            let (key, value) = take_row(&mut fields).ok_or_else(|| self.file.damaged(self.page - 1))?;
            self.at += 3 + key.len() + value.len();
            if key >= &self.from[..] {
                return Ok(Some((key.to_vec(), value.to_vec())));
            }
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
