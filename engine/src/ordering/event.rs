//! What crosses the border of ordering: inputs, outputs, and what it is told once.

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;

use super::{journal::Entry, pacemaker::Timing, planted::Planted};
use crate::{
    crypto::{Scheme, Signer, bls::SecretKey},
    types::{
        Certificate, ConsensusHeader, Contact, Domain, Epoch, Evidence, Height, Message, PublicKey, SignedHeader, Slot,
        ValidatorIndex, ValidatorSet,
    },
};

/// The time at which an input arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Never runs backwards; for pace and timers.
    pub monotonic: Duration,
    /// Milliseconds since 1970; for block timestamps.
    pub wall_ms: u64,
}

/// The key that votes here.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its public half, by which this validator finds its place in a set.
    pub public_key: PublicKey,
    /// Signs with it.
    pub signer: Arc<dyn Signer>,
}

impl Identity {
    /// Whoever has this key.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self { public_key: key.public_key(), signer: Arc::new(key) }
    }
}

/// What ordering is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where signatures are valid.
    pub domain: Domain,
    /// Slots of a window, L.
    pub window: u64,
    /// Heights of an epoch.
    pub epoch_heights: u64,
    /// The terms of all timers.
    pub timing: Timing,
    /// How long a build may take where everybody keeps up.
    pub build_time: Duration,
    /// Final blocks that may wait for the disk before this node builds or votes no further.
    pub in_flight_max: u64,
    /// Verifies what validators sign.
    pub scheme: Arc<dyn Scheme>,
    /// Who votes here; `None` for a node that only follows.
    pub identity: Option<Identity>,
    /// A bug that a test plants.
    pub planted: Planted,
}

/// A block that everything above it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Id of its consensus header.
    pub id: B256,
    /// Its consensus header.
    pub header: ConsensusHeader,
    /// The seed mixed up to it.
    pub mix: B256,
}

/// Where a node stands when it starts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Who votes in the present epoch.
    pub set: ValidatorSet,
    /// Who votes in the next one, as far as that is known.
    pub next_set: Option<ValidatorSet>,
    /// Seed of the present epoch's schedule.
    pub seed: B256,
    /// Seed of the next epoch's.
    pub next_seed: B256,
    /// The block that the epoch began on.
    pub base: Anchor,
    /// What made the last block of each epoch before final, oldest first; [`crate::limits::HANDOVERS_MAX`] at most.
    pub handovers: Vec<Certificate>,
    /// The newest durable block and what makes it final; `None` if that is the base.
    pub tip: Option<(Anchor, Certificate)>,
    /// Blocks above it whose bodies are on disk, in order of slot; and whether each has no transactions.
    pub blocks: Vec<(SignedHeader, bool)>,
    /// What the write-ahead log holds.
    pub entries: Vec<Entry>,
    /// The log was lost, or is an old copy: others must say how far this validator may have voted.
    pub is_log_lost: bool,
    /// Drawn anew at every start; tells answers to this start from older ones.
    pub nonce: u64,
}

/// Whom a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The connection.
    pub peer: u64,
    /// Which validator of the present epoch has proved to be behind it.
    pub validator: Option<ValidatorIndex>,
}

/// What reaches ordering.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time asked for by [`Output::Wake`] has come.
    Wake,
    /// The pool has something that was not there at the last build.
    TransactionsWaiting,
    /// A peer said something.
    Received(Source, Message),
    /// The body of a block is here and belongs to its header.
    Body {
        /// Id of the block.
        id: B256,
        /// It has no transactions.
        empty: bool,
    },
    /// A build is done, and the block executed by it.
    Built {
        /// The header from the order, with what the block came to.
        header: Box<ConsensusHeader>,
        /// It has no transactions.
        empty: bool,
        /// Executable transactions remain that it had no room for.
        more: bool,
    },
    /// An execution is done.
    Executed {
        /// Id of the block.
        id: B256,
        /// Every field is equal to what came out here; if not, the first that differs.
        verdict: Result<(), String>,
    },
    /// Who votes in the next epoch.
    NextSet(ValidatorSet),
    /// What was persisted with this token, and all before it, would survive a power cut.
    Synced(u64),
    /// The store made every block up to this height durable.
    Committed(Height),
    /// Who is connected, each peer once.
    Peers(Vec<Contact>),
}

/// A block to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOrder {
    /// The consensus header as far as it is known before.
    pub header: ConsensusHeader,
    /// The seed mixed up to the block.
    pub mix: B256,
    /// How long the build may take from now.
    pub deadline: Duration,
}

/// What ordering asks for, in the order it must happen.
#[derive(Clone, Debug)]
pub enum Output {
    /// Build a block; answered by [`Input::Built`].
    Build(Box<BuildOrder>),
    /// The block that was built for this slot has this header; its body goes to the others with the proposal.
    Adopt(Box<SignedHeader>),
    /// Execute a block on its parent; answered by [`Input::Executed`].
    Execute {
        /// Id of the block.
        id: B256,
        /// Id of the block below.
        parent: B256,
    },
    /// The block will not be needed; if it is being executed, that may end now, and must still be answered.
    Abandon(B256),
    /// Remember this; with a token, until a power cut cannot take it away, answered by [`Input::Synced`].
    Persist {
        /// Lines of the log.
        entries: Vec<Entry>,
        /// Blocks whose headers and bodies must be on disk with them, to be given to whoever asks.
        bodies: Vec<B256>,
        /// To be answered once all of it, and all before it, is durable.
        token: Option<u64>,
    },
    /// Tell every validator.
    Broadcast(Message),
    /// Tell one peer. A [`Message::Fetch`] is answered by [`Message::Blocks`], a [`Message::Range`] by
    /// [`Message::Chain`]; after either an [`Input::Body`] follows for each body.
    Send(u64, Message),
    /// A tail header is here; as long as the epoch lasts no store has it for those who ask.
    Tail(Box<SignedHeader>),
    /// A quorum has notarized this block, and it is valid here; once a block and start, before it is committed.
    Notarized(B256),
    /// These blocks are final, in order; make them durable.
    Commit {
        /// Their ids, lowest first, ancestors before descendants.
        ids: Vec<B256>,
        /// What makes the last of them final, or a later one.
        finalization: Box<Certificate>,
    },
    /// Send [`Input::Wake`] at this time; replaces an earlier wish.
    Wake(Duration),
    /// Proof that a validator is faulty.
    Evidence(Box<Evidence>),
    /// This peer sent what an honest one does not.
    Ban(u64, &'static str),
    /// This validator signed what is no signature.
    BanValidator(Epoch, ValidatorIndex, &'static str),
    /// The epoch is over; the next begins on this block.
    EpochEnded {
        /// The epoch that ended.
        epoch: Epoch,
        /// The block that the next one begins on.
        base: Box<Anchor>,
        /// What makes it final: a Finalization of it or of a tail header above it.
        finalization: Box<Certificate>,
        /// The tail headers from the one that is final down to the one on the block, newest first.
        tail: Vec<SignedHeader>,
    },
    /// A block that others certified is refused here, or certificates contradict each other. Nothing more is signed.
    Halt(String),
}

/// A place in the order, for logs and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The epoch.
    pub epoch: Epoch,
    /// Its least slot that nothing has decided.
    pub frontier: Slot,
    /// The newest height handed to the store.
    pub height: Height,
}
