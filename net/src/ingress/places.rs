//! How many clients there may be: in all, from one network, of one key; and what those with weight get.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use alloy_primitives::map::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    backlog::Backlog,
    conduct::Conduct,
    limits::{
        CONNECTIONS_MAX, CONNECTIONS_PER_KEY_MAX, CONNECTIONS_PER_NETWORK_MAX, WAYS_IN_MAX, WAYS_IN_WEIGHTED_MAX,
        WINDOW_TRANSACTIONS, WINDOW_WEIGHTED_MIN,
    },
};
use crate::{doorkeeper::NetworkGroup, transport::record::NodeId};

/// So many transactions at a time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    free: Arc<Semaphore>,
    pub(super) size: u32,
}

impl Window {
    fn new(size: usize) -> Self {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Room for one, once there is; `None` if there never will be.
    ///
    /// Who has to wait waits for a quarter of the window and leaves what it does not need to those that follow: woken
    /// for each one, a client's task would sleep as often as it works.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        match self.free.clone().try_acquire_owned() {
            Ok(one) => Some(one),
            Err(_) => self.free.clone().acquire_many_owned(self.size.div_ceil(4)).await.ok()?.split(1),
        }
    }

    /// Whether half of it is in use.
    pub(super) fn is_busy(&self) -> bool {
        self.free.available_permits() <= self.size as usize / 2
    }
}

/// What a connection may have under way.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// Transactions on their way into the pool, of this connection, or of all of a key with weight.
    pub(super) window: Window,
    /// What it shares with others.
    pub(super) ways_in: Arc<Semaphore>,
    /// The same, from the way in until they are included.
    pub(super) backlog: Arc<Backlog>,
    /// Of its key.
    pub(super) conduct: Arc<Conduct>,
}

/// Places of clients.
#[derive(Debug)]
pub(super) struct Places {
    weighted: HashMap<NodeId, Share>,
    ways_in: Arc<Semaphore>,
    backlog: Arc<Backlog>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Of those without weight.
    all: usize,
    by_network: BTreeMap<NetworkGroup, usize>,
    by_key: BTreeMap<NodeId, usize>,
    /// Of the keys above.
    conduct: BTreeMap<NodeId, Arc<Conduct>>,
}

/// A place of one connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    key: NodeId,
    /// `None` of a key with weight.
    network: Option<NetworkGroup>,
    pub(super) share: Share,
}

/// Counts one up, unless there are `max`.
fn take<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, max: usize) -> bool {
    let count = counts.entry(key).or_default();
    let has_room = *count < max;
    *count = count.saturating_add(usize::from(has_room));
    has_room
}

