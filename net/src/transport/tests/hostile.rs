//! Peers that are no honest nodes: strangers, liars, and those who send what nobody may.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{Address, B256};
use engine::{
    crypto::{Scheme as _, Signer, bls::BlsScheme},
    ordering::event::Identity,
    types::{Domain, Epoch, Message, Signature, Slot, Statement, Validator, ValidatorIndex, ValidatorSet, Vote},
};

use super::kit::{Cluster, PATIENCE, node_key, secret};
use crate::{
    identity::NodeKey,
    testing::{Intruder, RawPeer},
    transport::{
        frame::{self, Kind, Lane},
        record::{NodeRecord, RecordError},
    },
};

/// A connection with TLS and nothing else.
async fn connect(key: &NodeKey, to: SocketAddr) -> RawPeer {
    let intruder = Intruder::new(Ipv4Addr::LOCALHOST.into()).expect("a socket");
    intruder.dial(key, to, PATIENCE).await.expect("TLS")
}

/// Shows a record and gives what the other side shows.
async fn say_hello(peer: &RawPeer, record: &NodeRecord) -> Option<NodeRecord> {
    peer.hello(&record.encoded()).await
}

/// The reason with which the other side ends the connection.
async fn reason(peer: &RawPeer) -> String {
    tokio::time::timeout(PATIENCE, peer.end()).await.expect("it is closed")
}

fn domain(cluster: &Cluster) -> Domain {
    cluster.spec.domain()
}

