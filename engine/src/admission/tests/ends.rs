//! Every transaction that was admitted has exactly one end: it waits, a block includes it, or it is told with a reason.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, map::AddressMap};
use parking_lot::Mutex;
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::{BALANCE, account, block, changes, pooled, pooled_with, sender};
use crate::{
    admission::{Mempool, PoolCandidates, PoolLimits, checks::Sender, planted::Weakness},
    events::{DropReason, Event, Events},
    limits::{self, POOL_PLACE_BYTES},
    ports::Candidates,
    types::{Height, PooledTransaction, Transaction},
};

const SENDERS: u8 = 5;

/// The most that a sender of the model owns; some six transactions' worth.
const OWNED_MAX: u64 = 5_000_000;

/// How long its pool keeps a transaction.
const LIFETIME: Duration = Duration::from_secs(60);

/// A pool, and everything that it told and nobody took.
pub(super) fn listened(limits: PoolLimits) -> (Mempool, Arc<Mutex<Vec<Event>>>) {
    let (events, heard) = (Events::default(), Arc::<Mutex<Vec<Event>>>::default());
    let hearing = heard.clone();
    events.listen(Box::new(move |event| hearing.lock().push(event.clone())));
    (Mempool::new(limits, Height(1), 10, events), heard)
}

/// What was told: the hash, and why it left if it did.
pub(super) fn told(heard: &Mutex<Vec<Event>>) -> Vec<(B256, Option<DropReason>)> {
    let told = mem::take(&mut *heard.lock()).into_iter().map(|event| match event {
        Event::Admitted(transaction) => (transaction.hash(), None),
        Event::Dropped(hash, reason) => (hash, Some(reason)),
        Event::Committed(_) | Event::Notarized(_) => panic!("the pool decides nothing"),
    });
    told.collect()
}

#[test]
fn whoever_leaves_is_told_why() {
    let (pool, heard) = listened(PoolLimits { places_max: 3, ..PoolLimits::default() });
    let insert = |tx: &PooledTransaction| {
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
    };
    let of_1: Vec<_> = (0..3).map(|nonce| pooled(sender(1), nonce, 100, 10)).collect();
    of_1.iter().for_each(insert);
    assert_eq!(told(&heard), of_1.iter().map(|tx| (tx.hash(), None)).collect::<Vec<_>>());

    let dearer = pooled(sender(1), 1, 110, 11);
    insert(&dearer);
    let replaced = (of_1[1].hash(), Some(DropReason::Replaced(dearer.hash())));
    assert_eq!(told(&heard), [(dearer.hash(), None)]);

    let dearest = pooled(sender(2), 0, 100, 50);
    insert(&dearest);
    let evicted = (of_1[2].hash(), Some(DropReason::Evicted));
    assert_eq!(told(&heard), [(dearest.hash(), None)]);

    // The block includes one of the sender's two, and one of that nonce that nobody saw here.
    let elsewhere = pooled(sender(1), 1, 500, 50);
    let included = vec![of_1[0].shared().clone(), elsewhere.shared().clone()];
    pool.advance(&block(2, included), &changes(&[(sender(1), 2, BALANCE)]), 10);
    assert_eq!(told(&heard), [(dearer.hash(), Some(DropReason::NonceUsed)), replaced]);

    pool.throw_out(sender(2), 0);
    assert_eq!(told(&heard), []);
    pool.advance(&block(2 + limits::POOL_UNDECIDED_HEIGHTS, Vec::new()), &changes(&[]), 10);
    assert_eq!(told(&heard), [evicted, (dearest.hash(), Some(DropReason::TooSlow))]);
    assert_eq!(pool.status(), super::super::PoolStatus::default());
}

/// One that a block under way included was once told that it made way, and nothing more.
#[test]
fn whoever_makes_way_while_a_block_takes_it_is_included() {
    let (pool, heard) = listened(PoolLimits { places_max: 1, ..PoolLimits::default() });
    let [taken, dearer] = [(1, 10), (2, 50)].map(|(from, tip)| pooled(sender(from), 0, 100, tip));
    for tx in [&taken, &dearer] {
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
    }
    pool.advance(&block(2, vec![taken.shared().clone()]), &changes(&[(sender(1), 1, BALANCE)]), 10);
    assert_eq!(told(&heard), [(taken.hash(), None), (dearer.hash(), None)]);
}

