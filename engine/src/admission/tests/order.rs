//! What a block is offered and in which order, against a plain walk over everything that waits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_consensus::{SignableTransaction, Transaction as _, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Signature, TxKind, map::AddressMap};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::{BALANCE, account, advance, pooled};
use crate::{
    admission::{Mempool, PoolCandidates, PoolLimits},
    events::{Event, Events},
    ports::Candidates,
    types::{Envelope, Height, PooledTransaction, Transaction},
};

/// More than are read from the pool at a time, several times over.
const SENDERS: u16 = 600;

fn sender(index: u16) -> Address {
    Address::left_padding_from(&index.to_be_bytes())
}

fn legacy(from: Address, nonce: u64, gas_price: u128) -> PooledTransaction {
    let to = TxKind::Call(from);
    let tx = TxLegacy { chain_id: Some(1), nonce, gas_limit: 21_000, gas_price, to, ..TxLegacy::default() };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded = envelope.encoded_2718().into();
    PooledTransaction::admitted(Arc::new(Transaction::with_known_sender(encoded, from).expect("just encoded")))
}

#[derive(Clone, Debug)]
struct Arrival {
    from: u16,
    nonce: u64,
    fee: u128,
    /// None for a legacy transaction.
    tip: Option<u128>,
}

impl Arrival {
    fn transaction(&self) -> PooledTransaction {
        let from = sender(self.from);
        match self.tip {
            Some(tip) => pooled(from, self.nonce, self.fee, tip.min(self.fee)),
            None => legacy(from, self.nonce, self.fee),
        }
    }
}

/// What happens to the pool between two looks at it.
#[derive(Clone, Debug)]
struct Round {
    arrivals: Vec<Arrival>,
    advanced: Vec<(u16, u64)>,
    slow: Option<(u16, u64)>,
    base_fee: u64,
    next_nonces: Vec<(u16, u64)>,
}

/// Of one sender of so many.
fn arrivals(senders: u16, count: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let tip = prop_oneof![4 => (0..25_u128).prop_map(Some), 1 => Just(None)];
    let one = (0..senders, 0..3_u64, 1..50_u128, tip);
    prop::collection::vec(one.prop_map(|(from, nonce, fee, tip)| Arrival { from, nonce, fee, tip }), 0..count)
}

fn rounds() -> impl Strategy<Value = (Vec<Arrival>, Vec<Round>)> {
    (1..SENDERS).prop_flat_map(|senders| {
        let nonces = move |count| prop::collection::vec((0..senders, 0..4_u64), 0..count);
        let slow = prop::option::weighted(0.2, (0..senders, 0..3_u64));
        let round = (arrivals(senders, 60), nonces(20), slow, 0..55_u64, nonces(40)).prop_map(
            |(arrivals, advanced, slow, base_fee, next_nonces)| Round {
                arrivals,
                advanced,
                slow,
                base_fee,
                next_nonces,
            },
        );
        (arrivals(senders, 1_500), prop::collection::vec(round, 1..6))
    })
}

struct Watched {
    pool: Arc<Mempool>,
    /// Who came when.
    arrivals: Arc<Mutex<BTreeMap<B256, usize>>>,
    accounts: BTreeMap<u16, u64>,
    height: u64,
}

impl Watched {
    fn new() -> Self {
        let (events, arrivals) = (Events::default(), Arc::<Mutex<BTreeMap<B256, usize>>>::default());
        let (hearing, count) = (arrivals.clone(), Mutex::new(0_usize));
        events.listen(Box::new(move |event| {
            if let Event::Admitted(transaction) = event {
                *count.lock() += 1;
                hearing.lock().insert(transaction.hash(), *count.lock());
            }
        }));
        let limits = PoolLimits { places_max: 1_000, ..PoolLimits::default() };
        Self {
            pool: Arc::new(Mempool::new(limits, Height(1), 10, events)),
            arrivals,
            accounts: BTreeMap::new(),
            height: 1,
        }
    }

    fn insert(&self, arrivals: &[Arrival]) {
        for arrival in arrivals {
            let nonce = self.accounts.get(&arrival.from).copied().unwrap_or_default();
            let _ = self.pool.insert(arrival.transaction(), account(nonce, BALANCE), Height(self.height));
        }
    }

