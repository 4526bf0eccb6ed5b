//! What is too large to go to everybody whole, bodies and access lists: the leader sends every validator its share
//! once, each passes its own on to everybody, and whoever has enough shares has the whole.
//!
//! ```text
//!  leader: Proposal (header) --> everybody                    own connection: the header is believed so far
//!          share i ------------> validator i --> everybody    once, checked against the header's root
//!  anybody: header + enough shares --> body --> Inbox
//!
//!  leader: ListNotice (header, root) --> everybody            own connection; who has none executes without the list
//!          share i ------------> validator i --> everybody    once, checked against the notice's root
//!  anybody: notice + enough shares --> list --> Inbox         if it is the one that the header names
//! ```
//!
//! How things are cut and what a share proves says `engine::dissemination`. Nothing here decides what is valid: the
//! root of a body is checked again where the block is executed, and who could not put one together asks somebody who
//! has it. Nobody asks for a list. Lists have memory and lanes of their own, so that no body makes way for one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use alloy_primitives::{B256, Bytes, map::HashMap};
use engine::{
    dissemination::{Assembly, ListNotice, Plan, Plans, Share, ShareError},
    limits,
    types::{Block, ConsensusHeader, Letter, Message, NamedList, PublicKey, Slot, ValidatorIndex, ValidatorSet, codec},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Shared,
    frame::{self, FrameError, Kind},
    peers::Peer,
};
use crate::metrics;

/// Bodies that are put together at a time, those that came out among them; the one of the lowest slot makes way. And as
/// many lists.
const ASSEMBLIES_MAX: usize = 32;

/// Of one leader: two windows.
const ASSEMBLIES_PER_LEADER_MAX: usize = 8;

/// Shares of one peer that came before their header, or before their notice.
const EARLY_PER_PEER_MAX: usize = 16;

/// Bytes of those.
const EARLY_BYTES_PER_PEER_MAX: usize = 4 * 1024 * 1024;

/// Bytes of those of all peers.
const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Blocks and lists of this node's own that wait to be cut.
const SPREAD_MAX: usize = 8;

/// What travels in shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cargo {
    /// A body. Its header tells the root, and the block's id names the shares.
    Body,
    /// A packed access list. A notice tells the root, and its key names the shares.
    List,
}

/// What this node is to cut.
#[derive(Debug)]
enum Load {
    Body(Arc<Block>),
    List(Box<ConsensusHeader>, NamedList),
}

/// Bodies and lists on their way in and out.
#[derive(Debug)]
pub(super) struct Relay {
    me: Option<ValidatorIndex>,
    plans: Plans,
    bodies: Mutex<State>,
    lists: Mutex<State>,
    outgoing: Mutex<VecDeque<Load>>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By what names the shares.
    open: HashMap<B256, Open>,
    /// Those names by slot and leader.
    by_slot: BTreeSet<(Slot, ValidatorIndex, B256)>,
    /// Shares of what is not open, by the connection that brought them.
    early: BTreeMap<u64, VecDeque<(B256, Share)>>,
}

/// Something that is put together.
#[derive(Clone, Debug)]
struct Open {
    cargo: Cargo,
    header: Arc<ConsensusHeader>,
    root: B256,
    size_bytes: u64,
    plan: Arc<Plan>,
    assembly: Arc<Mutex<Assembly>>,
}

impl Relay {
    pub(super) fn new(set: Arc<ValidatorSet>, own: Option<PublicKey>) -> Self {
        let me = own.and_then(|own| set.index_of(&own));
        Self {
            me,
            plans: Plans::new(set),
            bodies: Mutex::default(),
            lists: Mutex::default(),
            outgoing: Mutex::default(),
            filled: Notify::new(),
        }
    }

    fn key(&self, index: ValidatorIndex) -> Option<PublicKey> {
        self.plans.set().get(index).map(|validator| validator.public_key)
    }

    const fn state(&self, cargo: Cargo) -> &Mutex<State> {
        match cargo {
            Cargo::Body => &self.bodies,
            Cargo::List => &self.lists,
        }
    }

