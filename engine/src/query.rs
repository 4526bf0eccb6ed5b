//! The read-only face for clients: blocks, receipts, accounts, calls, the state of the pool.
//!
//! Everything here blocks the calling thread for as long as a disk read or a call takes, so an
//! asynchronous caller runs it on a pool of its own.

mod heads;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicBool},
};

use alloy_consensus::{Header, Sealed};
use alloy_eips::{eip2930::AccessList, eip7702::SignedAuthorization};
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256};

use self::heads::{Head, Heads};
use crate::{
    admission::{Mempool, PoolStatus},
    execution::Pending,
    genesis::ChainSpec,
    light::{self, FinalityProof},
    limits, metrics,
    ports::{AccountProof, CallError, Executor, StateError, StateView, Store, StoreError},
    standing::{Standing, StandingNow},
    types::{
        Account, Block, Certificate, CommittedBlock, ConsensusHeader, Epoch, HeadSlice, Height, LogBlocks, LogFilter,
        PooledTransaction, PublicKey, RawTransaction, Slot, StateWish, Transaction, ValidatorSet,
    },
};

/// A call to run against some state, with everything optional already decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallRequest {
    /// Sender; needs no key and pays only if a fee is named.
    pub from: Address,
    /// Callee, or a creation.
    pub to: TxKind,
    /// Gas allowance; `None` is the most a call may use.
    pub gas: Option<u64>,
    /// Maximum fee per gas in wei; zero leaves the base fee unchecked.
    pub gas_price: u128,
    /// Priority fee per gas in wei.
    pub priority_fee: Option<u128>,
    /// Wei sent along.
    pub value: U256,
    /// Call data or init code.
    pub input: Bytes,
    /// Nonce; `None` is the account's own.
    pub nonce: Option<u64>,
    /// Access list of EIP-2930.
    pub access_list: AccessList,
    /// Authorizations of EIP-7702.
    pub authorizations: Vec<SignedAuthorization>,
    /// The block the call pretends to be in.
    pub block: CallBlock,
    /// State changes the call pretends happened before it.
    pub state_overrides: BTreeMap<Address, AccountOverride>,
}

/// The block environment of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallBlock {
    /// The header whose environment the call sees: that of the block itself.
    pub header: Header,
    /// Fields of it to replace.
    pub overrides: BlockOverride,
}

/// Fields of a block environment that a caller replaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockOverride {
    /// NUMBER.
    pub number: Option<U256>,
    /// TIMESTAMP.
    pub timestamp: Option<u64>,
    /// GASLIMIT.
    pub gas_limit: Option<u64>,
    /// COINBASE.
    pub beneficiary: Option<Address>,
    /// PREVRANDAO.
    pub random: Option<B256>,
    /// BASEFEE.
    pub base_fee: Option<u64>,
    /// Answers of BLOCKHASH.
    pub block_hashes: BTreeMap<u64, B256>,
}

/// Fields of an account that a caller replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountOverride {
    /// Nonce.
    pub nonce: Option<u64>,
    /// Balance.
    pub balance: Option<U256>,
    /// Code.
    pub code: Option<Bytes>,
    /// The whole storage.
    pub storage: Option<BTreeMap<U256, U256>>,
    /// Single slots.
    pub storage_diff: BTreeMap<U256, U256>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It returned.
    Success,
    /// It reverted; the output says why.
    Revert,
    /// It was stopped; the text is geth's, such as `out of gas`.
    Halt(String),
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutcome {
    /// How it ended.
    pub result: CallResult,
    /// Return or revert data.
    pub output: Bytes,
    /// Gas used after refunds.
    pub gas_used: u64,
    /// Logs of a successful call.
    pub logs: Vec<Log>,
}

/// What access-list creation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessListOutcome {
    /// The list.
    pub access_list: AccessList,
    /// Gas used with the list in place.
    pub gas_used: u64,
    /// Why the call failed, if it did.
    pub error: Option<String>,
}

/// The block a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRef {
    /// Newest block that clients may see.
    Latest,
    /// Newest block that is final and durable here.
    Finalized,
    /// The block being built, else the latest.
    Pending,
    /// By height.
    Height(Height),
    /// By hash.
    Hash(B256),
}

/// An included transaction, or one that waits.
#[derive(Clone, Debug)]
pub enum TransactionPlace {
    /// In a block.
    Included {
        /// The block.
        block: Arc<CommittedBlock>,
        /// Index within it.
        index: usize,
    },
    /// In the pool or in a block that is not durable yet.
    Waiting(PooledTransaction),
}

/// A validator set, and the header and certificate that handed over to it.
pub type EpochSet = (ValidatorSet, Option<(ConsensusHeader, Certificate)>);

