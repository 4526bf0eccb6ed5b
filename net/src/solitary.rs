//! The `Network` port of a network of one: there is nobody to tell.

use engine::ports::{Delivery, Message, Network};

/// A network without peers; every message reaches all of them at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solitary;

impl Network for Solitary {
    fn broadcast(&self, _message: &Message) -> Delivery {
        Delivery::Sent
    }

    fn peer_count(&self) -> usize {
        0
    }
}