    /// A block of this node's own is to be cut and sent.
    pub(super) fn spread_body(&self, block: Arc<Block>) {
        self.spread(Load::Body(block));
    }

    /// The access list of a block of this node's own is to be packed, cut and sent.
    pub(super) fn spread_list(&self, header: ConsensusHeader, list: NamedList) {
        self.spread(Load::List(Box::new(header), list));
    }

    /// The oldest list that waits makes way, or the oldest body where there is none.
    fn spread(&self, load: Load) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.len() >= SPREAD_MAX {
            let list = outgoing.iter().position(|load| matches!(load, Load::List(..)));
            outgoing.remove(list.unwrap_or_default());
            ::metrics::counter!(metrics::PEER_DROPPED, "lane" => "shares").increment(1);
        }
        outgoing.push_back(load);
        self.filled.notify_one();
    }

    /// Whether a peer is the leader that a header names, and the header of a slot that ordering looks at.
    pub(super) fn is_leaders_word(&self, shared: &Shared, peer: &Peer, header: &ConsensusHeader) -> bool {
        let is_its_own = peer.validator.is_some() && peer.validator == self.key(header.proposer());
        is_its_own && shared.is_near(header)
    }

    /// A proposal came with this header: over its leader's own connection, shares of its body are taken from now on.
    pub(super) fn open_body(&self, shared: &Arc<Shared>, peer: &Peer, header: &ConsensusHeader) {
        if header.body_size_bytes == 0 || !self.is_leaders_word(shared, peer, header) {
            return;
        }
        let (root, size_bytes) = (header.body_root, header.body_size_bytes);
        let Some(plan) = self.plans.of(header.proposer()).cloned() else { return };
        let Ok(assembly) = Assembly::new(plan.clone(), root, size_bytes) else { return };
        let (header, assembly) = (Arc::new(header.clone()), Arc::new(Mutex::new(assembly)));
        let id = header.id();
        self.open(shared, id, Open { cargo: Cargo::Body, header, root, size_bytes, plan, assembly });
    }

    /// A notice came: if over its leader's own connection, shares of the list are taken from now on.
    pub(super) fn open_list(&self, shared: &Arc<Shared>, peer: &Peer, notice: ListNotice) {
        if !self.is_leaders_word(shared, peer, &notice.header) {
            return;
        }
        let Some(plan) = self.plans.of(notice.header.proposer()).cloned() else { return };
        let Ok(assembly) = Assembly::of_list(plan.clone(), &notice) else { return };
        let key = notice.key();
        let ListNotice { header, root, size_bytes } = notice;
        let (header, assembly) = (Arc::new(header), Arc::new(Mutex::new(assembly)));
        self.open(shared, key, Open { cargo: Cargo::List, header, root, size_bytes, plan, assembly });
    }

    fn open(&self, shared: &Arc<Shared>, key: B256, open: Open) {
        let cargo = open.cargo;
        let early = self.state(cargo).lock().open(key, open);
        for (from, share) in early {
            let Some(from) = shared.peers.lock().get(from).cloned() else { continue };
            let shared = shared.clone();
            tokio::spawn(async move {
                if let Err(error) = shared.relay.add(&shared, &from, cargo, key, share).await {
                    shared.punish(&from, &error.to_string());
                }
            });
        }
    }

    /// Takes a share that a validator sent.
    pub(super) async fn take(
        &self,
        shared: &Arc<Shared>,
        peer: &Peer,
        cargo: Cargo,
        payload: Bytes,
    ) -> Result<(), FrameError> {
        let (key, share) = frame::decode_share(&payload)?;
        if self.state(cargo).lock().open.contains_key(&key) {
            return self.add(shared, peer, cargo, key, share).await;
        }
        self.state(cargo).lock().keep_early(peer.id, key, share);
        Ok(())
    }

    async fn add(
        &self,
        shared: &Arc<Shared>,
        peer: &Peer,
        cargo: Cargo,
        key: B256,
        share: Share,
    ) -> Result<(), FrameError> {
        let Some(open) = self.state(cargo).lock().open.get(&key).cloned() else { return Ok(()) };
        // Whoever puts it together holds it for some time; nobody waits here for that.
        if open.assembly.try_lock().is_some_and(|assembly| assembly.has(share.index)) {
            return Ok(());
        }
        if Some(share.index) == self.me {
            if !share.verify(&open.plan, &open.root, open.size_bytes) {
                return Err(alloy_rlp::Error::Custom("a share that is not its header's").into());
            }
            self.pass_on(shared, &open, key, &share);
        } else if cargo == Cargo::List && !shared.wants_lists() {
            // Others may want it; here it is not put together.
            return Ok(());
        }
        let (working, looking) = (open.clone(), shared.clone());
        let worked = tokio::task::spawn_blocking(move || working.add(share, &looking)).await;
        if let Some(letter) = worked.unwrap_or(Ok(None))? {
            // Whoever sent the share did nothing wrong: the leader did.
            if let Err(reason) = shared.hand_in(peer, letter) {
                open.warn(reason);
            }
        }
        Ok(())
    }

    /// Sends this node's own share to everybody but the leader, who has them all.
    fn pass_on(&self, shared: &Shared, open: &Open, key: B256, share: &Share) {
        let frame = Bytes::from(frame::share_frame(open.cargo.kind(), key, share));
        let leader = self.key(open.header.proposer());
        let peers = shared.peers.lock();
        for peer in peers.iter().filter(|peer| peer.validator.is_none() || peer.validator != leader) {
            open.cargo.put(peer, frame.clone());
        }
    }
}

