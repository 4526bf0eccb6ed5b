//! After a crash: what the segments say above what the tables hold.
//!
//! 1. Read blocks behind the newest one that both environments know. A block counts when its four
//!    records are whole; the first that is not ends the chain. What was cut is zeroed and synced, so
//!    that none of its bytes can look like a record later.
//! 2. A cut is corruption, not a torn write, if the height was durable: the tables know it, a later
//!    segment exists, or a later group says so in its Finalization.
//! 3. Apply the changes above the checkpoint to overlay and trie, comparing each root with the header;
//!    the changes of the kept heights below it go into the overlay only.
//!
//! 4. Blocks that no later group calls durable are written again in place and synced before they count.
//!
//! Nothing is written but zeros and bytes that stand there already, so a crash in here changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use engine::{
    genesis::ChainSpec,
    limits::STATE_WINDOW_HEIGHTS,
    types::{CommittedBlock, Height},
};
use tracing::info;

use crate::{
    blocks::{self, Stored},
    commit::{insert_changes, note_dirty},
    error::Fault,
    genesis,
    kv::Env,
    log::Mark,
    past::Asked,
    record::{self, HEADER_BYTES, Kind},
    segment::{Appender, Entry, FIRST_OFFSET, SegmentFile, Segments, zero_tail},
    store::Inner,
    tables::{self, Applied, Fields, Position, meta},
};

/// Bytes behind a cut in which a later group is looked for.
const CLAIM_BYTES_MAX: u64 = 64 << 20;

/// A block found in the segments.
pub(crate) struct Found {
    stored: Stored,
    position: Position,
}

/// What the segments hold above the newest block that both environments know.
pub(crate) struct Scan {
    /// That block.
    pub(crate) base: Arc<CommittedBlock>,
    /// Transactions up to and including it.
    pub(crate) transactions: u64,
    found: Vec<Found>,
}

/// Where a block is, by its row.
pub(crate) fn canonical(env: &Env, height: Height) -> Result<Position, Fault> {
    let row = env.snapshot()?.get(tables::CANONICAL, &height.0.to_be_bytes(), Position::decode)?;
    row.flatten().ok_or_else(|| Fault::corrupt(format!("there is no canonical row {height}")))
}

fn landmark(env: &Env, height: Height) -> Result<Arc<CommittedBlock>, Fault> {
    let found = blocks::landmark(&env.snapshot()?, height)?;
    found.ok_or_else(|| Fault::corrupt(format!("block {height} is neither in a segment nor a landmark")))
}

/// Reads the segments behind `known`, cuts a torn tail, and places the appender behind the rest.
pub(crate) fn scan(
    chain_env: &Env,
    appender: &mut Appender,
    chain: &ChainSpec,
    known: Height,
    applied: Applied,
    indexed: Height,
) -> Result<Scan, Fault> {
    let position = canonical(chain_env, known)?;
    let base = if known == Height::GENESIS {
        Arc::new(genesis::block(chain))
    } else if position.length == 0 {
        landmark(chain_env, known)?
    } else {
        let length = usize::try_from(position.length).expect("a length of 32 bits fits");
        let segment = appender.segments.get(position.segment)?;
        blocks::decode(&segment.read(position.offset, length)?, known, segment.salt)?.block
    };
    if known == applied.height && base.block.header.state_root != applied.root {
        let text = format!("block {known} has state root {}, not {}", base.block.header.state_root, applied.root);
        return Err(Fault::corrupt(text));
    }
    if base.hash() != position.hash {
        return Err(Fault::corrupt(format!("block {known} has hash {}, not {}", base.hash(), position.hash)));
    }
    let (mut found, mut durable) = (Vec::new(), known);
    let mut at = (position.segment, position.offset.saturating_add(u64::from(position.length)));
    let mut parent = Arc::clone(&base);
    loop {
        let segment = appender.segments.get(at.0)?;
        match next_block(&segment, at.1, parent.height().next())? {
            Some((stored, length, before)) => {
                durable = durable.max(before);
                check_parent(&stored, &parent)?;
                parent = Arc::clone(&stored.block);
                let transactions = u32::try_from(parent.block.body.transactions.len()).unwrap_or(u32::MAX);
                let position = Position {
                    hash: parent.hash(),
                    id: parent.block.consensus.id(),
                    segment: at.0,
                    offset: at.1,
                    length,
                    first_transaction: 0,
                    transactions,
                };
                found.push(Found { stored, position });
                at.1 = at.1.saturating_add(u64::from(length));
            }
            None if segment.number == appender.current.number => break,
            None if !matches!(segment.entry(at.1)?, Entry::End) => {
                let text = format!("block {} in {} is damaged", parent.height().next(), segment.path.display());
                return Err(Fault::corrupt(text));
            }
            None => at = (at.0.saturating_add(1), FIRST_OFFSET),
        }
    }
    cut(appender, at.1, parent.height(), applied.height.max(indexed))?;
    confirm(appender, found.iter().filter(|found| found.stored.block.height() > durable))?;
    let transactions = position.first_transaction.saturating_add(u64::from(position.transactions));
    Ok(Scan { base, transactions, found })
}

