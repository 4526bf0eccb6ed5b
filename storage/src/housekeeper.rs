//! Work beside the finality path: the next segment's zeros, and indices of sealed segments.
//!
//! One thread, started with the store. Without it (tests that count writes) the same work is done
//! where it is asked for. A spare that cannot be written is reported when it is needed, and tried
//! once more then: space may have returned.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use crate::{
    disk::{Disk, DiskFile},
    error::Fault,
    failpoint::FailPoints,
    place::Place,
    segment,
};

/// Jobs that may wait.
const JOBS_MAX: usize = 64;

/// Something to do beside the finality path.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    spare: Option<Arc<dyn DiskFile>>,
    /// A spare is asked for and not there.
    wanted: bool,
    /// The thread is writing zeros.
    writing: bool,
    jobs: VecDeque<Job>,
    stop: bool,
}

/// The thread and what it works on.
pub(crate) struct Housekeeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    fail: Arc<FailPoints>,
    place: Arc<Place>,
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    background: bool,
}

impl Housekeeper {
    /// Starts the thread, if `background`.
    pub(crate) fn start(
        (disk, dir, place): (Arc<dyn Disk>, PathBuf, Arc<Place>),
        segment_bytes: u64,
        fail: Arc<FailPoints>,
        background: bool,
    ) -> Result<Arc<Self>, Fault> {
        let keeper = Arc::new(Self {
            disk,
            dir,
            segment_bytes,
            fail,
            place,
            state: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
            background,
        });
        if background {
            let own = Arc::clone(&keeper);
            let thread = thread::Builder::new()
                .name("storage-segments".to_owned())
                .spawn(move || own.run())
                .map_err(|error| Fault::Failed(format!("starting a thread: {error}")))?;
            *keeper.thread.lock() = Some(thread);
        }
        Ok(keeper)
    }

    /// Asks for a spare segment of the usual size.
    pub(crate) fn prepare_spare(&self) {
        if self.background {
            let mut state = self.state.lock();
            state.wanted = state.spare.is_none();
            self.changed.notify_all();
        }
    }

    /// Whether a spare is there; waits for one that is being written.
    pub(crate) fn has_spare(&self) -> bool {
        let mut state = self.state.lock();
        while state.writing {
            self.changed.wait(&mut state);
        }
        state.spare.is_some()
    }

    /// Takes the spare, or writes one of `size` bytes now.
    pub(crate) fn take_spare(&self, size: u64) -> Result<Arc<dyn DiskFile>, Fault> {
        let mut state = self.state.lock();
        while state.writing {
            self.changed.wait(&mut state);
        }
        state.wanted = false;
        let spare = state.spare.take();
        drop(state);
        match spare {
            Some(file) if size == self.segment_bytes => Ok(file),
            _ => Ok(segment::create_zeroed(&*self.disk, &self.dir.join("spare.seg"), size)?),
        }
    }

    /// Does `job` soon; at once if too many wait already.
    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        if !self.background || state.stop || state.jobs.len() >= JOBS_MAX {
            drop(state);
            return job();
        }
        state.jobs.push_back(job);
        self.changed.notify_all();
    }

    /// Ends the thread after the jobs it has; the spare stays for nobody.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            warn!("the segment thread panicked");
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.stop {
                return;
            } else if state.wanted {
                state.wanted = false;
                state.writing = true;
                drop(state);
                let outcome = self.fail.hit("segment.spare").map_err(Fault::Failed).and_then(|()| {
                    self.place.check(self.segment_bytes)?;
                    Ok(segment::create_zeroed(&*self.disk, &self.dir.join("spare.seg"), self.segment_bytes)?)
                });
                state = self.state.lock();
                state.writing = false;
                match outcome {
                    Ok(file) => state.spare = Some(file),
                    Err(error) => warn!(%error, "no spare segment"),
                }
                self.changed.notify_all();
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}
