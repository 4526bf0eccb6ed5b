//! What a light client accepts and refuses, over three epochs whose sets change.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256};
use proptest::prelude::*;

use super::{FinalityProof, Finalized, Handover, LightError, Trust};
use crate::{
    crypto::{
        Scheme as _, Signer as _,
        bls::{BlsScheme, SecretKey},
    },
    ordering::verify::CertificateError,
    types::{
        Certificate, ConsensusHeader, Domain, Epoch, Height, Signers, Slot, Stake, Statement, Validator,
        ValidatorIndex, ValidatorSet,
    },
};

const DOMAIN: Domain = Domain { chain_id: 9, genesis: B256::repeat_byte(0x9e) };

fn secret(number: u8) -> SecretKey {
    let mut secret = [0; 32];
    secret[31] = number;
    SecretKey::from_bytes(&mut secret).expect("a small number is a key")
}

/// Four validators of an epoch; each epoch replaces one.
fn numbers(epoch: u8) -> [u8; 4] {
    std::array::from_fn(|at| 1 + epoch + u8::try_from(at).expect("small"))
}

fn set(epoch: u8) -> ValidatorSet {
    let member = |number| Validator { public_key: secret(number).public_key(), stake: 10, operator: Address::ZERO };
    ValidatorSet::new(Epoch(epoch.into()), numbers(epoch).map(member).to_vec()).expect("a set")
}

fn block(height: u64) -> Header {
    Header {
        number: height,
        state_root: B256::with_last_byte(u8::try_from(height).expect("small")),
        ..Header::default()
    }
}

fn header(epoch: u8, slot: u64, height: u64, parent: B256, next: Option<&ValidatorSet>) -> ConsensusHeader {
    ConsensusHeader {
        chain_id: 9,
        epoch: epoch.into(),
        slot,
        height,
        parent_id: parent,
        block_hash: block(height).hash_slow(),
        next_set_hash: next.map_or(B256::ZERO, ValidatorSet::hash),
        ..ConsensusHeader::default()
    }
}

/// What these members of an epoch's set say.
fn certificate(epoch: u8, statement: Statement, members: &[u16]) -> Certificate {
    let set = set(epoch);
    let hash = DOMAIN.vote(set.epoch(), &statement);
    let mut signers = Signers::none(set.size());
    let shares: Vec<_> = members
        .iter()
        .map(|member| {
            signers.add(ValidatorIndex(*member));
            secret(numbers(epoch)[usize::from(*member)]).sign(hash)
        })
        .collect();
    let committee = BlsScheme.committee(&set).expect("keys");
    let signature = committee.aggregate(&shares).expect("somebody signs");
    Certificate { epoch: set.epoch(), statement, signers, signature }
}

fn finalization(header: &ConsensusHeader, members: &[u16]) -> Certificate {
    let statement = Statement::Finalize { slot: header.slot(), id: header.id() };
    certificate(u8::try_from(header.epoch).expect("small"), statement, members)
}

/// From epoch 0 to 1 by a tail header, from 1 to 2 by the last block itself.
fn handovers() -> [Handover; 2] {
    let last = header(0, 3, 4, B256::ZERO, Some(&set(1)));
    let tail = ConsensusHeader { slot: 4, parent_id: last.id(), timestamp_ms: 7, ..last };
    let certificate = finalization(&tail, &[0, 1, 2]);
    let first = Handover { header: tail, certificate, next: set(1) };
    let header = header(1, 9, 8, B256::ZERO, Some(&set(2)));
    let certificate = finalization(&header, &[1, 2, 3]);
    [first, Handover { header, certificate, next: set(2) }]
}

/// Block 9 of epoch 2, final by a certificate two blocks above.
fn proof() -> FinalityProof {
    let own = header(2, 0, 9, B256::ZERO, None);
    let above = header(2, 1, 10, own.id(), None);
    let top = header(2, 2, 11, above.id(), None);
    FinalityProof { certificate: finalization(&top, &[0, 1, 3]), headers: vec![top, above, own], block: block(9) }
}

fn trusted() -> Trust<'static> {
    let mut trust = Trust::new(DOMAIN, set(0), &BlsScheme);
    handovers().iter().for_each(|handover| trust.hand_over(handover).expect("it holds"));
    trust
}

#[test]
fn a_final_block_is_accepted_over_two_changes_of_the_set() {
    let found = trusted().verify(&proof()).expect("final");
    let hash = block(9).hash_slow();
    assert_eq!(found, Finalized { height: Height(9), hash, state_root: B256::with_last_byte(9), epoch: Epoch(2) });
}

