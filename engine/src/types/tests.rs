//! Golden encodings and round trips of what is written to disk.

use std::sync::Arc;

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Log, LogData, Signature, TxKind, U256, b256, hex, keccak256};
use proptest::prelude::*;

use super::{
    Account, AccountChange, Block, BlockBody, ConsensusHeader, Envelope, Receipt, SlotChange, StateChanges,
    Transaction, codec,
};

fn block() -> Block {
    let tx = TxEip1559 { chain_id: 1, nonce: 3, to: TxKind::Call(Address::with_last_byte(9)), ..TxEip1559::default() };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded: Bytes = envelope.encoded_2718().into();
    let tx = Transaction::with_known_sender(encoded, Address::with_last_byte(7)).expect("just encoded");
    let header = Header { number: 5, base_fee_per_gas: Some(7), ..Header::default() }.seal_slow();
    let consensus = ConsensusHeader {
        chain_id: 1,
        epoch: 2,
        slot: 3,
        height: 5,
        parent_slot: 2,
        parent_id: B256::with_last_byte(1),
        proposer: 4,
        block_hash: header.seal(),
        access_list_hash: B256::with_last_byte(6),
        timestamp_ms: 123_456,
        ..ConsensusHeader::default()
    };
    Block {
        consensus,
        header,
        body: BlockBody { transactions: vec![Arc::new(tx)], withdrawals: Some(Default::default()) },
    }
}

fn changes() -> StateChanges {
    let mut changes = StateChanges::default();
    let account = Account { nonce: 1, balance: U256::from(2), ..Account::default() };
    for last in [3, 1, 2] {
        let mut change = AccountChange { after: Some(account), wiped: last == 2, ..AccountChange::default() };
        for key in [9, 4] {
            change.slots.insert(U256::from(key), SlotChange { before: U256::ZERO, after: U256::from(last) });
        }
        changes.accounts.insert(Address::with_last_byte(last), change);
    }
    let code = Bytes::from_static(&[0x60, 0x00]);
    changes.codes.insert(keccak256(&code), code);
    changes
}

#[test]
fn what_is_written_reads_back() {
    let block = block();
    assert_eq!(codec::decode_block(&codec::encode_block(&block)).as_ref(), Ok(&block));
    let changes = changes();
    assert_eq!(codec::decode_changes(&codec::encode_changes(&changes)).as_ref(), Ok(&changes));
    for (address, change) in &changes.accounts {
        let found = |key| codec::find_change(&codec::encode_changes(&changes), *address, key).unwrap().unwrap();
        assert_eq!(found(None), AccountChange { slots: Default::default(), ..change.clone() });
        for (key, slot) in &change.slots {
            let slots = [(*key, *slot)].into_iter().collect();
            assert_eq!(found(Some(*key)), AccountChange { slots, ..change.clone() });
        }
    }
    let nobody = Address::with_last_byte(9);
    assert_eq!(codec::find_change(&codec::encode_changes(&changes), nobody, None), Ok(None));
    let log = Log { address: Address::ZERO, data: LogData::new_unchecked(vec![B256::ZERO], hex!("0102").into()) };
    let receipts = vec![
        Receipt { type_byte: 2, success: true, gas_used: 5, cumulative_gas_used: 9, contract: None, logs: vec![log] },
        Receipt {
            type_byte: 0,
            success: false,
            gas_used: 0,
            cumulative_gas_used: 9,
            contract: Some(Address::with_last_byte(1)),
            logs: Vec::new(),
        },
    ];
    assert_eq!(codec::decode_receipts(&codec::encode_receipts(&receipts)).as_ref(), Ok(&receipts));
}

#[test]
fn encodings_are_pinned() {
    assert_eq!(block().consensus.id(), b256!("905c2d3200269b095d700f67a2a6dd7ab68afe272e9a625dc81a5da3a8a5f6f1"));
    assert_eq!(
        keccak256(codec::encode_block(&block())),
        b256!("8dd0cb5d913b8eaca7c7dfa873c6cf6dd840a3932e7b95a615152e7ac925346d")
    );
    assert_eq!(
        keccak256(codec::encode_changes(&changes())),
        b256!("113fbaf9869f26435164430bee9a9a4a7cc4d5af2bb6254e4dc5b2735c0fd76f")
    );
}

