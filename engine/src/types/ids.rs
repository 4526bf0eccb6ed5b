//! Newtypes for every id and amount that could be swapped for another.

use alloy_rlp::{RlpDecodableWrapper, RlpEncodableWrapper};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, RlpEncodableWrapper, RlpDecodableWrapper,
        )]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Position in the chain; `number` in Ethereum's JSON only.
    Height(u64)
);
id!(
    /// One attempt to extend the chain; restarts at 0 in every epoch.
    Slot(u64)
);
id!(
    /// Period of one validator set.
    Epoch(u64)
);
id!(
    /// Place of a validator in its epoch's ordered set.
    ValidatorIndex(u16)
);
id!(
    /// Gas, Ethereum's unit of work.
    Gas(u64)
);
id!(
    /// Stake of a validator, in whole units of the genesis file.
    Stake(u64)
);

impl Height {
    /// The height of the genesis block.
    pub const GENESIS: Self = Self(0);

    /// The height after this one; saturates at the end of `u64`.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The height before this one, `None` at genesis.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(height) => Some(Self(height)),
            None => None,
        }
    }
}

impl Slot {
    /// The slot after this one; saturates at the end of `u64`.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
