//! Machines that fail a little: a disk whose syncs take half a second, a clock that is off.

use std::time::{Duration, Instant};

use tests::cluster::{
    Ailment, Plan,
    watch::{Figures, Seen},
};

use crate::{Scene, TOGETHER, skipped};

/// The validator that something is wrong with; node 0 is looked at.
const SICK: usize = 3;

impl Scene {
    /// Restarts the sick validator on a machine with this wrong with it, and waits until it is with the others.
    fn sicken(&mut self, ailment: Ailment) {
        self.cluster.stop(SICK);
        self.cluster.members[SICK].ailment = ailment;
        self.cluster.start(SICK);
        let tip = self.cluster.height(0);
        self.cluster.reach(&[SICK], tip, TOGETHER);
    }

    /// What was seen from a moment on of the blocks of the others.
    fn of_others(&self, from: Instant) -> Figures {
        let others = |block: &Seen| usize::from(block.header.proposer) != SICK;
        let seen: Vec<Seen> = self.watch.seen().into_iter().filter(others).collect();
        Figures::of(&seen, from, Instant::now())
    }
}

#[test]
fn one_slow_disk_slows_only_its_own_leader() {
    if skipped("slow disk") {
        return;
    }
    println!("syncs of validator {SICK} take 500 ms longer");
    let mut scene = Scene::new(&Plan::validators(4));
    let from = Instant::now();
    let base = scene.measure("before");
    let base_others = scene.of_others(from);
    scene.sicken(Ailment::SlowSyncs(Duration::from_millis(500)));
    let from = Instant::now();
    let slow = scene.measure("slow syncs");
    let slow_others = scene.of_others(from);
    println!("  others' blocks: before {}, then {}", base_others.finality, slow_others.finality);
    scene.sicken(Ailment::None);
    scene.finish();
    let (p99, before) = (slow_others.finality.p99, base_others.finality.p99);
    assert!(p99 <= 2 * before, "p99 of the others' blocks is {p99} ms, before it was {before}");
    let (rate, before) = (slow.transactions_per_second, base.transactions_per_second);
    assert!(rate >= 0.7 * before, "{rate:.0} tx/s, before it were {before:.0}");
}

#[test]
fn a_clock_that_is_off_stalls_nobody_else() {
    if skipped("clock skew") {
        return;
    }
    println!("the clock of validator {SICK} is off");
    let mut scene = Scene::new(&Plan::validators(4));
    let timing = scene.cluster.timing;
    let base = scene.measure("before");
    for offset_ms in [500, -500, 3_600_000, -3_600_000] {
        scene.sicken(Ailment::Clock(offset_ms));
        let from = Instant::now();
        let figures = scene.measure(&format!("off by {offset_ms} ms"));
        let led = scene.watch.between(from, Instant::now());
        let led = led.iter().filter(|block| usize::from(block.header.proposer) == SICK).count();
        println!("  of these it led {led}");
        // By an hour its windows are lost, each at the cost of a timer, and some of them come in a row.
        let timers = if offset_ms.abs() > 1_000 { 6 } else { 1 };
        let allowed = timing.slot * 2 + timing.timer * timers;
        assert!(Duration::from_millis(figures.gap.most) <= allowed, "a stall of {} ms", figures.gap.most);
        let (rate, before) = (figures.transactions_per_second, base.transactions_per_second);
        assert!(rate >= 0.7 * before, "{rate:.0} tx/s, before it were {before:.0}");
    }
    scene.sicken(Ailment::None);
    scene.finish();
}
