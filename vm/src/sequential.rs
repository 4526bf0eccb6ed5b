//! The plain loop: one transaction after the other on one EVM.
//!
//! It is the reference for every parallel mode and their fallback: whatever they give must be, bit for
//! bit, what this gives.

use std::sync::Arc;

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::{eip4895::Withdrawals, eip7685::Requests};
use alloy_primitives::{B256, Bloom, U256};
use engine::{
    genesis::{ChainSpec, Fork},
    ports::{ExecutionError, StateView},
    types::{AccessList, Receipt, StateChanges, Transaction, TrieHandle},
};
use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    context::{BlockEnv, CfgEnv, Journal, TxEnv},
    state::Account as EvmAccount,
};

use crate::{
    code::CodeCache,
    database::BlockState,
    env,
    error::Refusal,
    guess::Guess,
    metrics,
    outcome::{self, Blooms},
    pace::Pace,
    system,
    transfer::{self, Moved, Transfers},
    versions::Versions,
    workers::Workers,
};

/// Accounts that a block touches beside its transactions: fee recipient, system contracts and their caller.
const BLOCK_ACCOUNTS: usize = 8;
static ALONE: Workers = Workers::alone();

/// revm over a block's state, without an inspector.
pub type BlockEvm<'a> = MainnetEvm<Context<BlockEnv, TxEnv, CfgEnv, BlockState<'a>, Journal<BlockState<'a>>, ()>>;

/// A block in the middle of its execution.
pub struct Run<'a> {
    chain: &'a ChainSpec,
    fork: Fork,
    evm: BlockEvm<'a>,
    /// `None` where every transaction goes through the interpreter.
    transfers: Option<Transfers>,
    /// What the last transfer touched.
    moved: Moved,
    /// Who makes the list while others wait for something else; `None` for nobody.
    workers: Option<&'a Workers>,
    /// `None` where no clock is looked at: everywhere but in a build.
    pace: Option<Pace<'a>>,
    /// Made along the way where a clock is looked at, so that their time counts.
    blooms: Option<(Blooms, Vec<Bloom>)>,
    gas_limit: u64,
    blob_gas_max: u64,
    receipts: Vec<Receipt>,
    gas_used: u64,
    blob_gas_used: u64,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("gas_used", &self.gas_used).finish_non_exhaustive()
    }
}

/// What a block comes to.
#[derive(Debug, Default)]
pub struct Finished {
    /// One receipt per transaction.
    pub receipts: Vec<Receipt>,
    /// Net changes of the state.
    pub changes: StateChanges,
    /// Gas used by all transactions.
    pub gas_used: u64,
    /// Blob gas used by all transactions.
    pub blob_gas_used: u64,
    /// Requests of EIP-7685; `None` before Prague.
    pub requests: Option<Requests>,
    /// Everything touched, if a record was kept.
    pub access_list: Option<AccessList>,
    /// Root and trie of the state after it, if they were computed beside the transactions.
    pub state: Option<(B256, TrieHandle)>,
}

impl<'a> Run<'a> {
    /// Opens a block with this header on the state of `view`; no system contract is called yet.
    #[must_use]
    pub fn open(chain: &'a ChainSpec, codes: &'a CodeCache, view: &'a dyn StateView, header: &Header) -> Self {
        let evm = Context::mainnet()
            .with_db(BlockState::new(view, codes))
            .with_cfg(env::chain(chain, header.timestamp))
            .with_block(env::block(chain, header))
            .build_mainnet();
        let blob_gas_max = chain.forks.blobs_at(header.timestamp).map_or(0, |blobs| blobs.max_blob_gas_per_block());
        Self {
            chain,
            fork: chain.fork_at(header.timestamp),
            evm,
            transfers: Some(Transfers::new(chain, header)),
            moved: Moved::default(),
            workers: None,
            pace: None,
            blooms: None,
            gas_limit: header.gas_limit,
            blob_gas_max,
            receipts: Vec::new(),
            gas_used: 0,
            blob_gas_used: 0,
        }
    }

    /// Keeps the record from which the block's access list is made.
    pub fn start_record(&mut self) {
        self.evm.ctx.journaled_state.database.start_record();
    }

    /// Holds the transactions of a build to its time.
    pub(crate) fn keep_pace(&mut self, pace: Pace<'a>) {
        self.pace = Some(pace);
        self.blooms = Some((Blooms::default(), Vec::new()));
    }

