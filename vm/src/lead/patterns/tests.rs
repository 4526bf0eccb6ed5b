//! What makes transactions of one kind, and what is remembered of them.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, TxKind, U256};
use engine::types::Transaction;

use super::{PLACES_MAX, Pattern, Patterns, Recent, kind, mark};
use crate::testing::{ALICE, BOB, REVERT, STORE, send, transfer};

fn call(sender: Address, to: Address, selector: u8, arguments: &[U256]) -> Arc<Transaction> {
    let arguments = arguments.iter().flat_map(|word| word.to_be_bytes::<32>());
    let input: Bytes = [selector; 4].into_iter().chain(arguments).collect();
    send(sender, 0, TxKind::Call(to), U256::ZERO, input, 100_000)
}

fn word(address: Address) -> U256 {
    address.into_word().into()
}

#[test]
fn a_kind_is_the_function_and_the_addresses_whatever_their_order_and_the_amounts() {
    let (one, two) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let first = kind(&call(ALICE, STORE, 1, &[U256::from(5), word(one), word(two)]));
    assert!(first.is_some());
    assert_eq!(first, kind(&call(ALICE, STORE, 1, &[U256::from(900), word(two), word(one)])));
    assert_eq!(first, kind(&call(BOB, STORE, 1, &[word(one), word(two), word(BOB)])), "the sender is left out");
    for other in [
        call(ALICE, REVERT, 1, &[word(one), word(two)]),
        call(ALICE, STORE, 2, &[word(one), word(two)]),
        call(ALICE, STORE, 1, &[word(one), word(one)]),
        call(ALICE, STORE, 1, &[word(one)]),
    ] {
        assert_ne!(first, kind(&other));
    }
    assert_eq!(kind(&transfer(ALICE, 0, BOB, U256::from(1))), None, "no function is called");
    assert_eq!(kind(&send(ALICE, 0, TxKind::Create, U256::ZERO, Bytes::from_static(&[1; 40]), 1)), None);
}

#[test]
fn a_pattern_holds_each_place_once_and_no_more_than_it_has_room_for() {
    let pattern = Pattern::default();
    for mark in [7, 9, 7, 1] {
        pattern.add(mark);
    }
    assert_eq!(pattern.marks(), [7, 9, 1, 0, 0, 0, 0, 0]);
    (100..120).for_each(|mark| pattern.add(mark));
    assert_eq!(pattern.marks(), [7, 9, 1, 100, 101, 102, 103, 104]);
}

#[test]
fn marks_are_never_zero_and_tell_places_apart() {
    let marks: std::collections::BTreeSet<_> = (0..1_000).map(|key| mark(STORE, U256::from(key))).collect();
    assert!(!marks.contains(&0) && marks.len() > 850, "{}", marks.len());
    assert_ne!(mark(STORE, U256::from(1)), mark(REVERT, U256::from(1)));
}

#[test]
fn what_was_learned_of_a_kind_is_known_in_the_next_block() {
    let patterns = Patterns::default();
    let block = [
        call(ALICE, STORE, 1, &[]),
        transfer(ALICE, 1, BOB, U256::from(1)),
        call(ALICE, STORE, 2, &[]),
        call(BOB, STORE, 1, &[U256::from(77)]),
    ];
    let of = || patterns.of(block.iter().map(|transaction| &**transaction));
    let known = of();
    known.learn(0, [5, 6]);
    known.learn(1, [8]);
    let expected = |first: [u16; 2]| [first[0], first[1], 0, 0, 0, 0, 0, 0];
    assert_eq!(known.marks(3), expected([5, 6]), "of one kind");
    assert_eq!([known.marks(1), known.marks(2)], [[0; PLACES_MAX]; 2]);
    patterns.remember(&known);
    let known = of();
    assert_eq!([0, 1, 2, 3].map(|at| known.marks(at)[0]), [5, 0, 0, 5]);
}

/// A block remembers what it knew when it began; that must not undo what was learned meanwhile.
#[test]
fn what_is_learned_during_a_block_is_kept_beside_what_the_block_teaches() {
    let patterns = Patterns::default();
    let block = [call(ALICE, STORE, 1, &[])];
    let of = || patterns.of(block.iter().map(|transaction| &**transaction));
    let known = of();
    known.learn(0, [5]);
    patterns.add(kind(&block[0]).unwrap(), &[9]);
    patterns.remember(&known);
    assert_eq!(of().marks(0)[..3], [9, 5, 0]);
}

#[test]
fn a_bounded_map_forgets_what_was_not_set_for_longest() {
    let mut recent = Recent::new(2);
    (0..3).for_each(|key| recent.set(key, key));
    assert_eq!([0, 1, 2].map(|key| recent.get(key)), [Some(0), Some(1), Some(2)]);
    recent.set(0, 7);
    recent.set(0, 8);
    recent.set(5, 5);
    assert_eq!([0, 1, 2, 5].map(|key| recent.get(key)), [Some(8), None, Some(2), Some(5)]);
    assert!(recent.young.len() <= 2 && recent.old.len() <= 2);
}