#[test]
fn whoever_is_replaced_is_told_so_once_no_block_can_include_it() {
    let (pool, heard) = listened(PoolLimits::default());
    let insert = |from: u8, fee: u128| {
        let tx = pooled(sender(from), 0, fee, fee / 10);
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
        tx
    };
    let [early, late] = [1, 2].map(|from| [insert(from, 100), insert(from, 200)]);
    let [again, other] = [insert(3, 100), insert(3, 200)];
    told(&heard);
    let replaced = |by: &PooledTransaction| Some(DropReason::Replaced(by.hash()));
    // The first block took one that was replaced meanwhile, and of another sender the one that took its place.
    let included = vec![early[0].shared().clone(), late[1].shared().clone()];
    pool.advance(&block(2, included), &changes(&[(sender(1), 1, BALANCE), (sender(2), 1, BALANCE)]), 10);
    let of_early = (early[1].hash(), Some(DropReason::NonceUsed));
    assert_eq!(told(&heard), [of_early, (late[0].hash(), replaced(&late[1]))]);
    // Of the third neither is included: in the end no block can have taken the first.
    let last = 1 + limits::POOL_UNDECIDED_HEIGHTS;
    pool.advance(&block(last - 1, Vec::new()), &changes(&[]), 10);
    assert_eq!(told(&heard), []);
    pool.advance(&block(last, Vec::new()), &changes(&[]), 10);
    assert_eq!(told(&heard), [(again.hash(), replaced(&other))]);
    assert!(pool.contains(other.hash()));
}

/// A node that makes blocks for transactions only once made its client wait for ever.
#[test]
fn who_waits_behind_a_gap_and_is_replaced_is_told_so_at_once() {
    let (pool, heard) = listened(PoolLimits::default());
    let [first, by] = [(100, 10), (200, 20)].map(|(fee, tip)| pooled(sender(1), 3, fee, tip));
    for tx in [&first, &by] {
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
    }
    let replaced = (first.hash(), Some(DropReason::Replaced(by.hash())));
    let heard = told(&heard);
    assert_eq!(heard.len(), 3);
    assert!(heard.contains(&replaced), "{heard:?}");
}

#[test]
fn one_that_was_replaced_and_comes_again_has_an_end_each_time() {
    let (pool, heard) = listened(PoolLimits::default());
    let first = pooled(sender(1), 0, 100, 10);
    let by = pooled(sender(1), 0, 200, 20);
    for tx in [&first, &by] {
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
    }
    pool.tell_time(PoolLimits::default().lifetime);
    pool.insert(first.clone(), account(0, BALANCE), Height(1)).expect("it waits no more");
    let entered = |tx: &PooledTransaction| (tx.hash(), None);
    let replaced = (first.hash(), Some(DropReason::Replaced(by.hash())));
    assert_eq!(told(&heard), [entered(&first), entered(&by), replaced, entered(&first)]);
    pool.insert(by.clone(), account(0, BALANCE), Height(1)).expect("it pays more");
    assert_eq!(told(&heard), [(by.hash(), Some(DropReason::Expired)), entered(&by)]);
}

#[test]
fn who_waits_for_too_long_leaves_with_those_who_follow_though_they_came_later() {
    let lifetime = Duration::from_secs(10);
    let (pool, heard) = listened(PoolLimits { lifetime, ..PoolLimits::default() });
    let insert = |from: u8, nonce: u64, fee: u128| {
        let tx = pooled(sender(from), nonce, fee, fee / 5);
        pool.insert(tx.clone(), account(0, BALANCE), Height(1)).expect("valid");
        tx.hash()
    };
    let expired = |hashes: &[B256]| hashes.iter().map(|hash| (*hash, Some(DropReason::Expired))).collect::<Vec<_>>();
    // It cannot pay, one waits behind a gap, and the chain makes no block.
    let first = [insert(1, 0, 5), insert(2, 7, 100)];
    pool.tell_time(Duration::from_secs(9));
    let later = [insert(1, 1, 100), insert(2, 0, 100), insert(3, 0, 5)];
    told(&heard);
    pool.tell_time(lifetime);
    assert_eq!(told(&heard), expired(&[later[0], first[0], first[1]]));
    assert_eq!(pool.next_nonce(sender(1)), None);
    // A replacement begins anew.
    insert(3, 0, 100);
    let replaced = told(&heard);
    assert!(matches!(replaced[1], (hash, Some(DropReason::Replaced(_))) if hash == later[2]), "{replaced:?}");
    pool.tell_time(Duration::from_secs(19));
    // This one can pay, so a block under way may have it.
    assert_eq!((told(&heard), pool.status().pending), (Vec::new(), 1));
    pool.advance(&block(1 + limits::POOL_UNDECIDED_HEIGHTS, Vec::new()), &changes(&[]), 10);
    assert_eq!(told(&heard), expired(&[later[1]]));
}

