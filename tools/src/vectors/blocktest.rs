//! Block tests: a chain of blocks, some of which must be refused, through the executor's own door.

use std::{collections::HashMap, sync::Arc};

use alloy_consensus::{Header, Sealable, Sealed};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::B256;
use alloy_rlp::Decodable;
use engine::{
    ports::{ExecutionError, Executor},
    types::{Block, BlockBody, ConsensusHeader, Envelope, ExecutedBlock, NamedList, RawTransaction, Transaction},
};
use eyre::{WrapErr, bail, ensure, eyre};
use serde_json::{Value, json as value};
use vm::{HeaderRules, RevmExecutor, workers::Workers};

use super::{
    Mode, Settings,
    case::{Case, Judged, Verdict},
    chain::{self, ForkError},
    json,
    view::TrieState,
};

/// Runs one chain.
pub(crate) fn run(name: &str, case: &Value, settings: Settings) -> Vec<Case> {
    let network = case.get("network").and_then(Value::as_str);
    let genesis = || -> eyre::Result<Sealed<Header>> {
        let genesis = decode(&json::bytes(case, "genesisRLP")?).map_err(|reason| eyre!("`genesisRLP`: {reason}"))?;
        Ok(genesis.header)
    };
    let (network, genesis) = match (network, genesis()) {
        (Some(network), Ok(genesis)) => (network, genesis),
        (None, _) => return vec![Case::judge(name, None, 0, || bail!("`network` is missing"))],
        (_, Err(error)) => return vec![Case::judge(name, network, 0, || Err(error))],
    };
    let result = match chain::spec(network, case.get("config"), genesis.inner().clone()) {
        Ok(spec) => {
            let executor = RevmExecutor::with_rules(Arc::new(spec), HeaderRules::ETHEREUM);
            Case::judge(name, Some(network), 0, || {
                let workers = Workers::new(settings.threads).wrap_err("cannot start threads")?;
                check(
                    &Runner { executor: executor.with_workers(workers).with_threads_from(0), mode: settings.mode },
                    case,
                    genesis,
                )
            })
        }
        Err(ForkError::Unsupported(reason)) => Case::skipped(name, Some(network), 0, reason),
        Err(ForkError::Malformed(error)) => Case::judge(name, Some(network), 0, || Err(error)),
    };
    vec![result]
}

/// Executes blocks in one mode.
struct Runner {
    executor: RevmExecutor,
    mode: Mode,
}

