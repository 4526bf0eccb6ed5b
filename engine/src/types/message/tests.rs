//! One encoding for every message, and no bytes that break the decoder.

use alloy_primitives::{B256, FixedBytes, b256, hex, keccak256};
use alloy_rlp::{Decodable as _, Encodable as _};
use proptest::{collection::vec, prelude::*};

use super::{Chain, Evidence, Fetch, Highest, Message, Proposal, Range, Status};
use crate::{
    limits,
    types::{
        Certificate, ConsensusHeader, Epoch, Height, Signature, SignedHeader, Signers, Slot, Statement, ValidatorIndex,
        Vote,
    },
};

fn hash() -> impl Strategy<Value = B256> {
    any::<[u8; 32]>().prop_map(B256::from)
}

fn signature() -> impl Strategy<Value = Signature> {
    vec(any::<u8>(), 96).prop_map(|bytes| Signature(FixedBytes::from_slice(&bytes)))
}

fn statement() -> impl Strategy<Value = Statement> {
    (0..3, any::<u64>().prop_map(Slot), hash()).prop_map(|(kind, slot, id)| match kind {
        0 => Statement::Notarize { slot, id },
        1 => Statement::Skip { slot },
        _ => Statement::Finalize { slot, id },
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), statement(), any::<u16>(), signature()).prop_map(|(epoch, statement, voter, signature)| Vote {
        epoch: Epoch(epoch),
        statement,
        voter: ValidatorIndex(voter),
        signature,
    })
}

fn certificate() -> impl Strategy<Value = Certificate> {
    (any::<u64>(), statement(), 0..=limits::VALIDATORS_MAX, vec(any::<u16>(), 0..300), signature()).prop_map(
        |(epoch, statement, size, who, signature)| {
            let mut signers = Signers::none(size);
            for index in who {
                signers.add(ValidatorIndex(index % 300));
            }
            Certificate { epoch: Epoch(epoch), statement, signers, signature }
        },
    )
}

fn header() -> impl Strategy<Value = ConsensusHeader> {
    let numbers = any::<(u64, u64, u64, u64, u64, u16, u64, u64)>();
    let hashes = (hash(), hash(), hash(), hash(), hash(), hash());
    (numbers, hashes, signature()).prop_map(|(numbers, hashes, seed_share)| ConsensusHeader {
        chain_id: numbers.0,
        epoch: numbers.1,
        slot: numbers.2,
        height: numbers.3,
        parent_slot: numbers.4,
        parent_id: hashes.0,
        proposer: numbers.5,
        block_hash: hashes.1,
        access_list_hash: hashes.2,
        body_root: hashes.3,
        body_size_bytes: numbers.6,
        certificates_hash: hashes.4,
        timestamp_ms: numbers.7,
        seed_share,
        next_set_hash: hashes.5,
    })
}

