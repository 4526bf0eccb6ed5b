//! Entries read back, their bytes are pinned, and no bytes make the decoder panic.

use alloy_primitives::{FixedBytes, b256, hex, keccak256};
use proptest::prelude::*;

use super::*;
use crate::{
    limits::VALIDATORS_MAX,
    types::{PublicKey, Signers, Statement, ValidatorIndex},
};

fn set(size: usize) -> ValidatorSet {
    let validator = |index: usize| Validator {
        public_key: PublicKey(FixedBytes::left_padding_from(&(index + 1).to_be_bytes())),
        stake: u64::MAX / VALIDATORS_MAX as u64,
        operator: [7; 20].into(),
    };
    ValidatorSet::new(Epoch(3), (0..size).map(validator).collect()).unwrap()
}

fn signature() -> Signature {
    Signature(FixedBytes::repeat_byte(5))
}

fn vote(statement: Statement) -> Entry {
    Entry::Vote(Vote { epoch: Epoch(3), statement, voter: ValidatorIndex(2), signature: signature() })
}

fn certificate(statement: Statement) -> Entry {
    let mut signers = Signers::none(9);
    for index in [0, 3, 8] {
        signers.add(ValidatorIndex(index));
    }
    Entry::Certificate(Certificate { epoch: Epoch(3), statement, signers, signature: signature() })
}

fn start(size: usize) -> Entry {
    Entry::EpochStart { epoch: Epoch(3), base: B256::repeat_byte(1), set: set(size) }
}

fn entries() -> Vec<Entry> {
    let (slot, id) = (Slot(70_000), B256::repeat_byte(9));
    let header = ConsensusHeader { epoch: 3, slot: 70_000, height: 9, ..ConsensusHeader::default() };
    let (epoch, own) = (header.epoch(), header.id());
    vec![
        start(3),
        Entry::Floor { epoch: Epoch(2), slot: Slot(0) },
        Entry::Proposal { epoch, slot, id: own, header: Box::new(header), signature: signature() },
        vote(Statement::Notarize { slot, id }),
        vote(Statement::Skip { slot }),
        vote(Statement::Finalize { slot, id }),
        certificate(Statement::Notarize { slot, id }),
        certificate(Statement::Skip { slot }),
        certificate(Statement::Finalize { slot, id }),
        Entry::Regained { epoch: Epoch(2), slot },
    ]
}

#[test]
fn entries_read_back_and_their_bytes_are_pinned() {
    let bytes: Vec<u8> = entries()[..9].iter().flat_map(alloy_rlp::encode).collect();
    assert_eq!(keccak256(&bytes), b256!("9141eed19e09bd586d5baadb1d059cca8e7aab4a2b420043128bd4cc85ab1cca"));
    assert_eq!(alloy_rlp::encode(&entries()[9]), hex!("c6 06 02 83011170"));
    for entry in entries() {
        let bytes = alloy_rlp::encode(&entry);
        assert_eq!(Entry::decode(&mut &bytes[..]).as_ref(), Ok(&entry));
        for cut in 0..bytes.len() {
            assert!(Entry::decode(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn a_floor_and_what_was_regained_say_below_what_nothing_is_signed_and_nothing_else_does() {
    let floors: Vec<_> = entries().iter().filter_map(Entry::floor).collect();
    assert_eq!(floors, [(Epoch(2), Slot(0)), (Epoch(2), Slot(70_000))]);
}

#[test]
fn the_largest_set_fits_an_entry_and_more_than_an_entry_does_not_decode() {
    let largest = start(VALIDATORS_MAX);
    let bytes = alloy_rlp::encode(&largest);
    assert!(bytes.len() <= limits::JOURNAL_ENTRY_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(Entry::decode(&mut &bytes[..]), Ok(largest));
    let mut too_large = Vec::new();
    list(&mut too_large, VOTE, &[&vec![0_u8; limits::JOURNAL_ENTRY_BYTES_MAX].as_slice()]);
    assert_eq!(Entry::decode(&mut &too_large[..]), Err(Error::Custom("an entry of the log is too large")));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(which in 0..10_usize, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = alloy_rlp::encode(&entries()[which]);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(entry) = Entry::decode(&mut &bytes[..]) {
            prop_assert_eq!(Entry::decode(&mut &alloy_rlp::encode(&entry)[..]), Ok(entry));
        }
    }
}
