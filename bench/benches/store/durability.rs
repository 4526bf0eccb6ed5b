//! Acknowledging a block, and bytes written for a slot, against one durable transaction of MDBX a block.

use std::time::{Duration, Instant};

use storage::metrics;

use crate::{
    Scale,
    flat::Flat,
    told,
    world::{World, rows},
};

/// Bytes that this process, or this thread of it, has handed to the system so far. Everything here is synced, so it is
/// what reaches the disk. (What the system counts as sent there is in units of up to a megabyte around a write.)
fn written(by: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{by}/io")).expect("the system counts what is written");
    let count = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
    count.expect("a count")
}

/// What rounds came to: times of blocks, bytes a slot.
#[derive(Default)]
struct Figures {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    /// Of ours until the block was durable.
    durable: Vec<f64>,
    /// Of that inside fdatasync.
    synced: Vec<f64>,
    checkpoints: Vec<f64>,
    bytes: Vec<f64>,
    /// Of them by checkpoints.
    checkpoint_bytes: Vec<f64>,
    their_bytes: Vec<f64>,
}

impl Figures {
    /// Blocks and their checkpoint; every block is committed on both sides, one after the other.
    fn round(&mut self, world: &mut World, flat: &Flat, scale: &Scale) {
        let (begun, mut theirs) = (written("self"), 0);
        for _ in 0..scale.blocks {
            let entries = world.random(0..world.slots, scale.changed);
            let changes = world.changes(entries);
            let rows = rows(&changes);
            let (block, _) = world.block(changes);
            let (busy, syncing) = (metrics::COMMIT_BUSY.value(), metrics::SYNC_BUSY.value());
            self.ours.push(world.commit(block).as_secs_f64());
            self.durable.push(Duration::from_nanos(metrics::COMMIT_BUSY.value() - busy).as_secs_f64());
            self.synced.push(Duration::from_nanos(metrics::SYNC_BUSY.value() - syncing).as_secs_f64());
            let (bytes, start) = (written("thread-self"), Instant::now());
            flat.commit(&rows);
            self.theirs.push(start.elapsed().as_secs_f64());
            theirs += written("thread-self") - bytes;
        }
        let before = written("self");
        self.checkpoints.push(world.checkpoint().as_secs_f64());
        let after = written("self");
        let slots = (scale.blocks * scale.changed) as f64;
        self.bytes.push((after - begun - theirs) as f64 / slots);
        self.checkpoint_bytes.push((after - before) as f64 / slots);
        self.their_bytes.push(theirs as f64 / slots);
    }
}

/// Measures both.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(world: &mut World, flat: &Flat, scale: &Scale) {
    let mut figures = Figures::default();
    for _ in 0..scale.rounds {
        figures.round(world, flat, scale);
    }
    let milliseconds = |seconds: &[f64]| told(seconds.iter().map(|seconds| seconds * 1e3), 2);
    let times = |theirs: &[f64], ours: &[f64]| -> Vec<f64> {
        theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect()
    };
    let Figures { ours, theirs, .. } = &figures;
    let (faster, fewer) = (times(theirs, ours), times(&figures.their_bytes, &figures.bytes));
    println!("durable: blocks of {} of {} slots, {} for a checkpoint", scale.changed, world.slots, scale.blocks);
    println!("  a block acknowledged by the store  {} ms", milliseconds(ours));
    println!("    of that until it is durable      {} ms", milliseconds(&figures.durable));
    println!("      of that inside fdatasync       {} ms", milliseconds(&figures.synced));
    println!("  a block committed by MDBX          {} ms", milliseconds(theirs));
    println!("  the store is faster                {} times", told(faster, 1));
    println!("    until it is durable              {}", told(times(theirs, &figures.durable), 1));
    println!("  a checkpoint, beside these         {} s", told(figures.checkpoints.iter().copied(), 2));
    println!("  bytes a slot, the store            {}", told(figures.bytes.iter().copied(), 0));
    println!("    of that in checkpoints           {}", told(figures.checkpoint_bytes.iter().copied(), 0));
    println!("  bytes a slot, MDBX                 {}", told(figures.their_bytes.iter().copied(), 0));
    println!("  the store writes fewer             {} times", told(fewer, 2));
}
