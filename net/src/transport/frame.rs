//! Bytes on the wire between nodes.
//!
//! ```text
//! datagram     kind, version, payload                      votes alone
//! stream       lane byte, frame, frame, ..                 one way; words and transactions stay, a share has its own
//! request      frame, answered by one frame                both ways
//! frame        u32 length | u8 kind | u8 version | payload        length of what follows it, big end first
//! letter       u32 length | message | (u16 place | u32 length | body)* | (ff ff | u32 length | packed access list)?
//! share        id of its block (32 bytes) | share of its body
//! list share   key of its notice (32 bytes) | share of a packed access list
//! list notice  notice
//! transactions (u32 length | transaction)*
//! records      record, record, ..
//! state wish   RLP of a wish for a piece of a state, a request
//! state piece  what was wished for: a chunk of the state, or a slice of what shows that its block is final
//! ```
//!
//! A message is encoded as `engine::types::Message` says, a body as `engine::types::codec` says; `place` is that of its
//! header in the message. Only a proposal brings an access list, of its own block. Lengths are checked against the
//! lane's cap before anything is allocated, and a frame's memory grows as its bytes arrive. Nothing but access lists is
//! packed, as `engine::types::NamedList` says, and none of those is unpacked here. Every kind has a version of its own;
//! one that is not known here ends the connection.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{B256, Bytes};
use engine::{
    dissemination::{ListNotice, Share},
    limits,
    types::{
        Block, ConsensusHeader, Letter, Message, StateWish, Transaction,
        access_list::ListError,
        codec::{self, BodyError},
    },
};
use quinn::{ReadExactError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::record::{NodeRecord, RECORD_BYTES_MAX};

/// The version of every kind of frame so far.
const VERSION: u8 = 1;

/// Bytes before a frame's payload.
pub(crate) const HEAD_BYTES: usize = 6;

/// How long a frame may take to arrive once it has begun.
const FRAME_TIME_MAX: Duration = Duration::from_secs(10);

/// Memory that a frame gets before its bytes are there.
const FRAME_FIRST_BYTES: usize = 64 * 1024;

/// Bytes of what names a share, which stands before it.
const KEY_BYTES: usize = 32;

/// Where a letter says the place of a body's header: here it brings an access list.
const LIST_PLACE: [u8; 2] = [0xff; 2];

/// Records in one frame.
pub(crate) const RECORDS_PER_FRAME_MAX: usize = 32;

/// Bytes of a batch of transactions that is not a single one.
pub(crate) const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message with the bodies that it brings.
    Letter = 1,
    /// A share of a body.
    Share = 2,
    /// Transactions.
    Transactions = 3,
    /// The sender's own record.
    Record = 4,
    /// Records of others.
    Records = 5,
    /// The answer to a request that cannot be served: nothing is here.
    Nothing = 6,
    /// The answer to a request that will not be served now.
    Busy = 7,
    /// A share of an access list.
    ListShare = 8,
    /// What the shares of an access list come to.
    ListNotice = 9,
    /// A request for a piece of a state.
    StateWish = 10,
    /// The answer to it.
    StatePiece = 11,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Letter),
            2 => Some(Self::Share),
            3 => Some(Self::Transactions),
            4 => Some(Self::Record),
            5 => Some(Self::Records),
            6 => Some(Self::Nothing),
            7 => Some(Self::Busy),
            8 => Some(Self::ListShare),
            9 => Some(Self::ListNotice),
            10 => Some(Self::StateWish),
            11 => Some(Self::StatePiece),
            _ => None,
        }
    }
}

/// What a one-way stream carries; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Certificates, proposals, notices, status, evidence, records: in order, for the life of the connection.
    Words = 1,
    /// One share of a body or of an access list.
    Share = 2,
    /// Batches of transactions, for the life of the connection.
    Transactions = 3,
}

impl Lane {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Words),
            2 => Some(Self::Share),
            3 => Some(Self::Transactions),
            _ => None,
        }
    }

    /// Longest frame on it.
    pub(crate) const fn frame_bytes_max(self) -> usize {
        match self {
            Self::Words => limits::MESSAGE_BYTES_MAX + limits::WHOLE_BODY_BYTES_MAX + limits::WHOLE_LIST_BYTES_MAX + 64,
            Self::Share => limits::SHARE_BYTES_MAX + 64,
            Self::Transactions => BATCH_BYTES_MAX + limits::TRANSACTION_BYTES_MAX + 64,
        }
    }
}

