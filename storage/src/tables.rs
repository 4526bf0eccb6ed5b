//! Every MDBX table: key, value, byte layout, who prunes it. Integers are big-endian.
//!
//! | env, table | key | value | pruned by |
//! |---|---|---|---|
//! | chain `canonical` | height u64 | [`Position`]: block hash 32, id 32, segment u32, offset u64, length u32, first transaction u64, count u32 | `prune` |
//! | chain `height_by_hash` | block hash 32, or id of the consensus header 32 | height u64 | `prune` |
//! | chain `header` | height u64 | RLP header | `prune` |
//! | chain `epoch` | epoch u64, or id of a tail header 32 | RLP [`engine::types::EpochStart`], or [`engine::types::SignedHeader`]; CRC32C u32 of key and that | never |
//! | chain `landmark` | height u64 | records of a block that no segment holds, as in one ([`crate::record`]), but for what it changed | never |
//! | chain `segment` | number u32 | first height u64, state u8 (0 open, 1 sealed) | with its file |
//! | chain `meta` | name | see below | never |
//! | state `account` | keccak(address) 32 | [`AccountRow`]: flags u8, nonce, balance, code hash, storage id, storage root | deletion of the account |
//! | state `storage` | storage id u64, keccak(slot) 32 | value, leading zeros trimmed | zero value; `garbage` |
//! | state `account_node` | position ([`crate::trie::record`]) | branch record | collapse of the branch |
//! | state `storage_node` | storage id u64, position | branch record | collapse; `garbage` |
//! | state `code` | code hash 32 | bytecode | never |
//! | state `garbage` | storage id u64 | height u64 of the checkpoint that replaced the id, CRC32C u32 of key and that | checkpoints, once no kept height can see it |
//! | state `meta` | name | see below | never |
//!
//! Flags of an account row, bit by bit: 0 nonce is not zero (then 8 bytes), 1 balance is not zero
//! (then 1 length byte and that many bytes), 2 it has code (then 32 bytes), 3 it has a storage id
//! (then id 8 bytes and root 32 bytes).
//!
//! `meta` of `chain`: `schema` (major u16, minor u16), `chain_id` u64, `chain_digest` 32, `salt` u32, `indexed` height
//! u64 (it and all lower heights have their rows, down to the base), `log` (schema u16 that it was made with; there
//! once the folder had a log), `rewind` height u64 (there while blocks above it are taken away), `base` (height u64 of
//! the block whose state was imported: the segments begin above it, and of the blocks below there are some headers and
//! landmarks; absent for the chain's own beginning), `mode` (how a node last ran here: `archive`, `full` or
//! `validator`), `pruned` (height u64 up to which blocks were taken away, segment u32 that is the first one since; of
//! the blocks below there are headers that `BLOCKHASH` reaches, and as landmarks those that epochs began on; absent if
//! none was), `swept` (height u64 up to which, itself not, the rows of such blocks are gone).
//! `meta` of `state`: `applied` (height u64, block hash 32, state root 32; absent until the genesis state is complete),
//! `next_storage_id` u64, `import` (how far the import of a snapshot has come, see [`crate::portable`]; absent
//! otherwise).

use alloy_primitives::{B256, KECCAK256_EMPTY, U256};
use engine::types::{Account, Height};

use crate::{
    kv::Table,
    trie::{
        node::Root,
        state::{AccountLeaf, Incarnation, StorageTrie},
    },
};

/// Tables of the `state` environment, in the order of the constants below.
pub(crate) const STATE_TABLES: &[&str] =
    &["account", "storage", "account_node", "storage_node", "code", "garbage", "meta"];
/// See the module's table.
pub(crate) const ACCOUNT: Table = Table(0);
/// See the module's table.
pub(crate) const STORAGE: Table = Table(1);
/// See the module's table.
pub(crate) const ACCOUNT_NODE: Table = Table(2);
/// See the module's table.
pub(crate) const STORAGE_NODE: Table = Table(3);
/// See the module's table.
pub(crate) const CODE: Table = Table(4);
/// See the module's table.
pub(crate) const GARBAGE: Table = Table(5);
/// See the module's table.
pub(crate) const STATE_META: Table = Table(6);

/// Tables of the `chain` environment, in the order of the constants below.
pub(crate) const CHAIN_TABLES: &[&str] =
    &["canonical", "height_by_hash", "header", "epoch", "segment", "meta", "landmark"];
