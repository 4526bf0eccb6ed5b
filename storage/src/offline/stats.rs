//! What is in a data folder, and how much room it takes.

use std::{collections::BTreeMap, path::Path};

use alloy_primitives::B256;
use engine::{genesis::ChainSpec, types::Height};
use serde::Serialize;

use super::{Closed, Listener, Progress};
use crate::{
    disk::{Disk as _, RealDisk},
    error::{Fault, OpenError},
    index::Half,
    kv::{Env, EnvSize},
    log,
    place::free_bytes,
    prune::{self, Mark},
    record::HEADER_BYTES,
    recovery,
    segment::{FIRST_OFFSET, SegmentFile, Segments},
    tables::{self, Applied, Fields, Position, meta},
};

/// What a data folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Major and minor number of the layout.
    pub schema: (u16, u16),
    /// Id of the chain.
    pub chain_id: u64,
    /// Hash of all its parameters.
    pub chain_digest: B256,
    /// Height of the newest block that is whole.
    pub tip: u64,
    /// Height of the state in the tables; blocks above are applied when the store is opened.
    pub applied: u64,
    /// Height up to which blocks have their rows.
    pub indexed: u64,
    /// Heights of the blocks that can be read, first and last.
    pub blocks: (u64, u64),
    /// How a node last ran here: `archive`, `full` or `validator`; `None` if none did.
    pub mode: Option<String>,
    /// Height up to which blocks were taken away, 0 if none was.
    pub pruned: u64,
    /// Bytes of the disk that are free.
    pub free_bytes: u64,
    /// Bytes of all files that are told of here.
    pub bytes: u64,
    /// The MDBX environments.
    pub environments: Vec<Environment>,
    /// The files of blocks, oldest first.
    pub segments: Vec<Segment>,
    /// The files of the log, oldest first.
    pub log: Vec<File>,
}

/// One MDBX environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Its name.
    pub name: &'static str,
    /// Sizes of it and its tables.
    #[serde(flatten)]
    pub size: EnvSize,
}

/// One file of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// Height of its first block.
    pub first_height: u64,
    /// How many blocks it has.
    pub blocks: u64,
    /// Bytes of it that are used; what is behind them is zero.
    pub used_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of its index of transactions and logs; `None` if that is in memory when the store is open.
    pub index_bytes: Option<u64>,
    /// Bytes of its index of changes, which lead back to old states; `None` if it is in memory or gone.
    pub changes_bytes: Option<u64>,
}

/// One other file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// Tells what a data folder holds; changes nothing.
///
/// # Errors
/// [`OpenError`].
pub fn stats(dir: &Path, chain: &ChainSpec, listen: Listener<'_>) -> Result<Stats, OpenError> {
    let closed = Closed::open(dir, chain)?;
    let rows = closed.chain.snapshot().map_err(Fault::from)?;
    let number = |name| rows.get(tables::CHAIN_META, name, |row| Fields(row).u64());
    let indexed = number(meta::INDEXED).map_err(Fault::from)?.flatten().unwrap_or_default();
    let schema = rows.get(tables::CHAIN_META, meta::SCHEMA, |row| {
        let mut fields = Fields(row);
        fields.u16().zip(fields.u16())
    });
    let state = closed.state.snapshot().map_err(Fault::from)?;
    let applied = state.get(tables::STATE_META, meta::APPLIED, Applied::decode).map_err(Fault::from)?.flatten();
    let environments = closed.environments().map(|(name, env)| Ok::<_, Fault>(Environment { name, size: size(env)? }));
    let environments = environments.into_iter().collect::<Result<Vec<_>, _>>()?;
    let segments_dir = dir.join("segments");
    let mark = Mark::read(&closed.chain)?;
    let found = Segments::open(&RealDisk, &segments_dir, closed.identity, mark.segment)?;
    let tip = recovery::newest(&closed.chain, &found)?.height;
    let segments = segments(&closed, &found, &segments_dir, listen)?;
    let log = files(&log::folder_in(dir), "log")?;
    let first = segments.first().map_or(1, |segment| segment.first_height);
    let bytes = environments.iter().map(|environment| environment.size.file_bytes);
    let bytes = bytes.chain(segments.iter().flat_map(|segment| {
        [segment.bytes, segment.index_bytes.unwrap_or_default(), segment.changes_bytes.unwrap_or_default()]
    }));
    let bytes = bytes.chain(log.iter().map(|file| file.bytes)).fold(0, u64::saturating_add);
    Ok(Stats {
        schema: schema.map_err(Fault::from)?.flatten().unwrap_or_default(),
        chain_id: closed.identity.chain_id,
        chain_digest: closed.identity.chain_digest,
        tip: tip.0,
        applied: applied.map_or(0, |applied| applied.height.0),
        indexed,
        blocks: if tip.0 < first { (0, 0) } else { (first, tip.0) },
        mode: prune::mode(&closed.chain)?,
        pruned: mark.height.0,
        free_bytes: free_bytes(dir).map_err(Fault::from)?,
        bytes,
        environments,
        segments,
        log,
    })
}

