//! `sluice localnet`: a network of real nodes on this machine, made, run and played with.
//!
//! ```text
//! make -> D/localnet.json <- supervise: starts the nodes, asks each second, shows, stops
//!                         <- control, from another terminal: kill, stop, restart, partition
//! ```
//!
//! Whoever acts on a node does it by what stands in the file, and writes there what was done.

mod control;
mod make;
mod process;
mod record;
mod supervise;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use alloy_primitives::Address;
use clap::{Args, Subcommand};
use eyre::{WrapErr, ensure, eyre};
use serde_json::Value;

use self::{
    record::{Folder, Settings},
    supervise::Options,
};

/// Flags of `localnet`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct LocalnetArgs {
    #[command(subcommand)]
    command: Option<LocalnetCommand>,
    #[command(flatten)]
    run: RunArgs,
}

/// What can be done to a local network from another terminal.
///
/// Nodes are named by their number in the table. Each command prints a line of JSON for each node:
/// `{"node":2,"name":"validator-2","did":"killed","pid":4711}`.
#[derive(Debug, Subcommand)]
enum LocalnetCommand {
    /// End nodes at once, as a power cut would (SIGKILL).
    Kill(NodesArgs),
    /// Ask nodes to stop, and wait until they have.
    Stop(NodesArgs),
    /// Start nodes again with the arguments they had; those that run are stopped first.
    Restart(NodesArgs),
    /// Cut nodes from all others; among themselves they still talk.
    ///
    /// A node that starts anew knows of no cut, but those on the other side still do.
    Partition(PartitionArgs),
}

/// Nodes of a local network.
#[derive(Debug, Args)]
struct NodesArgs {
    /// Numbers of the nodes.
    #[arg(required = true, value_name = "N")]
    nodes: Vec<usize>,
    /// Folder of the network.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Flags of `localnet partition`.
#[derive(Debug, Args)]
struct PartitionArgs {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Let them talk again.
    #[arg(long)]
    heal: bool,
}

/// Flags of the network itself.
#[derive(Debug, Args)]
struct RunArgs {
    /// Folder of the network; one that is there goes on.
    #[arg(long, required = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Validators of a new network [default: as many as stakes, or 4].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    validators: Option<u16>,
    /// Nodes of a new network that only follow [default: 0].
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=100), value_name = "N")]
    followers: Option<u16>,
    /// Stake of each validator of a new network, separated by commas [default: 1 each].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..), value_name = "STAKES")]
    stake: Option<Vec<u64>>,
    /// JSON-RPC port of the first node of a new network; WebSocket, metrics, admin and UDP follow, and each further
    /// node is 10 higher; 0 takes any free ones [default: 8545].
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Chain id of a new network [default: 31337].
    #[arg(long, value_name = "ID")]
    chain_id: Option<u64>,
    /// Gas limit of a block of a new network [default: 300000000].
    #[arg(long, value_name = "GAS")]
    gas_limit: Option<u64>,
    /// From one block to the next under load in a new network [default: 200ms].
    #[arg(long, value_parser = crate::cli::duration, value_name = "TIME")]
    slot_time: Option<Duration>,
    /// Assumed bound of network delay in a new network [default: 150ms].
    #[arg(long, value_parser = crate::cli::duration, value_name = "TIME")]
    delta: Option<Duration>,
    /// Heights in an epoch of a new network [default: 18000].
    #[arg(long, value_name = "N")]
    epoch_slots: Option<u64>,
    /// Accounts that hold 10,000 ether in block 0 of a new network, besides the ten of development chains.
    #[arg(long, num_args = 1.., value_name = "ADDRESS")]
    fund: Option<Vec<Address>>,
    /// Print no table.
    #[arg(long)]
    quiet: bool,
    /// Stop after so many seconds; without it on Ctrl-C.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Further flags of every node; they take the place of those that an existing network had.
    #[arg(last = true, value_name = "NODE FLAGS")]
    more: Vec<String>,
}

