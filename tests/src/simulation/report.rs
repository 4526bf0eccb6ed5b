//! What a run came to.

use std::collections::BTreeMap;

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
    /// Bytes that each node sent, encoded.
    pub bytes_sent: Vec<u64>,
    /// Microseconds that its signatures took each node, where that is counted.
    pub cpu_us: Vec<u64>,
    /// When each height was first final at an honest node, in microseconds.
    pub final_us: BTreeMap<u64, u64>,
    /// Validators that were proved faulty.
    pub convicted: usize,
    /// Slots of the first epoch that were skipped: of leaders that are there, and of one that never started.
    pub skipped: [u64; 2],
    /// Slots that passed in the first epoch.
    pub slots: u64,
    /// How long the builds of all final blocks took in sum, in microseconds, where transactions wait at any time.
    pub built_us: u64,
    /// By how many heights nodes were behind when they started again, and for how many microseconds; of whole nodes,
    /// how many blocks came in ranges.
    pub caught_up: Vec<(u64, u64)>,
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

    /// From one height's finality to the next one's, in microseconds: on average and at most.
    #[must_use]
    pub fn gaps_us(&self) -> (u64, u64) {
        let times: Vec<u64> = self.final_us.values().copied().collect();
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return (0, 0) };
        let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
        (last.saturating_sub(*first) / (times.len() as u64 - 1).max(1), longest)
    }

    /// One line of JSON: how fast the run was, and what it cost; `seconds` is its length.
    #[must_use]
    pub fn pace(&self, seconds: u64) -> String {
        let each = |sums: &[u64], per: u64| {
            let (sum, most) = (sums.iter().sum::<u64>(), sums.iter().max().copied().unwrap_or_default());
            (sum / (sums.len() as u64 * per * seconds).max(1), most / (per * seconds).max(1))
        };
        let (bytes, bytes_most) = each(&self.bytes_sent, 1);
        // Hundredths of a percent of a core.
        let (cpu, cpu_most) = each(&self.cpu_us, 100);
        let (slot_us, longest_us) = self.gaps_us();
        let [skipped, absent] = self.skipped;
        format!(
            r#"{{"validators":{},"finality_p50_ms":{},"finality_p99_ms":{},"slot_ms":{},"longest_gap_ms":{},"heights":{},"skipped":{skipped},"skipped_of_absent":{absent},"bytes_per_node_second":{bytes},"bytes_most":{bytes_most},"cpu_percent":{}.{:02},"cpu_percent_most":{}.{:02},"ok":{}}}"#,
            self.bytes_sent.len(),
            self.finality(500) / 1_000,
            self.finality(990) / 1_000,
            slot_us / 1_000,
            longest_us / 1_000,
            self.final_us.len(),
            cpu / 100,
            cpu % 100,
            cpu_most / 100,
            cpu_most % 100,
            self.violation.is_none()
        )
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
