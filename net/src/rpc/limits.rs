//! Every bound of the JSON-RPC server, with its unit, its reason and its answer to "full".
//!
//! | bound | beyond it |
//! |---|---|
//! | [`CONNECTIONS_MAX`] | HTTP 503, closed |
//! | [`REQUEST_BYTES_MAX`] | HTTP 413, or an error message over WebSocket |
//! | [`BATCH_CALLS_MAX`] | the batch is refused unread |
//! | [`RESPONSE_BYTES_MAX`] | the call, or the rest of the batch, gets an error |
//! | [`READ_QUEUE_CALLS_MAX`], [`CALL_QUEUE_CALLS_MAX`] | -32005 "busy" |
//! | [`CALL_TIME_MAX`] | cancelled, -32000 |
//! | [`LANE_BYTES_MAX`] | -32005 "busy" |
//! | [`CONNECTION_CALLS_MAX`], [`CONNECTION_BYTES_MAX`] | the client is not read from |
//! | [`CONNECTION_RUNNING_MAX`], [`CONNECTION_UNSENT_BYTES_MAX`] | further calls wait their turn |
//! | [`UNSENT_BYTES_MAX`] | calls wait, those in a lane get -32005 "busy" |
//! | [`SUBSCRIPTIONS_MAX`], [`FILTERS_MAX`], [`SUBSCRIPTION_ITEMS_MAX`], [`FILTER_ITEMS_MAX`] | refused |
//! | [`SUBSCRIBER_BYTES_MAX`], [`SUBSCRIBER_MESSAGES_MAX`] | the slow connection is closed |
//! | [`PENDING_RING_HASHES_MAX`], [`PENDING_RING_TRANSACTIONS_MAX`] | the slow reader loses the oldest |

use std::time::Duration;

/// Open connections of one listener; reth's figure.
pub const CONNECTIONS_MAX: u32 = 500;

/// Bytes of one request body or WebSocket message; geth's figure.
pub const REQUEST_BYTES_MAX: u32 = 5 * 1024 * 1024;

/// Bytes of one answer, a whole batch counting as one; geth's figure for batches.
pub const RESPONSE_BYTES_MAX: u32 = 25 * 1000 * 1000;

/// Calls in one batch; geth's figure.
pub const BATCH_CALLS_MAX: u32 = 1_000;

/// Subscriptions of one WebSocket connection.
pub const SUBSCRIPTIONS_MAX: u32 = 64;

/// Calls and batches one connection may have under way; more are not read until some are answered.
pub const CONNECTION_CALLS_MAX: usize = 1_024;

/// Bytes one connection may have under way: more than one request of the largest size.
pub const CONNECTION_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Calls of one connection that make their answers at the same time; more threads than a lane has.
pub const CONNECTION_RUNNING_MAX: usize = 16;

/// Bytes of answers that may wait for one client: more than one answer of the largest size.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of answers that may wait for all clients.
pub const UNSENT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Addresses and topics in all log subscriptions of one connection; each costs some hundred bytes.
pub const SUBSCRIPTION_ITEMS_MAX: usize = 8_000;

/// Addresses and topics in all polling filters of the node.
pub const FILTER_ITEMS_MAX: usize = 200_000;

/// Bytes a WebSocket connection may have waiting for its reader in subscriptions: some thousand heads.
pub const SUBSCRIBER_BYTES_MAX: usize = 1024 * 1024;

/// Messages a WebSocket connection may have waiting for its reader.
pub const SUBSCRIBER_MESSAGES_MAX: u32 = 1_024;

/// Hashes of admitted transactions a reader may lag behind, a polling filter above all: seconds at full load.
pub const PENDING_RING_HASHES_MAX: usize = 32_768;

/// Admitted transactions a subscriber of whole transactions may lag behind.
pub const PENDING_RING_TRANSACTIONS_MAX: usize = 4_096;

/// Polling filters alive in the node; each keeps some hundred bytes.
pub const FILTERS_MAX: usize = 10_000;

/// How long a polling filter lives without being asked; geth's and reth's figure.
pub const FILTER_LIFE: Duration = Duration::from_secs(5 * 60);

/// Blocks that one log query may span which names neither an address nor a topic; a tenth of reth's figure for all
/// queries, since blocks come many times as fast.
pub const LOG_QUERY_BLOCKS_MAX: u64 = 10_000;

/// Logs one query may return; reth's figure.
pub const LOG_QUERY_LOGS_MAX: usize = 20_000;

/// Addresses in a log filter; geth's figure.
pub const LOG_FILTER_ADDRESSES_MAX: usize = 1_000;

/// Alternatives at one topic position of a log filter; geth's figure.
pub const LOG_FILTER_TOPICS_MAX: usize = 1_000;

/// Blocks one `eth_feeHistory` covers; geth's figure.
pub const FEE_HISTORY_BLOCKS_MAX: u64 = 1_024;

/// Reward percentiles one `eth_feeHistory` may ask for; geth's figure.
pub const FEE_HISTORY_PERCENTILES_MAX: usize = 100;

/// Storage keys one `eth_getProof` may ask for; geth's figure.
pub const PROOF_KEYS_MAX: usize = 1_024;

/// Wall time of one heavy call, its wait for a thread included; geth's figure.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// Heavy calls waiting for a thread: 5 seconds of work at some 20 milliseconds a call on 2 threads.
pub const CALL_QUEUE_CALLS_MAX: usize = 512;

/// Reads waiting for a thread: some 100 milliseconds of work.
pub const READ_QUEUE_CALLS_MAX: usize = 4_096;

/// Bytes of parameters waiting in one of these queues; a dozen of the largest requests.
pub const LANE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Threads for reads that may touch the disk; they mostly wait.
pub const READ_THREADS: usize = 4;

/// How long `eth_sendRawTransactionSync` waits when the caller names no time; geth's figure.
pub const SYNC_TIME_DEFAULT: Duration = Duration::from_secs(20);

/// The longest `eth_sendRawTransactionSync` waits; geth's figure.
pub const SYNC_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a connection may be silent in both directions; twice the longest wait for a receipt.
pub const SOCKET_IDLE_MAX: Duration = Duration::from_secs(120);

/// How long a client may refuse to take a single byte of its answer.
pub const SOCKET_STALL_MAX: Duration = Duration::from_secs(30);

/// How often a WebSocket client is pinged; below [`SOCKET_IDLE_MAX`], so that a quiet one stays.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long open connections may finish their calls once the server stops.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// Smallest priority fee that is suggested, in wei: a tenth of the chain's smallest base fee.
pub const SUGGESTED_TIP_MIN: u128 = 1_000_000;

/// Largest priority fee that is suggested, in wei; geth's figure.
pub const SUGGESTED_TIP_MAX: u128 = 500_000_000_000;

/// Blocks looked at for the suggested priority fee; geth's figure.
pub const SUGGESTED_TIP_BLOCKS: u64 = 20;

/// Threads for heavy calls: a quarter of the machine, so that blocks keep the rest.
#[must_use]
pub fn call_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores / 4).clamp(2, 8)
}

const _: () = assert!(PING_INTERVAL.as_secs() * 2 < SOCKET_IDLE_MAX.as_secs());
const _: () = assert!(CONNECTION_UNSENT_BYTES_MAX as u64 > RESPONSE_BYTES_MAX as u64);
const _: () = assert!(CONNECTION_BYTES_MAX as u64 > REQUEST_BYTES_MAX as u64);
const _: () = assert!(SYNC_TIME_MAX.as_secs() < SOCKET_IDLE_MAX.as_secs());
