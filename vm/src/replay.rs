//! Executing a block whose access list is known: no transaction waits for another.
//!
//! ```text
//! check form -> prefetch everything listed, in parallel
//!            -> index 0: the system calls before the transactions
//!            -> transactions, claimed most expensive first by every thread, each compared with its index
//!            -> last index: requests and withdrawals
//!            -> nothing invented -> the list's own values are the block's changes
//! ```
//!
//! Promise: what this gives is what the plain loop gives, bit for bit, or a [`ReplayError`]; then the plain
//! loop decides what the block is worth. Which thread runs what, and when, reaches nothing.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, map::B256Map};
use engine::{
    genesis::{ChainSpec, Fork},
    ports::{ExecutionError, StateError, StateView},
    types::{AccessList, Block, Height, Receipt, Transaction},
};
use revm::{
    Context, Database, ExecuteEvm, MainBuilder, MainContext,
    context_interface::result::EVMError,
    primitives::{StorageKey, StorageValue},
    state::{AccountId, AccountInfo, Bytecode},
};

use crate::{
    access_list::{At, Failure, Index, Mismatch},
    code::CodeCache,
    env,
    error::{Refusal, ViewError},
    metrics, outcome,
    sequential::{Finished, Run},
    transfer::{self, Transfers},
    workers::Workers,
};

/// Gas that the interpreter uses in the time of one transfer, some 0.4 microseconds.
const TRANSFER_GAS_WORTH: u64 = 2_000;
const NOT_THE_BLOCKS: &str = "it is not the list that the transactions make";

/// Why a replay gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The list and the transactions disagree; the block may still be valid.
    #[error("access list: {0}")]
    Mismatch(String),
    /// The block is invalid, or the state cannot be read.
    #[error(transparent)]
    Execution(ExecutionError),
}

impl From<Mismatch> for ReplayError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch.to_string())
    }
}

impl From<Failure> for ReplayError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Mismatch(mismatch) => mismatch.into(),
            Failure::State(state) => state.into(),
        }
    }
}

impl From<StateError> for ReplayError {
    fn from(state: StateError) -> Self {
        Self::Execution(state.into())
    }
}

/// A block to replay, and what it needs.
pub(crate) struct Replay<'a> {
    pub(crate) chain: &'a ChainSpec,
    pub(crate) codes: &'a CodeCache,
    pub(crate) view: &'a dyn StateView,
    pub(crate) workers: &'a Workers,
    /// Blocks of less predicted gas run on the plain loop.
    pub(crate) gas_min: u64,
}