/// What a client sees of the node.
#[derive(Clone)]
pub struct Query {
    store: Arc<dyn Store>,
    executor: Arc<dyn Executor>,
    pool: Arc<Mempool>,
    pending: Arc<Pending>,
    standing: Arc<Standing>,
    heads: Arc<Heads>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").finish_non_exhaustive()
    }
}

impl Query {
    /// Joins what answers.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn Store>,
        executor: Arc<dyn Executor>,
        pool: Arc<Mempool>,
        pending: Arc<Pending>,
        standing: Arc<Standing>,
    ) -> Self {
        Self { store, executor, pool, pending, standing, heads: Arc::default() }
    }

    /// Where ordering is: the epoch and the least slot that nothing has decided.
    #[must_use]
    pub fn place(&self) -> (Epoch, Slot) {
        self.standing.place()
    }

    /// Who leads now and next, by the public schedule; one validator may do both.
    #[must_use]
    pub fn leaders(&self) -> [PublicKey; 2] {
        self.standing.leaders()
    }

    /// How the node stands.
    #[must_use]
    pub fn standing(&self) -> StandingNow {
        self.standing.now()
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<ChainSpec> {
        self.store.chain()
    }

    /// The newest durable block. On a chain of one validator `latest`, `safe` and `finalized` are this.
    #[must_use]
    pub fn tip(&self) -> Arc<CommittedBlock> {
        self.store.tip()
    }

    /// Height of a block reference; `Pending` answers as `Latest`, since a block is durable
    /// milliseconds after it is built.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown block is `Ok(None)`.
    pub fn height(&self, block: BlockRef) -> Result<Option<Height>, StoreError> {
        let tip = self.store.tip().height();
        Ok(match block {
            BlockRef::Latest | BlockRef::Finalized | BlockRef::Pending => Some(tip),
            BlockRef::Height(height) => (height <= tip).then_some(height),
            BlockRef::Hash(hash) => self.store.height_of(hash)?,
        })
    }

    /// The block with its receipts.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown block is `Ok(None)`.
    pub fn block(&self, block: BlockRef) -> Result<Option<Arc<CommittedBlock>>, StoreError> {
        match self.height(block)? {
            Some(height) => self.store.block(height),
            None => Ok(None),
        }
    }

    /// The header.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown block is `Ok(None)`.
    pub fn header(&self, block: BlockRef) -> Result<Option<Sealed<Header>>, StoreError> {
        match self.height(block)? {
            Some(height) => self.store.header(height),
            None => Ok(None),
        }
    }

    /// What shows that a durable block is final; `None` for block 0, which is so by itself.
    ///
    /// # Errors
    /// Those of [`light::proof_of`].
    pub fn finality(&self, height: Height) -> Result<Option<FinalityProof>, StoreError> {
        light::proof_of(&*self.store, height)
    }

    /// Who votes in an epoch and, but for the first, the header and certificate that handed over to them; `None` if it
    /// has not begun.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn epoch(&self, epoch: Epoch) -> Result<Option<EpochSet>, StoreError> {
        light::set_of(&*self.store, epoch)
    }

    /// The state after the block at `height`.
    ///
    /// # Errors
    /// [`StoreError::NotKept`] below the kept range, [`StoreError::Unavailable`] above it.
    pub fn view(&self, height: Height) -> Result<Arc<dyn StateView>, StoreError> {
        self.store.view(height)
    }

    /// Next nonce of `address`, counting its executable transactions in the pool.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pending_nonce(&self, address: Address) -> Result<u64, StoreError> {
        if let Some(nonce) = self.pool.next_nonce(address) {
            return Ok(nonce);
        }
        let unreadable = |error: StateError| StoreError::Failed(error.to_string());
        let (view, _) = self.pending.view(&*self.store).map_err(unreadable)?;
        Ok(view.account(address).map_err(unreadable)?.map_or(0, |account| account.nonce))
    }

    /// An account at a height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn account(&self, height: Height, address: Address) -> Result<Option<Account>, StoreError> {
        self.view(height)?.account(address).map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// Where a transaction is.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown hash is `Ok(None)`.
    pub fn transaction(&self, hash: B256) -> Result<Option<TransactionPlace>, StoreError> {
        if let Some(waiting) = self.pool.get(hash).or_else(|| self.pending.transaction(hash)) {
            return Ok(Some(TransactionPlace::Waiting(waiting)));
        }
        let Some((height, index)) = self.store.transaction_position(hash)? else {
            return Ok(None);
        };
        Ok(self.store.block(height)?.map(|block| TransactionPlace::Included { block, index }))
    }

    /// Blocks between two heights that hold a log with what a filter names; not all of them at once, see
    /// [`Store::blocks_with_logs`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blocks_with_logs(
        &self,
        filter: &LogFilter,
        heights: RangeInclusive<Height>,
    ) -> Result<LogBlocks, StoreError> {
        self.store.blocks_with_logs(filter, heights)
    }

    /// Proof of an account and slots at a height.
    ///
    /// # Errors
    /// [`StoreError::NoProof`] below the kept range, [`StoreError::Unavailable`] above it.
    pub fn proof(&self, height: Height, address: Address, slots: &[U256]) -> Result<AccountProof, StoreError> {
        self.store.proof(height, address, slots)
    }

    /// What a node asks for that takes the state over; `None` if there is nothing to give.
    #[must_use]
    pub fn state(&self, wish: &StateWish) -> Option<Bytes> {
        match *wish {
            StateWish::Part { block, owner, from } => {
                let part = self.store.state_part(block, owner, from).ok()?;
                metrics::STATE_PART_GIVEN.increment();
                Some(part)
            }
            StateWish::Head { block, from, at } => {
                let kept = block.and_then(|block| self.heads.get(block, from));
                let Head { block, bytes, .. } = kept.or_else(|| self.head(block, from))?;
                let at = usize::try_from(at).ok().filter(|at| *at <= bytes.len())?;
                let end = at.saturating_add(limits::STATE_PART_BYTES).min(bytes.len());
                let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Some(HeadSlice { block, total, bytes: bytes.slice(at..end) }.encoded().into())
            }
        }
    }

    /// Makes what shows that a block is final, and keeps it for the next piece.
    fn head(&self, block: Option<B256>, from: Epoch) -> Option<Head> {
        let (block, bytes) = self.store.state_head(block, from).ok()?;
        u64::try_from(bytes.len()).ok().filter(|length| *length <= limits::STATE_HEAD_BYTES_MAX)?;
        let head = Head { block, from, bytes };
        self.heads.keep(head.clone());
        Some(head)
    }

    /// Base fee of the next block, in wei.
    #[must_use]
    pub fn next_base_fee(&self) -> u64 {
        self.chain().base_fee.next(self.store.tip().block.header.inner())
    }

    /// The header a block built now would have, as far as calls can see it: one higher, later, with
    /// the next base fee.
    #[must_use]
    pub fn pending_header(&self, now_seconds: u64) -> Header {
        let tip = self.store.tip();
        let parent = tip.block.header.inner();
        Header {
            parent_hash: tip.hash(),
            number: parent.number.saturating_add(1),
            timestamp: now_seconds.max(parent.timestamp),
            base_fee_per_gas: Some(self.next_base_fee()),
            ..parent.clone()
        }
    }

    /// Runs a call on the state after `height`.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, height: Height, request: &CallRequest, cancel: &AtomicBool) -> Result<CallOutcome, CallError> {
        self.executor.call(&*self.call_view(height)?, request, cancel)
    }

    /// Estimates gas on the state after `height`.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn estimate_gas(&self, height: Height, request: &CallRequest, cancel: &AtomicBool) -> Result<u64, CallError> {
        self.executor.estimate_gas(&*self.call_view(height)?, request, cancel)
    }

    /// Creates an access list on the state after `height`.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn access_list(
        &self,
        height: Height,
        request: &CallRequest,
        cancel: &AtomicBool,
    ) -> Result<AccessListOutcome, CallError> {
        self.executor.access_list(&*self.call_view(height)?, request, cancel)
    }

    /// Whether blocks are executed faster here along their access lists.
    #[must_use]
    pub fn wants_lists(&self) -> bool {
        self.executor.wants_lists()
    }

    fn call_view(&self, height: Height) -> Result<Arc<dyn StateView>, CallError> {
        self.view(height).map_err(|error| CallError::Refused(error.to_string()))
    }

    /// A transaction of the pool by its hash.
    #[must_use]
    pub fn pooled(&self, hash: B256) -> Option<PooledTransaction> {
        self.pool.get(hash)
    }

    /// A transaction whose sender was recovered here lately, by its hash.
    #[must_use]
    pub fn recovered(&self, hash: B256) -> Option<Arc<Transaction>> {
        self.pool.recovered(hash)
    }

    /// Keeps the transactions of a block that others made, so that they are not recovered again.
    pub fn remember(&self, block: &Block) {
        block.body.transactions.iter().for_each(|transaction| self.pool.remember(transaction));
    }

    /// Counts of the pool.
    #[must_use]
    pub fn pool_status(&self) -> PoolStatus {
        self.pool.status()
    }

    /// What waits in the pool, in an order in which it can be admitted again.
    #[must_use]
    pub fn waiting(&self) -> Vec<RawTransaction> {
        self.pool.waiting().iter().map(|transaction| RawTransaction::new(transaction.encoded().clone())).collect()
    }

    /// Everything in the pool by sender: executable, then queued, each in order of nonce.
    #[must_use]
    pub fn pool_content(&self) -> BTreeMap<Address, (Vec<PooledTransaction>, Vec<PooledTransaction>)> {
        self.pool.content()
    }
}
