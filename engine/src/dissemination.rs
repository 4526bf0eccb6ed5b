//! How a large body travels: cut into shares, sent once to each validator and passed on once by each.
//!
//! ```text
//! leader: body -> k data chunks -> + chunks that make up for lost ones -> a share for each validator, by stake
//!           root over the shares in the consensus header
//!         share i --> validator i --> everybody else
//! validator: shares, each checked against the root -> any k chunks -> body, encoded again and compared with the root
//! ```
//!
//! The leader sends each byte chunks / k times, whatever the number of validators ([`Plan`]). A leader whose root
//! commits to shares that are no encoding of one body is found out by everybody alike, whichever shares each has
//! ([`Assembly`]). What a header says of its body follows from body, set and leader, so every validator checks it
//! before it votes ([`check`]).
//!
//! An access list that does not fit beside its header travels the same way, packed; what its shares come to is told by
//! the leader alone, over its own connection ([`ListNotice`]), and is no rule of the chain.
//!
//! The code is Reed-Solomon over GF(2^16), chunk by chunk systematic: the data chunks are the body's bytes in order,
//! filled up with zeros. What it comes to is part of the chain's rules, and pinned by a golden test.

mod assembly;
mod list;
mod plan;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::{Arc, OnceLock};

use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable as _, Encodable, Error, Header};
use reed_solomon_simd::ReedSolomonEncoder;

use self::tree::Tree;
pub use self::{
    assembly::{Assembly, ShareError},
    list::ListNotice,
    plan::Plan,
};
use crate::{
    limits,
    types::{Block, Epoch, ValidatorIndex, ValidatorSet, codec},
};

/// What one validator gets of a body, and shows to the others.
///
/// Encoding: RLP list of the index, the chunks and the path, its hashes joined to one string. Pinned by a golden test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose it is.
    pub index: ValidatorIndex,
    /// Its chunks, one behind the other.
    pub chunks: Bytes,
    /// The way from its leaf to the root, lowest first.
    pub path: Vec<B256>,
}

/// A body that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Root over all shares; zero if there are none.
    pub root: B256,
    /// One for each receiver, in set order.
    pub shares: Vec<Share>,
}

impl Share {
    /// Whether it is the share that a root commits to, by a body of this size.
    #[must_use]
    pub fn verify(&self, plan: &Plan, root: &B256, body_size_bytes: u64) -> bool {
        self.leaf_in(plan, root, body_size_bytes).is_some()
    }

    /// Its leaf, if it is the share that a root commits to.
    fn leaf_in(&self, plan: &Plan, root: &B256, body_size_bytes: u64) -> Option<B256> {
        let bytes = plan.share_bytes(self.index, usize::try_from(body_size_bytes).ok()?);
        if bytes == 0 || self.chunks.len() != bytes {
            return None;
        }
        let leaf = tree::leaf(self.index, &self.chunks);
        tree::is_at(root, plan.validators(), self.index, leaf, &self.path).then_some(leaf)
    }

    /// Its encoding.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let path = self.path.concat();
        let fields: [&dyn Encodable; 3] = [&self.index, &self.chunks, &path.as_slice()];
        let payload_length = fields.iter().map(|field| field.length()).sum();
        let head = Header { list: true, payload_length };
        let mut out = Vec::with_capacity(head.length_with_payload());
        head.encode(&mut out);
        fields.iter().for_each(|field| field.encode(&mut out));
        out
    }

    /// Decodes what [`Self::encoded`] made, and nothing behind it. The chunks are not copied.
    ///
    /// # Errors
    /// Whatever does not decode, is too long, or does not end where it should.
    pub fn decode_exact(bytes: &Bytes) -> alloy_rlp::Result<Self> {
        if bytes.len() > limits::SHARE_BYTES_MAX {
            return Err(Error::Custom("a share is longer than any may be"));
        }
        let mut all = &bytes[..];
        let mut rest = Header::decode_bytes(&mut all, true)?;
        let index = ValidatorIndex::decode(&mut rest)?;
        let chunks = Header::decode_bytes(&mut rest, false)?;
        let path = Header::decode_bytes(&mut rest, false)?;
        if !all.is_empty() || !rest.is_empty() || path.len() % B256::len_bytes() != 0 {
            return Err(Error::UnexpectedLength);
        }
        if path.len() / B256::len_bytes() > limits::SHARE_PATH_MAX {
            return Err(Error::Custom("a path is longer than any may be"));
        }
        let path = path.chunks_exact(B256::len_bytes()).map(B256::from_slice).collect();
        Ok(Self { index, chunks: bytes.slice_ref(chunks), path })
    }
}

impl Plan {
    /// Cuts an encoded body, which has at least one byte.
    #[must_use]
    pub fn split(&self, body: &[u8]) -> Shares {
        if self.is_alone() {
            return Shares { root: B256::ZERO, shares: Vec::new() };
        }
        let chunk_bytes = self.chunk_bytes(body.len());
        let codeword = Bytes::from(self.encode(body));
        let tree = Tree::new(self.leaves(&codeword, chunk_bytes, |_, _| None));
        let share = |index| Share {
            index,
            chunks: codeword.slice(self.byte_range(index, chunk_bytes)),
            path: tree.path(index),
        };
        Shares { root: tree.root(), shares: self.receivers().map(share).collect() }
    }

    /// The root over the shares of an encoded body; zero if nobody gets any.
    #[must_use]
    pub fn root(&self, body: &[u8]) -> B256 {
        if self.is_alone() {
            return B256::ZERO;
        }
        Tree::new(self.leaves(&self.encode(body), self.chunk_bytes(body.len()), |_, _| None)).root()
    }

