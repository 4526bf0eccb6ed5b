//! The wiring: which hand serves which port, in the order in which a node starts and stops.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{B256, Bytes};
use engine::{
    admission::PoolLimits,
    crypto::bls::BlsScheme,
    genesis::ChainSpec,
    pipeline::{Config, Node, PipelineError, Ports},
    ports::Executor,
};
use eyre::WrapErr;
use net::rpc::{CorsPolicy, DEV_PHRASE, DevAccounts, RpcConfig, RpcNode, RpcServer};
use storage::{Database, Keep};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    cli::{GenesisArgs, InitArgs, Mode, NodeArgs},
    clients::Clients,
    genesis,
    keys::{self, Role},
    peers::Peers,
    telemetry,
    threads::{END_MAX, give_way, sockets},
};

/// Least time from one block to the next on a development chain: an idle chain makes a block as soon as a
/// transaction arrives, a busy one does not make a block for each.
const DEV_SLOT_TIME: Duration = Duration::from_millis(10);

/// Longest a leader builds when nothing else limits it.
const BUILD_TIME_MAX: Duration = Duration::from_secs(2);

/// A data folder that goes away with the node, or one that stays.
enum Folder {
    Throwaway(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Throwaway(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// Runs a node until it is told to stop or fails.
pub(crate) fn run(args: &NodeArgs) -> eyre::Result<()> {
    let accounts = args.dev.then(DevAccounts::well_known);
    let chain = Arc::new(chain(args, accounts.as_ref())?);
    let role = keys::role(&args.validator, &chain)?;
    raise_file_limit();
    let folder = folder(args)?;
    let config = store_config(folder.path(), args);
    let runtime = sockets("net").build().wrap_err("cannot start the network threads")?;
    let peers = || {
        let key = if chain.ordering.validators.is_empty() { None } else { Some(keys::identity(folder.path())?) };
        Peers::new(&args.peers, key, &chain, role.identity.as_ref())
    };
    let joined =
        if args.snapshot_sync { Some(join(&runtime, peers, (&chain, args.trust_set), &config)?) } else { None };
    let store = Database::open(config, chain.clone());
    let store = store.wrap_err_with(|| format!("cannot open data folder {}", folder.path().display()))?;
    let store = Arc::new(store);
    let peers = joined.map_or_else(peers, Ok)?;
    let workers = vm::workers::Workers::new(usize::from(args.execution_threads)).wrap_err("cannot start threads")?;
    let executor: Arc<dyn Executor> = Arc::new(vm::RevmExecutor::new(chain.clone()).with_workers(workers));
    let ports = Ports { store: store.clone(), journal: store.journal(), executor, network: peers.network() };
    let clients = args.clients.prepare(folder.path(), &chain)?;
    let mut lines = vec![role.line.clone()];
    let node = Arc::new(Node::start(pipeline_config(args, &chain, role), ports, store.take_recovered())?);

    let failure = runtime.block_on(async {
        if let Some(address) = args.metrics {
            telemetry::metrics(address)?;
        }
        let rpc_node = RpcNode {
            query: node.query.clone(),
            admission: node.admission.clone(),
            events: node.events.clone(),
            network: peers.network(),
            transport: peers.transport(),
            dev: accounts.clone(),
        };
        lines.extend(peers.start(&node)?);
        let clients = Clients::start(clients, (rpc_config(args), rpc_node), &node).await?;
        lines.extend(clients.line());
        // Whoever reads that it serves may stop it at once.
        let signals = stop_signals()?;
        node.admit_again(store.take_waiting());
        announce(args, &chain, &folder, lines, clients.server(), accounts.as_ref());
        let watched = node.clone();
        let failed = tokio::task::spawn_blocking(move || watched.wait());
        let failure = tokio::select! {
            failure = failed => failure.unwrap_or(None),
            () = stop_signal(signals) => None,
        };
        tracing::info!("stopping");
        clients.stop().await;
        peers.stop().await;
        eyre::Ok(failure)
    })?;
    node.stop();
    if failure.is_none() {
        store.keep_waiting(&node.query.waiting());
    }
    runtime.shutdown_timeout(END_MAX);
    drop(node);
    finish(store, failure)
}

/// Takes a state over from peers into a folder that holds no chain; gives the network, which goes on.
fn join(
    runtime: &Runtime,
    peers: impl FnOnce() -> eyre::Result<Peers>,
    (chain, trust_set): (&ChainSpec, Option<B256>),
    config: &storage::Config,
) -> eyre::Result<Peers> {
    let dir = &config.dir;
    std::fs::create_dir_all(dir).wrap_err_with(|| format!("cannot create data folder {}", dir.display()))?;
    let set = trust_set.map_or_else(|| chain.validator_set().map(|set| set.hash()), Ok)?;
    let peers = peers()?;
    runtime.block_on(peers.join(chain, set, config))?;
    Ok(peers)
}

/// Segments and sockets each take a descriptor, and the usual soft limit of 1,024 is for programs of another
/// age; the hard limit is what the machine's owner meant.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, soft_limit = limit.current, "the limit of open files cannot be raised");
    }
}

/// Prints a genesis file that this program takes.
pub(crate) fn genesis(args: &GenesisArgs) -> eyre::Result<()> {
    let mut file = genesis::file(args.chain_id, args.gas_limit, &args.fund);
    if let Some(validators) = &args.validators {
        genesis::name_validators(&mut file, &genesis::validators(validators)?)?;
    }
    let text = serde_json::to_string_pretty(&file)?;
    genesis::parse(&text)?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Creates the data folder of a chain.
pub(crate) fn init(args: &InitArgs) -> eyre::Result<()> {
    let chain = Arc::new(genesis::load(&args.chain)?);
    let config = storage::Config::new(&args.datadir);
    let store =
        Database::open(config, chain.clone()).wrap_err_with(|| format!("cannot create {}", args.datadir.display()))?;
    store.close().wrap_err("cannot close the data folder")?;
    let folder = args.datadir.display();
    writeln!(std::io::stdout(), "{folder} holds chain {} with genesis {}", chain.chain_id, chain.genesis_hash())?;
    Ok(())
}

fn chain(args: &NodeArgs, accounts: Option<&DevAccounts>) -> eyre::Result<ChainSpec> {
    match &args.chain {
        Some(path) => genesis::load(path),
        None => {
            let funded = accounts.map_or(&[][..], DevAccounts::addresses);
            genesis::dev(args.dev_chain.chain_id, args.dev_chain.gas_limit, funded)
        }
    }
}

fn folder(args: &NodeArgs) -> eyre::Result<Folder> {
    match &args.datadir {
        Some(path) => Ok(Folder::Kept(path.clone())),
        None => {
            let folder = tempfile::Builder::new().prefix("sluice-dev-").tempdir();
            Ok(Folder::Throwaway(folder.wrap_err("cannot create a throw-away data folder")?))
        }
    }
}

fn store_config(path: &Path, args: &NodeArgs) -> storage::Config {
    let mut config = if args.dev { storage::Config::dev(path) } else { storage::Config::new(path) };
    config.proof_window = args.proof_window;
    config.keep = Some(match args.keep.mode.unwrap_or(if args.dev { Mode::Archive } else { Mode::Validator }) {
        Mode::Validator => Keep::Window { time: args.keep.time, bytes: args.keep.bytes },
        Mode::Full => Keep::Blocks { time: args.keep.time },
        Mode::Archive => Keep::All,
    });
    config.segment_bytes = args.segment_bytes.or(args.disk_segment_bytes).unwrap_or(config.segment_bytes);
    if let Some(bytes) = args.disk_free_min {
        (config.free_bytes_min, config.free_bytes_low) = (bytes, bytes.saturating_mul(4));
    }
    config.allow_remote_disk = args.disk_allow_remote;
    config.fail_point.clone_from(&args.fail_point);
    config
}

fn pipeline_config(args: &NodeArgs, chain: &ChainSpec, role: Role) -> Config {
    let slot_time = Duration::from_millis(chain.ordering.slot_time_ms);
    let idle_interval = Duration::from_millis(chain.ordering.idle_interval_ms);
    let (slot_time, build_time, idle_interval) = match (args.dev, args.dev_block_time) {
        (true, Some(interval)) => (interval, interval.min(BUILD_TIME_MAX), Some(interval)),
        (true, None) => (DEV_SLOT_TIME, slot_time, None),
        (false, _) => (slot_time, slot_time, Some(idle_interval)),
    };
    // Hints are for those who guess ahead.
    let hint_percent = if args.execution_threads > 1 { args.hint_budget } else { 0 };
    Config {
        slot_time,
        build_time,
        idle_interval,
        identity: role.identity,
        scheme: Arc::new(BlsScheme),
        beneficiary: args.fee_recipient.unwrap_or(role.operator),
        extra_data: Bytes::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION")).as_bytes()),
        admission_workers: usize::from(args.admission_workers),
        pool: PoolLimits::default(),
        hint_percent,
        give_way,
    }
}

fn rpc_config(args: &NodeArgs) -> RpcConfig {
    RpcConfig {
        http: Some(SocketAddr::new(args.http_addr, args.http_port)),
        ws: Some(SocketAddr::new(args.ws_addr, args.ws_port)),
        admin: args.peers.admin,
        cors: if args.dev { CorsPolicy::Any } else { CorsPolicy::None },
        hosts: args.http_vhosts.clone(),
        txpool: args.dev,
        ..RpcConfig::default()
    }
}

/// Prints who the node is and where it serves; with --dev also the accounts and their keys.
fn announce(
    args: &NodeArgs,
    chain: &ChainSpec,
    folder: &Folder,
    who: Vec<String>,
    server: &RpcServer,
    accounts: Option<&DevAccounts>,
) {
    let mut lines = vec![
        format!("Sluice {} on chain {}", env!("CARGO_PKG_VERSION"), chain.chain_id),
        format!("genesis    {}", chain.genesis_hash()),
        format!("data       {}", folder.path().display()),
    ];
    lines.extend(who);
    if let Some(accounts) = accounts {
        lines.push(
            "\nDevelopment accounts, 10000 ETH each; their keys are public, never use them elsewhere:".to_owned(),
        );
        lines.push(format!("mnemonic   {DEV_PHRASE}"));
        let keys = accounts.keys().enumerate();
        lines.extend(keys.map(|(index, (address, key))| format!("({index}) {address} key {key}")));
        lines.push(String::new());
    }
    let admin = server.admin_addr().map(|address| format!("admin      http://{address}"));
    let metrics = args.metrics.map(|address| format!("metrics    http://{address}/metrics"));
    let ws = server.ws_addr().map(|address| format!("WebSocket  ws://{address}"));
    let http = server.http_addr().map(|address| format!("JSON-RPC   http://{address}"));
    lines.extend([admin, metrics, ws, http].into_iter().flatten());
    // Nobody has to listen.
    let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
}

/// Takes the signals that ask the node to stop; from here on they end no process by themselves.
fn stop_signals() -> eyre::Result<[Signal; 2]> {
    let take = |kind| signal(kind).wrap_err("cannot listen for signals");
    Ok([take(SignalKind::interrupt())?, take(SignalKind::terminate())?])
}

async fn stop_signal([mut interrupt, mut terminate]: [Signal; 2]) {
    tokio::select! {
        _ = interrupt.recv() => {},
        _ = terminate.recv() => {},
    }
}

/// Closes the store; a stage that failed decides how the process ends.
fn finish(store: Arc<Database>, failure: Option<PipelineError>) -> eyre::Result<()> {
    if let Some(error) = failure {
        return Err(error).wrap_err("the node stopped; what was announced is safe, restart once the cause is gone");
    }
    // A reader that outlived the runtime keeps the store; dropping it then closes it as well.
    if let Some(store) = Arc::into_inner(store) {
        store.close().wrap_err("cannot close the data folder")?;
    }
    tracing::info!("stopped");
    Ok(())
}
