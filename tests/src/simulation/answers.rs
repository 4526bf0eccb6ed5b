//! What nodes answer to those who are behind: from what they have, or lies.

use alloy_primitives::B256;
use engine::{
    ordering::serving::{Shelved, chain_above},
    types::{
        Certificate, Chain, ConsensusHeader, Epoch, Fetch, Height, Message, Range, SignedHeader, Signers, Slot, Status,
        ValidatorIndex,
    },
};

use super::{
    faults::FaultKind,
    node::Node,
    traffic::Parcel,
    world::{Event, World},
};

/// What a node makes of wishes for blocks, though it votes honestly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Other blocks than the ones asked for, or certificates that nobody signed.
    WrongBlocks,
    /// Nothing, and a height that is none.
    FalseHeights,
    /// Nothing.
    Empty,
    /// What was asked for, much too late, or never.
    Slow,
    /// One block, however many were asked for.
    Drip,
    /// A genuine certificate of a block far up, and nothing that leads to it: as if too much lay between.
    Bare,
    /// The truth, of a node that let go of the lower half of its blocks, but for those that epochs began on.
    Pruned,
    /// Any of these, or the truth.
    Mixed,
}

impl Lie {
    /// Every one of them.
    pub const ALL: [Self; 8] = [
        Self::WrongBlocks,
        Self::FalseHeights,
        Self::Empty,
        Self::Slow,
        Self::Drip,
        Self::Bare,
        Self::Pruned,
        Self::Mixed,
    ];
}

/// Bytes that a block counts for; what a letter may hold is reached by none.
const BLOCK_BYTES: usize = 1_000;

impl World {
    pub(super) fn ask(&mut self, node: usize, peer: u64, wish: Message) {
        let Some(to) = usize::try_from(peer).ok().filter(|to| *to < self.nodes.len()) else { return };
        let leaves = self.nodes[node].busy_us.max(self.now);
        let tries = if self.options.is_wide { 8 } else { 1 };
        for at in self.links.arrivals(node, to, leaves, tries, &mut self.rng).into_iter().flatten() {
            self.at(at, Event::Ask { to, from: node, wish: wish.clone() });
        }
    }