    /// All chunks of a body, one behind the other.
    fn encode(&self, body: &[u8]) -> Vec<u8> {
        let chunk_bytes = self.chunk_bytes(body.len());
        let mut codeword = Vec::with_capacity(self.total_chunks().saturating_mul(chunk_bytes));
        codeword.extend_from_slice(body);
        codeword.resize(self.data_chunks().saturating_mul(chunk_bytes), 0);
        self.complete(&mut codeword, chunk_bytes);
        codeword
    }

    /// Puts behind the data chunks what makes up for lost ones.
    fn complete(&self, codeword: &mut Vec<u8>, chunk_bytes: usize) {
        let (data, total) = (self.data_chunks(), self.total_chunks());
        if total == data {
            return;
        }
        let mut add = || -> Result<(), reed_solomon_simd::Error> {
            let mut encoder = ReedSolomonEncoder::new(data, total.saturating_sub(data), chunk_bytes)?;
            codeword.chunks_exact(chunk_bytes).try_for_each(|chunk| encoder.add_original_shard(chunk))?;
            encoder.encode()?.recovery_iter().for_each(|chunk| codeword.extend_from_slice(chunk));
            Ok(())
        };
        add().expect("the code knows every number of chunks up to the limit, and even sizes");
    }

    fn byte_range(&self, index: ValidatorIndex, chunk_bytes: usize) -> std::ops::Range<usize> {
        let chunks = self.range(index);
        chunks.start.saturating_mul(chunk_bytes)..chunks.end.saturating_mul(chunk_bytes)
    }

    /// The leaves over all chunks; `known` may have one already.
    fn leaves(
        &self,
        codeword: &[u8],
        chunk_bytes: usize,
        known: impl Fn(ValidatorIndex, &[u8]) -> Option<B256>,
    ) -> Vec<B256> {
        let leaf = |index| {
            let chunks = codeword.get(self.byte_range(index, chunk_bytes)).unwrap_or_default();
            known(index, chunks).unwrap_or_else(|| tree::leaf(index, chunks))
        };
        self.indices().map(leaf).collect()
    }
}

/// The plans of one set, each made when it is first asked for.
#[derive(Debug)]
pub struct Plans {
    set: Arc<ValidatorSet>,
    of: Vec<OnceLock<Arc<Plan>>>,
}

impl Plans {
    /// Of this set.
    #[must_use]
    pub fn new(set: Arc<ValidatorSet>) -> Self {
        let of = (0..set.size()).map(|_| OnceLock::new()).collect();
        Self { set, of }
    }

    /// The set that they are of.
    #[must_use]
    pub const fn set(&self) -> &Arc<ValidatorSet> {
        &self.set
    }

    /// The plan for a leader; `None` if it is not in the set.
    #[must_use]
    pub fn of(&self, leader: ValidatorIndex) -> Option<&Arc<Plan>> {
        let plan = self.of.get(usize::from(leader.0))?;
        Some(plan.get_or_init(|| Arc::new(Plan::new(&self.set, leader))))
    }
}

/// What a header says of its body: root over the shares and size in bytes, both zero if the body travels whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commitment {
    /// `body_root` of the consensus header.
    pub root: B256,
    /// `body_size_bytes` of the consensus header.
    pub size_bytes: u64,
}

/// Why a block cannot be proposed or voted for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// Too large to travel.
    #[error("the body takes {size} bytes; at most {max} travel", max = limits::BODY_BYTES_MAX)]
    TooLarge {
        /// Bytes of its encoding.
        size: usize,
    },
    /// The set is another epoch's, or the leader not in it.
    #[error("validator {leader} does not lead in epoch {epoch}")]
    Leader {
        /// Who proposed it.
        leader: ValidatorIndex,
        /// The block's epoch.
        epoch: Epoch,
    },
    /// The header says something else.
    #[error(
        "body_root and body_size_bytes are {} and {}, not {} and {}",
        has.root, has.size_bytes, expected.root, expected.size_bytes
    )]
    Differs {
        /// What the header says.
        has: Commitment,
        /// What it should say.
        expected: Commitment,
    },
}

/// What the header of a block must say of its body.
///
/// A body of at most [`limits::WHOLE_BODY_BYTES_MAX`] is not even encoded, nor is any where nobody gets a share.
///
/// # Errors
/// [`CommitmentError`].
pub fn commit(plans: &Plans, block: &Block) -> Result<Commitment, CommitmentError> {
    let (leader, epoch) = (block.consensus.proposer(), block.consensus.epoch());
    if plans.set.epoch() != epoch || plans.set.get(leader).is_none() {
        return Err(CommitmentError::Leader { leader, epoch });
    }
    let size = codec::body_bytes(block);
    if size > limits::BODY_BYTES_MAX {
        return Err(CommitmentError::TooLarge { size });
    }
    let is_cut = size > limits::WHOLE_BODY_BYTES_MAX;
    let plan = if is_cut { plans.of(leader) } else { None };
    let Some(plan) = plan.filter(|plan| !plan.is_alone()) else {
        return Ok(Commitment::default());
    };
    let size_bytes = u64::try_from(size).unwrap_or(u64::MAX);
    Ok(Commitment { root: plan.root(&codec::encode_body(block)), size_bytes })
}

/// Checks what a header says of its body.
///
/// # Errors
/// [`CommitmentError`].
pub fn check(plans: &Plans, block: &Block) -> Result<(), CommitmentError> {
    let has = Commitment { root: block.consensus.body_root, size_bytes: block.consensus.body_size_bytes };
    let expected = commit(plans, block)?;
    if has == expected { Ok(()) } else { Err(CommitmentError::Differs { has, expected }) }
}
