//! Executing a block whose access list is known: no transaction waits for another.
//!
//! ```text
//! per part   check form -> prefetch what is newly listed, in parallel
//!                       -> first part: index 0, the system calls before the transactions
//!                       -> its transactions, claimed most expensive first by every thread, each compared with its
//!                          index; beside the last part's, the list's own values are collected and their root found
//! at the end last index: requests and withdrawals
//!                       -> nothing invented -> the list's values are the block's changes
//! ```
//!
//! A block that is there as a whole is one part. Parts are collected until they are worth waking threads; a block
//! that never is runs on the plain loop, and its record is compared with the list.
//!
//! Promise: what this gives is what the plain loop gives, bit for bit, or a [`ReplayError`]; then the plain
//! loop decides what the block is worth. Which thread runs what, and when, reaches nothing.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{Address, B256};
use engine::{
    genesis::{ChainSpec, Fork},
    ports::{ExecutionError, StateError, StateView},
    types::{AccessList, Height, Receipt, StateChanges, Transaction, TrieHandle},
};
use revm::{
    Context, Database, ExecuteEvm, MainBuilder, MainContext,
    context_interface::result::EVMError,
    primitives::{StorageKey, StorageValue},
    state::{AccountId, AccountInfo, Bytecode},
};

use crate::{
    access_list::{At, Failure, Index, Mismatch},
    code::{CodeCache, NearCodes},
    env,
    error::{Refusal, ViewError},
    metrics, outcome,
    sequential::{Finished, Run},
    transfer::{self, Moved, Transfers},
    workers::{Reading, Workers},
};

/// Gas that the interpreter uses in the time of one transfer, some 0.4 microseconds.
const TRANSFER_GAS_WORTH: u64 = 2_000;
/// Transfers that a thread claims at a time: some five microseconds' worth.
const TRANSFERS_CLAIMED: usize = 32;
/// What asks for more gas is claimed alone even where it brings no input.
const TRANSFER_GAS_MAX: u64 = 50_000;
const TOO_MUCH_GAS: &str = "along it the transactions use more gas than the block has";
const NOT_THE_BLOCKS: &str = "it is not the list that the transactions make";

/// Why a replay gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The list and the transactions disagree; the block may still be valid.
    #[error("access list: {0}")]
    Mismatch(String),
    /// What arrived in parts is not this block; the block may still be valid.
    #[error("not the block that arrived: {0}")]
    Another(String),
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

/// What every replay needs.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) chain: &'a ChainSpec,
    pub(crate) codes: &'a CodeCache,
    pub(crate) view: &'a dyn StateView,
    pub(crate) workers: &'a Workers,
    /// Less predicted gas is not worth waking threads.
    pub(crate) gas_min: u64,
}

/// A block that is executed as it arrives.
pub(crate) struct Replay<'a> {
    settings: Settings<'a>,
    header: Header,
    fork: Fork,
    /// With the block's own system calls.
    whole: bool,
    index: Index<'a>,
    transactions: Cow<'a, [Arc<Transaction>]>,
    /// Predicted gas of the transactions that wait.
    waiting_gas: u64,
    started: bool,
    /// Of the transactions that do not wait.
    receipts: Vec<Receipt>,
    blob_gas_used: u64,
}

impl<'a> Replay<'a> {
    /// Of `header` only what is known before the transactions is read.
    pub(crate) fn new(settings: Settings<'a>, header: Header, whole: bool) -> Self {
        let fork = settings.chain.fork_at(header.timestamp);
        Self {
            settings,
            fork,
            whole,
            index: Index::new(settings.view, AccessList::items_max(fork, header.gas_limit)),
            header,
            transactions: Cow::Borrowed(&[]),
            waiting_gas: 0,
            started: false,
            receipts: Vec::new(),
            blob_gas_used: 0,
        }
    }

    /// Before EIP-161 an account could exist and be empty, which no list can say.
    fn is_listed(&self) -> bool {
        self.fork >= Fork::SpuriousDragon
    }

    pub(crate) const fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn transactions(&self) -> &[Arc<Transaction>] {
        &self.transactions
    }

    /// Receipts of the transactions that have been executed, in order.
    pub(crate) fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    /// The list that has arrived.
    pub(crate) fn into_list(self) -> AccessList {
        self.index.into_list()
    }

    /// Takes the next transactions and the fragment of the list that belongs to them; executes what waits if it
    /// is worth it. After an error the replay is of no further use.
    pub(crate) fn push(
        &mut self,
        transactions: Cow<'a, [Arc<Transaction>]>,
        fragment: Cow<'a, AccessList>,
    ) -> Result<(), ReplayError> {
        self.take(transactions, fragment)?;
        if self.waiting_gas < self.settings.gas_min || !self.is_listed() { Ok(()) } else { self.run_waiting(None) }
    }

