//! Blocks are cut by time, by a clock that the tests own: a slot of one contract takes as long to read as its key says.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use alloy_primitives::{Address, B256, Bytes, U256, bytes};
use engine::{
    genesis::{Fork, GenesisAccount},
    ports::{Executor as _, StateError, StateView},
    testing::MapState,
    types::{Account, ExecutedBlock, Height, StateChanges, Transaction, TrieHandle},
};

use super::*;
use crate::{
    RevmExecutor,
    testing::{ETHER, Queue, World, send, transfer},
    workers::Workers,
};

/// Reads the slot that its input names.
const READER: Address = Address::repeat_byte(0x5e);
const READER_CODE: Bytes = bytes!("5f355400");

const SLOT_TIME: Duration = Duration::from_millis(200);

/// A state whose reads take their time.
struct SlowState<'w> {
    state: &'w MapState,
    now_ms: AtomicU64,
}

impl StateView for SlowState<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.state.account(address)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        if address == READER {
            self.now_ms.fetch_add(key.as_limbs()[0], Ordering::Relaxed);
        }
        self.state.slot(address, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.state.code(hash)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        self.state.block_hash(height)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        self.state.root_after(parent, changes)
    }
}

fn sender(nth: usize) -> Address {
    Address::from_word(U256::from(0x5e4d_0000 + nth).into())
}

fn world() -> World {
    let reader = GenesisAccount { nonce: 1, code: READER_CODE, ..GenesisAccount::default() };
    let rich = || GenesisAccount { balance: ETHER * U256::from(100), ..GenesisAccount::default() };
    World::with(Fork::Osaka, (0..64).map(|nth| (sender(nth), rich())).chain([(READER, reader)]))
}

/// A transaction of a sender of its own that takes so many milliseconds the first time that somebody runs it.
fn slow(nth: usize, ms: u64, gas_limit: u64) -> Arc<Transaction> {
    let key = U256::from_limbs([ms, u64::try_from(nth).unwrap(), 0, 0]);
    send(sender(nth), 0, READER.into(), U256::ZERO, key.to_be_bytes_vec().into(), gas_limit)
}

fn all(times_ms: &[u64]) -> Vec<Arc<Transaction>> {
    times_ms.iter().enumerate().map(|(nth, ms)| slow(nth, *ms, 100_000)).collect()
}

/// Builds with the times of a slot.
fn build_in(world: &World, queue: &mut Queue, slot_time: Duration, threads: usize) -> ExecutedBlock {
    let view = SlowState { state: &world.state, now_ms: AtomicU64::new(0) };
    let elapsed = || Duration::from_millis(view.now_ms.load(Ordering::Relaxed));
    let time = BuildTime { elapsed: &elapsed, begin_max: slot_time, replica_max: limits::replica_time(slot_time) };
    let executor = RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap());
    let executor = executor.with_threads_from(0);
    let built = executor.build(&view, &world.parent, &world.settings(), queue, &time).unwrap().0;
    // Whoever executes it agrees in every field, the hash of the access list among them.
    executor.execute(&world.state, &world.parent, &built.block).unwrap();
    built
}

fn build(world: &World, queue: &mut Queue) -> ExecutedBlock {
    build_in(world, queue, SLOT_TIME, 1)
}

/// Who is in the block.
fn senders(built: &ExecutedBlock) -> Vec<Address> {
    built.block.body.transactions.iter().map(|transaction| transaction.sender()).collect()
}

#[test]
fn no_transaction_begins_after_the_time_is_up() {
    let mut queue = Queue::of(all(&[90; 5]));
    let built = build(&world(), &mut queue);
    assert_eq!(senders(&built), [sender(0), sender(1), sender(2)], "the third begins after 180 ms and ends after 270");
    assert_eq!((queue.waiting.len(), queue.thrown_out.len()), (2, 0));
}

#[test]
fn transfers_are_cut_by_the_same_time() {
    let transfers = (8..40).map(|nth| transfer(sender(nth), 0, sender(0), U256::from(1)));
    let mut queue = Queue::of([slow(0, 199, 100_000), slow(1, 1, 100_000)].into_iter().chain(transfers));
    assert_eq!(senders(&build(&world(), &mut queue)), [sender(0), sender(1)]);
    assert_eq!(queue.waiting.len(), 32);
}

