//! Every bound of the node, with its unit, its reason and its answer to "full".
//!
//! | queue or map | bound | full |
//! |---|---|---|
//! | Q1, raw transactions before admission | [`ADMISSION_QUEUE_TRANSACTIONS_MAX`], [`ADMISSION_QUEUE_BYTES_MAX`] | refused: "txpool is full" |
//! | pool, pending and queued | [`POOL_PLACES_MAX`], [`POOL_BYTES_MAX`], [`POOL_QUEUED_MAX`] | cheapest leaves |
//! | pool, time | [`POOL_LIFETIME`] | leaves, with what its sender sent after it |
//! | transactions that left, and that a block under way may include | [`POOL_UNDECIDED_MAX`] | the oldest is taken for dropped |
//! | pool, one sender | [`SENDER_PENDING_MAX`], [`SENDER_QUEUED_MAX`] | refused |
//! | recovered transactions | [`RECOVERED_TRANSACTIONS_MAX`], [`RECOVERED_BYTES_MAX`] | the oldest make way |
//! | admitted transactions that may be simulated | [`HINT_QUEUE_TRANSACTIONS_MAX`] | not simulated |
//! | senders refused for slowness | [`SLOW_SENDERS_MAX`] | the oldest is heard again |
//! | letters of other nodes into ordering | [`ORDERING_QUEUE_LETTERS_MAX`], [`ORDERING_QUEUE_BYTES_MAX`] | not taken; the network is told |
//! | batches for the log | [`LOG_QUEUE_BATCHES_MAX`] | ordering waits |
//! | proposals of one slot that no certificate names | [`SLOT_PROPOSALS_MAX`] | later ones are not taken |
//! | votes of one validator, slot and kind | 2, in slots up to four windows above the frontier | later ones are not taken |
//! | messages of the next epoch | [`EARLY_MESSAGES_PER_VALIDATOR`] | the oldest leave |
//! | final blocks that are being fetched | [`FINALS_MAX`] | the newest but one leaves |
//! | ranges asked for or not executed yet | [`SYNC_RANGES_MAX`], of [`RANGE_BLOCKS_MAX`] and [`LETTER_BYTES_MAX`] each | nothing more is asked for |
//! | peers that may be asked | [`PEERS_MAX`] | further ones are not asked |
//! | parts of a state on their way to a node that takes it over | 16, of [`STATE_PIECE_BYTES_MAX`] | nothing more is asked for |
//! | what shows that a block is final, kept for whoever asks for the next piece | [`STATE_HEADS_MAX`], [`STATE_HEAD_BYTES_MAX`] | the one not asked for longest leaves |
//! | certificates that ended epochs | [`HANDOVERS_MAX`] | the oldest leaves |
//! | tail headers that others may ask for | [`TAIL_HEADERS_MAX`] | the oldest leaves |
//! | access lists whose blocks are not executed yet | [`LISTS_MAX`] | later ones are not taken |
//! | builds and executions asked for | [`EXECUTION_QUEUE_JOBS_MAX`] | ordering waits |
//! | Q2, final blocks before commit | [`COMMIT_QUEUE_BLOCKS_MAX`] | ordering builds and votes no further |
//! | recent blocks in memory | [`RECENT_BLOCKS_MAX`], [`RECENT_BLOCKS_BYTES_MAX`] | the oldest are read from disk |
//! | votes to one peer | [`PEER_VOTES_MAX`] | the lowest slot leaves; what is final leaves first |
//! | words to one peer: certificates, proposals, status | [`PEER_WORDS_MAX`], [`PEER_WORDS_BYTES_MAX`] | the peer is cut |
//! | shares of bodies to one peer | [`PEER_SHARES_MAX`], [`PEER_SHARES_BYTES_MAX`] | not sent; who lacks one asks |
//! | shares of access lists to one peer | [`PEER_LISTS_MAX`], [`PEER_LISTS_BYTES_MAX`] | not sent; the block is executed without |
//! | requests to one peer | [`PEER_REQUESTS_MAX`] | not sent; asked elsewhere |
//! | transactions to one peer | [`PEER_TRANSACTIONS_BYTES_MAX`] | not sent, and counted |
//! | peers that nobody configured | [`STRANGERS_MAX`], [`STRANGERS_PER_NETWORK_MAX`] | refused |
//! | handshakes at once | [`HANDSHAKES_MAX`], [`HANDSHAKES_PER_NETWORK_MAX`] | refused |
//! | refused identities that are remembered | [`BANS_MAX`] | the one that ends first leaves |
//! | records of other nodes | [`RECORDS_MAX`], [`RECORDS_PER_NETWORK_MAX`] | not taken |
//! | Q3, committed blocks to a subscriber | [`HEADS_QUEUE_BLOCKS_MAX`] | the slow reader loses the oldest and is told |

