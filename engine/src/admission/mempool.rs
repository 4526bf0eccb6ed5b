//! The pool: admitted transactions by sender and nonce, ranked by fee.
//!
//! Promise: a sender's *pending* transactions form an unbroken run of nonces from the account's own
//! nonce on, and its balance pays for all of them together. Everything else is *queued*, has a budget
//! of its own and is the first to leave.
//!
//! Rank of a transaction is the lowest bid of its sender up to and including it, since nothing can be
//! included before its predecessors. A full pool evicts the last transaction of the sender whose rank pays
//! least at the present base fee, so eviction never tears a gap, and a dear transaction cannot shield a
//! cheap one. Of those that can pay the base fee, only an executable newcomer that is worth more (`Bid::worth`)
//! displaces one, and one only: whatever makes it void later, its nonce in a block that another node built or delegated
//! code that sends its sender's balance away, is a transaction that somebody pays as well.
//!
//! What has waited for too long leaves with what its sender sent after it, so that tears no gap either.
//!
//! Every transaction that enters is told ([`Event::Admitted`]) and has one end: a block includes it, or it is told with
//! the reason why it left ([`Event::Dropped`]), once no block under way can include it any more
//! (`undecided`). What the pool tells, it tells in the order in which it happened, after
//! its lock is let go: a listener may ask the pool, and must not change it.
//!
//! Cost: O(log n) per insertion, replacement, eviction or offer to a block, except that lowering the balance of a
//! sender recounts that sender's own run.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::Transaction as _;
use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, B256Set},
};
use parking_lot::Mutex;
use tracing::{Level, Span};

use super::{
    bids::{Bid, Bids, Turn},
    checks::Sender,
    error::AdmissionError,
    planted::{Planted, Weakness},
    queue::{Entry, Queue, check_sender_limits, places},
    recovered::Recovered,
    slow::SlowSenders,
    undecided::{Left, Undecided},
};
use crate::{
    events::{DropReason, Event, Events},
    limits, metrics, spans,
    types::{Account, Block, Envelope, Height, PooledTransaction, StateChanges, Transaction},
};

/// Bounds of one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Places in all, one for each [`limits::POOL_PLACE_BYTES`] that a transaction begins.
    pub places_max: usize,
    /// Queued transactions in all.
    pub queued_max: usize,
    /// Pending transactions of one sender.
    pub sender_pending_max: usize,
    /// Queued transactions of one sender.
    pub sender_queued_max: usize,
    /// How long a transaction may wait, pending or queued.
    pub lifetime: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            places_max: limits::POOL_PLACES_MAX,
            queued_max: limits::POOL_QUEUED_MAX,
            sender_pending_max: limits::SENDER_PENDING_MAX,
            sender_queued_max: limits::SENDER_QUEUED_MAX,
            lifetime: limits::POOL_LIFETIME,
        }
    }
}

/// Counts of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Executable transactions.
    pub pending: usize,
    /// Transactions that wait for an earlier nonce or for funds.
    pub queued: usize,
    /// Bytes of both.
    pub bytes: usize,
    /// Gas that both ask for.
    pub gas: u64,
}

impl PoolStatus {
    fn enter(&mut self, transaction: &PooledTransaction) {
        self.bytes = self.bytes.saturating_add(transaction.size_bytes());
        self.gas = self.gas.saturating_add(transaction.envelope().gas_limit());
    }

    fn leave(&mut self, transaction: &PooledTransaction) {
        self.bytes = self.bytes.saturating_sub(transaction.size_bytes());
        self.gas = self.gas.saturating_sub(transaction.envelope().gas_limit());
    }
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Executable at once.
    Pending,
    /// Waits for an earlier nonce or for funds.
    Queued,
    /// The pool moved on since the sender was read: read it again at this height or later.
    Stale(Height),
}

