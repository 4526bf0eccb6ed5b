//! A chain, its pool, honest senders and attackers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_consensus::{Header, SignableTransaction, Transaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, map::AddressMap};
use parking_lot::Mutex;

use super::{
    WINDOW,
    ledger::{Ledger, TRANSFER},
};
use crate::{
    admission::{
        AdmissionError, Inserted, Mempool, PoolCandidates, PoolLimits,
        bids::Bid,
        checks::{Sender, intrinsic_gas},
        tests::{account, block, changes, ends::listened, ends::told},
    },
    crypto::tests::Random,
    events::{DropReason, Event},
    genesis::{BaseFeeParams, Fork},
    limits::POOL_PLACE_BYTES,
    ports::Candidates,
    types::{Envelope, Height, PooledTransaction, Transaction},
};

const HONEST: u16 = 200;
const HOSTILE: u16 = 256;
const PLACES: usize = 300;
/// Thirty transfers.
const BLOCK_GAS: u64 = 30 * TRANSFER;
/// Steps from one block to the next: some fifteen honest transactions, or 24 in busy times, and the attackers'.
const BLOCK_STEPS: u64 = 96;
const BASE_FEE: BaseFeeParams = BaseFeeParams { minimum: 100_000, ..BaseFeeParams::SLUICE };
/// Nobody pays more per gas.
const FEE_MAX: u64 = 800_000;
/// What attackers pay per gas at most, and as a tip, where honest ones pay more.
const CHEAP: (u64, u64) = (200_000, 50);
/// Gas that it takes to send a balance away by delegated code and to bring it back, and that of a delegation less the
/// refund.
const SWEEP: u64 = 19_000;
const DELEGATION: u64 = 20_000;
const LIMITS: (usize, usize, usize) = (60, 8, 40);

/// What the attackers are up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    None,
    /// They never pay as much as honest senders do.
    Cheap,
    Dear,
}

/// What a transaction does besides paying.
#[derive(Clone, Debug)]
enum Effect {
    /// Its sender keeps what it has.
    Nothing,
    /// These accounts get code, if they have none, and send all that they own away.
    Sweep(Vec<Address>),
    /// These accounts get so much.
    Fund(Vec<Address>, u64),
}

struct Waiting {
    from: Address,
    nonce: u64,
    /// Fee and tip.
    offered: (u64, u64),
    bid: Bid,
    effect: Effect,
}

pub(super) struct Run {
    pub(super) pool: Arc<Mempool>,
    pub(super) ledger: Ledger,
    /// Honest transactions in blocks.
    pub(super) included: u64,
    heard: Arc<Mutex<Vec<Event>>>,
    attack: Attack,
    honest: Random,
    hostile: Random,
    height: u64,
    base_fee: u64,
    accounts: BTreeMap<Address, Sender>,
    waiting: BTreeMap<B256, Waiting>,
    places: BTreeMap<(Address, u64), B256>,
}

fn address(index: u16) -> Address {
    Address::left_padding_from(&index.to_be_bytes())
}

fn is_hostile(address: Address) -> bool {
    address >= self::address(HONEST)
}

fn least_gas(envelope: &Envelope) -> u64 {
    let gas = intrinsic_gas(envelope, Fork::Osaka);
    gas.initial.max(gas.floor)
}

impl Run {
    pub(super) fn new(seed: u64, attack: Attack) -> Self {
        let (queued_max, sender_queued_max, sender_pending_max) = LIMITS;
        let limits = PoolLimits {
            places_max: PLACES,
            queued_max,
            sender_pending_max,
            sender_queued_max,
            ..PoolLimits::default()
        };
        let (pool, heard) = listened(limits);
        let mut hostile = Random::new(seed ^ 0xa77a);
        let balance = |index, random: &mut Random| {
            if index < HONEST { 1 << 60 } else { (1 + random.next() % 20) * TRANSFER * 3 * BASE_FEE.minimum }
        };
        let accounts = (0..HONEST + HOSTILE).map(|index| (address(index), account(0, balance(index, &mut hostile))));
        let accounts = accounts.collect();
        let base_fee = BASE_FEE.minimum;
        pool.advance(&block(1, Vec::new()), &changes(&[]), base_fee);
        let (honest, ledger) = (Random::new(seed), Ledger::default());
        let (waiting, places) = (BTreeMap::new(), BTreeMap::new());
        let (pool, height) = (Arc::new(pool), 1);
        Self { pool, ledger, included: 0, heard, attack, honest, hostile, height, base_fee, accounts, waiting, places }
    }

