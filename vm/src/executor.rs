//! The door: blocks are built and executed here, and calls answered.
//!
//! Promise: [`Executor::build`] and [`Executor::execute`] agree bit for bit; a block that one built the
//! other accepts, and a block with any field changed it refuses, naming the field and both values.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicBool},
};

use alloy_consensus::{EMPTY_ROOT_HASH, Header, Sealable, Sealed};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{B256, Bloom, map::AddressSet};
use alloy_rlp::Encodable;
use engine::{
    genesis::{ChainSpec, Fork},
    limits,
    ports::{BuildSettings, BuildTime, CallError, Candidates, ExecutionError, Executor, HintLimits, StateView},
    query::{AccessListOutcome, CallOutcome, CallRequest},
    types::{AccessList, Block, BlockBody, BuiltBlock, ExecutedBlock, NamedList, Transaction},
};
use revm::context_interface::result::InvalidTransaction;

use crate::{
    call::{self, Caller},
    code::CodeCache,
    crypto,
    error::Refusal,
    hint::{self, Sightings},
    lead::{Lane, Lead, patterns::Patterns},
    metrics, outcome,
    pace::Pace,
    replay::{Replay, ReplayError, Settings, predicted_gas},
    rules::{BLOB_TYPE, HeaderRules, equal, equal_if_any},
    sequential::{Finished, Run},
    transfer::TRANSFER_GAS,
    versions::Versions,
    workers::Workers,
};

/// Gas below which a block is not worth waking threads: a fifth of a millisecond of one core at 5 Ggas/s.
const GAS_MIN: u64 = 1_000_000;
/// Candidates taken out of the pool at a time while other threads guess ahead. Threads wake and learn anew for each:
/// with 256 a block of hot token payments took a tenth longer than the plain loop.
const STRETCH: usize = 1_024;
/// Candidates in a row that ask for more gas, bytes or time than is left before a build stops looking.
const MISFITS_MAX: usize = 64;
/// RLP bytes of a block beside its transactions: a header of some 700 bytes and list heads.
const BLOCK_OVERHEAD_BYTES: usize = 1_024;
/// Milliseconds in a second.
const SECOND_MS: u64 = 1_000;

/// Executes with revm.
#[derive(Debug)]
pub struct RevmExecutor {
    chain: Arc<ChainSpec>,
    rules: HeaderRules,
    codes: CodeCache,
    workers: Workers,
    patterns: Patterns,
    sightings: Sightings,
    threads_from: u64,
}

impl RevmExecutor {
    /// An executor for a Sluice chain.
    #[must_use]
    pub fn new(chain: Arc<ChainSpec>) -> Self {
        Self::with_rules(chain, HeaderRules::SLUICE)
    }

    /// An executor that judges headers by `rules`.
    #[must_use]
    pub fn with_rules(chain: Arc<ChainSpec>, rules: HeaderRules) -> Self {
        crypto::install();
        let (codes, workers) = (CodeCache::default(), Workers::alone());
        let (patterns, sightings) = (Patterns::default(), Sightings::default());
        Self { chain, rules, codes, workers, patterns, sightings, threads_from: GAS_MIN }
    }

    /// The same executor with these threads for blocks whose access list is known.
    #[must_use]
    pub fn with_workers(self, workers: Workers) -> Self {
        Self { workers, ..self }
    }

    /// The chain.
    #[must_use]
    pub const fn chain(&self) -> &Arc<ChainSpec> {
        &self.chain
    }

    /// Executes one transaction alone in the block that `header` describes, without system calls.
    ///
    /// # Errors
    /// [`ExecutionError::Invalid`] if the transaction is not valid there, [`ExecutionError::State`].
    pub fn transact(
        &self,
        view: &dyn StateView,
        header: &Header,
        transaction: &Transaction,
    ) -> Result<Finished, ExecutionError> {
        let mut run = Run::open(&self.chain, &self.codes, view, header);
        run.transact(transaction).map_err(|refusal| refusal.in_block(0))?;
        run.close(None)
    }

    /// The same executor that wakes its threads for blocks of at least so much predicted gas.
    #[must_use]
    pub fn with_threads_from(self, threads_from: u64) -> Self {
        Self { threads_from, ..self }
    }

