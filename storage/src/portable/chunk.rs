//! One chunk of a snapshot: a range of accounts, or of one account's slots, that proves itself under the state root.
//!
//! ```text
//! chunk      magic "SLUICSNC" | major u16 | minor u16 | state root 32 | kind u8 | body
//! accounts   from 32 | rows u32 | row.. | codes u32 | code.. | proof            kind 0
//! slots      owner row | proof | from 32 | rows u32 | slot.. | proof             kind 1
//! row        hashed address 32 | flags u8 | nonce u64 | balance length u8, bytes | code hash 32
//!            | slots u32, slot.. | storage root 32
//! slot       hashed key 32 | value length u8, bytes
//! code       length u32 | bytes
//! proof      nodes u16 | length u16, bytes, of each
//! ```
//!
//! Flags of a row say which of its fields follow: 1 nonce, 2 balance, 4 code hash, 8 slots, 16 storage root. An account
//! whose slots fit travels with all of them, and its storage root is what they make; that of a large one is named, and
//! its slots come in chunks of their own, each with the account and the nodes that prove it. Codes are those that the
//! rows name, each once, in order of hash. Integers are big-endian, without leading zeros where a length stands before
//! them, so that a chunk has one encoding. A range goes from `from` to its last row; one without rows to the end.

use std::collections::BTreeSet;

use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use engine::types::Account;

use super::manifest::Part;
use crate::{
    tables::Fields,
    trie::{
        fold::fold,
        range::{RangeError, check},
        state::{AccountLeaf, StorageTrie},
    },
};

const MAGIC: &[u8; 8] = b"SLUICSNC";
const VERSION: (u16, u16) = (1, 0);
/// Bytes of the smallest row.
const ROW_BYTES_MIN: usize = 33;

/// Accounts of one chunk whose slots do not fit: each takes a quarter of it.
pub(super) const APART_MAX: usize = 4;

/// Why a chunk is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes are no chunk.
    #[error("it does not decode: {0}")]
    Encoding(&'static str),
    /// It belongs to another state.
    #[error("it is of the state with root {found}, not {expected}")]
    Root {
        /// The snapshot's.
        expected: B256,
        /// The chunk's.
        found: B256,
    },
    /// Its rows are not those of the state.
    #[error("it does not prove itself: {0}")]
    Range(String),
    /// The account whose slots it has is not the state's.
    #[error("its account {0} does not prove itself: {1}")]
    Owner(B256, String),
    /// A code is missing.
    #[error("code {0} of an account is missing")]
    NoCode(B256),
    /// It puts off the slots of more accounts than it need.
    #[error("it has the slots of {0} accounts apart, at most {APART_MAX} need that")]
    Apart(usize),
    /// A code that no account names.
    #[error("code {0} is no account's")]
    StrayCode(B256),
}

/// A hashed key and its value, which is not zero.
pub(crate) type Slot = (B256, U256);

/// What storage an account has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// All of its slots, perhaps none.
    Here(Vec<Slot>),
    /// Its root: the slots are in other chunks.
    Apart(B256),
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: B256,
    pub(crate) account: Account,
    pub(crate) storage: Storage,
}

/// A range of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) from: B256,
    pub(crate) rows: Vec<Row>,
    pub(crate) codes: Vec<Bytes>,
    pub(crate) proof: Vec<Bytes>,
}

/// A range of one account's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) owner: Row,
    pub(crate) owner_proof: Vec<Bytes>,
    pub(crate) from: B256,
    pub(crate) rows: Vec<Slot>,
    pub(crate) proof: Vec<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Accounts(Accounts),
    Slots(Slots),
}

/// A chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub(crate) root: B256,
    pub(crate) body: Body,
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a chunk has less than 4 GiB").to_be_bytes()
}

/// Bytes that a slot takes in a chunk.
pub(crate) fn slot_size((_, value): &Slot) -> usize {
    value.byte_len().saturating_add(33)
}

fn put_value(out: &mut Vec<u8>, value: &U256) {
    let bytes = value.to_be_bytes_trimmed_vec();
    out.push(u8::try_from(bytes.len()).expect("a word has at most 32 bytes"));
    out.extend_from_slice(&bytes);
}