type Edit = fn(&mut FinalityProof);
type IsExpected = fn(&LightError) -> bool;

#[test]
fn what_is_not_final_is_refused_with_its_reason() {
    let cases: [(Edit, IsExpected); 10] = [
        (|proof| proof.headers.clear(), |error| *error == LightError::Empty),
        (|proof| _ = proof.headers.remove(1), |error| matches!(error, LightError::Chain { .. })),
        (|proof| _ = proof.headers.remove(0), |error| matches!(error, LightError::OtherHeader { .. })),
        (|proof| proof.headers[2].height = 8, |error| matches!(error, LightError::Chain { .. })),
        (|proof| proof.block.number = 8, |error| matches!(error, LightError::OtherBlock { .. })),
        (|proof| proof.block.state_root = B256::ZERO, |error| matches!(error, LightError::OtherBlock { .. })),
        (
            |proof| proof.certificate = finalization(&proof.headers[0], &[0, 1]),
            |error| {
                let few = CertificateError::Stake { expected: Stake(27), found: Stake(20) };
                matches!(error, LightError::Certificate { error, .. } if *error == few)
            },
        ),
        (
            |proof| {
                let header = &proof.headers[0];
                let statement = Statement::Notarize { slot: header.slot(), id: header.id() };
                proof.certificate = certificate(2, statement, &[0, 1, 2]);
            },
            |error| *error == LightError::NotFinal(Epoch(2)),
        ),
        (
            |proof| {
                let statement = Statement::Finalize { slot: Slot(1), id: proof.headers[0].id() };
                proof.certificate = certificate(2, statement, &[0, 1, 2]);
            },
            |error| matches!(error, LightError::Field { field: "slot of the certificate", .. }),
        ),
        (
            |proof| {
                let other = header(1, 9, 9, B256::ZERO, None);
                proof.certificate = finalization(&other, &[0, 1, 2]);
                proof.headers = vec![other];
            },
            |error| matches!(error, LightError::Field { field: "epoch of the header", .. }),
        ),
    ];
    for (at, (edit, is_expected)) in cases.into_iter().enumerate() {
        let mut proof = proof();
        edit(&mut proof);
        let error = trusted().verify(&proof).expect_err("refused");
        assert!(is_expected(&error), "case {at}: {error}");
    }
}

#[test]
fn a_set_is_taken_over_only_from_the_one_before_and_only_the_one_that_was_named() {
    let [first, second] = handovers();
    let mut trust = Trust::new(DOMAIN, set(0), &BlsScheme);
    assert!(trust.hand_over(&second).is_err(), "an epoch is left out");
    let other = Handover { next: set(2).in_epoch(Epoch(1)), ..first.clone() };
    assert!(matches!(trust.hand_over(&other), Err(LightError::OtherSet { .. })));
    let unnamed = header(0, 3, 3, B256::ZERO, None);
    let certificate = finalization(&unnamed, &[0, 1, 2]);
    let unnamed = Handover { header: unnamed, certificate, next: set(1) };
    assert!(matches!(trust.hand_over(&unnamed), Err(LightError::OtherSet { .. })), "in the middle of an epoch");
    let few = Handover { certificate: finalization(&first.header, &[0, 1]), ..first.clone() };
    assert!(matches!(trust.hand_over(&few), Err(LightError::Certificate { .. })));
    assert_eq!(trust.set(), &set(0), "refusals change nothing");
    trust.hand_over(&first).expect("it holds");
    assert!(trust.hand_over(&first).is_err(), "once");
    trust.hand_over(&second).expect("it holds");
}

#[test]
fn nothing_of_another_chain_is_accepted() {
    for domain in [Domain { chain_id: 8, ..DOMAIN }, Domain { genesis: B256::ZERO, ..DOMAIN }] {
        let trust = Trust::new(domain, set(2), &BlsScheme);
        assert!(trust.verify(&proof()).is_err(), "{domain:?}");
        assert!(Trust::new(domain, set(0), &BlsScheme).hand_over(&handovers()[0]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One bit of the aggregate, of the bitmap or of a header.
    #[test]
    fn no_changed_bit_is_accepted(at in 0_usize..96, bit in 0_u8..8, which in 0_usize..4) {
        let mut proof = proof();
        match which {
            0 => proof.certificate.signature.0[at] ^= 1 << bit,
            1 => proof.headers[0].parent_id.0[at % 32] ^= 1 << bit,
            2 => proof.headers[2].block_hash.0[at % 32] ^= 1 << bit,
            _ => proof.block.state_root.0[at % 32] ^= 1 << bit,
        }
        prop_assert!(trusted().verify(&proof).is_err());
    }
}