fn check_parent(stored: &Stored, parent: &CommittedBlock) -> Result<(), Fault> {
    let header = stored.block.block.header.inner();
    if header.parent_hash != parent.hash() {
        let text = format!("block {} names parent {}, not {}", header.number, header.parent_hash, parent.hash());
        return Err(Fault::corrupt(text));
    }
    Ok(())
}

/// The whole block at `offset` with its length in bytes and the height that was durable before its group;
/// `None` if there is none of this height.
fn next_block(segment: &SegmentFile, offset: u64, height: Height) -> Result<Option<(Stored, u32, Height)>, Fault> {
    let (mut end, mut durable) = (offset, Height::GENESIS);
    for kind in Kind::ALL {
        match segment.entry(end)? {
            Entry::Record(header, payload) if header.kind == kind && header.height == height => {
                let length = u64::try_from(HEADER_BYTES + payload.len()).unwrap_or(u64::MAX);
                end = end.saturating_add(length);
                if kind == Kind::Finalization {
                    let Some((_, before)) = record::decode_finalization(&payload) else { return Ok(None) };
                    durable = before;
                }
            }
            _ => return Ok(None),
        }
    }
    let Ok(length) = u32::try_from(end - offset) else { return Ok(None) };
    let bytes = segment.read(offset, usize::try_from(length).expect("a length of 32 bits fits"))?;
    Ok(Some((blocks::decode(&bytes, height, segment.salt)?, length, durable)))
}

/// Epoch, slot and height of the newest whole block, height 0 if there is none but block 0; changes nothing.
pub(crate) fn newest(chain_env: &Env, segments: &Segments) -> Result<Mark, Fault> {
    let indexed = chain_env.snapshot()?.get(tables::CHAIN_META, meta::INDEXED, |row| Fields(row).u64())?;
    let Some(indexed) = indexed.flatten().map(Height) else { return Ok(Mark::default()) };
    let position = canonical(chain_env, indexed)?;
    let (mut segment, mut end) = (segments.get(position.segment)?, position.offset);
    let mut newest = Mark::default();
    if indexed != Height::GENESIS && position.length == 0 {
        let header = &landmark(chain_env, indexed)?.block.consensus;
        newest = Mark { epoch: header.epoch(), slot: header.slot(), height: indexed };
    }
    // The block that the rows end with is read again, for its slot.
    let mut height = if position.length == 0 { indexed.next() } else { indexed };
    loop {
        if let Some((stored, length, _)) = next_block(&segment, end, height)? {
            let header = &stored.block.block.consensus;
            newest = Mark { epoch: header.epoch(), slot: header.slot(), height };
            end = end.saturating_add(u64::from(length));
            height = height.next();
        } else if let Ok(next) = segments.get(segment.number.saturating_add(1)) {
            (segment, end) = (next, FIRST_OFFSET);
        } else if newest.height < indexed {
            return Err(Fault::corrupt(format!("block {indexed} in {} is damaged", segment.path.display())));
        } else {
            return Ok(newest);
        }
    }
}