/// A transaction that a block may take, and what decides about its turn.
#[derive(Debug)]
pub(super) struct Offer {
    /// What the proposer gets per gas.
    pub(super) tip: u128,
    /// Its number in the order of entry into the pool.
    pub(super) arrival: u64,
    pub(super) transaction: PooledTransaction,
}

/// Order of eviction: queued tails first, then what pays least, then the last to arrive.
type TailKey = (bool, Turn, Address);

#[derive(Debug, Default)]
struct Inner {
    senders: AddressMap<Queue>,
    by_hash: B256Map<(Address, u64)>,
    /// The ranks of last transactions that are queued.
    queued_tails: Bids,
    /// The ranks of last transactions that are pending.
    pending_tails: Bids,
    heads: Bids,
    /// By arrival: since when, sender and nonce.
    ages: BTreeMap<u64, (Duration, Address, u64)>,
    /// What the time was when somebody last said so.
    now: Duration,
    slow: SlowSenders,
    undecided: Undecided,
    status: PoolStatus,
    /// What listeners have not been told yet.
    news: Vec<Event>,
    /// Transactions that ever entered.
    arrivals: u64,
    /// Places that are taken.
    places: usize,
    base_fee: u64,
    height: Height,
    planted: Planted,
}

/// The pool, shared by admission, building and clients.
#[derive(Debug)]
pub struct Mempool {
    inner: Mutex<Inner>,
    /// Held by whoever tells listeners.
    telling: Mutex<()>,
    events: Events,
    limits: PoolLimits,
    recovered: Recovered,
}

impl Mempool {
    /// An empty pool that knows the state at `height` and the base fee of the block after it.
    #[must_use]
    pub fn new(limits: PoolLimits, height: Height, base_fee: u64, events: Events) -> Self {
        let mut inner = Inner { height, ..Inner::default() };
        inner.price(base_fee);
        Self { inner: Mutex::new(inner), telling: Mutex::new(()), events, limits, recovered: Recovered::default() }
    }

    /// Breaks a rule, to see that tests notice.
    #[cfg(test)]
    pub(super) fn plant(&self, weakness: Option<Weakness>) {
        self.inner.lock().planted = Planted(weakness);
    }

    /// Changes the pool, then tells what became of whom.
    fn change<T>(&self, change: impl FnOnce(&mut Inner, &PoolLimits) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = change(&mut inner, &self.limits);
        inner.export();
        let is_news = !inner.news.is_empty();
        drop(inner);
        if is_news {
            let _turn = self.telling.lock();
            let news = std::mem::take(&mut self.inner.lock().news);
            for event in &news {
                if let Event::Dropped(_, reason) = event {
                    ::metrics::counter!(metrics::TRANSACTION_DROPPED, "reason" => reason.label()).increment(1);
                }
                self.events.emit(event);
            }
        }
        result
    }

    /// Whether a transaction with this hash is in the pool.
    #[must_use]
    pub fn contains(&self, hash: B256) -> bool {
        self.inner.lock().by_hash.contains_key(&hash)
    }

    /// The transaction with this hash.
    #[must_use]
    pub fn get(&self, hash: B256) -> Option<PooledTransaction> {
        let inner = self.inner.lock();
        let (sender, nonce) = inner.by_hash.get(&hash)?;
        inner.senders.get(sender)?.entries.get(nonce).map(|entry| entry.transaction.clone())
    }

    /// The transaction with this hash, if its sender was recovered here lately, whether the pool holds it or not.
    #[must_use]
    pub fn recovered(&self, hash: B256) -> Option<Arc<Transaction>> {
        self.recovered.get(hash).or_else(|| self.get(hash).map(|pooled| pooled.shared().clone()))
    }

    /// The sender of a transaction was recovered.
    pub fn remember(&self, transaction: &Arc<Transaction>) {
        self.recovered.add(transaction);
    }

