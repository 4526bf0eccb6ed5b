//! Proofs of an account and of slots at random heights of a whole window, while blocks and checkpoints go on.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{U256, keccak256};
use bench::rng::Rng;
use engine::{ports::Store as _, types::Height};
use storage::Database;

use crate::{
    Scale, size,
    world::{CONTRACT, World, address, drop_pages},
};

/// Blocks of a checkpoint: five seconds of slots of 200 ms.
const BLOCKS: usize = 25;

/// Makes blocks of so many changed slots and half as many accounts, and their checkpoint.
fn make(world: &mut World, changed: usize) {
    for _ in 0..BLOCKS {
        let mut entries = world.random(0..world.slots, changed);
        entries.append(&mut world.random(world.slots..world.entries, changed / 2));
        let changes = world.changes(entries);
        let (block, _) = world.block(changes);
        world.commit(block);
    }
    world.checkpoint();
}

/// Asks for three slots that are there and one that is not, or for an account; gives how long the answer took.
fn ask(store: &Database, window: u64, (slots, entries): (u64, u64), random: &mut Rng) -> Duration {
    let tip = store.tip().height().0;
    let height = Height(random.between(tip - window, tip + 1));
    let (who, keys) = if random.below(2) == 0 {
        let keys = [random.below(slots), random.below(slots), random.below(slots), entries + random.below(slots)];
        (CONTRACT, keys.map(U256::from).to_vec())
    } else {
        (address(random.between(slots, entries)), Vec::new())
    };
    let begun = Instant::now();
    let proof = store.proof(height, who, &keys).expect("a height of the window is proven");
    let took = begun.elapsed();
    let header = store.header(height).expect("a header is readable").expect("it is there");
    assert_eq!(keccak256(&proof.nodes[0]), header.state_root, "it begins at that height's root");
    assert!(proof.account.is_some() && proof.slots.iter().filter(|slot| slot.1.is_zero()).count() <= 1);
    took
}

/// Takes the tables and what they replaced out of memory.
fn forget(state: &Path, past: &Path) {
    drop_pages(state);
    for file in std::fs::read_dir(past).expect("the folder is there").flatten() {
        // Files come and go with checkpoints.
        if let Ok(file) = std::fs::File::open(file.path()) {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("the system takes the advice");
        }
    }
}

/// Measures answers from pages in memory, and with every page on the disk before each question.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(scale: &Scale) {
    let window = size("SLUICE_PROOF_WINDOW", scale, 10_000, 150);
    let entries = size("SLUICE_PROOF_ENTRIES", scale, 1_000_000, 900);
    let (changed, questions) = if scale.measures { (200, [20_000, 2_000]) } else { (20, [20, 5]) };
    let mut world = World::new(entries - entries / 3, entries / 3, window);
    world.touch_all();
    while world.store.tip().height().0 < window + 200 {
        make(&mut world, changed);
    }
    let (store, state, past, slots) = (world.store.clone(), world.file(), world.past(), world.slots);
    println!("proofs: heights of {window} blocks; {changed} of {slots} slots and {} accounts a block", changed / 2);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut random = Rng::new(2);
            for (count, from_disk) in questions.into_iter().zip([false, true]) {
                let (height, begun) = (store.tip().height().0, Instant::now());
                let one = |_| {
                    if from_disk {
                        forget(&state, &past);
                    }
                    ask(&store, window, (slots, entries), &mut random)
                };
                let mut took: Vec<Duration> = (0..count).map(one).collect();
                let rate = (store.tip().height().0 - height) as f64 / begun.elapsed().as_secs_f64();
                took.sort_unstable();
                let at = |part: usize| took[(took.len() - 1) * part / 1_000].as_secs_f64() * 1e3;
                println!(
                    "  {}{count} answers in ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, most {:.2}; {rate:.0} blocks/s",
                    if from_disk { "pages on the disk: " } else { "pages in memory: " },
                    at(500),
                    at(990),
                    at(999),
                    at(1_000),
                );
            }
        });
        while !asking.is_finished() {
            make(&mut world, changed);
        }
    });
}
