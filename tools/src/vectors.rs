//! Ethereum's test vectors, run through this chain's own decoder, executor, trie and signatures.
//!
//! One JSON line per case, in order of file and case, then one line that counts them:
//!
//! ```text
//! {"suite","file","name","fork","index","pass","skip","got","want","ms"}
//! {"summary":true,"passed","failed","skipped"}
//! ```
//!
//! Real blocks (`replay`) have further fields; see there.
//!
//! The exit code is 0 if all passed, 1 after a failure, 2 if something named could not be read.
//!
//! Headers are judged by `HeaderRules::ETHEREUM`: the vectors test Ethereum's rules, which lie below
//! our admission policy. There is no list of exceptions, because there is no exception.

mod blocktest;
mod blstest;
mod case;
mod chain;
mod files;
#[cfg(test)]
mod generated;
mod json;
mod replay;
mod rlptest;
mod statetest;
mod trietest;
mod txtest;
mod view;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use clap::ValueEnum;
use eyre::WrapErr;
use serde_json::{Value, json};

use self::{
    case::Case,
    files::{Input, Unreadable},
};

/// Exit code for input that cannot be read.
const EXIT_UNREADABLE: u8 = 2;

/// A family of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// One transaction on a given state.
    #[value(name = "statetest")]
    State,
    /// A chain of blocks, valid and invalid ones.
    #[value(name = "blocktest")]
    Block,
    /// Roots of Merkle Patricia tries.
    #[value(name = "trietest")]
    Trie,
    /// RLP encodings, valid and invalid ones.
    #[value(name = "rlptest")]
    Rlp,
    /// Raw transactions: sender, hash, intrinsic gas, or refusal.
    #[value(name = "txtest")]
    Transaction,
    /// BLS signatures: the folder of a file names the call.
    #[value(name = "blstest")]
    Bls,
    /// Real blocks with the state they read: gas and receipts root, and every mode like the plain loop.
    #[value(name = "replay")]
    Replay,
}

/// How blocks are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One transaction after the other.
    Sequential,
    /// One after the other, with other threads guessing ahead.
    Lead,
    /// All transactions at once, along the access list that the plain loop made.
    Replay,
}

impl Mode {
    /// Name on the command line and in the report.
    const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Lead => "lead",
            Self::Replay => "replay",
        }
    }
}

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How blocks are executed.
    pub(crate) mode: Mode,
    /// Threads that execute one block.
    pub(crate) threads: usize,
    /// Timed executions of each block of `replay`.
    pub(crate) rounds: usize,
}

impl Kind {
    /// Name on the command line and in the report.
    const fn name(self) -> &'static str {
        match self {
            Self::State => "statetest",
            Self::Block => "blocktest",
            Self::Trie => "trietest",
            Self::Rlp => "rlptest",
            Self::Transaction => "txtest",
            Self::Bls => "blstest",
            Self::Replay => "replay",
        }
    }

    /// The family whose fields this case has, if it has those of any.
    fn of(case: &Value) -> Option<Self> {
        let has = |field: &str| case.get(field).is_some();
        if has("pre") && has("post") && has("transaction") {
            Some(Self::State)
        } else if has("blocks") && has("genesisBlockHeader") {
            Some(Self::Block)
        } else if has("txbytes") && has("result") {
            Some(Self::Transaction)
        } else if has("in") && (has("root") || has("tests")) {
            Some(Self::Trie)
        } else if has("in") && has("out") {
            Some(Self::Rlp)
        } else {
            None
        }
    }

    /// Runs everything one named case contains.
    fn run(self, file: &str, name: &str, case: &Value, settings: Settings) -> Vec<Case> {
        match self {
            Self::State => statetest::run(name, case),
            Self::Block => blocktest::run(name, case, settings),
            Self::Trie => trietest::run(file, name, case),
            Self::Rlp => rlptest::run(name, case),
            Self::Transaction => txtest::run(name, case),
            Self::Bls | Self::Replay => Vec::new(),
        }
    }
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Cases that gave what was wanted.
    pub(crate) passed: usize,
    /// Cases that did not.
    pub(crate) failed: usize,
    /// Cases that were not run, each with its reason.
    pub(crate) skipped: usize,
    /// Inputs that could not be read.
    pub(crate) unreadable: usize,
}

impl Summary {
    fn count(&mut self, case: &Case) {
        match (&case.skip, case.pass) {
            (Some(_), _) => self.skipped += 1,
            (None, true) => self.passed += 1,
            (None, false) => self.failed += 1,
        }
    }
}

