//! Every bound of what clients may take of a node, with its unit, its reason and its answer to "full".
//!
//! | bound | beyond it |
//! |---|---|
//! | [`CONNECTIONS_MAX`], [`CONNECTIONS_PER_NETWORK_MAX`], [`CONNECTIONS_PER_KEY_MAX`] | closed, with a code |
//! | `engine::limits::HANDSHAKES_MAX` and `HANDSHAKES_PER_NETWORK_MAX` | not answered |
//! | [`STREAMS_MAX`], [`WINDOW_BYTES`] | the client waits, by flow control |
//! | [`WINDOW_TRANSACTIONS`], [`WAYS_IN_MAX`], [`WAYS_IN_WEIGHTED_MAX`] | the client is not read from |
//! | [`BACKLOG_SLOTS`] | the client is not read from |
//! | [`OUTSTANDING_MAX`] | further transactions are refused |
//! | [`FAULTS_MAX`] | a client's transactions are refused before their senders are recovered |
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

/// What clients have submitted and no block has included yet, in slots in each of which as much becomes final as in one
/// of the last ones.
pub const BACKLOG_SLOTS: usize = 6;

/// Of so many last slots that counts in which most became final.
pub const BACKLOG_MEMORY: usize = 8;

/// The same in transactions, at least, of all connections without weight; of those with weight, so that they have this
/// however many others there are.
pub const BACKLOG_LEAST: [usize; 2] = [512, 2_048];

/// Slots after which what is not included does not count any more.
pub const BACKLOG_AGES: usize = 16;

/// Slots that are counted take this long at least.
pub const BACKLOG_SLOT_TIME_MIN: Duration = Duration::from_millis(100);

/// Transactions of one connection that wait to be included.
pub const OUTSTANDING_MAX: usize = 32_768;

/// Transactions of one key that may be refused after their senders were recovered, some milliseconds of a core.
pub const FAULTS_MAX: u64 = 256;

/// Of these, how many are forgiven in a second.
pub const FAULTS_PER_SECOND: u64 = 16;

/// Admitted transactions for which one of them is forgiven.
pub const ADMITTED_PER_FAULT: u64 = 16;

/// Between two transactions of one key that are refused because it has no more of them.
pub const FAULT_REST: Duration = Duration::from_millis(1);

/// Bytes of events that wait for one client.
pub const UNREAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Writes of events to one client that lie so far apart, on average, are made at once.
pub const EVENTS_APART: Duration = Duration::from_millis(6);

/// How far ahead of that average it may be: eight writes.
pub const EVENTS_AHEAD: Duration = Duration::from_millis(48);

/// Between two writes where there are more, whatever is told meanwhile: a packet each would cost more than all else.
pub const EVENTS_REST: Duration = Duration::from_millis(1);

/// The same while half of its window is in use, so that each waits for longer than this in any case.
pub const EVENTS_REST_BUSY: Duration = Duration::from_millis(5);

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