    /// The nonce after the sender's pending run, `None` if the pool does not know the sender.
    #[must_use]
    pub fn next_nonce(&self, sender: Address) -> Option<u64> {
        self.inner.lock().senders.get(&sender).map(Queue::next_nonce)
    }

    /// Counts of the pool.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.inner.lock().status
    }

    /// Height of the state the pool's accounts are from.
    #[must_use]
    pub fn height(&self) -> Height {
        self.inner.lock().height
    }

    /// Whether a transaction finds no room whoever sent it: the pool is full, and all that it holds can be included and
    /// pays as much.
    pub(super) fn is_too_cheap(&self, envelope: &Envelope) -> bool {
        let inner = self.inner.lock();
        let price = envelope.effective_gas_price(Some(inner.base_fee));
        let pays_as_much = |(is_pending, turn, _): TailKey| is_pending && turn.0 >= price;
        inner.places >= self.limits.places_max && inner.tails().next().is_some_and(pays_as_much)
    }

    /// Takes a checked transaction whose sender was read at `read_at`.
    ///
    /// # Errors
    /// Nonce, funds, replacement, and the limits of the sender and of the pool.
    pub fn insert(
        &self,
        transaction: PooledTransaction,
        sender: Sender,
        read_at: Height,
    ) -> Result<Inserted, AdmissionError> {
        self.change(|inner, limits| {
            if read_at < inner.height && !inner.senders.contains_key(&transaction.sender()) {
                return Ok(Inserted::Stale(inner.height));
            }
            inner.insert(transaction, sender, limits)
        })
    }

    /// Follows the chain to `block`: what it included leaves, and changed senders are counted anew.
    ///
    /// `base_fee` is that of the block after it.
    pub fn advance(&self, block: &Block, changes: &StateChanges, base_fee: u64) {
        let included: B256Set = block.body.transactions.iter().map(|transaction| transaction.hash()).collect();
        let accounts = changes.accounts.iter();
        let next_nonces =
            accounts.map(|(address, change)| (*address, change.after.unwrap_or_default().nonce)).collect();
        self.change(|inner, limits| {
            inner.height = block.height();
            inner.price(base_fee);
            for (address, change) in &changes.accounts {
                if inner.senders.contains_key(address) {
                    inner.set_account(*address, change.after.unwrap_or_default(), &included);
                    inner.trim(*address, limits);
                }
            }
            let ended = inner.undecided.settle(inner.height, &included, &next_nonces);
            inner.news.extend(ended);
        });
    }

    /// Says that a block is built or here: what it includes waits no longer, whatever becomes of it. For whoever
    /// measures that; nothing else depends on it.
    pub(crate) fn found(&self, block: &Block) {
        if !tracing::enabled!(target: spans::TARGET, Level::DEBUG) {
            return;
        }
        let mut inner = self.inner.lock();
        let Inner { senders, by_hash, .. } = &mut *inner;
        for transaction in &block.body.transactions {
            if let Some((sender, nonce)) = by_hash.get(&transaction.hash())
                && let Some(entry) = senders.get_mut(sender).and_then(|queue| queue.entries.get_mut(nonce))
            {
                spans::stands_for(&std::mem::replace(&mut entry.waits, Span::none()), 1);
            }
        }
    }

    /// Says that it is `now`, by any clock that only goes on; what enters later enters then. What has waited for too
    /// long leaves with what its sender sent after it, which could not be included without it; one by one, so that a
    /// call leaves some to the next one when many go at once ([`limits::POOL_EXPIRED_MAX`]).
    pub fn tell_time(&self, now: Duration) {
        self.change(|inner, limits| {
            inner.now = now;
            let mut expired = 0_usize;
            while let Some((_, &(since, sender, nonce))) = inner.ages.first_key_value()
                && now.saturating_sub(since) >= limits.lifetime
                && expired < limits::POOL_EXPIRED_MAX
            {
                expired = expired.saturating_add(inner.drop_from(sender, nonce, DropReason::Expired));
            }
        });
    }

    /// Drops what a sender has from `nonce` on and refuses the sender for [`limits::SLOW_SENDER_HEIGHTS`]: the
    /// transaction of that nonce takes longer than a block may.
    pub(super) fn throw_out(&self, sender: Address, nonce: u64) {
        self.change(|inner, _| {
            inner.drop_from(sender, nonce, DropReason::TooSlow);
            inner.slow.add(sender, inner.height);
        });
    }

    /// The next pending transactions, one of each sender where it can pay `base_fee`: so many after this turn, or from
    /// the best one on; fewer if there are no more.
    pub(super) fn heads(&self, base_fee: u64, after: Option<Turn>, count: usize) -> Vec<Offer> {
        let mut inner = self.inner.lock();
        inner.heads.price(base_fee);
        let head = |sender| inner.senders.get(&sender)?.entries.first_key_value()?.1.offer(base_fee);
        inner.heads.after(after).take(count).filter_map(head).collect()
    }

    /// The next pending transaction from this nonce on of each of these senders, where it can pay `base_fee`.
    pub(super) fn heads_from(&self, base_fee: u64, next_nonces: &AddressMap<u64>) -> Vec<Offer> {
        let inner = self.inner.lock();
        let head = |(sender, nonce): (_, &u64)| {
            let queue = inner.senders.get(sender)?;
            let first = queue.account.nonce.max(*nonce);
            queue.entries.get(&first).filter(|_| first < queue.next_nonce())?.offer(base_fee)
        };
        next_nonces.iter().filter_map(head).collect()
    }

    /// The sender's pending transaction after `nonce`, if it can pay `base_fee`.
    pub(super) fn successor(&self, sender: Address, nonce: u64, base_fee: u64) -> Option<Offer> {
        let inner = self.inner.lock();
        let queue = inner.senders.get(&sender)?;
        let next = nonce.checked_add(1)?;
        if next >= queue.next_nonce() {
            return None;
        }
        queue.entries.get(&next)?.offer(base_fee)
    }

    /// Everything in the order in which it came, so that it can come in that order again, but with the nonces of one
    /// sender in order.
    #[must_use]
    pub fn waiting(&self) -> Vec<PooledTransaction> {
        let inner = self.inner.lock();
        let mut waiting = Vec::with_capacity(inner.by_hash.len());
        for queue in inner.senders.values() {
            let mut latest = 0;
            for (nonce, entry) in &queue.entries {
                latest = entry.arrival.max(latest);
                waiting.push((latest, *nonce, entry.transaction.clone()));
            }
        }
        waiting.sort_unstable_by_key(|(latest, nonce, _)| (*latest, *nonce));
        waiting.into_iter().map(|(_, _, transaction)| transaction).collect()
    }

    /// Everything by sender: pending, then queued, each in order of nonce.
    #[must_use]
    pub fn content(&self) -> BTreeMap<Address, (Vec<PooledTransaction>, Vec<PooledTransaction>)> {
        let inner = self.inner.lock();
        inner
            .senders
            .iter()
            .map(|(address, queue)| {
                let mut all: Vec<_> = queue.entries.values().map(|entry| entry.transaction.clone()).collect();
                let queued = all.split_off(queue.pending.min(all.len()));
                (*address, (all, queued))
            })
            .collect()
    }
}