/// Runs the vectors, reports on standard output, and says how the process ends.
pub(crate) fn command(kind: Kind, paths: &[PathBuf], settings: Settings) -> eyre::Result<ExitCode> {
    let summary = run(kind, paths, settings)?;
    Ok(match summary {
        Summary { unreadable: 1.., .. } => ExitCode::from(EXIT_UNREADABLE),
        Summary { failed: 1.., .. } => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Runs the vectors below `paths`, one JSON line per case on standard output.
pub(crate) fn run(kind: Kind, paths: &[PathBuf], settings: Settings) -> eyre::Result<Summary> {
    let mut summary = Summary::default();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let mut speed = replay::Speed::default();
    let mut take = |result: FileResult| match result {
        Ok(cases) => {
            for (file, case) in cases {
                summary.count(&case);
                speed.count(&case);
                if written.is_ok() {
                    written = writeln!(out, "{}", case.line(kind.name(), &file));
                }
            }
        }
        Err(unreadable) => {
            summary.unreadable += 1;
            eprintln!("error: {unreadable}");
        }
    };
    if kind == Kind::Replay {
        // Blocks are timed, so they run one at a time.
        for folder in paths.iter().flat_map(|path| replay_folders(path)) {
            take(folder.map(|folder| vec![(folder.display().to_string(), replay::run(&folder, settings))]));
        }
    } else {
        let (inputs, missing) = files::find(paths);
        missing.into_iter().for_each(|unreadable| take(Err(unreadable)));
        in_order(kind, settings, &inputs, take);
    }
    // An empty folder is a wrong path, not a success.
    if summary.passed + summary.failed + summary.skipped + summary.unreadable == 0 {
        summary.unreadable = 1;
        eprintln!("error: no case of this kind was found");
    }
    let Summary { passed, failed, skipped, .. } = summary;
    let mut last = json!({"summary": true, "passed": passed, "failed": failed, "skipped": skipped});
    if let Some(speed) = speed.summary() {
        last["toPlainLoop"] = speed;
    }
    written.and_then(|()| writeln!(out, "{last}")).and_then(|()| out.flush()).wrap_err("cannot write the report")?;
    Ok(summary)
}

/// The folders of blocks below a path.
fn replay_folders(path: &Path) -> Vec<Result<PathBuf, Unreadable>> {
    match replay::find(path) {
        Ok(folders) => folders.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Unreadable::new(path, error))],
    }
}

type FileResult = Result<Vec<(String, Case)>, Unreadable>;

/// Runs the files on all cores and hands their results over in the order of the files.
fn in_order(kind: Kind, settings: Settings, inputs: &[Input], mut done: impl FnMut(FileResult)) {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(inputs.len().max(1));
    let next = AtomicUsize::new(0);
    // A worker that is ahead waits here rather than pile up results.
    let (sender, receiver) = mpsc::sync_channel::<(usize, FileResult)>(threads * 4);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((index, input)) = claim(next, inputs) {
                    if sender.send((index, run_file(kind, settings, input))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        for (index, result) in receiver {
            early.insert(index, result);
            while let Some(result) = early.remove(&wanted) {
                done(result);
                wanted += 1;
            }
        }
    });
}

/// Takes the next file that nobody took yet.
fn claim<'a>(next: &AtomicUsize, inputs: &'a [Input]) -> Option<(usize, &'a Input)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    inputs.get(index).map(|input| (index, input))
}

/// Runs all cases of one file.
fn run_file(kind: Kind, settings: Settings, input: &Input) -> FileResult {
    let file = input.path.display().to_string();
    let cases = input.read()?;
    if kind == Kind::Bls {
        return Ok(vec![(file, blstest::run(&input.path, &cases))]);
    }
    let mut results = Vec::new();
    for (name, case) in &cases {
        match Kind::of(case) {
            // A walked folder may hold vectors of other families; a file named on the line should not.
            Some(other) if other != kind && !input.named => {}
            Some(other) if other != kind => {
                let reason = format!("a {} case, not a {} case", other.name(), kind.name());
                results.push((file.clone(), Case::skipped(name, None, 0, reason)));
            }
            _ => {
                let mut outcome = case::guarded(name, || kind.run(&file, name, case, settings));
                if outcome.is_empty() {
                    outcome.push(Case::judge(name, None, 0, || eyre::bail!("the vector holds no case")));
                }
                results.extend(outcome.into_iter().map(|case| (file.clone(), case)));
            }
        }
    }
    Ok(results)
}
