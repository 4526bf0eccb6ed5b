//! Whom a node that is far behind asks for which heights: peers, heights and times, and nothing of blocks.
//!
//! ```text
//! tip |=== held ===|--- asked ---|   gap   |=== held ===| ..  up to what somebody trusted says that he has
//!                        ^ and here, for the lowest that is asked for, somebody else is tried as well
//! ```
//!
//! Trusted is whoever gave something good and has not failed since; he is asked for several ranges at a time. Everybody
//! else is tried: with the lowest range that somebody trusted is asked for too, or, where nobody is trusted, some at a
//! time with the lowest of all. So a peer that lies costs at most one wait, and one good peer among them is found as
//! soon as it was tried. Who fails is asked for less, and rests, ever longer; what it says of its height counts for
//! itself alone, and only until it says something else.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    limits,
    types::{Contact, Height, PublicKey, Range},
};

/// A peer is waited for no longer than this, however slow it was.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Whoever has nothing is asked again after this long.
const REST: Duration = Duration::from_secs(1);
/// Who fails rests as long as he was waited for, half as long again every time, and this long at most.
const REST_MAX: Duration = Duration::from_secs(60);
/// An answer that is late is taken for this long.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Without anything good for this long, blocks are fetched by hash.
const PATIENCE: Duration = Duration::from_secs(10);
/// Blocks that a peer is asked for at first; twice as many after each good answer.
const COUNT_FIRST: u64 = 8;
/// Heights that somebody trusted must be ahead for it to matter.
const NEAR_HEIGHTS: u64 = 8;
/// Ranges that one peer is asked for at a time.
const PEER_RANGES_MAX: usize = 4;
/// Peers that are tried at a time where nobody is trusted.
const TRIED_MAX: usize = 3;

/// What ordering needs at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) now: Duration,
    /// Height of the newest committed block.
    pub(super) tip: u64,
    /// The last height of the epoch; nothing above it can be verified yet.
    pub(super) last: u64,
    /// A Finalization far above the tip is held.
    pub(super) is_far: bool,
    /// The shortest wait for an answer.
    pub(super) wait: Duration,
}

/// A range that a peer was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The height below the first block.
    from: u64,
    count: u64,
    since: Duration,
    until: Duration,
    /// Somebody else may be asked for it too.
    is_try: bool,
    is_late: bool,
    /// The peer had said that it has more.
    is_owed: bool,
}

/// A connected peer.
#[derive(Clone, Debug, Default)]
struct Peer {
    validator: Option<PublicKey>,
    /// The height that it says it has.
    height: Option<u64>,
    /// When its words of a later epoch will be no news any more that is about to come by itself.
    ahead: Option<Duration>,
    is_trusted: bool,
    /// How often it failed, less how often it did well while it was trusted.
    strikes: u32,
    rests_until: Duration,
    count: u64,
    wait: Duration,
    /// How long its last answer took, in milliseconds, and how much of what was asked for it brought, in 64ths.
    took_ms: u64,
    brought: u64,
    asked: Vec<Asked>,
}

impl Peer {
    /// How long one more range would take it: who is slow, or brings little of what he is asked for, is asked less.
    fn cost(&self) -> u64 {
        let waiting = u64::try_from(self.waited_for().count()).unwrap_or(u64::MAX).saturating_add(1);
        let one = self.took_ms.saturating_add(1).saturating_mul(64) / self.brought.max(1);
        waiting.saturating_mul(one)
    }

    fn is_ahead(&self, now: Duration) -> bool {
        self.ahead.is_some_and(|due| due <= now)
    }

    fn has_above(&self, height: u64) -> bool {
        self.is_trusted && self.height.is_some_and(|own| own > height)
    }

    fn waited_for(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|asked| !asked.is_late)
    }

    /// It was waited for in vain, this long.
    fn fail(&mut self, now: Duration, wait: Duration) {
        self.is_trusted = false;
        self.height = None;
        let mut rest = wait;
        for _ in 0..self.strikes.min(16) {
            rest = rest.saturating_add(rest / 2).min(REST_MAX);
        }
        self.strikes = self.strikes.saturating_add(1);
        self.count = (self.count / 2).max(1);
        self.rests_until = now.saturating_add(rest);
    }
}

