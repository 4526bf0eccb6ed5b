//! Every bound of what clients may take of a node, with its unit, its reason and its answer to "full".
//!
//! | bound | beyond it |
//! |---|---|
//! | [`CONNECTIONS_MAX`], [`CONNECTIONS_PER_NETWORK_MAX`], [`CONNECTIONS_PER_KEY_MAX`] | closed, with a code |
//! | `engine::limits::HANDSHAKES_MAX` and `HANDSHAKES_PER_NETWORK_MAX` | not answered |
//! | [`STREAMS_MAX`], [`WINDOW_BYTES`] | the client waits, by flow control |
//! | [`WINDOW_TRANSACTIONS`], [`WAYS_IN_MAX`], [`WAYS_IN_WEIGHTED_MAX`] | the client is not read from |
//! | [`OUTSTANDING_MAX`] | further transactions are refused |
//! | [`UNREAD_BYTES_MAX`] | the slow reader is cut |
//! | [`QUESTIONS_MAX`], [`LOOKING_UP_MAX`] | the client waits |
//! | [`BLOCKS_QUEUE_MAX`] | blocks are read from the store; a slow follower's stream is reset |

use std::time::Duration;

/// Connections of clients without weight.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Of those from one network, a /24 of IPv4 or a /64 of IPv6; this machine's own are not counted.
pub const CONNECTIONS_PER_NETWORK_MAX: usize = 64;

/// Connections of one key.
pub const CONNECTIONS_PER_KEY_MAX: usize = 8;

/// Streams of transactions that a connection may have open.
pub const STREAMS_MAX: u32 = 64;

/// Bytes that a connection may have sent and the node not read: a transaction of the largest size, or some thousand.
pub const WINDOW_BYTES: u32 = 256 * 1024;

/// Transactions of one connection without weight on their way into the pool: what one core recovers in 4 ms.
pub const WINDOW_TRANSACTIONS: usize = 128;

/// Transactions of all connections without weight on their way into the pool: half of the queue before it.
pub const WAYS_IN_MAX: usize = engine::limits::ADMISSION_QUEUE_TRANSACTIONS_MAX / 2;

/// Transactions of all keys with weight on their way into the pool. Nodes and JSON-RPC have the rest of the queue.
pub const WAYS_IN_WEIGHTED_MAX: usize = engine::limits::ADMISSION_QUEUE_TRANSACTIONS_MAX / 8 * 3;

/// Transactions of a key with weight on their way into the pool, however little it has.
pub const WINDOW_WEIGHTED_MIN: usize = 2 * WINDOW_TRANSACTIONS;

/// Transactions of one connection that wait to be included.
pub const OUTSTANDING_MAX: usize = 32_768;

/// Bytes of events that wait for one client.
pub const UNREAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Questions of one connection at a time, those among them that go on.
pub const QUESTIONS_MAX: u32 = 16;

/// Questions of all connections that are being looked up at a time.
pub const LOOKING_UP_MAX: usize = 4;

/// Committed blocks that wait to be told of, and that a follower may be behind.
pub const BLOCKS_QUEUE_MAX: usize = 64;

/// Longest piece that several streams of a connection may have begun; of longer ones one at a time.
pub const SMALL_PIECE_BYTES_MAX: usize = 4 * 1024;

/// How long a transaction may take to arrive once it has begun, and a question.
pub const PIECE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a handshake may take.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// A connection that is silent for this long is gone; clients keep theirs alive.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