fn signed_header() -> impl Strategy<Value = SignedHeader> {
    (header(), signature()).prop_map(|(header, signature)| SignedHeader { header, signature })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let authored = || signed_header().prop_map(Box::new);
    prop_oneof![
        (authored(), authored()).prop_map(|(one, two)| Evidence::Proposals(one, two)),
        (vote(), vote()).prop_map(|(one, two)| Evidence::Votes(one, two)),
        (certificate(), certificate()).prop_map(|(one, two)| Evidence::Certificates(Box::new(one), Box::new(two))),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let status = (any::<(u64, u64, u64)>(), any::<(u64, u64, u64)>()).prop_map(|(one, two)| Status {
        epoch: Epoch(one.0),
        final_end: one.1,
        frontier: Slot(one.2),
        notarized: two.0,
        skipped: two.1,
        nonce: two.2,
    });
    let proposal = (header(), signature(), vec(certificate(), 0..5))
        .prop_map(|(header, signature, certificates)| Proposal { header, signature, certificates });
    let chain = (any::<(u64, u64, u64)>(), vec(signed_header(), 0..5), proptest::option::of(certificate()));
    let chain = chain.prop_map(|((from, height, bodies), headers, certificate)| Chain {
        from: Height(from),
        height: Height(height),
        bodies: bodies % (headers.len() as u64 + 1),
        headers,
        certificate,
    });
    prop_oneof![
        proposal.prop_map(|proposal| Message::Proposal(Box::new(proposal))),
        vote().prop_map(Message::Vote),
        certificate().prop_map(|certificate| Message::Certificate(Box::new(certificate))),
        status.prop_map(Message::Status),
        any::<(u64, u64, u64)>().prop_map(|(nonce, epoch, slot)| {
            Message::Highest(Highest { nonce, epoch: Epoch(epoch), slot: Slot(slot) })
        }),
        (hash(), 0..=limits::FETCH_BLOCKS_MAX).prop_map(|(id, count)| Message::Fetch(Fetch { id, count })),
        vec(signed_header(), 0..5).prop_map(Message::Blocks),
        evidence().prop_map(|evidence| Message::Evidence(Box::new(evidence))),
        (any::<u64>(), 1..=limits::RANGE_BLOCKS_MAX)
            .prop_map(|(from, count)| Message::Range(Range { from: Height(from), count })),
        chain.prop_map(|chain| Message::Chain(Box::new(chain))),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back_and_every_cut_or_addition_is_refused(message in message(), more in any::<u8>()) {
        let bytes = message.encoded();
        prop_assert_eq!(Message::decode_exact(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            prop_assert!(Message::decode_exact(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
        prop_assert!(Message::decode_exact(&[&bytes[..], &[more]].concat()).is_err());
    }

    #[test]
    fn evidence_comes_back_from_the_middle_of_something_else(evidence in evidence(), more in any::<u8>()) {
        let mut bytes = alloy_rlp::encode(&evidence);
        prop_assert_eq!(bytes.len(), evidence.length());
        bytes.push(more);
        let mut rest = &bytes[..];
        prop_assert_eq!(Evidence::decode(&mut rest), Ok(evidence));
        prop_assert_eq!(rest, [more]);
    }

    #[test]
    fn what_decodes_has_one_encoding(message in message(), places in vec((any::<u16>(), any::<u8>()), 1..4)) {
        let mut bytes = message.encoded();
        for (at, to) in places {
            let at = usize::from(at) % bytes.len();
            bytes[at] = to;
        }
        if let Ok(message) = Message::decode_exact(&bytes) {
            prop_assert_eq!(message.encoded(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::decode_exact(&bytes);
        let mut rest = &bytes[..];
        let _ = Evidence::decode(&mut rest);
    }
}

/// Everything as large as it gets.
fn largest() -> (ConsensusHeader, Signature, Certificate) {
    let (hash, max) = (B256::repeat_byte(0xff), u64::MAX);
    let signature = Signature(FixedBytes::repeat_byte(0xff));
    let header = ConsensusHeader {
        chain_id: max,
        epoch: max,
        slot: max,
        height: max,
        parent_slot: max,
        parent_id: hash,
        proposer: u16::MAX,
        block_hash: hash,
        access_list_hash: hash,
        body_root: hash,
        body_size_bytes: max,
        certificates_hash: hash,
        timestamp_ms: max,
        seed_share: signature,
        next_set_hash: hash,
    };
    let mut signers = Signers::none(limits::VALIDATORS_MAX);
    (0..300).for_each(|index| assert!(signers.add(ValidatorIndex(index))));
    let statement = Statement::Notarize { slot: Slot(max), id: hash };
    (header, signature, Certificate { epoch: Epoch(max), statement, signers, signature })
}

#[test]
fn the_largest_messages_fit_and_longer_lists_are_refused() {
    let (header, signature, certificate) = largest();
    let blocks =
        |count: u64| Message::Blocks((0..count).map(|_| SignedHeader { header: header.clone(), signature }).collect());
    let proposal = |count: usize| {
        let certificates = vec![certificate; count];
        Message::Proposal(Box::new(Proposal { header: header.clone(), signature, certificates }))
    };
    let fetch = |count: u64| Message::Fetch(Fetch { id: B256::ZERO, count });
    let range = |count: u64| Message::Range(Range { from: Height(u64::MAX), count });
    let chain = |count: usize, bodies: u64| {
        let headers = vec![SignedHeader { header: header.clone(), signature }; count];
        let (from, height) = (Height(u64::MAX), Height(u64::MAX));
        Message::Chain(Box::new(Chain { from, height, headers, bodies, certificate: Some(certificate) }))
    };
    let largest = [
        blocks(limits::FETCH_BLOCKS_MAX),
        proposal(limits::PROPOSAL_CERTIFICATES_MAX),
        fetch(64),
        range(64),
        chain(limits::CHAIN_HEADERS_MAX, 64),
    ];
    for message in largest {
        let bytes = message.encoded();
        assert_eq!(Message::decode_exact(&bytes), Ok(message), "{} bytes", bytes.len());
    }
    let small = |count: usize| {
        Message::Blocks(vec![
            SignedHeader { header: ConsensusHeader::default(), signature: Signature::default() };
            count
        ])
    };
    assert!(Message::decode_exact(&small(64).encoded()).is_ok());
    let mut small_chain = Chain {
        from: Height(0),
        height: Height(0),
        headers: vec![SignedHeader { header: ConsensusHeader::default(), signature: Signature::default() }; 65],
        bodies: 0,
        certificate: None,
    };
    let long_chain = Message::Chain(Box::new(small_chain.clone()));
    small_chain.headers.truncate(64);
    assert!(Message::decode_exact(&Message::Chain(Box::new(small_chain)).encoded()).is_ok());
    let long = [
        small(65),
        proposal(limits::PROPOSAL_CERTIFICATES_MAX + 1),
        fetch(65),
        fetch(u64::MAX),
        range(0),
        range(65),
        range(u64::MAX),
        long_chain,
        chain(3, 4),
        chain(0, u64::MAX),
    ];
    for message in long {
        assert!(Message::decode_exact(&message.encoded()).is_err(), "{:?}", message.tag());
    }
    assert!(Message::decode_exact(&vec![7; limits::MESSAGE_BYTES_MAX + 1]).is_err());
    for tag in (0..=u8::MAX).filter(|tag| !(1..=10).contains(tag)) {
        assert!(Message::decode_exact(&[tag, 0xc0]).is_err());
    }
}

#[test]
fn encodings_are_pinned() {
    let (header, signature, certificate) = largest();
    let vote = Vote {
        epoch: Epoch(1),
        statement: Statement::Skip { slot: Slot(2) },
        voter: ValidatorIndex(3),
        signature: Signature::default(),
    };
    let bytes = Message::Vote(vote).encoded();
    assert_eq!(bytes[..10], hex!("02f86801c303028003b8"), "{}", hex::encode(&bytes));
    let fetch = Message::Fetch(Fetch { id: B256::ZERO, count: 5 }).encoded();
    assert_eq!(fetch, [&hex!("06e2a0")[..], &[0; 32], &[5]].concat());
    let authored = Box::new(SignedHeader { header: header.clone(), signature });
    let of = |evidence| Message::Evidence(Box::new(evidence));
    let all = [
        Message::Proposal(Box::new(Proposal { header: header.clone(), signature, certificates: vec![certificate] })),
        Message::Certificate(Box::new(certificate)),
        Message::Status(Status {
            epoch: Epoch(1),
            final_end: 2,
            frontier: Slot(3),
            notarized: 4,
            skipped: 5,
            nonce: 6,
        }),
        Message::Highest(Highest { nonce: 1, epoch: Epoch(2), slot: Slot(3) }),
        Message::Blocks(vec![SignedHeader { header, signature }]),
        of(Evidence::Proposals(authored.clone(), authored)),
        of(Evidence::Votes(vote, vote)),
        of(Evidence::Certificates(Box::new(certificate), Box::new(certificate))),
    ];
    let bytes: Vec<u8> = all.iter().flat_map(Message::encoded).collect();
    assert_eq!(keccak256(bytes), b256!("6567d6b5e4bf074ed37471bba41f695423d55216aad667dc2f9ad8869ee9b0cf"));
}

#[test]
fn encodings_of_ranges_are_pinned() {
    let (header, signature, certificate) = largest();
    let range = Message::Range(Range { from: Height(7), count: 8 }).encoded();
    assert_eq!(range, hex!("09c20708"));
    let nothing = Chain { from: Height(1), height: Height(2), headers: Vec::new(), bodies: 0, certificate: None };
    assert_eq!(Message::Chain(Box::new(nothing.clone())).encoded(), hex!("0ac50102c080c0"));
    let headers = vec![SignedHeader { header, signature }; 2];
    let chain = Chain { headers, bodies: 1, certificate: Some(certificate), ..nothing };
    let bytes = Message::Chain(Box::new(chain)).encoded();
    assert_eq!(keccak256(bytes), b256!("7a5bf590e926a6a7977e1b61dbfad5ffba7afc4e5f89d52f8c327938fcd0e586"));
}
