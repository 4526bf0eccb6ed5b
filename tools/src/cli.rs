//! The command line: what a person may type.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use alloy_primitives::{Address, B256};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Sluice: a settlement chain for DeFi, from one binary.
///
/// Exit codes: 0 done or stopped, 1 failed, 2 wrong usage or unreadable input.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logs: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the node speaks to the person who runs it.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Which logs to write: error, warn, info, debug, trace, or a filter per room such as `engine=debug`.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node.
    Node(Box<NodeArgs>),
    /// Print a genesis file that has everything a chain of this program needs, to be edited.
    Genesis(GenesisArgs),
    /// Create a data folder from a genesis file, without running a node.
    Init(InitArgs),
    /// Make and look at the keys of nodes; no secret is ever printed.
    #[command(subcommand)]
    Keys(crate::keys::KeysCommand),
    /// Look into a data folder that no node uses.
    #[command(subcommand)]
    Db(DbCommand),
    /// Take the state of a chain to other machines, in files that prove themselves.
    #[command(subcommand)]
    Snapshot(crate::snapshot::SnapshotCommand),
    /// Ask a node for what shows that a block is final, and write it into a file.
    ExportFinality(ExportFinalityArgs),
    /// Check such a file with nothing but the chain's validators; exit 1 if it does not show finality.
    VerifyFinality(VerifyFinalityArgs),
    /// Show what a validator signed, or take it to another data folder; no node may use the folder.
    #[command(subcommand)]
    Log(LogCommand),
    /// Run a network of nodes on this machine: keys, genesis, processes, one live table.
    ///
    /// Stops on Ctrl-C and prints a line of JSON with what it came to; exit 1 if a node ended by accident. Run it again
    /// on its folder, and the network goes on.
    Localnet(Box<crate::localnet::LocalnetArgs>),
    /// Drive any Ethereum node with DeFi load and check every receipt.
    Load(Box<crate::load::LoadArgs>),
    /// Run Ethereum's test vectors through this chain's own code.
    Vectors(VectorArgs),
}

/// Flags of `node`, named as geth and reth name them.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Write logs as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// A development chain: one validator, ten funded and unlocked accounts, a block as soon as a transaction arrives.
    #[arg(long, conflicts_with = "chain")]
    pub(crate) dev: bool,
    /// Genesis file of the chain, in geth's format.
    #[arg(long, value_name = "FILE", required_unless_present = "dev", requires = "datadir")]
    pub(crate) chain: Option<PathBuf>,
    /// Data folder; with --dev a throw-away folder unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Address the HTTP server listens on.
    #[arg(long = "http.addr", default_value = "127.0.0.1", value_name = "ADDR")]
    pub(crate) http_addr: std::net::IpAddr,
    /// Port of the HTTP server; 0 takes any free one.
    #[arg(long = "http.port", default_value_t = 8545, value_name = "PORT")]
    pub(crate) http_port: u16,
    /// Address the WebSocket server listens on.
    #[arg(long = "ws.addr", default_value = "127.0.0.1", value_name = "ADDR")]
    pub(crate) ws_addr: std::net::IpAddr,
    /// Port of the WebSocket server; 0 takes any free one.
    #[arg(long = "ws.port", default_value_t = 8546, value_name = "PORT")]
    pub(crate) ws_port: u16,
    /// Host names that requests may carry besides loopback ones, separated by commas; `*` for any.
    #[arg(long = "http.vhosts", value_delimiter = ',', value_name = "HOSTS")]
    pub(crate) http_vhosts: Vec<String>,
    /// For how many blocks back `eth_getProof` is answered; what blocks replace is kept on disk for so long.
    #[arg(long = "rpc.proof-window", default_value_t = 10_000, value_name = "BLOCKS")]
    pub(crate) proof_window: u64,
    /// Begin a chain that is not here yet with a state that other nodes give and prove, instead of with block 0.
    #[arg(long, requires = "chain")]
    pub(crate) snapshot_sync: bool,
    /// With --snapshot-sync: hash of the validator set from which on the state has to be shown final; that of the
    /// genesis file unless given.
    #[arg(long, requires = "snapshot_sync", value_name = "HASH")]
    pub(crate) trust_set: Option<B256>,
    /// Serve Prometheus metrics on this address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// With --metrics: also measure how long transactions spend in each stage, from admission to the disk.
    #[arg(long, requires = "metrics")]
    pub(crate) stages: bool,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) validator: crate::keys::ValidatorArgs,
    #[command(flatten)]
    pub(crate) peers: crate::peers::PeerArgs,
    #[command(flatten)]
    pub(crate) clients: crate::clients::ClientArgs,
    /// Receives the priority fees of the blocks built here; default is the validator's operator, or the zero address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) fee_recipient: Option<Address>,
    /// Threads that check incoming transactions.
    #[arg(long, default_value_t = default_workers(), value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub(crate) admission_workers: u16,
    /// Threads that execute a block: beside the first, which keeps the order, the others guess ahead.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub(crate) execution_threads: u16,
    /// With several execution threads: share of one core's time, in percent, for simulating what waits, so that those
    /// who guess ahead know where transactions meet; 0 switches it off. Nothing is simulated while more than a block
    /// waits.
    #[arg(long, default_value_t = engine::limits::HINT_PERCENT, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub(crate) hint_budget: u8,
    /// With --dev: make blocks at this interval, empty or not, such as `1s` or `200ms`.
    #[arg(long = "dev.block-time", value_parser = duration, requires = "dev", value_name = "TIME")]
    pub(crate) dev_block_time: Option<Duration>,
    #[command(flatten)]
    pub(crate) dev_chain: DevChainArgs,
    /// Bytes of the disk that stay free: with fewer the node takes no block and answers on, until there are more again.
    /// Default is 256 MiB, with --dev 16 MiB. Below four times as many, work that can wait does.
    #[arg(long = "disk.free-min", value_name = "BYTES")]
    pub(crate) disk_free_min: Option<u64>,
    /// Take a data folder on a disk of another machine (NFS, SMB, FUSE and the like), whose syncs and locks are not
    /// what they are here.
    #[arg(long = "disk.allow-remote")]
    pub(crate) disk_allow_remote: bool,
    /// Size of a new file of blocks, 1 MiB at least; what is full is never written again. Default is 256 MiB, with
    /// --dev 16 MiB.
    #[arg(
        long = "disk.segment-bytes",
        value_parser = clap::value_parser!(u64).range(1 << 20..),
        overrides_with = "disk_segment_bytes",
        value_name = "BYTES"
    )]
    pub(crate) disk_segment_bytes: Option<u64>,
    /// The same without a lower bound; for tests that roll segments over.
    #[arg(long, hide = true, value_name = "BYTES")]
    pub(crate) segment_bytes: Option<u64>,
    /// Kill the process at a named point of the write path, as NAME or NAME:COUNT; for crash tests.
    #[arg(long, hide = true, value_name = "NAME[:COUNT]")]
    pub(crate) fail_point: Option<String>,
}

