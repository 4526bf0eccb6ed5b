//! A state that others give, for a store that begins with it: what a recorded process takes in part by part.
//!
//! The parts follow from the seed. The process tells how many it begins to take and how many it took, so whatever a cut
//! leaves, it is known which keys must be missing then: what was taken is never asked for again.

use std::{path::Path, sync::Arc};

use alloy_primitives::{B256, Bytes};
use engine::{ports::Store as _, types::Epoch};
use storage::{
    Config, Database,
    portable::{Foundation, Gap, Head, Held, Intake},
    testing::{self, world::World},
};

use super::campaign::scratch;

/// Heights of an epoch, and so from one state that is given to the next.
pub(super) const EPOCH_HEIGHTS: u64 = 8;
/// Bytes of a part, about: some ten of them make up the state.
const PART_BYTES: usize = 300;

/// A state with all that shows it.
#[derive(Clone, Debug)]
pub struct Given {
    block: B256,
    root: B256,
    foundation: Foundation,
    parts: Vec<Bytes>,
    /// What is missing after so many of them.
    missing: Vec<Vec<Gap>>,
}

/// How far a process has come with the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// So many are there.
    pub done: usize,
    /// No more than these are.
    pub begun: usize,
}

/// Small files, and no threads.
fn settings(dir: &Path) -> Config {
    let (segment_bytes, log_bytes, map_bytes_max) = (1 << 16, 1 << 15, 1 << 30);
    Config { segment_bytes, log_bytes, map_bytes_max, background: false, ..Config::new(dir) }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Given {
    /// The state after some blocks of a world, which ends with them; made in a folder that goes again.
    pub(super) fn of(world: &mut World) -> Result<Self, String> {
        let home = scratch().map_err(told)?;
        let config = |name: &str| settings(&home.path().join(name));
        let store = Database::open(config("giver"), Arc::clone(&world.chain)).map_err(told)?;
        // Others would not take the signatures of made-up transactions.
        world.transactions_max = 0;
        world.commit(&store, 2 * EPOCH_HEIGHTS).map_err(told)?;
        store.checkpoint().map_err(told)?;
        let (block, head) = store.state_head(None, Epoch(0)).map_err(told)?;
        let head = Head::decode(&head)?;
        let proof = head.proofs.last().ok_or("a head without a block")?;
        let header = proof.headers.last().ok_or("a proof without a header")?.clone();
        let newest = head.blocks.blocks[0].block(header, proof.certificate)?;
        let root = newest.block.header.state_root;
        let foundation = Foundation { blocks: vec![newest], headers: head.blocks.headers, epochs: Vec::new() };
        let mut given = Self { block, root, foundation, parts: Vec::new(), missing: Vec::new() };
        let mut intake = Intake::open(&config("taker"), &world.chain, block).map_err(told)?;
        loop {
            given.missing.push(intake.gaps(0));
            let Some(Gap { owner, from, .. }) = intake.gaps(0).pop() else { break };
            let part = testing::state_part(&store, block, (owner, from), PART_BYTES).map_err(told)?;
            intake.take(root, &part).map_err(told)?.map_err(told)?;
            given.parts.push(part);
        }
        world.transactions_max = 3;
        world.base = world.tip();
        Ok(given)
    }

    /// Takes what a folder lacks, and makes a store of it; one that is there already is left as it is.
    ///
    /// # Errors
    /// What fails; or that what is missing is not what has to be missing after so many parts.
    pub fn complete(
        &self,
        dir: &Path,
        world: &World,
        taken: Taken,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        let config = settings(dir);
        if Intake::held(&config).map_err(told)? == Held::Chain {
            return Ok(());
        }
        let mut intake = Intake::open(&config, &world.chain, self.block).map_err(told)?;
        let missing = intake.gaps(0);
        let may_be = self.missing.get(taken.done..=taken.begun.min(self.parts.len())).unwrap_or_default();
        if !may_be.contains(&missing) {
            return Err(format!("after {taken:?} of {} parts this is missing: {missing:?}", self.parts.len()));
        }
        for (number, part) in (1..).zip(&self.parts) {
            tell(format!("takes {number}"));
            intake.take(self.root, part).map_err(told)?.map_err(told)?;
            tell(format!("took {number}"));
        }
        let height = world.base;
        tell(format!("commits {height}"));
        intake.finish(&world.chain, &self.foundation, &|_| ()).map_err(told)?;
        tell(format!("committed {height}"));
        Ok(())
    }
}
