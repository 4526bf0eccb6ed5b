//! A file that is compared with what would be written into it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DiskError, DiskFile};

/// Bytes that are compared at a time: the places that differ are told by pages of an index.
const PAGE: usize = 4_096;

/// Takes writes, and remembers which the file does not hold.
pub(crate) struct Same {
    file: Arc<dyn DiskFile>,
    differs: Mutex<Vec<u64>>,
}

impl Same {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, differs: Mutex::default() }
    }

    /// Offsets of the pages that hold something else, in the order in which they were written.
    pub(crate) fn differs(self) -> Vec<u64> {
        self.differs.into_inner()
    }
}

impl DiskFile for Same {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), DiskError> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], mut offset: u64) -> Result<(), DiskError> {
        let mut found = [0; PAGE];
        for page in bytes.chunks(PAGE) {
            let found = &mut found[..page.len()];
            // What cannot be read is not what would be written.
            if self.file.read_at(found, offset).is_err() || found != page {
                self.differs.lock().push(offset);
            }
            offset = offset.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file.length()
    }
}
