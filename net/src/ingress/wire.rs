//! Bytes on the wire between clients and nodes, as `docs/quic.md` tells them to everybody.
//!
//! ```text
//! submissions  (u32 length | transaction)*            one way, from the client; as many streams as it is allowed
//! events       (u32 length | u8 kind | payload)*      one way, from the node; one stream, for the connection's life
//! question     u8 kind | payload                      both ways; answered by events
//! ```
//!
//! Integers come big end first. A length is that of what follows it. Events of a kind that a client does not know are
//! to be skipped.

use alloy_primitives::{Address, B256, Bytes, Log};
use alloy_rlp::{Decodable as _, Encodable as _, RlpDecodable, RlpEncodable};
use engine::{
    admission::AdmissionError,
    events::DropReason,
    limits::TRANSACTION_BYTES_MAX,
    types::{LogFilter, Receipt},
};

/// The version that [`Event::Welcome`] tells.
pub const VERSION: u8 = 1;

/// Bytes of a length.
pub const LENGTH_BYTES: usize = 4;

/// Longest event: a receipt has as many logs as its gas pays for.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Hashes in one question.
pub const QUESTION_HASHES_MAX: usize = 1_024;

/// Topics of a log.
const TOPICS_MAX: usize = 4;

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 1 + 32 * QUESTION_HASHES_MAX;

/// Why bytes are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A transaction without bytes, or of more than the pool takes.
    #[error("a transaction of {0} bytes, where 1 to {TRANSACTION_BYTES_MAX} are allowed")]
    Length(usize),
    /// An event that is longer than any.
    #[error("an event of {0} bytes, where {EVENT_BYTES_MAX} are allowed")]
    Event(usize),
    /// An event whose payload is not what its kind says.
    #[error("an event of kind {0} that does not decode")]
    Payload(u8),
    /// A question of another kind, or that does not decode.
    #[error("a question that is none")]
    Question,
}

/// Cuts the bytes of a stream into what stands behind each length; memory grows as bytes arrive.
#[derive(Debug)]
pub struct Cutter {
    length_max: usize,
    /// What has come of a length and of what stands behind it, if the rest has not.
    begun: Vec<u8>,
}

impl Cutter {
    /// Of a stream whose pieces have at least one byte and at most so many.
    #[must_use]
    pub const fn new(length_max: usize) -> Self {
        Self { length_max, begun: Vec::new() }
    }

    /// Bytes of a piece that has begun and not ended.
    #[must_use]
    pub const fn begun_bytes(&self) -> usize {
        self.begun.len()
    }

    /// Takes bytes off the front of `arrived`: the next piece, `None` if it is not whole yet.
    ///
    /// # Errors
    /// The length of a piece that no stream may have.
    pub fn next(&mut self, arrived: &mut &[u8]) -> Result<Option<Bytes>, usize> {
        if self.begun.is_empty()
            && let Some((head, rest)) = arrived.split_first_chunk::<LENGTH_BYTES>()
            && let Some((piece, rest)) = rest.split_at_checked(self.length(*head)?)
        {
            *arrived = rest;
            return Ok(Some(Bytes::copy_from_slice(piece)));
        }
        self.fill(LENGTH_BYTES, arrived);
        let Some(head) = self.begun.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let whole = self.length(*head)?.saturating_add(LENGTH_BYTES);
        self.fill(whole, arrived);
        if self.begun.len() < whole {
            return Ok(None);
        }
        let piece = Bytes::copy_from_slice(self.begun.get(LENGTH_BYTES..).unwrap_or_default());
        self.begun = Vec::new();
        Ok(Some(piece))
    }

    fn length(&self, head: [u8; LENGTH_BYTES]) -> Result<usize, usize> {
        let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if (1..=self.length_max).contains(&length) { Ok(length) } else { Err(length) }
    }

    /// Takes bytes until `target` are there.
    fn fill(&mut self, target: usize, arrived: &mut &[u8]) {
        let missing = target.saturating_sub(self.begun.len()).min(arrived.len());
        let (taken, rest) = arrived.split_at(missing);
        self.begun.extend_from_slice(taken);
        *arrived = rest;
    }
}

/// Appends a piece with its length.
pub fn put(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(piece);
}

