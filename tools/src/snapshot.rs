//! Snapshots of a chain's state in files: made of a stopped node's folder, checked by anybody, taken over by a new one.
//!
//! The block whose state is exported is the newest that the folder can show to be final: every block is kept with its
//! certificate, so no end of an epoch has to be waited for.

pub(crate) mod joining;
pub(crate) mod judge;

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use alloy_primitives::B256;
use clap::{Args, Subcommand};
use engine::{genesis::ChainSpec, limits::STATE_WINDOW_HEIGHTS, ports::Store as _, types::Height};
use eyre::{WrapErr, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use storage::{
    Config, Database,
    portable::{self, Imported, Manifest, Progress, Source},
};

use crate::{
    cli::{ChainArgs, FolderArgs},
    finality, inspect,
};

/// What `snapshot` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write the state of a stopped node's folder into files that prove themselves.
    Export(ExportArgs),
    /// Check every file of a snapshot alone, and that all of the state is there; exit 1 if anything is wrong.
    Verify(VerifyArgs),
    /// Make a data folder out of a snapshot, for a node that goes on from there.
    ///
    /// Run it again after an interruption: it goes on, and reads nothing twice that it had written. A validator's
    /// folder made so signs nothing until it knows what its key signed before: from the others, or by `log import`.
    Import(ImportArgs),
}

/// Flags of `snapshot export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Folder to write; it must be empty or not there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Size of a chunk, in bytes, 1 KiB to 64 MiB.
    #[arg(long, default_value_t = 12 << 20, value_name = "BYTES")]
    chunk_bytes: usize,
    /// Epoch whose validators those who use the snapshot know.
    #[arg(long, default_value_t = 0, value_name = "EPOCH")]
    from_epoch: u64,
}

/// A snapshot, and what is trusted of its chain.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Folder with the snapshot.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    chain: ChainArgs,
    /// Hash of the validator set that its proof begins with; that of the genesis file unless given.
    #[arg(long, value_name = "HASH")]
    trust_set: Option<B256>,
    /// Threads that check chunks; all cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    threads: Option<u16>,
}

/// Flags of `snapshot verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    source: SourceArgs,
}

/// Flags of `snapshot import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Data folder to make; it must hold no chain.
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Kill the process at a named point, as NAME or NAME:COUNT; for crash tests.
    #[arg(long, hide = true, value_name = "NAME[:COUNT]")]
    fail_point: Option<String>,
}

impl SourceArgs {
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(cores, usize::from)
    }

    /// The chain, the snapshot, and what of it was shown to be final.
    fn open(&self) -> eyre::Result<(Arc<ChainSpec>, Source, portable::Foundation)> {
        let chain = inspect::chain(&self.chain)?;
        let trusted = match self.trust_set {
            Some(hash) => hash,
            None => chain.validator_set()?.hash(),
        };
        let source = Source::open(&self.from).wrap_err_with(|| format!("{} is no snapshot", self.from.display()))?;
        let foundation = judge::judge(&chain, &source.manifest, source.blocks()?, trusted);
        let foundation = foundation.wrap_err("the snapshot does not show that its block is final")?;
        portable::fits(&chain, &source.manifest, &foundation)?;
        Ok((chain, source, foundation))
    }
}