    /// # Errors
    /// What the attackers got without paying for it.
    pub(super) fn play(&mut self, steps: u64) -> Result<(), String> {
        for step in 1..=steps {
            let is_busy = step / 3_000 % 2 == 1;
            let share = if is_busy { 8 } else { 5 };
            if step % BLOCK_STEPS == 0 {
                self.block()?;
            } else if self.honest.below(32) < share {
                self.transfer();
            } else {
                self.act();
            }
        }
        self.ledger.turn()
    }

    /// An honest sender sends something.
    fn transfer(&mut self) {
        let from = address(u16::try_from(self.honest.below(HONEST.into())).unwrap());
        let (tip, doubles) = (100 + self.honest.next() % 1_000, self.honest.next().is_multiple_of(2));
        let room = if doubles { self.base_fee } else { self.base_fee / 5 };
        let (fee, next) = (self.base_fee + room + tip, self.next_nonce(from));
        if fee <= FEE_MAX && next < self.accounts[&from].account.nonce + 3 {
            self.insert(from, next, (fee, tip), 0, (0, Effect::Nothing));
        }
    }

    fn next_nonce(&self, from: Address) -> u64 {
        self.pool.next_nonce(from).unwrap_or_else(|| self.accounts[&from].account.nonce)
    }

    fn some_hostile(&mut self) -> Address {
        address(HONEST + u16::try_from(self.hostile.below(HOSTILE.into())).unwrap())
    }

    /// Only a quarter of the attackers' accounts is ever delegated.
    fn some_delegated(&mut self) -> Vec<Address> {
        let some = (0..1 + self.hostile.below(8)).map(|_| self.some_hostile());
        some.filter(|address| address.0[19] % 4 == 0).collect()
    }

    /// Fee and tip of an attacker.
    fn bid(&mut self) -> (u64, u64) {
        let (fee_max, tip_max) = if self.attack == Attack::Cheap { CHEAP } else { (FEE_MAX, 1_200) };
        let tip = self.hostile.next() % tip_max;
        let base_fee = self.base_fee;
        let fee = match self.hostile.below(8) {
            0 => base_fee * 9 / 10,
            1 => base_fee + tip,
            2 => base_fee + base_fee / 50 + tip,
            3 => fee_max,
            _ => base_fee + base_fee / 8 + tip,
        };
        (fee.min(fee_max), tip.min(fee).min(fee_max))
    }

    /// An attacker does something.
    fn act(&mut self) {
        if self.attack == Attack::None {
            return;
        }
        let (from, bid) = (self.some_hostile(), self.bid());
        let (next, balance) = (self.next_nonce(from), self.accounts[&from].account.balance.to::<u64>());
        let nothing = || (0, Effect::Nothing);
        match self.hostile.below(16) {
            0 => {
                let gap = 1 + self.hostile.next() % 50;
                self.insert(from, next + gap, bid, 0, nothing());
            }
            1 => self.storm(from),
            2 => {
                let data = POOL_PLACE_BYTES * self.hostile.below(13);
                self.insert(from, next, bid, data, nothing());
            }
            3 => self.insert(from, next, bid, 0, (balance.saturating_sub(bid.0 * TRANSFER), Effect::Nothing)),
            4 | 5 => {
                (0..1 + self.hostile.next() % 4).for_each(|more| self.insert(from, next + more, bid, 0, nothing()))
            }
            6 => {
                let effect = (0, Effect::Sweep(self.some_delegated()));
                self.insert(from, next, bid, 0, effect);
            }
            7 | 8 => {
                let some = (0..6).map(|_| self.some_hostile()).collect();
                let balance = (1 + self.hostile.next() % 20) * TRANSFER * 2 * self.base_fee;
                self.insert(from, next, bid, 0, (0, Effect::Fund(some, balance)));
            }
            _ => self.insert(from, next, bid, 0, nothing()),
        }
    }