/// Where a transaction was included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// Height of the block.
    pub height: u64,
    /// Place in it.
    pub index: u32,
    /// Hash of its header.
    pub block: B256,
    /// Whether the outermost call succeeded.
    pub success: bool,
    /// Gas used, after refunds.
    pub gas_used: u64,
    /// What each unit of it cost, in wei.
    pub gas_price: u128,
    /// The contract that was made.
    pub contract: Option<Address>,
    /// Logs in order of emission.
    pub logs: Vec<Log>,
}

impl Included {
    /// What a receipt says of the transaction at a place.
    #[must_use]
    pub fn of(receipt: &Receipt, (height, index, block): (u64, u32, B256), gas_price: u128) -> Self {
        let Receipt { success, gas_used, contract, logs, .. } = receipt;
        let (success, gas_used, contract, logs) = (*success, *gas_used, *contract, logs.clone());
        Self { height, index, block, success, gas_used, gas_price, contract, logs }
    }
}

/// Where a transaction will be included, unless the slot of its block is skipped after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notarized {
    /// Height of the block.
    pub height: u64,
    /// Place in it.
    pub index: u32,
    /// Hash of its header.
    pub block: B256,
    /// Whether the outermost call succeeded.
    pub success: bool,
}

/// What a node tells a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first event of a connection.
    Welcome {
        /// Version of the events.
        version: u8,
        /// Chain id.
        chain_id: u64,
        /// Height of the newest durable block.
        height: u64,
        /// Transactions of this connection that may be on their way into the pool; more are not read.
        window: u32,
        /// Transactions of this connection that may be waiting to be included; more are refused.
        outstanding: u32,
    },
    /// It is in the pool.
    Admitted(B256),
    /// It is not in the pool, for this reason.
    Refused(B256, Reason),
    /// It is included in a block that a quorum has notarized and that was executed here; not final yet.
    Notarized(B256, Notarized),
    /// It is included in a block that is final and durable here.
    Final(B256, Included),
    /// It was in the pool, is there no more, and was not included.
    Dropped(B256, Reason),
    /// It is neither in the pool nor included.
    Unknown(B256),
    /// A block is final and durable here.
    Head(Head),
    /// A log of such a block.
    Log(FoundLog),
}

/// A block, for who follows the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height.
    pub height: u64,
    /// Hash of its header.
    pub hash: B256,
    /// That of the block below.
    pub parent: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Gas that it used.
    pub gas_used: u64,
    /// Gas that it could have used.
    pub gas_limit: u64,
    /// What each unit of gas costs at least, in wei.
    pub base_fee: u64,
    /// How many transactions it includes.
    pub transactions: u32,
}

/// A log, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// Height of the block.
    pub height: u64,
    /// Hash of its header.
    pub block: B256,
    /// Hash of the transaction.
    pub transaction: B256,
    /// Its place in the block.
    pub index: u32,
    /// The log's place in the block.
    pub log_index: u32,
    /// The log.
    pub log: Log,
}

/// Why a transaction did not make it: a number for programs, words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The number; those of refusals are below 100.
    pub code: u16,
    /// The words.
    pub text: String,
}

/// The code of [`Reason`] where a connection has too many transactions waiting.
pub const OUTSTANDING: u16 = 50;

/// Code of a refusal: of this client too many transactions were refused once their senders were recovered.
pub const FAULTS: u16 = 51;

/// The code of [`Reason`] where a transaction is dropped because one of its nonce that pays more took its place.
pub const REPLACED: u16 = 100;

impl From<&AdmissionError> for Reason {
    fn from(error: &AdmissionError) -> Self {
        let code = match error {
            AdmissionError::Malformed(_) => 1,
            AdmissionError::Oversized { .. } => 2,
            AdmissionError::TypeNotSupported(_) => 3,
            AdmissionError::Unprotected => 4,
            AdmissionError::WrongChain { .. } => 5,
            AdmissionError::GasAboveBlock { .. } => 6,
            AdmissionError::GasAboveCap { .. } => 7,
            AdmissionError::IntrinsicGas { .. } => 8,
            AdmissionError::FloorGas { .. } => 9,
            AdmissionError::InitCode { .. } => 10,
            AdmissionError::TipAboveFee { .. } => 11,
            AdmissionError::Underpriced { .. } => 12,
            AdmissionError::EmptyAuthorizations => 13,
            AdmissionError::AlreadyKnown => 14,
            AdmissionError::NonceTooLow { .. } => 15,
            AdmissionError::NonceMax(_) => 16,
            AdmissionError::NonceTooFar { .. } => 17,
            AdmissionError::InsufficientFunds { .. } => 18,
            AdmissionError::SenderHasCode(_) => 19,
            AdmissionError::ReplacementUnderpriced => 20,
            AdmissionError::DelegatedLimit => 21,
            AdmissionError::SenderLimit(_) => 22,
            AdmissionError::SenderTooSlow { .. } => 23,
            AdmissionError::PoolFull => 24,
            AdmissionError::State(_) => 25,
            AdmissionError::Closed => 26,
        };
        Self { code, text: error.to_string() }
    }
}

