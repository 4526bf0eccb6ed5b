//! One seed: work under the recorder, cuts at moments that follow from the seed, a look at what each leaves.

use std::{
    fs,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use super::{
    Expected, Machine,
    check::Promise,
    image::Image,
    recorder::Recorded,
    taking::Taken,
    trace::{self, Step},
    work::{self, Work},
};
use crate::rng::Rng;

/// Cuts within the recovery of an image.
const RECOVERY_CUTS: u64 = 6;

/// What is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `power`, which does the recorded work.
    pub program: PathBuf,
    /// Cuts of a seed.
    pub images: u64,
    /// Only this one of them.
    pub only: Option<u64>,
    /// A trace that is there, in place of a new one.
    pub trace: Option<PathBuf>,
    /// Files and folders whose path has this in it are never synced: what a test that can fail must find.
    pub unsynced: Option<String>,
    /// Where traces go of which an image failed.
    pub kept: PathBuf,
}

/// What a seed did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images that were looked at.
    pub images: u64,
    /// Of them, those of recoveries that were cut.
    pub recoveries: u64,
    /// Steps of the trace.
    pub steps: u64,
}

/// A folder for files that are worth nothing afterwards, in memory if the machine has such a place.
///
/// # Errors
/// If none can be made.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new().prefix("sluice-power-").to_owned();
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }
}

/// One cut.
struct Cut {
    number: u64,
    at: u64,
    image: Image,
    promise: Promise,
}

/// What the images of a seed have in common.
struct Run<'a> {
    options: &'a Options,
    seed: u64,
    expected: Expected,
    folder: &'a Path,
    images: AtomicU64,
    recoveries: AtomicU64,
    failure: Mutex<Option<(u64, String)>>,
}

/// Cuts the power of one seed's run as often as asked for.
///
/// # Errors
/// What the first image shows that no honest cut may leave, and how to see it again.
pub fn run(options: &Options, seed: u64) -> Result<Counts, String> {
    let folder = scratch().map_err(|error| format!("no scratch folder: {error}"))?;
    let steps = recorded(options, seed, folder.path())?;
    let expected = expected(seed, folder.path())?;
    let (images, recoveries, failure) = Default::default();
    let run = Run { options, seed, expected, folder: folder.path(), images, recoveries, failure };
    let (cuts, waiting) = sync_channel(4);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for worker in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (run, waiting) = (&run, &waiting);
            scope.spawn(move || run.work(worker, waiting));
        }
        // The channel ends with this closure, and with it the threads.
        let cuts = cuts;
        run.cut(&steps, &mut |cut| {
            if cuts.send(cut).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    })
    .unwrap_or_else(|error| run.fail(0, error));
    if let Some((image, why)) = run.failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        let kept = options.kept.join(format!("seed-{seed}.trace"));
        let source = folder.path().join("trace");
        let copy = || if options.trace.is_some() { Ok(0) } else { fs::copy(&source, &kept) };
        let copied = fs::create_dir_all(&options.kept).and_then(|()| copy());
        let kept = options.trace.as_ref().unwrap_or(&kept).display();
        let kept = copied.map_or_else(|error| format!("its trace is lost: {error}"), |_| kept.to_string());
        let (next, images) = (seed + 1, options.images);
        let again = format!("power cut --seeds {seed}..{next} --images {images} --image {image} --trace {kept}");
        return Err(format!("seed {seed}, image {image}, {why}\nagain: {again}"));
    }
    let counts = Counts {
        images: run.images.into_inner(),
        recoveries: run.recoveries.into_inner(),
        steps: u64::try_from(steps.len()).unwrap_or(u64::MAX),
    };
    Ok(counts)
}

/// The trace of a seed's work.
fn recorded(options: &Options, seed: u64, folder: &Path) -> Result<Vec<Step>, String> {
    let (root, own) = (folder.join("work"), folder.join("trace"));
    let trace = options.trace.as_ref().unwrap_or(&own);
    if options.trace.is_none() {
        fs::create_dir(&root).map_err(|error| format!("no folder for the work: {error}"))?;
        let arguments = ["work".to_owned(), root.display().to_string(), seed.to_string()];
        let process =
            Recorded { program: &options.program, arguments: &arguments, root: &root, trace, fault: None, seed };
        let (status, said) = process.run()?;
        if !status.success() {
            return Err(format!("seed {seed}: the work ended with {status}: {said}"));
        }
    }
    let bytes = fs::read(trace).map_err(|error| format!("{}: {error}", trace.display()))?;
    trace::decode(&bytes)
}

/// What a seed's work leaves: the same work, undisturbed.
///
/// # Errors
/// If it fails.
pub fn expected(seed: u64, folder: &Path) -> Result<Expected, String> {
    let dir = folder.join("expected");
    let mut work = Work::new(seed);
    work.run(&dir, seed, &mut |_| {}).map_err(|error| format!("seed {seed}, undisturbed: {error}"))?;
    fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(Expected::of(work, work::config(&dir, seed)))
}

