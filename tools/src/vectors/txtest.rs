//! Transaction tests: raw bytes are a transaction with this hash, sender and intrinsic gas, or none.
//!
//! Decoding is `engine::types::Transaction::decode`, which admission uses; the rules of each fork are
//! the executor's.

use alloy_primitives::{Bytes, U256};
use engine::{genesis::Fork, types::Transaction};
use eyre::bail;
use serde_json::{Value, json as value};

use super::{
    case::{Case, Judged, Verdict},
    chain::{self, ForkError},
    json,
};

/// Ethereum's own chain id: the vectors are signed for it.
const CHAIN_ID: u64 = 1;

/// Runs one case for each fork it names.
pub(crate) fn run(name: &str, case: &Value) -> Vec<Case> {
    let Some(results) = case.get("result").and_then(Value::as_object) else {
        return vec![Case::judge(name, None, 0, || bail!("`result` is not an object"))];
    };
    results
        .iter()
        .map(|(fork, want)| match chain::spec(fork, None, Default::default()) {
            Ok(spec) => Case::judge(name, Some(fork), 0, || check(spec.fork_at(0), case, want)),
            Err(ForkError::Unsupported(reason)) => Case::skipped(name, Some(fork), 0, reason),
            Err(ForkError::Malformed(error)) => Case::judge(name, Some(fork), 0, || Err(error)),
        })
        .collect()
}

fn check(fork: Fork, case: &Value, want: &Value) -> Verdict {
    let judged = decode(fork, json::bytes(case, "txbytes")?);
    if let Some(exception) = want.get("exception") {
        let pass = judged.is_err();
        let got = match judged {
            Ok(transaction) => value!({"refused": false, "hash": transaction.0.hash()}),
            Err(reason) => value!({"refused": true, "error": reason}),
        };
        return Ok(Judged { got, want: value!({"refused": true, "exception": exception}), pass });
    }
    let wanted = value!({
        "hash": json::hash(want, "hash")?,
        "sender": json::address(want, "sender")?,
        "intrinsicGas": json::u256(want, "intrinsicGas")?,
    });
    Ok(match judged {
        Ok((transaction, gas)) => {
            let (hash, sender) = (transaction.hash(), transaction.sender());
            Judged::equal(value!({"hash": hash, "sender": sender, "intrinsicGas": U256::from(gas)}), wanted)
        }
        Err(reason) => Judged { got: value!({"refused": true, "error": reason}), want: wanted, pass: false },
    })
}

/// The transaction and its intrinsic gas, or why it is none.
fn decode(fork: Fork, bytes: Bytes) -> Result<(Transaction, u64), String> {
    let transaction = Transaction::decode(bytes).map_err(|error| error.to_string())?;
    let gas = vm::intrinsic::check(fork, CHAIN_ID, &transaction).map_err(|error| error.to_string())?;
    Ok((transaction, gas))
}