    /// Replaces one of the sender's transactions over and over, by one of another size.
    fn storm(&mut self, from: Address) {
        let mine: Vec<_> =
            self.places.range((from, 0)..=(from, u64::MAX)).map(|(place, hash)| (place.1, *hash)).collect();
        if mine.is_empty() {
            return;
        }
        let (nonce, hash) = mine[self.hostile.below(mine.len())];
        let (fee_max, tip_max) = if self.attack == Attack::Cheap { CHEAP } else { (FEE_MAX, u64::MAX) };
        let (mut fee, mut tip) = self.waiting[&hash].offered;
        for _ in 0..1 + self.hostile.below(4) {
            (fee, tip) = (fee * 11 / 10 + 1, tip * 11 / 10 + 1);
            let data = if self.hostile.next().is_multiple_of(2) { 0 } else { POOL_PLACE_BYTES * self.hostile.below(4) };
            if fee <= fee_max && tip <= tip_max {
                self.insert(from, nonce, (fee, tip), data, (0, Effect::Nothing));
            }
        }
    }

    fn insert(
        &mut self,
        from: Address,
        nonce: u64,
        (fee, tip): (u64, u64),
        data: usize,
        (value, effect): (u64, Effect),
    ) {
        let more = match &effect {
            Effect::Nothing | Effect::Fund(..) => 0,
            Effect::Sweep(accounts) => {
                let new = accounts.iter().filter(|account| !self.accounts[*account].delegated).count();
                accounts.len() as u64 * SWEEP + new as u64 * DELEGATION
            }
        };
        let tx = transaction(from, nonce, (fee, tip), (value, data, more));
        let (hash, bid) = (tx.hash(), Bid::new(&tx, 0));
        let rank = self.rank(from, nonce, bid);
        let result = self.pool.insert(tx, self.accounts[&from], Height(self.height));
        for (gone, reason) in told(&self.heard) {
            match reason {
                None => {
                    let old = self.places.insert((from, nonce), gone);
                    let effect = effect.clone();
                    self.waiting.insert(gone, Waiting { from, nonce, offered: (fee, tip), bid, effect });
                    assert!(old.is_none_or(|old| old != gone), "it was admitted twice");
                    if let Some(old) = old {
                        assert!(self.waiting.remove(&old).is_some());
                        self.ledger.inherit(old, gone);
                    }
                }
                // It left when another one took its place; a block under way might have included it.
                Some(DropReason::Replaced(_) | DropReason::Evicted) => {}
                Some(reason) => panic!("{reason} by an insertion"),
            }
        }
        for gone in self.gone() {
            self.evicted(gone, (hash, from), &rank, result == Ok(Inserted::Queued));
        }
        let is_next = nonce == self.accounts[&from].account.nonce;
        if result == Err(AdmissionError::PoolFull) && !is_hostile(from) && is_next {
            self.refused(bid);
        }
    }

    /// What is not in the pool any more, the last nonces first; some of it is told of later.
    fn gone(&self) -> Vec<B256> {
        let status = self.pool.status();
        if status.pending + status.queued == self.waiting.len() {
            return Vec::new();
        }
        let gone = self.places.values().rev().filter(|hash| !self.pool.contains(**hash));
        gone.copied().collect()
    }

    /// A transaction left for another one.
    fn evicted(&mut self, gone: B256, (newcomer, from): (B256, Address), rank: &Bid, is_queued: bool) {
        let left = self.waiting.remove(&gone).expect("it was there");
        self.places.remove(&(left.from, left.nonce));
        match (is_hostile(left.from), is_hostile(from)) {
            (false, true) => {
                assert!(!is_queued, "what waits behind a gap displaced what can go");
                let bid = self.rank(left.from, left.nonce, left.bid);
                self.ledger.evicted(newcomer, bid, self.base_fee, self.height);
            }
            (true, true) => self.ledger.inherit(gone, newcomer),
            (true, false) => self.ledger.regained(&gone, rank, self.base_fee),
            (false, false) => {}
        }
    }

    /// What it and those before it bid at least.
    fn rank(&self, from: Address, nonce: u64, bid: Bid) -> Bid {
        let before = self.places.range((from, 0)..(from, nonce));
        before.fold(bid, |rank, (_, hash)| rank.behind(self.waiting[hash].bid))
    }

