//! From votes to a certificate: joined unseen, checked once, and only searched for wrong ones if that fails.

use crate::{
    crypto::Committee,
    types::{Certificate, Domain, Signature, Signers, Stake, Statement, ValidatorIndex, ValidatorSet},
};

/// Makes the certificate of a statement out of votes for it, and names the senders of wrong ones.
///
/// `shares` are signatures over [`Domain::vote`] by the validators that sent them; of one that is there twice the first
/// counts. Nothing is verified as long as all of them together weigh less than a quorum. `None` if those that are left
/// after wrong ones weigh less. `least` is the quorum, [`ValidatorSet::quorum`].
#[must_use]
pub fn certify(
    set: &ValidatorSet,
    committee: &dyn Committee,
    domain: &Domain,
    statement: &Statement,
    shares: &[(ValidatorIndex, Signature)],
    least: Stake,
) -> (Option<Certificate>, Vec<ValidatorIndex>) {
    let mut senders = Signers::none(set.size());
    let mut once = Vec::with_capacity(shares.len().min(set.size()));
    let mut named = Vec::new();
    for (sender, signature) in shares {
        if set.get(*sender).is_none() {
            named.push(*sender);
        } else if senders.add(*sender) {
            once.push((*sender, *signature));
        }
    }
    if senders.stake(set) < least {
        return (None, named);
    }
    let (signature, wrong) = committee.join(domain.vote(set.epoch(), statement), &once);
    let mut signers = Signers::none(set.size());
    for (sender, _) in &once {
        if !wrong.contains(sender) {
            signers.add(*sender);
        }
    }
    named.extend(wrong);
    let certificate = signature.filter(|_| signers.stake(set) >= least).map(|signature| Certificate {
        epoch: set.epoch(),
        statement: *statement,
        signers,
        signature,
    });
    (certificate, named)
}
