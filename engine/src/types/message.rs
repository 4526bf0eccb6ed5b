//! What validators tell one another.
//!
//! Bodies travel beside these: a proposal names its body, and ordering hears of it when it is there.
//!
//! A message is encoded as one byte that tells its kind and the RLP of its content; evidence, which also goes into
//! transactions, as an RLP list of kind and the two words. Each value has one encoding. Decoding takes any bytes,
//! refuses what is longer than [`limits::MESSAGE_BYTES_MAX`] unread, and stops where a list gets longer than it may be.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use alloy_primitives::B256;
use alloy_rlp::{BufMut, Decodable, Encodable, Error, Header, Result, RlpDecodable, RlpEncodable};

use super::{
    access_list::NamedList,
    block::{Block, ConsensusHeader},
    ids::{Epoch, Height, Slot},
    validator::PublicKey,
    vote::{Certificate, Signature, Vote},
};
use crate::limits;

/// A leader's block.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable)]
pub struct Proposal {
    /// The block's consensus header.
    pub header: ConsensusHeader,
    /// The leader's, over the header's id.
    pub signature: Signature,
    /// The first block of a window brings its parent's certificate and those of the slots skipped since;
    /// [`limits::PROPOSAL_CERTIFICATES_MAX`] at most.
    pub certificates: Vec<Certificate>,
}

impl Decodable for Proposal {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let proposal = Self {
            header: ConsensusHeader::decode(&mut rest)?,
            signature: Signature::decode(&mut rest)?,
            certificates: list(&mut rest, limits::PROPOSAL_CERTIFICATES_MAX)?,
        };
        finished(rest).map(|()| proposal)
    }
}

/// A header with its leader's signature.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct SignedHeader {
    /// The header.
    pub header: ConsensusHeader,
    /// The leader's, over the header's id.
    pub signature: Signature,
}

/// Where a validator stands; sent when it is stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Status {
    /// Its epoch.
    pub epoch: Epoch,
    /// One more than its newest final slot of the epoch; 0 if there is none.
    pub final_end: u64,
    /// Its least slot that nothing has decided.
    pub frontier: Slot,
    /// Bit i: it holds a notarization of slot `frontier` + i.
    pub notarized: u64,
    /// Bit i: it holds a skip certificate of slot `frontier` + i.
    pub skipped: u64,
    /// Set by a validator that lost its log: everybody answers with [`Highest`].
    pub nonce: u64,
}

/// The answer to a validator that lost its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Highest {
    /// What it sent.
    pub nonce: u64,
    /// Epoch of the slot.
    pub epoch: Epoch,
    /// The highest slot of any certificate held, or of any own vote.
    pub slot: Slot,
}

/// Asks for headers with their bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable)]
pub struct Fetch {
    /// The newest block wanted.
    pub id: B256,
    /// How many: it and its ancestors, newest first; [`limits::FETCH_BLOCKS_MAX`] at most.
    pub count: u64,
}

impl Decodable for Fetch {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let fetch = Self { id: B256::decode(&mut rest)?, count: u64::decode(&mut rest)? };
        finished(rest)?;
        if fetch.count > limits::FETCH_BLOCKS_MAX {
            return Err(Error::Custom("a wish for more blocks than one answer holds"));
        }
        Ok(fetch)
    }
}

/// Asks for final blocks by height, with their bodies and what makes them final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable)]
pub struct Range {
    /// The height below the first block wanted.
    pub from: Height,
    /// How many at most; 1 to [`limits::RANGE_BLOCKS_MAX`].
    pub count: u64,
}

impl Decodable for Range {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let range = Self { from: Height::decode(&mut rest)?, count: u64::decode(&mut rest)? };
        finished(rest)?;
        if range.count == 0 || range.count > limits::RANGE_BLOCKS_MAX {
            return Err(Error::Custom("a wish for no blocks, or for more than one answer holds"));
        }
        Ok(range)
    }
}

/// Consecutive blocks of one epoch and what makes them final, lowest first: the answer to a [`Range`].
///
/// The last header is the one that is certified. Above the last height of an epoch tail headers may lead up to it.
/// Without headers there is nothing to give; a certificate alone is of a block so far above that its headers do not
/// fit one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What was asked for.
    pub from: Height,
    /// The newest height that the sender has.
    pub height: Height,
    /// From the one above `from` up to the one that is certified; [`limits::CHAIN_HEADERS_MAX`] at most.
    pub headers: Vec<SignedHeader>,
    /// The bodies of so many of them, from the first, are beside the message.
    pub bodies: u64,
    /// A Finalization of the last of them.
    pub certificate: Option<Certificate>,
}

