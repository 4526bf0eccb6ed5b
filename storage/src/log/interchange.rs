//! What a validator signed, as a file that can be taken to another folder, in the spirit of EIP-3076.
//!
//! ```json
//! {
//!   "interchange": "sluice-signing-history",
//!   "version": 1,
//!   "chain_id": 1001,
//!   "genesis_hash": "0x..",
//!   "chain_digest": "0x..",
//!   "floor": { "epoch": 0, "slot": 812 },
//!   "proposals": [{ "epoch": 0, "slot": 813, "id": "0x..", "header": "0x..", "signature": "0x.." }],
//!   "votes": [{ "epoch": 0, "slot": 813, "kind": "notarize", "id": "0x..", "voter": 0, "signature": "0x.." }]
//! }
//! ```
//!
//! `genesis_hash` is the hash of block 0, `chain_digest` that of all parameters of the chain. At and below `floor`
//! nothing is signed any more; it is `null` if nothing was final yet. `proposals` and `votes` are all that was signed
//! above it: `header` is the RLP of the consensus header with this `id`, `kind` is `notarize`, `skip` or `finalize`,
//! and a skip has no `id`. No other field and no other version is read.
//!
//! An import takes the entries over, and raises the floor to the highest slot of anything in the file and in the log:
//! the importer's word that nothing was signed above. So it ends a loss, as the answers of other validators do.

use std::path::{Path, PathBuf};

use engine::{
    ordering::journal::{Entry, KeptBlock},
    types::{Epoch, Slot},
};

pub use self::history::HistoryError;
use self::history::{History, Identified};
use super::{
    Folder, Identity, Mark, folder_in,
    open::{self, why_lost},
    scan::{self, Found},
};
use crate::{
    Config,
    disk::{Disk, FolderLock, RealDisk},
    error::{Fault, OpenError},
    failpoint::FailPoints,
    kv::Env,
    open::{note_log_made, stored_identity, was_log_made},
    prune, recovery,
    segment::Segments,
    tables::{CANONICAL, CHAIN_TABLES, Position},
};

mod history;

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// At and below this nothing is signed any more.
    pub floor: (Epoch, Slot),
    /// Proposals that the log did not have.
    pub proposals: usize,
    /// Votes that it did not have.
    pub votes: usize,
}

/// A data folder that no node uses.
struct Closed {
    /// What the chain's tables say; without them there may still be a log.
    chain: Option<Chain>,
    log_dir: PathBuf,
    _lock: FolderLock,
}

struct Chain {
    env: Env,
    identity: Identity,
    was_made: bool,
    tip: Mark,
}

impl Closed {
    fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, HistoryError> {
        let (chain_dir, log_dir) = (dir.join("chain"), folder_in(dir));
        if !chain_dir.is_dir() && !log_dir.is_dir() {
            return Err(HistoryError::NoFolder(dir.to_owned()));
        }
        let lock = FolderLock::take(dir).map_err(Fault::from)?.ok_or_else(|| OpenError::Locked(dir.to_owned()))?;
        let chain = if chain_dir.is_dir() { Chain::open(disk, dir, &chain_dir)? } else { None };
        Ok(Self { chain, log_dir, _lock: lock })
    }

    fn scan(&self, disk: &dyn Disk) -> Result<Found, HistoryError> {
        disk.create_dir(&self.log_dir).map_err(Fault::from)?;
        Ok(scan::folder(disk, &self.log_dir, self.chain.as_ref().map(|chain| chain.identity))?)
    }

    fn why_lost(&self, found: &Found) -> Option<String> {
        let was_made = self.chain.as_ref().is_some_and(|chain| chain.was_made);
        let tip = self.chain.as_ref().map(|chain| chain.tip).unwrap_or_default();
        why_lost(found, was_made, tip, &self.log_dir)
    }
}

impl Chain {
    fn open(disk: &dyn Disk, dir: &Path, chain_dir: &Path) -> Result<Option<Self>, HistoryError> {
        let env = Env::open(chain_dir, CHAIN_TABLES, Config::new(dir).map_bytes_max).map_err(Fault::from)?;
        let stored = stored_identity(&env.write().map_err(Fault::from)?, dir)?;
        let Some(stored) = stored else { return Ok(None) };
        let genesis = env.snapshot().and_then(|rows| rows.get(CANONICAL, &[0; 8], Position::decode));
        let Some(genesis) = genesis.map_err(Fault::from)?.flatten() else { return Ok(None) };
        let identity =
            Identity { chain_id: stored.chain_id, chain_digest: stored.chain_digest, genesis_hash: genesis.hash };
        let first = prune::Mark::read(&env)?.segment;
        let segments = Segments::open(disk, &dir.join("segments"), stored, first)?;
        let (was_made, tip) = (was_log_made(&env)?, recovery::newest(&env, &segments)?);
        Ok(Some(Self { env, identity, was_made, tip }))
    }
}

/// Gives the signing history of a data folder that no node uses.
///
/// # Errors
/// [`HistoryError`]; a log that is lost does not tell everything that was signed, and is not exported.
pub fn export(dir: &Path) -> Result<String, HistoryError> {
    export_on(&RealDisk, dir)
}

pub(super) fn export_on(disk: &dyn Disk, dir: &Path) -> Result<String, HistoryError> {
    let closed = Closed::open(disk, dir)?;
    let found = closed.scan(disk)?;
    if let Some(reason) = closed.why_lost(&found) {
        return Err(HistoryError::Lost(reason));
    }
    let newest = found.newest.ok_or(HistoryError::NoLog(closed.log_dir))?;
    Ok(History::of(newest.generation.header.identity, &found.live).encode())
}