impl From<DropReason> for Reason {
    fn from(reason: DropReason) -> Self {
        let code = match reason {
            DropReason::Replaced(_) => REPLACED,
            DropReason::NonceUsed => 101,
            DropReason::Evicted => 102,
            DropReason::Expired => 103,
            DropReason::TooSlow => 104,
        };
        Self { code, text: reason.to_string() }
    }
}

impl Event {
    const fn kind(&self) -> u8 {
        match self {
            Self::Welcome { .. } => 0,
            Self::Admitted(_) => 1,
            Self::Refused(..) => 2,
            Self::Notarized(..) => 3,
            Self::Final(..) => 4,
            Self::Dropped(..) => 5,
            Self::Unknown(_) => 6,
            Self::Head(_) => 7,
            Self::Log(_) => 8,
        }
    }

    /// Appends the event with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.push(self.kind());
        match self {
            Self::Welcome { version, chain_id, height, window, outstanding } => {
                out.push(*version);
                out.extend_from_slice(&chain_id.to_be_bytes());
                out.extend_from_slice(&height.to_be_bytes());
                out.extend_from_slice(&window.to_be_bytes());
                out.extend_from_slice(&outstanding.to_be_bytes());
            }
            Self::Admitted(hash) | Self::Unknown(hash) => out.extend_from_slice(hash.as_slice()),
            Self::Refused(hash, reason) | Self::Dropped(hash, reason) => {
                out.extend_from_slice(hash.as_slice());
                out.extend_from_slice(&reason.code.to_be_bytes());
                out.extend_from_slice(reason.text.as_bytes());
            }
            Self::Notarized(hash, Notarized { height, index, block, success }) => {
                out.extend_from_slice(hash.as_slice());
                out.extend_from_slice(&height.to_be_bytes());
                out.extend_from_slice(&index.to_be_bytes());
                out.extend_from_slice(block.as_slice());
                out.push(u8::from(*success));
            }
            Self::Final(hash, included) => {
                out.extend_from_slice(hash.as_slice());
                included.encode(out);
            }
            Self::Head(head) => head.encode(out),
            Self::Log(found) => found.encode(out),
        }
        let length = out.len().saturating_sub(start).saturating_sub(LENGTH_BYTES);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(head) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *head = length;
        }
    }

    /// Reads what stands behind a length; `None` if it is of a kind that is not known here.
    ///
    /// # Errors
    /// [`WireError::Payload`].
    pub fn decode(piece: &[u8]) -> Result<Option<Self>, WireError> {
        let Some((kind, payload)) = piece.split_first() else { return Err(WireError::Payload(u8::MAX)) };
        let mut fields = Fields(payload);
        let event = match kind {
            0 => fields.welcome(),
            1 => fields.hash().map(Self::Admitted),
            2 => fields.reason().map(|(hash, reason)| Self::Refused(hash, reason)),
            3 => fields.hash().and_then(|hash| Some(Self::Notarized(hash, fields.notarized()?))),
            4 => fields.hash().and_then(|hash| Some(Self::Final(hash, fields.included()?))),
            5 => fields.reason().map(|(hash, reason)| Self::Dropped(hash, reason)),
            6 => fields.hash().map(Self::Unknown),
            7 => fields.head().map(Self::Head),
            8 => fields.log().map(Self::Log),
            _ => return Ok(None),
        };
        // What later versions add stands behind what is known.
        event.map(Some).ok_or(WireError::Payload(*kind))
    }

    /// The transaction that it is about.
    #[must_use]
    pub const fn hash(&self) -> Option<B256> {
        match self {
            Self::Welcome { .. } | Self::Head(_) | Self::Log(_) => None,
            Self::Admitted(hash)
            | Self::Refused(hash, _)
            | Self::Notarized(hash, _)
            | Self::Final(hash, _)
            | Self::Dropped(hash, _)
            | Self::Unknown(hash) => Some(*hash),
        }
    }

    /// Whether it is the last one about a transaction.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::Final(..) | Self::Dropped(..) | Self::Unknown(_))
    }
}

