//! Opening a log: reading it, deciding whether it can be trusted, and making it fit to go on.
//!
//! What is given to the node was synced before: records that nothing proves durable are written again in place, since
//! they may be whole in the page cache only, and a torn tail is zeroed, so that none of its bytes looks like a record
//! later. A log that cannot be trusted goes on in a new file, which says so and carries what could be read; the file
//! that was the evidence goes away only when that is durable. So a crash in here changes nothing that the next start
//! would find.

use std::{path::Path, sync::Arc};

use parking_lot::{Condvar, Mutex};
use tracing::{info, warn};

use super::{
    Folder, Log, Progress, file,
    record::{Mark, Unsealed},
    scan::{self, Found, Newest},
    spare::Spares,
};
use crate::{
    disk::Disk,
    disk::write_zeros,
    error::{Fault, OpenError},
    failpoint::FailPoints,
};

/// Opens the log of a folder, which is locked, and gives what it holds.
///
/// `was_made` says that there has been a log before; `tip` is the block that the store's chain ends with, height 0 for
/// none.
pub(crate) fn open(folder: Folder, was_made: bool, tip: Mark) -> Result<(Log, engine::ports::Recovered), OpenError> {
    let Folder { disk, dir, identity, bytes, fail, housekeeper } = folder;
    disk.create_dir(&dir).map_err(Fault::from)?;
    let mut found = scan::folder(&*disk, &dir, Some(identity))?;
    let reason = why_lost(&found, was_made, tip, &dir);
    let goes_on = found.damage.is_none() && (reason.is_none() || found.live.is_lost);
    if let Some(reason) = &reason {
        warn!(%reason, "the log is lost: what was signed may be more than it tells");
    }
    found.live.is_lost |= reason.is_some();
    found.live.forget_blocks(tip);
    let spares = Arc::new(Spares {
        disk: Arc::clone(&disk),
        dir: dir.clone(),
        size: bytes,
        fail: Arc::clone(&fail),
        housekeeper,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let (generation, offset, sequence) = match found.newest.filter(|_| goes_on) {
        Some(newest) => {
            let (generation, offset) = settle(newest, &fail)?;
            // Its name may be known to nobody but the page cache, and now the older files go, or the folder is told
            // that it has a log.
            if found.numbers.len() > 1 || !was_made {
                sync_names(&*disk, &dir)?;
            }
            (generation, offset, found.sequence)
        }
        None => {
            if found.numbers.is_empty() {
                sync_names(&*disk, &dir)?;
            }
            let number = match found.numbers.last() {
                Some(last) => super::after(*last)?,
                None => 0,
            };
            let live = &found.live;
            let state = Unsealed::new(live.entries.iter(), live.blocks.iter())?.first(live.is_lost);
            super::check_room(bytes, state.length(), 0)?;
            let sequence = found.sequence.saturating_add(1);
            let parts = (&*disk, &*dir, &*fail);
            let made = file::begin(parts, (identity, number, bytes), (state, sequence, live.mark), spares.take()?)?;
            (made.0, made.1, sequence)
        }
    };
    fail.hit("log.open.settled").map_err(Fault::Failed)?;
    let old = found.numbers.into_iter().filter(|number| *number != generation.header.number);
    spares.prepare(old.map(|number| file::path(&dir, number)).collect::<Vec<_>>());
    let recovered = found.live.recovered();
    let progress = Progress::new(found.live, generation, (offset, sequence));
    let log = Log { disk, dir, identity, bytes, fail, spares, progress: Mutex::new(progress), changed: Condvar::new() };
    Ok((log, recovered))
}

/// Makes the names in the log's folder durable, and its own.
fn sync_names(disk: &dyn Disk, dir: &Path) -> Result<(), Fault> {
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent)?;
    }
    Ok(disk.sync_dir(dir)?)
}

/// Why something may have been signed that the log does not tell of.
pub(super) fn why_lost(found: &Found, was_made: bool, tip: Mark, dir: &Path) -> Option<String> {
    if let Some(damage) = &found.damage {
        return Some(damage.clone());
    }
    if found.live.is_lost {
        return Some(format!("{} was found lost before, and nothing was regained since", dir.display()));
    }
    if found.numbers.is_empty() && was_made {
        return Some(format!("{} had a log, and it is gone", dir.display()));
    }
    let floor = found.live.floor();
    if tip.height.0 > 0 && floor < Some((tip.epoch, tip.slot)) {
        let floor = floor.map_or_else(|| "nothing".to_owned(), |(epoch, slot)| format!("epoch {epoch}, slot {slot}"));
        let Mark { epoch, slot, .. } = tip;
        let dir = dir.display();
        return Some(format!("the chain is at epoch {epoch}, slot {slot}, {dir} knows of {floor}: it is an old copy"));
    }
    None
}

/// Makes what was read durable, and takes away a torn tail; returns the offset behind the last record.
fn settle(newest: Newest, fail: &FailPoints) -> Result<(file::Generation, u64), Fault> {
    let Newest { generation, bytes, end, proven, used, .. } = newest;
    let offset = |at: usize| u64::try_from(at).unwrap_or(u64::MAX);
    if used > end {
        info!(path = %generation.path.display(), offset = end, bytes = used - end, "cutting off an unfinished record");
        write_zeros(&*generation.file, offset(end), offset(used))?;
    }
    fail.hit("log.open.cut").map_err(Fault::Failed)?;
    if let Some(unproven) = bytes.get(proven..end).filter(|unproven| !unproven.is_empty()) {
        generation.file.write_at(unproven, offset(proven))?;
    }
    if used > end || proven < end {
        generation.file.sync()?;
    }
    Ok((generation, offset(end)))
}
