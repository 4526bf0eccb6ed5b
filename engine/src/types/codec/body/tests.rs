//! What travels of a block comes back with its senders, and nothing else does.

use std::{cell::RefCell, sync::Arc};

use alloy_consensus::{
    Header, Sealable, SignableTransaction, TxEip1559, TxLegacy,
    proofs::{calculate_transaction_root, calculate_withdrawals_root},
};
use alloy_eips::{eip2718::Encodable2718, eip4895::Withdrawals};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, b256, keccak256};
use alloy_rlp::{Decodable as _, Encodable as _};
use proptest::{prelude::*, test_runner::Config};

use super::{BodyError, body_bytes, decode_body, encode_body};
use crate::{
    limits,
    types::{Block, BlockBody, ConsensusHeader, Envelope, Transaction, transaction::TransactionError},
};

/// A transaction of one of two types, with a signature that recovers to somebody.
fn transaction(nonce: u64) -> Arc<Transaction> {
    let signature = Signature::test_signature();
    let (to, input) = (TxKind::Call(Address::with_last_byte(9)), Bytes::from(vec![7; 40]));
    let envelope: Envelope = if nonce.is_multiple_of(2) {
        TxEip1559 { chain_id: 1, nonce, to, input, ..TxEip1559::default() }.into_signed(signature).into()
    } else {
        TxLegacy { chain_id: Some(1), nonce, to, input, ..TxLegacy::default() }.into_signed(signature).into()
    };
    Arc::new(Transaction::decode(envelope.encoded_2718().into()).expect("any signature recovers"))
}

/// A transaction whose signature is none.
fn unsigned(nonce: u64) -> Arc<Transaction> {
    let tx = TxEip1559 { chain_id: 1, nonce, ..TxEip1559::default() };
    let envelope: Envelope = tx.into_signed(Signature::new(U256::MAX, U256::MAX, false)).into();
    let encoded = envelope.encoded_2718().into();
    Arc::new(Transaction::with_known_sender(encoded, Address::ZERO).expect("it decodes"))
}

fn block_of(transactions: Vec<Arc<Transaction>>, withdrawals: Option<Withdrawals>) -> Block {
    let envelopes: Vec<&Envelope> = transactions.iter().map(|sent| sent.envelope()).collect();
    let header = Header {
        number: 5,
        base_fee_per_gas: Some(7),
        transactions_root: calculate_transaction_root(&envelopes),
        withdrawals_root: withdrawals.as_ref().map(|all| calculate_withdrawals_root(all)),
        ..Header::default()
    };
    let header = header.seal_slow();
    let consensus = ConsensusHeader { height: 5, block_hash: header.seal(), ..ConsensusHeader::default() };
    Block { consensus, header, body: BlockBody { transactions, withdrawals } }
}

fn block(transactions: u64) -> Block {
    block_of((0..transactions).map(transaction).collect(), Some(Withdrawals::default()))
}

fn nobody(_: &B256) -> Option<Arc<Transaction>> {
    None
}

#[test]
fn a_body_comes_back_with_its_senders_on_any_number_of_threads() {
    for transactions in [0, 1, 31, 64, 200] {
        let block = block(transactions);
        let bytes = encode_body(&block);
        assert_eq!(bytes.len(), body_bytes(&block));
        for threads in [0, 1, 2, 3, 64] {
            let decoded = decode_body(block.consensus.clone(), &bytes, &nobody, threads);
            assert_eq!(decoded.as_ref(), Ok(&block), "{transactions} transactions on {threads} threads");
            assert!(decoded.is_ok_and(|block| block.is_whole()));
        }
    }
    let before_shanghai = block_of(vec![transaction(0)], None);
    let bytes = encode_body(&before_shanghai);
    assert_eq!(bytes.len(), body_bytes(&before_shanghai));
    assert_eq!(decode_body(before_shanghai.consensus.clone(), &bytes, &nobody, 1), Ok(before_shanghai));
}

#[test]
fn what_is_known_is_taken_and_not_recovered_again() {
    let mut whole = block(100);
    // A sender that no curve makes of it: it was taken over.
    let strange = Transaction::with_known_sender(transaction(40).encoded().clone(), Address::repeat_byte(1));
    let strange = Arc::new(strange.expect("encoded"));
    let (asked, held) = (RefCell::new(Vec::new()), [transaction(3), strange]);
    let known = |hash: &B256| {
        asked.borrow_mut().push(*hash);
        held.iter().find(|held| held.hash() == *hash).cloned()
    };
    let decoded = decode_body(whole.consensus.clone(), &encode_body(&whole), &known, 2).expect("its own");
    assert!(Arc::ptr_eq(&decoded.body.transactions[3], &held[0]));
    assert!(Arc::ptr_eq(&decoded.body.transactions[40], &held[1]));
    let hashes: Vec<B256> = whole.body.transactions.iter().map(|sent| sent.hash()).collect();
    assert_eq!(*asked.borrow(), hashes, "each is asked for once");
    whole.body.transactions[40] = held[1].clone();
    assert_eq!(decoded, whole);
}

