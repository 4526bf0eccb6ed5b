//! Where a transaction's time goes: a span of `tracing` for each stage of its way, under the target [`TARGET`].
//!
//! ```text
//! admit --> wait (of it: build where its leader is, propagate elsewhere) --> execute --> vote --> commit
//! ```
//!
//! Each span stands for as many transactions as its field [`TRANSACTIONS`] says when it closes: none if what it
//! measured came to nothing. Whoever does not listen to the target pays for a look at a flag.

use tracing::{Span, debug_span};

/// The target of all of them.
pub const TARGET: &str = "sluice::stage";

/// The field that says for how many transactions a span stands.
pub const TRANSACTIONS: &str = "txs";

macro_rules! stages {
    ($($(#[$what:meta])* $stage:ident)+) => {
        /// Names of the spans, in the order in which a transaction passes them.
        pub const STAGES: &[&str] = &[$(stringify!($stage)),+];

        $($(#[$what])*
        pub(crate) fn $stage() -> Span {
            debug_span!(target: TARGET, stringify!($stage), txs = 0_u64)
        })+
    };
}

stages! {
    /// One transaction, from being handed in to being in the pool.
    admit
    /// One transaction, from the pool until the block that includes it is built or here.
    wait
    /// A block, from ordering's wish for it to its being built.
    build
    /// A block of another node, from its proposal to its body.
    propagate
    /// A block of another node, from its body to the verdict; the wait for its parent is counted in.
    execute
    /// A block, from its being executed or proposed here to its being final.
    vote
    /// A block, from its being final to its being durable and announced.
    commit
}

/// Says for how many transactions a span stands.
pub(crate) fn stands_for(span: &Span, transactions: usize) {
    if !span.is_disabled() {
        span.record(TRANSACTIONS, u64::try_from(transactions).unwrap_or(u64::MAX));
    }
}
