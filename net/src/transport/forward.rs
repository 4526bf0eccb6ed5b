//! Transactions of this node's own clients on their way to the validators, to each once.
//!
//! Who leads now and next, by the public schedule, gets each at once; all others, who only need it before a block does,
//! get some at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::Bytes;
use engine::{
    events::Event,
    ports::Delivery,
    types::{PooledTransaction, PublicKey},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{OUTGOING_TRANSACTIONS_MAX, Peer, Shared, frame};
use crate::metrics;

/// Transactions that are put into frames at a time.
const BATCH_TRANSACTIONS_MAX: usize = 512;

/// Transactions that wait for so long are sent again, for they may have been lost on their way.
const SEND_AGAIN_AFTER: Duration = Duration::from_secs(3);

/// Of a slot's time, the part that transactions wait for each other on their way to those who do not lead.
const REST_PART: u32 = 16;

/// What was sent to leaders alone; others are owed it.
#[derive(Debug)]
struct Held<T> {
    leaders: [PublicKey; 2],
    owed: Vec<T>,
}

/// Sends transactions to the validators of whom this is true.
type SendTo<'s, T> = &'s dyn Fn(&[T], &dyn Fn(&PublicKey) -> bool);

impl<T> Held<T> {
    fn new() -> Self {
        Self { leaders: Default::default(), owed: Vec::new() }
    }

    /// Sends what is new to those who lead now and next.
    fn hold(&mut self, new: Vec<T>, leaders: [PublicKey; 2], send: SendTo<'_, T>) {
        if self.leaders != leaders || self.owed.len() >= BATCH_TRANSACTIONS_MAX {
            self.release(send);
            self.leaders = leaders;
        }
        send(&new, &|key| self.leaders.contains(key));
        self.owed.extend(new);
    }

    /// Sends all others what they are owed.
    fn release(&mut self, send: SendTo<'_, T>) {
        if !self.owed.is_empty() {
            send(&self.owed, &|key| !self.leaders.contains(key));
            self.owed.clear();
        }
    }
}

impl Shared {
    /// Hands admitted transactions of this node's own clients on to be sent to peers.
    pub(super) fn forwarder(
        self: Arc<Self>,
        offered: mpsc::Sender<PooledTransaction>,
    ) -> Box<dyn Fn(&Event) + Send + Sync> {
        Box::new(move |event| {
            let Event::Admitted(transaction) = event else { return };
            let hash = transaction.hash();
            if self.heard.lock().known.contains(&hash) {
                return;
            }
            let mut own = self.own.lock();
            if own.len() == OUTGOING_TRANSACTIONS_MAX {
                own.pop_front();
            }
            own.push_back((Instant::now(), hash));
            // What finds no room is sent with those that wait for long.
            let _ = offered.try_send(transaction.clone());
        })
    }

    /// Transactions of this node's own clients that still wait `after` so long, as far as one round sends them.
    fn waiting(&self, after: Duration, now: Instant) -> Vec<PooledTransaction> {
        let Some(doors) = self.doors.get() else { return Vec::new() };
        let (mut own, mut waiting) = (self.own.lock(), Vec::new());
        own.retain(|(since, hash)| {
            let pooled = doors.query.pooled(*hash);
            let is_old = now.saturating_duration_since(*since) >= after;
            let is_there = pooled.is_some();
            waiting.extend(pooled.filter(|_| is_old));
            is_there
        });
        waiting
    }

    /// Sends what is admitted, in batches of what waits; again what waits for long.
    pub(super) async fn send_transactions(self: Arc<Self>, mut admitted: mpsc::Receiver<PooledTransaction>) {
        let mut again = interval(SEND_AGAIN_AFTER);
        let mut rest = interval(self.rest());
        again.set_missed_tick_behavior(MissedTickBehavior::Skip);
        rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = Held::new();
        let send = |transactions: &[PooledTransaction], to: &dyn Fn(&PublicKey) -> bool| {
            self.send_batches(transactions, |peer| peer.validator.is_some_and(|key| to(&key)));
        };
        loop {
            let first = tokio::select! {
                first = admitted.recv() => first,
                _ = rest.tick(), if !held.owed.is_empty() => {
                    held.release(&send);
                    continue;
                }
                _ = again.tick() => {
                    send(&self.waiting(SEND_AGAIN_AFTER, Instant::now()), &|_| true);
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            while batch.len() < BATCH_TRANSACTIONS_MAX
                && let Ok(next) = admitted.try_recv()
            {
                batch.push(next);
            }
            if held.owed.is_empty() {
                rest.reset();
            }
            held.hold(batch, self.doors.get().map(|doors| doors.query.leaders()).unwrap_or_default(), &send);
        }
    }

    /// How long transactions wait for each other where nobody is in a hurry.
    fn rest(&self) -> Duration {
        let slot_ms = self.doors.get().map_or(0, |doors| doors.query.chain().ordering.slot_time_ms);
        (Duration::from_millis(slot_ms) / REST_PART).max(Duration::from_millis(1))
    }

    /// Sends transactions to some peers, in frames that their lane allows.
    fn send_batches(&self, transactions: &[PooledTransaction], to: impl Fn(&Peer) -> bool) {
        for frame in frame::batches(transactions.iter().map(|transaction| transaction.encoded().as_ref())) {
            let frame = Bytes::from(frame);
            let peers = self.peers.lock();
            let asked = peers.iter().filter(|peer| to(peer));
            let full = asked.filter(|peer| peer.lanes.transactions(frame.clone()) == Delivery::Full).count();
            if full > 0 {
                let full = u64::try_from(full).unwrap_or(u64::MAX);
                ::metrics::counter!(metrics::PEER_DROPPED, "lane" => "transactions").increment(full);
            }
        }
    }

    /// A validator that was just connected gets what it may have missed.
    pub(super) fn welcome(&self, peer: &Peer) {
        if peer.validator.is_some() {
            self.send_batches(&self.waiting(Duration::ZERO, Instant::now()), |other| other.id == peer.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::*;

    #[test]
    fn leaders_get_each_at_once_and_everybody_gets_each_once() {
        let keys: Vec<PublicKey> = (0..7).map(|number| PublicKey([number; 48].into())).collect();
        let sent: RefCell<BTreeMap<PublicKey, Vec<u32>>> = RefCell::default();
        let send = |transactions: &[u32], to: &dyn Fn(&PublicKey) -> bool| {
            for key in keys.iter().filter(|key| to(key)) {
                sent.borrow_mut().entry(*key).or_default().extend(transactions);
            }
        };
        let (mut held, mut next) = (Held::new(), 0_u32);
        // Any order of batches, large ones among them, new leaders and rests.
        for round in 0..500_u32 {
            let leads = |place: u32| keys[(round / 5 * place % 7) as usize];
            let count = if round % 97 == 0 { 700 } else { round % 4 };
            let new: Vec<u32> = (next..next + count).collect();
            next += count;
            held.hold(new.clone(), [leads(3), leads(5)], &send);
            for leader in [leads(3), leads(5)] {
                let has = sent.borrow();
                assert!(new.iter().all(|one| has[&leader].contains(one)), "round {round}");
            }
            if round % 6 == 0 {
                held.release(&send);
            }
            assert!(held.owed.len() < BATCH_TRANSACTIONS_MAX + 700, "what is owed is bounded");
        }
        held.release(&send);
        for key in &keys {
            let mut has = sent.borrow()[key].clone();
            has.sort_unstable();
            assert!(has.into_iter().eq(0..next), "each once");
        }
    }
}