impl Inner {
    /// Ranks by what is paid at this base fee.
    fn price(&mut self, base_fee: u64) {
        self.base_fee = base_fee;
        if !self.planted.has(Weakness::KeepPrices) {
            self.queued_tails.price(base_fee);
            self.pending_tails.price(base_fee);
        }
    }

    /// Last transactions in the order of eviction.
    fn tails(&self) -> impl Iterator<Item = TailKey> {
        let queued = self.queued_tails.worst_first().map(|(turn, sender)| (false, turn, sender));
        queued.chain(self.pending_tails.worst_first().map(|(turn, sender)| (true, turn, sender)))
    }

    fn export(&self) {
        let level = |count: usize| metrics::level(u64::try_from(count).unwrap_or(u64::MAX));
        ::metrics::gauge!(metrics::POOL_PENDING).set(level(self.status.pending));
        ::metrics::gauge!(metrics::POOL_QUEUED).set(level(self.status.queued));
    }

    fn insert(
        &mut self,
        transaction: PooledTransaction,
        sender: Sender,
        limits: &PoolLimits,
    ) -> Result<Inserted, AdmissionError> {
        let (address, nonce) = (transaction.sender(), transaction.envelope().nonce());
        if self.by_hash.contains_key(&transaction.hash()) {
            return Err(AdmissionError::AlreadyKnown);
        }
        if let Some(until) = self.slow.until(address, self.height) {
            return Err(AdmissionError::SenderTooSlow { until });
        }
        let known = self.senders.get(&address);
        let account = known.map_or(sender.account, |queue| queue.account);
        if nonce == u64::MAX {
            return Err(AdmissionError::NonceMax(address));
        }
        if nonce < account.nonce {
            return Err(AdmissionError::NonceTooLow { next: account.nonce, nonce });
        }
        self.check_funds(known, &account, &transaction, nonce)?;
        let own = Bid::new(&transaction, self.arrivals);
        let rank = known.map_or(own, |queue| queue.rank(nonce, own));
        let places = places(&transaction);
        if let Some(old) = known.and_then(|queue| queue.entries.get(&nonce)) {
            check_bump(&old.transaction, &transaction)?;
            let grows = places.saturating_sub(self::places(&old.transaction));
            let executable = known.is_some_and(|queue| nonce < queue.next_nonce());
            let worth = executable.then(|| self.worth(rank, false));
            self.make_room(address, grows, worth, limits)?;
        } else {
            let next = known.map_or(account.nonce, Queue::next_nonce);
            check_sender_limits(known, &sender, nonce, next, limits)?;
            let executable = nonce == next;
            let victim = if executable { None } else { self.queued_victim(address, rank, limits)? };
            let freed = victim.map_or(0, |(_, places)| places);
            let worth = executable.then(|| self.worth(rank, nonce == account.nonce));
            self.make_room(address, places.saturating_sub(freed), worth, limits)?;
            if let Some((victim, _)) = victim {
                self.evict_tail(victim);
            }
        }
        Ok(self.put(transaction, sender, own))
    }