impl Cargo {
    const fn kind(self) -> Kind {
        match self {
            Self::Body => Kind::Share,
            Self::List => Kind::ListShare,
        }
    }

    /// Puts a share into the lane of its kind, if there is room.
    fn put(self, peer: &Peer, frame: Bytes) {
        let _ = match self {
            Self::Body => peer.lanes.share(frame),
            Self::List => peer.lanes.list(frame),
        };
    }
}

impl State {
    /// Gives back the shares that wait for it.
    fn open(&mut self, key: B256, open: Open) -> Vec<(u64, Share)> {
        if self.open.contains_key(&key) {
            return Vec::new();
        }
        let leader = open.header.proposer();
        self.by_slot.insert((open.header.slot(), leader, key));
        self.open.insert(key, open);
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
            while let Some(at) = waiting.iter().position(|(of, _)| *of == key) {
                found.extend(waiting.remove(at).map(|(_, share)| (*from, share)));
            }
        }
        self.early.retain(|_, waiting| !waiting.is_empty());
        found
    }

    fn keep_early(&mut self, from: u64, key: B256, share: Share) {
        let bytes =
            |waiting: &VecDeque<(B256, Share)>| waiting.iter().map(|(_, share)| share.chunks.len()).sum::<usize>();
        let waiting = self.early.entry(from).or_default();
        waiting.push_back((key, share));
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
    /// Adds a share, and gives the body or the list once it is there. Whether a body is its header's is still to be
    /// looked at.
    fn add(&self, share: Share, shared: &Shared) -> Result<Option<Letter>, FrameError> {
        let bytes = match self.assembly.lock().add(share) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(ShareError::Twice(_)) => return Ok(None),
            Err(ShareError::Foreign(_)) => {
                return Err(alloy_rlp::Error::Custom("a share that is not its header's").into());
            }
            // Whoever sent the share did nothing wrong: the leader did.
            Err(error) => {
                self.warn(&error.to_string());
                if self.cargo == Cargo::List {
                    metrics::LIST_REFUSED.increment();
                    self.blame_leader(shared, "shares of no access list");
                }
                return Ok(None);
            }
        };
        Ok(match self.cargo {
            Cargo::Body => self.body(&bytes, shared),
            Cargo::List => self.list(&bytes, shared),
        })
    }

    fn body(&self, bytes: &[u8], shared: &Shared) -> Option<Letter> {
        let header = (*self.header).clone();
        match frame::open_body(header, bytes, &|hash| shared.known_transaction(*hash)) {
            Ok(block) => {
                shared.remember(&block);
                Some(Letter { blocks: vec![Arc::new(block)], ..Letter::of(Message::Blocks(Vec::new())) })
            }
            Err(error) => {
                self.warn(&error.to_string());
                None
            }
        }
    }

    fn warn(&self, reason: &str) {
        tracing::warn!(slot = self.header.slot, proposer = self.header.proposer, reason, "a leader is faulty");
    }

    fn list(&self, packed: &[u8], shared: &Shared) -> Option<Letter> {
        match shared.open_list(&self.header, packed, limits::LIST_BYTES_MAX) {
            Ok(list) => {
                metrics::LIST_ASSEMBLED.increment();
                Some(Letter { list: Some(list), ..Letter::of(Message::Blocks(Vec::new())) })
            }
            Err(error) => {
                if error.is_fault() {
                    self.blame_leader(shared, &error.to_string());
                }
                None
            }
        }
    }

    /// What the leader said of its list, over its own connection, proves to be wrong.
    fn blame_leader(&self, shared: &Shared, reason: &str) {
        let leader = shared.relay.key(self.header.proposer());
        let peer = leader.and_then(|leader| shared.peers.lock().of_validator(&leader).cloned());
        if let Some(peer) = peer {
            shared.punish(&peer, reason);
        }
    }
}