    /// An honest transaction that could go next found no place.
    fn refused(&mut self, bid: Bid) {
        let held = self.held();
        let hostile = held.iter().filter(|(hash, _)| is_hostile(self.waiting[*hash].from));
        if let Some(cheapest) = hostile.map(|(_, price)| *price).min() {
            self.ledger.refused(&bid, cheapest, self.base_fee);
        }
    }

    /// Everything in the pool with what it and those before it would pay per gas, if it is executable and that is not
    /// below the base fee.
    fn held(&self) -> BTreeMap<B256, Option<u128>> {
        let mut held = BTreeMap::new();
        for (pending, queued) in self.pool.content().values() {
            let mut rank: Option<Bid> = None;
            for tx in pending {
                let bid = self.waiting[&tx.hash()].bid;
                let lowest = rank.map_or(bid, |before| bid.behind(before));
                let price = lowest.price(self.base_fee);
                held.insert(tx.hash(), (price >= self.base_fee.into()).then_some(price));
                rank = Some(lowest);
            }
            held.extend(queued.iter().map(|tx| (tx.hash(), None)));
        }
        held
    }

    /// The next block, as a leader builds it, and perhaps with something that only another node had.
    fn block(&mut self) -> Result<(), String> {
        let (mut gas_left, mut voided, mut taken) = (BLOCK_GAS, BTreeSet::new(), Vec::new());
        if self.attack != Attack::None {
            (0..self.hostile.below(3)).for_each(|_| gas_left -= self.stranger(&mut voided));
        }
        let pool = self.pool.clone();
        let mut candidates = PoolCandidates::new(&pool, self.base_fee, &AddressMap::default());
        while let Some(tx) = candidates.next() {
            let (from, account) = (tx.sender(), self.accounts[&tx.sender()].account);
            let is_void = tx.envelope().nonce() != account.nonce || tx.cost_max() > account.balance;
            if is_void && !voided.contains(&from) {
                return Err("what was offered cannot be included".to_owned());
            }
            if is_void || tx.envelope().gas_limit() > gas_left {
                candidates.skip_sender(from);
                continue;
            }
            gas_left -= self.include(&tx, &mut voided);
            taken.push(tx);
        }
        self.height += 1;
        let base_fee = Some(self.base_fee);
        let header = Header {
            gas_limit: BLOCK_GAS,
            gas_used: BLOCK_GAS - gas_left,
            base_fee_per_gas: base_fee,
            ..Header::default()
        };
        self.base_fee = BASE_FEE.next(&header);
        let whole =
            |(address, Sender { account, .. }): (&Address, &Sender)| (*address, account.nonce, account.balance.to());
        let after: Vec<_> = self.accounts.iter().map(whole).collect();
        self.pool.advance(&block(self.height, taken), &changes(&after), self.base_fee);
        for (gone, reason) in told(&self.heard) {
            let is_right =
                matches!(reason, Some(DropReason::NonceUsed | DropReason::Evicted | DropReason::Replaced(_)));
            assert!(is_right && !self.pool.contains(gone), "{reason:?} by a block");
        }
        for gone in self.gone() {
            let left = self.waiting.remove(&gone).expect("it was there");
            assert!(is_hostile(left.from), "an honest one left");
            self.places.remove(&(left.from, left.nonce));
            self.ledger.defaulted(&gone, self.base_fee);
        }
        self.audit()
    }

    /// Something with the nonce that an attacker's transaction here has, by which it sends all away, or something that
    /// brings it more; returns the gas.
    fn stranger(&mut self, voided: &mut BTreeSet<Address>) -> u64 {
        let paid = u128::from(TRANSFER) * u128::from(self.base_fee + self.base_fee / 100);
        let is_gift = self.hostile.next().is_multiple_of(4);
        let from = if is_gift { self.some_hostile() } else { self.worst_debtor() };
        let account = &mut self.accounts.get_mut(&from).expect("it is known").account;
        if is_gift {
            account.balance = U256::from(20 * TRANSFER * 3 * self.base_fee);
        } else if account.balance >= U256::from(paid) {
            (account.nonce, account.balance) = (account.nonce + 1, U256::ZERO);
            voided.insert(from);
            self.ledger.window.voiding += if self.owes(from) { paid } else { 0 };
        } else {
            return 0;
        }
        TRANSFER
    }

