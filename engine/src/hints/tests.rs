//! The budget holds over every stretch of time, and nothing is simulated that may not be.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use alloy_consensus::{SignableTransaction, Transaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, TxKind};
use crossbeam::channel::bounded;
use proptest::prelude::*;

use super::*;
use crate::{
    admission::PoolLimits,
    events::Events,
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams},
    testing::{MemoryStore, ToyExecutor},
    types::{Account, Envelope, Height, Transaction},
};

const BLOCK_GAS: u64 = 30_000_000;

proptest! {
    /// Whoever uses as much as is allowed, whenever it likes, gets the share and one burst over any stretch.
    #[test]
    fn any_stretch_of_time_sees_at_most_the_share_and_one_burst(
        percent in 1..=100_u8,
        steps in proptest::collection::vec((0..40_000_u64, 0..=9_000_u64), 1..200),
    ) {
        let mut budget = Budget::new(percent).expect("a share");
        let (mut now, mut uses) = (Duration::ZERO, Vec::new());
        for (pause, took) in steps {
            now += Duration::from_micros(pause);
            if budget.allows(now) {
                let took = Duration::from_micros(took).min(limits::HINT_TIME_MAX);
                let begun = now;
                now += took;
                budget.spend(now, took);
                uses.push((begun, now, took));
            }
        }
        for (at, (begun, ..)) in uses.iter().enumerate() {
            let mut spent = Duration::ZERO;
            for (_, ended, took) in &uses[at..] {
                spent += *took;
                let share = (*ended - *begun) * u32::from(percent) / 100;
                prop_assert!(spent <= share + limits::HINT_BURST + Duration::from_micros(1));
            }
        }
    }

    /// Uses that take longer than they may are paid back: the share holds in the long run.
    #[test]
    fn what_took_too_long_is_paid_back(
        percent in 1..=100_u8,
        uses in proptest::collection::vec(0..200_u64, 1..50),
    ) {
        let mut budget = Budget::new(percent).expect("a share");
        let (mut now, mut spent) = (Duration::ZERO, Duration::ZERO);
        for took in uses.into_iter().map(Duration::from_millis) {
            while !budget.allows(now) {
                now += Duration::from_millis(1);
            }
            prop_assert!(spent <= now * u32::from(percent) / 100 + limits::HINT_BURST);
            now += took;
            spent += took;
            budget.spend(now, took);
        }
    }
}

#[test]
fn a_share_of_nothing_is_no_budget_and_a_new_one_has_nothing_saved() {
    assert!(Budget::new(0).is_none());
    let budget = Budget::new(5).expect("a share");
    let first = limits::HINT_TIME_MAX * 20;
    assert!(!budget.allows(first - Duration::from_nanos(1)) && budget.allows(first));
}

fn waiting(nonce: u64, gas_limit: u64) -> PooledTransaction {
    let to = TxKind::Call(Address::ZERO);
    let tx = TxEip1559 { chain_id: 9, nonce, gas_limit, max_fee_per_gas: 100, to, ..TxEip1559::default() };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let known = Transaction::with_known_sender(envelope.encoded_2718().into(), Address::repeat_byte(1));
    PooledTransaction::admitted(Arc::new(known.expect("just encoded")))
}

/// Nobody reads the queue, and whoever admits goes on.
#[test]
fn a_full_queue_takes_nothing_and_holds_nobody_up() {
    let (queue, waiting_out) = bounded(2);
    let events = Events::default();
    events.listen(listener(queue));
    (0..5).for_each(|nonce| events.emit(&Event::Admitted(waiting(nonce, 21_000))));
    assert_eq!(waiting_out.try_iter().map(|tx| tx.envelope().nonce()).collect::<Vec<_>>(), [0, 1]);
    drop(waiting_out);
    events.emit(&Event::Admitted(waiting(5, 21_000)));
}

struct Stage {
    hints: Hints,
    pool: Arc<Mempool>,
    runs: Arc<AtomicUsize>,
}

/// Hints over a simulation that lasts until it is cut.
fn endless() -> Stage {
    let chain = ChainSpec {
        chain_id: 9,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: alloy_consensus::Header { gas_limit: BLOCK_GAS, ..Default::default() },
        alloc: Default::default(),
    };
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let executor = ToyExecutor::hinting(move |limits| {
        counted.fetch_add(1, Ordering::Relaxed);
        while !(limits.is_over)() {}
    });
    let pool = Arc::new(Mempool::new(PoolLimits::default(), Height::GENESIS, 10, Events::default()));
    let store = Arc::new(MemoryStore::new(Arc::new(chain)));
    let pending = Arc::new(Pending::new(&*store));
    let budget = Budget::new(5).expect("a share");
    let hints = Hints::new(Arc::new(executor), store, pool.clone(), pending, budget);
    Stage { hints, pool, runs }
}

/// A clock that goes on by a millisecond whenever somebody looks at it.
fn ticking(from_ms: u64) -> impl Fn() -> Duration + Sync {
    let looks = AtomicU64::new(from_ms);
    move || Duration::from_millis(looks.fetch_add(1, Ordering::Relaxed) + 1)
}

#[test]
fn a_simulation_without_end_is_cut_and_paid_for_before_the_next() {
    let Stage { mut hints, runs, .. } = endless();
    let clock = ticking(1_000);
    assert_eq!(hints.simulate(&waiting(0, 21_000), &clock, &|| false), Ok(true));
    let took = clock() - Duration::from_millis(1_000);
    assert!(took <= limits::HINT_TIME_MAX + Duration::from_millis(4), "{took:?}");
    // A burst pays for nearly two.
    assert_eq!(hints.simulate(&waiting(0, 21_000), &clock, &|| false), Err(Skipped::OverBudget));
    let later = ticking(2_000);
    assert_eq!(hints.simulate(&waiting(0, 21_000), &later, &|| false), Ok(true));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[test]
fn a_stop_cuts_a_simulation_and_none_begins_after_it() {
    let Stage { mut hints, runs, .. } = endless();
    let (still, asked) = (|| Duration::from_secs(1), AtomicUsize::new(0));
    let stops = || asked.fetch_add(1, Ordering::Relaxed) >= 5;
    assert_eq!(hints.simulate(&waiting(0, 21_000), &still, &stops), Ok(true), "it ends though time stands still");
    assert_eq!(hints.simulate(&waiting(0, 21_000), &still, &stops), Ok(false));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn nothing_is_simulated_while_the_pool_holds_more_than_a_block() {
    let Stage { mut hints, pool, runs } = endless();
    let account = Account { balance: alloy_primitives::U256::MAX, ..Account::default() };
    let sender = crate::admission::checks::Sender { account, delegated: false };
    pool.insert(waiting(0, BLOCK_GAS), sender, Height::GENESIS).expect("there is room");
    assert_eq!(hints.simulate(&waiting(0, 21_000), &ticking(1_000), &|| false), Ok(true), "a whole block is not more");
    pool.insert(waiting(1, 21_000), sender, Height::GENESIS).expect("there is room");
    assert_eq!(hints.simulate(&waiting(0, 21_000), &ticking(9_000), &|| false), Err(Skipped::PoolFull));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}