    fn worth(&self, rank: Bid, next: bool) -> u128 {
        if self.planted.has(Weakness::NoHeadroom) {
            return rank.price(self.base_fee);
        }
        rank.worth(self.base_fee, next || self.planted.has(Weakness::RunsDisplace))
    }

    /// Puts a transaction in for which there is room, in place of the one of its nonce if there is one.
    fn put(&mut self, transaction: PooledTransaction, sender: Sender, own: Bid) -> Inserted {
        let (address, nonce, hash) = (transaction.sender(), transaction.envelope().nonce(), transaction.hash());
        self.status.enter(&transaction);
        self.places = self.places.saturating_add(places(&transaction));
        let queue = self.senders.entry(address).or_insert_with(|| Queue {
            account: sender.account,
            delegated: sender.delegated,
            entries: BTreeMap::new(),
            pending: 0,
            pending_cost: U256::ZERO,
            tail: None,
            head: None,
        });
        queue.delegated = sender.delegated;
        let (pending_before, queued_before) = (queue.pending, queue.queued());
        let cost = transaction.cost_max();
        self.arrivals = self.arrivals.saturating_add(1);
        self.ages.insert(self.arrivals, (self.now, address, nonce));
        self.news.extend(self.undecided.take(&hash));
        self.news.push(Event::Admitted(transaction.clone()));
        let entry = Entry { transaction, arrival: self.arrivals, rank: own, waits: spans::wait() };
        let old = queue.entries.insert(nonce, entry);
        if let Some(old) = &old
            && nonce < queue.next_nonce()
        {
            let others = queue.pending_cost.saturating_sub(old.transaction.cost_max());
            queue.pending_cost = others.saturating_add(cost);
        }
        queue.promote();
        queue.rerank(nonce);
        let pending = nonce < queue.next_nonce();
        self.by_hash.insert(hash, (address, nonce));
        if let Some(old) = old {
            self.dropped(&old, DropReason::Replaced(hash), pending);
        }
        self.recounted(address, pending_before, queued_before);
        if pending { Inserted::Pending } else { Inserted::Queued }
    }

