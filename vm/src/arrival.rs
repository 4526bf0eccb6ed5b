//! A block that is executed while it arrives.
//!
//! ```text
//! opening fields of the header -> parts: transactions and their fragment of the access list -> the block
//! ```
//!
//! Promise: what comes out is what [`Executor::execute`] gives for the block, whatever the parts were, or an error.
//! The parts come from a peer before anything is signed: nothing in them is believed, and nothing that was executed
//! counts before the whole block is there, names the list that the fragments make up, and is judged.
//!
//! [`Executor::execute`]: engine::ports::Executor::execute

use std::{borrow::Cow, sync::Arc};

use alloy_consensus::{Header, Sealed};
use engine::{
    ports::{ExecutionError, StateView},
    types::{AccessList, Block, ExecutedBlock, Receipt, Transaction},
};

use crate::{
    RevmExecutor,
    executor::judge,
    replay::{Replay, ReplayError},
    rules,
};

/// A block on its way; see [`RevmExecutor::arriving`].
pub struct Arrival<'a> {
    executor: &'a RevmExecutor,
    view: &'a dyn StateView,
    parent: Sealed<Header>,
    replay: Replay<'a>,
    /// The first error; nothing is taken after it.
    failed: Option<ReplayError>,
}

impl std::fmt::Debug for Arrival<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transactions = self.replay.transactions().len();
        f.debug_struct("Arrival").field("transactions", &transactions).finish_non_exhaustive()
    }
}

impl RevmExecutor {
    /// Opens a block that arrives in parts, on the state of `view` after `parent`.
    ///
    /// Of `header` count the fields that execution needs, and the others may be anything: parent hash, number,
    /// timestamp, beneficiary, gas limit, base fee, difficulty, mix hash, excess blob gas, parent beacon block root.
    ///
    /// # Errors
    /// [`ReplayError::Execution`] if one of these fields breaks a rule.
    pub fn arriving<'a>(
        &'a self,
        view: &'a dyn StateView,
        parent: &Sealed<Header>,
        header: &Header,
    ) -> Result<Arrival<'a>, ReplayError> {
        let checked = self.rules().check_opening(self.chain(), parent, header);
        checked.map_err(|reason| ReplayError::Execution(ExecutionError::Invalid(reason)))?;
        let replay = self.replay(view, header, true);
        Ok(Arrival { executor: self, view, parent: parent.clone(), replay, failed: None })
    }
}

impl Arrival<'_> {
    /// Takes the block's next transactions and the fragment of its access list that belongs to them, see
    /// [`AccessList::fragments`]; either may be empty. Executes them as soon as they are worth waking threads, and
    /// gives the receipts that became complete, in block order.
    ///
    /// The receipts hold if [`Self::finish`] accepts the block.
    ///
    /// # Errors
    /// [`ReplayError`]: the fragment does not continue the list, or is not what the transactions do. Every later
    /// call gives the same error.
    pub fn push(
        &mut self,
        transactions: Vec<Arc<Transaction>>,
        fragment: AccessList,
    ) -> Result<&[Receipt], ReplayError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let before = self.replay.receipts().len();
        if let Err(error) = self.replay.push(Cow::Owned(transactions), Cow::Owned(fragment)) {
            return Err(self.failed.insert(error).clone());
        }
        Ok(&self.replay.receipts()[before..])
    }

    /// Ends the arrival with the block itself.
    ///
    /// # Errors
    /// [`ReplayError::Another`] if the parts are not this block's, [`ReplayError::Mismatch`] if the list is not what
    /// the transactions do or not the one that the block names, [`ReplayError::Execution`] with the plain loop's error.
    pub fn finish(mut self, block: &Arc<Block>) -> Result<ExecutedBlock, ReplayError> {
        self.check_same(block)?;
        let (executor, invalid) = (self.executor, |reason| ReplayError::Execution(ExecutionError::Invalid(reason)));
        executor.rules().check(executor.chain(), &self.parent, block).map_err(invalid)?;
        let mut finished = self.replay.close(block.body.withdrawals.as_ref())?;
        let list = finished.access_list.take();
        let list = Arc::new(list.unwrap_or_else(|| self.replay.into_list()));
        executor.check_list_hash(block, || list.hash()).map_err(ReplayError::Mismatch)?;
        judge(self.view, block, finished, list).map_err(ReplayError::Execution)
    }

    /// As [`Self::finish`]; where the parts disagree with the block or with themselves, the plain loop decides what
    /// the block is worth, and `vm_replay_mismatch_total` tells.
    ///
    /// # Errors
    /// Those of [`Executor::execute`](engine::ports::Executor::execute).
    pub fn settle(self, block: &Arc<Block>) -> Result<ExecutedBlock, ExecutionError> {
        let (executor, view, parent) = (self.executor, self.view, self.parent.clone());
        executor.settle(view, &parent, block, self.finish(block))
    }

    /// Checks that the parts are those of this block, and gives the error that ended them early.
    fn check_same(&self, block: &Block) -> Result<(), ReplayError> {
        same_opening(self.replay.header(), block.header.inner()).map_err(ReplayError::Another)?;
        let (arrived, announced) = (self.replay.transactions(), &block.body.transactions);
        if let Some(at) = arrived.iter().zip(announced).position(|(arrived, announced)| arrived != announced) {
            let (arrived, announced) = (arrived[at].hash(), announced[at].hash());
            return Err(ReplayError::Another(format!("transaction {at} arrived as {arrived}, it is {announced}")));
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if arrived.len() != announced.len() {
            let counts = format!("{} transactions arrived, it has {}", arrived.len(), announced.len());
            return Err(ReplayError::Another(counts));
        }
        Ok(())
    }
}

/// Compares everything that execution reads of a header.
fn same_opening(arrived: &Header, announced: &Header) -> Result<(), String> {
    use rules::{equal, equal_if_any};
    equal("parent_hash", &announced.parent_hash, &arrived.parent_hash)?;
    equal("number", &announced.number, &arrived.number)?;
    equal("timestamp", &announced.timestamp, &arrived.timestamp)?;
    equal("beneficiary", &announced.beneficiary, &arrived.beneficiary)?;
    equal("gas_limit", &announced.gas_limit, &arrived.gas_limit)?;
    equal_if_any("base_fee_per_gas", announced.base_fee_per_gas, arrived.base_fee_per_gas)?;
    equal("difficulty", &announced.difficulty, &arrived.difficulty)?;
    equal("mix_hash", &announced.mix_hash, &arrived.mix_hash)?;
    equal_if_any("excess_blob_gas", announced.excess_blob_gas, arrived.excess_blob_gas)?;
    let (announced, arrived) = (announced.parent_beacon_block_root, arrived.parent_beacon_block_root);
    equal_if_any("parent_beacon_block_root", announced, arrived)
}

#[cfg(test)]
mod tests;
