//! Who acts: accounts derived from the seed, so that two runs with one seed sign the same bytes.
//!
//! | id | who | does |
//! |---|---|---|
//! | 0 | funder | pays for all others; its key is given from outside |
//! | 1 | owner | deploys, mints, lists, provides liquidity, sets prices |
//! | 2 .. | borrowers | borrow too much before the clock starts, and are liquidated while it runs |
//! | then | senders | send what is timed |

use std::{num::NonZero, ops::Range, thread};

use alloy_primitives::{Address, B256, keccak256};
use alloy_signer_local::PrivateKeySigner;

/// Index of an account in [`Accounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u32);

impl AccountId {
    /// Pays for all others.
    pub const FUNDER: Self = Self(0);
    /// Owns the contracts.
    pub const OWNER: Self = Self(1);

    /// As an index into a list of accounts.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Every account of a plan with its key.
#[derive(Clone, Debug)]
pub struct Accounts {
    signers: Vec<PrivateKeySigner>,
    borrowers: u32,
}

impl Accounts {
    /// Derives the accounts of a seed; takes some 50 us of one core each.
    #[must_use]
    pub fn new(seed: u64, funder: PrivateKeySigner, borrowers: u32, senders: u32) -> Self {
        let derived = 1 + borrowers + senders;
        let chunk = derived.div_ceil(u32::try_from(threads()).unwrap_or(1)).max(1);
        let starts: Vec<u32> = (0..derived).step_by(chunk as usize).collect();
        let parts = thread::scope(|scope| {
            let jobs: Vec<_> = starts
                .iter()
                .map(|start| {
                    let range = *start..derived.min(start + chunk);
                    scope.spawn(move || range.map(|index| signer(seed, index)).collect::<Vec<_>>())
                })
                .collect();
            jobs.into_iter().map(|job| job.join().expect("deriving a key does not panic")).collect::<Vec<_>>()
        });
        let signers = std::iter::once(funder).chain(parts.into_iter().flatten()).collect();
        Self { signers, borrowers }
    }

    /// The key of an account.
    ///
    /// # Panics
    /// For an id of another plan.
    #[must_use]
    pub fn signer(&self, id: AccountId) -> &PrivateKeySigner {
        &self.signers[id.index()]
    }

    /// The address of an account.
    ///
    /// # Panics
    /// For an id of another plan.
    #[must_use]
    pub fn address(&self, id: AccountId) -> Address {
        self.signer(id).address()
    }

    /// The addresses of all accounts, indexed by account.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.signers.iter().map(PrivateKeySigner::address).collect()
    }

    /// Number of accounts, funder and owner included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.signers.len()
    }

    /// Every account but the funder.
    pub fn funded(&self) -> impl ExactSizeIterator<Item = AccountId> + use<> {
        (1..self.end()).map(AccountId)
    }

    /// The accounts that are liquidated.
    pub fn borrowers(&self) -> impl ExactSizeIterator<Item = AccountId> + use<> {
        (FIRST_BORROWER..self.first_sender()).map(AccountId)
    }

    /// The accounts that send what is timed.
    pub fn senders(&self) -> impl ExactSizeIterator<Item = AccountId> + use<> {
        self.sender_ids().map(AccountId)
    }

    /// The account of the n-th sender.
    #[must_use]
    pub const fn sender(&self, position: u32) -> AccountId {
        AccountId(self.first_sender() + position)
    }

    /// The account of the n-th borrower.
    #[must_use]
    pub const fn borrower(&self, position: u32) -> AccountId {
        AccountId(FIRST_BORROWER + position)
    }

    fn sender_ids(&self) -> Range<u32> {
        self.first_sender()..self.end()
    }

    const fn first_sender(&self) -> u32 {
        FIRST_BORROWER + self.borrowers
    }

    fn end(&self) -> u32 {
        u32::try_from(self.signers.len()).expect("ids have 32 bits, so there are no more accounts")
    }
}

const FIRST_BORROWER: u32 = 2;

/// Threads that derive keys and sign.
#[must_use]
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

fn signer(seed: u64, index: u32) -> PrivateKeySigner {
    let mut material = [0_u8; 24];
    material[..12].copy_from_slice(b"sluice load ");
    material[12..20].copy_from_slice(&seed.to_be_bytes());
    material[20..].copy_from_slice(&index.to_be_bytes());
    let mut key: B256 = keccak256(material);
    // All but 2^-128 of the hashes are keys of the curve; the others are hashed again.
    loop {
        match PrivateKeySigner::from_bytes(&key) {
            Ok(signer) => return signer,
            Err(_) => key = keccak256(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn funder() -> PrivateKeySigner {
        signer(0, 0)
    }

    #[test]
    fn one_seed_gives_one_set_of_accounts() {
        let (first, second) = (Accounts::new(5, funder(), 3, 10), Accounts::new(5, funder(), 3, 10));
        let addresses = |accounts: &Accounts| accounts.funded().map(|id| accounts.address(id)).collect::<Vec<_>>();
        assert_eq!(addresses(&first), addresses(&second));
        let other = Accounts::new(6, funder(), 3, 10);
        assert!(addresses(&first).iter().all(|address| !addresses(&other).contains(address)));
    }

    #[test]
    fn roles_do_not_overlap() {
        let accounts = Accounts::new(1, funder(), 3, 10);
        let mut seen = BTreeSet::from([AccountId::FUNDER, AccountId::OWNER]);
        assert!(accounts.borrowers().chain(accounts.senders()).all(|id| seen.insert(id)));
        assert_eq!(seen.len(), accounts.count());
        assert_eq!(accounts.sender(0), AccountId(5));
        assert_eq!(accounts.borrower(0), AccountId(2));
    }
}
