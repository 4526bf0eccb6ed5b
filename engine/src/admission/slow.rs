//! Senders who are refused for a while because a transaction of theirs took longer than a block may.

use std::collections::VecDeque;

use alloy_primitives::{Address, map::AddressMap};

use crate::{limits, types::Height};

/// The last [`limits::SLOW_SENDERS_MAX`] such senders.
#[derive(Debug, Default)]
pub(super) struct SlowSenders {
    until: AddressMap<Height>,
    /// Oldest first.
    order: VecDeque<Address>,
}

impl SlowSenders {
    /// Remembers a sender from `height` on.
    pub(super) fn add(&mut self, sender: Address, height: Height) {
        let until = Height(height.0.saturating_add(limits::SLOW_SENDER_HEIGHTS));
        if self.until.insert(sender, until).is_some() {
            return;
        }
        self.order.push_back(sender);
        if self.order.len() > limits::SLOW_SENDERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// The height from which the sender is heard again, if it is not heard at `height`.
    pub(super) fn until(&self, sender: Address, height: Height) -> Option<Height> {
        self.until.get(&sender).copied().filter(|until| height < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_heard_again_after_a_while_and_the_list_is_bounded() {
        let sender = |index: u64| Address::from_word(alloy_primitives::U256::from(index).into());
        let mut slow = SlowSenders::default();
        slow.add(sender(0), Height(10));
        let until = Height(10 + limits::SLOW_SENDER_HEIGHTS);
        assert_eq!(slow.until(sender(0), Height(10)), Some(until));
        assert_eq!((slow.until(sender(0), until), slow.until(sender(1), Height(10))), (None, None));
        let most = u64::try_from(limits::SLOW_SENDERS_MAX).unwrap();
        (1..=most).for_each(|index| slow.add(sender(index), Height(11)));
        assert_eq!(slow.until(sender(0), Height(11)), None, "the oldest is forgotten");
        assert!(slow.until(sender(1), Height(11)).is_some());
        assert_eq!((slow.order.len(), slow.until.len()), (limits::SLOW_SENDERS_MAX, limits::SLOW_SENDERS_MAX));
    }
}
