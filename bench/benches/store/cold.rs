//! A checkpoint of rows whose pages are on the disk: with pages read ahead, and by its one writer alone.
//!
//! How much reading ahead can win is the disk's: what it reads at once, of what it reads one by one. That is measured in
//! the same run, on the same file.

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
const PAGE_BYTES: u64 = 4_096;

/// Threads that read at once, as many as read ahead of a checkpoint.
const THREADS: u64 = 32;

/// What a checkpoint took.
struct Taken {
    seconds: f64,
    /// Of them until MDBX had all rows and began to make them durable.
    applied: f64,
    rows: u64,
    read_ahead: u64,
    /// Pages waited for.
    faults: u64,
}

/// Commits blocks, takes the state out of memory and writes the checkpoint.
fn checkpoint(world: &mut World, scale: &Scale, serially: bool) -> Taken {
    for _ in 0..BLOCKS {
        let entries = world.random(0..world.slots, scale.changed);
        let changes = world.changes(entries);
        let (block, _) = world.block(changes);
        world.commit(block);
    }
    drop_pages(&world.file());
    let counts = || (metrics::CHECKPOINT_ROWS.value(), metrics::PREFETCHED.value(), major_faults());
    let (rows, read_ahead, faults) = counts();
    let committing = metrics::CHECKPOINT_COMMIT_BUSY.value();
    let begun = Instant::now();
    if serially {
        testing::checkpoint_serially(&world.store).expect("the disk takes a checkpoint");
    } else {
        world.store.checkpoint().expect("the disk takes a checkpoint");
    }
    let (seconds, now) = (begun.elapsed().as_secs_f64(), counts());
    let committing = Duration::from_nanos(metrics::CHECKPOINT_COMMIT_BUSY.value() - committing);
    let applied = seconds - committing.as_secs_f64();
    Taken { seconds, applied, rows: now.0 - rows, read_ahead: now.1 - read_ahead, faults: now.2 - faults }
}

/// Measures both, one after the other.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(world: &mut World, scale: &Scale) {
    let [mut ahead, mut serial] = [Vec::new(), Vec::new()];
    let mut disk = Vec::new();
    // The first two bring the trie into memory.
    for round in 0..=scale.rounds {
        let taken = [false, true].map(|serially| checkpoint(world, scale, serially));
        let [with, without] = &taken;
        assert_eq!(without.read_ahead, 0, "the serial writer reads nothing ahead");
        if scale.measures {
            assert!(with.read_ahead > 0, "pages are read ahead: they are not in memory");
            let pages_min = u64::try_from(scale.changed).expect("a small number") / 2;
            let faults = [with.faults, without.faults];
            assert!(
                faults.iter().all(|faults| *faults >= pages_min),
                "no figure of pages in memory: {faults:?} faults"
            );
        }
        if round > 0 {
            let [with, without] = taken;
            ahead.push(with);
            serial.push(without);
            let pages = if scale.measures { 10_000 } else { 64 };
            let [one, many] = [1, THREADS].map(|threads| disk_time(&world.file(), threads, pages));
            disk.push(one / many);
        }
    }
    let told_of = |side: &[Taken]| {
        let (rows, faults) = (side.iter().map(|taken| taken.rows as f64), side.iter().map(|taken| taken.faults as f64));
        let (seconds, applied) = (side.iter().map(|taken| taken.seconds), side.iter().map(|taken| taken.applied));
        let (seconds, applied) = (told(seconds, 2), told(applied, 2));
        format!("{applied} s, {seconds} s until durable; {} rows, {} pages waited for", told(rows, 0), told(faults, 0))
    };
    let faster =
        |of: fn(&Taken) -> f64| told(serial.iter().zip(&ahead).map(|(serial, ahead)| of(serial) / of(ahead)), 1);
    println!("cold: a checkpoint of {BLOCKS} blocks of {} of {} slots", scale.changed, world.slots);
    println!("  one writer alone       {}", told_of(&serial));
    println!("  pages read ahead       {}", told_of(&ahead));
    println!("  reading ahead is       {} times as fast", faster(|taken| taken.applied));
    println!("    until it is durable  {}", faster(|taken| taken.seconds));
    println!("  the disk reads         {} times as fast by {THREADS} threads", told(disk, 1));
}

/// Seconds in which so many threads read pages of a file that is not in memory, at random, a number of them in all.
fn disk_time(path: &Path, threads: u64, pages: u64) -> f64 {
    drop_pages(path);
    let file = File::open(path).expect("the file can be read");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("the system takes the advice");
    let all = file.metadata().expect("the file is there").len() / PAGE_BYTES;
    let read = |thread: u64| {
        let mut random = Rng::new(thread + 1);
        let mut page = [0; PAGE_BYTES as usize];
        for _ in 0..pages / threads {
            file.read_exact_at(&mut page, random.below(all) * PAGE_BYTES).expect("the page is there");
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