/// What a node does with the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Keeps what others need to catch up, and as much more as --keep.time and --keep.bytes say.
    Validator,
    /// Keeps every block, receipt and log, and the state of as long as --keep.time says.
    Full,
    /// Keeps every block, receipt and log, and the state at every height.
    Archive,
}

/// What a node keeps of the past.
#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// What is kept of the past. Default is validator, with --dev archive. A folder that has let go of blocks is
    /// neither full nor an archive any more.
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) mode: Option<Mode>,
    /// In mode validator: keep blocks, receipts, logs and the state of so long, by the timestamps of blocks; in mode
    /// full the state alone. Two epochs and --rpc.proof-window are kept in any case.
    #[arg(long = "keep.time", value_parser = duration, default_value = "72h", value_name = "TIME")]
    pub(crate) time: Duration,
    /// In mode validator: let go of them earlier where files of blocks take more than so many bytes together.
    #[arg(long = "keep.bytes", default_value_t = 64 << 30, value_name = "BYTES")]
    pub(crate) bytes: u64,
}

/// What a development chain is made of.
#[derive(Debug, Args)]
pub(crate) struct DevChainArgs {
    /// With --dev: gas limit of a block.
    #[arg(long = "dev.gaslimit", default_value_t = crate::genesis::GAS_LIMIT, requires = "dev", value_name = "GAS")]
    pub(crate) gas_limit: u64,
    /// With --dev: chain id.
    #[arg(long = "dev.chain-id", default_value_t = crate::genesis::DEV_CHAIN_ID, requires = "dev", value_name = "ID")]
    pub(crate) chain_id: u64,
}

/// Flags of `genesis`.
#[derive(Debug, Args)]
pub(crate) struct GenesisArgs {
    /// Chain id (EIP-155); wallets and signatures are bound to it.
    #[arg(long, value_name = "ID")]
    pub(crate) chain_id: u64,
    /// Gas limit of a block.
    #[arg(long, default_value_t = crate::genesis::GAS_LIMIT, value_name = "GAS")]
    pub(crate) gas_limit: u64,
    /// An account that holds 10,000 ether in block 0; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) fund: Vec<Address>,
    /// File with the chain's validators, one behind the other, as `keys prove` prints them; their order is their index.
    #[arg(long, value_name = "FILE")]
    pub(crate) validators: Option<PathBuf>,
}

/// Flags of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Genesis file of the chain, in geth's format.
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: PathBuf,
    /// Data folder to create.
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: PathBuf,
}

/// What `db` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Print what is in it: sizes, rows and heights of tables, segments, indices and log, and the room on the disk.
    Stats(FolderArgs),
    /// Read every byte that carries a checksum or a hash, and list what is damaged; exit 1 if anything is.
    Verify(FolderArgs),
    /// Compare every row of the state with the root, and every row of the chain with its block; exit 1 if one differs.
    Check(FolderArgs),
    /// Rebuild the state root from every account and slot, and compare it with the tip's header; exit 1 if they differ.
    Root(FolderArgs),
    /// Write the tables anew without the room that nothing uses. Needs as much room as they take while it works.
    Compact(ChangeArgs),
    /// End the chain at an earlier height, with the state that it had there.
    ///
    /// The log of what was signed stays as it is: a validator signs nothing again at or below what it signed. The
    /// blocks come back from other nodes; the chain of a single validator, whose blocks nobody else has, does not go
    /// on.
    Rewind(RewindArgs),
    /// Bring a folder that an older program wrote to the layout of this one.
    Migrate(ChangeArgs),
}

