//! What is looked up, and what is found: keys of 16 bytes, and postings in one segment.
//!
//! A key is the front of keccak256 over the folder's salt, a byte for what it stands for, and the thing itself. So keys
//! of all kinds live in one table and are evenly spread; and since nobody outside knows the salt, nobody can make two
//! things that share a key.

use alloy_primitives::{Address, B256, U256, keccak256};
use engine::types::Height;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// Longest thing that a key stands for: a slot of an account, behind the salt and the kind.
const THING_BYTES_MAX: usize = 4 + 1 + 20 + 32;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u128);

/// Where it is; in order of height, then of index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Posting {
    /// Heights above the segment's first one.
    pub(crate) above: u32,
    /// Index within the block; what of, its key says.
    pub(crate) index: u32,
}

impl Posting {
    /// The first there can be.
    pub(crate) const FIRST: Self = Self { above: 0, index: 0 };

    /// A place in a block of a segment that begins with `first`; `None` if no segment holds both.
    pub(crate) fn at(first: Height, height: Height, index: usize) -> Option<Self> {
        let above = u32::try_from(height.0.checked_sub(first.0)?).ok()?;
        Some(Self { above, index: u32::try_from(index).ok()? })
    }

    /// Its height in a segment that begins with `first`.
    pub(crate) fn height(self, first: Height) -> Height {
        Height(first.0.saturating_add(u64::from(self.above)))
    }
}

/// What a key stands for.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Transaction = 1,
    Account = 2,
    Slot = 3,
    Wipe = 4,
    AnyLog = 5,
    LogAddress = 6,
    /// The first of four positions, which follow one another.
    LogTopic = 7,
}

/// Makes the keys of one folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) salt: u32,
}

impl Keys {
    fn key(self, kind: u8, parts: [&[u8]; 2]) -> Key {
        let mut bytes = [0; THING_BYTES_MAX];
        bytes[..4].copy_from_slice(&self.salt.to_be_bytes());
        bytes[4] = kind;
        let mut end = 5;
        for part in parts {
            bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let hash = keccak256(&bytes[..end]);
        Key(u128::from_be_bytes(hash.0.first_chunk().copied().expect("a hash has 32 bytes")))
    }

    /// A transaction; its index in the block.
    pub(crate) fn transaction(self, hash: &B256) -> Key {
        self.key(Kind::Transaction as u8, [hash.as_slice(), &[]])
    }

    /// Blocks that changed an account's nonce, balance or code, made it or ended it.
    pub(crate) fn account(self, address: &Address) -> Key {
        self.key(Kind::Account as u8, [address.as_slice(), &[]])
    }

    /// Blocks that name a slot.
    pub(crate) fn slot(self, address: &Address, key: &U256) -> Key {
        self.key(Kind::Slot as u8, [address.as_slice(), &key.to_be_bytes::<32>()])
    }

    /// Blocks that took all storage of an account, which name none of it.
    pub(crate) fn wipe(self, address: &Address) -> Key {
        self.key(Kind::Wipe as u8, [address.as_slice(), &[]])
    }

    /// Blocks that hold logs.
    pub(crate) fn any_log(self) -> Key {
        self.key(Kind::AnyLog as u8, [&[], &[]])
    }

    /// Logs of an address; their index in the block.
    pub(crate) fn log_address(self, address: &Address) -> Key {
        self.key(Kind::LogAddress as u8, [address.as_slice(), &[]])
    }

    /// Logs with a topic at a position, 3 at most; their index in the block.
    pub(crate) fn log_topic(self, position: u8, topic: &B256) -> Key {
        self.key((Kind::LogTopic as u8).saturating_add(position), [topic.as_slice(), &[]])
    }
}