    /// Takes the next transactions and the fragment of the list that belongs to them, which wait for more or for the
    /// block's end.
    pub(crate) fn take(
        &mut self,
        transactions: Cow<'a, [Arc<Transaction>]>,
        fragment: Cow<'a, AccessList>,
    ) -> Result<(), ReplayError> {
        let predicted = transactions.iter().fold(0_u64, |sum, tx| sum.saturating_add(predicted_gas(tx)));
        self.waiting_gas = self.waiting_gas.saturating_add(predicted);
        if self.transactions.is_empty() {
            self.transactions = transactions;
        } else if !transactions.is_empty() {
            self.transactions.to_mut().extend(transactions.into_owned());
        }
        if !self.is_listed() {
            return Ok(());
        }
        self.index.extend(fragment, self.transactions.len()).map_err(ReplayError::Mismatch)
    }

    /// Ends the block: executes what still waits and what comes after the transactions.
    pub(crate) fn close(&mut self, withdrawals: Option<&Withdrawals>) -> Result<Finished, ReplayError> {
        if !self.started && (!self.is_listed() || self.waiting_gas < self.settings.gas_min) {
            return self.plain(withdrawals);
        }
        let values = Values::default();
        self.run_waiting(Some(&values))?;
        let last = u32::try_from(self.transactions.len().saturating_add(1)).unwrap_or(u32::MAX);
        let receipts = std::mem::take(&mut self.receipts);
        let gas_used = receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used);
        let Settings { chain, codes, .. } = self.settings;
        let after = self.block_itself(last, |view| {
            if !self.whole {
                return Ok(Finished { receipts, ..Finished::default() });
            }
            let mut run = Run::open(chain, codes, view, &self.header);
            run.start_record();
            run.take_receipts(receipts);
            run.finish(withdrawals)
        })?;
        self.index.compare_end()?;
        let (changes, state) = values.of(&self.index)?;
        Ok(Finished { changes, state, gas_used, blob_gas_used: self.blob_gas_used, access_list: None, ..after })
    }

    /// The plain loop, with its own list.
    fn plain(&self, withdrawals: Option<&Withdrawals>) -> Result<Finished, ReplayError> {
        let Settings { chain, codes, view, .. } = self.settings;
        let run = || {
            let mut run = if self.whole {
                Run::start(chain, codes, view, &self.header)?
            } else {
                let mut run = Run::open(chain, codes, view, &self.header);
                run.start_record();
                run
            };
            run.transact_all(&self.transactions)?;
            if self.whole { run.finish(withdrawals) } else { run.close(None) }
        };
        let finished = run().map_err(ReplayError::Execution)?;
        let same = finished.access_list.as_ref().is_some_and(|list| self.index.list().is(list));
        if self.is_listed() && !same { Err(ReplayError::Mismatch(NOT_THE_BLOCKS.to_owned())) } else { Ok(finished) }
    }

    /// Executes what waits. Where the whole list is there, its values are collected beside.
    fn run_waiting(&mut self, values: Option<&Values>) -> Result<(), ReplayError> {
        self.prefetch()?;
        if !self.started {
            self.started = true;
            let Settings { chain, codes, .. } = self.settings;
            self.block_itself(0, |view| {
                if self.whole {
                    Run::start(chain, codes, view, &self.header)?.close(None)
                } else {
                    Ok(Finished::default())
                }
            })?;
        }
        let receipts = self.execute(self.receipts.len()..self.transactions.len(), values)?;
        self.waiting_gas = 0;
        self.take_in_order(receipts)
    }

    fn prefetch(&mut self) -> Result<(), ReplayError> {
        if !self.index.wants_fetch() {
            return Ok(());
        }
        let (next, failed) = (AtomicUsize::new(0), OnceLock::new());
        let work = || {
            if let Err(error) = self.index.prefetch(&next) {
                let _ = failed.set(error);
            }
        };
        let claimed = || next.load(Ordering::Relaxed);
        self.settings.workers.read(&Reading { work: &work, claimed: &claimed, all: self.index.wanted() });
        self.index.set_fetched();
        failed.into_inner().map_or(Ok(()), |error| Err(error.into()))
    }

    /// What the block does by itself before or after its transactions, on the plain loop.
    fn block_itself(
        &self,
        at: u32,
        run: impl FnOnce(&dyn StateView) -> Result<Finished, ExecutionError>,
    ) -> Result<Finished, ReplayError> {
        let view = At::new(&self.index, at);
        let finished = run(&view);
        if let Some(outside) = view.outside.get() {
            return Err(outside.clone().into());
        }
        let mut finished = finished.map_err(ReplayError::Execution)?;
        self.index.compare_record(at, &finished.access_list.take().unwrap_or_default())?;
        Ok(finished)
    }

    /// Executes the transactions at these places on all threads; gives their receipts in order, gas counting from
    /// 0 in each.
    fn execute(&self, places: Range<usize>, values: Option<&Values>) -> Result<Vec<Receipt>, ReplayError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let first = places.start;
        let receipts: Vec<OnceLock<Receipt>> = std::iter::repeat_with(OnceLock::new).take(places.len()).collect();
        let order = Order::new(&self.transactions, places);
        let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), OnceLock::new());
        // A valid block's transactions use no more than it has, in whatever order they are executed.
        let gas_used = AtomicU64::new(self.receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used));
        self.settings.workers.run(&|| {
            if let Some(values) = values {
                values.collect(&self.index, self.whole.then_some(self.settings.view));
            }
            let mut thread = Thread::new(self);
            while !stop.load(Ordering::Relaxed)
                && let Some(claimed) = order.claim(next.fetch_add(1, Ordering::Relaxed))
            {
                let mut used = 0_u64;
                let mut transact = |at: usize| {
                    let receipt = thread.transact(&self.transactions[at], at)?;
                    used = used.saturating_add(receipt.gas_used);
                    let _ = receipts[at.saturating_sub(first)].set(receipt);
                    Ok::<_, ReplayError>(())
                };
                let done = claimed.iter().try_for_each(|at| transact(*at)).and_then(|()| {
                    let before = gas_used.fetch_add(used, Ordering::Relaxed);
                    if before.saturating_add(used) > self.header.gas_limit {
                        return Err(ReplayError::Mismatch(TOO_MUCH_GAS.to_owned()));
                    }
                    Ok(())
                });
                if let Err(error) = done {
                    stop.store(true, Ordering::Relaxed);
                    let _ = failed.set(error);
                }
            }
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        Ok(receipts.into_iter().filter_map(OnceLock::into_inner).collect())
    }

    /// Takes the next receipts: adds up the gas, and checks what a transaction may ask for where it stands.
    fn take_in_order(&mut self, mut receipts: Vec<Receipt>) -> Result<(), ReplayError> {
        let blobs = self.settings.chain.forks.blobs_at(self.header.timestamp);
        let blob_gas_max = blobs.map_or(0, |blobs| blobs.max_blob_gas_per_block());
        let gas_before = self.receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used);
        let (mut gas_used, first) = (gas_before, self.receipts.len());
        for ((at, transaction), receipt) in self.transactions.iter().enumerate().skip(first).zip(&mut receipts) {
            let envelope = transaction.envelope();
            let (wanted, left) = (envelope.gas_limit(), self.header.gas_limit.saturating_sub(gas_used));
            if wanted > left {
                return Err(ReplayError::Execution(Refusal::BlockGas { wanted, left }.in_block(at)));
            }
            let wanted = envelope.blob_gas_used().unwrap_or_default();
            let left = blob_gas_max.saturating_sub(self.blob_gas_used);
            if wanted > left {
                return Err(ReplayError::Execution(Refusal::BlobGas { wanted, left }.in_block(at)));
            }
            self.blob_gas_used = self.blob_gas_used.saturating_add(wanted);
            gas_used = gas_used.saturating_add(receipt.gas_used);
            receipt.cumulative_gas_used = gas_used;
        }
        metrics::GAS_USED.add(gas_used.saturating_sub(gas_before));
        metrics::TRANSACTION_EXECUTED.add(u64::try_from(receipts.len()).unwrap_or(u64::MAX));
        if self.receipts.is_empty() {
            self.receipts = receipts;
        } else {
            self.receipts.append(&mut receipts);
        }
        Ok(())
    }
}

