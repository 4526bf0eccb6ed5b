//! Whoever is honest has enough, and nobody makes others believe in another body.

mod lists;
mod plans;

use std::sync::Arc;

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, FixedBytes, Signature, U256, b256, keccak256};
use proptest::{collection::vec, prelude::*, test_runner::Config};

use super::{
    Assembly, Commitment, CommitmentError, Plan, Plans, Share, ShareError, check, commit,
    tree::{Tree, leaf},
};
use crate::{
    limits,
    types::{
        Block, BlockBody, ConsensusHeader, Envelope, Epoch, PublicKey, Transaction, Validator, ValidatorIndex,
        ValidatorSet, codec,
    },
};

fn set(stakes: &[u64]) -> ValidatorSet {
    let validator = |(index, stake): (u64, &u64)| {
        let mut key = FixedBytes::ZERO;
        key[40..].copy_from_slice(&index.to_be_bytes());
        Validator { public_key: PublicKey(key), stake: *stake, operator: Address::ZERO }
    };
    ValidatorSet::new(Epoch(3), (0..).zip(stakes).map(validator).collect()).expect("a set")
}

fn plan(stakes: &[u64], leader: u16) -> Arc<Plan> {
    Arc::new(Plan::new(&set(stakes), ValidatorIndex(leader)))
}

/// Bytes without a pattern.
fn body(size: usize, seed: u64) -> Vec<u8> {
    let words = (seed..).flat_map(|word| keccak256(word.to_be_bytes()).0);
    words.take(size).collect()
}

/// Stakes of all kinds: equal, of one size, anything, some with almost everything.
fn stakes(most: usize) -> impl Strategy<Value = Vec<u64>> {
    let dust = (vec(1..10_u64, 0..most - 2), vec(1_000..1_000_000_u64, 1..3));
    prop_oneof![
        (1..=1_000_000_u64, 2..=most).prop_map(|(stake, count)| vec![stake; count]),
        vec(900..1_100_u64, 2..=most),
        vec(1..u64::MAX / 1_000, 2..=most),
        vec(0..40_u32, 2..=most).prop_map(|bits| bits.into_iter().map(|bits| 1 << bits).collect()),
        dust.prop_map(|(dust, rich)| dust.into_iter().chain(rich).chain([1]).collect()),
    ]
}

fn size_bytes(body: &[u8]) -> u64 {
    body.len() as u64
}

/// In an order that a seed gives.
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut order: Vec<(B256, T)> =
        (seed..).zip(items.drain(..)).map(|(at, item)| (keccak256(at.to_le_bytes()), item)).collect();
    order.sort_by_key(|(rank, _)| *rank);
    order.into_iter().map(|(_, item)| item).collect()
}