/// A stranger with a record that holds.
fn stranger(cluster: &Cluster, number: u8) -> (NodeKey, NodeRecord) {
    let key = node_key(number);
    let record = NodeRecord::sign(&domain(cluster), &key, 1, Vec::new(), None);
    (key, record)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_record_of_its_own_on_this_chain_is_not_let_in() {
    let cluster = Cluster::new(1, 1, &[]).await;
    let to = cluster.node(1).address;
    let (key, honest) = stranger(&cluster, 100);
    let other_chain = Domain { chain_id: 10, ..domain(&cluster) };
    let other_chain = NodeRecord::sign(&other_chain, &key, 1, Vec::new(), None);
    let other_key = stranger(&cluster, 101).1;
    let mut unsigned = honest.clone();
    unsigned.sequence = 2;
    // A validator's key of somebody else, with a signature over nothing.
    let claimant = Identity { public_key: secret(0).public_key(), signer: Arc::new(secret(5)) };
    let claimed = NodeRecord::sign(&domain(&cluster), &key, 1, Vec::new(), Some(&claimant));
    for (record, refused) in [
        (other_chain, "a record that does not hold, or of another chain"),
        (other_key, "a record of another identity"),
        (unsigned, "a record that does not hold, or of another chain"),
        (claimed, "a record that does not hold, or of another chain"),
    ] {
        let connection = connect(&key, to).await;
        say_hello(&connection, &record).await;
        assert_eq!(reason(&connection).await, refused, "{record:?}");
    }
    let before = cluster.node(1).transport.peer_infos().len();
    let connection = connect(&key, to).await;
    assert!(say_hello(&connection, &honest).await.is_some(), "an honest stranger is let in");
    let is_peer = |cluster: &Cluster| cluster.node(1).transport.peer_infos().len() == before + 1;
    cluster.until("it is a peer", is_peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_garbage_is_cut_and_refused_for_a_while() {
    let cluster = Cluster::new(1, 0, &[]).await;
    let to = cluster.node(0).address;
    let long = u32::MAX.to_be_bytes();
    let vote = frame::vote_datagram(&Message::Vote(forged_vote()));
    let as_word = frame::frame(Kind::Letter, &[&[0, 0, 0, 1, 99]]);
    let cases: [(&[u8], &str); 6] = [
        (&[9], "a stream for lane 9, which there is not"),
        (&[Lane::Words as u8, long[0], long[1], long[2], long[3], 1, 1], "a frame of 4294967295 bytes where"),
        (&[Lane::Words as u8, 0, 0, 0, 2, 88, 1], "a frame of kind 88 where it has no business"),
        (&[Lane::Words as u8, 0, 0, 0, 2, 1, 9], "a frame of version 9, which is not known here"),
        (&[Lane::Words as u8, 0, 0, 0, 1, 1, 1], "a frame of 1 bytes, which cannot have a head"),
        (&[&[Lane::Words as u8], as_word.as_slice()].concat(), "a frame that does not decode"),
    ];
    for (number, (bytes, refused)) in (110..).zip(cases) {
        let (key, record) = stranger(&cluster, number);
        let connection = connect(&key, to).await;
        say_hello(&connection, &record).await.expect("let in");
        let mut stream = connection.connection().open_uni().await.expect("a stream");
        stream.write_all(bytes).await.expect("sent");
        let reason = reason(&connection).await;
        assert!(reason.starts_with(refused), "{reason}");
        let again = connect(&key, to).await;
        assert_eq!(self::reason(&again).await, "it is refused here");
    }
    // Votes of strangers are dropped unheard, however many.
    let (key, record) = stranger(&cluster, 130);
    let connection = connect(&key, to).await;
    say_hello(&connection, &record).await.expect("let in");
    for _ in 0..2_000 {
        connection.connection().send_datagram_wait(vote.clone().into()).await.expect("it is still there");
    }
    cluster.reach(&[0], cluster.height(0) + 2).await;
    assert!(connection.connection().close_reason().is_none());
}

fn forged_vote() -> Vote {
    let statement = Statement::Skip { slot: Slot(3) };
    Vote { epoch: Epoch(0), statement, voter: ValidatorIndex(0), signature: Signature::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_only_so_many_places_and_validators_get_theirs() {
    let mut cluster = Cluster::new(2, 0, &[]).await;
    cluster.kill(1);
    let to = cluster.node(0).address;
    let mut held = Vec::new();
    let mut refused = 0;
    for number in 140..160 {
        let (key, record) = stranger(&cluster, number);
        let connection = connect(&key, to).await;
        say_hello(&connection, &record).await;
        if tokio::time::timeout(Duration::from_millis(200), connection.end()).await.is_ok() {
            refused += 1;
        }
        held.push(connection);
    }
    assert_eq!(held.len() - refused, engine::limits::STRANGERS_PER_NETWORK_MAX, "{refused} refused");
    // The other validator comes back although all places of its network are taken.
    cluster.start(1).await;
    cluster.reach(&[0, 1], cluster.height(0) + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_process_of_a_node_takes_the_place_of_the_older() {
    let cluster = Cluster::new(1, 0, &[]).await;
    let to = cluster.node(0).address;
    let key = node_key(0);
    let record = |sequence| NodeRecord::sign(&domain(&cluster), &node_key(170), sequence, Vec::new(), None);
    let old = connect(&node_key(170), to).await;
    say_hello(&old, &record(5)).await.expect("let in");
    let older = connect(&node_key(170), to).await;
    say_hello(&older, &record(4)).await;
    assert_eq!(reason(&older).await, "no place for it here");
    let newer = connect(&node_key(170), to).await;
    say_hello(&newer, &record(6)).await.expect("let in");
    assert_eq!(reason(&old).await, "a newer connection of the same node");
    // And nobody is a peer of itself.
    let oneself = connect(&key, to).await;
    assert_eq!(reason(&oneself).await, "it is refused here");
}

/// Signs everything alike.
#[derive(Debug)]
struct Replayed(Signature);

impl Signer for Replayed {
    fn sign(&self, _hash: B256) -> Signature {
        self.0
    }
}

fn validator(number: u8) -> Validator {
    Validator { public_key: secret(number).public_key(), stake: 1, operator: Address::ZERO }
}

#[test]
fn a_record_binds_a_validator_to_one_identity() {
    let domain = Domain { chain_id: 9, genesis: B256::repeat_byte(7) };
    let identity = Identity::new(secret(3));
    let record = NodeRecord::sign(&domain, &node_key(3), 8, Vec::new(), Some(&identity));
    let set = ValidatorSet::new(Epoch(0), vec![validator(3), validator(4)]).expect("a set");
    let committee = BlsScheme.committee(&set).expect("keys");
    let check = |record: &NodeRecord| record.check(&domain, &set, &*committee);
    assert_eq!(check(&record), Ok(Some(secret(3).public_key())));
    // What the validator signed for one identity says nothing of another, which signs all the rest itself.
    let stolen =
        Identity { public_key: identity.public_key, signer: Arc::new(Replayed(record.validator.expect("its").1)) };
    let moved = NodeRecord::sign(&domain, &node_key(4), 8, Vec::new(), Some(&stolen));
    assert_eq!(check(&moved), Err(RecordError::Validator));
    let nobody = NodeRecord::sign(&domain, &node_key(4), 8, Vec::new(), Some(&Identity::new(secret(5))));
    assert_eq!(check(&nobody), Ok(None), "a validator of another set is nobody here");
    let other_chain = Domain { chain_id: 10, ..domain };
    assert_eq!(record.check(&other_chain, &set, &*committee), Err(RecordError::OtherChain));
    let mut encoded = record.encoded();
    assert_eq!(NodeRecord::decode(&mut encoded.as_slice()), Ok(record));
    encoded.truncate(encoded.len() - 1);
    assert!(NodeRecord::decode(&mut encoded.as_slice()).is_err());
}
