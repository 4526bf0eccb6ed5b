//! What the node tells those who asked: one announcement per committed block and admitted transaction.
//!
//! Listeners run on the engine's own threads and must return at once; a listener that has much to do
//! puts the event into a ring of its own, where a slow reader loses the oldest and is told so.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;

use crate::types::{CommittedBlock, PooledTransaction};

/// Something clients may want to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// A block is durable; its state, receipts and logs can be read.
    Committed(Arc<CommittedBlock>),
    /// A transaction entered the pool.
    Admitted(PooledTransaction),
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
