//! Runs the ordering code of a whole cluster in one thread, by a seed.
//!
//! ```text
//! simulate --seed S --validators N --seconds T --faults all|none|LIST   one run, or as many as --seeds says
//! simulate --mode twins    --seeds N    short scenarios: four validators, one of them twice, partitions by chance
//! simulate --mode control  --seeds N    two of four validators twice: the oracle must see the fork
//! simulate --mode bugs     --seeds N    which bugs that can be planted are seen
//! simulate --mode crash-points          crashes between signing, writing, syncing, sending and committing
//! simulate --mode whole                 the pipeline, vm and store of every node, power cuts, partitions, lost logs
//! simulate --mode sync     --seeds N    who was away comes to a long chain, and all but one lie about it
//! simulate --mode wide                  how fast between real hosts under load, and at what cost; nothing is faulty
//! ```
//!
//! The last line is JSON: `{"seed":..,"hash":..,"events":..,"height":..,"ok":..}`. The exit code is 1 if something
//! happened that may not, and the line that repeats it is printed.

#![expect(clippy::print_stdout, reason = "a command for people and scripts")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use engine::ordering::planted::{Bug, Planted};
use tests::{
    simulation::{CrashPoint, Faults, Lie, Options, Report, World},
    whole,
};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Run,
    Twins,
    Control,
    Bugs,
    CrashPoints,
    Whole,
    Wide,
    Sync,
}

#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// What to run.
    #[arg(long, value_enum, default_value_t = Mode::Run)]
    mode: Mode,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// Simulated seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// all, none, or a list of names with commas between; none in mode `wide` and all elsewhere if it is not given.
    #[arg(long)]
    faults: Option<String>,
    /// Median of the one-way delay in milliseconds.
    #[arg(long, default_value_t = 30)]
    delay_ms: u64,
    /// Longest one-way delay in milliseconds.
    #[arg(long, default_value_t = 150)]
    delay_max_ms: u64,
    /// Of a thousand messages so many are lost; votes for good, all others until they are sent again.
    #[arg(long, default_value_t = 10)]
    loss_per_mille: u64,
    /// Whoever leads this window never starts, in mode `wide`.
    #[arg(long)]
    absent_leader: Option<u64>,
    /// Slots of a window.
    #[arg(long, default_value_t = 4)]
    window: u64,
    /// Faulty validators; as many as may be if it is not given.
    #[arg(long)]
    byzantine: Option<usize>,
    /// Bound on the delay that timers assume, in milliseconds.
    #[arg(long, default_value_t = 150)]
    delta_ms: u64,
    /// Slot time in milliseconds.
    #[arg(long, default_value_t = 200)]
    slot_ms: u64,
    /// Of a thousand times between signing and sending, so many are crashes; 40 in mode `crash-points`.
    #[arg(long, default_value_t = 0)]
    crash_points_per_mille: u64,
    /// Milliseconds that a block takes to execute.
    #[arg(long, default_value_t = 5)]
    execute_ms: u64,
    /// Only this bug, in mode `bugs`.
    #[arg(long)]
    bug: Option<String>,
    /// Tell of every event.
    #[arg(long)]
    verbose: bool,
}

impl Arguments {
    fn faults(&self) -> &str {
        self.faults.as_deref().unwrap_or(if matches!(self.mode, Mode::Wide) { "none" } else { "all" })
    }

    fn options(&self, faults: Faults, seed: u64) -> Options {
        let mut options = Options::cluster(seed, self.validators, self.seconds, faults);
        (options.delay.median_us, options.delay.max_us) = (self.delay_ms * 1_000, self.delay_max_ms * 1_000);
        options.timing.delta = Duration::from_millis(self.delta_ms);
        options.timing.slot_time = Duration::from_millis(self.slot_ms);
        (options.window, options.byzantine) = (self.window, self.byzantine);
        options.execute_us = self.execute_ms * 1_000;
        (options.crash_points_per_mille, options.verbose) = (self.crash_points_per_mille, self.verbose);
        options
    }