/// Runs a local network, or does something to one that runs.
pub(crate) fn run(args: &LocalnetArgs) -> eyre::Result<ExitCode> {
    let program = std::env::current_exe().wrap_err("this program does not find itself")?;
    let Some(command) = &args.command else {
        let folder = args.run.folder()?;
        let options = Options { quiet: args.run.quiet, seconds: args.run.seconds };
        return supervise::run(&folder, &program, options);
    };
    let done = match command {
        LocalnetCommand::Kill(args) => control::kill(&args.folder()?, &args.numbers()),
        LocalnetCommand::Stop(args) => control::stop(&args.folder()?, &args.numbers()),
        LocalnetCommand::Restart(args) => control::restart(&args.folder()?, &program, &args.numbers()),
        LocalnetCommand::Partition(args) => control::partition(&args.nodes.folder()?, &args.nodes.numbers(), args.heal),
    }?;
    for line in done {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&line)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl NodesArgs {
    fn folder(&self) -> eyre::Result<Folder> {
        Folder::open(&self.dir)
    }

    /// Each once.
    fn numbers(&self) -> Vec<usize> {
        let numbers: std::collections::BTreeSet<_> = self.nodes.iter().copied().collect();
        numbers.into_iter().collect()
    }
}

impl RunArgs {
    /// The network that is there, or a new one.
    fn folder(&self) -> eyre::Result<Folder> {
        let dir = self.dir.as_deref().ok_or_else(|| eyre!("--dir is missing"))?;
        match Folder::open(dir) {
            Ok(folder) if folder.is_made()? => self.go_on(folder),
            _ => make::make(dir, self.settings(&self.new_settings()), &self.more),
        }
    }

    fn go_on(&self, folder: Folder) -> eyre::Result<Folder> {
        let made = folder.read()?.settings;
        let differences = differences(&made, &self.settings(&made))?;
        let dir = folder.dir.display();
        ensure!(differences.is_empty(), "the network in {dir} was made with other settings: {differences}");
        if !self.more.is_empty() {
            folder.edit(|network| {
                make::replace_more(network, &self.more);
                Ok(())
            })?;
        }
        Ok(folder)
    }

    fn new_settings(&self) -> Settings {
        let stakes = self.stake.as_ref().and_then(|stake| u16::try_from(stake.len()).ok());
        let validators = self.validators.or(stakes).unwrap_or(4);
        Settings {
            validators,
            followers: 0,
            stake: vec![1; usize::from(validators)],
            base_port: 8_545,
            chain_id: crate::genesis::DEV_CHAIN_ID,
            gas_limit: crate::genesis::GAS_LIMIT,
            slot_time_ms: None,
            delta_ms: None,
            epoch_slots: None,
            fund: Vec::new(),
        }
    }

    /// These settings, changed by what was typed.
    fn settings(&self, before: &Settings) -> Settings {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Settings {
            validators: self.validators.unwrap_or(before.validators),
            followers: self.followers.unwrap_or(before.followers),
            stake: self.stake.clone().unwrap_or_else(|| before.stake.clone()),
            base_port: self.base_port.unwrap_or(before.base_port),
            chain_id: self.chain_id.unwrap_or(before.chain_id),
            gas_limit: self.gas_limit.unwrap_or(before.gas_limit),
            slot_time_ms: self.slot_time.map(milliseconds).or(before.slot_time_ms),
            delta_ms: self.delta.map(milliseconds).or(before.delta_ms),
            epoch_slots: self.epoch_slots.or(before.epoch_slots),
            fund: self.fund.clone().unwrap_or_else(|| before.fund.clone()),
        }
    }
}

/// What differs, for a person to read; empty if nothing does.
fn differences(made: &Settings, typed: &Settings) -> eyre::Result<String> {
    let (made, typed) = (serde_json::to_value(made)?, serde_json::to_value(typed)?);
    let fields = made.as_object().into_iter().flatten();
    let other = fields.filter_map(|(field, value)| {
        let wanted = typed.get(field).unwrap_or(&Value::Null);
        (value != wanted).then(|| format!("{field} is {value}, not {wanted}"))
    });
    Ok(other.collect::<Vec<_>>().join(", "))
}