impl Encodable for Chain {
    fn encode(&self, out: &mut dyn BufMut) {
        let certificate: Vec<Certificate> = self.certificate.into_iter().collect();
        let fields: [&dyn Encodable; 5] = [&self.from, &self.height, &self.headers, &self.bodies, &certificate];
        let payload_length = fields.iter().fold(0_usize, |sum, field| sum.saturating_add(field.length()));
        Header { list: true, payload_length }.encode(out);
        fields.iter().for_each(|field| field.encode(out));
    }
}

impl Decodable for Chain {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let (from, height) = (Height::decode(&mut rest)?, Height::decode(&mut rest)?);
        let headers: Vec<SignedHeader> = list(&mut rest, limits::CHAIN_HEADERS_MAX)?;
        let bodies = u64::decode(&mut rest)?;
        let certificate = list(&mut rest, 1)?.pop();
        finished(rest)?;
        if usize::try_from(bodies).map_or(true, |bodies| bodies > headers.len()) {
            return Err(Error::Custom("more bodies than headers"));
        }
        Ok(Self { from, height, headers, bodies, certificate })
    }
}

/// Two signed words that nobody may both say.
///
/// Each is proof by itself: it needs nothing but the set of its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "evidence is rare, and boxed where it waits")]
pub enum Evidence {
    /// Two proposals of one leader for one slot.
    Proposals(Box<SignedHeader>, Box<SignedHeader>),
    /// Two votes that contradict each other: two Notarize, two Finalize, or Skip and Finalize of one slot.
    Votes(Vote, Vote),
    /// Two certificates that contradict each other: whoever signed both is convicted.
    Certificates(Box<Certificate>, Box<Certificate>),
}

impl Evidence {
    const fn tag(&self) -> u8 {
        match self {
            Self::Proposals(..) => 1,
            Self::Votes(..) => 2,
            Self::Certificates(..) => 3,
        }
    }

    fn payload(&self, out: &mut dyn BufMut) {
        self.tag().encode(out);
        match self {
            Self::Proposals(one, two) => {
                one.encode(out);
                two.encode(out);
            }
            Self::Votes(one, two) => [one, two].iter().for_each(|vote| vote.encode(out)),
            Self::Certificates(one, two) => [one, two].iter().for_each(|certificate| certificate.encode(out)),
        }
    }
}

impl Encodable for Evidence {
    fn encode(&self, out: &mut dyn BufMut) {
        let mut payload = Vec::with_capacity(512);
        self.payload(&mut payload);
        Header { list: true, payload_length: payload.len() }.encode(out);
        out.put_slice(&payload);
    }
}

impl Decodable for Evidence {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let evidence = match u8::decode(&mut rest)? {
            1 => {
                Self::Proposals(Box::new(SignedHeader::decode(&mut rest)?), Box::new(SignedHeader::decode(&mut rest)?))
            }
            2 => Self::Votes(Vote::decode(&mut rest)?, Vote::decode(&mut rest)?),
            3 => {
                Self::Certificates(Box::new(Certificate::decode(&mut rest)?), Box::new(Certificate::decode(&mut rest)?))
            }
            _ => return Err(Error::Custom("no evidence of this kind")),
        };
        finished(rest).map(|()| evidence)
    }
}

/// Everything validators tell one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A block of a leader.
    Proposal(Box<Proposal>),
    /// A vote.
    Vote(Vote),
    /// A certificate.
    Certificate(Box<Certificate>),
    /// Where the sender stands.
    Status(Status),
    /// The highest slot it knows, for one who lost its log.
    Highest(Highest),
    /// A wish for blocks.
    Fetch(Fetch),
    /// Blocks that were asked for, newest first; bodies are beside them.
    Blocks(Vec<SignedHeader>),
    /// Proof that somebody is faulty.
    Evidence(Box<Evidence>),
    /// A wish for final blocks by height.
    Range(Range),
    /// Final blocks that were asked for, lowest first; bodies are beside them.
    Chain(Box<Chain>),
}

