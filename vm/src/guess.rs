//! What a transaction does if everything it reads stays as it was read: one attempt by one thread.
//!
//! A guess runs on the newest values there are, committed or guessed, and notes every value that it read. They
//! need not be consistent: values that are all equal to the committed ones make the same result, whenever they
//! were read. The fee recipient's reward is kept out of guesses, or each would contradict the one before, and
//! the sender's nonce is taken to be the transaction's own.

use alloy_consensus::Transaction as _;
use alloy_primitives::{
    Address, B256, KECCAK256_EMPTY, U256,
    map::{AddressMap, AddressSet},
};
use engine::{
    ports::{StateError, StateView},
    types::{Account, Height, Transaction},
};
use revm::{
    Context, Database, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    bytecode::opcode,
    context::{BlockEnv, CfgEnv, ContextSetters, Journal, TxEnv},
    context_interface::{
        Block as _, Transaction as _,
        result::{EVMError, ExecutionResult, HaltReason},
    },
    handler::{FrameResult, Handler},
    interpreter::{
        Instruction, InstructionContext, InstructionExecResult,
        instructions::{contract, host, utility::IntoAddress as _},
        interpreter::EthInterpreter,
        interpreter_types::InputsTr as _,
    },
    primitives::{StorageKey, StorageKeyMap, StorageValue, hardfork::SpecId},
    state::{Account as EvmAccount, AccountId, AccountInfo, Bytecode, EvmState},
};

use crate::{code::NearCodes, env, error::ViewError, lead::Lead, versions::Versions};

/// Everything a guess read, by the number of its place, with the values it got.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) accounts: Vec<(u32, Option<Account>)>,
    pub(crate) slots: Vec<(u32, U256)>,
    /// Those of the slots that are hot.
    pub(crate) hot: Vec<u32>,
}

/// What a transaction does if everything it read is still so.
#[derive(Debug)]
pub(crate) struct Guess {
    pub(crate) reads: Reads,
    pub(crate) result: ExecutionResult<HaltReason>,
    pub(crate) state: EvmState,
    /// What the fee recipient gets; `state` leaves it out.
    pub(crate) reward: U256,
    /// Accounts whose balance was looked at, not only added to or paid from.
    pub(crate) observed: AddressSet,
    /// What contracts paid or tried to pay, all payments of one added up.
    pub(crate) debits: AddressMap<U256>,
}

/// An account that this thread has met in this block.
struct Known {
    /// Number of its place.
    number: u32,
    /// Numbers of the places of its slots.
    slots: StorageKeyMap<u32>,
    /// The code that it had when last seen.
    code: Option<(B256, Bytecode)>,
}

/// The state as a guess sees it.
struct GuessState<'a> {
    view: &'a dyn StateView,
    versions: &'a Versions<'a>,
    codes: NearCodes<'a>,
    index: AddressMap<usize>,
    known: Vec<Known>,
    /// Number of the transaction.
    at: u32,
    /// The lowest transaction that was not committed when the guess began.
    lowest: u32,
    sender: Address,
    /// The sender's nonce, if all its transactions before this one are executed.
    nonce: u64,
    reads: Reads,
    reward: U256,
    observed: AddressSet,
    debits: AddressMap<U256>,
}

