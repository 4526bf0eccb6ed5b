//! Randomness that is the same everywhere: integers only, no state outside the value.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64).

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts the stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 for a bound of 0; the bias is below 2^-32 for bounds that fit 32 bits.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `least` to less than `end`.
    pub fn between(&mut self, least: u64, end: u64) -> u64 {
        least + self.below(end.saturating_sub(least))
    }
}

/// Ranks by Zipf's law with exponent 1: rank k is drawn in proportion to 1/(k+1).
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulative: Vec<u64>,
}

impl Zipf {
    /// A law over `ranks` ranks.
    ///
    /// # Panics
    /// For no ranks at all.
    #[must_use]
    pub fn new(ranks: u16) -> Self {
        assert!(ranks > 0, "a law needs a rank");
        let mut total = 0_u64;
        let cumulative = (1..=u64::from(ranks))
            .map(|rank| {
                total += WEIGHT_OF_FIRST / rank;
                total
            })
            .collect();
        Self { cumulative }
    }

    /// Draws a rank, 0 the most likely.
    pub fn draw(&self, rng: &mut Rng) -> u16 {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let ticket = rng.below(total);
        let rank = self.cumulative.partition_point(|end| *end <= ticket);
        u16::try_from(rank).unwrap_or_default()
    }
}

/// Large, so that the weights of late ranks keep their precision.
const WEIGHT_OF_FIRST: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_stream() {
        let mut rng = Rng::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn zipf_frequencies_follow_the_law() {
        let law = Zipf::new(50);
        let mut rng = Rng::new(7);
        let mut counts = [0_u64; 50];
        let draws = 200_000_u64;
        for _ in 0..draws {
            counts[usize::from(law.draw(&mut rng))] += 1;
        }
        // The harmonic number of 50 is 4.4992: rank k expects draws / (4.4992 (k + 1)).
        for (rank, count) in counts.iter().enumerate() {
            let expected = draws * 10_000 / (44_992 * (rank as u64 + 1));
            assert!(count.abs_diff(expected) * 10 < expected, "rank {rank}: {count} drawn, {expected} expected");
        }
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut rng = Rng::new(3);
        assert!((0..1000).all(|_| (5..9).contains(&rng.between(5, 9))));
        assert_eq!(rng.below(0), 0);
        assert_eq!(Zipf::new(1).draw(&mut rng), 0);
    }
}
