//! What a caller is told when a call cannot be answered: codes and words that libraries recognise.
//!
//! | code | meaning |
//! |---|---|
//! | 3 | reverted; `data` is the revert data |
//! | 4 | not included in time; `data` is the transaction's hash |
//! | -32000 | general refusal: transactions, state, calls |
//! | -32601, -32602 | no such method, unusable parameters |
//! | -32603 | a fault of this node; the log has the reason, the answer has not |
//! | -32005 | a limit of this node |
//!
//! Source: execution-apis `src/error-groups`, go-ethereum `internal/ethapi/errors.go`, EIP-7966.

use alloy_primitives::{B256, Bytes};
use engine::{
    admission::AdmissionError,
    limits::CALL_GAS_MAX,
    ports::{CallError, StateError, StoreError},
    query::{CallOutcome, CallResult},
};
use jsonrpsee::types::ErrorObjectOwned;

use super::{limits::CALL_TIME_MAX, revert};

/// An error object on its way to a client.
pub(super) type Refusal = ErrorObjectOwned;

const REVERTED: i32 = 3;
const NOT_IN_TIME: i32 = 4;
const REFUSED: i32 = -32000;
const LIMIT: i32 = -32005;
const UNKNOWN_METHOD: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;

fn plain(code: i32, message: impl Into<String>) -> Refusal {
    Refusal::owned(code, message, None::<()>)
}

/// The general refusal, -32000.
pub(super) fn refused(message: impl Into<String>) -> Refusal {
    plain(REFUSED, message)
}

/// Parameters that cannot be used, -32602.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    plain(INVALID_PARAMS, message)
}

/// A limit of this node, -32005.
pub(super) fn limit(message: impl Into<String>) -> Refusal {
    plain(LIMIT, message)
}

/// All threads are taken and the queue before them is full.
pub(super) fn busy() -> Refusal {
    limit("busy: too many calls are waiting, try again later")
}

/// The answer would be larger than this node sends.
pub(super) fn too_large() -> Refusal {
    limit("response too large")
}

/// A fault of this node. The cause goes to the log, never to the client.
pub(super) fn internal(cause: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%cause, "JSON-RPC call failed");
    plain(INTERNAL, "internal error")
}

/// A method this node does not have, in geth's words.
pub(super) fn unknown_method(name: &str) -> Refusal {
    let shown: String = name.chars().filter(|letter| letter.is_ascii_graphic()).take(64).collect();
    plain(UNKNOWN_METHOD, format!("the method {shown} does not exist/is not available"))
}

/// Subscriptions need a connection that the server can send on.
pub(super) fn no_notifications() -> Refusal {
    plain(UNKNOWN_METHOD, "notifications not supported")
}

/// A kind of subscription this node does not have, in geth's words.
pub(super) fn unknown_subscription(kind: &str) -> Refusal {
    let shown: String = kind.chars().filter(|letter| letter.is_ascii_graphic()).take(64).collect();
    plain(UNKNOWN_METHOD, format!("no \"{shown}\" subscription in eth namespace"))
}

/// A block that a state was asked of is not there.
pub(super) fn header_not_found() -> Refusal {
    refused("header not found")
}

/// The time of a heavy call is up.
pub(super) fn out_of_time() -> Refusal {
    refused(format!("execution aborted (timeout = {}s)", CALL_TIME_MAX.as_secs()))
}

/// `eth_sendRawTransactionSync` saw no receipt in time.
pub(super) fn not_in_time(hash: B256, waited_ms: u128) -> Refusal {
    let message =
        format!("The transaction was added to the transaction pool but wasn't processed within {waited_ms} ms");
    Refusal::owned(NOT_IN_TIME, message, Some(hash))
}

/// The store could not answer.
pub(super) fn store(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) | StoreError::NotKept { .. } | StoreError::NoProof { .. } => {
            refused(error.to_string())
        }
        _ => internal(&error),
    }
}

/// A state could not be read.
pub(super) fn state(error: StateError) -> Refusal {
    match error {
        StateError::Unavailable(_) => refused(error.to_string()),
        _ => internal(&error),
    }
}

