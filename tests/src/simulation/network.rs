//! Links between nodes: delay, loss, duplicates, cuts.

use crate::rng::Rng;

/// How long messages take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    /// Median of the one-way delay, in microseconds.
    pub median_us: u64,
    /// Longest delay, in microseconds.
    pub max_us: u64,
    /// Spread: standard deviation of the delay's logarithm, in thousandths.
    pub sigma_milli: u64,
}

/// The state of all links.
#[derive(Clone, Debug)]
pub struct Links {
    nodes: usize,
    delay: Delay,
    /// Median of each link, in microseconds.
    medians: Vec<u64>,
    /// Whether each link is cut.
    cut: Vec<bool>,
    /// One in how many messages is lost, in parts per thousand.
    pub loss_per_mille: u64,
    /// How many come twice, in parts per thousand.
    pub twice_per_mille: u64,
    /// Whether the delay varies from message to message.
    pub varies: bool,
    /// Time at which the last message of each link arrives, where they keep their order.
    last: Vec<u64>,
}

/// A number of the standard normal distribution, in thousandths: the sum of twelve uniform ones.
fn normal_milli(rng: &mut Rng) -> i64 {
    let sum: u64 = (0..12).map(|_| rng.below(1_000)).sum();
    i64::try_from(sum).unwrap_or_default() - 5_994
}

/// `median * e^(sigma * normal)`.
fn log_normal(rng: &mut Rng, delay: Delay, median_us: u64) -> u64 {
    let exponent = f64::from(i32::try_from(normal_milli(rng)).unwrap_or_default())
        * f64::from(u32::try_from(delay.sigma_milli).unwrap_or_default())
        / 1e6;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between e^-6 and e^6, in millionths")]
    let factor_micro = (exponent.exp() * 1e6) as u64;
    (median_us.saturating_mul(factor_micro) / 1_000_000).clamp(1, delay.max_us.max(1))
}

impl Links {
    /// Links between `nodes` nodes, each with a median of its own.
    #[must_use]
    pub fn new(nodes: usize, delay: Delay, rng: &mut Rng) -> Self {
        let medians = (0..nodes * nodes).map(|_| log_normal(rng, delay, delay.median_us)).collect();
        Self {
            nodes,
            delay,
            medians,
            cut: vec![false; nodes * nodes],
            loss_per_mille: 0,
            twice_per_mille: 0,
            varies: false,
            last: vec![0; nodes * nodes],
        }
    }

    /// Cuts or mends a link.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }

    /// Mends every link.
    pub fn heal(&mut self) {
        self.cut.fill(false);
    }

    /// Times at which a message sent now arrives: none, one or two. What is lost is noticed after two delays and sent
    /// again, `tries` times in all.
    pub fn arrivals(&mut self, from: usize, to: usize, now: u64, tries: u32, rng: &mut Rng) -> [Option<u64>; 2] {
        let link = from * self.nodes + to;
        if self.cut[link] {
            return [None, None];
        }
        let is_lost = |rng: &mut Rng| self.loss_per_mille > 0 && rng.below(1_000) < self.loss_per_mille;
        let Some(lost) = (0..tries).find(|_| !is_lost(rng)) else { return [None, None] };
        let now = now.saturating_add(u64::from(lost) * 2 * self.medians[link]);
        let small = Delay { sigma_milli: if self.varies { 600 } else { 50 }, ..self.delay };
        let mut one = now.saturating_add(log_normal(rng, small, self.medians[link]));
        // What was sent again holds nothing else up.
        if !self.varies && lost == 0 {
            one = one.max(self.last[link]);
            self.last[link] = one;
        }
        let twice = self.twice_per_mille > 0 && rng.below(1_000) < self.twice_per_mille;
        let two = twice.then(|| now.saturating_add(log_normal(rng, small, self.medians[link])));
        [Some(one), two]
    }
}
