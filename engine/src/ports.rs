//! What the rules need from the world: object-safe ports.
//!
//! | port | given by | called | gives |
//! |---|---|---|---|
//! | [`Executor`] | vm; a toy in `testing` | once per block, and per read-only call or hint | layers, receipts, header fields |
//! | [`StateView`] | storage under layers; a map in `testing` | per cold read | accounts, slots, code, block hashes, the root after a block |
//! | [`Store`] | storage; memory in `testing` | per block | durable blocks, views, proofs |
//! | [`Journal`] | storage; memory in `testing` | per step that signs | what was signed survives |
//! | [`Network`] | net | per message | `Sent` or `Full`, at once |

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, U256};

use crate::{
    genesis::ChainSpec,
    ordering::journal::{Entry, KeptBlock},
    query::{AccessListOutcome, CallOutcome, CallRequest},
    types::{
        Account, Block, BuiltBlock, CommittedBlock, ConsensusHeader, Contact, Epoch, EpochStart, ExecutedBlock,
        FinalizedBlock, Height, Letter, LogBlocks, LogFilter, NamedList, PublicKey, SignedHeader, Slot, StateChanges,
        Transaction, TrieHandle,
    },
};

/// Why a state read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The store cannot be read.
    #[error("state is unreadable: {0}")]
    Unreadable(String),
    /// The stored state contradicts itself; the node must stop.
    #[error("state is corrupt: {0}")]
    Corrupt(String),
    /// The state at this height is no longer (or not yet) kept.
    #[error("state at height {0} is not available")]
    Unavailable(Height),
}

/// State at one height, frozen; everything read through one view is consistent.
pub trait StateView: Send + Sync {
    /// The account, `None` where the trie has none.
    ///
    /// # Errors
    /// [`StateError`]; a missing account is not an error.
    fn account(&self, address: Address) -> Result<Option<Account>, StateError>;

    /// The value of a storage slot, zero where the trie has none.
    ///
    /// # Errors
    /// [`StateError`].
    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError>;

    /// Code by its hash.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for a hash that no account could name.
    fn code(&self, hash: B256) -> Result<Bytes, StateError>;

    /// Hash of the block at `height`, at or below this view's own.
    ///
    /// # Errors
    /// [`StateError`].
    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError>;

    /// The state root after `changes`, and the trie that leads to it.
    ///
    /// `parent` is the trie of the block whose state this view shows, `None` for the view's own.
    ///
    /// # Errors
    /// [`StateError`].
    fn root_after(&self, parent: Option<&TrieHandle>, changes: &StateChanges)
    -> Result<(B256, TrieHandle), StateError>;
}

/// Transactions offered to a block under construction, best first, nonces of one sender in order.
pub trait Candidates {
    /// The best transaction not offered yet.
    fn next(&mut self) -> Option<Arc<Transaction>>;

    /// Offers no further transaction of this sender: its last one was refused or did not fit.
    fn skip_sender(&mut self, sender: Address);

    /// Candidates that were taken out ahead of their turn were not used: they are there for the next block.
    fn give_back(&mut self) {}

    /// Forgets a transaction that takes longer than a block may, and with it what its sender sent after it.
    ///
    /// Who cannot forget offers nothing more of the sender.
    fn throw_out(&mut self, transaction: &Transaction) {
        self.skip_sender(transaction.sender());
    }
}

/// The time that a build has, by its caller's clock.
///
/// It cuts the block that is built here; whether somebody else's block is valid never depends on a clock.
#[derive(Clone, Copy)]
pub struct BuildTime<'a> {
    /// Time since the build began.
    pub elapsed: &'a dyn Fn() -> Duration,
    /// No transaction is begun after this.
    pub begin_max: Duration,
    /// What the transactions may take somebody who executes them on one thread.
    pub replica_max: Duration,
}

impl BuildTime<'static> {
    /// As long as it takes.
    pub const UNLIMITED: Self =
        Self { elapsed: &|| Duration::ZERO, begin_max: Duration::MAX, replica_max: Duration::MAX };
}

impl fmt::Debug for BuildTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begin_max, replica_max, .. } = self;
        write!(f, "BuildTime {{ begin_max: {begin_max:?}, replica_max: {replica_max:?} }}")
    }
}

