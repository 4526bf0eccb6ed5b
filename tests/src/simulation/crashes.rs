//! Power cuts, and what they take.

use super::{
    cluster::secret_of,
    faults::FaultKind,
    world::{Event, World},
};

/// Where a crash comes between a signature and the world, or between finality and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Something was signed, and nothing of it is written.
    BeforeAppend,
    /// It is written, and may be lost.
    BeforeSync,
    /// It is synced, and nobody heard of it.
    BeforeSend,
    /// Some heard of it.
    WhileSending,
    /// Blocks are final, and the store does not know.
    BeforeCommit,
    /// Some of them are durable.
    WhileCommitting,
}

impl CrashPoint {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::BeforeAppend, "before_append"),
        (Self::BeforeSync, "before_sync"),
        (Self::BeforeSend, "before_send"),
        (Self::WhileSending, "while_sending"),
        (Self::BeforeCommit, "before_commit"),
        (Self::WhileCommitting, "while_committing"),
    ];
}

impl World {
    /// Whether an honest node crashes here, and does; it starts again soon.
    pub(super) fn strikes(&mut self, node: usize, point: CrashPoint) -> bool {
        let is_struck = self.is_struck(node, point);
        if is_struck {
            self.fall(node);
        }
        is_struck
    }

    /// Whether an honest node is to crash here.
    pub(super) fn is_struck(&mut self, node: usize, point: CrashPoint) -> bool {
        let (chance, end) = (self.options.crash_points_per_mille, self.options.length_us - self.options.calm_us);
        if chance == 0 || self.now >= end || self.nodes[node].fault.is_some() || self.rng.below(1_000) >= chance {
            return false;
        }
        self.crash_points[point as usize] += 1;
        true
    }

    /// A node crashes, and starts again soon.
    pub(super) fn fall(&mut self, node: usize) {
        self.crash(node);
        let down = if self.rng.below(8) == 0 { 3_000_000 } else { 300_000 };
        let back = self.now + 1 + self.rng.below(down);
        self.at(back, Event::Restart { node });
    }

    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].machine.take().is_none() {
            return;
        }
        let survive = usize::try_from(self.rng.below(4)).expect("small");
        let is_torn = self.options.faults.has(FaultKind::TornLog) && self.rng.below(2) == 0;
        let lines = if is_torn { usize::try_from(self.rng.below(4)).expect("small") } else { 0 };
        self.nodes[node].disk.cut(survive, lines);
        match self.nodes[node].fault {
            Some(FaultKind::Forget) => self.nodes[node].disk.log.clear(),
            None if self.may_forget(node) => self.forget(node),
            _ => {}
        }
        self.nodes[node].job = None;
        self.nodes[node].wake.1 += 1;
    }

    /// Once a third is faulty or forgot, the chain may stop by design: nobody knows any more what it may sign.
    fn may_forget(&self, node: usize) -> bool {
        let is_weak = |at: &usize| {
            let it = &self.nodes[*at];
            *at == node || it.fault.is_some() || it.is_jumping || it.has_forgotten
        };
        let mut weak: Vec<u64> = (0..self.nodes.len()).filter(is_weak).map(|at| self.nodes[at].secret).collect();
        weak.dedup();
        let stake = |secret: &u64| self.stakes[usize::try_from(*secret - secret_of(0)).expect("small")];
        weak.iter().map(stake).sum::<u64>() * 3 < self.stakes.iter().sum()
    }

    /// Takes what the node remembers, or some of it.
    fn forget(&mut self, node: usize) {
        let kinds = [FaultKind::LostLog, FaultKind::TornLog, FaultKind::OldLog];
        let kinds: Vec<FaultKind> = kinds.into_iter().filter(|kind| self.options.faults.has(*kind)).collect();
        if kinds.is_empty() || self.rng.below(4) != 0 {
            return;
        }
        let kind = kinds[usize::try_from(self.rng.below(kinds.len() as u64)).expect("small")];
        let it = &mut self.nodes[node];
        match kind {
            FaultKind::LostLog => it.disk.damage(0),
            FaultKind::TornLog => {
                let lines = self.rng.below(it.disk.log.len() as u64 + 1);
                it.disk.damage(usize::try_from(lines).expect("small"));
            }
            _ => match it.backup.take() {
                Some(backup) => {
                    it.disk = backup;
                    it.disk.is_log_lost = true;
                }
                None => return,
            },
        }
        it.has_forgotten = true;
    }
}
