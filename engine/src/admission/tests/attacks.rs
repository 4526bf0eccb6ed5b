//! A full pool under attack, with an oracle that counts money.
//!
//! Honest senders bid what they like and leave the base fee room to rise by a fifth or to double, as wallets do.
//! Attackers do everything that they can think of, at random: floods below and just above the base fee, dear
//! transactions that displace others and are made void, by a transaction with their nonce in a block that another node
//! built or by delegated code (EIP-7702) that sends the balance away, runs whose balance pays for the first only, gaps,
//! replacements over and over, call data that takes many places, and its replacement by a small one. Blocks are built
//! of the pool as a leader does it.
//!
//! **The oracle.** Every honest transaction that is evicted is a debt of the attacker's transaction for which it was. A
//! debt is what the evicted one would pay: its gas, all honest ones are transfers, at the least that it and those
//! before it bid, and nothing while that is below the base fee. It goes over to the attacker's transaction that
//! replaces or evicts the debtor, and ends
//!
//! - *settled*, when a block includes the debtor: at that block's base fee;
//! - *forgiven*, when an honest one evicts the debtor that pays as much as the evicted one, since it would have evicted
//!   that as well; or [`DUE`] blocks later, since the evicted one would have waited for as long behind the debtor;
//! - *unpaid*, when the debtor leaves in any other way, becomes void or can no longer pay the base fee.
//!
//! After every block, the fees that debtors commit, at the present base fee and with the least gas that they can use,
//! cover all debts. Over [`WINDOW`] blocks at a time debtors paid at least what they settled; what made debtors void
//! paid at least the base fee of what stayed unpaid; and wherever the next transaction of an honest sender was refused
//! since the pool is full, every one of the attackers' was executable and committed as much per gas.
//!
//! `SLUICE_STEPS` sets the number of steps (default 800,000), `SLUICE_SEED` the seed of the first run.

mod ledger;
mod run;

use self::run::{Attack, Run};
use crate::{admission::planted::Weakness, crypto::tests::setting};

/// Steps of one run.
const STEPS: u64 = 20_000;

/// Blocks after which a debt is forgiven: as many as the room for the base fee is meant for.
const DUE: u64 = 54;

/// Blocks over which attackers pay for what they displaced in them.
const WINDOW: u64 = 32;

#[test]
fn attackers_pay_for_what_they_displace() {
    let (mut left, mut seed) = (setting("SLUICE_STEPS", 800_000), setting("SLUICE_SEED", 1));
    let steps = left;
    let mut totals = ledger::Totals::default();
    let (mut honest, mut expected) = (0, 0);
    while left > 0 {
        let attack = if seed.is_multiple_of(2) { Attack::Dear } else { Attack::Cheap };
        let mut run = Run::new(seed, attack);
        let outcome = run.play(STEPS.min(left));
        assert!(outcome.is_ok(), "seed {seed}, {attack:?}: {outcome:?}");
        totals.add(&run.ledger.all);
        if attack == Attack::Cheap {
            let mut alone = Run::new(seed, Attack::None);
            alone.play(STEPS.min(left)).expect("nobody attacks");
            let (included, of) = (run.included, alone.included);
            (honest, expected) = (honest + included, expected + of);
            assert!(included * 10 >= of * 9, "seed {seed}: {included} honest ones of {of} were included");
        }
        (left, seed) = (left.saturating_sub(STEPS), seed + 1);
    }
    eprintln!("attack steps {steps}, next seed {seed}: {honest} of {expected} honest ones included, {totals:?}");
    assert!(
        totals.evicted > 0 && totals.settled > 0 && totals.unpaid > 0 && totals.refused > 0,
        "nothing was tried: {totals:?}"
    );
}

#[test]
fn planted_weaknesses_are_found() {
    for weakness in Weakness::ALL {
        let found = (1..=20).find_map(|seed| {
            let mut run = Run::new(seed, if seed.is_multiple_of(2) { Attack::Dear } else { Attack::Cheap });
            run.pool.plant(Some(weakness));
            run.play(STEPS).err().map(|error| (seed, error))
        });
        eprintln!("{weakness:?}: {found:?}");
        assert!(found.is_some(), "{weakness:?}");
    }
}