use std::time::Duration;

/// Largest EIP-2718 encoding the pool takes, in bytes; geth's figure.
pub const TRANSACTION_BYTES_MAX: usize = 128 * 1024;

/// Gas a transaction may ask for from Osaka on (EIP-7825).
pub const TRANSACTION_GAS_MAX_OSAKA: u64 = 1 << 24;

/// Raw transactions waiting for an admission worker; a quarter of a second of one core's recoveries.
pub const ADMISSION_QUEUE_TRANSACTIONS_MAX: usize = 8_192;

/// Recovered transactions that are remembered whether the pool holds them or not, and the bytes of their encodings.
pub const RECOVERED_TRANSACTIONS_MAX: usize = 32_768;
/// See [`RECOVERED_TRANSACTIONS_MAX`].
pub const RECOVERED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Transactions that an admission worker takes at a time: 2 ms of one core.
pub const ADMISSION_BATCH_MAX: usize = 64;

/// Bytes of raw transactions waiting for an admission worker.
pub const ADMISSION_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Transactions of the last run that are admitted again at a time; their answers are awaited before the next ones.
pub const ADMITTED_AGAIN_MAX: usize = 128;

/// Places in the pool, for pending and queued transactions together; some ten seconds of full blocks. A transaction
/// takes one for each [`POOL_PLACE_BYTES`] that it begins.
pub const POOL_PLACES_MAX: usize = 131_072;

/// Bytes of encoded transactions to one place; most take one.
pub const POOL_PLACE_BYTES: usize = 2_048;

/// Bytes of encoded transactions in the pool.
pub const POOL_BYTES_MAX: usize = POOL_PLACES_MAX * POOL_PLACE_BYTES;

/// Percent by which the base fee may rise while what displaces others in the pool still pays more than they would: 54
/// full blocks at Sluice's speed; a pool full of transfers is some 46.
pub const POOL_HEADROOM_PERCENT: u64 = 12;

/// Queued transactions (behind a nonce gap or unfunded) in the whole pool; their own budget.
pub const POOL_QUEUED_MAX: usize = 8_192;

/// How long a transaction may wait in the pool; geth's figure for queued ones. Pending ones leave too: one that cannot
/// pay the base fee would wait for ever, and its client would never hear of an end.
pub const POOL_LIFETIME: Duration = Duration::from_secs(3 * 3_600);

/// Transactions after which a look for what waited too long ends, some milliseconds; the last sender's go at once.
pub const POOL_EXPIRED_MAX: usize = 1_024;

/// Transactions that left the pool and of which is not known yet whether a block under way includes them, some MiB.
pub const POOL_UNDECIDED_MAX: usize = 32_768;

/// Heights after which no block is under way any more that was begun before; twice what waits between execution and
/// commit.
pub const POOL_UNDECIDED_HEIGHTS: u64 = 16;

/// Executable transactions of one sender.
pub const SENDER_PENDING_MAX: usize = 16_384;

/// Queued transactions of one sender; geth's figure.
pub const SENDER_QUEUED_MAX: usize = 64;

/// Percent by which a replacement must raise both fees; geth's figure.
pub const REPLACEMENT_BUMP_PERCENT: u128 = 10;

/// Heights for which a sender is refused whose transaction took longer than a block may; a minute of blocks.
pub const SLOW_SENDER_HEIGHTS: u64 = 300;

/// Such senders that are remembered, some 200 KiB.
pub const SLOW_SENDERS_MAX: usize = 4_096;

/// Nanoseconds that a unit of gas takes at most; a virtual core of an AMD EPYC takes 17 in the worst case, which
/// is KZG point evaluation (`cargo bench -p bench --bench worst`).
pub const GAS_TIME_MAX_NS: u64 = 18;

/// Admitted transactions waiting to be looked at for a simulation: what one core admits in twice [`HINT_INTERVAL`].
pub const HINT_QUEUE_TRANSACTIONS_MAX: usize = 1_024;

/// How often they are looked at: a small part of a slot. Nobody is woken for one transaction.
pub const HINT_INTERVAL: Duration = Duration::from_millis(10);

/// Gas that a simulation may use; a swap takes a quarter of it.
pub const HINT_GAS_MAX: u64 = 500_000;

/// Time that a simulation may take: that of all its gas in the worst case. More than that is waiting for a disk.
pub const HINT_TIME_MAX: Duration = Duration::from_nanos(HINT_GAS_MAX * GAS_TIME_MAX_NS);