    fn owes(&self, address: Address) -> bool {
        self.ledger.debtors().any(|(hash, _)| self.waiting[hash].from == address)
    }

    /// Of the attackers' accounts, the one that owes for most.
    fn worst_debtor(&mut self) -> Address {
        let mut owing: BTreeMap<Address, usize> = BTreeMap::new();
        self.ledger.debtors().for_each(|(hash, count)| *owing.entry(self.waiting[hash].from).or_default() += count);
        let worst = owing.into_iter().max_by_key(|(_, count)| *count);
        worst.map_or_else(|| self.some_hostile(), |(from, _)| from)
    }

    /// Executes a transaction; returns the gas.
    fn include(&mut self, tx: &Transaction, voided: &mut BTreeSet<Address>) -> u64 {
        let (from, gas) = (tx.sender(), tx.envelope().gas_limit());
        let left = self.waiting.remove(&tx.hash()).expect("it was there");
        self.places.remove(&(from, left.nonce));
        let paid = u128::from(gas) * left.bid.price(self.base_fee);
        let account = &mut self.accounts.get_mut(&from).expect("it is known").account;
        account.nonce += 1;
        account.balance -= U256::from(paid) + tx.envelope().value();
        if !is_hostile(from) {
            self.included += 1;
            return gas;
        }
        self.ledger.included(&tx.hash(), paid, self.base_fee);
        match left.effect {
            Effect::Nothing => {}
            Effect::Fund(accounts, balance) => {
                for address in accounts {
                    let account = &mut self.accounts.get_mut(&address).expect("it is known").account;
                    account.balance = account.balance.max(U256::from(balance));
                }
            }
            Effect::Sweep(accounts) => {
                if accounts.iter().any(|account| self.owes(*account)) {
                    self.ledger.window.voiding += paid;
                }
                for address in accounts {
                    let Sender { account, delegated } = self.accounts.get_mut(&address).expect("it is known");
                    account.nonce += u64::from(!*delegated);
                    (*delegated, account.balance) = (true, U256::ZERO);
                    voided.insert(address);
                }
            }
        }
        gas
    }

    /// Holds the pool to its bounds and the attackers to their debts.
    fn audit(&mut self) -> Result<(), String> {
        let (status, held) = (self.pool.status(), self.held());
        assert!(held.keys().eq(self.waiting.keys()), "everything that came and has no end is there");
        assert!(status.queued <= LIMITS.0, "{status:?}");
        let content = self.pool.content();
        let all = || content.values().flat_map(|(pending, queued)| pending.iter().chain(queued));
        let places: usize = all().map(|tx| tx.size_bytes().div_ceil(POOL_PLACE_BYTES)).sum();
        assert!(places <= PLACES, "{places} places");
        assert!(content.values().all(|(_, queued)| queued.len() <= LIMITS.1));
        let gas: BTreeMap<B256, u64> = all().map(|tx| (tx.hash(), least_gas(tx.envelope()))).collect();
        let committed = |hash: &B256| Some(u128::from(gas[hash]) * held[hash]?);
        self.ledger.audit(committed, self.base_fee, self.height)?;
        if self.height.is_multiple_of(WINDOW) { self.ledger.turn() } else { Ok(()) }
    }
}

/// A transaction with so many bytes of zeros and a gas limit of what it needs, and so much more.
fn transaction(
    from: Address,
    nonce: u64,
    (fee, tip): (u64, u64),
    (value, data, more): (u64, usize, u64),
) -> PooledTransaction {
    let mut tx = TxEip1559 {
        chain_id: 1,
        nonce,
        max_fee_per_gas: fee.into(),
        max_priority_fee_per_gas: tip.into(),
        to: TxKind::Call(from),
        value: U256::from(value),
        input: vec![0; data].into(),
        ..TxEip1559::default()
    };
    tx.gas_limit = least_gas(&tx.clone().into_signed(Signature::test_signature()).into()) + more;
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded = envelope.encoded_2718().into();
    PooledTransaction::admitted(Arc::new(Transaction::with_known_sender(encoded, from).expect("just encoded")))
}
