//! Which version a reader finds. What happens while others write is in `tests/models`.

use alloy_primitives::{Address, B256, U256};
use engine::{testing::MapState, types::Account};

use super::{Cell, Versions};

#[test]
fn a_reader_finds_the_newest_guess_below_it_that_is_not_committed_yet() {
    let cell = Cell::new([10]);
    assert_eq!(cell.read(5, 1), [10], "nobody wrote");
    cell.guess(2, 1, [12]);
    cell.guess(4, 1, [14]);
    assert_eq!([2, 3, 4, 5].map(|at| cell.read(at, 1)[0]), [10, 12, 12, 14], "a guess is seen above itself");
    cell.commit([13]);
    assert_eq!(cell.read(3, 3), [13], "what is committed hides older guesses");
    assert_eq!(cell.read(5, 3), [14]);
    assert_eq!(cell.committed(), [13]);
}

#[test]
fn a_guess_replaces_its_own_earlier_version_and_the_oldest_makes_way() {
    let cell = Cell::new([0]);
    cell.guess(3, 1, [1]);
    cell.guess(3, 1, [2]);
    assert_eq!(cell.read(4, 1), [2]);
    for number in 4..9 {
        cell.guess(number, 1, [u64::from(number)]);
    }
    assert_eq!([9, 8, 7, 6].map(|at| cell.read(at, 1)[0]), [8, 7, 6, 0], "three versions are kept");
    cell.commit([7]);
    cell.guess(10, 9, [10]);
    cell.guess(11, 9, [11]);
    assert_eq!([12, 11, 10].map(|at| cell.read(at, 9)[0]), [11, 10, 7], "committed ones make way first");
}

/// Two places never share a number, and one place never has two.
#[test]
fn places_are_told_apart_by_their_whole_key() {
    let mut state = MapState::default();
    let account = engine::genesis::GenesisAccount {
        balance: U256::from(9),
        storage: [(U256::from(1), U256::from(5))].into(),
        ..Default::default()
    };
    state.insert(Address::with_last_byte(1), &account);
    let versions = Versions::new(&state);
    let numbers: Vec<u32> =
        (0..100).map(|last| versions.account_number(Address::with_last_byte(last)).unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<u32>>());
    assert_eq!(versions.account_number(Address::with_last_byte(7)).unwrap(), 7);
    let slots: Vec<u32> = (0..4).map(|at| versions.slot_number(at / 2, U256::from(at % 2)).unwrap()).collect();
    assert_eq!(slots, [0, 1, 2, 3]);
    assert_eq!(versions.slot_number(1, U256::from(1)).unwrap(), 3);
    assert_eq!(versions.slot(3).unwrap().committed(), U256::from(5));
    assert_eq!(versions.slot(0).unwrap().committed(), U256::ZERO, "no such account");
    assert!(versions.slot(4).is_err() && versions.account(100).is_err(), "never given out");
}

#[test]
fn an_account_comes_back_as_it_was() {
    let state = MapState::default();
    let versions = Versions::new(&state);
    let place = versions.account(versions.account_number(Address::ZERO).unwrap()).unwrap();
    assert_eq!(place.committed(), None);
    let account = Account { nonce: u64::MAX, balance: U256::MAX - U256::from(3), code_hash: B256::repeat_byte(0xc5) };
    place.commit(Some(account));
    assert_eq!(place.committed(), Some(account));
    place.guess(4, 1, None);
    assert_eq!((place.read(5, 1), place.read(4, 1)), (None, Some(account)));
}