/// See the module's table.
pub(crate) const CANONICAL: Table = Table(0);
/// See the module's table.
pub(crate) const HEIGHT_BY_HASH: Table = Table(1);
/// See the module's table.
pub(crate) const HEADER: Table = Table(2);
/// See the module's table.
pub(crate) const EPOCH: Table = Table(3);
/// See the module's table.
pub(crate) const SEGMENT: Table = Table(4);
/// See the module's table.
pub(crate) const CHAIN_META: Table = Table(5);
/// See the module's table.
pub(crate) const LANDMARK: Table = Table(6);

/// Layout version of everything on disk; another major is refused. 2: consensus headers name body, certificates, seed
/// share and next set. 2.1: rows of epochs and of ended storage end with a checksum. 2.2: a chain may begin above block
/// 0, on an imported state. 2.3: indices are two files.
pub(crate) const SCHEMA: (u16, u16) = (2, 3);

/// Names of `meta` rows.
pub(crate) mod meta {
    pub(crate) const SCHEMA: &[u8] = b"schema";
    pub(crate) const CHAIN_ID: &[u8] = b"chain_id";
    pub(crate) const CHAIN_DIGEST: &[u8] = b"chain_digest";
    pub(crate) const SALT: &[u8] = b"salt";
    pub(crate) const APPLIED: &[u8] = b"applied";
    pub(crate) const NEXT_STORAGE_ID: &[u8] = b"next_storage_id";
    pub(crate) const INDEXED: &[u8] = b"indexed";
    pub(crate) const LOG: &[u8] = b"log";
    pub(crate) const REWIND: &[u8] = b"rewind";
    pub(crate) const BASE: &[u8] = b"base";
    pub(crate) const MODE: &[u8] = b"mode";
    pub(crate) const PRUNED: &[u8] = b"pruned";
    pub(crate) const SWEPT: &[u8] = b"swept";
    pub(crate) const IMPORT: &[u8] = b"import";
}

/// Reads fields off the front of a row.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    /// The next 8 bytes as an integer.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// The next 4 bytes as an integer.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// The next 2 bytes as an integer.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    /// The next 32 bytes.
    pub(crate) fn hash(&mut self) -> Option<B256> {
        Some(B256::from_slice(self.bytes(32)?))
    }
}

/// An account as the flat table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) account: Account,
    /// Storage id, 0 for an account that never had a slot.
    pub(crate) storage_id: u64,
    /// Root of its storage trie; meaningful with an id only.
    pub(crate) storage_root: B256,
}

impl AccountRow {
    /// The row of a leaf.
    pub(crate) fn of(leaf: &AccountLeaf) -> Self {
        Self { account: leaf.account, storage_id: leaf.storage.id(), storage_root: leaf.storage.hash }
    }

    /// The leaf that it stands for, its storage not in memory.
    pub(crate) fn leaf(&self) -> AccountLeaf {
        let incarnation = (self.storage_id != 0).then(|| Incarnation::stored(self.storage_id));
        let storage = StorageTrie { root: Root::stored(self.storage_root), hash: self.storage_root, incarnation };
        AccountLeaf { account: self.account, storage }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + 8 + 33 + 32 + 40);
        out.push(0);
        let mut flags = 0;
        if self.account.nonce != 0 {
            flags |= 1;
            out.extend_from_slice(&self.account.nonce.to_be_bytes());
        }
        if !self.account.balance.is_zero() {
            flags |= 2;
            let balance = self.account.balance.to_be_bytes_trimmed_vec();
            out.push(u8::try_from(balance.len()).expect("a balance has at most 32 bytes"));
            out.extend_from_slice(&balance);
        }
        if self.account.code_hash != KECCAK256_EMPTY {
            flags |= 4;
            out.extend_from_slice(self.account.code_hash.as_slice());
        }
        if self.storage_id != 0 {
            flags |= 8;
            out.extend_from_slice(&self.storage_id.to_be_bytes());
            out.extend_from_slice(self.storage_root.as_slice());
        }
        out[0] = flags;
        out
    }

    /// Reads the one form that an account has: what is as usual has no field.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let flags = fields.bytes(1)?[0];
        let has = |bit: u8| flags & bit != 0;
        let nonce = if has(1) { fields.u64().filter(|nonce| *nonce != 0)? } else { 0 };
        let balance = if has(2) {
            let length = usize::from(fields.bytes(1)?[0]);
            U256::try_from_be_slice(fields.bytes(length).filter(|bytes| bytes.first() > Some(&0))?)?
        } else {
            U256::ZERO
        };
        let code_hash = if has(4) { fields.hash().filter(|hash| *hash != KECCAK256_EMPTY)? } else { KECCAK256_EMPTY };
        let (storage_id, storage_root) = if has(8) {
            (fields.u64().filter(|id| *id != 0)?, fields.hash()?)
        } else {
            (0, alloy_trie::EMPTY_ROOT_HASH)
        };
        (fields.0.is_empty() && flags < 16).then_some(Self {
            account: Account { nonce, balance, code_hash },
            storage_id,
            storage_root,
        })
    }
}

