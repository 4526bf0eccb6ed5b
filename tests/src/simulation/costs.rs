//! What signatures cost a real node, where the simulator's own cost next to nothing.
//!
//! Microseconds of one core, measured with `cargo bench -p bench --bench ordering`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use alloy_primitives::B256;
use engine::{
    crypto::{Committee, Scheme, Signer},
    types::{Signature, Signers, ValidatorIndex, ValidatorSet},
};

/// One signature.
const SIGN_US: u64 = 280;
/// One pairing check.
const CHECK_US: u64 = 850;
/// A signer of a certificate, in thousandths of a microsecond: its key is added.
const KEY_NS: u64 = 600;
/// A share that is joined: its point is read and added.
const SHARE_US: u64 = 33;

/// Counts microseconds.
#[derive(Debug, Default)]
pub(super) struct Meter(AtomicU64);

impl Meter {
    fn add(&self, us: u64) {
        self.0.fetch_add(us, Relaxed);
    }

    /// What was counted since it was asked last.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// Counts what everything that is asked of the inner one would cost.
#[derive(Clone, Debug)]
pub(super) struct Metered<I> {
    inner: I,
    meter: Arc<Meter>,
}

impl<I> Metered<I> {
    /// Counts on this meter.
    pub(super) fn new(inner: I, meter: &Arc<Meter>) -> Self {
        Self { inner, meter: meter.clone() }
    }
}

impl<I: Signer> Signer for Metered<I> {
    fn sign(&self, hash: B256) -> Signature {
        self.meter.add(SIGN_US);
        self.inner.sign(hash)
    }
}

impl<I: Scheme> Scheme for Metered<I> {
    fn committee(&self, set: &ValidatorSet) -> Option<Arc<dyn Committee>> {
        Some(Arc::new(Metered { inner: self.inner.committee(set)?, meter: self.meter.clone() }))
    }
}

impl Committee for Metered<Arc<dyn Committee>> {
    fn verify(&self, signer: ValidatorIndex, hash: B256, signature: &Signature) -> bool {
        self.meter.add(CHECK_US);
        self.inner.verify(signer, hash, signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        self.meter.add(SHARE_US * signatures.len() as u64);
        self.inner.aggregate(signatures)
    }

    fn verify_aggregate(&self, signers: &Signers, hash: B256, signature: &Signature) -> bool {
        self.meter.add(CHECK_US + KEY_NS * signers.iter().count() as u64 / 1_000);
        self.inner.verify_aggregate(signers, hash, signature)
    }

    fn join(&self, hash: B256, shares: &[(ValidatorIndex, Signature)]) -> (Option<Signature>, Vec<ValidatorIndex>) {
        let (joined, wrong) = self.inner.join(hash, shares);
        // A wrong one is searched for by halves.
        let checks = 1 + wrong.len() as u64 * u64::from(shares.len().max(1).ilog2() + 1);
        self.meter.add(CHECK_US * checks + SHARE_US * shares.len() as u64);
        (joined, wrong)
    }
}
