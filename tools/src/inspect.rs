//! Looks into a data folder that no node uses, and changes what it is asked to.
//!
//! Each command prints a line of JSON, and how far it is to a terminal.

mod progress;

use std::{io::Write as _, process::ExitCode, sync::Arc};

use engine::{genesis::ChainSpec, ports::Store as _, types::Height};
use eyre::WrapErr;
use net::rpc::DevAccounts;
use serde::Serialize;
use serde_json::json;
use storage::{Config, Database, offline};

use self::progress::Bar;
use crate::{
    cli::{ChainArgs, DbCommand, FolderArgs, RewindArgs},
    genesis,
};

/// Runs a `db` command.
pub(crate) fn run(command: &DbCommand) -> eyre::Result<ExitCode> {
    let mut bar = Bar::new();
    let listen = &mut |progress| bar.show(progress);
    match command {
        DbCommand::Stats(args) => {
            let stats = offline::stats(&args.datadir, &*chain(&args.chain)?, listen);
            print(&stats.wrap_err_with(|| cannot("look into", args))?)
        }
        DbCommand::Verify(args) => {
            let verified = offline::verify(&args.datadir, &chain(&args.chain)?, listen);
            let verified = verified.wrap_err_with(|| cannot("look into", args))?;
            print(&verified)?;
            return Ok(code(verified.bad_places == 0));
        }
        DbCommand::Check(args) => return check(args, listen),
        DbCommand::Root(args) => return root(args),
        DbCommand::Compact(args) => {
            let (folder, point) = (&args.folder, args.fail_point.as_deref());
            let compacted = offline::compact(&folder.datadir, &*chain(&folder.chain)?, point, listen);
            print(&compacted.wrap_err_with(|| cannot("compact", folder))?)
        }
        DbCommand::Rewind(args) => rewind(args, listen),
        DbCommand::Migrate(args) => {
            let (folder, point) = (&args.folder, args.fail_point.as_deref());
            let migrated = offline::migrate(&folder.datadir, &*chain(&folder.chain)?, point, listen);
            print(&migrated.wrap_err_with(|| cannot("migrate", folder))?)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn cannot(what: &str, args: &FolderArgs) -> String {
    format!("cannot {what} data folder {}", args.datadir.display())
}

fn code(is_right: bool) -> ExitCode {
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(report: &impl Serialize) -> eyre::Result<()> {
    let line = serde_json::to_string(report)?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// The chain that the arguments name.
pub(crate) fn chain(args: &ChainArgs) -> eyre::Result<Arc<ChainSpec>> {
    let chain = match &args.chain {
        Some(path) => genesis::load(path),
        None => genesis::dev(args.dev_chain.chain_id, args.dev_chain.gas_limit, DevAccounts::well_known().addresses()),
    };
    Ok(Arc::new(chain?))
}

/// Settings under which a folder is looked into: no threads, however full or far its disk is, and with nothing let go
/// of that the node kept.
fn config(args: &FolderArgs) -> Config {
    Config {
        background: false,
        free_bytes_min: 0,
        free_bytes_low: 0,
        allow_remote_disk: true,
        proof_window: u64::MAX,
        ..Config::new(&args.datadir)
    }
}

/// Opening recovers what a crash left, so everything is told at the height that a node would serve.
fn open(args: &FolderArgs) -> eyre::Result<Database> {
    let open = || {
        offline::ensure_store(&args.datadir)?;
        eyre::Ok(Database::open(config(args), chain(&args.chain)?)?)
    };
    open().wrap_err_with(|| cannot("open", args))
}

fn root(args: &FolderArgs) -> eyre::Result<ExitCode> {
    let store = open(args)?;
    let tip = store.tip();
    let (rebuilt, stated) = (store.rebuild_root()?, tip.block.header.inner().state_root);
    print(&json!({
        "height": tip.height().0, "hash": tip.hash(), "root": rebuilt, "header_root": stated, "match": rebuilt == stated,
    }))?;
    store.close().wrap_err("cannot close the data folder")?;
    Ok(code(rebuilt == stated))
}

fn check(args: &FolderArgs, listen: offline::Listener<'_>) -> eyre::Result<ExitCode> {
    let store = open(args)?;
    // What is above the last checkpoint is in no table yet.
    store.checkpoint().wrap_err("cannot write a checkpoint")?;
    let scrubbed = store.scrub_with(listen);
    let findings = scrubbed.findings.iter().map(|found| json!({ "table": found.table, "what": found.what }));
    print(&json!({
        "height": store.tip().height().0, "rows": scrubbed.rows, "findings": findings.collect::<Vec<_>>(),
    }))?;
    store.close().wrap_err("cannot close the data folder")?;
    Ok(code(scrubbed.findings.is_empty()))
}

/// Every block of a data folder is final, so taking one away is nothing that happens by a slip.
fn rewind(args: &RewindArgs, listen: offline::Listener<'_>) -> eyre::Result<()> {
    let folder = &args.folder.folder;
    eyre::ensure!(
        args.discard_final_blocks,
        "blocks above {} are final: whoever was told of them will not find them here until they are fetched from other \
         nodes, and a validator signs nothing again at or below what it signed; --discard-final-blocks takes them away",
        args.to
    );
    let config = Config { fail_point: args.folder.fail_point.clone(), ..config(folder) };
    let rewound = offline::rewind(config, chain(&folder.chain)?, Height(args.to), listen);
    print(&rewound.wrap_err_with(|| cannot("rewind", folder))?)
}
