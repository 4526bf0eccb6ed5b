//! The state of a running store, piece by piece: to whoever asks, whenever it asks, out of what was.
//!
//! Pieces are of the newest block at a multiple of so many heights, the same everywhere, so that all nodes give the
//! same pieces. The nodes of that state are those of the proof window; nothing is held for those who ask.

use alloy_primitives::{B256, Bytes};
use engine::{
    limits,
    ports::{Store as _, StoreError},
    types::{Epoch, Height},
};

use super::{
    PortableError,
    chunk::{Body, Chunk},
    cut::Cutter,
    head::Head,
};
use crate::{past::PastState, store::Database, trie::state::StateTrie};

impl From<PortableError> for StoreError {
    fn from(error: PortableError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Heights from one whose state is given to the next.
fn step(store: &Database) -> u64 {
    store.chain().ordering.epoch_slots.clamp(1, limits::STATE_STEP_HEIGHTS)
}

/// The newest height whose state is given.
fn newest(store: &Database) -> Height {
    let applied = store.checkpointed().0;
    Height(applied.saturating_sub(applied % step(store)))
}

/// The height of a block whose state is given.
fn given(store: &Database, block: B256) -> Result<Height, StoreError> {
    let height = store.height_of(block)?.ok_or(StoreError::Unavailable(Height::GENESIS))?;
    if height > newest(store) || height.0 % step(store) != 0 || height == Height::GENESIS {
        return Err(StoreError::Unavailable(height));
    }
    Ok(height)
}

/// The tries at a height that is given, as long as it is in the proof window.
fn past_of(store: &Database, height: Height) -> Result<PastState, StoreError> {
    let inner = &store.inner;
    let lowest = inner.past.lowest(store.checkpointed());
    let past = inner.past.at(height, &inner.snapshots).filter(|_| height >= lowest);
    past.ok_or(StoreError::NoProof { height, lowest })
}

/// What shows that a block is final, `None` for the newest whose state is given; and its hash.
pub(crate) fn head(store: &Database, block: Option<B256>, from: Epoch) -> Result<(B256, Bytes), StoreError> {
    let height = match block {
        Some(block) => given(store, block)?,
        None => newest(store),
    };
    if height == Height::GENESIS {
        return Err(StoreError::Unavailable(height));
    }
    // Of a block whose parts are refused nothing is shown either.
    past_of(store, height)?;
    let hash = store.inner.blocks.hash(height)?.ok_or(StoreError::Unavailable(height))?;
    Ok((hash, Head::of(store, height, from)?.encode().into()))
}

/// A chunk of the state after a block, from a key on, of some bytes.
pub(crate) fn part(
    store: &Database,
    block: B256,
    (owner, from): (Option<B256>, B256),
    chunk_bytes: usize,
) -> Result<Bytes, StoreError> {
    let (height, blocks) = (given(store, block)?, &store.inner.blocks);
    let past = past_of(store, height)?;
    let header = blocks.header(height)?.ok_or(StoreError::Unavailable(height))?;
    let (trie, view) = (StateTrie::stored(header.state_root), store.view(blocks.tip().height())?);
    let cutter = Cutter { trie: &trie, source: &past, view: &*view, chunk_bytes };
    let body = match owner {
        None => Body::Accounts(cutter.accounts(from)?.0),
        Some(owner) => Body::Slots(cutter.slots(owner, from)?.ok_or(StoreError::Unavailable(height))?.0),
    };
    Ok(Chunk { root: trie.hash, body }.encode().into())
}