/// Cuts this node's own blocks and lists and sends everybody its share, for the life of the node; bodies first.
pub(super) async fn spread(shared: Arc<Shared>) {
    loop {
        let filled = shared.relay.filled.notified();
        let Some(load) = shared.relay.next_load() else {
            filled.await;
            continue;
        };
        let proposer = match &load {
            Load::Body(block) => block.consensus.proposer(),
            Load::List(header, _) => header.proposer(),
        };
        let Some(plan) = shared.relay.plans.of(proposer).cloned() else { continue };
        let Ok(Some(parcel)) = tokio::task::spawn_blocking(move || load.cut(&plan)).await else { continue };
        let peers = shared.peers.lock();
        if let Some(notice) = parcel.notice {
            // Who has no room for it executes without the list.
            for peer in peers.iter() {
                let _ = peer.lanes.word(notice.clone());
            }
        }
        for share in parcel.shares {
            if let Some(peer) = shared.relay.key(share.index).and_then(|key| peers.of_validator(&key)) {
                parcel.cargo.put(peer, frame::share_frame(parcel.cargo.kind(), parcel.key, &share).into());
            }
        }
    }
}

impl Relay {
    fn next_load(&self) -> Option<Load> {
        let mut outgoing = self.outgoing.lock();
        let body = outgoing.iter().position(|load| matches!(load, Load::Body(_)));
        outgoing.remove(body.unwrap_or_default())
    }
}

/// What was cut.
struct Parcel {
    cargo: Cargo,
    key: B256,
    shares: Vec<Share>,
    /// The frame that tells everybody of it, if no header does.
    notice: Option<Bytes>,
}

impl Load {
    /// Cuts it; `None` if nobody gets a share.
    fn cut(self, plan: &Plan) -> Option<Parcel> {
        if plan.is_alone() {
            return None;
        }
        match self {
            Self::Body(block) => {
                let shares = plan.split(&codec::encode_body(&block)).shares;
                Some(Parcel { cargo: Cargo::Body, key: block.consensus.id(), shares, notice: None })
            }
            Self::List(header, list) => {
                let packed = list.packed();
                let cut = plan.split(&packed);
                let size_bytes = u64::try_from(packed.len()).unwrap_or(u64::MAX);
                let notice = ListNotice { header: *header, root: cut.root, size_bytes };
                let frame = Some(frame::notice_frame(&notice).into());
                Some(Parcel { cargo: Cargo::List, key: notice.key(), shares: cut.shares, notice: frame })
            }
        }
    }
}
