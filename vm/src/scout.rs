//! Accounts of transfers, read ahead of the lane.
//!
//! ```text
//! scouts   sender and recipient of each transfer ahead of the lane -> as they were before the block
//! lane     meets an account for the first time: found already, or read here
//! ```
//!
//! The state before a block does not change, so whoever reads it reads the same, and nothing depends on who it was.
//! The lane never waits for a scout; a scout passes over what the lane has reached. What a scout cannot read it
//! leaves to the lane, which meets the same failure.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use engine::{
    ports::StateView,
    types::{Account, Transaction},
};

/// Transfers in a stretch that are worth waking a thread for: a tenth of a millisecond of the lane.
const TRANSFERS_WORTH: usize = 256;
/// Transactions that a scout claims at a time.
const CLAIMED: usize = 16;

/// Both sides of a transfer as they were before the block.
#[derive(Debug)]
pub(crate) struct Found([(Address, Option<Account>); 2]);

impl Found {
    /// The account at this address before the block, if it is one of the two.
    pub(crate) fn before(&self, address: Address) -> Option<Option<Account>> {
        self.0.iter().find(|(found, _)| *found == address).map(|(_, account)| *account)
    }
}

/// What scouts and lane share of a stretch of transactions.
pub(crate) struct Scouting<'s> {
    view: &'s dyn StateView,
    transactions: &'s [Arc<Transaction>],
    found: Vec<OnceLock<Found>>,
    /// The first that nobody has claimed.
    next: AtomicUsize,
    /// The one that the lane is at.
    lane: AtomicUsize,
}

impl<'s> Scouting<'s> {
    /// `None` where there are too few transfers to wake anybody for.
    pub(crate) fn of(view: &'s dyn StateView, transactions: &'s [Arc<Transaction>]) -> Option<Self> {
        let transfers = transactions.iter().filter(|transaction| is_transfer(transaction)).count();
        (transfers >= TRANSFERS_WORTH).then(|| Self {
            view,
            transactions,
            found: std::iter::repeat_with(OnceLock::new).take(transactions.len()).collect(),
            next: AtomicUsize::new(0),
            lane: AtomicUsize::new(0),
        })
    }

    /// What a scout does until everything has been claimed.
    pub(crate) fn scout(&self) {
        loop {
            let start = self.next.fetch_add(CLAIMED, Ordering::Relaxed);
            let Some(rest) = self.transactions.get(start..).filter(|rest| !rest.is_empty()) else { return };
            for (at, transaction) in (start..).zip(rest.iter().take(CLAIMED)) {
                if at > self.lane.load(Ordering::Relaxed) && is_transfer(transaction) {
                    self.find(at, transaction);
                }
            }
        }
    }

    fn find(&self, at: usize, transaction: &Transaction) {
        let (sender, to) = (transaction.sender(), transaction.envelope().to().unwrap_or_default());
        if let (Ok(from), Ok(other)) = (self.view.account(sender), self.view.account(to)) {
            let _ = self.found[at].set(Found([(sender, from), (to, other)]));
        }
    }

    /// The lane is at this transaction; gives what was found for it.
    pub(crate) fn reach(&self, at: usize) -> Option<&Found> {
        self.lane.store(at, Ordering::Relaxed);
        self.found.get(at)?.get()
    }

    /// The lane needs nothing further.
    fn end(&self) {
        self.next.store(self.transactions.len(), Ordering::Relaxed);
        self.lane.store(self.transactions.len(), Ordering::Relaxed);
    }
}

/// Ends the scouts, also when the lane panics.
pub(crate) struct EndScouting<'s>(pub(crate) &'s Scouting<'s>);

impl Drop for EndScouting<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Whether it most likely moves value and does nothing else.
pub(crate) fn is_transfer(transaction: &Transaction) -> bool {
    transaction.envelope().input().is_empty() && transaction.envelope().to().is_some()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{B256, Bytes, TxKind, U256};
    use engine::{
        genesis::Fork,
        ports::StateError,
        types::{Height, StateChanges, TrieHandle},
    };

    use super::*;
    use crate::testing::{ALICE, BOB, POOR, STORE, World, send, transfer};

    /// A state in which one account cannot be read.
    struct Broken<'w>(&'w World);

    impl StateView for Broken<'_> {
        fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
            if address == POOR {
                Err(StateError::Corrupt("unreadable".to_owned()))
            } else {
                self.0.state.account(address)
            }
        }

        fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
            self.0.state.slot(address, key)
        }

        fn code(&self, hash: B256) -> Result<Bytes, StateError> {
            self.0.state.code(hash)
        }

        fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
            self.0.state.block_hash(height)
        }

        fn root_after(
            &self,
            parent: Option<&TrieHandle>,
            changes: &StateChanges,
        ) -> Result<(B256, TrieHandle), StateError> {
            self.0.state.root_after(parent, changes)
        }
    }

    #[test]
    fn scouts_find_what_the_lane_would_read_and_leave_the_rest_to_it() {
        let world = World::new(Fork::Osaka);
        let call = |nonce| send(BOB, nonce, TxKind::Call(STORE), U256::ZERO, Bytes::from_static(&[1]), 100_000);
        let to = |at: u64| if at.is_multiple_of(5) { POOR } else { Address::from_word(U256::from(at).into()) };
        let transactions: Vec<_> = (0..600)
            .map(|at| if at % 7 == 0 { call(at) } else { transfer(ALICE, at, to(at), U256::from(1)) })
            .collect();
        assert!(Scouting::of(&world.state, &transactions[..200]).is_none(), "too few");
        let view = Broken(&world);
        let scouting = Scouting::of(&view, &transactions).unwrap();
        assert!(scouting.reach(99).is_none(), "nobody has scouted");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| scouting.scout());
            }
        });
        for (at, transaction) in transactions.iter().enumerate() {
            let number = u64::try_from(at).unwrap();
            let is_found = at > 99 && number % 7 != 0 && number % 5 != 0;
            let found = scouting.reach(at);
            assert_eq!(found.is_some(), is_found, "transaction {at}");
            let Some(found) = found else { continue };
            for address in [transaction.sender(), to(number)] {
                assert_eq!(found.before(address), Some(world.state.account(address).unwrap()));
            }
            assert_eq!(found.before(STORE), None);
        }
    }

    #[test]
    fn nothing_is_read_once_the_lane_has_ended() {
        let world = World::new(Fork::Osaka);
        let transactions: Vec<_> = (0..300).map(|at| transfer(ALICE, at, BOB, U256::from(1))).collect();
        let scouting = Scouting::of(&world.state, &transactions).unwrap();
        drop(EndScouting(&scouting));
        scouting.scout();
        assert!(scouting.found.iter().all(|found| found.get().is_none()));
    }
}