impl Replay<'_> {
    /// Executes the transactions of `block`, with the block's own system calls if `whole`.
    pub(crate) fn run(&self, block: &Block, list: &AccessList, whole: bool) -> Result<Finished, ReplayError> {
        let header = block.header.inner();
        let transactions = &block.body.transactions;
        let fork = self.chain.fork_at(header.timestamp);
        if fork < Fork::SpuriousDragon {
            // Before EIP-161 an account could exist and be empty, which no list can say.
            return self.plain(block, whole).map_err(ReplayError::Execution);
        }
        list.check(fork, header.gas_limit, transactions.len()).map_err(ReplayError::Mismatch)?;
        let predicted = transactions.iter().fold(0_u64, |sum, tx| sum.saturating_add(predicted_gas(tx)));
        if predicted < self.gas_min {
            let finished = self.plain(block, whole).map_err(ReplayError::Execution)?;
            let same = finished.access_list.as_ref() == Some(list);
            return if same { Ok(finished) } else { Err(ReplayError::Mismatch(NOT_THE_BLOCKS.to_owned())) };
        }
        let index = Index::new(self.view, list, transactions.len());
        self.prefetch(&index)?;
        let last = u32::try_from(transactions.len().saturating_add(1))
            .map_err(|_| ReplayError::Mismatch("too many transactions".to_owned()))?;
        self.block_itself(&index, 0, |view| {
            if whole { Run::start(self.chain, self.codes, view, header)?.close(None) } else { Ok(Finished::default()) }
        })?;
        let receipts = self.transactions(block, &index)?;
        let after = self.block_itself(&index, last, |view| {
            if !whole {
                return Ok(Finished::default());
            }
            let mut run = Run::open(self.chain, self.codes, view, header);
            run.start_record();
            run.take_receipts(receipts.clone());
            run.finish(block.body.withdrawals.as_ref())
        })?;
        index.compare_end()?;
        let blob_gas = |sum: u64, blob_gas: Option<u64>| sum.saturating_add(blob_gas.unwrap_or_default());
        Ok(Finished {
            changes: index.changes()?,
            gas_used: receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used),
            blob_gas_used: transactions.iter().map(|tx| tx.envelope().blob_gas_used()).fold(0, blob_gas),
            requests: after.requests,
            access_list: None,
            receipts,
        })
    }

    /// The plain loop, with its own list.
    fn plain(&self, block: &Block, whole: bool) -> Result<Finished, ExecutionError> {
        let header = block.header.inner();
        let mut run = if whole {
            Run::start(self.chain, self.codes, self.view, header)?
        } else {
            let mut run = Run::open(self.chain, self.codes, self.view, header);
            run.start_record();
            run
        };
        run.transact_all(&block.body.transactions)?;
        if whole { run.finish(block.body.withdrawals.as_ref()) } else { run.close(None) }
    }

    fn prefetch(&self, index: &Index<'_>) -> Result<(), ReplayError> {
        let (next, failed) = (AtomicUsize::new(0), OnceLock::new());
        self.workers.run(&|| {
            if let Err(error) = index.prefetch(&next) {
                let _ = failed.set(error);
            }
        });
        failed.into_inner().map_or(Ok(()), |error| Err(error.into()))
    }

    /// What the block does by itself before or after its transactions, on the plain loop.
    fn block_itself(
        &self,
        index: &Index<'_>,
        at: u32,
        run: impl FnOnce(&dyn StateView) -> Result<Finished, ExecutionError>,
    ) -> Result<Finished, ReplayError> {
        let view = At::new(index, at);
        let finished = run(&view);
        if let Some(outside) = view.outside.get() {
            return Err(outside.clone().into());
        }
        let mut finished = finished.map_err(ReplayError::Execution)?;
        index.compare_record(at, &finished.access_list.take().unwrap_or_default())?;
        Ok(finished)
    }

    /// Executes all transactions on all threads; gives their receipts in order.
    fn transactions(&self, block: &Block, index: &Index<'_>) -> Result<Vec<Receipt>, ReplayError> {
        let transactions = &block.body.transactions;
        let mut order: Vec<usize> = (0..transactions.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(predicted_gas(&transactions[*at])));
        let receipts: Vec<OnceLock<Receipt>> = std::iter::repeat_with(OnceLock::new).take(order.len()).collect();
        let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), OnceLock::new());
        self.workers.run(&|| {
            let mut thread = Thread::new(self, block, index);
            while !stop.load(Ordering::Relaxed)
                && let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed))
            {
                match thread.transact(block, *at) {
                    Ok(receipt) => drop(receipts[*at].set(receipt)),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        let _ = failed.set(error);
                    }
                }
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        self.in_order(block, receipts.into_iter().filter_map(OnceLock::into_inner).collect())
    }

    /// Adds up the gas, and checks what a transaction may ask for where it stands.
    fn in_order(&self, block: &Block, mut receipts: Vec<Receipt>) -> Result<Vec<Receipt>, ReplayError> {
        let header = block.header.inner();
        let blobs = self.chain.forks.blobs_at(header.timestamp);
        let mut blob_gas_left = blobs.map_or(0, |blobs| blobs.max_blob_gas_per_block());
        let mut gas_used = 0_u64;
        for (at, (transaction, receipt)) in block.body.transactions.iter().zip(&mut receipts).enumerate() {
            let (wanted, left) = (transaction.envelope().gas_limit(), header.gas_limit.saturating_sub(gas_used));
            if wanted > left {
                return Err(ReplayError::Execution(Refusal::BlockGas { wanted, left }.in_block(at)));
            }
            let wanted = transaction.envelope().blob_gas_used().unwrap_or_default();
            if wanted > blob_gas_left {
                return Err(ReplayError::Execution(Refusal::BlobGas { wanted, left: blob_gas_left }.in_block(at)));
            }
            blob_gas_left = blob_gas_left.saturating_sub(wanted);
            gas_used = gas_used.saturating_add(receipt.gas_used);
            receipt.cumulative_gas_used = gas_used;
        }
        metrics::GAS_USED.add(gas_used);
        metrics::TRANSACTION_EXECUTED.add(u64::try_from(receipts.len()).unwrap_or(u64::MAX));
        Ok(receipts)
    }
}

