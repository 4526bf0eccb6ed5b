//! State tests: one transaction on a given state in a given block; wanted are root and logs.

use alloy_consensus::Header;
use alloy_primitives::{B256, Log, U256, keccak256};
use engine::{
    genesis::{ChainSpec, Fork},
    ports::ExecutionError,
    types::Transaction,
};
use eyre::{OptionExt, bail};
use serde_json::{Value, json as value};
use std::sync::Arc;
use vm::{HeaderRules, RevmExecutor};

use super::{
    case::{Case, Judged, Verdict},
    chain::{self, ForkError},
    json,
    view::TrieState,
};

/// Runs all posts of one named test.
pub(crate) fn run(name: &str, case: &Value) -> Vec<Case> {
    let Some(posts) = case.get("post").and_then(Value::as_object) else {
        return vec![Case::judge(name, None, 0, || bail!("`post` is not an object"))];
    };
    let mut results = Vec::new();
    for (fork, expectations) in posts {
        let Some(expectations) = expectations.as_array() else {
            results.push(Case::judge(name, Some(fork), 0, || bail!("`post.{fork}` is not a list")));
            continue;
        };
        let spec = chain::spec(fork, case.get("config"), Header::default());
        for (index, post) in expectations.iter().enumerate() {
            results.push(match &spec {
                Ok(spec) => Case::judge(name, Some(fork), index, || check(spec, case, post)),
                Err(ForkError::Unsupported(reason)) => Case::skipped(name, Some(fork), index, reason.clone()),
                Err(ForkError::Malformed(error)) => Case::judge(name, Some(fork), index, || bail!("{error:#}")),
            });
        }
    }
    results
}

/// The block of the transaction.
fn header(spec: &ChainSpec, env: &Value) -> eyre::Result<Header> {
    let timestamp = json::u64(env, "currentTimestamp")?;
    let fork = spec.fork_at(timestamp);
    let blobs = spec.forks.blobs_at(timestamp);
    let excess = match (json::u64_if_any(env, "currentExcessBlobGas")?, blobs) {
        (Some(excess), _) => Some(excess),
        (None, Some(blobs)) => Some(blobs.next_block_excess_blob_gas_osaka(
            json::u64_if_any(env, "parentExcessBlobGas")?.unwrap_or_default(),
            json::u64_if_any(env, "parentBlobGasUsed")?.unwrap_or_default(),
            json::u64_if_any(env, "currentBaseFee")?.unwrap_or_default(),
        )),
        (None, None) => None,
    };
    Ok(Header {
        number: json::u64(env, "currentNumber")?,
        timestamp,
        beneficiary: json::address(env, "currentCoinbase")?,
        gas_limit: json::u64(env, "currentGasLimit")?,
        base_fee_per_gas: json::u64_if_any(env, "currentBaseFee")?,
        difficulty: env.get("currentDifficulty").map_or(Ok(U256::ZERO), json::number)?,
        mix_hash: env.get("currentRandom").map_or(Ok(B256::ZERO), |random| json::number(random).map(B256::from))?,
        excess_blob_gas: excess.filter(|_| fork >= Fork::Cancun),
        ..Header::default()
    })
}

fn check(spec: &ChainSpec, case: &Value, post: &Value) -> Verdict {
    let header = header(spec, json::field(case, "env")?)?;
    let mut state = TrieState::genesis(&json::accounts(case, "pre")?);
    let exception = post.get("expectException").and_then(Value::as_str);
    let mut want =
        value!({"root": json::hash(post, "hash")?, "logs": json::hash(post, "logs")?, "refused": exception.is_some()});
    if let Some(exception) = exception {
        want["exception"] = exception.into();
    }
    let mut logs: Vec<Log> = Vec::new();
    let mut refusal = None;
    match Transaction::decode(json::bytes(post, "txbytes")?) {
        Err(error) => refusal = Some(error.to_string()),
        Ok(transaction) => {
            check_sender(case, &transaction)?;
            let executor = RevmExecutor::with_rules(Arc::new(spec.clone()), HeaderRules::ETHEREUM);
            match executor.transact(&state, &header, &transaction) {
                Ok(finished) => {
                    state.apply(&finished.changes)?;
                    logs = finished.receipts.into_iter().flat_map(|receipt| receipt.logs).collect();
                }
                Err(ExecutionError::Invalid(reason)) => refusal = Some(reason),
                Err(ExecutionError::State(error)) => return Err(error.into()),
            }
        }
    }
    let logs = keccak256(alloy_rlp::encode(&logs));
    let mut got = value!({"root": state.root(), "logs": logs, "refused": refusal.is_some()});
    let pass = ["root", "logs", "refused"].into_iter().all(|field| got[field] == want[field]);
    if let Some(refusal) = refusal {
        got["error"] = refusal.into();
    }
    Ok(Judged { got, want, pass })
}

/// The vector names the sender beside the signed bytes; both must say the same.
fn check_sender(case: &Value, transaction: &Transaction) -> eyre::Result<()> {
    let fields = json::field(case, "transaction")?;
    if fields.get("sender").is_none() {
        return Ok(());
    }
    let sender = json::address(fields, "sender")?;
    (sender == transaction.sender())
        .then_some(())
        .ok_or_eyre(format!("sender is {}, must be {sender}", transaction.sender()))
}
