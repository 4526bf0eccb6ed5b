//! Names of this room's metrics, and the counters that tests and benches read.

use engine::metrics::{Counter, Level};

/// Calls of fdatasync and fsync on segments, indices, the log and their folders; MDBX's own are not in it.
pub static FSYNC: Counter = Counter::new("storage_fsync_total");
/// Bytes written to segments.
pub static SEGMENT_BYTES: Counter = Counter::new("storage_segment_bytes_total");
/// Batches appended to the log.
pub static LOG_APPENDED: Counter = Counter::new("storage_log_append_total");
/// Bytes of pages written to index files.
pub static INDEX_BYTES: Counter = Counter::new("storage_index_bytes_total");
/// Nanoseconds spent taking committed blocks into the index, behind the acknowledgement.
pub static INDEX_BUSY: Counter = Counter::new("storage_index_busy_nanoseconds_total");
/// Bytes appended to the log.
pub static LOG_BYTES: Counter = Counter::new("storage_log_bytes_total");
/// Bytes of keys and values handed to MDBX by checkpoints.
pub static CHECKPOINT_BYTES: Counter = Counter::new("storage_checkpoint_bytes_total");
/// Rows written or deleted by checkpoints.
pub static CHECKPOINT_ROWS: Counter = Counter::new("storage_checkpoint_row_total");
/// Rows whose pages were read ahead of a checkpoint, as they were not in memory.
pub static PREFETCHED: Counter = Counter::new("storage_prefetch_row_total");
/// Nanoseconds in which they were.
pub static PREFETCH_BUSY: Counter = Counter::new("storage_prefetch_busy_nanoseconds_total");
/// Accounts and slots that were found in the cache above MDBX.
pub static CACHE_HIT: Counter = Counter::new("storage_cache_hit_total");
/// Rows read from MDBX.
pub static READ: Counter = Counter::new("storage_database_read_total");
/// keccak256 computed for the trie.
pub static KECCAK: Counter = Counter::new("storage_keccak_total");
/// Blocks made durable.
pub static BLOCK_COMMITTED: Counter = Counter::new("storage_block_committed_total");
/// Nanoseconds inside `commit`, from the call to durability.
pub static COMMIT_BUSY: Counter = Counter::new("storage_commit_busy_nanoseconds_total");
/// Nanoseconds inside fdatasync of segments and the log.
pub static SYNC_BUSY: Counter = Counter::new("storage_sync_busy_nanoseconds_total");
/// Nanoseconds that `commit` waited for a checkpoint.
pub static COMMIT_STALLED: Counter = Counter::new("storage_commit_stalled_nanoseconds_total");
/// Nanoseconds the checkpoint thread worked.
pub static CHECKPOINT_BUSY: Counter = Counter::new("storage_checkpoint_busy_nanoseconds_total");
/// Nanoseconds of them in which MDBX made rows durable.
pub static CHECKPOINT_COMMIT_BUSY: Counter = Counter::new("storage_checkpoint_commit_busy_nanoseconds_total");
/// Checkpoints written.
pub static CHECKPOINT: Counter = Counter::new("storage_checkpoint_total");
/// Rows that were compared with what they must be.
pub static SCRUB_ROWS: Counter = Counter::new("storage_scrub_row_total");
/// Places that were found damaged.
pub static SCRUB_FOUND: Counter = Counter::new("storage_scrub_found_total");
/// Segments that were taken away.
pub static SEGMENT_PRUNED: Counter = Counter::new("storage_segment_pruned_total");
/// Segments whose changes were taken away and whose blocks were not.
pub static CHANGES_PRUNED: Counter = Counter::new("storage_changes_pruned_total");
/// Height of the lowest block that is kept.
pub static LOWEST: Level = Level::new("storage_lowest_height");
/// Lowest height whose state is kept.
pub static LOWEST_STATE: Level = Level::new("storage_lowest_state_height");
/// Nanoseconds spent computing state roots.
pub static ROOT_BUSY: Counter = Counter::new("storage_root_busy_nanoseconds_total");

/// Exports every counter of this room, and its levels.
pub fn export() {
    LOWEST.export();
    LOWEST_STATE.export();
    for counter in [
        &FSYNC,
        &SEGMENT_BYTES,
        &LOG_APPENDED,
        &LOG_BYTES,
        &INDEX_BYTES,
        &INDEX_BUSY,
        &CHECKPOINT_BYTES,
        &CHECKPOINT_ROWS,
        &PREFETCHED,
        &PREFETCH_BUSY,
        &CACHE_HIT,
        &READ,
        &KECCAK,
        &BLOCK_COMMITTED,
        &COMMIT_BUSY,
        &SYNC_BUSY,
        &COMMIT_STALLED,
        &CHECKPOINT_BUSY,
        &CHECKPOINT_COMMIT_BUSY,
        &CHECKPOINT,
        &ROOT_BUSY,
        &SCRUB_ROWS,
        &SCRUB_FOUND,
        &SEGMENT_PRUNED,
        &CHANGES_PRUNED,
    ] {
        counter.export();
    }
}

/// Adds the time since `start` to a counter of nanoseconds.
pub(crate) fn elapsed(counter: &Counter, start: std::time::Instant) {
    counter.add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
}
