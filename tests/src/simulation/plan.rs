//! What goes wrong when: planned at the beginning, all of it before the calm at the end.

use super::{
    faults::FaultKind,
    world::{Event, World},
};

/// Clocks jump by as much as this, in milliseconds.
const JUMP_MS: u64 = 3_600_000;

impl World {
    /// Plans crashes, copies of disks, jumps of clocks and partitions.
    pub(super) fn plan(&mut self) {
        if let Some((away, back)) = self.options.away_us {
            self.at(away, Event::Crash { node: 0 });
            self.at(back, Event::Restart { node: 0 });
            let late: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_late).collect();
            for node in late {
                self.at(back, Event::Restart { node });
            }
        }
        if let Some(groups) = self.options.groups.clone() {
            return self.cut(&groups, false);
        }
        let end = self.options.length_us.saturating_sub(self.options.calm_us);
        if end == 0 {
            return;
        }
        self.plan_crashes(end);
        self.plan_clocks(end);
        self.plan_partitions(end);
    }

    fn plan_crashes(&mut self, end: u64) {
        let has = |kind| self.options.faults.has(kind);
        let copied = has(FaultKind::OldLog);
        let crashed = copied || has(FaultKind::Crash) || has(FaultKind::LostLog) || has(FaultKind::TornLog);
        let count = self.nodes.len() as u64;
        for _ in 0..if crashed { self.rng.below(count * 2) } else { 0 } {
            let node = usize::try_from(self.rng.below(count)).expect("a node");
            let at = self.rng.below(end);
            self.at(at, Event::Crash { node });
            let down = if self.rng.below(4) == 0 { 8_000_000 } else { 1_500_000 };
            let back = (at + 1 + self.rng.below(down)).min(end);
            self.at(back, Event::Restart { node });
            if copied {
                let copied_at = self.rng.below(at + 1);
                self.at(copied_at, Event::Copy { node });
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].fault == Some(FaultKind::Dead) {
                let at = self.rng.below(end);
                self.at(at, Event::Crash { node });
            }
        }
    }

    fn plan_clocks(&mut self, end: u64) {
        for node in 0..self.nodes.len() {
            for _ in 0..if self.nodes[node].is_jumping { 1 + self.rng.below(8) } else { 0 } {
                let reach = if self.rng.below(2) == 0 { JUMP_MS } else { 3_000 };
                let by = i64::try_from(self.rng.below(2 * reach)).expect("two hours");
                let ahead_ms = by - i64::try_from(reach).expect("an hour");
                let (at, stands) = (self.rng.below(end), self.rng.below(4) == 0);
                self.at(at, Event::Clock { node, ahead_ms, stands });
            }
        }
    }

    fn plan_partitions(&mut self, end: u64) {
        let has = |kind| self.options.faults.has(kind);
        let (partition, one_way) = (has(FaultKind::Partition), has(FaultKind::OneWay));
        let mut at = if partition || one_way { 0 } else { end };
        loop {
            at += 1 + self.rng.below(self.options.partition_us);
            if at >= end {
                break;
            }
            let groups = (0..self.nodes.len()).map(|_| usize::from(self.rng.below(2) == 0)).collect();
            let one_way = one_way && (!partition || self.rng.below(2) == 0);
            self.at(at, Event::Cut { groups, one_way });
            at += 1 + self.rng.below(self.options.partition_us);
            self.at(at.min(end), Event::Heal);
        }
        self.at(end, Event::Heal);
    }
}
