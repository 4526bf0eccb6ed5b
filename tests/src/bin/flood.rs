//! A flood as a program of its own, so that it can be held to a part of a core.
//!
//! It prints `ready` when everything is made that can be made beforehand, and at its end a line of JSON with what it
//! sent. It goes to one node on this machine or in a network made for tests, and nowhere else.

#![expect(clippy::print_stdout, reason = "a command for tests")]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use ::tests::flood::{self, Kind, Options};
use clap::Parser;
use serde_json::json;

#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// What is sent.
    kind: Kind,
    /// The node.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddrV4,
    /// Own address.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST, value_name = "ADDR")]
    from: Ipv4Addr,
    /// How long it lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// First packets of handshakes a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Addresses of others that every second of those packets comes from.
    #[arg(long, value_delimiter = ',', value_name = "ADDRS")]
    spoof: Vec<Ipv4Addr>,
    /// Files with a validator's node key and the record it showed, in hex: its votes are sent as well.
    #[arg(long, num_args = 2, value_names = ["KEY", "RECORD"])]
    validator: Option<Vec<PathBuf>>,
    /// Chance follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments { kind, to, from, seconds, rate, spoof, validator, seed } = Arguments::parse();
    let validator = validator.and_then(|files| <[PathBuf; 2]>::try_from(files).ok()).map(|[key, record]| (key, record));
    let lasts = Duration::from_secs(seconds);
    let options = Options { kind, from, to, lasts, per_second: rate, spoofed: spoof, validator, seed };
    match flood::run(&options, || println!("ready")) {
        Ok(counts) => {
            println!("{}", json!({"seconds": seconds, "counts": counts.shown()}));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