/// Where a block is: its records lie one after another, all in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) hash: B256,
    /// Id of the consensus header.
    pub(crate) id: B256,
    pub(crate) segment: u32,
    /// Byte offset of the first record.
    pub(crate) offset: u64,
    /// Bytes of all records together; 0 for blocks that no segment ever held: block 0, and those up to the base.
    pub(crate) length: u32,
    /// Transactions in all blocks before this one.
    pub(crate) first_transaction: u64,
    /// Transactions in this block.
    pub(crate) transactions: u32,
}

impl Position {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(92);
        out.extend_from_slice(self.hash.as_slice());
        out.extend_from_slice(self.id.as_slice());
        out.extend_from_slice(&self.segment.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.first_transaction.to_be_bytes());
        out.extend_from_slice(&self.transactions.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let position = Self {
            hash: fields.hash()?,
            id: fields.hash()?,
            segment: fields.u32()?,
            offset: fields.u64()?,
            length: fields.u32()?,
            first_transaction: fields.u64()?,
            transactions: fields.u32()?,
        };
        fields.0.is_empty().then_some(position)
    }
}

/// Up to where the `state` environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) height: Height,
    pub(crate) hash: B256,
    pub(crate) root: B256,
}

impl Applied {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.height.0.to_be_bytes()[..], self.hash.as_slice(), self.root.as_slice()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let applied = Self { height: Height(fields.u64()?), hash: fields.hash()?, root: fields.hash()? };
        fields.0.is_empty().then_some(applied)
    }
}

/// The row that tells at which height a storage id ended: what it says is deleted, so it has a checksum.
pub(crate) fn ended_at(id: u64, height: Height) -> Vec<u8> {
    let row = [id.to_be_bytes(), height.0.to_be_bytes()].concat();
    [&row[8..], &crc32c::crc32c(&row).to_be_bytes()].concat()
}

/// What such a row says, `None` if it is not what was written; rows from before schema 2.1 have no checksum.
pub(crate) fn ended_height(id: &[u8], row: &[u8]) -> Option<Height> {
    let id = Fields(id).u64()?;
    let height = Height(Fields(row).u64()?);
    (row.len() == 8 || row == ended_at(id, height)).then_some(height)
}

/// Key of a storage row.
pub(crate) fn storage_key(id: u64, hashed_slot: &B256) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[8..].copy_from_slice(hashed_slot.as_slice());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_rows_keep_their_bytes() {
        let check = |row: AccountRow, hex: &str| {
            assert_eq!(alloy_primitives::hex::encode(row.encode()), hex);
            assert_eq!(AccountRow::decode(&row.encode()), Some(row));
        };
        let empty =
            AccountRow { account: Account::default(), storage_id: 0, storage_root: alloy_trie::EMPTY_ROOT_HASH };
        check(empty.clone(), "00");
        let payer = Account { nonce: 5, balance: U256::from(0x1234), ..Account::default() };
        check(AccountRow { account: payer, ..empty }, "030000000000000005021234");
        let contract = Account { nonce: 1, balance: U256::ZERO, code_hash: B256::repeat_byte(0xcc) };
        let row = AccountRow { account: contract, storage_id: 7, storage_root: B256::repeat_byte(0xdd) };
        check(row, &format!("0d0000000000000001{}0000000000000007{}", "cc".repeat(32), "dd".repeat(32)));
        // Each says in a field what it would say without: nonce 0, balance 0 or with a zero in front, no code, no id.
        let no_code = format!("04{KECCAK256_EMPTY:x}");
        let no_storage = format!("08{}{}", "00".repeat(8), "dd".repeat(32));
        for hex in ["010000000000000000", "0200", "0203001234", &no_code, &no_storage, "10"] {
            assert_eq!(AccountRow::decode(&alloy_primitives::hex::decode(hex).unwrap()), None, "{hex}");
        }
    }

    #[test]
    fn positions_keep_their_bytes() {
        let position = Position {
            hash: B256::repeat_byte(0xaa),
            id: B256::repeat_byte(0xbb),
            segment: 3,
            offset: 4096,
            length: 100,
            first_transaction: 9,
            transactions: 2,
        };
        let (hash, id) = ("aa".repeat(32), "bb".repeat(32));
        let hex = format!("{hash}{id}00000003000000000000100000000064000000000000000900000002");
        assert_eq!(alloy_primitives::hex::encode(position.encode()), hex);
        assert_eq!(Position::decode(&position.encode()), Some(position));
    }
}
