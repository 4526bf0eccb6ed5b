//! What is sent, and what becomes of it on the way.

use std::sync::Arc;

use alloy_primitives::B256;
use engine::{
    ordering::event::{Input, Source},
    types::{Contact, Message},
};

use super::{
    cluster::index_of,
    crashes::CrashPoint,
    keys::public_key,
    world::{Event, World},
};

/// A message under way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    /// Blocks whose bodies travel beside it, and whether each is empty.
    pub(super) bodies: Vec<(B256, bool)>,
    size_bytes: u64,
}

impl Parcel {
    pub(super) fn new(message: Message, bodies: Vec<(B256, bool)>) -> Arc<Self> {
        let size_bytes = message.encoded().len() as u64;
        Arc::new(Self { message, bodies, size_bytes })
    }
}

impl World {
    pub(super) fn broadcast(&mut self, node: usize, message: Message, honest: bool) {
        self.check_sent(node, &message, honest);
        if let (true, Message::Proposal(proposal)) = (honest, &message) {
            self.proposed_at.entry(proposal.header.id()).or_insert(self.now);
        }
        match self.nodes[node].fault {
            None => {
                self.watch_told(node, &message);
                self.tell_all(node, message);
            }
            Some(fault) => self.lie(node, fault, message),
        }
    }

    pub(super) fn tell_all(&mut self, node: usize, message: Message) {
        let is_own = matches!(message, Message::Vote(_) | Message::Proposal(_));
        let is_struck = is_own && self.strikes(node, CrashPoint::WhileSending);
        let parcel = self.parcel(message);
        for to in 0..self.nodes.len() {
            if to != node && !(is_struck && self.rng.below(2) == 0) {
                self.send(node, to, &parcel);
            }
        }
    }

    /// A message with the bodies that go with it.
    pub(super) fn parcel(&self, message: Message) -> Arc<Parcel> {
        let bodies = match &message {
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                self.headers.get(&id).map(|(_, empty)| (id, *empty)).into_iter().collect()
            }
            _ => Vec::new(),
        };
        Parcel::new(message, bodies)
    }

    pub(super) fn send(&mut self, from: usize, to: usize, parcel: &Arc<Parcel>) {
        self.nodes[from].sent_bytes += parcel.size_bytes;
        let leaves = self.nodes[from].busy_us.max(self.now);
        // Votes are datagrams; what is lost of a stream is sent again.
        let tries = if self.options.is_wide && !matches!(parcel.message, Message::Vote(_)) { 8 } else { 1 };
        for at in self.links.arrivals(from, to, leaves, tries, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Deliver { to, from, parcel: parcel.clone() });
        }
    }

    pub(super) fn deliver(&mut self, to: usize, from: usize, parcel: &Parcel) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let source = self.source(to, from);
        let liar = if self.nodes[to].fault.is_none() { self.watch_heard(to, &parcel.message) } else { None };
        self.input(to, Input::Received(source, parcel.message.clone()));
        self.watch_accused(to, liar);
        for (id, empty) in &parcel.bodies {
            self.input(to, Input::Body { id: *id, empty: *empty });
        }
    }

    /// Which validator of the receiver's epoch the sender is.
    pub(super) fn source(&self, to: usize, from: usize) -> Source {
        let epoch = self.nodes[to].machine.as_ref().map_or(0, |machine| machine.place().epoch.0);
        let validator = index_of(&self.options, self.nodes[from].secret, epoch);
        Source { peer: from as u64, validator }
    }

    /// Whom a node is connected to.
    pub(super) fn contacts(&self, node: usize) -> Vec<Contact> {
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let contact = |other: usize| {
            let is_validator = other < self.nodes.len() - self.options.followers;
            let validator = is_validator.then(|| public_key(self.nodes[other].secret));
            Contact { peer: other as u64, validator }
        };
        others.map(contact).collect()
    }
}
