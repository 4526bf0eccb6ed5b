//! A block's cost as the state grows, and what the trie's branches take in memory.

use std::{fmt::Write as _, path::Path, time::Duration};

use storage::testing::trie_bytes;

use crate::{Scale, told, world::World};

/// Bytes that a branch has for a slot below it: a hash and its length.
const REFERENCE_BYTES: usize = 33;

/// Blocks of a checkpoint: five seconds of slots of 200 ms.
const BLOCKS: u32 = 25;

/// Bytes of branches that are in memory all.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn memory(slots: u64) {
    let mut world = World::new(slots, 0, 0);
    world.touch_all();
    let bytes = trie_bytes(&world.store);
    let count = usize::try_from(slots).expect("it fits");
    let per_slot = |bytes: usize| bytes as f64 / slots as f64;
    println!("memory: branches above {slots} slots take {:.1} bytes a slot", per_slot(bytes));
    println!("  hashes of the slots  {:.1}", per_slot(count * REFERENCE_BYTES));
    println!("  all else             {:.1}", per_slot(bytes - count * REFERENCE_BYTES));
}

/// What a block of a round took, and its part of the checkpoint.
struct Cost {
    root: Duration,
    commit: Duration,
    checkpoint: Duration,
}

impl Cost {
    fn total(&self) -> Duration {
        self.root + self.commit + self.checkpoint
    }
}

/// Blocks and their checkpoint; two changed slots to one changed account, as there are.
fn round(world: &mut World, (slots, accounts): (usize, usize)) -> Cost {
    let mut cost = Cost { root: Duration::ZERO, commit: Duration::ZERO, checkpoint: Duration::ZERO };
    for _ in 0..BLOCKS {
        let mut entries = world.random(0..world.slots, slots);
        entries.append(&mut world.random(world.slots..world.entries, accounts));
        let changes = world.changes(entries);
        let (block, root) = world.block(changes);
        cost.root += root / BLOCKS;
        cost.commit += world.commit(block) / BLOCKS;
    }
    cost.checkpoint = world.checkpoint() / BLOCKS;
    cost
}

/// Entries of each state, smallest first.
fn sizes(scale: &Scale) -> Vec<u64> {
    let given = std::env::var("SLUICE_GROWTH_ENTRIES");
    let usual = if scale.measures { "100000,1000000" } else { "300,600" };
    let list = given.as_deref().unwrap_or(usual).split(',');
    let mut sizes: Vec<u64> = list.map(|entries| entries.trim().parse().expect("numbers with commas")).collect();
    sizes.sort_unstable();
    sizes
}

/// Measures all sizes, one after the other in each round.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(scale: &Scale) {
    let changed = if scale.measures { (2_000, 1_000) } else { (20, 10) };
    let mut worlds: Vec<_> = sizes(scale)
        .into_iter()
        .map(|entries| {
            let accounts = entries / 3;
            let mut world = World::new(entries - accounts, accounts, 0);
            world.touch_all();
            (world, Vec::new())
        })
        .collect();
    for (world, costs) in &mut worlds {
        // The first one fills what the others find.
        round(world, changed);
        costs.reserve(scale.rounds);
    }
    for _ in 0..scale.rounds {
        worlds.iter_mut().for_each(|(world, costs)| costs.push(round(world, changed)));
    }
    println!(
        "growth: {} slots and {} accounts a block, {BLOCKS} blocks a checkpoint; ms a block",
        changed.0, changed.1
    );
    let mut csv = String::from("entries,round,root_us,commit_us,checkpoint_us\n");
    let least: Vec<f64> = worlds.first().map_or_else(Vec::new, |(_, costs)| costs.iter().map(seconds).collect());
    for (world, costs) in &worlds {
        let part = |of: fn(&Cost) -> Duration| told(costs.iter().map(|cost| of(cost).as_secs_f64() * 1e3), 2);
        let growth = costs.iter().zip(&least).map(|(cost, least)| seconds(cost) / least);
        println!(
            "  {:>9} entries: {}; root {}, commit {}, checkpoint {}; {} of the smallest",
            world.entries,
            part(Cost::total),
            part(|cost| cost.root),
            part(|cost| cost.commit),
            part(|cost| cost.checkpoint),
            told(growth, 2),
        );
        for (round, cost) in costs.iter().enumerate() {
            let [root, commit, checkpoint] = [cost.root, cost.commit, cost.checkpoint].map(|time| time.as_micros());
            writeln!(csv, "{},{round},{root},{commit},{checkpoint}", world.entries).expect("a string takes it");
        }
    }
    if scale.measures {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/growth.csv");
        std::fs::write(docs, csv).expect("the file can be written");
    }
}

fn seconds(cost: &Cost) -> f64 {
    cost.total().as_secs_f64()
}