    fn change(&mut self, round: &Round) {
        self.insert(&round.arrivals);
        for (from, nonce) in &round.advanced {
            let at = self.accounts.entry(*from).or_default();
            *at = (*at).max(*nonce);
        }
        self.height += 1;
        let after: Vec<_> = self.accounts.iter().map(|(from, nonce)| (sender(*from), *nonce, BALANCE)).collect();
        advance(&self.pool, self.height, &after);
        if let Some((from, nonce)) = round.slow {
            self.pool.throw_out(sender(from), nonce);
        }
    }

    /// Every sender is looked at for every transaction.
    fn plain_walk(&self, base_fee: u64, next_nonces: &AddressMap<u64>) -> Vec<B256> {
        let arrivals = self.arrivals.lock();
        let wait = |(sender, (pending, _)): (Address, (Vec<PooledTransaction>, _))| {
            let first = next_nonces.get(&sender).copied().unwrap_or_default();
            (sender, pending.into_iter().filter(|tx| tx.envelope().nonce() >= first).collect())
        };
        let mut queues: BTreeMap<Address, VecDeque<_>> = self.pool.content().into_iter().map(wait).collect();
        let turn = |queue: &VecDeque<PooledTransaction>| {
            let next = queue.front()?;
            let tip = next.envelope().effective_tip_per_gas(base_fee)?;
            Some((tip, Reverse(arrivals[&next.hash()])))
        };
        let next = || {
            let best = queues.values_mut().filter(|queue| turn(queue).is_some()).max_by_key(|queue| turn(queue))?;
            best.pop_front().map(|tx| tx.hash())
        };
        std::iter::from_fn(next).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the pool and the base fee change, and whatever blocks that are not final took already.
    #[test]
    fn offers_come_in_the_order_of_a_plain_walk((first, rounds) in rounds()) {
        let mut watched = Watched::new();
        watched.insert(&first);
        for round in &rounds {
            watched.change(round);
            for base_fee in [round.base_fee, 10] {
                let next_nonces = round.next_nonces.iter().map(|(from, nonce)| (sender(*from), *nonce)).collect();
                let mut candidates = PoolCandidates::new(&watched.pool, base_fee, &next_nonces);
                let offered: Vec<_> = std::iter::from_fn(|| candidates.next()).map(|tx| tx.hash()).collect();
                prop_assert_eq!(offered, watched.plain_walk(base_fee, &next_nonces));
            }
        }
    }

    #[test]
    fn what_waits_can_come_again((first, rounds) in rounds()) {
        let mut watched = Watched::new();
        watched.insert(&first);
        rounds.iter().for_each(|round| watched.change(round));
        let again = Mempool::new(PoolLimits::default(), Height(1), 10, Events::default());
        let nonces: BTreeMap<_, _> = watched.accounts.iter().map(|(from, nonce)| (sender(*from), *nonce)).collect();
        let mut last = BTreeMap::new();
        for tx in watched.pool.waiting() {
            let before = last.insert(tx.sender(), tx.envelope().nonce());
            prop_assert!(before < Some(tx.envelope().nonce()), "nonces of one sender come in order");
            let nonce = nonces.get(&tx.sender()).copied().unwrap_or_default();
            prop_assert!(again.insert(tx, account(nonce, BALANCE), Height(1)).is_ok());
        }
        prop_assert_eq!(again.content(), watched.pool.content());
    }

    /// Though the pool changes in the middle of a build, and another one begins at another base fee.
    #[test]
    fn nonces_of_a_build_follow_each_other((first, rounds) in rounds(), step in 1..400_usize) {
        let mut watched = Watched::new();
        watched.insert(&first);
        let pool = watched.pool.clone();
        let mut candidates = PoolCandidates::new(&pool, 10, &AddressMap::default());
        let mut last = BTreeMap::new();
        for round in &rounds {
            for tx in std::iter::from_fn(|| candidates.next()).take(step) {
                let nonce = tx.envelope().nonce();
                let before = last.insert(tx.sender(), nonce);
                prop_assert!(before.is_none_or(|before| nonce == before + 1), "{before:?}, then {nonce}");
            }
            watched.change(round);
            PoolCandidates::new(&pool, round.base_fee, &AddressMap::default()).next();
        }
    }
}
