//! Wishes that the model has no way to put, or puts only on long ways.

use alloy_primitives::B256;
use engine::{
    ordering::{
        planted::Planted,
        rules::{Candidate, Parent, Record, Withheld},
    },
    types::{Epoch, Slot, Statement},
};

const A: B256 = B256::with_last_byte(1);
const B: B256 = B256::with_last_byte(2);
const BASE: Parent = Parent { slot: None, id: B256::ZERO };

fn record() -> Record {
    Record::new(Epoch(0), 1, B256::ZERO, None, Planted::default())
}

fn block(slot: u64, id: B256, parent: Parent) -> Candidate {
    Candidate { slot: Slot(slot), id, parent, valid: Some(true) }
}

#[test]
fn nothing_is_signed_at_or_below_the_newest_final_block() {
    let mut record = record();
    record.notarize(&block(0, A, BASE)).unwrap();
    record.observe(&Statement::Notarize { slot: Slot(0), id: A }).unwrap();
    record.finalize(Slot(0), A, Some(true)).unwrap();
    record.observe(&Statement::Finalize { slot: Slot(1), id: B }).unwrap();
    for slot in [Slot(0), Slot(1)] {
        assert_eq!(record.skip(slot), Err(Withheld::Decided));
        assert_eq!(record.propose(slot, A), Err(Withheld::Decided));
        assert_eq!(record.finalize(slot, B, Some(true)), Err(Withheld::Decided));
    }
    assert_eq!(record.notarize(&block(0, B, BASE)), Err(Withheld::Decided));
    let on_final = block(2, A, Parent { slot: Some(Slot(1)), id: B });
    assert!(record.notarize(&on_final).is_ok());
}

#[test]
fn a_parent_lies_below_its_child() {
    let mut record = record();
    record.observe(&Statement::Notarize { slot: Slot(2), id: A }).unwrap();
    for slot in [1, 2] {
        let upside_down = block(slot, B, Parent { slot: Some(Slot(2)), id: A });
        assert_eq!(record.notarize(&upside_down), Err(Withheld::ParentNotBelow));
    }
}