#[test]
fn when_many_expire_at_once_a_look_takes_some_of_them() {
    let (pool, heard) = listened(PoolLimits { lifetime: Duration::from_secs(1), ..PoolLimits::default() });
    let many = limits::POOL_EXPIRED_MAX + 5;
    for index in 0..many {
        let from = Address::left_padding_from(&index.to_be_bytes());
        pool.insert(pooled(from, 0, 100, 1), account(0, BALANCE), Height(1)).expect("there is room");
    }
    pool.tell_time(Duration::from_secs(1));
    assert_eq!(pool.status().pending, 5);
    pool.tell_time(Duration::from_secs(1));
    assert_eq!(pool.status().pending, 0);
    told(&heard);
    pool.advance(&block(1 + limits::POOL_UNDECIDED_HEIGHTS, Vec::new()), &changes(&[]), 10);
    assert_eq!(told(&heard).len(), many);
}

/// A refusal once pushed the cheapest of the queued ones out all the same.
#[test]
fn who_is_refused_displaces_nobody() {
    let limits = PoolLimits { queued_max: 1, places_max: 2, ..PoolLimits::default() };
    let (pool, heard) = listened(limits);
    let queued = pooled(sender(1), 5, 100, 10);
    pool.insert(queued.clone(), account(0, BALANCE), Height(1)).expect("there is room");
    let large = pooled_with(sender(2), 5, 100, 50, vec![1; 3 * POOL_PLACE_BYTES].into());
    pool.insert(large, account(0, BALANCE), Height(1)).expect_err("there is no room for its bytes");
    assert_eq!(told(&heard), [(queued.hash(), None)]);
    assert!(pool.contains(queued.hash()));
}

#[test]
fn listeners_hear_in_the_order_in_which_it_happened_and_may_ask_the_pool() {
    let events = Events::default();
    let pool = Arc::new(Mempool::new(PoolLimits::default(), Height(1), 10, events.clone()));
    let (asked, heard) = (Arc::downgrade(&pool), Arc::<Mutex<Vec<Event>>>::default());
    let hearing = heard.clone();
    events.listen(Box::new(move |event| {
        assert_eq!(asked.upgrade().expect("it is there").status().pending, 1);
        hearing.lock().push(event.clone());
    }));
    let replace = |thread: u32| {
        for step in 0..70 {
            let fee = 2_u128.pow(step / 2) * 1_000 + u128::from(thread);
            let _ = pool.insert(pooled(sender(1), 0, fee, fee), account(0, u64::MAX), Height(1));
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || replace(thread)))));
    let entered: Vec<B256> = told(&heard).into_iter().map(|(hash, _)| hash).collect();
    pool.advance(&block(1 + limits::POOL_UNDECIDED_HEIGHTS, Vec::new()), &changes(&[]), 10);
    let replaced = entered.windows(2).map(|pair| (pair[0], Some(DropReason::Replaced(pair[1]))));
    assert_eq!(told(&heard), replaced.collect::<Vec<_>>());
    assert!(entered.len() >= 35, "a fee for each doubling at least, {}", entered.len());
}

#[derive(Clone, Debug)]
enum Act {
    Insert {
        from: u8,
        ahead: u64,
        fee: u128,
        tip: u128,
        bytes: usize,
        delegated: bool,
    },
    /// One that came before comes again.
    Again {
        which: usize,
    },
    /// A block takes so many of the pool's, and is final later.
    Build {
        take: usize,
    },
    /// The block under way is final, or one with so many of the pool's, and one of this sender's that nobody saw here.
    Block {
        take: usize,
        stranger: Option<u8>,
        base_fee: u64,
    },
    /// A sender's balance changes.
    Balance {
        from: u8,
        balance: u64,
    },
    ThrowOut {
        from: u8,
        ahead: u64,
    },
    /// So many seconds go by.
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let from = || 0..SENDERS;
    let insert = (from(), 0..9_u64, 10..60_u128, 0..20_u128, 0..2_usize, prop::bool::weighted(0.05)).prop_map(
        |(from, ahead, fee, tip, more, delegated)| Act::Insert {
            from,
            ahead,
            fee,
            tip,
            bytes: more * 2 * POOL_PLACE_BYTES,
            delegated,
        },
    );
    let again = (0..100_usize).prop_map(|which| Act::Again { which });
    let block = (0..6_usize, prop::option::of(from()), 5..40_u64).prop_map(|(take, stranger, base_fee)| Act::Block {
        take,
        stranger,
        base_fee,
    });
    let build = (0..6_usize).prop_map(|take| Act::Build { take });
    let balance = (from(), 0..OWNED_MAX).prop_map(|(from, balance)| Act::Balance { from, balance });
    let throw_out = (from(), 0..9_u64).prop_map(|(from, ahead)| Act::ThrowOut { from, ahead });
    let wait = (1..40_u64).prop_map(Act::Wait);
    prop::collection::vec(
        prop_oneof![12 => insert, 2 => again, 2 => build, 3 => block, 1 => balance, 1 => throw_out, 2 => wait],
        1..150,
    )
}

