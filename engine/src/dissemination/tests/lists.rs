//! Access lists in shares: whoever has enough of them has the packed list, which is nothing before a header names it.

use alloy_primitives::{B256, U256, keccak256};

use super::{body, plan, shuffled};
use crate::{
    dissemination::{Assembly, ListNotice, Plan, Share, ShareError},
    limits,
    types::{
        AccessList, ConsensusHeader, NamedList,
        access_list::{AccountChanges, ListError},
    },
};

/// Items that the gas of the blocks here pays for.
const ITEMS: u64 = 10_000;

/// A list with so many slots, which does not get smaller by packing.
fn list(slots: u64) -> NamedList {
    let mut account = AccountChanges::new(alloy_primitives::Address::repeat_byte(1));
    let key = |at: u64| U256::from_be_bytes(keccak256(at.to_be_bytes()).0);
    account.storage_reads = (0..slots).map(key).collect();
    account.storage_reads.sort_unstable();
    NamedList::new(std::sync::Arc::new(AccessList { accounts: vec![account], wipes: Vec::new() }))
}

fn header(list: &NamedList) -> ConsensusHeader {
    ConsensusHeader { height: 7, access_list_hash: list.hash(), ..ConsensusHeader::default() }
}

/// What a leader sends of these packed bytes.
fn cut(plan: &Plan, header: &ConsensusHeader, packed: &[u8]) -> (ListNotice, Vec<Share>) {
    let cut = plan.split(packed);
    let notice = ListNotice { header: header.clone(), root: cut.root, size_bytes: packed.len() as u64 };
    (notice, cut.shares)
}

/// What comes out of these shares.
fn gather(plan: &std::sync::Arc<Plan>, notice: &ListNotice, shares: Vec<Share>) -> Result<Option<Vec<u8>>, ShareError> {
    let mut assembly = Assembly::of_list(plan.clone(), notice)?;
    let mut found = None;
    for share in shares {
        found = found.or(assembly.add(share)?);
    }
    Ok(found)
}

fn open(notice: &ListNotice, packed: &[u8]) -> Result<NamedList, ListError> {
    NamedList::open(packed, &notice.header.access_list_hash, limits::LIST_BYTES_MAX, ITEMS)
}

#[test]
fn a_list_comes_back_though_shares_are_lost_and_in_whatever_order_they_come() {
    for stakes in [vec![1; 4], vec![5; 30], vec![1, 9, 3, 3, 7, 2, 2]] {
        let plan = plan(&stakes, 0);
        for slots in [5, 2_500, 9_000] {
            let list = list(slots);
            let (notice, shares) = cut(&plan, &header(&list), &list.packed());
            for seed in 0..6 {
                let mut some = shuffled(shares.clone(), seed);
                let mut chunks: usize = some.iter().map(|share| plan.chunks_of(share.index)).sum();
                let spare = |chunks: usize, last: &Share| chunks - plan.chunks_of(last.index) >= plan.data_chunks();
                while let Some(last) = some.pop_if(|last| spare(chunks, last)) {
                    chunks -= plan.chunks_of(last.index);
                }
                let packed = gather(&plan, &notice, some.clone()).expect("right shares").expect("enough of them");
                assert_eq!(open(&notice, &packed), Ok(list.clone()));
                some.pop();
                assert_eq!(gather(&plan, &notice, some), Ok(None), "one less is too little");
            }
        }
    }
}

#[test]
fn a_share_that_is_not_the_notices_is_refused_and_the_true_one_may_come_still() {
    let plan = plan(&[1; 6], 0);
    let list = list(2_500);
    let (notice, shares) = cut(&plan, &header(&list), &list.packed());
    let mut assembly = Assembly::of_list(plan.clone(), &notice).expect("of a list");
    let index = shares[0].index;
    let mut chunks = shares[0].chunks.to_vec();
    chunks[9] ^= 1;
    let tampered = Share { chunks: chunks.into(), ..shares[0].clone() };
    assert_eq!(assembly.add(tampered), Err(ShareError::Foreign(index)));
    let found = shares.iter().cloned().find_map(|share| assembly.add(share).expect("right"));
    assert_eq!(open(&notice, &found.expect("it comes out")), Ok(list));
    // With a root of something else none of them is right.
    let other = ListNotice { root: B256::repeat_byte(1), ..notice.clone() };
    assert_eq!(gather(&plan, &other, shares), Err(ShareError::Foreign(index)));
    // A share of a list is no share of the block's body, though it be of the same bytes.
    assert!(Assembly::new(plan, notice.root, 1_000).is_err());
}

#[test]
fn what_a_leader_told_others_has_another_key() {
    let (list, other) = (list(10), list(11));
    let notice = ListNotice { header: header(&list), root: B256::repeat_byte(1), size_bytes: 9 };
    let others = [
        ListNotice { header: header(&other), ..notice.clone() },
        ListNotice { root: B256::repeat_byte(2), ..notice.clone() },
        ListNotice { size_bytes: 10, ..notice.clone() },
    ];
    assert!(others.iter().all(|other| other.key() != notice.key()));
    let bytes = alloy_rlp::encode(&notice);
    assert_eq!(alloy_rlp::decode_exact(&bytes), Ok(notice));
}

/// The root that a leader tells commits to anything it likes; what the header names does not come of it.
#[test]
fn shares_of_another_list_of_a_bomb_and_of_nothing_make_no_list() {
    let plan = plan(&[1; 4], 0);
    let (named, other) = (list(3_000), list(3_001));
    let zeros = lz4_flex::block::compress(&vec![0; limits::LIST_BYTES_MAX]);
    let bomb = [&u32::try_from(limits::LIST_BYTES_MAX).expect("small").to_be_bytes()[..], zeros.as_slice()].concat();
    let small_bomb = [&1_000_u32.to_be_bytes()[..], &bomb[4..]].concat();
    let max = AccessList::bytes_max(ITEMS).min(zeros.len() * limits::LIST_RATIO_MAX);
    let outcome = |packed: &[u8]| {
        let (notice, shares) = cut(&plan, &header(&named), packed);
        let packed = gather(&plan, &notice, shares).expect("right shares").expect("all of them");
        open(&notice, &packed).expect_err("it is not the list")
    };
    assert_eq!(outcome(&other.packed()), ListError::Another { has: other.hash(), named: named.hash() });
    assert_eq!(outcome(&bomb), ListError::TooLarge { size: limits::LIST_BYTES_MAX, max });
    assert_eq!(outcome(&small_bomb), ListError::Packing(1_000));
    assert!(matches!(outcome(&body(90_000, 3)), ListError::TooLarge { .. } | ListError::Packing(_)));
}

#[test]
fn nothing_is_put_together_of_a_size_that_no_list_has() {
    let list = list(10);
    let notice = |size_bytes| ListNotice { header: header(&list), root: B256::repeat_byte(1), size_bytes };
    for size in [0, limits::PACKED_LIST_BYTES_MAX as u64 + 1, u64::MAX] {
        let refused = Assembly::of_list(plan(&[1; 4], 0), &notice(size)).expect_err("no list");
        assert_eq!(refused, ShareError::Size { size });
    }
    assert!(Assembly::of_list(plan(&[1], 0), &notice(70_000)).is_err(), "nobody gets a share");
}
