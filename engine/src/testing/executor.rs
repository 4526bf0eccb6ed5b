//! A toy executor: every transaction moves value and nothing else.
//!
//! It gives the pipeline real layers, nonces and balances without an EVM: no fees, and each uses the gas it asks for.
//! [`ToyExecutor::hinting`] also simulates, the way its owner says. [`ToyExecutor::listing`] makes access lists, and
//! counts the blocks that it executes along one.

use std::{
    collections::{BTreeMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use alloy_consensus::{Header, Sealable, Sealed, Transaction as _, proofs::calculate_transaction_root};
use alloy_primitives::{Address, B256, U256, keccak256};

use crate::{
    ports::{BuildSettings, BuildTime, CallError, Candidates, ExecutionError, Executor, HintLimits, StateView},
    query::{AccessListOutcome, CallOutcome, CallRequest},
    types::{
        AccessList, Account, AccountChange, Block, BlockBody, BuiltBlock, Envelope, ExecutedBlock, NamedList, Receipt,
        StateChanges, Transaction, access_list::AccountChanges,
    },
};

/// Least gas of a transaction.
const TRANSFER_GAS: u64 = 21_000;

/// A transaction that asks for exactly this much gas makes the toy panic.
pub const PANIC_GAS: u64 = 21_666;

/// Moves value from sender to recipient, in order of nonce.
#[derive(Default)]
pub struct ToyExecutor {
    /// What a simulation does; `None` for a toy that wants no hints.
    hint: Option<Box<Hint>>,
    /// Whether blocks name access lists.
    lists: bool,
    listed: AtomicU64,
    unlisted: AtomicU64,
}

type Hint = dyn Fn(&HintLimits<'_>) + Send + Sync;

impl std::fmt::Debug for ToyExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToyExecutor").finish_non_exhaustive()
    }
}

impl ToyExecutor {
    /// A toy that wants a hint for everything, and what a simulation does.
    #[must_use]
    pub fn hinting(hint: impl Fn(&HintLimits<'_>) + Send + Sync + 'static) -> Self {
        Self { hint: Some(Box::new(hint)), ..Self::default() }
    }

    /// A toy whose blocks name access lists, each as large as the input of its transactions, which are worth sending
    /// if there are any.
    #[must_use]
    pub fn listing() -> Self {
        Self { lists: true, ..Self::default() }
    }

    /// Blocks with transactions that were executed along a list.
    #[must_use]
    pub fn listed(&self) -> u64 {
        self.listed.load(Ordering::Relaxed)
    }

    /// Blocks with transactions that were executed without a list.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// The access list of a block with these transactions.
    fn list(&self, transactions: &[Arc<Transaction>]) -> AccessList {
        let mut accounts = BTreeMap::new();
        for tx in transactions.iter().filter(|_| self.lists) {
            if let Some(to) = tx.envelope().to() {
                named(&mut accounts, to);
            }
            let word = |at: usize| keccak256([tx.hash().0, U256::from(at).to_be_bytes()].concat());
            let key = |at: usize| U256::from_be_bytes(word(at).0);
            let keys = (0..tx.envelope().input().len() / B256::len_bytes()).map(key);
            named(&mut accounts, tx.sender()).storage_reads.extend(keys);
        }
        let mut accounts: Vec<_> = accounts.into_values().collect();
        accounts.iter_mut().for_each(|account: &mut AccountChanges| account.storage_reads.sort_unstable());
        AccessList { accounts, wipes: Vec::new() }
    }

    /// Executes a block.
    fn run(&self, view: &dyn StateView, block: &Arc<Block>) -> Result<ExecutedBlock, ExecutionError> {
        let (mut changes, mut receipts, mut gas_used) = (StateChanges::default(), Vec::new(), 0);
        for tx in &block.body.transactions {
            if !apply(&mut changes, view, tx)? {
                return Err(ExecutionError::Invalid(format!("transaction {}", tx.hash())));
            }
            receipts.push(receipt(tx, &mut gas_used));
        }
        let (state_root, trie) = view.root_after(None, &changes)?;
        let header = block.header.inner();
        if (header.state_root, header.gas_used) != (state_root, gas_used) {
            return Err(ExecutionError::Invalid(format!("state_root {state_root} or gas_used {gas_used}")));
        }
        let access_list = self.list(&block.body.transactions);
        if self.lists && block.consensus.access_list_hash != access_list.hash() {
            return Err(ExecutionError::Invalid(format!("access_list_hash is not {}", access_list.hash())));
        }
        Ok(ExecutedBlock {
            block: block.clone(),
            receipts: Arc::new(receipts),
            changes: Arc::new(changes),
            trie,
            access_list: Arc::new(access_list),
        })
    }
}

fn named(accounts: &mut BTreeMap<Address, AccountChanges>, address: Address) -> &mut AccountChanges {
    accounts.entry(address).or_insert_with(|| AccountChanges::new(address))
}

/// Loads an account into the changes and gives its present value.
fn load<'a>(
    changes: &'a mut StateChanges,
    view: &dyn StateView,
    address: Address,
) -> Result<&'a mut AccountChange, ExecutionError> {
    match changes.accounts.entry(address) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(unknown) => {
            let before = view.account(address)?;
            Ok(unknown.insert(AccountChange { before, after: before, ..AccountChange::default() }))
        }
    }
}

