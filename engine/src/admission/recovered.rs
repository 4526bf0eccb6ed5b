//! Transactions whose senders were recovered here lately, in the pool or not: what comes again, alone or in a block, is
//! not recovered again.

use std::{collections::VecDeque, sync::Arc};

use alloy_primitives::{B256, map::B256Map};
use parking_lot::Mutex;

use crate::{limits, types::Transaction};

/// The latest of them; the oldest make way.
#[derive(Debug, Default)]
pub(super) struct Recovered(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_hash: B256Map<Arc<Transaction>>,
    order: VecDeque<B256>,
    bytes: usize,
}

impl Recovered {
    pub(super) fn get(&self, hash: B256) -> Option<Arc<Transaction>> {
        self.0.lock().by_hash.get(&hash).cloned()
    }

    pub(super) fn add(&self, transaction: &Arc<Transaction>) {
        let (hash, bytes) = (transaction.hash(), transaction.encoded().len());
        let mut inner = self.0.lock();
        if inner.by_hash.insert(hash, transaction.clone()).is_some() {
            return;
        }
        inner.order.push_back(hash);
        inner.bytes = inner.bytes.saturating_add(bytes);
        while inner.bytes > limits::RECOVERED_BYTES_MAX || inner.order.len() > limits::RECOVERED_TRANSACTIONS_MAX {
            let Some(oldest) = inner.order.pop_front() else { return };
            let gone = inner.by_hash.remove(&oldest).map_or(0, |gone| gone.encoded().len());
            inner.bytes = inner.bytes.saturating_sub(gone);
        }
    }
}