/// What a simulation may take.
#[derive(Clone, Copy)]
pub struct HintLimits<'a> {
    /// Gas it may use, whatever the transaction asks for.
    pub gas_max: u64,
    /// Whether its time is over, by the caller's clock; asked every few microseconds.
    pub is_over: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for HintLimits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HintLimits {{ gas_max: {} }}", self.gas_max)
    }
}

/// What a leader fixes before it builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSettings {
    /// Consensus header of the block; `block_hash` is filled in by the executor.
    pub consensus: ConsensusHeader,
    /// Id of the parent's consensus header (EIP-4788 parent beacon block root).
    pub parent_id: B256,
    /// Who receives the priority fees.
    pub beneficiary: Address,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Free bytes of the header, 32 at most.
    pub extra_data: Bytes,
    /// `mix_hash` of the header.
    pub mix_hash: B256,
}

/// Why a block could not be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutionError {
    /// The block breaks a rule; the text names the rule and both values.
    #[error("invalid block: {0}")]
    Invalid(String),
    /// The state below could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a read-only call gave no outcome at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request cannot be executed; the text is what geth's users know.
    #[error("{0}")]
    Refused(String),
    /// The caller's time is up.
    #[error("execution aborted (timeout)")]
    Cancelled,
    /// Estimation: even the largest allowance fails, with this outcome.
    #[error("gas estimation failed")]
    Failed(Box<CallOutcome>),
    /// The state below could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Turns transactions and a state into receipts, changes and a header.
pub trait Executor: Send + Sync {
    /// Builds a block on `parent`, whose state `view` shows.
    ///
    /// Takes candidates until none is left, the gas limit is reached or the time is over. Candidates
    /// that cannot be included are passed over, never an error; one that takes too long for any block is
    /// thrown out.
    ///
    /// # Errors
    /// [`ExecutionError::State`], and `Invalid` when a system contract of the fork fails.
    fn build(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        settings: &BuildSettings,
        candidates: &mut dyn Candidates,
        time: &BuildTime<'_>,
    ) -> Result<BuiltBlock, ExecutionError>;