/// Counts one down; what is 0 is forgotten.
fn free<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Places {
    /// Places for everybody, and for keys with weight, each a share of what these have under way together; and the
    /// backlogs of both.
    pub(super) fn new(weights: &[(NodeId, u64)], [backlog, weighted_backlog]: [Arc<Backlog>; 2]) -> Arc<Self> {
        let total = weights.iter().fold(0_u128, |sum, (_, weight)| sum.saturating_add(u128::from(*weight))).max(1);
        let together = Arc::new(Semaphore::new(WAYS_IN_WEIGHTED_MAX));
        let share = |weight: u64| {
            let part = u128::from(weight).saturating_mul(WAYS_IN_WEIGHTED_MAX as u128) / total;
            let window_size = usize::try_from(part).unwrap_or(WAYS_IN_WEIGHTED_MAX).max(WINDOW_WEIGHTED_MIN);
            let (window, conduct) = (Window::new(window_size), Arc::new(Conduct::new()));
            Share { window, ways_in: together.clone(), backlog: weighted_backlog.clone(), conduct }
        };
        let weighted = weights.iter().map(|(key, weight)| (*key, share(*weight))).collect();
        Arc::new(Self { weighted, ways_in: Arc::new(Semaphore::new(WAYS_IN_MAX)), backlog, taken: Mutex::default() })
    }

    /// A place for a connection of this key from this address, or what there are too many of.
    pub(super) fn take(self: &Arc<Self>, key: NodeId, address: IpAddr) -> Result<Place, &'static str> {
        let weighted = self.weighted.get(&key).cloned();
        let mut taken = self.taken.lock();
        let network = weighted.is_none().then(|| NetworkGroup::of(address));
        if network.is_some() && taken.all >= CONNECTIONS_MAX {
            return Err("there are as many connections as may be");
        }
        if !take(&mut taken.by_key, key, CONNECTIONS_PER_KEY_MAX) {
            return Err("there are as many connections of this key as may be");
        }
        let per_network = if address.to_canonical().is_loopback() { usize::MAX } else { CONNECTIONS_PER_NETWORK_MAX };
        if network.is_some_and(|network| !take(&mut taken.by_network, network, per_network)) {
            free(&mut taken.by_key, &key);
            return Err("there are as many connections from this network as may be");
        }
        taken.all = taken.all.saturating_add(usize::from(network.is_some()));
        let conduct = taken.conduct.entry(key).or_insert_with(|| Arc::new(Conduct::new())).clone();
        drop(taken);
        let share = weighted.unwrap_or_else(|| Share {
            window: Window::new(WINDOW_TRANSACTIONS),
            ways_in: self.ways_in.clone(),
            backlog: self.backlog.clone(),
            conduct,
        });
        Ok(Place { places: self.clone(), key, network, share })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        free(&mut taken.by_key, &self.key);
        if !taken.by_key.contains_key(&self.key) {
            taken.conduct.remove(&self.key);
        }
        if let Some(network) = &self.network {
            free(&mut taken.by_network, network);
            taken.all = taken.all.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_of(weights: &[(NodeId, u64)]) -> Arc<Places> {
        Places::new(weights, [1, 1].map(Backlog::new))
    }

    fn key(number: usize) -> NodeId {
        NodeId::left_padding_from(&number.to_be_bytes())
    }

    fn address(network: u8, host: u8) -> IpAddr {
        IpAddr::from([10, 0, network, host])
    }

    #[test]
    fn no_network_and_no_key_takes_more_places_than_it_may_and_each_is_free_again() {
        let places = places_of(&[]);
        let of_key: Vec<_> =
            (0..CONNECTIONS_PER_KEY_MAX).map(|_| places.take(key(1), address(1, 1)).unwrap()).collect();
        assert!(places.take(key(1), address(2, 1)).unwrap_err().contains("key"));
        let left = CONNECTIONS_PER_NETWORK_MAX - of_key.len();
        let of_network: Vec<_> = (0..left).map(|number| places.take(key(2 + number), address(1, 2)).unwrap()).collect();
        assert!(places.take(key(9_999), address(1, 3)).unwrap_err().contains("network"));
        assert!(places.take(key(9_999), address(2, 3)).is_ok());
        drop((of_key, of_network));
        assert_eq!(places.taken.lock().all, 0);
        assert!(places.taken.lock().by_key.is_empty() && places.taken.lock().by_network.is_empty());
    }

    #[test]
    fn keys_with_weight_have_places_when_there_are_none_left_for_others() {
        let places = places_of(&[(key(1), 3), (key(2), 1)]);
        let local = IpAddr::from([127, 0, 0, 1]);
        let others: Vec<_> = (0..CONNECTIONS_MAX).map(|number| places.take(key(10 + number), local).unwrap()).collect();
        assert!(places.take(key(9), local).unwrap_err().contains("as many connections as may be"));
        let weighty = places.take(key(1), local).unwrap();
        let light = places.take(key(2), local).unwrap();
        assert_eq!(weighty.share.window.size as usize, WAYS_IN_WEIGHTED_MAX / 4 * 3);
        assert_eq!(light.share.window.size as usize, WAYS_IN_WEIGHTED_MAX / 4);
        assert!(light.share.window.size > others[0].share.window.size);
        assert!(!Arc::ptr_eq(&light.share.backlog, &others[0].share.backlog));
        let second = places.take(key(1), local).unwrap();
        assert!(
            Arc::ptr_eq(&second.share.window.free, &weighty.share.window.free),
            "one window of all its connections"
        );
    }
}
