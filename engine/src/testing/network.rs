//! A network that remembers what it was told to send.

use parking_lot::Mutex;

use crate::{
    ports::{Delivery, Network, Offender},
    types::{Contact, Letter},
};

/// Delivers to nobody; keeps every letter.
#[derive(Debug, Default)]
pub struct RecordingNetwork(pub Mutex<Vec<Letter>>);

impl Network for RecordingNetwork {
    fn broadcast(&self, letter: &Letter) -> Delivery {
        self.0.lock().push(letter.clone());
        Delivery::Sent
    }

    fn send(&self, _peer: u64, letter: &Letter) -> Delivery {
        self.broadcast(letter)
    }

    fn ban(&self, _offender: &Offender, _reason: &'static str) {}

    fn peers(&self) -> Vec<Contact> {
        Vec::new()
    }
}
