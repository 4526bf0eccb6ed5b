//! Looks into a data folder that no node uses.

use std::{io::Write as _, process::ExitCode, sync::Arc};

use engine::{genesis::ChainSpec, ports::Store as _};
use eyre::WrapErr;
use net::rpc::DevAccounts;
use serde_json::json;
use storage::Database;

use crate::{
    cli::{ChainArgs, DbCommand, FolderArgs},
    genesis,
};

/// Runs a `db` command.
pub(crate) fn run(command: &DbCommand) -> eyre::Result<ExitCode> {
    match command {
        DbCommand::Root(args) => root(args),
    }
}

/// The chain that the arguments name.
pub(crate) fn chain(args: &ChainArgs) -> eyre::Result<ChainSpec> {
    match &args.chain {
        Some(path) => genesis::load(path),
        None => genesis::dev(args.dev_chain.chain_id, args.dev_chain.gas_limit, DevAccounts::well_known().addresses()),
    }
}

/// Opening recovers what a crash left, so the root is compared at the height a node would serve.
fn root(args: &FolderArgs) -> eyre::Result<ExitCode> {
    let chain = Arc::new(chain(&args.chain)?);
    eyre::ensure!(args.datadir.is_dir(), "{} is no folder", args.datadir.display());
    // Nothing that the node kept is let go of.
    let config = storage::Config { proof_window: u64::MAX, ..storage::Config::new(&args.datadir) };
    let store = Database::open(config, chain)
        .wrap_err_with(|| format!("cannot open data folder {}", args.datadir.display()))?;
    let tip = store.tip();
    let (rebuilt, stated) = (store.rebuild_root()?, tip.block.header.inner().state_root);
    let report = json!({
        "height": tip.height().0, "hash": tip.hash(), "root": rebuilt, "header_root": stated, "match": rebuilt == stated,
    });
    writeln!(std::io::stdout(), "{report}")?;
    store.close().wrap_err("cannot close the data folder")?;
    Ok(if rebuilt == stated { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
