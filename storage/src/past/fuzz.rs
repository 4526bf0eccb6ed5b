//! A file of the past with any pages and directory, under checksums that hold, and any entries.

use std::{path::Path, sync::Arc};

use alloy_primitives::{B256, U256};
use engine::types::Height;

use super::{
    entry::{self, Partial, Told},
    file::{PAGE, PastFile, header, name},
};
use crate::{disk::faulty::FaultyDisk, index::Files, pages, tables::SCHEMA, trie::record};

/// Reads a file whose directory and pages hold these bytes, and takes them for entries.
pub(crate) fn fuzzed(files: &Files, bytes: &[u8]) {
    let Some((at, rest)) = bytes.split_first() else { return };
    let (directory, rows) = rest.split_at(usize::from(*at).min(rest.len()));
    let (files, range) = (Files { disk: Arc::new(FaultyDisk::default()), ..files.clone() }, (Height(1), Height(9)));
    let chunks: Vec<&[u8]> = rows.chunks(256).collect();
    let header = header(&files, range, (chunks.len(), directory), SCHEMA.1).expect("a few pages");
    let path = Path::new(&files.dir).join(name(range.0, range.1));
    let file = files.disk.create(&path).expect("a disk in memory");
    file.write_at(&header, 0).expect("a disk in memory");
    let written = pages::write_each::<PAGE>(&*file, &chunks);
    file.write_at(directory, pages::offset::<PAGE>(written)).expect("a disk in memory");
    if let Ok(past) = PastFile::open(&files, range) {
        let is_sound = past.check().is_empty();
        for key in [&[][..], directory, rows.get(3..).unwrap_or_default()] {
            let found: Vec<_> = past.rows_from(key).take_while(Result::is_ok).flatten().collect();
            let is_rising = found.windows(2).all(|pair| pair[0].0 < pair[1].0);
            assert!(!is_sound || is_rising, "rows of a sound file rise");
        }
    }
    entries(rest);
}

/// Takes bytes for entries of one branch, the oldest first.
fn entries(mut bytes: &[u8]) {
    let _ = entry::leaf_of(bytes, 0);
    let mut partial = Partial::default();
    while let Some((length, rest)) = bytes.split_first() {
        let (value, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        match partial.entry::<U256>(value) {
            Some(Told::More) => bytes = rest,
            Some(Told::Done(Some(node))) => {
                let branch = node.as_branch().expect("a branch was put together");
                let again = record::decode::<B256, U256>(&record::encode(&branch));
                assert!(again.is_some(), "what was put together can be written");
                return;
            }
            _ => return,
        }
    }
}