    /// The sender must be able to pay for the transaction and for what lies before it.
    fn check_funds(
        &self,
        known: Option<&Queue>,
        account: &Account,
        transaction: &PooledTransaction,
        nonce: u64,
    ) -> Result<(), AdmissionError> {
        let mut cost = transaction.cost_max();
        if let Some(queue) = known
            && nonce <= queue.next_nonce()
        {
            let replaced = queue.entries.get(&nonce).filter(|_| nonce < queue.next_nonce());
            let others = queue.pending_cost.saturating_sub(replaced.map_or(U256::ZERO, |e| e.transaction.cost_max()));
            cost = cost.saturating_add(others);
        }
        let balance = account.balance;
        if cost > balance && !self.planted.has(Weakness::IgnoreFunds) {
            return Err(AdmissionError::InsufficientFunds { balance, cost, overshot: cost.saturating_sub(balance) });
        }
        Ok(())
    }

    /// If the queued budget is full, whose last transaction is to leave, and its places: the cheapest queued tail of
    /// another sender, if the newcomer pays more.
    fn queued_victim(
        &self,
        sender: Address,
        rank: Bid,
        limits: &PoolLimits,
    ) -> Result<Option<(Address, usize)>, AdmissionError> {
        if self.status.queued < limits.queued_max {
            return Ok(None);
        }
        match self.queued_tails.worst_first().next() {
            Some(((price, _), address)) if price < rank.price(self.base_fee) && address != sender => {
                let last = self.senders.get(&address).and_then(|queue| queue.entries.last_key_value());
                Ok(last.map(|(_, entry)| (address, places(&entry.transaction))))
            }
            _ => Err(AdmissionError::PoolFull),
        }
    }

    /// Evicts until so many more places are free, or refuses and evicts nothing; of those that can pay the base fee,
    /// one at most. `worth` is that of the newcomer, if it is executable.
    fn make_room(
        &mut self,
        newcomer: Address,
        places: usize,
        worth: Option<u128>,
        limits: &PoolLimits,
    ) -> Result<(), AdmissionError> {
        let mut over = self.places.saturating_add(places).saturating_sub(limits.places_max);
        // How many each sender would lose, and the tail it would have then.
        let mut victims: BTreeMap<Address, usize> = BTreeMap::new();
        let mut shortened: BTreeSet<TailKey> = BTreeSet::new();
        let mut untouched = self.tails().peekable();
        let mut is_spent = false;
        while over > 0 {
            let from_shortened = match (untouched.peek(), shortened.first()) {
                (Some(whole), Some(short)) => short < whole,
                (whole, _) => whole.is_none(),
            };
            let cheapest = if from_shortened { shortened.pop_first() } else { untouched.next() };
            let Some((pending, (price, _), address)) = cheapest else { return Err(AdmissionError::PoolFull) };
            let Some(queue) = self.senders.get(&address) else { return Err(AdmissionError::PoolFull) };
            if address == newcomer {
                continue;
            }
            let pays = pending && price >= self.base_fee.into();
            if !worth.is_some_and(|worth| !pending || price < worth || self.planted.has(Weakness::IgnorePrices))
                || (pays && is_spent && !self.planted.has(Weakness::DisplaceMany))
                || self.planted.has(Weakness::DisplaceNobody)
            {
                return Err(AdmissionError::PoolFull);
            }
            is_spent |= pays;
            let taken = victims.entry(address).or_default();
            let mut tails = queue.entries.values().rev().skip(*taken);
            over = over.saturating_sub(tails.next().map_or(0, |entry| self::places(&entry.transaction)));
            *taken = taken.saturating_add(1);
            let is_pending = queue.queued() <= *taken;
            let turn = |entry: &Entry| (entry.rank.price(self.base_fee), Reverse(entry.arrival));
            shortened.extend(tails.next().map(|entry| (is_pending, turn(entry), address)));
        }
        drop(untouched);
        for (address, count) in victims {
            (0..count).for_each(|_| self.evict_tail(address));
        }
        Ok(())
    }

