//! Which faults a run draws from.

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Messages are lost, one in fifty.
    Loss,
    /// Messages come twice.
    Duplicate,
    /// Delays of one link vary, so that messages overtake each other.
    Reorder,
    /// The cluster falls into groups, and heals.
    Partition,
    /// Links carry one way only.
    OneWay,
    /// Nodes crash, before and after syncs, and start again.
    Crash,
    /// A crash takes the whole log.
    LostLog,
    /// Some executors are slow.
    SlowExecutor,
    /// Some disks are slow.
    SlowDisk,
    /// Clocks run fast or slow, and are apart.
    Drift,
    /// Clocks jump by up to an hour, stand still, and fall back.
    ClockJumps,
    /// A power cut takes part of a batch of the log; damage in the middle takes all that follows.
    TornLog,
    /// A node comes back with an old copy of its disk.
    OldLog,
    /// A validator stops for good.
    Dead,
    /// Stake lies with few.
    Weights,
    /// Epochs are short, and the set changes.
    Epochs,
    /// A key runs twice.
    Twins,
    /// A leader sends different blocks to different validators.
    Equivocate,
    /// Certificates are kept back.
    Withhold,
    /// Votes have wrong signatures.
    BadShares,
    /// Votes for slots of the far future.
    Flood,
    /// Blocks whose execution comes to something else.
    InvalidBlocks,
    /// A validator forgets what it signed, and goes on.
    Forget,
    /// Certificates that nobody signed.
    Forge,
    /// The last block of an epoch names another next set.
    WrongSet,
    /// Other blocks than those that were asked for.
    WrongBlocks,
}

impl FaultKind {
    /// Every kind with its name.
    pub const ALL: [(Self, &'static str); 26] = [
        (Self::Loss, "loss"),
        (Self::Duplicate, "duplicate"),
        (Self::Reorder, "reorder"),
        (Self::Partition, "partition"),
        (Self::OneWay, "one-way"),
        (Self::Crash, "crash"),
        (Self::LostLog, "lost-log"),
        (Self::SlowExecutor, "slow-executor"),
        (Self::SlowDisk, "slow-disk"),
        (Self::Drift, "drift"),
        (Self::ClockJumps, "clock-jumps"),
        (Self::TornLog, "torn-log"),
        (Self::OldLog, "old-log"),
        (Self::Dead, "dead"),
        (Self::Weights, "weights"),
        (Self::Epochs, "epochs"),
        (Self::Twins, "twins"),
        (Self::Equivocate, "equivocate"),
        (Self::Withhold, "withhold"),
        (Self::BadShares, "bad-shares"),
        (Self::Flood, "flood"),
        (Self::InvalidBlocks, "invalid-blocks"),
        (Self::Forget, "forget"),
        (Self::Forge, "forge"),
        (Self::WrongSet, "wrong-set"),
        (Self::WrongBlocks, "wrong-blocks"),
    ];

    /// Whether it takes a validator out of the third that may be faulty, or silent, or have a wrong clock.
    #[must_use]
    pub const fn is_of_a_third(self) -> bool {
        matches!(
            self,
            Self::Twins
                | Self::Equivocate
                | Self::Withhold
                | Self::BadShares
                | Self::Flood
                | Self::InvalidBlocks
                | Self::Forget
                | Self::Forge
                | Self::WrongSet
                | Self::WrongBlocks
                | Self::ClockJumps
                | Self::Dead
        )
    }
}

/// The faults that a run may draw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<FaultKind>);

impl Faults {
    /// `all`, `none`, or names with commas between.
    ///
    /// # Errors
    /// The name that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(FaultKind::ALL.iter().map(|(kind, _)| *kind).collect())),
            "none" => Ok(Self::default()),
            list => {
                let kind = |name: &str| {
                    let known = FaultKind::ALL.iter().find(|(_, known)| *known == name);
                    known.map(|(kind, _)| *kind).ok_or_else(|| format!("'{name}' is no fault"))
                };
                list.split(',').map(kind).collect::<Result<_, _>>().map(Self)
            }
        }
    }

    /// Whether a kind may be drawn.
    #[must_use]
    pub fn has(&self, kind: FaultKind) -> bool {
        self.0.contains(&kind)
    }

    /// The kinds that take a validator out of the third.
    pub fn of_a_third(&self) -> impl Iterator<Item = FaultKind> + '_ {
        self.0.iter().copied().filter(|kind| kind.is_of_a_third())
    }
}