/// Everything known of the peers, and of heights above the newest committed block.
#[derive(Clone, Debug, Default)]
pub(super) struct Sync {
    peers: BTreeMap<u64, Peer>,
    /// What has come and is not committed yet: the first and the last height of each answer.
    held: BTreeMap<u64, u64>,
    /// Who was tried last.
    turn: u64,
    tip: u64,
    /// When the tip last moved, or something good came.
    moved: Duration,
    /// Since when a Finalization far above the tip is held.
    far_since: Option<Duration>,
    /// The height from which on what makes blocks final does not fit an answer.
    blocked_at: Option<u64>,
}

impl Sync {
    /// Notes who is connected; says whether a validator has come.
    pub(super) fn peers(&mut self, contacts: &[Contact]) -> bool {
        let before = std::mem::take(&mut self.peers);
        let known = |contact: &Contact| {
            let peer = before.get(&contact.peer).cloned();
            let peer = peer.unwrap_or_else(|| Peer { count: COUNT_FIRST, ..Peer::default() });
            Peer { validator: contact.validator, ..peer }
        };
        self.peers = contacts.iter().map(|contact| (contact.peer, known(contact))).collect();
        contacts.iter().any(|contact| contact.validator.is_some() && !before.contains_key(&contact.peer))
    }

    /// The connection to a validator.
    pub(super) fn peer_of(&self, validator: &PublicKey) -> Option<u64> {
        self.peers.iter().find(|(_, peer)| peer.validator.as_ref() == Some(validator)).map(|(id, _)| *id)
    }

    /// Any connection, chosen by a number.
    pub(super) fn anybody(&self, choice: usize) -> Option<u64> {
        self.peers.keys().nth(choice.checked_rem(self.peers.len())?).copied()
    }

    /// Asks a peer for nothing more.
    pub(super) fn forget(&mut self, peer: u64) {
        self.peers.remove(&peer);
    }

    /// A new epoch begins: nothing that is asked for belongs to it.
    pub(super) fn begin_epoch(&mut self) {
        self.held.clear();
        self.blocked_at = None;
        for peer in self.peers.values_mut() {
            peer.asked.clear();
            peer.ahead = None;
        }
    }

    /// A peer speaks of a later epoch, which is news until `due`; whether it is the first time.
    pub(super) fn hear_ahead(&mut self, peer: u64, due: Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let is_first = peer.ahead.is_none();
        peer.ahead = Some(peer.ahead.map_or(due, |known| known.min(due)));
        is_first
    }

    /// Notes the time and the tip; whoever is too late has failed.
    pub(super) fn look(&mut self, need: &Need) {
        if self.tip != need.tip {
            (self.tip, self.moved, self.blocked_at) = (need.tip, need.now, None);
            self.held.retain(|_, last| *last > need.tip);
        }
        self.far_since = if need.is_far { self.far_since.or(Some(need.now)) } else { None };
        for peer in self.peers.values_mut() {
            peer.asked.retain(|asked| need.now < asked.since.saturating_add(LATE_MAX));
            let mut is_late = false;
            for asked in peer.asked.iter_mut().filter(|asked| !asked.is_late && asked.until <= need.now) {
                (asked.is_late, is_late) = (true, true);
            }
            if is_late {
                peer.fail(need.now, need.wait);
            }
        }
        // What came is not executed: it is asked for anew.
        if self.covered_by_held(need.tip) > need.tip && need.now >= self.moved.saturating_add(PATIENCE) {
            (self.held, self.moved) = (BTreeMap::new(), need.now);
        }
    }

    /// Whether ranges bring a node on that is far behind, so that nothing else should be fetched.
    pub(super) fn is_of_use(&self, now: Duration, tip: u64) -> bool {
        let since = self.far_since.unwrap_or(now).max(self.moved);
        !self.peers.is_empty() && self.blocked_at != Some(tip) && now < since.saturating_add(PATIENCE)
    }