/// Writes blocks that nothing proves durable once more, in place, and syncs: they may be whole only in the page cache.
///
/// A process killed before its sync leaves them dirty there; after a failed sync they even count as clean, and
/// no later sync would write them. Without this, a checkpoint could build on blocks that a power cut takes.
fn confirm<'f>(appender: &Appender, unproven: impl Iterator<Item = &'f Found>) -> Result<(), Fault> {
    let mut touched = BTreeMap::from([(appender.current.number, Arc::clone(&appender.current))]);
    for Found { position, .. } in unproven {
        let segment = appender.segments.get(position.segment)?;
        let length = usize::try_from(position.length).expect("a length of 32 bits fits");
        segment.file.write_at(&segment.read(position.offset, length)?, position.offset)?;
        touched.insert(segment.number, segment);
    }
    for segment in touched.values() {
        segment.file.sync()?;
    }
    appender.fail.hit("recovery.confirmed").map_err(Fault::Failed)
}

/// Ends the log behind `tip`, at `offset` of the last segment.
fn cut(appender: &mut Appender, offset: u64, tip: Height, durable: Height) -> Result<(), Fault> {
    let segment = Arc::clone(&appender.current);
    if tip < durable {
        let text = format!("blocks {} to {durable} are missing behind {}", tip.next(), segment.path.display());
        return Err(Fault::corrupt(text));
    }
    let length = usize::try_from(segment.size.saturating_sub(offset).min(CLAIM_BYTES_MAX)).unwrap_or(usize::MAX);
    let tail = segment.read(offset, length)?;
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    if used > 0 {
        if record::claims_durable(&tail[..used], tip.next(), segment.salt) {
            let text = format!("block {} in {} is damaged, later ones are not", tip.next(), segment.path.display());
            return Err(Fault::corrupt(text));
        }
        info!(height = tip.0, offset, bytes = used, "cutting off an unfinished group");
    }
    appender.fail.hit("recovery.cut").map_err(Fault::Failed)?;
    zero_tail(&segment, offset)?;
    appender.offset = offset;
    Ok(())
}

/// Brings overlay, tries and blocks in memory up to the last whole block.
pub(crate) fn replay(inner: &Arc<Inner>, scan: Scan, applied: Applied) -> Result<(), Fault> {
    let base = scan.base.height();
    let tip = scan.found.last().map_or(base, |found| found.stored.block.height());
    let floor = Height(tip.0.saturating_sub(STATE_WINDOW_HEIGHTS)).max(inner.segments.lowest()).min(applied.height);
    inner.overlay.start_at(floor);
    for height in (floor.0.saturating_add(1)..=base.0).map(Height) {
        let stored = inner
            .blocks
            .stored(height)?
            .ok_or_else(|| Fault::corrupt(format!("block {height} is not in the segments")))?;
        insert_changes(inner, height, &stored.changes, None)?;
    }
    let mut trie = inner.blocks.newest_trie().1;
    for Found { stored, position } in scan.found {
        let height = stored.block.height();
        inner.fail.hit("recovery.apply").map_err(Fault::Failed)?;
        if height <= applied.height {
            if height == applied.height && position.hash != applied.hash {
                let text = format!("block {height} has hash {}, the state is that of {}", position.hash, applied.hash);
                return Err(Fault::corrupt(text));
            }
            insert_changes(inner, height, &stored.changes, None)?;
            drop(inner.blocks.push(stored.block, position, None));
            continue;
        }
        insert_changes(inner, height, &stored.changes, Some(&trie))?;
        let next = Arc::new(trie.apply(&stored.changes, &inner.snapshots)?);
        let expected = stored.block.block.header.state_root;
        if next.hash != expected {
            let text = format!("block {height} leads to state root {}, its header says {expected}", next.hash);
            return Err(Fault::corrupt(text));
        }
        if inner.past.note(height, (&trie, &next), &stored.changes) == Asked::Now {
            inner.past.absorb(&inner.snapshots);
        }
        note_dirty(inner, height, stored.changes.len(), usize::try_from(position.length).unwrap_or(usize::MAX));
        drop(inner.blocks.push(stored.block, position, Some(Arc::clone(&next))));
        trie = next;
    }
    Ok(())
}