impl Included {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(self.block.as_slice());
        out.push(u8::from(self.success));
        out.extend_from_slice(&self.gas_used.to_be_bytes());
        out.extend_from_slice(&self.gas_price.to_be_bytes());
        out.push(u8::from(self.contract.is_some()));
        if let Some(contract) = self.contract {
            out.extend_from_slice(contract.as_slice());
        }
        self.logs.encode(out);
    }
}

impl Head {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(self.hash.as_slice());
        out.extend_from_slice(self.parent.as_slice());
        for number in [self.timestamp, self.gas_used, self.gas_limit, self.base_fee] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.transactions.to_be_bytes());
    }
}

impl FoundLog {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(self.block.as_slice());
        out.extend_from_slice(self.transaction.as_slice());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.log_index.to_be_bytes());
        self.log.encode(out);
    }
}

/// Reads fields off the front of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn hash(&mut self) -> Option<B256> {
        self.take().map(B256::new)
    }

    fn flag(&mut self) -> Option<bool> {
        let [byte] = self.take()?;
        (byte < 2).then_some(byte == 1)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn welcome(&mut self) -> Option<Event> {
        let [version] = self.take()?;
        let (chain_id, height) = (self.u64()?, self.u64()?);
        Some(Event::Welcome { version, chain_id, height, window: self.u32()?, outstanding: self.u32()? })
    }

    fn reason(&mut self) -> Option<(B256, Reason)> {
        let (hash, code) = (self.hash()?, u16::from_be_bytes(self.take()?));
        let text = std::str::from_utf8(self.0).ok()?.to_owned();
        Some((hash, Reason { code, text }))
    }

    fn head(&mut self) -> Option<Head> {
        let (height, hash, parent) = (self.u64()?, self.hash()?, self.hash()?);
        let (timestamp, gas_used, gas_limit, base_fee) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let transactions = self.u32()?;
        Some(Head { height, hash, parent, timestamp, gas_used, gas_limit, base_fee, transactions })
    }

    fn log(&mut self) -> Option<FoundLog> {
        let (height, block, transaction) = (self.u64()?, self.hash()?, self.hash()?);
        let (index, log_index) = (self.u32()?, self.u32()?);
        let log = Log::decode(&mut self.0).ok()?;
        Some(FoundLog { height, block, transaction, index, log_index, log })
    }

    fn notarized(&mut self) -> Option<Notarized> {
        let (height, index) = (self.u64()?, self.u32()?);
        Some(Notarized { height, index, block: self.hash()?, success: self.flag()? })
    }

    fn included(&mut self) -> Option<Included> {
        let (height, index, block, success) = (self.u64()?, self.u32()?, self.hash()?, self.flag()?);
        let (gas_used, gas_price) = (self.u64()?, u128::from_be_bytes(self.take()?));
        let contract = if self.flag()? { Some(Address::new(self.take()?)) } else { None };
        let logs = Vec::<Log>::decode(&mut self.0).ok()?;
        Some(Included { height, index, block, success, gas_used, gas_price, contract, logs })
    }
}

/// What a client asks on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What became of these transactions; answered by an event for each.
    Transactions(Vec<B256>),
    /// Blocks from now on, as [`Event::Head`], until the client stops the stream.
    Heads,
    /// Logs of blocks from now on, as [`Event::Log`], until the client stops the stream.
    Logs(LogFilter),
}

/// A filter on the wire.
#[derive(RlpDecodable, RlpEncodable)]
struct FilterLists {
    addresses: Vec<Address>,
    topics: Vec<Vec<B256>>,
}