    /// Executes the transactions of `block` one after the other, without header checks and without the block's
    /// own system calls; with `record` the access list is made as well.
    ///
    /// # Errors
    /// [`ExecutionError::Invalid`] naming the first transaction that is not valid, [`ExecutionError::State`].
    pub fn transactions(&self, view: &dyn StateView, block: &Block, record: bool) -> Result<Finished, ExecutionError> {
        let mut run = Run::open(&self.chain, &self.codes, view, block.header.inner());
        run.close_with(&self.workers);
        if record {
            run.start_record();
        }
        run.transact_all(&block.body.transactions)?;
        run.close(None)
    }

    /// Executes the transactions of `block` in order with the other threads guessing ahead, without header checks
    /// and system calls; with `record` the access list is made as well.
    ///
    /// # Errors
    /// As [`Self::transactions`].
    pub fn transactions_led(
        &self,
        view: &dyn StateView,
        block: &Block,
        record: bool,
    ) -> Result<Finished, ExecutionError> {
        let header = block.header.inner();
        let versions = Versions::new(view);
        let mut run = Run::open(&self.chain, &self.codes, view, header);
        run.close_with(&self.workers);
        if record {
            run.start_record();
        }
        if self.chain.fork_at(header.timestamp) < Fork::SpuriousDragon {
            // A fee recipient that exists though it is empty is revm's alone.
            run.transact_all(&block.body.transactions)?;
            return run.close(None);
        }
        let lead = self.lead(view, header);
        // In stretches, as a block is built.
        for (part, before) in block.body.transactions.chunks(STRETCH).zip((0_usize..).step_by(STRETCH)) {
            lead.walk(&mut run, &versions, part, |lane| {
                for at in 0..part.len() {
                    lane.transact(at).map_err(|refusal| refusal.in_block(before.saturating_add(at)))?;
                }
                Ok::<_, ExecutionError>(())
            })?;
        }
        run.close(None)
    }