    /// The flags of a run but for its seed.
    fn flags(&self) -> String {
        let byzantine = self.byzantine.map(|count| format!(" --byzantine {count}")).unwrap_or_default();
        format!(
            "--validators {} --seconds {} --faults {} --window {} --delay-ms {} --delay-max-ms {} --delta-ms {} \
             --slot-ms {} --execute-ms {} --crash-points-per-mille {}{byzantine}",
            self.validators,
            self.seconds,
            self.faults(),
            self.window,
            self.delay_ms,
            self.delay_max_ms,
            self.delta_ms,
            self.slot_ms,
            self.execute_ms,
            self.crash_points_per_mille
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.mode {
        Mode::Run => run(&arguments),
        Mode::Twins => twins(&arguments),
        Mode::Control => control(&arguments),
        Mode::Bugs => bugs(&arguments),
        Mode::CrashPoints => crash_points(&arguments),
        Mode::Whole => whole(&arguments),
        Mode::Wide => wide(&arguments),
        Mode::Sync => sync(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn tell(report: &Report, how: &str) {
    if let Some(violation) = &report.violation {
        println!("seed {}: {violation}", report.seed);
        println!("repeat: simulate --seed {} {how}", report.seed);
    }
    println!("{}", report.json());
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let faults = Faults::parse(arguments.faults())?;
    let how = arguments.flags();
    let (begun, mut events, mut finality) = (Instant::now(), 0, Vec::new());
    let mut last = Report::default();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        last = World::new(arguments.options(faults.clone(), seed)).run();
        events += last.events;
        finality.extend_from_slice(&last.finality_us);
        if last.violation.is_some() {
            tell(&last, &how);
            return Ok(false);
        }
    }
    finality.sort_unstable();
    let whole = Report { finality_us: finality, ..last };
    println!(
        "{} seeds, {events} events, {} a second; finality p50 {} ms, p99 {} ms; last: {} slots, {} bytes sent by the \
         busiest node",
        arguments.seeds,
        u128::from(events) * 1_000 / begun.elapsed().as_millis().max(1),
        whole.finality(500) / 1_000,
        whole.finality(990) / 1_000,
        whole.slots,
        whole.bytes_sent.iter().max().copied().unwrap_or_default()
    );
    tell(&whole, &how);
    Ok(true)
}

fn whole(arguments: &Arguments) -> Result<bool, String> {
    let has_faults = match arguments.faults() {
        "all" => true,
        "none" => false,
        other => return Err(format!("whole nodes have all faults or none, not {other}")),
    };
    let (validators, seconds, faults) = (arguments.validators, arguments.seconds, arguments.faults());
    let how = format!("--mode whole --validators {validators} --seconds {seconds} --faults {faults}");
    let (begun, mut events, mut last) = (Instant::now(), 0, Report::default());
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let options = whole::Options { seed, validators, seconds, has_faults, is_forgetful: false, is_away: false };
        last = whole::World::new(options).run();
        events += last.events;
        if last.violation.is_some() {
            break;
        }
    }
    let rate = u128::from(events) * 1_000 / begun.elapsed().as_millis().max(1);
    println!("{} seeds, {events} events, {rate} a second", arguments.seeds);
    tell(&last, &how);
    Ok(last.violation.is_none())
}

fn twins(arguments: &Arguments) -> Result<bool, String> {
    let faults = Faults::parse("twins,partition,reorder")?;
    let (mut events, mut slots, mut forks) = (0, u64::MAX, 0_u64);
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let options = Options { byzantine: Some(1), slots_min: 12, ..Options::scenario(seed, faults.clone()) };
        let report = World::new(options).run();
        events += report.events;
        slots = slots.min(report.slots);
        forks += u64::from(report.convicted > 0);
        if report.violation.is_some() {
            tell(&report, "--mode twins");
            return Ok(false);
        }
    }
    println!(
        "{} scenarios, {events} events; {slots} slots at least; the twin was convicted in {forks}",
        arguments.seeds
    );
    println!(r#"{{"mode":"twins","scenarios":{},"ok":true}}"#, arguments.seeds);
    Ok(true)
}

fn control(arguments: &Arguments) -> Result<bool, String> {
    let faults = Faults::parse("twins")?;
    let mut found = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let mut options = Options { byzantine: Some(2), ..Options::scenario(seed, faults.clone()) };
        (options.length_us, options.only_forks) = (4_000_000, true);
        // Each honest validator alone with one copy of either twin: three of four on both sides.
        let (mut sides, mut copies) = (Vec::new(), std::collections::BTreeMap::new());
        for (secret, is_faulty) in World::members_of(&options) {
            let seen: &mut usize = copies.entry(if is_faulty { secret } else { 0 }).or_default();
            sides.push(*seen % 2);
            *seen += 1;
        }
        options.groups = Some(sides);
        let report = World::new(options).run();
        if report.violation.is_some() {
            found += 1;
        } else {
            println!("seed {seed}: no fork seen");
        }
    }
    println!(
        r#"{{"mode":"control","scenarios":{},"found":{found},"ok":{}}}"#,
        arguments.seeds,
        found == arguments.seeds
    );
    Ok(found == arguments.seeds)
}

fn bugs(arguments: &Arguments) -> Result<bool, String> {
    let faults = Faults::parse(arguments.faults())?;
    let mut missed = 0;
    for bug in Bug::ALL {
        if arguments.bug.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let caught = (arguments.seed..arguments.seed + arguments.seeds).find_map(|seed| {
            let options = Options { planted: Planted(Some(bug)), ..arguments.options(faults.clone(), seed) };
            let report = World::new(options).run();
            report.violation.map(|violation| (seed, violation))
        });
        match caught {
            Some((seed, violation)) => {
                println!("{bug:?}: seed {seed}: {}", violation.chars().take(160).collect::<String>())
            }
            None => {
                missed += 1;
                println!("{bug:?}: NOT CAUGHT in {} seeds", arguments.seeds);
            }
        }
    }
    println!(r#"{{"mode":"bugs","missed":{missed},"ok":{}}}"#, missed == 0);
    Ok(missed == 0)
}

fn wide(arguments: &Arguments) -> Result<bool, String> {
    let Arguments { seconds, loss_per_mille, absent_leader, .. } = *arguments;
    let options = arguments.options(Faults::parse(arguments.faults())?, arguments.seed);
    let report = World::new(Options { is_wide: true, calm_us: 0, loss_per_mille, absent_leader, ..options }).run();
    if let Some(violation) = &report.violation {
        println!("seed {}: {violation}", report.seed);
    }
    println!("{}", report.json());
    println!("{}", report.pace(seconds));
    Ok(report.violation.is_none())
}

fn sync(arguments: &Arguments) -> Result<bool, String> {
    let how = format!("--mode sync --seconds {}", arguments.seconds);
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let lies = Lie::ALL.iter().map(|lie| (Some(*lie), false)).chain([(None, false), (Some(Lie::Bare), true)]);
        for (lie, all_lie) in lies {
            let mut options = Options { verbose: arguments.verbose, ..Options::sync(seed, lie, arguments.seconds) };
            options.truthful = options.truthful.filter(|_| !all_lie);
            let report = World::new(options).run();
            let behind: Vec<String> =
                report.caught_up.iter().map(|(heights, us)| format!("{heights} in {} ms", us / 1_000)).collect();
            let who = if all_lie { "all" } else { "all but one" };
            println!("seed {seed}, {who} {lie:?}: {}; height {}", behind.join(", "), report.height);
            if report.violation.is_some() || report.caught_up.len() < 2 {
                tell(&report, &how);
                return Ok(false);
            }
        }
    }
    println!(r#"{{"mode":"sync","seeds":{},"ok":true}}"#, arguments.seeds);
    Ok(true)
}

fn crash_points(arguments: &Arguments) -> Result<bool, String> {
    let faults = Faults::parse(arguments.faults())?;
    let chance = if arguments.crash_points_per_mille > 0 { arguments.crash_points_per_mille } else { 40 };
    let arguments = Arguments { crash_points_per_mille: chance, ..arguments.clone() };
    let mut counted = [0_u64; CrashPoint::COUNT];
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let report = World::new(arguments.options(faults.clone(), seed)).run();
        counted.iter_mut().zip(report.crash_points).for_each(|(sum, count)| *sum += count);
        if report.violation.is_some() {
            tell(&report, &arguments.flags());
            return Ok(false);
        }
    }
    let named: Vec<String> =
        CrashPoint::ALL.iter().zip(counted).map(|((_, name), count)| format!(r#""{name}":{count}"#)).collect();
    let (clusters, points) = (arguments.seeds, counted.iter().sum::<u64>());
    println!(r#"{{"mode":"crash-points","clusters":{clusters},"points":{points},{},"ok":true}}"#, named.join(","));
    Ok(true)
}
