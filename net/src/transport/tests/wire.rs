//! The bytes of every frame, pinned: a change here is a new version of the wire format.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, FixedBytes, hex, keccak256};
use engine::{
    dissemination::{ListNotice, Share},
    types::{
        Block, ConsensusHeader, Domain, Epoch, Letter, Message, NamedList, Proposal, Signature, SignedHeader, Slot,
        Statement, Status, ValidatorIndex, Vote,
    },
};

use super::kit::{node_key, secret, transaction};
use crate::transport::{
    frame::{self, FrameError, SealedLetter},
    record::NodeRecord,
};

fn vote() -> Message {
    let statement = Statement::Notarize { slot: Slot(7), id: B256::repeat_byte(3) };
    Message::Vote(Vote { epoch: Epoch(2), statement, voter: ValidatorIndex(5), signature: Signature::default() })
}

/// Two headers, of which the second has its body beside it.
fn letter() -> Letter {
    let raw = transaction(1, 3).0;
    let body = engine::types::BlockBody {
        transactions: vec![Arc::new(engine::types::Transaction::decode(raw).expect("a transaction"))],
        withdrawals: Some(Default::default()),
    };
    let envelopes = [body.transactions[0].envelope()];
    let header = alloy_consensus::Header {
        number: 9,
        base_fee_per_gas: Some(7),
        transactions_root: alloy_consensus::proofs::calculate_transaction_root(&envelopes),
        withdrawals_root: Some(alloy_consensus::proofs::calculate_withdrawals_root(&[])),
        ..Default::default()
    };
    let header = alloy_consensus::Sealable::seal_slow(header);
    let consensus = ConsensusHeader { height: 9, block_hash: header.seal(), ..ConsensusHeader::default() };
    let signed = |header| SignedHeader { header, signature: Signature(FixedBytes::repeat_byte(1)) };
    let headers = vec![signed(ConsensusHeader::default()), signed(consensus.clone())];
    Letter { message: Message::Blocks(headers), blocks: vec![Arc::new(Block { consensus, header, body })], list: None }
}

/// A proposal with its body and its access list, packed.
fn proposal() -> (Letter, Vec<u8>) {
    let Letter { blocks, .. } = letter();
    let list = NamedList::new(Default::default());
    let header = ConsensusHeader { access_list_hash: list.hash(), ..blocks[0].consensus.clone() };
    let block = Block { consensus: header.clone(), ..Block::clone(&blocks[0]) };
    let signature = Signature(FixedBytes::repeat_byte(2));
    let message = Message::Proposal(Box::new(Proposal { header, signature, certificates: Vec::new() }));
    (Letter { message, blocks: vec![Arc::new(block)], list: None }, list.packed())
}

fn encoded_proposal() -> Vec<u8> {
    let (letter, packed) = proposal();
    let mut encoded = frame::encode_letter(&letter, true);
    frame::add_list(&mut encoded, &packed);
    encoded
}

fn notice() -> ListNotice {
    let header = ConsensusHeader { height: 9, ..ConsensusHeader::default() };
    ListNotice { header, root: B256::repeat_byte(5), size_bytes: 70_000 }
}

fn record() -> NodeRecord {
    let domain = Domain { chain_id: 9, genesis: B256::repeat_byte(7) };
    let identity = engine::ordering::event::Identity::new(secret(3));
    let addresses = vec!["203.0.113.7:30303".parse().expect("an address"), "[2001:db8::1]:9".parse().expect("another")];
    NodeRecord::sign(&domain, &node_key(3), 1_700_000_000_000, addresses, Some(&identity))
}

fn share() -> Share {
    Share {
        index: ValidatorIndex(2),
        chunks: Bytes::from_static(&[1, 2, 3, 4]),
        path: vec![B256::repeat_byte(8), B256::repeat_byte(9)],
    }
}

#[test]
fn every_frame_has_the_bytes_that_it_had() {
    let frames = [
        ("vote", frame::vote_datagram(&vote())),
        ("letter", frame::frame(frame::Kind::Letter, &[&frame::encode_letter(&letter(), true)])),
        ("letter with a list", frame::frame(frame::Kind::Letter, &[&encoded_proposal()])),
        ("share", frame::share_frame(frame::Kind::Share, B256::repeat_byte(6), &share())),
        ("list share", frame::share_frame(frame::Kind::ListShare, notice().key(), &share())),
        ("list notice", frame::notice_frame(&notice())),
        ("transactions", frame::batches([&b"one"[..], b"three"].into_iter()).concat()),
        ("record", frame::frame(frame::Kind::Record, &[&record().encoded()])),
        ("nothing", frame::frame(frame::Kind::Nothing, &[])),
    ];
    let digests: Vec<(&str, usize, B256)> =
        frames.iter().map(|(name, bytes)| (*name, bytes.len(), keccak256(bytes))).collect();
    let expected: Vec<(&str, usize, B256)> =
        GOLDEN.iter().map(|(name, size, digest)| (*name, *size, B256::from(*digest))).collect();
    assert_eq!(digests, expected);
}

