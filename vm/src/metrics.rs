//! Names of the vm's metrics.

use engine::metrics::Counter;

/// Gas used by the transactions of built and executed blocks.
pub static GAS_USED: Counter = Counter::new("vm_gas_used_total");
/// Transactions executed in built and executed blocks.
pub static TRANSACTION_EXECUTED: Counter = Counter::new("vm_tx_executed_total");
/// Candidates that a build passed over.
pub static CANDIDATE_PASSED_OVER: Counter = Counter::new("vm_candidate_passed_over_total");
/// Candidates that took longer than a block may and were thrown out.
pub static CANDIDATE_TOO_SLOW: Counter = Counter::new("vm_candidate_too_slow_total");
/// Code fetched and analysed because no cache held it.
pub static CODE_ANALYSED: Counter = Counter::new("vm_code_analysed_total");
/// Transactions that the lane took over from a guess.
pub static GUESS_HELD: Counter = Counter::new("vm_guess_held_total");
/// Guesses that had read something that changed.
pub static GUESS_FAILED: Counter = Counter::new("vm_guess_failed_total");
/// Blocks whose access list disagreed with their transactions: an alarm.
pub static REPLAY_MISMATCH: Counter = Counter::new("vm_replay_mismatch_total");
/// Read-only runs of the EVM: calls and each step of an estimation.
pub static CALL_EXECUTED: Counter = Counter::new("vm_call_executed_total");

/// Exports every counter of this room.
pub fn export() {
    for counter in [
        &GAS_USED,
        &TRANSACTION_EXECUTED,
        &CANDIDATE_PASSED_OVER,
        &CANDIDATE_TOO_SLOW,
        &CODE_ANALYSED,
        &GUESS_HELD,
        &GUESS_FAILED,
        &REPLAY_MISMATCH,
        &CALL_EXECUTED,
    ] {
        counter.export();
    }
}