proptest! {
    #![proptest_config(Config::with_cases(96))]

    #[test]
    fn the_body_comes_back_with_the_chunk_that_makes_enough_and_not_before(
        stakes in stakes(40),
        leader in any::<u16>(),
        size in limits::WHOLE_BODY_BYTES_MAX + 1..200_000,
        seed in any::<u32>(),
    ) {
        let leader = leader % u16::try_from(stakes.len()).expect("few");
        let (plan, body) = (plan(&stakes, leader), body(size, seed.into()));
        let cut = plan.split(&body);
        prop_assert_eq!(cut.root, plan.root(&body));
        let receivers: Vec<_> = cut.shares.iter().map(|share| share.index).collect();
        prop_assert_eq!(receivers, plan.receivers().collect::<Vec<_>>());
        let mut assembly = Assembly::new(plan.clone(), cut.root, size_bytes(&body)).expect("it is cut");
        let (mut chunks, mut came_out) = (0, 0);
        for share in shuffled(cut.shares, seed.into()) {
            let index = share.index;
            prop_assert!(share.verify(&plan, &cut.root, size_bytes(&body)));
            prop_assert!(!assembly.has(index));
            let had = chunks;
            chunks += plan.chunks_of(index);
            let outcome = assembly.add(share.clone());
            if had < plan.data_chunks() && chunks >= plan.data_chunks() {
                came_out += 1;
                prop_assert_eq!(outcome, Ok(Some(body.clone())));
            } else {
                prop_assert_eq!(outcome, Ok(None));
            }
            prop_assert_eq!(assembly.is_done(), came_out == 1);
            prop_assert!(assembly.has(index));
            prop_assert_eq!(assembly.add(share), Err(ShareError::Twice(index)));
        }
        prop_assert_eq!(came_out, 1);
    }

    /// A leader that commits to anything but the encoding of one body, and two receivers that hear of it differently.
    #[test]
    fn shares_that_encode_no_body_are_refused_whichever_came(
        stakes in stakes(24),
        (at, flip) in (any::<prop::sample::Index>(), 1..=u8::MAX),
        seeds in any::<(u32, u32)>(),
    ) {
        let (plan, body) = (plan(&stakes, 0), body(70_000, seeds.0.into()));
        prop_assume!(plan.total_chunks() > plan.data_chunks());
        let mut shares = plan.split(&body).shares;
        let liar = at.index(shares.len());
        let mut chunks = shares[liar].chunks.to_vec();
        let place = at.index(chunks.len());
        chunks[place] ^= flip;
        shares[liar].chunks = chunks.into();
        let root = commit_to(&plan, &mut shares);
        for seed in [seeds.0, seeds.1] {
            let mut assembly = Assembly::new(plan.clone(), root, 70_000).expect("it is cut");
            let outcomes: Vec<_> =
                shuffled(shares.clone(), seed.into()).into_iter().map(|share| assembly.add(share)).collect();
            let (waiting, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| *outcome == Ok(None));
            prop_assert!(waiting.len() < shares.len() && assembly.is_done());
            prop_assert!(refused.iter().all(|outcome| *outcome == Err(ShareError::NoEncoding)));
        }
    }

    #[test]
    fn no_share_is_taken_that_the_root_does_not_commit_to(
        stakes in stakes(40),
        at in any::<(prop::sample::Index, prop::sample::Index)>(),
        flip in 1..=u8::MAX,
    ) {
        let (plan, body) = (plan(&stakes, 1), body(70_000, 5));
        let cut = plan.split(&body);
        let share = at.0.get(&cut.shares);
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let place = at.1.index(bytes.len());
            bytes[place] ^= flip;
            bytes
        };
        let with_path = |path: Vec<B256>| Share { path, ..share.clone() };
        let with_chunks = |chunks: Vec<u8>| Share { chunks: chunks.into(), ..share.clone() };
        let mut wrong: Vec<Share> = vec![
            with_chunks(flipped(&share.chunks)),
            with_chunks(share.chunks[1..].to_vec()),
            with_chunks([&share.chunks[..], &[0]].concat()),
            with_chunks(Vec::new()),
            with_path([&share.path[..], &[B256::ZERO]].concat()),
            with_path(share.path[1..].to_vec()),
            with_path(flipped(&share.path.concat()).chunks(32).map(B256::from_slice).collect()),
        ];
        let others = (0..u16::try_from(stakes.len()).expect("few")).chain([500, u16::MAX]).map(ValidatorIndex);
        wrong.extend(others.filter(|index| *index != share.index).map(|index| Share { index, ..share.clone() }));
        let mut assembly = Assembly::new(plan.clone(), cut.root, 70_000).expect("it is cut");
        for wrong in wrong {
            let index = wrong.index;
            prop_assert!(!wrong.verify(&plan, &cut.root, 70_000));
            prop_assert_eq!(assembly.add(wrong), Err(ShareError::Foreign(index)));
            prop_assert!(!assembly.has(index), "the true one may come still");
        }
        let chunk_bytes = plan.data_chunks() as u64 * 2;
        for size in [0, 70_000 - chunk_bytes, 70_000 + chunk_bytes, u64::MAX] {
            prop_assert!(!share.verify(&plan, &cut.root, size), "size {}", size);
        }
        prop_assert!(!share.verify(&plan, &B256::ZERO, 70_000));
        prop_assert!(assembly.add(share.clone()).is_ok());
    }

    #[test]
    fn a_share_has_one_encoding(
        index in any::<u16>(),
        chunks in vec(any::<u8>(), 0..300),
        path in vec(any::<[u8; 32]>(), 0..=limits::SHARE_PATH_MAX),
        (at, to) in any::<(prop::sample::Index, u8)>(),
    ) {
        let path = path.into_iter().map(B256::from).collect();
        let share = Share { index: ValidatorIndex(index), chunks: chunks.into(), path };
        let mut bytes = share.encoded();
        prop_assert_eq!(Share::decode_exact(&bytes.clone().into()), Ok(share));
        for cut in 0..bytes.len() {
            prop_assert!(Share::decode_exact(&Bytes::copy_from_slice(&bytes[..cut])).is_err(), "cut at {}", cut);
        }
        prop_assert!(Share::decode_exact(&[&bytes[..], &[to]].concat().into()).is_err());
        let place = at.index(bytes.len());
        bytes[place] = to;
        if let Ok(share) = Share::decode_exact(&bytes.clone().into()) {
            prop_assert_eq!(share.encoded(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_of_shares_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Share::decode_exact(&bytes.into());
    }
}

/// Gives shares the paths of a tree over them, and its root.
fn commit_to(plan: &Plan, shares: &mut [Share]) -> B256 {
    let chunks = |index| shares.iter().find(|share| share.index == index).map_or(&[][..], |share| &share.chunks);
    let tree = Tree::new(plan.indices().map(|index| leaf(index, chunks(index))).collect());
    shares.iter_mut().for_each(|share| share.path = tree.path(share.index));
    tree.root()
}

/// Bytes behind the end that are no zeros: with the data chunks alone the body would look sound.
#[test]
fn what_fills_the_last_chunk_up_must_be_zeros() {
    let plan = plan(&[1; 7], 3);
    let longer = body(70_000, 1);
    let cut = plan.split(&longer);
    for count in 0..1_u32 << cut.shares.len() {
        let is_chosen = |at: &usize| count >> at & 1 == 1;
        let chosen: Vec<_> = (0..cut.shares.len()).filter(is_chosen).map(|at| cut.shares[at].clone()).collect();
        if chosen.len() != plan.data_chunks() {
            continue;
        }
        // 70,000 fills four chunks; a leader that says 69,999 hides a byte.
        let mut assembly = Assembly::new(plan.clone(), cut.root, 69_999).expect("it is cut");
        let outcomes: Vec<_> = chosen.into_iter().map(|share| assembly.add(share)).collect();
        assert_eq!(outcomes.last(), Some(&Err(ShareError::NoEncoding)), "shares {count:b}");
    }
}

#[test]
fn a_body_that_travels_whole_or_not_at_all_is_not_assembled() {
    let cut = plan(&[1; 4], 0);
    let size = |bytes: usize| bytes as u64;
    for refused in [0, 1, size(limits::WHOLE_BODY_BYTES_MAX), size(limits::BODY_BYTES_MAX) + 1, u64::MAX] {
        let error = Assembly::new(cut.clone(), B256::ZERO, refused).expect_err("not cut");
        assert_eq!(error, ShareError::Size { size: refused });
    }
    assert!(Assembly::new(cut, B256::ZERO, size(limits::BODY_BYTES_MAX)).is_ok());
    assert!(Assembly::new(plan(&[1], 0), B256::ZERO, 70_000).is_err(), "nobody gets a share");
}

#[test]
fn the_largest_body_is_cut_into_shares_that_fit() {
    let largest = body(limits::BODY_BYTES_MAX, 1);
    for (stakes, leader) in [(vec![1, 1], 0), (vec![1; 4], 0), (vec![1; 300], 0), (vec![1, 1_000], 0)] {
        let plan = plan(&stakes, leader);
        let cut = plan.split(&largest);
        for share in &cut.shares {
            let bytes = share.encoded();
            assert!(bytes.len() <= limits::SHARE_BYTES_MAX, "{} bytes", bytes.len());
            assert_eq!(Share::decode_exact(&bytes.into()).as_ref(), Ok(share));
        }
        let mut assembly = Assembly::new(plan, cut.root, size_bytes(&largest)).expect("it is cut");
        let outcome = shuffled(cut.shares, 7).into_iter().find_map(|share| assembly.add(share).expect("in order"));
        assert!(outcome == Some(largest.clone()), "{} validators", stakes.len());
    }
    let long = Bytes::from(vec![0; limits::SHARE_BYTES_MAX + 1]);
    assert!(Share::decode_exact(&long).is_err());
    let path = vec![B256::ZERO; limits::SHARE_PATH_MAX + 1];
    let long = Share { index: ValidatorIndex(0), chunks: Bytes::new(), path };
    assert!(Share::decode_exact(&long.encoded().into()).is_err());
}

/// Every node must come to the same root, so neither the code nor the tree may change.
#[test]
fn roots_and_shares_are_pinned() {
    let body = body(70_000, 9);
    let equal = plan(&[1; 4], 1);
    let shares = equal.split(&body).shares;
    let hash = |kind: u8, parts: [&[u8]; 2]| keccak256([&[kind], parts[0], parts[1]].concat());
    let left = hash(1, [hash(0, [&[0, 0], &shares[0].chunks]).as_slice(), hash(0, [&[0, 1], &[]]).as_slice()]);
    let right = [(2, 1), (3, 2)].map(|(index, at): (u8, usize)| hash(0, [&[0, index], &shares[at].chunks]));
    let by_hand = hash(1, [left.as_slice(), hash(1, [right[0].as_slice(), right[1].as_slice()]).as_slice()]);
    assert_eq!(equal.root(&body), by_hand);

    let one = plan(&[1; 100], 1);
    let share = one.split(&body).shares.pop().expect("there are some");
    let pinned = [
        equal.root(&body),
        one.root(&body),
        plan(&[5, 4, 3, 2, 1, 9], 1).root(&body),
        plan(&[3, 1], 1).root(&body),
        keccak256(share.encoded()),
    ];
    let expected = [
        b256!("2257a5ebf6583afede210a12a7a9572d33d33f7ae4b107e38bfdd983a6b18be6"),
        b256!("c4079a40ebbbcef7b13c65cd0158a945543e28c63e1f21c2ea8ee09059f4f0b8"),
        b256!("89778b5355ae0d7a2b0a26bf42e5eeeffcf38433f179eb35f392c7b2061eeea7"),
        b256!("43b47007575957e30c8acc8ddd88f70a1134e799b151a770949394c26233b91b"),
        b256!("830190cfb95ab854d085b61a7a92d513ea237f7cb8eacd66d042d64d1b1d8999"),
    ];
    assert_eq!(pinned, expected);
}

/// Nodes differ in what their processors can do.
#[test]
fn the_code_is_the_same_without_vector_instructions() {
    use reed_solomon_simd::{
        engine::NoSimd,
        rate::{DefaultRateEncoder, RateEncoder as _},
    };

    for (stakes, size) in [(vec![1; 4], 70_001), (vec![1; 100], 65_537), (vec![5, 40, 3, 7, 90], 70_003)] {
        let (plan, body) = (plan(&stakes, 0), body(size, 3));
        let (data, chunk_bytes) = (plan.data_chunks(), plan.chunk_bytes(size));
        let added = plan.total_chunks() - data;
        let mut plain = DefaultRateEncoder::new(data, added, chunk_bytes, NoSimd::new(), None).expect("it knows these");
        let codeword = plan.encode(&body);
        codeword.chunks(chunk_bytes).take(data).for_each(|chunk| plain.add_original_shard(chunk).expect("one of them"));
        let expected = plain.encode().expect("all are there").recovery_iter().collect::<Vec<_>>().concat();
        assert!(codeword[data * chunk_bytes..] == expected, "{stakes:?}");
    }
}

fn block(input_bytes: usize, leader: u16) -> Block {
    let tx = TxEip1559 { input: vec![7; input_bytes].into(), ..TxEip1559::default() };
    let envelope: Envelope = tx.into_signed(Signature::new(U256::MAX, U256::MAX, false)).into();
    let transaction = Transaction::with_known_sender(envelope.encoded_2718().into(), Address::ZERO).expect("encoded");
    let consensus = ConsensusHeader { epoch: 3, proposer: leader, ..ConsensusHeader::default() };
    let body = BlockBody { transactions: vec![Arc::new(transaction)], withdrawals: None };
    Block { consensus, header: Header::default().seal_slow(), body }
}

#[test]
fn a_header_commits_to_a_large_body_and_to_no_other() {
    let plans = Plans::new(Arc::new(set(&[1; 4])));
    let small = block(60_000, 2);
    assert_eq!(commit(&plans, &small), Ok(Commitment::default()));
    assert_eq!(check(&plans, &small), Ok(()));

    let mut large = block(70_000, 2);
    let expected = commit(&plans, &large).expect("it is of the set");
    let encoded = codec::encode_body(&large);
    assert_eq!(expected, Commitment { root: plan(&[1; 4], 2).root(&encoded), size_bytes: size_bytes(&encoded) });
    let refused = |block: &Block| check(&plans, block).expect_err("refused").to_string();
    let zero = B256::ZERO;
    let words = format!("body_root and body_size_bytes are {zero} and 0, not {} and {}", expected.root, encoded.len());
    assert_eq!(refused(&large), words);
    (large.consensus.body_root, large.consensus.body_size_bytes) = (expected.root, expected.size_bytes);
    assert_eq!(check(&plans, &large), Ok(()));
    large.consensus.proposer = 1;
    assert!(refused(&large).contains(&format!("not {}", plan(&[1; 4], 1).root(&encoded))), "another leader cuts anew");
    large.consensus.body_size_bytes += 1;
    assert!(refused(&large).contains(&format!("and {}, not", encoded.len() + 1)));

    let mut needless = block(60_000, 2);
    needless.consensus.body_root = expected.root;
    assert!(refused(&needless).contains(&format!("not {zero} and 0")));
}

#[test]
fn a_set_of_one_cuts_nothing_and_nobody_leads_elsewhere() {
    let alone = Plans::new(Arc::new(set(&[7])));
    assert_eq!(check(&alone, &block(100_000, 0)), Ok(()));
    assert!(alone.of(ValidatorIndex(0)).is_some_and(|plan| plan.is_alone()));
    let shares = plan(&[7], 0).split(&[1, 2, 3]);
    assert_eq!((shares.root, shares.shares), (B256::ZERO, Vec::new()));

    let leader = |index| CommitmentError::Leader { leader: ValidatorIndex(index), epoch: Epoch(3) };
    assert_eq!(check(&alone, &block(1, 1)), Err(leader(1)));
    let mut later = block(1, 0);
    later.consensus.epoch = 4;
    assert!(matches!(check(&alone, &later), Err(CommitmentError::Leader { epoch: Epoch(4), .. })));
    let large = commit(&alone, &block(limits::BODY_BYTES_MAX, 0));
    assert!(matches!(large, Err(CommitmentError::TooLarge { size }) if size > limits::BODY_BYTES_MAX));
}
