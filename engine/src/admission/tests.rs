//! The pool against its promise: nonce order, funds, replacement, limits, eviction; and the cheap checks.

mod attacks;
mod ends;
mod order;

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{SignableTransaction, Transaction as _, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, map::AddressMap};
use proptest::prelude::*;

use super::{
    AdmissionError, Inserted, Mempool, PoolCandidates, PoolLimits,
    checks::{self, Sender},
    recovered::Recovered,
};
use crate::{
    events::Events,
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams},
    limits::{self, POOL_PLACE_BYTES},
    ports::Candidates,
    types::{
        Account, AccountChange, Block, BlockBody, ConsensusHeader, Envelope, Height, PooledTransaction, StateChanges,
        Transaction,
    },
};

const BALANCE: u64 = 1_000_000_000;

fn sender(index: u8) -> Address {
    Address::with_last_byte(index)
}

fn account(nonce: u64, balance: u64) -> Sender {
    Sender { account: Account { nonce, balance: U256::from(balance), ..Account::default() }, delegated: false }
}

fn pooled(from: Address, nonce: u64, fee: u128, tip: u128) -> PooledTransaction {
    pooled_with(from, nonce, fee, tip, Bytes::new())
}

fn pooled_with(from: Address, nonce: u64, fee: u128, tip: u128, input: Bytes) -> PooledTransaction {
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(from),
        input,
        ..TxEip1559::default()
    };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded = envelope.encoded_2718().into();
    PooledTransaction::admitted(Arc::new(Transaction::with_known_sender(encoded, from).expect("just encoded")))
}

#[test]
fn what_is_thrown_out_takes_its_successors_along_and_its_sender_waits() {
    let pool = pool();
    for nonce in 0..4 {
        insert(&pool, pooled(sender(1), nonce, 20, 1)).unwrap();
    }
    insert(&pool, pooled(sender(2), 0, 20, 1)).unwrap();
    let mut candidates = PoolCandidates::new(&pool, 10, &AddressMap::default());
    candidates.next().expect("five wait");
    let slow = candidates.next().expect("four wait");
    candidates.throw_out(&slow);
    assert_eq!((slow.sender(), slow.envelope().nonce()), (sender(1), 1));
    assert_eq!(candidates.next().map(|next| next.sender()), Some(sender(2)));
    assert!(candidates.next().is_none());
    assert_eq!(pool.status().pending, 2);
    let until = Height(1 + limits::SLOW_SENDER_HEIGHTS);
    let refused = insert(&pool, pooled(sender(1), 1, 20, 1));
    assert_eq!(refused, Err(AdmissionError::SenderTooSlow { until }));
    insert(&pool, pooled(sender(2), 1, 20, 1)).unwrap();
}

fn pool() -> Mempool {
    Mempool::new(PoolLimits::default(), Height(1), 10, Events::default())
}

fn insert(pool: &Mempool, tx: PooledTransaction) -> Result<Inserted, AdmissionError> {
    pool.insert(tx, account(0, BALANCE), Height(1))
}

/// Everything the pool would offer at a base fee, as (sender's last byte, nonce).
fn offered(pool: &Mempool, base_fee: u64) -> Vec<(u8, u64)> {
    let mut candidates = PoolCandidates::new(pool, base_fee, &AddressMap::default());
    std::iter::from_fn(|| candidates.next()).map(|tx| (tx.sender().0[19], tx.envelope().nonce())).collect()
}

/// Accounts by address, with nonce and balance.
fn changes(after: &[(Address, u64, u64)]) -> StateChanges {
    let mut changes = StateChanges::default();
    for (address, nonce, balance) in after {
        let account = account(*nonce, *balance).account;
        changes.accounts.insert(*address, AccountChange { after: Some(account), ..AccountChange::default() });
    }
    changes
}

fn block(height: u64, transactions: Vec<Arc<Transaction>>) -> Block {
    let header = alloy_consensus::Header { number: height, ..Default::default() };
    let header = alloy_consensus::Sealable::seal_slow(header);
    Block { consensus: ConsensusHeader::default(), header, body: BlockBody { transactions, withdrawals: None } }
}

fn advance(pool: &Mempool, height: u64, after: &[(Address, u64, u64)]) {
    pool.advance(&block(height, Vec::new()), &changes(after), 10);
}

