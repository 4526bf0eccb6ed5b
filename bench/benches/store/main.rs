//! What the store takes and writes for the changes of blocks, beside MDBX alone on the same disk in the same run.
//!
//! ```text
//! cargo bench -p bench --bench store -- [reads|durable|cold|memory|growth|proofs]..
//! ```
//!
//! `reads`: random slots from the cache, from pages in memory and from the disk, against MDBX alone. `durable`:
//! acknowledging a block, and bytes written for a slot, against a durable transaction of MDBX for each block. `cold`: a
//! checkpoint of rows whose pages are on the disk, against the same without reading ahead. `memory`: bytes of branches.
//! `growth`: a block's cost as the state grows; fills `docs/growth.csv`, which `bench/plots/growth.py` draws. `proofs`:
//! how long a proof takes at a random height of the window while blocks go on.
//!
//! Rounds are interleaved, ratios compare neighbours, and what is printed are medians with least and most. Sizes come
//! from the environment: `SLUICE_STORE_SLOTS` of the first three, `SLUICE_MEMORY_SLOTS`, `SLUICE_GROWTH_ENTRIES`, a
//! list with commas, `SLUICE_PROOF_ENTRIES` and `SLUICE_PROOF_WINDOW`. `SLUICE_STORE_PROOFS` is the number of heights
//! whose proofs the first three keep, none unless told otherwise, as MDBX alone has none. Without `--bench`, which
//! cargo passes, everything is small, and nothing is kept.

#[path = "../../../tools/src/allocator.rs"]
mod allocator;
mod cold;
mod durability;
#[path = "../durable/mod.rs"]
mod durable;
mod flat;
mod growth;
mod proofs;
mod reads;
mod world;

use bench::spread::spread;
use world::World;

/// How large everything is.
pub(crate) struct Scale {
    /// Whether this run measures, or only shows that the bench runs.
    pub(crate) measures: bool,
    pub(crate) rounds: usize,
    /// Slots that a block changes, in the first three.
    pub(crate) changed: usize,
    /// Blocks of a checkpoint.
    pub(crate) blocks: usize,
}

impl Scale {
    const REAL: Self = Self { measures: true, rounds: 5, changed: 10_000, blocks: 80 };
    const SMALL: Self = Self { measures: false, rounds: 1, changed: 100, blocks: 2 };
}

/// A number of the environment, else `usual`; `small` where nothing is measured.
fn size(name: &str, scale: &Scale, usual: u64, small: u64) -> u64 {
    let usual = if scale.measures { usual } else { small };
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Median with least and most, with so many digits behind the point.
pub(crate) fn told(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    let (median, least, most) = spread(values.into_iter().collect());
    format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
}

fn main() {
    allocator::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = if arguments.iter().any(|argument| argument == "--bench") { Scale::REAL } else { Scale::SMALL };
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| named.is_empty() || named.contains(&name);
    if ["durable", "cold", "reads"].into_iter().any(wanted) {
        let slots = size("SLUICE_STORE_SLOTS", &scale, 5_000_000, 2_000);
        let mut world = World::new(slots, 0, size("SLUICE_STORE_PROOFS", &scale, 0, 10));
        let flat = flat::Flat::load(&world.folder("flat"), &world.rows());
        // First: what a block changed lately is in memory whatever the cache holds.
        if wanted("reads") {
            reads::run(&world, &flat, &scale);
        }
        if wanted("durable") {
            durability::run(&mut world, &flat, &scale);
        }
        if wanted("cold") {
            cold::run(&mut world, &scale);
        }
    }
    if wanted("memory") {
        growth::memory(size("SLUICE_MEMORY_SLOTS", &scale, 1_000_000, 2_000));
    }
    if wanted("growth") {
        growth::run(&scale);
    }
    if wanted("proofs") {
        proofs::run(&scale);
    }
}