    /// A fall of balance or nonce made transactions wait; those beyond the caps leave, last nonce first.
    fn trim(&mut self, address: Address, limits: &PoolLimits) {
        while let Some(queued) = self.senders.get(&address).map(Queue::queued)
            && queued > 0
            && (queued > limits.sender_queued_max || self.status.queued > limits.queued_max)
        {
            self.evict_tail(address);
        }
    }

    fn evict_tail(&mut self, address: Address) {
        self.drop_tail(address, DropReason::Evicted);
    }

    /// Drops the sender's transactions from `nonce` on, last nonce first; returns how many.
    fn drop_from(&mut self, address: Address, nonce: u64, reason: DropReason) -> usize {
        let last = |inner: &Self| inner.senders.get(&address)?.entries.keys().next_back().copied();
        let mut dropped = 0_usize;
        while last(self).is_some_and(|last| last >= nonce) {
            self.drop_tail(address, reason);
            dropped = dropped.saturating_add(1);
        }
        dropped
    }

    /// Drops the transaction of the sender's last nonce.
    fn drop_tail(&mut self, address: Address, reason: DropReason) {
        let Some(queue) = self.senders.get_mut(&address) else { return };
        let (pending_before, queued_before) = (queue.pending, queue.queued());
        let Some((nonce, entry)) = queue.entries.pop_last() else { return };
        if nonce < queue.next_nonce() {
            queue.pending = queue.pending.saturating_sub(1);
            queue.pending_cost = queue.pending_cost.saturating_sub(entry.transaction.cost_max());
        }
        // Also what lost its funds a moment ago.
        let follows = nonce.checked_sub(queue.account.nonce) == u64::try_from(queue.entries.len()).ok();
        self.dropped(&entry, reason, follows);
        self.recounted(address, pending_before, queued_before);
    }

    /// An entry has left its queue for this reason: told at once, unless a block under way may include it, since it
    /// `follows` on what its sender has on the chain and in the pool, and pays as much as the next block may ask for.
    fn dropped(&mut self, entry: &Entry, reason: DropReason, follows: bool) {
        self.forget(entry);
        let (transaction, height) = (&entry.transaction, self.height);
        let (hash, sender, nonce) = (transaction.hash(), transaction.sender(), transaction.envelope().nonce());
        let left = Left { hash, reason, sender, nonce, height };
        // A base fee falls by an eighth a block at most (EIP-1559).
        let can_pay = entry.rank.price(self.base_fee) >= self.base_fee.saturating_sub(self.base_fee / 8).into();
        let is_undecided = follows && can_pay && !self.planted.has(Weakness::DecideAtOnce);
        self.news.extend(if is_undecided { self.undecided.add(left) } else { Some(left.dropped()) });
    }

    /// An entry has left its queue.
    fn forget(&mut self, entry: &Entry) {
        let hash = entry.transaction.hash();
        self.by_hash.remove(&hash);
        self.ages.remove(&entry.arrival);
        self.status.leave(&entry.transaction);
        self.places = self.places.saturating_sub(places(&entry.transaction));
    }

