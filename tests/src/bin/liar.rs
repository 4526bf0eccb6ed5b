//! A liar as a program of its own: it dials a node on this machine or in a network made for tests, and answers it.
//!
//! At its end it prints how many wishes it answered and how often it was let in.

#![expect(clippy::print_stdout, reason = "a command for tests")]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
    time::Duration,
};

use ::tests::liar::{self, Lie, Options};
use clap::Parser;
use serde_json::json;

#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// What it answers.
    lie: Lie,
    /// Whom it lies to.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddrV4,
    /// Of whom it has its blocks.
    #[arg(long, value_name = "ADDR:PORT")]
    honest: SocketAddrV4,
    /// Own address.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST, value_name = "ADDR")]
    from: Ipv4Addr,
    /// How long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Chance follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments { lie, to, honest, from, seconds, seed } = Arguments::parse();
    match liar::run(&Options { lie, from, to, honest, lasts: Duration::from_secs(seconds), seed }) {
        Ok((answered, let_in)) => {
            println!("{}", json!({"answered": answered, "let_in": let_in}));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