/// Longest answer to a request: bodies of as many bytes as a letter may bring, and one more that began below that.
pub(crate) const ANSWER_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX + 2 * limits::BODY_BYTES_MAX + 1_024;

/// Longest piece of a state.
pub(crate) const PIECE_FRAME_BYTES_MAX: usize = limits::STATE_PIECE_BYTES_MAX + 64;

/// Longest request.
pub(crate) const REQUEST_BYTES_MAX: usize = 1_024;

/// Longest frame with a record.
pub(crate) const HELLO_BYTES_MAX: usize = RECORD_BYTES_MAX + 16;

/// Why bytes of a peer are not taken. Each is a fault of whoever sent them, but that a bad
/// network too can cause [`Self::Gone`] and [`Self::Slow`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than its lane allows.
    #[error("a frame of {length} bytes where {max} are allowed")]
    TooLong {
        /// What it says.
        length: usize,
        /// What its lane allows.
        max: usize,
    },
    /// No frame at all.
    #[error("a frame of {0} bytes, which cannot have a head")]
    TooShort(usize),
    /// Of a kind that does not belong here, or that nobody knows.
    #[error("a frame of kind {0} where it has no business")]
    Kind(u8),
    /// Of a version that is not known here.
    #[error("a frame of version {0}, which is not known here")]
    Version(u8),
    /// A stream for no lane.
    #[error("a stream for lane {0}, which there is not")]
    Lane(u8),
    /// Does not decode.
    #[error("a frame that does not decode: {0}")]
    Content(alloy_rlp::Error),
    /// With a body that is not its header's.
    #[error("a body that is not its header's: {0}")]
    Body(#[from] BodyError),
    /// With an access list that is not its header's.
    #[error("an access list that is not its header's: {0}")]
    List(#[from] ListError),
    /// Did not arrive in time.
    #[error("a frame that took too long")]
    Slow,
    /// The stream ended in the middle of it.
    #[error("a stream that ended within a frame")]
    Cut,
    /// The connection or the stream is gone.
    #[error("the stream is gone")]
    Gone,
}

impl From<alloy_rlp::Error> for FrameError {
    fn from(error: alloy_rlp::Error) -> Self {
        Self::Content(error)
    }
}

impl From<ReadExactError> for FrameError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::Cut,
            ReadExactError::ReadError(_) => Self::Gone,
        }
    }
}

/// A frame with its head.
pub(crate) fn frame(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(payload.saturating_add(HEAD_BYTES));
    // Whoever builds a frame stays within its lane's cap, far below this.
    let length = u32::try_from(payload.saturating_add(2)).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[kind as u8, VERSION]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A frame that arrived, and the memory that it may take.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The unit in which a peer's memory is dealt out, in bytes.
pub(crate) const ROOM_UNIT_BYTES: usize = 1_024;

/// Reads one frame; `None` where the stream ends between two frames. It begins to arrive when there is `room` for all
/// of it.
///
/// # Errors
/// [`FrameError`]. Waiting for the first byte takes as long as the peer likes, the rest at most [`FRAME_TIME_MAX`].
pub(crate) async fn read_frame(
    stream: &mut RecvStream,
    max: usize,
    room: &Arc<Semaphore>,
) -> Result<Option<Frame>, FrameError> {
    let mut head = [0_u8; HEAD_BYTES];
    match stream.read(&mut head[..1]).await {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(None),
        Err(_) => return Err(FrameError::Gone),
    }
    let rest = async {
        stream.read_exact(&mut head[1..]).await?;
        let (length, kind) = check_head(head, max)?;
        let units = u32::try_from(length.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = room.clone().acquire_many_owned(units).await.map_err(|_| FrameError::Gone)?;
        let mut payload = Vec::with_capacity(length.min(FRAME_FIRST_BYTES));
        while payload.len() < length {
            let missing = length.saturating_sub(payload.len());
            match stream.read_chunk(missing, true).await {
                Ok(Some(chunk)) => payload.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(FrameError::Cut),
                Err(_) => return Err(FrameError::Gone),
            }
        }
        Ok(Some(Frame { kind, payload: payload.into(), _room: room }))
    };
    tokio::time::timeout(FRAME_TIME_MAX, rest).await.unwrap_or(Err(FrameError::Slow))
}

/// Length of the payload and kind of a frame.
fn check_head(head: [u8; HEAD_BYTES], max: usize) -> Result<(usize, Kind), FrameError> {
    let [a, b, c, d, kind, version] = head;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLong { length, max });
    }
    let payload = length.checked_sub(2).ok_or(FrameError::TooShort(length))?;
    let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    Ok((payload, kind))
}