    /// Takes the account over from a block that has these transactions `included`.
    fn set_account(&mut self, address: Address, account: Account, included: &B256Set) {
        let Some(queue) = self.senders.get_mut(&address) else { return };
        let (pending_before, queued_before) = (queue.pending, queue.queued());
        let kept = queue.entries.split_off(&account.nonce);
        let gone = std::mem::replace(&mut queue.entries, kept);
        let spent = gone.values().fold(U256::ZERO, |sum, e| sum.saturating_add(e.transaction.cost_max()));
        let advanced = account.nonce.checked_sub(queue.account.nonce);
        queue.account = account;
        match advanced.and_then(|steps| usize::try_from(steps).ok()) {
            Some(steps) if steps <= queue.pending && steps == gone.len() => {
                queue.pending = queue.pending.saturating_sub(steps);
                queue.pending_cost = queue.pending_cost.saturating_sub(spent);
                if queue.pending_cost > account.balance {
                    queue.recount();
                } else {
                    queue.promote();
                }
            }
            _ => queue.recount(),
        }
        if let Some((first, _)) = queue.entries.first_key_value() {
            let first = *first;
            queue.rerank(first);
        }
        for entry in gone.values() {
            self.forget(entry);
            let hash = entry.transaction.hash();
            self.news.extend((!included.contains(&hash)).then_some(Event::Dropped(hash, DropReason::NonceUsed)));
        }
        self.recounted(address, pending_before, queued_before);
    }

    /// Brings the totals and the orders of offers and of eviction up to date after a change to one sender.
    fn recounted(&mut self, address: Address, pending_before: usize, queued_before: usize) {
        let Some(queue) = self.senders.get_mut(&address) else { return };
        let (pending, queued) = (queue.pending, queue.queued());
        self.status.pending = self.status.pending.saturating_sub(pending_before).saturating_add(pending);
        self.status.queued = self.status.queued.saturating_sub(queued_before).saturating_add(queued);
        let tail = queue.entries.last_key_value().map(|(_, entry)| (queued == 0, entry.rank));
        if tail != queue.tail {
            match queue.tail.take() {
                Some((true, old)) => self.pending_tails.remove(&old),
                Some((false, old)) => self.queued_tails.remove(&old),
                None => {}
            }
            match tail {
                Some((true, new)) => self.pending_tails.insert(new, address),
                Some((false, new)) => self.queued_tails.insert(new, address),
                None => {}
            }
            queue.tail = tail;
        }
        let first = queue.entries.first_key_value().filter(|_| pending > 0);
        let head = first.map(|(_, entry)| Bid::new(&entry.transaction, entry.arrival));
        if head != queue.head {
            if let Some(old) = queue.head.take() {
                self.heads.remove(&old);
            }
            if let Some(new) = head {
                self.heads.insert(new, address);
            }
            queue.head = head;
        }
        if queue.entries.is_empty() {
            self.senders.remove(&address);
        }
    }
}

/// A replacement must raise both fees by [`limits::REPLACEMENT_BUMP_PERCENT`].
fn check_bump(old: &PooledTransaction, new: &PooledTransaction) -> Result<(), AdmissionError> {
    let enough = |old: u128, new: u128| {
        new.saturating_mul(100) >= old.saturating_mul(limits::REPLACEMENT_BUMP_PERCENT.saturating_add(100)) && new > old
    };
    let tip = |pooled: &PooledTransaction| {
        let envelope = pooled.envelope();
        envelope.max_priority_fee_per_gas().unwrap_or_else(|| envelope.max_fee_per_gas())
    };
    let fees = enough(old.envelope().max_fee_per_gas(), new.envelope().max_fee_per_gas());
    if fees && enough(tip(old), tip(new)) { Ok(()) } else { Err(AdmissionError::ReplacementUnderpriced) }
}