    /// Executes `block` on `parent` and compares every header field with its own.
    ///
    /// # Errors
    /// [`ExecutionError::Invalid`] naming the first field that differs.
    fn execute(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> Result<ExecutedBlock, ExecutionError>;

    /// As [`Self::execute`], along what is said to be the block's access list.
    ///
    /// The list makes it faster or slower. Whatever the list is, what comes out is the same, and so is every refusal.
    ///
    /// # Errors
    /// Those of [`Self::execute`].
    fn execute_listed(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
        _list: &NamedList,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.execute(view, parent, block)
    }

    /// Whether this executor is faster along access lists; one that is not is given none.
    fn wants_lists(&self) -> bool {
        false
    }

    /// Whether a block is executed faster along its access list, so that it is worth sending the list.
    ///
    /// An executor that has no use for lists sends none.
    fn is_worth_listing(&self, _block: &Block) -> bool {
        false
    }

    /// Whether [`Self::hint`] would learn anything from a transaction; that it was seen is noted.
    ///
    /// An executor that has no use for hints wants none.
    fn wants_hint(&self, _transaction: &Transaction) -> bool {
        false
    }

    /// Simulates a transaction that waits on `parent`, whose state `view` shows, to learn for later builds.
    ///
    /// What is learned makes builds faster or slower and never changes what they give. Ends soon after
    /// [`HintLimits::is_over`] says so; a transaction that cannot be simulated teaches nothing.
    fn hint(
        &self,
        _view: &dyn StateView,
        _parent: &Sealed<Header>,
        _transaction: &Transaction,
        _limits: &HintLimits<'_>,
    ) {
    }

    /// Runs a call that changes nothing.
    ///
    /// # Errors
    /// [`CallError`].
    fn call(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<CallOutcome, CallError>;

    /// Finds the least gas limit with which the call succeeds.
    ///
    /// # Errors
    /// [`CallError`]; `Failed` carries the revert when no allowance is enough.
    fn estimate_gas(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<u64, CallError>;

    /// Finds the access list (EIP-2930) with which the call touches nothing cold.
    ///
    /// # Errors
    /// [`CallError`].
    fn access_list(
        &self,
        view: &dyn StateView,
        request: &CallRequest,
        cancel: &AtomicBool,
    ) -> Result<AccessListOutcome, CallError>;
}

/// Why the store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A write or sync failed; the store takes no further block and the node must stop.
    #[error("storage failed: {0}")]
    Failed(String),
    /// Stored bytes contradict themselves.
    #[error("storage is corrupt: {0}")]
    Corrupt(String),
    /// The disk has no room. Nothing was written: the same may be asked again once there is some.
    #[error("storage is full: {0}")]
    Full(String),
    /// Blocks must come in order.
    #[error("height {got} is not after {tip}")]
    OutOfOrder {
        /// Height offered.
        got: Height,
        /// Height of the tip.
        tip: Height,
    },
    /// There is nothing at this height, or nothing yet.
    #[error("height {0} is not available")]
    Unavailable(Height),
    /// What was at this height is kept no longer.
    #[error("height {height} is not kept: the lowest kept height is {lowest}")]
    NotKept {
        /// Height asked for.
        height: Height,
        /// Lowest height of which it is kept.
        lowest: Height,
    },
    /// What proves the state at this height is not kept.
    #[error("no proof of the state at height {height}: proofs go back to height {lowest}")]
    NoProof {
        /// Height asked for.
        height: Height,
        /// Lowest height that has proofs.
        lowest: Height,
    },
}

/// A Merkle proof of one account and some of its slots.
///
/// Source: EIP-1186.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account, `None` if the proof shows its absence.
    pub account: Option<Account>,
    /// Root of its storage trie.
    pub storage_root: B256,
    /// RLP nodes from the state root down.
    pub nodes: Vec<Bytes>,
    /// Per asked slot: key, value, RLP nodes from the storage root down.
    pub slots: Vec<(U256, U256, Vec<Bytes>)>,
}

/// Remembers: the durable chain, and state at recent heights.
pub trait Store: Send + Sync {
    /// The chain this store belongs to.
    fn chain(&self) -> &Arc<ChainSpec>;

    /// The newest durable block.
    fn tip(&self) -> Arc<CommittedBlock>;

    /// Appends finalized blocks in order; returns when all of them would survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Failed`] poisons the store: every later call fails too. [`StoreError::Full`] changes nothing.
    fn commit(&self, blocks: &[FinalizedBlock]) -> Result<Vec<Arc<CommittedBlock>>, StoreError>;

    /// Remembers how an epoch began, once the block that it began on is durable.
    ///
    /// # Errors
    /// [`StoreError::Failed`] poisons the store: every later call fails too.
    fn begin_epoch(&self, start: &EpochStart) -> Result<(), StoreError>;

    /// How an epoch after the first began.
    ///
    /// # Errors
    /// [`StoreError`]; an epoch that has not begun is `Ok(None)`.
    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochStart>, StoreError>;

    /// A tail header of an epoch that ended, by its id.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown id is `Ok(None)`.
    fn tail_header(&self, id: B256) -> Result<Option<SignedHeader>, StoreError>;

    /// State after the block at `height`, of any block that is kept; a block can be built on the newest
    /// [`crate::limits::STATE_WINDOW_HEIGHTS`].
    ///
    /// # Errors
    /// [`StoreError::NotKept`] below the kept range, [`StoreError::Unavailable`] above it.
    fn view(&self, height: Height) -> Result<Arc<dyn StateView>, StoreError>;

    /// The block at `height` with its receipts.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::NotKept`] below the kept range; an unknown height is `Ok(None)`.
    fn block(&self, height: Height) -> Result<Option<Arc<CommittedBlock>>, StoreError>;

    /// The header at `height`.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::NotKept`] below the kept range; an unknown height is `Ok(None)`.
    fn header(&self, height: Height) -> Result<Option<Sealed<Header>>, StoreError>;

    /// Height of the block with this hash.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown hash is `Ok(None)`.
    fn height_of(&self, hash: B256) -> Result<Option<Height>, StoreError>;