    fn is_on(&self, need: &Need) -> bool {
        let near = need.tip.saturating_add(NEAR_HEIGHTS);
        need.is_far || self.peers.values().any(|peer| peer.has_above(near) || peer.is_ahead(need.now))
    }

    /// The next wish, and the peer that it goes to.
    pub(super) fn next(&mut self, need: &Need) -> Option<(u64, Range)> {
        if !self.is_on(need) {
            return None;
        }
        self.ask_trusted(need).or_else(|| self.try_somebody(need))
    }

    /// Answers under way or held: each has as many blocks, and as many bytes, as a letter may have.
    fn busy(&self) -> usize {
        let asked = self.peers.values().map(|peer| peer.waited_for().count()).sum::<usize>();
        asked.saturating_add(self.held.len())
    }

    /// Without what is directly above the tip nothing else is of use.
    fn is_room(&self, from: u64, need: &Need) -> bool {
        from < need.last && (from == need.tip || self.busy() < limits::SYNC_RANGES_MAX)
    }

    fn covered_by_held(&self, from: u64) -> u64 {
        let mut end = from;
        while let Some((_, last)) =
            self.held.range(..=end.saturating_add(1)).next_back().filter(|(_, last)| **last > end)
        {
            end = *last;
        }
        end
    }

    fn trusted_asks(&self) -> impl Iterator<Item = &Asked> {
        self.peers.values().flat_map(Peer::waited_for).filter(|asked| !asked.is_try)
    }

    /// The height below the first gap above a height, and how long the gap is.
    fn gap_above(&self, from: u64) -> (u64, u64) {
        let mut end = self.covered_by_held(from);
        let covers = |asked: &&Asked, end: u64| asked.from <= end && asked.from.saturating_add(asked.count) > end;
        while let Some(asked) = self.trusted_asks().find(|asked| covers(asked, end)) {
            end = self.covered_by_held(asked.from.saturating_add(asked.count));
        }
        let held = self.held.range(end.saturating_add(1)..).next().map(|(first, _)| first.saturating_sub(1));
        let asked = self.trusted_asks().map(|asked| asked.from).filter(|from| *from > end).min();
        let next = held.into_iter().chain(asked).min().unwrap_or(u64::MAX);
        (end, next.saturating_sub(end))
    }

    fn ask_trusted(&mut self, need: &Need) -> Option<(u64, Range)> {
        let (from, gap) = self.gap_above(need.tip);
        if !self.is_room(from, need) {
            return None;
        }
        let is_able = |peer: &Peer| peer.has_above(from) && peer.waited_for().count() < PEER_RANGES_MAX;
        let able = self.peers.iter().filter(|(_, peer)| is_able(peer));
        let (_, id) = able.map(|(id, peer)| (peer.cost(), *id)).min()?;
        self.ask(id, from, gap, false, need)
    }

    fn try_somebody(&mut self, need: &Need) -> Option<(u64, Range)> {
        let lowest = self.trusted_asks().map(|asked| (asked.from, asked.count)).min();
        let is_alone = lowest.is_none();
        let (from, count) = lowest.unwrap_or_else(|| self.gap_above(need.tip));
        let tried = self.peers.values().flat_map(Peer::waited_for).filter(|asked| asked.is_try).count();
        // What is there already has to be executed first, unless it lies above a gap.
        let waits = is_alone && self.held.len() > 1 && from != need.tip;
        if tried >= if is_alone { TRIED_MAX } else { 1 } || waits || !self.is_room(from, need) {
            return None;
        }
        let may_be_tried = |peer: &Peer| {
            let is_idle = peer.waited_for().next().is_none() && peer.rests_until <= need.now;
            is_idle && !peer.has_above(from) && (need.is_far || !is_alone || peer.is_ahead(need.now))
        };
        let able = self.peers.iter().filter(|(_, peer)| may_be_tried(peer));
        let (_, _, id) = able.map(|(id, peer)| (peer.strikes, *id <= self.turn, *id)).min()?;
        self.turn = id;
        self.ask(id, from, count, true, need)
    }

