//! What a transaction that waits tells before any block takes it: where it will meet others.
//!
//! A place is a meeting place once two senders' transactions changed it, each simulated alone on the newest state.
//! A kind of transaction (`patterns`) is remembered to touch the meeting places that one of its kind read. So a kind
//! has to be seen a few times, from several senders; what is seen once meets nobody of its kind, and is not simulated.
//! Places that only one sender changes, such as its own balance, are nobody's meeting place.
//!
//! ```text
//! first from any sender     noted
//! the next SIMULATIONS, each from another sender than the one before: simulated
//! after them                known
//! ```
//!
//! A simulation runs the whole transaction in a block of its own on the parent, with less gas than it asks for
//! perhaps, and its nonce is taken to be right. Nothing of it is kept but marks of places; the code that it met is
//! analysed then. One that fails tells what it read, one that is cut by time nothing. All of this is advice: a wrong
//! pattern costs time.

use alloy_consensus::{Header, Transaction as _};
use alloy_primitives::{Address, B256, Bytes, U256};
use engine::{
    genesis::ChainSpec,
    ports::{HintLimits, StateError, StateView},
    types::{Account, Height, StateChanges, Transaction, TrieHandle},
};
use parking_lot::Mutex;
use revm::{
    Context, InspectEvm, Inspector, MainBuilder, MainContext,
    context::TxEnv,
    context_interface::ContextTr,
    interpreter::{CallInputs, CallOutcome, InstructionResult, Interpreter},
    state::EvmState,
};

use crate::{
    call::watch::STEPS_PER_LOOK,
    code::CodeCache,
    database::BlockState,
    env,
    lead::patterns::{Patterns, Recent, kind, mark_of, place},
};

/// Simulations of one kind: two that meet, and one more that may have taken another branch.
const SIMULATIONS: u8 = 3;
/// Kinds that are counted in each of two generations.
const KINDS_MAX: usize = 16_384;
/// Places whose changes are remembered in each of two generations.
const PLACES_MAX: usize = 16_384;

/// A kind that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Who sent the last one that counted.
    sender: Address,
    /// How many were simulated.
    simulated: u8,
}

/// A place that a simulated transaction changed.
#[derive(Clone, Copy, Debug)]
struct Changed {
    /// Who did it first.
    sender: Address,
    /// Somebody else did it as well.
    is_shared: bool,
}

#[derive(Debug)]
struct Inner {
    kinds: Recent<Seen>,
    places: Recent<Changed>,
}

/// What was seen of waiting transactions.
#[derive(Debug)]
pub(crate) struct Sightings(Mutex<Inner>);

impl Default for Sightings {
    fn default() -> Self {
        Self(Mutex::new(Inner { kinds: Recent::new(KINDS_MAX), places: Recent::new(PLACES_MAX) }))
    }
}

impl Sightings {
    /// Notes that a transaction was seen; tells whether it should be simulated, and then counts it as such.
    pub(crate) fn wants(&self, transaction: &Transaction) -> bool {
        let Some(kind) = kind(transaction) else { return false };
        let sender = transaction.sender();
        let kinds = &mut self.0.lock().kinds;
        let seen = match kinds.get(kind) {
            None => Seen { sender, simulated: 0 },
            Some(seen) if seen.sender == sender || seen.simulated >= SIMULATIONS => return false,
            Some(seen) => Seen { sender, simulated: seen.simulated.saturating_add(1) },
        };
        kinds.set(kind, seen);
        seen.simulated > 0
    }

    /// Remembers the meeting places of a transaction's kind. `state` is what it loaded and left.
    pub(crate) fn learn(&self, patterns: &Patterns, transaction: &Transaction, state: &EvmState) {
        let (Some(kind), sender) = (kind(transaction), transaction.sender()) else { return };
        let places = &mut self.0.lock().places;
        let mut marks = Vec::new();
        for (address, account) in state {
            for (key, slot) in &account.storage {
                let place = place(*address, *key);
                let mut known = places.get(place);
                if slot.is_changed() {
                    let mut changed = known.unwrap_or(Changed { sender, is_shared: false });
                    changed.is_shared |= changed.sender != sender;
                    places.set(place, changed);
                    known = Some(changed);
                }
                if known.is_some_and(|changed| changed.is_shared) {
                    marks.push(mark_of(place));
                }
            }
        }
        patterns.add(kind, &marks);
    }
}

/// What a transaction loads and leaves, alone in the next block; `None` if nothing can be said.
pub(crate) fn simulate(
    chain: &ChainSpec,
    codes: &CodeCache,
    view: &dyn StateView,
    parent: &Header,
    transaction: &Transaction,
    limits: &HintLimits<'_>,
) -> Option<EvmState> {
    // What waits is of no fork of its own: the next block repeats its parent's second as a rule.
    let header = Header {
        number: parent.number.saturating_add(1),
        base_fee_per_gas: Some(chain.base_fee.next(parent)),
        ..parent.clone()
    };
    let mut cfg = env::chain(chain, header.timestamp);
    cfg.disable_nonce_check = true;
    let view = Timed { view, is_over: limits.is_over };
    let mut evm = Context::mainnet()
        .with_db(BlockState::new(&view, codes))
        .with_cfg(cfg)
        .with_block(env::block(chain, &header))
        .build_mainnet_with_inspector(Look { is_over: limits.is_over, steps_left: 0, over: false });
    let gas_limit = transaction.envelope().gas_limit().min(limits.gas_max);
    let tx = TxEnv { gas_limit, ..env::transaction(transaction) };
    evm.inspect_tx(tx).ok().map(|outcome| outcome.state)
}

/// Stops the interpreter when the time is over.
struct Look<'a> {
    is_over: &'a (dyn Fn() -> bool + Sync),
    steps_left: u32,
    over: bool,
}

impl<CTX: ContextTr> Inspector<CTX> for Look<'_> {
    #[inline]
    fn step(&mut self, interpreter: &mut Interpreter, _context: &mut CTX) {
        match self.steps_left.checked_sub(1) {
            Some(left) => self.steps_left = left,
            None => {
                self.steps_left = STEPS_PER_LOOK;
                self.over |= (self.is_over)();
            }
        }
        if self.over {
            interpreter.halt(InstructionResult::OutOfGas);
        }
    }

    /// A precompile is one step and may take long.
    fn call(&mut self, _context: &mut CTX, _inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.steps_left = 0;
        None
    }
}

/// A view that cannot be read once the time is over: reads may wait for a disk.
struct Timed<'a> {
    view: &'a dyn StateView,
    is_over: &'a (dyn Fn() -> bool + Sync),
}

impl Timed<'_> {
    fn check(&self) -> Result<(), StateError> {
        if (self.is_over)() { Err(StateError::Unreadable("the time is over".to_owned())) } else { Ok(()) }
    }
}

impl StateView for Timed<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.check()?;
        self.view.account(address)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        self.check()?;
        self.view.slot(address, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.check()?;
        self.view.code(hash)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        self.check()?;
        self.view.block_hash(height)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        self.view.root_after(parent, changes)
    }
}

#[cfg(test)]
mod tests;
