//! The step: state and input to state and outputs.

use std::time::Duration;

use super::{BuildOrder, Idle, Input, Now, Output, Settings, Tip};
use crate::types::{BuiltBlock, ConsensusHeader, Finalization, FinalizedBlock, ParentRef, Slot};

/// Ordering of a chain of one validator.
#[derive(Debug)]
pub struct Ordering {
    settings: Settings,
    /// The newest block proposed, durable or not; `None` before [`Input::Start`].
    top: Option<Tip>,
    /// Height of the newest durable block.
    durable: u64,
    building: bool,
    /// Something may be executable that the last build did not see.
    waiting: bool,
    /// When the build of the last block began; the pace counts from here.
    proposed_at: Duration,
    /// When the build under way began.
    building_since: Duration,
}

impl Ordering {
    /// A machine that waits for [`Input::Start`].
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            top: None,
            durable: 0,
            building: false,
            waiting: false,
            proposed_at: Duration::ZERO,
            building_since: Duration::ZERO,
        }
    }

    /// Takes one input and lists what must happen, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut outputs = Vec::with_capacity(2);
        match input {
            Input::Start(tip) => {
                self.top = Some(tip);
                self.durable = tip.height.0;
                self.waiting = true;
                self.proposed_at = now.monotonic;
            }
            Input::Wake => {}
            Input::TransactionsWaiting => self.waiting = true,
            Input::Built { block, more } => {
                self.building = false;
                self.waiting |= more;
                if self.wanted(&block) {
                    self.proposed_at = self.building_since;
                    outputs.push(self.finalize(*block));
                }
            }
            Input::Committed(height) => self.durable = self.durable.max(height.0),
        }
        self.propose(now, &mut outputs);
        outputs
    }

    /// An empty block is wanted only when an idle chain owes one.
    fn wanted(&self, block: &BuiltBlock) -> bool {
        let owed = match self.settings.idle {
            Idle::Wait => false,
            Idle::EmptyAfter(after) => self.building_since >= self.proposed_at.saturating_add(after),
        };
        owed || !block.0.block.body.transactions.is_empty()
    }

    fn finalize(&mut self, BuiltBlock(executed): BuiltBlock) -> Output {
        let consensus = &executed.block.consensus;
        let id = consensus.id();
        self.top = Some(Tip {
            height: consensus.height(),
            parent: ParentRef { slot: consensus.slot(), id },
            timestamp_ms: consensus.timestamp_ms,
        });
        let finalization = Finalization { epoch: consensus.epoch(), slot: consensus.slot(), id };
        Output::Commit(Box::new(FinalizedBlock { executed, finalization }))
    }

    /// Asks for a build if one is due, else for a timer if one will be.
    fn propose(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(top) = self.top else { return };
        let in_flight = usize::try_from(top.height.0.saturating_sub(self.durable)).unwrap_or(usize::MAX);
        if self.building || in_flight >= self.settings.in_flight_max {
            return;
        }
        let after = match (self.waiting, self.settings.idle) {
            (true, _) => self.settings.slot_time,
            (false, Idle::EmptyAfter(after)) => after,
            (false, Idle::Wait) => return,
        };
        let due =
            if top.height.0 == 0 && self.waiting { Duration::ZERO } else { self.proposed_at.saturating_add(after) };
        if now.monotonic < due {
            outputs.push(Output::Wake(due));
            return;
        }
        self.building = true;
        self.building_since = now.monotonic;
        self.waiting = false;
        outputs.push(Output::Build(self.order(&top, now)));
    }

    /// Block time never falls, and lies half a slot above the parent's.
    fn order(&self, top: &Tip, now: Now) -> BuildOrder {
        let half_slot = u64::try_from(self.settings.slot_time.as_millis() / 2).unwrap_or(u64::MAX);
        let Slot(slot) = if top.height.0 == 0 { Slot(0) } else { top.parent.slot.next() };
        let consensus = ConsensusHeader {
            chain_id: self.settings.chain_id,
            epoch: 0,
            slot,
            height: top.height.next().0,
            parent_slot: top.parent.slot.0,
            parent_id: top.parent.id,
            proposer: 0,
            timestamp_ms: now.wall_ms.max(top.timestamp_ms.saturating_add(half_slot)),
            ..ConsensusHeader::default()
        };
        BuildOrder { consensus, parent_id: top.parent.id, deadline: self.settings.build_time }
    }
}