#[test]
fn a_cut_or_lengthened_record_is_refused() {
    let (block, changes) = (codec::encode_block(&block()), codec::encode_changes(&changes()));
    for cut in 0..block.len() {
        assert!(codec::decode_block(&block[..cut]).is_err(), "cut at {cut}");
    }
    for cut in 0..changes.len() {
        assert!(codec::decode_changes(&changes[..cut]).is_err(), "cut at {cut}");
        assert!(codec::find_change(&changes[..cut], Address::ZERO, None).is_err(), "cut at {cut}");
    }
    assert!(codec::decode_block(&[&block[..], &[0]].concat()).is_err());
    assert!(codec::decode_changes(&[&changes[..], &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..400_usize,
        to in any::<u8>(),
    ) {
        let _ = codec::decode_block(&bytes);
        let _ = codec::find_change(&bytes, Address::ZERO, Some(U256::ZERO));
        let _ = codec::decode_changes(&bytes);
        let _ = codec::decode_receipts(&bytes);
        let mut mutated = codec::encode_block(&block());
        let at = at % mutated.len();
        mutated[at] = to;
        let _ = codec::decode_block(&mutated);
    }
}

#[test]
fn an_access_list_without_wipes_hashes_as_eip_7928_says() {
    use alloy_eips::eip7928::{EMPTY_BLOCK_ACCESS_LIST_HASH, compute_block_access_list_hash};

    use super::access_list::{AccessList, AccountChanges, BalanceChange, BlockAccessIndex, Wipe};

    assert_eq!(AccessList::default().hash(), EMPTY_BLOCK_ACCESS_LIST_HASH);
    let mut account = AccountChanges::new(Address::with_last_byte(1));
    account.storage_reads.push(U256::from(5));
    account.balance_changes.push(BalanceChange::new(BlockAccessIndex::new(1), U256::from(7)));
    let mut list = AccessList { accounts: vec![account], wipes: Vec::new() };
    let plain = compute_block_access_list_hash(&list.accounts);
    assert_eq!(list.hash(), plain);
    list.wipes.push(Wipe { address: Address::with_last_byte(1), indices: vec![1] });
    assert_ne!(list.hash(), plain);
    let encoded = alloy_rlp::encode(&list);
    assert_eq!(AccessList::decode_exact(&encoded), Ok(list));
    for cut in 0..encoded.len() {
        assert!(AccessList::decode_exact(&encoded[..cut]).is_err());
    }
}

#[test]
fn an_access_list_is_cut_between_transactions_and_continued_by_its_own_fragments_alone() {
    use std::borrow::Cow;

    use super::access_list::{
        AccessList, AccountChanges, BalanceChange, BlockAccessIndex, PartialList, SlotChanges, StorageChange, Wipe,
    };

    let at = BlockAccessIndex::new;
    let slot = |key: u64, indices: &[u64]| {
        let changes = indices.iter().map(|index| StorageChange::new(at(*index), U256::from(*index))).collect();
        SlotChanges::new(U256::from(key), changes)
    };
    let mut account = AccountChanges::new(Address::with_last_byte(1));
    account.storage_reads = vec![U256::from(5)];
    account.storage_changes = vec![slot(2, &[0, 1, 3]), slot(7, &[2])];
    account.balance_changes = [1, 2, 4].map(|index| BalanceChange::new(at(index), U256::from(index))).to_vec();
    let wipes = vec![Wipe { address: account.address, indices: vec![1, 3] }];
    let list = AccessList { accounts: vec![account, AccountChanges::new(Address::with_last_byte(9))], wipes };
    let fragments = list.fragments(&[1, 2]);
    // The first names everything; the others hold their own changes.
    assert_eq!(fragments.iter().map(|part| part.accounts.len()).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(fragments[0].accounts[0].storage_reads, [5, 7].map(U256::from));
    assert_eq!(fragments[1].accounts[0].storage_changes, [slot(7, &[2])]);
    assert_eq!(fragments[2].wipes[0].indices, [3]);

    let merge = |parts: &[(usize, usize)]| {
        let mut merged = PartialList::new(7);
        parts.iter().try_for_each(|(part, end)| merged.extend(Cow::Borrowed(&fragments[*part]), *end)).map(|()| merged)
    };
    let merged = merge(&[(0, 1), (1, 2), (2, 3)]).unwrap();
    assert!(merged.is(&list));
    assert_eq!(alloy_rlp::encode(merged.into_list()), alloy_rlp::encode(&list));
    let refusal = |parts: &[(usize, usize)]| merge(parts).map(|merged| merged.into_list()).unwrap_err();
    assert!(refusal(&[(0, 1), (2, 2), (1, 3)]).contains("index 4"), "swapped");
    assert!(refusal(&[(0, 1), (1, 2), (1, 3)]).contains("index 2"), "repeated");
    assert!(refusal(&[(0, 1), (0, 1)]).contains("index 1"), "repeated at once");
    assert!(refusal(&[(0, 1), (1, 2), (2, 3), (1, 4)]).contains("ended after 3"), "after the end");
    assert!(refusal(&[(1, 2), (0, 2)]).contains("index 1"), "the first comes late");
    assert!(refusal(&[(0, 0), (1, 2)]).contains("ended after 0"), "ahead of its transactions");
    assert!(PartialList::new(6).extend(Cow::Borrowed(&list), 3).unwrap_err().contains("7 items"));
}
