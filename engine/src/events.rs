//! What the node tells those who asked: what becomes of transactions, and of the blocks that include them.
//!
//! Listeners run on the engine's own threads and must return at once; a listener that has much to do
//! puts the event into a ring of its own, where a slow reader loses the oldest and is told so.

use std::{fmt, sync::Arc};

use alloy_primitives::B256;
use parking_lot::RwLock;

use crate::types::{Block, CommittedBlock, PooledTransaction, Receipt};

/// Something clients may want to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// A quorum has notarized a block, and it was executed here. It is not final: its slot may yet be skipped, and then
    /// nothing follows. Once a block and run of the node, before its `Committed`; a block that others finalized before
    /// it was executed here may have none.
    Notarized(NotarizedBlock),
    /// A block is durable; its state, receipts and logs can be read.
    Committed(Arc<CommittedBlock>),
    /// A transaction entered the pool; before anything else that the pool tells of it.
    Admitted(PooledTransaction),
    /// The transaction of this hash left the pool, and no final block includes it. It may be admitted again, with one
    /// end each time.
    Dropped(B256, DropReason),
}

/// A block that a quorum has notarized, as it was executed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotarizedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// One receipt per transaction.
    pub receipts: Arc<Vec<Receipt>>,
}

/// Why a transaction left the pool without being included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// Another one of its sender and nonce pays more.
    #[error("replaced by {0}")]
    Replaced(B256),
    /// Another one of its sender and nonce was included.
    #[error("its nonce was used")]
    NonceUsed,
    /// Others pay more, or its sender has more waiting than it may.
    #[error("the pool is full of others that pay more")]
    Evicted,
    /// It waited for longer than the pool keeps one, or follows one of its sender that did.
    #[error("it waited for too long")]
    Expired,
    /// It takes longer than a block may, or follows one of its sender that does.
    #[error("it takes longer than a block may")]
    TooSlow,
}

impl DropReason {
    /// A fixed word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Replaced(_) => "replaced",
            Self::NonceUsed => "nonce_used",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::TooSlow => "too_slow",
        }
    }
}

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// The list of listeners; cheap to clone, shared by all clones.
#[derive(Clone, Default)]
pub struct Events(Arc<RwLock<Vec<Listener>>>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.0.read().len()).finish()
    }
}

impl Events {
    /// Adds a listener for the life of the node.
    pub fn listen(&self, listener: Listener) {
        self.0.write().push(listener);
    }

    /// Calls every listener in the order they were added.
    pub fn emit(&self, event: &Event) {
        for listener in self.0.read().iter() {
            listener(event);
        }
    }
}