/// Time of simulations that can be saved up.
pub const HINT_BURST: Duration = Duration::from_nanos(2 * HINT_GAS_MAX * GAS_TIME_MAX_NS);

/// Share of one core's time that simulations may take unless the node is told otherwise, in percent.
pub const HINT_PERCENT: u8 = 5;

/// What the transactions of a block may take a replica on one thread: two slots, less three eighths of one for
/// roots, receipts and system calls. A slot full of logs needs a third of one for the root of its receipts.
#[must_use]
pub fn replica_time(slot_time: Duration) -> Duration {
    (slot_time / 8).saturating_mul(13)
}

/// Letters of other nodes waiting for the ordering thread: every validator's votes of one slot, three times.
pub const ORDERING_QUEUE_LETTERS_MAX: usize = 1_024;

/// Bytes of blocks in these letters: some full blocks, or many small ones.
pub const ORDERING_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Batches of lines waiting for the log thread.
pub const LOG_QUEUE_BATCHES_MAX: usize = 64;

/// Jobs waiting for the execution thread.
pub const EXECUTION_QUEUE_JOBS_MAX: usize = 8;

/// Final blocks that are not durable yet; ordering builds and votes no further ahead than this.
pub const COMMIT_QUEUE_BLOCKS_MAX: usize = 8;

/// Committed blocks a subscriber may lag behind.
pub const HEADS_QUEUE_BLOCKS_MAX: usize = 256;

/// Committed blocks kept in memory for readers, with their receipts.
pub const RECENT_BLOCKS_MAX: usize = 256;

/// Bytes on disk of those blocks; in memory they take two to three times as much.
pub const RECENT_BLOCKS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Heights below the tip whose state is readable from memory.
pub const STATE_WINDOW_HEIGHTS: u64 = 128;

/// Blocks with logs that one look at the store names.
pub const LOG_LOOK_BLOCKS_MAX: usize = 256;

/// Lists that such a look opens beyond those that it begins with: some 10 milliseconds, 100 at worst.
pub const LOG_LOOK_STEPS_MAX: usize = 2_048;

/// Ancestors the BLOCKHASH opcode reaches.
pub const BLOCK_HASHES_MAX: u64 = 256;

/// Bytes of `extra_data` in a header.
pub const EXTRA_DATA_BYTES_MAX: usize = 32;

/// Gas one `eth_call` or gas estimation may use.
pub const CALL_GAS_MAX: u64 = 50_000_000;

/// RLP size of a block from Osaka on, in bytes (EIP-7934: 10 MiB less 2 MiB for consensus data).
pub const BLOCK_RLP_BYTES_MAX_OSAKA: usize = 8 * 1024 * 1024;

/// Smallest EIP-2718 encoding of a transaction that any block may hold, in bytes: a legacy one whose fields are as
/// short as they get, three bytes for the gas.
pub const TRANSACTION_BYTES_MIN: usize = 12;

/// Encoding of a body that travels ([`crate::types::codec::encode_body`]), in bytes. Legacy transactions are strings in
/// it, which they are not where a block's size is counted: at most a byte on top of the shortest, and a lesser part of
/// longer ones.
pub const BODY_BYTES_MAX: usize = 9 * 1024 * 1024;

/// Encoding of a body that travels whole to every validator, in bytes; a larger one is cut into shares.
pub const WHOLE_BODY_BYTES_MAX: usize = 64 * 1024;

/// Chunks that a body is cut into, those that make up for lost ones counted in: with 300 validators, ten for each and
/// more for those with much stake.
pub const BODY_CHUNKS_MAX: usize = 4_096;

/// Times its size that all shares of a body have together at most, padding apart. Half as much is enough for equal
/// stakes; a leader with more than half of all stake would need more than this.
pub const BODY_EXPANSION_MAX: usize = 4;

/// Hashes on the way from a share to the root over all of them.
pub const SHARE_PATH_MAX: usize = 9;

/// Encoding of one share, in bytes: a whole body at most, at most two bytes of padding per chunk, and its path.
pub const SHARE_BYTES_MAX: usize = BODY_BYTES_MAX + 2 * BODY_CHUNKS_MAX + 512;

/// Certificates that come with a proposal; a longer gap is fetched.
pub const PROPOSAL_CERTIFICATES_MAX: usize = 65;

/// Bytes of an access list for each item that a block's gas pays for ([`crate::types::AccessList::items_max`]): an
/// account with the widest balance and nonce takes 88, a slot with the widest key and value 78; code pays more gas per
/// byte.
pub const LIST_ITEM_BYTES_MAX: usize = 96;