/// Runs a `snapshot` command.
pub(crate) fn run(command: &SnapshotCommand) -> eyre::Result<ExitCode> {
    match command {
        SnapshotCommand::Export(args) => export(args),
        SnapshotCommand::Verify(args) => verify(args),
        SnapshotCommand::Import(args) => import(args),
    }
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(name: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(name);
    match ProgressStyle::with_template("{prefix:8} {bar:40} {percent}% {msg} {elapsed} eta {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.all);
    bar.set_position(progress.done);
    bar.set_message(format!("{} chunks, {} rows", progress.chunks, progress.rows));
}

fn print(report: &Value) -> eyre::Result<()> {
    Ok(writeln!(std::io::stdout(), "{report}")?)
}

fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// What a snapshot is, for a report.
fn described(manifest: &Manifest) -> Value {
    let sum = |of: fn(&portable::ChunkEntry) -> u64| manifest.chunks.iter().map(of).fold(0, u64::saturating_add);
    let slots = sum(|chunk| if chunk.part.owner.is_some() { chunk.part.rows } else { chunk.part.slots });
    json!({
        "height": manifest.height, "hash": manifest.hash, "state_root": manifest.state_root,
        "chunks": manifest.chunks.len(), "bytes": sum(|chunk| chunk.bytes).saturating_add(manifest.blocks.bytes),
        "accounts": sum(|chunk| if chunk.part.owner.is_some() { 0 } else { chunk.part.rows }), "slots": slots,
    })
}

fn export(args: &ExportArgs) -> eyre::Result<ExitCode> {
    let (chain, datadir) = (inspect::chain(&args.folder.chain)?, &args.folder.datadir);
    ensure!(datadir.is_dir(), "{} is no folder", datadir.display());
    let config = Config { scrub_interval: None, proof_window: u64::MAX, ..Config::new(datadir) };
    let store =
        Database::open(config, chain).wrap_err_with(|| format!("cannot open data folder {}", datadir.display()))?;
    let start = Instant::now();
    let height = provable(&store, args.from_epoch)?;
    let mut shown = Vec::new();
    for (at, from_epoch) in judge::carried(&store, height, args.from_epoch)? {
        let file = finality::File::of(&store, at, from_epoch)?;
        let file = file.ok_or_else(|| eyre::eyre!("the folder does not hold what makes block {at} final"))?;
        shown.push((at, serde_json::to_value(file)?));
    }
    let bar = bar("export");
    let manifest = portable::export(&store, shown, &args.to, args.chunk_bytes, &|progress| show(&bar, progress));
    bar.finish_and_clear();
    let manifest = manifest.wrap_err_with(|| format!("cannot export to {}", args.to.display()))?;
    store.close().wrap_err("cannot close the data folder")?;
    let mut report = described(&manifest);
    report["seconds"] = json!(seconds(start));
    print(&report)?;
    Ok(ExitCode::SUCCESS)
}

/// The newest block that the folder shows to be final and whose state it has. The very last one may be final by the
/// certificate of a block above it that did not get here.
fn provable(store: &Database, from_epoch: u64) -> eyre::Result<Height> {
    let tip = store.tip().height().0;
    ensure!(tip > 0, "the folder holds block 0 alone, which the genesis file tells");
    for height in (tip.saturating_sub(STATE_WINDOW_HEIGHTS).max(1)..=tip).rev().map(Height) {
        if finality::File::of(store, height, from_epoch)?.is_some() {
            return Ok(height);
        }
    }
    bail!("the folder does not hold what makes one of its last {STATE_WINDOW_HEIGHTS} blocks final")
}

fn verify(args: &VerifyArgs) -> eyre::Result<ExitCode> {
    let start = Instant::now();
    let (_, source, _) = args.source.open()?;
    let bar = bar("verify");
    let failures = portable::verify(&source, args.source.threads(), &|progress| show(&bar, progress));
    bar.finish_and_clear();
    let told = failures.iter().map(|failure| json!({ "file": failure.file, "reason": failure.reason }));
    let mut report = described(&source.manifest);
    report["valid"] = json!(failures.is_empty());
    report["failures"] = told.collect();
    report["seconds"] = json!(seconds(start));
    print(&report)?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn import(args: &ImportArgs) -> eyre::Result<ExitCode> {
    let start = Instant::now();
    let (chain, source, foundation) = args.source.open()?;
    let config = Config { fail_point: args.fail_point.clone(), ..Config::new(&args.datadir) };
    let (bar, threads) = (bar("import"), args.source.threads());
    let imported = portable::import(&config, &chain, &source, &foundation, threads, &|progress| show(&bar, progress));
    bar.finish_and_clear();
    let Imported { resumed, .. } =
        imported.wrap_err_with(|| format!("cannot import {}", args.source.from.display()))?;
    let store = Database::open(Config { scrub_interval: None, ..config }, chain)
        .wrap_err_with(|| format!("cannot open what was imported into {}", args.datadir.display()))?;
    let tip = store.tip();
    store.close().wrap_err("cannot close the data folder")?;
    ensure!(tip.hash() == source.manifest.hash, "the folder begins with block {}, not as imported", tip.hash());
    let mut report = described(&source.manifest);
    report["resumed_chunks"] = json!(resumed);
    report["seconds"] = json!(seconds(start));
    print(&report)?;
    Ok(ExitCode::SUCCESS)
}