/// A data folder that is changed.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
    /// Kill the process at a named point, as NAME or NAME:COUNT; for crash tests.
    #[arg(long, hide = true, value_name = "NAME[:COUNT]")]
    pub(crate) fail_point: Option<String>,
}

/// Flags of `db rewind`.
#[derive(Debug, Args)]
pub(crate) struct RewindArgs {
    #[command(flatten)]
    pub(crate) folder: ChangeArgs,
    /// Height of the block that the chain ends with then, one that is kept.
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) to: u64,
    /// Take away blocks that are final, as every block in a data folder is.
    #[arg(long)]
    pub(crate) discard_final_blocks: bool,
}

/// What `log` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print what the log holds, a line for each entry; changes nothing.
    Show(LogFolderArgs),
    /// Write the floor and everything signed above it as a signing history, a JSON file.
    ///
    /// A log that is lost is not exported: it does not tell everything that was signed.
    Export(LogExportArgs),
    /// Take a signing history over: nothing at or below its highest slot, or the log's, is signed any more.
    ///
    /// The file's floor must not lie below what the folder knows, its chain's tip included. Importing ends the loss of
    /// a log: it is the operator's word that nothing was signed above the file's highest slot. Import it into one
    /// folder only, and stop the node that it came from first; two nodes that sign with one key are slashed.
    Import(LogImportArgs),
}

/// The folder of `log show`.
#[derive(Debug, Args)]
pub(crate) struct LogFolderArgs {
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: PathBuf,
}

/// Flags of `log export`.
#[derive(Debug, Args)]
pub(crate) struct LogExportArgs {
    #[command(flatten)]
    pub(crate) folder: LogFolderArgs,
    /// File to write, which must not be there; standard output unless given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Flags of `log import`.
#[derive(Debug, Args)]
pub(crate) struct LogImportArgs {
    #[command(flatten)]
    pub(crate) folder: LogFolderArgs,
    /// Signing history, as `log export` writes it.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// A data folder and the chain it belongs to.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) datadir: PathBuf,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

/// A chain.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// Genesis file of the chain, in geth's format.
    #[arg(long, value_name = "FILE", required_unless_present = "dev")]
    pub(crate) chain: Option<PathBuf>,
    /// It is a development chain.
    #[arg(long, conflicts_with = "chain")]
    pub(crate) dev: bool,
    #[command(flatten)]
    pub(crate) dev_chain: DevChainArgs,
}

/// Flags of `export-finality`.
#[derive(Debug, Args)]
pub(crate) struct ExportFinalityArgs {
    /// Where a node answers JSON-RPC.
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: String,
    /// Height of the block.
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) height: u64,
    /// Epoch whose validators the one who verifies knows.
    #[arg(long, default_value_t = 0, value_name = "EPOCH")]
    pub(crate) from_epoch: u64,
    /// File to write; the standard output unless given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Flags of `verify-finality`.
#[derive(Debug, Args)]
pub(crate) struct VerifyFinalityArgs {
    /// File that `export-finality` wrote.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    /// Hash of the validator set that the file begins with; that of the genesis file unless given.
    #[arg(long, value_name = "HASH")]
    pub(crate) trust_set: Option<B256>,
}

/// Flags of `vectors`.
#[derive(Debug, Args)]
pub(crate) struct VectorArgs {
    /// Kind of the vectors.
    #[arg(value_enum)]
    pub(crate) kind: crate::vectors::Kind,
    /// Files, or folders that are walked.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// With `replay` and `blocktest`: how blocks are executed.
    #[arg(long, value_enum, default_value_t = crate::vectors::Mode::Sequential)]
    pub(crate) mode: crate::vectors::Mode,
    /// Threads that execute one block, in the modes `lead` and `replay`.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    pub(crate) threads: u16,
    /// With `replay`: timed executions of each block.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
    pub(crate) rounds: u16,
}

/// Half the cores, so that execution and commit keep theirs.
fn default_workers() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores / 2).unwrap_or(u16::MAX).clamp(1, 16)
}

/// Reads `200ms`, `1s`, `2m`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a time such as 200ms, 1s or 2m"))?;
    let milliseconds = match unit {
        "ms" => number,
        "" | "s" => number.saturating_mul(1_000),
        "m" => number.saturating_mul(60_000),
        "h" => number.saturating_mul(3_600_000),
        _ => return Err(format!("`{unit}` is not a unit of time; use ms, s, m or h")),
    };
    if milliseconds == 0 { Err("must be more than 0".to_owned()) } else { Ok(Duration::from_millis(milliseconds)) }
}