/// Words of its RLP for each item: 7 of an account or 6 of a slot, and 3 of each change, of which one access pays for
/// three at most. A word takes 64 bytes of memory at most while it is decoded.
pub const LIST_ITEM_WORDS_MAX: usize = 16;

/// Bytes of an access list before it is packed, whatever the gas pays for; that of a full block of 60 million gas takes
/// some 1.5 MB.
pub const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of the largest one packed, when it does not get smaller.
pub const PACKED_LIST_BYTES_MAX: usize = LIST_BYTES_MAX + LIST_BYTES_MAX / 255 + 64;

/// Bytes of a packed access list that travels beside its block's header to every peer; a larger one is cut into shares.
pub const WHOLE_LIST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a leader's line that copies of one list may take, so that no hint costs it more than a large block would:
/// 16 peers get lists of any size that travels whole, 100 such of 10 KiB.
pub const WHOLE_LIST_COPIES_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a packed access list that goes whole to so many peers.
#[must_use]
pub const fn whole_list_bytes(peers: usize) -> usize {
    match WHOLE_LIST_COPIES_BYTES_MAX.checked_div(peers) {
        Some(each) if each < WHOLE_LIST_BYTES_MAX => each,
        _ => WHOLE_LIST_BYTES_MAX,
    }
}

/// Bytes of such a list before it is packed: what is packed while its proposal waits.
pub const WHOLE_LIST_UNPACKED_BYTES_MAX: usize = 2 * WHOLE_LIST_BYTES_MAX;

/// Times its packed size that a list has unpacked. Addresses and keys are hashes mostly and hardly get smaller; whoever
/// sends what does wants others to work.
pub const LIST_RATIO_MAX: usize = 16;

/// Access lists kept until their blocks are executed: two windows of four.
pub const LISTS_MAX: usize = 8;

/// Messages of the next epoch kept per validator, until this one ends here too.
pub const EARLY_MESSAGES_PER_VALIDATOR: usize = 16;

/// Ended epochs whose last certificate is kept for those who are behind; older ones are read from disk.
pub const HANDOVERS_MAX: usize = 64;

/// Finalizations kept while the blocks that they make final are fetched; the oldest and the newest count.
pub const FINALS_MAX: usize = 16;

/// Blocks of one slot that are kept although no certificate names them: the first, and one that proves its leader
/// faulty.
pub const SLOT_PROPOSALS_MAX: usize = 2;

/// Slots that one answer to a stalled validator covers.
pub const ANSWER_SLOTS_MAX: u64 = 64;

/// Headers in one answer to a fetch.
pub const FETCH_BLOCKS_MAX: u64 = 64;

/// Blocks in one answer to a node that is far behind.
pub const RANGE_BLOCKS_MAX: u64 = 64;

/// Such answers that are under way or not executed yet: 512 blocks, and eight times the bytes of a letter.
pub const SYNC_RANGES_MAX: usize = 8;

/// Connected peers that ordering knows; more than a network of [`VALIDATORS_MAX`] needs.
pub const PEERS_MAX: usize = 1_024;

/// Headers in such an answer: those of its blocks, and those that lead from them up to the one that is certified.
pub const CHAIN_HEADERS_MAX: usize = 64;

/// Tail headers of the present epoch and the one before that are given to whoever asks, some 120 KiB; older ones are in
/// the store.
pub const TAIL_HEADERS_MAX: usize = 256;

/// Encoding of one message between validators, in bytes, bodies apart. The longest answers to a fetch and to a wish for
/// a range take 30 KiB, the longest proposal 16.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the blocks that one letter brings, if there are several: as many as one block may have.
pub const LETTER_BYTES_MAX: usize = BLOCK_RLP_BYTES_MAX_OSAKA;

/// Windows above the least undecided slot whose votes and blocks are looked at.
pub const HORIZON_WINDOWS: u64 = 4;

/// Votes waiting for one peer: two of a slot in every slot of the horizon.
pub const PEER_VOTES_MAX: usize = 256;

/// Certificates, proposals, status and evidence waiting for one peer.
pub const PEER_WORDS_MAX: usize = 1_024;

/// Bytes of those, small bodies among them.
pub const PEER_WORDS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Shares waiting for one peer.
pub const PEER_SHARES_MAX: usize = 64;

/// Bytes of those; they lie in memory once for all peers.
pub const PEER_SHARES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Shares of access lists waiting for one peer.
pub const PEER_LISTS_MAX: usize = 16;

/// Bytes of those.
pub const PEER_LISTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Requests that one peer is asked at a time, and that it may ask at a time.
pub const PEER_REQUESTS_MAX: usize = 8;