fn put_slots(out: &mut Vec<u8>, slots: &[Slot]) {
    out.extend_from_slice(&count(slots.len()));
    for (key, value) in slots {
        out.extend_from_slice(key.as_slice());
        put_value(out, value);
    }
}

fn put_proof(out: &mut Vec<u8>, nodes: &[Bytes]) {
    let small =
        |length: usize| u16::try_from(length).expect("a node has some 600 bytes, a path 64 nodes").to_be_bytes();
    out.extend_from_slice(&small(nodes.len()));
    for node in nodes {
        out.extend_from_slice(&small(node.len()));
        out.extend_from_slice(node);
    }
}

impl Row {
    /// Bytes that it takes in a chunk, its code not among them.
    pub(crate) fn size(&self) -> usize {
        let Account { nonce, balance, code_hash } = &self.account;
        let nonce = if *nonce == 0 { 0 } else { 8 };
        let balance = if balance.is_zero() { 0 } else { balance.byte_len().saturating_add(1) };
        let code_hash = if *code_hash == KECCAK256_EMPTY { 0 } else { 32 };
        let storage = match &self.storage {
            Storage::Here(slots) => slots.iter().fold(4, |sum: usize, slot| sum.saturating_add(slot_size(slot))),
            Storage::Apart(_) => 32,
        };
        ROW_BYTES_MIN.saturating_add(nonce + balance + code_hash).saturating_add(storage)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_slice());
        let (flags_at, mut flags) = (out.len(), 0);
        out.push(0);
        if self.account.nonce != 0 {
            flags |= 1;
            out.extend_from_slice(&self.account.nonce.to_be_bytes());
        }
        if !self.account.balance.is_zero() {
            flags |= 2;
            put_value(out, &self.account.balance);
        }
        if self.account.code_hash != KECCAK256_EMPTY {
            flags |= 4;
            out.extend_from_slice(self.account.code_hash.as_slice());
        }
        match &self.storage {
            Storage::Here(slots) if slots.is_empty() => {}
            Storage::Here(slots) => {
                flags |= 8;
                put_slots(out, slots);
            }
            Storage::Apart(root) => {
                flags |= 16;
                out.extend_from_slice(root.as_slice());
            }
        }
        out[flags_at] = flags;
    }

    /// The leaf that the state's trie has for it.
    fn leaf(&self) -> AccountLeaf {
        let hash = match &self.storage {
            Storage::Apart(root) => *root,
            Storage::Here(slots) => fold(0, slots).map_or(EMPTY_ROOT_HASH, |reference| reference.root_hash()),
        };
        AccountLeaf { account: self.account, storage: StorageTrie { hash, ..StorageTrie::default() } }
    }
}

impl Chunk {
    /// The root of the state that it says it is of.
    #[must_use]
    pub const fn root(&self) -> B256 {
        self.root
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.0.to_be_bytes());
        out.extend_from_slice(&VERSION.1.to_be_bytes());
        out.extend_from_slice(self.root.as_slice());
        match &self.body {
            Body::Accounts(accounts) => {
                out.push(0);
                out.extend_from_slice(accounts.from.as_slice());
                out.extend_from_slice(&count(accounts.rows.len()));
                accounts.rows.iter().for_each(|row| row.put(&mut out));
                out.extend_from_slice(&count(accounts.codes.len()));
                for code in &accounts.codes {
                    out.extend_from_slice(&count(code.len()));
                    out.extend_from_slice(code);
                }
                put_proof(&mut out, &accounts.proof);
            }
            Body::Slots(slots) => {
                out.push(1);
                slots.owner.put(&mut out);
                put_proof(&mut out, &slots.owner_proof);
                out.extend_from_slice(slots.from.as_slice());
                put_slots(&mut out, &slots.rows);
                put_proof(&mut out, &slots.proof);
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote; what decodes has this one encoding.
    ///
    /// # Errors
    /// [`ChunkError::Encoding`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut reader = Reader(Fields(bytes));
        let chunk = reader.chunk().map_err(ChunkError::Encoding)?;
        if reader.0.0.is_empty() { Ok(chunk) } else { Err(ChunkError::Encoding("bytes behind its end")) }
    }

    /// Checks that its rows are those of the state with this root, all of them from its first key to its last.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn check(&self, root: B256) -> Result<Checked, ChunkError> {
        if self.root != root {
            return Err(ChunkError::Root { expected: root, found: self.root });
        }
        match &self.body {
            Body::Accounts(accounts) => accounts.check(root),
            Body::Slots(slots) => slots.check(root),
        }
    }
}