/// Takes a signing history over into a data folder that no node uses.
///
/// # Errors
/// [`HistoryError`]; the folder is as it was then, unless writing failed.
pub fn import(dir: &Path, text: &str) -> Result<Imported, HistoryError> {
    import_on(std::sync::Arc::new(RealDisk), dir, text)
}

pub(super) fn import_on(disk: std::sync::Arc<dyn Disk>, dir: &Path, text: &str) -> Result<Imported, HistoryError> {
    let history = History::decode(text)?;
    let closed = Closed::open(&*disk, dir)?;
    let found = closed.scan(&*disk)?;
    let Closed { chain: Some(chain), log_dir, _lock } = closed else {
        return Err(HistoryError::NoFolder(dir.to_owned()));
    };
    let Identified { floor, mut entries } = history.identified(chain.identity)?;
    let of_chain = (chain.tip.height.0 > 0).then_some((chain.tip.epoch, chain.tip.slot));
    let known = found.live.floor().max(of_chain);
    let highest_in_file = entries.iter().map(Entry::place).max().max(floor);
    if let Some(known) = known.filter(|known| floor < Some(*known)) {
        return Err(HistoryError::Older { floor, known, is_covered: highest_in_file <= Some(known) });
    }
    // Nothing is signed at the start of an epoch.
    let signed = found.live.entries.iter().filter(|entry| !matches!(entry, Entry::EpochStart { .. }));
    let highest = highest_in_file.max(signed.map(Entry::place).max()).ok_or(HistoryError::Empty)?;
    entries.retain(|entry| !found.live.entries.contains(entry));
    let proposals = entries.iter().filter(|entry| matches!(entry, Entry::Proposal { .. })).count();
    let imported = Imported { floor: highest, proposals, votes: entries.len().saturating_sub(proposals) };
    entries.push(Entry::Regained { epoch: highest.0, slot: highest.1 });

    let bytes = found.newest.map_or_else(|| Config::new(dir).log_bytes, |newest| newest.generation.header.size);
    let fail = std::sync::Arc::new(FailPoints::default());
    let folder = Folder { disk, dir: log_dir, identity: chain.identity, bytes, fail, housekeeper: None };
    let (log, _) = open::open(folder, chain.was_made, chain.tip)?;
    log.append(&entries, &[])?;
    log.sync()?;
    if !chain.was_made {
        note_log_made(&chain.env)?;
    }
    Ok(imported)
}

/// Lines that tell a person what the log of a data folder holds; the folder is not changed.
///
/// # Errors
/// [`HistoryError`].
pub fn show(dir: &Path) -> Result<Vec<String>, HistoryError> {
    show_on(&RealDisk, dir)
}

pub(super) fn show_on(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, HistoryError> {
    let closed = Closed::open(disk, dir)?;
    let found = closed.scan(disk)?;
    let reason = closed.why_lost(&found);
    if found.numbers.is_empty() && reason.is_none() {
        return Err(HistoryError::NoLog(closed.log_dir));
    }
    let mut lines = Vec::new();
    if let Some(newest) = &found.newest {
        let Identity { chain_id, genesis_hash, .. } = newest.generation.header.identity;
        let behind = newest.used.saturating_sub(newest.end);
        lines.push(format!("file        {}", newest.generation.path.display()));
        lines.push(format!("chain       {chain_id}, genesis {genesis_hash}"));
        lines.push(format!(
            "records     {}, the last one {}; {} bytes of {}, {} known to be synced, {behind} of an unfinished record",
            newest.records, found.sequence, newest.end, newest.generation.header.size, newest.proven
        ));
    }
    let Mark { epoch, slot, height } = found.live.mark;
    lines.push(format!("forgotten   below epoch {epoch}, slot {slot}; blocks up to {height}"));
    lines.push(match found.live.floor() {
        Some((epoch, slot)) => format!("floor       epoch {epoch}, slot {slot}"),
        None => "floor       none".to_owned(),
    });
    lines.push(format!("lost        {}", reason.as_deref().unwrap_or("no")));
    lines.extend(found.live.entries.iter().map(entry_line));
    lines.extend(found.live.blocks.iter().map(block_line));
    Ok(lines)
}

fn entry_line(entry: &Entry) -> String {
    let (epoch, slot) = entry.place();
    let place = format!("epoch {epoch}, slot {slot}");
    let said = |statement: &engine::types::Statement| {
        let id = statement.id().map(|id| format!(" {id}")).unwrap_or_default();
        format!("{:?}{id}", statement.kind()).to_lowercase()
    };
    match entry {
        Entry::Proposal { id, header, .. } => format!("proposal    {place}: {id} at height {}", header.height),
        Entry::Vote(vote) => format!("vote        {place}: {} by {}", said(&vote.statement), vote.voter),
        Entry::Certificate(held) => {
            let (count, size) = (held.signers.iter().count(), held.signers.size());
            format!("certificate {place}: {} by {count} of {size}", said(&held.statement))
        }
        Entry::Floor { .. } => format!("floor       {place}"),
        Entry::EpochStart { base, set, .. } => {
            format!("epoch       {epoch} on {base} with {} validators", set.size())
        }
        Entry::Regained { .. } => format!("regained    {place}"),
    }
}

fn block_line(kept: &KeptBlock) -> String {
    let header = &kept.signed.header;
    let what = kept
        .block
        .as_ref()
        .map_or_else(|| "tail header".to_owned(), |block| format!("{} transactions", block.body.transactions.len()));
    format!(
        "block       epoch {}, slot {}: {} at height {}, {what}",
        header.epoch,
        header.slot,
        header.id(),
        header.height
    )
}
