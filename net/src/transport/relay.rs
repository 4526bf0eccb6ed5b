//! Large bodies: the leader sends every validator its share once, each passes its own on to everybody, and whoever has
//! enough shares has the body.
//!
//! ```text
//!  leader: Proposal (header) --> everybody                    own connection: the header is believed so far
//!          share i ------------> validator i --> everybody    once, checked against the header's root
//!  anybody: header + enough shares --> body --> Inbox
//! ```
//!
//! How a body is cut and what a share proves says `engine::dissemination`. Nothing here decides what is valid: the root
//! is checked again where the block is executed, and who could not put a body together asks somebody who has it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use alloy_primitives::{B256, Bytes, map::HashMap};
use engine::{
    dissemination::{Assembly, Plan, Plans, Share, ShareError},
    types::{Block, ConsensusHeader, Letter, Message, Proposal, PublicKey, Slot, ValidatorIndex, ValidatorSet, codec},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Shared,
    frame::{self, FrameError},
    peers::Peer,
};
use crate::metrics;

/// Bodies that are put together at a time, those that came out among them; the one of the lowest slot makes way.
const ASSEMBLIES_MAX: usize = 32;

/// Of one leader: two windows.
const ASSEMBLIES_PER_LEADER_MAX: usize = 8;

/// Shares of one peer that came before their header.
const EARLY_PER_PEER_MAX: usize = 16;

/// Bytes of those.
const EARLY_BYTES_PER_PEER_MAX: usize = 4 * 1024 * 1024;

/// Bytes of those of all peers.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Blocks of this node's own that wait to be cut.
const SPREAD_MAX: usize = 8;

/// Bodies on their way in and out.
#[derive(Debug)]
pub(super) struct Relay {
    me: Option<ValidatorIndex>,
    plans: Plans,
    state: Mutex<State>,
    outgoing: Mutex<VecDeque<Arc<Block>>>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the block's id.
    open: HashMap<B256, Open>,
    /// Ids by slot and leader.
    by_slot: BTreeSet<(Slot, ValidatorIndex, B256)>,
    /// Shares whose header is not here, by the connection that brought them.
    early: BTreeMap<u64, VecDeque<(B256, Share)>>,
}

/// A body that is put together.
#[derive(Clone, Debug)]
struct Open {
    header: Arc<ConsensusHeader>,
    plan: Arc<Plan>,
    assembly: Arc<Mutex<Assembly>>,
}

impl Relay {
    pub(super) fn new(set: Arc<ValidatorSet>, own: Option<PublicKey>) -> Self {
        let me = own.and_then(|own| set.index_of(&own));
        Self { me, plans: Plans::new(set), state: Mutex::default(), outgoing: Mutex::default(), filled: Notify::new() }
    }

    fn key(&self, index: ValidatorIndex) -> Option<PublicKey> {
        self.plans.set().get(index).map(|validator| validator.public_key)
    }

    /// A block of this node's own is to be cut and sent; the oldest that waits makes way.
    pub(super) fn spread(&self, block: Arc<Block>) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.len() >= SPREAD_MAX {
            outgoing.pop_front();
            ::metrics::counter!(metrics::PEER_DROPPED, "lane" => "shares").increment(1);
        }
        outgoing.push_back(block);
        self.filled.notify_one();
    }

    /// A leader's own connection brought this header: from now on its shares are taken.
    pub(super) fn open(&self, shared: &Arc<Shared>, peer: &Peer, proposal: &Proposal) {
        let header = &proposal.header;
        let leader = header.proposer();
        let is_its_own = peer.validator.is_some() && peer.validator == self.key(leader);
        if header.body_size_bytes == 0 || !is_its_own || !shared.is_near(header) {
            return;
        }
        let Some(plan) = self.plans.of(leader).cloned() else { return };
        let Ok(assembly) = Assembly::new(plan.clone(), header.body_root, header.body_size_bytes) else { return };
        let id = header.id();
        let open = Open { header: Arc::new(header.clone()), plan, assembly: Arc::new(Mutex::new(assembly)) };
        let early = self.state.lock().open(id, leader, open);
        for (from, share) in early {
            let Some(from) = shared.peers.lock().get(from).cloned() else { continue };
            let shared = shared.clone();
            tokio::spawn(async move {
                if let Err(error) = shared.relay.add(&shared, &from, id, share).await {
                    shared.punish(&from, &error.to_string());
                }
            });
        }
    }

    /// Takes a share that a validator sent.
    pub(super) async fn take(&self, shared: &Arc<Shared>, peer: &Peer, payload: Bytes) -> Result<(), FrameError> {
        let (id, share) = frame::decode_share(&payload)?;
        if self.state.lock().open.contains_key(&id) {
            return self.add(shared, peer, id, share).await;
        }
        self.state.lock().keep_early(peer.id, id, share);
        Ok(())
    }

    async fn add(&self, shared: &Arc<Shared>, peer: &Peer, id: B256, share: Share) -> Result<(), FrameError> {
        let Some(open) = self.state.lock().open.get(&id).cloned() else { return Ok(()) };
        let header = &open.header;
        // Whoever puts the body together holds it for some time; nobody waits here for that.
        if open.assembly.try_lock().is_some_and(|assembly| assembly.has(share.index)) {
            return Ok(());
        }
        if Some(share.index) == self.me {
            if !share.verify(&open.plan, &header.body_root, header.body_size_bytes) {
                return Err(alloy_rlp::Error::Custom("a share that is not its header's").into());
            }
            self.pass_on(shared, header, id, &share);
        }
        let (working, looking) = (open.clone(), shared.clone());
        let worked = tokio::task::spawn_blocking(move || working.add(share, &looking)).await;
        if let Some(block) = worked.unwrap_or(Ok(None))? {
            let letter = Letter { message: Message::Blocks(Vec::new()), blocks: vec![Arc::new(block)], list: None };
            // Whoever sent the share did nothing wrong: the leader did.
            if let Err(reason) = shared.hand_in(peer, letter) {
                tracing::warn!(slot = header.slot, proposer = header.proposer, reason, "shares of no block");
            }
        }
        Ok(())
    }

    /// Sends this node's own share to everybody but the leader, who has them all.
    fn pass_on(&self, shared: &Shared, header: &ConsensusHeader, id: B256, share: &Share) {
        let frame = Bytes::from(frame::share_frame(id, share));
        let leader = self.key(header.proposer());
        let peers = shared.peers.lock();
        for peer in peers.iter().filter(|peer| peer.validator.is_none() || peer.validator != leader) {
            let _ = peer.lanes.share(frame.clone());
        }
    }
}

