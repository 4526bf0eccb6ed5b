//! What validators send one another, and the checks that follow: no bytes make them panic, and what decodes has one
//! encoding.

#![no_main]

use std::sync::{Arc, LazyLock};

use alloy_primitives::{Address, B256};
use alloy_rlp::{Decodable, Encodable};
use engine::{
    crypto::{Committee, Scheme},
    ordering::verify,
    testing::{MockScheme, MockSigner},
    types::{
        Certificate, Domain, Epoch, Evidence, Message, Proposal, SignedHeader, Signers, Statement, Validator,
        ValidatorSet, Vote,
    },
};
use libfuzzer_sys::fuzz_target;

const DOMAIN: Domain = Domain { chain_id: 1, genesis: B256::ZERO };

static VALIDATORS: LazyLock<(ValidatorSet, Arc<dyn Committee>)> = LazyLock::new(|| {
    let member =
        |seed: u64| Validator { public_key: MockSigner::new(seed).public_key(), stake: seed, operator: Address::ZERO };
    let set = ValidatorSet::new(Epoch(0), (1..10).map(member).collect()).expect("a set");
    let committee = MockScheme.committee(&set).expect("keys");
    (set, committee)
});

fn one_encoding<T: Decodable + Encodable>(data: &[u8]) -> Option<T> {
    let mut rest = data;
    let value = T::decode(&mut rest).ok()?;
    assert_eq!(alloy_rlp::encode(&value), data[..data.len() - rest.len()]);
    assert_eq!(value.length(), data.len() - rest.len());
    Some(value)
}

fuzz_target!(|data: &[u8]| {
    let (set, committee) = &*VALIDATORS;
    let _: (Option<Statement>, Option<Signers>) = (one_encoding(data), one_encoding(data));
    if let Some(vote) = one_encoding::<Vote>(data) {
        let _ = verify::vote(set, &**committee, &DOMAIN, &vote);
    }
    if let Some(certificate) = one_encoding::<Certificate>(data) {
        let _ = verify::certificate(set, &**committee, &DOMAIN, &certificate);
    }
    if let Some(evidence) = one_encoding::<Evidence>(data) {
        let _ = verify::evidence(set, &**committee, &DOMAIN, &evidence);
    }
    if let Some(proposal) = one_encoding::<Proposal>(data) {
        let block = SignedHeader { header: proposal.header, signature: proposal.signature };
        let _ = verify::proposal(set, &**committee, &DOMAIN, &block);
    }
    if let Ok(message) = Message::decode_exact(data) {
        assert_eq!(message.encoded(), data);
    }
});