impl GuessState<'_> {
    fn know(&mut self, address: Address) -> Result<usize, StateError> {
        if let Some(id) = self.index.get(&address) {
            return Ok(*id);
        }
        let number = self.versions.account_number(address)?;
        let id = self.known.len();
        self.known.push(Known { number, slots: StorageKeyMap::default(), code: None });
        self.index.insert(address, id);
        Ok(id)
    }

    /// The number of a slot's place.
    fn slot(&mut self, id: usize, key: U256) -> Result<u32, StateError> {
        let known = &mut self.known[id];
        if let Some(number) = known.slots.get(&key) {
            return Ok(*number);
        }
        let number = self.versions.slot_number(known.number, key)?;
        known.slots.insert(key, number);
        Ok(number)
    }

    fn read_slot(&mut self, id: usize, key: U256) -> Result<U256, StateError> {
        let number = self.slot(id, key)?;
        let place = self.versions.slot(number)?;
        let value = place.read(self.at, self.lowest);
        self.reads.slots.push((number, value));
        if place.is_hot() {
            self.reads.hot.push(number);
        }
        Ok(value)
    }

    /// Shows what the guess would leave to those who guess what comes after it.
    fn publish(&mut self, state: &EvmState) -> Result<(), StateError> {
        for (address, account) in state {
            if account.is_touched() {
                let id = self.know(*address)?;
                self.publish_account(id, account)?;
            }
        }
        Ok(())
    }

    fn publish_account(&mut self, id: usize, account: &EvmAccount) -> Result<(), StateError> {
        let (at, lowest) = (self.at, self.lowest);
        let place = self.versions.account(self.known[id].number)?;
        if account.is_selfdestructed() || account.is_empty() {
            place.guess(at, lowest, None);
            return Ok(());
        }
        if account.is_changed() {
            let AccountInfo { nonce, balance, code_hash, code, .. } = &account.info;
            let code_hash = if code_hash.is_zero() { KECCAK256_EMPTY } else { *code_hash };
            let is_new = self.known[id].code.as_ref().is_none_or(|(known, _)| *known != code_hash);
            if let Some(code) = code.as_ref().filter(|code| is_new && !code.is_empty()) {
                self.versions.add_code(code_hash, code);
            }
            // Whoever sees the account finds its code.
            place.guess(at, lowest, Some(Account { nonce: *nonce, balance: *balance, code_hash }));
        }
        for (key, slot) in &account.storage {
            if slot.is_changed() {
                let number = self.slot(id, *key)?;
                self.versions.slot(number)?.guess(at, lowest, slot.present_value());
            }
        }
        Ok(())
    }
}

impl Database for GuessState<'_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        let id = self.know(address)?;
        let known = &self.known[id];
        let mut account = self.versions.account(known.number)?.read(self.at, self.lowest);
        if address == self.sender
            && let Some(account) = &mut account
        {
            // Those before it may be under way: the lane sees whether they got there.
            account.nonce = account.nonce.max(self.nonce);
        }
        self.reads.accounts.push((known.number, account));
        let Some(Account { nonce, balance, code_hash }) = account else { return Ok(None) };
        let code = known.code.as_ref().filter(|(hash, _)| *hash == code_hash).map(|(_, code)| code.clone());
        let code = match code {
            None if code_hash != KECCAK256_EMPTY => {
                let code = self.code_by_hash(code_hash)?;
                self.known[id].code = Some((code_hash, code.clone()));
                Some(code)
            }
            code => code,
        };
        let info = AccountInfo { balance, nonce, code_hash, account_id: AccountId::new(id), ..AccountInfo::default() };
        Ok(Some(if code.is_some() { AccountInfo { code, ..info } } else { info }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        if self.codes.known(code_hash).is_none()
            && let Some(code) = self.versions.code(code_hash)
        {
            self.codes.insert(code_hash, code);
        }
        Ok(self.codes.get(self.view, code_hash)?)
    }

    fn storage(&mut self, address: Address, key: StorageKey) -> Result<StorageValue, ViewError> {
        let id = self.know(address)?;
        Ok(self.read_slot(id, key)?)
    }

    fn storage_by_account_id(
        &mut self,
        _address: Address,
        account_id: AccountId,
        storage_key: StorageKey,
    ) -> Result<StorageValue, ViewError> {
        Ok(self.read_slot(account_id.get(), storage_key)?)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ViewError> {
        Ok(self.view.block_hash(Height(number))?.unwrap_or_default())
    }
}

type GuessContext<'a> = Context<BlockEnv, TxEnv, CfgEnv, GuessState<'a>, Journal<GuessState<'a>>, ()>;
type GuessEvm<'a> = MainnetEvm<GuessContext<'a>>;
type Step<'s, 'a> = InstructionContext<'s, GuessContext<'a>, EthInterpreter>;

/// An instruction that notes something about the guess before it does its work.
type Noting<'a> = fn(Step<'_, 'a>) -> InstructionExecResult;

/// An instruction whose result depends on the balance of the account that runs.
macro_rules! observing {
    ($name:ident, $instruction:expr) => {
        fn $name(step: Step<'_, '_>) -> InstructionExecResult {
            let seen = step.interpreter.input.target_address();
            step.host.journaled_state.database.observed.insert(seen);
            $instruction(step)
        }
    };
}

observing!(self_balance, host::selfbalance);
observing!(self_destruct, host::selfdestruct);

fn balance(step: Step<'_, '_>) -> InstructionExecResult {
    if let Ok(seen) = step.interpreter.stack.peek(0) {
        step.host.journaled_state.database.observed.insert(seen.into_address());
    }
    host::balance(step)
}

/// An instruction that pays what lies `$depth` below the top of the stack.
macro_rules! paying {
    ($name:ident, $depth:expr, $instruction:expr) => {
        fn $name(step: Step<'_, '_>) -> InstructionExecResult {
            if let Ok(value) = step.interpreter.stack.peek($depth)
                && !value.is_zero()
            {
                let payer = step.interpreter.input.target_address();
                let debit = step.host.journaled_state.database.debits.entry(payer).or_default();
                *debit = debit.saturating_add(value);
            }
            $instruction(step)
        }
    };
}

paying!(call, 2, contract::call::<{ opcode::CALL }, _, _>);
paying!(call_code, 2, contract::call::<{ opcode::CALLCODE }, _, _>);
paying!(create, 0, contract::create::<false, _, _>);
paying!(create2, 0, contract::create::<true, _, _>);

/// Ethereum's rules, but the fee recipient's reward is noted and not paid.
struct NoReward<'a>(std::marker::PhantomData<&'a ()>);

