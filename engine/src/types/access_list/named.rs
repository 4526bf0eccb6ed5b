//! An access list with the hash that a block names, and the bytes in which it travels.
//!
//! ```text
//! bytes    what the hash is of: rlp(accounts), with wipes rlp([accounts, wipes])
//! packed   size of the bytes (4 bytes, big end first) | the bytes as an LZ4 block
//! ```
//!
//! Promise: what comes from a peer is a list only if its bytes are the ones that a header names. Each step makes sure
//! that the next one is cheap:
//!
//! ```text
//! size that is told  <= what the gas pays for     before memory is taken; and some times what came
//! decompressed       into that much and no more
//! keccak256          == the hash in the header    before anything is decoded
//! words              <= what the gas pays for     before anything is made of them
//! decoded            encodes to the same bytes    so whoever executes may rely on the hash
//! ```
//!
//! How bytes are packed is no rule of the chain: nothing that is signed depends on it.

use std::sync::Arc;

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Decodable as _, Encodable as _, Error, Header};

use super::{AccessList, AccountChanges};
use crate::{limits, types::ExecutedBlock};

/// Bytes of the size in front of a packed list.
const SIZE_BYTES: usize = 4;

/// An access list and its hash.
///
/// Promise: the hash is the list's. So whoever executes along it compares two hashes and computes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedList {
    hash: B256,
    size_bytes: usize,
    list: Arc<AccessList>,
}

/// Why packed bytes are not the list that a header names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// More than is taken of it here: as a block's gas pays for it, as it travels, or as little as it is packed.
    #[error("an access list of {size} bytes where at most {max} are taken")]
    TooLarge {
        /// What it says.
        size: usize,
        /// What is taken.
        max: usize,
    },
    /// Does not decompress to what it says.
    #[error("an access list that does not unpack to the {0} bytes that it says")]
    Packing(usize),
    /// Another list than the header's.
    #[error("an access list with the hash {has} where the header names {named}")]
    Another {
        /// Hash of what came.
        has: B256,
        /// Hash in the header.
        named: B256,
    },
    /// The header names bytes that are no list that gas can pay for.
    #[error("the header names an access list that is none: {0}")]
    Content(Error),
}

impl ListError {
    /// Whether a leader whose header this is cannot be honest; who knows of other bounds than this node may be.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

impl NamedList {
    /// Hashes a list.
    #[must_use]
    pub fn new(list: Arc<AccessList>) -> Self {
        let bytes = list.hashed_bytes();
        Self { hash: keccak256(&bytes), size_bytes: bytes.len(), list }
    }

    /// The list of a block that was built or executed here, whose header names it.
    pub(crate) fn of(executed: &ExecutedBlock) -> Self {
        let list = executed.access_list.clone();
        Self { hash: executed.block.consensus.access_list_hash, size_bytes: list.hashed_length(), list }
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> B256 {
        self.hash
    }

    /// The list.
    #[must_use]
    pub const fn list(&self) -> &Arc<AccessList> {
        &self.list
    }

    /// Bytes that it has unpacked.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The bytes in which it travels.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        pack(&self.list.hashed_bytes())
    }

    /// Opens what a peer sent as the list that a header names, of at most so many bytes; a block's gas pays for so many
    /// items ([`AccessList::items_max`]).
    ///
    /// # Errors
    /// [`ListError`].
    pub fn open(packed: &[u8], named: &B256, bytes_max: usize, items_max: u64) -> Result<Self, ListError> {
        let bytes = unpack(packed, bytes_max.min(AccessList::bytes_max(items_max)))?;
        let has = keccak256(&bytes);
        if has != *named {
            return Err(ListError::Another { has, named: *named });
        }
        count_words(&bytes, AccessList::words_max(items_max)).map_err(ListError::Content)?;
        let list = AccessList::decode_hashed(&bytes).map_err(ListError::Content)?;
        if list.hashed_bytes() != bytes {
            return Err(ListError::Content(Error::Custom("it has another encoding")));
        }
        Ok(Self { hash: has, size_bytes: bytes.len(), list: Arc::new(list) })
    }
}

impl AccessList {
    /// Most bytes of a list with so many items: each with the widest address, key and values.
    #[must_use]
    pub fn bytes_max(items_max: u64) -> usize {
        let items = usize::try_from(items_max).unwrap_or(usize::MAX);
        items.saturating_mul(limits::LIST_ITEM_BYTES_MAX).min(limits::LIST_BYTES_MAX)
    }

    /// Most words of a list with so many items: strings and heads of lists in its RLP.
    fn words_max(items_max: u64) -> usize {
        let items = usize::try_from(items_max).unwrap_or(usize::MAX);
        items.saturating_mul(limits::LIST_ITEM_WORDS_MAX)
    }

    /// The bytes that the hash is of.
    #[must_use]
    pub fn hashed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.wipes.is_empty() {
            self.accounts.encode(&mut out);
        } else {
            self.encode(&mut out);
        }
        out
    }

    /// How many bytes those are.
    fn hashed_length(&self) -> usize {
        if self.wipes.is_empty() { self.accounts.length() } else { self.length() }
    }

    /// Decodes what [`Self::hashed_bytes`] made, and nothing behind it.
    ///
    /// # Errors
    /// Whatever is no list, and bytes behind it.
    pub fn decode_hashed(bytes: &[u8]) -> alloy_rlp::Result<Self> {
        let mut inner = Header::decode_bytes(&mut &*bytes, true)?;
        // The first thing in an account is its address, the first in a list of accounts an account.
        if !inner.is_empty() {
            let mut first = Header::decode_bytes(&mut inner, true)?;
            if first.is_empty() || Header::decode(&mut first)?.list {
                let list = Self::decode_exact(bytes)?;
                let has_wipes = !list.wipes.is_empty();
                return has_wipes.then_some(list).ok_or(Error::Custom("it has no wipes where they would be"));
            }
        }
        let mut rest = bytes;
        let accounts = Vec::<AccountChanges>::decode(&mut rest)?;
        if rest.is_empty() { Ok(Self { accounts, wipes: Vec::new() }) } else { Err(Error::UnexpectedLength) }
    }
}

/// Packs any bytes.
fn pack(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..], lz4_flex::block::compress(bytes).as_slice()].concat()
}

/// Takes apart what was packed, to at most so many bytes and [`limits::LIST_RATIO_MAX`] times what there is.
///
/// # Errors
/// [`ListError::TooLarge`] before memory is taken, and [`ListError::Packing`].
pub fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, ListError> {
    let (size, block) = packed.split_first_chunk::<SIZE_BYTES>().ok_or(ListError::Packing(0))?;
    let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
    let max = bytes_max.min(block.len().saturating_mul(limits::LIST_RATIO_MAX));
    if size > max {
        return Err(ListError::TooLarge { size, max });
    }
    let mut bytes = vec![0; size];
    match lz4_flex::block::decompress_into(block, &mut bytes) {
        Ok(written) if written == size => Ok(bytes),
        _ => Err(ListError::Packing(size)),
    }
}

/// Checks that there are at most so many strings and heads of lists.
fn count_words(mut bytes: &[u8], max: usize) -> alloy_rlp::Result<()> {
    let mut words = 0_usize;
    while !bytes.is_empty() {
        words = words.saturating_add(1);
        if words > max {
            return Err(Error::Custom("it has more in it than gas can pay for"));
        }
        let head = Header::decode(&mut bytes)?;
        if !head.list {
            bytes = bytes.get(head.payload_length..).ok_or(Error::InputTooShort)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