#[test]
fn what_might_not_fit_waits_for_the_next_block() {
    let world = world();
    // All of its gas may take 302 ms, and 265 are left.
    let large = slow(1, 10, limits::TRANSACTION_GAS_MAX_OSAKA);
    let mut queue = Queue::of([slow(0, 60, 100_000), large.clone(), slow(2, 10, 100_000)]);
    assert_eq!(senders(&build(&world, &mut queue)), [sender(0), sender(2)]);
    assert!(queue.skipped.contains(&sender(1)) && queue.thrown_out.is_empty());
    let mut queue = Queue::of([large, slow(2, 10, 100_000)]);
    assert_eq!(senders(&build(&world, &mut queue)), [sender(1), sender(2)]);
}

#[test]
fn the_first_transaction_always_begins() {
    let world = world();
    let mut queue = Queue::of([slow(0, 5, 16_000_000), slow(1, 5, 100_000)]);
    let built = build_in(&world, &mut queue, Duration::from_millis(10), 1);
    assert_eq!(senders(&built), [sender(0), sender(1)]);
}

/// Slots that only an undone transaction read once stood in the access list, and no replica accepted the block.
#[test]
fn what_takes_too_long_is_undone_and_thrown_out() {
    let world = world();
    let mut queue = Queue::of(all(&[20, 400, 10]));
    let before = metrics_value();
    let built = build(&world, &mut queue);
    assert_eq!(senders(&built), [sender(0)]);
    assert_eq!(queue.thrown_out, [slow(1, 400, 100_000).hash()]);
    assert!(metrics_value() > before);
    let alone = build(&world, &mut Queue::of(all(&[20])));
    assert_eq!(built.block, alone.block, "it left no trace");
    let mut queue = Queue::of(all(&[400, 10]));
    assert!(senders(&build(&world, &mut queue)).is_empty(), "the time of the block went with it");
    assert_eq!((queue.thrown_out.len(), queue.waiting.len()), (1, 1));
}

fn metrics_value() -> u64 {
    crate::metrics::CANDIDATE_TOO_SLOW.value()
}

#[test]
fn no_mix_of_times_makes_a_block_that_takes_a_replica_too_long() {
    let world = world();
    let most = limits::replica_time(SLOT_TIME).as_millis();
    for threads in [1, 2, 3] {
        // What a helper guessed and the lane runs again takes this clock no second time.
        let longest = if threads == 1 { 390 } else { 320 };
        for round in 0_u64..120 {
            let noise = |nth: u64| round.wrapping_mul(0x9e37_79b9).wrapping_add(nth.wrapping_mul(0x85eb_ca6b)) >> 7;
            let range = if round % 3 == 0 { longest } else { 60 };
            let times: Vec<_> = (0..24).map(|nth| noise(nth) % range).collect();
            let mut queue = Queue::of(all(&times));
            let built = build_in(&world, &mut queue, SLOT_TIME, threads);
            let included = |nth: &usize| built.block.body.transactions.iter().any(|tx| tx.sender() == sender(*nth));
            let sum: u64 = (0..24).filter(included).map(|nth| times[nth]).sum();
            assert!(u128::from(sum) <= most, "{sum} ms in round {round} with {threads} threads: {times:?}");
        }
    }
}

#[test]
fn somebody_elses_block_is_executed_whatever_time_it_takes() {
    let world = world();
    let executor = RevmExecutor::new(world.chain.clone());
    let view = SlowState { state: &world.state, now_ms: AtomicU64::new(0) };
    let mut queue = Queue::of(all(&[400, 4_000]));
    let built = executor.build(&view, &world.parent, &world.settings(), &mut queue, &BuildTime::UNLIMITED).unwrap().0;
    assert_eq!(built.block.body.transactions.len(), 2);
    executor.execute(&view, &world.parent, &built.block).unwrap();
    assert!(view.now_ms.load(Ordering::Relaxed) >= 8_800);
}

#[test]
fn guesses_count_for_every_thread_that_makes_them() {
    let elapsed = || Duration::from_millis(120);
    let time = BuildTime { elapsed: &elapsed, begin_max: SLOT_TIME, replica_max: limits::replica_time(SLOT_TIME) };
    let over = [1, 2, 3, 8].map(|threads| Pace::new(time, threads).is_over());
    assert_eq!(over, [false, false, true, true]);
    let spent = [1, 2, 3, 8].map(|threads| Pace::new(time, threads).is_spent());
    assert_eq!(spent, [false, false, true, true]);
    let left = |is_first| Pace::new(time, 2).begin(21_000, is_first).unwrap().left;
    assert_eq!([left(false), left(true)], [Duration::from_millis(85), Duration::from_millis(325)]);
}
