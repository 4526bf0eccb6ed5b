//! Every worst case does what it says: its block succeeds, uses its gas, and spends it on what it is named for.

#[path = "../benches/arena/mod.rs"]
mod arena;

use alloy_primitives::U256;
use arena::Arena;
use bench::{WorstCase, worst::Account};
use engine::types::{AccountChange, Receipt};
use vm::sequential::Finished;

const GAS: u64 = 2_000_000;

fn run(case: WorstCase, gas: u64) -> Finished {
    let finished = Arena::new(&case.accounts(), &case.calls(gas)).run();
    assert!(finished.receipts.iter().all(|receipt| receipt.success), "{} has failures", case.name());
    assert!(finished.gas_used * 10 >= gas * 9, "{} used {} of {gas}", case.name(), finished.gas_used);
    finished
}

/// Rounds that a contract counted: the last thing it logs.
fn rounds(receipt: &Receipt) -> u64 {
    let log = receipt.logs.last().expect("a contract that ends well has logged its rounds");
    U256::from_be_slice(&log.data.data).to()
}

/// Runs a case and checks that its rounds account for most of the gas.
fn check(case: WorstCase) {
    let finished = run(case, GAS);
    let rounds: u64 = finished.receipts.iter().map(rounds).sum();
    let spent = rounds * case.gas_per_round();
    let share = spent * 100 / finished.gas_used;
    let least = match case {
        // Much of a round is the call of a precompile that costs 150, or 500.
        WorstCase::EcAdd => 30,
        WorstCase::Modexp => 65,
        _ => 85,
    };
    assert!((least..=100).contains(&share), "{} spends {share} % in {rounds} rounds", case.name());
}

#[test]
fn precompiles_are_what_the_gas_is_spent_on() {
    use WorstCase as W;
    for case in [W::Modexp, W::EcAdd, W::EcMul, W::Pairing, W::KzgPoint, W::BlsG1Msm, W::BlsG2Msm] {
        check(case);
    }
    for case in [W::BlsPairing, W::Blake2, W::EcRecover, W::P256Verify] {
        check(case);
    }
}

#[test]
fn opcodes_are_what_the_gas_is_spent_on() {
    use WorstCase as W;
    for case in [W::MulMod, W::Keccak, W::ColdSload, W::ColdAccount, W::ColdCode, W::SstoreFresh, W::Create, W::Log] {
        check(case);
    }
}

#[test]
fn call_data_is_as_long_as_the_gas_allows() {
    let finished = run(WorstCase::Calldata, GAS);
    assert!(rounds(&finished.receipts[0]) >= 10);
    let bytes: usize = WorstCase::Calldata.calls(GAS).iter().map(|call| call.call.input.len()).sum();
    assert!(u64::try_from(bytes).unwrap() * 10 >= GAS * 9 / 10, "{bytes} bytes");
}

/// Slots and accounts that two transactions touch are different ones.
#[test]
fn transactions_of_a_block_do_not_meet() {
    let gas = 20_000_000;
    let finished = run(WorstCase::SstoreFresh, gas);
    let counted: u64 = finished.receipts.iter().map(rounds).sum();
    let contract = &finished.changes.accounts[&WorstCase::SstoreFresh.address()];
    assert_eq!(u64::try_from(contract.slots.len()).unwrap(), counted);

    let finished = run(WorstCase::Create, gas);
    let counted: u64 = finished.receipts.iter().map(rounds).sum();
    let is_contract = |change: &&AccountChange| change.after.as_ref().is_some_and(|account| account.nonce == 1);
    let created = finished.changes.accounts.values().filter(|change| change.before.is_none()).filter(is_contract);
    assert_eq!(u64::try_from(created.count()).unwrap(), counted);
}

/// A contract whose input is wrong reverts, so no case can pass without its work.
#[test]
fn a_wrong_input_is_noticed() {
    use WorstCase as W;
    for case in [W::Pairing, W::KzgPoint, W::BlsPairing, W::EcRecover, W::P256Verify] {
        let mut accounts = case.accounts();
        let mut code = accounts[0].code.to_vec();
        *code.last_mut().unwrap() ^= 1;
        accounts[0] = Account { code: code.into(), ..accounts[0].clone() };
        let finished = Arena::new(&accounts, &case.calls(GAS)).run();
        assert!(!finished.receipts[0].success, "{} takes anything", case.name());
    }
}