/// What a transaction will cost, guessed before it runs: its gas limit, or next to nothing if it brings no input
/// and so most likely moves value only.
fn predicted_gas(transaction: &Transaction) -> u64 {
    let envelope = transaction.envelope();
    if envelope.input().is_empty() { TRANSFER_GAS_WORTH } else { envelope.gas_limit() }
}

/// The state before one transaction, as revm reads it.
struct TransactionState<'i, 'a> {
    at: At<'i, 'a>,
    shared_codes: &'i CodeCache,
    codes: B256Map<Bytecode>,
}

impl Database for TransactionState<'_, '_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        let (account, id, code) = self.at.load(address)?;
        Ok(account.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            account_id: AccountId::new(id),
            code: code.cloned(),
        }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(&code_hash) {
            return Ok(code.clone());
        }
        let code = self.shared_codes.get(&self.at, code_hash)?;
        self.codes.insert(code_hash, code.clone());
        Ok(code)
    }

    fn storage(&mut self, address: Address, key: StorageKey) -> Result<StorageValue, ViewError> {
        Ok(self.at.slot(address, key)?)
    }

    fn storage_by_account_id(
        &mut self,
        _address: Address,
        account_id: AccountId,
        storage_key: StorageKey,
    ) -> Result<StorageValue, ViewError> {
        Ok(self.at.slot_of(account_id.get(), storage_key)?)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ViewError> {
        Ok(self.at.block_hash(Height(number))?.unwrap_or_default())
    }
}

type ThreadEvm<'i, 'a> = revm::MainnetEvm<
    Context<
        revm::context::BlockEnv,
        revm::context::TxEnv,
        revm::context::CfgEnv,
        TransactionState<'i, 'a>,
        revm::context::Journal<TransactionState<'i, 'a>>,
        (),
    >,
>;

/// One EVM that runs transactions of a block in any order.
struct Thread<'i, 'a> {
    evm: ThreadEvm<'i, 'a>,
    transfers: Transfers,
    index: &'i Index<'a>,
}

impl<'i, 'a> Thread<'i, 'a> {
    fn new(replay: &'i Replay<'_>, block: &Block, index: &'i Index<'a>) -> Self {
        let header = block.header.inner();
        let state = TransactionState { at: At::new(index, 0), shared_codes: replay.codes, codes: B256Map::default() };
        let evm = Context::mainnet()
            .with_db(state)
            .with_cfg(env::chain(replay.chain, header.timestamp))
            .with_block(env::block(replay.chain, header))
            .build_mainnet();
        Self { evm, transfers: Transfers::new(replay.chain, header), index }
    }

    /// Executes the transaction at this place and compares it with the list; gas counts from 0.
    fn transact(&mut self, block: &Block, place: usize) -> Result<Receipt, ReplayError> {
        let transaction = &block.body.transactions[place];
        let at = u32::try_from(place.saturating_add(1)).unwrap_or(u32::MAX);
        let state = &mut self.evm.ctx.journaled_state.database;
        state.at.at = at;
        let moved = self.transfers.attempt(transaction, |address| state.at.account(address));
        if let Some(outside) = state.at.outside.take() {
            return Err(outside.into());
        }
        if let Some(moved) = moved? {
            self.index.compare_transfer(at, &moved)?;
            return Ok(transfer::receipt(transaction, 0));
        }
        let done = self.evm.transact(env::transaction(transaction));
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                if let Some(outside) = self.evm.ctx.journaled_state.database.at.outside.take() {
                    return Err(outside.into());
                }
                return Err(match error {
                    EVMError::Database(ViewError(state)) => state.into(),
                    // On another state than the list says it might be valid.
                    other => ReplayError::Mismatch(format!("transaction {place}: {}", Refusal::from(other))),
                });
            }
        };
        self.index.compare(at, &done.state)?;
        Ok(outcome::receipt(transaction, done.result, 0))
    }
}

#[cfg(test)]
mod tests;
