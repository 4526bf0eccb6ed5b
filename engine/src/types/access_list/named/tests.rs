//! A list comes out as the one that was packed, and nothing else comes out at all.

use alloy_primitives::{Address, Bytes, U256, hex};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    genesis::Fork,
    types::access_list::{BalanceChange, BlockAccessIndex, CodeChange, NonceChange, SlotChanges, StorageChange, Wipe},
};

/// Enough for every list of these tests.
const ITEMS: u64 = 10_000;

fn account(number: u64) -> AccountChanges {
    let at = |index: u64| BlockAccessIndex::new(index % 9);
    let mut account = AccountChanges::new(Address::from_word(U256::from(number).into()));
    account.storage_reads = (0..number % 4).map(U256::from).collect();
    let written = |key| SlotChanges::new(U256::MAX - U256::from(key), vec![StorageChange::new(at(key), U256::MAX)]);
    account.storage_changes = (0..number % 3).map(written).collect();
    account.balance_changes = (0..number % 2).map(|index| BalanceChange::new(at(index), U256::from(number))).collect();
    account.nonce_changes = (0..number % 5).map(|index| NonceChange::new(at(index), number)).collect();
    if number.is_multiple_of(7) {
        account.code_changes.push(CodeChange::new(at(number), Bytes::from(vec![1; 40])));
    }
    account
}

fn open(packed: &[u8], named: &B256, items: u64) -> Result<NamedList, ListError> {
    NamedList::open(packed, named, usize::MAX, items)
}

/// A list of so many accounts, some of them wiped.
fn list(accounts: u64, wipes: u64) -> AccessList {
    let wipe = |number| Wipe { address: account(number).address, indices: vec![1, number + 2] };
    AccessList { accounts: (0..accounts).map(account).collect(), wipes: (0..wipes).map(wipe).collect() }
}

fn named(accounts: u64, wipes: u64) -> NamedList {
    NamedList::new(Arc::new(list(accounts, wipes)))
}

#[test]
fn what_is_packed_comes_out_again_and_its_bytes_are_those_that_are_hashed() {
    for (accounts, wipes) in [(0, 0), (1, 0), (9, 0), (400, 0), (0, 1), (1, 1), (400, 30)] {
        let list = list(accounts, wipes);
        assert_eq!(keccak256(list.hashed_bytes()), list.hash());
        assert_eq!(list.hashed_bytes().len(), list.hashed_length());
        assert_eq!(AccessList::decode_hashed(&list.hashed_bytes()), Ok(list.clone()), "{accounts}, {wipes}");
        let named = NamedList::new(Arc::new(list.clone()));
        assert_eq!((named.hash(), named.list().as_ref()), (list.hash(), &list));
        assert_eq!(open(&named.packed(), &named.hash(), ITEMS), Ok(named));
    }
}

/// However a packer packs, these bytes are this list.
#[test]
fn what_was_packed_once_is_opened_for_ever() {
    let empty = NamedList::new(Arc::default());
    assert_eq!(open(&hex!("00000001" "10c0"), &empty.hash(), ITEMS), Ok(empty));
    let mut account = AccountChanges::new(Address::repeat_byte(7));
    account.storage_reads = vec![U256::from(7)];
    let list = NamedList::new(Arc::new(AccessList { accounts: vec![account], wipes: Vec::new() }));
    let bytes = [&hex!("dcdb94")[..], &[7; 20], &hex!("c0c107c0c0c0")].concat();
    assert_eq!(list.list().hashed_bytes(), bytes);
    // Four bytes, nineteen times the last of them, and six more.
    let packed = hex!("0000001d" "4fdcdb9407010000" "60c0c107c0c0c0");
    assert_eq!(unpack(&packed, 100), Ok(bytes));
    assert_eq!(open(&packed, &list.hash(), ITEMS), Ok(list));
}

#[test]
fn another_list_than_the_headers_is_refused() {
    let (list, other) = (named(20, 0), named(21, 0));
    let error = open(&other.packed(), &list.hash(), ITEMS).unwrap_err();
    assert_eq!(error, ListError::Another { has: other.hash(), named: list.hash() });
    let packed = list.packed();
    for at in 0..packed.len() {
        let mut changed = packed.clone();
        changed[at] ^= 0x11;
        let opened = open(&changed, &list.hash(), ITEMS);
        // A block can say the same in more than one way.
        assert!(opened.is_err() || opened.as_ref() == Ok(&list), "changed at {at}");
        let cut = open(&packed[..at], &list.hash(), ITEMS);
        assert!(matches!(cut, Err(ListError::Packing(_) | ListError::TooLarge { .. })), "cut at {at}: {cut:?}");
    }
}