impl Runner {
    /// Executes a block; in mode `replay` also along the list that the plain loop made, and in mode `lead` its
    /// transactions with guesses ahead, both with the same result.
    fn execute(
        &self,
        state: &TrieState,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> eyre::Result<Result<ExecutedBlock, String>> {
        let plain = match self.executor.execute(state, parent, block) {
            Ok(executed) => executed,
            Err(ExecutionError::Invalid(reason)) => return Ok(Err(reason)),
            Err(ExecutionError::State(error)) => return Err(error).wrap_err("state"),
        };
        if self.mode == Mode::Replay {
            let listed = self.executor.replay_listed(state, parent, block, &NamedList::new(plain.access_list.clone()));
            let listed = listed.wrap_err_with(|| format!("replay of block {}", block.header.number))?;
            ensure!(listed.receipts == plain.receipts, "replay of block {} has other receipts", block.header.number);
            ensure!(listed.changes == plain.changes, "replay of block {} has other changes", block.header.number);
        }
        if self.mode == Mode::Lead {
            let led = self.executor.transactions_led(state, block, true)?;
            let plain = self.executor.transactions(state, block, true)?;
            let same = led.receipts == plain.receipts && led.changes == plain.changes;
            let same = same && led.access_list == plain.access_list && led.gas_used == plain.gas_used;
            ensure!(same, "lead of block {} is not the plain loop's", block.header.number);
        }
        Ok(Ok(plain))
    }
}

/// Blocks accepted so far, with the state after each.
struct Chain {
    blocks: HashMap<B256, (Sealed<Header>, TrieState)>,
    head: B256,
}

fn check(runner: &Runner, case: &Value, genesis: Sealed<Header>) -> Verdict {
    let mut state = TrieState::genesis(&json::accounts(case, "pre")?);
    ensure!(
        state.root() == genesis.state_root,
        "root of `pre` is {}, `genesisRLP` says {}",
        state.root(),
        genesis.state_root
    );
    let named = json::hash(json::field(case, "genesisBlockHeader")?, "hash")?;
    ensure!(genesis.seal() == named, "hash of `genesisRLP` is {}, must be {named}", genesis.seal());
    state.seal(genesis.number, genesis.seal());
    let head = genesis.seal();
    let mut chain = Chain { blocks: HashMap::from([(head, (genesis, state))]), head };

    let mut refusals = Vec::new();
    for (index, entry) in json::list(case, "blocks")?.iter().enumerate() {
        let exception = exception(entry);
        match (import(runner, &mut chain, &json::bytes(entry, "rlp")?)?, exception) {
            (Ok(()), None) => {}
            (Ok(()), Some(exception)) => {
                let (got, want) =
                    (value!({"block": index, "refused": false}), value!({"block": index, "exception": exception}));
                return Ok(Judged { got, want, pass: false });
            }
            (Err(reason), Some(exception)) => {
                refusals.push(value!({"block": index, "error": reason, "exception": exception}))
            }
            (Err(reason), None) => {
                let (got, want) =
                    (value!({"block": index, "error": reason}), value!({"block": index, "refused": false}));
                return Ok(Judged { got, want, pass: false });
            }
        }
    }
    judge(case, &chain, refusals)
}

/// Head and state after the last block.
fn judge(case: &Value, chain: &Chain, refusals: Vec<Value>) -> Verdict {
    let (_, state) = chain.blocks.get(&chain.head).ok_or_else(|| eyre!("the head is unknown"))?;
    let mut want = value!({"head": json::hash(case, "lastblockhash")?});
    let mut got = value!({"head": chain.head});
    if case.get("postStateHash").is_some() {
        want["root"] = value!(json::hash(case, "postStateHash")?);
        got["root"] = value!(state.root());
    }
    if case.get("postState").is_some_and(|post| !post.is_null()) {
        want["state"] = Value::Null;
        got["state"] = value!(state.difference(&json::accounts(case, "postState")?));
    }
    let pass = got == want;
    if !refusals.is_empty() {
        got["refused"] = Value::Array(refusals);
    }
    Ok(Judged { got, want, pass })
}

/// Why the block must be refused, if it must; some vectors put the fork into the field's name.
fn exception(entry: &Value) -> Option<&str> {
    let fields = entry.as_object()?;
    fields.iter().find(|(name, _)| name.starts_with("expectException")).map(|(_, value)| value.as_str().unwrap_or("?"))
}

/// Decodes a block of Ethereum's wire form and recovers its senders.
fn decode(bytes: &[u8]) -> Result<Block, String> {
    let mut rest = bytes;
    let block = alloy_consensus::Block::<Envelope>::decode(&mut rest).map_err(|error| format!("rlp: {error}"))?;
    if !rest.is_empty() {
        return Err(format!("rlp: {} bytes behind the block", rest.len()));
    }
    if !block.body.ommers.is_empty() {
        return Err(format!("ommers is {}, must be 0", block.body.ommers.len()));
    }
    let mut transactions = Vec::new();
    for (index, envelope) in block.body.transactions.into_iter().enumerate() {
        let raw = RawTransaction::new(envelope.encoded_2718().into());
        let transaction =
            Transaction::recover(envelope, raw).map_err(|error| format!("transaction {index}: {error}"))?;
        transactions.push(Arc::new(transaction));
    }
    let body = BlockBody { transactions, withdrawals: block.body.withdrawals };
    Ok(Block { consensus: ConsensusHeader::default(), header: block.header.seal_slow(), body })
}

/// Adds a block to the chain, or says why it is refused.
fn import(runner: &Runner, chain: &mut Chain, bytes: &[u8]) -> eyre::Result<Result<(), String>> {
    let block = match decode(bytes) {
        Ok(block) => Arc::new(block),
        Err(reason) => return Ok(Err(reason)),
    };
    let Some((parent, state)) = chain.blocks.get(&block.header.parent_hash) else {
        return Ok(Err(format!("parent_hash is {}, which no block has", block.header.parent_hash)));
    };
    let executed = match runner.execute(state, parent, &block)? {
        Ok(executed) => executed,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut after = executed
        .trie
        .0
        .downcast_ref::<TrieState>()
        .cloned()
        .ok_or_else(|| eyre!("the executor returned another trie than it was given"))?;
    after.seal(block.header.number, block.hash());
    chain.head = block.hash();
    chain.blocks.insert(block.hash(), (block.header.clone(), after));
    Ok(Ok(()))
}
