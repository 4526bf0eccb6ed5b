//! An index file with any pages, under checksums that hold.

use std::{path::Path, sync::Arc};

use engine::types::Height;

use super::{
    key::{KEY_BYTES, Key, Posting},
    sealed::{Files, Half, PAGE},
};
use crate::{disk::faulty::FaultyDisk, pages::write_each, segment, tables::SCHEMA};

/// Looks something up in a file whose pages hold these bytes.
pub(crate) fn fuzzed(files: &Files, bytes: &[u8]) {
    let (files, first) = (Files { disk: Arc::new(FaultyDisk::default()), ..files.clone() }, Height(1));
    let pages: Vec<&[u8]> = bytes.chunks(PAGE / 16).collect();
    let name = (Half::Places, 1, first);
    let header = files.header(name, u64::try_from(pages.len()).expect("a few"), SCHEMA.1);
    let path = segment::path(Path::new(&files.dir), 1, "idx");
    let file = files.disk.create(&path).expect("a disk in memory");
    file.write_at(&header, 0).expect("a disk in memory");
    write_each::<PAGE>(&*file, &pages);
    let index = files.open(name).expect("its header holds");
    let given = bytes.chunks_exact(KEY_BYTES).take(8).map(|key| u128::from_be_bytes(key.try_into().expect("a key")));
    for key in given.chain([0, 1 << 127, u128::MAX]).map(Key) {
        for at in [Posting::FIRST, Posting { above: 3, index: 1 }] {
            let _ = index.last(key, at);
            if let Ok(found) = index.seek(key, at) {
                assert!(found.iter().all(|posting| *posting >= at), "what is found lies behind what was asked for");
            }
        }
    }
}