/// What a transaction will cost, guessed before it runs: its gas limit, or next to nothing if it brings no input
/// and so most likely moves value only.
pub(crate) fn predicted_gas(transaction: &Transaction) -> u64 {
    let envelope = transaction.envelope();
    if envelope.input().is_empty() { TRANSFER_GAS_WORTH } else { envelope.gas_limit() }
}

/// What threads claim, the most expensive first: places of transactions, one at a time, transfers at the end and
/// several at a time.
struct Order {
    places: Vec<usize>,
    /// Where the transfers begin.
    transfers: usize,
}

impl Order {
    fn new(transactions: &[Arc<Transaction>], places: Range<usize>) -> Self {
        let (mut single, mut transfers) = (Vec::new(), Vec::with_capacity(places.len()));
        for at in places {
            let envelope = transactions[at].envelope();
            if envelope.input().is_empty() && envelope.gas_limit() <= TRANSFER_GAS_MAX {
                transfers.push(at);
            } else {
                single.push((std::cmp::Reverse(predicted_gas(&transactions[at])), at));
            }
        }
        // Places in rising order where the gas is the same.
        single.sort_unstable();
        let begin = single.len();
        let places = single.into_iter().map(|(_, at)| at).chain(transfers).collect();
        Self { places, transfers: begin }
    }