impl State {
    /// Gives back the shares that wait for it.
    fn open(&mut self, id: B256, leader: ValidatorIndex, open: Open) -> Vec<(u64, Share)> {
        if self.open.contains_key(&id) {
            return Vec::new();
        }
        self.by_slot.insert((open.header.slot(), leader, id));
        self.open.insert(id, open);
        let of_leader = self.by_slot.iter().filter(|(_, of, _)| *of == leader);
        let lowest = if of_leader.count() > ASSEMBLIES_PER_LEADER_MAX {
            self.by_slot.iter().find(|(_, of, _)| *of == leader).copied()
        } else if self.by_slot.len() > ASSEMBLIES_MAX {
            self.by_slot.first().copied()
        } else {
            None
        };
        if let Some(lowest) = lowest {
            self.by_slot.remove(&lowest);
            self.open.remove(&lowest.2);
        }
        let mut found = Vec::new();
        for (from, waiting) in &mut self.early {
            while let Some(at) = waiting.iter().position(|(of, _)| *of == id) {
                found.extend(waiting.remove(at).map(|(_, share)| (*from, share)));
            }
        }
        self.early.retain(|_, waiting| !waiting.is_empty());
        found
    }

    fn keep_early(&mut self, from: u64, id: B256, share: Share) {
        let bytes =
            |waiting: &VecDeque<(B256, Share)>| waiting.iter().map(|(_, share)| share.chunks.len()).sum::<usize>();
        let waiting = self.early.entry(from).or_default();
        waiting.push_back((id, share));
        while waiting.len() > EARLY_PER_PEER_MAX || (waiting.len() > 1 && bytes(waiting) > EARLY_BYTES_PER_PEER_MAX) {
            waiting.pop_front();
        }
        // Connections are numbered, so the oldest of them makes way.
        while self.early.len() > 1 && self.early.values().map(bytes).sum::<usize>() > EARLY_BYTES_MAX {
            self.early.pop_first();
        }
    }
}

impl Open {
    /// Adds a share, and gives the block once it is there; whether it is its header's is still to be looked at.
    fn add(&self, share: Share, shared: &Shared) -> Result<Option<Block>, FrameError> {
        let body = match self.assembly.lock().add(share) {
            Ok(Some(body)) => body,
            Ok(None) | Err(ShareError::Twice(_)) => return Ok(None),
            Err(ShareError::Foreign(_)) => {
                return Err(alloy_rlp::Error::Custom("a share that is not its header's").into());
            }
            Err(error) => {
                tracing::warn!(slot = self.header.slot, proposer = self.header.proposer, %error, "a leader is faulty");
                return Ok(None);
            }
        };
        let header = (*self.header).clone();
        match frame::open_body(header, &body, &|hash| shared.known_transaction(*hash)) {
            Ok(block) => Ok(Some(block)),
            Err(error) => {
                tracing::warn!(slot = self.header.slot, proposer = self.header.proposer, %error, "shares of no block");
                Ok(None)
            }
        }
    }
}

/// Cuts this node's own blocks and sends everybody its share, for the life of the node.
pub(super) async fn spread(shared: Arc<Shared>) {
    loop {
        let filled = shared.relay.filled.notified();
        let Some(block) = shared.relay.outgoing.lock().pop_front() else {
            filled.await;
            continue;
        };
        let id = block.consensus.id();
        let Some(plan) = shared.relay.plans.of(block.consensus.proposer()).cloned() else { continue };
        let cut = tokio::task::spawn_blocking(move || plan.split(&codec::encode_body(&block)).shares);
        let Ok(shares) = cut.await else { continue };
        let peers = shared.peers.lock();
        for share in shares {
            if let Some(peer) = shared.relay.key(share.index).and_then(|key| peers.of_validator(&key)) {
                let _ = peer.lanes.share(frame::share_frame(id, &share).into());
            }
        }
    }
}
