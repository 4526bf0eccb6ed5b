//! What waits to be sent to one peer: six lanes, each bounded, each with its own answer to "full".
//!
//! Whoever puts something in never waits; the peer's writers take it out ([`super::link`]). Bytes are shared by all
//! peers that they go to.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::Bytes;
use engine::{
    limits,
    ports::Delivery,
    types::{Epoch, Message, Slot, vote::Kind},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The place of a vote among others: by slot first, so that the lowest leaves first.
pub(super) type VoteKey = (Epoch, Slot, Kind);

/// What waits for one peer.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    votes: Lane<BTreeMap<VoteKey, Bytes>>,
    words: Lane<Waiting<Bytes>>,
    shares: Lane<Waiting<Bytes>>,
    lists: Lane<Waiting<Bytes>>,
    requests: Lane<VecDeque<Message>>,
    transactions: Lane<Waiting<Bytes>>,
}

#[derive(Debug, Default)]
struct Lane<T> {
    waiting: Mutex<T>,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<T>,
    bytes: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Waiting<T> {
    /// Takes an item unless there is no room for it; one alone always fits.
    fn push(&mut self, item: T, size: usize, (items_max, bytes_max): (usize, usize)) -> bool {
        let bytes = self.bytes.saturating_add(size);
        if self.items.len() >= items_max || (bytes > bytes_max && !self.items.is_empty()) {
            return false;
        }
        self.bytes = bytes;
        self.items.push_back(item);
        true
    }
}

impl<T> Lane<T> {
    /// Waits until there is something to take.
    async fn take<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            let filled = self.filled.notified();
            if let Some(taken) = take(&mut self.waiting.lock()) {
                return taken;
            }
            filled.await;
        }
    }

    fn put(&self, put: impl FnOnce(&mut T) -> bool) -> Delivery {
        if put(&mut self.waiting.lock()) {
            self.filled.notify_one();
            return Delivery::Sent;
        }
        Delivery::Full
    }
}

impl Lanes {
    /// A vote; where there is no room the lowest slot's leaves.
    pub(super) fn vote(&self, key: VoteKey, datagram: Bytes) -> Delivery {
        let mut delivery = Delivery::Sent;
        self.votes.put(|votes| {
            votes.insert(key, datagram);
            if votes.len() > limits::PEER_VOTES_MAX {
                votes.pop_first();
                delivery = Delivery::Full;
            }
            true
        });
        delivery
    }

    /// A slot is final: votes up to it tell nobody anything.
    pub(super) fn settle(&self, epoch: Epoch, slot: Slot) {
        self.votes.waiting.lock().retain(|(of, at, _), _| (*of, *at) > (epoch, slot));
    }

    /// A word; `Full` means that the peer reads too slowly to stay.
    pub(super) fn word(&self, frame: Bytes) -> Delivery {
        let bounds = (limits::PEER_WORDS_MAX, limits::PEER_WORDS_BYTES_MAX);
        let size = frame.len();
        self.words.put(|words| words.push(frame, size, bounds))
    }

    /// A share of a body; `Full` means that it is not sent.
    pub(super) fn share(&self, frame: Bytes) -> Delivery {
        let bounds = (limits::PEER_SHARES_MAX, limits::PEER_SHARES_BYTES_MAX);
        let size = frame.len();
        self.shares.put(|shares| shares.push(frame, size, bounds))
    }

    /// A share of an access list; `Full` means that it is not sent.
    pub(super) fn list(&self, frame: Bytes) -> Delivery {
        let bounds = (limits::PEER_LISTS_MAX, limits::PEER_LISTS_BYTES_MAX);
        let size = frame.len();
        self.lists.put(|lists| lists.push(frame, size, bounds))
    }

    /// A request; `Full` means that it is not sent.
    pub(super) fn request(&self, message: Message) -> Delivery {
        self.requests.put(|requests| {
            let is_room = requests.len() < limits::PEER_REQUESTS_MAX;
            if is_room {
                requests.push_back(message);
            }
            is_room
        })
    }