/// A datagram with a vote.
pub(crate) fn vote_datagram(message: &Message) -> Vec<u8> {
    let mut out = vec![Kind::Letter as u8, VERSION];
    out.extend_from_slice(&message.encoded());
    out
}

/// What a datagram says; nothing but a vote may come that way.
///
/// # Errors
/// [`FrameError`].
pub fn read_datagram(bytes: &[u8]) -> Result<Message, FrameError> {
    let Some(([kind, version], payload)) = bytes.split_first_chunk::<2>() else {
        return Err(FrameError::TooShort(bytes.len()));
    };
    if *kind != Kind::Letter as u8 {
        return Err(FrameError::Kind(*kind));
    }
    if *version != VERSION {
        return Err(FrameError::Version(*version));
    }
    match Message::decode_exact(payload)? {
        vote @ Message::Vote(_) => Ok(vote),
        other => Err(FrameError::Kind(other.tag())),
    }
}

/// A letter's payload. Bodies that belong to none of its headers are left out.
pub(crate) fn encode_letter(letter: &Letter, with_bodies: bool) -> Vec<u8> {
    let message = letter.message.encoded();
    let mut out = Vec::with_capacity(message.len().saturating_add(64));
    part(&mut out, &message);
    for block in letter.blocks.iter().filter(|_| with_bodies) {
        let hash = block.hash();
        let place = headers(&letter.message).position(|header| header.block_hash == hash);
        let Some(place) = place.and_then(|place| u16::try_from(place).ok()) else { continue };
        out.extend_from_slice(&place.to_be_bytes());
        part(&mut out, &codec::encode_body(block));
    }
    out
}

/// Puts a packed access list behind a proposal's letter.
pub(crate) fn add_list(letter: &mut Vec<u8>, packed: &[u8]) {
    letter.extend_from_slice(&LIST_PLACE);
    part(letter, packed);
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Headers that a message brings, in order.
fn headers(message: &Message) -> Box<dyn Iterator<Item = &ConsensusHeader> + '_> {
    match message {
        Message::Proposal(proposal) => Box::new(std::iter::once(&proposal.header)),
        Message::Blocks(blocks) => Box::new(blocks.iter().map(|block| &block.header)),
        Message::Chain(chain) => Box::new(chain.headers.iter().map(|signed| &signed.header)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A letter whose bodies and list are bytes still.
#[derive(Debug)]
pub struct SealedLetter {
    /// What is said.
    pub message: Message,
    bodies: Vec<(ConsensusHeader, Bytes)>,
    list: Option<Bytes>,
}

impl SealedLetter {
    /// Takes a letter's payload apart; bodies are not copied.
    ///
    /// # Errors
    /// [`FrameError::Content`], also for a body of no header, or the second of one, and for a list without a proposal.
    pub fn decode(payload: &Bytes) -> Result<Self, FrameError> {
        let mut bytes = &payload[..];
        let message = Message::decode_exact(take_part(&mut bytes)?)?;
        let (mut bodies, mut list) = (Vec::new(), None);
        let mut last = None;
        while !bytes.is_empty() {
            let Some((place, rest)) = bytes.split_first_chunk::<2>() else { return Err(FrameError::Cut) };
            bytes = rest;
            if *place == LIST_PLACE {
                let packed = take_part(&mut bytes)?;
                let is_right = matches!(message, Message::Proposal(_)) && bytes.is_empty();
                if !is_right || packed.len() > limits::WHOLE_LIST_BYTES_MAX {
                    return Err(alloy_rlp::Error::Custom("an access list where there is no place for it").into());
                }
                list = Some(payload.slice_ref(packed));
                break;
            }
            let place = usize::from(u16::from_be_bytes(*place));
            if last.is_some_and(|last| place <= last) {
                return Err(alloy_rlp::Error::Custom("bodies of a letter are not in the order of its headers").into());
            }
            last = Some(place);
            let no_header = alloy_rlp::Error::Custom("a body of no header in its letter");
            let header = headers(&message).nth(place).ok_or(no_header)?.clone();
            bodies.push((header, payload.slice_ref(take_part(&mut bytes)?)));
        }
        Ok(Self { message, bodies, list })
    }

    /// Whether opening it takes time.
    #[must_use]
    pub const fn has_bodies(&self) -> bool {
        !self.bodies.is_empty()
    }

    /// Takes the packed access list out, which nobody has looked at, and the header that names it.
    pub fn take_list(&mut self) -> Option<(ConsensusHeader, Bytes)> {
        let list = self.list.take()?;
        let header = headers(&self.message).next()?.clone();
        Some((header, list))
    }

    /// Decodes the bodies, and leaves out the list; a transaction that is not `known` by its hash costs the recovery of
    /// its sender.
    ///
    /// # Errors
    /// [`FrameError::Content`].
    pub fn open(self, known: Known<'_>) -> Result<Letter, FrameError> {
        let Self { message, bodies, list: _ } = self;
        let open = |(header, bytes): (ConsensusHeader, Bytes)| open_body(header, &bytes, known).map(Arc::new);
        let blocks: Result<Vec<Arc<Block>>, FrameError> = bodies.into_iter().map(open).collect();
        Ok(Letter { message, blocks: blocks?, list: None })
    }
}

/// Finds a transaction whose sender is known by its hash.
pub(crate) type Known<'a> = &'a dyn Fn(&B256) -> Option<Arc<Transaction>>;

/// Decodes a body that its header names.
///
/// # Errors
/// [`FrameError::Body`].
pub(crate) fn open_body(header: ConsensusHeader, bytes: &[u8], known: Known<'_>) -> Result<Block, FrameError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(codec::decode_body(header, bytes, known, threads)?)
}

/// Splits a part with its length in front off `bytes`.
pub(crate) fn take_part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], FrameError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(FrameError::Cut)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (part, rest) = rest.split_at_checked(length).ok_or(FrameError::Cut)?;
    *bytes = rest;
    Ok(part)
}

/// Frames with transactions, each with its length in front; none longer than its lane allows.
pub(crate) fn batches<'a>(transactions: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut frames, mut batch) = (Vec::new(), Vec::new());
    for transaction in transactions {
        part(&mut batch, transaction);
        if batch.len() >= BATCH_BYTES_MAX {
            frames.push(frame(Kind::Transactions, &[&batch]));
            batch.clear();
        }
    }
    if !batch.is_empty() {
        frames.push(frame(Kind::Transactions, &[&batch]));
    }
    frames
}