/// Bytes of transactions waiting for one peer.
pub const PEER_TRANSACTIONS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of what one peer is in the middle of sending, beyond which its streams wait for one another.
pub const PEER_INCOMING_BYTES_MAX: usize = 24 * 1024 * 1024;

/// The same of a peer that is neither a validator nor configured: frames of words and of transactions.
pub const STRANGER_INCOMING_BYTES_MAX: usize = 1024 * 1024;

/// Connected peers that are neither validators nor configured.
pub const STRANGERS_MAX: usize = 64;

/// Of those in one network: a /24 of IPv4, a /64 of IPv6.
pub const STRANGERS_PER_NETWORK_MAX: usize = 8;

/// Handshakes with addresses that nobody configured.
pub const HANDSHAKES_MAX: usize = 64;

/// Of those in one network.
pub const HANDSHAKES_PER_NETWORK_MAX: usize = 16;

/// Identities that are refused for a while.
pub const BANS_MAX: usize = 4_096;

/// Records of nodes that are not connected.
pub const RECORDS_MAX: usize = 1_024;

/// Of those in one network.
pub const RECORDS_PER_NETWORK_MAX: usize = 16;

/// Heights from one block to the next whose states are given to others: some three minutes.
pub const STATE_STEP_HEIGHTS: u64 = 1_024;

/// Bytes of a part of a state that is given to others, as it is wished; the last account, a code and proofs come on
/// top.
pub const STATE_PART_BYTES: usize = 256 * 1024;

/// Bytes of such a part at most, and of one piece of what shows that its block is final.
pub const STATE_PIECE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of what shows that a block is final: three blocks with receipts, and handovers of some thousand epochs.
pub const STATE_HEAD_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Of those, kept at a time: more than strangers have made while somebody asks for his next piece.
pub const STATE_HEADS_MAX: usize = 8;

/// Headers from a block up to the one whose certificate made it final.
pub const FINALITY_HEADERS_MAX: usize = 4_096;

/// Validators in one epoch's set.
pub const VALIDATORS_MAX: usize = 300;

/// Addresses at which one validator of a genesis file is dialled.
pub const VALIDATOR_ADDRESSES_MAX: usize = 8;

/// Bytes of one entry of the log; the largest is the start of an epoch, with all its validators.
pub const JOURNAL_ENTRY_BYTES_MAX: usize = 32 * 1024;

const _: () = assert!(ADMITTED_AGAIN_MAX * TRANSACTION_BYTES_MAX <= ADMISSION_QUEUE_BYTES_MAX);
const _: () = assert!(ADMITTED_AGAIN_MAX <= ADMISSION_QUEUE_TRANSACTIONS_MAX);
const _: () = assert!(SENDER_PENDING_MAX <= POOL_PLACES_MAX);
const _: () = assert!(SENDER_QUEUED_MAX <= POOL_QUEUED_MAX && POOL_QUEUED_MAX <= POOL_PLACES_MAX);
const _: () = assert!(STATE_WINDOW_HEIGHTS <= BLOCK_HASHES_MAX);
const _: () = assert!(BLOCK_RLP_BYTES_MAX_OSAKA / TRANSACTION_BYTES_MIN * (TRANSACTION_BYTES_MIN + 1) < BODY_BYTES_MAX);
const _: () = assert!(VALIDATORS_MAX <= 1 << SHARE_PATH_MAX && SHARE_PATH_MAX * 32 + 32 <= 512);
// A share of a list is no longer than one of a body.
const _: () = assert!(PACKED_LIST_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(whole_list_bytes(16) == WHOLE_LIST_BYTES_MAX && whole_list_bytes(17) < WHOLE_LIST_BYTES_MAX);
// Every validator has a chunk, rounding included, and the code knows no more than 2^16 of them.
const _: () = assert!(VALIDATORS_MAX * 2 <= BODY_CHUNKS_MAX && BODY_CHUNKS_MAX * 3 <= 1 << 16);
// A validator takes 2 bytes of list, 49 of key, 9 of stake and 21 of operator; 100 for the epoch, its base and lists.
const _: () = assert!(VALIDATORS_MAX * 81 + 100 <= JOURNAL_ENTRY_BYTES_MAX);
// A simulation is never begun if it could not be paid for.
const _: () = assert!(HINT_TIME_MAX.as_nanos() <= HINT_BURST.as_nanos());
// With slots of 200 ms the largest transaction fits a block, though it be the slowest.
const _: () = assert!(TRANSACTION_GAS_MAX_OSAKA * GAS_TIME_MAX_NS <= 325_000_000);
