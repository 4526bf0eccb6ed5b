//! Whose handshakes are begun: places by network, and proof of an address before anything is computed for it.
//!
//! Before an address is proven it gets at most three times the bytes that it sent (RFC 9000, section 8); as soon as
//! handshakes pile up it must prove itself first.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use engine::limits;
use parking_lot::Mutex;
use quinn::{Connecting, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Handshakes in progress from which on an address must be proven before anything is computed for it.
const HANDSHAKES_UNPROVEN_MAX: usize = 16;

/// Handshakes of configured addresses, which have places of their own.
const HANDSHAKES_RESERVED_MAX: usize = 64;

/// Addresses that one owner is likely to have: a /24 of IPv4, a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NetworkGroup([u8; 8]);

impl NetworkGroup {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self([4, a, b, c, 0, 0, 0, 0])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Places for handshakes, by network.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    reserved: Arc<Semaphore>,
    others: Arc<Semaphore>,
    by_network: Mutex<BTreeMap<NetworkGroup, usize>>,
}

/// A place for one handshake; free again when it is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    keeper: Arc<Doorkeeper>,
    group: Option<NetworkGroup>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(group) = self.group else { return };
        let mut by_network = self.keeper.by_network.lock();
        if let Some(count) = by_network.get_mut(&group) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                by_network.remove(&group);
            }
        }
    }
}

impl Doorkeeper {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            reserved: Arc::new(Semaphore::new(HANDSHAKES_RESERVED_MAX)),
            others: Arc::new(Semaphore::new(limits::HANDSHAKES_MAX)),
            by_network: Mutex::default(),
        })
    }

    /// Begins a handshake if there is a place for it; `is_reserved` if its address is one of a node with a place of its
    /// own, which are counted apart: anybody can name them. One that is turned away counts in the metric `refused`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        incoming: Incoming,
        is_reserved: bool,
        refused: &'static str,
    ) -> Option<(Connecting, Place)> {
        if !incoming.remote_address_validated() && self.is_busy(is_reserved) {
            // Costs a packet no larger than the one that came; one that cannot be asked for it is dropped.
            let _ = incoming.retry();
            return None;
        }
        let Some(place) = self.place(incoming.remote_address().ip(), is_reserved) else {
            ::metrics::counter!(refused, "reason" => "handshakes").increment(1);
            incoming.ignore();
            return None;
        };
        incoming.accept().ok().map(|connecting| (connecting, place))
    }

    /// Whether so many handshakes are in progress that an address must be proven.
    fn is_busy(&self, is_reserved: bool) -> bool {
        let (max, places) = if is_reserved {
            (HANDSHAKES_RESERVED_MAX, &self.reserved)
        } else {
            (limits::HANDSHAKES_MAX, &self.others)
        };
        max.saturating_sub(places.available_permits()) >= HANDSHAKES_UNPROVEN_MAX
    }

    fn place(self: &Arc<Self>, address: IpAddr, is_reserved: bool) -> Option<Place> {
        if is_reserved && let Ok(permit) = self.reserved.clone().try_acquire_owned() {
            return Some(Place { _permit: permit, keeper: self.clone(), group: None });
        }
        let permit = self.others.clone().try_acquire_owned().ok()?;
        let group = NetworkGroup::of(address);
        let mut by_network = self.by_network.lock();
        let count = by_network.entry(group).or_default();
        if *count >= limits::HANDSHAKES_PER_NETWORK_MAX {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place { _permit: permit, keeper: self.clone(), group: Some(group) })
    }
}
