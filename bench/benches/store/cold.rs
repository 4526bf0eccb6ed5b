//! A checkpoint of rows whose pages are on the disk: with pages read ahead, and by its one writer alone.
//!
//! How much reading ahead can win is the disk's: what it reads at once, of what it reads one by one. That is measured
//! in the same run, on the same file.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bench::rng::Rng;
use storage::{metrics, testing};

use crate::{
    Scale, told,
    world::{World, drop_pages, major_faults},
};

/// Blocks of a checkpoint.
const BLOCKS: usize = 2;

/// What is read at once.
const PAGE_BYTES: usize = 4_096;

/// Threads that read at once, as many as read ahead of a checkpoint.
const THREADS: u64 = 32;

/// How a checkpoint is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By its one writer alone, from the disk.
    Alone,
    /// With pages read ahead of the writer.
    Ahead,
    /// By its one writer alone, with all pages in memory: what it takes to read nothing.
    Warm,
}

const WAYS: [Way; 3] = [Way::Alone, Way::Ahead, Way::Warm];

/// What a checkpoint took, in seconds and counts.
struct Taken {
    all: f64,
    /// Until MDBX had all rows and began to make them durable.
    applied: f64,
    /// Of that reading ahead.
    ahead: f64,
    rows: u64,
    /// Pages waited for.
    faults: u64,
}

/// Commits blocks, takes the state out of memory and writes the checkpoint.
fn checkpoint(world: &mut World, scale: &Scale, way: Way) -> Taken {
    for _ in 0..BLOCKS {
        let entries = world.random(0..world.slots, scale.changed);
        let changes = world.changes(entries);
        let (block, _) = world.block(changes);
        world.commit(block);
    }
    drop_pages(&world.file());
    if way == Way::Warm {
        world.read_pages();
    }
    let (rows, faults, read_ahead) = (metrics::CHECKPOINT_ROWS.value(), major_faults(), metrics::PREFETCHED.value());
    let (ahead, committing) = (metrics::PREFETCH_BUSY.value(), metrics::CHECKPOINT_COMMIT_BUSY.value());
    let begun = Instant::now();
    let outcome = if way == Way::Ahead { world.store.checkpoint() } else { testing::checkpoint_serially(&world.store) };
    outcome.expect("the disk takes a checkpoint");
    let all = begun.elapsed().as_secs_f64();
    let seconds = |now: u64, before: u64| Duration::from_nanos(now - before).as_secs_f64();
    let (rows, faults) = (metrics::CHECKPOINT_ROWS.value() - rows, major_faults() - faults);
    if scale.measures {
        let pages_min = u64::try_from(scale.changed).expect("a small number") / 2;
        assert_eq!(faults >= pages_min, way != Way::Warm, "{faults} pages were not in memory: no figure");
        assert_eq!(metrics::PREFETCHED.value() - read_ahead >= pages_min, way == Way::Ahead, "rows are read ahead");
    }
    Taken {
        all,
        applied: all - seconds(metrics::CHECKPOINT_COMMIT_BUSY.value(), committing),
        ahead: seconds(metrics::PREFETCH_BUSY.value(), ahead),
        rows,
        faults,
    }
}

/// Measures all ways, one after the other.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(world: &mut World, scale: &Scale) {
    let (mut rounds, mut disk) = (Vec::new(), Vec::new());
    // The first one brings the trie into memory.
    for round in 0..=scale.rounds {
        let taken = WAYS.map(|way| checkpoint(world, scale, way));
        if round > 0 {
            rounds.push(taken);
            let pages = if scale.measures { 10_000 } else { 64 };
            let [one, many] = [1, THREADS].map(|threads| disk_time(&world.file(), threads, pages));
            disk.push(one / many);
        }
    }
    println!("cold: a checkpoint of {BLOCKS} blocks of {} of {} slots, in s", scale.changed, world.slots);
    for (way, name) in ["one writer alone", "pages read ahead", "pages in memory"].into_iter().enumerate() {
        let of = |part: fn(&Taken) -> f64, digits| told(rounds.iter().map(|taken| part(&taken[way])), digits);
        println!(
            "  {name:<18} {}, of that reading ahead {}; until durable {}; {} rows, {} pages waited for",
            of(|taken| taken.applied, 2),
            of(|taken| taken.ahead, 2),
            of(|taken| taken.all, 2),
            of(|taken| taken.rows as f64, 0),
            of(|taken| taken.faults as f64, 0),
        );
    }
    let times = |of: fn(&[Taken; 3]) -> f64| told(rounds.iter().map(of), 1);
    println!("  reading ahead is   {} times as fast", times(|[alone, ahead, _]| alone.applied / ahead.applied));
    println!("    until durable    {}", times(|[alone, ahead, _]| alone.all / ahead.all));
    let reading = |[alone, ahead, warm]: &[Taken; 3]| (alone.applied - warm.applied) / (ahead.applied - warm.applied);
    println!("    reading alone    {}", times(reading));
    println!("  the disk reads     {} times as fast by {THREADS} threads", told(disk, 1));
}

/// Seconds in which so many threads read pages of a file that is not in memory, at random, a number of them in all.
fn disk_time(path: &Path, threads: u64, pages: u64) -> f64 {
    drop_pages(path);
    let file = File::open(path).expect("the file can be read");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("the system takes the advice");
    let page_bytes = PAGE_BYTES as u64;
    let all = file.metadata().expect("the file is there").len() / page_bytes;
    let read = |thread: u64| {
        let mut random = Rng::new(thread + 1);
        let mut page = [0; PAGE_BYTES];
        for _ in 0..pages / threads {
            file.read_exact_at(&mut page, random.below(all) * page_bytes).expect("the page is there");
        }
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let read = &read;
            scope.spawn(move || read(thread));
        }
    });
    begun.elapsed().as_secs_f64()
}
