//! A small seeded generator (xorshift64*), so that a failing run can be repeated from the seed it printed.
//!
//! Source: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled".

/// Pseudo-random numbers; not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The seed of this run: `SLUICE_SEED`, else `default`; printed with the name of the test.
    ///
    /// # Panics
    /// If `SLUICE_SEED` is no number.
    #[must_use]
    pub fn seeded(test: &str, default: u64) -> Self {
        let seed = std::env::var("SLUICE_SEED").map_or(default, |text| text.parse().expect("SLUICE_SEED is a number"));
        eprintln!("{test}: seed {seed} (repeat with SLUICE_SEED={seed})");
        Self::new(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
