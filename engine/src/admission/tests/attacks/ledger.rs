//! Who owes what to whom was displaced.

use std::collections::BTreeMap;

use alloy_primitives::B256;

use super::DUE;
use crate::admission::bids::Bid;

/// Gas of a transfer; all honest transactions are one.
pub(super) const TRANSFER: u64 = 21_000;

/// What a transfer with this bid pays at a base fee.
fn fee(bid: &Bid, base_fee: u64) -> u128 {
    let price = bid.price(base_fee);
    if price < base_fee.into() { 0 } else { price * u128::from(TRANSFER) }
}

/// An honest transaction that was evicted.
#[derive(Debug)]
struct Debt {
    bid: Bid,
    since: u64,
}

/// Sums in wei; the lower one of each pair is never more than the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Honest transactions that were evicted.
    pub(super) evicted: u64,
    /// What included debtors paid.
    pub(super) paid: u128,
    /// Their debts.
    pub(super) settled: u128,
    /// What attackers paid to make debtors void.
    pub(super) voiding: u128,
    /// Debts that stayed unpaid, tips apart.
    pub(super) unpaid: u128,
    /// What the cheapest of the attackers' committed where an honest one was refused.
    pub(super) held: u128,
    /// What the refused would have paid.
    pub(super) refused: u128,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.evicted += other.evicted;
        self.paid += other.paid;
        self.settled += other.settled;
        self.voiding += other.voiding;
        self.unpaid += other.unpaid;
        self.held += other.held;
        self.refused += other.refused;
    }

    /// # Errors
    /// The totals, if the attackers paid less than they displaced.
    fn check(&self, what: &str) -> Result<(), String> {
        let is_paid = self.paid >= self.settled && self.voiding >= self.unpaid && self.held >= self.refused;
        if is_paid { Ok(()) } else { Err(format!("{what}: {self:?}")) }
    }
}

/// The debts, by the hash of the debtor, and what became of those that ended.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    debts: BTreeMap<B256, Vec<Debt>>,
    pub(super) window: Totals,
    pub(super) all: Totals,
}

impl Ledger {
    /// The debtors, and how many each displaced.
    pub(super) fn debtors(&self) -> impl Iterator<Item = (&B256, usize)> {
        self.debts.iter().map(|(hash, debts)| (hash, debts.len()))
    }

    /// An honest transaction was evicted, which counts if it could pay.
    pub(super) fn evicted(&mut self, debtor: B256, bid: Bid, base_fee: u64, since: u64) {
        if fee(&bid, base_fee) > 0 {
            self.debts.entry(debtor).or_default().push(Debt { bid, since });
            self.window.evicted += 1;
        }
    }

    /// An honest transaction was refused; `cheapest` is what the cheapest of the attackers' pays per gas, if it can.
    pub(super) fn refused(&mut self, bid: &Bid, cheapest: Option<u128>, base_fee: u64) {
        self.window.refused += fee(bid, base_fee);
        self.window.held += cheapest.unwrap_or_default() * u128::from(TRANSFER);
    }

    /// Another transaction of the attackers takes the place of the debtor.
    pub(super) fn inherit(&mut self, debtor: B256, heir: B256) {
        if let Some(debts) = self.debts.remove(&debtor) {
            self.debts.entry(heir).or_default().extend(debts);
        }
    }

    /// An honest transaction takes the place of the debtor.
    pub(super) fn regained(&mut self, debtor: &B256, by: &Bid, base_fee: u64) {
        let debts = self.debts.remove(debtor).unwrap_or_default();
        let lost = debts.iter().filter(|debt| debt.bid.price(base_fee) > by.price(base_fee));
        self.window.unpaid += lost.map(|debt| unpaid(debt, base_fee)).sum::<u128>();
    }

    /// The debtor is void or gone.
    pub(super) fn defaulted(&mut self, debtor: &B256, base_fee: u64) {
        let debts = self.debts.remove(debtor).unwrap_or_default();
        self.window.unpaid += debts.iter().map(|debt| unpaid(debt, base_fee)).sum::<u128>();
    }

    /// A block includes a transaction of the attackers, which pays this.
    pub(super) fn included(&mut self, hash: &B256, paid: u128, base_fee: u64) {
        if let Some(debts) = self.debts.remove(hash) {
            self.window.paid += paid;
            self.window.settled += debts.iter().map(|debt| fee(&debt.bid, base_fee)).sum::<u128>();
        }
    }

    /// Compares debts with what the debtors commit; `committed` is `None` for who cannot be included.
    ///
    /// # Errors
    /// Both sums, if the debts are more.
    pub(super) fn audit(
        &mut self,
        committed: impl Fn(&B256) -> Option<u128>,
        base_fee: u64,
        height: u64,
    ) -> Result<(), String> {
        let void: Vec<B256> = self.debts.keys().copied().filter(|debtor| committed(debtor).is_none()).collect();
        void.iter().for_each(|debtor| self.defaulted(debtor, base_fee));
        let owed: u128 = self.debts.values().flatten().map(|debt| fee(&debt.bid, base_fee)).sum();
        let backed: u128 = self.debts.keys().filter_map(committed).sum();
        self.debts.retain(|_, debts| {
            debts.retain(|debt| height - debt.since < DUE);
            !debts.is_empty()
        });
        if owed <= backed { Ok(()) } else { Err(format!("height {height}: {owed} owed, {backed} committed")) }
    }

    /// Begins another window.
    ///
    /// # Errors
    /// What the window sums up to, if the attackers paid less than they displaced.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        let window = std::mem::take(&mut self.window);
        self.all.add(&window);
        window.check("in this window")
    }
}

/// What counts of a debt that nobody pays: what makes a transaction void in another node's block needs no tip.
fn unpaid(debt: &Debt, base_fee: u64) -> u128 {
    fee(&debt.bid, base_fee).min(u128::from(TRANSFER) * u128::from(base_fee))
}