#[test]
fn the_first_transaction_that_nobody_signed_is_named() {
    for bad in [vec![0], vec![99], vec![40, 70], vec![70, 30, 31]] {
        let mut transactions: Vec<_> = (0..100).map(transaction).collect();
        bad.iter().for_each(|at| transactions[*at] = unsigned(*at as u64));
        let block = block_of(transactions, Some(Withdrawals::default()));
        for threads in 1..4 {
            let refusal = decode_body(block.consensus.clone(), &encode_body(&block), &nobody, threads);
            let index = bad.iter().copied().min().expect("some");
            let error = BodyError::Transaction { index, error: TransactionError::InvalidSignature };
            assert_eq!(refusal, Err(error), "on {threads} threads");
        }
    }
    let garbage =
        Arc::new(Transaction::with_known_sender(transaction(1).encoded().clone(), Address::ZERO).expect("it"));
    let mut bytes = encode_body(&block_of(vec![garbage], None));
    // The first byte of the only transaction, of which the header says what it should be.
    let place = bytes.len() - 2 - transaction(1).encoded().len();
    bytes[place + 1] ^= 0x40;
    let refusal = decode_body(block_of(vec![transaction(1)], None).consensus, &bytes, &nobody, 1);
    assert!(matches!(refusal, Err(BodyError::Foreign { part: "transactions root", .. })), "{refusal:?}");
}

/// Recovering the senders of somebody else's transactions would be work that anybody could make.
#[test]
fn no_sender_is_recovered_of_what_the_header_does_not_name() {
    let own = block(3);
    let mut other = own.clone();
    other.body.transactions.push(unsigned(0));
    let refusal = decode_body(own.consensus.clone(), &encode_body(&other), &nobody, 1);
    assert!(matches!(refusal, Err(BodyError::Foreign { part: "transactions root", .. })), "{refusal:?}");

    let refusal = decode_body(ConsensusHeader::default(), &encode_body(&own), &nobody, 1);
    let (has, expected) = (own.hash(), B256::ZERO);
    assert_eq!(refusal, Err(BodyError::Foreign { part: "block hash", has, expected }));
}

#[test]
fn a_cut_lengthened_or_oversized_body_is_refused() {
    let block = block(3);
    let bytes = encode_body(&block);
    for cut in 0..bytes.len() {
        let refusal = decode_body(block.consensus.clone(), &bytes[..cut], &nobody, 1);
        assert!(matches!(refusal, Err(BodyError::Malformed(_))), "cut at {cut}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode_body(block.consensus.clone(), &longer, &nobody, 1), Err(BodyError::Malformed(_))));
    // Millions of nothings would take many times their bytes.
    let mut nothings = Vec::new();
    block.header.inner().encode(&mut nothings);
    alloy_rlp::Header { list: true, payload_length: 1_000 }.encode(&mut nothings);
    nothings.extend([1; 1_000]);
    nothings.push(0x80);
    let mut bytes = Vec::new();
    alloy_rlp::Header { list: true, payload_length: nothings.len() }.encode(&mut bytes);
    bytes.extend(nothings);
    let refusal = decode_body(block.consensus.clone(), &bytes, &|_| panic!("asked for"), 1);
    assert_eq!(refusal, Err(BodyError::Malformed(alloy_rlp::Error::Custom("shorter than any transaction"))));
    let size = limits::BODY_BYTES_MAX + 1;
    let refusal = decode_body(block.consensus, &vec![0; size], &nobody, 1);
    assert_eq!(refusal, Err(BodyError::TooLarge { size }));
}

#[test]
fn the_encoding_is_pinned() {
    let none = block_of(vec![transaction(0), transaction(1)], None);
    let pinned = [keccak256(encode_body(&block(2))), keccak256(encode_body(&none))];
    let expected = [
        b256!("2ac5b533ee2e33d75f20f0fbd9dfbc906431f3721172a318f6b827ef6180b287"),
        b256!("5f4dbff6956b3435711e9d3e1c81f9f9f63b7e77a1a502db5c952032c649ebed"),
    ];
    assert_eq!(pinned, expected);
}

proptest! {
    #![proptest_config(Config::with_cases(2_000))]

    #[test]
    fn what_decodes_has_one_encoding_and_nothing_panics(
        places in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
        withdrawals in any::<bool>(),
    ) {
        let own = block_of(vec![transaction(0), transaction(1)], withdrawals.then(Withdrawals::default));
        let mut bytes = encode_body(&own);
        for (at, to) in places {
            let place = at.index(bytes.len());
            bytes[place] = to;
        }
        // A leader may say of any header that it is the block's, and know of any transaction who sent it.
        let mut rest = &bytes[..];
        let Ok(mut inside) = alloy_rlp::Header::decode_bytes(&mut rest, true) else { return Ok(()) };
        let Ok(header) = Header::decode(&mut inside) else { return Ok(()) };
        let consensus = ConsensusHeader { block_hash: header.hash_slow(), ..ConsensusHeader::default() };
        let known = |hash: &B256| own.body.transactions.iter().find(|sent| sent.hash() == *hash).cloned();
        if let Ok(block) = decode_body(consensus, &bytes, &known, 1) {
            prop_assert_eq!(encode_body(&block), bytes);
        }
    }
}