    /// Executes the transactions of `block` along its access list, without header checks and system calls.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn transactions_listed(
        &self,
        view: &dyn StateView,
        block: &Block,
        list: &AccessList,
    ) -> Result<Finished, ReplayError> {
        let mut replay = self.replay(view, block.header.inner(), false);
        replay.take(Cow::Borrowed(&block.body.transactions), Cow::Borrowed(list))?;
        replay.close(None)
    }

    /// What a replay gave, or the plain loop's verdict where the replay can give none.
    pub(crate) fn settle(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
        replayed: Result<ExecutedBlock, ReplayError>,
    ) -> Result<ExecutedBlock, ExecutionError> {
        match replayed {
            Ok(executed) => Ok(executed),
            Err(ReplayError::Execution(error)) => Err(error),
            Err(ReplayError::Mismatch(reason) | ReplayError::Another(reason)) => {
                metrics::REPLAY_MISMATCH.increment();
                tracing::error!(height = block.header.number, reason, "access list disagrees with its block");
                self.execute(view, parent, block)
            }
        }
    }

    /// The replay alone: what disagrees with the list is an error.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn replay_listed(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
        list: &NamedList,
    ) -> Result<ExecutedBlock, ReplayError> {
        let invalid = |reason| ReplayError::Execution(ExecutionError::Invalid(reason));
        self.rules.check(&self.chain, parent, block).map_err(invalid)?;
        self.check_list_hash(block, || list.hash()).map_err(ReplayError::Mismatch)?;
        let mut replay = self.replay(view, block.header.inner(), true);
        replay.take(Cow::Borrowed(&block.body.transactions), Cow::Borrowed(list.list()))?;
        let finished = replay.close(block.body.withdrawals.as_ref())?;
        judge(view, block, finished, list.list().clone()).map_err(ReplayError::Execution)
    }

    /// What those who guess ahead need of a block with this header.
    pub(crate) fn lead<'a>(&'a self, view: &'a dyn StateView, header: &'a Header) -> Lead<'a> {
        let Self { chain, codes, workers, patterns, .. } = self;
        Lead { chain, codes, view, header, workers, patterns, gas_min: self.threads_from }
    }

    /// A Sluice block names its list; Ethereum's own blocks before Amsterdam do not.
    pub(crate) fn check_list_hash(&self, block: &Block, hash: impl FnOnce() -> B256) -> Result<(), String> {
        if !self.rules.consensus_header {
            return Ok(());
        }
        equal("access_list_hash", &block.consensus.access_list_hash, &hash())
    }

    pub(crate) const fn rules(&self) -> &HeaderRules {
        &self.rules
    }

    pub(crate) fn replay<'a>(&'a self, view: &'a dyn StateView, header: &Header, whole: bool) -> Replay<'a> {
        let (chain, codes, workers) = (&*self.chain, &self.codes, &self.workers);
        let settings = Settings { chain, codes, view, workers, gas_min: self.threads_from };
        Replay::new(settings, header.clone(), whole)
    }

    fn caller<'a>(&'a self, view: &'a dyn StateView, cancel: &'a AtomicBool) -> Caller<'a> {
        Caller { chain: &self.chain, codes: &self.codes, view, cancel }
    }

    /// The header of a block under construction: everything that is known before its transactions.
    fn open_header(&self, parent: &Sealed<Header>, settings: &BuildSettings) -> Header {
        let timestamp = settings.consensus.timestamp_ms / SECOND_MS;
        let fork = self.chain.fork_at(timestamp);
        Header {
            parent_hash: parent.seal(),
            number: parent.number.saturating_add(1),
            timestamp,
            beneficiary: settings.beneficiary,
            gas_limit: settings.gas_limit,
            base_fee_per_gas: Some(self.chain.base_fee.next(parent.inner())),
            extra_data: settings.extra_data.clone(),
            mix_hash: settings.mix_hash,
            withdrawals_root: (fork >= Fork::Shanghai).then_some(EMPTY_ROOT_HASH),
            excess_blob_gas: self.rules.excess_blob_gas(&self.chain, parent, timestamp),
            blob_gas_used: (fork >= Fork::Cancun).then_some(0),
            parent_beacon_block_root: (fork >= Fork::Cancun).then_some(settings.parent_id),
            ..Header::default()
        }
    }

    /// Takes candidates into `run` until the block is full, none is left or the time is over.
    fn fill<'a>(
        &'a self,
        lead: &Lead<'a>,
        versions: &'a Versions<'a>,
        run: &mut Run<'a>,
        filling: &mut Filling<'_>,
    ) -> Result<(), ExecutionError> {
        if self.workers.threads() == 1 {
            while filling.has_room(run) {
                let Some(transaction) = filling.candidates.next() else { return Ok(()) };
                filling.offer(&transaction, || run.transact(&transaction).map(drop))?;
            }
            return Ok(());
        }
        loop {
            let stretch: Vec<_> = std::iter::from_fn(|| filling.candidates.next()).take(STRETCH).collect();
            if stretch.is_empty() {
                return Ok(());
            }
            let done = lead.walk(run, versions, &stretch, |lane| filling.take_stretch(lane, &stretch))?;
            if !done {
                return Ok(());
            }
        }
    }
}

/// What a block under construction has taken so far.
struct Filling<'c> {
    blobs: bool,
    bytes_max: usize,
    candidates: &'c mut dyn Candidates,
    taken: Vec<Arc<Transaction>>,
    bytes: usize,
    /// Candidates in a row that asked for more gas, bytes or time than is left.
    misfits: usize,
    /// Senders of whom nothing further can be included.
    skipped: AddressSet,
    /// A transaction was undone after it had run.
    undone: bool,
}

