//! Random slots: from the cache, from pages in memory and from the disk, against MDBX alone.

use std::{hint::black_box, time::Instant};

use alloy_primitives::U256;
use storage::metrics;

use crate::{
    Scale,
    flat::Flat,
    told,
    world::{CONTRACT, World, drop_pages, hashed, major_faults},
};

/// Nanoseconds a slot, by round.
#[derive(Default)]
struct Figures {
    disk: Vec<f64>,
    pages: Vec<f64>,
    cache: Vec<f64>,
    alone: Vec<f64>,
}

/// Reads slots one after the other; gives nanoseconds a slot.
fn read(world: &World, slots: std::ops::Range<u64>) -> f64 {
    let (view, count) = (world.view(), slots.end - slots.start);
    let begun = Instant::now();
    for slot in slots {
        let value = view.slot(CONTRACT, U256::from(slot)).expect("the slot can be read");
        assert!(!black_box(value).is_zero(), "every slot has a value");
    }
    begun.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// Measures all four. Slots lie in the tables in order of their hash, so that neighbours are nowhere near.
#[expect(clippy::print_stdout, reason = "a bench tells what it measured")]
pub(crate) fn run(world: &World, flat: &Flat, scale: &Scale) {
    let (few, many) = if scale.measures { (2_000, 50_000) } else { (20, 200) };
    let mut figures = Figures::default();
    let mut next = 0;
    let mut fresh = |count: u64| {
        next += count;
        assert!(next <= world.slots, "no slot is new twice");
        next - count..next
    };
    for _ in 0..scale.rounds {
        drop_pages(&world.file());
        let faults = major_faults();
        figures.disk.push(read(world, fresh(few)));
        let waited = major_faults() - faults;
        assert!(!scale.measures || waited >= few / 2, "no figure of pages in memory: {waited} faults");
        // Into memory in order, then into this process's map.
        world.read_pages();
        read(world, fresh(many));
        let slots = fresh(many);
        let (hits, reads) = (metrics::CACHE_HIT.value(), metrics::READ.value());
        figures.pages.push(read(world, slots.clone()));
        let between = (metrics::CACHE_HIT.value(), metrics::READ.value());
        assert!(between.0 == hits && between.1 - reads >= many, "new slots are not in the cache");
        figures.cache.push(read(world, slots.clone()));
        assert!(metrics::CACHE_HIT.value() - between.0 == many, "old slots are in the cache");
        let keys: Vec<_> = slots.map(hashed).collect();
        flat.read(&keys);
        let begun = Instant::now();
        flat.read(&keys);
        figures.alone.push(begun.elapsed().as_secs_f64() * 1e9 / many as f64);
    }
    let row = |what: &str, times: &[f64]| {
        let to_alone = times.iter().zip(&figures.alone).map(|(time, alone)| time / alone);
        println!(
            "  {what:<22} {} us, {} of MDBX alone",
            told(times.iter().map(|time| time / 1e3), 2),
            told(to_alone, 2)
        );
    };
    println!("reads: random ones of {} slots", world.slots);
    row("MDBX alone, in memory", &figures.alone);
    row("the store's cache", &figures.cache);
    row("its pages in memory", &figures.pages);
    row("its pages on the disk", &figures.disk);
}
