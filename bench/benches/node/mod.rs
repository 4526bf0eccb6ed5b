//! A whole node over a lab's chain, without sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use engine::{
    admission::PoolLimits,
    crypto::bls::{BlsScheme, SecretKey},
    ordering::event::Identity,
    pipeline::{Config, Node, Ports},
    ports::{Delivery, Network, Offender, Recovered},
    types::{Contact, Letter, RawTransaction},
};

use crate::lab::Lab;

/// A network of one.
struct Nobody;

impl Network for Nobody {
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

/// Starts the stages; an idle node makes no blocks.
pub(crate) fn start(lab: &Lab, slot_time: Duration, admission_workers: usize) -> Node {
    let config = Config {
        slot_time,
        build_time: slot_time,
        idle_interval: None,
        identity: Some(Identity::new(SecretKey::development())),
        scheme: Arc::new(BlsScheme),
        beneficiary: Default::default(),
        extra_data: Default::default(),
        admission_workers,
        pool: PoolLimits::default(),
        hint_percent: 0,
        give_way: || {},
    };
    let ports = Ports {
        store: lab.store.clone(),
        journal: lab.store.journal(),
        executor: lab.executor.clone(),
        network: Arc::new(Nobody),
    };
    Node::start(config, ports, Recovered::default()).expect("the threads start")
}

/// Hands transactions in and waits until all of them are admitted.
pub(crate) fn admit(node: &Node, raws: &[RawTransaction]) {
    // Who waits is woken once, for all.
    let (left, refused) = (Arc::new(AtomicUsize::new(raws.len())), Arc::new(AtomicBool::new(false)));
    for raw in raws {
        let (left, refused, waiting) = (left.clone(), refused.clone(), thread::current());
        let answer = move |result: Result<_, _>| {
            refused.fetch_or(result.is_err(), Ordering::Relaxed);
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                waiting.unpark();
            }
        };
        node.admission.submit(raw.clone(), Box::new(answer));
    }
    while left.load(Ordering::Acquire) > 0 {
        thread::park();
    }
    assert!(!refused.load(Ordering::Relaxed), "the plan signs what is valid");
}

/// The next transactions of the shape, as clients send them.
pub(crate) fn raws(lab: &mut Lab, count: usize) -> Vec<RawTransaction> {
    lab.signed(count).into_iter().map(|signed| RawTransaction::new(signed.raw)).collect()
}
