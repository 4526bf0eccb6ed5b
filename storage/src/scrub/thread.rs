//! A look at a random place, once in a while.

use std::{
    hash::{BuildHasher as _, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alloy_primitives::B256;

use super::{Scrub, Scrubbed, State, chain, tell};
use crate::{error::Fault, store::Inner};

/// Accounts whose storage is looked at.
const STORAGES_MAX: usize = 8;

/// Starts the thread.
pub(crate) fn start(inner: Arc<Inner>, every: Duration) -> Result<JoinHandle<()>, Fault> {
    thread::Builder::new()
        .name("storage-scrub".to_owned())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| work(&inner, every))).is_err() {
                tracing::error!("the scrubber panicked; nothing is compared any more");
            }
        })
        .map_err(|error| Fault::Failed(format!("starting a thread: {error}")))
}

fn work(inner: &Inner, every: Duration) {
    loop {
        let due = Instant::now() + every;
        let mut dirty = inner.dirty.lock();
        while !dirty.stop && !inner.dirty_changed.wait_until(&mut dirty, due).timed_out() {}
        let has_ended = dirty.stop;
        drop(dirty);
        if has_ended || inner.check().is_err() {
            return;
        }
        look(inner, random());
    }
}

/// A place that nobody can foresee: the standard library seeds its hashers from the system.
fn random() -> B256 {
    let state = RandomState::new();
    let words: Vec<u8> = (0..4u8).flat_map(|word| state.hash_one(word).to_be_bytes()).collect();
    B256::from_slice(&words)
}

/// Looks at one place; if it is damaged and a second look says so too, the store takes no further block.
pub(crate) fn look(inner: &Inner, place: B256) {
    let damaged = |done: &Scrubbed| !done.findings.is_empty();
    let first = once(inner, place);
    if !damaged(&first) {
        return tell(&first);
    }
    let second = once(inner, place);
    tell(&second);
    if let Some(finding) = second.findings.first() {
        let text = format!(
            "the store is damaged in {} places, the first in {finding}; move its folder away, all but `log`, and let \
             the node fetch the chain again",
            second.findings.len()
        );
        inner.poison(Fault::corrupt(text));
    }
}

/// Compares what lies around a place in every table.
fn once(inner: &Inner, place: B256) -> Scrubbed {
    let mut scrub = Scrub::new(inner);
    let outcome = (|| {
        if let Some(state) = State::newest(inner, &mut scrub.done)? {
            scrub.accounts_from(&state, &place, false)?;
            for (account, _) in std::mem::take(&mut scrub.storages).into_iter().take(STORAGES_MAX) {
                scrub.storage(&state, &account, &place, false)?;
            }
        }
        scrub.codes_from(&place)?;
        let number = u64::from_be_bytes(place[..8].try_into().expect("eight bytes"));
        let heights = inner.blocks.tip().height().0.saturating_add(1);
        chain::blocks(inner, number % heights, &mut scrub.done)?;
        chain::all_epochs(&inner.blocks.rows(), &mut scrub.done)?;
        chain::epochs(inner, &place[..8], &mut scrub.done)
    })();
    if let Err(fault) = outcome.map(drop) {
        scrub.done.find("unknown", fault.to_string());
    }
    scrub.done
}