    /// Height of the block whose consensus header has this id.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown id is `Ok(None)`.
    fn height_of_id(&self, id: B256) -> Result<Option<Height>, StoreError>;

    /// Height and index of an included transaction.
    ///
    /// # Errors
    /// [`StoreError`]; an unknown hash is `Ok(None)`.
    fn transaction_position(&self, hash: B256) -> Result<Option<(Height, usize)>, StoreError>;

    /// Blocks between two heights, both included, that hold a log with what a filter names.
    ///
    /// No block with a log that fits is missing. How many topics a log has besides those named is for its reader to
    /// see. Ends after [`crate::limits::LOG_LOOK_BLOCKS_MAX`] blocks, or when it has worked for long, and then says
    /// where to go on: above the first height.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::NotKept`] for a range that begins below the kept one.
    fn blocks_with_logs(&self, filter: &LogFilter, heights: RangeInclusive<Height>) -> Result<LogBlocks, StoreError>;

    /// What shows that a block is final whose state this store gives in parts, to whoever trusts the set of an epoch;
    /// and the block's hash. `None` is the newest such block.
    ///
    /// # Errors
    /// [`StoreError`]; `Unavailable` and `NoProof` for a block whose state is not given.
    fn state_head(&self, block: Option<B256>, from: Epoch) -> Result<(B256, Bytes), StoreError>;

    /// A chunk of the state after that block: accounts, or slots of `owner`, from the hashed key `from` on, proven
    /// under the state root. Some [`crate::limits::STATE_PART_BYTES`].
    ///
    /// # Errors
    /// As above.
    fn state_part(&self, block: B256, owner: Option<B256>, from: B256) -> Result<Bytes, StoreError>;

    /// Proof of an account and some slots against the state root at `height`.
    ///
    /// # Errors
    /// [`StoreError::NoProof`] below the kept range, [`StoreError::Unavailable`] above it.
    fn proof(&self, height: Height, address: Address, slots: &[U256]) -> Result<AccountProof, StoreError>;
}

/// What the log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// In the order in which they were appended, less what was forgotten.
    pub entries: Vec<Entry>,
    /// Blocks that are not final yet, as far as the store knows; in the order in which they were appended.
    pub blocks: Vec<KeptBlock>,
    /// The log is gone, damaged or an old copy: something may have been signed that it does not tell of.
    pub is_lost: bool,
}

/// Remembers what this validator signed, and the blocks that rest on it: a write-ahead log.
///
/// Order alone carries safety: append what was signed, sync, send. One thread appends; any may sync.
pub trait Journal: Send + Sync {
    /// Writes entries and blocks behind those that are there, all or none; durable after the next sync.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the log takes nothing more, and the node must stop.
    fn append(&self, entries: &[Entry], blocks: &[KeptBlock]) -> Result<(), StoreError>;

    /// Returns when everything appended would survive a power cut; only then may it be told.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the log takes nothing more, and the node must stop.
    fn sync(&self) -> Result<(), StoreError>;

    /// The store holds the chain up to this block: what the log has of it and of what lies below may be forgotten.
    ///
    /// Kept in any case: the newest floor, every start of an epoch from this one on, and what belongs to this slot
    /// and to later ones.
    fn forget_below(&self, epoch: Epoch, slot: Slot, height: Height);
}

/// What became of a message handed to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Queued for every addressee.
    Sent,
    /// At least one addressee's lane was full; what its lane does then is the lane's rule.
    Full,
}

/// Who did what an honest node does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offender {
    /// A connection.
    Peer(u64),
    /// A validator, whatever it is connected by.
    Validator(PublicKey),
}

/// Sends to peers; never waits.
pub trait Network: Send + Sync {
    /// Sends to every peer.
    fn broadcast(&self, letter: &Letter) -> Delivery;

    /// Sends to one peer.
    fn send(&self, peer: u64, letter: &Letter) -> Delivery;

    /// Ends and refuses connections.
    fn ban(&self, offender: &Offender, reason: &'static str);

    /// Who is connected, each peer once; whenever that changes, [`crate::pipeline::Inbox::peers_changed`] is told.
    fn peers(&self) -> Vec<Contact>;
}
