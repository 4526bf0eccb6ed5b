//! Pages with a checksum each, behind a first page that is its file's own; written once, from the first to the last.
//!
//! ```text
//! page  content | zeros | bytes of content u16 | CRC32C u32 of all before it
//! ```
//!
//! Integers are big-endian. So every page can be read by itself, and one that is damaged is known.

use crate::{
    disk::{DiskError, DiskFile},
    tables::Fields,
};

/// What stands behind the content of a page.
const END_BYTES: usize = 2 + 4;
/// Bytes of pages written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes of content that a page of `PAGE` bytes has room for.
pub(crate) const fn room<const PAGE: usize>() -> usize {
    PAGE - END_BYTES
}

/// Where a page begins.
pub(crate) const fn offset<const PAGE: usize>(page: u64) -> u64 {
    page.saturating_add(1).saturating_mul(PAGE as u64)
}

/// How much of a page is content; `None` if it is damaged.
pub(crate) fn used(page: &[u8]) -> Option<usize> {
    let (content, end) = page.split_at_checked(page.len().checked_sub(END_BYTES)?)?;
    let (mut fields, checked) = (Fields(end), page.len().checked_sub(4)?);
    let used = usize::from(fields.u16()?);
    let is_whole = fields.u32()? == crc32c::crc32c(page.get(..checked)?);
    (is_whole && used <= content.len()).then_some(used)
}

/// Fills pages and writes them.
pub(crate) struct PageWriter<'f, const PAGE: usize> {
    file: &'f dyn DiskFile,
    /// Whole pages that are not written, and the beginning of one.
    bytes: Vec<u8>,
    /// Where that one begins.
    page: usize,
    /// Pages that are whole.
    whole: u64,
    offset: u64,
}

impl<'f, const PAGE: usize> PageWriter<'f, PAGE> {
    pub(crate) fn new(file: &'f dyn DiskFile) -> Self {
        Self { file, bytes: Vec::with_capacity(WRITE_BYTES), page: 0, whole: 0, offset: offset::<PAGE>(0) }
    }

    /// Bytes that there is room for on the page that was begun.
    pub(crate) fn left(&self) -> usize {
        (self.page + room::<PAGE>()).saturating_sub(self.bytes.len())
    }

    /// Whether the page is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == self.page
    }

    /// Adds to the page, which has [`Self::left`] so much.
    pub(crate) fn put(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
    }

    /// Begins a new page.
    pub(crate) fn end_page(&mut self) -> Result<(), DiskError> {
        let used = u16::try_from(self.bytes.len() - self.page).expect("a page has less than 65,536 bytes");
        self.bytes.resize(self.page + room::<PAGE>(), 0);
        self.bytes.extend_from_slice(&used.to_be_bytes());
        let crc = crc32c::crc32c(&self.bytes[self.page..]);
        self.bytes.extend_from_slice(&crc.to_be_bytes());
        self.page = self.bytes.len();
        self.whole = self.whole.saturating_add(1);
        if self.bytes.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if !self.bytes.is_empty() {
            self.file.write_at(&self.bytes, self.offset)?;
            self.offset = offset::<PAGE>(self.whole);
        }
        self.bytes.clear();
        self.page = 0;
        Ok(())
    }

    /// Writes what is left; gives the number of pages.
    pub(crate) fn finish(mut self) -> Result<u64, DiskError> {
        if !self.is_empty() {
            self.end_page()?;
        }
        self.flush()?;
        Ok(self.whole)
    }
}

/// Writes pages that hold this content, one each, whatever it is; gives their number.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn write_each<const PAGE: usize>(file: &dyn DiskFile, contents: &[&[u8]]) -> u64 {
    let mut writer = PageWriter::<PAGE>::new(file);
    for content in contents {
        writer.put(content);
        writer.end_page().expect("a disk in memory");
    }
    writer.finish().expect("a disk in memory")
}