    /// Some transactions; `Full` means that they are not sent.
    pub(super) fn transactions(&self, frame: Bytes) -> Delivery {
        let size = frame.len();
        let bounds = (usize::MAX, limits::PEER_TRANSACTIONS_BYTES_MAX);
        self.transactions.put(|waiting| waiting.push(frame, size, bounds))
    }

    pub(super) async fn next_vote(&self) -> Bytes {
        self.votes.take(|votes| votes.pop_first().map(|(_, datagram)| datagram)).await
    }

    pub(super) async fn next_word(&self) -> Bytes {
        self.words.take(|words| take_first(words, |word| word.len())).await
    }

    pub(super) async fn next_share(&self) -> Bytes {
        self.shares.take(|shares| take_first(shares, |share| share.len())).await
    }

    pub(super) async fn next_list(&self) -> Bytes {
        self.lists.take(|lists| take_first(lists, |share| share.len())).await
    }

    pub(super) async fn next_request(&self) -> Message {
        self.requests.take(VecDeque::pop_front).await
    }

    pub(super) async fn next_transactions(&self) -> Bytes {
        self.transactions.take(|waiting| take_first(waiting, |batch| batch.len())).await
    }
}

fn take_first<T>(waiting: &mut Waiting<T>, size: impl Fn(&T) -> usize) -> Option<T> {
    let first = waiting.items.pop_front()?;
    waiting.bytes = waiting.bytes.saturating_sub(size(&first));
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u64) -> VoteKey {
        (Epoch(0), Slot(slot), Kind::Notarize)
    }

    fn bytes(size: usize) -> Bytes {
        vec![0; size].into()
    }

    #[tokio::test]
    async fn votes_leave_in_order_of_slots_and_the_lowest_makes_way() {
        let lanes = Lanes::default();
        let max = u64::try_from(limits::PEER_VOTES_MAX).unwrap();
        for slot in (0..max).rev() {
            assert_eq!(lanes.vote(key(slot), bytes(1)), Delivery::Sent);
        }
        assert_eq!(lanes.vote(key(max), bytes(2)), Delivery::Full);
        lanes.settle(Epoch(0), Slot(max - 2));
        assert_eq!(lanes.next_vote().await.len(), 1, "slot {} is not final", max - 1);
        assert_eq!(lanes.next_vote().await.len(), 2);
        assert!(lanes.votes.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn words_keep_their_order_and_their_bounds() {
        let lanes = Lanes::default();
        let half = limits::PEER_WORDS_BYTES_MAX / 2;
        assert_eq!(lanes.word(bytes(half)), Delivery::Sent);
        assert_eq!(lanes.word(bytes(half)), Delivery::Sent);
        assert_eq!(lanes.word(bytes(1)), Delivery::Full);
        assert_eq!(lanes.next_word().await.len(), half);
        assert_eq!(lanes.word(bytes(1)), Delivery::Sent);
        assert_eq!(lanes.next_word().await.len(), half);
        assert_eq!(lanes.next_word().await.len(), 1);
        for _ in 0..limits::PEER_WORDS_MAX {
            assert_eq!(lanes.word(bytes(1)), Delivery::Sent);
        }
        assert_eq!(lanes.word(bytes(1)), Delivery::Full);
    }

    #[tokio::test]
    async fn one_share_alone_always_fits() {
        let lanes = Lanes::default();
        assert_eq!(lanes.share(bytes(limits::PEER_SHARES_BYTES_MAX + 1)), Delivery::Sent);
        assert_eq!(lanes.share(bytes(1)), Delivery::Full);
        assert_eq!(lanes.next_share().await.len(), limits::PEER_SHARES_BYTES_MAX + 1);
        assert_eq!(lanes.share(bytes(1)), Delivery::Sent);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let lanes = std::sync::Arc::new(Lanes::default());
        let reading = lanes.clone();
        let read = tokio::spawn(async move { (reading.next_word().await, reading.next_transactions().await) });
        tokio::task::yield_now().await;
        lanes.word(bytes(3));
        tokio::task::yield_now().await;
        lanes.transactions(bytes(4));
        let (word, transactions) = read.await.unwrap();
        assert_eq!((word.len(), transactions.len()), (3, 4));
    }
}