/// Applies one transaction; `false` if its nonce or funds do not fit.
fn apply(changes: &mut StateChanges, view: &dyn StateView, tx: &Transaction) -> Result<bool, ExecutionError> {
    let value = tx.envelope().value();
    let from = load(changes, view, tx.sender())?;
    let account = from.after.unwrap_or_default();
    if account.nonce != tx.envelope().nonce() || account.balance < value {
        return Ok(false);
    }
    let nonce = account.nonce.saturating_add(1);
    from.after = Some(Account { nonce, balance: account.balance.saturating_sub(value), ..account });
    if let Some(to) = tx.envelope().to() {
        let to = load(changes, view, to)?;
        let account = to.after.unwrap_or_default();
        to.after = Some(Account { balance: account.balance.saturating_add(value), ..account });
    }
    Ok(true)
}

fn receipt(tx: &Transaction, cumulative: &mut u64) -> Receipt {
    let gas = tx.envelope().gas_limit();
    *cumulative = cumulative.saturating_add(gas);
    Receipt {
        type_byte: tx.type_byte(),
        success: true,
        gas_used: gas,
        cumulative_gas_used: *cumulative,
        contract: None,
        logs: Vec::new(),
    }
}

fn envelopes(transactions: &[Arc<Transaction>]) -> Vec<&Envelope> {
    transactions.iter().map(|tx| tx.envelope()).collect()
}

impl Executor for ToyExecutor {
    fn build(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        settings: &BuildSettings,
        candidates: &mut dyn Candidates,
        time: &BuildTime<'_>,
    ) -> Result<BuiltBlock, ExecutionError> {
        let (mut changes, mut receipts, mut transactions) = (StateChanges::default(), Vec::new(), Vec::new());
        let mut gas_used = 0_u64;
        while (time.elapsed)() < time.begin_max && gas_used.saturating_add(TRANSFER_GAS) <= settings.gas_limit {
            let Some(tx) = candidates.next() else { break };
            let gas = tx.envelope().gas_limit();
            assert_ne!(gas, PANIC_GAS, "told to panic");
            let fits = gas <= settings.gas_limit.saturating_sub(gas_used);
            if !fits || !apply(&mut changes, view, &tx)? {
                candidates.skip_sender(tx.sender());
                continue;
            }
            receipts.push(receipt(&tx, &mut gas_used));
            transactions.push(tx);
        }
        let (state_root, trie) = view.root_after(None, &changes)?;
        let header = Header {
            parent_hash: parent.seal(),
            number: parent.number.saturating_add(1),
            timestamp: settings.consensus.timestamp_ms / 1_000,
            gas_limit: settings.gas_limit,
            base_fee_per_gas: parent.base_fee_per_gas,
            gas_used,
            state_root,
            transactions_root: calculate_transaction_root(&envelopes(&transactions)),
            mix_hash: settings.mix_hash,
            ..Header::default()
        }
        .seal_slow();
        let mut consensus = settings.consensus.clone();
        consensus.block_hash = header.seal();
        let access_list = self.list(&transactions);
        if self.lists {
            consensus.access_list_hash = access_list.hash();
        }
        let block = Block { consensus, header, body: BlockBody { transactions, withdrawals: None } };
        Ok(BuiltBlock(ExecutedBlock {
            block: Arc::new(block),
            receipts: Arc::new(receipts),
            changes: Arc::new(changes),
            trie,
            access_list: Arc::new(access_list),
        }))
    }

    fn execute(
        &self,
        view: &dyn StateView,
        _parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> Result<ExecutedBlock, ExecutionError> {
        if !block.body.transactions.is_empty() {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
        self.run(view, block)
    }

    fn execute_listed(
        &self,
        view: &dyn StateView,
        _parent: &Sealed<Header>,
        block: &Arc<Block>,
        _list: &NamedList,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        self.run(view, block)
    }

    fn wants_lists(&self) -> bool {
        self.lists
    }

    fn is_worth_listing(&self, block: &Block) -> bool {
        self.lists && !block.body.transactions.is_empty()
    }

    fn wants_hint(&self, _: &Transaction) -> bool {
        self.hint.is_some()
    }

    fn hint(&self, _: &dyn StateView, _: &Sealed<Header>, _: &Transaction, limits: &HintLimits<'_>) {
        if let Some(hint) = &self.hint {
            hint(limits);
        }
    }

    fn call(&self, _: &dyn StateView, _: &CallRequest, _: &AtomicBool) -> Result<CallOutcome, CallError> {
        Err(CallError::Refused("the toy knows no calls".to_owned()))
    }

    fn estimate_gas(&self, _: &dyn StateView, _: &CallRequest, _: &AtomicBool) -> Result<u64, CallError> {
        Ok(TRANSFER_GAS)
    }

    fn access_list(&self, _: &dyn StateView, _: &CallRequest, _: &AtomicBool) -> Result<AccessListOutcome, CallError> {
        Err(CallError::Refused("the toy knows no calls".to_owned()))
    }
}
