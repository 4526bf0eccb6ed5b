//! What a run is made of.

use std::time::Duration;

use engine::ordering::{pacemaker::Timing, planted::Planted};

use super::{answers::Lie, faults::Faults, network::Delay};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Validators.
    pub validators: usize,
    /// Simulated time in microseconds.
    pub length_us: u64,
    /// Time at the end in which nothing new goes wrong, so that everybody must come to one end; in microseconds.
    pub calm_us: u64,
    /// From one partition to the next, in microseconds at most.
    pub partition_us: u64,
    /// Slots that must pass, if need be after the time is over and everything has healed.
    pub slots_min: u64,
    /// Groups that the nodes are in from the beginning to the end, instead of partitions that come and go.
    pub groups: Option<Vec<usize>>,
    /// Go on whatever else is violated, until two blocks are final at one height.
    pub only_forks: bool,
    /// What may go wrong.
    pub faults: Faults,
    /// Of a thousand times that an honest node stands between signing, writing, syncing, sending and committing, so
    /// many are crashes.
    pub crash_points_per_mille: u64,
    /// Delays of the links.
    pub delay: Delay,
    /// Of a thousand messages so many are lost.
    pub loss_per_mille: u64,
    /// As between real hosts under load: signatures take the time of BLS, what is lost of a stream is sent again, and
    /// every block has transactions.
    pub is_wide: bool,
    /// Whoever leads this window of the first epoch never starts.
    pub absent_leader: Option<u64>,
    /// Timers.
    pub timing: Timing,
    /// Slots of a window.
    pub window: u64,
    /// Heights of an epoch; chosen by the seed, or as many as in production, if it is not given.
    pub epoch_heights: Option<u64>,
    /// Nodes that only follow, beside the validators; they start when those who are away come back.
    pub followers: usize,
    /// The first validator goes away at this time, and comes back at that one; in microseconds.
    pub away_us: Option<(u64, u64)>,
    /// Everybody who is there all the time lies to those who are behind, all but this one.
    pub truthful: Option<usize>,
    /// How everybody lies; if it is not given and one is truthful, each in a way of his own.
    pub lie: Option<Lie>,
    /// Validators that are faulty; `None` for as many as may be.
    pub byzantine: Option<usize>,
    /// A bug that the honest nodes have.
    pub planted: Planted,
    /// Microseconds that a block takes to execute.
    pub execute_us: u64,
    /// Transactions wait at any time: a build takes all the time that it is given, a slot time at most, and to execute
    /// its block takes everybody else so many percent of that.
    pub full_percent: Option<u64>,
    /// Microseconds that a sync takes.
    pub sync_us: u64,
    /// Tell of every event.
    pub verbose: bool,
}

impl Options {
    /// A cluster for some simulated seconds; after more than 30 of them the last 25 are calm.
    #[must_use]
    pub fn cluster(seed: u64, validators: usize, seconds: u64, faults: Faults) -> Self {
        Self {
            seed,
            validators,
            length_us: seconds.saturating_mul(1_000_000),
            calm_us: if seconds > 30 { 25_000_000 } else { 0 },
            partition_us: 8_000_000,
            slots_min: 0,
            groups: None,
            only_forks: false,
            faults,
            crash_points_per_mille: 0,
            delay: Delay { median_us: 30_000, max_us: 150_000, sigma_milli: 400 },
            loss_per_mille: 0,
            is_wide: false,
            absent_leader: None,
            timing: Timing {
                delta: Duration::from_millis(150),
                slot_time: Duration::from_millis(200),
                idle_interval: Some(Duration::from_secs(1)),
            },
            window: 4,
            epoch_heights: None,
            followers: 0,
            away_us: None,
            truthful: None,
            lie: None,
            byzantine: None,
            planted: Planted::default(),
            execute_us: 5_000,
            full_percent: None,
            sync_us: 1_000,
            verbose: false,
        }
    }

    /// Five validators, of whom the first goes away after two seconds, and a follower; both come to a chain that has
    /// made meanwhile, in many epochs, in some, or in one, while all others but one lie about it.
    #[must_use]
    pub fn sync(seed: u64, lie: Option<Lie>, seconds: u64) -> Self {
        let timing = Timing {
            delta: Duration::from_millis(40),
            slot_time: Duration::from_millis(40),
            idle_interval: Some(Duration::from_millis(200)),
        };
        let length_us = seconds.saturating_mul(1_000_000);
        let faults = if seed.is_multiple_of(2) { "epochs" } else { "epochs,loss,duplicate,reorder" };
        Self {
            length_us,
            calm_us: 0,
            delay: Delay { median_us: 8_000, max_us: 40_000, sigma_milli: 400 },
            timing,
            execute_us: 1_000,
            epoch_heights: [Some(400), None, Some(18_000)][usize::try_from(seed % 3).unwrap_or_default()],
            followers: 1,
            away_us: Some((2_000_000, length_us.saturating_mul(4) / 5)),
            truthful: Some(1 + usize::try_from(seed % 4).unwrap_or_default()),
            lie,
            byzantine: Some(0),
            ..Self::cluster(seed, 5, seconds, Faults::parse(faults).unwrap_or_default())
        }
    }

    /// Four validators with slots of four milliseconds, and partitions that change every few of them.
    #[must_use]
    pub fn scenario(seed: u64, faults: Faults) -> Self {
        let timing = Timing {
            delta: Duration::from_millis(4),
            slot_time: Duration::from_millis(4),
            idle_interval: Some(Duration::from_millis(8)),
        };
        Self {
            length_us: 400_000,
            partition_us: 30_000,
            delay: Delay { median_us: 1_000, max_us: 4_000, sigma_milli: 400 },
            timing,
            window: 1 + seed % 4,
            execute_us: 100,
            sync_us: 50,
            ..Self::cluster(seed, 4, 0, faults)
        }
    }
}
