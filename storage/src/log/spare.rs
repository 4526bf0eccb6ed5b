//! The next file of the log, made of zeros before it is needed.
//!
//! The file that was in use before the present one becomes the spare: it is renamed and zeroed in place, so that a log
//! never needs more room than two files, and goes on for ever on a disk that somebody else has filled. Only where there
//! is no older file, or one of another size, a new one is written.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use crate::{
    disk::{Disk, DiskFile, write_zeros},
    error::Fault,
    failpoint::FailPoints,
    housekeeper::Housekeeper,
};

/// Its name.
pub(super) const NAME: &str = "spare.log";

/// The spare, and who prepares it.
pub(super) struct Spares {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) size: u64,
    pub(super) fail: Arc<FailPoints>,
    pub(super) housekeeper: Option<Arc<Housekeeper>>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    spare: Option<Arc<dyn DiskFile>>,
    /// Somebody is writing zeros.
    writing: bool,
    /// The file with a spare's name is one that was taken.
    is_taken: bool,
    /// Files that are not needed any more.
    old: Vec<PathBuf>,
}

impl Spares {
    /// Makes a spare soon, of a file that is not needed any more if there is one; what was taken has its own name now.
    pub(super) fn prepare(self: &Arc<Self>, old: impl IntoIterator<Item = PathBuf>) {
        {
            let mut state = self.state.lock();
            state.old.extend(old);
            state.is_taken = false;
        }
        match &self.housekeeper {
            Some(housekeeper) => {
                let own = Arc::clone(self);
                housekeeper.submit(Box::new(move || own.work()));
            }
            None => self.work(),
        }
    }

    /// Makes a spare if there is none, and removes old files. Whoever does this may come late: while a spare that was
    /// taken still bears the name of spares, nothing is done.
    pub(super) fn work(&self) {
        let mut state = self.state.lock();
        if state.writing || state.is_taken || (state.spare.is_some() && state.old.is_empty()) {
            return;
        }
        let old = std::mem::take(&mut state.old);
        let is_wanted = state.spare.is_none();
        state.writing = true;
        drop(state);
        let outcome = self.make(old, is_wanted);
        let mut state = self.state.lock();
        state.writing = false;
        match outcome {
            Ok(Some(file)) => state.spare = Some(file),
            Ok(None) => {}
            Err(error) => warn!(%error, "no spare file for the log"),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes the spare, or makes one now. It keeps its name until the caller renames it, and [`Self::prepare`] says
    /// that this is done.
    pub(super) fn take(&self) -> Result<Arc<dyn DiskFile>, Fault> {
        let mut state = self.state.lock();
        while state.writing {
            self.changed.wait(&mut state);
        }
        state.is_taken = true;
        if let Some(spare) = state.spare.take() {
            return Ok(spare);
        }
        let old = std::mem::take(&mut state.old);
        state.writing = true;
        drop(state);
        let made = self.make(old, true);
        let mut state = self.state.lock();
        (state.writing, state.is_taken) = (false, made.is_ok());
        drop(state);
        self.changed.notify_all();
        made?.ok_or_else(|| Fault::Failed("no spare file for the log".to_owned()))
    }

    /// Removes old files; makes a spare of one of them, of the spare that is there, or a new one, if one is wanted.
    fn make(&self, old: Vec<PathBuf>, is_wanted: bool) -> Result<Option<Arc<dyn DiskFile>>, Fault> {
        let spare = self.dir.join(NAME);
        let mut reusable = is_wanted.then(|| self.reusable(&spare)).flatten();
        for path in old {
            self.fail.hit("log.recycle").map_err(Fault::Failed)?;
            match self.reusable(&path).filter(|_| is_wanted && reusable.is_none()) {
                Some(file) => {
                    self.disk.rename(&path, &spare)?;
                    reusable = Some(file);
                }
                None => self.disk.remove(&path)?,
            }
        }
        if !is_wanted {
            return Ok(None);
        }
        let file = reusable.map_or_else(|| self.disk.create(&spare), Ok)?;
        let fill = || {
            self.fail.hit("log.spare").map_err(Fault::Failed)?;
            write_zeros(&*file, 0, self.size)?;
            Ok(file.sync()?)
        };
        if let Err(error) = fill() {
            // The error that matters is the first; a file that cannot be removed is written again later.
            let _ = self.disk.remove(&spare);
            return Err(error);
        }
        Ok(Some(file))
    }

    /// A file that is there with the size that a spare has: its room on the disk is taken already.
    fn reusable(&self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let file = self.disk.open(path).ok()?;
        file.length().is_ok_and(|length| length == self.size).then_some(file)
    }
}