/// The chain, and what became of every transaction that was ever admitted.
struct Model {
    pool: Mempool,
    heard: Arc<Mutex<Vec<Event>>>,
    height: u64,
    base_fee: u64,
    now: Duration,
    accounts: BTreeMap<u8, Sender>,
    /// What the block under way took, if there is one.
    building: Option<Vec<Arc<Transaction>>>,
    /// Where every hash is that was admitted: `None` in the pool, `Some` after its end.
    whereabouts: BTreeMap<B256, Option<End>>,
    /// Everything that ever came, by hash.
    known: BTreeMap<B256, PooledTransaction>,
    /// When those that are in the pool came.
    since: BTreeMap<B256, Duration>,
    /// What was in the pool before the last act.
    inside: Vec<B256>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Included,
    Dropped(DropReason),
}

impl Model {
    fn new() -> Self {
        let limits = PoolLimits {
            places_max: 14,
            queued_max: 6,
            sender_queued_max: 4,
            sender_pending_max: 8,
            lifetime: LIFETIME,
        };
        let (pool, heard) = listened(limits);
        let accounts = (0..SENDERS).map(|from| (from, account(0, OWNED_MAX))).collect();
        let (whereabouts, known, since) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let inside = Vec::new();
        let (height, base_fee, now, building) = (1, 10, Duration::ZERO, None);
        Self { pool, heard, height, base_fee, now, accounts, building, whereabouts, known, since, inside }
    }

    fn nonce(&self, from: Address) -> u64 {
        self.accounts[&from.0[19]].account.nonce
    }

