//! A network that remembers what it was told to send.

use parking_lot::Mutex;

use crate::ports::{Delivery, Message, Network};

/// Delivers to nobody; keeps every message.
#[derive(Debug, Default)]
pub struct RecordingNetwork(pub Mutex<Vec<Message>>);

impl Network for RecordingNetwork {
    fn broadcast(&self, message: &Message) -> Delivery {
        self.0.lock().push(message.clone());
        Delivery::Sent
    }

    fn peer_count(&self) -> usize {
        0
    }
}