impl Run<'_> {
    fn fail(&self, image: u64, why: String) {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.get_or_insert((image, why));
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some()
    }

    /// Runs the machine over the trace and hands out what each cut leaves.
    fn cut(&self, steps: &[Step], give: &mut dyn FnMut(Cut) -> ControlFlow<()>) -> Result<(), String> {
        let mut machine = Machine::empty();
        if let Some(part) = &self.options.unsynced {
            machine = machine.without_syncs_of(part);
        }
        let places = places(steps, self.options.images, &mut Rng::new(self.seed));
        let (mut promise, mut rest) = (Promise::default(), steps.iter());
        for (number, at) in (0..).zip(places) {
            for step in rest.by_ref().take(usize::try_from(at - machine.position()).unwrap_or(usize::MAX)) {
                machine.step(step)?;
                promise.take(step);
            }
            if self.options.only.is_some_and(|only| only != number) {
                continue;
            }
            let image = machine.cut(&mut self.rng(number));
            if self.has_failed() || give(Cut { number, at, image, promise }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn rng(&self, image: u64) -> Rng {
        Rng::new(self.seed.rotate_left(32) ^ image)
    }

    fn work(&self, worker: usize, waiting: &Mutex<Receiver<Cut>>) {
        loop {
            let next = waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
            let Ok(cut) = next else { return };
            if self.has_failed() {
                continue;
            }
            let look = || self.look(&self.folder.join(format!("image-{worker}")), &cut);
            let outcome = catch_unwind(AssertUnwindSafe(look));
            let outcome = outcome.unwrap_or_else(|panic| Err(format!("a panic: {}", words(&*panic))));
            if let Err(why) = outcome {
                self.fail(cut.number, format!("cut at step {}: {why}", cut.at));
            }
        }
    }

    /// Looks at one image, and at some at what is left of them when their recovery is cut.
    fn look(&self, root: &Path, cut: &Cut) -> Result<(), String> {
        let put =
            |image: &Image, root: &Path| image.write(root).map_err(|error| format!("{}: {error}", root.display()));
        put(&cut.image, root)?;
        if cut.number % 16 == 7 {
            let mut rng = self.rng(cut.number ^ 1 << 63);
            let (mut machine, steps) = self.recovery(root, &mut rng)?;
            // It takes in whatever is missing.
            let promise = Promise { taken: Taken { begun: usize::MAX, ..cut.promise.taken }, ..cut.promise };
            let mut rest = steps.iter();
            for place in places(&steps, RECOVERY_CUTS, &mut rng) {
                let taken = usize::try_from(place - machine.position()).unwrap_or(usize::MAX);
                rest.by_ref().take(taken).try_for_each(|step| machine.step(step))?;
                put(&machine.cut(&mut rng), root)?;
                let outcome = self.expected.check(&root.join("data"), &promise, false);
                outcome.map_err(|why| format!("its recovery, cut at step {place}: {why}"))?;
                self.images.fetch_add(1, Ordering::Relaxed);
                self.recoveries.fetch_add(1, Ordering::Relaxed);
            }
            put(&cut.image, root)?;
        }
        self.images.fetch_add(1, Ordering::Relaxed);
        self.expected.check(&root.join("data"), &cut.promise, cut.number % 8 == 3)
    }

    /// Opens an image under the recorder; gives the machine as it was before, and what happened then.
    fn recovery(&self, root: &Path, rng: &mut Rng) -> Result<(Machine, Vec<Step>), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", root.display());
        let machine = Machine::with(root).map_err(failed)?;
        let (trace, ends) = (root.with_extension("trace"), if rng.below(2) == 0 { "close" } else { "crash" });
        let arguments = ["recover".to_owned(), root.display().to_string(), self.seed.to_string(), ends.to_owned()];
        let program = &self.options.program;
        let process = Recorded { program, arguments: &arguments, root, trace: &trace, fault: None, seed: rng.next() };
        let (status, said) = process.run()?;
        if !status.success() {
            return Err(format!("its recovery ended with {status}: {said}"));
        }
        Ok((machine, trace::decode(&fs::read(&trace).map_err(failed)?)?))
    }
}

/// Where to cut: anywhere, and as often around syncs, promises and names.
fn places(steps: &[Step], count: u64, rng: &mut Rng) -> Vec<u64> {
    let is_edge = |step: &Step| !matches!(step, Step::Write(..) | Step::SyncBegin | Step::Flush(..));
    let edges: Vec<u64> = (1..).zip(steps).filter(|(_, step)| is_edge(step)).map(|(at, _)| at).collect();
    let all = u64::try_from(steps.len()).expect("a length fits");
    let edge = |random: u64| edges[usize::try_from(random % edges.len() as u64).expect("an index fits")];
    let mut places: Vec<u64> = (0..count)
        .map(|_| match rng.below(2) {
            0 => 1 + rng.below(all),
            _ => edge(rng.next()).saturating_sub(rng.below(2)).max(1),
        })
        .collect();
    places.sort_unstable();
    places
}

/// What a panic says.
pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