/// Admission refused the transaction; its words are geth's.
pub(super) fn admission(error: AdmissionError) -> Refusal {
    match error {
        AdmissionError::State(error) => state(error),
        _ => refused(error.to_string()),
    }
}

/// A call gave no outcome; `gas` is what the caller allowed.
pub(super) fn call(error: CallError, gas: Option<u64>) -> Refusal {
    match error {
        CallError::Refused(reason) => refused(reason),
        CallError::Cancelled => out_of_time(),
        CallError::State(error) => state(error),
        CallError::Failed(outcome) => match &outcome.result {
            CallResult::Revert => reverted(&outcome.output),
            CallResult::Halt(reason) if !reason.contains("out of gas") => refused(reason.clone()),
            _ => refused(format!("gas required exceeds allowance ({})", gas.unwrap_or(CALL_GAS_MAX))),
        },
    }
}

/// The output of a call that returned, or why it did not.
pub(super) fn outcome(outcome: CallOutcome) -> Result<Bytes, Refusal> {
    match outcome.result {
        CallResult::Success => Ok(outcome.output),
        CallResult::Revert => Err(reverted(&outcome.output)),
        CallResult::Halt(reason) => Err(refused(reason)),
    }
}

fn reverted(output: &Bytes) -> Refusal {
    let message = match revert::reason(output) {
        Some(reason) => format!("execution reverted: {reason}"),
        None => "execution reverted".to_owned(),
    };
    Refusal::owned(REVERTED, message, Some(output))
}

#[cfg(test)]
mod tests {
    use engine::types::Height;

    use super::*;

    fn code_and_words(refusal: &Refusal) -> (i32, &str) {
        (refusal.code(), refusal.message())
    }

    #[test]
    fn faults_of_the_node_say_nothing_about_it() {
        for refusal in [
            store(StoreError::Failed("/data/mdbx.dat: no space left".to_owned())),
            store(StoreError::Corrupt("page 7".to_owned())),
            state(StateError::Unreadable("mdbx".to_owned())),
            admission(AdmissionError::State(StateError::Corrupt("slot".to_owned()))),
            call(CallError::State(StateError::Corrupt("slot".to_owned())), None),
        ] {
            assert_eq!(code_and_words(&refusal), (-32603, "internal error"));
            assert!(refusal.data().is_none());
        }
    }

    #[test]
    fn a_missing_state_is_named() {
        let refusal = store(StoreError::Unavailable(Height(7)));
        assert_eq!(code_and_words(&refusal), (-32000, "height 7 is not available"));
        let refusal = store(StoreError::NotKept { height: Height(7), lowest: Height(9) });
        let words = "height 7 is not kept: the lowest kept height is 9";
        assert_eq!(code_and_words(&refusal), (-32000, words));
        let refusal = store(StoreError::NoProof { height: Height(7), lowest: Height(9) });
        let words = "no proof of the state at height 7: proofs go back to height 9";
        assert_eq!(code_and_words(&refusal), (-32000, words));
    }

    #[test]
    fn estimation_failures_tell_reverts_from_lack_of_gas() {
        let failed = |result| {
            let output = Bytes::from_static(&[1, 2]);
            CallError::Failed(Box::new(CallOutcome { result, output, gas_used: 1, logs: Vec::new() }))
        };
        let refusal = call(failed(CallResult::Revert), None);
        assert_eq!(code_and_words(&refusal), (3, "execution reverted"));
        assert_eq!(refusal.data().map(|data| data.get()), Some("\"0x0102\""));
        let refusal = call(failed(CallResult::Halt("out of gas".to_owned())), Some(21_000));
        assert_eq!(code_and_words(&refusal), (-32000, "gas required exceeds allowance (21000)"));
        let refusal = call(failed(CallResult::Halt("invalid opcode: INVALID".to_owned())), None);
        assert_eq!(code_and_words(&refusal), (-32000, "invalid opcode: INVALID"));
    }

    #[test]
    fn unknown_methods_are_echoed_bounded_and_printable() {
        let refusal = unknown_method(&format!("eth_\u{7}{}", "x".repeat(1000)));
        assert_eq!(refusal.code(), -32601);
        assert!(refusal.message().len() < 128 && !refusal.message().contains('\u{7}'));
    }
}
