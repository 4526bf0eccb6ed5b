//! The execution thread: builds blocks and executes those of others, one at a time.

use std::{fmt::Display, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use crossbeam::channel::{Receiver, Sender};
use tracing::Span;

use super::{PipelineError, Stages, timed};
use crate::{
    admission::PoolCandidates,
    dissemination::{self, Commitment, Plans},
    execution::{Ground, Layer},
    limits, metrics,
    ordering::{chain, event::BuildOrder},
    ports::{BuildSettings, BuildTime, Candidates, ExecutionError, StateError},
    spans,
    types::{AccessList, Block, BuiltBlock, NamedList, Signature, Transaction},
};

/// What the execution thread is asked for; with how bodies of the epoch travel.
pub(super) enum Job {
    /// Build a block.
    Build { order: Box<BuildOrder>, plans: Arc<Plans>, span: Span },
    /// Execute a block on its parent, along its access list if that is here.
    Execute(Box<Execution>),
}

/// A block that is to be executed.
pub(super) struct Execution {
    pub(super) id: B256,
    pub(super) parent: B256,
    pub(super) block: Arc<Block>,
    pub(super) signature: Signature,
    /// What the header names; that it is right is for the execution to find out.
    pub(super) list: Option<NamedList>,
    pub(super) plans: Arc<Plans>,
}

/// What it answers.
pub(super) enum Done {
    /// A block, its access list if that is worth sending, and whether more transactions wait.
    Built {
        block: Box<BuiltBlock>,
        list: Option<NamedList>,
        more: bool,
    },
    Executed {
        id: B256,
        verdict: Result<(), String>,
    },
}

impl Stages {
    pub(super) fn execute_loop(&self, jobs: &Receiver<Job>, done: &Sender<Done>, fail: &Sender<PipelineError>) {
        for job in jobs {
            let busy = if matches!(job, Job::Build { .. }) { &metrics::BUILD_BUSY } else { &metrics::EXECUTE_BUSY };
            let mut result = None;
            timed(busy, &mut || result = Some(self.work(&job)));
            match result {
                Some(Ok(answer)) => {
                    if done.send(answer).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let _ = fail.try_send(error);
                    return;
                }
                None => return,
            }
        }
    }

    /// Does one job.
    pub(super) fn work(&self, job: &Job) -> Result<Done, PipelineError> {
        match job {
            Job::Build { order, plans, span } => {
                let (block, more) = self.build(order, plans)?;
                spans::stands_for(span, block.0.block.body.transactions.len());
                self.pool.found(&block.0.block);
                let list = self.list_worth_sending(&block);
                Ok(Done::Built { block: Box::new(block), list, more })
            }
            Job::Execute(execution) => {
                let verdict = self.execute(execution)?;
                Ok(Done::Executed { id: execution.id, verdict })
            }
        }
    }

    /// Executes a block that somebody else built; what comes out lies on its parent if every field is equal.
    fn execute(&self, execution: &Execution) -> Result<Result<(), String>, PipelineError> {
        let Execution { id, parent, block, signature, list, plans } = execution;
        let failed = |error: &dyn Display| PipelineError::Execute(error.to_string());
        let Some(ground) = self.pending.ground(*parent, &*self.store).map_err(|error| failed(&error))? else {
            return Ok(Err("its parent lost to another block".to_owned()));
        };
        let (has, expected) =
            (block.header.inner().mix_hash, chain::mix(ground.parent.inner().mix_hash, &block.consensus.seed_share));
        if has != expected {
            return Ok(Err(format!("mix_hash is {has}, not {expected}")));
        }
        if let Err(refusal) = dissemination::check(plans, block) {
            return Ok(Err(refusal.to_string()));
        }
        let executed = match list {
            Some(list) => {
                metrics::BLOCK_LISTED.increment();
                self.executor.execute_listed(&*ground.view, &ground.parent, block, list)
            }
            None => {
                metrics::BLOCK_UNLISTED.increment();
                self.executor.execute(&*ground.view, &ground.parent, block)
            }
        };
        match executed {
            Ok(executed) => {
                self.pending.insert(*id, Layer { signature: *signature, executed });
                Ok(Ok(()))
            }
            Err(ExecutionError::Invalid(reason)) => Ok(Err(reason)),
            // Other blocks became final meanwhile, on another branch: the state below is gone.
            Err(ExecutionError::State(StateError::Unavailable(_))) => {
                Ok(Err("its parent lost to another block".to_owned()))
            }
            Err(ExecutionError::State(error)) => Err(failed(&error)),
        }
    }

    /// The access list of a block that was built here, if others are faster with it and take one of its size.
    fn list_worth_sending(&self, built: &BuiltBlock) -> Option<NamedList> {
        let block = &built.0.block;
        if !self.executor.is_worth_listing(block) {
            return None;
        }
        let size_max = AccessList::bytes_max(self.store.chain().list_items_max(&block.consensus));
        Some(NamedList::of(&built.0)).filter(|list| list.size_bytes() <= size_max)
    }

    fn build(&self, order: &BuildOrder, plans: &Plans) -> Result<(BuiltBlock, bool), PipelineError> {
        let failed = |error: &dyn Display| PipelineError::Build(error.to_string());
        let ground = self.pending.ground(order.header.parent_id, &*self.store).map_err(|error| failed(&error))?;
        let Some(ground) = ground else { return Err(failed(&"the parent lost to another block")) };
        let (mut built, more) = self.build_on(&ground, order).map_err(|error| failed(&error))?;
        // If the epoch has ended meanwhile, nobody proposes the block.
        if plans.set().epoch() == order.header.epoch() {
            let block = Arc::make_mut(&mut built.0.block);
            let Commitment { root, size_bytes } =
                dissemination::commit(plans, block).map_err(|error| failed(&error))?;
            (block.consensus.body_root, block.consensus.body_size_bytes) = (root, size_bytes);
        }
        Ok((built, more))
    }

    fn build_on(&self, ground: &Ground, order: &BuildOrder) -> Result<(BuiltBlock, bool), ExecutionError> {
        let chain = self.store.chain();
        let settings = BuildSettings {
            consensus: order.header.clone(),
            parent_id: order.header.parent_id,
            beneficiary: self.config.beneficiary,
            gas_limit: chain.genesis_header.gas_limit,
            extra_data: self.config.extra_data.clone(),
            mix_hash: order.mix,
        };
        let base_fee = chain.base_fee.next(ground.parent.inner());
        let inner = PoolCandidates::new(&self.pool, base_fee, &ground.next_nonces());
        let mut candidates = Counted { inner, exhausted: false, skipped: false };
        let slot_time = Duration::from_millis(chain.ordering.slot_time_ms).max(order.deadline);
        let begun = self.now().monotonic;
        let elapsed = || self.now().monotonic.saturating_sub(begun);
        let replica_max = limits::replica_time(slot_time);
        let time = BuildTime { elapsed: &elapsed, begin_max: order.deadline, replica_max };
        let block = self.executor.build(&*ground.view, &ground.parent, &settings, &mut candidates, &time)?;
        // What was passed over for lack of room fits the next block; a block that took nothing promises nothing.
        let progress = !block.0.block.body.transactions.is_empty();
        Ok((block, !candidates.exhausted || (candidates.skipped && progress)))
    }
}

/// Tells whether a build ended because nothing was left to offer, and whether it passed anything over.
struct Counted<'pool> {
    inner: PoolCandidates<'pool>,
    exhausted: bool,
    skipped: bool,
}

impl Candidates for Counted<'_> {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        let next = self.inner.next();
        self.exhausted |= next.is_none();
        next
    }

    fn give_back(&mut self) {
        self.exhausted = false;
    }

    fn skip_sender(&mut self, sender: Address) {
        self.skipped = true;
        self.inner.skip_sender(sender);
    }

    fn throw_out(&mut self, transaction: &Transaction) {
        self.inner.throw_out(transaction);
    }
}