impl Message {
    /// The byte that tells what it is.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Proposal(_) => 1,
            Self::Vote(_) => 2,
            Self::Certificate(_) => 3,
            Self::Status(_) => 4,
            Self::Highest(_) => 5,
            Self::Fetch(_) => 6,
            Self::Blocks(_) => 7,
            Self::Evidence(_) => 8,
            Self::Range(_) => 9,
            Self::Chain(_) => 10,
        }
    }

    /// Its encoding.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(self.tag());
        match self {
            Self::Proposal(proposal) => proposal.encode(&mut out),
            Self::Vote(vote) => vote.encode(&mut out),
            Self::Certificate(certificate) => certificate.encode(&mut out),
            Self::Status(status) => status.encode(&mut out),
            Self::Highest(highest) => highest.encode(&mut out),
            Self::Fetch(fetch) => fetch.encode(&mut out),
            Self::Blocks(headers) => headers.encode(&mut out),
            Self::Evidence(evidence) => evidence.encode(&mut out),
            Self::Range(range) => range.encode(&mut out),
            Self::Chain(chain) => chain.encode(&mut out),
        }
        out
    }

    /// Decodes what [`Self::encoded`] made, and nothing behind it.
    ///
    /// # Errors
    /// Whatever does not decode, is too long, or does not end where it should.
    pub fn decode_exact(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MESSAGE_BYTES_MAX {
            return Err(Error::Custom("a message is longer than any may be"));
        }
        let Some((tag, mut rest)) = bytes.split_first() else { return Err(Error::InputTooShort) };
        let rest = &mut rest;
        let message = match tag {
            1 => Self::Proposal(Box::new(Proposal::decode(rest)?)),
            2 => Self::Vote(Vote::decode(rest)?),
            3 => Self::Certificate(Box::new(Certificate::decode(rest)?)),
            4 => Self::Status(Status::decode(rest)?),
            5 => Self::Highest(Highest::decode(rest)?),
            6 => Self::Fetch(Fetch::decode(rest)?),
            7 => Self::Blocks(list(rest, usize::try_from(limits::FETCH_BLOCKS_MAX).unwrap_or(usize::MAX))?),
            8 => Self::Evidence(Box::new(Evidence::decode(rest)?)),
            9 => Self::Range(Range::decode(rest)?),
            10 => Self::Chain(Box::new(Chain::decode(rest)?)),
            _ => return Err(Error::Custom("no message of this kind")),
        };
        finished(rest).map(|()| message)
    }
}

/// A list of at most so many.
fn list<T: Decodable>(bytes: &mut &[u8], max: usize) -> Result<Vec<T>> {
    let mut rest = Header::decode_bytes(bytes, true)?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        if items.len() == max {
            return Err(Error::Custom("a list is longer than it may be"));
        }
        items.push(T::decode(&mut rest)?);
    }
    Ok(items)
}

fn finished(rest: &[u8]) -> Result<()> {
    if rest.is_empty() { Ok(()) } else { Err(Error::UnexpectedLength) }
}

/// A message between nodes, and what it brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What is said.
    pub message: Message,
    /// Whole blocks whose headers the message names.
    pub blocks: Vec<Arc<Block>>,
    /// What is said to be the access list of the block whose consensus header has this id.
    pub list: Option<(B256, NamedList)>,
}

impl Letter {
    /// Bytes of its blocks and of its list.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let list = self.list.as_ref().map_or(0, |(_, list)| list.size_bytes());
        self.blocks.iter().fold(list, |sum, block| sum.saturating_add(block.rlp_size_bytes()))
    }

    /// A message alone.
    #[must_use]
    pub const fn of(message: Message) -> Self {
        Self { message, blocks: Vec::new(), list: None }
    }

    /// Whether every block has its own body, and whether those of a chain are the ones that it names.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_named = match &self.message {
            Message::Chain(chain) => {
                let mut pairs = chain.headers.iter().zip(&self.blocks);
                usize::try_from(chain.bodies) == Ok(self.blocks.len())
                    && self.blocks.len() <= chain.headers.len()
                    && pairs.all(|(signed, block)| signed.header == block.consensus)
            }
            _ => true,
        };
        is_named && self.blocks.iter().all(|block| block.is_whole())
    }
}

/// Somebody who is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The connection.
    pub peer: u64,
    /// The validator that has proved to be behind it.
    pub validator: Option<PublicKey>,
}

/// A letter that came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The connection.
    pub peer: u64,
    /// The validator that has proved to be behind it.
    pub validator: Option<PublicKey>,
    /// What it said.
    pub letter: Letter,
}