    pub(super) fn answer(&mut self, node: usize, from: usize, wish: &Message) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        match wish {
            Message::Fetch(fetch) => self.answer_fetch(node, from, fetch),
            Message::Range(range) => self.answer_range(node, from, range),
            _ => {}
        }
    }

    fn answer_fetch(&mut self, node: usize, from: usize, fetch: &Fetch) {
        let is_liar = matches!(self.nodes[node].lie, Some(Lie::WrongBlocks | Lie::Mixed));
        let lies = is_liar || self.nodes[node].fault == Some(FaultKind::WrongBlocks);
        if lies && self.rng.below(2) == 0 {
            return self.answer_wrongly(node, from, fetch);
        }
        let mut blocks = Vec::new();
        let mut bodies = Vec::new();
        let (mut next, kept_from) = (fetch.id, self.kept_from(node));
        while blocks.len() < usize::try_from(fetch.count).unwrap_or(64).min(64) {
            let has = self.nodes[node].disk.bodies.contains_key(&next)
                || self.nodes[node].executed.contains(&next)
                || self.nodes[node].disk.tails.contains(&next);
            let found = self.headers.get(&next).filter(|(header, _)| has && header.height >= kept_from);
            let Some((header, empty)) = found else { break };
            blocks.push(SignedHeader { header: header.clone(), signature: self.signature_of(header, &next) });
            bodies.push((next, *empty));
            next = header.parent_id;
        }
        if !blocks.is_empty() {
            self.send(node, from, &Parcel::new(Message::Blocks(blocks), bodies));
        }
    }

    fn signed_header(&self, id: &B256) -> Option<SignedHeader> {
        let (header, _) = self.headers.get(id)?;
        Some(SignedHeader { header: header.clone(), signature: self.signature_of(header, id) })
    }

    /// The height from which on a node has every block.
    fn kept_from(&self, node: usize) -> u64 {
        let Node { lie, disk, .. } = &self.nodes[node];
        if *lie == Some(Lie::Pruned) { disk.chain.len() as u64 / 2 } else { 0 }
    }

    /// What a node has above a height.
    fn chain_of(&self, node: usize, range: &Range) -> (Chain, Vec<(B256, bool)>) {
        let disk = &self.nodes[node].disk;
        let newest = Height(disk.chain.len() as u64);
        let (kept_from, epoch) = (self.kept_from(node), self.settings.epoch_heights);
        let is_kept = |height: &u64| *height >= kept_from || height.is_multiple_of(epoch);
        let shelved = |height: Height| {
            let height = Some(height.0).filter(is_kept)?;
            let (at, certificate) = usize::try_from(height.checked_sub(1)?).ok().and_then(|at| disk.chain.get(at))?;
            let (signed, (_, empty)) = (self.signed_header(&at.id)?, self.headers.get(&at.id)?);
            Some(Shelved { signed, certificate: *certificate, body: (at.id, *empty), size_bytes: BLOCK_BYTES })
        };
        let has_tail = |id: &B256| disk.tails.contains(id) || disk.bodies.contains_key(id);
        let tail = |id: B256| if has_tail(&id) { self.signed_header(&id) } else { None };
        chain_above(range, newest, self.settings.epoch_heights, &shelved, &tail)
    }

    fn answer_range(&mut self, node: usize, from: usize, range: &Range) {
        let (mut chain, mut bodies) = self.chain_of(node, range);
        let lie = match self.nodes[node].lie {
            Some(Lie::Mixed) => {
                let draw = usize::try_from(self.rng.below(Lie::ALL.len() as u64)).expect("small");
                Some(Lie::ALL[draw]).filter(|lie| *lie != Lie::Mixed)
            }
            lie => lie,
        };
        match lie {
            None | Some(Lie::Pruned | Lie::Mixed) => {}
            Some(Lie::Slow) => return self.answer_late(node, from, chain, bodies),
            Some(Lie::WrongBlocks) => self.falsify(node, range, &mut chain, &mut bodies),
            Some(Lie::Drip) => (chain, bodies) = self.chain_of(node, &Range { count: 1, ..*range }),
            Some(Lie::Bare) => {
                let certificate = self.far_certificate(node, range.from).filter(|_| !chain.headers.is_empty());
                chain = Chain { headers: Vec::new(), bodies: 0, certificate, ..chain };
                bodies.clear();
            }
            Some(lie) => {
                let height = if lie == Lie::Empty { range.from } else { Height(range.from.0 + 1_000_000) };
                chain = Chain { from: range.from, height, headers: Vec::new(), bodies: 0, certificate: None };
                bodies.clear();
                self.boast(node, from);
            }
        }
        self.send(node, from, &Parcel::new(Message::Chain(Box::new(chain)), bodies));
    }

    /// What makes a block of the same epoch final that is a hundred heights further up, or the last one.
    fn far_certificate(&self, node: usize, from: Height) -> Option<Certificate> {
        let heights = self.settings.epoch_heights;
        let (last, chain) = ((from.0 / heights + 1) * heights, &self.nodes[node].disk.chain);
        let height = (from.0 + 100).min(last).min(chain.len() as u64);
        let place = usize::try_from(height.checked_sub(1)?).ok()?;
        chain.get(place).map(|(_, certificate)| *certificate)
    }

    /// As if the chain were epochs further on.
    fn boast(&mut self, node: usize, to: usize) {
        let (epoch, frontier) = (Epoch(1_000_000), Slot(0));
        let status = Status { epoch, final_end: 0, frontier, notarized: 0, skipped: 0, nonce: 0 };
        let parcel = Parcel::new(Message::Status(status), Vec::new());
        self.send(node, to, &parcel);
    }

    fn answer_late(&mut self, node: usize, from: usize, chain: Chain, bodies: Vec<(B256, bool)>) {
        if self.rng.below(3) > 0 {
            let parcel = Parcel::new(Message::Chain(Box::new(chain)), bodies);
            let wait = 1_000_000 + self.rng.below(20_000_000);
            self.at(self.now + wait, Event::Deliver { to: from, from: node, parcel });
        }
    }

    /// Makes something else of an answer; of one that is empty a chain of blocks that are older, and genuine.
    fn falsify(&mut self, node: usize, range: &Range, chain: &mut Chain, bodies: &mut Vec<(B256, bool)>) {
        if chain.headers.is_empty() {
            let below = Range { from: Height(range.from.0 / 2), count: range.count };
            (*chain, *bodies) = self.chain_of(node, &below);
            chain.from = range.from;
            return;
        }
        match self.rng.below(6) {
            0 => {
                let below = Range { from: Height(range.from.0 / 2), count: range.count };
                (*chain, *bodies) = self.chain_of(node, &below);
                chain.from = range.from;
            }
            1 => chain.headers.iter_mut().for_each(|block| block.signature.0.0[5] ^= 1),
            2 => {
                chain.certificate =
                    chain.certificate.map(|it| Certificate { signature: it.signature, ..everybody(&it) })
            }
            3 => {
                chain.headers.remove(0);
                bodies.remove(0);
                chain.bodies -= 1;
            }
            4 => chain.certificate = None,
            _ => self.forge_top(chain, bodies),
        }
    }

    /// A block that its leader signed and nobody certified on top, with the certificate of the one below it.
    fn forge_top(&mut self, chain: &mut Chain, bodies: &mut Vec<(B256, bool)>) {
        let Some(last) = chain.headers.last().map(|block| block.header.clone()) else { return };
        let header = ConsensusHeader { timestamp_ms: last.timestamp_ms + 1, block_hash: B256::ZERO, ..last };
        let id = header.id();
        let signature = self.signature_of(&header, &id);
        chain.headers.pop();
        chain.headers.push(SignedHeader { header, signature });
        if bodies.len() == chain.headers.len() {
            bodies.pop();
            bodies.push((id, true));
        }
    }

    /// Another block than the one that was asked for: an earlier one, and genuine.
    fn answer_wrongly(&mut self, node: usize, from: usize, fetch: &Fetch) {
        let Some((asked, _)) = self.headers.get(&fetch.id) else { return };
        let is_near =
            |it: &ConsensusHeader| it.epoch == asked.epoch && it.slot < asked.slot && it.slot + 8 >= asked.slot;
        let others = self.headers.iter().filter(|(_, (it, _))| is_near(it));
        let others: Vec<B256> = others.map(|(id, _)| *id).collect();
        if others.is_empty() {
            return;
        }
        let id = others[usize::try_from(self.rng.below(others.len() as u64)).expect("small")];
        let Some((header, empty)) = self.headers.get(&id) else { return };
        let block = SignedHeader { header: header.clone(), signature: self.signature_of(header, &id) };
        let bodies = vec![(id, *empty)];
        self.send(node, from, &Parcel::new(Message::Blocks(vec![block]), bodies));
    }
}

/// A certificate in the name of everybody.
fn everybody(certificate: &Certificate) -> Certificate {
    let size = certificate.signers.size();
    let mut signers = Signers::none(usize::from(size));
    (0..size).for_each(|index| {
        signers.add(ValidatorIndex(index));
    });
    let mut forged = *certificate;
    forged.signers = signers;
    forged.signature.0.0[3] ^= 1;
    forged
}
