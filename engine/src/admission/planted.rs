//! Weaknesses that tests plant in the pool, to see that the checkers find them.
//!
//! In a build without tests nothing can be planted and every question here is a constant.

/// A rule of the pool that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weakness {
    /// Displace who pays more.
    IgnorePrices,
    /// Go on to rank by the first base fee.
    KeepPrices,
    /// Let who bids just above the base fee displace others.
    NoHeadroom,
    /// Let a whole run displace others, though one transaction may void it.
    RunsDisplace,
    /// Do not ask whether a sender can pay.
    IgnoreFunds,
    /// Let a large transaction displace several that can pay.
    DisplaceMany,
    /// Let nobody be displaced.
    DisplaceNobody,
    /// Say how a transaction ends when it leaves, though a block under way may include it.
    DecideAtOnce,
}

#[cfg(test)]
impl Weakness {
    /// Every one.
    pub(super) const ALL: [Self; 7] = [
        Self::IgnorePrices,
        Self::KeepPrices,
        Self::NoHeadroom,
        Self::RunsDisplace,
        Self::IgnoreFunds,
        Self::DisplaceMany,
        Self::DisplaceNobody,
    ];
}

/// The weakness planted here, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Planted(#[cfg(test)] pub(super) Option<Weakness>);

impl Planted {
    /// Whether this weakness is planted.
    #[cfg(test)]
    pub(super) fn has(self, weakness: Weakness) -> bool {
        self.0 == Some(weakness)
    }

    /// Whether this weakness is planted: never.
    #[cfg(not(test))]
    pub(super) const fn has(self, _weakness: Weakness) -> bool {
        false
    }
}