fn size(env: &Env) -> Result<EnvSize, Fault> {
    Ok(env.size()?)
}

/// Names and lengths of the files of a kind.
fn files(dir: &Path, extension: &str) -> Result<Vec<File>, Fault> {
    let mut files = Vec::new();
    for name in RealDisk.list(dir)? {
        let path = dir.join(&name);
        if path.extension().is_some_and(|found| found == extension) {
            files.push(File { bytes: RealDisk.open(&path)?.length()?, name });
        }
    }
    files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn segments(closed: &Closed, found: &Segments, dir: &Path, listen: Listener<'_>) -> Result<Vec<Segment>, Fault> {
    let mut indices = BTreeMap::new();
    for half in Half::ALL {
        indices.extend(files(dir, half.extension())?.into_iter().map(|file| (file.name, file.bytes)));
    }
    let all = found.all();
    let mut segments = Vec::with_capacity(all.len());
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
    for (done, segment) in (1..).zip(&all) {
        let next = usize::try_from(done).ok().and_then(|next| all.get(next));
        let (last, used_bytes) = end(closed, segment, next.map(|next| next.first_height))?;
        let index = |half: Half| indices.get(&format!("{:08}.{}", segment.number, half.extension())).copied();
        segments.push(Segment {
            number: segment.number,
            first_height: segment.first_height.0,
            blocks: last.0.saturating_add(1).saturating_sub(segment.first_height.0),
            used_bytes,
            bytes: segment.file.length()?,
            index_bytes: index(Half::Places),
            changes_bytes: index(Half::Changes),
        });
        listen(Progress { what: "segments", done, all: count });
    }
    Ok(segments)
}

/// The last height of a segment, and the offset behind it. Where the next segment begins, a row tells that; else the
/// fronts of the records do.
fn end(closed: &Closed, segment: &SegmentFile, next: Option<Height>) -> Result<(Height, u64), Fault> {
    if let Some(last) = next.and_then(Height::previous) {
        let rows = closed.chain.snapshot()?;
        let row = rows.get(tables::CANONICAL, &last.0.to_be_bytes(), Position::decode)?.flatten();
        if let Some(row) = row.filter(|row| row.segment == segment.number) {
            return Ok((last, row.offset.saturating_add(u64::from(row.length))));
        }
    }
    let (mut last, mut offset) = (segment.first_height.previous().unwrap_or_default(), FIRST_OFFSET);
    while let Some(front) = segment.front(offset)? {
        last = last.max(front.height);
        let length = u64::try_from(HEADER_BYTES.saturating_add(front.length)).unwrap_or(u64::MAX);
        offset = offset.saturating_add(length);
    }
    Ok((last, offset))
}