    /// The blooms of all receipts if they were made along the way.
    pub(crate) fn take_blooms(&mut self) -> Option<Vec<Bloom>> {
        self.blooms.take().map(|(_, blooms)| blooms)
    }

    /// Whether a build has no time left for another transaction.
    pub(crate) fn is_over(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_over)
    }

    /// Lets the interpreter run transfers as well: the reference that they are compared with.
    pub fn interpret_transfers(&mut self) {
        self.transfers = None;
    }

    /// Executes all of a block's transactions in order.
    ///
    /// # Errors
    /// [`ExecutionError::Invalid`] naming the first that is not valid, [`ExecutionError::State`].
    pub(crate) fn transact_all(&mut self, transactions: &[Arc<Transaction>]) -> Result<(), ExecutionError> {
        self.reserve(transactions.len());
        for (index, transaction) in transactions.iter().enumerate() {
            self.transact(transaction).map_err(|refusal| refusal.in_block(index))?;
        }
        Ok(())
    }

    /// Makes room for so many further transactions, each with a sender and somebody else.
    pub(crate) fn reserve(&mut self, transactions: usize) {
        self.receipts.reserve(transactions);
        // And the fee recipient with some that the block itself touches.
        self.evm.ctx.journaled_state.database.reserve(transactions.saturating_mul(2).saturating_add(BLOCK_ACCOUNTS));
    }

    /// Lets these threads help when the block is closed.
    pub(crate) const fn close_with(&mut self, workers: &'a Workers) {
        self.workers = Some(workers);
    }

    /// Shows every further commit to those who guess ahead.
    pub(crate) fn publish_to(&mut self, versions: &'a Versions<'a>) {
        self.evm.ctx.journaled_state.database.publish_to(versions);
    }

    /// Whether anybody guesses at present.
    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.evm.ctx.journaled_state.database.set_quiet(quiet);
    }

    /// Takes over what a guess says of the next transaction if everything it read is still so, and if a build has
    /// time left for whatever it took to guess; else gives it back, with the place that differs among its hot ones.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn adopt(
        &mut self,
        transaction: &Transaction,
        mut guess: Box<Guess>,
    ) -> Result<Result<(), Box<Guess>>, Refusal> {
        let blob_gas = self.check_room(transaction)?;
        if self.pace.is_some_and(|pace| pace.is_spent()) {
            return Ok(Err(guess));
        }
        let beneficiary = self.evm.ctx.block.beneficiary;
        // A fee recipient that ends or begins in the transaction is paid before it does.
        let unsettled =
            |account: &EvmAccount| account.is_selfdestructed() || account.is_created() || account.is_empty();
        let state = &mut self.evm.ctx.journaled_state.database;
        if guess.state.get(&beneficiary).is_some_and(unsettled)
            || !state.reconcile(&mut guess, transaction.sender(), upfront(transaction))?
        {
            return Ok(Err(guess));
        }
        state.take_reads(&guess.reads)?;
        state.next_index();
        match guess.state.get_mut(&beneficiary) {
            Some(account) => {
                account.info.balance = account.info.balance.saturating_add(guess.reward);
                account.mark_touch();
                state.commit(guess.state);
            }
            None => {
                state.commit(guess.state);
                state.credit(beneficiary, guess.reward)?;
            }
        }
        let receipt = outcome::receipt(transaction, guess.result, self.gas_used);
        self.push(receipt, blob_gas);
        Ok(Ok(()))
    }

    /// Checks what a transaction asks of the block, and gives its blob gas.
    fn check_room(&self, transaction: &Transaction) -> Result<u64, Refusal> {
        let wanted = transaction.envelope().gas_limit();
        if wanted > self.gas_left() {
            return Err(Refusal::BlockGas { wanted, left: self.gas_left() });
        }
        let blob_gas = transaction.envelope().blob_gas_used().unwrap_or_default();
        let blob_gas_left = self.blob_gas_max.saturating_sub(self.blob_gas_used);
        if blob_gas > blob_gas_left {
            return Err(Refusal::BlobGas { wanted: blob_gas, left: blob_gas_left });
        }
        Ok(blob_gas)
    }

    /// Takes receipts of transactions that were executed elsewhere.
    pub(crate) fn take_receipts(&mut self, receipts: Vec<Receipt>) {
        self.receipts = receipts;
    }

    /// Opens a block and makes the system calls that come before its transactions; keeps the record.
    ///
    /// # Errors
    /// [`ExecutionError::State`].
    pub fn start(
        chain: &'a ChainSpec,
        codes: &'a CodeCache,
        view: &'a dyn StateView,
        header: &Header,
    ) -> Result<Self, ExecutionError> {
        let mut run = Self::open(chain, codes, view, header);
        run.start_record();
        system::before_transactions(&mut run.evm, run.fork, header)?;
        Ok(run)
    }

    /// An account as the transactions so far have left it.
    ///
    /// # Errors
    /// [`StateError`](engine::ports::StateError).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn account(
        &mut self,
        address: alloy_primitives::Address,
    ) -> Result<Option<engine::types::Account>, engine::ports::StateError> {
        self.evm.ctx.journaled_state.database.account(address)
    }

    /// Gas left for further transactions.
    #[must_use]
    pub const fn gas_left(&self) -> u64 {
        self.gas_limit.saturating_sub(self.gas_used)
    }

    /// Executes the next transaction, or leaves everything as it was.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn transact(&mut self, transaction: &Transaction) -> Result<&Receipt, Refusal> {
        let blob_gas = self.check_room(transaction)?;
        if let Some(transfers) = &self.transfers {
            let state = &mut self.evm.ctx.journaled_state.database;
            let moved = &mut self.moved;
            if transfers.attempt(transaction, moved, |address| state.numbered(address))? {
                state.next_index();
                state.commit_transfer(moved)?;
                return Ok(self.push(transfer::receipt(transaction, self.gas_used), 0));
            }
        }
        let is_first = self.receipts.is_empty();
        let gas_limit = transaction.envelope().gas_limit();
        let begun = match self.pace {
            Some(pace) => Some((pace, pace.begin(gas_limit, is_first)?)),
            None => None,
        };
        let outcome = match self.evm.transact(env::transaction(transaction)) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The journal still holds what the transaction loaded.
                let _ = self.evm.finalize();
                return Err(error.into());
            }
        };
        if let Some((pace, begun)) = begun {
            pace.end(begun)?;
        }
        let state = &mut self.evm.ctx.journaled_state.database;
        state.next_index();
        state.commit(outcome.state);
        let receipt = outcome::receipt(transaction, outcome.result, self.gas_used);
        Ok(self.push(receipt, blob_gas))
    }

    fn push(&mut self, receipt: Receipt, blob_gas: u64) -> &Receipt {
        self.gas_used = receipt.cumulative_gas_used;
        self.blob_gas_used = self.blob_gas_used.saturating_add(blob_gas);
        if let Some((maker, blooms)) = &mut self.blooms {
            blooms.push(maker.of(&receipt));
        }
        self.receipts.push(receipt);
        metrics::TRANSACTION_EXECUTED.increment();
        &self.receipts[self.receipts.len() - 1]
    }

    /// Collects the requests, credits the withdrawals and closes the block.
    ///
    /// # Errors
    /// [`ExecutionError::Invalid`] if a system contract fails, [`ExecutionError::State`].
    pub fn finish(mut self, withdrawals: Option<&Withdrawals>) -> Result<Finished, ExecutionError> {
        self.evm.ctx.journaled_state.database.next_index();
        let requests = system::requests(&mut self.evm, self.chain, self.fork, &self.receipts)?;
        system::withdrawals(&mut self.evm, withdrawals)?;
        self.close(requests)
    }

    /// Closes without the system calls: what the transactions alone come to.
    ///
    /// # Errors
    /// [`ExecutionError::State`].
    pub fn close(self, requests: Option<Requests>) -> Result<Finished, ExecutionError> {
        metrics::GAS_USED.add(self.gas_used);
        let workers = self.workers.unwrap_or(&ALONE);
        let (changes, access_list) = self.evm.ctx.journaled_state.database.into_parts(workers)?;
        Ok(Finished {
            receipts: self.receipts,
            changes,
            gas_used: self.gas_used,
            blob_gas_used: self.blob_gas_used,
            requests,
            access_list,
            state: None,
        })
    }
}

/// What the sender must own before a transaction runs: value and fees at their highest.
///
/// Source: EIP-1559, EIP-4844 (the fee of blobs is apart).
fn upfront(transaction: &Transaction) -> U256 {
    let envelope = transaction.envelope();
    let blob_gas = envelope.blob_gas_used().unwrap_or_default();
    let product = |gas: u64, price: u128| U256::from(gas).saturating_mul(U256::from(price));
    product(envelope.gas_limit(), envelope.max_fee_per_gas())
        .saturating_add(product(blob_gas, envelope.max_fee_per_blob_gas().unwrap_or_default()))
        .saturating_add(envelope.value())
}
