//! Who is connected, who may connect, and who may not for a while.
//!
//! Promise: one connection per identity; at most [`limits::STRANGERS_MAX`] peers that are neither validators nor
//! configured, and few of them from one network, so that nobody can buy all places with addresses of one block. What
//! a peer does wrong adds up and fades; beyond a bound its identity is refused for a time that grows with every time.
//! Validators and configured peers keep their places whoever else comes.
//!
//! Nothing here reads a clock or opens a socket: the caller says what time it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use engine::{limits, types::PublicKey};

use super::{lanes::Lanes, record::NodeId};
use crate::doorkeeper::NetworkGroup;

/// A peer is refused when its faults weigh this much.
pub(crate) const SCORE_MAX: f64 = 100.0;

/// Faults weigh half as much after this time.
const SCORE_HALF_LIFE: Duration = Duration::from_secs(60);

/// How long the first refusal lasts; each further one twice as long.
const BAN_FIRST: Duration = Duration::from_secs(30);

/// The longest refusal.
const BAN_MAX: Duration = Duration::from_secs(3_600);

/// After this time without a new fault an identity starts afresh.
const BAN_MEMORY: Duration = Duration::from_secs(4 * 3_600);

/// A connected node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// Its key on the transport.
    pub(crate) identity: NodeId,
    /// The validator behind it.
    pub(crate) validator: Option<PublicKey>,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Whether this node dialled.
    pub(crate) is_outbound: bool,
    /// When the process behind it started, by its own word.
    pub(crate) sequence: u64,
    /// Has a place of its own.
    pub(crate) is_reserved: bool,
    /// What waits to be sent to it.
    pub(crate) lanes: Arc<Lanes>,
    /// The connection itself.
    pub(crate) connection: quinn::Connection,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It has the key of this very node.
    #[error("it is this node itself")]
    Oneself,
    /// It is refused for what it did.
    #[error("it is banned")]
    Banned,
    /// The operator wants it cut.
    #[error("it is blocked by the operator")]
    Blocked,
    /// It is connected already.
    #[error("it is connected already")]
    Connected,
    /// All places are taken.
    #[error("all places are taken")]
    Full,
    /// All places of its network are taken.
    #[error("all places of its network are taken")]
    NetworkFull,
}

#[derive(Clone, Copy, Debug)]
struct Faults {
    weight: f64,
    at: Instant,
    bans: u32,
    banned_until: Option<Instant>,
}

impl Faults {
    const fn none(now: Instant) -> Self {
        Self { weight: 0.0, at: now, bans: 0, banned_until: None }
    }

    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.weight *= 0.5_f64.powf(passed.as_secs_f64() / SCORE_HALF_LIFE.as_secs_f64());
        self.at = now;
    }

    fn ban(&mut self, now: Instant) -> Duration {
        let mut time = BAN_FIRST;
        for _ in 0..self.bans.min(16) {
            time = time.saturating_mul(2).min(BAN_MAX);
        }
        self.bans = self.bans.saturating_add(1);
        self.weight = 0.0;
        self.banned_until = now.checked_add(time);
        time
    }

    /// Worth forgetting first is who has been quiet longest.
    fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > BAN_MEMORY
    }
}

/// The table of peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    own: NodeId,
    by_id: BTreeMap<u64, Peer>,
    by_identity: BTreeMap<NodeId, u64>,
    faults: BTreeMap<NodeId, Faults>,
    blocked: BTreeSet<NodeId>,
    next_id: u64,
}

impl Peers {
    pub(crate) fn new(own: NodeId) -> Self {
        Self { own, ..Self::default() }
    }

    /// Takes a peer in and numbers it, or says why not; beside it the one that it replaces.
    pub(crate) fn insert(&mut self, mut peer: Peer, now: Instant) -> Result<(Peer, Option<Peer>), Refusal> {
        self.check(&peer.identity, now)?;
        if let Some(old) = self.by_identity.get(&peer.identity).and_then(|id| self.by_id.get(id)) {
            if !self.is_better(&peer, old) {
                return Err(Refusal::Connected);
            }
        } else if !peer.is_reserved {
            self.check_room(peer.address.ip())?;
        }
        let old = self.by_identity.get(&peer.identity).and_then(|id| self.by_id.remove(id));
        peer.id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.by_identity.insert(peer.identity, peer.id);
        self.by_id.insert(peer.id, peer.clone());
        Ok((peer, old))
    }

    /// Whether an identity may be connected at all.
    pub(crate) fn check(&self, identity: &NodeId, now: Instant) -> Result<(), Refusal> {
        if *identity == self.own {
            return Err(Refusal::Oneself);
        }
        if self.blocked.contains(identity) {
            return Err(Refusal::Blocked);
        }
        let until = self.faults.get(identity).and_then(|faults| faults.banned_until);
        if until.is_some_and(|until| now < until) {
            return Err(Refusal::Banned);
        }
        Ok(())
    }

