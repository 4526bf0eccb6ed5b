//! Which logs a reader asks for, and the blocks that hold them.

use alloy_primitives::{
    Log,
    map::{AddressSet, B256Set},
};

use super::ids::Height;

/// Which logs: of an address among these, and at each position with a topic among those; empty is any.
///
/// A log with fewer topics than there are positions does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Addresses.
    pub addresses: AddressSet,
    /// Topics by position.
    pub topics: Vec<B256Set>,
}

impl LogFilter {
    /// Addresses and topics it names.
    #[must_use]
    pub fn items(&self) -> usize {
        self.topics.iter().fold(self.addresses.len(), |sum, position| sum.saturating_add(position.len()))
    }

    /// Whether a log fits.
    #[must_use]
    pub fn matches(&self, log: &Log) -> bool {
        let topics = log.data.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.len() <= topics.len()
            && self.topics.iter().zip(topics).all(|(wanted, topic)| wanted.is_empty() || wanted.contains(topic))
    }
}

/// Blocks that hold logs of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBlocks {
    /// Their heights, rising.
    pub heights: Vec<Height>,
    /// The first height that was not looked at; `None` if all were.
    pub next: Option<Height>,
}
