//! A whole node without threads: whoever holds it decides what happens next, and what time it is.
//!
//! It is the pipeline itself, stage by stage: ordering takes an input, then there is work for the execution, log and
//! commit stages, done when its holder says so. Dropping it between two steps is a crash between them.

use std::{
    sync::{Arc, atomic::Ordering as Atomic},
    time::Duration,
};

use crossbeam::channel::TryRecvError;

use super::{Config, Done, Ends, Inbox, Lines, Parts, PipelineError, Ports, append, conductor::Ended};
use crate::{
    admission::{Admission, AdmissionError},
    events::Events,
    ordering::event::{Now, Place},
    ports::Recovered,
    query::Query,
    types::{Incoming, RawTransaction},
};

/// What a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// A block to build or to execute.
    pub job: bool,
    /// Lines for the log.
    pub lines: bool,
    /// Blocks for the store.
    pub blocks: bool,
}

/// A node whose stages run when they are told to.
pub struct SteppedNode {
    parts: Parts,
    /// A job that was done and not reported.
    done: Option<Done>,
    /// Batches that were appended, and the newest token that is waited for.
    appended: Option<u64>,
}

impl std::fmt::Debug for SteppedNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteppedNode").field("place", &self.parts.conductor.place()).finish_non_exhaustive()
    }
}

impl SteppedNode {
    /// As [`super::Node::start`], with a clock and a nonce of the holder's.
    ///
    /// # Errors
    /// [`PipelineError::Start`].
    pub fn start(
        config: Config,
        ports: Ports,
        recovered: Recovered,
        clock: impl Fn() -> Now + Send + Sync + 'static,
        nonce: u64,
    ) -> Result<Self, PipelineError> {
        let ends = Ends::roomy();
        let mut parts = Parts::new(config, ports, recovered, (Arc::new(clock), nonce), ends)?;
        let first = std::mem::take(&mut parts.first);
        let conductor = &mut parts.conductor;
        let started = conductor.carry_all(first).and_then(|()| conductor.look_at_peers());
        let node = Self { parts, done: None, appended: None };
        node.settle(started)?;
        Ok(node)
    }

    /// Why ordering ended, or that a transaction waits.
    fn settle(&self, outcome: Result<(), Ended>) -> Result<(), PipelineError> {
        let ended = outcome.is_err();
        match self.parts.failure.try_recv() {
            Ok(error) => Err(error),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) if ended => {
                Err(PipelineError::Ordering("ended without a reason"))
            }
            Err(_) => Ok(()),
        }
    }

    /// What clients may hear.
    #[must_use]
    pub const fn events(&self) -> &Events {
        &self.parts.events
    }

    /// The way in for what other nodes say, for a network that the holder runs: [`Self::intercept`] takes it out.
    #[must_use]
    pub const fn inbox(&self) -> &Inbox {
        &self.parts.inbox
    }

    /// The way in for transactions, which wait there: no worker runs.
    #[must_use]
    pub const fn admission(&self) -> &Admission {
        &self.parts.admission
    }

    /// What clients may ask.
    #[must_use]
    pub const fn query(&self) -> &Query {
        &self.parts.query
    }

    /// Takes the next letter out of the inbox in place of ordering, which never hears of it; waits so long for one.
    #[must_use]
    pub fn intercept(&self, wait: Duration) -> Option<Incoming> {
        let incoming = self.parts.sources.letters.recv_timeout(wait).ok()?;
        self.parts.stages.queued_bytes.fetch_sub(incoming.letter.size_bytes(), Atomic::Relaxed);
        Some(incoming)
    }

    /// Where ordering stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.parts.conductor.place()
    }

    /// When ordering wants to be woken.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Duration> {
        self.parts.conductor.wake_at()
    }

    /// What there is to do.
    #[must_use]
    pub fn work(&self) -> Work {
        Work {
            job: !self.parts.jobs.is_empty() || self.done.is_some(),
            lines: !self.parts.lines.is_empty() || self.appended.is_some(),
            blocks: !self.parts.decided.is_empty(),
        }
    }

    /// The time that ordering asked for has come.
    ///
    /// # Errors
    /// Why the node stops; as of every step.
    pub fn wake(&mut self) -> Result<(), PipelineError> {
        let outcome = self.parts.conductor.wake();
        self.settle(outcome)
    }

    /// A peer says something; refused if a block is not whole. Wishes for blocks are answered at once.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn receive(&mut self, incoming: Incoming) -> Result<(), PipelineError> {
        if let Some(answer) = self.parts.inbox.answer(&incoming.letter.message) {
            self.parts.stages.network.send(incoming.peer, &answer);
            return Ok(());
        }
        if self.parts.inbox.deliver(incoming).is_err() {
            return Ok(());
        }
        let Ok(incoming) = self.parts.sources.letters.try_recv() else { return Ok(()) };
        let outcome = self.parts.conductor.receive(incoming);
        self.settle(outcome)
    }

    /// A client sends a transaction.
    ///
    /// # Errors
    /// As [`Self::wake`]; what admission says is the answer.
    pub fn submit(&mut self, raw: RawTransaction) -> Result<Result<(), AdmissionError>, PipelineError> {
        let admitted = match self.parts.workers.first() {
            Some(worker) => worker.admit(raw).map(|_| ()),
            None => Err(AdmissionError::Closed),
        };
        if self.parts.sources.wakes.try_recv().is_ok() {
            let outcome = self.parts.conductor.handle(crate::ordering::event::Input::TransactionsWaiting);
            self.settle(outcome)?;
        }
        Ok(admitted)
    }

    /// Builds or executes the next block.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn do_job(&mut self) -> Result<(), PipelineError> {
        if let Ok(job) = self.parts.jobs.try_recv() {
            self.done = Some(self.parts.stages.work(&job)?);
        }
        Ok(())
    }

    /// Tells ordering what came out.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn report_job(&mut self) -> Result<(), PipelineError> {
        let Some(done) = self.done.take() else { return Ok(()) };
        let outcome = self.parts.conductor.done(done);
        self.settle(outcome)
    }

    /// Writes the lines that wait, and does not sync them.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn append_lines(&mut self) -> Result<(), PipelineError> {
        let batches: Vec<Lines> = self.parts.lines.try_iter().collect();
        let newest = append(&*self.parts.journal, batches).map_err(|error| PipelineError::Log(error.to_string()))?;
        self.appended = self.appended.max(newest);
        Ok(())
    }

    /// Syncs what was appended, and tells ordering.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn sync_lines(&mut self) -> Result<(), PipelineError> {
        let Some(token) = self.appended.take() else { return Ok(()) };
        self.parts.journal.sync().map_err(|error| PipelineError::Log(error.to_string()))?;
        self.parts.stages.progress.synced(token);
        self.progress()
    }

    /// Commits what was decided.
    ///
    /// # Errors
    /// As [`Self::wake`].
    pub fn commit(&mut self) -> Result<(), PipelineError> {
        let committed = self.parts.stages.commit_waiting(&self.parts.committer, None, &self.parts.decided, &|| false);
        let height = committed.map_err(|error| PipelineError::Commit(error.to_string()))?;
        self.parts.stages.progress.committed(height);
        self.progress()
    }

    fn progress(&mut self) -> Result<(), PipelineError> {
        let _ = self.parts.sources.progress.try_recv();
        let outcome = self.parts.conductor.progress();
        self.settle(outcome)
    }
}
