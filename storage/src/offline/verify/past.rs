//! The files of what blocks replaced, each page with its checksum and its place.
//!
//! What is only being written, and what the next start takes away, is no damage.

use super::{Listener, Progress, Verified};
use crate::{
    error::Fault,
    index::Files,
    past::file::{PastFile, heights},
};

/// Reads all files there are; a folder that has none is not damaged.
pub(super) fn all(files: &Files, found: &mut Verified, listen: Listener<'_>) -> Result<(), Fault> {
    if !files.dir.is_dir() {
        return Ok(());
    }
    let names = files.disk.list(&files.dir)?.into_iter();
    let mut ranges: Vec<_> = names.filter_map(|name| Some((heights(&name)?, format!("past/{name}")))).collect();
    ranges.sort_unstable();
    let all = u64::try_from(ranges.len()).unwrap_or(u64::MAX);
    for (done, (range, name)) in (1..).zip(ranges) {
        match PastFile::open(files, range) {
            Ok(file) => {
                found.bytes = found.bytes.saturating_add(file.bytes());
                file.check().into_iter().for_each(|(offset, fault)| found.note(&name, offset, fault.to_string()));
            }
            Err(reason) => found.note(&name, 0, reason),
        }
        found.past_files = done;
        listen(Progress { what: "past", done, all });
    }
    Ok(())
}
