//! Power cuts and failing disks, over all that a store keeps; see `tests::power`.

#![expect(clippy::print_stdout, reason = "a command for people and scripts")]

use std::{
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use ::tests::power::{Taken, campaign, faults, flips, work};
use clap::{Parser, Subcommand};
use storage::{Database, testing::crash};

#[derive(Clone, Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Cuts the power of runs, and looks at what is left.
    Cut {
        /// Each is a run of its own.
        #[arg(long, value_parser = range, value_name = "A..B")]
        seeds: Range<u64>,
        /// Cuts of each run.
        #[arg(long, default_value_t = 250)]
        images: u64,
        /// Only this one of them.
        #[arg(long)]
        image: Option<u64>,
        /// A trace that was kept, in place of a new one.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Lets the disk forget the syncs of all files and folders whose path has this in it.
        #[arg(long, value_name = "PART")]
        without: Option<String>,
    },
    /// Lets every call of runs fail that writes, syncs or changes a name.
    Faults {
        /// Each is a run of its own.
        #[arg(long, value_parser = range, value_name = "A..B")]
        seeds: Range<u64>,
        /// How many calls on the next one fails.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        step: u32,
    },
    /// Flips bits of closed stores, one at a time.
    Flips {
        /// Each is a store of its own.
        #[arg(long, value_parser = range, value_name = "A..B")]
        seeds: Range<u64>,
        /// Bits of each store.
        #[arg(long, default_value_t = 200)]
        flips: u64,
    },
    /// Judges flips of a seed one by one: what `flips` starts, and what shows one of them again.
    Flip { seed: u64, from: u64, to: u64 },
    /// Does the work of a seed below a folder: what the others start under the recorder.
    Work { root: PathBuf, seed: u64 },
    /// Opens the store below a folder, and ends it in one of two ways.
    Recover { root: PathBuf, seed: u64, ends: String },
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let bounds = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.ok_or_else(|| format!("{text} is no range, such as 5..9"))
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Cut { seeds, images, image, trace, without } => {
            let program = std::env::current_exe().expect("this program has a path");
            let kept = PathBuf::from("target/power");
            cut(&campaign::Options { program, images, only: image, trace, unsynced: without, kept }, seeds)
        }
        Command::Faults { seeds, step } => fail(seeds, step),
        Command::Flips { seeds, flips } => flip(seeds, flips),
        Command::Flip { seed, from, to } => flips::judge(seed, from..to, &mut |line| println!("{line}")),
        Command::Work { root, seed } => do_work(&root, seed),
        Command::Recover { root, seed, ends } => recover(&root, seed, &ends),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn cut(options: &campaign::Options, seeds: Range<u64>) -> Result<(), String> {
    let begun = Instant::now();
    let (mut images, mut recoveries) = (0, 0);
    for seed in seeds {
        let counts = campaign::run(options, seed)?;
        (images, recoveries) = (images + counts.images, recoveries + counts.recoveries);
    }
    println!("images {images}, {recoveries} of them of recoveries, in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn fail(seeds: Range<u64>, step: u32) -> Result<(), String> {
    let options =
        faults::Options { program: std::env::current_exe().expect("this program has a path"), first: 1, step };
    for (seed, fault) in seeds.flat_map(|seed| faults::FAULTS.map(|fault| (seed, fault))) {
        let (kind, errno, course) = fault;
        let faults::Counts { runs, stopped } = faults::run(&options, seed, fault)?;
        println!("seed {seed}: {kind:?} {course:?} with error {errno}: runs {runs}, {stopped} of them stopped");
    }
    Ok(())
}

fn flip(seeds: Range<u64>, flips: u64) -> Result<(), String> {
    for seed in seeds {
        let counts = flips::run(&std::env::current_exe().expect("this program has a path"), seed, flips)?;
        println!("seed {seed}: flips {flips}, {counts:?}");
    }
    Ok(())
}

fn do_work(root: &Path, seed: u64) -> Result<(), String> {
    let mut marks = std::fs::File::create(root.join("mark")).map_err(|error| format!("no marks: {error}"))?;
    let mut tell = |mark: String| {
        marks.write_all(format!("{mark}\n").as_bytes()).expect("the recorder takes every mark");
    };
    work::Work::new(seed).run(&root.join("data"), seed, &mut tell)
}

fn recover(root: &Path, seed: u64, ends: &str) -> Result<(), String> {
    let (work, data) = (work::Work::new(seed), root.join("data"));
    work.begin(&data, Taken { done: 0, begun: usize::MAX }, &mut |_| {})?;
    let chain = Arc::clone(&work.world.chain);
    let store = Database::open(work::config(&data, seed), chain).map_err(|error| error.to_string())?;
    if ends == "close" {
        return store.close().map_err(|error| error.to_string());
    }
    crash(store);
    Ok(())
}