/// The transactions of a batch.
///
/// # Errors
/// [`FrameError::Cut`] where a length leads past the end.
pub fn decode_batch(mut bytes: &[u8]) -> Result<Vec<Bytes>, FrameError> {
    let mut transactions = Vec::new();
    while !bytes.is_empty() {
        transactions.push(Bytes::copy_from_slice(take_part(&mut bytes)?));
    }
    Ok(transactions)
}

/// A frame with a share of what this key names: a body, whose key is its block's id, or a list.
pub(crate) fn share_frame(kind: Kind, key: B256, share: &Share) -> Vec<u8> {
    frame(kind, &[key.as_slice(), &share.encoded()])
}

/// A frame that tells what the shares of an access list come to.
pub(crate) fn notice_frame(notice: &ListNotice) -> Vec<u8> {
    frame(Kind::ListNotice, &[&alloy_rlp::encode(notice)])
}

/// What the shares of an access list come to.
///
/// # Errors
/// [`FrameError::Content`].
pub fn decode_notice(payload: &[u8]) -> Result<ListNotice, FrameError> {
    Ok(alloy_rlp::decode_exact(payload)?)
}

/// What is wished for of a state.
///
/// # Errors
/// [`FrameError::Content`].
pub fn decode_wish(payload: &[u8]) -> Result<StateWish, FrameError> {
    Ok(alloy_rlp::decode_exact(payload)?)
}

/// What names a share, and the share.
///
/// # Errors
/// [`FrameError::Cut`] and [`FrameError::Content`].
pub fn decode_share(payload: &Bytes) -> Result<(B256, Share), FrameError> {
    let (key, _) = payload.split_first_chunk::<KEY_BYTES>().ok_or(FrameError::Cut)?;
    Ok((B256::from(*key), Share::decode_exact(&payload.slice(KEY_BYTES..))?))
}

/// Records of a frame, one behind the other.
///
/// # Errors
/// [`FrameError::Content`], also for more than 32.
pub fn decode_records(mut bytes: &[u8]) -> Result<Vec<NodeRecord>, FrameError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        if records.len() == RECORDS_PER_FRAME_MAX {
            return Err(alloy_rlp::Error::Custom("a frame with too many node records").into());
        }
        records.push(NodeRecord::decode(&mut bytes)?);
    }
    Ok(records)
}