fn unproven(error: RangeError) -> ChunkError {
    ChunkError::Range(error.to_string())
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which part of the state the chunk is.
    pub part: Part,
    /// Storage roots of its accounts.
    pub(crate) roots: Vec<B256>,
}

impl Accounts {
    /// Which part of the state it is.
    pub(crate) fn part(&self, ends: bool) -> Part {
        let (mut slots, mut apart) = (0_u64, Vec::new());
        for row in &self.rows {
            match &row.storage {
                Storage::Here(held) => slots = slots.saturating_add(number(held.len())),
                Storage::Apart(_) => apart.push(row.key),
            }
        }
        let (last, rows) = (self.rows.last().map(|row| row.key), number(self.rows.len()));
        Part { owner: None, from: self.from, last, rows, slots, apart, ends }
    }

    fn check(&self, root: B256) -> Result<Checked, ChunkError> {
        // What follows in order of key is all that a trie is made of; slots of each account as well.
        for Row { key, storage, .. } in &self.rows {
            if let Storage::Here(slots) = storage
                && let Some(pair) = slots.windows(2).find(|pair| pair[0].0 >= pair[1].0)
            {
                return Err(ChunkError::Range(format!("slot {} of account {key} is out of order", pair[1].0)));
            }
        }
        let rows: Vec<_> = self.rows.iter().map(|row| (row.key, row.leaf())).collect();
        let goes_on = check(root, self.from, (&rows, &self.proof)).map_err(unproven)?;
        let roots = rows.iter().map(|(_, leaf)| leaf.storage.hash).collect();
        let codes = self.rows.iter().map(|row| row.account.code_hash).filter(|hash| *hash != KECCAK256_EMPTY);
        let mut named: BTreeSet<B256> = codes.collect();
        let mut before = None;
        for code in &self.codes {
            let hash = keccak256(code);
            if !named.remove(&hash) || before.is_some_and(|before| before >= hash) {
                return Err(ChunkError::StrayCode(hash));
            }
            before = Some(hash);
        }
        if let Some(missing) = named.first() {
            return Err(ChunkError::NoCode(*missing));
        }
        Ok(Checked { part: self.part(!goes_on), roots })
    }
}

impl Slots {
    /// Which part of the state it is.
    pub(crate) fn part(&self, ends: bool) -> Part {
        let (last, rows) = (self.rows.last().map(|(last, _)| *last), number(self.rows.len()));
        Part { owner: Some(self.owner.key), from: self.from, last, rows, slots: 0, apart: Vec::new(), ends }
    }

    fn check(&self, root: B256) -> Result<Checked, ChunkError> {
        let Row { key, storage, .. } = &self.owner;
        let Storage::Apart(storage_root) = storage else { return Err(ChunkError::Encoding("an owner with slots")) };
        let owner = check(root, *key, (&[(*key, self.owner.leaf())], &self.owner_proof));
        owner.map_err(|error| ChunkError::Owner(*key, error.to_string()))?;
        let goes_on = check(*storage_root, self.from, (&self.rows, &self.proof)).map_err(unproven)?;
        Ok(Checked { part: self.part(!goes_on), roots: Vec::new() })
    }
}

/// Reads fields of a chunk; errors are what was wrong, in words.
struct Reader<'a>(Fields<'a>);

const SHORT: &str = "it ends too early";