impl<'a> Handler for NoReward<'a> {
    type Evm = GuessEvm<'a>;
    type Error = EVMError<ViewError>;
    type HaltReason = HaltReason;

    /// Source: EIP-1559: from London on the base fee is burnt.
    fn reward_beneficiary(&self, evm: &mut GuessEvm<'a>, done: &mut FrameResult) -> Result<(), Self::Error> {
        let base_fee = u128::from(evm.ctx.block.basefee());
        let price = evm.ctx.tx.effective_gas_price(base_fee);
        let burnt = if evm.ctx.cfg.spec.is_enabled_in(SpecId::LONDON) { base_fee } else { 0 };
        let tip = price.saturating_sub(burnt);
        evm.ctx.journaled_state.database.reward = U256::from(tip).saturating_mul(U256::from(done.gas().used()));
        Ok(())
    }
}

/// One EVM that guesses.
pub(crate) struct Guesser<'a> {
    evm: GuessEvm<'a>,
}

impl<'a> Guesser<'a> {
    pub(crate) fn new(lead: &Lead<'a>, versions: &'a Versions<'a>) -> Self {
        let state = GuessState {
            view: lead.view,
            versions,
            codes: NearCodes::new(lead.codes),
            index: AddressMap::default(),
            known: Vec::new(),
            at: 0,
            lowest: 0,
            sender: Address::ZERO,
            nonce: 0,
            reads: Reads::default(),
            reward: U256::ZERO,
            observed: AddressSet::default(),
            debits: AddressMap::default(),
        };
        let mut evm = Context::mainnet()
            .with_db(state)
            .with_cfg(env::chain(lead.chain, lead.header.timestamp))
            .with_block(env::block(lead.chain, lead.header))
            .build_mainnet();
        let instructions: [(u8, Noting<'a>); 7] = [
            (opcode::BALANCE, balance),
            (opcode::SELFBALANCE, self_balance),
            (opcode::SELFDESTRUCT, self_destruct),
            (opcode::CALL, call),
            (opcode::CALLCODE, call_code),
            (opcode::CREATE, create),
            (opcode::CREATE2, create2),
        ];
        for (code, instruction) in instructions {
            let gas = evm.instruction.gas_table()[usize::from(code)];
            evm.instruction.insert_instruction(code, Instruction::new(instruction), gas);
        }
        Self { evm }
    }

    /// What transaction `number` of the block does on the values there are, which others then see; `None` if
    /// nothing can be said.
    pub(crate) fn guess(&mut self, number: u32, transaction: &Transaction) -> Option<Guess> {
        let database = &mut self.evm.ctx.journaled_state.database;
        database.reads = Reads::default();
        (database.at, database.lowest) = (number, database.versions.lowest());
        (database.sender, database.nonce) = (transaction.sender(), transaction.envelope().nonce());
        database.observed.clear();
        database.debits.clear();
        self.evm.ctx.set_tx(env::transaction(transaction));
        let result = NoReward(std::marker::PhantomData).run(&mut self.evm);
        let state = self.evm.finalize();
        // An error says that the transaction is not valid yet, or that a read failed: the lane will see.
        let result = result.ok()?;
        let database = &mut self.evm.ctx.journaled_state.database;
        let reads = std::mem::take(&mut database.reads);
        database.publish(&state).ok()?;
        let (observed, debits) = (std::mem::take(&mut database.observed), std::mem::take(&mut database.debits));
        Some(Guess { reads, result, state, reward: database.reward, observed, debits })
    }
}
