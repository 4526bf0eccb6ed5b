//! Bugs that tests plant, to see that the checkers find them.
//!
//! In a build without the feature `testing` nothing can be planted and every question here is a constant.

/// A bug in the rules, in what is remembered, in epochs, in certificates or in catching up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Notarize a second block of one slot.
    NotarizeTwice,
    /// Notarize after a skip of the same window.
    NotarizeAfterSkip,
    /// Notarize on a parent that has no certificate.
    NotarizeOnUncertifiedParent,
    /// Notarize across slots that were not skipped.
    NotarizeOverGap,
    /// Notarize a block that was not executed.
    NotarizeUnexecuted,
    /// Notarize a block that execution refused.
    NotarizeInvalid,
    /// Vote at or below the floor.
    IgnoreFloor,
    /// Finalize a slot that was skipped here.
    FinalizeAfterSkip,
    /// Finalize a block without its notarization.
    FinalizeUnnotarized,
    /// Finalize a second block of one slot.
    FinalizeTwice,
    /// Skip a slot that was finalized here.
    SkipAfterFinalize,
    /// Skip a slot that is notarized already.
    SkipNotarized,
    /// Propose a second block for one slot.
    ProposeTwice,
    /// Propose on a block below the newest notarized one.
    ProposeOnOldBase,
    /// Take a slot for decided that nothing decided.
    ClearEarly,
    /// Never tell others of a certificate.
    KeepCertificates,
    /// Commit a final block without the ancestors that it makes final.
    CommitWithoutAncestors,
    /// Send a signature before it is recorded.
    SendBeforeSync,
    /// Forget own votes at a restart.
    ForgetVotes,
    /// Forget the floor at a restart.
    ForgetFloor,
    /// Vote after the log was lost as if it had not been.
    IgnoreAmnesia,
    /// Forget own proposals at a restart, and propose anew in a window entered before it.
    ProposeAfterRestart,
    /// Go on with the old set in a new epoch.
    KeepSet,
    /// Begin a new epoch on a tail header.
    BeginOnTail,
    /// Do not check the next set that the last header names.
    IgnoreNextSet,
    /// Accept certificates of another epoch's set.
    AcceptOldEpoch,
    /// Let one unit of stake less than a quorum decide.
    QuorumLessOne,
    /// Count validators instead of their stake.
    CountHeads,
    /// Count a voter twice.
    CountTwice,
    /// Accept a certificate without looking at its signature.
    AcceptUnverified,
    /// Keep the whole aggregate when one share in it is wrong.
    KeepBadShare,
    /// Follow a finalization without fetching what it finalizes.
    FinalizeUnfetched,
    /// Take a fetched block for the one asked for, whatever its id.
    AcceptWrongBlock,
    /// Take a range of blocks without looking at what makes it final.
    TakeUnproven,
    /// Let a timer run on after a finalization.
    NeverResetTimers,
    /// Call an honest validator faulty for Notarize with Skip.
    AccuseHonest,
    /// Drop evidence.
    DropEvidence,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 37] = [
        Self::NotarizeTwice,
        Self::NotarizeAfterSkip,
        Self::NotarizeOnUncertifiedParent,
        Self::NotarizeOverGap,
        Self::NotarizeUnexecuted,
        Self::NotarizeInvalid,
        Self::IgnoreFloor,
        Self::FinalizeAfterSkip,
        Self::FinalizeUnnotarized,
        Self::FinalizeTwice,
        Self::SkipAfterFinalize,
        Self::SkipNotarized,
        Self::ProposeTwice,
        Self::ProposeOnOldBase,
        Self::ClearEarly,
        Self::KeepCertificates,
        Self::CommitWithoutAncestors,
        Self::SendBeforeSync,
        Self::ForgetVotes,
        Self::ForgetFloor,
        Self::IgnoreAmnesia,
        Self::ProposeAfterRestart,
        Self::KeepSet,
        Self::BeginOnTail,
        Self::IgnoreNextSet,
        Self::AcceptOldEpoch,
        Self::QuorumLessOne,
        Self::CountHeads,
        Self::CountTwice,
        Self::AcceptUnverified,
        Self::KeepBadShare,
        Self::FinalizeUnfetched,
        Self::AcceptWrongBlock,
        Self::TakeUnproven,
        Self::NeverResetTimers,
        Self::AccuseHonest,
        Self::DropEvidence,
    ];
}

/// The bug planted here, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted(
    /// The bug.
    #[cfg(any(test, feature = "testing"))]
    pub Option<Bug>,
);

impl Planted {
    /// Whether this bug is planted.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn has(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }

    /// Whether this bug is planted: never.
    #[cfg(not(any(test, feature = "testing")))]
    #[must_use]
    pub const fn has(self, _bug: Bug) -> bool {
        false
    }
}
