//! Shares of one body, or of one access list, until they give it back.

use std::{ops::RangeInclusive, sync::Arc};

use alloy_primitives::{B256, Bytes};
use reed_solomon_simd::ReedSolomonDecoder;

use super::{ListNotice, Plan, Share, tree::Tree};
use crate::{limits, types::ValidatorIndex};

/// What is wrong with a share, or with all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Nothing of this size is cut for this set.
    #[error("{size} bytes do not travel in shares")]
    Size {
        /// What the header or the leader says.
        size: u64,
    },
    /// Not what the root commits to: whoever sent it is faulty.
    #[error("the share of validator {0} is not the root's")]
    Foreign(ValidatorIndex),
    /// It is here already.
    #[error("the share of validator {0} came before")]
    Twice(ValidatorIndex),
    /// The root commits to shares that are no encoding of one body: the leader is faulty, whichever shares came.
    #[error("the shares encode no body")]
    NoEncoding,
}

/// The shares of one body.
///
/// Promise: what a header commits to comes out, or [`ShareError::NoEncoding`], and the same for everybody who has
/// enough shares. Shares are kept until then alone: in bytes, less than the body and one share. Making the body of them
/// takes some six times its size for a moment if stakes are equal, and never more than twelve.
#[derive(Debug)]
pub struct Assembly {
    plan: Arc<Plan>,
    root: B256,
    size: usize,
    /// Whose share came.
    came: Vec<bool>,
    /// Shares until there are enough, with their leaves.
    held: Vec<Held>,
    /// Chunks of those held.
    chunks: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Gathering,
    Done,
    NoEncoding,
}

#[derive(Debug)]
struct Held {
    index: ValidatorIndex,
    chunks: Bytes,
    leaf: B256,
}

impl Assembly {
    /// Of the body that a header with this root and size names.
    ///
    /// # Errors
    /// [`ShareError::Size`] if bodies of this size travel whole, or not at all, or nobody gets a share.
    pub fn new(plan: Arc<Plan>, root: B256, body_size_bytes: u64) -> Result<Self, ShareError> {
        Self::of(plan, root, body_size_bytes, limits::WHOLE_BODY_BYTES_MAX.saturating_add(1)..=limits::BODY_BYTES_MAX)
    }

    /// Of the packed access list that a leader's notice names; it comes out as bytes that nobody has looked at.
    ///
    /// # Errors
    /// [`ShareError::Size`] if no list has this size, or nobody gets a share.
    pub fn of_list(plan: Arc<Plan>, notice: &ListNotice) -> Result<Self, ShareError> {
        Self::of(plan, notice.root, notice.size_bytes, 1..=limits::PACKED_LIST_BYTES_MAX)
    }

    fn of(plan: Arc<Plan>, root: B256, size_bytes: u64, cut: RangeInclusive<usize>) -> Result<Self, ShareError> {
        let size = usize::try_from(size_bytes).ok().filter(|size| cut.contains(size) && !plan.is_alone());
        let size = size.ok_or(ShareError::Size { size: size_bytes })?;
        let came = vec![false; plan.validators()];
        Ok(Self { plan, root, size, came, held: Vec::new(), chunks: 0, state: State::Gathering })
    }

    /// Whether nothing more is needed: the body came out, or it is known that none will.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state != State::Gathering
    }

    /// Whether a validator's share came.
    #[must_use]
    pub fn has(&self, index: ValidatorIndex) -> bool {
        self.came.get(usize::from(index.0)) == Some(&true)
    }

    /// Takes a share, and gives the body once there is enough: that one time. Later shares are checked and not kept.
    ///
    /// # Errors
    /// [`ShareError`]. The share that makes [`ShareError::NoEncoding`] come out was in order, as are all after it.
    pub fn add(&mut self, share: Share) -> Result<Option<Vec<u8>>, ShareError> {
        let index = share.index;
        let size = u64::try_from(self.size).unwrap_or(u64::MAX);
        if self.has(index) {
            return Err(ShareError::Twice(index));
        }
        let leaf = share.leaf_in(&self.plan, &self.root, size).ok_or(ShareError::Foreign(index))?;
        if let Some(came) = self.came.get_mut(usize::from(index.0)) {
            *came = true;
        }
        match self.state {
            State::Gathering => {}
            State::Done => return Ok(None),
            State::NoEncoding => return Err(ShareError::NoEncoding),
        }
        self.chunks = self.chunks.saturating_add(self.plan.chunks_of(index));
        self.held.push(Held { index, chunks: share.chunks, leaf });
        if self.chunks < self.plan.data_chunks() {
            return Ok(None);
        }
        let body = self.body();
        self.held = Vec::new();
        self.state = if body.is_some() { State::Done } else { State::NoEncoding };
        body.map(Some).ok_or(ShareError::NoEncoding)
    }

    /// The body, if all shares of it make up the root.
    fn body(&self) -> Option<Vec<u8>> {
        let chunk_bytes = self.plan.chunk_bytes(self.size);
        let mut codeword = self.data(chunk_bytes)?;
        // What fills the last chunk up is nothing else than zeros.
        if codeword.get(self.size..)?.iter().any(|byte| *byte != 0) {
            return None;
        }
        self.plan.complete(&mut codeword, chunk_bytes);
        let known = |index, chunks: &[u8]| {
            let held = self.held.iter().find(|held| held.index == index)?;
            (*held.chunks == *chunks).then_some(held.leaf)
        };
        let root = Tree::new(self.plan.leaves(&codeword, chunk_bytes, known)).root();
        codeword.truncate(self.size);
        (root == self.root).then_some(codeword)
    }

    /// The data chunks, of those held or found from them, with room for the others.
    fn data(&self, chunk_bytes: usize) -> Option<Vec<u8>> {
        let (data, total) = (self.plan.data_chunks(), self.plan.total_chunks());
        let mut bytes = Vec::with_capacity(total.saturating_mul(chunk_bytes));
        bytes.resize(data.saturating_mul(chunk_bytes), 0);
        let mut is_here = vec![false; data];
        let held: Vec<(usize, &[u8])> = self
            .held
            .iter()
            .flat_map(|held| self.plan.range(held.index).zip(held.chunks.chunks_exact(chunk_bytes)))
            .collect();
        for (at, chunk) in held.iter().copied().filter(|(at, _)| *at < data) {
            let start = at.saturating_mul(chunk_bytes);
            bytes.get_mut(start..start.saturating_add(chunk_bytes))?.copy_from_slice(chunk);
            *is_here.get_mut(at)? = true;
        }
        if is_here.iter().all(|here| *here) {
            return Some(bytes);
        }
        let mut decoder = ReedSolomonDecoder::new(data, total.checked_sub(data)?, chunk_bytes).ok()?;
        for (at, chunk) in held {
            let added = match at.checked_sub(data) {
                None => decoder.add_original_shard(at, chunk),
                Some(at) => decoder.add_recovery_shard(at, chunk),
            };
            added.ok()?;
        }
        let restored = decoder.decode().ok()?;
        for (at, chunk) in restored.restored_original_iter() {
            let start = at.saturating_mul(chunk_bytes);
            bytes.get_mut(start..start.saturating_add(chunk_bytes))?.copy_from_slice(chunk);
        }
        Some(bytes)
    }
}