    fn ask(&mut self, id: u64, from: u64, most: u64, is_try: bool, need: &Need) -> Option<(u64, Range)> {
        let peer = self.peers.get_mut(&id)?;
        let count = peer.count.min(most).min(need.last.saturating_sub(from)).clamp(1, limits::RANGE_BLOCKS_MAX);
        let is_owed = peer.is_ahead(need.now) || peer.height.is_some_and(|own| own > from);
        let until = need.now.saturating_add(need.wait.max(peer.wait));
        if peer.asked.len() >= PEER_RANGES_MAX.saturating_mul(2) {
            peer.asked.remove(0);
        }
        peer.asked.push(Asked { from, count, since: need.now, until, is_try, is_late: false, is_owed });
        Some((id, Range { from: Height(from), count }))
    }

    /// A peer answers; what it was asked for, or `None` if it was not.
    pub(super) fn answered(&mut self, peer: u64, from: Height, height: Height) -> Option<Asked> {
        let peer = self.peers.get_mut(&peer)?;
        let place = peer.asked.iter().position(|asked| asked.from == from.0)?;
        (peer.height, peer.ahead) = (Some(height.0), None);
        Some(peer.asked.remove(place))
    }

    /// Blocks came and are final: those up to this height are held now. Whether there is room for them.
    pub(super) fn hold(&mut self, asked: &Asked, last: u64, now: Duration) -> bool {
        let is_room = asked.from == self.tip || self.held.len() < limits::SYNC_RANGES_MAX;
        if !is_room || self.covered_by_held(asked.from) >= last || last <= self.tip {
            return false;
        }
        self.held.insert(asked.from.saturating_add(1), last);
        self.moved = now;
        true
    }

    /// A peer gave what it was asked for.
    pub(super) fn served(&mut self, peer: u64, asked: &Asked, blocks: u64, now: Duration) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        peer.took_ms = u64::try_from(now.saturating_sub(asked.since).as_millis()).unwrap_or(u64::MAX);
        peer.brought = (blocks.saturating_mul(64) / asked.count.max(1)).clamp(1, 64);
        if asked.is_late {
            peer.wait = now.saturating_sub(asked.since).saturating_mul(2).min(WAIT_MAX);
        } else {
            peer.count = peer.count.saturating_mul(2).min(limits::RANGE_BLOCKS_MAX);
        }
        if peer.is_trusted {
            peer.strikes = peer.strikes.saturating_sub(1);
        }
        (peer.is_trusted, peer.rests_until) = (true, now);
    }

    /// A peer had nothing: it has failed if it says that it has more, or said so before.
    pub(super) fn had_nothing(&mut self, peer: u64, asked: &Asked, now: Duration) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if asked.is_owed || peer.height.is_some_and(|own| own > asked.from) {
            peer.fail(now, asked.until.saturating_sub(asked.since));
        } else {
            peer.rests_until = peer.rests_until.max(now.saturating_add(REST));
        }
    }

    /// A peer says that what makes the blocks above the tip final does not fit an answer.
    pub(super) fn block(&mut self, peer: u64, asked: &Asked, now: Duration) {
        if asked.from == self.tip {
            self.blocked_at = Some(self.tip);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            let wait = asked.until.saturating_sub(asked.since);
            peer.rests_until = peer.rests_until.max(now.saturating_add(wait));
        }
    }

    /// When there is something to do next.
    pub(super) fn wake_at(&self, need: &Need) -> Option<Duration> {
        let is_on = self.is_on(need);
        let times = self.peers.values().flat_map(|peer| {
            let rested = is_on.then_some(peer.rests_until);
            peer.waited_for().map(|asked| asked.until).chain(peer.ahead).chain(rested)
        });
        let patience = is_on.then(|| self.far_since.unwrap_or_default().max(self.moved).saturating_add(PATIENCE));
        times.chain(patience).filter(|at| *at > need.now).min()
    }
}