    /// The places of a claim, of which each number is made once.
    fn claim(&self, number: usize) -> Option<&[usize]> {
        let range = match number.checked_sub(self.transfers) {
            None => number..number.saturating_add(1),
            Some(later) => {
                let start = self.transfers.saturating_add(later.saturating_mul(TRANSFERS_CLAIMED));
                start..start.saturating_add(TRANSFERS_CLAIMED).min(self.places.len())
            }
        };
        self.places.get(range).filter(|places| !places.is_empty())
    }
}

/// Root and trie of a state.
type State = (B256, TrieHandle);

/// The block's net changes as its list says, and the state after them, made by one thread while the others execute.
/// They are the block's only once everything has been compared.
#[derive(Default)]
struct Values {
    begun: AtomicBool,
    changes: OnceLock<Result<(StateChanges, Option<State>), StateError>>,
}

impl Values {
    /// Collects them unless another thread does, and finds the state after them if there is a view of that before.
    fn collect(&self, index: &Index<'_>, view: Option<&dyn StateView>) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            let changes = index.changes().map(|changes| {
                // Whoever judges the block asks again where this fails, and tells why.
                let state = view.and_then(|view| view.root_after(None, &changes).ok());
                (changes, state)
            });
            let _ = self.changes.set(changes);
        }
    }

    /// What was collected; the changes alone if nobody has.
    fn of(self, index: &Index<'_>) -> Result<(StateChanges, Option<State>), StateError> {
        self.changes.into_inner().unwrap_or_else(|| Ok((index.changes()?, None)))
    }
}

/// The state before one transaction, as revm reads it.
struct TransactionState<'i, 'a> {
    at: At<'i, 'a>,
    codes: NearCodes<'i>,
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
        Ok(self.codes.get(&self.at, code_hash)?)
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

/// A thread that runs transactions of a block in any order.
struct Thread<'i, 'a> {
    replay: &'i Replay<'a>,
    /// `None` until a transaction is more than a transfer.
    evm: Option<ThreadEvm<'i, 'a>>,
    transfers: Transfers,
    moved: Moved,
}

impl<'i, 'a> Thread<'i, 'a> {
    fn new(replay: &'i Replay<'a>) -> Self {
        let transfers = Transfers::new(replay.settings.chain, &replay.header);
        Self { replay, evm: None, transfers, moved: Moved::default() }
    }

    fn new_evm(replay: &'i Replay<'a>) -> ThreadEvm<'i, 'a> {
        let (Settings { chain, codes, .. }, header) = (replay.settings, &replay.header);
        Context::mainnet()
            .with_db(TransactionState { at: At::new(&replay.index, 0), codes: NearCodes::new(codes) })
            .with_cfg(env::chain(chain, header.timestamp))
            .with_block(env::block(chain, header))
            .build_mainnet()
    }

    /// Executes the transaction at this place and compares it with the list; gas counts from 0.
    fn transact(&mut self, transaction: &Transaction, place: usize) -> Result<Receipt, ReplayError> {
        let at = u32::try_from(place.saturating_add(1)).unwrap_or(u32::MAX);
        let index = &self.replay.index;
        let state = At::new(index, at);
        let is_transfer = self.transfers.attempt(transaction, &mut self.moved, |address| state.numbered(address));
        if let Some(outside) = state.outside.into_inner() {
            return Err(outside.into());
        }
        if is_transfer? {
            index.compare_transfer(at, &self.moved)?;
            return Ok(transfer::receipt(transaction, 0));
        }
        let replay = self.replay;
        let evm = self.evm.get_or_insert_with(|| Self::new_evm(replay));
        evm.ctx.journaled_state.database.at.at = at;
        let done = evm.transact(env::transaction(transaction));
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                if let Some(outside) = evm.ctx.journaled_state.database.at.outside.take() {
                    return Err(outside.into());
                }
                return Err(match error {
                    EVMError::Database(ViewError(state)) => state.into(),
                    // On another state than the list says it might be valid.
                    other => ReplayError::Mismatch(format!("transaction {place}: {}", Refusal::from(other))),
                });
            }
        };
        index.compare(at, &done.state)?;
        Ok(outcome::receipt(transaction, done.result, 0))
    }
}

#[cfg(test)]
mod tests;
