//! Clusters of real node processes, with everything that networks and machines do to them.
//!
//! They need root, network namespaces, nftables, strace and libfaketime, and minutes; they run when
//! `SLUICE_CLUSTERS=1`, one at a time (`--test-threads 1`), and say plainly when they do not.

#![allow(clippy::print_stdout, reason = "a long test tells what it did and measured")]

mod kit;

/// Whether a test does not run here; it says so.
fn skipped(test: &str) -> bool {
    let skip = std::env::var("SLUICE_CLUSTERS").as_deref() != Ok("1");
    if skip {
        println!("{test}: SKIPPED, set SLUICE_CLUSTERS=1 as root with nftables, strace and faketime installed");
    }
    skip
}