const GOLDEN: [(&str, usize, [u8; 32]); 9] = [
    ("vote", 141, hex!("a60e37f19f0310ddcaaac2a2f18de8141435173d41ecfcc6f75b51920af66d8a")),
    ("letter", 1482, hex!("e765f7b1689e1256ee66e929048eb263f4c40fb7df168eedeb7a20df04af6b85")),
    ("letter with a list", 1084, hex!("863e5c9911019923d1b986d8b408557ab677847bcea0dcd6b17689e5028b74ed")),
    ("share", 112, hex!("1ba25eccf3efdb72f99dec671020c1eb7fcec1eb41067b616b8c13fe99046be3")),
    ("list share", 112, hex!("0177b6ff063ab559265361a0b5a76fff6d9856d48ac72de419b72c7b33d680b8")),
    ("list notice", 353, hex!("c5fcebf11152d3a1023454b3b24e58b5aa8b68fd36dc3b6eb719aaf0399ff79a")),
    ("transactions", 22, hex!("4edc436a839339e3f3308df3627f6a1c70d5254534d2b8db743541f2a80f9117")),
    ("record", 334, hex!("d0f94758977852c4de93bdd6a48441db9c7b1ff258498b7decf27196598a2e77")),
    ("nothing", 6, hex!("15827f3613f4b07fe9494ca1dee2fa24620a5914cfb99d87c3148b9493f101ed")),
];

fn sealed(bytes: &[u8]) -> Result<SealedLetter, FrameError> {
    SealedLetter::decode(&Bytes::copy_from_slice(bytes))
}

#[test]
fn what_is_encoded_is_decoded() {
    assert_eq!(frame::read_datagram(&frame::vote_datagram(&vote())).expect("a vote"), vote());
    let encoded = frame::encode_letter(&letter(), true);
    let whole = sealed(&encoded).expect("a letter");
    assert!(whole.has_bodies());
    assert_eq!(whole.open(&|_| None).expect("bodies"), letter());
    let bare = sealed(&frame::encode_letter(&letter(), false)).expect("a letter");
    assert!(!bare.has_bodies());
    assert_eq!(frame::decode_records(&record().encoded().repeat(3)).expect("records"), vec![record(); 3]);
    let mut with_list = sealed(&encoded_proposal()).expect("a letter");
    let (letter, packed) = proposal();
    let Message::Proposal(proposal) = &letter.message else { panic!("a proposal") };
    assert_eq!(with_list.take_list().expect("a list"), (proposal.header.clone(), packed.into()));
    assert!(with_list.take_list().is_none());
    assert_eq!(with_list.open(&|_| None).expect("a body"), letter);
    assert_eq!(frame::decode_notice(&frame::notice_frame(&notice())[6..]).expect("a notice"), notice());
    let share_frame = frame::share_frame(frame::Kind::ListShare, B256::repeat_byte(6), &share());
    let share_bytes = Bytes::from(share_frame).slice(6..);
    assert_eq!(frame::decode_share(&share_bytes).expect("a share"), (B256::repeat_byte(6), share()));
    let batch = frame::batches([&b"one"[..], b"three"].into_iter()).concat();
    assert_eq!(
        frame::decode_batch(&batch[6..]).expect("two"),
        vec![Bytes::from_static(b"one"), Bytes::from_static(b"three")]
    );
}

#[test]
fn what_was_cut_or_changed_is_refused_and_never_panics() {
    let encoded = frame::encode_letter(&letter(), true);
    for end in 0..encoded.len() {
        let cut = sealed(&encoded[..end]).and_then(|sealed| sealed.open(&|_| None));
        assert!(cut.is_err() || cut.is_ok_and(|letter| letter.blocks.is_empty()), "cut at {end}");
    }
    for at in 0..encoded.len() {
        let mut changed = encoded.clone();
        changed[at] ^= 0x41;
        let opened = sealed(&changed).and_then(|sealed| sealed.open(&|_| None));
        assert!(opened.is_err() || opened.is_ok_and(|other| other != letter()), "changed at {at}");
    }
    // A body of a header that is not there, and the same one twice.
    let bare = frame::encode_letter(&letter(), false);
    let body = &encoded[bare.len()..];
    let twice = [encoded.as_slice(), body].concat();
    assert!(matches!(sealed(&twice), Err(FrameError::Content(_))));
    let nowhere = [bare.as_slice(), &[0, 9], &body[2..]].concat();
    assert!(matches!(sealed(&nowhere), Err(FrameError::Content(_))));
    let first = [bare.as_slice(), &[0, 0], &body[2..]].concat();
    assert!(matches!(sealed(&first).and_then(|sealed| sealed.open(&|_| None)), Err(FrameError::Body(_))));
    // A list beside what is no proposal, two of them, one before the body, and one that is too long.
    let list = [&[0xff, 0xff, 0, 0, 0, 1][..], &[7]].concat();
    let without = [bare.as_slice(), &list].concat();
    let (bare, whole) = (frame::encode_letter(&proposal().0, false), encoded_proposal());
    let twice = [whole.as_slice(), &list].concat();
    let early = [bare.as_slice(), &list, &whole[bare.len()..]].concat();
    let mut long = bare;
    frame::add_list(&mut long, &vec![0; engine::limits::WHOLE_LIST_BYTES_MAX + 1]);
    for wrong in [without, twice, early, long] {
        assert!(matches!(sealed(&wrong), Err(FrameError::Content(_))));
    }
    let words = Message::Status(Status {
        epoch: Epoch(0),
        final_end: 0,
        frontier: Slot(0),
        notarized: 0,
        skipped: 0,
        nonce: 0,
    });
    let not_a_vote = [&[frame::Kind::Letter as u8, 1], words.encoded().as_slice()].concat();
    assert!(matches!(frame::read_datagram(&not_a_vote), Err(FrameError::Kind(4))));
}