impl Filling<'_> {
    fn has_room(&self, run: &Run<'_>) -> bool {
        run.gas_left() >= TRANSFER_GAS && self.misfits < MISFITS_MAX && !self.undone && !run.is_over()
    }

    /// Offers each candidate of a stretch that was taken out ahead; `false` if the block was full before its end.
    fn take_stretch(&mut self, lane: &mut Lane<'_, '_>, stretch: &[Arc<Transaction>]) -> Result<bool, ExecutionError> {
        for (at, transaction) in stretch.iter().enumerate() {
            if !self.has_room(lane.run()) {
                self.candidates.give_back();
                return Ok(false);
            }
            let executed =
                !self.skipped.contains(&transaction.sender()) && self.offer(transaction, || lane.transact(at))?;
            if !executed {
                lane.skip(at);
            }
        }
        Ok(true)
    }

    /// Takes a candidate if it fits and is valid; tells whether it was executed at all.
    fn offer(
        &mut self,
        transaction: &Arc<Transaction>,
        transact: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<bool, ExecutionError> {
        if transaction.type_byte() == BLOB_TYPE && !self.blobs {
            metrics::CANDIDATE_PASSED_OVER.increment();
            self.skip(transaction);
            return Ok(false);
        }
        let bytes_after = self.bytes.saturating_add(transaction.envelope().length());
        if bytes_after > self.bytes_max {
            self.misfits = self.misfits.saturating_add(1);
            self.skip(transaction);
            return Ok(false);
        }
        match transact() {
            Ok(()) => {
                self.bytes = bytes_after;
                self.misfits = 0;
                self.taken.push(transaction.clone());
                return Ok(true);
            }
            Err(Refusal::State(state)) => return Err(state.into()),
            // It is in the chain already, so the sender's next one may well be good.
            Err(Refusal::Invalid(InvalidTransaction::NonceTooLow { .. })) => {}
            Err(Refusal::TooSlow { took, left }) => {
                metrics::CANDIDATE_TOO_SLOW.increment();
                let (hash, sender) = (transaction.hash(), transaction.sender());
                tracing::warn!(%hash, %sender, ?took, ?left, "transaction thrown out: it takes too long");
                self.candidates.throw_out(transaction);
                self.undone = true;
                self.skipped.insert(sender);
                return Ok(true);
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::BlockGas { .. } | Refusal::BlobGas { .. } | Refusal::BlockTime { .. }) {
                    self.misfits = self.misfits.saturating_add(1);
                }
                self.skip(transaction);
            }
        }
        metrics::CANDIDATE_PASSED_OVER.increment();
        Ok(true)
    }

    fn skip(&mut self, transaction: &Transaction) {
        self.candidates.skip_sender(transaction.sender());
        self.skipped.insert(transaction.sender());
    }
}

/// Puts what execution gave into the header.
fn close_header(
    header: &mut Header,
    finished: &Finished,
    blooms: Option<&[Bloom]>,
    transactions: &[Arc<Transaction>],
    state_root: B256,
) {
    let (receipts_root, logs_bloom) = match blooms {
        Some(blooms) => outcome::receipts_root_over(&finished.receipts, blooms),
        None => outcome::receipts_root(&finished.receipts),
    };
    header.transactions_root = outcome::transactions_root(transactions);
    header.receipts_root = receipts_root;
    header.logs_bloom = logs_bloom;
    header.gas_used = finished.gas_used;
    header.state_root = state_root;
    header.requests_hash = finished.requests.as_ref().map(|requests| requests.requests_hash());
    if header.blob_gas_used.is_some() {
        header.blob_gas_used = Some(finished.blob_gas_used);
    }
}

/// Compares what execution gave with the header, field by field.
pub(crate) fn judge(
    view: &dyn StateView,
    block: &Arc<Block>,
    finished: Finished,
    access_list: Arc<AccessList>,
) -> Result<ExecutedBlock, ExecutionError> {
    let header = block.header.inner();
    // The cheap fields first: the state root costs more than all the others.
    let (receipts_root, logs_bloom) = outcome::receipts_root(&finished.receipts);
    let requests_hash = finished.requests.as_ref().map(|requests| requests.requests_hash());
    let compare = || {
        equal("gas_used", &header.gas_used, &finished.gas_used)?;
        equal("receipts_root", &header.receipts_root, &receipts_root)?;
        equal("logs_bloom", &header.logs_bloom, &logs_bloom)?;
        equal_if_any("requests_hash", header.requests_hash, requests_hash)
    };
    compare().map_err(ExecutionError::Invalid)?;
    let (state_root, trie) = match finished.state {
        Some(state) => state,
        None => view.root_after(None, &finished.changes)?,
    };
    equal("state_root", &header.state_root, &state_root).map_err(ExecutionError::Invalid)?;
    Ok(ExecutedBlock {
        block: block.clone(),
        receipts: Arc::new(finished.receipts),
        changes: Arc::new(finished.changes),
        trie,
        access_list,
    })
}

