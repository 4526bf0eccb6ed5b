//! The `sluice` binary: parses what was typed, runs it, turns the outcome into an exit code.

mod allocator;
mod cli;
mod clients;
mod finality;
mod genesis;
mod history;
mod inspect;
mod keys;
mod load;
mod localnet;
mod node;
mod peers;
mod snapshot;
mod stages;
mod telemetry;
mod threads;
mod vectors;

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // The disk that takes our words may be the one that is full.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> eyre::Result<ExitCode> {
    let (json, stages) = match &cli.command {
        Command::Node(args) => (args.json, args.stages),
        _ => (false, false),
    };
    telemetry::logs(&cli.logs.log, json, stages)?;
    match &cli.command {
        Command::Node(args) => node::run(args)?,
        Command::Genesis(args) => node::genesis(args)?,
        Command::Init(args) => node::init(args)?,
        Command::Keys(command) => keys::run(command)?,
        Command::Db(command) => return inspect::run(command),
        Command::Snapshot(command) => return snapshot::run(command),
        Command::ExportFinality(args) => return finality::export(args),
        Command::VerifyFinality(args) => return finality::verify(args),
        Command::Log(command) => history::run(command)?,
        Command::Localnet(args) => return localnet::run(args),
        Command::Load(args) => return load::run(args),
        Command::Vectors(args) => {
            let (threads, rounds) = (usize::from(args.threads), usize::from(args.rounds));
            let settings = vectors::Settings { mode: args.mode, threads, rounds };
            return vectors::command(args.kind, &args.paths, settings);
        }
    }
    Ok(ExitCode::SUCCESS)
}
