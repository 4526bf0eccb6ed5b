//! Writes, syncs and changes of names that fail, one after the other, in a run's whole course.
//!
//! Whatever fails, the work ends in order or goes on, and says the system's words when it ends; once the fault is over
//! the store opens with everything that was promised and takes further blocks. If the power is cut after a sync has
//! failed, nothing that was promised is missing either.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use super::{
    Expected, Machine,
    campaign::{expected, scratch, words},
    check::Promise,
    recorder::{Course, Fault, Kind, Recorded},
    trace::{self, Step},
};
use crate::rng::Rng;

/// Cuts of the power after a fault.
const CUTS: u64 = 3;

/// Every fault that is tried, call by call.
pub const FAULTS: [(Kind, i32, Course); 8] = [
    (Kind::Write, ENOSPC, Course::Once),
    (Kind::Write, ENOSPC, Course::OnAndOn),
    (Kind::Write, ENOSPC, Course::Torn),
    (Kind::Write, EIO, Course::Once),
    (Kind::Write, EIO, Course::OnAndOn),
    (Kind::Sync, EIO, Course::Once),
    (Kind::Sync, EIO, Course::OnAndOn),
    (Kind::Name, ENOSPC, Course::OnAndOn),
];

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Which of a run's calls fail.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `power`, which does the recorded work.
    pub program: PathBuf,
    /// The first call that fails.
    pub first: u32,
    /// How many calls on the next one does, in a run of its own.
    pub step: u32,
}

/// What became of the runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs in which a call failed.
    pub runs: u32,
    /// Of them, those that ended with an error; the others could do without.
    pub stopped: u32,
}

struct Faults<'a> {
    options: &'a Options,
    seed: u64,
    kind: Kind,
    errno: i32,
    course: Course,
    expected: Expected,
    next: AtomicU32,
    is_done: AtomicBool,
    counts: Mutex<Counts>,
    failure: Mutex<Option<String>>,
}

/// Lets one call after the other of one seed's work fail, until there is none left.
///
/// # Errors
/// What the first run shows that no fault may do.
pub fn run(options: &Options, seed: u64, (kind, errno, course): (Kind, i32, Course)) -> Result<Counts, String> {
    let folder = scratch().map_err(|error| format!("no scratch folder: {error}"))?;
    let expected = expected(seed, folder.path())?;
    let (next, is_done, counts, failure) =
        (AtomicU32::new(options.first), AtomicBool::new(false), Mutex::default(), Mutex::default());
    let faults = Faults { options, seed, kind, errno, course, expected, next, is_done, counts, failure };
    thread::scope(|scope| {
        for worker in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (faults, folder) = (&faults, folder.path().join(format!("work-{worker}")));
            scope.spawn(move || faults.work(&folder));
        }
    });
    let failure = faults.failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    failure.map_or_else(|| Ok(faults.counts.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())), Err)
}

impl Faults<'_> {
    fn work(&self, folder: &Path) {
        while !self.is_done.load(Ordering::Relaxed) {
            let nth = self.next.fetch_add(self.options.step, Ordering::Relaxed);
            let fault = Fault { kind: self.kind, nth, errno: self.errno, course: self.course };
            let outcome = catch_unwind(AssertUnwindSafe(|| self.look(folder, fault)));
            let outcome = outcome.unwrap_or_else(|panic| Err(format!("a panic: {}", words(&*panic))));
            let mut counts = self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match outcome {
                Ok(Some(has_stopped)) => {
                    counts.runs += 1;
                    counts.stopped += u32::from(has_stopped);
                }
                Ok(None) => self.is_done.store(true, Ordering::Relaxed),
                Err(why) => {
                    self.is_done.store(true, Ordering::Relaxed);
                    let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    failure.get_or_insert(format!("seed {}, {fault:?}: {why}", self.seed));
                }
            }
        }
    }

    /// One run: whether it ended with an error, `None` if it made too few calls for one to fail.
    fn look(&self, folder: &Path, fault: Fault) -> Result<Option<bool>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let trace = folder.with_extension("trace");
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(failed)?;
        let arguments = ["work".to_owned(), folder.display().to_string(), self.seed.to_string()];
        let program = &self.options.program;
        let process = Recorded {
            program,
            arguments: &arguments,
            root: folder,
            trace: &trace,
            fault: Some(fault),
            seed: self.seed,
        };
        let (status, said) = process.run()?;
        let steps = trace::decode(&fs::read(&trace).map_err(failed)?)?;
        let has_failed = steps.contains(&Step::Fault);
        self.check_end(status, &said, has_failed)?;
        if !has_failed {
            return Ok(None);
        }
        let mut promise = Promise::default();
        steps.iter().for_each(|step| promise.take(step));
        let data = folder.join("data");
        self.expected.check(&data, &promise, true).map_err(|why| format!("opened again: {why}\n{said}"))?;
        if self.kind == Kind::Sync {
            self.cut(folder, &steps, promise).map_err(|why| format!("the power cut: {why}\n{said}"))?;
        }
        Ok(Some(!status.success()))
    }

    /// The process ends by itself, in order, with the system's words where it could not go on.
    fn check_end(&self, status: ExitStatus, said: &str, has_failed: bool) -> Result<(), String> {
        // Half of a write is no error to the system; who does not go on with the other half has words of his own.
        let torn = (self.course == Course::Torn).then_some(EIO);
        let mut words = [Some(self.errno), torn]
            .into_iter()
            .flatten()
            .map(|errno| std::io::Error::from_raw_os_error(errno).to_string());
        let is_clear =
            said.contains("error: ") && words.any(|words| said.contains(&words)) && !said.contains("panicked");
        match status.code() {
            Some(0) => Ok(()),
            Some(1) if has_failed && is_clear => Ok(()),
            _ => Err(format!("it ended with {status}: {said}")),
        }
    }

    fn cut(&self, folder: &Path, steps: &[Step], promise: Promise) -> Result<(), String> {
        let mut machine = Machine::empty();
        steps.iter().try_for_each(|step| machine.step(step))?;
        let mut rng = Rng::new(self.seed);
        for _ in 0..CUTS {
            machine.cut(&mut rng).write(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            self.expected.check(&folder.join("data"), &promise, false)?;
        }
        Ok(())
    }
}