impl Reader<'_> {
    fn chunk(&mut self) -> Result<Chunk, &'static str> {
        if self.0.bytes(MAGIC.len()).ok_or(SHORT)? != MAGIC {
            return Err("it does not begin as one");
        }
        let version = self.0.u16().zip(self.0.u16()).ok_or(SHORT)?;
        if version != VERSION {
            return Err("it has another version");
        }
        let root = self.0.hash().ok_or(SHORT)?;
        let body = match self.0.bytes(1).ok_or(SHORT)?[0] {
            0 => {
                let from = self.0.hash().ok_or(SHORT)?;
                let rows = self.list(ROW_BYTES_MIN, Self::row)?;
                let codes = self.list(4, |reader| {
                    let length = reader.count()?;
                    Ok(Bytes::copy_from_slice(reader.0.bytes(length).ok_or(SHORT)?))
                })?;
                Body::Accounts(Accounts { from, rows, codes, proof: self.proof()? })
            }
            1 => {
                let (owner, owner_proof) = (self.row()?, self.proof()?);
                if !matches!(owner.storage, Storage::Apart(_)) {
                    return Err("its account has no storage apart");
                }
                let from = self.0.hash().ok_or(SHORT)?;
                let rows = self.slots()?;
                Body::Slots(Slots { owner, owner_proof, from, rows, proof: self.proof()? })
            }
            _ => return Err("it is of an unknown kind"),
        };
        Ok(Chunk { root, body })
    }

    fn count(&mut self) -> Result<usize, &'static str> {
        usize::try_from(self.0.u32().ok_or(SHORT)?).map_err(|_| SHORT)
    }

    /// As many items as a number says, each of at least so many bytes.
    fn list<T>(
        &mut self,
        bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        let count = self.count()?;
        if count > self.0.0.len() / bytes_min {
            return Err(SHORT);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// A number that is not zero, without leading zeros.
    fn value(&mut self) -> Result<U256, &'static str> {
        let length = usize::from(self.0.bytes(1).ok_or(SHORT)?[0]);
        let bytes = self.0.bytes(length).ok_or(SHORT)?;
        match bytes.first() {
            None | Some(0) => Err("a number is zero or has leading zeros"),
            Some(_) => U256::try_from_be_slice(bytes).ok_or("a number has more than 32 bytes"),
        }
    }

    fn slots(&mut self) -> Result<Vec<Slot>, &'static str> {
        self.list(34, |reader| Ok((reader.0.hash().ok_or(SHORT)?, reader.value()?)))
    }

    fn row(&mut self) -> Result<Row, &'static str> {
        let key = self.0.hash().ok_or(SHORT)?;
        let flags = self.0.bytes(1).ok_or(SHORT)?[0];
        let has = |bit: u8| flags & bit != 0;
        if flags >= 32 || (has(8) && has(16)) {
            return Err("a row has unknown flags");
        }
        let nonce =
            if has(1) { self.0.u64().filter(|nonce| *nonce != 0).ok_or("a nonce is missing or zero")? } else { 0 };
        let balance = if has(2) { self.value()? } else { U256::ZERO };
        let code_hash = if has(4) { self.0.hash().ok_or(SHORT)? } else { KECCAK256_EMPTY };
        let slots = if has(8) { self.slots()? } else { Vec::new() };
        let root = if has(16) { self.0.hash().ok_or(SHORT)? } else { EMPTY_ROOT_HASH };
        if (has(4) && code_hash == KECCAK256_EMPTY)
            || (has(8) && slots.is_empty())
            || (has(16) && root == EMPTY_ROOT_HASH)
        {
            return Err("a row has a field that it need not have");
        }
        let storage = if has(16) { Storage::Apart(root) } else { Storage::Here(slots) };
        Ok(Row { key, account: Account { nonce, balance, code_hash }, storage })
    }

    fn proof(&mut self) -> Result<Vec<Bytes>, &'static str> {
        let nodes = self.0.u16().ok_or(SHORT)?;
        let node = |fields: &mut Fields<'_>| {
            let length = usize::from(fields.u16()?);
            fields.bytes(length).map(Bytes::copy_from_slice)
        };
        (0..nodes).map(|_| node(&mut self.0).ok_or(SHORT)).collect()
    }
}
