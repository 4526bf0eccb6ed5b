//! What a leader says of an access list that travels in shares.

use alloy_primitives::{B256, Keccak256};
use alloy_rlp::{RlpDecodable, RlpEncodable};

use crate::types::ConsensusHeader;

/// What the shares of a packed access list come to, as its block's leader says over its own connection.
///
/// No header tells it, so a faulty leader may tell everybody something else. It names every share by [`Self::key`], so
/// that nobody takes a share for wrong that is right for somebody else.
///
/// Encoding: RLP list of the fields in order. Pinned by a golden test.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ListNotice {
    /// Header of the block.
    pub header: ConsensusHeader,
    /// Root over the shares.
    pub root: B256,
    /// Bytes of the packed list.
    pub size_bytes: u64,
}

impl ListNotice {
    /// What a share of it travels under: keccak256 of block id, root and size (8 bytes, big end first).
    ///
    /// Who sends a share under this key that is not the root's is faulty whatever the leader told whom: the id fixes
    /// set and leader, and so how a list of this size is cut.
    #[must_use]
    pub fn key(&self) -> B256 {
        let mut hasher = Keccak256::new();
        hasher.update(self.header.id());
        hasher.update(self.root);
        hasher.update(self.size_bytes.to_be_bytes());
        hasher.finalize()
    }
}
