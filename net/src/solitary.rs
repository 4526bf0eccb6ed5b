//! The `Network` port of a network of one: there is nobody to tell.

use engine::{
    ports::{Delivery, Network, Offender},
    types::{Contact, Letter},
};

/// A network without peers; every letter reaches all of them at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solitary;

impl Network for Solitary {
    fn broadcast(&self, _letter: &Letter) -> Delivery {
        Delivery::Sent
    }

    fn send(&self, _peer: u64, _letter: &Letter) -> Delivery {
        Delivery::Sent
    }

    fn ban(&self, _offender: &Offender, _reason: &'static str) {}

    fn peers(&self) -> Vec<Contact> {
        Vec::new()
    }
}
