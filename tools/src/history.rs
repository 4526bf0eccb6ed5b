//! What a validator signed: shown, exported and imported.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
};

use eyre::WrapErr;
use storage::log::{self, Imported};

use crate::cli::{LogCommand, LogExportArgs, LogFolderArgs, LogImportArgs};

/// Bytes of a signing history; a vote takes some 400.
const HISTORY_BYTES_MAX: u64 = 256 << 20;

/// Runs a `log` command.
pub(crate) fn run(command: &LogCommand) -> eyre::Result<()> {
    match command {
        LogCommand::Show(args) => show(args),
        LogCommand::Export(args) => export(args),
        LogCommand::Import(args) => import(args),
    }
}

fn show(args: &LogFolderArgs) -> eyre::Result<()> {
    let lines = log::show(&args.datadir)?;
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn export(args: &LogExportArgs) -> eyre::Result<()> {
    let text = log::export(&args.folder.datadir)?;
    let Some(path) = &args.out else { return Ok(write!(std::io::stdout(), "{text}")?) };
    // An older history must not be lost to a newer one of another node.
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.wrap_err_with(|| format!("cannot write {}", path.display()))
}

fn import(args: &LogImportArgs) -> eyre::Result<()> {
    let (file, folder) = (args.file.display(), args.folder.datadir.display());
    let text = read(&args.file).wrap_err_with(|| format!("cannot read {file}"))?;
    let imported = log::import(&args.folder.datadir, &text);
    let imported = imported.wrap_err_with(|| format!("cannot import {file} into {folder}"))?;
    let Imported { floor: (epoch, slot), proposals, votes } = imported;
    let what = format!("{proposals} proposals and {votes} votes that it did not have");
    writeln!(
        std::io::stdout(),
        "{folder} took over {what}; nothing is signed at or below epoch {epoch}, slot {slot} any more"
    )?;
    Ok(())
}

fn read(path: &Path) -> eyre::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(HISTORY_BYTES_MAX).read_to_string(&mut text)?;
    eyre::ensure!(u64::try_from(bytes)? < HISTORY_BYTES_MAX, "it has {HISTORY_BYTES_MAX} bytes or more");
    Ok(text)
}