#[test]
fn nothing_grows_beyond_what_it_says_and_nothing_says_more_than_is_taken() {
    // A megabyte of zeros takes some four kilobytes.
    let bomb = pack(&vec![0; 1 << 20]);
    assert!(bomb.len() < 5_000);
    let ratio = limits::LIST_RATIO_MAX * (bomb.len() - SIZE_BYTES);
    let max = AccessList::bytes_max(100);
    assert_eq!(unpack(&bomb, max), Err(ListError::TooLarge { size: 1 << 20, max }));
    assert_eq!(unpack(&bomb, usize::MAX), Err(ListError::TooLarge { size: 1 << 20, max: ratio }));
    // It says that it is small.
    let lie = [&1_000_u32.to_be_bytes()[..], &bomb[SIZE_BYTES..]].concat();
    assert_eq!(unpack(&lie, usize::MAX), Err(ListError::Packing(1_000)));
    // It says that it is larger than it is.
    let words = (0..500_u64).flat_map(|word| keccak256(word.to_be_bytes()).0);
    let packed = pack(&words.collect::<Vec<_>>());
    assert!(unpack(&packed, usize::MAX).is_ok());
    let lie = [&16_001_u32.to_be_bytes()[..], &packed[SIZE_BYTES..]].concat();
    assert_eq!(unpack(&lie, usize::MAX), Err(ListError::Packing(16_001)));
    assert_eq!(unpack(&bomb[..3], max), Err(ListError::Packing(0)));
    // A list that travels whole is smaller than what the gas pays for.
    let named = named(400, 0);
    let small = named.size_bytes() - 1;
    let error = NamedList::open(&named.packed(), &named.hash(), small, ITEMS).unwrap_err();
    assert_eq!(error, ListError::TooLarge { size: named.size_bytes(), max: small });
    assert!(!error.is_fault(), "who sends it may know of other bounds");
}

/// A leader names the hash of bytes of which more memory would be made than gas can pay for.
#[test]
fn a_list_with_more_in_it_than_gas_pays_for_is_not_even_decoded() {
    let mut reads = AccountChanges::new(Address::ZERO);
    reads.storage_reads = (0..5_000_u64).map(|at| U256::from(keccak256(at.to_be_bytes())[0] & 0x7f)).collect();
    let fat = NamedList::new(Arc::new(AccessList { accounts: vec![reads], wipes: Vec::new() }));
    let error = open(&fat.packed(), &fat.hash(), 100).unwrap_err();
    assert_eq!(error, ListError::Content(Error::Custom("it has more in it than gas can pay for")));
    assert!(open(&fat.packed(), &fat.hash(), 1_000).is_ok());
}

#[test]
fn bytes_that_are_no_list_are_refused_though_the_header_names_them() {
    let long_form = [&[0xf8, 22, 0x94][..], &[7; 20], &[0xc0]].concat();
    for bytes in [&b""[..], b"\x80", b"\xc1\x80", b"\xc2\xc0\xc0\xc0", b"\xc3\xc0\xc0", &long_form] {
        let opened = open(&pack(bytes), &keccak256(bytes), ITEMS);
        assert!(matches!(opened, Err(ListError::Content(_))), "{bytes:?}: {opened:?}");
    }
}

#[test]
fn bounds_follow_from_the_gas_of_a_block() {
    let items = AccessList::items_max(Fork::Osaka, 36_000_000);
    assert_eq!(AccessList::bytes_max(items), 22_564 * limits::LIST_ITEM_BYTES_MAX);
    assert_eq!(AccessList::bytes_max(u64::MAX), limits::LIST_BYTES_MAX);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..600)) {
        let named = keccak256(&bytes);
        let _ = unpack(&bytes, 10_000);
        let _ = open(&pack(&bytes), &named, ITEMS);
        if let Ok(list) = AccessList::decode_hashed(&bytes) {
            prop_assert_eq!(list.hashed_bytes(), bytes);
        }
    }
}
