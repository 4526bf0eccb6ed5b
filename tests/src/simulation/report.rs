//! What a run came to.

use alloy_primitives::hex;

use super::crashes::CrashPoint;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash over every event and what came of it.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// The highest final height.
    pub height: u64,
    /// What may not be, if anything.
    pub violation: Option<String>,
    /// From a proposal's leaving to its finality at each node, in microseconds, sorted.
    pub finality_us: Vec<u64>,
    /// Bytes that the busiest node sent.
    pub bytes_sent: u64,
    /// Validators that were proved faulty.
    pub convicted: usize,
    /// Slots that passed in the first epoch.
    pub slots: u64,
    /// Crashes at each of [`CrashPoint::ALL`].
    pub crash_points: [u64; CrashPoint::COUNT],
}

impl Report {
    /// The share of finalities, in thousandths, that took at most what is returned, in microseconds.
    #[must_use]
    pub fn finality(&self, mille: usize) -> u64 {
        let place = self.finality_us.len().saturating_sub(1) * mille / 1_000;
        self.finality_us.get(place).copied().unwrap_or_default()
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let hash = hex::encode(self.hash.to_be_bytes());
        let (seed, events, height) = (self.seed, self.events, self.height);
        let ok = self.violation.is_none();
        format!(r#"{{"seed":{seed},"hash":"{hash}","events":{events},"height":{height},"ok":{ok}}}"#)
    }
}

/// Debug output with its hashes cut short.
#[must_use]
pub fn shortened(of: &impl std::fmt::Debug) -> String {
    let text = format!("{of:?}");
    let mut short = String::with_capacity(text.len());
    let mut digits = 0;
    for letter in text.chars() {
        digits = if letter.is_ascii_hexdigit() { digits + 1 } else { 0 };
        if digits <= 8 {
            short.push(letter);
        }
    }
    short
}