    /// Of two connections with one node both ends keep the same: the one of the newer process, else the one that the
    /// lower identity dialled, else the older.
    fn is_better(&self, new: &Peer, old: &Peer) -> bool {
        let is_by_lower = |peer: &Peer| peer.is_outbound == (self.own < peer.identity);
        match new.sequence.cmp(&old.sequence) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                old.connection.close_reason().is_some() || (is_by_lower(new) && !is_by_lower(old))
            }
        }
    }

    fn check_room(&self, address: IpAddr) -> Result<(), Refusal> {
        let others = || self.by_id.values().filter(|peer| !peer.is_reserved);
        if others().count() >= limits::STRANGERS_MAX {
            return Err(Refusal::Full);
        }
        let group = NetworkGroup::of(address);
        let near = others().filter(|peer| NetworkGroup::of(peer.address.ip()) == group).count();
        if near >= limits::STRANGERS_PER_NETWORK_MAX { Err(Refusal::NetworkFull) } else { Ok(()) }
    }

    /// Takes a peer out; a later connection of the same node stays.
    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(peer) = self.by_id.remove(&id)
            && self.by_identity.get(&peer.identity) == Some(&id)
        {
            self.by_identity.remove(&peer.identity);
        }
    }

    /// Adds to what a node did wrong; says for how long it is refused if that is enough. What comes to light of one
    /// that is refused already adds nothing.
    pub(crate) fn fault(&mut self, identity: NodeId, weight: f64, now: Instant) -> Option<Duration> {
        if !self.faults.contains_key(&identity) && self.faults.len() >= limits::BANS_MAX {
            self.forget_one(now);
        }
        let faults = self.faults.entry(identity).or_insert_with(|| Faults::none(now));
        if faults.is_stale(now) {
            *faults = Faults::none(now);
        }
        if faults.banned_until.is_some_and(|until| now < until) {
            return None;
        }
        faults.fade(now);
        faults.weight += weight;
        (faults.weight >= SCORE_MAX).then(|| faults.ban(now))
    }

    fn forget_one(&mut self, now: Instant) {
        let ends = |faults: &Faults| faults.banned_until.filter(|until| now < *until).unwrap_or(faults.at);
        let first = self.faults.iter().min_by_key(|(_, faults)| ends(faults)).map(|(identity, _)| *identity);
        if let Some(first) = first {
            self.faults.remove(&first);
        }
    }

    /// Cuts a node off, or lets it come back; the operator's wish.
    pub(crate) fn block(&mut self, identity: NodeId, is_blocked: bool) -> bool {
        if is_blocked && self.blocked.len() >= limits::BANS_MAX {
            return false;
        }
        if is_blocked { self.blocked.insert(identity) } else { self.blocked.remove(&identity) }
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    pub(crate) fn of_identity(&self, identity: &NodeId) -> Option<&Peer> {
        self.by_identity.get(identity).and_then(|id| self.by_id.get(id))
    }

    pub(crate) fn of_validator(&self, validator: &PublicKey) -> Option<&Peer> {
        self.by_id.values().find(|peer| peer.validator == Some(*validator))
    }

    /// All of them, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_id.values()
    }

    /// How much a node's faults weigh now.
    pub(crate) fn score(&self, identity: &NodeId, now: Instant) -> f64 {
        self.faults.get(identity).map_or(0.0, |faults| {
            let mut faults = *faults;
            faults.fade(now);
            faults.weight
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId::repeat_byte(1);

    #[test]
    fn faults_fade_and_too_many_are_refused_for_ever_longer() {
        let mut now = Instant::now();
        let mut peers = Peers::new(NodeId::ZERO);
        for _ in 0..9 {
            assert_eq!(peers.fault(ONE, 10.0, now), None);
        }
        assert!((peers.score(&ONE, now + SCORE_HALF_LIFE) - 45.0).abs() < 0.01);
        assert_eq!(peers.fault(ONE, 10.0, now + SCORE_HALF_LIFE), None, "half of it has faded");
        now += SCORE_HALF_LIFE;
        let mut expected = BAN_FIRST;
        for _ in 0..9 {
            assert_eq!(peers.fault(ONE, SCORE_MAX, now), Some(expected));
            assert_eq!(peers.check(&ONE, now), Err(Refusal::Banned));
            assert_eq!(peers.fault(ONE, SCORE_MAX, now), None, "it is refused once");
            now += expected;
            assert_eq!(peers.check(&ONE, now), Ok(()));
            expected = (expected * 2).min(BAN_MAX);
        }
        assert_eq!(expected, BAN_MAX);
        now += BAN_MEMORY + Duration::from_secs(1);
        assert_eq!(peers.fault(ONE, SCORE_MAX, now), Some(BAN_FIRST), "it starts afresh");
    }

    #[test]
    fn only_so_many_refused_identities_are_remembered_and_the_one_that_ends_first_leaves() {
        let now = Instant::now();
        let mut peers = Peers::new(NodeId::ZERO);
        let identity = |number: usize| NodeId::from(alloy_primitives::U256::from(number + 2).to_be_bytes());
        let long_ago = now.checked_sub(BAN_FIRST).expect("the machine runs");
        peers.fault(ONE, SCORE_MAX, long_ago);
        peers.fault(ONE, SCORE_MAX, now);
        for number in 0..limits::BANS_MAX {
            peers.fault(identity(number), SCORE_MAX, now);
        }
        assert_eq!(peers.faults.len(), limits::BANS_MAX);
        assert_eq!(peers.check(&ONE, now), Err(Refusal::Banned), "its refusal is the longest");
    }

    #[test]
    fn what_the_operator_blocks_stays_out_until_it_is_let_in() {
        let now = Instant::now();
        let mut peers = Peers::new(NodeId::ZERO);
        assert!(peers.block(ONE, true) && !peers.block(ONE, true));
        assert_eq!(peers.check(&ONE, now + BAN_MAX), Err(Refusal::Blocked));
        assert!(peers.block(ONE, false) && !peers.block(ONE, false));
        assert_eq!(peers.check(&ONE, now), Ok(()));
        assert_eq!(peers.check(&NodeId::ZERO, now), Err(Refusal::Oneself));
    }
}
