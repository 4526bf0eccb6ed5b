//! Power cuts and failing disks under everything that a store keeps: see `tests::power`.
//!
//! `SLUICE_POWER_IMAGES` sets the number of images of cuts (default 240), `SLUICE_SEED` the seed of the first run.

use std::path::PathBuf;

use tests::{
    power::{
        campaign::{self, Options},
        faults, flips,
    },
    rng::Rng,
};

/// Cuts of one run.
const IMAGES: u64 = 80;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn options(images: u64) -> Options {
    let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    Options { program: env!("CARGO_BIN_EXE_power").into(), images, only: None, trace: None, unsynced: None, kept }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_promised() {
    let runs = number("SLUICE_POWER_IMAGES", 240).div_ceil(IMAGES);
    let first = Rng::seeded("power cuts", 5).next() >> 16;
    let (mut images, mut recoveries, mut steps) = (0, 0, 0);
    for seed in first..first + runs {
        let counts = campaign::run(&options(IMAGES), seed).unwrap_or_else(|why| panic!("{why}"));
        (images, recoveries, steps) = (images + counts.images, recoveries + counts.recoveries, steps + counts.steps);
    }
    println!("power cuts: {images} images of {runs} runs with {steps} steps, {recoveries} of cut recoveries");
    assert!(images >= runs * IMAGES && recoveries > 0);
}

/// The control: a disk that says that it synced, and did not.
#[test]
fn a_disk_that_forgets_the_syncs_of_one_store_is_found_out() {
    let first = Rng::seeded("forgotten syncs", 5).next() >> 16;
    for part in ["data/segments", "data/log", "data/state", "data/chain"] {
        let options = Options { unsynced: Some(part.to_owned()), ..options(IMAGES) };
        let found = (first..first + 6).find_map(|seed| campaign::run(&options, seed).err());
        let found = found.unwrap_or_else(|| panic!("nobody saw that the syncs of {part} were forgotten"));
        println!("without syncs of {part}: {}", found.lines().next().unwrap_or_default());
    }
}

/// `SLUICE_FLIPS` sets the number of bits of a store (default 120). About one in a hundred is left to the scrubber, so
/// stores follow until one is.
#[test]
fn a_bit_that_flips_is_told_of_before_anything_wrong_is_served_or_found_by_the_scrubber() {
    let flips = number("SLUICE_FLIPS", 120);
    // Stores of few blocks, so that as many bits flip in tables as in segments.
    let first = Rng::seeded("flips", 7).next() >> 19 << 3;
    let (mut told, mut scrubbed) = (0, 0);
    for seed in (first..).step_by(8).take(20) {
        let counts =
            flips::run(env!("CARGO_BIN_EXE_power").as_ref(), seed, flips).unwrap_or_else(|why| panic!("{why}"));
        println!("flips: {flips} of seed {seed}, {counts:?}");
        (told, scrubbed) = (told + counts.told, scrubbed + counts.scrubbed);
        if told > 0 && scrubbed > 0 {
            return;
        }
    }
    panic!("{told} were told of and {scrubbed} found by the scrubber");
}

/// `SLUICE_FAULT_STEP` sets how many calls apart the failing ones are (default 40).
#[test]
fn whatever_call_fails_nothing_that_was_promised_is_lost() {
    let step = u32::try_from(number("SLUICE_FAULT_STEP", 40)).expect("a small number");
    let mut rng = Rng::seeded("failing calls", 6);
    let mut stopped = 0;
    for fault in faults::FAULTS {
        let first = 1 + u32::try_from(rng.below(u64::from(step))).expect("below a small number");
        let options = faults::Options { program: env!("CARGO_BIN_EXE_power").into(), first, step };
        let counts = faults::run(&options, rng.next() >> 16, fault).unwrap_or_else(|why| panic!("{why}"));
        println!("{fault:?}: runs {}, {} of them stopped", counts.runs, counts.stopped);
        stopped += counts.stopped;
    }
    assert!(stopped > 0, "no fault stopped anything");
}
