//! What is sent, and what becomes of it on the way.

use std::sync::Arc;

use alloy_primitives::B256;
use engine::{
    ordering::event::{Input, Source},
    types::{Fetch, Message, SignedHeader, ValidatorIndex},
};

use super::{
    cluster::index_of,
    crashes::CrashPoint,
    faults::FaultKind,
    node::Node,
    world::{Event, World},
};

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
        let bodies = self.bodies_of(&message);
        let message = Arc::new(message);
        let is_struck =
            matches!(*message, Message::Vote(_) | Message::Proposal(_)) && self.strikes(node, CrashPoint::WhileSending);
        for to in 0..self.nodes.len() {
            if to != node && !(is_struck && self.rng.below(2) == 0) {
                self.send(node, to, &message, &bodies);
            }
        }
    }

    pub(super) fn bodies_of(&self, message: &Message) -> Arc<Vec<(B256, bool)>> {
        match message {
            Message::Proposal(proposal) => {
                let id = proposal.header.id();
                Arc::new(self.headers.get(&id).map(|(_, empty)| (id, *empty)).into_iter().collect())
            }
            _ => self.no_bodies.clone(),
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: &Arc<Message>, bodies: &Arc<Vec<(B256, bool)>>) {
        self.sent[from] += size_of_message(message);
        for at in self.links.arrivals(from, to, self.now, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Deliver { to, from, message: message.clone(), bodies: bodies.clone() });
        }
    }

    pub(super) fn deliver(&mut self, to: usize, from: usize, message: &Message, bodies: &[(B256, bool)]) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let source = self.source(to, from);
        let liar = if self.nodes[to].fault.is_none() { self.watch_heard(to, message) } else { None };
        self.input(to, Input::Received(source, message.clone()));
        self.watch_accused(to, liar);
        for (id, empty) in bodies {
            self.input(to, Input::Body { id: *id, empty: *empty });
        }
    }

    /// Which validator of the receiver's epoch the sender is.
    pub(super) fn source(&self, to: usize, from: usize) -> Source {
        let epoch = self.nodes[to].machine.as_ref().map_or(0, |machine| machine.place().epoch.0);
        let validator = index_of(&self.options, self.nodes[from].secret, epoch);
        Source { peer: from as u64, validator }
    }

    pub(super) fn ask(&mut self, node: usize, whom: ValidatorIndex, fetch: Fetch) {
        let epoch = self.nodes[node].machine.as_ref().map_or(0, |machine| machine.place().epoch.0);
        let is_it = |it: &Node| index_of(&self.options, it.secret, epoch) == Some(whom);
        let Some(to) = (0..self.nodes.len()).find(|to| *to != node && is_it(&self.nodes[*to])) else { return };
        for at in self.links.arrivals(node, to, self.now, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Ask { to, from: node, fetch });
        }
    }

    pub(super) fn answer(&mut self, node: usize, from: usize, fetch: &Fetch) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        if self.nodes[node].fault == Some(FaultKind::WrongBlocks) && self.rng.below(2) == 0 {
            return self.answer_wrongly(node, from, fetch);
        }
        let mut blocks = Vec::new();
        let mut bodies = Vec::new();
        let mut next = fetch.id;
        while blocks.len() < usize::try_from(fetch.count).unwrap_or(64).min(64) {
            let node = &self.nodes[node];
            let has = node.disk.bodies.contains_key(&next)
                || node.executed.contains(&next)
                || node.disk.tails.contains(&next);
            let Some((header, empty)) = self.headers.get(&next).filter(|_| has) else { break };
            blocks.push(SignedHeader { header: header.clone(), signature: self.signature_of(header, &next) });
            bodies.push((next, *empty));
            next = header.parent_id;
        }
        if !blocks.is_empty() {
            self.send(node, from, &Arc::new(Message::Blocks(blocks)), &Arc::new(bodies));
        }
    }
}

fn size_of_message(message: &Message) -> u64 {
    match message {
        Message::Proposal(proposal) => 460 + 180 * proposal.certificates.len() as u64,
        Message::Vote(_) => 150,
        Message::Certificate(_) => 180,
        Message::Blocks(blocks) => 460 * blocks.len() as u64,
        _ => 64,
    }
}