impl Question {
    /// Its bytes; the end of the stream follows them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Transactions(hashes) => std::iter::once(1).chain(hashes.iter().flat_map(|hash| hash.0)).collect(),
            Self::Heads => vec![2],
            Self::Logs(filter) => {
                let addresses = filter.addresses.iter().copied().collect();
                let topics = filter.topics.iter().map(|position| position.iter().copied().collect()).collect();
                let mut out = vec![3];
                FilterLists { addresses, topics }.encode(&mut out);
                out
            }
        }
    }

    /// Reads what [`Self::encode`] makes.
    ///
    /// # Errors
    /// [`WireError::Question`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > QUESTION_BYTES_MAX {
            return Err(WireError::Question);
        }
        match bytes.split_first() {
            Some((1, hashes)) if !hashes.is_empty() && hashes.len().is_multiple_of(32) => {
                let (hashes, _) = hashes.as_chunks::<32>();
                Ok(Self::Transactions(hashes.iter().map(|hash| B256::new(*hash)).collect()))
            }
            Some((2, [])) => Ok(Self::Heads),
            Some((3, mut rest)) => {
                let lists = FilterLists::decode(&mut rest).map_err(|_| WireError::Question)?;
                if !rest.is_empty() || lists.topics.len() > TOPICS_MAX {
                    return Err(WireError::Question);
                }
                let topics = lists.topics.into_iter().map(|position| position.into_iter().collect()).collect();
                Ok(Self::Logs(LogFilter { addresses: lists.addresses.into_iter().collect(), topics }))
            }
            _ => Err(WireError::Question),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{LogData, hex};

    use super::*;

    fn events() -> Vec<(Event, String)> {
        let (hash, h) = (B256::repeat_byte(0xaa), "aa".repeat(32));
        let included = Included {
            height: 7,
            index: 2,
            block: B256::repeat_byte(0xbb),
            success: true,
            gas_used: 21_000,
            gas_price: 9,
            contract: Some(Address::repeat_byte(0xcc)),
            logs: vec![Log {
                address: Address::repeat_byte(0xdd),
                data: LogData::new_unchecked(vec![hash], "0x01".parse().unwrap()),
            }],
        };
        let plain = Included { contract: None, logs: Vec::new(), success: false, ..included };
        let reason = |code, text: &str| Reason { code, text: text.to_owned() };
        let place = format!("{h}000000000000000700000002{}", "bb".repeat(32));
        let cost = format!("0000000000005208{:032x}", 9);
        let log = format!("f83894{}e1a0{h}01", "dd".repeat(20));
        let numbers: String = [1_u64, 2, 3, 4].map(|number| format!("{number:016x}")).concat();
        let head = Head {
            height: 7,
            hash,
            parent: hash,
            timestamp: 1,
            gas_used: 2,
            gas_limit: 3,
            base_fee: 4,
            transactions: 5,
        };
        let found = FoundLog {
            height: 7,
            block: hash,
            transaction: hash,
            index: 2,
            log_index: 3,
            log: included.logs[0].clone(),
        };
        vec![
            (
                Event::Welcome { version: 1, chain_id: 9, height: 5, window: 128, outstanding: 256 },
                "0000001a0001000000000000000900000000000000050000008000000100".to_owned(),
            ),
            (Event::Admitted(hash), format!("0000002101{h}")),
            (Event::Refused(hash, reason(24, "full")), format!("0000002702{h}001866756c6c")),
            (
                Event::Notarized(
                    hash,
                    Notarized { height: 7, index: 2, block: B256::repeat_byte(0xbb), success: true },
                ),
                format!("0000004e03{place}01"),
            ),
            (Event::Final(hash, included), format!("000000b704{place}01{cost}01{}f83a{log}", "cc".repeat(20))),
            (Event::Final(hash, plain), format!("0000006804{place}00{cost}00c0")),
            (Event::Dropped(hash, reason(101, "")), format!("0000002305{h}0065")),
            (Event::Unknown(hash), format!("0000002106{h}")),
            (Event::Head(head), format!("0000006d070000000000000007{h}{h}{}00000005", numbers)),
            (Event::Log(found), format!("0000008b080000000000000007{h}{h}0000000200000003{log}")),
        ]
    }

    /// Clients in other languages read these bytes.
    #[test]
    fn events_keep_their_bytes() {
        for (event, bytes) in events() {
            let mut out = Vec::new();
            event.encode(&mut out);
            assert_eq!(hex::encode(&out), bytes, "{event:?}");
            assert_eq!(Event::decode(&out[LENGTH_BYTES..]), Ok(Some(event.clone())));
            // What a later version adds is skipped, what is missing is told.
            out.push(0xc0);
            let longer = Event::decode(&out[LENGTH_BYTES..]);
            assert!(longer.is_ok() || matches!(event, Event::Refused(..) | Event::Dropped(..)), "{longer:?}");
            for length in LENGTH_BYTES..LENGTH_BYTES + 26 {
                assert!(Event::decode(&out[LENGTH_BYTES..length]).is_err(), "{event:?} of {length} bytes");
            }
        }
        assert_eq!(Event::decode(&[99, 1, 2]), Ok(None));
        assert_eq!(Event::decode(&[]), Err(WireError::Payload(255)));
        assert_eq!(Event::decode(&[4, 0]), Err(WireError::Payload(4)));
    }

    #[test]
    fn a_stream_gives_the_same_pieces_however_it_is_cut() {
        let pieces: Vec<Vec<u8>> = (1..40_u8).map(|length| vec![length; usize::from(length) * 7 % 50 + 1]).collect();
        let mut whole = Vec::new();
        pieces.iter().for_each(|piece| put(&mut whole, piece));
        for size in 1..60 {
            let (mut cutter, mut found) = (Cutter::new(64), Vec::new());
            for chunk in whole.chunks(size) {
                let mut arrived = chunk;
                while let Some(piece) = cutter.next(&mut arrived).unwrap() {
                    found.push(piece.to_vec());
                }
                assert!(arrived.is_empty(), "all is taken");
            }
            assert!(found == pieces && cutter.begun_bytes() == 0, "chunks of {size}");
        }
    }

    #[test]
    fn lengths_that_no_piece_has_are_refused_before_memory_is_taken() {
        for (length, is_allowed) in [(0_u32, false), (1, true), (64, true), (65, false), (u32::MAX, false)] {
            for cut in 1..=LENGTH_BYTES {
                let (mut cutter, head) = (Cutter::new(64), length.to_be_bytes());
                let (mut first, mut second) = head.split_at(cut);
                let outcome = cutter.next(&mut first).and_then(|_| cutter.next(&mut second));
                let refused = Err(usize::try_from(length).unwrap());
                assert_eq!(outcome, if is_allowed { Ok(None) } else { refused }, "{length} cut at {cut}");
                assert!(cutter.begun.capacity() < 64);
            }
        }
    }

    #[test]
    fn questions_keep_their_bytes_and_have_no_others() {
        let (hash, address) = (B256::repeat_byte(1), Address::repeat_byte(2));
        let filter = LogFilter {
            addresses: [address].into_iter().collect(),
            topics: vec![Default::default(), [hash].into_iter().collect()],
        };
        let whole = Question::Transactions(vec![hash; QUESTION_HASHES_MAX]);
        assert_eq!(whole.encode().len(), QUESTION_BYTES_MAX);
        let (a, h) = ("02".repeat(20), "01".repeat(32));
        let filtered = format!("03f83ad594{a}e3c0e1a0{h}");
        for (question, bytes) in [
            (Question::Transactions(vec![hash]), format!("01{h}")),
            (Question::Heads, "02".to_owned()),
            (Question::Logs(LogFilter::default()), "03c2c0c0".to_owned()),
            (Question::Logs(filter), filtered),
            (whole.clone(), hex::encode(whole.encode())),
        ] {
            assert_eq!(hex::encode(question.encode()), bytes);
            assert_eq!(Question::decode(&question.encode()), Ok(question));
        }
        let more = Question::Transactions(vec![hash; QUESTION_HASHES_MAX + 1]).encode();
        let five = [&[3, 0xc7, 0xc0, 0xc5][..], &[0xc0; 5]].concat();
        for bad in
            [&[][..], &[1], &[9; 33], &[1; 34], &[2, 0], &[3], &[3, 0xc0], &[3, 0xc2, 0xc0, 0xc0, 0], &five, &more]
        {
            assert_eq!(Question::decode(bad), Err(WireError::Question), "{bad:02x?}");
        }
    }

    #[test]
    fn codes_of_reasons_are_different_and_refusals_come_below_100() {
        let drops = [
            DropReason::Replaced(B256::ZERO),
            DropReason::NonceUsed,
            DropReason::Evicted,
            DropReason::Expired,
            DropReason::TooSlow,
        ];
        let codes: Vec<u16> = drops.into_iter().map(|reason| Reason::from(reason).code).collect();
        assert_eq!(codes, [100, 101, 102, 103, 104]);
        assert_eq!(Reason::from(&AdmissionError::PoolFull).code, 24);
    }
}
