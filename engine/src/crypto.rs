//! Who signed what: the two doors to signatures that ordering knows.
//!
//! Behind them is BLS on a production node ([`bls`]); a simulation puts something faster behind them that still tells
//! forged from true. What is signed is always a hash by [`crate::types::Domain`].

mod bisect;
pub mod bls;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt::Debug, sync::Arc};

use alloy_primitives::B256;

use crate::types::{Signature, Signers, ValidatorIndex, ValidatorSet};

/// Signs with this validator's own key.
pub trait Signer: Send + Sync + Debug {
    /// Signs a hash.
    fn sign(&self, hash: B256) -> Signature;
}

/// Verifies what the validators of one set signed.
pub trait Committee: Send + Sync + Debug {
    /// Whether this validator signed the hash; `false` outside the set.
    fn verify(&self, signer: ValidatorIndex, hash: B256, signature: &Signature) -> bool;

    /// Joins signatures over one hash; `None` if one of them is no signature at all. The order does not matter.
    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature>;

    /// Whether all of these validators signed the hash, and nobody else's signature is in it; `false` for nobody, and
    /// for a bitmap of another size than the set's.
    fn verify_aggregate(&self, signers: &Signers, hash: B256, signature: &Signature) -> bool;

    /// Joins one share of each sender: the aggregate of the right ones, `None` if there are none, and the senders of
    /// the wrong ones, in rising order. What comes from outside the set is wrong.
    ///
    /// The aggregate holds for exactly the senders that are not named. It does not prove each share alone: wrong shares
    /// of several senders that make up for one another are in it, and harm nobody.
    fn join(&self, hash: B256, shares: &[(ValidatorIndex, Signature)]) -> (Option<Signature>, Vec<ValidatorIndex>) {
        let (right, wrong): (Vec<_>, Vec<_>) =
            shares.iter().partition(|(sender, signature)| self.verify(*sender, hash, signature));
        let signatures: Vec<Signature> = right.into_iter().map(|(_, signature)| signature).collect();
        let mut wrong: Vec<ValidatorIndex> = wrong.into_iter().map(|(sender, _)| sender).collect();
        wrong.sort_unstable();
        (if signatures.is_empty() { None } else { self.aggregate(&signatures) }, wrong)
    }
}

/// Makes the committee of a set.
pub trait Scheme: Send + Sync + Debug {
    /// The committee of this set; `None` if one of its keys is none.
    fn committee(&self, set: &ValidatorSet) -> Option<Arc<dyn Committee>>;
}