#[test]
fn a_gap_waits_and_is_promoted_when_it_closes() {
    let pool = pool();
    assert_eq!(insert(&pool, pooled(sender(1), 1, 100, 1)), Ok(Inserted::Queued));
    assert_eq!(insert(&pool, pooled(sender(1), 2, 100, 1)), Ok(Inserted::Queued));
    assert!(offered(&pool, 10).is_empty());
    assert_eq!(pool.next_nonce(sender(1)), Some(0));
    assert_eq!(insert(&pool, pooled(sender(1), 0, 100, 1)), Ok(Inserted::Pending));
    assert_eq!(offered(&pool, 10), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(pool.next_nonce(sender(1)), Some(3));
}

#[test]
fn the_highest_tip_goes_first_and_nonces_stay_in_order() {
    let pool = pool();
    for (from, nonce, tip) in [(1, 0, 1), (1, 1, 50), (2, 0, 5), (3, 0, 5)] {
        insert(&pool, pooled(sender(from), nonce, 1_000, tip)).expect("valid");
    }
    assert_eq!(offered(&pool, 10), [(2, 0), (3, 0), (1, 0), (1, 1)]);
}

/// Equal tips once went by address: whoever had ground out a low one went first in every block, with all its nonces.
#[test]
fn between_equal_tips_the_first_to_arrive_goes_first_and_a_replacement_arrives_anew() {
    let pool = pool();
    for (from, nonce) in [(3, 0), (1, 0), (2, 0), (1, 1), (3, 1)] {
        insert(&pool, pooled(sender(from), nonce, 1_000, 5)).expect("valid");
    }
    assert_eq!(offered(&pool, 10), [(3, 0), (1, 0), (2, 0), (1, 1), (3, 1)]);
    insert(&pool, pooled(sender(4), 0, 1_000, 10)).expect("valid");
    insert(&pool, pooled(sender(3), 0, 2_000, 10)).expect("it replaces");
    assert_eq!(offered(&pool, 10), [(4, 0), (3, 0), (1, 0), (2, 0), (1, 1), (3, 1)]);
}

#[test]
fn what_cannot_pay_the_base_fee_is_kept_but_not_offered() {
    let pool = pool();
    insert(&pool, pooled(sender(1), 0, 15, 1)).expect("valid");
    assert_eq!(offered(&pool, 15), [(1, 0)]);
    assert!(offered(&pool, 16).is_empty());
}

#[test]
fn a_replacement_must_raise_both_fees_by_a_tenth() {
    let pool = pool();
    insert(&pool, pooled(sender(1), 0, 100, 10)).expect("valid");
    for (fee, tip) in [(109, 11), (110, 10), (100, 100), (200, 10)] {
        let refused = insert(&pool, pooled(sender(1), 0, fee, tip));
        assert_eq!(refused, Err(AdmissionError::ReplacementUnderpriced), "fee {fee} tip {tip}");
    }
    assert_eq!(insert(&pool, pooled(sender(1), 0, 110, 11)), Ok(Inserted::Pending));
    assert_eq!(pool.status().pending, 1);
    assert_eq!(insert(&pool, pooled(sender(1), 0, 110, 11)), Err(AdmissionError::AlreadyKnown));
}

#[test]
fn a_sender_must_be_able_to_pay_for_everything_before() {
    let pool = pool();
    let afford_two = account(0, 2 * 21_000 * 100);
    for nonce in 0..2 {
        assert_eq!(pool.insert(pooled(sender(1), nonce, 100, 1), afford_two, Height(1)), Ok(Inserted::Pending));
    }
    let refused = pool.insert(pooled(sender(1), 2, 100, 1), afford_two, Height(1)).expect_err("no funds");
    assert_eq!(
        refused.to_string(),
        "insufficient funds for gas * price + value: balance 4200000, tx cost 6300000, overshot 2100000"
    );
}

#[test]
fn an_old_nonce_is_refused_with_the_next_one() {
    let refused = pool().insert(pooled(sender(1), 4, 100, 1), account(5, BALANCE), Height(1)).expect_err("used");
    assert_eq!(refused.to_string(), "nonce too low: next nonce 5, tx nonce 4");
}

#[test]
fn inclusion_removes_and_a_fallen_balance_demotes() {
    let pool = pool();
    for nonce in 0..4 {
        insert(&pool, pooled(sender(1), nonce, 100, 1)).expect("valid");
    }
    advance(&pool, 2, &[(sender(1), 1, 2 * 21_000 * 100)]);
    assert_eq!(offered(&pool, 10), [(1, 1), (1, 2)]);
    assert_eq!((pool.status().pending, pool.status().queued), (2, 1));
    advance(&pool, 3, &[(sender(1), 1, BALANCE)]);
    assert_eq!(offered(&pool, 10), [(1, 1), (1, 2), (1, 3)]);
    advance(&pool, 4, &[(sender(1), 9, BALANCE)]);
    assert_eq!(pool.status(), super::PoolStatus::default());
}

#[test]
fn a_sender_read_before_the_pool_moved_on_is_read_again() {
    let pool = pool();
    advance(&pool, 2, &[]);
    assert_eq!(insert(&pool, pooled(sender(1), 0, 100, 1)), Ok(Inserted::Stale(Height(2))));
}

#[test]
fn a_delegated_sender_has_one_transaction_waiting() {
    let pool = pool();
    let delegated = Sender { delegated: true, ..account(0, BALANCE) };
    pool.insert(pooled(sender(1), 0, 100, 1), delegated, Height(1)).expect("first");
    let second = pool.insert(pooled(sender(1), 1, 100, 1), delegated, Height(1));
    assert_eq!(second, Err(AdmissionError::DelegatedLimit));
    assert_eq!(pool.insert(pooled(sender(1), 0, 200, 2), delegated, Height(1)), Ok(Inserted::Pending));
}

#[test]
fn one_sender_cannot_queue_more_than_its_share() {
    let limits = PoolLimits { sender_queued_max: 3, sender_pending_max: 5, ..PoolLimits::default() };
    let pool = Mempool::new(limits, Height(1), 10, Events::default());
    for nonce in 2..5 {
        assert_eq!(insert(&pool, pooled(sender(1), nonce, 100, 1)), Ok(Inserted::Queued));
    }
    assert_eq!(insert(&pool, pooled(sender(1), 1, 100, 1)), Err(AdmissionError::SenderLimit(3)));
    let far = insert(&pool, pooled(sender(1), 6, 100, 1)).expect_err("far ahead");
    assert_eq!(far.to_string(), "nonce too high: next nonce 0, tx nonce 6, at most 5 ahead are kept");
    assert_eq!(insert(&pool, pooled(sender(1), 0, 100, 1)), Ok(Inserted::Pending));
}

#[test]
fn a_full_pool_drops_queued_first_then_the_cheapest_tail() {
    let limits = PoolLimits { places_max: 4, ..PoolLimits::default() };
    let pool = Mempool::new(limits, Height(1), 10, Events::default());
    insert(&pool, pooled(sender(1), 0, 100, 50)).expect("valid");
    insert(&pool, pooled(sender(2), 0, 100, 20)).expect("valid");
    insert(&pool, pooled(sender(2), 1, 100, 90)).expect("valid");
    insert(&pool, pooled(sender(3), 7, 100, 90)).expect("queued");
    assert_eq!(insert(&pool, pooled(sender(4), 0, 100, 1)), Ok(Inserted::Pending), "a queued one makes room");
    assert_eq!(insert(&pool, pooled(sender(5), 0, 100, 1)), Err(AdmissionError::PoolFull), "pays no more than any");
    assert_eq!(insert(&pool, pooled(sender(5), 3, 100, 90)), Err(AdmissionError::PoolFull), "not executable");
    assert_eq!(insert(&pool, pooled(sender(5), 0, 100, 40)), Ok(Inserted::Pending));
    assert_eq!(offered(&pool, 10), [(1, 0), (5, 0), (2, 0), (2, 1)]);
    assert_eq!(insert(&pool, pooled(sender(6), 0, 100, 45)), Ok(Inserted::Pending), "a dear tail shields nothing");
    assert_eq!(offered(&pool, 10), [(1, 0), (6, 0), (5, 0), (2, 0)]);
}

/// What is too cheap is refused before its sender is known.
#[test]
fn what_is_too_cheap_for_a_full_pool_is_known_before_its_sender() {
    let limits = PoolLimits { places_max: 3, ..PoolLimits::default() };
    let pool = Mempool::new(limits, Height(1), 10, Events::default());
    let newcomer = |fee| pooled(sender(9), 0, fee, 100);
    let too_cheap = |pool: &Mempool, fee| pool.is_too_cheap(newcomer(fee).envelope());
    insert(&pool, pooled(sender(1), 0, 30, 100)).unwrap();
    insert(&pool, pooled(sender(2), 0, 40, 100)).unwrap();
    assert!(!too_cheap(&pool, 11), "there is room");
    insert(&pool, pooled(sender(3), 1, 50, 100)).unwrap();
    assert!(!too_cheap(&pool, 11), "what waits for a nonce leaves first");
    insert(&pool, pooled(sender(4), 0, 35, 100)).unwrap();
    for fee in [11, 29, 30, 40] {
        assert_eq!(too_cheap(&pool, fee), fee <= 30, "{fee}");
        let outcome = insert(&pool, newcomer(fee));
        assert_eq!(outcome.is_err(), fee <= 30, "{fee}: {outcome:?}");
    }
}

#[test]
fn what_was_recovered_is_remembered_until_it_makes_way_by_count_or_by_bytes() {
    let recovered = Recovered::default();
    let (small, large) = (pooled(sender(1), 0, 1, 1), vec![1; limits::TRANSACTION_BYTES_MAX / 2]);
    let other = |nonce| pooled_with(sender(2), nonce, 1, 1, large.clone().into());
    recovered.add(small.shared());
    recovered.add(small.shared());
    assert!(recovered.get(small.hash()).is_some_and(|found| Arc::ptr_eq(&found, small.shared())));
    let room = (limits::RECOVERED_BYTES_MAX - small.size_bytes()) / other(u64::MAX / 2).size_bytes();
    for nonce in 0..=u64::try_from(room).expect("small") {
        assert!(recovered.get(small.hash()).is_some(), "{nonce} of {room}");
        recovered.add(other(nonce).shared());
    }
    assert!(recovered.get(small.hash()).is_none());
    for nonce in 0..=u64::try_from(limits::RECOVERED_TRANSACTIONS_MAX).expect("small") {
        recovered.add(pooled(sender(3), nonce, 1, 1).shared());
    }
    assert!(recovered.get(other(u64::try_from(room).expect("small")).hash()).is_none());
    assert!(recovered.get(pooled(sender(3), 0, 1, 1).hash()).is_none());
    assert!(recovered.get(pooled(sender(3), 1, 1, 1).hash()).is_some());
}

/// A pool of so many places, and call data that takes so many of them.
fn pool_of(places_max: usize) -> (Mempool, impl Fn(usize) -> Bytes) {
    let limits = PoolLimits { places_max, ..PoolLimits::default() };
    let data = |places| vec![1; places * POOL_PLACE_BYTES - 200].into();
    (Mempool::new(limits, Height(1), 10, Events::default()), data)
}

#[test]
fn bytes_are_bounded_too() {
    let (pool, data) = pool_of(5);
    insert(&pool, pooled_with(sender(1), 0, 100, 1, data(3))).expect("fits");
    assert_eq!(insert(&pool, pooled_with(sender(2), 0, 100, 1, data(3))), Err(AdmissionError::PoolFull));
    insert(&pool, pooled_with(sender(2), 0, 100, 1, data(2))).expect("fits");
    assert!(pool.status().bytes <= 5 * POOL_PLACE_BYTES);
}

/// Replacements once grew the pool past its bytes: 131,072 small transactions, each replaced by a large one.
#[test]
fn a_replacement_finds_room_for_what_it_grows() {
    let (pool, data) = pool_of(4);
    let small = pooled(sender(1), 0, 100, 10);
    insert(&pool, small.clone()).expect("fits");
    insert(&pool, pooled(sender(2), 0, 100, 30)).expect("fits");
    insert(&pool, pooled(sender(3), 0, 9, 9)).expect("fits");
    let large = |places| pooled_with(sender(1), 0, 110, 90, data(places));
    assert_eq!(insert(&pool, large(4)), Err(AdmissionError::PoolFull), "it would displace what can pay");
    assert_eq!(pool.status().pending, 3, "a refusal evicts nothing");
    assert!(pool.get(small.hash()).is_some());
    assert_eq!(insert(&pool, large(3)), Ok(Inserted::Pending));
    assert!(pool.status().bytes <= 4 * POOL_PLACE_BYTES);
    assert_eq!(offered(&pool, 9), [(1, 0), (2, 0)]);
}

/// A large transaction once displaced a thousand small ones, for a sixteenth of what they paid.
#[test]
fn of_those_who_can_pay_a_transaction_displaces_one() {
    let (pool, data) = pool_of(4);
    insert(&pool, pooled(sender(1), 0, 9, 9)).expect("fits");
    for from in 2..5 {
        insert(&pool, pooled(sender(from), 0, 100, 30)).expect("fits");
    }
    let large = |places| pooled_with(sender(5), 0, 200, 90, data(places));
    assert_eq!(insert(&pool, large(3)), Err(AdmissionError::PoolFull));
    assert_eq!(pool.status().pending, 4, "a refusal evicts nothing");
    assert_eq!(insert(&pool, large(2)), Ok(Inserted::Pending));
    assert_eq!(offered(&pool, 9), [(5, 0), (2, 0), (3, 0)]);
}

/// A full pool of this much once refused a payable newcomer, or gave way to one that could not pay: what its
/// transactions paid was what they paid when they came.
#[test]
fn what_is_displaced_follows_from_the_present_base_fee() {
    let (pool, _) = pool_of(2);
    insert(&pool, pooled(sender(1), 0, 1_000, 2)).expect("fits");
    insert(&pool, pooled(sender(2), 0, 40, 30)).expect("fits");
    let base_fee = |base_fee| pool.advance(&block(2, Vec::new()), &changes(&[]), base_fee);
    let newcomer = |from, fee, tip| pool.insert(pooled(sender(from), 0, fee, tip), account(0, BALANCE), Height(2));
    base_fee(100);
    assert_eq!(newcomer(3, 39, 39), Err(AdmissionError::PoolFull), "it cannot pay, and offers less than any");
    assert_eq!(newcomer(3, 60, 60), Ok(Inserted::Pending), "who offers least leaves");
    assert_eq!(newcomer(4, 500, 3), Ok(Inserted::Pending), "who cannot pay leaves");
    assert_eq!(offered(&pool, 100), [(4, 0), (1, 0)]);
    base_fee(10);
    assert_eq!(newcomer(5, 500, 4), Ok(Inserted::Pending), "who pays least now leaves");
    assert_eq!(offered(&pool, 10), [(5, 0), (4, 0)]);
}

/// A flood just above the base fee once displaced everything, and could not pay a few blocks later.
#[test]
fn who_displaces_others_could_pay_a_higher_base_fee() {
    let (pool, _) = pool_of(2);
    let base_fee = |base_fee| pool.advance(&block(2, Vec::new()), &changes(&[]), base_fee);
    let newcomer = |from, fee, tip| pool.insert(pooled(sender(from), 0, fee, tip), account(0, BALANCE), Height(2));
    base_fee(1_000);
    newcomer(1, 2_000, 2).expect("fits");
    newcomer(2, 999, 2).expect("fits");
    assert_eq!(newcomer(3, 1_003, 1_003), Ok(Inserted::Pending), "the other cannot pay");
    assert_eq!(newcomer(4, 1_122, 1_122), Err(AdmissionError::PoolFull));
    assert_eq!(newcomer(4, 1_123, 1_123), Ok(Inserted::Pending));
    assert_eq!(offered(&pool, 1_000), [(4, 0), (3, 0)]);
}

/// A run of dear transactions once displaced a whole pool, and a cheap one with the first nonce in another node's block
/// made all of it void.
#[test]
fn only_the_next_transaction_of_a_sender_displaces_who_can_pay() {
    let (pool, _) = pool_of(3);
    insert(&pool, pooled(sender(1), 0, 100, 5)).expect("fits");
    insert(&pool, pooled(sender(2), 0, 100, 5)).expect("fits");
    insert(&pool, pooled(sender(3), 0, 9, 5)).expect("fits");
    assert_eq!(insert(&pool, pooled(sender(4), 0, 200, 50)), Ok(Inserted::Pending));
    assert_eq!(insert(&pool, pooled(sender(4), 1, 200, 50)), Err(AdmissionError::PoolFull));
    assert_eq!(offered(&pool, 9), [(4, 0), (1, 0), (2, 0)]);
    pool.advance(&block(2, Vec::new()), &changes(&[]), 101);
    let second = pool.insert(pooled(sender(4), 1, 200, 50), account(0, BALANCE), Height(2));
    assert_eq!(second, Ok(Inserted::Pending), "nobody else can pay");
}

/// One sender with a long run once turned all of it into queued transactions by sending its balance away.
#[test]
fn a_fall_of_balance_does_not_fill_the_queued_budget() {
    let limits = PoolLimits { sender_queued_max: 3, queued_max: 5, ..PoolLimits::default() };
    let pool = Mempool::new(limits, Height(1), 10, Events::default());
    for nonce in 0..20 {
        insert(&pool, pooled(sender(1), nonce, 100, 1)).expect("payable");
    }
    advance(&pool, 2, &[(sender(1), 1, 0)]);
    assert_eq!((pool.status().pending, pool.status().queued), (0, 3));
    assert_eq!(pool.content()[&sender(1)].1.iter().map(|tx| tx.envelope().nonce()).collect::<Vec<_>>(), [1, 2, 3]);
    pool.insert(pooled(sender(2), 7, 100, 1), account(0, BALANCE), Height(2)).expect("there is room for others");
}

#[test]
fn a_full_queued_budget_goes_to_who_pays_more() {
    let limits = PoolLimits { queued_max: 2, ..PoolLimits::default() };
    let pool = Mempool::new(limits, Height(1), 10, Events::default());
    insert(&pool, pooled(sender(1), 3, 100, 10)).expect("queued");
    insert(&pool, pooled(sender(2), 3, 100, 20)).expect("queued");
    assert_eq!(insert(&pool, pooled(sender(3), 3, 100, 10)), Err(AdmissionError::PoolFull));
    assert_eq!(insert(&pool, pooled(sender(3), 3, 100, 15)), Ok(Inserted::Queued));
    assert_eq!(pool.content().keys().copied().collect::<Vec<_>>(), [sender(2), sender(3)]);
}

#[derive(Clone, Debug)]
enum Act {
    Insert { from: u8, nonce: u64, fee: u128, tip: u128 },
    Advance { from: u8, nonce: u64, balance: u64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let insert = (0..4_u8, 0..8_u64, 10..40_u128, 0..10_u128).prop_map(|(from, nonce, fee, tip)| Act::Insert {
        from,
        nonce,
        fee,
        tip,
    });
    let advance =
        (0..4_u8, 0..8_u64, 0..4_000_000_u64).prop_map(|(from, nonce, balance)| Act::Advance { from, nonce, balance });
    proptest::collection::vec(prop_oneof![4 => insert, 1 => advance], 1..80)
}

proptest! {
    /// Whatever happens, offers are gapless from the account's nonce and payable together, and the
    /// counts are what the content says.
    #[test]
    fn the_pool_keeps_its_promise(acts in acts()) {
        let limits = PoolLimits { places_max: 12, queued_max: 5, ..PoolLimits::default() };
        let pool = Mempool::new(limits, Height(1), 10, Events::default());
        let mut accounts: BTreeMap<u8, Sender> = (0..4).map(|from| (from, account(0, 3_000_000))).collect();
        let mut height = 1;
        for act in acts {
            match act {
                Act::Insert { from, nonce, fee, tip } => {
                    let tx = pooled(sender(from), nonce, fee, tip.min(fee));
                    let _ = pool.insert(tx, accounts[&from], Height(height));
                }
                Act::Advance { from, nonce, balance } => {
                    let nonce = nonce.max(accounts[&from].account.nonce);
                    accounts.insert(from, account(nonce, balance));
                    height += 1;
                    advance(&pool, height, &[(sender(from), nonce, balance)]);
                }
            }
            let (status, content) = (pool.status(), pool.content());
            let pending: usize = content.values().map(|(pending, _)| pending.len()).sum();
            let queued: usize = content.values().map(|(_, queued)| queued.len()).sum();
            prop_assert_eq!((status.pending, status.queued), (pending, queued));
            let all = || content.values().flat_map(|(pending, queued)| pending.iter().chain(queued));
            prop_assert_eq!(status.gas, all().map(|tx| tx.envelope().gas_limit()).sum::<u64>());
            prop_assert_eq!(status.bytes, all().map(|tx| tx.size_bytes()).sum::<usize>());
            prop_assert!(pending + queued <= 12);
            prop_assert!(queued <= 5);
            for (address, (pending, queued)) in &content {
                let account = accounts[&address.0[19]].account;
                let mut cost = U256::ZERO;
                for (index, tx) in (0_u64..).zip(pending) {
                    prop_assert_eq!(tx.envelope().nonce(), account.nonce + index);
                    cost += tx.cost_max();
                }
                prop_assert!(cost <= account.balance);
                prop_assert!(queued.iter().all(|tx| tx.envelope().nonce() >= account.nonce));
                for tx in pending.iter().chain(queued) {
                    prop_assert!(pool.get(tx.hash()).is_some());
                }
            }
            prop_assert!(offered(&pool, 10).len() <= pending);
        }
    }
}

fn chain() -> ChainSpec {
    ChainSpec {
        chain_id: 31_337,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: alloy_consensus::Header::default(),
        alloc: BTreeMap::new(),
    }
}

fn refusal(tx: impl Into<Envelope>) -> String {
    let raw = tx.into().encoded_2718().into();
    match checks::stateless(&raw, &chain(), Fork::Osaka, 30_000_000) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn base() -> TxEip1559 {
    TxEip1559 {
        chain_id: 31_337,
        gas_limit: 21_000,
        max_fee_per_gas: 10_000_000,
        to: TxKind::Call(Address::ZERO),
        ..TxEip1559::default()
    }
}

fn signed(tx: TxEip1559) -> Envelope {
    tx.into_signed(Signature::test_signature()).into()
}

#[test]
fn each_stateless_refusal_has_the_words_that_libraries_look_for() {
    let signature = Signature::test_signature();
    let legacy = TxLegacy { gas_limit: 21_000, gas_price: 10_000_000, ..TxLegacy::default() };
    let cases: Vec<(Envelope, &str)> = vec![
        (signed(base()), "accepted"),
        (signed(TxEip1559 { chain_id: 1, ..base() }), "invalid chain id for signer: have 1 want 31337"),
        (legacy.into_signed(signature).into(), "only replay-protected (EIP-155) transactions allowed over RPC"),
        (signed(TxEip1559 { gas_limit: 20_999, ..base() }), "intrinsic gas too low: gas 20999, minimum needed 21000"),
        (
            signed(TxEip1559 { gas_limit: 22_000, input: vec![1; 60].into(), ..base() }),
            "insufficient gas for floor data gas cost: gas 22000, minimum needed 23400",
        ),
        (
            signed(TxEip1559 { gas_limit: 30_000_001, ..base() }),
            "exceeds block gas limit: tx gas 30000001, current limit 30000000",
        ),
        (
            signed(TxEip1559 { gas_limit: 16_777_217, ..base() }),
            "transaction gas limit too high (cap: 16777216, tx: 16777217)",
        ),
        (
            signed(TxEip1559 { max_priority_fee_per_gas: 10_000_001, ..base() }),
            "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: 10000001, maxFeePerGas: 10000000",
        ),
        (
            signed(TxEip1559 { max_fee_per_gas: 9_999_999, ..base() }),
            "transaction underpriced: gas fee cap 9999999, minimum needed 10000000",
        ),
        (
            signed(TxEip1559 { to: TxKind::Create, input: vec![0; 49_153].into(), gas_limit: 5_000_000, ..base() }),
            "max initcode size exceeded: code size 49153, limit 49152",
        ),
        (
            TxEip7702 { chain_id: 31_337, gas_limit: 100_000, max_fee_per_gas: 10_000_000, ..TxEip7702::default() }
                .into_signed(signature)
                .into(),
            "EIP-7702 transaction with empty auth list",
        ),
        (
            TxEip4844 { chain_id: 31_337, ..TxEip4844::default() }.into_signed(signature).into(),
            "transaction type not supported: blob transactions are not accepted by this chain",
        ),
        (
            TxEip2930 { chain_id: 31_337, gas_limit: 21_000, gas_price: 10_000_000, ..TxEip2930::default() }
                .into_signed(signature)
                .into(),
            "intrinsic gas too low: gas 21000, minimum needed 53000",
        ),
    ];
    for (envelope, want) in cases {
        assert_eq!(refusal(envelope), want);
    }
}

#[test]
fn bytes_that_are_no_transaction_are_refused_without_a_panic() {
    let refuse = |bytes: Vec<u8>| {
        checks::stateless(&bytes.into(), &chain(), Fork::Osaka, 30_000_000).expect_err("no transaction").to_string()
    };
    assert_eq!(refuse(Vec::new()), "rlp: input too short");
    assert_eq!(refuse(vec![5, 1, 2]), "transaction type not supported: unknown type");
    assert_eq!(refuse(vec![0; 131_073]), "oversized data: transaction size 131073, limit 131072");
    let mut trailing = signed(base()).encoded_2718();
    trailing.push(0);
    assert_eq!(refuse(trailing), "1 bytes behind the transaction");
    let whole = signed(base()).encoded_2718();
    for cut in 0..whole.len() {
        assert!(!refuse(whole[..cut].to_vec()).is_empty());
    }
}