    /// Does it; nothing that is told may be told twice, or for a reason that is not so.
    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let mut included = Vec::new();
        match *act {
            Act::Insert { from, ahead, fee, tip, bytes, delegated } => {
                let nonce = self.nonce(sender(from)) + ahead;
                self.insert(pooled_with(sender(from), nonce, fee, tip.min(fee), vec![1; bytes].into()), delegated);
            }
            Act::Again { which } => {
                if let Some(tx) = self.known.values().nth(which).cloned() {
                    self.insert(tx, false);
                }
            }
            Act::Build { take } => self.building = Some(self.build(take)),
            Act::Block { take, stranger, base_fee } => {
                included = self.building.take().unwrap_or_else(|| self.build(take));
                for tx in &included {
                    self.accounts.entry(tx.sender().0[19]).and_modify(|sender| sender.account.nonce += 1);
                }
                if let Some(from) = stranger {
                    let unseen = pooled(sender(from), self.nonce(sender(from)), 9_999, 1);
                    self.accounts.entry(from).and_modify(|sender| sender.account.nonce += 1);
                    included.push(unseen.shared().clone());
                }
                self.base_fee = base_fee;
                self.advance(&included);
            }
            Act::Balance { from, balance } => {
                self.building = None;
                self.accounts.insert(from, account(self.nonce(sender(from)), balance));
                self.advance(&[]);
            }
            Act::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.pool.tell_time(self.now);
            }
            Act::ThrowOut { from, ahead } => self.pool.throw_out(sender(from), self.nonce(sender(from)) + ahead),
        }
        self.hear(act, &included)?;
        for hash in included.iter().map(|tx| tx.hash()).filter(|hash| self.known.contains_key(hash)) {
            prop_assert_eq!(self.whereabouts.insert(hash, Some(End::Included)), Some(None));
        }
        self.compare(act)
    }

    fn build(&self, take: usize) -> Vec<Arc<Transaction>> {
        let mut candidates = PoolCandidates::new(&self.pool, self.base_fee, &AddressMap::default());
        std::iter::from_fn(|| candidates.next()).take(take).collect()
    }

    fn insert(&mut self, tx: PooledTransaction, delegated: bool) {
        self.known.insert(tx.hash(), tx.clone());
        let account = Sender { delegated, ..self.accounts[&tx.sender().0[19]] };
        let _ = self.pool.insert(tx, account, Height(self.height));
    }

    /// Heights go by fast, so that who is not heard for a while is heard again.
    fn advance(&mut self, included: &[Arc<Transaction>]) {
        self.height += 100;
        let after: Vec<_> = self
            .accounts
            .iter()
            .map(|(from, Sender { account, .. })| (sender(*from), account.nonce, account.balance.to()))
            .collect();
        self.pool.advance(&block(self.height, included.to_vec()), &changes(&after), self.base_fee);
    }

    fn hear(&mut self, act: &Act, included: &[Arc<Transaction>]) -> Result<(), TestCaseError> {
        for (hash, reason) in told(&self.heard) {
            let (from, nonce) = (self.known[&hash].sender(), self.known[&hash].envelope().nonce());
            let Some(reason) = reason else {
                prop_assert!(!matches!(self.whereabouts.insert(hash, None), Some(None)), "it was admitted twice");
                self.since.insert(hash, self.now);
                continue;
            };
            let before = self.whereabouts.insert(hash, Some(End::Dropped(reason)));
            prop_assert_eq!(before, Some(None), "{} ends twice, now {}", hash, reason);
            // What a block under way might have included is told with a later one, or when it comes again.
            let is_later = matches!(act, Act::Again { .. } | Act::Block { .. } | Act::Balance { .. });
            let is_so = match (reason, act) {
                (DropReason::Replaced(by), act) => {
                    let other = &self.known[&by];
                    let is_its = (other.sender(), other.envelope().nonce()) == (from, nonce);
                    is_its && (is_later || matches!(act, Act::Insert { .. }) && self.pool.contains(by))
                }
                (DropReason::NonceUsed, Act::Block { stranger, .. }) => {
                    let is_its = |tx: &Arc<Transaction>| (tx.sender(), tx.envelope().nonce()) == (from, nonce);
                    let is_strange = stranger.is_some_and(|stranger| from == sender(stranger));
                    nonce < self.nonce(from) && (is_strange || included.iter().any(is_its))
                }
                (DropReason::TooSlow, Act::ThrowOut { from: slow, ahead }) => {
                    from == sender(*slow) && nonce >= self.nonce(from) + ahead
                }
                (DropReason::TooSlow, _) => is_later,
                (DropReason::Expired, act) => {
                    let is_old = |tx: &PooledTransaction| {
                        self.since.get(&tx.hash()).is_some_and(|since| self.now - *since >= LIFETIME)
                            && tx.sender() == from
                            && tx.envelope().nonce() <= nonce
                    };
                    (is_later || matches!(act, Act::Wait(_))) && self.known.values().any(is_old)
                }
                (DropReason::Evicted, act) => !matches!(act, Act::ThrowOut { .. } | Act::Wait(_)),
                _ => false,
            };
            prop_assert!(is_so, "{reason} after {act:?}");
        }
        Ok(())
    }

    /// What is in the pool has no end yet, nor has what left since the last block; nothing is older than it may be.
    fn compare(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let content = self.pool.content();
        let all = content.values().flat_map(|(pending, queued)| pending.iter().chain(queued));
        let mut inside: Vec<B256> = all.map(|tx| tx.hash()).collect();
        inside.sort_unstable();
        let before = mem::replace(&mut self.inside, inside);
        let is_inside = |hash: &B256| self.inside.binary_search(hash).is_ok();
        let is_settled = matches!(act, Act::Block { .. } | Act::Balance { .. });
        for (hash, _) in self.whereabouts.iter().filter(|(hash, end)| end.is_none() && !is_inside(hash)) {
            prop_assert!(!is_settled || before.binary_search(hash).is_ok(), "{hash} has no end");
        }
        for hash in &self.inside {
            prop_assert_eq!(self.whereabouts.get(hash), Some(&None));
            prop_assert!(self.now - self.since[hash] < LIFETIME);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn everything_admitted_has_one_end(acts in acts()) {
        let mut model = Model::new();
        for act in &acts {
            model.act(act)?;
        }
    }
}

#[test]
fn a_pool_that_decides_too_early_is_found() {
    let mut runner = TestRunner::deterministic();
    let found = (0..400).any(|_| {
        let acts = acts().new_tree(&mut runner).expect("acts").current();
        let mut model = Model::new();
        model.pool.plant(Some(Weakness::DecideAtOnce));
        acts.iter().try_for_each(|act| model.act(act)).is_err()
    });
    assert!(found);
}
