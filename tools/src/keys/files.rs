//! Files with secrets: read only if nobody but their owner has access, written so that nobody else ever had.

use std::{
    fs::{DirBuilder, File, Metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use eyre::{WrapErr, ensure, eyre};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::keystore::Password;

/// Largest password file, in bytes.
const PASSWORD_BYTES_MAX: u64 = 1_024;

/// Entries of a key folder that are looked at; one key is all that belongs there.
const FOLDER_ENTRIES_MAX: usize = 4_096;

/// Bytes that nobody can know.
pub(crate) fn draw<const N: usize>() -> io::Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let mut drawn = 0;
    while let Some(rest) = bytes.get_mut(drawn..).filter(|rest| !rest.is_empty()) {
        drawn = drawn.saturating_add(getrandom(rest, GetRandomFlags::empty())?);
    }
    Ok(bytes)
}

/// Reads a secret of at most so many bytes, out of a file of mode 0600 or less.
pub(crate) fn read_secret(path: &Path, bytes_max: u64) -> eyre::Result<Zeroizing<Vec<u8>>> {
    let failed = || format!("cannot read {}", path.display());
    // What is no file, such as a pipe, might let nobody open it, so it is looked at before and after.
    let is_file = |found: &Metadata| ensure_kind(path, found.is_file(), "no file");
    is_file(&std::fs::metadata(path).wrap_err_with(failed)?)?;
    let file = File::open(path).wrap_err_with(failed)?;
    let found = file.metadata().wrap_err_with(failed)?;
    is_file(&found)?;
    ensure_private(path, &found, "600")?;
    read_bounded(path, file, bytes_max)
}

/// Reads a file of at most so many bytes.
pub(crate) fn read_bounded(path: &Path, file: File, bytes_max: u64) -> eyre::Result<Zeroizing<Vec<u8>>> {
    // With room for all of it nothing is moved, and no copy is left behind.
    let room = usize::try_from(bytes_max)?.saturating_add(64);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    let read = read.wrap_err_with(|| format!("cannot read {}", path.display()))?;
    ensure!(u64::try_from(read)? <= bytes_max, "{} has more than {bytes_max} bytes", path.display());
    Ok(bytes)
}

/// Refuses a folder to which others than its owner have access.
pub(crate) fn check_folder(path: &Path) -> eyre::Result<()> {
    let found = std::fs::metadata(path).wrap_err_with(|| format!("cannot look at {}", path.display()))?;
    ensure_kind(path, found.is_dir(), "no folder")?;
    ensure_private(path, &found, "700")
}

/// Refuses a file whose folder others than its owner have access to.
pub(crate) fn check_folder_of(path: &Path) -> eyre::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    check_folder(folder.unwrap_or_else(|| Path::new(".")))
}

/// Makes a folder of mode 0700; one that is there must be no looser.
pub(crate) fn create_folder(path: &Path) -> eyre::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_folder(path),
        made => made.wrap_err_with(|| format!("cannot create {}", path.display())),
    }
}

/// Writes a file of mode 0600 that must not be there yet; whole or not at all, whatever happens.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> eyre::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        File::open(folder)?.sync_all()
    };
    write().wrap_err_with(|| format!("cannot write {}", path.display()))
}

/// Reads a password file: UTF-8; control codes such as the end of a line are no part of a password.
pub(crate) fn password(path: &Path) -> eyre::Result<Password> {
    let bytes = read_secret(path, PASSWORD_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| eyre!("{} is not UTF-8", path.display()))?;
    Password::new(text).ok_or_else(|| eyre!("{} holds no password", path.display()))
}

/// The one keystore of a folder.
pub(crate) fn only_keystore(folder: &Path) -> eyre::Result<PathBuf> {
    check_folder(folder)?;
    let failed = || format!("cannot list {}", folder.display());
    let mut found: Vec<PathBuf> = Vec::new();
    for (count, entry) in std::fs::read_dir(folder).wrap_err_with(failed)?.enumerate() {
        ensure!(count < FOLDER_ENTRIES_MAX, "{} holds more than {FOLDER_ENTRIES_MAX} files", folder.display());
        let path = entry.wrap_err_with(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Err(eyre!("{} holds no keystore, a file that ends in .json", folder.display())),
        [only] => Ok(only.clone()),
        [first, second, ..] => Err(eyre!(
            "{} holds several keystores, {} and {} among them: a node signs with one key",
            folder.display(),
            name(first),
            name(second),
        )),
    }
}

fn name(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or_default()).display()
}

fn ensure_kind(path: &Path, is_right: bool, wrong: &str) -> eyre::Result<()> {
    ensure!(is_right, "{} is {wrong}", path.display());
    Ok(())
}

fn ensure_private(path: &Path, found: &Metadata, right: &str) -> eyre::Result<()> {
    let mode = found.permissions().mode() & 0o7777;
    let shown = path.display();
    ensure!(mode & 0o077 == 0, "{shown} has mode {mode:04o}, so others have access to it: chmod {right} {shown}");
    Ok(())
}