impl Executor for RevmExecutor {
    fn build(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        settings: &BuildSettings,
        candidates: &mut dyn Candidates,
        time: &BuildTime<'_>,
    ) -> Result<BuiltBlock, ExecutionError> {
        let mut header = self.open_header(parent, settings);
        let fork = self.chain.fork_at(header.timestamp);
        // Before Osaka a block may be larger, but its body could not travel.
        let bytes_max = limits::BLOCK_RLP_BYTES_MAX_OSAKA;
        let versions = Versions::new(view);
        let mut run = Run::start(&self.chain, &self.codes, view, &header)?;
        run.keep_pace(Pace::new(*time, self.workers.threads()));
        run.close_with(&self.workers);
        let lead = self.lead(view, &header);
        let mut filling = Filling {
            blobs: self.rules.blobs,
            bytes_max,
            candidates,
            taken: Vec::new(),
            bytes: BLOCK_OVERHEAD_BYTES,
            misfits: 0,
            skipped: AddressSet::default(),
            undone: false,
        };
        self.fill(&lead, &versions, &mut run, &mut filling)?;
        let (transactions, undone) = (filling.taken, filling.undone);
        if undone {
            // The state remembers what was read, and an access list names nothing that its block does not touch.
            run = Run::start(&self.chain, &self.codes, view, &header)?;
            run.close_with(&self.workers);
            run.transact_all(&transactions)?;
        }
        let blooms = run.take_blooms();
        let withdrawals = (fork >= Fork::Shanghai).then(Withdrawals::default);
        let mut finished = run.finish(withdrawals.as_ref())?;
        let access_list = finished.access_list.take().unwrap_or_default();
        let root = || view.root_after(None, &finished.changes);
        let (access_list_hash, root) = self.workers.beside(|| access_list.hash(), root);
        let (state_root, trie) = root?;
        close_header(&mut header, &finished, blooms.as_deref(), &transactions, state_root);
        let header = header.seal_slow();
        let mut consensus = settings.consensus.clone();
        consensus.block_hash = header.seal();
        consensus.access_list_hash = access_list_hash;
        let block = Block { consensus, header, body: BlockBody { transactions, withdrawals } };
        // Settings that make an invalid block must not leave this node.
        self.rules.check_built(&self.chain, parent, &block).map_err(ExecutionError::Invalid)?;
        Ok(BuiltBlock(ExecutedBlock {
            block: Arc::new(block),
            receipts: Arc::new(finished.receipts),
            changes: Arc::new(finished.changes),
            trie,
            access_list: Arc::new(access_list),
        }))
    }

    fn execute(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.rules.check(&self.chain, parent, block).map_err(ExecutionError::Invalid)?;
        let mut run = Run::start(&self.chain, &self.codes, view, block.header.inner())?;
        run.close_with(&self.workers);
        run.transact_all(&block.body.transactions)?;
        let mut finished = run.finish(block.body.withdrawals.as_ref())?;
        let access_list = Arc::new(finished.access_list.take().unwrap_or_default());
        let executed = judge(view, block, finished, access_list)?;
        self.check_list_hash(block, || executed.access_list.hash()).map_err(ExecutionError::Invalid)?;
        Ok(executed)
    }

    /// Where list and transactions disagree the plain loop decides what the block is worth, and
    /// `vm_replay_mismatch_total` tells.
    fn execute_listed(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
        list: &NamedList,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.settle(view, parent, block, self.replay_listed(view, parent, block, list))
    }

    fn wants_lists(&self) -> bool {
        self.workers.threads() > 1
    }

    fn is_worth_listing(&self, block: &Block) -> bool {
        let transactions = &block.body.transactions;
        let predicted = transactions.iter().fold(0_u64, |sum, tx| sum.saturating_add(predicted_gas(tx)));
        predicted >= self.threads_from
    }

    fn wants_hint(&self, transaction: &Transaction) -> bool {
        // Where nobody guesses, nobody asks where transactions meet.
        self.workers.threads() > 1 && self.sightings.wants(transaction)
    }

    fn hint(&self, view: &dyn StateView, parent: &Sealed<Header>, transaction: &Transaction, limits: &HintLimits<'_>) {
        let Self { chain, codes, patterns, sightings, .. } = self;
        if let Some(state) = hint::simulate(chain, codes, view, parent.inner(), transaction, limits) {
            sightings.learn(patterns, transaction, &state);
        }
    }

    fn call(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<CallOutcome, CallError> {
        call::call(&self.caller(view, cancel), request)
    }

    fn estimate_gas(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<u64, CallError> {
        call::estimate::estimate_gas(&self.caller(view, cancel), request)
    }

    fn access_list(
        &self,
        view: &dyn StateView,
        request: &CallRequest,
        cancel: &AtomicBool,
    ) -> Result<AccessListOutcome, CallError> {
        call::access_list::access_list(&self.caller(view, cancel), request)
    }
}

#[cfg(test)]
mod tests;
