//! Which transactions of a block need others to be executed before them: what any schedule is bound by.
//!
//! A transaction depends on the last one before it that wrote a slot it reads, made, ended or gave code to an
//! account it reads, or changed a balance it looks at. Payments that nobody looks at commute, and nonces follow
//! from the order; the fee recipient's reward is apart.

use std::collections::BTreeSet;

use alloy_primitives::{Address, U256, map::HashMap};
use engine::{
    ports::{ExecutionError, StateError, StateView},
    types::Block,
};
use revm::state::EvmState;

use crate::{
    RevmExecutor,
    guess::{Guess, Guesser},
    sequential::Run,
    versions::Versions,
};

/// Something that one transaction leaves and another finds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Slot(Address, U256),
    Balance(Address),
    /// Whether there is an account, and its code.
    Being(Address),
}

/// Who wrote each place last.
#[derive(Default)]
struct Writers(HashMap<Place, usize>);

impl Writers {
    /// The transactions that what `guess` read comes from.
    fn before(&self, guess: &Guess, versions: &Versions<'_>) -> Result<Vec<usize>, StateError> {
        let mut places: Vec<Place> = guess.observed.iter().map(|address| Place::Balance(*address)).collect();
        for (number, _) in &guess.reads.accounts {
            places.push(Place::Being(versions.account(*number)?.address));
        }
        for (number, _) in &guess.reads.slots {
            let slot = versions.slot(*number)?;
            places.push(Place::Slot(versions.account(slot.account)?.address, slot.key));
        }
        let found: BTreeSet<usize> = places.iter().filter_map(|place| self.0.get(place).copied()).collect();
        Ok(found.into_iter().collect())
    }

    /// Transaction `at` leaves this.
    fn note(&mut self, at: usize, state: &EvmState) {
        for (address, account) in state.iter().filter(|(_, account)| account.is_touched()) {
            if account.is_changed() {
                self.0.insert(Place::Balance(*address), at);
            }
            let recoded = account.info.code_hash != account.original_info().code_hash;
            if account.is_created() || account.is_selfdestructed() || account.is_empty() || recoded {
                self.0.insert(Place::Being(*address), at);
            }
            for (key, _) in account.storage.iter().filter(|(_, slot)| slot.is_changed()) {
                self.0.insert(Place::Slot(*address, *key), at);
            }
        }
    }
}

impl RevmExecutor {
    /// For each transaction of `block` the earlier ones whose results it uses, in order.
    ///
    /// # Errors
    /// As [`Self::transactions`].
    pub fn dependencies(&self, view: &dyn StateView, block: &Block) -> Result<Vec<Vec<usize>>, ExecutionError> {
        let header = block.header.inner();
        let versions = Versions::new(view);
        let lead = self.lead(view, header);
        let mut guesser = Guesser::new(&lead, &versions);
        let mut run = Run::open(self.chain(), lead.codes, view, header);
        run.publish_to(&versions);
        let (mut writers, mut dependencies) = (Writers::default(), Vec::new());
        for (index, transaction) in block.body.transactions.iter().enumerate() {
            let number = u32::try_from(index.saturating_add(1)).unwrap_or(u32::MAX);
            versions.advance(number);
            let mut before = Vec::new();
            if let Some(guess) = guesser.guess(number, transaction) {
                before = writers.before(&guess, &versions)?;
                writers.note(index, &guess.state);
            }
            run.transact(transaction).map_err(|refusal| refusal.in_block(index))?;
            dependencies.push(before);
        }
        Ok(dependencies)
    }
}
